/* Pinned numbers, names, and structs of other ages than the library's. */
#include "test.h"

static void test_numbers(void) {
    CHECK(ATTN_OK == 0 && ATTN_INVALID_ARGUMENT == 1 && ATTN_UNSUPPORTED == 2 && ATTN_OUT_OF_MEMORY == 3,
          "statuses");
    CHECK(ATTN_WORKSPACE_TOO_SMALL == 4 && ATTN_NO_DEVICE == 5 && ATTN_DEVICE_ERROR == 6 &&
              ATTN_COMPILE_ERROR == 7,
          "statuses");
    CHECK(ATTN_F32 == 0 && ATTN_F16 == 1 && ATTN_BF16 == 2 && ATTN_F8_E4M3 == 3 && ATTN_F8_E5M2 == 4,
          "dtypes");
    CHECK(attn_version() == ATTN_VERSION, "version %d", attn_version());
    CHECK(attn_has_feature(ATTN_FEATURE_CPU) == 1, "no CPU");
    CHECK(attn_has_feature((attn_feature)99) == 0, "feature 99");
}

static void test_names(void) {
    static const char *const names[] = {"ATTN_OK",
                                        "ATTN_INVALID_ARGUMENT",
                                        "ATTN_UNSUPPORTED",
                                        "ATTN_OUT_OF_MEMORY",
                                        "ATTN_WORKSPACE_TOO_SMALL",
                                        "ATTN_NO_DEVICE",
                                        "ATTN_DEVICE_ERROR",
                                        "ATTN_COMPILE_ERROR"};
    for (int i = 0; i < 8; ++i)
        CHECK(strcmp(attn_status_name((attn_status)i), names[i]) == 0, "status %d", i);
    CHECK(strcmp(attn_status_name((attn_status)8), "unknown status") == 0, "status 8");
    CHECK(strcmp(attn_status_name((attn_status)-1), "unknown status") == 0, "status -1");
}

static void test_nulls(void) {
    attn_context_destroy(NULL);
    attn_plan_destroy(NULL);
    CHECK(strcmp(attn_context_describe(NULL), "") == 0, "describe");
    CHECK(strcmp(attn_plan_describe(NULL), "") == 0, "describe");
    CHECK(strcmp(attn_plan_kernel(NULL), "") == 0, "kernel");
    CHECK(attn_plan_workspace_size(NULL) == 0 && attn_accum_size(NULL) == 0, "sizes");
}

/* A caller built against a later header: more bytes, all 0, are taken; a field set there is refused. */
static void test_larger(attn_context *context) {
    struct {
        attn_problem problem;
        int64_t later;
    } larger;
    memset(&larger, 0, sizeof larger);
    const attn_problem init = ATTN_PROBLEM_INIT;
    larger.problem = init;
    larger.problem.struct_size = sizeof larger;
    larger.problem.seqlen_q = larger.problem.seqlen_k = 3;
    larger.problem.dim_qk = larger.problem.dim_v = 4;
    attn_plan *plan;
    CHECK(attn_plan_create(context, &larger.problem, NULL, &plan) == ATTN_OK, "%s", attn_last_error());

    struct {
        attn_tensors tensors;
        int64_t later;
    } run;
    float x[12] = {0};
    memset(&run, 0, sizeof run);
    const attn_tensors tensors = ATTN_TENSORS_INIT;
    run.tensors = tensors;
    run.tensors.struct_size = sizeof run;
    run.tensors.q = run.tensors.k = run.tensors.v = x;
    float o[12];
    run.tensors.o = o;
    CHECK(attn_forward(plan, &run.tensors, NULL) == ATTN_OK, "%s", attn_last_error());
    run.later = 1;
    CHECK(attn_forward(plan, &run.tensors, NULL) == ATTN_UNSUPPORTED,
          "a field of a later version was ignored");
    attn_plan_destroy(plan);

    larger.later = 1;
    CHECK(attn_plan_create(context, &larger.problem, NULL, &plan) == ATTN_UNSUPPORTED,
          "a field of a later version was ignored");
    CHECK(plan == NULL, "a plan was left behind");
}

static void test_smaller(attn_context *context) {
    attn_problem problem = ATTN_PROBLEM_INIT;
    attn_plan *plan;
    const size_t sizes[] = {0, 8, sizeof problem - 1, (size_t)1 << 40};
    problem.seqlen_q = problem.seqlen_k = problem.dim_qk = problem.dim_v = 2;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        problem.struct_size = sizes[i];
        CHECK(attn_plan_create(context, &problem, NULL, &plan) == ATTN_INVALID_ARGUMENT,
              "problem of %zu bytes", sizes[i]);
        CHECK(strstr(attn_last_error(), "struct_size") != NULL, "%s", attn_last_error());
    }
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_context *other;
    options.struct_size = 4;
    CHECK(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &other) == ATTN_INVALID_ARGUMENT,
          "context options");
    attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
    info.struct_size = 4;
    CHECK(attn_kernel_get(0, &info) == ATTN_INVALID_ARGUMENT, "kernel info");
}

static void test_kernels(void) {
    CHECK(attn_kernel_count() > 0, "no kernels");
    for (int32_t i = 0; i < attn_kernel_count(); ++i) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        CHECK(attn_kernel_get(i, &info) == ATTN_OK, "%s", attn_last_error());
        CHECK(info.name && info.name[0] && info.op && info.dtypes, "row %d", i);
        CHECK(info.struct_size == sizeof info, "row %d", i);
        CHECK(!info.refusal || info.refusal[0], "row %d is refused without a reason", i);
    }
    attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
    CHECK(attn_kernel_get(-1, &info) == ATTN_INVALID_ARGUMENT, "row -1");
    CHECK(attn_kernel_get(attn_kernel_count(), &info) == ATTN_INVALID_ARGUMENT, "a row too many");
    CHECK(attn_kernel_get(0, NULL) == ATTN_INVALID_ARGUMENT, "null");
}

int main(void) {
    CHECK(strcmp(attn_last_error(), "") == 0, "an error before the first call: %s", attn_last_error());
    attn_context *context = test_context(1);
    test_numbers();
    test_names();
    test_nulls();
    test_larger(context);
    test_smaller(context);
    test_kernels();
    CHECK(attn_context_describe(context)[0] != 0, "the context has no description");
    attn_context_destroy(context);
    return test_report();
}
