/*
 * Decode for one piece of keys and several kv heads: few query rows (heads of a group, a few queries), so
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
 * ns, 1 to 4% slower in one where it takes 160), and the quarters of 2,048 keys (the same, and 1 to 8%
 * slower); streams begun at several places of a page (equal); softmax inlined (equal); K and V in the order
 * of memory, all heads of a key, with o in L1 instead of registers (a trial loop, 7% slower), K so by four
 * keys at once and V by 4, 8 or 16 (5% slower beside a busy hardware thread, equal beside an idle one: what
 * the order gains the shorter loops lose); prefetches of several pages at once, eight to sixteen blocks
 * ahead, for their translations (equal); K and V to L1 by prefetchnta (2% faster idle in one machine, equal
 * in another); to L1 a step instead of a phase ahead (4% slower with nothing computed: late lines); a head's
 * next two or four blocks before the next head, so that its queries and sums stay in L1 (2 and 5% slower with
 * nothing computed, as what is prefetched waits longer); 4 or 2 of the 8 heads at once (12 and 18% slower); q
 * and p as operands from memory instead of registers (up to 5% slower); all dims unrolled (equal); q k by
 * vdpbf16ps, which takes two cycles and both ports (3% slower); the next block's queries and sums to L1, a line
 * between products (equal); sums folded by a blend and a shuffle instead of two shuffles (equal); K alone for 64
 * keys, then V (in a loop that only reads, equal); the rows of a piece's result prefetched under its last block,
 * and the code for them (equal); the stretch of the next block by halves, the second first (4% slower). Queries
 * and sums that stay in L1 would give 2% more (3% before every other block went through its heads from last to
 * first, which gives 1%), no softmax 2%; four no-operations, a shuffle or another load a line take nothing.
 * What can be had: the loop that only reads, with 8, 12 and 16 multiply-adds a line that depend on nothing
 * read, is 3, 6 and 8% slower beside an idle hardware thread and 8, 14 and 17% beside a busy one, though
 * alone they take less than half of its time. Decode has 10 a line with its conversions, and 3 more for
 * folding and softmax.
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

/* ---------------------------------------------------------------- the piece */

/* The keys of a piece that its rows see. */
static void see_keys(const attni_job *job, const attni_decode_piece *piece, decode_range *seen) {
    const attni_sequence *s = &piece->tile.sequence;
    int64_t begin = INT64_MAX, end = 0;
    seen->full_begin = piece->key_begin;
    seen->full_end = piece->key_end;
    for (int64_t row = 0; row < piece->tile.row_end; row++) {
        int64_t row_begin, row_end;
        attni_visible(job->p, s, s->query_start + row / job->group, &row_begin, &row_end);
        seen->row_begin[row] = row_begin;
        seen->row_end[row] = row_end;
        seen->full_begin = attni_max(seen->full_begin, row_begin);
        seen->full_end = attni_min(seen->full_end, row_end);
        if (row_begin >= row_end) continue;
        begin = attni_min(begin, row_begin);
        end = attni_max(end, row_end);
    }
    /* Blocks begin at multiples of DECODE_KEYS, whatever the rows see: a row's bits depend on itself alone. */
    seen->begin =
        attni_max(piece->key_begin, begin == INT64_MAX ? piece->key_end : begin / DECODE_KEYS * DECODE_KEYS);
    seen->end = attni_min(piece->key_end, end);
}

/* Takes the task's next piece, for what is prefetched under this one's last block. */
static SIMD_CALLED void look_ahead(const attni_job *job, decode_scratch *w) {
    w->asked = true;
    w->k.after = w->v.after = NULL;
    w->more = w->pieces->next(w->pieces->args, &w->next);
    if (!w->more) return;
    see_keys(job, &w->next, &w->seen_next);
    if (w->seen_next.begin >= w->seen_next.end) return;
    w->k.after = attni_k_row(job, &w->next.tile, w->seen_next.begin);
    w->v.after = attni_v_row(job, &w->next.tile, w->seen_next.begin);
}

/* Where the i-th head of a block stands: there and back, so that some queries and sums are still in L1. */
SIMD_INLINE int64_t turn_of(const decode_scratch *w, int64_t i) { return w->down ? w->count - 1 - i : i; }

SIMD_INLINE void decode_piece(const int rows, const attn_dtype dtype, const attni_job *job,
                              const attni_tile *tile, decode_scratch *w, int64_t key_begin, int64_t keys) {
    const attn_problem *p = job->p;
    decode_panel k = w->k, v = w->v;
    /*
     * The values of a head follow the next head's scores, so that neither waits for softmax:
     * scores(h + 1), values(h), softmax(h + 1), scores(h + 2), values(h + 1), ...
     */
    const decode_head *before = NULL;
    bool begun = false;
    int64_t before_key = 0, before_turn = 0, key = 0, i = 0;
    float *s = w->s, *before_s = w->s + ATTNI_DECODE_ROWS * DECODE_KEYS;
    attni_tile one = *tile;
    const bool plain = (job->options & (ATTNI_SCORE_OPTIONS | ATTNI_DROPOUT)) == 0;
    for (;;) {
        const int64_t count = attni_min(DECODE_KEYS, keys - key);
        decode_head *h = &w->heads[turn_of(w, i)];
        if (i == 0 && count > 0 && key + DECODE_KEYS >= keys) {
            look_ahead(job, w);
            k.after = w->k.after;
            v.after = w->v.after;
        }
        if (before == NULL) before = h;
        /* the last head of a block is the first of the next one */
        const bool last = i + 1 == w->count;
        const int64_t turn = far_turn(&k, h->head, tile->heads, w->down);
        if (count > 0) {
            const decode_block block =
                block_of(&k, h->head, turn, key, keys, &v, before->head, before_key, w->last);
            decode_all_scores(rows, dtype, s, h, &block, p->dim_qk);
        }
        if (begun) {
            const decode_block block = block_of(&v, before->head, before_turn, before_key, keys, &k,
                                                last ? h->head : w->heads[turn_of(w, i + 1)].head,
                                                last ? key + DECODE_KEYS : key, w->last);
            decode_all_values(rows, dtype, w, before_s, before, &block, p->dim_v);
        }
        begun = true;
        if (count <= 0) return;
        one.head_kv = tile->head_kv + h->head;
        if (plain && key_begin + key >= w->seen.full_begin &&
            key_begin + key + DECODE_KEYS <= w->seen.full_end) {
            all_probabilities(w, h, s);
        } else {
            for (int64_t row = 0; row < h->rows; row++)
                decode_softmax(job, &one, w, h, row, key_begin + key, count, s + row * DECODE_KEYS);
        }
        before = h;
        before_key = key;
        before_turn = far_turn(&v, h->head, tile->heads, w->down);
        float *swap = s;
        s = before_s;
        before_s = swap;
        if (++i == w->count) {
            i = 0;
            w->down = !w->down;
            key += DECODE_KEYS;
        }
    }
}

SIMD_INLINE void decode_dtype(const attn_dtype dtype, const attni_job *job, const attni_tile *tile,
                              decode_scratch *w, int64_t begin, int64_t keys) {
    if (w->slots == 1)
        decode_piece(1, dtype, job, tile, w, begin, keys);
    else if (w->slots == 4 && !DECODE_COMPACT)
        decode_piece(4, dtype, job, tile, w, begin, keys);
    else
        decode_piece(ATTNI_DECODE_ROWS, dtype, job, tile, w, begin, keys);
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

#endif
