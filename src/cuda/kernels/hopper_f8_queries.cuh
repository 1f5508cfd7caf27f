/*
 * forward_sm90_f8 with scores in f16: rows of Q scaled. f16 ends at 65504, and no score of a row of Q is beyond
 * the sum of its sizes times the largest number of K's type. So each row is multiplied by a power of two that puts that
 * bound just below 65504; the row's scale takes it back. Upwards that is exact; downwards what falls below the type's
 * normal numbers is rounded (docs/numerics.md, 8 bits).
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_QUERIES_CUH
#define ATTNI_HOPPER_F8_QUERIES_CUH

#include "hopper_softmax.cuh"
#include "pairs.cuh"
#include "ptx_sm90.cuh"

#define LARGEST_SUM (62800.0f / (E5M2 ? 57344.0f : 448.0f)) /* 4% less than 65504 for its own roundings */
#define SMALLEST_SUM (E5M2 ? 0x1p-14f : 0x1p-7f) /* so that no power is beyond f16 */

/* Adds the sizes of four elements, over 256. */
DEVICE u32 add_sizes(u32 x, u32 sum) {
    u32 pair[2];
    f8_to_pairs(x, pair);
    sum = pair_fma(pair_absolute(pair[0]), 0x1c001c00u, sum);
    return pair_fma(pair_absolute(pair[1]), 0x1c001c00u, sum);
}

DEVICE u32 scale_word(u32 x, u32 power) {
    u32 pair[2];
    f8_to_pairs(x, pair);
    return pairs_to_f8(pair_multiply(pair[0], power), pair_multiply(pair[1], power));
}

/*
 * Multiplies the 64 rows of a warpgroup, in 128-byte swizzle, each by a power of two with the sign of `scale`; where that
 * is 0 by 0, which leaves NaN. What the rows' scores are multiplied by then goes to scales. Two threads share a row.
 */
DEVICE void scale_rows(u8 *part, float *scales, float scale) {
    const int thread = this_thread() & 127, row = thread / 2, side = thread & 1;
    uint4 x[D / 32];
    u32 sum = 0;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        x[i] = *(const uint4 *)(part + row * 128 + (((side * (D / 32) + i) ^ (row & 7)) << 4));
        sum = add_sizes(x[i].w, add_sizes(x[i].z, add_sizes(x[i].y, add_sizes(x[i].x, sum))));
    }
    const float half = (low_half(sum) + high_half(sum)) * 256.0f,
                sizes = half + __shfl_xor_sync(0xffffffffu, half, 1),
                most = LARGEST_SUM * reciprocal_fast(fmaxf(sizes, SMALLEST_SUM));
    const bool kept = !(sizes < ATTNI_INF) && scale != 0.0f; /* NaN and inf: only their signs */
    const float times = kept ? 1.0f : __int_as_float(__float_as_int(most) & 0x7f800000);
    const u32 power = scale == 0.0f ? 0 : pair_of(copysignf(times, scale)),
              sign = scale < 0.0f ? 0x80808080u : 0;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        uint4 y = make_uint4(scale_word(x[i].x, power), scale_word(x[i].y, power), scale_word(x[i].z, power),
                             scale_word(x[i].w, power));
        if (kept) {
            y = make_uint4(x[i].x ^ sign, x[i].y ^ sign, x[i].z ^ sign, x[i].w ^ sign);
        }
        *(uint4 *)(part + row * 128 + (((side * (D / 32) + i) ^ (row & 7)) << 4)) = y;
    }
    if (side == 0) {
        scales[row] = scale == 0.0f ? 1.0f : fabsf(scale) * ATTNI_LOG2E / times;
    }
}

#endif
