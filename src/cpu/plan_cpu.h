/* What a CPU plan holds, and how its runs are driven. */
#ifndef ATTNI_PLAN_CPU_H
#define ATTNI_PLAN_CPU_H

#include "cpu/kernel.h"

typedef struct attni_cpu_plan {
    const attni_cpu_kernel *kernel;
    int32_t threads;      /* tasks of a run */
    int64_t sequences;    /* batch * heads_kv */
    int64_t pieces;       /* of a sequence: forward: tiles of rows; decode: of keys, at most */
    int64_t piece_size;   /* rows of a tile; keys of the first piece */
    int64_t slots;        /* forward: blocks of K and V that a task keeps */
    size_t block_bytes;   /* of a slot outside of the scratch; 0: none */
    bool shared;          /* slots are a sequence's, not a task's */
    bool tapers;          /* a sequence's first rows are cut finer; see forward.c */
    size_t blocks_offset, tags_offset, next_offset; /* forward, in the workspace */
    int64_t heads;        /* decode: kv heads of a task's piece */
    size_t scratch_bytes; /* of a task */
    int64_t partial_rows;  /* decode: of one piece */
    size_t partial_floats; /* of its m, l and o */
    int64_t parts;         /* decode: sequences / heads, whose pieces are merged together */
    /* backward; kernel null: not needed */
    const attni_cpu_kernel *backward;
    int64_t chunk_rows, chunk_keys;
    int64_t chunks; /* of a sequence of the plan's lengths: of rows or of keys, the larger number */
    int64_t in_flight; /* sequences at once */
    bool whole; /* a sequence is one task's; else its chunks are all tasks' */
    size_t backward_scratch_bytes; /* of a task */
    size_t dq_floats, dk_floats, dv_floats; /* of a sequence */
    size_t row_panel_bytes, key_panel_bytes; /* of a chunk */
    size_t panels_offset, done_offset; /* in the workspace: panels; steps done of each chunk */
} attni_cpu_plan;

/* One run's shared state: pieces are taken by ticket. */
typedef struct attni_cpu_loop {
    const attni_job *job;
    const attni_cpu_plan *plan;
    char *workspace;
    atomic_llong ticket;
    atomic_llong *next; /* forward: of each sequence, its next tile */
} attni_cpu_loop;

void attni_cpu_forward(const attn_plan *plan, const attni_job *job, void *workspace);
void attni_cpu_decode(const attn_plan *plan, const attni_job *job, void *workspace);

/*
 * Keys of the first piece, which is the largest, if not the last by up to 127; most pieces of up to so many keys,
 * and bytes of what decode notes for parts of them.
 */
int64_t attni_cpu_decode_largest(int64_t keys);
int64_t attni_cpu_decode_pieces(int64_t keys);
size_t attni_cpu_decode_notes(int64_t parts, int64_t pieces);

/* Cuts the backward of a plan whose backward kernel is chosen; bytes of its workspace, 0 if they overflow. */
size_t attni_cpu_backward_cut(const attn_plan *plan, attni_cpu_plan *cut);
void attni_cpu_backward(const attn_plan *plan, const attni_job *job, void *workspace);

/* Emits the rows of (batch, head) pairs from arrays in an accumulator's order. */
void attni_cpu_finish(const attn_plan *plan, const attni_job *job, attni_accum accum);

#endif
