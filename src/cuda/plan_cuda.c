/* Plans on a CUDA device: what is refused, the parameters that no run changes, and launches. */
#include "cuda/plan_cuda.h"

#include <string.h>

#include "core/philox.h"
#include "cuda/accum_cuda.h"

_Static_assert(ATTNI_DTYPE_F32 == (int)ATTN_F32 && ATTNI_DTYPE_F16 == (int)ATTN_F16 &&
                   ATTNI_DTYPE_BF16 == (int)ATTN_BF16,
               "params.h numbers the dtypes as attn.h does");
_Static_assert(ATTNI_LENGTHS_FULL == (int)ATTN_LENGTHS_FULL &&
                   ATTNI_LENGTHS_PADDED == (int)ATTN_LENGTHS_PADDED &&
                   ATTNI_LENGTHS_RAGGED == (int)ATTN_LENGTHS_RAGGED,
               "params.h numbers the kinds of lengths as attn.h does");

#define WINDOW_LIMIT (1LL << 40)

/* ---------------------------------------------------------------- what is refused, and why */

static attn_status refuse_dtypes(const attn_problem *p) {
    if (attni_dtype_is_f8(p->dtype_q)) return ATTN_OK; /* the core has looked at the others */
    if (p->dtype_q != p->dtype_kv || p->dtype_q != p->dtype_o)
        return attni_fail(
            ATTN_UNSUPPORTED,
            "dtype_q, dtype_kv and dtype_o are %s, %s and %s; a CUDA device takes one dtype for all",
            attni_dtype_name(p->dtype_q), attni_dtype_name(p->dtype_kv), attni_dtype_name(p->dtype_o));
    if (p->dtype_q != ATTN_F16 && p->dtype_q != ATTN_BF16)
        return attni_fail(ATTN_UNSUPPORTED, "dtype_q is %s; a CUDA device takes f16, bf16 and f8",
                          attni_dtype_name(p->dtype_q));
    return ATTN_OK;
}

/* Device code counts pairs of a batch and a head in int; the core bounds the rest. */
static attn_status refuse_sizes(const attn_problem *p) {
    if (p->batch > INT32_MAX / p->heads_q)
        return attni_fail(ATTN_UNSUPPORTED,
                          "batch %lld times heads_q %lld is more than a CUDA device takes, 2^31 - 1",
                          (long long)p->batch, (long long)p->heads_q);
    return ATTN_OK;
}

static attn_status refuse_options(const attn_plan_options *o) {
    if (o->isa != ATTN_ISA_AUTO && o->isa != ATTN_ISA_SM80 && o->isa != ATTN_ISA_SM90)
        return attni_fail(
            ATTN_UNSUPPORTED,
            "options.isa is %d, a CPU's; a CUDA context takes ATTN_ISA_AUTO (%d), ATTN_ISA_SM80 (%d) "
            "and ATTN_ISA_SM90 (%d)",
            (int)o->isa, (int)ATTN_ISA_AUTO, (int)ATTN_ISA_SM80, (int)ATTN_ISA_SM90);
    return ATTN_OK;
}

static bool is_walkable(const attn_strides *s) {
    return s->batch % 8 == 0 && s->seqlen % 8 == 0 && s->heads % 8 == 0;
}

bool attni_cuda_is_aligned(const attn_problem *p) {
    return p->dim_qk % 8 == 0 && p->dim_v % 8 == 0 && is_walkable(&p->q) && is_walkable(&p->k) &&
           is_walkable(&p->v) && is_walkable(&p->o);
}

attn_status attni_cuda_check_bases(const attni_kernel *kernel, const attni_run *run, int *unaligned) {
    const attn_tensors *t = &run->tensors;
    const struct {
        const char *name;
        const void *pointer;
    } bases[] = {{"q", t->q}, {"k", t->k}, {"v", t->v}, {"o", run->kind == ATTNI_RUN_ADD ? NULL : t->o}};
    for (size_t i = 0; i < sizeof bases / sizeof bases[0]; i++) {
        if ((uintptr_t)bases[i].pointer % 16 == 0) continue;
        if (!unaligned)
            return attni_fail(ATTN_INVALID_ARGUMENT, "tensors.%s is %p; %s takes multiples of 16 bytes",
                              bases[i].name, bases[i].pointer, kernel->spec.name);
        *unaligned = 1;
    }
    return ATTN_OK;
}

/* ---------------------------------------------------------------- parameters */

static attni_tensor_strides strides_of(const attn_strides *s) {
    return (attni_tensor_strides){s->batch, s->seqlen, s->heads};
}

static attni_mask_strides score_strides_of(const attn_score_strides *s) {
    return (attni_mask_strides){s->batch, s->heads, s->queries};
}

static long long window_of(int64_t side) {
    if (side == ATTN_WINDOW_UNLIMITED) return ATTNI_UNLIMITED;
    return side < WINDOW_LIMIT ? side : WINDOW_LIMIT;
}

static void fill_base(const attn_plan *plan, attni_forward_params *f) {
    const attn_problem *p = &plan->problem;
    f->q_stride = strides_of(&p->q);
    f->k_stride = strides_of(&p->k);
    f->v_stride = strides_of(&p->v);
    f->o_stride = strides_of(&p->o);
    f->bias_stride = score_strides_of(&p->bias);
    f->mask_stride = score_strides_of(&p->mask_strides);
    f->alibi_stride_batch = p->alibi_stride_batch;
    f->window_left = window_of(p->window_left);
    f->window_right = p->mask == ATTN_MASK_CAUSAL ? 0 : window_of(p->window_right);
    f->batch = (int)p->batch;
    f->heads_q = (int)p->heads_q;
    f->heads_kv = (int)p->heads_kv;
    f->group = (int)plan->group;
    f->dim_qk = (int)p->dim_qk;
    f->dim_v = (int)p->dim_v;
    f->seqlen_q = f->seqlen_q_max = (int)p->seqlen_q;
    f->seqlen_k = (int)p->seqlen_k;
    f->lengths_q_kind = (int)p->lengths_q;
    f->lengths_k_kind = (int)p->lengths_k;
    f->softcap = p->softcap;
    f->dropout_scale = 1.0f / (1.0f - p->dropout_p);
    f->dropout_threshold = (int)attni_dropout_threshold(p->dropout_p);
    f->bias_dtype = (int)p->dtype_bias;
}

void attni_cuda_lse_strides(const attn_problem *p, const attn_tensors *t, long long *batch, long long *head) {
    const bool ragged = p->lengths_q == ATTN_LENGTHS_RAGGED;
    *batch = ragged ? 0 : p->heads_q * p->seqlen_q;
    *head = ragged ? t->total_q : p->seqlen_q;
}

attni_forward_params attni_cuda_run_params(const attn_plan *plan, const attni_run *run) {
    const attn_problem *p = &plan->problem;
    const attn_tensors *t = &run->tensors;
    attni_forward_params f = ((const attni_cuda_plan *)plan->backend_data)->base;
    f.q = t->q;
    f.k = t->k;
    f.v = t->v;
    f.lengths_q = p->lengths_q == ATTN_LENGTHS_FULL ? NULL : t->lengths_q;
    f.lengths_k = p->lengths_k == ATTN_LENGTHS_FULL ? NULL : t->lengths_k;
    f.bias = p->has_bias ? t->bias : NULL;
    f.mask = p->has_mask ? t->mask : NULL;
    f.alibi = p->has_alibi ? t->alibi_slopes : NULL;
    if (run->kind == ATTNI_RUN_ADD) {
        f.accum_mode = ATTNI_ACCUM_ADD;
        f.accum_m = run->accum.m;
        f.accum_l = run->accum.l;
        f.accum_o = run->accum.o;
    } else {
        f.o = t->o;
        f.lse = t->lse;
        f.sinks = p->has_sinks ? t->sinks : NULL;
        attni_cuda_lse_strides(p, t, &f.lse_stride_batch, &f.lse_stride_head);
    }
    f.query_default = t->query_start == ATTN_POSITION_DEFAULT;
    f.query_start = f.query_default ? 0 : t->query_start;
    f.key_start = t->key_start;
    f.dropout_seed = t->dropout_seed;
    f.dropout_offset = t->dropout_offset;
    if (p->lengths_q == ATTN_LENGTHS_FULL) f.seqlen_q = (int)t->seqlen_q;
    if (p->lengths_k == ATTN_LENGTHS_FULL) f.seqlen_k = (int)t->seqlen_k;
    f.scale = t->scale;
    return f;
}

/* ---------------------------------------------------------------- plan */

void attni_cuda_describe_kernel(attni_text *text, const attni_kernel *kernel) {
    attni_text_add(text, "%s: %s, ready in %.1f ms; %d threads of %d registers, ", kernel->spec.entry,
                   kernel->origin, kernel->milliseconds, kernel->spec.threads, kernel->registers);
    if (kernel->local_bytes > 0)
        attni_text_add(text, "%d bytes in local memory", kernel->local_bytes);
    else
        attni_text_add(text, "nothing spilled");
    attni_text_add(text, "; %d bytes of shared memory, %d blocks a multiprocessor\n",
                   kernel->spec.shared_bytes + kernel->static_shared, kernel->blocks);
}

void attni_cuda_describe_work(attn_plan *plan) {
    const attn_problem *p = &plan->problem;
    const double pairs = (double)plan->rows * (double)p->seqlen_k * (p->mask == ATTN_MASK_CAUSAL ? 0.5 : 1.0);
    const double dims = (double)(p->dim_qk + p->dim_v);
    const double values = ((double)plan->rows + (double)(p->batch * p->heads_kv * p->seqlen_k)) * dims;
    attni_text_add(&plan->description, "workspace: %zu bytes\nwork: %.3g GFLOP, %.3g MB of tensors\n",
                   plan->workspace_size, 2e-9 * pairs * dims, 2e-6 * values);
}

static attn_status open_plan(attn_plan *plan, attni_cuda_plan *made) {
    const bool lab = plan->options.algorithm == ATTN_ALGORITHM_STANDARD ||
                     plan->options.algorithm == ATTN_ALGORITHM_FLASH1;
    if (plan->problem.needs_backward)
        return attni_fail(ATTN_UNSUPPORTED,
                          "problem.needs_backward is 1; a CUDA context has no backward, only a "
                          "CPU context has");
    ATTNI_TRY(refuse_options(&plan->options));
    ATTNI_TRY(refuse_dtypes(&plan->problem));
    ATTNI_TRY(refuse_sizes(&plan->problem));
    fill_base(plan, &made->base);
    return lab ? attni_cuda_lab_open(plan, made) : attni_cuda_forward_open(plan, made);
}

attn_status attni_cuda_plan_open(attn_plan *plan) {
    attni_cuda_plan *made = attni_alloc(plan->context, sizeof *made);
    if (!made) return ATTN_OUT_OF_MEMORY;
    memset(made, 0, sizeof *made);
    const attn_status status = open_plan(plan, made);
    if (status != ATTN_OK) {
        attni_free(plan->context, made);
        return status;
    }
    plan->backend_data = made;
    return ATTN_OK;
}

void attni_cuda_plan_close(attn_plan *plan) { attni_free(plan->context, plan->backend_data); }

/* ---------------------------------------------------------------- run */

attn_status attni_cuda_launch(const attn_plan *plan, const attni_kernel *kernel, const unsigned grid[3],
                              void *params, void *stream) {
    const attni_cuda *cuda = plan->context->backend_data;
    void *arguments[] = {params};
    bool pushed;
    ATTNI_TRY(attni_cuda_enter(cuda, &pushed));
    const attni_cu_result result =
        cuda->driver->launch(kernel->function, grid[0], grid[1], grid[2], (unsigned)kernel->spec.threads, 1,
                             1, (unsigned)kernel->spec.shared_bytes, stream, arguments, NULL);
    attni_cuda_leave(cuda, pushed);
    return attni_driver_check(cuda->driver, result, "cuLaunchKernel of %s", kernel->spec.entry);
}

attn_status attni_cuda_launch_early(const attn_plan *plan, const attni_kernel *kernel, const unsigned grid[3],
                                    void *params, void *stream) {
    const attni_cuda *cuda = plan->context->backend_data;
    if (!cuda->driver->launch_configured) return attni_cuda_launch(plan, kernel, grid, params, stream);
    const attni_cu_launch_attribute early = {.id = ATTNI_CU_LAUNCH_PROGRAMMATIC, .value.flag = 1};
    const attni_cu_launch_config config = {.grid = {grid[0], grid[1], grid[2]},
                                           .block = {(unsigned)kernel->spec.threads, 1, 1},
                                           .shared_bytes = (unsigned)kernel->spec.shared_bytes,
                                           .stream = stream,
                                           .attributes = &early,
                                           .attribute_count = 1};
    void *arguments[] = {params};
    bool pushed;
    ATTNI_TRY(attni_cuda_enter(cuda, &pushed));
    const attni_cu_result result =
        cuda->driver->launch_configured(&config, kernel->function, arguments, NULL);
    attni_cuda_leave(cuda, pushed);
    return attni_driver_check(cuda->driver, result, "cuLaunchKernelEx of %s", kernel->spec.entry);
}

attn_status attni_cuda_run(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    return run->kind == ATTNI_RUN_FINISH ? attni_cuda_accum_finish(plan, run) : made->forward(plan, run);
}
