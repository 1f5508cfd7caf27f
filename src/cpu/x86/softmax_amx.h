/*
 * The softmax of a unit of scores while the tiles multiply others: P^T = 2^((S^T - m) scale) in pairs of
 * bf16, a pair of keys and a vector of rows at a time, so that the products' loops can take one between two
 * instructions of the tiles. 25 operations for 32 scores; alone, from L1, 5.3 to 6.5 cycles for 16.
 *
 * The instruction that rounds two vectors to bf16 (vcvtne2ps2bf16) takes as long as four others on Emerald
 * Rapids, and leaves pairs of rows, not of keys. So P is rounded by an integer addition to each. Cutting
 * without it saves two operations of 25, and on peaked rows the error's norm was 1.36 times as large.
 */
#ifndef ATTNI_SOFTMAX_AMX_H
#define ATTNI_SOFTMAX_AMX_H

#include "cpu/forward_scores.h"
#include "cpu/x86/exp2_amx.h"

typedef struct softmax_state {
    const float *s; /* the next pair of keys */
    float *p;
    int64_t pairs; /* left */
    int64_t taken; /* of them, between their first vector and their second */
    vf scale;
    vf reference[FORWARD_NV];
    vf sum[FORWARD_NV];      /* of P */
    __m512i top[FORWARD_NV]; /* the largest P of either key, as bf16 bits: ordered like integers */
} softmax_state;

/* (low, high) rounded to bf16 in each lane, ties up. Of a NaN nothing may be left: l has it. */
SIMD_INLINE __m512i softmax_round(vf low, vf high) {
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    const __m512i below = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(low), half), 16);
    const __m512i above = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_ternarylogic_epi32(below, above, mask, 0xf8); /* below | (above & mask) */
}

/*
 * Vector v of `most` pairs, or of those that are left. Calls with v = 0 and 1 alternate; both are of the same
 * pairs.
 */
SIMD_INLINE void softmax_vector(softmax_state *e, const int v, int64_t most) {
    if (v == 0) e->taken = attni_min(most, e->pairs);
    const float *s = e->s + v * SIMD_LANES;
    float *p = e->p + v * SIMD_LANES;
    for (int64_t i = 0; i < e->taken; i++, s += 2 * FORWARD_SUB_ROWS, p += FORWARD_SUB_ROWS) {
        const vf low = amx_exp2(0xffff, vf_load(s), e->reference[v], e->scale);
        const vf high = amx_exp2(0xffff, vf_load(s + FORWARD_SUB_ROWS), e->reference[v], e->scale);
        const __m512i unit = softmax_round(low, high);
        _mm512_storeu_si512(p, unit);
        e->sum[v] = vf_add(e->sum[v], vf_add(low, high));
        e->top[v] = _mm512_max_epu16(e->top[v], unit);
    }
    if (v == 0) return;
    e->s += e->taken * 2 * FORWARD_SUB_ROWS;
    e->p += e->taken * FORWARD_SUB_ROWS;
    e->pairs -= e->taken;
}

/* All that are left. */
static inline void softmax_rest(softmax_state *e) {
    const int64_t pairs = e->pairs;
    softmax_vector(e, 0, pairs);
    softmax_vector(e, 1, pairs);
}

/* Lanes in which either key's P is above 2^LAZY, or NaN. */
SIMD_INLINE vmask softmax_outgrown(__m512i top) {
    const __m512i high = _mm512_srli_epi32(top, 16), low = _mm512_and_si512(top, _mm512_set1_epi32(0xffff));
    return _mm512_cmpgt_epi32_mask(_mm512_max_epi32(high, low), _mm512_set1_epi32(0x4380)); /* 2^8 in bf16 */
}

/* The sums of the rounded P of each lane. */
SIMD_INLINE void softmax_rounded_sums(const float *p, int64_t pairs, vf sums[FORWARD_NV]) {
    for (int v = 0; v < FORWARD_NV; v++) {
        sums[v] = vf_zero();
        for (int64_t j = 0; j < pairs; j++)
            sums[v] = simd_dot(simd_pair_ones(), vf_load(p + j * FORWARD_SUB_ROWS + v * SIMD_LANES), sums[v]);
    }
}

#endif
