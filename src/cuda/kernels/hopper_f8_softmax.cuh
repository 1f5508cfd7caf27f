/*
 * forward_sm90_f8: p of e4m3 from scores, without a maximum in the loop, as in hopper_softmax.cuh. What is alike whether
 * scores are float32 (hopper_f8_float.cuh) or f16 (hopper_f8_half.cuh).
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

/* Where a thread works; all of it constant. */
struct matrix_place {
    u32 shared;
    int warpgroup;
    u32 q, k, v; /* descriptors' low words, of stage 0 */
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

/* Of a tile, in powers of two. */
DEVICE float f8_scale_of(float scale) { return scale == 0.0f ? 1.0f : fabsf(scale) * ATTNI_LOG2E; }

/* The reference that gives a largest score a p of 8, which is not rounded. */
DEVICE float f8_reference_of(float top, float lowest) { return fmaxf(top, lowest) + HEADROOM; }

DEVICE void f8_rescale(float (&o)[DV / 2], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        o[i] *= factor[i / 2 & 1];
    }
}

#endif
