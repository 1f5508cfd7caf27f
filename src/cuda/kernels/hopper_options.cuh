/*
 * forward_sm90: options that read memory, or random numbers, for each score.
 *
 *   BIAS     an additive bias of the tensors' own type, alone. The copy engine brings a block of it for each
 *            warpgroup.
 *
 *   GENERAL  softcap, ALiBi, bias of any type, boolean mask and dropout, each where the run has it. One
 *            variant for all of them and for all masks and lengths: no pace, but a small one.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_OPTIONS_CUH
#define ATTNI_HOPPER_OPTIONS_CUH

#include "hopper_softmax.cuh"
#include "philox.cuh"

#define CHUNK_KEYS 32 /* that a quad of lanes reads together */

/* ---------------------------------------------------------------- any option */

/* Where a row's elements of a bias or mask begin, in elements. Rows beyond the sequence take its last one's. */
DEVICE i64 score_row(const attni_mask_strides *stride, const tile_facts *t, int row) {
    return t->batch * stride->batch + t->head * stride->heads + min(row, t->rows - 1) * stride->queries;
}

/* For each score of a row: its place in s, and its key, none beyond the sequence's last. */
#define EACH_SCORE(half, key, last, ...)                                                                     \
    _Pragma("unroll") for (int i = 0; i < GROUPS * 2; i++) {                                                 \
        float *x = &s[i / 2 * 4 + half * 2 + i % 2];                                                         \
        const int column = min(key + i / 2 * 8 + i % 2, last);                                               \
        __VA_ARGS__                                                                                          \
    }

/* Scores to powers of two, with what the run has of softcap, ALiBi, bias and boolean mask. */
DEVICE void shape_generally(float (&s)[BC / 2], const attni_forward_params *p, const tile_facts *t,
                            int warpgroup, int block, float scale) {
    const int key = block * BC + (int)(threadIdx.x & 3) * 2, last = max(0, t->keys - 1);
    const float natural = fabsf(p->scale);
    if (p->softcap > 0.0f) {
#pragma unroll
        for (int i = 0; i < BC / 2; i++) {
            s[i] = softcap_score(s[i] * natural, p->softcap) * ATTNI_LOG2E;
        }
    } else {
#pragma unroll
        for (int i = 0; i < BC / 2; i++) {
            s[i] *= scale;
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = t->row0 + thread_row(warpgroup) + half * 8;
        if (p->alibi) {
            const float slope = p->alibi[t->batch * p->alibi_stride_batch + t->head] * ATTNI_LOG2E;
            const float apart = (float)(row + t->distance - key);
#pragma unroll
            for (int i = 0; i < GROUPS * 2; i++) {
                float *x = &s[i / 2 * 4 + half * 2 + i % 2];
                *x = fmaf(-slope, fabsf(apart - (float)(i / 2 * 8 + i % 2)), *x);
            }
        }
        if (p->bias) {
            const i64 from = score_row(&p->bias_stride, t, row);
            if (p->bias_dtype == ATTNI_DTYPE_F32) {
                const float *bias = (const float *)p->bias + from;
                EACH_SCORE(half, key, last, *x = fmaf(bias[column], ATTNI_LOG2E, *x);)
            } else {
                const u16 *bias = (const u16 *)p->bias + from;
                const bool bf16 = p->bias_dtype == ATTNI_DTYPE_BF16;
                EACH_SCORE(half, key, last,
                           *x = fmaf(bf16 ? bf16_to_float(bias[column]) : f16_to_float(bias[column]),
                                     ATTNI_LOG2E, *x);)
            }
        }
        if (p->mask) {
            const unsigned char *from = p->mask + score_row(&p->mask_stride, t, row);
            EACH_SCORE(half, key, last, *x = from[column] ? *x : -ATTNI_INF;)
        }
    }
}

/* ---------------------------------------------------------------- dropout */

/* Which of the 8 keys from a position that is a multiple of 8 are kept, a bit each. */
DEVICE u32 kept_of_8(const attni_forward_params *p, i64 key, i64 query, u32 batch_head) {
    const philox_numbers r =
        philox(p->dropout_seed, (u32)(key >> 3), (u32)query, batch_head, (u32)p->dropout_offset);
    const u32 threshold = (u32)p->dropout_threshold;
    u32 kept = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        kept |= (u32)((r.word[i] & 0xffff) >= threshold) << (2 * i) | (u32)(r.word[i] >> 16 >= threshold)
                                                                          << (2 * i + 1);
    }
    return kept;
}

/*
 * P without what is dropped, packed as it is. A lane draws for 8 keys of a row, and the quad puts its draws
 * together: bit 8 g + 2 q of them is the first key of group g that lane q holds. The draws are a loop, since
 * unrolled they would be most of the kernel.
 */
DEVICE void drop(u32 (&pr)[BC / 4], const attni_forward_params *p, const tile_facts *t, int warpgroup,
                 int block) {
    const int lane = threadIdx.x & 3, pieces = BC / CHUNK_KEYS;
    const u32 batch_head = (u32)(t->batch * p->heads_q + t->head);
    u32 kept[2 * pieces] = {0};
#pragma unroll 1
    for (int i = 0; i < 2 * pieces; i++) {
        const i64 query = t->query_start + t->row0 + thread_row(warpgroup) + (i < pieces ? 0 : 8);
        const i64 key = t->key_start + block * BC + i % pieces * CHUNK_KEYS + lane * 8;
        const int odd = (int)(key & 7); /* the same in all lanes */
        u32 own = kept_of_8(p, key - odd, query, batch_head);
        if (odd) {
            own = (own | kept_of_8(p, key - odd + 8, query, batch_head) << 8) >> odd & 0xff;
        }
        own <<= 8 * lane;
        own |= __shfl_xor_sync(0xffffffffu, own, 1);
        own |= __shfl_xor_sync(0xffffffffu, own, 2);
#pragma unroll
        for (int j = 0; j < 2 * pieces; j++) {
            kept[j] |= j == i ? own >> 2 * lane : 0;
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * pieces; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 pair = kept[i] >> 8 * j;
            pr[(i % pieces * 4 + j) * 2 + i / pieces] &=
                (pair & 1 ? 0xffffu : 0u) | (pair & 2 ? 0xffff0000u : 0u);
        }
    }
}

#endif
