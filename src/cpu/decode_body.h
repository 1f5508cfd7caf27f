/*
 * Decode for one chunk of keys and several kv heads: few query rows (heads of a group, a few queries), so memory
 * is the limit, and each byte of K and V is read and converted once for all rows. Written once over the vector layer.
 *
 *     s[row][key]  = sum over d of q[row][d] k[key][d]     dims in lanes; SIMD_LANES sums are folded at once
 *     p            = exp2((s - m) * scale)                 keys in lanes
 *     o[row][dim] += p[row][key] v[key][dim]               dims in lanes, accumulators in registers
 *
 * Keys go by blocks of DECODE_KEYS, and within a block head by head: the heads of a key lie side by side in
 * memory, so a block is one stretch of pages that is translated and streamed once. While a block is computed the
 * next is prefetched in the order of memory, a little with each pair of keys, which keeps the core's line fill
 * buffers full; without that their latency, not the memory's bandwidth, is the limit.
 * Rows are rounded up to 1, 4 or 8, for which the loops are compiled; rows that are absent hold zeros.
 */
#ifndef ATTNI_DECODE_BODY_H
#define ATTNI_DECODE_BODY_H

#include <string.h>

#include "core/philox.h"
#include "cpu/kernel.h"
#include "cpu/score_math.h"

#define DECODE_KEYS 32
#define DECODE_MOST_ROWS 8
/* Lines of K and of V to prefetch with each vector of dims of a few keys' scores, or each key's values. */
#define DECODE_LINES (dtype == ATTN_F32 ? 2 : 1)

/* One head's state. */
typedef struct decode_head {
    float *q, *o; /* [row][dim], dims to a multiple of SIMD_LANES */
    float m[DECODE_MOST_ROWS], l[DECODE_MOST_ROWS]; /* m in units of the scores */
} decode_head;

typedef struct decode_scratch {
    decode_head *heads;
    float *s; /* [row][key] */
    int64_t ld_q, ld_o;
    score_units units;
    int64_t begin[DECODE_MOST_ROWS], end[DECODE_MOST_ROWS]; /* the keys that a row sees */
} decode_scratch;

/* K or V of the task's heads: base of the first key and head, bytes from key to key and head to head. */
typedef struct decode_panel {
    const char *base;
    int64_t key_stride, head_stride, bytes; /* bytes of one row */
} decode_panel;

/* The next block's lines of K and V in the order of memory: a row of each, heads fastest, then keys. */
typedef struct decode_ahead {
    const decode_panel *k, *v;
    const char *k_row, *v_row;
    int64_t offset, bytes; /* within the row; the longer row's */
    int64_t key, head, key_end, heads;
} decode_ahead;

static int64_t decode_head_floats(int64_t dim_qk, int64_t dim_v) {
    return DECODE_MOST_ROWS * (attni_round_up(dim_qk, SIMD_LANES) + attni_round_up(dim_v, SIMD_LANES));
}

static size_t decode_scratch_bytes(int64_t heads, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    (void)slots;
    const size_t structs = (size_t)attni_round_up(heads * (int64_t)sizeof(decode_head), 64);
    return structs + (size_t)(DECODE_MOST_ROWS * DECODE_KEYS +
                              heads * attni_round_up(decode_head_floats(dim_qk, dim_v), 16)) *
                         sizeof(float);
}

static void decode_carve(decode_scratch *w, char *base, int64_t heads, int64_t dim_qk, int64_t dim_v) {
    w->ld_q = attni_round_up(dim_qk, SIMD_LANES);
    w->ld_o = attni_round_up(dim_v, SIMD_LANES);
    w->heads = (decode_head *)(void *)base;
    w->s = (float *)(void *)(base + attni_round_up(heads * (int64_t)sizeof(decode_head), 64));
    float *floats = w->s + DECODE_MOST_ROWS * DECODE_KEYS;
    for (int64_t h = 0; h < heads; h++) {
        w->heads[h].q = floats;
        w->heads[h].o = floats + DECODE_MOST_ROWS * w->ld_q;
        floats += attni_round_up(decode_head_floats(dim_qk, dim_v), 16);
    }
}

static void ahead_begin(decode_ahead *a, const decode_panel *k, const decode_panel *v, int64_t key,
                        int64_t key_end, int64_t heads) {
    *a = (decode_ahead){k, v, NULL, NULL, 0, attni_max(k->bytes, v->bytes), key, 0, key_end, heads};
    a->k_row = k->base + key * k->key_stride;
    a->v_row = v->base + key * v->key_stride;
}

/* A line of K and one of V. A few at a time and often: the core has few buffers for lines in flight. */
SIMD_INLINE void prefetch_lines(decode_ahead *a, int count) {
    for (int i = 0; i < count && a->key < a->key_end; i++) {
        simd_prefetch_far(a->k_row + attni_min(a->offset, a->k->bytes - 1));
        simd_prefetch_far(a->v_row + attni_min(a->offset, a->v->bytes - 1));
        a->offset += 64;
        if (a->offset < a->bytes) continue;
        a->offset = 0;
        if (++a->head == a->heads) {
            a->head = 0;
            a->key++;
        }
        a->k_row = a->k->base + a->key * a->k->key_stride + a->head * a->k->head_stride;
        a->v_row = a->v->base + a->key * a->v->key_stride + a->head * a->v->head_stride;
    }
}

/* ---------------------------------------------------------------- scores */

/* One vector of dims of several keys: acc[key][row] += k * q. */
SIMD_INLINE void score_step(const int rows, const int keys, const vf k[4], const float *q, int64_t ld_q,
                            vf acc[4][DECODE_MOST_ROWS]) {
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        const vf x = vf_load(q + r * ld_q);
        SIMD_UNROLL
        for (int i = 0; i < keys; i++) acc[i][r] = vf_fma(k[i], x, acc[i][r]);
    }
}

/* Products of a few keys at a time, so that enough sums are in flight and each load of q serves several. */
SIMD_INLINE void score_keys(const int rows, const int keys, const attn_dtype dtype, const float *queries,
                            int64_t ld_q, const char *const from[4], decode_ahead *ahead, int64_t dim,
                            vf acc[4][DECODE_MOST_ROWS]) {
    const int64_t size = dtype == ATTN_F32 ? 4 : 2, full = dim / SIMD_LANES * SIMD_LANES;
    vf k[4];
    SIMD_UNROLL
    for (int i = 0; i < keys; i++) {
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) acc[i][r] = vf_zero();
    }
    for (int64_t d = 0; d < full; d += SIMD_LANES) {
        prefetch_lines(ahead, DECODE_LINES);
        SIMD_UNROLL
        for (int i = 0; i < keys; i++) k[i] = simd_load(dtype, from[i] + d * size);
        score_step(rows, keys, k, queries + d, ld_q, acc);
    }
    if (full < dim) {
        SIMD_UNROLL
        for (int i = 0; i < keys; i++) k[i] = simd_load_part(dtype, from[i] + full * size, dim - full);
        score_step(rows, keys, k, queries + full, ld_q, acc);
    }
}

/* Raw products of keys [key, key + count) of the chunk; count to a multiple of SIMD_LANES by repetition. */
SIMD_INLINE void decode_scores(const int rows, const attn_dtype dtype, decode_scratch *w,
                               const decode_panel *k, decode_ahead *ahead, int64_t head, int64_t key,
                               int64_t count, int64_t dim) {
    const char *base = k->base + head * k->head_stride;
    const int together = rows <= 4 && SIMD_LANES >= 16 ? 4 : 2; /* sums in registers: 16 of 32, or 8 of 16 */
    for (int64_t j = 0; j < count; j += SIMD_LANES) {
        vf partial[DECODE_MOST_ROWS][SIMD_LANES];
        for (int i = 0; i < SIMD_LANES; i += together) {

            const char *from[4];
            SIMD_UNROLL
            for (int t = 0; t < together; t++)
                from[t] = base + (key + attni_min(j + i + t, count - 1)) * k->key_stride;
            vf acc[4][DECODE_MOST_ROWS];
            score_keys(rows, together, dtype, w->heads[head].q, w->ld_q, from, ahead, dim, acc);
            SIMD_UNROLL
            for (int r = 0; r < rows; r++) {
                SIMD_UNROLL
                for (int t = 0; t < together; t++) partial[r][i + t] = acc[t][r];
            }
        }
        for (int r = 0; r < rows; r++) vf_store(w->s + r * DECODE_KEYS + j, simd_sums(partial[r]));
    }
}

/* ---------------------------------------------------------------- values */

/* o[row][dims from d] += sum over keys of p[row][key] v[key][dims]; n numbers in the last vector. */
SIMD_INLINE void decode_values(const int rows, const int vectors, const attn_dtype dtype,
                               const decode_scratch *w, const decode_panel *v, decode_ahead *ahead,
                               int64_t head, int64_t key, int64_t count, int64_t d, int64_t n) {
    float *o = w->heads[head].o;
    const char *base = v->base + head * v->head_stride + key * v->key_stride;
    const int64_t size = dtype == ATTN_F32 ? 4 : 2;
    vf acc[DECODE_MOST_ROWS][4];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) acc[r][c] = vf_load(o + r * w->ld_o + d + c * SIMD_LANES);
    }
    for (int64_t j = 0; j < count; j++) {
        prefetch_lines(ahead, DECODE_LINES);
        const char *from = base + j * v->key_stride + d * size;
        vf x[4];
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            x[c] = n == SIMD_LANES ? simd_load(dtype, from + c * SIMD_LANES * size)
                                   : simd_load_part(dtype, from, n);
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
        for (int c = 0; c < vectors; c++) vf_store(o + r * w->ld_o + d + c * SIMD_LANES, acc[r][c]);
    }
}

/* ---------------------------------------------------------------- softmax of one row's block */

/* Raw products of one row become scores in natural units. */
static void decode_options(const attni_job *job, const attni_tile *tile, int64_t row, int64_t key,
                           int64_t count, float *s) {
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
static void decode_dropout(const attni_job *job, const attni_tile *tile, int64_t row, int64_t key,
                           int64_t count, float *p) {
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
static void decode_softmax(const attni_job *job, const attni_tile *tile, decode_scratch *w, decode_head *h,
                           int64_t row, int64_t key, int64_t count) {
    float *s = w->s + row * DECODE_KEYS;
    const int64_t padded = attni_round_up(count, SIMD_LANES);
    if (job->options & ATTNI_SCORE_OPTIONS) decode_options(job, tile, row, key, count, s);
    if (count < padded || key < w->begin[row] || key + count > w->end[row])
        for (int64_t j = 0; j < padded; j++)
            if (j >= count || key + j < w->begin[row] || key + j >= w->end[row]) s[j] = -INFINITY;
    vf highest = vf_set1(-INFINITY);
    for (int64_t j = 0; j < padded; j += SIMD_LANES) highest = vf_max(highest, vf_load(s + j));
    const float top = vf_top(highest);
    const vf scale = vf_set1(w->units.to_log2);
    if (top > h->m[row] + w->units.lazy) {
        float factor[SIMD_LANES];
        vf_store(factor, vf_exp2(vf_set1(h->m[row] - top), scale));
        h->m[row] = top;
        h->l[row] *= factor[0];
        for (int64_t d = 0; d < w->ld_o; d += SIMD_LANES)
            vf_store(h->o + row * w->ld_o + d, vf_mul(vf_load(h->o + row * w->ld_o + d), vf_set1(factor[0])));
    }
    const vf reference = vf_set1(h->m[row] == -INFINITY ? 0 : h->m[row]);
    vf sum = vf_zero();
    for (int64_t j = 0; j < padded; j += SIMD_LANES) {
        const vf p = vf_exp2(vf_sub(vf_load(s + j), reference), scale);
        sum = vf_add(sum, p);
        vf_store(s + j, p);
    }
    h->l[row] += vf_sum(sum);
    if (job->options & ATTNI_DROPOUT) decode_dropout(job, tile, row, key, count, s);
}

/* ---------------------------------------------------------------- the chunk */

SIMD_INLINE void decode_chunk(const int rows, const attn_dtype dtype, const attni_job *job,
                              const attni_tile *tile, decode_scratch *w, int64_t key_begin, int64_t key_end) {
    const attn_problem *p = job->p;
    const int64_t size = dtype == ATTN_F32 ? 4 : 2, count_all = key_end - key_begin;
    const decode_panel k = {attni_k_row(job, tile, key_begin), p->k.seqlen * size, p->k.heads * size,
                            p->dim_qk * size};
    const decode_panel v = {attni_v_row(job, tile, key_begin), p->v.seqlen * size, p->v.heads * size,
                            p->dim_v * size};
    const int vectors = rows > 4 ? 2 : 4;
    decode_ahead ahead;
    ahead_begin(&ahead, &k, &v, 0, attni_min(DECODE_KEYS, count_all), tile->heads);
    prefetch_lines(&ahead, INT32_MAX);
    for (int64_t key = 0; key < count_all; key += DECODE_KEYS) {
        const int64_t count = attni_min(DECODE_KEYS, count_all - key);
        ahead_begin(&ahead, &k, &v, key + DECODE_KEYS, attni_min(key + 2 * DECODE_KEYS, count_all),
                    tile->heads);
        attni_tile one = *tile;
        for (int64_t h = 0; h < tile->heads; h++) {
            one.head_kv = tile->head_kv + h;
            decode_scores(rows, dtype, w, &k, &ahead, h, key, count, p->dim_qk);
            for (int64_t row = 0; row < tile->row_end; row++)
                decode_softmax(job, &one, w, &w->heads[h], row, key_begin + key, count);
            int64_t d = 0;
            for (; d + vectors * SIMD_LANES <= p->dim_v; d += vectors * SIMD_LANES)
                decode_values(rows, vectors, dtype, w, &v, &ahead, h, key, count, d, SIMD_LANES);
            for (; d < p->dim_v; d += SIMD_LANES)
                decode_values(rows, 1, dtype, w, &v, &ahead, h, key, count, d,
                              attni_min(SIMD_LANES, p->dim_v - d));
        }
    }
}

SIMD_INLINE void decode_rows(const int rows, const attni_job *job, const attni_tile *tile, decode_scratch *w,
                             int64_t begin, int64_t end) {
    if (job->p->dtype_kv == ATTN_F32)
        decode_chunk(rows, ATTN_F32, job, tile, w, begin, end);
    else if (job->p->dtype_kv == ATTN_F16)
        decode_chunk(rows, ATTN_F16, job, tile, w, begin, end);
    else
        decode_chunk(rows, ATTN_BF16, job, tile, w, begin, end);
}

/* One head's rows into its partial arrays, in natural units: m rounds to float, l and o take the difference. */
static void decode_finish(const attni_job *job, const attni_tile *tile, const decode_scratch *w,
                          const decode_head *h, attni_accum partial) {
    const int64_t dim_v = job->p->dim_v;
    for (int64_t row = 0; row < tile->row_end; row++) {
        const double m = (double)h->m[row] * w->units.to_natural;
        const float rounded = (float)m, rest = h->l[row] == 0 ? 1 : (float)exp(m - rounded);
        const vf factor = vf_set1(rest * job->dropout_scale);
        partial.m[row] = rounded;
        partial.l[row] = h->l[row] * rest;
        for (int64_t d = 0; d < dim_v; d += SIMD_LANES)
            simd_store_part(ATTN_F32, partial.o + row * dim_v + d,
                            vf_mul(vf_load(h->o + row * w->ld_o + d), factor),
                            attni_min(SIMD_LANES, dim_v - d));
    }
}

static void decode_tile_chunk(const attni_job *job, const attni_tile *tile, int64_t key_begin,
                              int64_t key_end, attni_accum partial, int64_t partial_stride, void *scratch) {
    const attn_problem *p = job->p;
    const attni_sequence *s = &tile->sequence;
    decode_scratch w;
    memset(scratch, 0, decode_scratch_bytes(tile->heads, 1, p->dim_qk, p->dim_v));
    decode_carve(&w, scratch, tile->heads, p->dim_qk, p->dim_v);
    w.units = score_units_of(job);
    int64_t seen_begin = INT64_MAX, seen_end = 0;
    attni_tile one = *tile;
    for (int64_t row = 0; row < tile->row_end; row++) {
        attni_visible(p, s, s->query_start + row / job->group, &w.begin[row], &w.end[row]);
        if (w.begin[row] < w.end[row]) {
            seen_begin = attni_min(seen_begin, w.begin[row]);
            seen_end = attni_max(seen_end, w.end[row]);
        }
        for (int64_t h = 0; h < tile->heads; h++) {
            one.head_kv = tile->head_kv + h;
            w.heads[h].m[row] = -INFINITY;
            simd_pack_floats(p->dtype_q, attni_q_row(job, &one, row), w.heads[h].q + row * w.ld_q, p->dim_qk);
        }
    }
    /* Blocks begin at multiples of DECODE_KEYS, whatever the rows see: a row's bits depend on itself alone. */
    const int64_t begin =
        attni_max(key_begin, seen_begin == INT64_MAX ? key_end : seen_begin / DECODE_KEYS * DECODE_KEYS);
    const int64_t end = attni_min(key_end, seen_end);
    if (begin < end) {
        if (tile->row_end == 1)
            decode_rows(1, job, tile, &w, begin, end);
        else if (tile->row_end <= 4)
            decode_rows(4, job, tile, &w, begin, end);
        else
            decode_rows(DECODE_MOST_ROWS, job, tile, &w, begin, end);
    }
    for (int64_t h = 0; h < tile->heads; h++) {
        decode_finish(job, tile, &w, &w.heads[h], partial);
        partial.m += partial_stride;
        partial.l += partial_stride;
        partial.o += partial_stride;
    }
}

#endif
