/*
 * forward_sm90: an additive bias of the tensors' own type (BIAS), of which the copy engine brings a block for each
 * warpgroup, and ldmatrix hands the lanes what belongs to their scores.
 *
 * BEGUN: scores begin as the bias, in raw numbers, and the product adds to it. Where Q could take the scale (UNIT) those are
 * the bias itself, unpacked. Else it comes to registers while the product is under way, and is added after it: shared memory
 * answers late then, as wgmma reads from it all the time.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_BIAS_CUH
#define ATTNI_HOPPER_BIAS_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"

#if BIAS
DEVICE float low_16(u32 x) { return BF16 ? __uint_as_float(x << 16) : f16_to_float((u16)x); }
DEVICE float high_16(u32 x) { return BF16 ? __uint_as_float(x & 0xffff0000u) : f16_to_float((u16)(x >> 16)); }

/*
 * Takes a block's bias, which is the `taken`th: x[2 i] is of column group i and the thread's first row, x[2 i + 1] of the other
 * one. The chunks have the copy engine's swizzle: 16 bytes of a row lie where the row's last three bits say.
 */
DEVICE void take_bias(u32 (&x)[GROUPS * 2], u32 shared, int thread, int taken) {
    const int lane = thread & 31, row = (thread & 127) / 32 * 16 + (lane & 15);
    const int slot = thread / 128 * BIAS + taken % BIAS;
    const u32 own = AT(bias) + (slot * CHUNKS(BC) * 64 + row) * 128 + ((lane >> 4 ^ (lane & 7)) << 4);
    mbarrier_wait(AT(bias_full) + 8 * slot, taken / BIAS & 1);
#pragma unroll
    for (int pair = 0; pair < GROUPS / 2; pair++) {
        ldmatrix_x4(x + pair * 4, (own ^ pair % 4 << 5) + pair / 4 * 64 * 128);
    }
    __syncwarp();
    mbarrier_arrive_if(AT(bias_empty) + 8 * slot, elect_lane());
}

/* Scores begin as the bias; factor is what makes it one of raw numbers, or 1: it is one. */
DEVICE void begin_scores(float (&s)[BC / 2], const u32 (&x)[GROUPS * 2], float factor) {
    if (UNIT && factor == 1.0f) {
#pragma unroll
        for (int i = 0; i < GROUPS * 2; i++) {
            s[i * 2] = low_16(x[i]);
            s[i * 2 + 1] = high_16(x[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < GROUPS * 2; i++) {
            s[i * 2] = low_16(x[i]) * factor;
            s[i * 2 + 1] = high_16(x[i]) * factor;
        }
    }
}

/* The bias joins raw scores. */
DEVICE void add_bias(float (&s)[BC / 2], const u32 (&x)[GROUPS * 2], float factor) {
#pragma unroll
    for (int i = 0; i < GROUPS * 2; i++) {
        s[i * 2] = fmaf(low_16(x[i]), factor, s[i * 2]);
        s[i * 2 + 1] = fmaf(high_16(x[i]), factor, s[i * 2 + 1]);
    }
}
#endif

#endif
