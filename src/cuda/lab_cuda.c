/*
 * The algorithms of the papers on a CUDA device, for measuring: standard attention with S and P in memory
 * (standard_sm80.cu), and FlashAttention, the first version (flash1_sm80.cu). They take what their
 * measurements need and no more.
 */
#include <stdio.h>

#include "cuda/plan_cuda.h"

enum { PAIRS_LIMIT = 65535 }; /* of a grid's second dimension */

/* ---------------------------------------------------------------- what is refused, and why */

static const char *why_not_problem(const attn_problem *p) {
    if (attni_dtype_is_f8(p->dtype_q)) return "f16 and bf16";
    if (p->dim_qk != p->dim_v || (p->dim_qk != 64 && p->dim_qk != 128))
        return "dim_qk and dim_v of 64 or of 128";
    if (p->lengths_q != ATTN_LENGTHS_FULL || p->lengths_k != ATTN_LENGTHS_FULL) return "full lengths";
    if (p->window_left != ATTN_WINDOW_UNLIMITED || p->window_right != ATTN_WINDOW_UNLIMITED)
        return "no window";
    if (p->softcap > 0.0f || p->dropout_p > 0.0f) return "no softcap and no dropout";
    if (p->has_bias || p->has_mask || p->has_alibi || p->has_sinks) return "no bias, mask, ALiBi or sinks";
    if (!attni_cuda_is_aligned(p)) return "strides of multiples of 16 bytes";
    if (p->batch * p->heads_q > PAIRS_LIMIT) return "at most 65535 heads of a batch in all";
    return NULL;
}

/* A row must see a key: the measured kernels have no path for those that see none. */
static const char *why_not_run(const attn_problem *p, const attn_tensors *t) {
    if (t->seqlen_k == 0) return "at least one key";
    if (p->mask != ATTN_MASK_CAUSAL) return NULL;
    if (t->seqlen_q > t->seqlen_k) return "as many keys as queries under a causal mask";
    if (t->query_start != ATTN_POSITION_DEFAULT && t->query_start != t->key_start + t->seqlen_k - t->seqlen_q)
        return "queries at the end of the keys (query_start's default)";
    return NULL;
}

static attn_status check_run(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    if (run->kind == ATTNI_RUN_ADD)
        return attni_fail(ATTN_UNSUPPORTED, "%s has no accumulators; plans of AUTO and FLASH2 have",
                          plan->kernel);
    const char *takes = why_not_run(&plan->problem, &run->tensors);
    if (takes) return attni_fail(ATTN_UNSUPPORTED, "%s is for measuring, and takes %s", plan->kernel, takes);
    return attni_cuda_check_bases(made->kernels[0], run, NULL);
}

/* ---------------------------------------------------------------- kernels */

static attni_kernel_spec spec_of(const attn_problem *p, const char *family, const char *suffix) {
    const bool bf16 = p->dtype_q == ATTN_BF16;
    attni_kernel_spec spec = {.capability = 80};
    spec.source = suffix[0] ? "standard_sm80.cu" : "flash1_sm80.cu";
    snprintf(spec.name, sizeof spec.name, "%s_%s_d%d", family, bf16 ? "bf16" : "f16", (int)p->dim_qk);
    snprintf(spec.entry, sizeof spec.entry, "%s%s", spec.name, suffix);
    snprintf(spec.options, sizeof spec.options, "-DBF16=%d -DD=%d", bf16, (int)p->dim_qk);
    return spec;
}

static size_t round_to_256(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* ---------------------------------------------------------------- standard attention */

static attn_status run_standard(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    ATTNI_TRY(check_run(plan, run));
    attni_forward_params f = attni_cuda_run_params(plan, run);
    f.scores = run->workspace;
    if (f.seqlen_q == 0) return ATTN_OK;
    for (int i = 0; i < 3; i++) {
        unsigned grid[3];
        attni_standard_grid(&f, i, grid);
        ATTNI_TRY(attni_cuda_launch(plan, made->kernels[i], grid, &f, run->stream));
    }
    return ATTN_OK;
}

static attn_status open_standard(attn_plan *plan, attni_cuda_plan *made) {
    static const char *const suffixes[3] = {"_scores", "_softmax", "_output"};
    const attn_problem *p = &plan->problem;
    if ((double)plan->rows * (double)p->seqlen_k > 0x1p58) /* far beyond any memory, and far below overflow */
        return attni_fail(
            ATTN_UNSUPPORTED,
            "options.algorithm STANDARD stores the scores of %lld rows and %lld keys, more than an "
            "address space; FLASH2 stores none",
            (long long)plan->rows, (long long)p->seqlen_k);
    plan->kernel = "standard_sm80";
    for (int i = 0; i < 3; i++) {
        attni_kernel_spec spec = spec_of(p, plan->kernel, suffixes[i]);
        spec.threads = ATTNI_STANDARD_THREADS;
        spec.shared_bytes = i == 1 ? 0 : attni_standard_shared((int)p->dim_qk);
        ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->kernels[i]));
    }
    made->forward = run_standard;
    plan->workspace_size = round_to_256((size_t)plan->rows * (size_t)attni_round_up(p->seqlen_k, 8) * 2);
    return ATTN_OK;
}

/* ---------------------------------------------------------------- FlashAttention */

static attn_status run_flash1(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    ATTNI_TRY(check_run(plan, run));
    attni_forward_params f = attni_cuda_run_params(plan, run);
    f.accum_m = run->workspace;
    f.accum_l = f.accum_m + round_to_256((size_t)plan->rows * sizeof(float)) / sizeof(float);
    f.accum_o = f.accum_l + round_to_256((size_t)plan->rows * sizeof(float)) / sizeof(float);
    if (f.seqlen_q == 0) return ATTN_OK;
    const unsigned grid[3] = {1, (unsigned)(f.batch * f.heads_q), 1};
    return attni_cuda_launch(plan, made->kernels[0], grid, &f, run->stream);
}

static attn_status open_flash1(attn_plan *plan, attni_cuda_plan *made) {
    const attn_problem *p = &plan->problem;
    plan->kernel = "flash1_sm80";
    attni_kernel_spec spec = spec_of(p, plan->kernel, "");
    spec.threads = ATTNI_FLASH1_THREADS;
    spec.shared_bytes = attni_flash1_shared((int)p->dim_qk);
    ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->kernels[0]));
    made->forward = run_flash1;
    plan->workspace_size = 2 * round_to_256((size_t)plan->rows * sizeof(float)) +
                           round_to_256((size_t)plan->rows * (size_t)p->dim_v * sizeof(float));
    return ATTN_OK;
}

attn_status attni_cuda_lab_open(attn_plan *plan, attni_cuda_plan *made) {
    const bool standard = plan->options.algorithm == ATTN_ALGORITHM_STANDARD;
    const char *takes = why_not_problem(&plan->problem);
    if (takes)
        return attni_fail(ATTN_UNSUPPORTED, "options.algorithm %s is for measuring, and takes %s",
                          standard ? "STANDARD" : "FLASH1", takes);
    ATTNI_TRY(standard ? open_standard(plan, made) : open_flash1(plan, made));
    attni_text *text = &plan->description;
    attni_text_add(text, "%s on CUDA device %d\n",
                   standard ? "standard attention, with scores and probabilities in device memory,"
                            : "FlashAttention, version 1,",
                   plan->context->ordinal);
    for (int i = 0; i < 3 && made->kernels[i]; i++) attni_cuda_describe_kernel(text, made->kernels[i]);
    attni_cuda_describe_work(plan);
    attni_text_add(text, "not FLASH2, which is faster: options.algorithm asks for this one\n");
    return ATTN_OK;
}
