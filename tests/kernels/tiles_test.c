/*
 * The AMX kernels with their tiles in plain C (tiles_amx.h), so that their data flow meets the oracle on any
 * machine with AVX-512 BF16: random problems with every option, each on one task and on three, which give the
 * same bits. The property tests are built over the same library, with AMX as their first tier
 * (tests/CMakeLists.txt).
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <time.h>

#include "properties/packed.h"
#include "reference/problems.h"

enum { PROBLEMS = 500, LEAST = 100, LEAST_BACKWARD = 200, FORWARD = 0, BACKWARD = 1 };

/* Runs a case on so many tasks and has the oracle judge; 0 where no AMX kernel takes it. */
static int run(attn_context *context, attni_problems_case *c, int op, int threads) {
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    attn_plan *plan;
    options.isa = ATTN_ISA_AMX;
    options.threads = threads;
    options.algorithm = ATTN_ALGORITHM_FLASH2;
    NEED(attn_plan_create(context, &c->problem, &options, &plan) == ATTN_OK);
    const int taken = op == FORWARD ? strcmp(attn_plan_kernel(plan), "forward_amx") == 0
                                    : strcmp(attn_plan_backward_kernel(plan), "backward_amx") == 0;
    if (taken) {
        double ratio;
        char message[1024];
        int right;
        if (op == FORWARD) {
            attni_problems_poison(c);
            CHECK(attn_forward(plan, &c->tensors, NULL) == ATTN_OK, "%s", attn_last_error());
            right = attni_problems_verify(c, &ratio, message, sizeof message);
        } else {
            attni_problems_poison_gradients(c);
            CHECK(attn_backward(plan, &c->tensors, NULL) == ATTN_OK, "%s", attn_last_error());
            right = attni_problems_verify_gradients(c, &ratio, message, sizeof message);
        }
        CHECK(right, "%d tasks: %s", threads, message);
    }
    attn_plan_destroy(plan);
    return taken;
}

static void test_case(attn_context *context, uint64_t seed, int op, int *taken) {
    attni_problems_case c;
    NEED((op == FORWARD ? attni_problems_make(&c, seed, NULL)
                        : attni_problems_make_backward(&c, seed, NULL)) == 0);
    if (run(context, &c, op, 1)) {
        const int from = op == FORWARD ? ATTNI_PROBLEMS_O : ATTNI_PROBLEMS_DQ,
                  count = op == FORWARD ? 1 : ATTNI_PROBLEMS_DSINKS - ATTNI_PROBLEMS_DQ + 1;
        unsigned char *first[ATTNI_PROBLEMS_DSINKS - ATTNI_PROBLEMS_DQ + 1];
        for (int i = 0; i < count; ++i) {
            const attni_problems_buffer *out = &c.buffers[from + i];
            first[i] = test_memory(out->bytes);
            if (out->memory) memcpy(first[i], out->memory, out->bytes);
        }
        run(context, &c, op, 3);
        for (int i = 0; i < count; ++i) {
            const attni_problems_buffer *out = &c.buffers[from + i];
            CHECK(!out->memory || memcmp(first[i], out->memory, out->bytes) == 0,
                  "three tasks give other bits: output %d of %s", i, c.text);
            free(first[i]);
        }
        ++*taken;
    }
    attni_problems_free(&c);
}

/*
 * Scores that climb along the keys for some rows and fall for others: references move in later units. late: rows see 101
 * keys each, of which those of the last 8 begin in the second block.
 */
static void test_climbing(attn_context *context, int64_t dim_v, int late) {
    attni_random random = {77};
    attn_problem sizes = ATTN_PROBLEM_INIT;
    sizes.heads_q = 2;
    sizes.seqlen_q = 50;
    sizes.seqlen_k = 1100;
    sizes.dim_qk = 16;
    sizes.dim_v = dim_v;
    if (late) {
        sizes.seqlen_q = 32;
        sizes.heads_q = 1;
        sizes.seqlen_k = 364;
        sizes.window_left = 100;
        sizes.window_right = 0;
    }
    packed a = packed_make(&sizes, ATTN_BF16, &random);
    a.tensors.scale = 1.0f; /* to 2^390 beyond the first reference */
    for (int64_t row = 0; row < a.rows; ++row)
        attni_reference_store(a.q, ATTN_BF16, row * 16, (double)(row % 7 - 2) * 4);
    for (int64_t key = 0; key < sizes.seqlen_k; ++key)
        attni_reference_store(a.k, ATTN_BF16, key * 16, (double)key / (late ? 8 : 64));
    NEED(packed_run(&a, context, ATTN_ISA_AMX, 1));
    attni_reference_result truth = {.o = test_memory((size_t)a.o_count * sizeof(double)),
                                    .lse = test_memory((size_t)a.rows * sizeof(double))};
    NEED(attni_reference_forward(&a.problem, &a.tensors, &truth) == 0);
    double off = 0, off_lse = 0;
    for (int64_t i = 0; i < a.o_count; ++i) {
        const double error = fabs(attni_reference_load(a.o, ATTN_BF16, i) - truth.o[i]);
        off = test_worse(off, error);
    }
    for (int64_t i = 0; i < a.rows; ++i) {
        const double error = fabs((double)a.lse[i] - truth.lse[i]);
        off_lse = test_worse(off_lse, error);
    }
    CHECK(off <= 0.05, "climbing scores: o is off by %g", off);
    CHECK(off_lse <= 1e-4, "climbing scores: lse is off by %g", off_lse);
    free(truth.o);
    free(truth.lse);
    packed_free(&a);
}

/* O is divided by the sum of P as it was multiplied: values of one give ones, to float32's error. */
static void test_ones(attn_context *context, int64_t dim_v) {
    attni_random random = {78};
    attn_problem sizes = ATTN_PROBLEM_INIT;
    sizes.seqlen_q = 40;
    sizes.seqlen_k = 700;
    sizes.dim_qk = 64;
    sizes.dim_v = dim_v;
    packed a = packed_make(&sizes, ATTN_BF16, &random);
    float *o = test_memory((size_t)a.o_count * sizeof(float));
    a.problem.dtype_o = ATTN_F32;
    a.tensors.o = o;
    for (int64_t i = 0; i < a.v_count; ++i) attni_reference_store(a.v, ATTN_BF16, i, 1);
    attn_plan *plan = test_plan(context, &a.problem, ATTN_ISA_AMX, 1);
    NEED(plan != NULL && attn_forward(plan, &a.tensors, NULL) == ATTN_OK);
    double off = 0;
    for (int64_t i = 0; i < a.o_count; ++i) off = test_worse(off, fabs(o[i] - 1.0));
    CHECK(off <= 2e-6, "values of one: o is off by %g", off);
    attn_plan_destroy(plan);
    free(o);
    packed_free(&a);
}

/* The kernel calls it when a task is about to convert a block: others come for the block meanwhile. */
static int taking_takes_long;
void attni_tiles_taken(void);
void attni_tiles_taken(void) {
    const struct timespec while_others_come = {0, 4000000};
    if (taking_takes_long) nanosleep(&while_others_come, NULL);
}

/*
 * Tasks of one head share its converted blocks, none of which may be read before it is there: workspaces
 * begin as NaNs. With many rows its tiles taper.
 */
static void test_sharing(attn_context *context, int64_t seqlen_q, int64_t seqlen_k, int64_t dim_qk,
                         int runs) {
    attni_random random = {79};
    attn_problem sizes = ATTN_PROBLEM_INIT;
    sizes.seqlen_q = seqlen_q;
    sizes.seqlen_k = seqlen_k;
    sizes.dim_qk = dim_qk;
    sizes.dim_v = 16;
    packed a = packed_make(&sizes, ATTN_BF16, &random);
    NEED(packed_run(&a, context, ATTN_ISA_AMX, 1));
    const size_t bytes = (size_t)a.o_count * 2;
    void *wanted = test_memory(bytes);
    memcpy(wanted, a.o, bytes);
    attn_plan *plan = test_plan(context, &a.problem, ATTN_ISA_AMX, 3);
    attn_execution e = ATTN_EXECUTION_INIT;
    e.workspace_bytes = attn_plan_workspace_size(plan);
    e.workspace = test_memory(e.workspace_bytes);
    int wrong = 0;
    taking_takes_long = 1;
    for (int i = 0; i < runs; ++i) {
        memset(e.workspace, 0xff, e.workspace_bytes);
        memset(a.o, 0xff, bytes);
        NEED(attn_forward(plan, &a.tensors, &e) == ATTN_OK);
        wrong += memcmp(wanted, a.o, bytes) != 0;
    }
    taking_takes_long = 0;
    CHECK(wrong == 0, "tasks that share %lld keys, %lld rows: %d of %d runs differ from one task's",
          (long long)seqlen_k, (long long)seqlen_q, wrong, runs);
    attn_plan_destroy(plan);
    free(e.workspace);
    free(wanted);
    packed_free(&a);
}

int main(void) {
    if (!test_has_tier(ATTN_ISA_AVX512_BF16)) {
        fprintf(stderr, "this processor lacks AVX-512 BF16: nothing to test\n");
        CHECK(!test_has_tier(ATTN_ISA_AMX), "no AVX-512 BF16, and yet AMX");
        return test_report();
    }
    CHECK(test_has_tier(ATTN_ISA_AMX), "this program was not built with tiles in C");
    attn_context *context = test_context(3);
    for (int op = FORWARD; op <= BACKWARD; ++op) {
        const int least = op == FORWARD ? LEAST : LEAST_BACKWARD;
        int taken = 0;
        for (uint64_t seed = 1; seed <= PROBLEMS || taken < least; ++seed)
            test_case(context, seed, op, &taken);
    }
    int taken = 0;
    test_case(context, 100125, BACKWARD, &taken); /* a bias of -1e30 for all of a row's keys */
    NEED(taken == 1);
    test_ones(context, 48);
    test_ones(context, 57);
    test_climbing(context, 16, 0);
    test_climbing(context, 70, 0);
    test_climbing(context, 16, 1);
    test_sharing(context, 64, 250, 1024, 10);
    test_sharing(context, 3080, 40, 16, 5);
    attn_context_destroy(context);
    return test_report();
}
