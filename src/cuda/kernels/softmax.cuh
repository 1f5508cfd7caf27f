/*
 * The running softmax of rows whose scores lie in mma accumulators: a thread holds, of each of its rows,
 * two neighbouring keys in every eight; the four lanes of a quad share a row.
 *
 * State of a row: reference (scaled, in powers of two: p = 2^(c s - reference)), sum (this thread's share
 * of the sum of p), limit (scores up to it leave the reference where it is). Moving a reference costs a
 * multiplication of the row of O, so it stays while the block's largest term is at most 2^8 (f16 P
 * and a bounded sum) and at most half of what the row has already summed. The second rule keeps peaked
 * rows exact: a term that dominates its row gets p = 1, which 16 bits hold without rounding.
 * Whether a row's reference moves depends on that row alone; the warp votes only on looking.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_SOFTMAX_CUH
#define ATTNI_SOFTMAX_CUH

#include "ptx.cuh"

#define ATTNI_INF __int_as_float(0x7f800000)
#define ATTNI_LOG2E 1.4426950408889634f
#define ATTNI_LN2 0.6931471805599453f

struct softmax_row {
    float reference, sum, limit;
};

DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Four lanes of a quad hold a row's 8-column pieces two elements each; after it, a whole piece each: lane i
 * the piece that x[i] was part of. */
DEVICE uint4 gather_quad(const u32 x[4]) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
    u32 a = __shfl_xor_sync(0xffffffffu, odd ? x[0] : x[1], 1),
        b = __shfl_xor_sync(0xffffffffu, odd ? x[2] : x[3], 1);
    u32 low0 = odd ? a : x[0], low1 = odd ? x[1] : a;   /* of piece 0 or 1: this lane pair's two words */
    u32 high0 = odd ? b : x[2], high1 = odd ? x[3] : b; /* of piece 2 or 3 */
    u32 c = __shfl_xor_sync(0xffffffffu, upper ? low0 : high0, 2);
    u32 d = __shfl_xor_sync(0xffffffffu, upper ? low1 : high1, 2);
    uint4 r;
    r.x = upper ? c : low0, r.y = upper ? d : low1, r.z = upper ? high0 : c, r.w = upper ? high1 : d;
    return r;
}

/* The factor by which the row's sum and O shrink when its block maximum (scaled) is `top`; 1 where the
 * reference stays. All lanes of a warp call it together. */
DEVICE float softmax_move(softmax_row *row, float top) {
    float total = quad_sum(row->sum), growth = top - row->reference, factor = 1.0f;
    if (growth > 0.0f && !(growth <= 8.0f && exp2_fast(growth) <= total * 0.5f)) {
        factor = exp2_fast(-growth);
        row->reference = top;
        row->sum *= factor;
        total *= factor;
    }
    row->limit = row->reference + fminf(8.0f, fmaxf(0.0f, __log2f(total * 0.5f)));
    return factor;
}

/* c tanh(s / c). Away from 0 it is c - 2c / (e^(2 s / c) + 1), whose absolute error is c 2^-23 or so; near 0 that
 * would be all of a small score, and four terms of the series are exact to 2^-26. */
DEVICE float softcap_score(float s, float c) {
    float x = __fdividef(s, c), y = x * x;
    float series = fmaf(y, fmaf(y, fmaf(y, 62.0f / 2835, -17.0f / 315), 2.0f / 15), -1.0f / 3);
    float far = c - __fdividef(2.0f * c, exp2_fast(s * (2.0f * ATTNI_LOG2E / c)) + 1.0f);
    return fabsf(x) < 0.25f ? fmaf(s * y, series, s) : far;
}

/* What is added to a scaled score before exp2: 0 for a row that has seen nothing, so that its -inf stay. */
DEVICE float softmax_shift(const softmax_row *row) {
    return row->reference == -ATTNI_INF ? 0.0f : -row->reference;
}

#endif
