/*
 * FlashAttention-2 forward with mma.sync: O = softmax(scale Q K^T + mask) V, one block a tile of BR rows.
 *
 *            keys, BC a block ->
 *          +------+------+------+--          A warp owns 16 MT rows (MT is 2 up to dim 128, else 1) and walks
 *   warp 0 |  S   |      |      |            over all keys: split Q. K and V lie in two slots of shared
 *   warp 1 |      |      |      |            memory, Q beside them; O, the running softmax and as much of
 *   ...    |      |      |      |            Q as fits stay in registers.
 *          +------+------+------+--
 *
 * One block of keys, in a warp (blocks and warps drift apart, and fill each other's gaps):
 *
 *   wait, barrier | copy block + 1   .....................................................  cp.async
 *                 | Q K^T            | row maxima | 2^x of 16 keys | 2^x of the next 16 ..  ALU, MUFU
 *                 | mma mma mma mma  |  (vote)    |    P V mma mma | P V mma mma ........   tensor
 *
 * Maxima only decide whether a row's reference must move: softmax.cuh. What a block that a mask crosses must know
 * of its tile lies in shared memory, so that the hot loop has the registers.
 *
 * Registers 245 to 255 a thread, no spill. Shared memory (Q + 2 K + 2 V) at dims 64, 128, 256: 48, 96 and
 * 192 KB; 2, 2 and 1 blocks a multiprocessor.
 *
 * H200, bf16, 16k tokens, hidden size 2048, 8192 keys, full / causal, TFLOP/s (torch's flash): dim 64 339/338
 * (301/288), 128 399/408 (339/305), 256 349/351 (323/289). bench/results/2026-11-22-h200-forward-sm80.csv;
 * scripts/gpu OUT bench measures again. What was tried and dropped: docs/schedules/forward_sm80.md.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"
#include "philox.cuh"
#include "ptx.cuh"
#include "softmax.cuh"
#include "tiles.cuh"

#define THREADS (WARPS * 32)
#define MT (BR / (16 * WARPS)) /* row tiles of 16 that a warp owns */
#define WARP_ROWS (16 * MT)
#define NT (BC / 8) /* key columns of 8 of a score tile */
#define KT (D / 16) /* steps of 16 over the head dim */
#define VT (DV / 16)
/* Steps of the head dim of which Q's fragments stay in registers: all, or as many as O leaves room for. */
#ifndef QREG
#define QREG (MT * D <= 128 ? KT : MT == 1 && !GENERAL ? (KT < 11 ? KT : 11) : 0)
#endif
#define FRAGS 2 /* fragments of K in flight */
#define Q_BYTES (BR * D * 2)
#define K_BYTES (BC * D * 2)
#define V_BYTES (BC * DV * 2)

#include "placement.cuh" /* wants the sizes above */

/* ---------------------------------------------------------------- load */

/* Where the next K and V tiles come from, for this thread: see tile_copy_whole. */
struct key_source {
    const u16 *k, *v;
};

DEVICE key_source open_keys(const attni_forward_params *p, const tile_facts *t) {
    int head = divide(t->head, &p->by_gqa);
    i64 row = t->k_row0 + t->block_begin * BC;
    key_source from;
    from.k = (const u16 *)p->k + t->batch * p->k_stride.batch + head * p->k_stride.heads +
             row * p->k_stride.seqlen + copy_origin(D, p->k_stride.seqlen);
    from.v = (const u16 *)p->v + t->batch * p->v_stride.batch + head * p->v_stride.heads +
             row * p->v_stride.seqlen + t->slice * DV + copy_origin(DV, p->v_stride.seqlen);
    return from;
}

/* A whole tile, the hot loop's. The pointer moves on to the next. */
DEVICE void load_whole(u32 shared, const u16 **from, i64 stride, u32 width, u32 bytes) {
    tile_copy_whole(shared + copy_target(width), *from, stride, BC, width, bytes, THREADS);
    *from += BC * stride;
}

/* Any tile of K or of V, of whose rows `valid` are inside the sequence. */
DEVICE void load_part(const attni_forward_params *p, char *smem, u32 shared, u32 offset, const u16 **from,
                      i64 stride, u32 width, int valid, int dim) {
    const u16 *first = *from - copy_origin(width, stride);
    if (GENERAL && p->unaligned) {
        tile_copy_slow(smem + offset, first, stride, BC, width, valid, dim, THREADS);
    } else {
        tile_copy_part(shared + offset, first, stride, BC, width, valid, dim, THREADS);
    }
    *from += BC * stride;
}

DEVICE void load_queries(const attni_forward_params *p, const tile_facts *t, char *smem, u32 shared) {
    const u16 *from = (const u16 *)p->q + t->batch * p->q_stride.batch + t->head * p->q_stride.heads +
                      (t->q_row0 + t->row0) * p->q_stride.seqlen;
    const i64 stride = p->q_stride.seqlen;
    int valid = t->rows - t->row0;
    if (GENERAL && p->unaligned) {
        tile_copy_slow(smem, from, stride, BR, D, valid, p->dim_qk, THREADS);
    } else if (TILE_PASS_ROWS(D, THREADS) > 0 && valid >= BR) {
        tile_copy_whole(shared + copy_target(D), from + copy_origin(D, stride), stride, BR, D,
                        copy_bytes(D, p->dim_qk), THREADS);
    } else {
        tile_copy_part(shared, from, stride, BR, D, valid, p->dim_qk, THREADS);
    }
}

/* A scale of 0 or below works on the bits of Q, so that everything after may take it as positive. 0 times
 * what is not finite is NaN. */
DEVICE void turn_queries(char *smem, float scale) {
    const u16 infinite = BF16 ? 0x7f80 : 0x7c00;
    for (u32 i = threadIdx.x; i < Q_BYTES / 2; i += THREADS) {
        u16 x = ((u16 *)smem)[i];
        ((u16 *)smem)[i] = scale < 0.0f ? x ^ 0x8000 : (x & infinite) == infinite ? 0x7fff : 0;
    }
}

/* ---------------------------------------------------------------- scores */

DEVICE void compute_scores(float s[MT][NT][4], const u32 q[MT][QREG ? QREG : 1][4], u32 q_address,
                           u32 k_address) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
            s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.0f;
        }
    }
    u32 b[FRAGS][4];
#pragma unroll
    for (int i = 0; i < FRAGS - 1; i++) {
        ldmatrix_x4(b[i], pair_address(D, k_address, i / (NT / 2)) + i % (NT / 2) * 16 * D * 2);
    }
#pragma unroll
    for (int k = 0; k < KT; k++) {
        u32 a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (k < QREG) {
                a[m][0] = q[m][k][0], a[m][1] = q[m][k][1], a[m][2] = q[m][k][2], a[m][3] = q[m][k][3];
            } else {
                ldmatrix_x4(a[m], pair_address(D, q_address, k) + m * 16 * D * 2);
            }
        }
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            const int i = k * (NT / 2) + n,
                      j = i + FRAGS - 1; /* fragments to come load under these products */
            if (j < KT * (NT / 2)) {
                ldmatrix_x4(b[j % FRAGS],
                            pair_address(D, k_address, j / (NT / 2)) + j % (NT / 2) * 16 * D * 2);
            }
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_16816(s[m][2 * n], a[m], b[i % FRAGS][0], b[i % FRAGS][1]);
                mma_16816(s[m][2 * n + 1], a[m], b[i % FRAGS][2], b[i % FRAGS][3]);
            }
        }
    }
}

/* ---------------------------------------------------------------- mask */

/* What a general kernel does to one score of a row and key inside the sequence; natural units to log2. */
DEVICE float shape_score(const attni_forward_params *p, const tile_facts *t, float s, int row, int key,
                         float slope) {
    s *= fabsf(p->scale);
    if (p->softcap > 0.0f) {
        s = softcap_score(s, p->softcap);
    }
    s -= slope * fabsf((float)(row + t->distance - key));
    if (p->bias) {
        i64 at = t->batch * p->bias_stride.batch + t->head * p->bias_stride.heads +
                 row * p->bias_stride.queries + key;
        s += p->bias_dtype == ATTNI_DTYPE_F32    ? ((const float *)p->bias)[at]
             : p->bias_dtype == ATTNI_DTYPE_BF16 ? bf16_to_float(((const u16 *)p->bias)[at])
                                                 : f16_to_float(((const u16 *)p->bias)[at]);
    }
    if (p->mask) {
        i64 at = t->batch * p->mask_stride.batch + t->head * p->mask_stride.heads +
                 row * p->mask_stride.queries + key;
        s = p->mask[at] ? s : -ATTNI_INF;
    }
    return s * ATTNI_LOG2E;
}

/* row and key of s[0][0][0]. */
DEVICE void mask_scores(const attni_forward_params *p, const tile_facts *t, float s[MT][NT][4], int row,
                        int key, float slope) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = row + m * 16 + half * 8;
            int last = min(r + t->last_key, t->keys - 1) - key, first = r + t->first_key - key;
#pragma unroll
            for (int n = 0; n < NT; n++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[m][n][half * 2 + e];
                    int column = n * 8 + e;
                    bool seen = column <= last && column >= first;
                    if (GENERAL) {
                        *x = seen && r < t->rows ? shape_score(p, t, *x, r, key + column, slope) : -ATTNI_INF;
                    } else {
                        *x = seen ? *x : -ATTNI_INF;
                    }
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- softmax */

/* Looks whether any row's reference must move, and moves it with its O. */
DEVICE void update_references(const float s[MT][NT][4], float o[MT][2 * VT][4], softmax_row row[MT][2],
                              float scale) {
    float top[MT][2];
    bool move = false;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float x = fmaxf(s[m][0][half * 2], s[m][0][half * 2 + 1]);
#pragma unroll
            for (int n = 1; n < NT; n++) {
                x = fmaxf(x, fmaxf(s[m][n][half * 2], s[m][n][half * 2 + 1]));
            }
            top[m][half] = x * scale;
            move |= top[m][half] > row[m][half].limit;
        }
    }
    if (__any_sync(0xffffffffu, move)) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float factor = softmax_move(&row[m][half], quad_max(top[m][half]));
#pragma unroll
                for (int n = 0; n < 2 * VT; n++) {
                    o[m][n][half * 2] *= factor;
                    o[m][n][half * 2 + 1] *= factor;
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- accumulate */

/* p = 2^(scale s - reference) of two neighbouring keys, summed and packed as a part of P V's left operand. */
DEVICE u32 exponential_pair(const float s[2], softmax_row *row, float shift, float scale, u32 keep) {
    float x = exp2_fast(fmaf(s[0], scale, shift)), y = exp2_fast(fmaf(s[1], scale, shift));
    row->sum += x + y;
    if (GENERAL) {
        x = keep & 1 ? x : 0.0f;
        y = keep & 2 ? y : 0.0f;
    }
    return pack_16(x, y);
}

/* Part i of a warp's left operand for the 16 keys of step k: MT * 4 parts, a row tile's four together. */
DEVICE u32 left_part(const attni_forward_params *p, const tile_facts *t, const float s[MT][NT][4],
                     softmax_row row[MT][2], const float shift[MT][2], float scale, int row_index, int key,
                     int k, int i) {
    const int m = i / 4, half = i & 1, n = 2 * k + (i >> 1 & 1);
    u32 keep = 3;
    if (GENERAL && p->dropout_threshold != 0) {
        keep = dropout_keep_2(p->dropout_seed, p->dropout_offset, t->key_start + key + n * 8,
                              t->query_start + row_index + m * 16 + half * 8,
                              (u32)(t->batch * p->heads_q + t->head), (u32)p->dropout_threshold);
    }
    return exponential_pair(&s[m][n][half * 2], &row[m][half], shift[m][half], scale, keep);
}

/* O += P V, 16 keys at a time. */
DEVICE void accumulate(const attni_forward_params *p, const tile_facts *t, const float s[MT][NT][4],
                       float o[MT][2 * VT][4], softmax_row row[MT][2], float scale, u32 v_address,
                       int row_index, int key) {
    float shift[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        shift[m][0] = softmax_shift(&row[m][0]);
        shift[m][1] = softmax_shift(&row[m][1]);
    }
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        u32 a[MT][4];
#pragma unroll
        for (int i = 0; i < MT * 4; i++) {
            a[i / 4][i % 4] = left_part(p, t, s, row, shift, scale, row_index, key, k, i);
        }
#pragma unroll
        for (int n = 0; n < VT; n++) {
            u32 b[4];
            ldmatrix_x4_trans(b, pair_address(DV, v_address, n) + k * 16 * DV * 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_16816(o[m][2 * n], a[m], b[0], b[1]);
                mma_16816(o[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* ---------------------------------------------------------------- finish */

/* O and LSE of a thread's rows. */
DEVICE void write_output(const attni_forward_params *p, const tile_facts *t, float o[MT][2 * VT][4],
                         softmax_row row[MT][2], int row_index) {
    int quad_lane = threadIdx.x & 3, dim = min(DV, p->dim_v - t->slice * DV);
    u16 *base = (u16 *)p->o + t->batch * p->o_stride.batch + t->head * p->o_stride.heads +
                t->q_row0 * p->o_stride.seqlen + t->slice * DV;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = quad_sum(row[m][half].sum), reference = row[m][half].reference, top = reference;
            float weight = 1.0f;
            float sink = p->sinks ? p->sinks[t->head] * ATTNI_LOG2E : -ATTNI_INF;
            if (sink !=
                -ATTNI_INF) { /* a sink of -inf is none: beside a row that saw nothing it would give NaN */
                top = fmaxf(reference, sink);
                weight = reference == top ? 1.0f : exp2_fast(reference - top);
                total = total * weight + exp2_fast(sink - top);
            }
            float inverse = total == 0.0f ? 0.0f : __fdividef(weight * p->dropout_scale, total);
            int r = row_index + m * 16 + half * 8;
            if (p->lse && t->slice == 0 && quad_lane == 0 && r < t->rows) {
                p->lse[t->batch * p->lse_stride_batch + t->head * p->lse_stride_head + t->q_row0 + r] =
                    total == 0.0f                      ? -ATTNI_INF
                    : sink > -ATTNI_INF && top == sink ? p->sinks[t->head] + logf(total)
                                                       : fmaf(top, ATTNI_LN2, logf(total));
            }
            u16 *to = base + r * p->o_stride.seqlen;
#pragma unroll
            for (int n = 0; n < 2 * VT; n += 4) {
                u32 x[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    x[i] = pack_16(o[m][n + i][half * 2] * inverse, o[m][n + i][half * 2 + 1] * inverse);
                }
                uint4 piece = gather_quad(x);
                int column = (n + quad_lane) * 8;
                if (r >= t->rows || column >= dim) {
                    continue;
                }
                if (GENERAL && p->unaligned) {
                    u32 word[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        if (column + i < dim) {
                            to[column + i] = (u16)(word[i / 2] >> i % 2 * 16);
                        }
                    }
                } else {
                    *(uint4 *)(to + column) = piece;
                }
            }
        }
    }
}

/* The same rows into an accumulator, alone or merged with what it holds. */
DEVICE void write_accumulator(const attni_forward_params *p, const tile_facts *t, float o[MT][2 * VT][4],
                              softmax_row row[MT][2], int row_index) {
    int lane = threadIdx.x & 31, dim = min(DV, p->dim_v - t->slice * DV);
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float l = quad_sum(row[m][half].sum), reference = row[m][half].reference * ATTNI_LN2;
            int r = row_index + m * 16 + half * 8;
            if (r >= t->rows) {
                continue;
            }
            i64 at = ((i64)t->batch * p->heads_q + t->head) * p->seqlen_q_max + r;
            float old_weight = 0.0f, weight = 1.0f, top = reference;
            if (p->accum_mode == ATTNI_ACCUM_ADD) {
                float old = p->accum_m[at];
                top = fmaxf(old, reference);
                weight = reference == top ? 1.0f : exp2_fast((reference - top) * ATTNI_LOG2E);
                old_weight = old == top ? 1.0f : exp2_fast((old - top) * ATTNI_LOG2E);
                l = l * weight + p->accum_l[at] * old_weight;
            }
            __syncwarp(0xfu << (lane & 28)); /* the quad has read m and l before one lane writes them */
            if (t->slice == 0 && (lane & 3) == 0) {
                p->accum_m[at] = top;
                p->accum_l[at] = l;
            }
            float *to = p->accum_o + at * p->dim_v + t->slice * DV;
            weight *= p->dropout_scale;
#pragma unroll
            for (int n = 0; n < 2 * VT; n++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int column = n * 8 + (lane & 3) * 2 + e;
                    if (column < dim) {
                        float x = o[m][n][half * 2 + e] * weight;
                        to[column] = p->accum_mode == ATTNI_ACCUM_ADD ? fmaf(to[column], old_weight, x) : x;
                    }
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- the kernel */

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    ENTRY(const __grid_constant__ attni_forward_params p) {
    extern __shared__ __align__(128) char smem[];
    __shared__ tile_facts facts; /* for the rare parts: the hot loop wants the registers */
    const u32 shared = shared_address(smem), k_shared = Q_BYTES, v_shared = Q_BYTES + STAGES * K_BYTES;
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const float scale = GENERAL || p.scale == 0.0f ? 1.0f : fabsf(p.scale) * ATTNI_LOG2E;

    /* A lane's own row and chunk of the first pair, for each operand's ldmatrix. */
    const u32 q_address = shared + tile_offset(D, (u32)(warp * WARP_ROWS + (lane & 15)), (u32)lane >> 4);
    const u32 k_address =
        shared + k_shared + tile_offset(D, (u32)((lane & 7) + (lane >> 4) * 8), (u32)lane >> 3 & 1);
    const u32 v_address = shared + v_shared + tile_offset(DV, (u32)(lane & 15), (u32)lane >> 4);

#define SLICE_DIM(t) min(DV, p.dim_v - (t).slice * DV)
#define LOAD_K(t, block, slot)                                                                               \
    load_part(&p, smem, shared, k_shared + (slot) * K_BYTES, &from.k, p.k_stride.seqlen, D,                  \
              (t).keys - (block) * BC, p.dim_qk)
#define LOAD_V(t, block, slot)                                                                               \
    load_part(&p, smem, shared, v_shared + (slot) * V_BYTES, &from.v, p.v_stride.seqlen, DV,                 \
              (t).keys - (block) * BC, SLICE_DIM(t))
#define CAN_LOAD_WHOLE                                                                                       \
    (TILE_PASS_ROWS(D, THREADS) > 0 && TILE_PASS_ROWS(DV, THREADS) > 0 && !(GENERAL && p.unaligned))
#define LOAD_WHOLE_K(slot)                                                                                   \
    load_whole(shared + k_shared + (slot) * K_BYTES, &from.k, p.k_stride.seqlen, D, k_bytes)
#define LOAD_WHOLE_V(slot)                                                                                   \
    load_whole(shared + v_shared + (slot) * V_BYTES, &from.v, p.v_stride.seqlen, DV, v_bytes)

    int block, block_end, whole_begin, whole_end, copied_whole;
    u32 k_bytes = copy_bytes(D, p.dim_qk), v_bytes;
    key_source from;
    {
        tile_facts t;
        if (!place_tile(&p, (int)blockIdx.x, &t)) {
            return;
        }
        if (threadIdx.x == 0) {
            facts = t;
        }
        warp_view view = view_tile(&t);
        block = t.block_begin;
        block_end = t.block_end;
        whole_begin = view.whole_begin;
        whole_end = view.whole_end;
        copied_whole = CAN_LOAD_WHOLE ? t.keys / BC : 0; /* blocks before it are */
        v_bytes = copy_bytes(DV, SLICE_DIM(t));
        from = open_keys(&p, &t);
        load_queries(&p, &t, smem, shared);
        cp_async_commit(); /* Q goes to registers while K and V are under way */
        const int slot = block & (STAGES - 1);
        if (block < copied_whole) {
            LOAD_WHOLE_K(slot);
        } else {
            LOAD_K(t, block, slot);
        }
        if (STAGES > 1) {
            if (block < copied_whole) {
                LOAD_WHOLE_V(slot);
            } else {
                LOAD_V(t, block, slot);
            }
        }
        cp_async_commit();
    }

    float o[MT][2 * VT][4], s[MT][NT][4];
    softmax_row row[MT][2];
    u32 q[MT][QREG ? QREG : 1][4];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        row[m][0].reference = row[m][1].reference = -ATTNI_INF;
        row[m][0].limit = row[m][1].limit = -ATTNI_INF;
        row[m][0].sum = row[m][1].sum = 0.0f;
#pragma unroll
        for (int n = 0; n < 2 * VT; n++) {
            o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0.0f;
        }
    }
    if (QREG || p.scale <= 0.0f) {
        cp_async_wait(1);
        block_barrier();
        if (p.scale <= 0.0f) {
            turn_queries(smem, p.scale);
            block_barrier();
        }
        if (QREG) {
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int k = 0; k < QREG; k++) {
                    ldmatrix_x4(q[m][k], pair_address(D, q_address, k) + m * 16 * D * 2);
                }
            }
        }
    }

    for (; block < block_end; block++) {
        const int slot = block & (STAGES - 1);
        const bool whole = block >= whole_begin && block < whole_end;
        cp_async_wait(0);
        block_barrier(); /* this block's tiles are there; the other slots are read no more */
        bool visible = whole;
        if (!whole) {
            const tile_facts t = facts;
            warp_view view = view_tile(&t);
            visible = block >= view.seen_begin && block < view.seen_end;
        }
        if (STAGES == 1) {
            const tile_facts t = facts;
            LOAD_V(t, block, 0);
        } else if (block + 1 < copied_whole && block + 1 < block_end) {
            LOAD_WHOLE_K(slot ^ 1);
            LOAD_WHOLE_V(slot ^ 1);
        } else if (block + 1 < block_end) {
            const tile_facts t = facts;
            LOAD_K(t, block + 1, slot ^ 1);
            LOAD_V(t, block + 1, slot ^ 1);
        }
        cp_async_commit();
        if (visible) {
            compute_scores(s, q, q_address, k_address + slot * K_BYTES);
        }
        if (STAGES == 1) {
            cp_async_wait(0);
            block_barrier();
            if (block + 1 < block_end) {
                const tile_facts t = facts;
                LOAD_K(t, block + 1, 0);
            }
            cp_async_commit();
        }
        if (visible) {
            if (GENERAL) {
                const tile_facts t = facts;
                warp_view view = view_tile(&t);
                const int key = block * BC + (lane & 3) * 2;
                const float slope = p.alibi ? p.alibi[t.batch * p.alibi_stride_batch + t.head] : 0.0f;
                mask_scores(&p, &t, s, view.row_index, key, slope);
                update_references(s, o, row, scale);
                accumulate(&p, &t, s, o, row, scale, v_address + slot * V_BYTES, view.row_index, key);
            } else {
                if (!whole) {
                    const tile_facts t = facts;
                    mask_scores(&p, &t, s, view_tile(&t).row_index, block * BC + (lane & 3) * 2, 0.0f);
                }
                update_references(s, o, row, scale);
                accumulate(&p, 0, s, o, row, scale, v_address + slot * V_BYTES, 0, 0);
            }
        }
    }

    const tile_facts t = facts;
    if (p.accum_mode != ATTNI_ACCUM_NONE) {
        write_accumulator(&p, &t, o, row, view_tile(&t).row_index);
    } else {
        write_output(&p, &t, o, row, view_tile(&t).row_index);
    }
}
