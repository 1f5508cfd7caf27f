/*
 * The softmax of a unit of scores while the tiles multiply others: P^T = 2^(S^T scale - m scale) in pairs of
 * bf16, a pair of keys at a time, so that the products' loops can take one, or half of one, between two
 * instructions of the tiles. 26 operations for 32 scores.
 *
 * The instruction that rounds two vectors to bf16 (vcvtne2ps2bf16) takes as long as four others on Emerald
 * Rapids, and leaves pairs of rows, not of keys. So P is rounded by an integer addition to each. Cutting
 * without it saves two operations, and on peaked rows the error's norm was 1.36 times as large.
 *
 * m scale is rounded once, to the same number for all of a row, and what that is off by stands in each P alike, as 2^-24
 * of its size. Where it is large that would be too much: there m is subtracted first, by itself (softmax_far).
 */
#ifndef ATTNI_SOFTMAX_AMX_H
#define ATTNI_SOFTMAX_AMX_H

#include "cpu/forward_scores.h"
#include "cpu/x86/exp2_amx.h"

#define SOFTMAX_NEAR 4096.0f /* the largest size of m scale that is near */

typedef struct softmax_state {
    const float *s; /* the next pair of keys */
    float *p;
    int64_t pairs; /* left */
    vf scale;
    vf reference[FORWARD_NV]; /* m, 0 for -inf */
    vf offset[FORWARD_NV];    /* m scale */
    vf sum[FORWARD_NV];       /* of P */
    vf rounded[FORWARD_NV];   /* of P as bf16 */
} softmax_state;

/*
 * Into registers and back, one by one: a copy of the struct would be made by vectors over the three scalars,
 * and such a load waits until all stores before it, tiles and all, have left the core.
 */
SIMD_INLINE void softmax_enter(softmax_state *to, const softmax_state *e) {
    to->s = e->s;
    to->p = e->p;
    to->pairs = e->pairs;
    to->scale = e->scale;
    SIMD_UNROLL
    for (int v = 0; v < FORWARD_NV; v++) {
        to->reference[v] = e->reference[v];
        to->offset[v] = e->offset[v];
        to->sum[v] = e->sum[v];
        to->rounded[v] = e->rounded[v];
    }
}

SIMD_INLINE void softmax_leave(softmax_state *e, const softmax_state *from) {
    e->s = from->s;
    e->p = from->p;
    e->pairs = from->pairs;
    SIMD_UNROLL
    for (int v = 0; v < FORWARD_NV; v++) {
        e->sum[v] = from->sum[v];
        e->rounded[v] = from->rounded[v];
    }
}

SIMD_INLINE vf softmax_exponent(const bool far, const softmax_state *e, const int v, vf s) {
    const vf near = _mm512_fmsub_ps(s, e->scale, e->offset[v]);
    if (!far) return near;
    return vf_select(vf_greater(vf_abs(e->offset[v]), vf_set1(SOFTMAX_NEAR)),
                     vf_mul(vf_sub(s, e->reference[v]), e->scale), near);
}

/* The next pair of keys, both vectors, in two halves; chains: low and high key of vector 0, then of vector 1. */
SIMD_INLINE void softmax_begin_pair(const bool far, const softmax_state *e, exp2_chains *exp2) {
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++)
        exp2->x[i] =
            softmax_exponent(far, e, i / 2, vf_load(e->s + i % 2 * FORWARD_SUB_ROWS + i / 2 * SIMD_LANES));
    exp2_begin(exp2);
}

/* P is rounded ties up. Of a NaN nothing may be left: l has it. */
SIMD_INLINE void softmax_end_pair(softmax_state *e, exp2_chains *exp2) {
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    exp2_end(exp2);
    vf bits[CHAINS];
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++)
        bits[i] = _mm512_castsi512_ps(
            _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(exp2->p[i]), half), mask));
    TOGETHER(bits);
    SIMD_UNROLL
    for (int v = 0; v < FORWARD_NV; v++) {
        const vf low = bits[2 * v], high = bits[2 * v + 1];
        _mm512_storeu_si512(
            e->p + v * SIMD_LANES,
            _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16), _mm512_castps_si512(high)));
        e->sum[v] = vf_add(e->sum[v], vf_add(exp2->p[2 * v], exp2->p[2 * v + 1]));
        e->rounded[v] = vf_add(e->rounded[v], vf_add(low, high));
    }
    /* now, not pairs later */
    __asm__("" : "+v"(e->sum[0]), "+v"(e->sum[1]), "+v"(e->rounded[0]), "+v"(e->rounded[1]));
    e->s += 2 * FORWARD_SUB_ROWS;
    e->p += FORWARD_SUB_ROWS;
    e->pairs--;
}

SIMD_INLINE void softmax_pairs(const bool far, softmax_state *e, int64_t count) {
    for (; count > 0; count--) {
        exp2_chains exp2;
        softmax_begin_pair(far, e, &exp2);
        softmax_end_pair(e, &exp2);
    }
}

/*
 * What stands beside product i of four, `most` pairs with each two products. Known: that it is one or two, and that so
 * many are left; 0: any number.
 */
SIMD_INLINE void softmax_some(softmax_state *e, exp2_chains *exp2, const int i, const int known,
                              int64_t most) {
    if (known == 2)
        softmax_pairs(false, e, 1);
    else if (known == 1 && i % 2 == 0)
        softmax_begin_pair(false, e, exp2);
    else if (known == 1)
        softmax_end_pair(e, exp2);
    else if (i % 2 == 0)
        softmax_pairs(false, e, attni_min(most, e->pairs));
}

/* All that are left. */
static void softmax_rest(softmax_state *e) {
    softmax_state s;
    softmax_enter(&s, e);
    softmax_pairs(false, &s, s.pairs);
    softmax_leave(e, &s);
}

/* The same where some reference is far. */
static void softmax_far(softmax_state *e) { softmax_pairs(true, e, e->pairs); }

/* Lanes whose P of a unit add up to more than OUTGROWN, or to NaN. */
#define OUTGROWN 0x1p16f
SIMD_INLINE vmask softmax_outgrown(vf sum) { return _mm512_cmp_ps_mask(sum, vf_set1(OUTGROWN), _CMP_NLE_UQ); }

#endif
