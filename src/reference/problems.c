#include "problems.h"

#include <stdlib.h>
#include <string.h>

#include "problems_parts.h"
#include "rounding.h"

#define COUNT(array) ((int64_t)(sizeof(array) / sizeof((array)[0])))

static int64_t range(attni_random *r, int64_t low, int64_t high) { return attni_random_range(r, low, high); }
static int chance(attni_random *r, int percent) { return attni_random_chance(r, percent); }

/* ---------------------------------------------------------------- the problem */

/* What tiles are made of, and one less and one more. */
static const int64_t edges[] = {1,   2,   3,   4,   5,   7,   8,   9,   15,  16,  17,  23, 24,
                                25,  31,  32,  33,  47,  48,  49,  63,  64,  65,  95,  96, 97,
                                127, 128, 129, 191, 192, 193, 255, 256, 257, 383, 384, 385};
static const int64_t dims[] = {40, 63, 64, 65, 72, 80, 96, 112, 127, 128, 129, 160, 192, 256, 512, 576, 1024};

static int64_t draw_edge(attni_random *r, int64_t most) {
    int64_t count = 1;
    while (count < COUNT(edges) && edges[count] <= most) ++count;
    return edges[range(r, 0, count - 1)];
}

/* Padded dims of the variants that a device is tested on; the true ones are up to 31 less. */
static void draw_device_dims(attni_random *r, const attni_problems_limits *limits, int64_t unit,
                             attn_problem *p) {
    static const int64_t pairs[][2] = {{64, 64},   {128, 128}, {64, 64}, {128, 128}, {256, 256},
                                       {192, 128}, {32, 32},   {64, 32}, {96, 96},   {576, 512}};
    const int64_t *pair = pairs[range(r, 0, limits->f8 ? 5 : COUNT(pairs) - 1)]; /* f8: the first six */
    const int whole = chance(r, 50);
    p->dim_qk = pair[0] - (whole ? 0 : range(r, 0, 31) / unit * unit);
    p->dim_v = pair[1] - (whole ? 0 : range(r, 0, 31) / unit * unit);
}

/* Elements that every stride and every tensor's begin is a multiple of. */
static int64_t draw_unit(attni_random *r, const attni_problems_limits *limits) {
    if (limits->f8) return 16;
    return limits->device && chance(r, 75) ? 8 : 1;
}

static int64_t work_of(const attn_problem *p) {
    return p->batch * p->heads_q * p->seqlen_q * p->seqlen_k * (p->dim_qk + p->dim_v);
}

static void draw_sizes(attni_random *r, const attni_problems_limits *limits, int64_t unit, attn_problem *p) {
    if (limits->longer && chance(r, limits->longer)) {
        p->seqlen_q = range(r, 200, 1100);
        p->seqlen_k = range(r, 200, 1100);
        p->dim_qk = range(r, 1, 9);
        p->dim_v = range(r, 1, 9);
        p->heads_kv = range(r, 1, 2);
        p->heads_q = p->heads_kv * (p->seqlen_q < 400 ? range(r, 1, 3) : 1);
        return;
    }
    int64_t work = chance(r, 4) ? 4 * limits->work : limits->work;
    int kind = (int)range(r, 0, 99);
    int64_t group = chance(r, 40) ? 1 : range(r, 2, 5);
    p->batch = range(r, 1, 3);
    p->heads_kv = range(r, 1, 3);
    p->seqlen_q = draw_edge(r, 33);
    p->seqlen_k = draw_edge(r, 33);
    p->dim_qk = draw_edge(r, 33);
    p->dim_v = chance(r, 60) ? p->dim_qk : draw_edge(r, 33);
    if (kind < 10) { /* decode */
        p->seqlen_q = range(r, 1, 4);
        p->dim_qk = p->dim_v = chance(r, 50) ? 64 : draw_edge(r, 129);
        p->seqlen_k = chance(r, 30) ? range(r, 500, 4000) : draw_edge(r, 385);
    } else if (kind < 25) { /* wide heads */
        p->dim_qk = dims[range(r, 0, COUNT(dims) - 1)];
        p->dim_v = chance(r, 60) ? p->dim_qk : dims[range(r, 0, COUNT(dims) - 1)];
        if (chance(r, 20)) { /* the shapes of latent attention */
            int latent = chance(r, 50);
            p->dim_qk = latent ? 576 : 192;
            p->dim_v = latent ? 512 : 128;
        }
    } else if (kind < 60) { /* tile edges */
        p->seqlen_q = draw_edge(r, 385);
        p->seqlen_k = draw_edge(r, 385);
    }
    if (limits->device) draw_device_dims(r, limits, unit, p);
    p->heads_q = group * p->heads_kv;
    while (work_of(p) > work) {
        if (p->batch > 1)
            --p->batch;
        else if (group > 1 && chance(r, 50))
            --group;
        else if (p->heads_kv > 1)
            --p->heads_kv;
        else if (p->seqlen_q > 4 && chance(r, 50))
            p->seqlen_q = draw_edge(r, p->seqlen_q - 1);
        else if (p->seqlen_k > 385)
            p->seqlen_k -= p->seqlen_k / 3;
        else if (p->seqlen_k > 1)
            p->seqlen_k = draw_edge(r, p->seqlen_k - 1);
        else
            group = 1;
        p->heads_q = group * p->heads_kv;
    }
    if (limits->f8 && chance(r, 30)) { /* so many queries that V is turned once */
        p->batch = p->heads_kv = 1;
        p->heads_q = group;
        p->seqlen_q = 4096 / group + range(r, 1, 99);
        p->seqlen_k = range(r, 1, limits->work > 1000000 ? 600 : 60);
    }
    if (chance(r, 2)) p->seqlen_q = 0;
    if (chance(r, 2)) p->seqlen_k = 0;
    if (range(r, 0, 299) == 0) p->batch = 0;
}

static void draw_dtypes(attni_random *r, const attni_problems_limits *limits, attn_problem *p) {
    p->dtype_q = (attn_dtype)range(r, 0, 2);
    p->dtype_kv = p->dtype_q == ATTN_F32 && chance(r, 50) ? (attn_dtype)range(r, 0, 2) : p->dtype_q;
    p->dtype_o = chance(r, 70) ? p->dtype_q : (attn_dtype)range(r, 0, 2);
    p->dtype_bias = (attn_dtype)range(r, 0, 2);
    if (limits->device) {
        p->dtype_q = p->dtype_kv = p->dtype_o = chance(r, 70) ? ATTN_BF16 : ATTN_F16;
        if (chance(r, 50)) p->dtype_bias = p->dtype_q;
    }
    if (limits->f8) p->dtype_q = p->dtype_kv = chance(r, 70) ? ATTN_F8_E4M3 : ATTN_F8_E5M2;
}

static void draw_options(attni_random *r, const attni_problems_limits *limits, attn_problem *p) {
    static const float drops[] = {0.1f, 0.25f, 0.5f, 0.9f, 0.999f, 1e-6f};
    if (chance(r, 20)) p->lengths_q = (attn_lengths)range(r, 1, 2);
    if (chance(r, 20) && !limits->pieces) p->lengths_k = (attn_lengths)range(r, 1, 2);
    if (chance(r, 35)) p->mask = ATTN_MASK_CAUSAL;
    if (chance(r, 15)) p->window_left = chance(r, 20) ? 0 : range(r, 0, p->seqlen_k + 1);
    if (chance(r, 15)) p->window_right = chance(r, 20) ? 0 : range(r, 0, p->seqlen_k + 1);
    if (chance(r, 1)) p->window_left = INT64_MAX;
    if (chance(r, 15)) p->softcap = chance(r, 50) ? 30.0f : (float)(0.1 + 50.0 * attni_random_uniform(r));
    if (chance(r, 12)) p->dropout_p = drops[range(r, 0, COUNT(drops) - 1)];
    p->has_alibi = chance(r, 15);
    p->has_sinks = chance(r, 15);
    p->has_bias = chance(r, 20);
    p->has_mask = chance(r, 20);
    if (p->has_alibi && chance(r, 40)) p->alibi_stride_batch = p->heads_q + range(r, 0, 3);
    p->deterministic = chance(r, 10);
    p->batch_invariant = chance(r, 10);
    if (limits->device && chance(r, 60)) { /* only what shapes no score */
        p->softcap = p->dropout_p = 0.0f;
        p->has_alibi = p->has_bias = p->has_mask = 0;
    }
}

/* Scales for each head, for the tensor, or anything between; only what forward_sm90_f8 has beside them. */
static void draw_f8_options(attni_random *r, attn_problem *p) {
    p->softcap = p->dropout_p = 0.0f;
    p->has_alibi = p->has_bias = p->has_mask = 0;
    p->lengths_q = p->lengths_k = ATTN_LENGTHS_FULL;
    p->has_scales = chance(r, 80);
    if (!p->has_scales || chance(r, 25)) return;
    p->scale_stride_head = range(r, 0, 2);
    p->scale_stride_batch = chance(r, 60) ? p->heads_kv * p->scale_stride_head : range(r, 0, 9);
}

/* ---------------------------------------------------------------- lengths and positions */

static int64_t draw_length(attni_random *r, int64_t most) {
    if (chance(r, 40)) return most;
    if (chance(r, 10)) return 0;
    if (chance(r, 4)) return most + range(r, 1, 3); /* clamped */
    return range(r, 0, most);
}

static int draw_lengths(attni_random *r, attn_lengths kind, int64_t batch, int64_t most,
                        attni_problems_buffer *buffer, int64_t *full) {
    if (kind == ATTN_LENGTHS_FULL) {
        if (chance(r, 15)) *full = draw_length(r, most);
        return 0;
    }
    int ragged = kind == ATTN_LENGTHS_RAGGED;
    int32_t *lengths = attni_buffer_input(buffer, (batch + ragged) * 4, range(r, 0, 7) * 4, 0);
    if (!lengths) return -1;
    if (ragged) lengths[0] = 0;
    for (int64_t b = 0; b < batch; ++b) {
        int32_t length = (int32_t)draw_length(r, most);
        lengths[b + ragged] = ragged ? lengths[b] + length : length;
    }
    return 0;
}

static void draw_positions(attni_random *r, const attni_problems_limits *limits, attni_problems_case *c) {
    static const int64_t far_starts[] = {1 << 20, -(1 << 20), ((int64_t)1 << 32) - 9, -((int64_t)1 << 33) + 3,
                                         (int64_t)1 << 40};
    const attn_problem *p = &c->problem;
    attn_tensors *t = &c->tensors;
    if (chance(r, 15)) t->key_start = range(r, -9, p->seqlen_k + 9);
    if (chance(r, 20))
        t->query_start = 0;
    else if (chance(r, 20))
        t->query_start = range(r, -5, p->seqlen_k + 5);
    if (chance(r, 5)) {
        t->key_start = far_starts[range(r, 0, COUNT(far_starts) - 1)];
        t->query_start = chance(r, 50) ? ATTN_POSITION_DEFAULT : t->key_start + range(r, -5, p->seqlen_k + 5);
    }
    if (limits->pieces) {
        if (t->key_start == ATTN_POSITION_DEFAULT) t->key_start = 0;
        if (t->query_start == ATTN_POSITION_DEFAULT)
            t->query_start = t->key_start + p->seqlen_k - p->seqlen_q;
    }
}

/* ---------------------------------------------------------------- layouts */

typedef struct dimension {
    int64_t *stride;
    int64_t extent;
    int64_t packed;
    int may_broadcast;
} dimension;

typedef struct layout {
    int64_t span, origin; /* elements, and the one at which the tensor's pointer stands */
} layout;

static int64_t round_to(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

/* dims come outermost first; contiguous elements lie below the innermost. Gaps are multiples of unit. */
static layout draw_layout(attni_random *r, dimension *list, int count, int64_t contiguous, int64_t unit) {
    layout made = {contiguous, 0};
    int order[3] = {0, 1, 2};
    int packed = chance(r, 45);
    if (!packed && chance(r, 60)) { /* permuted */
        for (int i = count - 1; i > 0; --i) {
            int other = (int)range(r, 0, i), kept = order[i];
            order[i] = order[other];
            order[other] = kept;
        }
    }
    for (int i = count - 1; i >= 0; --i) {
        dimension *d = &list[order[i]];
        int64_t extent = d->extent > 0 ? d->extent : 1;
        if (packed) {
            *d->stride = chance(r, 10) ? d->packed : ATTN_STRIDE_PACKED;
            made.span += d->packed * (extent - 1);
            continue;
        }
        if (d->may_broadcast && chance(r, 12)) {
            *d->stride = 0;
            continue;
        }
        int64_t stride = made.span + (chance(r, 40) ? round_to(range(r, 1, 17), unit) : 0);
        made.span += stride * (extent - 1);
        *d->stride = stride;
        if (chance(r, 4)) {
            *d->stride = -stride;
            made.origin += stride * (extent - 1);
        }
    }
    return made;
}

static layout draw_tensor(attni_random *r, attn_strides *s, int64_t batch, int64_t rows, int64_t seqlen,
                          int64_t heads, int64_t dim, attn_lengths kind, int64_t unit, int output) {
    dimension list[3] = {{&s->batch, batch, seqlen * heads * dim, !output},
                         {&s->seqlen, rows, heads * dim, 0},
                         {&s->heads, heads, dim, !output}};
    if (kind != ATTN_LENGTHS_RAGGED) return draw_layout(r, list, 3, dim, unit);
    if (chance(r, 20)) s->batch = range(r, 0, 9) * unit; /* ignored */
    return draw_layout(r, list + 1, 2, dim, unit);
}

static layout draw_score_layout(attni_random *r, attn_score_strides *s, const attn_problem *p, int64_t unit) {
    dimension list[3] = {{&s->batch, p->batch, p->heads_q * p->seqlen_q * p->seqlen_k, 1},
                         {&s->heads, p->heads_q, p->seqlen_q * p->seqlen_k, 1},
                         {&s->queries, p->seqlen_q, p->seqlen_k, 1}};
    for (int i = 0; i < 3; ++i) list[i].may_broadcast += chance(r, 20);
    return draw_layout(r, list, 3, round_to(p->seqlen_k, unit), unit);
}

static int64_t ragged_total(attn_lengths kind, const int32_t *lengths, int64_t batch, int64_t seqlen) {
    return kind == ATTN_LENGTHS_RAGGED ? lengths[batch] : seqlen;
}

static int place(attni_random *r, attni_problems_buffer *buffer, layout at, attn_dtype dtype, int64_t unit,
                 int output) {
    int64_t size = (int64_t)attni_reference_size(dtype);
    int64_t skew = chance(r, 50) ? 0 : round_to(range(r, 1, 17), unit);
    void *made = output ? attni_buffer_output(buffer, at.span * size, skew * size, at.origin * size)
                        : attni_buffer_input(buffer, at.span * size, skew * size, at.origin * size);
    return made ? 0 : -1;
}

static int draw_layouts(attni_random *r, int64_t unit, attni_problems_case *c) {
    attn_problem *p = &c->problem;
    const attn_tensors *t = &c->tensors;
    int64_t rows = ragged_total(p->lengths_q, t->lengths_q, p->batch, p->seqlen_q);
    int64_t keys = ragged_total(p->lengths_k, t->lengths_k, p->batch, p->seqlen_k);
    layout q =
        draw_tensor(r, &p->q, p->batch, rows, p->seqlen_q, p->heads_q, p->dim_qk, p->lengths_q, unit, 0);
    layout k =
        draw_tensor(r, &p->k, p->batch, keys, p->seqlen_k, p->heads_kv, p->dim_qk, p->lengths_k, unit, 0);
    layout v =
        draw_tensor(r, &p->v, p->batch, keys, p->seqlen_k, p->heads_kv, p->dim_v, p->lengths_k, unit, 0);
    layout o =
        draw_tensor(r, &p->o, p->batch, rows, p->seqlen_q, p->heads_q, p->dim_v, p->lengths_q, unit, 1);
    if (place(r, &c->buffers[ATTNI_PROBLEMS_Q], q, p->dtype_q, unit, 0)) return -1;
    if (place(r, &c->buffers[ATTNI_PROBLEMS_K], k, p->dtype_kv, unit, 0)) return -1;
    if (place(r, &c->buffers[ATTNI_PROBLEMS_V], v, p->dtype_kv, unit, 0)) return -1;
    if (place(r, &c->buffers[ATTNI_PROBLEMS_O], o, p->dtype_o, unit, 1)) return -1;
    if (chance(r, 80)) {
        layout lse = {attni_reference_lse_count(p, t), 0};
        if (place(r, &c->buffers[ATTNI_PROBLEMS_LSE], lse, ATTN_F32, 1, 1)) return -1;
        if (p->lengths_q == ATTN_LENGTHS_RAGGED) c->tensors.total_q = rows;
    }
    if (p->has_bias) {
        layout bias = draw_score_layout(r, &p->bias, p, unit);
        if (place(r, &c->buffers[ATTNI_PROBLEMS_BIAS], bias, p->dtype_bias, unit, 0)) return -1;
    }
    if (p->has_mask) {
        layout mask = draw_score_layout(r, &p->mask_strides, p, unit);
        attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_MASK];
        if (!attni_buffer_input(buffer, mask.span, range(r, 0, 17), mask.origin)) return -1;
    }
    int64_t slopes = p->heads_q + (p->batch > 1 ? p->alibi_stride_batch * (p->batch - 1) : 0);
    if (p->has_alibi && !attni_buffer_input(&c->buffers[ATTNI_PROBLEMS_SLOPES], slopes * 4, 4, 0)) return -1;
    if (p->has_sinks && !attni_buffer_input(&c->buffers[ATTNI_PROBLEMS_SINKS], p->heads_q * 4, 4, 0))
        return -1;
    int64_t scales = p->scale_stride_head * (p->heads_kv - 1) + 1;
    if (p->batch > 1) scales += p->scale_stride_batch * (p->batch - 1);
    for (int i = ATTNI_PROBLEMS_Q_SCALE; p->has_scales && i <= ATTNI_PROBLEMS_V_SCALE; ++i) {
        if (!attni_buffer_input(&c->buffers[i], scales * 4, 4, 0)) return -1;
    }
    return 0;
}

int attni_problems_place(attni_random *r, attni_problems_case *c, attni_problems_which which,
                         attn_strides *strides, int queries, int64_t heads, int64_t dim, attn_dtype dtype,
                         int output) {
    const attn_problem *p = &c->problem;
    attn_lengths kind = queries ? p->lengths_q : p->lengths_k;
    int64_t seqlen = queries ? p->seqlen_q : p->seqlen_k;
    int64_t rows =
        ragged_total(kind, queries ? c->tensors.lengths_q : c->tensors.lengths_k, p->batch, seqlen);
    layout at = draw_tensor(r, strides, p->batch, rows, seqlen, heads, dim, kind, 1, output);
    return place(r, &c->buffers[which], at, dtype, 1, output);
}

/* ---------------------------------------------------------------- a case */

static const void *pointer_of(const attni_problems_case *c, attni_problems_which which) {
    const attni_problems_buffer *buffer = &c->buffers[which];
    return buffer->memory ? buffer->memory + buffer->offset : NULL;
}

void attni_problems_point(attni_problems_case *c) {
    attn_tensors *t = &c->tensors;
    t->q = pointer_of(c, ATTNI_PROBLEMS_Q);
    t->k = pointer_of(c, ATTNI_PROBLEMS_K);
    t->v = pointer_of(c, ATTNI_PROBLEMS_V);
    t->o = (void *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_O);
    t->lse = (float *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_LSE);
    t->lengths_q = pointer_of(c, ATTNI_PROBLEMS_LENGTHS_Q);
    t->lengths_k = pointer_of(c, ATTNI_PROBLEMS_LENGTHS_K);
    t->bias = pointer_of(c, ATTNI_PROBLEMS_BIAS);
    t->mask = pointer_of(c, ATTNI_PROBLEMS_MASK);
    t->alibi_slopes = pointer_of(c, ATTNI_PROBLEMS_SLOPES);
    t->sinks = pointer_of(c, ATTNI_PROBLEMS_SINKS);
    t->q_scale = pointer_of(c, ATTNI_PROBLEMS_Q_SCALE);
    t->k_scale = pointer_of(c, ATTNI_PROBLEMS_K_SCALE);
    t->v_scale = pointer_of(c, ATTNI_PROBLEMS_V_SCALE);
    t->dout = pointer_of(c, ATTNI_PROBLEMS_DOUT);
    t->dlse = pointer_of(c, ATTNI_PROBLEMS_DLSE);
    t->dq = (void *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_DQ);
    t->dk = (void *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_DK);
    t->dv = (void *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_DV);
    t->dbias = (float *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_DBIAS);
    t->dsinks = (float *)(uintptr_t)pointer_of(c, ATTNI_PROBLEMS_DSINKS);
}

static int make(attni_random *r, attni_problems_case *c, const attni_problems_limits *limits) {
    attn_problem *p = &c->problem;
    attn_tensors *t = &c->tensors;
    const int64_t unit = draw_unit(r, limits);
    draw_sizes(r, limits, unit, p);
    draw_dtypes(r, limits, p);
    if (chance(r, 90)) draw_options(r, limits, p);
    if (limits->f8) draw_f8_options(r, p);
    if (draw_lengths(r, p->lengths_q, p->batch, p->seqlen_q, &c->buffers[ATTNI_PROBLEMS_LENGTHS_Q],
                     &t->seqlen_q) ||
        draw_lengths(r, p->lengths_k, p->batch, p->seqlen_k, &c->buffers[ATTNI_PROBLEMS_LENGTHS_K],
                     &t->seqlen_k)) {
        return -1;
    }
    draw_positions(r, limits, c);
    if (chance(r, 40))
        t->scale = (float)(4.0 * attni_random_uniform(r) - 2.0) / (float)sqrt((double)p->dim_qk);
    if (chance(r, 3)) t->scale = 0.0f;
    t->dropout_seed = attni_random_next(r);
    t->dropout_offset = attni_random_next(r);
    attni_problems_point(c); /* the lengths: layouts and values need them */
    if (draw_layouts(r, unit, c)) return -1;
    attni_problems_point(c);
    attni_problems_fill(r, c);
    attni_problems_describe(c);
    attni_problems_poison(c);
    return 0;
}

int attni_problems_make(attni_problems_case *made, uint64_t seed, const attni_problems_limits *limits) {
    static const attni_problems_limits usual = ATTNI_PROBLEMS_LIMITS_INIT;
    const attn_problem problem = ATTN_PROBLEM_INIT;
    const attn_tensors tensors = ATTN_TENSORS_INIT;
    attni_random random = {seed};
    attni_random_next(&random); /* neighbouring seeds part here */
    random.state ^= attni_random_next(&random);
    memset(made, 0, sizeof *made);
    made->seed = seed;
    made->problem = problem;
    made->tensors = tensors;
    if (make(&random, made, limits ? limits : &usual) == 0) return 0;
    attni_problems_free(made);
    return -1;
}

void attni_problems_free(attni_problems_case *made) {
    attni_problems_free_truth(&made->truth);
    attni_reference_gradients_free(&made->gradients);
    for (int i = 0; i < ATTNI_PROBLEMS_BUFFERS; ++i) free(made->buffers[i].memory);
    memset(made, 0, sizeof *made);
}
