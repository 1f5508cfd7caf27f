/* The forward of compute capability 9.0, forward_sm90.cu: what it takes, its variants and its launch. */
#ifndef ATTNI_HOPPER_CUDA_H
#define ATTNI_HOPPER_CUDA_H

#include "cuda/plan_cuda.h"

/* What a problem asks of forward_sm90 at compile time. */
typedef struct attni_hopper_shape {
    attn_dtype dtype;
    int64_t dim_qk, dim_v, seqlen_q;
    int mask; /* 0: all keys; 1: none after a row's own; 2: nor before a window */
    bool exact; /* options.exact_reference */
    bool softcap, alibi, bias; /* at most one of them */
    bool lengths; /* ragged or padded, of queries or keys */
    bool narrow; /* a row sees few keys, a tile little more than that: a window, and no other option */
    bool packed; /* a tile is of all query heads of a key head */
    bool general; /* any options, looked for at run time; with mask 2 and lengths */
    bool few;     /* rows of a tile are one warpgroup's, keys many; none of alibi, bias and general */
    bool split;   /* the variant whose keys may be cut in pieces, and that for few rows */
} attni_hopper_shape;

/* MASK of params.h: 0, 1 or 2. */
int attni_hopper_mask(const attn_problem *problem);

attni_hopper_shape attni_hopper_shape_of(const attn_problem *problem);

bool attni_hopper_takes_dims(int64_t dim_qk, int64_t dim_v);

/* Why forward_sm90 does not take a problem on this device; null if it does. */
const char *attni_hopper_refusal(const attni_cuda *cuda, const attn_problem *problem);

/* The variant and its tiles; false where no tile fits into so much shared memory. */
bool attni_hopper_spec(const attni_hopper_shape *shape, int shared_limit, attni_kernel_spec *spec,
                       attni_forward_tiles *tiles);

/* sequences_sm90, which goes before a variant for lengths, and gather_sm90, which goes after pieces. */
attni_kernel_spec attni_hopper_sequences_spec(void);
attni_kernel_spec attni_hopper_gather_spec(void);

/* Whether splitting keys pays for the largest run of a problem, and its most pieces; 1: it does not. tiles are those of
 * the shape with split. */
int attni_hopper_most_pieces(const attni_cuda *cuda, const attn_problem *problem,
                             const attni_hopper_shape *shape, const attni_forward_tiles *tiles);

/* Bytes of workspace: where tiles differ in length blocks draw tickets for them, which lie there; then pieces. */
size_t attni_hopper_workspace(const attn_problem *problem, int pieces, size_t *pieces_at);

/* Whether a run of the plan is forward_sm90's. forward_sm80 has accumulators' up to dim 256 and, with a bias, those
 * without keys, those whose bias does not begin at a multiple of 16 bytes, which the copy engine cannot be told
 * of, and those whose scale is too near to 0 to divide the bias by. */
bool attni_hopper_takes_run(const attn_plan *plan, const attni_run *run);

/* Queues it. The bases of q, k, v and o are multiples of 16 bytes. */
attn_status attni_hopper_launch(const attn_plan *plan, const attni_run *run);

#endif
