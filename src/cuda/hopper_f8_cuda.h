/* The forward of compute capability 9.0 over 8-bit q, k and v, forward_sm90_f8.cu: variants, plans and launch. */
#ifndef ATTNI_HOPPER_F8_CUDA_H
#define ATTNI_HOPPER_F8_CUDA_H

#include "cuda/plan_cuda.h"

/* What a problem asks of forward_sm90_f8 at compile time. */
typedef struct attni_f8_shape {
    attn_dtype dtype, dtype_o;
    int64_t dim_qk, dim_v;
    int mask; /* as in attni_hopper_shape */
    bool turned; /* V is turned once, for all tiles */
    bool exact; /* float32 scores, turned or not */
} attni_f8_shape;

bool attni_f8_takes_dims(int64_t dim_qk, int64_t dim_v);

/* Whether shared memory has room for turning V once. */
bool attni_f8_may_turn(int64_t dim_qk, int64_t dim_v);

/* The variant and its tiles; false where no tile fits into so much shared memory. */
bool attni_f8_spec(const attni_f8_shape *shape, int shared_limit, attni_kernel_spec *spec,
                   attni_forward_tiles *tiles);

/* Fills a plan of an f8 problem, which no other kernel takes. */
attn_status attni_f8_open(attn_plan *plan, attni_cuda_plan *made);

#endif
