/* The dispatcher: each tier, forced by option or ATTN_ISA, runs and is right; an absent one is refused. */
#define _POSIX_C_SOURCE 200809L

#include "test.h"
#include "reference/problems.h"

static const char *const names[] = {"auto",        "portable", "avx2", "avx512",
                                    "avx512_bf16", "amx",      "neon", "neon_bf16"};

/* The tier that a kernel's row in the list names; -1: no such row. */
static int tier_of(const char *kernel) {
    for (int32_t i = 0; i < attn_kernel_count(); ++i) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        NEED(attn_kernel_get(i, &info) == ATTN_OK);
        if (strcmp(info.name, kernel) == 0) return (int)info.isa;
    }
    return -1;
}

/* Whether the list has a kernel of a tier for an op; without one the tier falls back on those below it. */
static int has_op(attn_isa isa, const char *op) {
    for (int32_t i = 0; i < attn_kernel_count(); ++i) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        NEED(attn_kernel_get(i, &info) == ATTN_OK);
        if (info.isa == isa && strcmp(info.op, op) == 0) return 1;
    }
    return 0;
}

/* Problems of one dtype, so that even a tier for it alone takes them. */
static attni_problems_case next_case(attn_dtype dtype, uint64_t *seed) {
    attni_problems_case c;
    for (;;) {
        NEED(attni_problems_make(&c, (*seed)++, NULL) == 0);
        if (c.problem.dtype_q == dtype && c.problem.dtype_kv == dtype && c.problem.seqlen_q > 0 &&
            c.problem.seqlen_k > 0) {
            return c;
        }
        attni_problems_free(&c);
    }
}

static attn_dtype dtype_for(attn_isa isa, int i) {
    return isa == ATTN_ISA_AVX512_BF16 || isa == ATTN_ISA_AMX || isa == ATTN_ISA_NEON_BF16
               ? ATTN_BF16
               : (attn_dtype)(i % 3);
}

/* A context made and a plan asked for under the present ATTN_ISA. */
static attn_status plan_of(const attn_problem *problem, const attn_plan_options *options,
                           attn_context **context, attn_plan **plan) {
    *plan = NULL;
    attn_status status = attn_context_create(ATTN_DEVICE_CPU, 0, NULL, context);
    if (status != ATTN_OK) return status;
    status = attn_plan_create(*context, problem, options, plan);
    if (status != ATTN_OK) attn_context_destroy(*context);
    return status;
}

static void test_forced(attn_isa isa, int by_environment) {
    uint64_t seed = 1000;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    if (by_environment)
        setenv("ATTN_ISA", names[isa], 1);
    else
        options.isa = isa;
    int tries = test_has_tier(isa) ? 30 : 1;
    for (int i = 0; i < tries; ++i) {
        attni_problems_case c = next_case(dtype_for(isa, i), &seed);
        attn_context *context;
        attn_plan *plan;
        attn_status status = plan_of(&c.problem, &options, &context, &plan);
        if (!test_has_tier(isa)) {
            CHECK(status == ATTN_UNSUPPORTED, "%s is not here: %s", names[isa], attn_status_name(status));
            CHECK(strstr(attn_last_error(), names[isa]) != NULL, "'%s' does not name %s", attn_last_error(),
                  names[isa]);
        } else {
            CHECK(status == ATTN_OK, "%s: %s (%s)", names[isa], attn_last_error(), c.text);
        }
        if (status == ATTN_OK) {
            double ratio;
            char message[1024];
            int tier = tier_of(attn_plan_kernel(plan));
            int below = strncmp(attn_plan_kernel(plan), "decode", 6) == 0 && !has_op(isa, "decode") &&
                        tier < (int)isa;
            CHECK(tier == (int)isa || below, "%s gives %s", names[isa], attn_plan_kernel(plan));
            CHECK(strstr(attn_plan_describe(plan), attn_plan_kernel(plan)) != NULL,
                  "the description names no kernel");
            CHECK(attn_forward(plan, &c.tensors, NULL) == ATTN_OK, "%s", attn_last_error());
            CHECK(attni_problems_verify(&c, &ratio, message, sizeof message), "%s: %s",
                  attn_plan_kernel(plan), message);
            attn_plan_destroy(plan);
            attn_context_destroy(context);
        }
        attni_problems_free(&c);
    }
    unsetenv("ATTN_ISA");
}

/* A forced tier has its own backward, or that of a tier below where the list has none of its own. */
static void test_backward(attn_isa isa) {
    uint64_t seed = 2000;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.isa = isa;
    for (int i = 0; i < 20; ++i, ++seed) {
        attni_problems_case c;
        attn_context *context;
        attn_plan *plan;
        double ratio;
        char message[1024];
        NEED(attni_problems_make_backward(&c, seed, NULL) == 0);
        const attn_dtype dtype = dtype_for(isa, i); /* whose forward even a tier for one dtype takes */
        if (c.problem.dtype_q == dtype && c.problem.dtype_kv == dtype) {
            NEED(plan_of(&c.problem, &options, &context, &plan) == ATTN_OK);
            const char *kernel = attn_plan_backward_kernel(plan);
            int tier = tier_of(kernel);
            CHECK(strncmp(kernel, "backward_", 9) == 0, "%s gives %s", names[isa], kernel);
            CHECK(tier == (int)isa || (!has_op(isa, "backward") && tier < (int)isa && tier > 0),
                  "%s gives %s", names[isa], kernel);
            CHECK(attn_backward(plan, &c.tensors, NULL) == ATTN_OK, "%s", attn_last_error());
            CHECK(attni_problems_verify_gradients(&c, &ratio, message, sizeof message), "%s: %s", kernel,
                  message);
            attn_plan_destroy(plan);
            attn_context_destroy(context);
        }
        attni_problems_free(&c);
    }
}

static attn_problem small_problem(void) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.seqlen_q = p.seqlen_k = 20;
    p.dim_qk = p.dim_v = 16;
    return p;
}

static void test_unknown(void) {
    const char *const values[] = {"sse9", "avx", "avx5123", "AVX2 ", "1"};
    const attn_problem p = small_problem();
    for (size_t n = 0; n < sizeof values / sizeof values[0]; ++n) {
        attn_context *context;
        attn_plan *plan;
        setenv("ATTN_ISA", values[n], 1);
        attn_status status = plan_of(&p, NULL, &context, &plan);
        CHECK(status != ATTN_OK, "ATTN_ISA=%s was taken", values[n]);
        CHECK(strstr(attn_last_error(), "ATTN_ISA") != NULL, "'%s' does not name ATTN_ISA",
              attn_last_error());
        for (size_t i = 1; i < sizeof names / sizeof names[0]; ++i) {
            CHECK(strstr(attn_last_error(), names[i]) != NULL, "'%s' does not offer %s", attn_last_error(),
                  names[i]);
        }
        if (status == ATTN_OK) {
            attn_plan_destroy(plan);
            attn_context_destroy(context);
        }
    }
    unsetenv("ATTN_ISA");
}

/* Empty is as good as unset, auto is itself, and a plan's own option goes before the environment. */
static void test_precedence(void) {
    const char *const values[] = {"", "auto", NULL};
    const attn_problem p = small_problem();
    char best[64] = "";
    for (int n = 2; n >= 0; --n) {
        attn_context *context;
        attn_plan *plan;
        if (values[n])
            setenv("ATTN_ISA", values[n], 1);
        else
            unsetenv("ATTN_ISA");
        NEED(plan_of(&p, NULL, &context, &plan) == ATTN_OK);
        if (n == 2) snprintf(best, sizeof best, "%s", attn_plan_kernel(plan));
        CHECK(strcmp(attn_plan_kernel(plan), best) == 0, "ATTN_ISA='%s' gives %s, not %s",
              values[n] ? values[n] : "(unset)", attn_plan_kernel(plan), best);
        attn_plan_destroy(plan);
        attn_context_destroy(context);
    }
    unsetenv("ATTN_ISA");
    const attn_isa first = test_has_tier(ATTN_ISA_NEON) ? ATTN_ISA_NEON : ATTN_ISA_AVX2;
    if (test_has_tier(first)) {
        attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
        attn_context *context;
        attn_plan *plan;
        setenv("ATTN_ISA", "portable", 1);
        options.isa = first;
        NEED(plan_of(&p, &options, &context, &plan) == ATTN_OK);
        CHECK(tier_of(attn_plan_kernel(plan)) == (int)first, "the option %s gives %s", names[first],
              attn_plan_kernel(plan));
        attn_plan_destroy(plan);
        attn_context_destroy(context);
        unsetenv("ATTN_ISA");
    }
    for (int isa = ATTN_ISA_NEON; isa >= ATTN_ISA_PORTABLE; --isa) { /* auto takes the best that is here */
        if (!test_has_tier((attn_isa)isa) || dtype_for((attn_isa)isa, 0) == ATTN_BF16) continue;
        CHECK(tier_of(best) >= isa, "auto gives %s with %s at hand", best, names[isa]);
        break;
    }
}

int main(void) {
    unsetenv("ATTN_ISA");
    for (int isa = ATTN_ISA_PORTABLE; isa <= ATTN_ISA_NEON_BF16; ++isa) {
        test_forced((attn_isa)isa, 0);
        test_forced((attn_isa)isa, 1);
        if (test_has_tier((attn_isa)isa)) test_backward((attn_isa)isa);
    }
    test_unknown();
    test_precedence();
    return test_report();
}
