/*
 * What forward_sm90 must know of sequences whose lengths only the device knows: the copy engine's maps of each
 * (params.h, attni_forward_sm90_params), and the order in which their tiles are taken. One thread a map.
 *
 * A map that ends where its sequence ends is the whole of the masking of memory: rows of the next sequence, or of
 * padding, are never read, so it does not matter what they hold, and none is written.
 *
 * Order: the most keys first, so that what is left to the end of the launch is short. A thread counts the
 * sequences before its own; beyond MOST_SORTED that would take longer than it saves.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"

#define BF16 1
#define BR 64 /* placement.cuh wants sizes of tiles; none is used */
#define BC 64
#define WARP_ROWS 16
#include "placement.cuh"
#include "ptx_sm90.cuh"

#define MOST_SORTED 2048

DEVICE void make_map(const attni_forward_sm90_params *p, int sequence, int which) {
    const attni_forward_params *f = &p->forward;
    const attni_tensor_strides *stride = which == 0   ? &f->q_stride
                                         : which == 1 ? &f->k_stride
                                         : which == 2 ? &f->v_stride
                                                      : &f->o_stride;
    const u16 *base = (const u16 *)(which == 0 ? f->q : which == 1 ? f->k : which == 2 ? f->v : f->o);
    const bool queries = which == 0 || which == 3;
    i64 row0;
    const int rows = queries ? length_of(f->lengths_q_kind, f->lengths_q, sequence, f->seqlen_q, &row0)
                             : length_of(f->lengths_k_kind, f->lengths_k, sequence, f->seqlen_k, &row0);
    attni_tensor_map *map = p->maps + (i64)sequence * ATTNI_MAPS + which;
    const ulonglong2 *from = (const ulonglong2 *)(&p->q + which);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        ((ulonglong2 *)map)[i] = from[i];
    }
    tensor_map_set(map, base + sequence * stride->batch + row0 * stride->seqlen, max(1, rows),
                   queries && f->pack > 0);
    tensor_map_release();
}

/* The place of a sequence in the order of keys, the most first. */
DEVICE int place_of(const attni_forward_params *f, int sequence) {
    i64 row0;
    const int own = length_of(f->lengths_k_kind, f->lengths_k, sequence, f->seqlen_k, &row0);
    int before = 0;
    for (int i = 0; i < f->batch; i++) {
        const int other = length_of(f->lengths_k_kind, f->lengths_k, i, f->seqlen_k, &row0);
        before += other > own || (other == own && i < sequence);
    }
    return before;
}

extern "C" __global__ void __launch_bounds__(ATTNI_SEQUENCES_THREADS)
    sequences_sm90(const __grid_constant__ attni_forward_sm90_params p) {
    launch_next();
    const i64 index = (i64)blockIdx.x * ATTNI_SEQUENCES_THREADS + threadIdx.x;
    const int sequence = (int)(index / ATTNI_MAPS), which = (int)(index % ATTNI_MAPS);
    if (index == 0 && p.ticket) {
        *p.ticket = 0;
    }
    if (sequence >= p.forward.batch) {
        return;
    }
    make_map(&p, sequence, which);
    if (which == 0) {
        p.order[p.forward.batch <= MOST_SORTED ? place_of(&p.forward, sequence) : sequence] = sequence;
    }
}
