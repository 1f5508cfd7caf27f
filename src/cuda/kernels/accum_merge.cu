/*
 * Accumulators on the device: begin (nothing seen), merge (two over disjoint keys), finish (O and LSE).
 *
 *     m = max(m1, m2);  l = l1 e^(m1 - m) + l2 e^(m2 - m);  o likewise;  O = o / l;  LSE = m + log l
 *
 * One warp a row, rows in the order (batch, head, query); a lane every 32nd column, so that the reads and
 * writes of a warp are contiguous. Bound by memory: merge moves 12 dim_v bytes a row.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "accum_rows.cuh"

DEVICE i64 row_of_warp(void) { return (i64)blockIdx.x * (ATTNI_ACCUM_THREADS / 32) + threadIdx.x / 32; }

extern "C" __global__ void __launch_bounds__(ATTNI_ACCUM_THREADS)
    accum_begin(const __grid_constant__ attni_accum_params p) {
    i64 row = row_of_warp();
    int lane = threadIdx.x & 31;
    if (row >= p.rows) {
        return;
    }
    if (lane == 0) {
        p.m[row] = -INFINITE;
        p.l[row] = 0.0f;
    }
    for (int i = lane; i < p.dim_v; i += 32) {
        p.o[row * p.dim_v + i] = 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(ATTNI_ACCUM_THREADS)
    accum_merge(const __grid_constant__ attni_accum_params p) {
    i64 row = row_of_warp();
    int lane = threadIdx.x & 31;
    if (row >= p.rows) {
        return;
    }
    float m1 = p.m[row], m2 = p.m2[row], top = fmaxf(m1, m2);
    float w1 = weight_of(m1, top), w2 = weight_of(m2, top);
    float l = p.l[row] * w1 + p.l2[row] * w2;
    __syncwarp();
    if (lane == 0) {
        p.m[row] = top;
        p.l[row] = l;
    }
    for (int i = lane; i < p.dim_v; i += 32) {
        i64 at = row * p.dim_v + i;
        p.o[at] = p.o[at] * w1 + p.o2[at] * w2;
    }
}

extern "C" __global__ void __launch_bounds__(ATTNI_ACCUM_THREADS)
    accum_finish(const __grid_constant__ attni_accum_params p) {
    i64 row = row_of_warp();
    int lane = threadIdx.x & 31;
    if (row >= p.rows) {
        return;
    }
    const row_place place = place_row(&p, row);
    if (!place.any) {
        return;
    }
    float m = p.m[row], l = p.l[row], top = m, weight = 1.0f;
    if (p.sinks) {
        float sink = p.sinks[place.head];
        top = fmaxf(m, sink);
        weight = weight_of(m, top);
        l = l * weight + weight_of(sink, top);
    }
    if (p.lse && lane == 0) {
        p.lse[place.lse] = l == 0.0f ? -INFINITE : top + logf(l);
    }
    float inverse = l == 0.0f ? 0.0f : weight / l;
    for (int i = lane; i < p.dim_v; i += 32) {
        float x = p.o[row * p.dim_v + i] * inverse;
        if (p.dtype_o == ATTNI_DTYPE_F32) {
            ((float *)p.out)[place.out + i] = x;
        } else {
            ((u16 *)p.out)[place.out + i] = round_16(x, p.dtype_o);
        }
    }
}
