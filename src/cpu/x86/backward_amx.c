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
 *      chunk: blocks of BACKWARD_BLOCK keys x groups of BACKWARD_GROUP subs of 32 rows
 *
 *                    sub 0     sub 1   ..          for each sub: a unit of BACKWARD_UNIT keys after the other,
 *          unit 0   [S dP]                         S^T and dP^T (in L1), P^T and dS^T; then dQ^T of the sub
 *          unit 1   [S dP]                         after the group: dV and dK of the block's keys
 *
 *     registers    2 x 2 tiles of C, 2 of A, 2 of B: 4 products for 4 loads
 *     L1           S^T and dP^T of a unit, 16 KB; Q^T and dO^T of a sub; dS^T of a sub
 *     L2           K, V, K^T, dK and dV of a block; P^T and dS^T of a group
 *
 * dq, dk and dv of the sequence are tiles of 16 x 16 in a row: [sub][16 dims][half of dQ^T's columns] and
 * [16 keys][16 dims].
 */
#include "cpu/x86/simd_avx512.h"

#define FORWARD_NV 2
#define FORWARD_TILE_ROWS 1024
#define BACKWARD_KEYS 1024
#define BACKWARD_STEP 32
#define BACKWARD_UNIT 64
#define BACKWARD_BLOCK 256
#define BACKWARD_GROUP 4

#include "cpu/kernels.h"
#include "cpu/x86/backward_panels_amx.h"
#include "cpu/x86/tiles_amx.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_amx);

_Static_assert(FORWARD_SUB_ROWS == 32 && BACKWARD_UNIT % 32 == 0 && BACKWARD_BLOCK % BACKWARD_UNIT == 0,
               "subs and steps are two tiles");
_Static_assert(BACKWARD_KEYS / 2 % BACKWARD_BLOCK == 0 && FORWARD_TILE_ROWS / 2 % (32 * BACKWARD_GROUP) == 0,
               "half a chunk is whole blocks and groups");

#define FLUSH_DENORMALS 0x8040u /* in MXCSR: results, and operands */

/* ---------------------------------------------------------------- products */

/* Where 2 x 2 tiles of C stand, in floats, and how many bytes lie between rows of a tile. */
typedef struct amx_sums {
    int64_t down, right, row_bytes;
} amx_sums;

#define BEGIN_SUMS(t, at)                                                                                    \
    do {                                                                                                     \
        if (zero)                                                                                            \
            TILE_ZERO(t);                                                                                    \
        else                                                                                                 \
            TILE_LOAD(t, at, x.row_bytes);                                                                   \
    } while (0)

/* One or two by one or two tiles of C (+)= A B over so many steps. */
SIMD_INLINE void multiply_block(const int high, const int wide, const bool zero, const amx_sums x, float *c,
                                const char *a, const char *b, int64_t steps) {
    float *lower = c + x.down;
    BEGIN_SUMS(0, c);
    if (wide > 1) BEGIN_SUMS(1, c + x.right);
    if (high > 1) BEGIN_SUMS(2, lower);
    if (high > 1 && wide > 1) BEGIN_SUMS(3, lower + x.right);
    for (int64_t i = 0; i < steps; i++, a += PAIR_BYTES, b += PAIR_BYTES) {
        TILE_LOAD(4, a, 64);
        TILE_LOAD(6, b, 64);
        TILE_DOT(0, 4, 6);
        if (wide > 1) TILE_LOAD(7, b + TILE_BYTES, 64);
        if (wide > 1) TILE_DOT(1, 4, 7);
        if (high > 1) TILE_LOAD(5, a + TILE_BYTES, 64);
        if (high > 1) TILE_DOT(2, 5, 6);
        if (high > 1 && wide > 1) TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, c, x.row_bytes);
    if (wide > 1) TILE_STORE(1, c + x.right, x.row_bytes);
    if (high > 1) TILE_STORE(2, lower, x.row_bytes);
    if (high > 1 && wide > 1) TILE_STORE(3, lower + x.right, x.row_bytes);
}

/* S^T or dP^T of a unit: 32 keys after 32. */
static void multiply_scores(float *c, const char *a, const char *b, int64_t keys, int64_t steps) {
    const amx_sums x = {16 * FORWARD_SUB_ROWS, 16, 4 * FORWARD_SUB_ROWS};
    for (int64_t j = 0; j < keys; j += 32, c += 32 * FORWARD_SUB_ROWS, a += steps * PAIR_BYTES)
        multiply_block(2, 2, true, x, c, a, b, steps);
}

/* 32 keys of dV or dK, all dims; `apart` bytes of B from 32 dims to the next. */
static void multiply_keys(float *c, const char *a, const char *b, int64_t apart, int64_t tiles,
                          int64_t steps) {
    const amx_sums x = {tiles * TILE_FLOATS, TILE_FLOATS, 64};
    for (int64_t t = 0; t < tiles; t += 2, c += 2 * TILE_FLOATS, b += apart) {
        if (t + 1 < tiles)
            multiply_block(2, 2, false, x, c, a, b, steps);
        else
            multiply_block(2, 1, false, x, c, a, b, steps);
    }
}

/* dQ^T of a sub, all dims; `apart` bytes of A from 32 dims to the next. */
static void multiply_queries(float *c, const char *a, int64_t apart, const char *b, int64_t tiles,
                             int64_t steps) {
    const amx_sums x = {2 * TILE_FLOATS, TILE_FLOATS, 64};
    for (int64_t t = 0; t < tiles; t += 2, c += 4 * TILE_FLOATS, a += apart) {
        if (t + 1 < tiles)
            multiply_block(2, 2, false, x, c, a, b, steps);
        else
            multiply_block(1, 2, false, x, c, a, b, steps);
    }
}

/* ---------------------------------------------------------------- P and dS */

/* 32 rows of a key in bf16, nearest even; NaN stays NaN. */
SIMD_INLINE __m512i round_rows(vf first, vf second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/*
 * 2^((s - lse) c) where `seen`, else 0: x = floor(x) + f, 2^f by a polynomial of degree 5 on [0, 1) (minimax with
 * P(0) = 1, relative error 1.4e-7), times 2^floor(x). NaN stays NaN.
 */
SIMD_INLINE vf seen_exp2(vmask seen, vf s, vf lse, vf c) {
    const vf x = vf_mul(vf_sub(s, lse), c);
    const vf f = _mm512_reduce_ps(x, 0x09); /* x - floor(x) */
    vf p = vf_set1(0x1.e974fap-10f);
    p = vf_fma(p, f, vf_set1(0x1.27785ap-7f));
    p = vf_fma(p, f, vf_set1(0x1.c91ce8p-5f));
    p = vf_fma(p, f, vf_set1(0x1.ebdb5ap-3f));
    p = vf_fma(p, f, vf_set1(0x1.62e4bap-1f));
    p = vf_fma(p, f, vf_set1(1.0f));
    return _mm512_maskz_scalef_ps(seen, p, x);
}

/* Where a unit's P^T and dS^T go: tiles of A, `apart` bytes from 32 keys to the next, and of B. */
typedef struct amx_rounded {
    char *p, *ds, *ds_b;
    int64_t apart;
} amx_rounded;

/* P^T and dS^T of a unit rounded; computed from S^T and dP^T where that has not been done. */
SIMD_INLINE void round_elements(const bool raw, const tile_rows *r, const score_block *b, const float *dp,
                                const amx_rounded *to) {
    const vf c = vf_set1(r->units.to_log2), hidden = vf_set1(-INFINITY);
    vf lse[2], delta[2];
    for (int v = 0; v < 2; v++) {
        lse[v] = vf_load(r->m + b->first + v * SIMD_LANES);
        delta[v] = vf_load(r->l + b->first + v * SIMD_LANES);
    }
    const float *s = b->s;
    for (int64_t j = 0; j < b->count; j += 2) {
        const int64_t at = j / 32 * to->apart + j % 32 * 64;
        __m512i ds[2];
        SIMD_UNROLL
        for (int i = 0; i < 2; i++, s += FORWARD_SUB_ROWS, dp += FORWARD_SUB_ROWS) {
            vf p[2], d[2];
            SIMD_UNROLL
            for (int v = 0; v < 2; v++) {
                p[v] = vf_load(s + v * SIMD_LANES);
                d[v] = vf_load(dp + v * SIMD_LANES);
                if (!raw) continue;
                const vmask seen = _mm512_cmp_ps_mask(p[v], hidden, _CMP_NEQ_UQ);
                p[v] = seen_exp2(seen, p[v], lse[v], c);
                d[v] = _mm512_maskz_mul_ps(seen, p[v], vf_sub(d[v], delta[v]));
            }
            ds[i] = round_rows(d[0], d[1]);
            _mm512_storeu_si512(to->p + at + i * 64, round_rows(p[0], p[1]));
            _mm512_storeu_si512(to->ds + at + i * 64, ds[i]);
        }
        char *pairs = to->ds_b + j / 32 * PAIR_BYTES + j % 32 * 32;
        _mm512_storeu_si512(pairs, _mm512_unpacklo_epi16(ds[0], ds[1]));
        _mm512_storeu_si512(pairs + TILE_BYTES, _mm512_unpackhi_epi16(ds[0], ds[1]));
    }
}

/* The scores of a unit, the sub's keys [key, key + count) of the chunk, and what follows from them. */
static void compute_unit(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w, int64_t sub,
                         int64_t key, int64_t count, const amx_rounded *to) {
    const amx_shape *f = &w->shape;
    const score_block b = {w->s, chunk->key_begin + key, count, 32 * sub, FORWARD_NV};
    multiply_scores(w->s, w->k + key / 32 * f->qk_steps * PAIR_BYTES, w->q_t + sub * f->qk_steps * PAIR_BYTES,
                    count, f->qk_steps);
    multiply_scores(w->dp, w->v + key / 32 * f->v_steps * PAIR_BYTES, w->do_t + sub * f->v_steps * PAIR_BYTES,
                    count, f->v_steps);
    prepare_scores(job, &chunk->tile, &w->rows, &b, w->dp, &w->e);
    if (!(job->options & (ATTNI_DROPOUT | ATTNI_SOFTCAP)) && job->t.dbias == NULL) {
        round_elements(true, &w->rows, &b, w->dp, to);
        return;
    }
    element_gradients(&w->rows, &b, w->dp);
    finish_scores(job, &chunk->tile, &b, w->dp, &w->e);
    round_elements(false, &w->rows, &b, w->dp, to);
}

/* ---------------------------------------------------------------- accumulate */

/* One sub of a group against the keys that the group sees: P^T, dS^T, dQ^T. What it saw. */
static key_range accumulate_sub(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w,
                                int64_t sub, int64_t in_group, key_range keys) {
    const amx_shape *f = &w->shape;
    const key_range mine = visible_keys(&w->rows, chunk, sub, sub + 1, keys);
    for (int64_t key = keys.begin; key < keys.end; key += 32) {
        if (key >= mine.begin && key < mine.end) continue;
        const int64_t at = ((key - keys.begin) / 32 * BACKWARD_GROUP + in_group) * PAIR_BYTES;
        memset(w->p + at, 0, PAIR_BYTES);
        memset(w->ds + at, 0, PAIR_BYTES);
    }
    if (mine.begin >= mine.end) return mine;
    for (int64_t key = mine.begin; key < mine.end; key += BACKWARD_UNIT) {
        const int64_t at = ((key - keys.begin) / 32 * BACKWARD_GROUP + in_group) * PAIR_BYTES;
        const amx_rounded to = {w->p + at, w->ds + at, w->ds_b + (key - mine.begin) / 32 * PAIR_BYTES,
                                BACKWARD_GROUP * PAIR_BYTES};
        compute_unit(job, chunk, w, sub, key, attni_min(BACKWARD_UNIT, mine.end - key), &to);
    }
    if (job->t.dq != NULL)
        multiply_queries(chunk->dq + (chunk->tile.row_begin + 32 * sub) * 16 * f->qk_tiles,
                         w->k_t + mine.begin / 32 * PAIR_BYTES, f->keys * PAIR_BYTES, w->ds_b, f->qk_tiles,
                         (mine.end - mine.begin) / 32);
    return mine;
}

/* Keys of one block against the subs [first, last) of the chunk, one group. */
static void accumulate(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w, key_range keys,
                       int64_t first, int64_t last) {
    const amx_shape *f = &w->shape;
    key_range seen[BACKWARD_GROUP];
    for (int64_t sub = first; sub < last; sub++)
        seen[sub - first] = accumulate_sub(job, chunk, w, sub, sub - first, keys);
    for (int64_t key = keys.begin; key < keys.end;
         key += 32) { /* dV and dK, over the subs that see the keys */
        int64_t begin = last - first, end = 0;
        for (int64_t i = 0; i < last - first; i++)
            if (key >= seen[i].begin && key < seen[i].end) {
                begin = attni_min(begin, i);
                end = i + 1;
            }
        if (begin >= end) continue;
        const int64_t at = ((key - keys.begin) / 32 * BACKWARD_GROUP + begin) * PAIR_BYTES,
                      sub = (first + begin) * PAIR_BYTES;
        if (job->t.dv != NULL)
            multiply_keys(chunk->dv + (chunk->key_begin + key) * 16 * f->v_tiles, w->p + at, w->dout + sub,
                          f->subs * PAIR_BYTES, f->v_tiles, end - begin);
        if (job->t.dk != NULL)
            multiply_keys(chunk->dk + (chunk->key_begin + key) * 16 * f->qk_tiles, w->ds + at, w->q + sub,
                          f->subs * PAIR_BYTES, f->qk_tiles, end - begin);
    }
}

/* All blocks and groups of a chunk whose operands are there. */
static void accumulate_chunk(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w,
                             key_range loaded, int64_t subs) {
    for (int64_t block = loaded.begin / BACKWARD_BLOCK * BACKWARD_BLOCK; block < loaded.end;
         block += BACKWARD_BLOCK) {
        const key_range all = {attni_max(block, loaded.begin), attni_min(block + BACKWARD_BLOCK, loaded.end)};
        for (int64_t first = 0; first < subs; first += BACKWARD_GROUP) {
            const int64_t last = attni_min(first + BACKWARD_GROUP, subs);
            const key_range keys = visible_keys(&w->rows, chunk, first, last, all);
            if (keys.begin < keys.end) accumulate(job, chunk, w, keys, first, last);
        }
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

void attni_backward_amx(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    const int64_t rows = chunk->tile.row_end - chunk->tile.row_begin, subs = attni_ceil_div(rows, 32),
                  keys = chunk->key_end - chunk->key_begin;
    amx_scratch w;
    amx_carve(&w, scratch, chunk->most_rows, chunk->most_keys, job->p->dim_qk, job->p->dim_v);
    if (chunk->first) begin_chunk(chunk, &w.shape, subs);
    if (rows > 0 && chunk->first) sum_rows(job, chunk);
    if (rows > 0 && keys > 0) {
        const key_range all = {0, attni_round_up(keys, 32)};
        tile_rows_fill(job, &chunk->tile, &w.rows, 32 * subs);
        hide_padding(&w.rows, rows, 32 * subs);
        const key_range seen = visible_keys(&w.rows, chunk, 0, subs, all);
        if (seen.begin < seen.end) {
            load_rows(job, chunk, &w);
            load_keys(job, chunk, seen, &w);
            fill_rows(job, chunk, &w.rows, 32 * subs);
            const uint32_t environment = _mm_getcsr();
            _mm_setcsr(environment |
                       FLUSH_DENORMALS); /* a vscalefps with a denormal result takes 200 cycles */
            TILE_BEGIN();
            accumulate_chunk(job, chunk, &w, seen, subs);
            TILE_END();
            _mm_setcsr(environment);
        }
    }
    if (!chunk->last) return;
    if (job->t.dq != NULL) finish_rows(job, chunk, &w);
    finish_keys(job, chunk, &w.shape);
}

size_t attni_backward_amx_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    amx_scratch w;
    return amx_carve(&w, NULL, rows, keys, dim_qk, dim_v);
}
