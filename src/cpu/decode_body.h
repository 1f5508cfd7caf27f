/*
 * Decode for one chunk of keys and several kv heads: few query rows (heads of a group, a few queries), so
 * memory is the limit, and each byte of K and V is read and converted once for all rows. Written once over
 * the vector layer.
 *
 *     s[row][key]  = sum over d of q[row][d] k[key][d]     dims in lanes; sums of several keys and rows folded at once
 *     p            = exp2((s - m) * scale)                 keys in lanes
 *     o[row][dim] += p[row][key] v[key][dim]               dims in lanes, accumulators in registers
 *
 * Keys go by blocks of DECODE_KEYS, and within a block head by head: the heads of a key lie side by side in
 * memory, so a block is a few stretches of pages, each translated and streamed once. In which order, and what
 * is prefetched, says decode_ahead.h. Rows are rounded up to 1, 4 or 8, for which the loops are compiled;
 * rows that are absent hold zeros.
 *
 * Where the time goes (Emerald Rapids, one thread, 8 heads of 4 rows, dim 128, bf16; time-stamp counts around
 * each head of a block, 128 lines of 64 bytes): 540 to 620 ns at the rate of reading alone; 310 to 360 ns
 * with data that lie in L2, part of it for the queries and sums, which K and V drive from L1 to L2; 640 to
 * 750 ns from memory. What the counts' tails showed: with K and V prefetched as one stretch each, one head in
 * ten waited 430 ns for a page's translation, and every block's first head for its first lines; a prefetch to
 * L2 is dropped now and then (1 to 3 in 100 of one stream, 1 to 2 in 1000 of four), and then a load waits for
 * memory.
 * Tried: blocks of 32 and 64 keys (4 and 7% slower: the next block lies farther ahead); prefetch to L1
 * instead of L2 (9% slower), a second one halfway (1% slower), of every second line only (a fifth slower), in
 * bursts of 16 lines and more (slower), during softmax too (2.5% slower), queries and sums of the next head
 * to L1 (3% slower), a line of each page table ahead (equal), none (half the speed); streams 16 keys apart
 * instead of 4, over stretches of 64 keys (1 to 4% faster in a virtual machine where a translation takes 400
 * ns, 1 to 4% slower in one where it takes 160), and the chunk's quarters (the same, and 1 to 8% slower);
 * streams begun at several places of a page (equal); chunks of 1,024 and 512 keys (1 and 4% slower); softmax
 * inlined (equal); K and V in the order of memory, all heads of a key, with o in L1 instead of registers (a
 * trial loop, 7% slower); prefetches of several pages at once, eight to sixteen blocks ahead, for their
 * translations (equal); K and V to L1 by prefetchnta (2% faster idle in one machine, equal in another); to L1
 * a step instead of a phase ahead (4% slower with nothing computed: late lines); a head's next two or four
 * blocks before the next head, so that its queries and sums stay in L1 (2 and 5% slower with nothing computed,
 * as what is prefetched waits longer). Queries and sums that stay in L1 would give 5%, no softmax 4%.
 */
#ifndef ATTNI_DECODE_BODY_H
#define ATTNI_DECODE_BODY_H

#include <string.h>

#include "cpu/decode_softmax.h"

/* ---------------------------------------------------------------- scores */

/*
 * DECODE_STEP dims of a few keys, from byte offset of their rows on, to which at points; the first ones begin the
 * sums. Prefetches stand between the products: in bursts they wait for fill buffers.
 */
SIMD_INLINE void score_step(const int rows, const int keys, const attn_dtype dtype, const bool first,
                            const float *q, const decode_rows *at, int64_t offset,
                            vf acc[4][ATTNI_DECODE_ROWS]) {
    const int64_t bytes = DECODE_STEP * (dtype == ATTN_F32 ? 4 : 2);
    vf k[4][2];
    SIMD_UNROLL
    for (int i = 0; i < keys; i++) simd_load_two(dtype, at->row + i * at->step, k[i]);
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int i = r; i < keys; i += rows) prefetch_row(at, i, offset, bytes);
        SIMD_UNROLL
        for (int half = 0; half < 2; half++) {
            const vf y = vf_load(q + r * DECODE_STEP + half * SIMD_LANES);
            SIMD_UNROLL
            for (int i = 0; i < keys; i++)
                acc[i][r] = first && half == 0 ? vf_mul(k[i][half], y) : vf_fma(k[i][half], y, acc[i][r]);
        }
    }
}

/*
 * Products of a few keys, step bytes apart, so that enough sums are in flight and each load of q serves
 * several: x[row * span + key]. One pointer reaches q of all rows.
 */
SIMD_INLINE void score_keys(const int rows, const int keys, const int span, const attn_dtype dtype,
                            const float *q, decode_rows at, int64_t dim, vf *x) {
    const int64_t bytes = DECODE_STEP * (dtype == ATTN_F32 ? 4 : 2);
    vf acc[4][ATTNI_DECODE_ROWS];
    score_step(rows, keys, dtype, true, q, &at, 0, acc);
    for (int64_t d = 1; d < dim / DECODE_STEP; d++) {
        rows_move(&at, bytes);
        q += rows * DECODE_STEP;
        score_step(rows, keys, dtype, false, q, &at, d * bytes, acc);
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int i = 0; i < keys; i++) x[r * span + i] = acc[i][r];
    }
}

/* Folds x[row * span + key] and puts the sums at s[row][key]. */
SIMD_INLINE void score_sums(const int rows, const int span, const vf *x, float *s) {
    float sums[SIMD_SUMS];
    SIMD_UNROLL
    for (int i = 0; i < rows * span; i += SIMD_LANES) vf_store(sums + i, simd_sums(x + i));
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) memcpy(s + r * DECODE_KEYS, sums + r * span, (size_t)span * sizeof(float));
}

/* Adds the products of the last dims, where they are fewer than DECODE_STEP: of any dtype, and rarely needed. */
static void score_rest(int64_t slots, attn_dtype dtype, float *s, const decode_head *h, const decode_block *k,
                       int64_t dim) {
    const int64_t d = dim / DECODE_STEP * DECODE_STEP, size = dtype == ATTN_F32 ? 4 : 2;
    const char *from = k->rows + d * size;
    for (int64_t row = 0; row < h->rows; row++) {
        const float *q = h->q + d * slots + row * DECODE_STEP;
        for (int64_t j = 0; j < DECODE_KEYS; j += SIMD_LANES) {
            vf x[SIMD_LANES];
            for (int64_t i = 0; i < SIMD_LANES; i++) {
                vf two[2];
                simd_load_two_part(dtype, from + (j + i) % 4 * k->step + (j + i) / 4 * k->stride, dim - d,
                                   two);
                x[i] = vf_fma(two[1], vf_load(q + SIMD_LANES), vf_mul(two[0], vf_load(q)));
            }
            float *at = s + row * DECODE_KEYS + j;
            vf_store(at, vf_add(vf_load(at), simd_sums(x)));
        }
    }
}

/* Raw products of a block's keys, over all steps of dims that are whole. */
SIMD_INLINE void decode_scores(const int rows, const attn_dtype dtype, float *s, const decode_head *h,
                               const decode_block *k, int64_t dim) {
    const int together =
        rows <= 4 && SIMD_REGISTERS >= 32 ? 4 : 2; /* sums in registers: 16 of 32, or 8 of 16 */
    const int span = rows * together >= SIMD_LANES ? together : SIMD_LANES / rows;
    for (int lane = 0; lane < DECODE_KEYS; lane += span) {
        vf x[SIMD_SUMS];
        for (int i = 0; i < span; i += together)
            score_keys(rows, together, span, dtype, h->q, rows_at(k, lane + i), dim, x + i);
        score_sums(rows, span, x, s + lane);
    }
}

/* All dims. */
SIMD_INLINE void decode_all_scores(const int rows, const attn_dtype dtype, float *s, const decode_head *h,
                                   const decode_block *k, int64_t dim) {
    const int64_t whole = dim / DECODE_STEP * DECODE_STEP;
    if (whole > 0)
        decode_scores(rows, dtype, s, h, k, whole);
    else
        memset(s, 0, ATTNI_DECODE_ROWS * DECODE_KEYS * sizeof(float));
    if (whole < dim) score_rest(rows, dtype, s, h, k, dim);
}

/* ---------------------------------------------------------------- values */

/* One key's part of decode_values: at points to its row's bytes from offset on. */
SIMD_INLINE void value_step(const int rows, const int steps, const attn_dtype dtype, const float *p,
                            const decode_rows *at, int64_t offset, vf acc[ATTNI_DECODE_ROWS][4]) {
    const int64_t bytes = DECODE_STEP * (dtype == ATTN_F32 ? 4 : 2);
    vf x[4];
    SIMD_UNROLL
    for (int c = 0; c < steps; c++) simd_load_two(dtype, at->row + c * bytes, x + 2 * c);
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        const vf one = vf_set1(p[r * DECODE_KEYS]);
        SIMD_UNROLL
        for (int c = r; c < steps; c += rows) {
            decode_rows lines = *at;
            rows_move(&lines, c * bytes);
            prefetch_row(&lines, 0, offset + c * bytes, bytes);
        }
        SIMD_UNROLL
        for (int c = 0; c < 2 * steps; c++) acc[r][c] = vf_fma(one, x[c], acc[r][c]);
    }
}

/* o[row][dims from d] += sum over keys of p[row][key] v[key][dims], DECODE_STEP dims so many times. */
SIMD_INLINE void decode_values(const int rows, const int steps, const attn_dtype dtype,
                               const decode_scratch *w, const float *s, const decode_head *h,
                               const decode_block *v, int64_t d) {
    const int64_t size = dtype == ATTN_F32 ? 4 : 2, ld = w->ld_o;
    float *o = h->o + d;
    vf acc[ATTNI_DECODE_ROWS][4];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int c = 0; c < 2 * steps; c++) acc[r][c] = vf_load(o + r * ld + c * SIMD_LANES);
    }
    decode_rows at = rows_at(v, 0);
    rows_move(&at, d * size);
    for (int lane = 0; lane < DECODE_KEYS; lane += 4) {
        SIMD_UNROLL
        for (int i = 0; i < 4; i++) {
            const decode_rows one = {at.row + i * at.step, at.near + i * at.near_step, at.far + i * at.step,
                                     0, 0};
            value_step(rows, steps, dtype, s + lane + i, &one, d * size, acc);
        }
        at.row += v->stride;
        at.near += v->near_stride;
        at.far += v->far_stride;
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int c = 0; c < 2 * steps; c++) vf_store(o + r * ld + c * SIMD_LANES, acc[r][c]);
    }
}

/* The last dims, where they are fewer than DECODE_STEP: of any dtype, and rarely needed. */
static void value_rest(attn_dtype dtype, const decode_scratch *w, const float *s, const decode_head *h,
                       const decode_block *v, int64_t dim) {
    const int64_t d = dim / DECODE_STEP * DECODE_STEP, size = dtype == ATTN_F32 ? 4 : 2;
    const char *from = v->rows + d * size;
    for (int64_t row = 0; row < h->rows; row++) {
        float *o = h->o + row * w->ld_o + d;
        vf first = vf_load(o), second = vf_load(o + SIMD_LANES);
        for (int64_t j = 0; j < DECODE_KEYS; j++) {
            const vf p = vf_set1(s[row * DECODE_KEYS + j]);
            vf two[2];
            simd_load_two_part(dtype, from + j % 4 * v->step + j / 4 * v->stride, dim - d, two);
            first = vf_fma(p, two[0], first);
            second = vf_fma(p, two[1], second);
        }
        vf_store(o, first);
        vf_store(o + SIMD_LANES, second);
    }
}

/* All dims. */
SIMD_INLINE void decode_all_values(const int rows, const attn_dtype dtype, const decode_scratch *w,
                                   const float *s, const decode_head *h, const decode_block *v, int64_t dim) {
    const int steps = rows > 4 ? 1 : 2; /* of dims whose o is in registers */
    int64_t d = 0;
    for (; d + steps * DECODE_STEP <= dim; d += steps * DECODE_STEP)
        decode_values(rows, steps, dtype, w, s, h, v, d);
    if (steps > 1 && d + DECODE_STEP <= dim) decode_values(rows, 1, dtype, w, s, h, v, d);
    if (dim % DECODE_STEP != 0) value_rest(dtype, w, s, h, v, dim);
}

/* ---------------------------------------------------------------- the chunk */

SIMD_INLINE void decode_chunk(const int rows, const attn_dtype dtype, const attni_job *job,
                              const attni_tile *tile, decode_scratch *w, int64_t key_begin, int64_t keys) {
    const attn_problem *p = job->p;
    const decode_panel k = w->k, v = w->v;
    /*
     * The values of a head follow the next head's scores, so that neither waits for softmax:
     * scores(h + 1), values(h), softmax(h + 1), scores(h + 2), values(h + 1), ...
     */
    const decode_head *before = NULL;
    bool begun = false;
    int64_t before_key = 0, key = 0, i = 0;
    float *s = w->s, *before_s = w->s + ATTNI_DECODE_ROWS * DECODE_KEYS;
    attni_tile one = *tile;
    const bool plain = (job->options & (ATTNI_SCORE_OPTIONS | ATTNI_DROPOUT)) == 0;
    for (;;) {
        const int64_t count = attni_min(DECODE_KEYS, keys - key);
        decode_head *h = &w->heads[i];
        if (before == NULL) before = h;
        const bool last = i + 1 == w->count;
        if (count > 0) {
            const decode_block block =
                block_of(&k, h->head, key, keys, &v, before->head, before_key, w->last);
            decode_all_scores(rows, dtype, s, h, &block, p->dim_qk);
        }
        if (begun) {
            const decode_block block =
                block_of(&v, before->head, before_key, keys, &k, w->heads[last ? 0 : i + 1].head,
                         last ? key + DECODE_KEYS : key, w->last);
            decode_all_values(rows, dtype, w, before_s, before, &block, p->dim_v);
        }
        begun = true;
        if (count <= 0) return;
        one.head_kv = tile->head_kv + h->head;
        if (plain && key_begin + key >= w->full_begin && key_begin + key + DECODE_KEYS <= w->full_end) {
            all_probabilities(w, h, s);
        } else {
            for (int64_t row = 0; row < h->rows; row++)
                decode_softmax(job, &one, w, h, row, key_begin + key, count, s + row * DECODE_KEYS);
        }
        before = h;
        before_key = key;
        float *swap = s;
        s = before_s;
        before_s = swap;
        if (++i == w->count) {
            i = 0;
            key += DECODE_KEYS;
        }
    }
}

SIMD_INLINE void decode_dtype(const attn_dtype dtype, const attni_job *job, const attni_tile *tile,
                              decode_scratch *w, int64_t begin, int64_t keys) {
    if (w->slots == 1)
        decode_chunk(1, dtype, job, tile, w, begin, keys);
    else if (w->slots == 4 && !DECODE_COMPACT)
        decode_chunk(4, dtype, job, tile, w, begin, keys);
    else
        decode_chunk(ATTNI_DECODE_ROWS, dtype, job, tile, w, begin, keys);
}

/* Not inlined: compilers take longer over one large function than over three. */
static SIMD_CALLED void decode_f32(const attni_job *job, const attni_tile *tile, decode_scratch *w,
                                   int64_t begin, int64_t keys) {
    decode_dtype(ATTN_F32, job, tile, w, begin, keys);
}

static SIMD_CALLED void decode_f16(const attni_job *job, const attni_tile *tile, decode_scratch *w,
                                   int64_t begin, int64_t keys) {
    decode_dtype(DECODE_COMPACT ? job->p->dtype_kv : ATTN_F16, job, tile, w, begin, keys);
}

#if !DECODE_COMPACT
static SIMD_CALLED void decode_bf16(const attni_job *job, const attni_tile *tile, decode_scratch *w,
                                    int64_t begin, int64_t keys) {
    decode_dtype(ATTN_BF16, job, tile, w, begin, keys);
}
#else
#define decode_bf16 decode_f16
#endif

/* DECODE_STEP numbers in memory's order to the order of simd_load_two, and back. */
static void order_lanes(attn_dtype dtype, const float *from, float *to) {
    const bool apart = SIMD_EVEN_ODD && dtype == ATTN_BF16;
    for (int i = 0; !apart && i < DECODE_STEP; i++) to[i] = from[i];
    for (int i = 0; apart && i < SIMD_LANES; i++) {
        to[i] = from[2 * i];
        to[SIMD_LANES + i] = from[2 * i + 1];
    }
}

static void unorder_lanes(attn_dtype dtype, const float *from, float *to) {
    const bool apart = SIMD_EVEN_ODD && dtype == ATTN_BF16;
    for (int i = 0; !apart && i < DECODE_STEP; i++) to[i] = from[i];
    for (int i = 0; apart && i < SIMD_LANES; i++) {
        to[2 * i] = from[i];
        to[2 * i + 1] = from[SIMD_LANES + i];
    }
}

/* q of a head's rows, as score_keys wants it. */
static void load_queries(const attni_job *job, const attni_tile *tile, const decode_scratch *w,
                         decode_head *h) {
    float floats[ATTNI_DIM_LIMIT + DECODE_STEP] = {0};
    for (int64_t row = 0; row < h->rows; row++) {
        simd_pack_floats(job->p->dtype_q, attni_q_row(job, tile, h->row_begin + row), floats, job->p->dim_qk);
        for (int64_t d = 0; d < job->p->dim_qk; d += DECODE_STEP)
            order_lanes(job->p->dtype_kv, floats + d, h->q + d * w->slots + row * DECODE_STEP);
        set_reference(w, h, row, -INFINITY);
    }
}

/* The states of all heads before the first key, while the first block, of keys [begin, end), comes from memory. */
static void prepare_heads(const attni_job *job, const attni_tile *tile, decode_scratch *w, int64_t begin,
                          int64_t keys) {
    const attn_problem *p = job->p;
    const int64_t size = p->dtype_kv == ATTN_F32 ? 4 : 2;
    w->k = panel_of(attni_k_row(job, tile, begin), p->k.seqlen * size, p->k.heads * size, tile->heads,
                    p->dim_qk * size);
    w->v = panel_of(attni_v_row(job, tile, begin), p->v.seqlen * size, p->v.heads * size, tile->heads,
                    p->dim_v * size);
    attni_tile one = *tile;
    for (int64_t i = 0; i < w->count; i++) {
        decode_head *h = &w->heads[i];
        one.head_kv = tile->head_kv + h->head;
        memset(h->q, 0, (size_t)decode_head_floats(w->slots, p->dim_qk, p->dim_v) * sizeof(float));
        memset(h->l, 0, sizeof h->l);
        load_queries(job, &one, w, h);
        prefetch_first(&w->k, h->head, keys);
        prefetch_first(&w->v, h->head, keys);
    }
    memset(w->s, 0, 2 * ATTNI_DECODE_ROWS * DECODE_KEYS * sizeof(float));
}

/* A head's rows into its partial arrays, in natural units: m rounds to float, l and o take the difference. */
static void decode_finish(const attni_job *job, const decode_scratch *w, const decode_head *h,
                          attni_accum partial) {
    const int64_t dim_v = job->p->dim_v;
    for (int64_t row = 0; row < h->rows; row++) {
        const int64_t at = h->row_begin + row;
        const float l = vf_sum(vf_load(h->l + row * SIMD_LANES));
        const double m = (double)h->m[row] * w->units.to_natural;
        const float rounded = (float)m, rest = l == 0 ? 1 : (float)exp(m - rounded);
        const vf factor = vf_set1(rest * job->dropout_scale);
        partial.m[at] = rounded;
        partial.l[at] = l * rest;
        for (int64_t d = 0; d < dim_v; d += DECODE_STEP) {
            float floats[DECODE_STEP];
            unorder_lanes(job->p->dtype_kv, h->o + row * w->ld_o + d, floats);
            for (int64_t i = 0; i < DECODE_STEP && d + i < dim_v; i += SIMD_LANES)
                simd_store_part(ATTN_F32, partial.o + at * dim_v + d + i, vf_mul(vf_load(floats + i), factor),
                                attni_min(SIMD_LANES, dim_v - d - i));
        }
    }
}

static void decode_tile_chunk(const attni_job *job, const attni_tile *tile, int64_t key_begin,
                              int64_t key_end, attni_accum partial, int64_t partial_stride, void *scratch) {
    const attn_problem *p = job->p;
    const attni_sequence *s = &tile->sequence;
    decode_scratch w;
    decode_carve(&w, scratch, tile->heads, tile->row_end, p->dim_qk, p->dim_v);
    w.units = score_units_of(job);
    int64_t seen_begin = INT64_MAX, seen_end = 0;
    w.full_begin = key_begin;
    w.full_end = key_end;
    for (int64_t row = 0; row < tile->row_end; row++) {
        attni_visible(p, s, s->query_start + row / job->group, &w.begin[row], &w.end[row]);
        w.full_begin = attni_max(w.full_begin, w.begin[row]);
        w.full_end = attni_min(w.full_end, w.end[row]);
        if (w.begin[row] >= w.end[row]) continue;
        seen_begin = attni_min(seen_begin, w.begin[row]);
        seen_end = attni_max(seen_end, w.end[row]);
    }
    /* Blocks begin at multiples of DECODE_KEYS, whatever the rows see: a row's bits depend on itself alone. */
    const int64_t begin =
        attni_max(key_begin, seen_begin == INT64_MAX ? key_end : seen_begin / DECODE_KEYS * DECODE_KEYS);
    const int64_t end = attni_min(key_end, seen_end);
    prepare_heads(job, tile, &w, begin, end - begin);
    if (begin < end) {
        if (p->dtype_kv == ATTN_F32)
            decode_f32(job, tile, &w, begin, end - begin);
        else if (p->dtype_kv == ATTN_F16)
            decode_f16(job, tile, &w, begin, end - begin);
        else
            decode_bf16(job, tile, &w, begin, end - begin);
    }
    for (int64_t i = 0; i < w.count; i++) {
        const int64_t offset = w.heads[i].head * partial_stride;
        decode_finish(job, &w, &w.heads[i],
                      (attni_accum){partial.m + offset, partial.l + offset, partial.o + offset});
    }
}

#endif
