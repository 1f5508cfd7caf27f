/*
 * The forward of FlashAttention-2 (Dao 2023, algorithm 1) for one tile of queries, written once over the
 * vector layer that the including file chose (simd_*.h).
 *
 * Queries lie in the lanes of vectors; keys and dims are loop axes. So scores are computed transposed,
 *
 *     S^T[key][query] = sum over d of K[key][d] * Q^T[d][query]         K broadcast, Q^T loaded
 *     O^T[dim][query] += sum over keys of V[key][dim] * P^T[key][query]  V broadcast, P^T loaded
 *
 * and what softmax keeps for each row (m, l) is one vector: no reduction crosses lanes, no dim or key
 * count needs a multiple of the vector's width, and rows of different heads of a group share a tile.
 *
 *      tile: up to FORWARD_TILE_ROWS rows = subs of FORWARD_SUB_ROWS rows
 *
 *      K, V: FORWARD_KEYS keys at a time packed to panels, shared by the subs and kept for later tiles
 *        |
 *        v            sub 0    sub 1   ...          a sub's Q^T and S^T stay in L1
 *      [ block ]  x   [S^T]    [S^T]                then P^T in place of S^T
 *                     [O^T]    [O^T]                O^T in L2, read and written once a block
 *
 * Products run in register tiles of FORWARD_MR keys (or dims) x FORWARD_NV vectors of queries.
 * A sub skips the keys that none of its rows sees; only blocks at an interval's edge are masked.
 * A row's bits depend on nothing but itself: blocks begin at multiples of FORWARD_KEYS, sums run
 * over ascending keys, what is masked adds exact zeros, and rescaling is decided lane by lane.
 *
 * The reference m is the row's maximum when it was last moved, in units of the scores; it moves only when
 * the maximum has grown by more than LAZY (O and l then are multiplied, exactly as in real arithmetic,
 * since the final division uses the same reference). In float32 nothing is lost by that: exp2 of at most
 * LAZY more has the same relative error. Where P is rounded to bf16 (SIMD_PAIR 2), O is divided by the
 * sum of the rounded P, so that the rounding of a row's dominant probability cancels; l keeps the
 * unrounded sum for the LSE.
 */
#ifndef FORWARD_KEYS
#error "define FORWARD_KEYS, FORWARD_MR, FORWARD_NV and FORWARD_TILE_ROWS, and include a simd_*.h first"
#endif

#include <string.h>

#include "cpu/emit.h"
#include "cpu/forward_panels.h"

/* ---------------------------------------------------------------- products */

#ifndef FORWARD_OWN_PRODUCT
/* c[r][v] += a[r] * b[v] over count units of a ([unit][FORWARD_MR]) and b ([unit][row]). */
SIMD_INLINE void multiply_tile(const int nv, const float *a, const float *b, int64_t count,
                               vf c[FORWARD_MR][FORWARD_NV]) {
    for (int64_t i = 0; i < count; i += FORWARD_STEP) {
        SIMD_UNROLL
        for (int u = 0; u < FORWARD_STEP; u++) {
            vf lane[FORWARD_NV];
            SIMD_UNROLL
            for (int v = 0; v < nv; v++) lane[v] = vf_load(b + u * FORWARD_SUB_ROWS + v * SIMD_LANES);
            SIMD_UNROLL
            for (int r = 0; r < FORWARD_MR; r++) {
                const vf one = vf_set1(a[u * FORWARD_MR + r]);
                SIMD_UNROLL
                for (int v = 0; v < nv; v++) c[r][v] = simd_dot(one, lane[v], c[r][v]);
            }
        }
        a += FORWARD_STEP * FORWARD_MR;
        b += FORWARD_STEP * FORWARD_SUB_ROWS;
    }
}
#endif

/* FORWARD_MR keys: S^T = K Q^T, and the maximum of each lane so far. */
SIMD_INLINE void scores_tile(const int nv, const float *q, const float *k, int64_t units, float *s,
                             vf top[FORWARD_NV]) {
    vf acc[FORWARD_MR][FORWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    }
    multiply_tile(nv, k, q, units, acc);
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) vf_store(s + r * FORWARD_SUB_ROWS + v * SIMD_LANES, acc[r][v]);
    }
    /* in two halves, and top last: a chain of FORWARD_MR maxima would hold the next tile up */
    SIMD_UNROLL
    for (int v = 0; v < nv; v++) {
        vf even = acc[0][v], odd = acc[1][v];
        SIMD_UNROLL
        for (int r = 2; r < FORWARD_MR; r += 2) {
            even = vf_max(even, acc[r][v]);
            odd = vf_max(odd, acc[r + 1][v]);
        }
        top[v] = vf_max(top[v], vf_max(even, odd));
    }
}

/* FORWARD_MR dims: O^T += V^T P^T over count rows of units. */
SIMD_INLINE void output_tile(const int nv, const float *p, const float *v_panel, int64_t count, float *o) {
    vf acc[FORWARD_MR][FORWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_load(o + r * FORWARD_SUB_ROWS + v * SIMD_LANES);
    }
    multiply_tile(nv, v_panel, p, count, acc);
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) vf_store(o + r * FORWARD_SUB_ROWS + v * SIMD_LANES, acc[r][v]);
    }
}

/* ---------------------------------------------------------------- softmax */

/*
 * P = 2^(s c - m c), of which m c is rounded. What that amounts to is a factor of all of the row's P, l and O, and so only
 * says that the reference was another one: row_reference. Beyond FAR the factor might leave float's range; there, and
 * where the layer's multiply-add rounds the product, m is subtracted from the scores instead.
 */
#define FAR (SIMD_FUSED ? 0x1p30f : 0.0f)

SIMD_INLINE vmask reference_far(vf log2) { return vf_greater(vf_abs(log2), vf_set1(FAR)); }

/* What m is for all that has been added up, in natural units. */
static double row_reference(const score_units *units, float m) {
    const float log2 = m * units->to_log2;
    return fabsf(log2) > FAR ? (double)m * units->to_natural : (double)log2 * LN_2;
}

/* -m c, or 0 and m subtracted from S^T. */
SIMD_INLINE vf take_reference(const score_units *units, vf m, float *s, int64_t count) {
    const vf log2 = vf_mul(m, vf_set1(units->to_log2));
    const vmask far = reference_far(log2);
    if (!vmask_any(far)) return vf_sub(vf_zero(), log2);
    const vf less = vf_select(far, m, vf_zero());
    for (int64_t j = 0; j < count; j++)
        vf_store(s + j * FORWARD_SUB_ROWS, vf_sub(vf_load(s + j * FORWARD_SUB_ROWS), less));
    return vf_select(far, vf_zero(), vf_sub(vf_zero(), log2));
}

/* Moves the references of lanes whose maximum outgrew them; gives each lane's, or 0 where it has seen nothing. */
SIMD_INLINE vf move_reference(const score_units *units, vf top, float *m, float *l, float *l_rounded,
                              float *o, int64_t dim_v) {
    const vf old = vf_load(m), nothing = vf_set1(-INFINITY);
    const vmask grown = vf_greater(top, vf_add(old, vf_set1(units->lazy)));
    if (!vmask_any(grown)) return vf_select(vf_equal(old, nothing), vf_zero(), old);
    const vf now = vf_select(grown, top, old);
    /* a lane that has seen nothing has l = o = 0: any finite factor will do, and 2^-inf is 0 */
    const vf c = vf_set1(units->to_log2), now_log2 = vf_mul(now, c);
    const vf apart =
        vf_select(reference_far(now_log2), vf_mul(vf_sub(old, now), c), vf_sub(vf_mul(old, c), now_log2));
    const vf factor = vf_select(grown, vf_exp2_of(apart), vf_set1(1.0f));
    vf_store(m, now);
    vf_store(l, vf_mul(vf_load(l), factor));
    if (SIMD_PAIR == 2) vf_store(l_rounded, vf_mul(vf_load(l_rounded), factor));
    for (int64_t d = 0; d < dim_v; d++)
        vf_store(o + d * FORWARD_SUB_ROWS, vf_mul(vf_load(o + d * FORWARD_SUB_ROWS), factor));
    return vf_select(vf_equal(now, nothing), vf_zero(), now);
}

/* P^T = exp2(S^T * scale + more) over S^T in place, in units; sums into l. */
SIMD_INLINE void probabilities(const int nv, float *s, int64_t count, float scale, const vf more[FORWARD_NV],
                               float *l, float *l_rounded) {
    vf sum[2][FORWARD_NV], sum_rounded[FORWARD_NV]; /* two sums: keys by turns */
    const vf c = vf_set1(scale);
    SIMD_UNROLL
    for (int v = 0; v < nv; v++) sum[0][v] = sum[1][v] = sum_rounded[v] = vf_zero();
    for (int64_t j = 0; j < count; j += 2) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) {
            const float *from = s + j * FORWARD_SUB_ROWS + v * SIMD_LANES;
            float *to = s + j / SIMD_PAIR * FORWARD_SUB_ROWS + v * SIMD_LANES;
            const vf p0 = vf_exp2_of(vf_fma(vf_load(from), c, more[v]));
            const vf p1 = vf_exp2_of(vf_fma(vf_load(from + FORWARD_SUB_ROWS), c, more[v]));
            sum[0][v] = vf_add(sum[0][v], p0);
            sum[1][v] = vf_add(sum[1][v], p1);
#if SIMD_PAIR == 2
            const vf unit = simd_pair(p0, p1);
            sum_rounded[v] = simd_dot(simd_pair_ones(), unit, sum_rounded[v]);
            vf_store(to, unit);
#else
            vf_store(to, p0);
            vf_store(to + FORWARD_SUB_ROWS, p1);
#endif
        }
    }
    SIMD_UNROLL
    for (int v = 0; v < nv; v++) {
        vf_store(l + v * SIMD_LANES, vf_add(vf_load(l + v * SIMD_LANES), vf_add(sum[0][v], sum[1][v])));
        if (SIMD_PAIR == 2)
            vf_store(l_rounded + v * SIMD_LANES, vf_add(vf_load(l_rounded + v * SIMD_LANES), sum_rounded[v]));
    }
}

/* ---------------------------------------------------------------- accumulate */

/* One sub against keys [begin, end) of the block at key0 (begin a multiple of FORWARD_MR from it). */
SIMD_INLINE void accumulate_vectors(const int nv, const attni_job *job, const attni_tile *tile,
                                    const forward_shape *f, forward_scratch *w, int64_t sub, int64_t key0,
                                    int64_t begin, int64_t end) {
    const int64_t first = sub * FORWARD_SUB_ROWS;
    const int64_t count = attni_round_up(end - begin, FORWARD_MR);
    const float *q = w->q + first * f->units_qk, *k = w->k + begin * f->units_qk;
    float *o = w->o + first * f->dim_v;
    vf top[FORWARD_NV];
    for (int v = 0; v < nv; v++) top[v] = vf_set1(-INFINITY);
    for (int64_t j = 0; j < count; j += FORWARD_MR) {
        if (j % (AHEAD_EVERY * FORWARD_MR) == 0) prefetch_step(job, tile, w);
        scores_tile(nv, q, k + j * f->units_qk, f->units_qk, w->s + j * FORWARD_SUB_ROWS, top);
    }

    const score_block block = {w->s, key0 + begin, count, first, nv};
    const int options = (job->options & ATTNI_SCORE_OPTIONS) != 0;
    if (options) score_options(job, tile, &w->rows, &block);
    if (options || score_needs_mask(&w->rows, &block)) score_mask(&w->rows, &block, top);

    float *m = w->rows.m + first, *l = w->rows.l + first, *l_rounded = w->rows.l_rounded + first;
    vf more[FORWARD_NV];
    for (int v = 0; v < nv; v++) {
        const vf reference = move_reference(&w->rows.units, top[v], m + v * SIMD_LANES, l + v * SIMD_LANES,
                                            l_rounded + v * SIMD_LANES, o + v * SIMD_LANES, f->dim_v);
        more[v] = take_reference(&w->rows.units, reference, w->s + v * SIMD_LANES, count);
    }
    probabilities(nv, w->s, count, w->rows.units.to_log2, more, l, l_rounded);
    if (job->options & ATTNI_DROPOUT) score_dropout(job, tile, &w->rows, &block);
    arrange(w->s, count / SIMD_PAIR, nv * SIMD_LANES, FORWARD_SUB_ROWS);

    for (int64_t d = 0; d < f->dim_v; d += FORWARD_MR) {
        if (d % (AHEAD_EVERY * FORWARD_MR) == 0) prefetch_step(job, tile, w);
        output_tile(nv, w->s, w->v + d / FORWARD_MR * f->ld_v + begin / SIMD_PAIR * FORWARD_MR,
                    count / SIMD_PAIR, o + d * FORWARD_SUB_ROWS);
    }
}

/* 1: a sub of fewer rows is computed as two whole vectors; one function less to compile. */
#ifndef FORWARD_WHOLE
#define FORWARD_WHOLE 0
#endif

/*
 * The same with as few vectors as hold the sub's rows. Several of them in the tile's function take compilers longer; a
 * single one there is 1 to 2% faster.
 */
#if FORWARD_NV == 1
SIMD_INLINE
#else
static SIMD_CALLED
#endif
void accumulate(const attni_job *job, const attni_tile *tile, const forward_shape *f, forward_scratch *w,
                int64_t sub, int64_t key0, int64_t begin, int64_t end, int64_t rows) {
    const int nv = (int)attni_ceil_div(rows, SIMD_LANES);
    if (FORWARD_NV >= 3 && nv == 3)
        accumulate_vectors(FORWARD_NV >= 3 ? 3 : 1, job, tile, f, w, sub, key0, begin, end);
    else if (FORWARD_NV >= 2 && (nv == 2 || FORWARD_WHOLE))
        accumulate_vectors(FORWARD_NV >= 2 ? 2 : 1, job, tile, f, w, sub, key0, begin, end);
    else
        accumulate_vectors(1, job, tile, f, w, sub, key0, begin, end);
}

/* ---------------------------------------------------------------- finish */

/* Lanes become rows again; each is emitted. */
static void finish_sub(const attni_job *job, const attni_tile *tile, const forward_shape *f,
                       forward_scratch *w, int64_t sub, int64_t count) {
    const int64_t first = sub * FORWARD_SUB_ROWS;
    const float *o = w->o + first * f->dim_v;
    for (int64_t v = 0; v * SIMD_LANES < count; v++) {
        const float *l = w->rows.l + first + v * SIMD_LANES,
                    *l_rounded = w->rows.l_rounded + first + v * SIMD_LANES;
        vf factor = vf_set1(job->dropout_scale);
        if (SIMD_PAIR == 2) /* o * l / l_rounded, so that the division by l divides by what was summed */
            factor = vf_select(vf_equal(vf_load(l_rounded), vf_zero()), factor,
                               vf_mul(factor, vf_div(vf_load(l), vf_load(l_rounded))));
        float block[SIMD_LANES * SIMD_LANES];
        for (int64_t d = 0; d < f->dim_v; d += SIMD_LANES) {
            for (int64_t i = 0; i < SIMD_LANES; i++) {
                const int64_t dim = attni_min(d + i, f->dim_v - 1);
                vf_store(block + i * SIMD_LANES,
                         vf_mul(vf_load(o + dim * FORWARD_SUB_ROWS + v * SIMD_LANES), factor));
            }
            simd_transpose(block, SIMD_LANES, w->staging + d, f->ld_staging);
        }
        const int64_t lanes = attni_min(SIMD_LANES, count - v * SIMD_LANES);
        for (int64_t lane = 0; lane < lanes; lane++) {
            const int64_t row = first + v * SIMD_LANES + lane;
            emit_row(job, tile, tile->row_begin + row, row_reference(&w->rows.units, w->rows.m[row]),
                     w->rows.l[row], 1, w->staging + lane * f->ld_staging);
        }
    }
}

/* ---------------------------------------------------------------- the tile */

static void forward_tile(const attni_job *job, const attni_tile *tile, void *scratch) {
    const attn_problem *p = job->p;
    const forward_shape f = forward_shape_of(p->dim_qk, p->dim_v);
    const int64_t rows = tile->row_end - tile->row_begin;
    const int64_t subs = attni_ceil_div(rows, FORWARD_SUB_ROWS);
    forward_scratch w;
    const int64_t slots = ((const attni_kept *)scratch)->slots;
    forward_carve(&w, scratch, rows, slots, p->dim_qk, p->dim_v);
    if (w.kept->index != tile->index) {
        for (int64_t i = 0; i < slots; i++) w.tags[i] = -1;
        w.kept->index = tile->index;
    }
    memset(w.o, 0, (size_t)(subs * FORWARD_SUB_ROWS * f.dim_v) * sizeof(float));
    tile_rows_fill(job, tile, &w.rows, subs * FORWARD_SUB_ROWS);

    const int64_t from = w.rows.begin_all / FORWARD_KEYS * FORWARD_KEYS, to = w.rows.end_all;
    /* register tiles of a sub and a block, and what prefetching ahead of them takes */
    const int64_t steps = (FORWARD_KEYS + f.dim_v) / (AHEAD_EVERY * FORWARD_MR);
    const int64_t q_bytes = p->dim_qk * (int64_t)attni_dtype_size(p->dtype_q),
                  o_bytes = p->dim_v * (int64_t)attni_dtype_size(p->dtype_o);
    bool begun[FORWARD_SUBS] = {false}, done[FORWARD_SUBS] = {false};
    for (int64_t key = from; key < to; key += FORWARD_KEYS) {
        const int64_t keys = attni_min(FORWARD_KEYS, to - key);
        take_block(job, tile, key, keys, &f, &w);
        look_ahead(job, tile, key + keys, attni_min(FORWARD_KEYS, to - key - keys), subs * steps, &f, &w);
        for (int64_t sub = 0; sub < subs; sub++) {
            const int64_t begin = attni_max(0, w.rows.sub_begin[sub] - key) / FORWARD_MR * FORWARD_MR;
            const int64_t end = attni_min(keys, w.rows.sub_end[sub] - key);
            if (begin >= end) continue;
            const int64_t first = tile->row_begin + sub * FORWARD_SUB_ROWS,
                          count = attni_min(FORWARD_SUB_ROWS, tile->row_end - first);
            int64_t q_end = first, o_end = first;
            if (!begun[sub]) {
                load_queries(job, tile, first, count, &f, w.staging,
                             w.q + sub * FORWARD_SUB_ROWS * f.units_qk);
                begun[sub] = true;
                q_end = attni_min(first + count + FORWARD_SUB_ROWS, tile->row_end);
            }
            done[sub] = w.rows.sub_end[sub] <= key + keys;
            if (done[sub] && job->kind == ATTNI_RUN_FORWARD) o_end = first + count;
            ahead_set(&w.ahead[AHEAD_Q], first + count, q_end, q_bytes, steps);
            ahead_set(&w.ahead[AHEAD_O], first, o_end, o_bytes, steps);
            accumulate(job, tile, &f, &w, sub, key, begin, end, count);
            if (done[sub]) finish_sub(job, tile, &f, &w, sub, count);
        }
    }
    for (int64_t sub = 0; sub < subs; sub++) /* those that see nothing */
        if (!done[sub])
            finish_sub(job, tile, &f, &w, sub, attni_min(FORWARD_SUB_ROWS, rows - sub * FORWARD_SUB_ROWS));
}
