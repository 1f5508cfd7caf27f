/*
 * V of forward_sm90_f8 turned beforehand, once for all tiles of queries: into the workspace, for each (batch, kv head)
 * DV rows of keys, padded by zeros to whole blocks of 128 (hopper_f8_turn.cuh says in which order). Tiles would else
 * turn each block anew, which takes a tenth of their time. It clears the ticket too.
 *
 * A block of 128 threads turns 128 keys of a head; the copy engine brings them and takes them away.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"

#define BF16 1
#include "hopper_f8_turn.cuh"

typedef unsigned char u8;

#define WARPS (ATTNI_VALUES_THREADS / 32)
#define FROM_BYTES (TURN_KEYS * 128)

extern "C" __global__ void __launch_bounds__(ATTNI_VALUES_THREADS)
    ENTRY(const __grid_constant__ attni_forward_sm90_params p) {
    __shared__ __align__(1024) u8 from[FROM_BYTES], to[DV * 128];
    __shared__ u64 full;
    const attni_forward_params *f = &p.forward;
    const int key0 = (int)blockIdx.x * TURN_KEYS;
    const bool first = threadIdx.x == 0;
    const u32 barrier = shared_address(&full);
    launch_next();
    if (first) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
        if (p.ticket && blockIdx.x == 0 && blockIdx.y == 0) {
            *p.ticket = 0;
        }
    }
    __syncthreads();
    u32 parity = 0;
    for (int pair = blockIdx.y; pair < f->batch * f->heads_kv; pair += gridDim.y, parity ^= 1) {
        const int batch = pair / f->heads_kv, head = pair % f->heads_kv;
        if (first) {
            tma_wait_read(0); /* of the pair before */
            mbarrier_arrive_expect(barrier, FROM_BYTES);
            tma_load(shared_address(from), &p.bias, barrier, 0, key0, head, batch, ATTNI_EVICT_FIRST);
        }
        mbarrier_wait(barrier, parity);
        turn_block(shared_address(from), shared_address(to), threadIdx.x / 32, WARPS);
        fence_async_proxy();
        __syncthreads();
        if (first) {
            tma_store(&p.v, shared_address(to), key0, 0, head, batch);
            tma_commit();
        }
    }
    if (first) {
        tma_wait_read(0); /* shared memory must outlive the store */
    }
}
