/* Accumulators in a device's memory: the back end's functions of these names. */
#ifndef ATTNI_ACCUM_CUDA_H
#define ATTNI_ACCUM_CUDA_H

#include "cuda/plan_cuda.h"

attn_status attni_cuda_accum_begin(const attn_plan *plan, void *accum, void *stream);
attn_status attni_cuda_accum_merge(const attn_plan *plan, attni_accum accum, attni_accum other, void *stream);
attn_status attni_cuda_accum_check(const attn_plan *plan, const void *accum);

/* A run of kind FINISH. */
attn_status attni_cuda_accum_finish(const attn_plan *plan, const attni_run *run);

/* Finds the kernels of merge and finish. */
attn_status attni_cuda_accum_open(attn_plan *plan, attni_cuda_plan *made);

/* accum_merge or accum_finish. */
attni_kernel_spec attni_cuda_accum_spec(const char *entry);

#endif
