/*
 * forward_sm90: what happens to a warpgroup's scores in registers. Masks and options, p without a maximum, and
 * what mends it when that was too bold.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_SOFTMAX_CUH
#define ATTNI_HOPPER_SOFTMAX_CUH

#include "hopper_memory.cuh"
#include "ptx_sm90.cuh"
#include "softmax.cuh"

/* ---------------------------------------------------------------- a warpgroup's state */

/* What a thread of a matrix warpgroup holds. Rows: row and row + 8 of the tile. */
struct matrix_state {
    float reference[2]; /* of the rows: p = 2^(scale s - reference) */
    float sum[2]; /* this thread's shares of the rows' sums of p */
    int blocks; /* whose K has been taken */
    int values; /* the block whose V is taken next, where PASSING */
    int tiles; /* whose Q has been taken */
    int storing; /* the Q slot that O is leaving from; -1 */
    float slope; /* of ALiBi, in powers of two */
    int block, begin; /* of the tile at hand: the block at work, and its first */
    int whole_begin, whole_end; /* blocks that all rows of the warpgroup see whole */
};

/* The thread and its warpgroup, read anew: what is made of them in a tile's epilogue is then not kept in registers
 * through the hot loop. */
DEVICE int this_thread(void) {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

DEVICE int this_warpgroup(void) { return this_thread() / 128; }

/* A value that all lanes of a warp have, in a uniform register: REDUX leaves it there, a shuffle would not, and
 * descriptors made of it then cost no moves. */
DEVICE int uniform(int x) { return (int)__reduce_or_sync(0xffffffffu, (u32)x); }

/* The tile's row of this thread's first row. */
DEVICE int thread_row(int warpgroup) {
    const int thread = this_thread();
    return warpgroup * 64 + (thread & 127) / 32 * 16 + (thread & 31) / 4;
}

/* ---------------------------------------------------------------- mask */

/* Hidden scores become -inf. */
DEVICE void mask_scores(float (&s)[BC / 2], const tile_facts *t, int warpgroup, int block) {
    const int row = t->row0 + thread_row(warpgroup), key = block * BC + (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = row + half * 8;
        const int last = (LIMITED ? min(own + t->last_key, t->keys - 1) : t->keys - 1) - key;
        const int first = MASK == 2 ? own + t->first_key - key : -SEEN_ALL;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[i * 4 + half * 2 + e];
                const int column = i * 8 + e;
                *x = column <= last && (MASK < 2 || column >= first) ? *x : -ATTNI_INF;
            }
        }
    }
}

/* ---------------------------------------------------------------- score options */

/* Scaled scores with softcap and ALiBi, in powers of two. */
DEVICE void shape_scores(float (&s)[BC / 2], const attni_forward_params *p, const tile_facts *t,
                         int warpgroup, int block, float scale, float slope) {
    const int distance =
        t->row0 + thread_row(warpgroup) + t->distance - block * BC - (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float apart = (float)(distance + half * 8); /* exact below 2^24 */
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[i * 4 + half * 2 + e];
                if (SOFTCAP) {
                    *x = softcap_score(*x * fabsf(p->scale), p->softcap) * ATTNI_LOG2E;
                } else {
                    *x *= scale;
                }
                if (ALIBI) {
                    *x = fmaf(-slope, fabsf(apart - (float)(i * 8 + e)), *x);
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- softmax */

/* The largest score of a row over its first `groups` column groups. */
DEVICE float row_maximum(const float (&s)[BC / 2], int half, int groups) {
    float x = s[half * 2], y = s[half * 2 + 1];
#pragma unroll
    for (int i = 1; i < groups; i++) {
        x = fmaxf(x, s[i * 4 + half * 2]);
        y = fmaxf(y, s[i * 4 + half * 2 + 1]);
    }
    return quad_max(fmaxf(x, y));
}

/* A reference for a row with this largest score (scaled). bf16 takes whole numbers, so that mend() is exact. */
DEVICE float reference_of(float top) {
    return BF16 ? ceilf(fmaxf(top, LOWEST)) + HEADROOM : fmaxf(top, LOWEST);
}

/* A group's four exponentials into e, and into the sums: two for each row. */
DEVICE void exponentials(const float *s, float *e, const matrix_state *at, float (&sum)[4], float scale) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        e[j] = exp2_fast(fmaf(s[j], scale, -at->reference[j / 2]));
        sum[j] += e[j];
    }
}

/* p of the column groups [from, to), packed as a left operand. */
DEVICE void probabilities(const float (&s)[BC / 2], u32 (&p)[BC / 4], const matrix_state *at, float (&sum)[4],
                          float scale, int from, int to) {
#pragma unroll
    for (int i = from; i < to; i++) {
        float e[4];
        exponentials(s + i * 4, e, at, sum, scale);
        p[2 * i] = pack_16(e[0], e[1]);
        p[2 * i + 1] = pack_16(e[2], e[3]);
    }
}

DEVICE void scale_output(float (&o)[DV / 2], float first, float second) {
#pragma unroll
    for (int i = 0; i < DV / 8; i++) {
        o[i * 4] *= first;
        o[i * 4 + 1] *= first;
        o[i * 4 + 2] *= second;
        o[i * 4 + 3] *= second;
    }
}

/*
 * Moves the references of rows whose p grew too large. p is computed without looking for a maximum; a thread's
 * sum of a block's p bounds them, and if any row of the warp has a sum beyond GUARD, the warp comes here.
 * bf16 has the exponents to wait long: p, sums and o then shrink by a power of two, exactly. Where that is
 * not so, or p has overflowed, the row takes its maximum and computes p again.
 */
DEVICE void mend(const float (&s)[BC / 2], u32 (&p)[BC / 4], float (&o)[DV / 2], matrix_state *at,
                 float (&sum)[4], float scale, bool fresh) {
    float factor[2] = {1.0f, 1.0f};
    bool again[2] = {false, false};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float top = quad_max(sum[half * 2] + sum[half * 2 + 1]);
        if (top > GUARD) {
            if (BF16 && top < MOST_SHIFTED) {
                const int shift = (__float_as_int(top) >> 23) - 127 + (int)HEADROOM;
                factor[half] = __int_as_float((127 - shift) << 23);
                at->reference[half] += (float)shift;
            } else {
                again[half] = true;
            }
        }
    }
    if (__any_sync(0xffffffffu, again[0] || again[1])) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float top = row_maximum(s, half, GROUPS) * scale, old = at->reference[half];
            if (again[half]) {
                at->reference[half] = reference_of(top);
                factor[half] = exp2_fast(old - at->reference[half]);
            }
        }
        sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        probabilities(s, p, at, sum, scale, 0, GROUPS);
    } else {
        const u32 first = pack_16(factor[0], factor[0]), second = pack_16(factor[1], factor[1]);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            p[2 * i] = multiply_16(p[2 * i], first);
            p[2 * i + 1] = multiply_16(p[2 * i + 1], second);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum[j] *= factor[j / 2];
        }
    }
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        scale_output(o, factor[0], factor[1]);
    }
}

#endif
