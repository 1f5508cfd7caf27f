/*
 * forward_sm90: LSE and O of a tile, and the ways of O to memory.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_FINISH_CUH
#define ATTNI_HOPPER_FINISH_CUH

#include "hopper_producer.cuh"
#include "hopper_softmax.cuh"

/* ---------------------------------------------------------------- finish */

/* LSE of a thread's rows, and what their o are multiplied by. excess: what the sum of p as rounded has more. */
DEVICE void finish_rows(const attni_forward_params *p, const tile_record *record, int warpgroup,
                        const float sum[2], const float excess[2], const float reference[2],
                        float inverse[2]) {
    const tile_facts *t = &record->facts;
    const int row = thread_row(warpgroup), rows = t->rows - t->row0;
    const float shared_sink = p->sinks ? p->sinks[t->head] * ATTNI_LOG2E : -ATTNI_INF;
    float *lse = p->lse + record->lse + row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        packed_row own; /* PACKED alone: its head is a row's own */
        int head;
        if (PACKED) {
            own = place_packed(p, t, warpgroup, half);
            head = t->head * p->pack + own.head;
            lse = p->lse + t->batch * p->lse_stride_batch + head * p->lse_stride_head + t->q_row0 +
                  own.query - half * 8;
        }
        const float sink = !PACKED               ? shared_sink
                           : p->sinks && own.any ? p->sinks[head] * ATTNI_LOG2E
                                                 : -ATTNI_INF;
        float total = quad_sum(sum[half]), divisor = SHIFTING ? quad_sum(sum[half] + excess[half]) : total;
        float top = reference[half], weight = 1.0f;
        if (sink != -ATTNI_INF) { /* a sink of -inf is none */
            top = fmaxf(top, sink);
            weight = reference[half] == top ? 1.0f : exp2_fast(reference[half] - top);
            total = total * weight + exp2_fast(sink - top);
            divisor = divisor * weight + exp2_fast(sink - top);
        }
        inverse[half] = divisor == 0.0f ? 0.0f : __fdividef(weight * p->dropout_scale, divisor);
        if (p->lse && (threadIdx.x & 3) == 0 && (PACKED ? own.any : row + half * 8 < rows)) {
            lse[half * 8] = total == 0.0f ? -ATTNI_INF
                            : sink > -ATTNI_INF && top == sink
                                ? p->sinks[PACKED ? head : t->head] + logf(total)
                                : fmaf(top - HEADROOM, ATTNI_LN2, logf(total * exp2_fast(HEADROOM)));
        }
    }
}

/* O through the warpgroup's own part of its Q slot, by the copy engine, which clips it to the tensor. */
DEVICE void store_staged(const attni_forward_sm90_params *p, const tile_facts *t, u32 stage, int warpgroup,
                         const float (&o)[DV / 2], const float inverse[2]) {
    const int thread = this_thread(), lane = thread & 31, row = (thread & 127) / 32 * 16 + (lane & 15);
#pragma unroll
    for (int i = 0; i < DV / 16; i++) {
        const int chunk = 2 * i + (lane >> 4); /* of 16 bytes */
        stmatrix_x4(stage + i / 4 * O_CHUNK_BYTES + row * 128 + (((chunk & 7) ^ (row & 7)) << 4),
                    pack_16(o[8 * i] * inverse[0], o[8 * i + 1] * inverse[0]),
                    pack_16(o[8 * i + 2] * inverse[1], o[8 * i + 3] * inverse[1]),
                    pack_16(o[8 * i + 4] * inverse[0], o[8 * i + 5] * inverse[0]),
                    pack_16(o[8 * i + 6] * inverse[1], o[8 * i + 7] * inverse[1]));
    }
    fence_async_proxy();
    named_barrier_sync(OWN + warpgroup, 128);
    if ((threadIdx.x & 127) == 0) {
        const attni_tensor_map *map = maps_of(p, t->batch) + 3;
        if (LENGTHS) {
            tensor_map_acquire(map);
        }
#pragma unroll
        for (int i = 0; i < CHUNKS(DV); i++) {
            if (PACKED) {
                tma_store(map, stage + i * O_CHUNK_BYTES, i * 64, t->head * p->forward.pack,
                          t->row0 + warpgroup * p->forward.part_queries, plane_of(t->batch));
            } else {
                tma_store(map, stage + i * O_CHUNK_BYTES, i * 64, t->row0 + warpgroup * 64, t->head,
                          plane_of(t->batch));
            }
        }
        tma_commit();
    }
}

/* O from registers: for a single Q slot, which the next tile's Q wants, and for rows that a box cannot clip. */
DEVICE void store_direct(const attni_forward_params *p, const tile_facts *t, int warpgroup,
                         const float (&o)[DV / 2], const float inverse[2]) {
    const int row = t->row0 + thread_row(warpgroup), quad_lane = threadIdx.x & 3;
    u16 *base = (u16 *)p->o + t->batch * p->o_stride.batch + t->head * p->o_stride.heads +
                t->q_row0 * p->o_stride.seqlen;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u16 *to = base + (row + half * 8) * p->o_stride.seqlen;
        packed_row own;
        if (PACKED) {
            own = place_packed(p, t, warpgroup, half);
            to = base + (t->head * (p->pack - 1) + own.head) * p->o_stride.heads +
                 own.query * p->o_stride.seqlen;
        }
#pragma unroll
        for (int n = 0; n < DV / 8; n += 4) {
            u32 x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = pack_16(o[(n + i) * 4 + half * 2] * inverse[half],
                               o[(n + i) * 4 + half * 2 + 1] * inverse[half]);
            }
            const uint4 piece = gather_quad(x);
            const int column = (n + quad_lane) * 8;
            if ((PACKED ? own.any : row + half * 8 < t->rows) && column < p->dim_v) {
                *(uint4 *)(to + column) = piece;
            }
        }
    }
}

#endif
