/* The CPU back end: which kernel a problem gets, how it is cut up, and its runs. */
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "cpu/accum_cpu.h"
#include "cpu/features.h"
#include "cpu/plan_cpu.h"

#define TAPERING_PIECES 6 /* the least of a sequence that is cut finer towards its end */
#define MOST_HEADS 32 /* that one task of a decode takes together */
#define KEPT_BYTES ((size_t)64 << 20) /* of converted K and V, over all tasks */

static attn_status context_open(attn_context *context) {
    attni_text_add(&context->description, "%s\ninstruction sets: portable", attni_cpu_features_get()->name);
    for (int i = ATTN_ISA_PORTABLE + 1; i <= ATTN_ISA_NEON_BF16; i++)
        if (attni_isa_refusal((attn_isa)i) == NULL)
            attni_text_add(&context->description, " %s", attni_isa_name((attn_isa)i));
    attni_text_add(&context->description, "\nthreads: %d\n", context->options.threads);
    return ATTN_OK;
}

static void context_close(attn_context *context) { (void)context; }

/* ---------------------------------------------------------------- choice of a kernel */

/* The tier that was asked for: the plan's, else the environment's, else AUTO. */
static attn_status asked_isa(const attn_plan *plan, attn_isa *isa) {
    *isa = plan->options.isa;
    const char *source = "options.isa";
    const char *environment = getenv("ATTN_ISA");
    if (*isa == ATTN_ISA_AUTO && environment != NULL && environment[0] != 0) {
        source = "ATTN_ISA";
        int found = 0;
        for (int i = ATTN_ISA_AUTO; i <= ATTN_ISA_NEON_BF16; i++) {
            if (strcmp(environment, attni_isa_name((attn_isa)i)) != 0) continue;
            *isa = (attn_isa)i;
            found = 1;
        }
        if (!found)
            return attni_fail(
                ATTN_INVALID_ARGUMENT,
                "ATTN_ISA is \"%s\"; allowed is auto, portable, avx2, avx512, avx512_bf16, amx, "
                "neon or neon_bf16",
                environment);
    }
    const char *refusal = attni_isa_refusal(*isa);
    if (refusal != NULL)
        return attni_fail(ATTN_UNSUPPORTED, "%s is %s; %s", source, attni_isa_name(*isa), refusal);
    return ATTN_OK;
}

/* Null if the kernel can and should take the problem, else why not. */
static const char *kernel_refusal(const attni_cpu_kernel *k, const attn_problem *p, attn_isa asked) {
    const char *refusal = attni_isa_refusal(k->isa);
    if (refusal != NULL) return refusal;
    if (asked != ATTN_ISA_AUTO && k->isa > asked) return "a lower instruction set was asked for";
    if (k->bf16_only && !(p->dtype_q == ATTN_BF16 && p->dtype_kv == ATTN_BF16))
        return "it takes bf16 queries, keys and values";
    if (k->bf16_only && k->backward != NULL && p->dtype_o != ATTN_BF16) return "it takes bf16 outputs";
    if (k->bf16_only && k->isa != ATTN_ISA_AMX && asked == ATTN_ISA_AUTO &&
        !attni_cpu_features_get()->bf16_dot_pays)
        return "on this processor vdpbf16ps does fewer operations a cycle than f32 FMA";
    return NULL;
}

static const attni_cpu_kernel *choose_kernel(attn_plan *plan, const char *op, attn_isa asked) {
    const attni_cpu_kernel *chosen = NULL;
    for (int32_t i = attni_cpu_kernel_count - 1; i >= 0; i--) {
        const attni_cpu_kernel *k = &attni_cpu_kernels[i];
        if (strcmp(k->op, op) != 0) continue;
        const char *refusal = chosen != NULL ? "slower" : kernel_refusal(k, &plan->problem, asked);
        if (refusal != NULL) {
            attni_text_add(&plan->description, "not %s: %s\n", k->name, refusal);
        } else {
            chosen = k;
            attni_text_add(&plan->description, "kernel: %s\n", k->name);
        }
    }
    return chosen;
}

/* ---------------------------------------------------------------- plan */

/* Equal tiles no larger than the kernel's, and small enough that every task gets several. */
static int64_t forward_tile_rows(const attni_cpu_kernel *k, int64_t rows, int64_t sequences,
                                 int64_t threads) {
    int64_t tiles = attni_max(1, attni_ceil_div(rows, k->tile_rows));
    const int64_t wanted = attni_ceil_div(8 * threads, attni_max(1, sequences));
    if (threads > 1 && tiles < wanted) tiles = attni_min(wanted, attni_max(1, rows / k->sub_rows));
    return attni_round_up(attni_max(1, attni_ceil_div(rows, tiles)), k->sub_rows);
}

/* Blocks of K and V that a task keeps: all of a sequence's, if several tiles use them, within KEPT_BYTES. */
static int64_t forward_slots(const attni_cpu_kernel *k, const attni_cpu_plan *c, const attn_problem *p) {
    if (c->pieces == 1) return 1;
    const size_t slot = c->block_bytes > 0 ? c->block_bytes
                                           : k->scratch_bytes(1, 2, p->dim_qk, p->dim_v) -
                                                 k->scratch_bytes(1, 1, p->dim_qk, p->dim_v);
    const int64_t most = (int64_t)(KEPT_BYTES / (size_t)c->threads / slot);
    return attni_max(1, attni_min(most, attni_ceil_div(p->seqlen_k, k->block_keys)));
}

/*
 * Heads that one task takes together: all, whose rows lie side by side in memory, unless that leaves fewer of the
 * largest pieces than tasks. A divisor of heads_kv.
 */
static int64_t decode_heads(const attn_problem *p, int64_t largest, int64_t threads) {
    const int64_t pieces = attni_max(1, p->seqlen_k / largest);
    int64_t heads = attni_min(p->heads_kv, MOST_HEADS);
    while (p->heads_kv % heads != 0) heads--;
    while (heads > 1 && p->batch * pieces * (p->heads_kv / heads) < threads) {
        heads--;
        while (p->heads_kv % heads != 0) heads--;
    }
    return heads;
}

/*
 * Whether the rows of a kv head are few enough to split its keys: as few as are computed at once, or one to four
 * queries of a large group, where forward's tiles would be no faster and too few. By the shape alone, never by
 * threads: results must not depend on them.
 */
static bool decode_pays(const attni_cpu_kernel *k, const attn_problem *p, int64_t rows) {
    return rows <= ATTNI_DECODE_ROWS || (p->seqlen_q <= 4 && rows <= k->tile_rows);
}

/* Cuts the rows (forward) or the keys (decode) into pieces, and sizes the workspace; false if that overflows. */
static bool cut(attni_cpu_plan *c, const attn_problem *p, int64_t rows, int64_t threads, size_t *workspace) {
    const attni_cpu_kernel *k = c->kernel;
    const bool decode = k->decode != NULL;
    c->sequences = rows == 0 ? 0 : p->batch * p->heads_kv;
    c->piece_size =
        decode ? attni_cpu_decode_largest(p->seqlen_k) : forward_tile_rows(k, rows, c->sequences, threads);
    c->pieces =
        decode ? attni_cpu_decode_pieces(p->seqlen_k) : attni_max(1, attni_ceil_div(rows, c->piece_size));
    /* far beyond any memory, and far below overflow */
    if ((double)c->sequences * (double)c->pieces * (double)(rows + 1) * (double)(p->dim_v + 2) > 0x1p58)
        return false;
    c->threads = (int32_t)attni_max(1, attni_min(threads, c->sequences * c->pieces));
    c->heads = decode ? decode_heads(p, c->piece_size, threads) : 1;
    c->parts = c->sequences / c->heads;
    c->partial_rows = decode ? rows : 0;
    c->partial_floats = (size_t)attni_round_up(c->partial_rows * (p->dim_v + 2), 16);
    c->block_bytes = k->block_bytes == NULL ? 0 : k->block_bytes(p->dim_qk, p->dim_v);
    c->slots = decode ? 1 : forward_slots(k, c, p);
    /* no more of them than if each task had its own */
    c->shared = c->block_bytes > 0 && c->pieces > 1 && c->sequences <= c->threads &&
                c->slots * k->block_keys >= p->seqlen_k;
    c->tapers = c->shared && c->pieces >= TAPERING_PIECES && c->piece_size >= 4 * k->sub_rows;
    if (c->tapers) c->pieces += 4;
    const int64_t total = c->sequences * c->pieces;
    c->scratch_bytes =
        k->scratch_bytes(decode ? c->heads : c->piece_size,
                         decode ? attni_ceil_div(rows, ATTNI_DECODE_ROWS) : c->slots, p->dim_qk, p->dim_v);
    c->scratch_bytes =
        (c->scratch_bytes + 4095) / 4096 * 4096 + 64; /* tasks apart, and not on the same cache sets */
    const size_t keepers = (size_t)(c->shared ? c->sequences : c->threads),
                 slots = c->block_bytes == 0 ? 0 : keepers * (size_t)c->slots;
    c->blocks_offset = (size_t)c->threads * c->scratch_bytes;
    c->tags_offset = c->blocks_offset + slots * c->block_bytes;
    c->next_offset = c->tags_offset + slots * sizeof(atomic_llong);
    *workspace = decode ? c->blocks_offset + (size_t)total * c->partial_floats * sizeof(float) +
                              attni_cpu_decode_notes(c->parts, c->pieces)
                        : c->next_offset + (size_t)c->sequences * sizeof(atomic_llong);
    return true;
}

static attn_status too_large(const attn_problem *p) {
    return attni_fail(
        ATTN_INVALID_ARGUMENT,
        "batch %lld times heads_kv %lld times their pieces needs more workspace than an address space",
        (long long)p->batch, (long long)p->heads_kv);
}

/* A run is a forward or a backward: they share the workspace. */
static attn_status open_backward(attn_plan *plan, attni_cpu_plan *c, attn_isa asked) {
    if (!plan->problem.needs_backward) return ATTN_OK;
    c->backward = choose_kernel(plan, "backward", asked);
    const size_t bytes = attni_cpu_backward_cut(plan, c);
    if (bytes == 0) return too_large(&plan->problem);
    if (plan->workspace_size < bytes) plan->workspace_size = bytes;
    plan->backward_kernel = c->backward->name;
    attni_text_add(&plan->description, "%lld chunks of %lld rows or %lld keys, %s, workspace %zu bytes\n",
                   (long long)c->chunks, (long long)c->chunk_rows, (long long)c->chunk_keys,
                   c->whole ? "a sequence and head is one task's" : "tasks share a sequence and head", bytes);
    return ATTN_OK;
}

static attn_status plan_open(attn_plan *plan) {
    const attn_problem *p = &plan->problem;
    if (plan->options.algorithm == ATTN_ALGORITHM_STANDARD ||
        plan->options.algorithm == ATTN_ALGORITHM_FLASH1)
        return attni_fail(ATTN_UNSUPPORTED,
                          "options.algorithm is %d; a CPU context has AUTO (0) and FLASH2 (3)",
                          (int)plan->options.algorithm);
    if (attni_dtype_is_f8(p->dtype_q))
        return attni_fail(
            ATTN_UNSUPPORTED,
            "problem.dtype_q is %s; a CPU context takes f32, f16 and bf16, and a CUDA context on "
            "Hopper f8",
            attni_dtype_name(p->dtype_q));
    attn_isa asked;
    ATTNI_TRY(asked_isa(plan, &asked));
    attni_cpu_plan *c = attni_alloc(plan->context, sizeof *c);
    if (c == NULL) return ATTN_OUT_OF_MEMORY;
    memset(c, 0, sizeof *c);
    const int64_t rows = plan->group * p->seqlen_q;
    c->kernel =
        plan->options.algorithm == ATTN_ALGORITHM_FLASH2 ? NULL : choose_kernel(plan, "decode", asked);
    if (c->kernel == NULL || !decode_pays(c->kernel, p, rows)) {
        plan->description.length = 0;
        c->kernel = choose_kernel(plan, "forward", asked);
    }
    if (!cut(c, p, rows, plan->options.threads, &plan->workspace_size)) {
        attni_free(plan->context, c);
        return too_large(p);
    }
    plan->backend_data = c;
    plan->kernel = c->kernel->name;
    attni_text_add(&plan->description, "%lld pieces of up to %lld %s, %d tasks, workspace %zu bytes\n",
                   (long long)(c->sequences * c->pieces), (long long)c->piece_size,
                   c->kernel->decode != NULL ? "keys" : "rows", c->threads, plan->workspace_size);
    attni_text_add(&plan->description,
                   "scores: %.4g, flops without mask: %.4g, score matrix not stored: %.4g bytes\n",
                   (double)plan->rows * (double)p->seqlen_k,
                   2.0 * (double)plan->rows * (double)p->seqlen_k * (double)(p->dim_qk + p->dim_v),
                   4.0 * (double)plan->rows * (double)p->seqlen_k);
    const attn_status status = open_backward(plan, c, asked);
    if (status != ATTN_OK) attni_free(plan->context, c);
    return status;
}

static void plan_close(attn_plan *plan) { attni_free(plan->context, plan->backend_data); }

/* ---------------------------------------------------------------- run */

static uint32_t options_of(const attn_problem *p, const attn_tensors *t, attni_run_kind kind) {
    uint32_t options = 0;
    if (p->softcap > 0) options |= ATTNI_SOFTCAP;
    if (p->has_alibi) options |= ATTNI_ALIBI;
    if (p->has_bias) options |= ATTNI_BIAS;
    if (p->has_mask) options |= ATTNI_MASK;
    /* a backward divides the LSE by the scale where that comes last */
    if (!(t->scale > (kind == ATTNI_RUN_BACKWARD ? 0x1p-60f : 0))) options |= ATTNI_SCALE_FIRST;
    if (p->dropout_p > 0) options |= ATTNI_DROPOUT;
    return options;
}

static attn_status run_cpu(const attn_plan *plan, const attni_run *run) {
    const attn_problem *p = &plan->problem;
    const attni_cpu_plan *c = plan->backend_data;
    attni_job job = {.p = p, .t = run->tensors, .group = plan->group, .kind = run->kind, .accum = run->accum};
    job.options = options_of(p, &run->tensors, run->kind);
    job.dropout_threshold = attni_dropout_threshold(p->dropout_p);
    job.dropout_scale = 1.0f / (1.0f - p->dropout_p);
    if (run->kind == ATTNI_RUN_BACKWARD)
        attni_cpu_backward(plan, &job, run->workspace);
    else if (run->kind == ATTNI_RUN_FINISH)
        attni_cpu_finish(plan, &job, run->accum);
    else if (c->kernel->decode != NULL)
        attni_cpu_decode(plan, &job, run->workspace);
    else
        attni_cpu_forward(plan, &job, run->workspace);
    return ATTN_OK;
}

const attni_backend *attni_cpu_backend(void) {
    static const attni_backend backend = {
        .device = ATTN_DEVICE_CPU,
        .context_open = context_open,
        .context_close = context_close,
        .plan_open = plan_open,
        .plan_close = plan_close,
        .workspace_alloc = attni_alloc,
        .workspace_free = attni_free,
        .run = run_cpu,
        .accum_begin = attni_cpu_accum_begin,
        .accum_merge = attni_cpu_accum_merge,
        .accum_check = attni_cpu_accum_check,
    };
    return &backend;
}
