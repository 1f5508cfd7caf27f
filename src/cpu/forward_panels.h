/*
 * A forward tile's memory, and how tensors get into it: queries and keys transposed, values cut into strips, 16-bit
 * numbers converted; and what is prefetched meanwhile. Compiled once per instruction set.
 */
#ifndef ATTNI_FORWARD_PANELS_H
#define ATTNI_FORWARD_PANELS_H

#include <string.h>

#include "cpu/forward_scores.h"

/* Units that a product's loop takes at once; dims and keys are padded to it, so that there is no remainder. */
#define FORWARD_STEP (FORWARD_MR / SIMD_PAIR % 4 == 0 ? 4 : FORWARD_MR / SIMD_PAIR % 2 == 0 ? 2 : 1)
/* How many of SIMD_LANES transposed keys lie side by side in the K panel. */
#define FORWARD_CHUNK                                                                                        \
    (FORWARD_MR % SIMD_LANES == 0 ? SIMD_LANES : SIMD_LANES % FORWARD_MR == 0 ? FORWARD_MR : 1)

/*
 * What will be needed soon is brought to L2 while a block is computed: rows of one head lie far apart in memory, where
 * the hardware does not look ahead. The next block's K and V; on a sub's first block the next sub's queries, on its
 * last one its rows of O. A few lines with each register tile: in bursts of whole rows they fill the core's line
 * buffers, and the products wait (measured beside a busy hardware thread: the first product 8% slower).
 */
#define AHEAD_EVERY 4 /* register tiles from one step of prefetching to the next */

typedef enum ahead_source { AHEAD_K, AHEAD_V, AHEAD_Q, AHEAD_O, AHEAD_SOURCES } ahead_source;

typedef struct ahead_rows {
    const char *base;    /* of K and V: row 0; of Q and O: none, as their rows are asked for one by one */
    int64_t stride;      /* bytes from row to row of K and V */
    int64_t row, end;
    int64_t lines;       /* of a row */
    int64_t line;        /* the next one of this row */
    int64_t a_step;      /* lines to prefetch with a register tile */
} ahead_rows;

/* A thread's memory while it computes a tile. */
typedef struct forward_scratch {
    float *q;       /* Q^T: subs of [unit][row] */
    float *o;       /* O^T: subs of [dim][row], dims to a multiple of FORWARD_MR */
    float *k, *v;   /* panels of this block (forward_shape) */
    float *slots;   /* the kept blocks: K panel, V panel */
    int64_t *tags;  /* which block a slot holds, from key 0 on; -1: none */
    attni_kept *kept;
    float *s;       /* S^T, then P^T in units: [key][row] of one sub */
    float *staging; /* SIMD_LANES rows as they come from or go to memory */
    ahead_rows ahead[AHEAD_SOURCES];
    tile_rows rows;
} forward_scratch;

/*
 * Sizes of a tile's panels in floats (units). K and V lie in the order in which a register tile reads them, so that
 * one pointer reaches all and the hardware's prefetcher sees one stream:
 *
 *     K panel   [key / FORWARD_MR][unit of dim][FORWARD_MR keys]
 *     V panel   [dim / FORWARD_MR][key / SIMD_PAIR][FORWARD_MR dims]
 */
typedef struct forward_shape {
    int64_t units_qk;   /* dim_qk in units, to a multiple of FORWARD_STEP */
    int64_t dim_v;      /* to a multiple of FORWARD_MR */
    int64_t ld_v;       /* FORWARD_MR dims of V to the next; off powers of two, which share cache sets */
    int64_t ld_staging;
} forward_shape;

SIMD_INLINE forward_shape forward_shape_of(int64_t dim_qk, int64_t dim_v) {
    forward_shape f;
    f.units_qk = attni_round_up((dim_qk + SIMD_PAIR - 1) / SIMD_PAIR, FORWARD_STEP);
    f.dim_v = attni_round_up(dim_v, FORWARD_MR);
    f.ld_v = FORWARD_KEYS / SIMD_PAIR * FORWARD_MR + 16;
    f.ld_staging = attni_round_up(attni_max(f.units_qk, f.dim_v), SIMD_LANES) + SIMD_LANES;
    return f;
}

/* Floats of a slot's K panel, and of the whole slot. */
SIMD_INLINE int64_t slot_k_floats(const forward_shape *f) { return FORWARD_KEYS * f->units_qk; }
SIMD_INLINE int64_t slot_floats(const forward_shape *f) {
    return slot_k_floats(f) + f->dim_v / FORWARD_MR * f->ld_v;
}

/* Carves the scratch; with a null base it only measures. */
static size_t forward_carve(forward_scratch *w, char *base, int64_t tile_rows_count, int64_t slots,
                            int64_t dim_qk, int64_t dim_v) {
    const forward_shape f = forward_shape_of(dim_qk, dim_v);
    const int64_t rows = attni_round_up(tile_rows_count, FORWARD_SUB_ROWS);
    const int64_t floats[5] = {slots * slot_floats(&f), rows * f.units_qk, rows * f.dim_v,
                               FORWARD_KEYS * FORWARD_SUB_ROWS, SIMD_LANES * f.ld_staging};
    float **const parts[5] = {&w->slots, &w->q, &w->o, &w->s, &w->staging};
    size_t offset = 64;
    w->kept = (attni_kept *)(void *)base;
    w->tags = base == NULL ? NULL : (int64_t *)(void *)(base + offset);
    offset += (size_t)attni_round_up(slots, 8) * sizeof(int64_t);
    for (int i = 0; i < 5; i++) {
        *parts[i] = base == NULL ? NULL : (float *)(void *)(base + offset);
        offset += (size_t)attni_round_up(floats[i], 16) * sizeof(float);
    }
    return offset + tile_rows_carve(&w->rows, base == NULL ? NULL : base + offset, rows);
}

static size_t forward_scratch_bytes(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    forward_scratch w;
    return forward_carve(&w, NULL, rows, slots, dim_qk, dim_v);
}

/*
 * A file with a product of its own (FORWARD_OWN_PRODUCT, with multiply_tile and this function, before it includes
 * forward_body.h) may put rows of units, an even number, of so many lanes and stride apart, into another order.
 */
#ifndef FORWARD_OWN_PRODUCT
SIMD_INLINE void arrange(float *x, int64_t rows, int64_t lanes, int64_t stride) {
    (void)x, (void)rows, (void)lanes, (void)stride;
}
#endif

/* ---------------------------------------------------------------- load */

/* Q^T of one sub: rows become lanes. Absent rows hold zeros. */
static void load_queries(const attni_job *job, const attni_tile *tile, int64_t first, int64_t count,
                         const forward_shape *f, float *staging, float *q) {
    for (int64_t v = 0; v < FORWARD_NV; v++) {
        for (int64_t lane = 0; lane < SIMD_LANES; lane++) {
            const int64_t row = v * SIMD_LANES + lane;
            float *to = staging + lane * f->ld_staging;
            if (row < count)
                simd_pack_row(job->p->dtype_q, attni_q_row(job, tile, first + row), to, job->p->dim_qk);
            else
                memset(to, 0, (size_t)attni_round_up(f->units_qk, SIMD_LANES) * sizeof(float));
        }
        float block[SIMD_LANES * SIMD_LANES];
        for (int64_t d = 0; d < f->units_qk; d += SIMD_LANES) {
            simd_transpose(staging + d, f->ld_staging, block, SIMD_LANES);
            const int64_t n = attni_min(SIMD_LANES, f->units_qk - d);
            for (int64_t i = 0; i < n; i++)
                vf_store(q + (d + i) * FORWARD_SUB_ROWS + v * SIMD_LANES, vf_load(block + i * SIMD_LANES));
        }
    }
    arrange(q, f->units_qk, FORWARD_SUB_ROWS, FORWARD_SUB_ROWS);
}

/* SIMD_LANES keys to their place in the K panel; those beyond count are zeros. */
static void pack_keys(const attni_job *job, const attni_tile *tile, int64_t key, int64_t count,
                      const forward_shape *f, float *staging, float *k) {
    const attn_problem *p = job->p;
    const float *from = staging;
    int64_t ld = f->ld_staging;
    if (SIMD_PAIR == 1 && p->dtype_kv == ATTN_F32 && p->dim_qk % SIMD_LANES == 0 && count >= SIMD_LANES) {
        from = attni_k_row(job, tile, key);
        ld = p->k.seqlen;
    } else {
        for (int64_t i = 0; i < SIMD_LANES; i++) {
            if (i < count)
                simd_pack_row(p->dtype_kv, attni_k_row(job, tile, key + i), staging + i * ld, p->dim_qk);
            else
                memset(staging + i * ld, 0, (size_t)attni_round_up(f->units_qk, SIMD_LANES) * sizeof(float));
        }
    }
    float block[SIMD_LANES * SIMD_LANES];
    for (int64_t d = 0; d < f->units_qk; d += SIMD_LANES) {
        const int64_t n = attni_min(SIMD_LANES, f->units_qk - d);
        if (FORWARD_MR == SIMD_LANES && n == SIMD_LANES) {
            simd_transpose(from + d, ld, k + d * FORWARD_MR, FORWARD_MR);
            continue;
        }
        simd_transpose(from + d, ld, block, SIMD_LANES);
        for (int64_t c = 0; c < SIMD_LANES; c += FORWARD_CHUNK) {
            float *to = k + c / FORWARD_MR * FORWARD_MR * f->units_qk + d * FORWARD_MR + c % FORWARD_MR;
            for (int64_t i = 0; i < n; i++)
                memcpy(to + i * FORWARD_MR, block + i * SIMD_LANES + c, FORWARD_CHUNK * sizeof(float));
        }
    }
}

/* SIMD_PAIR keys to their place in the V panel; those beyond count are zeros. */
static void pack_values(const attni_job *job, const attni_tile *tile, int64_t key, int64_t count,
                        const forward_shape *f, float *staging, float *v) {
    const attn_problem *p = job->p;
    const void *rows[2] = {NULL, NULL};
    for (int64_t i = 0; i < SIMD_PAIR && i < count; i++) rows[i] = attni_v_row(job, tile, key + i);
    const float *from = staging;
    if (SIMD_PAIR == 1 && p->dtype_kv == ATTN_F32 && p->dim_v % FORWARD_MR == 0 && count > 0) {
        from = rows[0];
    } else {
        if (count > 0) simd_pack_values(p->dtype_kv, rows, staging, p->dim_v);
        const int64_t written = count > 0 ? p->dim_v : 0;
        memset(staging + written, 0, (size_t)(f->dim_v - written) * sizeof(float));
    }
    for (int64_t d = 0; d < f->dim_v; d += FORWARD_MR, v += f->ld_v)
        memcpy(v, from + d, FORWARD_MR * sizeof(float));
}

/* Panels of keys [key, key + count), with zeros up to a multiple of FORWARD_MR. */
static void load_keys(const attni_job *job, const attni_tile *tile, int64_t key, int64_t count,
                      const forward_shape *f, forward_scratch *w) {
    const int64_t padded = attni_round_up(count, FORWARD_MR);
    for (int64_t j = 0; j < padded; j += SIMD_LANES)
        pack_keys(job, tile, key + j, count - j, f, w->staging,
                  w->k + j / FORWARD_MR * FORWARD_MR * f->units_qk + j % FORWARD_MR);
    for (int64_t j = 0; j < padded; j += SIMD_PAIR)
        pack_values(job, tile, key + j, count - j, f, w->staging, w->v + j / SIMD_PAIR * FORWARD_MR);
    arrange(w->k, padded / FORWARD_MR * f->units_qk, FORWARD_MR, FORWARD_MR);
    for (int64_t d = 0; d < f->dim_v; d += FORWARD_MR)
        arrange(w->v + d / FORWARD_MR * f->ld_v, padded / SIMD_PAIR, FORWARD_MR, FORWARD_MR);
}

/* Where block `block` is kept. */
SIMD_INLINE int64_t slot_of(const forward_scratch *w, int64_t block) {
    return attni_min(block, w->kept->slots - 1);
}

/* Points w->k and w->v at the panels of the block at key (count keys), converting them if no tile has yet. */
static void take_block(const attni_job *job, const attni_tile *tile, int64_t key, int64_t count,
                       const forward_shape *f, forward_scratch *w) {
    const int64_t block = key / FORWARD_KEYS, slot = slot_of(w, block);
    w->k = w->slots + slot * slot_floats(f);
    w->v = w->k + slot_k_floats(f);
    if (w->tags[slot] == block) return;
    /* the whole block, even if this tile needs less of it: a later tile may need more */
    load_keys(job, tile, key,
              w->kept->slots > 1 ? attni_min(FORWARD_KEYS, tile->sequence.k_len - key) : count, f, w);
    w->tags[slot] = block;
}

/* ---------------------------------------------------------------- prefetch */

static void ahead_set(ahead_rows *a, int64_t row, int64_t end, int64_t bytes, int64_t steps) {
    a->row = row;
    a->end = bytes > 0 ? end : row;
    a->line = 0;
    a->lines = attni_ceil_div(bytes, 64);
    a->a_step = attni_ceil_div(attni_max(0, end - row) * a->lines, attni_max(1, steps));
}

/* Plans the prefetch of the block at key (count keys) over so many register tiles. */
static void look_ahead(const attni_job *job, const attni_tile *tile, int64_t key, int64_t count,
                       int64_t steps, const forward_shape *f, forward_scratch *w) {
    ahead_rows *k = &w->ahead[AHEAD_K], *v = &w->ahead[AHEAD_V];
    const int64_t slot = slot_of(w, key / FORWARD_KEYS);
    if (w->tags[slot] == key / FORWARD_KEYS) { /* one row: the panels, or as much of them as there are keys */
        k->base = (const char *)(w->slots + slot * slot_floats(f));
        v->base = k->base + slot_k_floats(f) * 4;
        ahead_set(k, 0, 1, count * f->units_qk * 4, steps);
        ahead_set(v, 0, 1, count * (slot_floats(f) - slot_k_floats(f)) * 4 / FORWARD_KEYS, steps);
    } else {
        const int64_t size = (int64_t)attni_dtype_size(job->p->dtype_kv);
        k->base = count > 0 ? attni_k_row(job, tile, key) : NULL;
        v->base = count > 0 ? attni_v_row(job, tile, key) : NULL;
        k->stride = job->p->k.seqlen * size;
        v->stride = job->p->v.seqlen * size;
        ahead_set(k, 0, count, job->p->dim_qk * size, steps);
        ahead_set(v, 0, count, job->p->dim_v * size, steps);
    }
}

static const char *ahead_row(const attni_job *job, const attni_tile *tile, const ahead_rows *a, int source) {
    if (source == AHEAD_Q) return attni_q_row(job, tile, a->row);
    if (source == AHEAD_O) return attni_o_row(job, tile, a->row);
    return a->base + a->row * a->stride;
}

/* A register tile's share of what is planned. */
static inline void prefetch_step(const attni_job *job, const attni_tile *tile, forward_scratch *w) {
    for (int source = 0; source < AHEAD_SOURCES; source++) {
        ahead_rows *a = &w->ahead[source];
        for (int64_t left = a->a_step; a->row < a->end && left > 0;) {
            const char *row = ahead_row(job, tile, a, source);
            const int64_t end = attni_min(a->lines, a->line + left);
            left -= end - a->line;
            for (; a->line < end; a->line++) simd_prefetch_far(row + a->line * 64);
            if (a->line < a->lines) break;
            a->line = 0;
            a->row++;
        }
    }
}

#endif
