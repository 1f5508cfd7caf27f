/*
 * The pieces of a forward whose keys were split (forward_sm90, SPLIT), merged and finished:
 *
 *     m = max m_i;  l = sum l_i 2^(m_i - m);  O = sum o_i 2^(m_i - m) / l;  LSE = m log 2 + log l
 *
 * A warp a row, or a block where pieces are many and rows few (attni_accum_share); a lane every 32nd group of 4 columns.
 * The host queues it to be launched under the end of the forward.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "accum_rows.cuh"
#include "ptx_sm90.cuh"

#define LN2 0.6931471805599453f
#define CHUNKS (ATTNI_ACCUM_MOST_DIM / 128) /* of a lane's columns */
#define BATCH 4 /* pieces that are asked for at once: one after another each would wait for memory */
#define WARPS (ATTNI_ACCUM_THREADS / 32)

/* Of a row: some of its pieces, merged. */
struct gathered {
    float top, total;
    float4 o[CHUNKS];
};

DEVICE void scale_four(float4 *x, float factor) {
    x->x *= factor, x->y *= factor, x->z *= factor, x->w *= factor;
}

DEVICE void add_four(float4 *sum, float4 x, float weight) {
    sum->x = fmaf(x.x, weight, sum->x);
    sum->y = fmaf(x.y, weight, sum->y);
    sum->z = fmaf(x.z, weight, sum->z);
    sum->w = fmaf(x.w, weight, sum->w);
}

/* Of a row's pieces every `share`th from the `mine`th. One that is not there has an l of 0, and an o that nobody wrote. */
DEVICE void gather(const attni_accum_params *p, i64 row, int mine, int lane, gathered *g) {
    const float2 *pairs = (const float2 *)p->m + row * p->pieces;
    const float4 zeros = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    g->top = -INFINITE;
    g->total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        g->o[c] = zeros;
    }
#pragma unroll 1
    for (int first = mine; first < p->pieces; first += BATCH * p->share) {
        float2 pair[BATCH];
        float4 o[BATCH][CHUNKS];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const int piece = first + i * p->share;
            const float4 *from = (const float4 *)(p->o + (row * p->pieces + piece) * p->dim_v);
            pair[i] = piece < p->pieces ? pairs[piece] : make_float2(0.0f, 0.0f);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                o[i][c] = piece < p->pieces && (c * 32 + lane) * 4 < p->dim_v ? from[c * 32 + lane] : zeros;
            }
        }
        float top = g->top;
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            top = pair[i].y != 0.0f ? fmaxf(top, pair[i].x) : top;
        }
        const float old = g->top == top ? 1.0f : exp2_fast(g->top - top);
        g->top = top;
        g->total *= old;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            scale_four(&g->o[c], old);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const bool any = pair[i].y != 0.0f;
            const float weight = any ? exp2_fast(pair[i].x - top) : 0.0f;
            g->total = fmaf(pair[i].y, weight, g->total);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                add_four(&g->o[c], any ? o[i][c] : zeros, weight);
            }
        }
    }
}

/* O and LSE of a row. */
DEVICE void finish_gathered(const attni_accum_params *p, const row_place *place, int lane,
                            const gathered *g) {
    const float sink = p->sinks ? p->sinks[place->head] * LOG2E : -INFINITE, top = fmaxf(g->top, sink);
    const float weight = g->top == top ? 1.0f : exp2_fast(g->top - top);
    const float total = top == -INFINITE ? 0.0f : g->total * weight + exp2_fast(sink - top);
    const float factor = total == 0.0f ? 0.0f : weight / total;
    if (p->lse && lane == 0) {
        p->lse[place->lse] = total == 0.0f ? -INFINITE : fmaf(top, LN2, logf(total));
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int column = (c * 32 + lane) * 4;
        if (column < p->dim_v) {
            const u32 x = round_16(g->o[c].x * factor, p->dtype_o),
                      y = round_16(g->o[c].y * factor, p->dtype_o),
                      z = round_16(g->o[c].z * factor, p->dtype_o),
                      w = round_16(g->o[c].w * factor, p->dtype_o);
            *(uint2 *)((u16 *)p->out + place->out + column) = make_uint2(x | y << 16, z | w << 16);
        }
    }
}

extern "C" __global__ void __launch_bounds__(ATTNI_ACCUM_THREADS)
    gather_sm90(const __grid_constant__ attni_accum_params p) {
    __shared__ float4 shares[WARPS][CHUNKS * 32];
    __shared__ float tops[WARPS], totals[WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, mine = warp % p.share;
    const i64 row = (i64)blockIdx.x * (WARPS / p.share) + warp / p.share;
    gathered g;
    row_place place = {0, 0, 0, false};
    if (row < p.rows) {
        place = place_row(&p, row);
    }
    wait_for_last();
    if (!place.any) { /* as for all of a block that shares it */
        return;
    }
    gather(&p, row, mine, lane, &g);
    if (p.share > 1) {
        tops[mine] = g.top;
        totals[mine] = g.total;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            shares[mine][c * 32 + lane] = g.o[c];
        }
        __syncthreads();
        if (mine > 0) {
            return;
        }
        float top = g.top;
        for (int i = 1; i < p.share; i++) {
            top = fmaxf(top, tops[i]);
        }
        const float own = g.top == top ? 1.0f : exp2_fast(g.top - top);
        g.top = top;
        g.total *= own;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            scale_four(&g.o[c], own);
        }
        for (int i = 1; i < p.share; i++) {
            const float weight = tops[i] == top ? 1.0f : exp2_fast(tops[i] - top);
            g.total = fmaf(totals[i], weight, g.total);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                add_four(&g.o[c], shares[i][c * 32 + lane], weight);
            }
        }
    }
    finish_gathered(&p, &place, lane, &g);
}
