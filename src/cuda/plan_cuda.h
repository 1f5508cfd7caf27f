/* A CUDA plan, and what the files of its algorithms share. */
#ifndef ATTNI_PLAN_CUDA_H
#define ATTNI_PLAN_CUDA_H

#include "cuda/module.h"
#define attni_round_up attni_params_round_up /* internal.h has another */
#include "cuda/kernels/params.h"
#undef attni_round_up

/* attn_plan.backend_data. What a run does not change is in base. */
typedef struct attni_cuda_plan {
    attn_status (*forward)(const attn_plan *plan, const attni_run *run);
    const attni_kernel *kernels[3];      /* in the order of their launches */
    const attni_kernel *merge, *finish;  /* of accumulators; null where the algorithm has none */
    attni_forward_tiles tiles;
    attni_forward_params base;
    bool general; /* forward_sm80 with every option, and slower */
    char no_hopper[512];                  /* why not, where that is known only after trying */
    const attni_kernel *hopper; /* forward_sm90, for all runs but ADD; null: forward_sm80 for all */
    const attni_kernel *sequences; /* before it, where lengths are on the device alone; else null */
    const attni_kernel *gather;    /* after it, where keys are split; else null */
    int pieces;                    /* of a tile's keys at most, where they are split; else 0 */
    size_t pieces_at;              /* where they lie in the workspace; what comes before has a ticket */
    attni_forward_tiles hopper_tiles;
    bool hopper_packed; /* it takes all query heads of a key head together */
} attni_cuda_plan;

/* The back end's functions of these names. */
attn_status attni_cuda_plan_open(attn_plan *plan);
void attni_cuda_plan_close(attn_plan *plan);
attn_status attni_cuda_run(const attn_plan *plan, const attni_run *run);

/* forward_cuda.c: FlashAttention-2. lab_cuda.c: standard attention and FlashAttention. They fill all but base, then
 * with base what depends on it, and describe. */
attn_status attni_cuda_forward_open(attn_plan *plan, attni_cuda_plan *made);
attn_status attni_cuda_lab_open(attn_plan *plan, attni_cuda_plan *made);

/* base with the pointers and values of a run. */
attni_forward_params attni_cuda_run_params(const attn_plan *plan, const attni_run *run);

/* Distances of a run's LSE: packed by the problem's lengths, or (heads_q, total_q) ragged. */
void attni_cuda_lse_strides(const attn_problem *problem, const attn_tensors *tensors, long long *batch,
                            long long *head);

/* A dim or stride of q, k, v or o that 16-byte accesses cannot walk; the bases are looked at in each run. */
bool attni_cuda_is_aligned(const attn_problem *problem);

/* Refuses bases that are no multiples of 16 bytes, or where unaligned is not null sets it instead. */
attn_status attni_cuda_check_bases(const attni_kernel *kernel, const attni_run *run, int *unaligned);

/* Queues a kernel whose only argument is *params. */
attn_status attni_cuda_launch(const attn_plan *plan, const attni_kernel *kernel, const unsigned grid[3],
                              void *params, void *stream);

/* The same for a kernel that may begin before the one before it in the stream ends, and itself waits for that where it
 * must (griddepcontrol). */
attn_status attni_cuda_launch_early(const attn_plan *plan, const attni_kernel *kernel, const unsigned grid[3],
                                    void *params, void *stream);

/* Words for attn_plan_describe. */
void attni_cuda_describe_kernel(attni_text *text, const attni_kernel *kernel);
void attni_cuda_describe_work(attn_plan *plan);

#endif
