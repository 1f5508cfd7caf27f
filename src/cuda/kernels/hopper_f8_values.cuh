/*
 * forward_sm90_f8: the warps that turn V. wgmma takes an 8-bit right operand only with keys along memory, V comes
 * with dims along memory, and the copy engine turns nothing.
 *
 * A turner takes 32 keys x 16 dims at a time. ldmatrix moves pairs of bytes as if they were 16-bit elements, so of
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
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_VALUES_CUH
#define ATTNI_HOPPER_F8_VALUES_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"

/* A slot of V into a turned slot: this turner's groups of 32 keys. */
DEVICE void turn_block(u32 from, u32 to, int turner) {
    const u32 lane = threadIdx.x & 31, matrix = lane / 8, row = lane & 7;
#pragma unroll 1
    for (u32 keys = 32 * (u32)turner; keys < BC; keys += 32 * TURNERS) {
        const u32 source = from + (keys + lane) * 128;
        const u32 target = to + ((matrix & 1) * 8 + row) * 128 + ((keys / 16 + matrix / 2) ^ row) * 16;
#pragma unroll 1
        for (u32 half = 0; half < DV / 16; half += 4) { /* four at a time: latency, and few registers */
            u32 x[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                ldmatrix_x4_trans(x[i], source + (((half + i) ^ row) << 4));
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                stmatrix_x4(target + (half + i) * 16 * 128, __byte_perm(x[i][0], x[i][1], 0x6420),
                            __byte_perm(x[i][0], x[i][1], 0x7531), __byte_perm(x[i][2], x[i][3], 0x6420),
                            __byte_perm(x[i][2], x[i][3], 0x7531));
            }
        }
    }
}

/* A turner's life: all blocks of all tiles, in the order of their copies. */
DEVICE void turn_values(shared_memory *memory, u32 shared, int turner) {
    u32 block = 0;
#pragma unroll 1
    for (u32 count = 0;; count++) {
        const tile_record *r = &memory->tile[count % RECORDS];
        mbarrier_sleep(AT(tile_full) + 8 * (count % RECORDS), count / RECORDS & 1);
        if (r->view[0].x < 0) {
            return;
        }
        const u32 end = block + (u32)(r->facts.block_end - r->facts.block_begin);
#pragma unroll 1
        for (; block < end; block++) {
            const u32 stage = block % STAGES, parity = block / STAGES & 1;
            mbarrier_sleep(AT(v_full) + 8 * stage, parity);
            mbarrier_sleep(AT(turned_empty) + 8 * stage, parity ^ 1);
            turn_block(AT(v) + stage * V_BYTES, AT(turned) + stage * TURNED_BYTES, turner);
            fence_async_proxy();
            __syncwarp();
            if ((threadIdx.x & 31) == 0) {
                mbarrier_arrive(AT(turned_full) + 8 * stage);
                mbarrier_arrive(AT(v_empty) + 8 * stage);
            }
        }
    }
}

#endif
