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

/* A row's sink in powers of two, -inf where there is none. */
DEVICE float sink_of(const attni_forward_params *p, const tile_facts *t, int place, int half) {
    packed_row own = {0, 0, true};
    if (PACKED) {
        own = place_packed(p, t, place, half);
    }
    return own.any ? p->sinks[PACKED ? t->head * p->pack + own.head : t->head] : -ATTNI_INF;
}

/* LSE of a thread's rows, and what their o are multiplied by. excess: what the sum of p as rounded has more. */
DEVICE void finish_rows(const attni_forward_params *p, const tile_record *record, int place,
                        const float sum[2], const float excess[2], const float reference[2],
                        float inverse[2]) {
    const tile_facts *t = &record->facts;
    float total[2], divisor[2], base[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] = divisor[half] = quad_sum(sum[half]);
        inverse[half] = p->dropout_scale;
        base[half] = (reference[half] - HEADROOM) * ATTNI_LN2;
    }
    if (SHIFTING && __any_sync(0xffffffffu, (excess[0] != 0.0f) | (excess[1] != 0.0f))) {
        divisor[0] += quad_sum(excess[0]);
        divisor[1] += quad_sum(excess[1]);
    }
    if (p->sinks) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float natural = sink_of(p, t, place, half), sink = natural * ATTNI_LOG2E,
                        top = fmaxf(reference[half], sink);
            if (sink != -ATTNI_INF) { /* which is none */
                const float weight = exp2_fast(reference[half] - top), own = exp2_fast(sink - top);
                total[half] = total[half] * weight + own;
                divisor[half] = divisor[half] * weight + own;
                inverse[half] *= weight;
                if (top == sink) {
                    base[half] = natural;
                    total[half] *= exp2_fast(-HEADROOM);
                }
            }
        }
    }
    if (p->lse) { /* two lanes of four, a row each */
        const int half = threadIdx.x & 1, row = thread_row(place) + half * 8;
        const float sums = half ? total[1] : total[0];
        float *to = p->lse + record->lse + row;
        bool any = t->row0 + row < t->rows;
        if (PACKED) {
            const packed_row own = place_packed(p, t, place, half);
            any = own.any;
            to = p->lse + t->batch * p->lse_stride_batch +
                 (t->head * p->pack + own.head) * p->lse_stride_head + t->q_row0 + own.query;
        }
        if ((threadIdx.x & 2) == 0 && any) {
            *to = sums == 0.0f
                      ? -ATTNI_INF
                      : fmaf(log2_fast(sums * exp2_fast(HEADROOM)), ATTNI_LN2, half ? base[1] : base[0]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        inverse[half] = divisor[half] == 0.0f ? 0.0f : __fdividef(inverse[half], divisor[half]);
    }
}

/* O through the warpgroup's own part of its Q slot, by the copy engine, which clips it to the tensor. */
DEVICE void store_staged(const attni_forward_sm90_params *p, const tile_facts *t, u32 stage, int warpgroup,
                         int place, const float (&o)[DV / 2], const float inverse[2]) {
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
        const attni_tensor_map *map = &p->q + 3;
        int first = 0; /* the sequence's, in that map */
        bool own = false; /* the map is of the sequence alone */
        if (LENGTHS) {
            const bool cut = t->row0 + (place + 1) * part_of(&p->forward) > t->rows;
            const mapped_rows m = map_rows(p, 3, t->batch, (int)t->q_row0, 0, cut);
            map = m.map;
            first = m.row;
            own = m.plane == 0;
            if (cut) {
                tensor_map_acquire(map);
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNKS(DV); i++) {
            const int row = first + t->row0 + place * part_of(&p->forward);
            if (PACKED) {
                tma_store(map, stage + i * O_CHUNK_BYTES, i * 64, t->head * p->forward.pack, row,
                          own ? 0 : t->batch);
            } else {
                tma_store(map, stage + i * O_CHUNK_BYTES, i * 64, row, t->head, own ? 0 : t->batch);
            }
        }
        tma_commit();
    }
}

/* O from registers: for a single Q slot, which the next tile's Q wants, and for rows that a box cannot clip. */
DEVICE void store_direct(const attni_forward_params *p, const tile_facts *t, int place,
                         const float (&o)[DV / 2], const float inverse[2]) {
    const int row = t->row0 + thread_row(place), quad_lane = threadIdx.x & 3;
    u16 *base = (u16 *)p->o + t->batch * p->o_stride.batch + t->head * p->o_stride.heads +
                t->q_row0 * p->o_stride.seqlen + this_slice() * DV;
    const int dim = p->dim_v - this_slice() * DV;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u16 *to = base + (row + half * 8) * p->o_stride.seqlen;
        packed_row own;
        if (PACKED) {
            own = place_packed(p, t, place, half);
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
            if ((PACKED ? own.any : row + half * 8 < t->rows) && column < dim) {
                *(uint4 *)(to + column) = piece;
            }
        }
    }
}

/* The row of a thread among those of accumulators, (batch, head, query); -1 where it is none's. */
DEVICE i64 row_kept(const attni_forward_params *p, const tile_facts *t, int place, int half) {
    int query = t->row0 + thread_row(place) + half * 8, head = t->head, heads = p->heads_q;
    bool any = query < t->rows;
    if (PACKED) {
        const packed_row own = place_packed(p, t, place, half);
        query = own.query;
        head = t->head * p->pack + own.head;
        heads *= p->pack;
        any = own.any;
    }
    return any ? ((i64)t->batch * heads + head) * p->seqlen_q_max + query : -1;
}

/* SPLIT: a tile's rows as gather_sm90 reads them: of each row and piece a reference in powers of two with the sum of
 * p, in accum_m, and o in accum_o. The first piece says of those that are not there that nothing was seen. */
DEVICE void store_piece(const attni_forward_params *p, const tile_facts *t, int place,
                        const float (&o)[DV / 2], const float sum[2], const float reference[2],
                        const float inverse[2]) {
    const int quad_lane = this_thread() & 3, column = this_slice() * DV, pieces = p->value_slices,
              piece = t->slice & 0xffff;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const i64 row = row_kept(p, t, place, half), at = row * pieces + piece;
        const float total = quad_sum(sum[half]), factor = total * inverse[half];
        if (row < 0) {
            continue;
        }
        if (quad_lane == 0 && column == 0) {
            float2 *to = (float2 *)p->accum_m + at;
            *to = make_float2(reference[half], total);
#pragma unroll 1
            for (int i = t->slice >> 16; piece == 0 && i < pieces; i++) {
                to[i] = make_float2(0.0f, 0.0f);
            }
        }
        float2 *to = (float2 *)(p->accum_o + at * p->dim_v + column) + quad_lane;
#pragma unroll
        for (int i = 0; i < DV / 8; i++) {
            if (column + i * 8 < p->dim_v) {
                to[i * 4] = make_float2(o[i * 4 + half * 2] * factor, o[i * 4 + half * 2 + 1] * factor);
            }
        }
    }
}

#define LN2_REST (-1.9046543e-9f) /* beyond ATTNI_LN2 */

/* A tile's rows to an accumulator, merged with what it holds. Its m is in natural units (docs/numerics.md). */
DEVICE void add_to_accumulator(const attni_forward_params *p, const tile_facts *t, int place,
                               const float (&o)[DV / 2], const float sum[2], const float reference[2],
                               const float inverse[2]) {
    const int lane = threadIdx.x & 31, column = this_slice() * DV;
    i64 at[2];
    float total[2], old_m[2], old_l[2];
    bool any[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] = quad_sum(sum[half]);
        at[half] = row_kept(p, t, place, half);
        any[half] = at[half] >= 0;
        at[half] = any[half] ? at[half] : 0;
        old_m[half] = p->accum_m[at[half]];
        old_l[half] = p->accum_l[at[half]];
    }
    if (SLICED) { /* all have read m and l before one writes them */
        named_barrier_sync(OWN, 128 * SLICES);
    } else {
        __syncwarp();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (!any[half] || total[half] == 0.0f) { /* a row that sees none of these keys stays as it is */
            continue;
        }
        const float m = reference[half] * ATTNI_LN2, top = fmaxf(old_m[half], m),
                    rest = fmaf(reference[half], ATTNI_LN2, -m) + reference[half] * LN2_REST,
                    old_weight = old_m[half] == top ? 1.0f : exp2_fast((old_m[half] - top) * ATTNI_LOG2E);
        float weight = m == top ? 1.0f : exp2_fast((m - top) * ATTNI_LOG2E);
        if (fabsf(rest) < 0.5f) { /* what m is rounded by; of huge ones all keys are */
            weight *= exp2_fast(rest * ATTNI_LOG2E);
        }
        if ((lane & 3) == 0 && column == 0) {
            p->accum_m[at[half]] = top;
            p->accum_l[at[half]] = fmaf(old_l[half], old_weight, total[half] * weight);
        }
        float2 *to = (float2 *)(p->accum_o + at[half] * p->dim_v + column) + (lane & 3);
        const float factor = weight * total[half] * inverse[half];
#pragma unroll
        for (int i = 0; i < DV / 8; i++) {
            if (column + i * 8 < p->dim_v) {
                const float2 x = to[i * 4];
                to[i * 4] = make_float2(fmaf(x.x, old_weight, o[i * 4 + half * 2] * factor),
                                        fmaf(x.y, old_weight, o[i * 4 + half * 2 + 1] * factor));
            }
        }
    }
}

#endif
