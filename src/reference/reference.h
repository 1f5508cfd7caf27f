/*
 * The oracle: attention as its definition says, in four plain passes in double over one head at a
 * time: scores, mask, softmax, product. Slow, short, never optimised, and it shares no code with the
 * library: strides, lengths, positions, dropout and conversions are resolved here a second time, so
 * that a mistake has to be made twice to be missed.
 *
 * The problem must be one that attn_plan_create takes; nothing is validated here.
 */
#ifndef ATTNI_REFERENCE_H
#define ATTNI_REFERENCE_H

#include <float.h>

#include "attn/attn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a row that a run does not write holds in every array below. */
#define ATTNI_REFERENCE_UNWRITTEN (-DBL_MAX)

/*
 * Where to put the answer; null: not wanted. Rows of o are packed, (batch, seqlen_q of the problem,
 * heads_q, dim_v), or (total_q, heads_q, dim_v) ragged; lse is (batch, heads_q, seqlen_q), or
 * (heads_q, total_q) ragged, as attn_forward's.
 */
typedef struct attni_reference_result {
    double *o, *lse;             /* the truth */
    double *o_naive, *lse_naive; /* naive.c: the same in float32, as a plain program would */
    double *o_floor, *lse_floor; /* error that any float32 kernel may make: tolerance.h says which */
    double *lse_cut;             /* and what a GPU's matrix units may make besides */
} attni_reference_result;

/* Numbers in o and in lse. */
int64_t attni_reference_o_count(const attn_problem *problem, const attn_tensors *tensors);
int64_t attni_reference_lse_count(const attn_problem *problem, const attn_tensors *tensors);

/* Rows of all sequences of one head: batch * seqlen_q, or total_q ragged. */
int64_t attni_reference_rows(const attn_problem *problem, const attn_tensors *tensors);

/* 0, or -1 when memory ran out. */
int attni_reference_forward(const attn_problem *problem, const attn_tensors *tensors,
                            const attni_reference_result *result);

/* Strides with ATTN_STRIDE_PACKED replaced by its number, each stride for itself. */
attn_strides attni_reference_strides(attn_strides strides, int64_t seqlen, int64_t heads, int64_t dim);
attn_score_strides attni_reference_score_strides(attn_score_strides strides, const attn_problem *problem);

/* One sequence of the batch: its rows and keys, where they begin, and at which positions. */
typedef struct attni_reference_sequence {
    int64_t rows, keys;
    int64_t first_row, first_key; /* within the batch's slice; within the whole tensor if ragged */
    int64_t slice_q, slice_k;     /* which slice along the batch stride; 0 if ragged */
    int64_t query_start, key_start;
} attni_reference_sequence;

attni_reference_sequence attni_reference_find(const attn_problem *problem, const attn_tensors *tensors,
                                              int64_t batch);

/* Whether dropout keeps an element. */
int attni_reference_keeps(const attn_problem *problem, const attn_tensors *tensors, int64_t batch,
                          int64_t head, int64_t query_position, int64_t key_position);

/* Philox4x32-10 (Salmon and others, SC 2011): counter, encrypted in place. */
void attni_reference_philox(uint32_t counter[4], uint32_t key0, uint32_t key1);

#ifdef __cplusplus
}
#endif

#endif
