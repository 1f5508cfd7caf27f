/*
 * Decode for one chunk of keys: few query rows (heads of a group, a few queries), so memory is the limit and
 * each byte of K and V is read and converted once for all rows. Written once over the vector layer.
 *
 *     s[row][key]  = sum over d of q[row][d] k[key][d]     dims in lanes; SIMD_LANES sums are folded at once
 *     p            = exp2(s * scale - m)                   keys in lanes
 *     o[row][dim] += p[row][key] v[key][dim]               dims in lanes, accumulators in registers
 *
 * Keys go by blocks of DECODE_KEYS. While a block's scores are computed, its V and the next block's K are
 * prefetched: rows of one head lie far apart, where the hardware does not look ahead.
 * Rows are rounded up to DECODE_ROWS instances; rows that are absent hold zeros.
 */
#ifndef ATTNI_DECODE_BODY_H
#define ATTNI_DECODE_BODY_H

#include <string.h>

#include "core/philox.h"
#include "cpu/kernel.h"
#include "cpu/score_math.h"

#define DECODE_KEYS 64
#define DECODE_MOST_ROWS 8

typedef struct decode_scratch {
    float *q, *o; /* [row][dim], dims to a multiple of SIMD_LANES */
    float *s;     /* [row][key] */
    int64_t ld_q, ld_o;
    score_units units;
    float m[DECODE_MOST_ROWS], l[DECODE_MOST_ROWS]; /* m in units of the scores */
    int64_t begin[DECODE_MOST_ROWS], end[DECODE_MOST_ROWS];
} decode_scratch;

/* Where the next rows of K or V are: base of the chunk's first key, bytes from key to key. */
typedef struct decode_panel {
    const char *base;
    int64_t stride, bytes; /* bytes of one row */
} decode_panel;

static size_t decode_scratch_bytes(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    (void)rows;
    (void)slots;
    const int64_t floats = attni_round_up(dim_qk, SIMD_LANES) + attni_round_up(dim_v, SIMD_LANES) + DECODE_KEYS;
    return (size_t)(DECODE_MOST_ROWS * attni_round_up(floats, 16)) * sizeof(float);
}

static void decode_carve(decode_scratch *w, float *base, int64_t dim_qk, int64_t dim_v) {
    w->ld_q = attni_round_up(dim_qk, SIMD_LANES);
    w->ld_o = attni_round_up(dim_v, SIMD_LANES);
    w->s = base;
    w->q = w->s + DECODE_MOST_ROWS * DECODE_KEYS;
    w->o = w->q + DECODE_MOST_ROWS * w->ld_q;
}

SIMD_INLINE void prefetch_row(const decode_panel *panel, int64_t key) {
    const char *row = panel->base + key * panel->stride;
    for (int64_t i = 0; i < panel->bytes; i += 64) simd_prefetch(row + i);
}

/* ---------------------------------------------------------------- scores */

/* Two keys at a time, so that enough sums are in flight; [key][row] vectors, folded by the caller. */
SIMD_INLINE void score_pair(const int rows, const attn_dtype dtype, const decode_scratch *w, const char *k0, const char *k1,
                            int64_t dim, vf acc[2][DECODE_MOST_ROWS]) {
    const int64_t size = dtype == ATTN_F32 ? 4 : 2, full = dim / SIMD_LANES * SIMD_LANES;
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) acc[0][r] = acc[1][r] = vf_zero();
    for (int64_t d = 0; d < full; d += SIMD_LANES) {
        const vf a = simd_load(dtype, k0 + d * size), b = simd_load(dtype, k1 + d * size);
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf q = vf_load(w->q + r * w->ld_q + d);
            acc[0][r] = vf_fma(a, q, acc[0][r]);
            acc[1][r] = vf_fma(b, q, acc[1][r]);
        }
    }
    if (full < dim) {
        const vf a = simd_load_part(dtype, k0 + full * size, dim - full), b = simd_load_part(dtype, k1 + full * size, dim - full);
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf q = vf_load(w->q + r * w->ld_q + full);
            acc[0][r] = vf_fma(a, q, acc[0][r]);
            acc[1][r] = vf_fma(b, q, acc[1][r]);
        }
    }
}

/* Raw products of keys [key, key + count) of the chunk; count to a multiple of SIMD_LANES by repetition. */
SIMD_INLINE void decode_scores(const int rows, const attn_dtype dtype, decode_scratch *w, const decode_panel *k,
                               const decode_panel *v, int64_t key, int64_t count, int64_t last, int64_t dim) {
    for (int64_t j = 0; j < count; j += SIMD_LANES) {
        vf partial[DECODE_MOST_ROWS][SIMD_LANES];
        for (int i = 0; i < SIMD_LANES; i += 2) {
            const int64_t at0 = attni_min(key + j + i, last), at1 = attni_min(key + j + i + 1, last);
            prefetch_row(v, at0);
            prefetch_row(v, at1);
            prefetch_row(k, attni_min(at0 + DECODE_KEYS, last));
            prefetch_row(k, attni_min(at1 + DECODE_KEYS, last));
            vf acc[2][DECODE_MOST_ROWS];
            score_pair(rows, dtype, w, k->base + at0 * k->stride, k->base + at1 * k->stride, dim, acc);
            SIMD_UNROLL
            for (int r = 0; r < rows; r++) {
                partial[r][i] = acc[0][r];
                partial[r][i + 1] = acc[1][r];
            }
        }
        for (int r = 0; r < rows; r++) vf_store(w->s + r * DECODE_KEYS + j, simd_sums(partial[r]));
    }
}

/* ---------------------------------------------------------------- values */

/* o[row][dims from d] += sum over keys of p[row][key] v[key][dims]; n numbers in the last vector. */
SIMD_INLINE void decode_values(const int rows, const int vectors, const attn_dtype dtype, const decode_scratch *w,
                               const decode_panel *v, int64_t key, int64_t count, int64_t d, int64_t n) {
    const int64_t size = dtype == ATTN_F32 ? 4 : 2;
    vf acc[DECODE_MOST_ROWS][4];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) acc[r][c] = vf_load(w->o + r * w->ld_o + d + c * SIMD_LANES);
    }
    for (int64_t j = 0; j < count; j++) {
        const char *from = v->base + (key + j) * v->stride + d * size;
        vf x[4];
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            x[c] = n == SIMD_LANES ? simd_load(dtype, from + c * SIMD_LANES * size) : simd_load_part(dtype, from, n);
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf p = vf_set1(w->s[r * DECODE_KEYS + j]);
            SIMD_UNROLL
            for (int c = 0; c < vectors; c++) acc[r][c] = vf_fma(p, x[c], acc[r][c]);
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) vf_store(w->o + r * w->ld_o + d + c * SIMD_LANES, acc[r][c]);
    }
}

/* ---------------------------------------------------------------- softmax of one row's block */

/* Raw products of one row become scores in natural units. */
static void decode_options(const attni_job *job, const attni_tile *tile, int64_t row, int64_t key, int64_t count, float *s) {
    const attni_sequence *q = &tile->sequence;
    const int64_t here = q->query_start + row / job->group - q->key_start;
    float slope = 0;
    if (job->options & ATTNI_ALIBI)
        slope = job->t.alibi_slopes[q->batch * job->p->alibi_stride_batch + attni_tile_head(job, tile, row)];
    for (int64_t j = 0; j < count; j += SIMD_LANES) {
        float distance[SIMD_LANES];
        for (int64_t i = 0; i < SIMD_LANES; i++) distance[i] = (float)(here - (key + j + i));
        vf_store(s + j, score_options_vector(job, vf_load(s + j), vf_set1(slope), vf_load(distance)));
    }
    score_row_inputs(job, tile, row, key, count, s, 1);
}

/* Clears dropped probabilities. */
static void decode_dropout(const attni_job *job, const attni_tile *tile, int64_t row, int64_t key, int64_t count, float *p) {
    const attni_sequence *q = &tile->sequence;
    const int64_t start = q->key_start + key;
    for (int64_t j = 0; j < count;) {
        const int64_t position = start + j, eighth = position & 7;
        uint32_t c[4] = {(uint32_t)((position - eighth) / 8), (uint32_t)(q->query_start + row / job->group),
                         (uint32_t)(q->batch * job->p->heads_q + attni_tile_head(job, tile, row)),
                         (uint32_t)job->t.dropout_offset};
        attni_philox((uint32_t)job->t.dropout_seed, (uint32_t)(job->t.dropout_seed >> 32), c);
        for (int64_t e = eighth; e < 8 && j < count; e++, j++)
            if (((c[e / 2] >> (e % 2 * 16)) & 0xffff) < job->dropout_threshold) p[j] = 0;
    }
}

/* Scores to probabilities in place; moves m, l and the row's o. key is the index of the block's first key. */
static void decode_softmax(const attni_job *job, const attni_tile *tile, decode_scratch *w, int64_t row, int64_t key,
                           int64_t count) {
    float *s = w->s + row * DECODE_KEYS;
    const int64_t padded = attni_round_up(count, SIMD_LANES);
    if (job->options & ATTNI_SCORE_OPTIONS) decode_options(job, tile, row, key, count, s);
    for (int64_t j = 0; j < padded; j++)
        if (j >= count || key + j < w->begin[row] || key + j >= w->end[row]) s[j] = -INFINITY;
    vf highest = vf_set1(-INFINITY);
    for (int64_t j = 0; j < padded; j += SIMD_LANES) highest = vf_max(highest, vf_load(s + j));
    const float top = vf_top(highest);
    const vf scale = vf_set1(w->units.to_log2);
    if (top > w->m[row] + w->units.lazy) {
        float factor[SIMD_LANES];
        vf_store(factor, vf_exp2(vf_set1(w->m[row] - top), scale));
        w->m[row] = top;
        w->l[row] *= factor[0];
        for (int64_t d = 0; d < w->ld_o; d += SIMD_LANES)
            vf_store(w->o + row * w->ld_o + d, vf_mul(vf_load(w->o + row * w->ld_o + d), vf_set1(factor[0])));
    }
    const vf reference = vf_set1(w->m[row] == -INFINITY ? 0 : w->m[row]);
    vf sum = vf_zero();
    for (int64_t j = 0; j < padded; j += SIMD_LANES) {
        const vf p = vf_exp2(vf_sub(vf_load(s + j), reference), scale);
        sum = vf_add(sum, p);
        vf_store(s + j, p);
    }
    w->l[row] += vf_sum(sum);
    if (job->options & ATTNI_DROPOUT) decode_dropout(job, tile, row, key, count, s);
}

/* ---------------------------------------------------------------- the chunk */

SIMD_INLINE void decode_chunk(const int rows, const attn_dtype dtype, const attni_job *job, const attni_tile *tile,
                              decode_scratch *w, int64_t key_begin, int64_t key_end) {
    const attn_problem *p = job->p;
    const int64_t size = dtype == ATTN_F32 ? 4 : 2, count_all = key_end - key_begin;
    const decode_panel k = {attni_k_row(job, tile, key_begin), p->k.seqlen * size, p->dim_qk * size};
    const decode_panel v = {attni_v_row(job, tile, key_begin), p->v.seqlen * size, p->dim_v * size};
    const int vectors = rows > 4 ? 2 : 4;
    for (int64_t key = 0; key < count_all; key += DECODE_KEYS) {
        const int64_t count = attni_min(DECODE_KEYS, count_all - key);
        decode_scores(rows, dtype, w, &k, &v, key, count, count_all - 1, p->dim_qk);
        for (int64_t row = 0; row < tile->row_end; row++) decode_softmax(job, tile, w, row, key_begin + key, count);
        int64_t d = 0;
        for (; d + vectors * SIMD_LANES <= p->dim_v; d += vectors * SIMD_LANES)
            decode_values(rows, vectors, dtype, w, &v, key, count, d, SIMD_LANES);
        for (; d < p->dim_v; d += SIMD_LANES)
            decode_values(rows, 1, dtype, w, &v, key, count, d, attni_min(SIMD_LANES, p->dim_v - d));
    }
}

SIMD_INLINE void decode_rows(const int rows, const attni_job *job, const attni_tile *tile, decode_scratch *w, int64_t begin,
                             int64_t end) {
    if (job->p->dtype_kv == ATTN_F32) decode_chunk(rows, ATTN_F32, job, tile, w, begin, end);
    else if (job->p->dtype_kv == ATTN_F16) decode_chunk(rows, ATTN_F16, job, tile, w, begin, end);
    else decode_chunk(rows, ATTN_BF16, job, tile, w, begin, end);
}

static void decode_tile_chunk(const attni_job *job, const attni_tile *tile, int64_t key_begin, int64_t key_end,
                              attni_accum partial, void *scratch) {
    const attn_problem *p = job->p;
    decode_scratch w;
    decode_carve(&w, scratch, p->dim_qk, p->dim_v);
    w.units = score_units_of(job);
    memset(scratch, 0, decode_scratch_bytes(tile->row_end, 1, p->dim_qk, p->dim_v));
    int64_t seen_begin = INT64_MAX, seen_end = 0;
    for (int64_t row = 0; row < tile->row_end; row++) {
        const attni_sequence *s = &tile->sequence;
        attni_visible(p, s, s->query_start + row / job->group, &w.begin[row], &w.end[row]);
        if (w.begin[row] < w.end[row]) {
            seen_begin = attni_min(seen_begin, w.begin[row]);
            seen_end = attni_max(seen_end, w.end[row]);
        }
        simd_pack_floats(p->dtype_q, attni_q_row(job, tile, row), w.q + row * w.ld_q, p->dim_qk);
        w.m[row] = -INFINITY;
        w.l[row] = 0;
    }
    /* Blocks begin at multiples of DECODE_KEYS, whatever the rows see: a row's bits depend on itself alone. */
    const int64_t begin = attni_max(key_begin, seen_begin == INT64_MAX ? key_end : seen_begin / DECODE_KEYS * DECODE_KEYS);
    const int64_t end = attni_min(key_end, seen_end);
    if (begin < end) {
        if (tile->row_end == 1) decode_rows(1, job, tile, &w, begin, end);
        else if (tile->row_end == 2) decode_rows(2, job, tile, &w, begin, end);
        else if (tile->row_end <= 4) decode_rows(4, job, tile, &w, begin, end);
        else decode_rows(DECODE_MOST_ROWS, job, tile, &w, begin, end);
    }
    for (int64_t row = 0; row < tile->row_end; row++) {
        /* to natural units: m rounds to float, l and o take the difference (accum.h) */
        const double m = (double)w.m[row] * w.units.to_natural;
        const float rounded = (float)m, rest = w.l[row] == 0 ? 1 : (float)exp(m - rounded);
        partial.m[row] = rounded;
        partial.l[row] = w.l[row] * rest;
        for (int64_t d = 0; d < p->dim_v; d++)
            partial.o[row * p->dim_v + d] = w.o[row * w.ld_o + d] * rest * job->dropout_scale;
    }
}

#endif
