/* Which kernel FlashAttention-2 takes, for plans and for `attn precompile`. */
#ifndef ATTNI_FORWARD_CUDA_H
#define ATTNI_FORWARD_CUDA_H

#include "cuda/plan_cuda.h"

/*
 * The forward for a dtype and dims on a device that gives a block so much shared memory, and its tiles.
 * ATTN_UNSUPPORTED where none fits.
 */
attn_status attni_cuda_forward_spec(attn_dtype dtype, int64_t dim_qk, int64_t dim_v, bool general,
                                    int shared_limit, attni_kernel_spec *spec, attni_forward_tiles *tiles);

#endif
