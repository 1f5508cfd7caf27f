/*
 * The oracle's backward: gradients from their definition in double, one head at a time, P and dS in full. It does
 * not read tensors' o and lse: it has its own.
 */
#ifndef ATTNI_REFERENCE_BACKWARD_H
#define ATTNI_REFERENCE_BACKWARD_H

#include "reference.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attni_reference_gradient {
    ATTNI_REFERENCE_DQ,    /* (rows, heads_q, dim_qk): rows as attni_reference_rows counts them */
    ATTNI_REFERENCE_DK,    /* (keys, heads_kv, dim_qk): batch * seqlen_k keys, or total_k ragged */
    ATTNI_REFERENCE_DV,    /* (keys, heads_kv, dim_v) */
    ATTNI_REFERENCE_DBIAS, /* as attn_tensors' */
    ATTNI_REFERENCE_DSINKS,
    ATTNI_REFERENCE_GRADIENTS
} attni_reference_gradient;

/* Packed arrays of each gradient. Rows that a run does not write hold ATTNI_REFERENCE_UNWRITTEN. */
typedef struct attni_reference_gradients {
    double *truth[ATTNI_REFERENCE_GRADIENTS];
    double *naive[ATTNI_REFERENCE_GRADIENTS]; /* in float32, as a plain program would */
    double *floor[ATTNI_REFERENCE_GRADIENTS]; /* tolerance.h */
} attni_reference_gradients;

/* Numbers in a gradient, and in one of its rows. dbias and dsinks are there without bias and sinks too: zeros. */
int64_t attni_reference_gradient_count(const attn_problem *problem, const attn_tensors *tensors,
                                       attni_reference_gradient which, int64_t *dim);

/* Element (0, 0) of the dbias that row (batch, head, query) adds to. */
int64_t attni_reference_dbias_row(const attn_problem *problem, int64_t batch, int64_t head, int64_t query);

/* Allocates and fills all arrays. 0, or -1 when memory ran out, with nothing to free. */
int attni_reference_backward(const attn_problem *problem, const attn_tensors *tensors,
                             attni_reference_gradients *result);
void attni_reference_gradients_free(attni_reference_gradients *result);

#ifdef __cplusplus
}
#endif

#endif
