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

static_assert(BC == 128 && D <= 128 && TURNED, "what wgmma_half.cuh has; beside turners scores are float32");

typedef u32 f8_scores[BC / 4];
typedef u32 f8_sums[2]; /* of p of a block: a pair for each row */
#define MOST_REFERENCE 32.0f /* of a row that is good enough: docs/numerics.md, 8 bits */
#define MOST_FACTOR (E5M2 ? 0x1p8f : 0x1p-4f)
#define LOWEST_HALF (-0x1p15f) /* the reference of a row that has seen nothing */

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

/* The reference of a row as its scale asks: the factor that p are made with is the scale rounded to f16. */
DEVICE float f8_true_reference(float reference, float scale) {
    const float factor = low_half(pair_of(scale));
    return factor < 0x1p-14f ? reference : fmaf(reference - HEADROOM, __fdividef(scale, factor), HEADROOM);
}

/* A tile with a row whose largest score is far from 0 is to be made again, with float32 scores: f16 is too coarse for
 * it, or has no such numbers. A row that sees nothing is one of them. So is one of Q that was made smaller, where a unit of its scores is
 * more than 2^-4: what its small elements have lost may count. */
DEVICE void mark_tile(const attni_forward_sm90_params *p, shared_memory *memory, tile_record *record,
                      const float *scales, const float reference[2]) {
    bool fine = true;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = thread_row(this_warpgroup()) + half * 8;
        const float most = fmaxf(f8_scale_of(record->score_scale), MOST_FACTOR);
        fine = fine && ((fabsf(reference[half]) <= MOST_REFERENCE && scales[row] <= most) ||
                        record->facts.row0 + row >= record->facts.rows);
    }
    if (__any_sync(0xffffffffu, !fine) && is_chosen_lane() && atomicExch(&record->marked, 1) == 0) {
        p->again[record->number] = atomicExch(&memory->last_marked, record->number);
    }
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

/* A row's reference from a block's scores: with it the largest has a p of 8. */
DEVICE float f8_found_reference(const f8_scores &s, const f8_state *at, int half) {
    return f8_reference_of(row_maximum(s, half) * low_half(at->factor[half]), LOWEST_HALF);
}

DEVICE void f8_refer(f8_state *at, int half, float reference) {
    at->minus[half] = pair_of(-reference);
    at->reference[half] = -low_half(at->minus[half]);
}

/* The references that a tile begins with; f8_mend() finds better ones if it must. */
DEVICE void f8_begin_rows(const f8_scores &s, f8_state *at) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        f8_refer(at, half, f8_found_reference(s, at, half));
        at->sum[half] = 0.0f;
    }
}

/* Of so many steps of 16 keys one makes half its exponentials in arithmetic: the exponentials' unit is what limits
 * softmax, and e4m3 has no use for more than 4 bits of them. Not where keys are hidden: their p must be 0. */
#define CUBIC_EVERY 4

/* p of the column groups [from, to), both even, packed as left operands: rows and rows + 8 of 16 keys at a time. */
DEVICE void f8_probabilities(const f8_scores &s, u32 *p, const f8_state *at, f8_sums &sum, int from, int to,
                             bool masked) {
#pragma unroll
    for (int i = from; i < to; i += 2) {
        const bool cubic = !masked && i / 2 % CUBIC_EVERY == CUBIC_EVERY - 1;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 x = pair_fma(s[i * 2 + half], at->factor[half], at->minus[half]),
                      y = pair_fma(s[i * 2 + 2 + half], at->factor[half], at->minus[half]), a = pair_exp2(x),
                      b = cubic ? pair_exp2_cubic(y) : pair_exp2(y);
            sum[half] = pair_add(pair_add(sum[half], a), b);
            p[i + half] = pairs_to_e4m3(a, b);
        }
    }
}

DEVICE float f8_sum_of(const f8_sums &sum, int half) { return low_half(sum[half]) + high_half(sum[half]); }

/* Rows that may have a p beyond 448, as a thread's sum of a block says, take their maximum as reference, and p is
 * computed again. */
DEVICE void f8_mend(const f8_scores &s, u32 (&p)[BC / 8], float (&t)[DV / 2], f8_state *at, float (&sum)[2],
                    bool fresh) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool bold = quad_max(sum[half] <= GUARD ? 0.0f : 1.0f) > 0.0f;
        const float old = at->reference[half], found = f8_found_reference(s, at, half);
        f8_refer(at, half, bold ? fmaxf(old, found) : old);
        factor[half] = exp2_fast(old - at->reference[half]);
    }
    f8_sums sums = {};
    f8_probabilities(s, p, at, sums, 0, GROUPS, true);
    sum[0] = f8_sum_of(sums, 0);
    sum[1] = f8_sum_of(sums, 1);
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        f8_rescale(t, factor);
    }
}

#endif
