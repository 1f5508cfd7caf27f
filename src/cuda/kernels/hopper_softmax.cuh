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

#include "hopper_bias.cuh"

/* ---------------------------------------------------------------- a warpgroup's state */

/* What a thread of a matrix warpgroup holds. Rows: row and row + 8 of the tile. */
struct matrix_state {
    float reference[2]; /* of the rows: p = 2^(score - reference) */
    float sum[2]; /* this thread's shares of the rows' sums of p */
    float excess[2]; /* by which p as rounded came to more, of blocks that a shift was for: bf16 */
    float limit[2]; /* scores up to it leave the reference where it is: EXACT, or once wary */
    int blocks; /* whose K has been taken */
    int taken; /* BIAS, where PASSING: blocks whose bias has been taken */
    int values; /* the block whose V is taken next, where PASSING */
    int tiles; /* whose Q has been taken */
    bool fresh; /* O has none of this tile's products yet */
    int storing; /* the Q slot that O is leaving from; -1 */
    int before_end, after_begin; /* LINED: the blocks between are bent */
    int last, blocks_left; /* LINED: the tile's last block; how many come after its first */
    int block, begin; /* of the tile at hand: the block at work, and its first */
    int whole_begin, whole_end; /* blocks that all rows of the warpgroup see whole */
    bool idle; /* IDLING: the warpgroup has no rows in this tile */
    bool settled; /* BIAS: from now on in this tile scores are multiplied by their scale first */
    bool wary; /* a row of the warp has moved its reference in this tile: maxima come first from now on */
};

DEVICE int whole_begin_of(const matrix_state *at) { return MASK == 2 ? at->whole_begin : at->begin; }

/* The thread and its warpgroup, read anew: what is made of them in a tile's epilogue is then not kept in registers
 * through the hot loop. */
DEVICE int this_thread(void) {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

DEVICE int this_warpgroup(void) { return this_thread() / 128; }

/* Which 64 of the tile's rows it has, and which DV columns of V. */
DEVICE int this_part(void) { return SLICED ? 0 : this_warpgroup(); }

DEVICE int this_slice(void) { return SLICED ? this_warpgroup() : 0; }

/* A value that all lanes of a warp have, in a uniform register: REDUX leaves it there, a shuffle would not, and
 * descriptors made of it then cost no moves. */
DEVICE int uniform(int x) { return (int)__reduce_or_sync(0xffffffffu, (u32)x); }

/* The tile's row of this thread's first row. */
DEVICE int thread_row(int warpgroup) {
    const int thread = this_thread();
    return warpgroup * 64 + (thread & 127) / 32 * 16 + (thread & 31) / 4;
}

/* ---------------------------------------------------------------- mask */

/* The query of a thread's row and, PACKED, its head in the group. Rows beyond the last whole query are none's. */
struct packed_row {
    int query, head;
    bool any;
};

DEVICE packed_row place_packed(const attni_forward_params *p, const tile_facts *t, int warpgroup, int half) {
    const int row = thread_row(0) + half * 8, query = row * p->pack_inverse >> 16;
    packed_row r;
    r.query = t->row0 + warpgroup * p->part_queries + query;
    r.head = row - query * p->pack;
    r.any = query < p->part_queries && r.query < t->rows;
    return r;
}

/* How many of a thread's elements of a row, columns 0, 1, 8, 9, 16, .., lie before a column. */
DEVICE int elements_before(int column) { return max(0, ((column + 7) >> 3) + ((column + 6) >> 3)); }

/* Which of a thread's elements of a row are seen. */
DEVICE u32 seen_columns(const attni_forward_params *p, const tile_facts *t, int warpgroup, int block,
                        int half) {
    const int row = t->row0 + thread_row(warpgroup), key = block * BC + (int)(threadIdx.x & 3) * 2;
    const int own = PACKED ? place_packed(p, t, warpgroup, half).query : row + half * 8;
    const int last = (LIMITED ? min(own + t->last_key, t->keys - 1) : t->keys - 1) - key;
    const int first = MASK == 2 ? own + t->first_key - key : -SEEN_ALL;
    return low_bits(elements_before(last + 1)) & ~(MASK == 2 ? low_bits(elements_before(first)) : 0u);
}

/* Hidden scores become -inf. */
DEVICE void mask_scores(float (&s)[BC / 2], const attni_forward_params *p, const tile_facts *t, int warpgroup,
                        int block) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 seen = seen_columns(p, t, warpgroup, block, half);
#pragma unroll
        for (int i = 0; i < GROUPS * 2; i++) {
            float *x = &s[i / 2 * 4 + half * 2 + (i & 1)];
            *x = (seen >> i & 1) ? *x : -ATTNI_INF;
        }
    }
}

/* ---------------------------------------------------------------- scores */

/*
 * How a block's numbers become scores, in powers of two: number scale - base, for each of a thread's rows. A number is what
 * the product gave, or under a softcap, where that is still raw, a polynomial of it. The base is ALiBi's, where it is a line.
 */
struct score_shape {
    float scale, base[2];
    float low[2]; /* ALIBI: the rows' references, with the base */
    bool raw;
    const float *cap; /* of attni_forward_sm90_params */
    float middle; /* cap[0] */
    int zero; /* that the assembler does not know to be 0 */
};

/* x^2 + cap[0] and x ((x^2 + cap[0])^2 + cap[1]): three instructions of few registers, which are read beside the wgmma's. */
DEVICE float cap_square(const score_shape *shape, float x) { return fmaf(x, x, shape->middle); }
DEVICE float cap_number(const score_shape *shape, float x, float square) {
    return x * fmaf(square, square, shape->cap[1]);
}

DEVICE float number_of(const score_shape *shape, float x) {
    return POLYNOMIAL && shape->raw ? cap_number(shape, x, cap_square(shape, x)) : x;
}

/* A row's reference, as far below its weighted numbers. */
DEVICE float below(const score_shape *shape, int half, float reference) {
    return ALIBI ? reference + shape->base[half] : reference;
}

/*
 * Raw numbers of any size to scores in powers of two, under a softcap. Where all of a warp's are small, by the
 * polynomial; else by tanh x = 1 - 2 / (1 + e^2x), which errs by 3e-7 of the cap, and so of the largest of them.
 */
DEVICE void cap_scores(float (&s)[BC / 2], float cap, float to_exponent, bool small, score_shape *shape) {
    if (small) {
#pragma unroll
        for (int i = 0; i < BC / 2; i++) {
            s[i] = number_of(shape, s[i]) * shape->scale;
        }
    } else {
#pragma unroll
        for (int i = 0; i < BC / 2; i++) {
            s[i] = fmaf(-2.0f * cap, reciprocal_fast(1.0f + exp2_fast(s[i] * to_exponent)), cap);
        }
    }
    shape->raw = false;
    shape->scale = 1.0f;
}

/* Whether all of a warp's raw numbers are small enough for the polynomial. */
DEVICE bool are_small(const float (&s)[BC / 2], float cap_square) {
    float widest = 0.0f;
#pragma unroll
    for (int i = 0; i < BC / 2; i++) {
        widest = fmaxf(widest, fabsf(s[i]));
    }
    return !__any_sync(0xffffffffu, !(widest * widest <= cap_square));
}

#if SETTLING
/*
 * Scores to powers of two. Where a reference is huge (all that a row sees has a bias of -1e30, say) the product that
 * it was made of was rounded, and the exponents' multiply-add, which does not round it, would leave 1e22 of the two.
 */
DEVICE void settle_scores(float (&s)[BC / 2], matrix_state *at, score_shape *shape) {
#pragma unroll
    for (int i = 0; i < BC / 2; i++) {
        s[i] *= shape->scale;
    }
    shape->scale = 1.0f;
    at->settled = true;
}

/* Whether a row's largest score is so far from 0, or from -inf if it sees nothing. */
DEVICE bool is_huge(float top) { return fabsf(top) > 0x1p20f && top != -ATTNI_INF; }
#endif

/* ---------------------------------------------------------------- softmax */

/* This thread's largest score of a row. */
DEVICE float thread_maximum(const float (&s)[BC / 2], int half, const score_shape *shape) {
    float x = -ATTNI_INF, y = -ATTNI_INF;
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        x = fmaxf(x, s[i * 4 + half * 2]);
        y = fmaxf(y, s[i * 4 + half * 2 + 1]);
    }
    x = fmaxf(x, y);
    x = number_of(shape, x);
    return ALIBI ? fmaf(x, shape->scale, -shape->base[half]) : x * shape->scale;
}

/* No less than that, and as much unless all are below 0; half the instructions. */
DEVICE float thread_bound(const float (&s)[BC / 2], int half, const score_shape *shape) {
    int bits = 0;
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        bits =
            __vimax3_s32(bits, __float_as_int(s[i * 4 + half * 2]), __float_as_int(s[i * 4 + half * 2 + 1]));
    }
    const float x = __int_as_float(bits);
    return x * shape->scale - (ALIBI ? shape->base[half] : 0.0f);
}

/* A reference for a row whose largest score this is: its p is 2^-HEADROOM, which 16 bits hold without rounding. */
DEVICE float reference_of(float top) { return fmaxf(top, LOWEST) + HEADROOM; }

/* Up to which score a reference stays where maxima come first; total: the row's sum of p so far. */
DEVICE float limit_of(float reference, float total) {
    return reference + (EXACT ? fminf(ROOM, fmaxf(0.0f, __log2f(total * 0.5f))) : ROOM);
}

/*
 * Where maxima come first: moves the references that a block has outgrown; factor is what that makes of o. bound:
 * thread_bound of the rows; a row's largest is its maximum, if above 0. With
 * EXACT a reference moves as soon as a p is more than half of the row's sum so far, so that a term that dominates its
 * row has a p of 1, which 16 bits hold without rounding.
 */
DEVICE void move_references(const float (&s)[BC / 2], const float (&bound)[2], matrix_state *at,
                            const score_shape *shape, float (&factor)[2]) {
    float tops[2] = {quad_max(bound[0]), quad_max(bound[1])};
    if (__any_sync(0xffffffffu, !(tops[0] > 0.0f) | !(tops[1] > 0.0f))) {
        tops[0] = quad_max(thread_maximum(s, 0, shape));
        tops[1] = quad_max(thread_maximum(s, 1, shape));
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float top = tops[half], old = at->reference[half];
        float total = EXACT ? quad_sum(at->sum[half]) : 0.0f;
        if (top > (EXACT ? limit_of(old, total) : old + NEAR)) {
            at->reference[half] = reference_of(top);
            factor[half] = exp2_fast(old - at->reference[half]);
            at->sum[half] *= factor[half];
            total *= factor[half];
        }
        at->limit[half] = limit_of(at->reference[half], total);
    }
}

/* What 2 is raised to for a row's two keys of column group i. widest: the bits of the largest square under a
 * polynomial: it is negative as far as that holds, and so the least as an integer. */
DEVICE float2 exponent_pair(const float (&s)[BC / 2], int i, int half, float low, const score_shape *shape,
                            u32 *widest) {
    float x = s[i * 4 + half * 2], y = s[i * 4 + half * 2 + 1];
    if (POLYNOMIAL && shape->raw) {
        const float xx = cap_square(shape, x), yy = cap_square(shape, y);
        *widest = __vimin3_u32(*widest, __float_as_uint(xx), __float_as_uint(yy));
        x = cap_number(shape, x, xx);
        y = cap_number(shape, y, yy);
    }
    return make_float2(fmaf(x, shape->scale, -low), fmaf(y, shape->scale, -low));
}

/* Column group i's four. */
DEVICE void exponents(float (&s)[BC / 2], int i, float *t, const matrix_state *at, const score_shape *shape,
                      u32 *widest) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float2 pair =
            exponent_pair(s, i, half, ALIBI ? shape->low[half] : at->reference[half], shape, widest);
        t[half * 2] = pair.x;
        t[half * 2 + 1] = pair.y;
    }
}

/* Those to powers of two, and into the sums: two for each row. */
DEVICE void raise(float *t, float (&sum)[4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        t[j] = exp2_fast(t[j]);
        sum[j] += t[j];
    }
}

/* p of the column groups [from, to), packed as a left operand. */
DEVICE void probabilities(float (&s)[BC / 2], u32 (&p)[BC / 4], const matrix_state *at, float (&sum)[4],
                          score_shape *shape, u32 *widest, int from, int to) {
    float next[AHEAD * 4], last = 0.0f;
#pragma unroll
    for (int i = from; i < from + AHEAD; i++) {
        exponents(s, i, next + (i - from) * 4, at, shape, widest);
    }
#pragma unroll
    for (int i = from; i < to; i++) {
        float e[4];
        const int at_hand = (i - from) % AHEAD * 4;
        if (POLYNOMIAL && WGS == 2 && shape->raw && i > from) {
            shape->middle =
                __int_as_float(__float_as_int(shape->middle) ^ (shape->zero & __float_as_int(last)));
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            e[j] = next[at_hand + j];
        }
        if (i + AHEAD < to) {
            exponents(s, i + AHEAD, next + at_hand, at, shape, widest);
        }
        raise(e, sum);
        last = e[3];
        p[2 * i] = pack_16(e[0], e[1]);
        p[2 * i + 1] = pack_16(e[2], e[3]);
    }
}

DEVICE void scale_output(float (&o)[DV / 2], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        o[i] *= factor[i / 2 & 1];
    }
}

/* A row's p are a power of two too large: shifts them, and notes by how much they exceed their sums. */
DEVICE void shift_row(u32 (&p)[BC / 4], int half, matrix_state *at, float (&sum)[4], float factor) {
    const u32 both = pack_16(factor, factor);
    float low = 0.0f, high = 0.0f;
#pragma unroll
    for (int i = half; i < BC / 4; i += 2) {
        p[i] = multiply_16(p[i], both);
        low += __uint_as_float(p[i] << 16);
        high += __uint_as_float(p[i] & 0xffff0000u);
    }
    sum[half * 2] *= factor;
    sum[half * 2 + 1] *= factor;
    at->sum[half] *= factor;
    at->excess[half] *= factor;
    if (factor != 1.0f) {
        at->excess[half] += (low - sum[half * 2]) + (high - sum[half * 2 + 1]);
    }
}

/* A row, if it is one of those that must, takes its block's maximum as the reference, and its p again. */
DEVICE void repeat_row(const float (&s)[BC / 2], u32 (&p)[BC / 4], int half, bool must, matrix_state *at,
                       float (&sum)[4], const score_shape *shape, float (&factor)[2]) {
    const float top = quad_max(thread_maximum(s, half, shape));
    if (must) {
        const float old = at->reference[half];
        u32 widest = ~0u;
        at->reference[half] = reference_of(top);
        factor[half] = exp2_fast(old - at->reference[half]);
        at->sum[half] *= factor[half];
        at->excess[half] *= factor[half];
        sum[half * 2] = sum[half * 2 + 1] = 0.0f;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            float2 pair = exponent_pair(s, i, half, below(shape, half, at->reference[half]), shape, &widest);
            pair = make_float2(exp2_fast(pair.x), exp2_fast(pair.y));
            p[i * 2 + half] = pack_16(pair.x, pair.y);
            sum[half * 2] += pair.x;
            sum[half * 2 + 1] += pair.y;
        }
    }
    at->limit[half] = at->reference[half] + ROOM;
}

/*
 * Moves the references of rows whose p grew too large. p is computed without looking for a maximum; a thread's
 * sum of a block's p bounds them, and if any row of the warp has a sum beyond GUARD, the warp comes here. bf16 has
 * the exponents to wait long: p, sums and o then shrink by a power of two. What is left of a row is then the keys of
 * this block, maybe one key, whose p no reference made exact: O is divided by the sum of p as rounded (excess).
 * Where a p has overflowed, and in f16, the row takes its block's maximum, and p is computed again. factor is what o
 * is to be multiplied by.
 */
DEVICE void mend(const float (&s)[BC / 2], u32 (&p)[BC / 4], matrix_state *at, float (&sum)[4],
                 const score_shape *shape, float (&factor)[2]) {
    bool again[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float top = quad_max(sum[half * 2] + sum[half * 2 + 1]);
        again[half] = top > MOST_SHIFTED;
        if (!again[half] && top > GUARD) {
            const int shift = (__float_as_int(top) >> 23) - 127;
            factor[half] = __int_as_float((127 - shift) << 23);
            at->reference[half] += (float)shift;
        }
    }
    if (SHIFTING) {
        shift_row(p, 0, at, sum, factor[0]);
        shift_row(p, 1, at, sum, factor[1]);
    }
    if (__any_sync(0xffffffffu, again[0] | again[1])) {
        repeat_row(s, p, 0, again[0], at, sum, shape, factor);
        repeat_row(s, p, 1, again[1], at, sum, shape, factor);
    }
}

#endif
