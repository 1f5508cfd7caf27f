/*
 * forward_sm90: an additive bias of the tensors' own type (BIAS), of which the copy engine brings a block for each
 * warpgroup under the scores' product.
 *
 * ldmatrix hands the lanes what belongs to their scores. To unpack and to add it takes fewer cycles than the
 * exponentials, and few beside them, if no branch lies between. The assembler sees to that where it has registers; where
 * it has not (LAZY) the bias joins the scores two column groups at a time, just before their exponents are made.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_BIAS_CUH
#define ATTNI_HOPPER_BIAS_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"

/* A lane's view of a block's bias. */
struct bias_view {
    bool added; /* it is in the scores */
    int slot; /* of all warpgroups' */
    u32 own; /* the lane's row of 16 bytes for ldmatrix, of the first 16 keys */
    float factor; /* that makes it one of raw scores */
};

#if BIAS
DEVICE float low_16(u32 x) { return BF16 ? __uint_as_float(x << 16) : f16_to_float((u16)x); }
DEVICE float high_16(u32 x) { return BF16 ? __uint_as_float(x & 0xffff0000u) : f16_to_float((u16)(x >> 16)); }

/* Waits for a block's bias. The chunks have the copy engine's swizzle: 16 bytes of a row lie where the row's last three
 * bits say. */
DEVICE bias_view await_bias(u32 shared, int thread, int taken, float factor) {
    const int lane = thread & 31, row = (thread & 127) / 32 * 16 + (lane & 15);
    bias_view b;
    b.added = false;
    b.factor = factor;
    b.slot = thread / 128 * BIAS + taken % BIAS;
    b.own = AT(bias) + (b.slot * CHUNKS(BC) * 64 + row) * 128 + ((lane >> 4 ^ (lane & 7)) << 4);
    mbarrier_wait(AT(bias_full) + 8 * b.slot, taken / BIAS & 1);
    return b;
}

/* The bias of the column groups 2 pair and 2 pair + 1 joins their raw scores. */
DEVICE void add_bias(float (&s)[BC / 2], const bias_view *b, int pair) {
    u32 x[4];
    ldmatrix_x4(x, (b->own ^ pair % 4 << 5) + pair / 4 * 64 * 128);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float *to = &s[pair * 8 + j * 2];
        to[0] = fmaf(low_16(x[j]), b->factor, to[0]);
        to[1] = fmaf(high_16(x[j]), b->factor, to[1]);
    }
}

DEVICE void add_whole_bias(float (&s)[BC / 2], const bias_view *b) {
#pragma unroll
    for (int pair = 0; pair < GROUPS / 2; pair++) {
        add_bias(s, b, pair);
    }
}

DEVICE void release_bias(u32 shared, const bias_view *b) {
    __syncwarp();
    mbarrier_arrive_if(AT(bias_empty) + 8 * b->slot, elect_lane());
}
#endif

#endif
