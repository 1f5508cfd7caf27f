/*
 * backward_amx: the backward of FlashAttention-2 (Dao 2023, algorithm 2) for bf16, its five products on AMX's tiles, P
 * and dS on AVX-512; a chunk of rows against a chunk of keys, as backward_body.h does it, with the same orientation
 * and thus the same masks and options:
 *
 *     S^T[key][row]   = K Q^T           P^T = exp(S^T - LSE)          rounded to bf16, as dS^T is,
 *     dP^T[key][row]  = V dO^T          dS^T = P^T (dP^T - D)         for what follows
 *     dV[key][dim]   += P^T dO          dK[key][dim] += dS^T Q
 *     dQ^T[dim][row] += K^T dS^T
 *
 * backward_panels_amx.h has the operands. A vector of S^T is a key's 16 rows, so two of them, rounded together, are
 * a row of the A of dV and dK. dQ sums over keys: two keys' rows of that A, interleaved, are a row of its B, with the
 * sub's rows in another order.
 *
 *      chunk: blocks of BACKWARD_BLOCK keys x groups of BACKWARD_GROUP subs of 32 rows; a unit is BACKWARD_UNIT keys of
 *      a sub that sees them. P^T and dS^T of a unit are computed between the tile instructions of the next one's products:
 *
 *          tiles      S(0) dP(0) | S(1) dP(1)          | S(2) dP(2)  dQ of the sub, if unit 1 was its last |
 *          vectors               |   P(0) dS(0)        |   P(1) dS(1)                                      |
 *
 *      and dV and dK of the block's keys follow the group's last unit.
 *
 *     registers    2 x 2 tiles of C, 2 of A, 2 of B: 4 products for 4 loads; where a product sums over 64, 2 of C, 2 of
 *                  A, and 4 of B that stay: 4 products for 2 loads
 *     L1           S^T and dP^T of two units, 32 KB; Q^T and dO^T of a sub; dQ^T of a sub
 *     L2           K, V, K^T, dK and dV of a block; P^T and dS^T of a group, 256 KB
 *
 * Options that need P or dS in float32 (dropout, softcap, a bias gradient) compute them before, and what is left
 * for the vectors is their rounding.
 *
 * Measured, and what was tried: docs/schedules/backward_cpu.md.
 *
 * dq, dk and dv of the sequence are tiles of 16 x 16 in a row: [sub][16 dims][half of dQ^T's columns] and
 * [16 keys][16 dims].
 */
#include "cpu/x86/simd_avx512.h"

#define FORWARD_NV 2
#define FORWARD_TILE_ROWS 512
#define BACKWARD_KEYS 512
#define BACKWARD_STEP 32
#define BACKWARD_UNIT 64
#define BACKWARD_BLOCK 256
#define BACKWARD_GROUP 8

#include "cpu/kernels.h"
#include "cpu/x86/backward_panels_amx.h"
#include "cpu/x86/backward_products_amx.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_amx);

_Static_assert(FORWARD_SUB_ROWS == 32 && BACKWARD_UNIT % 32 == 0 && BACKWARD_BLOCK % BACKWARD_UNIT == 0,
               "subs and steps are two tiles");
_Static_assert(BACKWARD_KEYS % BACKWARD_BLOCK == 0 && FORWARD_TILE_ROWS % (32 * BACKWARD_GROUP) == 0,
               "a chunk is whole blocks and groups");

#define FLUSH_DENORMALS 0x8040u /* in MXCSR: results, and operands */

/* ---------------------------------------------------------------- units */

/* A group of subs against the keys of a block that some of its rows see; of each sub, the keys that it sees. */
typedef struct amx_group {
    key_range keys, seen[BACKWARD_GROUP];
    int64_t first, last;
} amx_group;

/* Keys of a sub whose S and dP are computed at once. */
typedef struct amx_unit {
    const amx_group *group;
    int64_t sub, key, count; /* sub in the chunk; key from the chunk's first; count 0: no unit */
    int buffer; /* of s and dp */
    bool opens, ends_sub, ends_group;
} amx_unit;

/* Where the walk over a chunk's units is. */
typedef struct amx_walk {
    const attni_job *job;
    const attni_chunk *chunk;
    const amx_scratch *w;
    key_range loaded, block; /* keys of the chunk that are there; the block in hand */
    int64_t subs;
    amx_group groups[2]; /* of the unit before, and of the next */
    int group;
} amx_walk;

/* The next group that sees something of its block; false after the last. */
static bool next_group(amx_walk *walk, amx_group *g, int64_t first) {
    const tile_rows *r = &walk->w->rows;
    for (;; first = 0) {
        for (; first < walk->subs; first += BACKWARD_GROUP) {
            g->first = first;
            g->last = attni_min(first + BACKWARD_GROUP, walk->subs);
            g->keys = visible_keys(r, walk->chunk, first, g->last, walk->block);
            if (g->keys.begin >= g->keys.end) continue;
            bool any = false;
            for (int64_t sub = first; sub < g->last; sub++) {
                const key_range seen = visible_keys(r, walk->chunk, sub, sub + 1, g->keys);
                g->seen[sub - first] = seen;
                any = any || seen.begin < seen.end;
            }
            if (any) return true;
        }
        walk->block.begin = walk->block.end;
        walk->block.end = attni_min(walk->block.begin + BACKWARD_BLOCK, walk->loaded.end);
        if (walk->block.begin >= walk->loaded.end) return false;
    }
}

/* The unit after u; count 0 where there is none. */
static void next_unit(amx_walk *walk, amx_unit *u) {
    amx_group *g = &walk->groups[walk->group];
    int64_t sub = u->sub, key = u->key + u->count;
    const bool begins = u->count == 0;
    if (begins || u->ends_group) {
        if (!begins) walk->group ^= 1;
        amx_group *next = &walk->groups[walk->group];
        if (!next_group(walk, next, begins ? 0 : g->last)) {
            u->count = 0;
            return;
        }
        g = next;
        sub = g->first;
        key = g->seen[0].begin;
        u->opens = true;
    } else {
        u->opens = false;
        if (u->ends_sub) key = g->seen[++sub - g->first].begin;
    }
    while (key >= g->seen[sub - g->first].end) key = g->seen[++sub - g->first].begin; /* sees nothing */
    const key_range mine = g->seen[sub - g->first];
    u->group = g;
    u->sub = sub;
    u->key = key;
    u->count = attni_min(BACKWARD_UNIT, mine.end - key);
    u->buffer ^= 1;
    u->ends_sub = key + u->count == mine.end;
    u->ends_group = u->ends_sub;
    for (int64_t later = sub + 1; later < g->last; later++)
        if (g->seen[later - g->first].begin < g->seen[later - g->first].end) u->ends_group = false;
}

/* ---------------------------------------------------------------- the work of a unit */

/* Whether sub i of a group sees some of its 32 keys number `step`. */
SIMD_INLINE bool sees(const amx_group *g, int64_t i, int64_t step) {
    const int64_t key = g->keys.begin + 32 * step;
    return key >= g->seen[i].begin && key < g->seen[i].end;
}

/* Zeros where a sub of the group does not see keys that others do. */
static void clear_unseen(const amx_scratch *w, const amx_group *g) {
    for (int64_t i = 0; i < g->last - g->first; i++)
        for (int64_t step = 0; step < (g->keys.end - g->keys.begin) / 32; step++) {
            if (sees(g, i, step)) continue;
            const int64_t at = (step * BACKWARD_GROUP + i) * PAIR_BYTES;
            memset(w->p + at, 0, PAIR_BYTES);
            memset(w->ds + at, 0, PAIR_BYTES);
        }
}

/* S^T and dP^T of a unit, while the guest's elements are computed. */
static void compute_products(const amx_walk *walk, const amx_unit *u, amx_elements *guest) {
    const amx_scratch *w = walk->w;
    const amx_shape *f = &w->shape;
    const int64_t pairs =
        attni_ceil_div((guest->keys - guest->key) / 2, 2 * (u->count / 32) * (f->qk_steps + f->v_steps));
    multiply_scores(w->s[u->buffer], w->k + u->key / 32 * f->qk_steps * PAIR_BYTES,
                    w->q_t + u->sub * f->qk_steps * PAIR_BYTES, u->count, f->qk_steps, guest, pairs);
    multiply_scores(w->dp[u->buffer], w->v + u->key / 32 * f->v_steps * PAIR_BYTES,
                    w->do_t + u->sub * f->v_steps * PAIR_BYTES, u->count, f->v_steps, guest, pairs);
}

/* A unit's scores, masked; its elements become the guest of the products that follow, unless an option or a bias
 * gradient needs them in float32. */
static void prepare_unit(const amx_walk *walk, const amx_unit *u, amx_elements *e) {
    const attni_job *job = walk->job;
    const amx_scratch *w = walk->w;
    const tile_rows *r = &w->rows;
    float *dp = w->dp[u->buffer];
    const score_block b = {w->s[u->buffer], walk->chunk->key_begin + u->key, u->count, 32 * u->sub,
                           FORWARD_NV};
    if (u->opens) clear_unseen(w, u->group);
    prepare_scores(job, &walk->chunk->tile, r, &b, dp, &w->e);
    const int64_t at =
        ((u->key - u->group->keys.begin) / 32 * BACKWARD_GROUP + u->sub - u->group->first) * PAIR_BYTES;
    *e = (amx_elements){.s = b.s,
                        .dp = dp,
                        .p = w->p + at,
                        .ds = w->ds + at,
                        .ds_b = w->ds_b +
                                (u->key - u->group->seen[u->sub - u->group->first].begin) / 32 * PAIR_BYTES,
                        .apart = BACKWARD_GROUP * PAIR_BYTES,
                        .keys = u->count,
                        .scale = vf_set1(r->units.to_log2)};
    for (int v = 0; v < 2; v++) {
        e->lse[v] = vf_load(r->m + b.first + v * SIMD_LANES);
        e->delta[v] = vf_load(r->l + b.first + v * SIMD_LANES);
    }
    if (!(job->options & (ATTNI_DROPOUT | ATTNI_SOFTCAP)) && job->t.dbias == NULL) return;
    element_gradients(r, &b, dp);
    finish_scores(job, &walk->chunk->tile, &b, dp, &w->e);
    elements_step(false, e, INT64_MAX);
}

/* dQ^T of the unit's sub. */
static void finish_sub(const amx_walk *walk, const amx_unit *u) {
    const amx_shape *f = &walk->w->shape;
    const key_range mine = u->group->seen[u->sub - u->group->first];
    if (walk->job->t.dq != NULL)
        multiply_queries(walk->chunk->dq + (walk->chunk->tile.row_begin + 32 * u->sub) * 16 * f->qk_tiles,
                         walk->w->k_t + mine.begin / 32 * PAIR_BYTES, f->keys * PAIR_BYTES, walk->w->ds_b,
                         f->qk_tiles, (mine.end - mine.begin) / 32);
}

/*
 * dV or dK of a group's keys, each over the subs that see it: 32 dims after 32, so that their part of B stays in L1 and A
 * is read in the order in which it lies.
 */
static void multiply_keys(const amx_walk *walk, const amx_group *g, float *c, const char *a, const char *b,
                          int64_t tiles) {
    const amx_sums x = {tiles * TILE_FLOATS, TILE_FLOATS, 64};
    const int64_t steps = (g->keys.end - g->keys.begin) / 32;
    for (int64_t t = 0; t < tiles; t += 2, b += walk->w->shape.subs * PAIR_BYTES)
        for (int64_t i = 0; i < steps; i++) {
            int64_t begin = 0, end = g->last - g->first;
            while (begin < end && !sees(g, begin, i)) begin++;
            while (begin < end && !sees(g, end - 1, i)) end--;
            if (begin == end) continue;
            float *sums = c + (2 * i * tiles + t) * TILE_FLOATS;
            const char *from = a + (i * BACKWARD_GROUP + begin) * PAIR_BYTES,
                       *rows = b + (g->first + begin) * PAIR_BYTES;
            if (i + 1 < steps) ahead_sums(sums + 2 * tiles * TILE_FLOATS, x.down);
            if (t + 1 < tiles)
                multiply_block(2, 2, false, GUEST_NONE, x, sums, from, rows, end - begin, NULL, 0);
            else
                multiply_block(2, 1, false, GUEST_NONE, x, sums, from, rows, end - begin, NULL, 0);
        }
}

static void finish_group(const amx_walk *walk, const amx_group *g) {
    const attni_chunk *chunk = walk->chunk;
    const amx_scratch *w = walk->w;
    const amx_shape *f = &w->shape;
    const int64_t key = chunk->key_begin + g->keys.begin;
    if (walk->job->t.dv != NULL)
        multiply_keys(walk, g, chunk->dv + key * 16 * f->v_tiles, w->p, w->dout, f->v_tiles);
    if (walk->job->t.dk != NULL)
        multiply_keys(walk, g, chunk->dk + key * 16 * f->qk_tiles, w->ds, w->q, f->qk_tiles);
}

/* What follows when a unit's elements are all there. */
static void finish_unit(const amx_walk *walk, const amx_unit *u) {
    if (u->count > 0 && u->ends_sub) finish_sub(walk, u);
    if (u->count > 0 && u->ends_group) finish_group(walk, u->group);
}

/* All units of a chunk whose operands are there. */
static void run_units(amx_walk *walk) {
    amx_elements elements = {.keys = 0};
    amx_unit now = {.count = 0}, next = {.count = 0};
    for (;;) {
        next_unit(walk, &next);
        if (next.count > 0) compute_products(walk, &next, &elements);
        elements_step(true, &elements, INT64_MAX);
        finish_unit(walk, &now);
        if (next.count == 0) return;
        prepare_unit(walk, &next, &elements);
        now = next;
    }
}

/* ---------------------------------------------------------------- begin and finish */

static void begin_chunk(const attni_chunk *chunk, const amx_shape *f, int64_t subs) {
    const int64_t qk = 16 * f->qk_tiles, v = 16 * f->v_tiles,
                  keys = attni_round_up(chunk->key_end - chunk->key_begin, 32);
    memset(chunk->dq + chunk->tile.row_begin * qk, 0, (size_t)(32 * subs * qk) * sizeof(float));
    memset(chunk->dk + chunk->key_begin * qk, 0, (size_t)(keys * qk) * sizeof(float));
    memset(chunk->dv + chunk->key_begin * v, 0, (size_t)(keys * v) * sizeof(float));
}

static void finish_rows(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w) {
    const attni_tile *tile = &chunk->tile;
    const int64_t tiles = w->shape.qk_tiles, ld = 16 * tiles + SIMD_LANES;
    for (int64_t first = tile->row_begin; first < tile->row_end; first += 32) {
        const float *from = chunk->dq + first * 16 * tiles;
        for (int64_t half = 0; half < 2; half++) {
            for (int64_t i = 0; i < 16; i++) prefetch_dq(job, tile, first + 32 + SCATTER(half, i));
            for (int64_t t = 0; t < tiles; t++)
                simd_transpose(from + (2 * t + half) * TILE_FLOATS, 16, w->staging + 16 * t, ld);
            for (int64_t i = 0; i < 16; i++)
                if (first + SCATTER(half, i) < tile->row_end)
                    write_row(job->p->dtype_q, w->staging + i * ld, job->t.scale, job->p->dim_qk,
                              attni_dq_row(job, tile, first + SCATTER(half, i)));
        }
    }
}

/* One row of dK or dV: 16 numbers of each tile. */
static void write_key(attn_dtype dtype, const float *tile, float scale, int64_t dim, char *to) {
    const int64_t size = (int64_t)attni_dtype_size(dtype);
    for (int64_t d = 0; d < dim; d += 16, tile += TILE_FLOATS)
        simd_store_part(dtype, to + d * size, vf_mul(vf_load(tile), vf_set1(scale)), attni_min(16, dim - d));
}

static void finish_keys(const attni_job *job, const attni_chunk *chunk, const amx_shape *f) {
    const attni_tile *tile = &chunk->tile;
    for (int64_t key = chunk->key_begin; key < chunk->key_end; key++) {
        const int64_t tiles = key / 16 * TILE_FLOATS, row = key % 16 * 16;
        prefetch_dk_dv(job, chunk, key + BACKWARD_AHEAD);
        if (job->t.dk != NULL)
            write_key(job->p->dtype_kv, chunk->dk + tiles * f->qk_tiles + row, job->t.scale, job->p->dim_qk,
                      attni_dk_row(job, tile, key));
        if (job->t.dv != NULL)
            write_key(job->p->dtype_kv, chunk->dv + tiles * f->v_tiles + row, 1.0f, job->p->dim_v,
                      attni_dv_row(job, tile, key));
    }
}

/* ---------------------------------------------------------------- the chunk */

/* Rows that fill the last sub see nothing: their P, which dV and dK sum over, is 0. */
static void hide_padding(tile_rows *r, int64_t count, int64_t padded) {
    if (count == padded) return;
    for (int64_t i = count; i < padded; i++) r->begin[i] = r->end[i] = 0;
    r->full_end[padded / 32 - 1] = 0;
}

/* D of the rows. */
static void sum_rows(const attni_job *job, const attni_chunk *chunk) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    for (int64_t row = tile->row_begin; row < tile->row_end; row++) {
        if (row + BACKWARD_AHEAD < tile->row_end) {
            prefetch_row(attni_o_row(job, tile, row + BACKWARD_AHEAD), p->dim_v, p->dtype_o);
            prefetch_row(attni_dout_row(job, tile, row + BACKWARD_AHEAD), p->dim_v, p->dtype_o);
        }
        sum_row(job, chunk, row);
    }
}

void attni_backward_amx(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin, subs = attni_ceil_div(rows, 32),
                  keys = chunk->key_end - chunk->key_begin;
    amx_scratch w;
    amx_carve(&w, scratch, chunk->most_rows, chunk->most_keys, job->p->dim_qk, job->p->dim_v);
    amx_carve_panels(&w, chunk->row_panels, chunk->key_panels);
    if (chunk->first) {
        begin_chunk(chunk, &w.shape, subs);
        sum_rows(job, chunk);
        load_rows(job, chunk, &w);
        load_keys(job, chunk, &w);
    }
    if (rows > 0 && keys > 0) {
        const key_range all = {0, attni_round_up(keys, 32)};
        tile_rows_fill(job, &chunk->tile, &w.rows, 32 * subs);
        hide_padding(&w.rows, rows, 32 * subs);
        const key_range seen = visible_keys(&w.rows, chunk, 0, subs, all);
        if (seen.begin < seen.end) {
            amx_walk walk = {.job = job, .chunk = chunk, .w = &w, .loaded = seen, .subs = subs};
            walk.block =
                (key_range){seen.begin, attni_min(attni_round_up(seen.begin + 1, BACKWARD_BLOCK), seen.end)};
            fill_rows(job, chunk, &w.rows, 0, 32 * subs);
            const uint32_t environment = _mm_getcsr();
            _mm_setcsr(environment |
                       FLUSH_DENORMALS); /* a vscalefps with a denormal result takes 200 cycles */
            TILE_BEGIN();
            run_units(&walk);
            TILE_END();
            _mm_setcsr(environment);
        }
    }
    if (!chunk->last) return;
    if (job->t.dq != NULL) finish_rows(job, chunk, &w);
    finish_keys(job, chunk, &w.shape);
}

size_t attni_backward_amx_panels(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    return amx_panel_bytes(rows, keys, dim_qk, dim_v);
}

size_t attni_backward_amx_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    amx_scratch w;
    return amx_carve(&w, NULL, rows, keys, dim_qk, dim_v);
}
