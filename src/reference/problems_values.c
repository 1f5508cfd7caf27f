/* What the buffers of a random problem hold. */
#include "problems_parts.h"
#include "rounding.h"

static int64_t range(attni_random *r, int64_t low, int64_t high) { return attni_random_range(r, low, high); }
static int chance(attni_random *r, int percent) { return attni_random_chance(r, percent); }

typedef struct taste {
    double q_size, k_size, v_size;
    int one_sided;  /* q below 0, k above: every score far on one side of 0 */
    int uneven;     /* rows of q of different sizes: some peaked, some flat */
    int same_keys;  /* ties */
    int minus_inf, very_low; /* percent of such biases */
    int mask_density;
} taste;

static taste draw_taste(attni_random *r, const attni_problems_case *c) {
    taste made = {1.0, 1.0, 1.0, 0, chance(r, 20), chance(r, 4), 0, 0, (int)range(r, 5, 95)};
    double scale = c->tensors.scale == ATTN_SCALE_DEFAULT ? 1.0 / sqrt((double)c->problem.dim_qk)
                                                          : fabs((double)c->tensors.scale) + 1e-3;
    double spread = scale * sqrt((double)c->problem.dim_qk); /* of a score, for q and k of size 1 */
    if (chance(r, 8)) made.q_size = 1e4 / spread;            /* large logits */
    if (chance(r, 8)) {                                      /* LSE far below -88, or far above 88 */
        made.one_sided = 1;
        made.q_size = (100.0 + 3000.0 * attni_random_uniform(r)) / (spread * sqrt((double)c->problem.dim_qk));
    }
    if (chance(r, 10)) made.v_size = chance(r, 50) ? 100.0 : 1e-3;
    if (chance(r, 30)) made.minus_inf = (int)range(r, 5, 100);
    if (chance(r, 20)) made.very_low = 5;
    return made;
}

/* Any number that a 16-bit float holds as well, or one of the dtype's own 8 bits. */
static double tame(double x, attn_dtype dtype) {
    double most = dtype == ATTN_F8_E4M3 ? 448.0 : dtype == ATTN_F8_E5M2 ? 57344.0 : 60000.0;
    return x > most ? most : x < -most ? -most : x;
}

static void fill_rows(attni_random *r, const attni_problems_case *c, attni_problems_which which,
                      const taste *liking) {
    const attn_problem *p = &c->problem;
    int queries = which == ATTNI_PROBLEMS_Q, values = which == ATTNI_PROBLEMS_V;
    int64_t heads = queries ? p->heads_q : p->heads_kv, dim = values ? p->dim_v : p->dim_qk;
    attn_dtype dtype = queries ? p->dtype_q : p->dtype_kv;
    attn_strides s = attni_reference_strides(queries  ? p->q
                                             : values ? p->v
                                                      : p->k,
                                             queries ? p->seqlen_q : p->seqlen_k, heads, dim);
    unsigned char *base = c->buffers[which].memory + c->buffers[which].offset;
    double size = queries ? liking->q_size : values ? liking->v_size : liking->k_size;
    double first[1024];
    for (int64_t d = 0; d < dim; ++d) first[d] = attni_random_normal(r);

    for (int64_t b = 0; b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
        int64_t rows = queries ? at.rows : at.keys;
        int64_t begin = queries ? at.slice_q * s.batch + at.first_row * s.seqlen
                                : at.slice_k * s.batch + at.first_key * s.seqlen;
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t h = 0; h < heads; ++h) {
                double row_size =
                    queries && liking->uneven ? size * exp(4.0 * attni_random_uniform(r) - 2.0) : size;
                for (int64_t d = 0; d < dim; ++d) {
                    double x = liking->same_keys && !queries && !values ? first[d] : attni_random_normal(r);
                    if (liking->one_sided && !values) x = queries ? -fabs(x) : fabs(x);
                    attni_reference_store(base, dtype, begin + i * s.seqlen + h * s.heads + d,
                                          tame(row_size * x, dtype));
                }
            }
        }
    }
}

static double draw_bias(attni_random *r, attn_dtype dtype, const taste *liking) {
    if (chance(r, liking->minus_inf)) return (double)-INFINITY;
    if (chance(r, liking->very_low)) return dtype == ATTN_F16 ? -65504.0 : -1e30;
    return 2.0 * attni_random_normal(r);
}

/* bias or mask, where some sequence has that row and that key. */
static void fill_scores(attni_random *r, const attni_problems_case *c, attni_problems_which which,
                        const taste *liking) {
    const attn_problem *p = &c->problem;
    int bias = which == ATTNI_PROBLEMS_BIAS;
    attn_score_strides s = attni_reference_score_strides(bias ? p->bias : p->mask_strides, p);
    unsigned char *base = c->buffers[which].memory + c->buffers[which].offset;
    for (int64_t b = 0; b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
        for (int64_t h = 0; h < p->heads_q; ++h) {
            for (int64_t i = 0; i < at.rows; ++i) {
                int density = chance(r, 10) ? 0 : liking->mask_density;
                for (int64_t j = 0; j < at.keys; ++j) {
                    int64_t index = b * s.batch + h * s.heads + i * s.queries + j;
                    if (bias)
                        attni_reference_store(base, p->dtype_bias, index,
                                              draw_bias(r, p->dtype_bias, liking));
                    else
                        base[index] = (unsigned char)(chance(r, density) ? range(r, 1, 255) : 0);
                }
            }
        }
    }
}

static void fill_floats(attni_random *r, const attni_problems_case *c) {
    const attn_problem *p = &c->problem;
    if (p->has_alibi) {
        float *slopes = (float *)(uintptr_t)c->tensors.alibi_slopes;
        for (int64_t b = 0; b < p->batch; ++b) {
            for (int64_t h = 0; h < p->heads_q; ++h) {
                double slope = chance(r, 80) ? exp2(-8.0 * attni_random_uniform(r)) : attni_random_normal(r);
                slopes[b * p->alibi_stride_batch + h] = (float)slope;
            }
        }
    }
    if (p->has_sinks) {
        float *sinks = (float *)(uintptr_t)c->tensors.sinks;
        for (int64_t h = 0; h < p->heads_q; ++h) {
            sinks[h] = (float)((chance(r, 10) ? 100.0 : 3.0) * attni_random_normal(r));
            if (chance(r, 3)) sinks[h] = -INFINITY;
        }
    }
}

/* Some below 0, some 0. */
static void fill_scales(attni_random *r, const attni_problems_case *c) {
    const attn_problem *p = &c->problem;
    for (int which = ATTNI_PROBLEMS_Q_SCALE; p->has_scales && which <= ATTNI_PROBLEMS_V_SCALE; ++which) {
        float *scales = (float *)(void *)(c->buffers[which].memory + c->buffers[which].offset);
        for (int64_t b = 0; b < p->batch; ++b) {
            for (int64_t h = 0; h < p->heads_kv; ++h) {
                double size = exp2(2.0 * attni_random_uniform(r) - 1.0);
                if (chance(r, 5)) size = chance(r, 20) ? 0.0 : -size;
                scales[b * p->scale_stride_batch + h * p->scale_stride_head] = (float)size;
            }
        }
    }
}

/* One NaN in a row of q, or one +inf in the bias: that row answers NaN, and no other. */
static void fill_trouble(attni_random *r, const attni_problems_case *c) {
    const attn_problem *p = &c->problem;
    if (p->batch == 0) return;
    int64_t b = range(r, 0, p->batch - 1), h = range(r, 0, p->heads_q - 1);
    attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
    if (at.rows == 0 || at.keys == 0) return;
    int64_t i = range(r, 0, at.rows - 1), j = range(r, 0, at.keys - 1);
    if (p->has_bias && chance(r, 50)) {
        attn_score_strides s = attni_reference_score_strides(p->bias, p);
        const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_BIAS];
        attni_reference_store(buffer->memory + buffer->offset, p->dtype_bias,
                              b * s.batch + h * s.heads + i * s.queries + j, (double)INFINITY);
        return;
    }
    attn_strides s = attni_reference_strides(p->q, p->seqlen_q, p->heads_q, p->dim_qk);
    const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_Q];
    attni_reference_store(buffer->memory + buffer->offset, p->dtype_q,
                          at.slice_q * s.batch + (at.first_row + i) * s.seqlen + h * s.heads +
                              range(r, 0, p->dim_qk - 1),
                          (double)NAN);
}

void attni_problems_fill(attni_random *r, const attni_problems_case *c) {
    taste liking = draw_taste(r, c);
    fill_rows(r, c, ATTNI_PROBLEMS_Q, &liking);
    fill_rows(r, c, ATTNI_PROBLEMS_K, &liking);
    fill_rows(r, c, ATTNI_PROBLEMS_V, &liking);
    if (c->problem.has_bias) fill_scores(r, c, ATTNI_PROBLEMS_BIAS, &liking);
    if (c->problem.has_mask) fill_scores(r, c, ATTNI_PROBLEMS_MASK, &liking);
    fill_floats(r, c);
    fill_scales(r, c);
    if (chance(r, 3)) fill_trouble(r, c);
}
