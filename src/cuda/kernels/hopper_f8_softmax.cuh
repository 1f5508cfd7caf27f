/*
 * forward_sm90_f8: p of e4m3 from scores, without a maximum in the loop, as in hopper_softmax.cuh.
 *
 * e4m3 ends at 448 and is exact to one part in 16 down to 2^-6. A row's reference gives the largest score of
 * its first block p = 8, which is not rounded; 32 such p, what a thread sums of a row and a block, stay
 * below 448, the guard. A p down to 2^-9 of that is rounded like any other number; below, to steps of 2^-9.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_SOFTMAX_CUH
#define ATTNI_HOPPER_F8_SOFTMAX_CUH

#include "hopper_softmax.cuh"

/* What a thread of a matrix warpgroup holds. Rows: row and row + 8 of the tile. */
struct f8_state {
    float scale; /* of the tile's raw scores to powers of two */
    float reference[2]; /* of the rows: p = 2^(scale s - reference) */
    float sum[2]; /* this thread's shares of the rows' sums of p */
    float kept_reference[2]; /* of what o has */
    int interval; /* blocks in t */
    int blocks; /* whose K has been taken */
    int tiles; /* whose Q has been taken */
    int block, begin; /* of the tile at hand: the block at work, and its first */
    int whole_begin, whole_end; /* blocks that all rows of the warpgroup see whole */
};

/* 9.7.9.21 cvt: two pairs of floats to four e4m3, the first in the lowest byte; beyond 448 it stays 448. */
DEVICE u32 pack_e4m3(float a, float b, float c, float d) {
    u32 r;
    asm("{\n.reg .b16 low, high;\ncvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\nmov.b32 %0, {low, high};\n}"
        : "=r"(r)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return r;
}

/* The largest score of a row. */
DEVICE float row_maximum(const float (&s)[BC / 2], int half) {
    float x = s[half * 2], y = s[half * 2 + 1];
#pragma unroll
    for (int i = 1; i < GROUPS; i++) {
        x = fmaxf(x, s[i * 4 + half * 2]);
        y = fmaxf(y, s[i * 4 + half * 2 + 1]);
    }
    return quad_max(fmaxf(x, y));
}

/* Four exponentials into e, and into the sums: two for each row. */
DEVICE void f8_exponentials(const float *s, float *e, const f8_state *at, float (&sum)[4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        e[j] = exp2_fast(fmaf(s[j], at->scale, -at->reference[j / 2]));
        sum[j] += e[j];
    }
}

/* The reference that gives a largest score a p of 8, which is not rounded. */
DEVICE float f8_reference_of(float top) { return fmaxf(top, LOWEST) + HEADROOM; }

/* p of the column groups [from, to), both even, packed as left operands: rows and rows + 8 of 16 keys at a time. */
DEVICE void f8_probabilities(const float (&s)[BC / 2], u32 *p, const f8_state *at, float (&sum)[4], int from,
                             int to) {
#pragma unroll
    for (int i = from; i < to; i += 2) {
        float e[8];
        f8_exponentials(s + i * 4, e, at, sum);
        f8_exponentials(s + i * 4 + 4, e + 4, at, sum);
        p[i] = pack_e4m3(e[0], e[1], e[4], e[5]);
        p[i + 1] = pack_e4m3(e[2], e[3], e[6], e[7]);
    }
}

DEVICE void f8_rescale(float (&o)[DV / 2], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        o[i] *= factor[i / 2 & 1];
    }
}

/* Rows that may have a p beyond 448, as a thread's sum of a block says, take their maximum as reference, and p is
 * computed again. */
DEVICE void f8_mend(const float (&s)[BC / 2], u32 (&p)[BC / 8], float (&t)[DV / 2], f8_state *at,
                    float (&sum)[4], bool fresh) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float top = quad_max(sum[half * 2] + sum[half * 2 + 1]), old = at->reference[half],
                    found = f8_reference_of(row_maximum(s, half) * at->scale);
        at->reference[half] = top > GUARD ? found : old;
        factor[half] = top > GUARD ? exp2_fast(old - found) : 1.0f;
    }
    sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
    f8_probabilities(s, p, at, sum, 0, GROUPS);
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        f8_rescale(t, factor);
    }
}

#endif
