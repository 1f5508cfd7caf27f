/*
 * The backward of FlashAttention-2 (Dao 2023, algorithm 2) for one chunk of rows against one chunk of keys,
 * written once over the vector layer that the including file chose (simd_*.h).
 *
 *     S^T  = K Q^T            P^T = exp(S^T - LSE)          lanes are rows, as in the forward
 *     dP^T = V dO^T           dS^T = P^T (dP^T - D)         D = rowsum(dO O) - dLSE
 *     dV  += P^T dO           dK += dS^T Q                  lanes are dims: P^T, dS^T broadcast
 *     dQ  += dS K                                           lanes are dims: dS broadcast
 *
 * All five are one loop, C += A B with numbers of A broadcast and B and C in vectors. Operands lie in the order in which
 * it reads them (backward_panels.h):
 *
 *     product    A            broadcast at          B              C
 *     S^T        K            [tile][d][key]        Q^T   [d][row]      a sub's rows
 *     dP^T       V            [tile][d][key]        dO^T  [d][row]
 *     dV         P^T          [key][row]            dO    [row][d]      of a strip of dims
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
 * writing dQ once for each BACKWARD_DEPTH keys: 8 bytes for 10 BACKWARD_DEPTH operations. Where heads are few, tasks wait
 * for one another.
 *
 * The including file may bring full register tiles of its own (BACKWARD_OWN_TILES): own_rows_tile, and own_dims_tile for
 * depths of whole fours. They add in the order of those here.
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

#define ROWS_STEP 4 /* dims of S^T and dP^T at a time: fewer instructions beside the multiply-adds */

_Static_assert(BACKWARD_STEP % FORWARD_MR == 0 && BACKWARD_STEP % BACKWARD_MR == 0,
               "a step is whole tiles of keys");
_Static_assert(BACKWARD_BLOCK % BACKWARD_STEP == 0 && BACKWARD_DEPTH % BACKWARD_STEP == 0,
               "blocks are whole steps");
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
SIMD_INLINE void rows_tile(const int nv, const float *a, const float *b, int64_t depth, const float *next,
                           float *c) {
    vf acc[FORWARD_MR][FORWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
    }
    for (int64_t part = 0; part < depth; part += SIMD_LANES) {
        for (int line = 0; line < AHEAD_LINES; line++, next += 16) simd_prefetch_far(next);
        for (int64_t i = 0; i < SIMD_LANES; i += ROWS_STEP) {
            SIMD_UNROLL
            for (int64_t step = 0; step < ROWS_STEP; step++) {
                vf lane[FORWARD_NV];
                SIMD_UNROLL
                for (int v = 0; v < nv; v++) lane[v] = vf_load(b + step * FORWARD_SUB_ROWS + v * SIMD_LANES);
                SIMD_UNROLL
                for (int r = 0; r < FORWARD_MR; r++) {
                    const vf one = vf_set1(a[step * FORWARD_MR + r]);
                    SIMD_UNROLL
                    for (int v = 0; v < nv; v++) acc[r][v] = vf_fma(one, lane[v], acc[r][v]);
                }
            }
            a += ROWS_STEP * FORWARD_MR;
            b += ROWS_STEP * FORWARD_SUB_ROWS;
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) vf_store(c + r * FORWARD_SUB_ROWS + v * SIMD_LANES, acc[r][v]);
    }
}

/* count keys of S^T or dP^T of nv vectors of rows, from tiles; next: the B of the next sub. */
SIMD_INLINE void rows_tiles(const int nv, const float *a, int64_t count, const float *b, int64_t depth,
                            const float *next, float *c) {
    for (int64_t j = 0; j < count; j += FORWARD_MR, next += depth / SIMD_LANES * AHEAD_LINES * 16)
        rows_tile(nv, a + j * depth, b, depth, next, c + j * FORWARD_SUB_ROWS);
}

static void rows_product(int nv, const float *a, int64_t count, const float *b, int64_t depth,
                         const float *next, float *c) {
#ifdef BACKWARD_OWN_TILES
    if (nv == FORWARD_NV) {
        for (int64_t j = 0; j < count; j += FORWARD_MR, next += depth / SIMD_LANES * AHEAD_LINES * 16)
            own_rows_tile(a + j * depth, b, depth, next, c + j * FORWARD_SUB_ROWS);
        return;
    }
#endif
    switch (nv) {
#if FORWARD_NV >= 3
    case 3: rows_tiles(3, a, count, b, depth, next, c); break;
#endif
    case 2: rows_tiles(2, a, count, b, depth, next, c); break;
    default: rows_tiles(1, a, count, b, depth, next, c); break;
    }
}

/*
 * The other three, of one strip of dims. A is P^T or dS^T of a group, [sub][key][row]: for dV and dK (by_keys) a row of A
 * is a key and the depth goes over rows, sub after sub; for dQ a row of A is a row and the depth goes over keys. All
 * distances are known when this is compiled, which leaves the loop with little but its loads and multiply-adds.
 */
typedef struct dims_factors {
    const float *a, *b;
    float *c;
    int64_t block, depth; /* after block of the depth comes the next sub */
} dims_factors;

SIMD_INLINE void dims_tile(const int by_keys, const int nv, const dims_factors *x, const float *a, float *c) {
    const int64_t a_row = by_keys ? FORWARD_SUB_ROWS : 1, a_depth = by_keys ? 1 : FORWARD_SUB_ROWS;
    const int64_t width = nv * SIMD_LANES;
    const float *b = x->b;
    vf acc[BACKWARD_MR][BACKWARD_NV];
    SIMD_UNROLL
    for (int r = 0; r < BACKWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) acc[r][v] = vf_zero();
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
            b += width;
        }
        a += BACKWARD_BLOCK * FORWARD_SUB_ROWS;
    }
    SIMD_UNROLL
    for (int r = 0; r < BACKWARD_MR; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) {
            float *to = c + r * width + v * SIMD_LANES;
            vf_store(to, vf_add(vf_load(to), acc[r][v]));
        }
    }
}

/* All rows of A against nv vectors of dims: their B stays in L1. */
SIMD_INLINE void dims_strip(const int by_keys, const int nv, const dims_factors *x, int64_t rows) {
    const int64_t size = BACKWARD_MR * nv * SIMD_LANES;
    float *c = x->c;
#ifdef BACKWARD_OWN_TILES
    if (nv == BACKWARD_NV && x->block % 4 == 0 && x->depth % x->block == 0) {
        for (int64_t r = 0; r < rows; r += BACKWARD_MR, c += size)
            own_dims_tile(by_keys, x->a + r * (by_keys ? FORWARD_SUB_ROWS : 1), x->b, x->block,
                          x->depth / x->block, c);
        return;
    }
#endif
    for (int64_t r = 0; r < rows; r += BACKWARD_MR, c += size) {
        for (int64_t i = 0; i < size; i += 16) simd_prefetch_far(c + size + i);
        dims_tile(by_keys, nv, x, x->a + r * (by_keys ? FORWARD_SUB_ROWS : 1), c);
    }
}

SIMD_INLINE void dims_product(const int by_keys, const int64_t vectors, const dims_factors *x, int64_t rows) {
    switch (vectors) {
#if BACKWARD_NV >= 4
    case 4: dims_strip(by_keys, 4, x, rows); break;
#endif
#if BACKWARD_NV >= 3
    case 3: dims_strip(by_keys, 3, x, rows); break;
#endif
    case 2: dims_strip(by_keys, 2, x, rows); break;
    default: dims_strip(by_keys, 1, x, rows); break;
    }
}

static void keys_product(const dims_factors *x, int64_t vectors, int64_t rows) {
    dims_product(1, vectors, x, rows);
}
static void queries_product(const dims_factors *x, int64_t vectors, int64_t rows) {
    dims_product(0, vectors, x, rows);
}

/* ---------------------------------------------------------------- accumulate */

/* P and dS of a sub for some keys of a block; what no row of the sub sees is 0. The keys that were computed. */
static key_range sub_keys(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                          const backward_scratch *w, int64_t block_begin, int64_t first, int64_t rows,
                          key_range keys, float *s, float *ds) {
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
    const int64_t key = mine.begin - block_begin;
    rows_product(nv, w->k_tiles + key * f->dim_qk, block.count, w->q_t + first * f->dim_qk, f->dim_qk,
                 w->q_t + next * f->dim_qk, block.s);
    rows_product(nv, w->v_tiles + key * f->dim_v, block.count, w->do_t + first * f->dim_v, f->dim_v,
                 w->do_t + next * f->dim_v, ds + before);
    prepare_scores(job, &chunk->tile, &w->rows, &block, ds + before, &w->e);
    element_gradients(&w->rows, &block, ds + before);
    finish_scores(job, &chunk->tile, &block, ds + before, &w->e);
    return mine;
}

/* The group and the block at work, and where their sums are. */
typedef struct backward_place {
    int64_t group, rows, block, keys; /* first row and rows, first key and keys; of the chunk */
    float *dq, *dk, *dv;
} backward_place;

/* dV or dK of some keys of the block: the depth is the group's rows. */
static void add_keys(const backward_shape *f, const backward_place *at, const float *a, const float *b,
                     int64_t dims, key_range keys, float *sums) {
    for (int64_t dim = 0; dim < dims;) {
        const int64_t vectors = strip_vectors(dims - dim), width = vectors * SIMD_LANES;
        const dims_factors x = {a, b + at->group * dims + dim * group_rows(f, at->group),
                                sums + dim * block_keys(f, at->block) + (keys.begin - at->block) * width,
                                FORWARD_SUB_ROWS, at->rows};
        keys_product(&x, vectors, keys.end - keys.begin);
        dim += width;
    }
}

/*
 * dQ of a group: the depth is the keys that a sub sees, of which BACKWARD_DEPTH at a time, counted from the block's
 * first, meet all subs.
 */
static void add_rows(const backward_shape *f, const backward_place *at, const backward_scratch *w,
                     key_range keys, const key_range *seen) {
    for (int64_t dim = 0; dim < f->dim_qk;) {
        const int64_t vectors = strip_vectors(f->dim_qk - dim), width = vectors * SIMD_LANES;
        const float *k = w->k + dim * block_keys(f, at->block);
        for (int64_t part = at->block; part < keys.end; part += BACKWARD_DEPTH)
            for (int64_t i = 0; i * FORWARD_SUB_ROWS < at->rows; i++) {
                const int64_t begin = attni_max(part, seen[i].begin),
                              depth = attni_min(part + BACKWARD_DEPTH, seen[i].end) - begin;
                if (depth <= 0) continue;
                const dims_factors x = {
                    w->ds + (i * BACKWARD_BLOCK + begin - keys.begin) * FORWARD_SUB_ROWS,
                    k + (begin - at->block) * width,
                    at->dq + dim * group_rows(f, at->group) + i * FORWARD_SUB_ROWS * width, depth, depth};
                queries_product(&x, vectors, attni_min(FORWARD_SUB_ROWS, at->rows - i * FORWARD_SUB_ROWS));
            }
        dim += width;
    }
}

/* Some keys of a block against a group. */
static void accumulate(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                       const backward_scratch *w, const backward_place *at, key_range keys) {
    const int64_t size = BACKWARD_BLOCK * FORWARD_SUB_ROWS; /* of a sub's P^T */
    key_range seen[BACKWARD_GROUP];
    for (int64_t i = 0; i * FORWARD_SUB_ROWS < at->rows; i++)
        seen[i] = sub_keys(job, chunk, f, w, at->block, at->group + i * FORWARD_SUB_ROWS,
                           attni_min(FORWARD_SUB_ROWS, at->rows - i * FORWARD_SUB_ROWS), keys,
                           w->s + i * size, w->ds + i * size);
    if (job->t.dv != NULL) add_keys(f, at, w->s, w->dout, f->dim_v, keys, at->dv);
    if (job->t.dk != NULL) add_keys(f, at, w->ds, w->q, f->dim_qk, keys, at->dk);
    if (job->t.dq != NULL) add_rows(f, at, w, keys, seen);
}

/* ---------------------------------------------------------------- sums */

/*
 * Row r of strips of so many rows, times scale, to a tensor's row of dim numbers. Whole cache lines go past the cache:
 * else each would be read from memory first.
 */
static void write_strips(attn_dtype dtype, const float *strips, int64_t dims, int64_t rows, int64_t r,
                         float scale, int64_t dim, char *to) {
    const bool lines = dtype == ATTN_F32 && dim % 16 == 0 && (uintptr_t)to % 64 == 0;
    for (int64_t d = 0; d < dims;) {
        const int64_t width = strip_vectors(dims - d) * SIMD_LANES;
        const float *from = strips + d * rows + r * width;
        if (lines)
            for (int64_t i = 0; i < width; i += SIMD_LANES)
                simd_stream((float *)(void *)to + d + i, vf_mul(vf_load(from + i), vf_set1(scale)));
        else
            write_row(dtype, from, scale, attni_min(width, dim - d),
                      to + d * (int64_t)attni_dtype_size(dtype));
        d += width;
    }
}

static void write_rows(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                       const backward_place *at) {
    const attni_tile *tile = &chunk->tile;
    for (int64_t i = 0; i < at->rows; i++) {
        const int64_t row = tile->row_begin + at->group + i;
        if (job->p->dtype_q != ATTN_F32) prefetch_dq(job, tile, row + BACKWARD_AHEAD);
        write_strips(job->p->dtype_q, at->dq, f->dim_qk, group_rows(f, at->group), i, job->t.scale,
                     job->p->dim_qk, attni_dq_row(job, tile, row));
    }
}

static void write_keys(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                       const backward_place *at) {
    const attn_problem *p = job->p;
    const int64_t block = block_keys(f, at->block);
    for (int64_t i = 0; i < at->keys; i++) {
        const int64_t key = chunk->key_begin + at->block + i;
        if (p->dtype_kv != ATTN_F32) prefetch_dk_dv(job, chunk, key + BACKWARD_AHEAD);
        if (job->t.dk != NULL)
            write_strips(p->dtype_kv, at->dk, f->dim_qk, block, i, job->t.scale, p->dim_qk,
                         attni_dk_row(job, &chunk->tile, key));
        if (job->t.dv != NULL)
            write_strips(p->dtype_kv, at->dv, f->dim_v, block, i, 1.0f, p->dim_v,
                         attni_dv_row(job, &chunk->tile, key));
    }
}

/* ---------------------------------------------------------------- the chunk */

/*
 * All blocks of the chunk's keys against all groups of its rows; seen: the keys that some row may see. Sums begin at 0
 * when a block or a group is first met and are written when it was last met, while they are in the cache; those of
 * keys that meet no other chunk have one place for all blocks.
 */
static void accumulate_chunk(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                             backward_scratch *w, key_range seen) {
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin,
                  keys = chunk->key_end - chunk->key_begin;
    bool loaded[FORWARD_TILE_ROWS / BACKWARD_GROUP_ROWS] = {false};
    backward_place at;
    at.block = 0;
    do {
        const int64_t place = chunk->key_begin + (chunk->first && chunk->last ? 0 : at.block);
        const key_range all = {attni_max(at.block, seen.begin),
                               attni_min(at.block + BACKWARD_BLOCK, seen.end)};
        at.keys = attni_min(BACKWARD_BLOCK, keys - at.block);
        at.dk = chunk->dk + place * f->acc_qk;
        at.dv = chunk->dv + place * f->acc_v;
        if (chunk->first && keys > 0) {
            memset(at.dk, 0, (size_t)(block_keys(f, at.block) * f->dim_qk) * sizeof(float));
            memset(at.dv, 0, (size_t)(block_keys(f, at.block) * f->dim_v) * sizeof(float));
        }
        if (all.begin < all.end) load_keys(job, chunk, f, w, at.block, all);
        for (at.group = 0; at.group < rows; at.group += BACKWARD_GROUP_ROWS) {
            bool *there = &loaded[at.group / BACKWARD_GROUP_ROWS];
            at.rows = attni_min(BACKWARD_GROUP_ROWS, rows - at.group);
            at.dq = chunk->dq + (chunk->tile.row_begin + at.group) * f->acc_qk;
            if (chunk->first && at.block == 0)
                memset(at.dq, 0, (size_t)(group_rows(f, at.group) * f->dim_qk) * sizeof(float));
            key_range mine = all;
            if (all.begin < all.end)
                mine = visible_keys(&w->rows, chunk, at.group / FORWARD_SUB_ROWS,
                                    attni_ceil_div(at.group + at.rows, FORWARD_SUB_ROWS), all);
            if (mine.begin < mine.end) {
                if (!*there) {
                    load_rows(job, chunk, f, w, at.group);
                    fill_rows(job, chunk, &w->rows, at.group,
                              attni_round_up(at.group + at.rows, FORWARD_SUB_ROWS));
                    *there = true;
                }
                accumulate(job, chunk, f, w, &at, mine);
            }
            if (!chunk->last || at.block + BACKWARD_BLOCK < keys) continue;
            if (job->t.dq != NULL) write_rows(job, chunk, f, &at);
        }
        if (chunk->last) write_keys(job, chunk, f, &at);
        at.block += BACKWARD_BLOCK;
    } while (at.block < keys);
    for (int64_t row = 0; row < rows && chunk->first; row++)
        if (!loaded[row / BACKWARD_GROUP_ROWS]) sum_row(job, chunk, chunk->tile.row_begin + row);
}

static void backward_chunk(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    const attn_problem *p = job->p;
    const backward_shape f = backward_shape_of(chunk->most_rows, chunk->most_keys, p->dim_qk, p->dim_v);
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin,
                  keys = chunk->key_end - chunk->key_begin;
    backward_scratch w;
    backward_carve(&w, scratch, &f);
    key_range seen = {0, 0};
    if (rows > 0 && keys > 0) {
        const int64_t padded = attni_round_up(rows, FORWARD_SUB_ROWS);
        tile_rows_fill(job, &chunk->tile, &w.rows, padded);
        seen = visible_keys(&w.rows, chunk, 0, padded / FORWARD_SUB_ROWS,
                            (key_range){0, attni_round_up(keys, BACKWARD_STEP)});
    }
    accumulate_chunk(job, chunk, &f, &w, seen);
    if (chunk->last) simd_stream_done();
}
