/*
 * A backward task's memory, and how rows and keys get into it: float32, in the order in which the products read. Compiled
 * once per instruction set, by backward_body.h.
 *
 *     broadcast   K, V         tiles of FORWARD_MR keys: [tile][dim][key of the tile]
 *     lanes       Q^T, dO^T    subs: [sub][dim][row of the sub]
 *     lanes       Q, dO, K     [group or block][strip][row or key][dim of the strip]
 *     sums        dQ, dK, dV   likewise, for each chunk; in the sequence's arrays
 *
 * A strip is BACKWARD_NV vectors of dims or fewer. So whatever a product streams lies in one piece, which the
 * processor's prefetchers follow. Of the keys there is one block at a time, which stays in L2; of the rows all of the
 * chunk, packed when first needed.
 */
#ifndef ATTNI_BACKWARD_PANELS_H
#define ATTNI_BACKWARD_PANELS_H

#include <string.h>

#include "cpu/backward_scores.h"

/* A task's memory; dims to whole vectors of zeros. */
typedef struct backward_scratch {
    float *q_t, *do_t;       /* subs */
    float *q, *dout;         /* strips; rows that are not finite are 0 in q and k */
    float *k, *k_tiles, *v_tiles; /* of the block */
    float *some;             /* rows on their way, a sub at most: [row][dim] */
    float *s, *ds; /* [sub of the group][key of the block][row of the sub]: S then P; dP then dS */
    element_factors e;
    tile_rows rows; /* m: LSE in units of the scores; l: D */
} backward_scratch;

typedef struct backward_shape {
    int64_t dim_qk, dim_v; /* whole vectors */
    int64_t acc_qk, acc_v; /* of dq and dk, of dv */
    int64_t rows, keys; /* of the chunk at most */
} backward_shape;

SIMD_INLINE backward_shape backward_shape_of(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    backward_shape f;
    f.dim_qk = attni_round_up(dim_qk, SIMD_LANES);
    f.dim_v = attni_round_up(dim_v, SIMD_LANES);
    f.acc_qk = attni_round_up(dim_qk, ATTNI_BACKWARD_ALIGN);
    f.acc_v = attni_round_up(dim_v, ATTNI_BACKWARD_ALIGN);
    f.rows = attni_round_up(rows, FORWARD_SUB_ROWS);
    f.keys = attni_round_up(keys, BACKWARD_STEP);
    return f;
}

/* Vectors of the next strip of so many dims: strips are of about one width. */
SIMD_INLINE int64_t strip_vectors(int64_t dims) {
    const int64_t vectors = dims / SIMD_LANES;
    return attni_ceil_div(vectors, attni_ceil_div(vectors, BACKWARD_NV));
}

#define BACKWARD_GROUP_ROWS (BACKWARD_GROUP * FORWARD_SUB_ROWS)

/* Rows or keys of the group or block from first on, of all that there are. */
SIMD_INLINE int64_t group_rows(const backward_shape *f, int64_t first) {
    return attni_min(BACKWARD_GROUP_ROWS, f->rows - first);
}
SIMD_INLINE int64_t block_keys(const backward_shape *f, int64_t first) {
    return attni_min(BACKWARD_BLOCK, f->keys - first);
}

/* Carves the scratch; with a null base it only measures. */
static size_t backward_carve(backward_scratch *w, char *base, const backward_shape *f) {
    const int64_t element = BACKWARD_BLOCK * FORWARD_SUB_ROWS;
    const int64_t block = BACKWARD_BLOCK + SIMD_LANES; /* keys come SIMD_LANES at a time */
    const int64_t floats[12] = {f->rows * f->dim_qk,
                                f->rows * f->dim_v,
                                f->rows * f->dim_qk,
                                f->rows * f->dim_v,
                                block * f->dim_qk,
                                block * f->dim_qk,
                                block * f->dim_v,
                                FORWARD_SUB_ROWS * attni_max(f->dim_qk, f->dim_v),
                                BACKWARD_GROUP * element,
                                BACKWARD_GROUP * element,
                                element,
                                element};
    float **const parts[12] = {&w->q_t,     &w->do_t, &w->q, &w->dout, &w->k,     &w->k_tiles,
                               &w->v_tiles, &w->some, &w->s, &w->ds,   &w->e.cap, &w->e.keep};
    size_t offset = 0;
    for (int i = 0; i < 12; i++) {
        *parts[i] = base == NULL ? NULL : (float *)(void *)(base + offset);
        offset += (size_t)attni_round_up(floats[i], 16) * sizeof(float);
    }
    return offset + tile_rows_carve(&w->rows, base == NULL ? NULL : base + offset, f->rows);
}

static size_t backward_scratch_bytes(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    backward_scratch w;
    const backward_shape f = backward_shape_of(rows, keys, dim_qk, dim_v);
    return backward_carve(&w, NULL, &f);
}

/* ---------------------------------------------------------------- load */

static bool row_is_finite(const float *row, int64_t dim) {
    vf sum = vf_zero();
    for (int64_t d = 0; d < dim; d += SIMD_LANES) sum = vf_add(sum, vf_mul(vf_load(row + d), vf_zero()));
    return vf_sum(sum) == 0;
}

/* Row r of strips of so many rows, or zeros. */
static void put_strips(const float *row, int64_t dim, float *strips, int64_t rows, int64_t r) {
    for (int64_t d = 0; d < dim;) {
        const int64_t width = strip_vectors(dim - d) * SIMD_LANES;
        float *to = strips + d * rows + r * width;
        for (int64_t i = 0; i < width; i += SIMD_LANES)
            vf_store(to + i, row == NULL ? vf_zero() : vf_load(row + d + i));
        d += width;
    }
}

/* A sub of [row][dim] turned. */
static void put_sub(const float *some, int64_t dim, float *sub) {
    for (int64_t d = 0; d < dim; d += SIMD_LANES)
        for (int64_t row = 0; row < FORWARD_SUB_ROWS; row += SIMD_LANES)
            simd_transpose(some + row * dim + d, dim, sub + d * FORWARD_SUB_ROWS + row, FORWARD_SUB_ROWS);
}

#define TILE_PART (FORWARD_MR < SIMD_LANES ? FORWARD_MR : SIMD_LANES)

/* SIMD_LANES keys of [key][dim] into tiles, from key `first` of them on. */
static void put_tiles(const float *some, int64_t dim, float *tiles, int64_t first) {
    float block[SIMD_LANES * SIMD_LANES];
    for (int64_t d = 0; d < dim; d += SIMD_LANES) {
        simd_transpose(some + d, dim, block, SIMD_LANES);
        for (int64_t part = 0; part < SIMD_LANES; part += TILE_PART) {
            const int64_t key = first + part;
            float *to = tiles + (key / FORWARD_MR * dim + d) * FORWARD_MR + key % FORWARD_MR;
            for (int64_t i = 0; i < SIMD_LANES; i++)
                memcpy(to + i * FORWARD_MR, block + i * SIMD_LANES + part, TILE_PART * sizeof(float));
        }
    }
}

static void pack_row(attn_dtype dtype, const void *row, int64_t n, int64_t dim, float *to) {
    if (row == NULL)
        memset(to, 0, (size_t)dim * sizeof(float));
    else
        simd_pack_floats(dtype, row, to, n);
}

/* Panels of a group's rows, from `group` of the chunk on, and D when they are first met. */
static void load_rows(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                      const backward_scratch *w, int64_t group) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    const int64_t begin = tile->row_begin + group,
                  end = attni_min(tile->row_end, begin + BACKWARD_GROUP_ROWS), strip = group_rows(f, group);
    float *q = w->q + group * f->dim_qk, *dout = w->dout + group * f->dim_v;
    for (int64_t sub = begin; sub < end; sub += FORWARD_SUB_ROWS) {
        for (int64_t i = 0; i < FORWARD_SUB_ROWS; i++) {
            const int64_t row = sub + i;
            float *some = w->some + i * f->dim_qk;
            if (row + BACKWARD_AHEAD < end)
                prefetch_row(attni_q_row(job, tile, row + BACKWARD_AHEAD), p->dim_qk, p->dtype_q);
            pack_row(p->dtype_q, row < end ? attni_q_row(job, tile, row) : NULL, p->dim_qk, f->dim_qk, some);
            if (row < end)
                put_strips(row_is_finite(some, f->dim_qk) ? some : NULL, f->dim_qk, q, strip, row - begin);
        }
        put_sub(w->some, f->dim_qk, w->q_t + (sub - tile->row_begin) * f->dim_qk);
        for (int64_t i = 0; i < FORWARD_SUB_ROWS; i++) {
            const int64_t row = sub + i;
            float *some = w->some + i * f->dim_v;
            if (row + BACKWARD_AHEAD < end) {
                prefetch_row(attni_dout_row(job, tile, row + BACKWARD_AHEAD), p->dim_v, p->dtype_o);
                if (chunk->first)
                    prefetch_row(attni_o_row(job, tile, row + BACKWARD_AHEAD), p->dim_v, p->dtype_o);
            }
            pack_row(p->dtype_o, row < end ? attni_dout_row(job, tile, row) : NULL, p->dim_v, f->dim_v, some);
            if (row >= end) continue;
            put_strips(some, f->dim_v, dout, strip, row - begin);
            if (chunk->first) sum_row(job, chunk, row);
        }
        put_sub(w->some, f->dim_v, w->do_t + (sub - tile->row_begin) * f->dim_v);
    }
}

/* Panels of these keys of the block, whole steps, zeros where there are none. */
static void load_keys(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                      const backward_scratch *w, int64_t block, key_range keys) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    const int64_t end = attni_min(keys.end, chunk->key_end - chunk->key_begin), strip = block_keys(f, block);
    for (int64_t first = keys.begin; first < keys.end; first += SIMD_LANES) {
        for (int64_t i = 0; i < SIMD_LANES; i++) {
            const int64_t j = first + i, key = chunk->key_begin + j;
            float *some = w->some + i * f->dim_qk;
            if (j + BACKWARD_AHEAD < end)
                prefetch_row(attni_k_row(job, tile, key + BACKWARD_AHEAD), p->dim_qk, p->dtype_kv);
            pack_row(p->dtype_kv, j < end ? attni_k_row(job, tile, key) : NULL, p->dim_qk, f->dim_qk, some);
            if (j < keys.end)
                put_strips(row_is_finite(some, f->dim_qk) ? some : NULL, f->dim_qk, w->k, strip, j - block);
        }
        put_tiles(w->some, f->dim_qk, w->k_tiles, first - block);
        for (int64_t i = 0; i < SIMD_LANES; i++) {
            const int64_t j = first + i, key = chunk->key_begin + j;
            if (j + BACKWARD_AHEAD < end)
                prefetch_row(attni_v_row(job, tile, key + BACKWARD_AHEAD), p->dim_v, p->dtype_kv);
            pack_row(p->dtype_kv, j < end ? attni_v_row(job, tile, key) : NULL, p->dim_v, f->dim_v,
                     w->some + i * f->dim_v);
        }
        put_tiles(w->some, f->dim_v, w->v_tiles, first - block);
    }
}

#endif
