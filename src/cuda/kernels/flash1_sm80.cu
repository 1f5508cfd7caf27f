/*
 * FlashAttention, the first version, for measuring what its successor gained: one block a (batch, head);
 * key blocks in the outer loop, query tiles of 16 rows in the inner one; O, l and m of a tile are read,
 * rescaled, divided and written back at every step; the four warps share the keys of a block ("sliced K"),
 * so that each holds a part of every row's sum, and the parts meet through shared memory.
 *
 *     m' = max(m, m~);  l' = l e^(m - m') + l~ e^(m~ - m');  O = (l e^(m - m') O + e^(m~ - m') P~ V) / l'
 *
 * with m~, l~, P~ of this key block alone. Dai, Fu, Ermon, Rudra, Re: FlashAttention (2022), algorithm 1.
 *
 *     a step   S = Q K_w^T | maxima to shared | barrier | P~, P~ V_w | parts to shared | barrier | sum, O out
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"
#include "ptx.cuh"
#include "softmax.cuh"
#include "tiles.cuh"

#define DV D
#define ROWS 16
#define KEYS (D <= 64 ? 256 : 128)
#define WARP_KEYS (KEYS / 4)
#define NT (WARP_KEYS / 8)
#define KT (D / 16)
#define Q_BYTES (ROWS * D * 2)
#define KV_BYTES (KEYS * D * 2)
#define K_SHARED (2 * Q_BYTES)
#define V_SHARED (K_SHARED + KV_BYTES)
#define PART_SHARED (V_SHARED + KV_BYTES)
#define MAX_SHARED (PART_SHARED + 4 * ROWS * D * 4)
#define SHARE (ROWS * D / ATTNI_FLASH1_THREADS) /* elements of O a thread brings together */

/* Rows of a tile through cp.async; rows from `valid` on become zeros. */
DEVICE void load(u32 to, const u16 *from, i64 stride, int rows, int valid) {
    for (u32 i = threadIdx.x; i < (u32)rows * D / 8; i += ATTNI_FLASH1_THREADS) {
        u32 row = i / (D / 8), chunk = i % (D / 8);
        bool inside = (int)row < valid;
        cp_async_16(to + tile_offset(D, row, chunk), inside ? from + row * stride + chunk * 8 : from,
                    inside ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(ATTNI_FLASH1_THREADS, 2)
    ENTRY(const __grid_constant__ attni_forward_params p) {
    extern __shared__ __align__(128) char smem[];
    const u32 shared = shared_address(smem);
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const int pair = (int)blockIdx.y, batch = pair / p.heads_q, head = pair % p.heads_q,
              kv_head = head / p.group;
    const u16 *q_from = (const u16 *)p.q + batch * p.q_stride.batch + head * p.q_stride.heads;
    const u16 *k_from = (const u16 *)p.k + batch * p.k_stride.batch + kv_head * p.k_stride.heads;
    const u16 *v_from = (const u16 *)p.v + batch * p.v_stride.batch + kv_head * p.v_stride.heads;
    u16 *o_to = (u16 *)p.o + batch * p.o_stride.batch + head * p.o_stride.heads;
    const i64 state = (i64)pair * p.seqlen_q;
    float *parts = (float *)(smem + PART_SHARED), *both = (float *)(smem + MAX_SHARED),
          *sums = both + 8 * ROWS;
    const float scale = p.scale * ATTNI_LOG2E;
    const bool causal = p.window_right == 0;
    const int shift = p.seqlen_k - p.seqlen_q; /* row i sees keys to i + shift */
    const int tiles = (p.seqlen_q + ROWS - 1) / ROWS;

    const u32 q_lane = tile_offset(D, (u32)lane & 15, (u32)lane >> 4);
    const u32 k_address = shared + K_SHARED + warp * WARP_KEYS * D * 2 +
                          tile_offset(D, (u32)((lane & 7) + (lane >> 4) * 8), (u32)lane >> 3 & 1);
    const u32 v_address =
        shared + V_SHARED + warp * WARP_KEYS * D * 2 + tile_offset(D, (u32)lane & 15, (u32)lane >> 4);
    /* Of a tile's O, this thread brings together SHARE elements of one row, four from every 32. */
    const int own_row = (int)threadIdx.x / 8, own_column = (int)threadIdx.x % 8 * 4;

    for (int key0 = 0; key0 < p.seqlen_k; key0 += KEYS) {
        int first = causal && key0 > 0 ? max(0, key0 - shift) / ROWS : 0;
        __syncthreads();
        load(shared + K_SHARED, k_from + key0 * p.k_stride.seqlen, p.k_stride.seqlen, KEYS,
             p.seqlen_k - key0);
        load(shared + V_SHARED, v_from + key0 * p.v_stride.seqlen, p.v_stride.seqlen, KEYS,
             p.seqlen_k - key0);
        load(shared, q_from + first * ROWS * p.q_stride.seqlen, p.q_stride.seqlen, ROWS,
             p.seqlen_q - first * ROWS);
        cp_async_commit();
        cp_async_wait(0);
        __syncthreads();

        for (int tile = first; tile < tiles; tile++) {
            const int row0 = tile * ROWS, own = row0 + own_row, slot = (tile - first) & 1;
            float *maxima = both + slot * 4 * ROWS; /* two, since the last step's are still read */
            /* The tile's last key block divides for the last time, and writes O proper. */
            const int end = causal ? min(p.seqlen_k, row0 + ROWS + shift) : p.seqlen_k;
            float old[SHARE], old_m = -ATTNI_INF, old_l = 0.0f;
#pragma unroll
            for (int i = 0; i < SHARE; i++) {
                old[i] = 0.0f;
            }
            if (key0 > 0 && own < p.seqlen_q) {
                old_m = p.accum_m[state + own];
                old_l = p.accum_l[state + own];
#pragma unroll
                for (int i = 0; i < SHARE; i += 4) {
                    float4 x = *(const float4 *)(p.accum_o + (state + own) * D + own_column + i * 8);
                    old[i] = x.x, old[i + 1] = x.y, old[i + 2] = x.z, old[i + 3] = x.w;
                }
            }
            if (tile + 1 < tiles) {
                load(shared + (slot ^ 1) * Q_BYTES, q_from + (row0 + ROWS) * p.q_stride.seqlen,
                     p.q_stride.seqlen, ROWS, p.seqlen_q - row0 - ROWS);
            }
            cp_async_commit();

            float s[NT][4];
#pragma unroll
            for (int n = 0; n < NT; n++) {
                s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
            }
#pragma unroll
            for (int k = 0; k < KT; k++) {
                u32 a[4];
                ldmatrix_x4(a, pair_address(D, shared + slot * Q_BYTES + q_lane, k));
#pragma unroll
                for (int n = 0; n < NT / 2; n++) {
                    u32 b[4];
                    ldmatrix_x4(b, pair_address(D, k_address, k) + n * 16 * D * 2);
                    mma_16816(s[2 * n], a, b[0], b[1]);
                    mma_16816(s[2 * n + 1], a, b[2], b[3]);
                }
            }
            const int row = row0 + lane / 4, key = key0 + warp * WARP_KEYS + (lane & 3) * 2;
            if (key0 + KEYS > p.seqlen_k || (causal && key0 + KEYS > row0 + shift + 1)) {
#pragma unroll
                for (int n = 0; n < NT; n++) {
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int last = causal ? min(p.seqlen_k - 1, row + e / 2 * 8 + shift) : p.seqlen_k - 1;
                        s[n][e] = key + n * 8 + (e & 1) <= last ? s[n][e] : -ATTNI_INF;
                    }
                }
            }
            float top[2], sum[2] = {0.0f, 0.0f};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float x = -ATTNI_INF;
#pragma unroll
                for (int n = 0; n < NT; n++) {
                    x = fmaxf(x, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
                }
                x = quad_max(x);
                if ((lane & 3) == 0) {
                    maxima[warp * ROWS + half * 8 + lane / 4] = x;
                }
            }
            __syncthreads();
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float *x = maxima + half * 8 + lane / 4;
                top[half] = fmaxf(fmaxf(x[0], x[ROWS]), fmaxf(x[2 * ROWS], x[3 * ROWS])) * scale;
            }
            float o[2 * KT][4];
#pragma unroll
            for (int n = 0; n < 2 * KT; n++) {
                o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.0f;
            }
            const float shift0 = top[0] == -ATTNI_INF ? 0.0f : -top[0],
                        shift1 = top[1] == -ATTNI_INF ? 0.0f : -top[1];
#pragma unroll
            for (int k = 0; k < NT / 2; k++) {
                u32 a[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float *x = &s[2 * k + i / 2][i % 2 * 2], move = i % 2 ? shift1 : shift0;
                    float e0 = exp2_fast(fmaf(x[0], scale, move)), e1 = exp2_fast(fmaf(x[1], scale, move));
                    sum[i % 2] += e0 + e1;
                    a[i] = pack_16(e0, e1);
                }
#pragma unroll
                for (int n = 0; n < KT; n++) {
                    u32 b[4];
                    ldmatrix_x4_trans(b, pair_address(D, v_address, n) + k * 16 * D * 2);
                    mma_16816(o[2 * n], a, b[0], b[1]);
                    mma_16816(o[2 * n + 1], a, b[2], b[3]);
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float x = quad_sum(sum[half]);
                if ((lane & 3) == 0) {
                    sums[warp * ROWS + half * 8 + lane / 4] = x;
                }
#pragma unroll
                for (int n = 0; n < 2 * KT; n++) {
                    /* 8-byte pieces of a row change places by the row, to lie in different banks */
                    int r = half * 8 + lane / 4, piece = (n * 4 + (lane & 3)) ^ (lane / 4 & 3) * 4;
                    *(float2 *)(parts + (warp * ROWS + r) * D + piece * 2) =
                        make_float2(o[n][half * 2], o[n][half * 2 + 1]);
                }
            }
            cp_async_wait(0);
            __syncthreads();

            float m = -ATTNI_INF, l = 0.0f;
#pragma unroll
            for (int w = 0; w < 4; w++) {
                m = fmaxf(m, maxima[w * ROWS + own_row]);
                l += sums[w * ROWS + own_row];
            }
            m *= scale;
            const float m_new = fmaxf(m, old_m), fresh = m == m_new ? 1.0f : exp2_fast(m - m_new);
            const float kept = (old_m == m_new ? 1.0f : exp2_fast(old_m - m_new)) * old_l,
                        l_new = kept + l * fresh;
            const float inverse = l_new == 0.0f ? 0.0f : __fdividef(1.0f, l_new);
            float x[SHARE];
#pragma unroll
            for (int i = 0; i < SHARE; i += 4) {
                float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
                for (int w = 0; w < 4; w++) {
                    int piece = ((own_column + i * 8) / 2) ^ (own_row & 3) * 4;
                    float4 part = *(const float4 *)(parts + (w * ROWS + own_row) * D + piece * 2);
                    total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
                }
                x[i] = (old[i] * kept + total.x * fresh) * inverse;
                x[i + 1] = (old[i + 1] * kept + total.y * fresh) * inverse;
                x[i + 2] = (old[i + 2] * kept + total.z * fresh) * inverse;
                x[i + 3] = (old[i + 3] * kept + total.w * fresh) * inverse;
            }
            if (own < p.seqlen_q) {
                if (key0 + KEYS >= end) {
#pragma unroll
                    for (int i = 0; i < SHARE; i += 4) {
                        *(uint2 *)(o_to + own * p.o_stride.seqlen + own_column + i * 8) =
                            make_uint2(pack_16(x[i], x[i + 1]), pack_16(x[i + 2], x[i + 3]));
                    }
                    if (p.lse && own_column == 0) {
                        p.lse[batch * p.lse_stride_batch + head * p.lse_stride_head + own] =
                            l_new == 0.0f ? -ATTNI_INF : (m_new + __log2f(l_new)) * ATTNI_LN2;
                    }
                } else {
#pragma unroll
                    for (int i = 0; i < SHARE; i += 4) {
                        *(float4 *)(p.accum_o + (state + own) * D + own_column + i * 8) =
                            make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
                    }
                    if (own_column == 0) {
                        p.accum_m[state + own] = m_new;
                        p.accum_l[state + own] = l_new;
                    }
                }
            }
        }
    }
}
