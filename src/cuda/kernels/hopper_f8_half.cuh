/*
 * forward_sm90_f8: scores in f16, and p from pairs of them. wgmma then moves half as much of its accumulators through
 * the register file, whose ports are what it shares with softmax, and an instruction of softmax takes two scores.
 *
 * Rows of Q are multiplied by powers of two beforehand, so that no score passes f16's 65504: hopper_f8_queries.cuh.
 * docs/numerics.md, 8 bits, has what all this rounds.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_HALF_CUH
#define ATTNI_HOPPER_F8_HALF_CUH

#include "pairs.cuh"
#include "wgmma_half.cuh"

static_assert(BC == 128 && D <= 128 && TURNED, "what wgmma_half.cuh has; beside turners scores are float32");

typedef u32 f8_scores[BC / 4];
typedef u32 f8_sums[2]; /* of p of a block: a pair for each row */
#define FAR 60000.0f /* scales and references from here on are not for f16 */
#define NAN_PAIR 0x7fff7fffu

/* S = Q K^T of a block. */
DEVICE void issue_scores(f8_scores &s, const matrix_place *w, int tile, int block) {
    const u32 q = w->q + tile % Q_SLOTS * (WGS * Q_PART_BYTES >> 4),
              k = w->k + block % STAGES * (K_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        wgmma_shared(s, wgmma_descriptor(q + i * 2), wgmma_descriptor(k + i * 2), i > 0);
    }
    wgmma_commit();
}

/* Of a tile's rows the scales, as scale_rows() left them. */
DEVICE void f8_take_scales(const float *scales, f8_state *at) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        at->factor[half] = pair_of(scales[thread_row(this_warpgroup()) + half * 8]);
    }
}

/* What p is made with: rounded to f16, but of far rows. */
DEVICE float scale_of(const float *scales, int half) {
    const float scale = scales[thread_row(this_warpgroup()) + half * 8];
    return scale < FAR ? low_half(pair_of(scale)) : scale;
}

/* ---------------------------------------------------------------- scores and p */

/* Hidden scores become -inf. */
DEVICE void mask_scores(f8_scores &s, const attni_forward_params *p, const tile_facts *t, int warpgroup,
                        int block) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 seen = seen_columns(p, t, warpgroup, block, half);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            u32 *x = &s[i * 2 + half];
            *x = (seen >> 2 * i & 1) ? *x : (*x & 0xffff0000u) | 0xfc00u;
            *x = (seen >> 2 * i & 2) ? *x : (*x & 0xffffu) | 0xfc000000u;
        }
    }
}

/* The largest score of a row. */
DEVICE float row_maximum(const f8_scores &s, int half) {
    u32 x = s[half], y = s[half + 2];
#pragma unroll
    for (int i = 2; i < GROUPS; i += 2) {
        x = pair_max(x, s[i * 2 + half]);
        y = pair_max(y, s[i * 2 + 2 + half]);
    }
    x = pair_max(x, y);
    return quad_max(fmaxf(low_half(x), high_half(x)));
}

/* Sets a row's reference. Where it or the scale is not for f16 the row is far: all of its p are made in float32 from
 * now on, as its factor and sums are NaN, which f8_mend() is called for. Up to a scale of 0.9 no score is far. */
DEVICE void f8_refer(f8_state *at, int half, float scale, float reference) {
    const bool near = scale < FAR && fabsf(reference) < FAR;
    at->minus[half] = pair_of(-reference);
    at->reference[half] = near ? -low_half(at->minus[half]) : reference;
    at->factor[half] = near ? at->factor[half] : NAN_PAIR;
}

DEVICE float f8_found_reference(const f8_scores &s, float scale, int half) {
    return f8_reference_of(row_maximum(s, half) * scale, scale <= 0.9f ? 100.0f - FAR : LOWEST);
}

/* The references that a tile begins with; f8_mend() finds better ones if it must. */
DEVICE void f8_begin_rows(const f8_scores &s, const float *scales, f8_state *at) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float scale = scale_of(scales, half);
        f8_refer(at, half, scale, f8_found_reference(s, scale, half));
        at->sum[half] = 0.0f;
    }
}

/* Of so many steps of 16 keys one makes half its exponentials in arithmetic: the exponentials' unit is what limits
 * softmax, and e4m3 has no use for more than 4 bits of them. Not where keys are hidden: their p must be 0. */
#define QUADRATIC_EVERY 4

/* p of the column groups [from, to), both even, packed as left operands: rows and rows + 8 of 16 keys at a time. */
DEVICE void f8_probabilities(const f8_scores &s, u32 *p, const f8_state *at, f8_sums &sum, int from, int to,
                             bool masked) {
#pragma unroll
    for (int i = from; i < to; i += 2) {
        const bool quadratic = !masked && i / 2 % QUADRATIC_EVERY == QUADRATIC_EVERY - 1;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 x = pair_fma(s[i * 2 + half], at->factor[half], at->minus[half]),
                      y = pair_fma(s[i * 2 + 2 + half], at->factor[half], at->minus[half]), a = pair_exp2(x),
                      b = quadratic ? pair_exp2_quadratic(y) : pair_exp2(y);
            sum[half] = pair_add(pair_add(sum[half], a), b);
            p[i + half] = pairs_to_e4m3(a, b);
        }
    }
}

DEVICE float f8_sum_of(const f8_sums &sum, int half) { return low_half(sum[half]) + high_half(sum[half]); }

/* p of a row in float32, for those whose sums in f16 are none: also of scores far from 0, and of NaN. */
DEVICE float f8_far_row(const f8_scores &s, u32 (&p)[BC / 8], float scale, float reference, int half) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < GROUPS; i += 2) {
        float e[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 pair = s[i * 2 + j / 2 * 2 + half];
            e[j] = exp2_fast(fmaf(j & 1 ? high_half(pair) : low_half(pair), scale, -reference));
            sum += e[j];
        }
        p[i + half] = pack_e4m3(e[0], e[1], e[2], e[3]);
    }
    return sum;
}

/* Rows that may have a p beyond 448, as a thread's sum of a block says, take their maximum as reference, and p is
 * computed again. */
DEVICE void f8_mend(const f8_scores &s, const float *scales, u32 (&p)[BC / 8], float (&t)[DV / 2],
                    f8_state *at, float (&sum)[2], bool fresh) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool bold = quad_max(sum[half] <= GUARD ? 0.0f : 1.0f) > 0.0f;
        const float old = at->reference[half], scale = scale_of(scales, half),
                    found = f8_found_reference(s, scale, half);
        f8_refer(at, half, scale, bold ? fmaxf(old, found) : old);
        factor[half] = exp2_fast(old - at->reference[half]);
        sum[half] = f8_far_row(s, p, scale, at->reference[half], half);
    }
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        f8_rescale(t, factor);
    }
}

#endif
