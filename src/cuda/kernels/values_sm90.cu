/*
 * V of forward_sm90_f8 turned beforehand, once for all tiles of queries: into the workspace, for each (batch, kv head)
 * DV rows of keys, padded by zeros to whole blocks of 128 (hopper_f8_turn.cuh says in which order). Tiles would else
 * turn each block anew, which takes a tenth of their time. It clears the ticket too.
 *
 * A block of 128 threads turns 128 keys of a head.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"

#define BF16 1
#include "hopper_f8_turn.cuh"

typedef unsigned char u8;

#define WARPS (ATTNI_VALUES_THREADS / 32)

/* 16 bytes of a row of V, of which those from `count` on are zeros and are not read. */
DEVICE uint4 load_chunk(const u8 *from, int count) {
    if (count >= 16) {
        return *(const uint4 *)from;
    }
    u32 x[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        x[i / 4] |= i < count ? (u32)from[i] << 8 * (i % 4) : 0;
    }
    return make_uint4(x[0], x[1], x[2], x[3]);
}

extern "C" __global__ void __launch_bounds__(ATTNI_VALUES_THREADS)
    ENTRY(const __grid_constant__ attni_forward_sm90_params p) {
    __shared__ __align__(1024) u8 from[TURN_KEYS * 128], to[DV * 128];
    const attni_forward_params *f = &p.forward;
    const int chunk = threadIdx.x & 7, first = (int)threadIdx.x / 8, key0 = (int)blockIdx.x * TURN_KEYS;
    if (p.ticket && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        *p.ticket = 0;
    }
    for (int pair = blockIdx.y; pair < f->batch * f->heads_kv; pair += gridDim.y) {
        const int batch = pair / f->heads_kv, head = pair % f->heads_kv;
        const u8 *v = (const u8 *)f->v + batch * f->v_stride.batch + head * f->v_stride.heads + chunk * 16;
        uint4 x[TURN_KEYS / 16];
#pragma unroll
        for (int i = 0; i < TURN_KEYS / 16; i++) {
            const int key = key0 + i * 16 + first;
            x[i] = load_chunk(v + key * f->v_stride.seqlen, key < f->seqlen_k ? f->dim_v - chunk * 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < TURN_KEYS / 16; i++) {
            const int row = i * 16 + first;
            *(uint4 *)(from + row * 128 + ((chunk ^ (row & 7)) << 4)) = x[i];
        }
        __syncthreads();
        turn_block(shared_address(from), shared_address(to), threadIdx.x / 32, WARPS);
        __syncthreads();
        u8 *out = p.turned + ((i64)pair * DV + first) * p.turned_keys + key0 + chunk * 16;
#pragma unroll
        for (int i = 0; i < DV / 16; i++) {
            const int row = i * 16 + first;
            *(uint4 *)(out + (i64)i * 16 * p.turned_keys) =
                *(const uint4 *)(to + row * 128 + ((chunk ^ (row & 7)) << 4));
        }
    }
}
