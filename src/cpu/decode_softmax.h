/* A block's scores of one row to probabilities, options included. Compiled once per instruction set. */
#ifndef ATTNI_DECODE_SOFTMAX_H
#define ATTNI_DECODE_SOFTMAX_H

#include "core/philox.h"
#include "cpu/decode_state.h"

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

/* Another reference for a row: l and o in its terms. */
static SIMD_CALLED void move_reference(const decode_scratch *w, decode_head *h, int64_t row, float top) {
    float *l = h->l + row * SIMD_LANES, *o = h->o + row * w->ld_o;
    const vf factor = vf_exp2(vf_set1(h->m[row] - top), vf_set1(w->units.to_log2));
    vf_store(l, vf_mul(vf_load(l), factor));
    for (int64_t d = 0; d < w->ld_o; d += SIMD_LANES) vf_store(o + d, vf_mul(vf_load(o + d), factor));
    set_reference(w, h, row, top);
}

/* One row's scores of a block to probabilities in place; moves m, l and the row's o. */
SIMD_INLINE void row_probabilities(const decode_scratch *w, decode_head *h, int64_t row, float *s) {
    vf highest = vf_load(s);
    for (int64_t j = SIMD_LANES; j < DECODE_KEYS; j += SIMD_LANES) highest = vf_max(highest, vf_load(s + j));
    /* the maximum itself is asked for only where it has outgrown the reference: folding lanes takes long */
    if (vmask_any(vf_greater(highest, vf_set1(h->limit[row])))) move_reference(w, h, row, vf_top(highest));
    const vf scale = vf_set1(w->units.to_log2), reference = vf_set1(h->reference[row]);
    float *l = h->l + row * SIMD_LANES;
    vf sum = vf_load(l);
    for (int64_t j = 0; j < DECODE_KEYS; j += SIMD_LANES) {
        const vf p = vf_exp2(vf_sub(vf_load(s + j), reference), scale);
        sum = vf_add(sum, p);
        vf_store(s + j, p);
    }
    vf_store(l, sum);
}

static SIMD_CALLED void all_probabilities(const decode_scratch *w, decode_head *h, float *s) {
    for (int64_t row = 0; row < h->rows; row++) row_probabilities(w, h, row, s + row * DECODE_KEYS);
}

/* The same with options, and where rows see a part of the keys. key is the index of the block's first key. */
static void decode_softmax(const attni_job *job, const attni_tile *tile, const decode_scratch *w,
                           decode_head *h, int64_t row, int64_t key, int64_t count, float *s) {
    const int64_t tile_row = h->row_begin + row;
    if (job->options & ATTNI_SCORE_OPTIONS) {
        keys_of_lanes(s);
        decode_options(job, tile, tile_row, key, count, s);
        lanes_of_keys(s);
    }
    if (count < DECODE_KEYS || key < w->seen.row_begin[tile_row] || key + count > w->seen.row_end[tile_row])
        for (int64_t j = 0; j < DECODE_KEYS; j++) {
            const int64_t at = key + lane_key(j);
            if (at >= key + count || at < w->seen.row_begin[tile_row] || at >= w->seen.row_end[tile_row])
                s[j] = -INFINITY;
        }
    row_probabilities(w, h, row, s);
    if (job->options & ATTNI_DROPOUT) {
        keys_of_lanes(s);
        decode_dropout(job, tile, tile_row, key, count, s);
        lanes_of_keys(s);
    }
}

#endif
