/* What the tests of the CUDA back end's host side share. Each runs one scenario a process, over a fake driver. */
#ifndef ATTN_TEST_CUDA_HOST_H
#define ATTN_TEST_CUDA_HOST_H

#include "core/internal.h"
#include "fake_libcuda.h"
#include "test.h"

typedef struct host_scenario {
    const char *name;
    void (*run)(void);
} host_scenario;

static char log_lines[4096];

static inline void keep_log(void *user, const char *line) {
    (void)user;
    const size_t have = strlen(log_lines);
    snprintf(log_lines + have, sizeof log_lines - have, "%s\n", line);
}

static inline attn_context *open_device(int ordinal, void *stream) {
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_context *context;
    options.stream = stream;
    options.log = keep_log;
    NEED(attn_context_create(ATTN_DEVICE_CUDA, ordinal, &options, &context) == ATTN_OK);
    return context;
}

static inline attn_problem small_problem(void) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = 1;
    p.heads_q = p.heads_kv = 1;
    p.seqlen_q = p.seqlen_k = 4;
    p.dim_qk = p.dim_v = 64;
    p.dtype_q = p.dtype_kv = p.dtype_o = ATTN_BF16;
    return p;
}

static inline attn_status make_plan(attn_context *context, const attn_problem *problem) {
    attn_plan *plan;
    const attn_status status = attn_plan_create(context, problem, NULL, &plan);
    if (status == ATTN_OK) attn_plan_destroy(plan);
    return status;
}

static inline int says(const char *text) { return strstr(attn_last_error(), text) != NULL; }

static inline void remove_cache(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", getenv("XDG_CACHE_HOME"));
    NEED(system(command) == 0);
}

static inline int count_entries(void) {
    char command[600];
    snprintf(command, sizeof command, "ls '%s/libattn' 2>/dev/null | grep -c kernel$",
             getenv("XDG_CACHE_HOME"));
    FILE *pipe = popen(command, "r");
    int count = -1;
    NEED(pipe && fscanf(pipe, "%d", &count) == 1);
    pclose(pipe);
    return count;
}
/* A variant that no build embeds. */
static inline attn_problem rare_problem(void) {
    attn_problem p = small_problem();
    p.dim_qk = 96;
    p.dim_v = 224;
    p.softcap = 3.0f;
    return p;
}

static inline const char *plan_rare(attn_context *context) {
    static char words[4000];
    const attn_problem p = rare_problem();
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    snprintf(words, sizeof words, "%s", attn_plan_describe(plan));
    attn_plan_destroy(plan);
    return words;
}

/* argv[1] names the scenario; there are count of them. */
static inline int host_main(int argc, char **argv, const host_scenario *scenarios, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (argc != 2 || strcmp(argv[1], scenarios[i].name) != 0) continue;
        scenarios[i].run();
        return test_report();
    }
    fprintf(stderr, "usage: %s SCENARIO, one of those in main()\n", argv[0]);
    return 2;
}

#endif
