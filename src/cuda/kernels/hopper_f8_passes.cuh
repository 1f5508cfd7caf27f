/*
 * forward_sm90_f8 with scores in f16: its two passes. In the first a block makes its tiles with f16 scores, and marks those that
 * they are too coarse for (hopper_f8_half.cuh); in the second it makes these again, with float32 scores. As a rule there are none.
 *
 * A record without a tile ends a pass. Slots and records go on where they were.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_PASSES_CUH
#define ATTNI_HOPPER_F8_PASSES_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"

#define NO_TILE (-1)

/* Once the first pass is over: whether there is a second. Each warp has finished its tiles, and marked them. */
DEVICE bool begin_second_pass(shared_memory *memory, u32 shared, bool first_pass) {
    if (!first_pass) {
        return false;
    }
    mbarrier_wait(AT(pass_done), 0);
    return *(volatile int *)&memory->last_marked != NO_TILE;
}

#endif
