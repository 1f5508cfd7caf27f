/*
 * forward_sm90_f8: a block of V turned, in shared memory. wgmma takes an 8-bit right operand only with keys along
 * memory, V comes with dims along memory, and the copy engine turns nothing.
 *
 * A warp takes 32 keys x 16 dims at a time. ldmatrix moves pairs of bytes as if they were 16-bit elements, so of
 * a turned 8 x 8 matrix lane 4 r + c holds, of keys 2 c and 2 c + 1, dims 2 r and 2 r + 1. Two matrices, of keys
 * further by 8, give it four keys of each of its dims:
 *
 *   bytes of a word       0        1          2          3          key, of 16
 *   word of dim 2 r       2c       2c + 1     2c + 8     2c + 9     -> row r of the 16
 *   word of dim 2 r + 1   2c       2c + 1     2c + 8     2c + 9     -> row 8 + r
 *
 * That is the order of keys in which a lane's scores stand, packed as a left operand: nothing moves there either.
 * The order of dims makes O's columns come out permuted: a lane's accumulators of two neighbouring groups of 8
 * are dims 4 c to 4 c + 3 of 16 (hopper_f8_finish.cuh), which is what a store of 8 bytes wants.
 *
 * Included after DV, the padded dim.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_TURN_CUH
#define ATTNI_HOPPER_F8_TURN_CUH

#include "ptx_sm90.cuh"

#ifndef TURN_DEPTH
#define TURN_DEPTH 4 /* ldmatrix under way: for latency, and few registers */
#endif
#define TURN_KEYS 128 /* of a block: a turned row has 128 bytes, as V's have */

/* A block into a turned one: the groups of 32 keys of one of `turners` warps. Both have 128-byte swizzle. */
DEVICE void turn_block(u32 from, u32 to, u32 turner, u32 turners) {
    const u32 lane = threadIdx.x & 31, matrix = lane / 8, row = lane & 7;
#pragma unroll 1
    for (u32 keys = 32 * turner; keys < TURN_KEYS; keys += 32 * turners) {
        const u32 source = from + (keys + lane) * 128;
        const u32 target = to + ((matrix & 1) * 8 + row) * 128 + ((keys / 16 + matrix / 2) ^ row) * 16;
#pragma unroll 1
        for (u32 half = 0; half < DV / 16; half += TURN_DEPTH) {
            u32 x[TURN_DEPTH][4];
#pragma unroll
            for (u32 i = 0; i < TURN_DEPTH; i++) {
                ldmatrix_x4_trans(x[i], source + (((half + i) ^ row) << 4));
            }
#pragma unroll
            for (u32 i = 0; i < TURN_DEPTH; i++) {
                stmatrix_x4(target + (half + i) * 16 * 128, __byte_perm(x[i][0], x[i][1], 0x6420),
                            __byte_perm(x[i][0], x[i][1], 0x7531), __byte_perm(x[i][2], x[i][3], 0x6420),
                            __byte_perm(x[i][2], x[i][3], 0x7531));
            }
        }
    }
}

#endif
