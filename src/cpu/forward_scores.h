/*
 * What happens to scores between the two products of a forward tile: the rows' intervals, masks, and the
 * options (softcap, ALiBi, bias, boolean mask, dropout). Compiled once per instruction set.
 */
#ifndef ATTNI_FORWARD_SCORES_H
#define ATTNI_FORWARD_SCORES_H

#include <string.h>

#include "cpu/score_math.h"

#define FORWARD_SUB_ROWS (FORWARD_NV * SIMD_LANES)
#define FORWARD_SUBS (FORWARD_TILE_ROWS / FORWARD_SUB_ROWS)

/* What a tile knows of each of its rows (lanes). Padding lanes repeat the last row. */
typedef struct tile_rows {
    float *m, *l, *l_rounded;    /* m in units of the scores */
    float *position;             /* here as a float: exact below 2^24 */
    int32_t *begin, *end;        /* the keys that the row sees */
    int64_t *here;               /* its position as a key index */
    uint32_t *dropout_query, *dropout_head;
    int64_t sub_begin[FORWARD_SUBS], sub_end[FORWARD_SUBS];   /* union of the intervals of a sub's rows */
    int64_t full_begin[FORWARD_SUBS], full_end[FORWARD_SUBS]; /* intersection */
    int64_t begin_all, end_all;
    score_units units;
} tile_rows;

/* Scores of one sub in memory: count keys from key0, [key][row], rows first to first + nv vectors. */
typedef struct score_block {
    float *s;
    int64_t key0, count, first;
    int nv;
} score_block;

static size_t tile_rows_carve(tile_rows *r, char *base, int64_t rows) {
    const size_t column = (size_t)attni_round_up(rows, 16);
    void **const narrow[8] = {
        (void **)&r->m,     (void **)&r->l,   (void **)&r->l_rounded,     (void **)&r->position,
        (void **)&r->begin, (void **)&r->end, (void **)&r->dropout_query, (void **)&r->dropout_head};
    for (size_t i = 0; i < 8; i++) *narrow[i] = base == NULL ? NULL : base + i * column * 4;
    r->here = base == NULL ? NULL : (int64_t *)(void *)(base + 8 * column * 4);
    return 10 * column * 4;
}

static void tile_rows_fill(const attni_job *job, const attni_tile *tile, tile_rows *r, int64_t rows) {
    const attni_sequence *s = &tile->sequence;
    r->units = score_units_of(job);
    r->begin_all = INT64_MAX;
    r->end_all = 0;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t row = attni_min(tile->row_begin + i, tile->row_end - 1), sub = i / FORWARD_SUB_ROWS;
        const int64_t position = s->query_start + attni_row_query(job, row);
        int64_t begin, end;
        attni_visible(job->p, s, position, &begin, &end);
        r->m[i] = -INFINITY;
        r->l[i] = r->l_rounded[i] = 0;
        r->here[i] = position - s->key_start;
        r->position[i] = (float)r->here[i];
        r->begin[i] = (int32_t)begin;
        r->end[i] = (int32_t)end;
        r->dropout_query[i] = (uint32_t)position;
        r->dropout_head[i] = (uint32_t)(s->batch * job->p->heads_q + attni_tile_head(job, tile, row));
        if (i % FORWARD_SUB_ROWS == 0) {
            r->sub_begin[sub] = INT64_MAX;
            r->sub_end[sub] = r->full_begin[sub] = 0;
            r->full_end[sub] = INT64_MAX;
        }
        if (begin < end) {
            r->sub_begin[sub] = attni_min(r->sub_begin[sub], begin);
            r->sub_end[sub] = attni_max(r->sub_end[sub], end);
            r->begin_all = attni_min(r->begin_all, begin);
            r->end_all = attni_max(r->end_all, end);
        }
        r->full_begin[sub] = attni_max(r->full_begin[sub], begin);
        r->full_end[sub] = attni_min(r->full_end[sub], end);
    }
}

/* ---------------------------------------------------------------- mask */

SIMD_INLINE int score_needs_mask(const tile_rows *r, const score_block *b) {
    const int64_t sub = b->first / FORWARD_SUB_ROWS;
    return b->key0 < r->full_begin[sub] || b->key0 + b->count > r->full_end[sub];
}

/* -inf where a row does not see a key; the maxima anew. */
static void score_mask(const tile_rows *r, const score_block *b, vf top[]) {
    for (int v = 0; v < b->nv; v++) {
        const int32_t *begin = r->begin + b->first + v * SIMD_LANES,
                      *end = r->end + b->first + v * SIMD_LANES;
        vf highest = vf_set1(-INFINITY);
        for (int64_t j = 0; j < b->count; j++) {
            float *s = b->s + j * FORWARD_SUB_ROWS + v * SIMD_LANES;
            const vf kept =
                vf_select(vi_inside(begin, end, (int32_t)(b->key0 + j)), vf_load(s), vf_set1(-INFINITY));
            vf_store(s, kept);
            highest = vf_max(highest, kept);
        }
        top[v] = highest;
    }
}

/* The same without maxima, over the keys alone that not all of the sub's rows see. */
SIMD_INLINE void score_mask_edges(const tile_rows *r, const score_block *b) {
    const int64_t sub = b->first / FORWARD_SUB_ROWS;
    const int64_t before = attni_max(0, attni_min(r->full_begin[sub] - b->key0, b->count)),
                  after = attni_max(before, attni_min(r->full_end[sub] - b->key0, b->count));
    const score_block parts[2] = {
        {b->s, b->key0, before, b->first, b->nv},
        {b->s + after * FORWARD_SUB_ROWS, b->key0 + after, b->count - after, b->first, b->nv}};
    vf top[FORWARD_NV];
    score_mask(r, &parts[0], top);
    score_mask(r, &parts[1], top);
}

/* ---------------------------------------------------------------- options */

/* Raw products become scores in natural units. */
static void score_options(const attni_job *job, const attni_tile *tile, const tile_rows *r,
                          const score_block *b) {
    const int alibi = (job->options & ATTNI_ALIBI) != 0;
    const int64_t batch_slopes = tile->sequence.batch * job->p->alibi_stride_batch;
    for (int v = 0; v < b->nv; v++) {
        float slope[SIMD_LANES] = {0};
        for (int64_t i = 0; alibi && i < SIMD_LANES; i++) {
            const int64_t row = attni_min(tile->row_begin + b->first + v * SIMD_LANES + i, tile->row_end - 1);
            slope[i] = job->t.alibi_slopes[batch_slopes + attni_tile_head(job, tile, row)];
        }
        const vf slopes = vf_load(slope), here = vf_load(r->position + b->first + v * SIMD_LANES);
        for (int64_t j = 0; j < b->count; j++) {
            float *s = b->s + j * FORWARD_SUB_ROWS + v * SIMD_LANES;
            vf_store(s, score_options_vector(job, vf_load(s), slopes,
                                             vf_sub(here, vf_set1((float)(b->key0 + j)))));
        }
    }
    if (!(job->options & (ATTNI_BIAS | ATTNI_MASK))) return;
    const int64_t rows = attni_min(b->nv * SIMD_LANES, tile->row_end - tile->row_begin - b->first);
    for (int64_t i = 0; i < rows; i++)
        score_row_inputs(job, tile, tile->row_begin + b->first + i, b->key0, b->count, b->s + i,
                         FORWARD_SUB_ROWS);
}

/* ---------------------------------------------------------------- dropout */

/* Philox4x32-10 (philox.h) for the rows of a sub at once: c[word][row] are counters, then random words. */
static void philox_rows(uint32_t key0, uint32_t key1, int64_t rows, uint32_t c[4][FORWARD_SUB_ROWS]) {
    for (int round = 0; round < 10; round++) {
        for (int64_t i = 0; i < rows; i++) {
            const uint64_t a = (uint64_t)ATTNI_PHILOX_M0 * c[0][i], b = (uint64_t)ATTNI_PHILOX_M1 * c[2][i];
            const uint32_t c1 = c[1][i], c3 = c[3][i];
            c[0][i] = (uint32_t)(b >> 32) ^ c1 ^ key0;
            c[1][i] = (uint32_t)b;
            c[2][i] = (uint32_t)(a >> 32) ^ c3 ^ key1;
            c[3][i] = (uint32_t)a;
        }
        key0 += ATTNI_PHILOX_W0;
        key1 += ATTNI_PHILOX_W1;
    }
}

/* Clears dropped probabilities, which lie in units of SIMD_PAIR keys. */
static void score_dropout(const attni_job *job, const attni_tile *tile, const tile_rows *r,
                          const score_block *b) {
    const int64_t rows = b->nv * SIMD_LANES, start = tile->sequence.key_start + b->key0;
    uint32_t c[4][FORWARD_SUB_ROWS];
    for (int64_t j = 0; j < b->count;) {
        const int64_t position = start + j,
                      eighth = position & 7; /* of two's complement: floor for negatives too */
        for (int64_t i = 0; i < rows; i++) {
            c[0][i] = (uint32_t)((position - eighth) / 8);
            c[1][i] = r->dropout_query[b->first + i];
            c[2][i] = r->dropout_head[b->first + i];
            c[3][i] = (uint32_t)job->t.dropout_offset;
        }
        philox_rows((uint32_t)job->t.dropout_seed, (uint32_t)(job->t.dropout_seed >> 32), rows, c);
        for (int64_t e = eighth; e < 8 && j < b->count; e++, j++) {
            const uint32_t *word = c[e / 2];
            const int shift = (int)(e % 2) * 16;
            const uint32_t half =
                SIMD_PAIR == 2 ? (j % 2 != 0 ? 0x0000ffffu : 0xffff0000u) : 0; /* the other key's bits */
            float *s = b->s + j / SIMD_PAIR * FORWARD_SUB_ROWS;
            for (int64_t i = 0; i < rows; i++) {
                uint32_t unit;
                memcpy(&unit, s + i, sizeof unit);
                unit &= ((word[i] >> shift) & 0xffff) >= job->dropout_threshold ? 0xffffffffu : half;
                memcpy(s + i, &unit, sizeof unit);
            }
        }
    }
}

#endif
