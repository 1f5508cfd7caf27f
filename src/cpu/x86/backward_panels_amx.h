/*
 * A backward task's memory on AMX, and how rows and keys get into it: seven arrays of operands in the order in which
 * the five products read them. A and B (tiles_amx.h) are streams of pairs of tiles, a pair for each step of 32 along
 * the summed axis, a tile for each half of the 32 rows or columns that a step adds to:
 *
 *     product    A                                             B
 *     S^T        k    [32 keys][step of dims][half] 16 x 32    q_t   [sub][step of dims][half] pairs of dims x 16 rows
 *     dP^T       v    likewise                                 do_t  likewise
 *     dV         P^T  [32 keys][sub][half]          16 x 32    dout  [32 dims][sub][half]      pairs of rows x 16 dims
 *     dK         dS^T likewise                                 q     likewise
 *     dQ^T       k_t  [32 dims][32 keys][half]      16 x 32    dS^T  [32 keys][half]           pairs of keys x 16 rows
 *
 * dS^T as a B has its rows in another order, SCATTER, which costs the fewest instructions; so has dQ^T.
 */
#ifndef ATTNI_BACKWARD_PANELS_AMX_H
#define ATTNI_BACKWARD_PANELS_AMX_H

#include <string.h>

#include "cpu/backward_scores.h"

#define TILE_BYTES 1024
#define TILE_FLOATS 256
#define PAIR_BYTES (2 * TILE_BYTES)

/* Column i of tile `half` of dQ^T is this row of the sub. */
#define SCATTER(half, i) ((i) / 4 * 8 + (half) * 4 + (i) % 4)

/* Steps of 32 along D and Dv, and tiles of 16. */
typedef struct amx_shape {
    int64_t qk_steps, v_steps, qk_tiles, v_tiles;
    int64_t subs, keys; /* of a chunk, the latter in steps */
} amx_shape;

typedef struct amx_scratch {
    amx_shape shape;
    char *q_t, *do_t, *q, *dout, *k, *v, *k_t; /* see above */
    char *p, *ds;                              /* P^T and dS^T of a group and a block */
    char *ds_b;                                /* dS^T of a sub and a block, in pairs of keys */
    float *s[2], *dp[2];                       /* S^T and dP^T of two units: [key][row] */
    float *staging;                            /* rows on their way in or out */
    element_factors e;                         /* of a unit */
    tile_rows rows;                            /* m: LSE in units of the scores; l: D */
} amx_scratch;

/* Carves the scratch; with a null base it only measures. */
static size_t amx_carve(amx_scratch *w, char *base, int64_t rows, int64_t keys, int64_t dim_qk,
                        int64_t dim_v) {
    const amx_shape f = {attni_ceil_div(dim_qk, 32), attni_ceil_div(dim_v, 32), attni_ceil_div(dim_qk, 16),
                         attni_ceil_div(dim_v, 16),  attni_ceil_div(rows, 32),  attni_ceil_div(keys, 32)};
    const int64_t unit = BACKWARD_UNIT * FORWARD_SUB_ROWS * 4, block = BACKWARD_BLOCK * 64;
    const int64_t staged = FORWARD_SUB_ROWS * (32 * f.qk_steps + SIMD_LANES) * 4;
    const struct {
        void *pointer;
        int64_t bytes;
    } parts[] = {
        {&w->p, BACKWARD_GROUP * block},
        {&w->ds, BACKWARD_GROUP * block},
        {&w->ds_b, block},
        {&w->s[0], unit},
        {&w->dp[0], unit},
        {&w->s[1], unit},
        {&w->dp[1], unit},
        {&w->e.cap, unit},
        {&w->e.keep, unit},
        {&w->staging, attni_max(staged, 16 * (16 * f.v_steps + SIMD_LANES) * 4)},
    };
    size_t offset = 0;
    w->shape = f;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *const at = base == NULL ? NULL : base + offset;
        memcpy(parts[i].pointer, &at, sizeof at);
        offset += (size_t)attni_round_up(parts[i].bytes, 64);
    }
    return offset + tile_rows_carve(&w->rows, base == NULL ? NULL : base + offset, 32 * f.subs);
}

/* The operands: of a chunk's rows, and of its keys. */
static void amx_carve_panels(amx_scratch *w, char *rows, char *keys) {
    const amx_shape *f = &w->shape;
    w->q_t = rows;
    w->q = w->q_t + f->subs * f->qk_steps * PAIR_BYTES;
    w->do_t = w->q + f->subs * f->qk_steps * PAIR_BYTES;
    w->dout = w->do_t + f->subs * f->v_steps * PAIR_BYTES;
    w->k = keys;
    w->k_t = w->k + f->keys * f->qk_steps * PAIR_BYTES;
    w->v = w->k_t + f->keys * f->qk_steps * PAIR_BYTES;
}

static size_t amx_panel_bytes(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    const int64_t subs = attni_ceil_div(rows, 32), steps = attni_ceil_div(keys, 32),
                  qk = attni_ceil_div(dim_qk, 32), v = attni_ceil_div(dim_v, 32);
    return (size_t)((2 * subs * (qk + v) + steps * (2 * qk + v)) * PAIR_BYTES);
}

/* ---------------------------------------------------------------- load */

/* The 32 numbers of a row from d on, zeros beyond dim; none if the row is null. */
SIMD_INLINE __m512i row_part(const uint16_t *row, int64_t d, int64_t dim) {
    const __mmask32 here = (__mmask32)((1ull << attni_max(0, attni_min(32, dim - d))) - 1);
    return row == NULL ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi16(here, row + d);
}

static bool row_is_finite(const uint16_t *row, int64_t dim) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    __mmask32 infinite = 0;
    for (int64_t d = 0; d < dim; d += 32)
        infinite |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(row_part(row, d, dim), exponent), exponent);
    return infinite == 0;
}

/* Rows as a B that sums over dims: 16 rows become the columns of a tile, a step of dims its 16 pairs. */
static void columns_of_pairs(const uint16_t *const rows[16], int64_t dim, int64_t steps, float *staging,
                             char *to) {
    const int64_t ld = 16 * steps + SIMD_LANES;
    for (int64_t i = 0; i < 16; i++)
        for (int64_t s = 0; s < steps; s++)
            _mm512_storeu_si512(staging + i * ld + 16 * s, row_part(rows[i], 32 * s, dim));
    for (int64_t s = 0; s < steps; s++)
        simd_transpose(staging + 16 * s, ld, (float *)(void *)(to + s * PAIR_BYTES), 16);
}

/* Two rows interleaved, numbers d to d + 15 of them. */
SIMD_INLINE __m512i paired(const uint16_t *low, const uint16_t *high, int64_t d, int64_t dim) {
    const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row_part(low, d, dim)));
    const __m512i b = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row_part(high, d, dim)));
    return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

/* 32 rows as a B that sums over them; `apart` bytes from a step of dims to the next. Infinite rows count as 0. */
static void rows_of_pairs(const uint16_t *const rows[32], int64_t dim, int64_t apart, char *to) {
    for (int64_t i = 0; i < 16; i++)
        for (int64_t d = 0; d < dim; d += 32)
            for (int64_t half = 0; half < 2; half++)
                _mm512_storeu_si512(to + d / 32 * apart + half * TILE_BYTES + i * 64,
                                    paired(rows[2 * i], rows[2 * i + 1], d + 16 * half, dim));
}

/* 32 keys as an A that sums over them: tiles of 16 dims. */
static void dims_of_pairs(const uint16_t *const rows[32], int64_t dim, int64_t apart, char *to) {
    for (int64_t t = 0; t < 2 * attni_ceil_div(dim, 32); t++) {
        float pairs[16 * SIMD_LANES];
        for (int64_t i = 0; i < 16; i++)
            _mm512_storeu_si512(pairs + i * SIMD_LANES, paired(rows[2 * i], rows[2 * i + 1], 16 * t, dim));
        simd_transpose(pairs, SIMD_LANES, (float *)(void *)(to + t / 2 * apart + t % 2 * TILE_BYTES),
                       SIMD_LANES);
    }
}

/* Nulls for rows that are not finite: they count as 0. */
static void drop_infinite(const uint16_t *rows[32], int64_t dim) {
    for (int64_t i = 0; i < 32; i++)
        if (rows[i] != NULL && !row_is_finite(rows[i], dim)) rows[i] = NULL;
}

static void load_rows(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w) {
    const attni_tile *tile = &chunk->tile;
    const attn_problem *p = job->p;
    const amx_shape *f = &w->shape;
    for (int64_t sub = 0; tile->row_begin + 32 * sub < tile->row_end; sub++) {
        const uint16_t *q[32], *dout[32];
        for (int64_t i = 0; i < 32; i++) {
            const int64_t row = tile->row_begin + 32 * sub + i, ahead = row + 32;
            q[i] = row < tile->row_end ? attni_q_row(job, tile, row) : NULL;
            dout[i] = row < tile->row_end ? attni_dout_row(job, tile, row) : NULL;
            if (ahead < tile->row_end) {
                prefetch_row(attni_q_row(job, tile, ahead), p->dim_qk, ATTN_BF16);
                prefetch_row(attni_dout_row(job, tile, ahead), p->dim_v, ATTN_BF16);
            }
        }
        for (int64_t half = 0; half < 2; half++) {
            const int64_t at = half * TILE_BYTES;
            columns_of_pairs(q + 16 * half, p->dim_qk, f->qk_steps, w->staging,
                             w->q_t + sub * f->qk_steps * PAIR_BYTES + at);
            columns_of_pairs(dout + 16 * half, p->dim_v, f->v_steps, w->staging,
                             w->do_t + sub * f->v_steps * PAIR_BYTES + at);
        }
        rows_of_pairs(dout, p->dim_v, f->subs * PAIR_BYTES, w->dout + sub * PAIR_BYTES);
        drop_infinite(q, p->dim_qk);
        rows_of_pairs(q, p->dim_qk, f->subs * PAIR_BYTES, w->q + sub * PAIR_BYTES);
    }
}

/* Keys as an A that sums over dims. */
static void keys_of_dims(const uint16_t *const rows[32], int64_t dim, char *to) {
    for (int64_t i = 0; i < 32; i++)
        for (int64_t d = 0; d < dim; d += 32)
            _mm512_storeu_si512(to + d / 32 * PAIR_BYTES + i / 16 * TILE_BYTES + i % 16 * 64,
                                row_part(rows[i], d, dim));
}

static void load_keys(const attni_job *job, const attni_chunk *chunk, const amx_scratch *w) {
    const attni_tile *tile = &chunk->tile;
    const attn_problem *p = job->p;
    const amx_shape *f = &w->shape;
    for (int64_t step = 0; chunk->key_begin + 32 * step < chunk->key_end; step++) {
        const uint16_t *k[32], *v[32];
        for (int64_t i = 0; i < 32; i++) {
            const int64_t key = chunk->key_begin + 32 * step + i, ahead = key + 32;
            k[i] = key < chunk->key_end ? attni_k_row(job, tile, key) : NULL;
            v[i] = key < chunk->key_end ? attni_v_row(job, tile, key) : NULL;
            if (ahead < chunk->key_end) {
                prefetch_row(attni_k_row(job, tile, ahead), p->dim_qk, ATTN_BF16);
                prefetch_row(attni_v_row(job, tile, ahead), p->dim_v, ATTN_BF16);
            }
        }
        keys_of_dims(k, p->dim_qk, w->k + step * f->qk_steps * PAIR_BYTES);
        keys_of_dims(v, p->dim_v, w->v + step * f->v_steps * PAIR_BYTES);
        drop_infinite(k, p->dim_qk);
        dims_of_pairs(k, p->dim_qk, f->keys * PAIR_BYTES, w->k_t + step * PAIR_BYTES);
    }
}

#endif
