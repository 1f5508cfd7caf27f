/* Plans and runs: validate once, resolve what has defaults, and hand over to the back end. */
#include <string.h>

#include "core/internal.h"
#include "cpu/parallel.h"

static attn_status check_plan_options(const attn_plan_options *o) {
    if (o->algorithm < ATTN_ALGORITHM_AUTO || o->algorithm > ATTN_ALGORITHM_FLASH2)
        return attni_fail(
            ATTN_INVALID_ARGUMENT,
            "options.algorithm is %d; allowed is AUTO (0), STANDARD (1), FLASH1 (2) or FLASH2 (3)",
            (int)o->algorithm);
    if (o->isa < ATTN_ISA_AUTO || o->isa > ATTN_ISA_SM90)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "options.isa is %d; allowed is ATTN_ISA_AUTO (0) to ATTN_ISA_SM90 (%d)",
                          (int)o->isa, (int)ATTN_ISA_SM90);
    if (o->threads < 0 || o->threads > ATTNI_THREADS_LIMIT)
        return attni_fail(ATTN_INVALID_ARGUMENT, "options.threads is %d; allowed is 0 (the context's) to %d",
                          o->threads, ATTNI_THREADS_LIMIT);
    if (o->exact_reference != 0 && o->exact_reference != 1)
        return attni_fail(ATTN_INVALID_ARGUMENT, "options.exact_reference is %d; allowed is 0 or 1",
                          o->exact_reference);
    return ATTN_OK;
}

attn_status attn_plan_create(attn_context *context, const attn_problem *problem,
                             const attn_plan_options *options, attn_plan **plan) {
    if (plan == NULL)
        return attni_fail(ATTN_INVALID_ARGUMENT, "plan is null; it must point to where the plan goes");
    *plan = NULL;
    if (context == NULL)
        return attni_fail(ATTN_INVALID_ARGUMENT, "context is null; attn_context_create makes one");
    if (problem == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "problem is null");
    attn_plan_options o = ATTN_PLAN_OPTIONS_INIT;
    if (options != NULL) ATTNI_TRY(attni_struct_copy(&o, options, sizeof o, "plan options"));
    ATTNI_TRY(check_plan_options(&o));
    if (o.threads == 0) o.threads = context->options.threads;
    attn_problem resolved;
    ATTNI_TRY(attni_problem_resolve(problem, &resolved));

    attn_plan *p = attni_alloc(context, sizeof *p);
    if (p == NULL) return ATTN_OUT_OF_MEMORY;
    memset(p, 0, sizeof *p);
    p->context = context;
    p->problem = resolved;
    p->options = o;
    p->group = resolved.heads_q / resolved.heads_kv;
    p->backward_kernel = "";
    p->rows = resolved.batch * resolved.heads_q * resolved.seqlen_q;
    attn_status status = context->backend->plan_open(p);
    if (status != ATTN_OK) {
        attni_free(context, p);
        return status;
    }
    if (o.workspace_limit != 0 && p->workspace_size > o.workspace_limit) {
        status = attni_fail(ATTN_WORKSPACE_TOO_SMALL,
                            "options.workspace_limit is %llu; %s needs %zu bytes of workspace",
                            (unsigned long long)o.workspace_limit, p->kernel, p->workspace_size);
        attn_plan_destroy(p);
        return status;
    }
    /* So that the first run without a workspace finds one and allocates nothing. */
    if (p->workspace_size > 0) {
        attni_block *block;
        status = attni_pool_take(context, p->workspace_size, context->options.stream, &block);
        if (status != ATTN_OK) {
            attn_plan_destroy(p);
            return status;
        }
        attni_pool_put_back(context, block);
    }
    *plan = p;
    return ATTN_OK;
}

void attn_plan_destroy(attn_plan *plan) {
    if (plan == NULL) return;
    plan->context->backend->plan_close(plan);
    attni_free(plan->context, plan);
}

const char *attn_plan_describe(const attn_plan *plan) { return plan == NULL ? "" : plan->description.data; }
size_t attn_plan_workspace_size(const attn_plan *plan) { return plan == NULL ? 0 : plan->workspace_size; }
const char *attn_plan_kernel(const attn_plan *plan) { return plan == NULL ? "" : plan->kernel; }
const char *attn_plan_backward_kernel(const attn_plan *plan) {
    return plan == NULL ? "" : plan->backward_kernel;
}

/* ---------------------------------------------------------------- runs */

static attn_status check_pointer(const char *name, const void *pointer, size_t alignment, bool needed) {
    if (pointer == NULL)
        return needed
                   ? attni_fail(ATTN_INVALID_ARGUMENT, "tensors.%s is null, and the problem needs it", name)
                   : ATTN_OK;
    if ((uintptr_t)pointer % alignment != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "tensors.%s is %p, which is not aligned to its element of %zu bytes", name, pointer,
                          alignment);
    return ATTN_OK;
}

/* Which tensors a kind of run reads or writes, and that they are there. Empty tensors may be null. */
static attn_status check_tensors(const attn_plan *plan, attni_run_kind kind, const attn_tensors *t) {
    const attn_problem *p = &plan->problem;
    const bool keys = kind != ATTNI_RUN_FINISH, output = kind != ATTNI_RUN_ADD;
    const bool backward = kind == ATTNI_RUN_BACKWARD;
    const bool any_q = plan->rows > 0, any_k = any_q && p->seqlen_k > 0;
    const size_t size_q = attni_dtype_size(p->dtype_q), size_kv = attni_dtype_size(p->dtype_kv);
    if (keys) {
        ATTNI_TRY(check_pointer("q", t->q, size_q, any_k));
        ATTNI_TRY(check_pointer("k", t->k, size_kv, any_k));
        ATTNI_TRY(check_pointer("v", t->v, size_kv, any_k));
        if (p->has_bias) ATTNI_TRY(check_pointer("bias", t->bias, attni_dtype_size(p->dtype_bias), any_k));
        if (p->has_mask) ATTNI_TRY(check_pointer("mask", t->mask, 1, any_k));
        if (p->has_alibi) ATTNI_TRY(check_pointer("alibi_slopes", t->alibi_slopes, 4, any_k));
        if (p->has_scales) {
            ATTNI_TRY(check_pointer("q_scale", t->q_scale, 4, any_k));
            ATTNI_TRY(check_pointer("k_scale", t->k_scale, 4, any_k));
            ATTNI_TRY(check_pointer("v_scale", t->v_scale, 4, any_k));
        }
        if (p->lengths_k != ATTN_LENGTHS_FULL)
            ATTNI_TRY(check_pointer("lengths_k", t->lengths_k, 4, p->batch > 0));
    }
    if (p->lengths_q != ATTN_LENGTHS_FULL)
        ATTNI_TRY(check_pointer("lengths_q", t->lengths_q, 4, p->batch > 0));
    if (output) {
        ATTNI_TRY(check_pointer("o", t->o, attni_dtype_size(p->dtype_o), any_q));
        ATTNI_TRY(check_pointer("lse", t->lse, 4, backward && any_q));
        if (p->has_sinks) ATTNI_TRY(check_pointer("sinks", t->sinks, 4, any_q));
        if (t->lse != NULL && p->lengths_q == ATTN_LENGTHS_RAGGED && t->total_q < 0)
            return attni_fail(ATTN_INVALID_ARGUMENT,
                              "tensors.total_q is %lld; lse of ragged queries needs their number",
                              (long long)t->total_q);
    }
    if (backward) {
        ATTNI_TRY(check_pointer("dout", t->dout, attni_dtype_size(p->dtype_o), any_q));
        ATTNI_TRY(check_pointer("dlse", t->dlse, 4, false));
        ATTNI_TRY(check_pointer("dq", t->dq, size_q, false));
        ATTNI_TRY(check_pointer("dk", t->dk, size_kv, false));
        ATTNI_TRY(check_pointer("dv", t->dv, size_kv, false));
        if (p->has_bias) ATTNI_TRY(check_pointer("dbias", t->dbias, 4, false));
        if (p->has_sinks) ATTNI_TRY(check_pointer("dsinks", t->dsinks, 4, false));
    }
    return ATTN_OK;
}

static int64_t resolve_length(int64_t given, int64_t limit) {
    if (given == ATTN_LENGTH_DEFAULT) return limit;
    return attni_max(0, attni_min(given, limit));
}

static int64_t clamp_position(int64_t position) {
    return attni_max(-ATTNI_POSITION_LIMIT, attni_min(position, ATTNI_POSITION_LIMIT));
}

static attn_status resolve_run(const attn_plan *plan, const attn_tensors *tensors, attni_run *run) {
    const attn_problem *p = &plan->problem;
    if (tensors == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "tensors is null");
    attn_tensors *t = &run->tensors;
    ATTNI_TRY(attni_struct_copy(t, tensors, sizeof *t, "tensors"));
    ATTNI_TRY(check_tensors(plan, run->kind, t));
    if (t->scale != ATTN_SCALE_DEFAULT && !isfinite(t->scale))
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "tensors.scale is %g; allowed is a finite number or ATTN_SCALE_DEFAULT",
                          (double)t->scale);
    if (t->reserved != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT, "tensors.reserved is %d; it must be 0", t->reserved);
    t->seqlen_q = resolve_length(t->seqlen_q, p->seqlen_q);
    t->seqlen_k = resolve_length(t->seqlen_k, p->seqlen_k);
    t->key_start = t->key_start == ATTN_POSITION_DEFAULT ? 0 : clamp_position(t->key_start);
    if (t->query_start != ATTN_POSITION_DEFAULT) t->query_start = clamp_position(t->query_start);
    /* A piece of keys cannot say where the whole's last key is: the problem does. */
    else if (run->kind == ATTNI_RUN_ADD)
        t->query_start = p->seqlen_k - t->seqlen_q;
    if (t->scale == ATTN_SCALE_DEFAULT) t->scale = (float)(1.0 / sqrt((double)p->dim_qk));
    return ATTN_OK;
}

/* Finds a workspace and a stream, runs, and gives the workspace back. */
static attn_status execute(const attn_plan *plan, attni_run *run, const attn_execution *given) {
    attn_context *context = plan->context;
    attn_execution execution = ATTN_EXECUTION_INIT;
    execution.stream = context->options.stream;
    if (given != NULL) ATTNI_TRY(attni_struct_copy(&execution, given, sizeof execution, "execution"));
    run->stream = execution.stream;
    const size_t needed =
        run->kind == ATTNI_RUN_FINISH ? 0 : plan->workspace_size; /* it reads the accumulator */
    if (execution.workspace != NULL && execution.workspace_bytes < needed)
        return attni_fail(ATTN_WORKSPACE_TOO_SMALL, "execution.workspace_bytes is %zu; this plan needs %zu",
                          execution.workspace_bytes, needed);
    if (execution.workspace != NULL && (uintptr_t)execution.workspace % 64 != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT, "execution.workspace is %p; it must be 64-byte aligned",
                          execution.workspace);
    run->workspace = execution.workspace;
    /* a backward owes zeros to keys even without queries */
    if (plan->rows == 0 && run->kind != ATTNI_RUN_BACKWARD) return ATTN_OK;
    if (run->workspace != NULL || needed == 0) return context->backend->run(plan, run);
    attni_block *block;
    ATTNI_TRY(attni_pool_take(context, needed, run->stream, &block));
    run->workspace = block->memory;
    run->block = block;
    const attn_status status = context->backend->run(plan, run);
    attni_pool_give(context, block, run->stream);
    return status;
}

attn_status attn_forward(const attn_plan *plan, const attn_tensors *tensors,
                         const attn_execution *execution) {
    if (plan == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "plan is null; attn_plan_create makes one");
    attni_run run = {.kind = ATTNI_RUN_FORWARD};
    ATTNI_TRY(resolve_run(plan, tensors, &run));
    return execute(plan, &run, execution);
}

attn_status attn_backward(const attn_plan *plan, const attn_tensors *tensors,
                          const attn_execution *execution) {
    if (plan == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "plan is null; attn_plan_create makes one");
    if (!plan->problem.needs_backward)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.needs_backward is 0 in this plan; attn_backward needs a plan with 1");
    attni_run run = {.kind = ATTNI_RUN_BACKWARD};
    ATTNI_TRY(resolve_run(plan, tensors, &run));
    return execute(plan, &run, execution);
}

/* ---------------------------------------------------------------- accumulators */

attni_accum attni_accum_arrays(void *memory, int64_t rows, int64_t dim_v, size_t *bytes) {
    const int64_t column = attni_round_up(rows, 16); /* floats: 64 bytes */
    float *base = memory == NULL ? NULL : (float *)memory + 16;
    if (bytes != NULL) *bytes = (size_t)(16 + 2 * column + attni_round_up(rows * dim_v, 16)) * sizeof(float);
    if (base == NULL) return (attni_accum){NULL, NULL, NULL};
    return (attni_accum){base, base + column, base + 2 * column};
}

size_t attn_accum_size(const attn_plan *plan) {
    if (plan == NULL) return 0;
    size_t bytes;
    attni_accum_arrays(NULL, plan->rows, plan->problem.dim_v, &bytes);
    return bytes;
}

static attn_status check_accum(const attn_plan *plan, const char *name, const void *accum) {
    if (plan == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "plan is null; attn_plan_create makes one");
    if (accum == NULL)
        return attni_fail(ATTN_INVALID_ARGUMENT, "%s is null; attn_accum_begin prepares one", name);
    if ((uintptr_t)accum % 64 != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT, "%s is %p; it must be 64-byte aligned", name, accum);
    return ATTN_OK;
}

static attni_accum arrays_of(const attn_plan *plan, const void *accum) {
    return attni_accum_arrays((void *)(uintptr_t)accum, plan->rows, plan->problem.dim_v, NULL);
}

static attn_status stream_of(const attn_plan *plan, const attn_execution *execution, void **stream) {
    attn_execution copy = ATTN_EXECUTION_INIT;
    copy.stream = plan->context->options.stream;
    if (execution != NULL) ATTNI_TRY(attni_struct_copy(&copy, execution, sizeof copy, "execution"));
    *stream = copy.stream;
    return ATTN_OK;
}

attn_status attn_accum_begin(const attn_plan *plan, void *accum, size_t bytes,
                             const attn_execution *execution) {
    ATTNI_TRY(check_accum(plan, "accum", accum));
    if (bytes < attn_accum_size(plan))
        return attni_fail(ATTN_WORKSPACE_TOO_SMALL, "bytes is %zu; an accumulator of this plan takes %zu",
                          bytes, attn_accum_size(plan));
    void *stream;
    ATTNI_TRY(stream_of(plan, execution, &stream));
    return plan->context->backend->accum_begin(plan, accum, stream);
}

attn_status attn_accum_add(const attn_plan *plan, const attn_tensors *tensors, void *accum,
                           const attn_execution *execution) {
    ATTNI_TRY(check_accum(plan, "accum", accum));
    ATTNI_TRY(plan->context->backend->accum_check(plan, accum));
    attni_run run = {.kind = ATTNI_RUN_ADD, .accum = arrays_of(plan, accum)};
    ATTNI_TRY(resolve_run(plan, tensors, &run));
    return execute(plan, &run, execution);
}

attn_status attn_accum_merge(const attn_plan *plan, void *accum, const void *other,
                             const attn_execution *execution) {
    ATTNI_TRY(check_accum(plan, "accum", accum));
    ATTNI_TRY(check_accum(plan, "other", other));
    ATTNI_TRY(plan->context->backend->accum_check(plan, accum));
    ATTNI_TRY(plan->context->backend->accum_check(plan, other));
    void *stream;
    ATTNI_TRY(stream_of(plan, execution, &stream));
    if (plan->rows == 0) return ATTN_OK;
    return plan->context->backend->accum_merge(plan, arrays_of(plan, accum), arrays_of(plan, other), stream);
}

attn_status attn_accum_finish(const attn_plan *plan, const attn_tensors *tensors, const void *accum,
                              const attn_execution *execution) {
    ATTNI_TRY(check_accum(plan, "accum", accum));
    ATTNI_TRY(plan->context->backend->accum_check(plan, accum));
    attni_run run = {.kind = ATTNI_RUN_FINISH, .accum = arrays_of(plan, accum)};
    ATTNI_TRY(resolve_run(plan, tensors, &run));
    return execute(plan, &run, execution);
}
