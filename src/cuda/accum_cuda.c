#include "cuda/accum_cuda.h"

#include <stdio.h>

attni_kernel_spec attni_cuda_accum_spec(const char *entry) {
    attni_kernel_spec spec = {.source = "accum_merge.cu",
                              .name = "accum_merge", /* of the source's one row, whichever the entry */
                              .capability = 80,
                              .threads = ATTNI_ACCUM_THREADS};
    snprintf(spec.entry, sizeof spec.entry, "%s", entry);
    return spec;
}

attn_status attni_cuda_accum_open(attn_plan *plan, attni_cuda_plan *made) {
    if (attni_accum_grid(plan->rows) > INT32_MAX)
        return attni_fail(ATTN_UNSUPPORTED, "%lld rows are more than a CUDA grid takes",
                          (long long)plan->rows);
    attni_kernel_spec spec = attni_cuda_accum_spec("accum_merge");
    ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->merge));
    spec = attni_cuda_accum_spec("accum_finish");
    return attni_module_kernel(plan->context, &spec, &made->finish);
}

/* Fills alone: nothing here outlives the call, so that a captured graph may replay it. */
static attni_cu_result fill(const attni_driver *driver, const attn_plan *plan, void *accum, void *stream) {
    const uint64_t rows = (uint64_t)plan->rows, dim = (uint64_t)plan->problem.dim_v;
    const uint32_t header[] = {ATTNI_ACCUM_MAGIC,      ATTNI_ACCUM_VERSION, (uint32_t)rows,
                               (uint32_t)(rows >> 32), (uint32_t)dim,       (uint32_t)(dim >> 32)};
    const attni_cu_pointer base = (attni_cu_pointer)(uintptr_t)accum;
    const attni_accum arrays = attni_accum_arrays(accum, plan->rows, plan->problem.dim_v, NULL);
    const attni_cu_pointer m = (attni_cu_pointer)(uintptr_t)arrays.m;
    attni_cu_result result = driver->set_bytes(base, 0, attn_accum_size(plan), stream);
    for (uint64_t i = 0; i < sizeof header / sizeof header[0] && result == ATTNI_CU_SUCCESS; i++)
        if (header[i] != 0) result = driver->set_words(base + 4 * i, header[i], 1, stream);
    if (result == ATTNI_CU_SUCCESS && rows > 0)
        result = driver->set_words(m, 0xff800000u /* -inf */, rows, stream);
    return result;
}

attn_status attni_cuda_accum_begin(const attn_plan *plan, void *accum, void *stream) {
    const attni_cuda *cuda = plan->context->backend_data;
    bool pushed;
    ATTNI_TRY(attni_cuda_enter(cuda, &pushed));
    const attni_cu_result result = fill(cuda->driver, plan, accum, stream);
    attni_cuda_leave(cuda, pushed);
    return attni_driver_check(cuda->driver, result, "cuMemsetAsync of an accumulator");
}

static attni_accum_params params_of(const attn_plan *plan, attni_accum accum) {
    const attn_problem *p = &plan->problem;
    return (attni_accum_params){.m = accum.m,
                                .l = accum.l,
                                .o = accum.o,
                                .rows = plan->rows,
                                .batch = (int)p->batch,
                                .heads_q = (int)p->heads_q,
                                .seqlen_q = (int)p->seqlen_q,
                                .seqlen_q_max = (int)p->seqlen_q,
                                .dim_v = (int)p->dim_v,
                                .lengths_q_kind = (int)p->lengths_q,
                                .dtype_o = (int)p->dtype_o};
}

static attn_status launch(const attn_plan *plan, const attni_kernel *kernel, attni_accum_params *params,
                          void *stream) {
    if (!kernel)
        return attni_fail(ATTN_UNSUPPORTED, "%s has no accumulators; plans of AUTO and FLASH2 have",
                          plan->kernel);
    const unsigned grid[3] = {(unsigned)attni_accum_grid(params->rows), 1, 1};
    return attni_cuda_launch(plan, kernel, grid, params, stream);
}

attn_status attni_cuda_accum_merge(const attn_plan *plan, attni_accum accum, attni_accum other,
                                   void *stream) {
    attni_accum_params a = params_of(plan, accum);
    a.m2 = other.m;
    a.l2 = other.l;
    a.o2 = other.o;
    return launch(plan, ((const attni_cuda_plan *)plan->backend_data)->merge, &a, stream);
}

attn_status attni_cuda_accum_finish(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    const attn_problem *p = &plan->problem;
    const attn_tensors *t = &run->tensors;
    attni_accum_params a = params_of(plan, run->accum);
    a.out = t->o;
    a.lse = t->lse;
    a.sinks = p->has_sinks ? t->sinks : NULL;
    a.lengths_q = p->lengths_q == ATTN_LENGTHS_FULL ? NULL : t->lengths_q;
    a.o_stride = made->base.o_stride;
    attni_cuda_lse_strides(p, t, &a.lse_stride_batch, &a.lse_stride_head);
    if (p->lengths_q == ATTN_LENGTHS_FULL) a.seqlen_q = (int)t->seqlen_q;
    return launch(plan, made->finish, &a, run->stream);
}

/* The header is on the device, and looking at it would wait for the stream. */
attn_status attni_cuda_accum_check(const attn_plan *plan, const void *accum) {
    (void)plan;
    (void)accum;
    return ATTN_OK;
}
