/*
 * The contract between the drivers (forward.c, decode.c) and the kernels of each instruction set.
 */
#ifndef ATTNI_CPU_KERNEL_H
#define ATTNI_CPU_KERNEL_H

#include <stdatomic.h>

#include "core/accum.h"
#include "core/internal.h"
#include "core/mask.h"

/* Whatever asks for more than scale, causal mask, window and lengths. */
typedef enum attni_cpu_option {
    ATTNI_SOFTCAP = 1,
    ATTNI_ALIBI = 2,
    ATTNI_BIAS = 4,
    ATTNI_MASK = 8,
    ATTNI_SCALE_FIRST = 16,   /* scale <= 0 (backward: or tiny): applied before masks and maxima */
    ATTNI_SCORE_OPTIONS = 31, /* those that change scores */
    ATTNI_DROPOUT = 32
} attni_cpu_option;

/* One run, as kernels see it. */
typedef struct attni_job {
    const attn_problem *p;
    attn_tensors t;
    int64_t group;
    uint32_t options;           /* attni_cpu_option, or'ed */
    uint32_t dropout_threshold; /* keep where the 16-bit number >= it */
    float dropout_scale;        /* 1/(1 - p) */
    attni_run_kind kind;
    attni_accum accum;          /* ADD: rows (batch, head, query) */
} attni_job;

/* Rows [row_begin, row_end) of (query, head in group), heads fastest, of one batch and a kv head. */
typedef struct attni_tile {
    int64_t index; /* of (batch, kv head): tiles of one index share K and V */
    attni_sequence sequence;
    int64_t head_kv, heads; /* decode: [head_kv, head_kv + heads); forward: one */
    int64_t row_begin, row_end;
} attni_tile;

/* A row is a query of one head of the group. Divisions are slow, and most groups are of one. */
static inline int64_t attni_row_query(const attni_job *job, int64_t row) {
    return job->group == 1 ? row : row / job->group;
}

static inline int64_t attni_tile_head(const attni_job *job, const attni_tile *tile, int64_t row) {
    return job->group == 1 ? tile->head_kv : tile->head_kv * job->group + row % job->group;
}

/*
 * What a task's scratch begins with. Between tiles of one sequence a kernel keeps converted blocks of K and V
 * in so many slots: blocks 0, 1, .. in a slot each, the rest by turns in the last. Where the kernel has
 * block_bytes the slots lie outside of the scratch, and several tasks may share them.
 */
typedef struct attni_kept {
    int64_t index; /* of the sequence that they belong to; -1: none */
    int64_t slots; /* at least 1 */
    char *blocks;      /* of all slots */
    atomic_llong
        *tags; /* which block a slot holds; ATTNI_SLOT_EMPTY, or ATTNI_SLOT_TAKEN while one is converted */
} attni_kept;

enum { ATTNI_SLOT_EMPTY = -1, ATTNI_SLOT_TAKEN = -2 };

/* Forward: computes a tile's rows over all of its keys and emits each (emit.h). */
typedef void (*attni_forward_fn)(const attni_job *job, const attni_tile *tile, void *scratch);

/*
 * Decode, one piece of work: rows 0 to row_end (few) of each of the tile's heads over the keys [key_begin,
 * key_end).
 */
typedef struct attni_decode_piece {
    attni_tile tile;
    int64_t index; /* of the sequence's pieces */
    int64_t key_begin, key_end;
} attni_decode_piece;

/*
 * What becomes of a piece: stored at partial (m[row], l[row], o[row][dim_v] of the first head; the next
 * head's lie stride floats further), or merged into what is there.
 */
typedef struct attni_decode_place {
    attni_accum partial;
    int64_t stride;
    bool merge;
} attni_decode_place;

/*
 * A task's pieces. A kernel asks for the next while the last keys of this one are still to be done, so that
 * the memory never waits: no sooner, or a slow task would keep what others could do.
 */
typedef struct attni_decode_pieces {
    bool (*next)(void *args, attni_decode_piece *piece); /* false: none is left */
    attni_decode_place (*place)(void *args,
                                const attni_decode_piece *piece); /* of a piece that is computed */
    void (*done)(void *args, const attni_decode_piece *piece); /* and in its place */
    void *args;
} attni_decode_pieces;

typedef void (*attni_decode_fn)(const attni_job *job, const attni_decode_pieces *pieces, void *scratch);

/*
 * One head's partial arrays of a piece (m null: of none) merged into those of the pieces before it; then, if
 * emit, the rows of these are emitted.
 */
typedef void (*attni_merge_fn)(const attni_job *job, const attni_tile *tile, attni_accum into,
                               attni_accum piece, bool emit);

/*
 * Backward: one chunk of rows (tile) against one chunk of keys of a sequence, either of which may be empty.
 * dq, dk, dv and delta are arrays of the whole sequence. In dq, dk and dv a chunk begins at its first row or key times
 * the dims rounded up to ATTNI_BACKWARD_ALIGN and has room for a chunk's most rows or keys; how they lie in it is the
 * kernel's own. delta has D of each row. first: nothing was added to these rows and keys yet, delta is unknown and the
 * panels are empty. last: all has been, so gradients are written.
 */
typedef struct attni_chunk {
    attni_tile tile;
    int64_t key_begin, key_end;
    int64_t most_rows, most_keys; /* what the scratch was measured for */
    bool first, last;
    float *dq, *dk, *dv, *delta;
    char *row_panels,
        *key_panels; /* where the kernel has panel_bytes; what first leaves there, later pairs find */
} attni_chunk;

#define ATTNI_BACKWARD_ALIGN 16

typedef void (*attni_backward_fn)(const attni_job *job, const attni_chunk *chunk, void *scratch);

/* Rows of a head that a decode kernel computes at once; more follow in groups of so many. */
#define ATTNI_DECODE_ROWS 8

typedef struct attni_cpu_kernel {
    const char *name;
    const char *op;
    attn_isa isa;
    const char *dtypes;  /* in words */
    bool bf16_only;      /* Q, K and V bf16; backward: O too */
    int32_t tile_rows;   /* forward: rows of the largest tile; decode: most rows; backward: of a chunk */
    int32_t sub_rows;    /* forward: tiles are multiples of this */
    int32_t block_keys;  /* forward: of a slot; backward: of a chunk */
    attni_forward_fn forward;
    attni_decode_fn decode;
    attni_merge_fn merge; /* decode */
    attni_backward_fn backward;
    size_t (*block_bytes)(int64_t dim_qk, int64_t dim_v); /* forward, or null: of a slot; see attni_kept */
    /*
     * backward, or null: of a chunk's rows and keys as the kernel reads them, which are kept between its
     * pairs
     */
    size_t (*panel_bytes)(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v);
    size_t (*scratch_bytes)(int64_t rows_or_heads, int64_t slots_or_keys, int64_t dim_qk, int64_t dim_v);
} attni_cpu_kernel;

extern const attni_cpu_kernel attni_cpu_kernels[];
extern const int32_t attni_cpu_kernel_count;

/* Where a row's LSE stands. */
static inline int64_t attni_lse_index(const attni_job *job, const attni_sequence *s, int64_t head,
                                      int64_t query) {
    const attn_problem *p = job->p;
    if (p->lengths_q == ATTN_LENGTHS_RAGGED) return head * job->t.total_q + s->q_begin + query;
    return (s->batch * p->heads_q + head) * p->seqlen_q + query;
}

/* dbias: packed, 1 for each dimension that the bias is broadcast over. Distances in floats, 0 for those. */
typedef struct attni_bias_shape {
    int64_t batch, heads, queries, count;
} attni_bias_shape;

static inline attni_bias_shape attni_bias_shape_of(const attn_problem *p) {
    const int64_t queries = p->bias.queries == 0 ? 1 : p->seqlen_q,
                  heads = p->bias.heads == 0 ? 1 : p->heads_q;
    const int64_t batch = p->bias.batch == 0 ? 1 : p->batch;
    attni_bias_shape s;
    s.queries = queries == 1 ? 0 : p->seqlen_k;
    s.heads = heads == 1 ? 0 : queries * p->seqlen_k;
    s.batch = batch == 1 ? 0 : heads * queries * p->seqlen_k;
    s.count = batch * heads * queries * p->seqlen_k;
    return s;
}

static inline int64_t attni_bias_row(const attni_bias_shape *s, int64_t batch, int64_t head, int64_t query) {
    return batch * s->batch + head * s->heads + query * s->queries;
}

/* ---------------------------------------------------------------- addresses */

/* Byte address of element i of a tensor of dtype. */
static inline const void *attni_at(const void *base, attn_dtype dtype, int64_t i) {
    return (const char *)base + i * (int64_t)attni_dtype_size(dtype);
}

/* Element index of a row of queries, and of keys, in a tensor of these strides. */
static inline int64_t attni_query_index(const attni_job *job, const attni_tile *tile,
                                        const attn_strides *strides, int64_t row) {
    const attni_sequence *s = &tile->sequence;
    return s->q_batch * strides->batch + (s->q_begin + attni_row_query(job, row)) * strides->seqlen +
           attni_tile_head(job, tile, row) * strides->heads;
}

static inline int64_t attni_key_index(const attni_tile *tile, const attn_strides *strides, int64_t key) {
    const attni_sequence *s = &tile->sequence;
    return s->k_batch * strides->batch + (s->k_begin + key) * strides->seqlen +
           tile->head_kv * strides->heads;
}

static inline void *attni_at_mutable(void *base, attn_dtype dtype, int64_t i) {
    return (char *)base + i * (int64_t)attni_dtype_size(dtype);
}

/* Rows of q, o, k, v, and of their gradients. */
static inline const void *attni_q_row(const attni_job *job, const attni_tile *tile, int64_t row) {
    return attni_at(job->t.q, job->p->dtype_q, attni_query_index(job, tile, &job->p->q, row));
}

static inline void *attni_o_row(const attni_job *job, const attni_tile *tile, int64_t row) {
    return attni_at_mutable(job->t.o, job->p->dtype_o, attni_query_index(job, tile, &job->p->o, row));
}

static inline const void *attni_k_row(const attni_job *job, const attni_tile *tile, int64_t key) {
    return attni_at(job->t.k, job->p->dtype_kv, attni_key_index(tile, &job->p->k, key));
}

static inline const void *attni_v_row(const attni_job *job, const attni_tile *tile, int64_t key) {
    return attni_at(job->t.v, job->p->dtype_kv, attni_key_index(tile, &job->p->v, key));
}

static inline const void *attni_dout_row(const attni_job *job, const attni_tile *tile, int64_t row) {
    return attni_at(job->t.dout, job->p->dtype_o, attni_query_index(job, tile, &job->p->dout, row));
}

static inline void *attni_dq_row(const attni_job *job, const attni_tile *tile, int64_t row) {
    return attni_at_mutable(job->t.dq, job->p->dtype_q, attni_query_index(job, tile, &job->p->dq, row));
}

static inline void *attni_dk_row(const attni_job *job, const attni_tile *tile, int64_t key) {
    return attni_at_mutable(job->t.dk, job->p->dtype_kv, attni_key_index(tile, &job->p->dk, key));
}

static inline void *attni_dv_row(const attni_job *job, const attni_tile *tile, int64_t key) {
    return attni_at_mutable(job->t.dv, job->p->dtype_kv, attni_key_index(tile, &job->p->dv, key));
}

#endif
