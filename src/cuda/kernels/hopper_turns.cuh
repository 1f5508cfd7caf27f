/*
 * How matrix warpgroups take turns, and wait for copies. Included by forward_sm90.cu and forward_sm90_f8.cu.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_TURNS_CUH
#define ATTNI_HOPPER_TURNS_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"

/* The turn to issue products goes round the warpgroups, so that one multiplies while another is at softmax. */
DEVICE void take_turn(int warpgroup) {
    if (TURNS) {
        named_barrier_sync(TURN + warpgroup, 256);
    }
}

DEVICE void pass_turn(int warpgroup) {
    if (TURNS) {
        named_barrier_arrive(TURN + (warpgroup + 1 == WGS ? 0 : warpgroup + 1), 256);
    }
}

/* With turns only warpgroup 0 need look whether a tile is there: the others come after it. */
DEVICE void wait_full(u32 barrier, int block, int warpgroup) {
    if (!TURNS || PASSING || warpgroup == 0) {
        mbarrier_wait(barrier, block / STAGES & 1);
    }
}

#endif
