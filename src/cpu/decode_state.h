/*
 * What a task of decode keeps between blocks of keys: the rows of its heads, with the sums that they have so far, in
 * its scratch memory. Compiled once per instruction set.
 */
#ifndef ATTNI_DECODE_STATE_H
#define ATTNI_DECODE_STATE_H

#include "cpu/decode_ahead.h"
#include "cpu/score_math.h"

/* 2 * SIMD_LANES numbers as two vectors; a layer may have a cheaper order than memory's for bf16. */
#ifndef SIMD_EVEN_ODD
SIMD_INLINE void simd_load_two(attn_dtype dtype, const void *p, vf x[2]) {
    const char *bytes = p;
    x[0] = simd_load(dtype, bytes);
    x[1] = simd_load(dtype, bytes + SIMD_LANES * (dtype == ATTN_F32 ? 4 : 2));
}

SIMD_INLINE void simd_load_two_part(attn_dtype dtype, const void *p, int64_t n, vf x[2]) {
    const char *bytes = p;
    const int64_t first = attni_min(n, SIMD_LANES);
    x[0] = simd_load_part(dtype, bytes, first);
    x[1] = n > first ? simd_load_part(dtype, bytes + SIMD_LANES * (dtype == ATTN_F32 ? 4 : 2), n - first)
                     : vf_zero();
}

SIMD_INLINE void simd_in_order(attn_dtype dtype, vf x[2]) {
    (void)dtype;
    (void)x;
}

SIMD_INLINE void simd_out_of_order(attn_dtype dtype, vf x[2]) {
    (void)dtype;
    (void)x;
}
#endif

/* 1: 16-bit dtypes share their code, and 2 to 4 rows run as eight. */
#ifndef DECODE_COMPACT
#define DECODE_COMPACT 0
#endif

#define DECODE_TILE_ROWS 64
#define DECODE_STEP (2 * SIMD_LANES) /* dims that are loaded at once */
#define SIMD_SUMS 16                 /* vectors of sums in flight: of a few keys and all rows */

/*
 * The state of up to ATTNI_DECODE_ROWS rows of one head; heads with more rows have several. It has mostly left
 * L1 when the head's next block comes, so what a block touches takes as few lines as it can.
 */
typedef struct decode_head {
    _Alignas(64) int64_t head; /* of the task's */
    int64_t row_begin, rows;   /* of the tile's */
    float *q; /* [DECODE_STEP dims][row][DECODE_STEP], in the order of simd_load_two */
    float *o; /* [row][dim], dims to a multiple of DECODE_STEP, in that order too */
    _Alignas(64) float reference[ATTNI_DECODE_ROWS]; /* m, or 0 before a key was seen */
    float limit[ATTNI_DECODE_ROWS];                  /* scores beyond it move m */
    float l[ATTNI_DECODE_ROWS * SIMD_LANES];         /* a row's sum, in parts */
    float m[ATTNI_DECODE_ROWS];                      /* in units of the scores */
} decode_head;

/* The keys of a piece that its rows see. */
typedef struct decode_range {
    int64_t begin, end;           /* that any row sees; from the beginning of a block */
    int64_t full_begin, full_end; /* that all rows see */
    int64_t row_begin[DECODE_TILE_ROWS], row_end[DECODE_TILE_ROWS];
} decode_range;

typedef struct decode_scratch {
    decode_head *heads;
    int64_t count;
    bool down;  /* this block's heads come last to first */
    float *s;   /* two of [row][key] */
    char *last; /* the rows of a block that is not whole */
    int64_t slots, ld_o;
    score_units units;
    decode_panel k, v; /* from the first key that any row sees */
    const attni_decode_pieces *pieces;
    attni_decode_piece next; /* if more */
    bool asked, more;
    decode_range seen, seen_next;
} decode_scratch;

/* Rows that the loops are compiled for, which a head of so many rows takes. */
static int64_t decode_slots(int64_t rows) {
    return rows == 1 ? 1 : rows <= 4 && !DECODE_COMPACT ? 4 : ATTNI_DECODE_ROWS;
}

static int64_t decode_head_floats(int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return slots * (attni_round_up(dim_qk, DECODE_STEP) + attni_round_up(dim_v, DECODE_STEP));
}

static int64_t decode_last_floats(int64_t dim_qk, int64_t dim_v) {
    return DECODE_KEYS * attni_round_up(attni_max(dim_qk, dim_v), 16);
}

/* groups: of up to ATTNI_DECODE_ROWS rows a head. */
static size_t decode_scratch_bytes(int64_t heads, int64_t groups, int64_t dim_qk, int64_t dim_v) {
    const int64_t count = heads * groups;
    return (size_t)count * sizeof(decode_head) +
           (size_t)(2 * ATTNI_DECODE_ROWS * DECODE_KEYS + decode_last_floats(dim_qk, dim_v) +
                    count * attni_round_up(decode_head_floats(ATTNI_DECODE_ROWS, dim_qk, dim_v), 16)) *
               sizeof(float);
}

/* The states of each head's rows, a head's together, so that its keys are still in the caches. */
static void decode_carve(decode_scratch *w, char *base, int64_t heads, int64_t rows, int64_t dim_qk,
                         int64_t dim_v) {
    const int64_t groups = attni_ceil_div(rows, ATTNI_DECODE_ROWS);
    w->slots = decode_slots(rows);
    w->ld_o = attni_round_up(dim_v, DECODE_STEP);
    w->count = heads * groups;
    w->heads = (decode_head *)(void *)base;
    w->s = (float *)(void *)(base + w->count * (int64_t)sizeof(decode_head));
    w->last = (char *)(w->s + 2 * ATTNI_DECODE_ROWS * DECODE_KEYS);
    float *floats = w->s + 2 * ATTNI_DECODE_ROWS * DECODE_KEYS + decode_last_floats(dim_qk, dim_v);
    for (int64_t i = 0; i < w->count; i++) {
        decode_head *h = &w->heads[i];
        h->head = i / groups;
        h->row_begin = i % groups * ATTNI_DECODE_ROWS;
        h->rows = attni_min(ATTNI_DECODE_ROWS, rows - h->row_begin);
        h->q = floats;
        h->o = floats + w->slots * attni_round_up(dim_qk, DECODE_STEP);
        floats += attni_round_up(decode_head_floats(w->slots, dim_qk, dim_v), 16);
    }
}

static void set_reference(const decode_scratch *w, decode_head *h, int64_t row, float m) {
    h->m[row] = m;
    h->reference[row] = m == -INFINITY ? 0 : m;
    h->limit[row] = m + w->units.lazy;
}

#endif
