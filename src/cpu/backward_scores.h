/*
 * What backward kernels share between their products: which keys a sub sees, P and dS from S and dP, D, and how
 * rows leave. Compiled once per instruction set; BACKWARD_STEP is what a kernel rounds ranges of keys to.
 */
#ifndef ATTNI_BACKWARD_SCORES_H
#define ATTNI_BACKWARD_SCORES_H

#include "cpu/forward_scores.h"

/* Of one sub and a block of keys. */
typedef struct element_factors {
    float *cap;  /* what softcap's derivative multiplies dS by */
    float *keep; /* 1/(1 - p) where dropout keeps, else 0 */
} element_factors;

/* Keys of the chunk, from its first. */
typedef struct key_range {
    int64_t begin, end;
} key_range;

/* What of `all`, whole steps from its begin, some row of these subs may see. */
static key_range visible_keys(const tile_rows *r, const attni_chunk *chunk, int64_t first_sub,
                              int64_t last_sub, key_range all) {
    int64_t begin = INT64_MAX, end = 0;
    for (int64_t sub = first_sub; sub < last_sub; sub++) {
        begin = attni_min(begin, r->sub_begin[sub]);
        end = attni_max(end, r->sub_end[sub]);
    }
    begin = attni_max(0, begin - chunk->key_begin - all.begin) / BACKWARD_STEP * BACKWARD_STEP;
    end = attni_round_up(attni_max(0, end - chunk->key_begin - all.begin), BACKWARD_STEP);
    return (key_range){all.begin + begin, attni_min(all.end, all.begin + end)};
}

/* ---------------------------------------------------------------- rows */

/* How many rows ahead of the one that is read to prefetch: rows of one head lie far apart in memory. */
#define BACKWARD_AHEAD 8

SIMD_INLINE void prefetch_row(const void *row, int64_t dim, attn_dtype dtype) {
    const int64_t bytes = dim * (int64_t)attni_dtype_size(dtype);
    for (int64_t i = 0; i < bytes; i += 64) simd_prefetch_far((const char *)row + i);
}

/* D of a row. */
static void sum_row(const attni_job *job, const attni_chunk *chunk, int64_t row) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    const int64_t size = (int64_t)attni_dtype_size(p->dtype_o);
    const char *o = attni_o_row(job, tile, row), *dout = attni_dout_row(job, tile, row);
    vf sum = vf_zero();
    for (int64_t d = 0; d < p->dim_v; d += SIMD_LANES) {
        const int64_t n = attni_min(SIMD_LANES, p->dim_v - d);
        sum = vf_fma(simd_load_part(p->dtype_o, o + d * size, n),
                     simd_load_part(p->dtype_o, dout + d * size, n), sum);
    }
    float total = vf_sum(sum);
    if (job->t.dlse != NULL)
        total -= job->t.dlse[attni_lse_index(job, &tile->sequence, attni_tile_head(job, tile, row),
                                             row / job->group)];
    chunk->delta[row] = total;
}

/* What m and l of tile_rows are here: LSE in units of the scores, and D. Padding repeats the last row. */
static void fill_rows(const attni_job *job, const attni_chunk *chunk, tile_rows *r, int64_t first,
                      int64_t end) {
    const attni_tile *tile = &chunk->tile;
    const int64_t count = tile->row_end - tile->row_begin;
    for (int64_t i = first; i < end; i++) {
        const int64_t row = tile->row_begin + attni_min(i, count - 1);
        const float lse = job->t.lse[attni_lse_index(job, &tile->sequence, attni_tile_head(job, tile, row),
                                                     row / job->group)];
        r->m[i] = (float)((double)lse / r->units.to_natural);
        r->l[i] = chunk->delta[row];
    }
}

/* Brings rows of the gradients that will be written soon. */
static void prefetch_dq(const attni_job *job, const attni_tile *tile, int64_t row) {
    if (row < tile->row_end) prefetch_row(attni_dq_row(job, tile, row), job->p->dim_qk, job->p->dtype_q);
}

static void prefetch_dk_dv(const attni_job *job, const attni_chunk *chunk, int64_t key) {
    if (key >= chunk->key_end) return;
    if (job->t.dk != NULL)
        prefetch_row(attni_dk_row(job, &chunk->tile, key), job->p->dim_qk, job->p->dtype_kv);
    if (job->t.dv != NULL)
        prefetch_row(attni_dv_row(job, &chunk->tile, key), job->p->dim_v, job->p->dtype_kv);
}

static void write_row(attn_dtype dtype, const float *from, float scale, int64_t dim, void *to) {
    const int64_t size = (int64_t)attni_dtype_size(dtype);
    for (int64_t d = 0; d < dim; d += SIMD_LANES)
        simd_store_part(dtype, (char *)to + d * size, vf_mul(vf_load(from + d), vf_set1(scale)),
                        attni_min(SIMD_LANES, dim - d));
}

/* ---------------------------------------------------------------- scores */

/* c = 1 - tanh^2 of raw products, before they become scores. */
static void softcap_factors(const attni_job *job, const score_block *b, float *factor) {
    const vf scale = vf_set1(job->t.scale), cap = vf_set1(job->p->softcap), one = vf_set1(1.0f);
    for (int64_t j = 0; j < b->count; j++)
        for (int v = 0; v < b->nv; v++) {
            const int64_t at = j * FORWARD_SUB_ROWS + v * SIMD_LANES;
            const vf tanh = vf_tanh(vf_div(vf_mul(vf_load(b->s + at), scale), cap));
            /* NaN, whose dS is 0 where it is hidden and NaN where it is not, has to leave a 0 alone */
            const vf known = vf_select(vf_equal(tanh, tanh), tanh, vf_zero());
            vf_store(factor + at, vf_mul(vf_sub(one, known), vf_add(one, known)));
        }
}

static void dropout_factors(const attni_job *job, const attni_tile *tile, const tile_rows *r,
                            const score_block *b, float *keep) {
    const vf scale = vf_set1(job->dropout_scale);
    const score_block all = {keep, b->key0, b->count, b->first, b->nv};
    for (int64_t j = 0; j < b->count; j++)
        for (int v = 0; v < b->nv; v++) vf_store(keep + j * FORWARD_SUB_ROWS + v * SIMD_LANES, scale);
    score_dropout(job, tile, r, &all);
}

/* S and dP become P and dS. Where S is -inf both are 0, whatever LSE and dP are. */
static void element_gradients(const tile_rows *r, const score_block *b, float *ds) {
    const vf hidden = vf_set1(-INFINITY), c = vf_set1(r->units.to_log2), zero = vf_zero();
    for (int v = 0; v < b->nv; v++) {
        const vf lse = vf_load(r->m + b->first + v * SIMD_LANES),
                 delta = vf_load(r->l + b->first + v * SIMD_LANES);
        float *s = b->s + v * SIMD_LANES, *d = ds + v * SIMD_LANES;
        for (int64_t j = 0; j < b->count; j++, s += FORWARD_SUB_ROWS, d += FORWARD_SUB_ROWS) {
            const vf score = vf_load(s);
            const vmask none = vf_equal(score, hidden);
            const vf p = vf_select(none, zero, vf_exp2(vf_sub(score, lse), c));
            vf_store(s, p);
            vf_store(d, vf_select(none, zero, vf_mul(p, vf_sub(vf_load(d), delta))));
        }
    }
}

/* a *= b */
static void multiply_elements(const score_block *b, float *a, const float *by) {
    for (int64_t j = 0; j < b->count; j++)
        for (int v = 0; v < b->nv; v++) {
            const int64_t at = j * FORWARD_SUB_ROWS + v * SIMD_LANES;
            vf_store(a + at, vf_mul(vf_load(a + at), vf_load(by + at)));
        }
}

/* dbias += dS, row after row: several rows and heads may share an element. */
static void add_bias_gradient(const attni_job *job, const attni_tile *tile, const score_block *b,
                              const float *ds) {
    const attn_problem *p = job->p;
    const attni_bias_shape shape = attni_bias_shape_of(p);
    const int64_t rows = attni_min(b->nv * SIMD_LANES, tile->row_end - tile->row_begin - b->first),
                  keys = attni_min(b->count, tile->sequence.k_len - b->key0);
    float block[SIMD_LANES * SIMD_LANES];
    for (int64_t i = 0; i < rows; i += SIMD_LANES)
        for (int64_t j = 0; j < keys; j += SIMD_LANES) {
            simd_transpose(ds + j * FORWARD_SUB_ROWS + i, FORWARD_SUB_ROWS, block, SIMD_LANES);
            for (int64_t lane = 0; lane < attni_min(SIMD_LANES, rows - i); lane++) {
                const int64_t row = tile->row_begin + b->first + i + lane,
                              n = attni_min(SIMD_LANES, keys - j);
                float *to = job->t.dbias +
                            attni_bias_row(&shape, tile->sequence.batch, attni_tile_head(job, tile, row),
                                           row / job->group) +
                            b->key0 + j;
                simd_store_part(ATTN_F32, to,
                                vf_add(simd_load_part(ATTN_F32, to, n), vf_load(block + lane * SIMD_LANES)),
                                n);
            }
        }
}

/* Raw S and dP of one sub and some keys of a block: scores, masked, and dP of what dropout keeps. */
static void prepare_scores(const attni_job *job, const attni_tile *tile, const tile_rows *r,
                           const score_block *b, float *ds, const element_factors *e) {
    const int options = (job->options & ATTNI_SCORE_OPTIONS) != 0;
    if (job->options & ATTNI_SOFTCAP) softcap_factors(job, b, e->cap);
    if (options) score_options(job, tile, r, b);
    if (score_needs_mask(r, b)) score_mask_edges(r, b);
    if (job->options & ATTNI_DROPOUT) {
        dropout_factors(job, tile, r, b, e->keep);
        multiply_elements(b, ds, e->keep);
    }
}

/* P as dV wants it and dS as dQ and dK do, from P and dS by element_gradients. */
static void finish_scores(const attni_job *job, const attni_tile *tile, const score_block *b, float *ds,
                          const element_factors *e) {
    if (job->options & ATTNI_DROPOUT) multiply_elements(b, b->s, e->keep);
    if (job->t.dbias != NULL) add_bias_gradient(job, tile, b, ds);
    if (job->options & ATTNI_SOFTCAP) multiply_elements(b, ds, e->cap);
}

#endif
