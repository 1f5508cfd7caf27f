/*
 * A backward task's memory, and how rows and keys get into it: float32 panels, Q and dO transposed too. Compiled once
 * per instruction set, by backward_body.h.
 */
#ifndef ATTNI_BACKWARD_PANELS_H
#define ATTNI_BACKWARD_PANELS_H

#include <string.h>

#include "cpu/backward_scores.h"

/* A task's memory. Panels are float32 with dims to whole vectors of zeros. */
typedef struct backward_scratch {
    float *q_t, *do_t;   /* [sub][dim][row of the sub] */
    float *q, *dout;     /* [row][dim] */
    float *k, *v;        /* [key][dim] */
    float *k_clean;      /* a block of k with zeros for rows that are not finite */
    float *s, *ds;       /* [sub of the group][key of the block][row of the sub]: S then P; dP then dS */
    element_factors e;
    tile_rows rows;      /* m: LSE in units of the scores; l: D */
} backward_scratch;

/* Distances between rows, in floats; those of panels lie off powers of two, which share cache sets. */
typedef struct backward_shape {
    int64_t dim_qk, dim_v;   /* whole vectors */
    int64_t ld_qk, ld_v;     /* of panels */
    int64_t acc_qk, acc_v;   /* of dq and dk, of dv */
} backward_shape;

SIMD_INLINE backward_shape backward_shape_of(int64_t dim_qk, int64_t dim_v) {
    backward_shape f;
    f.dim_qk = attni_round_up(dim_qk, SIMD_LANES);
    f.dim_v = attni_round_up(dim_v, SIMD_LANES);
    f.ld_qk = f.dim_qk + SIMD_LANES;
    f.ld_v = f.dim_v + SIMD_LANES;
    f.acc_qk = attni_round_up(dim_qk, ATTNI_BACKWARD_ALIGN);
    f.acc_v = attni_round_up(dim_v, ATTNI_BACKWARD_ALIGN);
    return f;
}

/* Carves the scratch; with a null base it only measures. */
static size_t backward_carve(backward_scratch *w, char *base, int64_t rows, int64_t keys, int64_t dim_qk,
                             int64_t dim_v) {
    const backward_shape f = backward_shape_of(dim_qk, dim_v);
    const int64_t element = BACKWARD_BLOCK * FORWARD_SUB_ROWS;
    rows = attni_round_up(rows, FORWARD_SUB_ROWS);
    keys = attni_round_up(keys, BACKWARD_STEP);
    const int64_t floats[11] = {rows * f.dim_qk,
                                rows * f.dim_v,
                                rows * f.ld_qk,
                                rows * f.ld_v,
                                keys * f.ld_qk,
                                keys * f.ld_v,
                                BACKWARD_BLOCK * f.ld_qk,
                                BACKWARD_GROUP * element,
                                BACKWARD_GROUP * element,
                                element,
                                element};
    float **const parts[11] = {&w->q_t,     &w->do_t, &w->q,  &w->dout,  &w->k,     &w->v,
                               &w->k_clean, &w->s,    &w->ds, &w->e.cap, &w->e.keep};
    size_t offset = 0;
    for (int i = 0; i < 11; i++) {
        *parts[i] = base == NULL ? NULL : (float *)(void *)(base + offset);
        offset += (size_t)attni_round_up(floats[i], 16) * sizeof(float);
    }
    return offset + tile_rows_carve(&w->rows, base == NULL ? NULL : base + offset, rows);
}

static size_t backward_scratch_bytes(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    backward_scratch w;
    return backward_carve(&w, NULL, rows, keys, dim_qk, dim_v);
}

/* ---------------------------------------------------------------- load */

static bool row_is_finite(const float *row, int64_t dim) {
    vf sum = vf_zero();
    for (int64_t d = 0; d < dim; d += SIMD_LANES) sum = vf_add(sum, vf_mul(vf_load(row + d), vf_zero()));
    return vf_sum(sum) == 0;
}

/* The transposed copy of a panel's rows: subs of [dim][row of the sub]. */
static void transpose_rows(const float *panel, int64_t ld, int64_t rows, int64_t dim, float *to) {
    for (int64_t row = 0; row < rows; row += SIMD_LANES) {
        float *sub = to + row / FORWARD_SUB_ROWS * FORWARD_SUB_ROWS * dim + row % FORWARD_SUB_ROWS;
        for (int64_t d = 0; d < dim; d += SIMD_LANES)
            simd_transpose(panel + row * ld + d, ld, sub + d * FORWARD_SUB_ROWS, FORWARD_SUB_ROWS);
    }
}

static void load_rows(const attni_job *job, const attni_chunk *chunk, const backward_shape *f,
                      backward_scratch *w) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    const int64_t count = tile->row_end - tile->row_begin, padded = attni_round_up(count, FORWARD_SUB_ROWS);
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = tile->row_begin + i;
        if (i + BACKWARD_AHEAD < count) {
            prefetch_row(attni_q_row(job, tile, row + BACKWARD_AHEAD), p->dim_qk, p->dtype_q);
            prefetch_row(attni_dout_row(job, tile, row + BACKWARD_AHEAD), p->dim_v, p->dtype_o);
        }
        simd_pack_floats(p->dtype_q, attni_q_row(job, tile, row), w->q + i * f->ld_qk, p->dim_qk);
        simd_pack_floats(p->dtype_o, attni_dout_row(job, tile, row), w->dout + i * f->ld_v, p->dim_v);
    }
    for (int64_t i = count; i < padded; i++) {
        memset(w->q + i * f->ld_qk, 0, (size_t)f->dim_qk * sizeof(float));
        memset(w->dout + i * f->ld_v, 0, (size_t)f->dim_v * sizeof(float));
    }
    transpose_rows(w->q, f->ld_qk, padded, f->dim_qk, w->q_t);
    transpose_rows(w->dout, f->ld_v, padded, f->dim_v, w->do_t);
    for (int64_t i = 0; i < count; i++)
        if (!row_is_finite(w->q + i * f->ld_qk, f->dim_qk))
            memset(w->q + i * f->ld_qk, 0, (size_t)f->dim_qk * sizeof(float));
}

/* Panels of these keys, whole steps, zeros where there are none; whether all of K is finite. */
static bool load_keys(const attni_job *job, const attni_chunk *chunk, key_range keys, const backward_shape *f,
                      const backward_scratch *w) {
    const attn_problem *p = job->p;
    const attni_tile *tile = &chunk->tile;
    const int64_t last = attni_min(keys.end, chunk->key_end - chunk->key_begin);
    bool finite = true;
    for (int64_t j = keys.begin; j < last; j++) {
        const int64_t key = chunk->key_begin + j;
        if (j + BACKWARD_AHEAD < last) {
            prefetch_row(attni_k_row(job, tile, key + BACKWARD_AHEAD), p->dim_qk, p->dtype_kv);
            prefetch_row(attni_v_row(job, tile, key + BACKWARD_AHEAD), p->dim_v, p->dtype_kv);
        }
        simd_pack_floats(p->dtype_kv, attni_k_row(job, tile, key), w->k + j * f->ld_qk, p->dim_qk);
        simd_pack_floats(p->dtype_kv, attni_v_row(job, tile, key), w->v + j * f->ld_v, p->dim_v);
        finite = finite && row_is_finite(w->k + j * f->ld_qk, f->dim_qk);
    }
    for (int64_t j = last; j < keys.end; j++) {
        memset(w->k + j * f->ld_qk, 0, (size_t)f->dim_qk * sizeof(float));
        memset(w->v + j * f->ld_v, 0, (size_t)f->dim_v * sizeof(float));
    }
    return finite;
}

/* The block's keys for dQ, 0 where they are not finite. */
static const float *clean_keys(const float *k, int64_t count, const backward_shape *f, float *clean) {
    for (int64_t j = 0; j < count; j++) {
        const size_t bytes = (size_t)f->dim_qk * sizeof(float);
        if (row_is_finite(k + j * f->ld_qk, f->dim_qk))
            memcpy(clean + j * f->ld_qk, k + j * f->ld_qk, bytes);
        else
            memset(clean + j * f->ld_qk, 0, bytes);
    }
    return clean;
}

#endif
