/*
 * The softmax of a unit of scores while the tiles multiply others: P^T = 2^((S^T - m) scale) in pairs of
 * bf16, a pair of keys and a vector of rows at a time, so that the products' loops can take one between two
 * instructions of the tiles. 29 operations for 32 scores.
 *
 * The instruction that rounds two vectors to bf16 (vcvtne2ps2bf16) takes as long as four others on Emerald
 * Rapids, and leaves pairs of rows, not of keys. So P is rounded by an integer addition to each. Cutting
 * without it saves two operations, and on peaked rows the error's norm was 1.36 times as large.
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
    vf rounded[FORWARD_NV];  /* of P as bf16 */
    __m512i top[FORWARD_NV]; /* the largest P of either key, as bf16 bits: ordered like integers */
} softmax_state;

/* One pair of keys, vector v. P is rounded ties up. Of a NaN nothing may be left: l has it. */
SIMD_INLINE void softmax_pair(softmax_state *e, const int v, const float *s, float *p) {
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    const vf low = amx_exp2(0xffff, vf_mul(vf_sub(vf_load(s), e->reference[v]), e->scale));
    const vf high =
        amx_exp2(0xffff, vf_mul(vf_sub(vf_load(s + FORWARD_SUB_ROWS), e->reference[v]), e->scale));
    const __m512i low_bits = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(low), half), mask);
    const __m512i high_bits = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(high), half), mask);
    const __m512i unit = _mm512_or_si512(_mm512_srli_epi32(low_bits, 16), high_bits);
    _mm512_storeu_si512(p, unit);
    e->sum[v] = vf_add(e->sum[v], vf_add(low, high));
    e->rounded[v] =
        vf_add(e->rounded[v], vf_add(_mm512_castsi512_ps(low_bits), _mm512_castsi512_ps(high_bits)));
    e->top[v] = _mm512_max_epu16(e->top[v], unit);
}

SIMD_INLINE void softmax_advance(softmax_state *e, int64_t pairs) {
    e->s += pairs * 2 * FORWARD_SUB_ROWS;
    e->p += pairs * FORWARD_SUB_ROWS;
    e->pairs -= pairs;
}

/*
 * Vector v of `most` pairs, or of those that are left. Calls with v = 0 and 1 alternate; both are of the same
 * pairs.
 */
SIMD_INLINE void softmax_vector(softmax_state *e, const int v, int64_t most) {
    if (v == 0) e->taken = attni_min(most, e->pairs);
    const float *s = e->s + v * SIMD_LANES;
    float *p = e->p + v * SIMD_LANES;
    for (int64_t i = 0; i < e->taken; i++, s += 2 * FORWARD_SUB_ROWS, p += FORWARD_SUB_ROWS)
        softmax_pair(e, v, s, p);
    if (v == 1) softmax_advance(e, e->taken);
}

/*
 * The same without a loop for the two usual numbers of pairs, of which there are enough left: of one a vector at a
 * time, of two both vectors of one and then of the other. Else any number.
 */
SIMD_INLINE void softmax_some(softmax_state *e, const int v, const int known, int64_t most) {
    if (known == 0) {
        softmax_vector(e, v, most);
        return;
    }
    if (known == 2) softmax_pair(e, 1 - v, e->s + (1 - v) * SIMD_LANES, e->p + (1 - v) * SIMD_LANES);
    softmax_pair(e, v, e->s + v * SIMD_LANES, e->p + v * SIMD_LANES);
    if (known == 2 || v == 1) softmax_advance(e, 1);
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

#endif
