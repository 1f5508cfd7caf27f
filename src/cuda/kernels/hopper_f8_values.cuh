/*
 * forward_sm90_f8: the warps that turn V, where it does not come turned.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_VALUES_CUH
#define ATTNI_HOPPER_F8_VALUES_CUH

#include "hopper_f8_turn.cuh"
#include "hopper_memory.cuh"

#if TURNED
DEVICE void turn_values(shared_memory *, u32, int) {}
#else
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
            turn_block(AT(v) + stage * V_BYTES, AT(turned) + stage * TURNED_BYTES, (u32)turner, TURNERS);
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

#endif
