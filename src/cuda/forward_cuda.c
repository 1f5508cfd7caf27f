/* FlashAttention-2 on a CUDA device: forward_sm80.cu, or on Hopper forward_sm90.cu for what that takes. */
#include "cuda/forward_cuda.h"

#include <stdio.h>

#include "cuda/accum_cuda.h"
#include "cuda/hopper_cuda.h"
#include "cuda/hopper_f8_cuda.h"

/* Why the fast variant cannot do it; null if it can. */
static const char *why_general(const attn_problem *p) {
    if (p->softcap > 0.0f) return "it has no softcap";
    if (p->has_bias) return "it has no bias";
    if (p->has_mask) return "it has no boolean mask";
    if (p->has_alibi) return "it has no ALiBi";
    if (p->dropout_p > 0.0f) return "it has no dropout";
    if (!attni_cuda_is_aligned(p)) return "a dim or stride of q, k, v or o is no multiple of 16 bytes";
    return NULL;
}

attn_status attni_cuda_forward_spec(attn_dtype dtype, int64_t dim_qk, int64_t dim_v, bool general,
                                    int shared_limit, attni_kernel_spec *spec, attni_forward_tiles *t) {
    if (!attni_forward_sm80_tiles((int)dim_qk, (int)dim_v, general, shared_limit, t))
        return attni_fail(ATTN_UNSUPPORTED,
                          "dim_qk %lld and dim_v %lld need %d bytes of shared memory in the smallest tile; a "
                          "block has at most %d on this device",
                          (long long)dim_qk, (long long)dim_v, t->shared_bytes, shared_limit);
    const bool bf16 = dtype == ATTN_BF16;
    *spec = (attni_kernel_spec){.source = "forward_sm80.cu",
                                .capability = 80,
                                .threads = t->warps * 32,
                                .shared_bytes = t->shared_bytes};
    snprintf(spec->name, sizeof spec->name, "forward_sm80_%s_d%d_v%d%s", bf16 ? "bf16" : "f16", t->d, t->dv,
             general ? "_general" : "");
    snprintf(spec->entry, sizeof spec->entry, "%s", spec->name);
    snprintf(spec->options, sizeof spec->options,
             "-DBF16=%d -DD=%d -DDV=%d -DBR=%d -DBC=%d -DWARPS=%d -DSTAGES=%d -DBLOCKS=%d -DGENERAL=%d", bf16,
             t->d, t->dv, t->br, t->bc, t->warps, t->stages, t->blocks, general);
    return ATTN_OK;
}

/* The order and number of a run's blocks; half of the L2 cache is for the keys of tiles side by side: what the kernel was tuned with. */
static long long schedule(const attn_plan *plan, const attni_forward_tiles *tiles, attni_forward_params *f) {
    const attni_cuda *cuda = plan->context->backend_data;
    return attni_forward_schedule(f, tiles, (long long)cuda->l2_bytes / 2, 0);
}

static attn_status run_forward(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    if (attni_hopper_takes_run(plan, run)) {
        ATTNI_TRY(attni_cuda_check_bases(made->hopper, run, NULL));
        return attni_hopper_launch(plan, run);
    }
    if (run->kind == ATTNI_RUN_ADD && made->tiles.value_slices > 1)
        return attni_fail(ATTN_UNSUPPORTED, "dim_v is %lld; accumulators of forward_sm80 take at most 256",
                          (long long)plan->problem.dim_v);
    attni_forward_params f = attni_cuda_run_params(plan, run);
    f.unaligned = !attni_cuda_is_aligned(&plan->problem);
    ATTNI_TRY(attni_cuda_check_bases(made->kernels[0], run, made->general ? &f.unaligned : NULL));
    const unsigned grid[3] = {(unsigned)schedule(plan, &made->tiles, &f), 1, 1};
    return grid[0] == 0 ? ATTN_OK : attni_cuda_launch(plan, made->kernels[0], grid, &f, run->stream);
}

static void describe(attn_plan *plan, const attni_cuda_plan *made, long long blocks, const char *no_hopper) {
    const attni_cuda *cuda = plan->context->backend_data;
    const attni_forward_tiles *t = &made->tiles;
    attni_text *text = &plan->description;
    attni_text_add(text, "FlashAttention-2 on CUDA device %d\n", plan->context->ordinal);
    attni_cuda_describe_kernel(text, made->kernels[0]);
    attni_text_add(text,
                   "tiles: %d queries x %d keys, dims padded to %d and %d, K and V %d deep in shared memory",
                   t->br, t->bc, t->d, t->dv, t->stages);
    if (t->value_slices > 1)
        attni_text_add(text, "; dim_v cut into %d slices, each with the same scores", t->value_slices);
    attni_text_add(text, "\ngrid: %lld blocks; %d run at once on this device\n", blocks,
                   cuda->multiprocessors * made->kernels[0]->blocks);
    attni_cuda_describe_work(plan);
    if (made->general)
        attni_text_add(text, "not forward_sm80, which is faster: %s\n", why_general(&plan->problem));
    attni_text_add(text, "not forward_sm90, which is faster: %s\n", no_hopper);
    attni_text_add(text,
                   "not STANDARD or FLASH1: they are for measuring, and options.algorithm asks for them\n");
}

static void describe_hopper(attn_plan *plan, const attni_cuda_plan *made) {
    const attni_cuda *cuda = plan->context->backend_data;
    const attni_forward_tiles *t = &made->hopper_tiles;
    attni_text *text = &plan->description;
    attni_text_add(text, "FlashAttention-2 on CUDA device %d, in Hopper's way\n", plan->context->ordinal);
    attni_cuda_describe_kernel(text, made->hopper);
    if (made->sequences) {
        attni_text_add(text, "before it: ");
        attni_cuda_describe_kernel(text, made->sequences);
    }
    if (made->gather) {
        attni_text_add(text, "keys are split, in up to %d pieces; after it: ", made->pieces);
        attni_cuda_describe_kernel(text, made->gather);
    }
    attni_text_add(text,
                   "tiles: %d %s x %d keys, dims padded to %d and %d, K and V %d deep in shared memory; %d "
                   "warpgroups multiply\ngrid: %d blocks at most, which take %s\n",
                   t->br, made->hopper_packed ? "queries of all heads of a group" : "queries", t->bc, t->d,
                   t->dv, t->stages, t->warps / 4, cuda->multiprocessors,
                   plan->workspace_size > 0 ? "tickets for their tiles" : "tiles in turn");
    attni_cuda_describe_work(plan);
    if (made->kernels[0]) {
        attni_text_add(text, "for attn_accum_add, and for what the copy engine cannot walk of a bias: ");
        attni_cuda_describe_kernel(text, made->kernels[0]);
    }
    attni_text_add(text, "not forward_sm80, which is slower here, nor STANDARD or FLASH1: they are for "
                         "measuring, and options.algorithm asks for them\n");
}

/* Whether the variant is to be that for few rows; the most pieces of its keys, or 0 where they stay whole. */
static int split_keys(const attn_plan *plan, attni_hopper_shape *shape) {
    const attni_cuda *cuda = plan->context->backend_data;
    const uint64_t limit = plan->options.workspace_limit;
    attni_kernel_spec spec;
    attni_forward_tiles tiles;
    size_t at;
    int pieces = 1;
    shape->split = true;
    if (attni_hopper_spec(shape, cuda->shared_limit, &spec, &tiles))
        pieces = attni_hopper_most_pieces(cuda, &plan->problem, shape, &tiles);
    if (limit != 0 && attni_hopper_workspace(&plan->problem, pieces, &at) > limit) pieces = 1;
    shape->split = pieces > 1 || shape->few;
    return pieces > 1 ? pieces : 0;
}

/* The kernels of a shape; or why its tiles do not fit. */
static attn_status load_hopper(const attn_plan *plan, attni_cuda_plan *made, const attni_hopper_shape *shape,
                               const char **refusal) {
    const attni_cuda *cuda = plan->context->backend_data;
    attni_kernel_spec spec;
    if (!attni_hopper_spec(shape, cuda->shared_limit, &spec, &made->hopper_tiles)) {
        *refusal = "its tiles need more shared memory than a block has";
        return ATTN_OK;
    }
    made->hopper_packed = shape->packed;
    ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->hopper));
    if (shape->lengths) {
        spec = attni_hopper_sequences_spec();
        ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->sequences));
    }
    if (made->pieces > 1) {
        spec = attni_hopper_gather_spec();
        ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->gather));
    }
    return ATTN_OK;
}

/* Chooses forward_sm90 where it takes the problem and can be had; else says why not. */
static attn_status open_hopper(attn_plan *plan, attni_cuda_plan *made, const char **refusal) {
    const attni_cuda *cuda = plan->context->backend_data;
    attni_hopper_shape shape = attni_hopper_shape_of(&plan->problem);
    shape.exact = plan->options.exact_reference != 0;
    *refusal = plan->options.isa == ATTN_ISA_SM80 ? "options.isa asks for sm80"
                                                  : attni_hopper_refusal(cuda, &plan->problem);
    const bool narrow = (shape.softcap || shape.alibi) && plan->problem.dim_qk <= 64;
    if (!*refusal && shape.exact && (narrow || shape.bias || shape.general))
        *refusal = "it has no exact reference beside options, but softcap or ALiBi at dims from 97 to 128";
    if (*refusal) return ATTN_OK;
    made->pieces = split_keys(plan, &shape);
    attn_status status = load_hopper(plan, made, &shape, refusal);
    if (*refusal) return ATTN_OK;
    if (status == ATTN_COMPILE_ERROR &&
        shape.split) { /* without NVRTC: the variant for many rows may be embedded */
        shape.split = false;
        made->pieces = 0;
        status = load_hopper(plan, made, &shape, refusal);
    }
    if (status != ATTN_COMPILE_ERROR && status != ATTN_UNSUPPORTED) return status;
    made->hopper = NULL;
    /* without NVRTC, say: forward_sm80 may be embedded */
    snprintf(made->no_hopper, sizeof made->no_hopper, "%s", attn_last_error());
    *refusal = made->no_hopper;
    return ATTN_OK;
}

/*
 * forward_sm80's options for a plan. Beside forward_sm90, for what that leaves (accumulators, some runs with a bias), one
 * of the widths that the build embeds: a plan compiles one kernel at most.
 */
static attn_status choose_sm80(const attn_plan *plan, attni_cuda_plan *made, attni_kernel_spec *spec) {
    const attn_problem *p = &plan->problem;
    const attni_cuda *cuda = plan->context->backend_data;
    int64_t dim_qk = p->dim_qk, dim_v = p->dim_v;
    if (made->hopper) {
        const int64_t widest = dim_qk > dim_v ? dim_qk : dim_v;
        dim_qk = dim_v = widest <= 64 ? 64 : widest <= 128 ? 128 : 256;
    }
    return attni_cuda_forward_spec(p->dtype_q, dim_qk, dim_v, made->general, cuda->shared_limit, spec,
                                   &made->tiles);
}

attn_status attni_cuda_forward_open(attn_plan *plan, attni_cuda_plan *made) {
    const attn_problem *p = &plan->problem;
    attni_kernel_spec spec;
    const char *refusal;
    if (attni_dtype_is_f8(p->dtype_q)) return attni_f8_open(plan, made);
    made->general = why_general(p) != NULL;
    ATTNI_TRY(open_hopper(plan, made, &refusal));
    const bool sm80 = !made->hopper || made->hopper_tiles.dv <= 256;
    if (sm80) ATTNI_TRY(choose_sm80(plan, made, &spec));
    const long long blocks = schedule(plan, sm80 ? &made->tiles : &made->hopper_tiles, &made->base);
    if (blocks < 0)
        return attni_fail(ATTN_UNSUPPORTED,
                          "batch %lld, heads_q %lld and seqlen_q %lld make more than 2^31 - 1 tiles, the "
                          "limit of a CUDA grid",
                          (long long)p->batch, (long long)p->heads_q, (long long)p->seqlen_q);
    if (sm80) ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->kernels[0]));
    ATTNI_TRY(attni_cuda_accum_open(plan, made));
    made->forward = run_forward;
    if (made->hopper) {
        plan->kernel = "forward_sm90";
        plan->workspace_size = attni_hopper_workspace(p, made->pieces, &made->pieces_at);
        describe_hopper(plan, made);
        return ATTN_OK;
    }
    if (plan->options.isa == ATTN_ISA_SM90)
        return attni_fail(ATTN_UNSUPPORTED, "options.isa is sm90, and forward_sm90 is not to be had: %s",
                          refusal);
    plan->kernel = made->general ? "forward_sm80_general" : "forward_sm80";
    describe(plan, made, blocks, refusal);
    return ATTN_OK;
}
