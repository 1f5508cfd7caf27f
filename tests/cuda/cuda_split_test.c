/* Keys in pieces on Hopper, over the fake driver: when, with what workspace, and the same answers as without. */
#define _DEFAULT_SOURCE
#include <math.h>

#include "cuda_host.h"
#include "properties/packed.h"

/* A few queries over many keys. */
static attn_problem long_problem(int kind) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = 2;
    p.heads_q = 4;
    p.heads_kv = kind == 3 ? 4 : 2;
    p.seqlen_q = kind == 1 ? 9 : 1;
    p.seqlen_k = 1700;
    p.dim_qk = p.dim_v = kind == 2 ? 128 : 64;
    p.mask = kind == 0 ? ATTN_MASK_NONE : ATTN_MASK_CAUSAL;
    p.has_sinks = kind == 1;
    if (kind == 2) p.lengths_k = ATTN_LENGTHS_PADDED;
    return p;
}

static int is_split(const attn_plan *plan) {
    return strstr(attn_plan_describe(plan), "keys are split") != NULL;
}

/* Runs a plan into o and lse, which are poisoned first. */
static void run_plan(const attn_plan *plan, packed *made, const attn_execution *execution) {
    memset(made->o, 0xff, (size_t)made->o_count * 2);
    memset(made->lse, 0xff, (size_t)made->rows * 4);
    CHECK(attn_forward(plan, &made->tensors, execution) == ATTN_OK, "%s", attn_last_error());
}

static void compare(const packed *made, const uint16_t *o, const float *lse, int kind) {
    double apart = 0;
    for (int64_t i = 0; i < made->o_count; i++) {
        const double difference =
            fabs(attni_reference_load(o, ATTN_BF16, i) - attni_reference_load(made->o, ATTN_BF16, i));
        apart = test_worse(apart, difference);
    }
    CHECK(apart <= 1e-3, "kind %d: o is %g apart", kind, apart); /* a rounding in 16 bits */
    for (int64_t i = 0; i < made->rows; i++)
        CHECK(fabsf(lse[i] - made->lse[i]) <= 1e-5f, "kind %d: lse %g and %g", kind, (double)lse[i],
              (double)made->lse[i]);
}

static void split(void) {
    attn_context *context = open_device(0, NULL);
    const int32_t lengths[2] = {1700, 130};
    const float sinks[4] = {0.5f, -1.0f, 9.0f, -INFINITY};
    for (int kind = 0; kind < 4; kind++) {
        attn_problem p = long_problem(kind);
        attni_random random = {(uint64_t)kind};
        packed made = packed_make(&p, ATTN_BF16, &random);
        attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
        attn_plan *plan;
        made.tensors.lengths_k = kind == 2 ? lengths : NULL;
        made.tensors.sinks = kind == 1 ? sinks : NULL;
        made.problem.batch_invariant = 1;
        NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
        CHECK(!is_split(plan), "%s", attn_plan_describe(plan));
        run_plan(plan, &made, NULL);
        attn_plan_destroy(plan);
        uint16_t *o = test_memory((size_t)made.o_count * 2);
        float *lse = test_memory((size_t)made.rows * 4);
        memcpy(o, made.o, (size_t)made.o_count * 2);
        memcpy(lse, made.lse, (size_t)made.rows * 4);

        made.problem.batch_invariant = 0;
        NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
        CHECK(is_split(plan), "%s", attn_plan_describe(plan));
        fake_reset();
        run_plan(plan, &made, NULL);
        /* gather_sm90 begins under the forward's end, and that, with lengths, under sequences_sm90's */
        CHECK(fake_calls("cuLaunchKernel") == 1 && fake_calls("cuLaunchKernelEx") == (kind == 2 ? 2 : 1) &&
                  fake_calls("cuMemAlloc_v2") == 0,
              "kind %d: %d launches", kind, fake_calls("cuLaunchKernel"));
        CHECK(strcmp(fake_last_launch()->name, "gather_sm90") == 0, "%s", fake_last_launch()->name);
        compare(&made, o, lse, kind);

        attn_execution execution = ATTN_EXECUTION_INIT;
        execution.workspace_bytes = attn_plan_workspace_size(plan);
        execution.workspace = test_memory(execution.workspace_bytes + 1);
        memset(execution.workspace, 0xff, execution.workspace_bytes + 1);
        run_plan(plan, &made, &execution);
        compare(&made, o, lse, kind);
        CHECK(((unsigned char *)execution.workspace)[execution.workspace_bytes] == 0xff,
              "kind %d: beyond the workspace", kind);
        free(execution.workspace);

        made.tensors.seqlen_k = 100; /* one piece; of a plan that has them still its way */
        run_plan(plan, &made, NULL);
        made.tensors.seqlen_k = ATTN_LENGTH_DEFAULT;
        options.workspace_limit = attn_plan_workspace_size(plan) - 1;
        attn_plan_destroy(plan);
        NEED(attn_plan_create(context, &made.problem, &options, &plan) == ATTN_OK);
        CHECK(!is_split(plan), "%s", attn_plan_describe(plan));
        attn_plan_destroy(plan);
        free(o);
        free(lse);
        packed_free(&made);
    }

    /* Enough tiles for all multiprocessors, or too few keys: not split. */
    for (int kind = 0; kind < 2; kind++) {
        attn_problem p = long_problem(0);
        attn_plan *plan;
        p.dtype_q = p.dtype_kv = p.dtype_o = ATTN_BF16;
        if (kind == 0) p.batch = 66;
        if (kind == 1) p.seqlen_k = 384;
        NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
        CHECK(!is_split(plan), "%s", attn_plan_describe(plan));
        attn_plan_destroy(plan);
    }
    attn_context_destroy(context);
}

int main(int argc, char **argv) {
    static const host_scenario scenarios[] = {{"split", split}};
    return host_main(argc, argv, scenarios, sizeof scenarios / sizeof scenarios[0]);
}
