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

#include "hopper_f8_softmax.cuh"
#include "pairs.cuh"
#include "ptx_sm90.cuh"

#define LARGEST_SUM (62800.0f / (E5M2 ? 57344.0f : 448.0f)) /* 4% less than 65504 for its own roundings */
#define SMALLEST_SUM (E5M2 ? 0x1p-14f : 0x1p-7f) /* so that no power is beyond f16 */

/* Sizes are summed in f16: e4m3's 64 of half a row do not overflow, e5m2's over 256 do not. */
#define SIZES_UNIT (E5M2 ? 256.0f : 1.0f)
DEVICE u32 add_size(u32 pair, u32 sum) {
    const u32 size = pair_absolute(pair);
    return E5M2 ? pair_fma(size, 0x1c001c00u, sum) : pair_add(size, sum);
}

/*
 * Multiplies the 64 rows of a warpgroup, in 128-byte swizzle, each by a power of two with the sign of `scale`; where that
 * is 0 by 0, which leaves NaN. What the rows' scores are multiplied by then goes to scales. Two threads share a row.
 */
DEVICE void scale_rows(u8 *part, float *scales, float scale) {
    const int thread = this_thread() & 127, row = thread / 2, side = thread & 1;
    u8 *const from = part + row * 128;
    u32 x[D / 8], pair[D / 4], sums[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        *(uint4 *)(x + 4 * i) = *(const uint4 *)(from + (((side * (D / 32) + i) ^ (row & 7)) << 4));
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        f8_to_pairs(x[i], pair + 2 * i);
        sums[0] = add_size(pair[2 * i], sums[0]);
        sums[1] = add_size(pair[2 * i + 1], sums[1]);
    }
    const u32 sum = pair_add(sums[0], sums[1]);
    const float half = (low_half(sum) + high_half(sum)) * SIZES_UNIT,
                sizes = half + __shfl_xor_sync(0xffffffffu, half, 1),
                most = LARGEST_SUM * reciprocal_fast(fmaxf(sizes, SMALLEST_SUM));
    const bool infinite = E5M2 && !(sizes < ATTNI_INF) && scale != 0.0f; /* NaN and inf stay what they are */
    const float times = infinite ? 1.0f : __int_as_float(__float_as_int(most) & 0x7f800000);
    const u32 power = scale == 0.0f ? 0 : pair_of(copysignf(times, scale)),
              sign = scale < 0.0f ? 0x80808080u : 0;
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        const u32 scaled =
            pairs_to_f8(pair_multiply(pair[2 * i], power), pair_multiply(pair[2 * i + 1], power));
        x[i] = infinite ? x[i] ^ sign : scaled;
    }
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        *(uint4 *)(from + (((side * (D / 32) + i) ^ (row & 7)) << 4)) = *(const uint4 *)(x + 4 * i);
    }
    if (side == 0) {
        scales[row] = scale == 0.0f ? 1.0f : f8_scale_of(scale) / times;
    }
}

#endif
