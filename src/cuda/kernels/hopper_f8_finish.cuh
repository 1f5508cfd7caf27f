/*
 * forward_sm90_f8: float32 sums of P V, and O on its way to memory.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_FINISH_CUH
#define ATTNI_HOPPER_F8_FINISH_CUH

#include "hopper_f8_softmax.cuh"
#include "hopper_finish.cuh"

/* Shared memory that the copy engine still reads may not be written: the thread that issued the store looks. */
DEVICE void wait_for_store(int warpgroup) {
    if ((threadIdx.x & 127) == 0) {
        tma_wait_read(0);
    }
    named_barrier_sync(OWN + warpgroup, 128);
}

/* O through the warpgroup's part of shared memory, by the copy engine, which clips it to the tensor. Of 16 dims a
 * lane has four neighbours: hopper_f8_values.cuh. */
DEVICE void f8_store(const attni_forward_sm90_params *p, const tile_facts *t, u16 (*part)[64 * 64],
                     int warpgroup, const float (&o)[DV / 2], const float inverse[2]) {
    const int thread = this_thread(), lane = thread & 31, row = (thread & 127) / 32 * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        char *to = (char *)part + (row + half * 8) * 128 + (lane & 1) * 8;
#pragma unroll
        for (int i = 0; i < DV / 16; i++) {
            const float *x = o + i * 8 + half * 2;
            const int piece = i % 4 * 2 + (lane & 3) / 2; /* of 16 bytes */
            *(uint2 *)(to + i / 4 * O_CHUNK_BYTES + ((piece ^ (row & 7)) << 4)) =
                make_uint2(pack_16(x[0] * inverse[half], x[4] * inverse[half]),
                           pack_16(x[1] * inverse[half], x[5] * inverse[half]));
        }
    }
    fence_async_proxy();
    named_barrier_sync(OWN + warpgroup, 128);
    if ((threadIdx.x & 127) == 0) {
#pragma unroll
        for (int i = 0; i < (DV + 63) / 64; i++) {
            tma_store(&p->o, shared_address(part[i]), t->slice * DV + i * 64, t->row0 + warpgroup * 64,
                      t->head, t->batch);
        }
        tma_commit();
    }
}

#endif
