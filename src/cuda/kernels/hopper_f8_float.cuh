/*
 * forward_sm90_f8: float32 scores, and p from them.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_FLOAT_CUH
#define ATTNI_HOPPER_F8_FLOAT_CUH

typedef float f8_scores[BC / 2];
typedef float f8_sums[4]; /* of p of a block: two for each row */

/* A scale of 0 or below works on the bits of Q (this warpgroup's part), so that everything after may take it as
 * positive. NaN (e5m2: inf too) gives NaN with a scale of 0. */
DEVICE void f8_turn_queries(u32 *part, float scale) {
    for (u32 i = threadIdx.x & 127; i < Q_PART_BYTES / 4; i += 128) {
        const u32 x = part[i], odd_from = E5M2 ? 0x7c7c7c7cu : 0x7f7f7f7fu;
        part[i] = scale < 0.0f ? x ^ 0x80808080u : __vcmpgeu4(x & 0x7f7f7f7fu, odd_from) & 0x7f7f7f7fu;
    }
}

/* S = Q K^T of a block. */
DEVICE void issue_scores(f8_scores &s, const matrix_place *w, int tile, int block) {
    const u32 q = w->q + tile % Q_SLOTS * (WGS * Q_PART_BYTES >> 4),
              k = w->k + block % STAGES * (K_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        const u32 chunk = i / 4, inside = i % 4 * 2;
        wgmma_shared(s, wgmma_descriptor(q + chunk * (64 * 128 >> 4) + inside),
                     wgmma_descriptor(k + chunk * (BC * 128 >> 4) + inside), i > 0);
    }
    wgmma_commit();
}

/* The largest score of a row. */
DEVICE float row_maximum(const f8_scores &s, int half) {
    float x = s[half * 2], y = s[half * 2 + 1];
#pragma unroll
    for (int i = 1; i < GROUPS; i++) {
        x = fmaxf(x, s[i * 4 + half * 2]);
        y = fmaxf(y, s[i * 4 + half * 2 + 1]);
    }
    return quad_max(fmaxf(x, y));
}

/*
 * What a scale is to be multiplied by, so that a row with this largest raw score has a reference of at most 2^26: 1, as a
 * rule, or a power of two, which leaves 2^24 or more. There float32 misses the wanted reference by at most 4, and P is at most 128;
 * beyond, it may pass 448. Scores differ by 2^-20 of the largest or not at all, so next to the largest a weight is at most 2^-16
 * of it, where it would be 0.
 */
DEVICE float limiting_power(float scale, float top) {
    const int exponents = (__float_as_int(fabsf(top)) >> 23) + (__float_as_int(scale) >> 23) - 127;
    const bool far = exponents > 151 && fabsf(top) < ATTNI_INF;
    return far ? __int_as_float(max(1, 278 - exponents) << 23) : 1.0f;
}

/* A row's reference for scores that are so many times as large. */
DEVICE float times_reference(float reference, float times) {
    return times == 1.0f ? reference : fmaf(reference - HEADROOM, times, HEADROOM);
}

/* The rows' scales are the tile's, over powers of two: which, in 16 bits each. */
DEVICE u32 f8_powers(const f8_state *at, float scale) {
    const int a = (__float_as_int(scale) - __float_as_int(at->scale[0])) >> 23,
              b = (__float_as_int(scale) - __float_as_int(at->scale[1])) >> 23;
    return (u32)a & 0xffff | (u32)b << 16;
}

/* Under the scale of the tile. */
DEVICE float f8_true_reference(float reference, int power) {
    return times_reference(reference, __int_as_float((127 + power) << 23));
}

/*
 * The references that a tile begins with; f8_mend() finds better ones if it must. They are lower by 2^-22 of themselves, so that
 * where float32 has not the one that is wanted p are too large, never too small, and are mended.
 */
DEVICE void f8_begin_rows(const f8_scores &s, f8_state *at) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float reference = f8_reference_of(row_maximum(s, half) * at->scale[half], -0x1p126f);
        at->reference[half] = fmaf(-fabsf(reference), 0x1p-22f, reference);
        at->sum[half] = 0.0f;
    }
}

/* Four exponentials into e, and into the sums: two for each row. */
DEVICE void f8_exponentials(const float *s, float *e, const f8_state *at, f8_sums &sum) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        e[j] = exp2_fast(fmaf(s[j], at->scale[j / 2], -at->reference[j / 2]));
        sum[j] += e[j];
    }
}

/* p of the column groups [from, to), both even, packed as left operands: rows and rows + 8 of 16 keys at a time. */
DEVICE void f8_probabilities(const f8_scores &s, u32 *p, const f8_state *at, f8_sums &sum, int from, int to,
                             bool) {
#pragma unroll
    for (int i = from; i < to; i += 2) {
        float e[8];
        f8_exponentials(s + i * 4, e, at, sum);
        f8_exponentials(s + i * 4 + 4, e + 4, at, sum);
        p[i] = pack_e4m3(e[0], e[1], e[4], e[5]);
        p[i + 1] = pack_e4m3(e[2], e[3], e[6], e[7]);
    }
}

DEVICE float f8_sum_of(const f8_sums &sum, int half) { return sum[half * 2] + sum[half * 2 + 1]; }

/* Rows that may have a p beyond 448, as a thread's sum of a block says, take their maximum as reference, and p is
 * computed again. */
DEVICE void f8_mend(const f8_scores &s, u32 (&p)[BC / 8], float (&t)[DV / 2], f8_state *at, float (&sum)[2],
                    bool fresh) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool bold = quad_max(sum[half]) > GUARD;
        const float top = row_maximum(s, half), power = bold ? limiting_power(at->scale[half], top) : 1.0f,
                    old = times_reference(at->reference[half], power),
                    kept = times_reference(at->kept_reference[half], power);
        at->scale[half] *= power;
        at->reference[half] = bold ? f8_reference_of(top * at->scale[half], LOWEST) : old;
        at->kept_reference[half] = fresh ? at->kept_reference[half] : kept; /* fresh: of the tile before */
        factor[half] = exp2_fast(old - at->reference[half]);
    }
    f8_sums sums = {};
    f8_probabilities(s, p, at, sums, 0, GROUPS, false);
    sum[0] = f8_sum_of(sums, 0);
    sum[1] = f8_sum_of(sums, 1);
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        f8_rescale(t, factor);
    }
}

#endif
