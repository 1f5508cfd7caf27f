/*
 * The memory of a tile on AMX: Q^T, K and V^T as the products want them, and the scratch that holds them.
 *
 * A and B are the operands of a product (tiles_amx.h). Every A of 16 rows x 32 is a KB in a row; every B and
 * C is 16 rows out of an array of rows of FORWARD_SUB_ROWS columns.
 */
#ifndef ATTNI_PANELS_AMX_H
#define ATTNI_PANELS_AMX_H

#include <string.h>

#include "cpu/forward_scores.h"
#include "cpu/parallel.h"
#include "cpu/x86/tiles_amx.h"

#define STEP_KEYS 32                     /* that a step of P V sums over */
#define TILE_BYTES 1024
#define ROW_BYTES (FORWARD_SUB_ROWS * 4) /* from row to row of Q^T, S^T, P^T and O^T */

/* Sizes in tiles: D in steps of 32 dims, Dv in tiles of 16. */
typedef struct amx_shape {
    int64_t qk_steps, v_tiles, ld_staging;
} amx_shape;

/* A thread's memory while it computes a tile. */
typedef struct amx_scratch {
    amx_shape shape;
    float *q, *o;  /* Q^T and O^T: subs of [pair of dims][row] and [dim][row] */
    attni_kept *kept; /* a block: K, then V^T */
    float *s[2], *p[2], *factor[2]; /* of two units: S^T [key][row], P^T [pair of keys][row]; see amx_unit */
    float *staging; /* SIMD_LANES rows as they come from or go to memory */
    tile_rows rows;
} amx_scratch;

static int64_t slot_k_bytes(const amx_shape *f) { return FORWARD_KEYS / 16 * f->qk_steps * TILE_BYTES; }
static int64_t slot_bytes(const amx_shape *f) {
    return slot_k_bytes(f) + FORWARD_KEYS / STEP_KEYS * f->v_tiles * TILE_BYTES;
}

static amx_shape shape_of(int64_t dim_qk, int64_t dim_v) {
    const int64_t qk_steps = attni_ceil_div(dim_qk, 32), v_tiles = attni_ceil_div(dim_v, 16);
    return (amx_shape){qk_steps, v_tiles, 16 * attni_max(qk_steps, v_tiles) + SIMD_LANES};
}

/* Carves the scratch; with a null base it only measures. */
static size_t amx_carve(amx_scratch *w, char *base, int64_t tile_rows_count, int64_t dim_qk, int64_t dim_v) {
    w->shape = shape_of(dim_qk, dim_v);
    const int64_t qk_steps = w->shape.qk_steps, v_tiles = w->shape.v_tiles;
    const int64_t rows = attni_round_up(tile_rows_count, FORWARD_SUB_ROWS);
    const int64_t s_bytes = FORWARD_KEYS * ROW_BYTES;
    const struct {
        void *pointer;
        int64_t bytes;
    } parts[] = {
        {&w->q, rows * qk_steps * 64},
        {&w->o, rows * v_tiles * 64},
        {&w->s[0], s_bytes},
        {&w->s[1], s_bytes},
        {&w->p[0], s_bytes / 2},
        {&w->p[1], s_bytes / 2},
        {&w->factor[0], ROW_BYTES},
        {&w->factor[1], ROW_BYTES},
        {&w->staging, SIMD_LANES * w->shape.ld_staging * (int64_t)sizeof(float)},
    };
    size_t offset = 64;
    w->kept = (attni_kept *)(void *)base;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *const at = base == NULL ? NULL : base + offset;
        memcpy(parts[i].pointer, &at, sizeof at);
        offset += (size_t)attni_round_up(parts[i].bytes, 64);
    }
    return offset + tile_rows_carve(&w->rows, base == NULL ? NULL : base + offset, rows);
}

/* ---------------------------------------------------------------- queries */

/* Q^T of one sub: rows become columns, dims in pairs. Absent rows hold zeros. */
static void load_queries(const attni_job *job, const attni_tile *tile, const amx_scratch *w, int64_t sub) {
    const int64_t first = tile->row_begin + sub * FORWARD_SUB_ROWS, ld = w->shape.ld_staging,
                  pairs = 16 * w->shape.qk_steps;
    float *q = w->q + sub * FORWARD_SUB_ROWS * pairs;
    for (int64_t v = 0; v < FORWARD_NV; v++) {
        for (int64_t lane = 0; lane < SIMD_LANES; lane++) {
            const int64_t row = first + v * SIMD_LANES + lane;
            float *to = w->staging + lane * ld;
            if (row < tile->row_end)
                simd_pack_row(ATTN_BF16, attni_q_row(job, tile, row), to, job->p->dim_qk);
            else
                memset(to, 0, (size_t)pairs * sizeof(float));
        }
        for (int64_t d = 0; d < pairs; d += SIMD_LANES)
            simd_transpose(w->staging + d, ld, q + d * FORWARD_SUB_ROWS + v * SIMD_LANES, FORWARD_SUB_ROWS);
    }
}

/* ---------------------------------------------------------------- keys and values */

/*
 * Where a tile of A lies in a block: by two row tiles, [step along the summed axis][row tile], so that a
 * product streams through its operand; the last row tile, if their number is odd, by itself.
 */
static int64_t tile_at(int64_t row_tiles, int64_t steps, int64_t row_tile, int64_t step) {
    const int64_t pair = row_tile / 2 * 2;
    return (pair * steps + step * attni_min(2, row_tiles - pair) + row_tile % 2) * TILE_BYTES;
}

/* A first block comes from far away, row by row: K some keys ahead, V while K is converted. */
#define KEYS_AHEAD 16
static void prefetch_row(const uint16_t *row, int64_t dim) {
    for (int64_t d = 0; d < dim; d += 32) simd_prefetch_far(row + d);
}

/* K of a block, rows of keys; zeros up to a multiple of STEP_KEYS. */
static void load_keys(const attni_job *job, const attni_tile *tile, const amx_scratch *w, int64_t key,
                      int64_t count, char *to) {
    const int64_t steps = w->shape.qk_steps, dim = job->p->dim_qk;
    for (int64_t j = 0; j < attni_round_up(count, STEP_KEYS); j++) {
        const uint16_t *from = j < count ? attni_k_row(job, tile, key + j) : NULL;
        if (j + KEYS_AHEAD < count) prefetch_row(attni_k_row(job, tile, key + j + KEYS_AHEAD), dim);
        if (j < count) prefetch_row(attni_v_row(job, tile, key + j), job->p->dim_v);
        char *row = to + tile_at(FORWARD_KEYS / 16, steps, j / 16, 0) + j % 16 * 64;
        for (int64_t d = 0; d < dim; d += 32, row += 2 * TILE_BYTES) {
            const __mmask32 here = (__mmask32)((1ull << attni_min(32, dim - d)) - 1);
            if (from == NULL)
                _mm512_storeu_si512(row, _mm512_setzero_si512());
            else if (dim - d >= 32)
                _mm512_storeu_si512(row, _mm512_loadu_si512(from + d));
            else
                _mm512_storeu_si512(row, _mm512_maskz_loadu_epi16(here, from + d));
        }
    }
}

/* V^T of count keys from `in_block` on, at most STEP_KEYS: rows of dims, keys in pairs. */
static void load_values(const attni_job *job, const attni_tile *tile, const amx_scratch *w, int64_t key,
                        int64_t count, int64_t in_block, char *to) {
    const int64_t dim = job->p->dim_v, tiles = w->shape.v_tiles;
    const uint16_t *rows[STEP_KEYS];
    for (int64_t j = 0; j < STEP_KEYS; j++) rows[j] = attni_v_row(job, tile, key + attni_min(j, count - 1));
    for (int64_t t = 0; t < tiles; t++) {
        const __mmask16 here = (__mmask16)((1u << attni_min(16, dim - 16 * t)) - 1);
        float pairs[16 * SIMD_LANES];
        const bool whole = count == STEP_KEYS && here == 0xffff;
        for (int64_t j = 0; j < STEP_KEYS; j += 2) {
            const __mmask16 low = j < count ? here : 0, high = j + 1 < count ? here : 0;
            const uint16_t *first = rows[j] + 16 * t, *second = rows[j + 1] + 16 * t;
            const __m512i a = _mm512_cvtepu16_epi32(whole ? _mm256_loadu_si256((const void *)first)
                                                          : _mm256_maskz_loadu_epi16(low, first));
            const __m512i b = _mm512_cvtepu16_epi32(whole ? _mm256_loadu_si256((const void *)second)
                                                          : _mm256_maskz_loadu_epi16(high, second));
            _mm512_storeu_si512(pairs + j / 2 * SIMD_LANES, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
        }
        float *at = (float *)(void *)(to + tile_at(tiles, FORWARD_KEYS / STEP_KEYS, t, in_block / STEP_KEYS));
        simd_transpose(pairs, SIMD_LANES, at, SIMD_LANES);
    }
}

static int64_t slot_of(const amx_scratch *w, int64_t block) { return attni_min(block, w->kept->slots - 1); }

static char *slot_panels(const amx_scratch *w, int64_t block) {
    return w->kept->blocks + slot_of(w, block) * slot_bytes(&w->shape);
}

static bool block_is_here(const amx_scratch *w, int64_t block) {
    return atomic_load_explicit(&w->kept->tags[slot_of(w, block)], memory_order_acquire) == block;
}

/* Converts the block at key, if no tile has yet; all of it, as another tile may need more than this one. */
static void take_block(const attni_job *job, const attni_tile *tile, const amx_scratch *w, int64_t key) {
    const int64_t block = key / FORWARD_KEYS, count = attni_min(FORWARD_KEYS, tile->sequence.k_len - key);
    atomic_llong *tag = &w->kept->tags[slot_of(w, block)];
    for (;; attni_yield()) { /* while another task converts it */
        long long held = atomic_load_explicit(tag, memory_order_acquire);
        if (held == block) return;
        if (held != ATTNI_SLOT_TAKEN &&
            atomic_compare_exchange_strong_explicit(tag, &held, ATTNI_SLOT_TAKEN, memory_order_relaxed,
                                                    memory_order_relaxed))
            break;
    }
    TILE_TAKEN();
    char *panels = slot_panels(w, block);
    load_keys(job, tile, w, key, count, panels);
    for (int64_t j = 0; j < count; j += STEP_KEYS)
        load_values(job, tile, w, key + j, attni_min(STEP_KEYS, count - j), j,
                    panels + slot_k_bytes(&w->shape));
    atomic_store_explicit(tag, block, memory_order_release);
}

#endif
