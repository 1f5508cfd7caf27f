/*
 * What the test programs share: they count, say what failed, and end with 'N passed, N failed'.
 *
 *   CHECK(sum == 3, "sum is %d", sum);
 *   return test_report();
 */
#ifndef ATTN_TEST_H
#define ATTN_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"

/* One of each for all files of a program. */
__attribute__((weak)) long long test_passed, test_failed;

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (condition) {                                                                                     \
            ++test_passed;                                                                                   \
        } else {                                                                                             \
            ++test_failed;                                                                                   \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                  \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fputc('\n', stderr);                                                                             \
        }                                                                                                    \
    } while (0)

/* Ends the program where nothing after it could be tested. */
#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, attn_last_error());           \
            printf("%lld passed, %lld failed\n", test_passed, test_failed + 1);                              \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static inline int test_report(void) {
    printf("%lld passed, %lld failed\n", test_passed, test_failed);
    return test_failed != 0;
}

/* The larger of two errors, or NaN, which `if (!(error <= worst)) worst = error` would lose to the next one. */
static inline double test_worse(double worst, double error) {
    return worst >= error || isnan(worst) ? worst : error;
}

/* malloc that ends the program instead of returning null; at least one byte, 64-byte aligned. */
static inline void *test_memory(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes / 64 + 1) * 64);
    NEED(memory != NULL);
    return memory;
}

/* Whether this machine can run some kernel of a CPU tier. */
static inline int test_has_tier(attn_isa isa) {
    for (int32_t i = 0; i < attn_kernel_count(); ++i) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        NEED(attn_kernel_get(i, &info) == ATTN_OK);
        if (info.device == ATTN_DEVICE_CPU && info.isa == isa && info.refusal == NULL) return 1;
    }
    return 0;
}

static inline attn_context *test_context(int threads) {
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_context *context;
    options.threads = threads;
    NEED(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &context) == ATTN_OK);
    return context;
}

/* A plan of a tier with so many threads; null where the tier cannot take the problem. */
static inline attn_plan *test_plan(attn_context *context, const attn_problem *problem, attn_isa isa,
                                   int threads) {
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    attn_plan *plan;
    options.isa = isa;
    options.threads = threads;
    attn_status status = attn_plan_create(context, problem, &options, &plan);
    if (status == ATTN_UNSUPPORTED) return NULL;
    NEED(status == ATTN_OK);
    return plan;
}

/* Tiers that tests go through: every forced one from the first, those not here being skipped. */
#ifndef TEST_FIRST_TIER
#define TEST_FIRST_TIER ATTN_ISA_PORTABLE
#endif
#define FOR_EACH_TIER(isa)                                                                                   \
    for (attn_isa isa = TEST_FIRST_TIER; isa <= ATTN_ISA_NEON_BF16; isa = (attn_isa)(isa + 1))               \
        if (test_has_tier(isa))

#endif
