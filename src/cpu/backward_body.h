/*
 * The backward of FlashAttention-2 (Dao 2023, algorithm 2) for one chunk of rows against one chunk of keys,
 * written once over the vector layer that the including file chose (simd_*.h).
 *
 *     S^T  = K Q^T            P^T = exp(S^T - LSE)          lanes are rows, as in the forward
 *     dP^T = V dO^T           dS^T = P^T (dP^T - D)         D = rowsum(dO O) - dLSE
 *     dV  += P^T dO           dK += dS^T Q                  lanes are dims: P^T, dS^T broadcast
 *     dQ  += dS K                                           lanes are dims: dS broadcast
 *
 * All five are one loop, C += A B with numbers of A broadcast and B and C in vectors, so nothing is transposed but Q
 * and dO, once a chunk:
 *
 *     product    A            broadcast at          B              C
 *     S^T        K panel      [key][d]              Q^T   [d][row]     a sub's rows
 *     dP^T       V panel      [key][d]              dO^T  [d][row]
 *     dV         P^T          [key][row]            dO    [row][d]     of the workspace
 *     dK         dS^T         [key][row]            Q     [row][d]
 *     dQ         dS^T         [row] of [key][row]   K     [key][d]
 *
 *      chunk: BACKWARD_KEYS keys in blocks of BACKWARD_BLOCK x FORWARD_TILE_ROWS rows in groups of subs
 *
 *                    group 0   group 1   ...       a sub: FORWARD_SUB_ROWS rows, the lanes of S^T
 *          block 0   [P^T dS^T]                    P^T and dS^T of one block and one group exist at a time
 *          block 1                                 K, V, dK, dV of a block stay in L2; rows stream through
 *
 * How the two directions are arranged. dK and dV sum over queries, dQ over keys. Two passes, one for each, share
 * nothing but need S and dP twice: 7 products for the 5 that are counted. Here it is one pass of 5: dQ is a
 * float32 array of the sequence that every chunk of keys adds to, as dK and dV are ones that every chunk of rows
 * adds to. Additions to one chunk have a fixed order (backward.c), whatever the threads, and that is what bits
 * depend on. It costs a float32 copy of dQ, dK and dV for each sequence in flight, O(S) memory, and reading and
 * writing dQ once for each block of keys: 8 bytes for 10 BACKWARD_BLOCK operations. Where heads are few, tasks meet
 * at a barrier after each step.
 *
 * A group works on the keys that some of its rows see, in whole steps; S, dP and dQ on those that a sub sees, with
 * zeros in between.
 *
 * A hidden element has dS = P = 0, selected and not multiplied, and rows of Q and K that are not finite count as 0
 * in dK and dQ, where their dS is NaN or 0: so a NaN reaches what saw it, and nothing else. dO alone is
 * multiplied by the P = 0 of hidden keys.
 */
#ifndef BACKWARD_MR
#error "define BACKWARD_*, FORWARD_MR, FORWARD_NV and FORWARD_TILE_ROWS, and include a simd_*.h first"
#endif

#include "cpu/backward_panels.h"

#define BACKWARD_GROUP_ROWS (BACKWARD_GROUP * FORWARD_SUB_ROWS)

_Static_assert(BACKWARD_STEP % FORWARD_MR == 0 && BACKWARD_STEP % BACKWARD_MR == 0,
               "a step is whole tiles of keys");
_Static_assert(BACKWARD_BLOCK % BACKWARD_STEP == 0, "a block is whole steps");
_Static_assert(FORWARD_SUB_ROWS % BACKWARD_MR == 0, "a sub is whole tiles of rows");
_Static_assert(FORWARD_TILE_ROWS % BACKWARD_GROUP_ROWS == 0, "a chunk is whole groups");
_Static_assert(FORWARD_TILE_ROWS / 4 % FORWARD_SUB_ROWS == 0 && BACKWARD_KEYS / 4 % BACKWARD_STEP == 0,
               "a quarter of a chunk is whole subs and steps");
_Static_assert(ATTNI_BACKWARD_ALIGN % SIMD_LANES == 0, "rows of the workspace are whole vectors");

/* ---------------------------------------------------------------- products */

/* Lines of the next sub's panel to prefetch with SIMD_LANES dims, so that a block's tiles fetch all of it. */
#define AHEAD_LINES                                                                                          \
    ((SIMD_LANES * FORWARD_SUB_ROWS / 16 + BACKWARD_BLOCK / FORWARD_MR - 1) / (BACKWARD_BLOCK / FORWARD_MR))

/* FORWARD_MR keys x nv vectors of rows of S^T or dP^T, stored. */
SIMD_INLINE void rows_tile(const int nv, const float *a, int64_t ld_a, const float *b, int64_t depth,
                           const float *ahead, float *c) {
    vf acc[FORWARD_MR][FORWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    }
    for (int64_t part = 0; part < depth; part += SIMD_LANES) {
        for (int line = 0; line < AHEAD_LINES; line++, ahead += 16) simd_prefetch_far(ahead);
        for (int64_t i = part; i < part + SIMD_LANES; i++) {
            vf lane[FORWARD_NV];
            SIMD_UNROLL
            for (int v = 0; v < nv; v++) lane[v] = vf_load(b + i * FORWARD_SUB_ROWS + v * SIMD_LANES);
            SIMD_UNROLL
            for (int r = 0; r < FORWARD_MR; r++) {
                const vf one = vf_set1(a[r * ld_a + i]);
                SIMD_UNROLL
                for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(one, lane[v], acc[r][v]);
            }
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) vf_store(c + r * FORWARD_SUB_ROWS + v * SIMD_LANES, acc[r][v]);
    }
}

/* count keys of S^T or dP^T of a sub; ahead: the B of the next one. */
SIMD_INLINE void rows_product(const int nv, const float *a, int64_t ld_a, int64_t count, const float *b,
                              int64_t depth, const float *ahead, float *c) {
    for (int64_t j = 0; j < count; j += FORWARD_MR, ahead += depth / SIMD_LANES * AHEAD_LINES * 16)
        rows_tile(nv, a + j * ld_a, ld_a, b, depth, ahead, c + j * FORWARD_SUB_ROWS);
}

/*
 * The other three. A is P^T or dS^T of a group, [sub][key][row]: for dV and dK (by_keys) a row of A is a key and the
 * depth goes over rows, sub after sub; for dQ a row of A is a row and the depth goes over keys. Both distances are
 * known when this is compiled, which leaves the loop with little but its loads and multiply-adds.
 */
typedef struct dims_factors {
    const float *a, *b;
    int64_t block, depth, ld_b; /* after block of the depth comes the next sub */
    float *c;
    int64_t ld_c;
} dims_factors;

SIMD_INLINE void dims_tile(const int by_keys, const int nv, const dims_factors *x, const float *a,
                           const float *b, float *c) {
    const int64_t a_row = by_keys ? FORWARD_SUB_ROWS : 1, a_depth = by_keys ? 1 : FORWARD_SUB_ROWS;
    const int64_t ld_b = x->ld_b, ld_c = x->ld_c;
    vf acc[BACKWARD_MR][BACKWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < BACKWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_load(c + r * ld_c + v * SIMD_LANES);
    }
    for (int64_t done = 0; done < x->depth; done += x->block) {
        const int64_t n = attni_min(x->block, x->depth - done);
        const float *element = a;
        for (int64_t i = 0; i < n; i++) {
            vf lane[BACKWARD_NV];
            SIMD_UNROLL
            for (int v = 0; v < nv; v++) lane[v] = vf_load(b + v * SIMD_LANES);
            SIMD_UNROLL
            for (int r = 0; r < BACKWARD_MR; r++) {
                const vf one = vf_set1(element[r * a_row]);
                SIMD_UNROLL
                for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(one, lane[v], acc[r][v]);
            }
            element += a_depth;
            b += ld_b;
        }
        a += BACKWARD_BLOCK * FORWARD_SUB_ROWS;
    }
    SIMD_UNROLL
    for (int r = 0; r < BACKWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) vf_store(c + r * ld_c + v * SIMD_LANES, acc[r][v]);
    }
}

/* All rows of A against nv vectors of dims from dim on: this much of B stays in L1. */
SIMD_INLINE void dims_strip(const int by_keys, const int nv, const dims_factors *x, int64_t rows,
                            int64_t dim) {
    for (int64_t r = 0; r < rows; r += BACKWARD_MR) {
        const float *next =
            x->c + (r + BACKWARD_MR) * x->ld_c + dim; /* its latency would show in each tile */
        for (int64_t i = 0; i < BACKWARD_MR; i++, next += x->ld_c)
            for (int v = 0; v < nv; v += 16 / SIMD_LANES) simd_prefetch_far(next + v * SIMD_LANES);
        dims_tile(by_keys, nv, x, x->a + r * (by_keys ? FORWARD_SUB_ROWS : 1), x->b + dim,
                  x->c + r * x->ld_c + dim);
    }
}

SIMD_INLINE void dims_product(const int by_keys, const dims_factors *x, int64_t rows, int64_t dims) {
    int64_t left = dims / SIMD_LANES, strips = attni_ceil_div(left, BACKWARD_NV);
    for (int64_t dim = 0; left > 0; strips--) {
        const int64_t nv = attni_ceil_div(left, strips); /* strips of about one width */
        switch (nv) {
#if BACKWARD_NV >= 4
        case 4: dims_strip(by_keys, 4, x, rows, dim); break;
#endif
#if BACKWARD_NV >= 3
        case 3: dims_strip(by_keys, 3, x, rows, dim); break;
#endif
        case 2: dims_strip(by_keys, 2, x, rows, dim); break;
        default: dims_strip(by_keys, 1, x, rows, dim); break;
        }
        dim += nv * SIMD_LANES;
        left -= nv;
    }
}

static void keys_product(const dims_factors *x, int64_t rows, int64_t dims) {
    dims_product(1, x, rows, dims);
}
static void queries_product(const dims_factors *x, int64_t rows, int64_t dims) {
    dims_product(0, x, rows, dims);
}

/* S^T and dP^T of one sub. */
SIMD_INLINE void sub_products(const int nv, const backward_shape *f, const backward_scratch *w, int64_t first,
                              int64_t next, int64_t key, int64_t count, float *s, float *ds) {
    rows_product(nv, w->k + key * f->ld_qk, f->ld_qk, count, w->q_t + first * f->dim_qk, f->dim_qk,
                 w->q_t + next * f->dim_qk, s);
    rows_product(nv, w->v + key * f->ld_v, f->ld_v, count, w->do_t + first * f->dim_v, f->dim_v,
                 w->do_t + next * f->dim_v, ds);
}

/* ---------------------------------------------------------------- accumulate */

/* P and dS of a sub for the group's keys; what no row of the sub sees is 0. The keys that were computed. */
static key_range sub_keys(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                          const backward_scratch *w, int64_t first, int64_t rows, key_range keys, float *s,
                          float *ds) {
    const int64_t sub = first / FORWARD_SUB_ROWS;
    const key_range mine = visible_keys(&w->rows, chunk, sub, sub + 1, keys);
    if (mine.begin >= mine.end) {
        memset(s, 0, (size_t)((keys.end - keys.begin) * FORWARD_SUB_ROWS) * sizeof(float));
        memset(ds, 0, (size_t)((keys.end - keys.begin) * FORWARD_SUB_ROWS) * sizeof(float));
        return mine;
    }
    const int64_t before = (mine.begin - keys.begin) * FORWARD_SUB_ROWS,
                  after = (mine.end - keys.begin) * FORWARD_SUB_ROWS,
                  left = (keys.end - mine.end) * FORWARD_SUB_ROWS;
    memset(s, 0, (size_t)before * sizeof(float));
    memset(ds, 0, (size_t)before * sizeof(float));
    memset(s + after, 0, (size_t)left * sizeof(float));
    memset(ds + after, 0, (size_t)left * sizeof(float));
    const int nv = (int)attni_ceil_div(rows, SIMD_LANES);
    const int64_t after_this = first + FORWARD_SUB_ROWS,
                  next = chunk->tile.row_begin + after_this < chunk->tile.row_end ? after_this : 0;
    const score_block block = {s + before, chunk->key_begin + mine.begin, mine.end - mine.begin, first, nv};
    switch (nv) {
#if FORWARD_NV >= 3
    case 3: sub_products(3, f, w, first, next, mine.begin, block.count, block.s, ds + before); break;
#endif
    case 2: sub_products(2, f, w, first, next, mine.begin, block.count, block.s, ds + before); break;
    default: sub_products(1, f, w, first, next, mine.begin, block.count, block.s, ds + before); break;
    }
    prepare_scores(job, &chunk->tile, &w->rows, &block, ds + before, &w->e);
    element_gradients(&w->rows, &block, ds + before);
    finish_scores(job, &chunk->tile, &block, ds + before, &w->e);
    return mine;
}

/* Keys of one block against rows [first, last) of the chunk, one group. k: the panel for dQ. */
static void accumulate(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                       const backward_scratch *w, const float *k, key_range keys, int64_t first,
                       int64_t last) {
    const int64_t size = BACKWARD_BLOCK * FORWARD_SUB_ROWS; /* of a sub's P^T */
    key_range seen[BACKWARD_GROUP];
    for (int64_t i = 0; first + i * FORWARD_SUB_ROWS < last; i++) {
        const int64_t sub = first + i * FORWARD_SUB_ROWS;
        seen[i] = sub_keys(job, chunk, f, w, sub, attni_min(FORWARD_SUB_ROWS, last - sub), keys,
                           w->s + i * size, w->ds + i * size);
    }
    /* dV and dK: the depth is the group's rows */
    const int64_t key = chunk->key_begin + keys.begin, count = keys.end - keys.begin;
    const dims_factors dv = {w->s,    w->dout + first * f->ld_v,  FORWARD_SUB_ROWS, last - first,
                             f->ld_v, chunk->dv + key * f->acc_v, f->acc_v};
    if (job->t.dv != NULL) keys_product(&dv, count, f->dim_v);
    const dims_factors dk = {w->ds,    w->q + first * f->ld_qk,     FORWARD_SUB_ROWS, last - first,
                             f->ld_qk, chunk->dk + key * f->acc_qk, f->acc_qk};
    if (job->t.dk != NULL) keys_product(&dk, count, f->dim_qk);
    if (job->t.dq == NULL) return;
    for (int64_t i = 0; first + i * FORWARD_SUB_ROWS < last; i++) { /* dQ: the depth is the sub's keys */
        const int64_t sub = first + i * FORWARD_SUB_ROWS, depth = seen[i].end - seen[i].begin;
        if (depth <= 0) continue;
        const dims_factors dq = {w->ds + i * size + (seen[i].begin - keys.begin) * FORWARD_SUB_ROWS,
                                 k + (seen[i].begin - keys.begin) * f->ld_qk,
                                 depth,
                                 depth,
                                 f->ld_qk,
                                 chunk->dq + (chunk->tile.row_begin + sub) * f->acc_qk,
                                 f->acc_qk};
        queries_product(&dq, attni_min(FORWARD_SUB_ROWS, last - sub), f->dim_qk);
    }
}

/* All blocks and groups of a chunk whose panels are there. */
static void accumulate_chunk(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                             const backward_scratch *w, key_range loaded, bool finite) {
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin;
    for (int64_t block = loaded.begin / BACKWARD_BLOCK * BACKWARD_BLOCK; block < loaded.end;
         block += BACKWARD_BLOCK) {
        const key_range all = {attni_max(block, loaded.begin), attni_min(block + BACKWARD_BLOCK, loaded.end)};
        const float *k = w->k + all.begin * f->ld_qk;
        if (!finite) k = clean_keys(k, all.end - all.begin, f, w->k_clean);
        for (int64_t first = 0; first < rows; first += BACKWARD_GROUP_ROWS) {
            const int64_t last = attni_min(first + BACKWARD_GROUP_ROWS, rows);
            const key_range keys = visible_keys(&w->rows, chunk, first / FORWARD_SUB_ROWS,
                                                attni_ceil_div(last, FORWARD_SUB_ROWS), all);
            if (keys.begin < keys.end)
                accumulate(job, chunk, f, w, k + (keys.begin - all.begin) * f->ld_qk, keys, first, last);
        }
    }
}

/* ---------------------------------------------------------------- begin and finish */

static void begin_chunk(const attni_chunk *chunk, const backward_shape *f) {
    const int64_t rows = attni_round_up(chunk->tile.row_end - chunk->tile.row_begin, FORWARD_SUB_ROWS);
    const int64_t keys = attni_round_up(chunk->key_end - chunk->key_begin, BACKWARD_STEP);
    memset(chunk->dq + chunk->tile.row_begin * f->acc_qk, 0, (size_t)(rows * f->acc_qk) * sizeof(float));
    memset(chunk->dk + chunk->key_begin * f->acc_qk, 0, (size_t)(keys * f->acc_qk) * sizeof(float));
    memset(chunk->dv + chunk->key_begin * f->acc_v, 0, (size_t)(keys * f->acc_v) * sizeof(float));
}

static void finish_rows(const attni_job *job, const attni_chunk *chunk, const backward_shape *f) {
    const attni_tile *tile = &chunk->tile;
    for (int64_t row = tile->row_begin; row < tile->row_end && job->t.dq != NULL; row++) {
        prefetch_dq(job, tile, row + BACKWARD_AHEAD);
        write_row(job->p->dtype_q, chunk->dq + row * f->acc_qk, job->t.scale, job->p->dim_qk,
                  attni_dq_row(job, tile, row));
    }
}

static void finish_keys(const attni_job *job, const attni_chunk *chunk, const backward_shape *f) {
    const attni_tile *tile = &chunk->tile;
    for (int64_t key = chunk->key_begin; key < chunk->key_end; key++) {
        prefetch_dk_dv(job, chunk, key + BACKWARD_AHEAD);
        if (job->t.dk != NULL)
            write_row(job->p->dtype_kv, chunk->dk + key * f->acc_qk, job->t.scale, job->p->dim_qk,
                      attni_dk_row(job, tile, key));
        if (job->t.dv != NULL)
            write_row(job->p->dtype_kv, chunk->dv + key * f->acc_v, 1.0f, job->p->dim_v,
                      attni_dv_row(job, tile, key));
    }
}

/* ---------------------------------------------------------------- the chunk */

static void backward_chunk(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    const attn_problem *p = job->p;
    const backward_shape f = backward_shape_of(p->dim_qk, p->dim_v);
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin,
                  keys = chunk->key_end - chunk->key_begin;
    const int64_t padded = attni_round_up(rows, FORWARD_SUB_ROWS);
    backward_scratch w;
    backward_carve(&w, scratch, chunk->most_rows, chunk->most_keys, p->dim_qk, p->dim_v);
    if (chunk->first) begin_chunk(chunk, &f);
    key_range seen = {0, 0};
    if (rows > 0 && keys > 0) {
        const key_range all = {0, attni_round_up(keys, BACKWARD_STEP)};
        tile_rows_fill(job, &chunk->tile, &w.rows, padded);
        seen = visible_keys(&w.rows, chunk, 0, padded / FORWARD_SUB_ROWS, all);
    }
    const bool visible = seen.begin < seen.end;
    if (rows > 0 && (visible || chunk->first)) load_rows(job, chunk, &f, &w);
    if (rows > 0 && chunk->first) sum_rows(job, chunk);
    if (visible) {
        fill_rows(job, chunk, &w.rows, padded);
        accumulate_chunk(job, chunk, &f, &w, seen, load_keys(job, chunk, seen, &f, &w));
    }
    if (!chunk->last) return;
    finish_rows(job, chunk, &f);
    finish_keys(job, chunk, &f);
}
