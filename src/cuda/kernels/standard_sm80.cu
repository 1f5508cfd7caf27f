/*
 * Standard attention, for measuring what fusing gains: three kernels with S, then P, in device memory.
 *
 *     standard_scores   S = scale Q K^T + mask      one 128 x 128 tile a block, 8 warps of 32 x 64
 *     standard_softmax  P = softmax(S), LSE         one warp a row, P in the place of S
 *     standard_output   O = P V                     128 rows a block, 64 keys a step through cp.async
 *
 * Bound by memory: a score costs 2 bytes written and read as S, 2 written and read as P. S is f16: with
 * bf16's 8 bits its rounding would be the largest error of all.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"
#include "ptx.cuh"
#include "softmax.cuh"
#include "tiles.cuh"

#define TILE ATTNI_STANDARD_TILE
#define THREADS ATTNI_STANDARD_THREADS
#define STEP 64 /* keys a step of the second product */
#define KT (D / 16)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

DEVICE u32 pack_f16(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

DEVICE i64 score_pitch(const attni_forward_params *p) { return (p->seqlen_k + 7) / 8 * 8; }

DEVICE u16 *scores_of(const attni_forward_params *p, int pair) {
    return (u16 *)p->scores + (i64)pair * p->seqlen_q * score_pitch(p);
}

/* Rows of a tile through cp.async; rows from `valid` on, and columns from dim on, become zeros. */
DEVICE void load(u32 to, const u16 *from, i64 stride, u32 rows, u32 width, int valid, int dim) {
#pragma unroll 4
    for (u32 i = threadIdx.x; i < rows * width / 8; i += THREADS) {
        u32 row = i / (width / 8), chunk = i % (width / 8);
        bool inside = (int)row < valid && (int)chunk * 8 < dim;
        cp_async_16(to + tile_offset(width, row, chunk), inside ? from + row * stride + chunk * 8 : from,
                    inside ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    JOIN(ENTRY, _scores)(const __grid_constant__ attni_forward_params p) {
    extern __shared__ __align__(128) char smem[];
    const u32 shared = shared_address(smem);
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, pair = (int)blockIdx.y;
    const int batch = pair / p.heads_q, head = pair % p.heads_q, columns = (p.seqlen_k + TILE - 1) / TILE;
    const int row0 = (int)blockIdx.x / columns * TILE, key0 = (int)blockIdx.x % columns * TILE;
    const int warp_row = warp / 2 * 32, warp_key = warp % 2 * 64;
    load(shared,
         (const u16 *)p.q + batch * p.q_stride.batch + head * p.q_stride.heads + row0 * p.q_stride.seqlen,
         p.q_stride.seqlen, TILE, D, p.seqlen_q - row0, D);
    load(shared + TILE * D * 2,
         (const u16 *)p.k + batch * p.k_stride.batch + head / p.group * p.k_stride.heads +
             key0 * p.k_stride.seqlen,
         p.k_stride.seqlen, TILE, D, p.seqlen_k - key0, D);
    cp_async_commit();
    cp_async_wait(0);
    __syncthreads();

    const u32 q_address = shared + tile_offset(D, (u32)(warp_row + (lane & 15)), (u32)lane >> 4);
    const u32 k_address = shared + TILE * D * 2 +
                          tile_offset(D, (u32)(warp_key + (lane & 7) + (lane >> 4) * 8), (u32)lane >> 3 & 1);
    float s[2][8][4];
#pragma unroll
    for (int i = 0; i < 2 * 8 * 4; i++) {
        s[i / 32][i / 4 % 8][i % 4] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < KT; k++) {
        u32 a[2][4];
        ldmatrix_x4(a[0], pair_address(D, q_address, k));
        ldmatrix_x4(a[1], pair_address(D, q_address, k) + 16 * D * 2);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            u32 b[4];
            ldmatrix_x4(b, pair_address(D, k_address, k) + n * 16 * D * 2);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                mma_16816(s[m][2 * n], a[m], b[0], b[1]);
                mma_16816(s[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
    __syncthreads();

    /* Through shared memory, to leave in 16-byte pieces. */
    const int shift = p.window_right == 0 ? p.seqlen_k - p.seqlen_q : (1 << 30);
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = warp_row + m * 16 + half * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                int key = key0 + warp_key + n * 8 + (lane & 3) * 2;
                float x = s[m][n][half * 2] * p.scale, y = s[m][n][half * 2 + 1] * p.scale;
                x = key <= row0 + r + shift ? x : -ATTNI_INF;
                y = key + 1 <= row0 + r + shift ? y : -ATTNI_INF;
                *(u32 *)(smem + tile_offset(TILE, (u32)r, (u32)(warp_key / 8 + n)) + (lane & 3) * 4) =
                    pack_f16(x, y);
            }
        }
    }
    __syncthreads();
    const i64 pitch = score_pitch(&p);
    u16 *to = scores_of(&p, pair);
#pragma unroll 4
    for (int i = threadIdx.x; i < TILE * TILE / 8; i += THREADS) {
        int r = i / (TILE / 8), chunk = i % (TILE / 8);
        if (row0 + r < p.seqlen_q && key0 + chunk * 8 < p.seqlen_k) {
            *(uint4 *)(to + (row0 + r) * pitch + key0 + chunk * 8) =
                *(const uint4 *)(smem + tile_offset(TILE, (u32)r, (u32)chunk));
        }
    }
}

/* Eight scores of a row, scaled to powers of two; beyond the row's end -inf. */
DEVICE void read_scores(float x[8], const u16 *row, int column, int keys) {
    uint4 piece = *(const uint4 *)(row + column);
    const u32 word[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float v = f16_to_float((u16)(word[i / 2] >> i % 2 * 16)) * ATTNI_LOG2E;
        x[i] = column + i < keys ? v : -ATTNI_INF;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    JOIN(ENTRY, _softmax)(const __grid_constant__ attni_forward_params p) {
    const int lane = threadIdx.x & 31, query = (int)blockIdx.x * (THREADS / 32) + (int)(threadIdx.x / 32);
    if (query >= p.seqlen_q) {
        return;
    }
    u16 *row = scores_of(&p, (int)blockIdx.y) + query * score_pitch(&p);
    float top = -ATTNI_INF, sum = 0.0f, x[8];
    for (int column = lane * 8; column < p.seqlen_k; column += 256) {
        read_scores(x, row, column, p.seqlen_k);
        float m = top;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            m = fmaxf(m, x[i]);
        }
        float reference = m == -ATTNI_INF ? 0.0f : m;
        sum *= exp2_fast(top - reference);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum += exp2_fast(x[i] - reference);
        }
        top = m;
    }
    float all = top;
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        all = fmaxf(all, __shfl_xor_sync(0xffffffffu, all, i));
    }
    float reference = all == -ATTNI_INF ? 0.0f : all;
    sum *= exp2_fast(top - reference);
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    }
    float inverse = sum == 0.0f ? 0.0f : __fdividef(1.0f, sum);
    if (p.lse && lane == 0) {
        int batch = (int)blockIdx.y / p.heads_q, head = (int)blockIdx.y % p.heads_q;
        p.lse[batch * p.lse_stride_batch + head * p.lse_stride_head + query] =
            sum == 0.0f ? -ATTNI_INF : (all + __log2f(sum)) * ATTNI_LN2;
    }
    for (int column = lane * 8; column < p.seqlen_k; column += 256) {
        read_scores(x, row, column, p.seqlen_k);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x[i] = exp2_fast(x[i] - reference) * inverse;
        }
        *(uint4 *)(row + column) =
            make_uint4(pack_16(x[0], x[1]), pack_16(x[2], x[3]), pack_16(x[4], x[5]), pack_16(x[6], x[7]));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    JOIN(ENTRY, _output)(const __grid_constant__ attni_forward_params p) {
    extern __shared__ __align__(128) char smem[];
    const u32 shared = shared_address(smem), v_shared = 2 * TILE * STEP * 2;
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, pair = (int)blockIdx.y;
    const int batch = pair / p.heads_q, head = pair % p.heads_q, row0 = (int)blockIdx.x * TILE;
    const i64 pitch = score_pitch(&p);
    const u16 *from = scores_of(&p, pair) + row0 * pitch;
    const u16 *v_from = (const u16 *)p.v + batch * p.v_stride.batch + head / p.group * p.v_stride.heads;
    const int steps = (p.seqlen_k + STEP - 1) / STEP;
    const int warp_row = warp / 2 * 32,
              warp_column = warp % 2 * (D / 2); /* 8 warps of 32 rows, half the columns */
    const u32 p_lane = tile_offset(STEP, (u32)(warp_row + (lane & 15)), (u32)lane >> 4);
    const u32 v_lane = tile_offset(D, (u32)lane & 15, (u32)lane >> 4);
#define LOAD_STEP(i)                                                                                         \
    (load(shared + ((i) & 1) * TILE * STEP * 2, from + (i) * STEP, pitch, TILE, STEP, p.seqlen_q - row0,     \
          p.seqlen_k - (i) * STEP),                                                                          \
     load(shared + v_shared + ((i) & 1) * STEP * D * 2, v_from + (i64)(i) * STEP * p.v_stride.seqlen,        \
          p.v_stride.seqlen, STEP, D, p.seqlen_k - (i) * STEP, D))

    float o[2][KT][4];
#pragma unroll
    for (int i = 0; i < 2 * KT * 4; i++) {
        o[i / 4 / KT][i / 4 % KT][i % 4] = 0.0f;
    }
    if (steps > 0) {
        LOAD_STEP(0);
    }
    cp_async_commit();
    for (int step = 0; step < steps; step++) {
        cp_async_wait(0);
        __syncthreads();
        if (step + 1 < steps) {
            LOAD_STEP(step + 1);
        }
        cp_async_commit();
        const u32 p_address = shared + (step & 1) * TILE * STEP * 2 + p_lane;
        const u32 v_address = shared + v_shared + (step & 1) * STEP * D * 2 + v_lane;
#pragma unroll 2
        for (int k = 0; k < STEP / 16; k++) {
            u32 a[2][4];
            ldmatrix_x4(a[0], pair_address(STEP, p_address, k));
            ldmatrix_x4(a[1], pair_address(STEP, p_address, k) + 16 * STEP * 2);
#pragma unroll
            for (int n = 0; n < KT / 2; n++) {
                u32 b[4];
                ldmatrix_x4_trans(b,
                                  pair_address(D, v_address, (u32)(warp_column / 16 + n)) + k * 16 * D * 2);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma_16816(o[m][2 * n], a[m], b[0], b[1]);
                    mma_16816(o[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
    u16 *to = (u16 *)p.o + batch * p.o_stride.batch + head * p.o_stride.heads;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int m = i / 2, half = i % 2, query = row0 + warp_row + m * 16 + half * 8 + lane / 4;
        if (query < p.seqlen_q) {
#pragma unroll
            for (int n = 0; n < KT; n++) {
                *(u32 *)(to + query * p.o_stride.seqlen + warp_column + n * 8 + (lane & 3) * 2) =
                    pack_16(o[m][n][half * 2], o[m][n][half * 2 + 1]);
            }
        }
    }
}
