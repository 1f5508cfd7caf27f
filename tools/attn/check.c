/* attn check: every kernel of this machine against the oracle, on random problems. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "device.h"
#include "device_case.h"
#include "flags.h"
#include "reference/problems.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

enum { KERNEL_LIMIT = 128, SENTENCES_SHOWN = 10, WORKSPACE_ZONE = 64 };
enum { DRAWS = 200 }; /* seeds at most, for each problem that a CUDA device takes */

typedef enum checked_devices { DEVICES_ALL, DEVICES_CPU, DEVICES_CUDA } checked_devices;
static const char *const device_names[] = {"all", "cpu", "cuda", NULL};

typedef enum checked_op { CHECK_FORWARD, CHECK_BACKWARD } checked_op;
static const char *const op_names[] = {"forward", "backward", NULL};

typedef struct kernel_row {
    attn_kernel_info info;
    int64_t problems, failed;
    double worst;       /* error / tolerance */
    uint64_t last_seed; /* its last problem, so that two tiers that choose the same kernel run it once */
} kernel_row;

typedef struct checker {
    int64_t problems, threads;
    uint64_t seed;
    int isa, device, verbose, op;
    const char *kernel;

    attn_context *context, *cuda;
    char no_cuda[512]; /* why cuda is null */
    kernel_row rows[KERNEL_LIMIT];
    int32_t count;
    int64_t passed, failed;
    int skipped; /* kernels */
    const char *reason; /* why the first of them was */
} checker;

static int is_backward(const char *op) { return strcmp(op, "backward") == 0; }

static int is_wanted(const checker *c, const kernel_row *row) {
    if (is_backward(row->info.op) != (c->op == CHECK_BACKWARD)) return 0;
    if (c->kernel && strcmp(c->kernel, row->info.name) != 0) return 0;
    if (c->device == DEVICES_CPU && row->info.device != ATTN_DEVICE_CPU) return 0;
    if (c->device == DEVICES_CUDA && row->info.device != ATTN_DEVICE_CUDA) return 0;
    return c->isa == ATTN_ISA_AUTO || (int)row->info.isa == c->isa;
}

/* Null where the row runs. The algorithms for measuring keep S in 16 bits: the oracle's tolerance is not theirs. */
static const char *why_skipped(const checker *c, const kernel_row *row) {
    if (row->info.refusal || row->info.device != ATTN_DEVICE_CUDA) return row->info.refusal;
    if (!c->cuda) return c->no_cuda;
    if (strncmp(row->info.name, "forward", 7) != 0)
        return "it is for measuring, and tests/cuda/device_test.c compares it";
    return row->problems == 0 ? "none of these problems is for it" : NULL;
}

static kernel_row *find_row(checker *c, const char *name) {
    for (int32_t i = 0; i < c->count; ++i) {
        if (strcmp(c->rows[i].info.name, name) == 0) return &c->rows[i];
    }
    return NULL;
}

static const char *kernel_of(const checker *c, const attn_plan *plan) {
    return c->op == CHECK_BACKWARD ? attn_plan_backward_kernel(plan) : attn_plan_kernel(plan);
}

static attn_status run_op(const checker *c, const attn_plan *plan, const attni_problems_case *problem,
                          const attn_execution *execution) {
    return c->op == CHECK_BACKWARD ? attn_backward(plan, &problem->tensors, execution)
                                   : attn_forward(plan, &problem->tensors, execution);
}

static void complain(checker *c, const char *kernel, uint64_t seed, const char *sentence) {
    ++c->failed;
    if (c->failed > SENTENCES_SHOWN && !c->verbose) return;
    terminal_progress_clear();
    fprintf(stderr, "%s: %s\n  again: attn check --problems 1 --seed %llu --op %s --kernel %s\n", kernel,
            sentence, (unsigned long long)seed, op_names[c->op], kernel);
}

/* Runs a plan on a case's buffers, half of the time in a workspace of exactly the size asked for. */
static attn_status run_on_cpu(const checker *c, const attn_plan *plan, const attni_problems_case *problem,
                              attni_random *random, int *workspace_whole) {
    *workspace_whole = 1;
    if (attni_random_chance(random, 50)) return run_op(c, plan, problem, NULL);

    size_t bytes = attn_plan_workspace_size(plan);
    unsigned char *block = malloc(bytes + 256 + WORKSPACE_ZONE);
    if (!block) return ATTN_OUT_OF_MEMORY;
    unsigned char *workspace = block + (256 - (uintptr_t)block % 256);
    memset(block, 0xff, bytes + 256 + WORKSPACE_ZONE);
    attn_execution execution = ATTN_EXECUTION_INIT;
    execution.workspace = workspace;
    execution.workspace_bytes = bytes;
    attn_status status = run_op(c, plan, problem, &execution);
    for (const unsigned char *at = workspace + bytes; at < block + bytes + 256 + WORKSPACE_ZONE; ++at) {
        if (*at != 0xff) *workspace_whole = 0;
    }
    free(block);
    return status;
}

/* The fast variant takes tensors at multiples of 16 bytes; the other one gets them half of the time. */
static attn_status run_on_cuda(const attn_plan *plan, attni_problems_case *problem) {
    const int fast = strstr(attn_plan_kernel(plan), "general") == NULL;
    return device_case_run(plan, problem, fast || problem->seed % 2 == 0);
}

/* Runs a plan, and the oracle judges. */
static void check_plan(checker *c, const attn_plan *plan, attni_problems_case *problem,
                       attni_random *random) {
    char sentence[2048];
    kernel_row *row = find_row(c, kernel_of(c, plan));
    if (!row) {
        snprintf(sentence, sizeof sentence, "not in the list of kernels (%s)", problem->text);
        complain(c, kernel_of(c, plan), problem->seed, sentence);
    } else if (is_wanted(c, row) && (row->problems == 0 || row->last_seed != problem->seed)) {
        double ratio = 0.0;
        int workspace_whole = 1;
        if (c->op == CHECK_BACKWARD)
            attni_problems_poison_gradients(problem);
        else
            attni_problems_poison(problem);
        const attn_status status = row->info.device == ATTN_DEVICE_CUDA
                                       ? run_on_cuda(plan, problem)
                                       : run_on_cpu(c, plan, problem, random, &workspace_whole);
        int good = 0;
        if (status != ATTN_OK) {
            snprintf(sentence, sizeof sentence, "%s: %s (%s)", attn_status_name(status), attn_last_error(),
                     problem->text);
        } else if (!workspace_whole) {
            snprintf(sentence, sizeof sentence, "memory behind the workspace was written (%s)",
                     problem->text);
        } else if (c->op == CHECK_BACKWARD) {
            good = attni_problems_verify_gradients(problem, &ratio, sentence, sizeof sentence);
        } else {
            good = attni_problems_verify(problem, &ratio, sentence, sizeof sentence);
        }
        ++row->problems;
        row->last_seed = problem->seed;
        if (!(ratio <= row->worst)) row->worst = ratio;
        if (good) {
            ++c->passed;
        } else {
            ++row->failed;
            complain(c, row->info.name, problem->seed, sentence);
        }
        if (c->verbose) printf("%-26s %6.3f  %s\n", row->info.name, ratio, problem->text);
    }
}

/* One problem on the kernel that a tier chooses for it. Returns 0 where the tier cannot take the problem. */
static int check_tier(checker *c, attni_problems_case *problem, attn_isa isa, attni_random *random) {
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    attn_plan *plan;
    char sentence[2048];
    options.isa = isa;
    if (attni_random_chance(random, 30))
        options.algorithm = ATTN_ALGORITHM_FLASH2; /* few queries, yet not decode's */
    options.threads = c->threads                        ? (int32_t)c->threads
                      : attni_random_chance(random, 75) ? 1
                                                        : (int32_t)attni_random_range(random, 2, 4);
    attn_status status = attn_plan_create(c->context, &problem->problem, &options, &plan);
    if (status == ATTN_UNSUPPORTED) return 0;
    if (status != ATTN_OK) {
        snprintf(sentence, sizeof sentence, "no plan: %s: %s (%s)", attn_status_name(status),
                 attn_last_error(), problem->text);
        complain(c, work_isa_names[isa], problem->seed, sentence);
        return 1;
    }
    check_plan(c, plan, problem, random);
    attn_plan_destroy(plan);
    return 1;
}

static int is_tier_here(const checker *c, attn_isa isa) {
    for (int32_t i = 0; i < c->count; ++i) {
        const attn_kernel_info *info = &c->rows[i].info;
        if (info->device == ATTN_DEVICE_CPU && info->isa == isa && !info->refusal) return 1;
    }
    return 0;
}

/* With CUDA alone half of the problems are each variant's, though few random ones are for the fast one. */
static int has_enough(const checker *c, const kernel_row *row) {
    return c->device == DEVICES_CUDA && !c->kernel && row && row->problems >= (c->problems + 1) / 2;
}

/* One problem on the device. Returns 0 where the device refuses it, or its variant is not on the short list. */
static int check_cuda(checker *c, attni_problems_case *problem, attni_random *random) {
    attn_plan *plan;
    if (!c->cuda || c->op == CHECK_BACKWARD || !device_case_is_bounded(&problem->problem)) return 0;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.isa = (attn_isa)c->isa;
    if (c->isa == ATTN_ISA_AUTO && problem->seed % 2) options.isa = ATTN_ISA_SM80; /* each family its share */
    const attn_status status = attn_plan_create(c->cuda, &problem->problem, &options, &plan);
    if (status == ATTN_UNSUPPORTED) return 0;
    if (status != ATTN_OK) {
        char sentence[2048];
        snprintf(sentence, sizeof sentence, "no plan: %s: %s (%s)", attn_status_name(status),
                 attn_last_error(), problem->text);
        complain(c, "cuda", problem->seed, sentence);
        return 1;
    }
    const int enough = has_enough(c, find_row(c, attn_plan_kernel(plan)));
    if (!enough) check_plan(c, plan, problem, random);
    attn_plan_destroy(plan);
    return !enough;
}

static int check_problem(checker *c, uint64_t seed, int *on_cuda) {
    attni_problems_case problem;
    attni_problems_limits limits = ATTNI_PROBLEMS_LIMITS_INIT;
    /* fewer long ones than by default, which take three quarters of the time: more problems in as long */
    static const attni_problems_limits backward_limits = {150000, 0, 0, 3, 0};
    attni_random random = {~seed};
    limits.device = c->device == DEVICES_CUDA;
    const int made = c->op == CHECK_BACKWARD ? attni_problems_make_backward(&problem, seed, &backward_limits)
                                             : attni_problems_make(&problem, seed, &limits);
    if (made) return tool_failure("check", "memory ran out");
    int taken = 0, asked = 0;
    for (int isa = ATTN_ISA_PORTABLE; isa <= ATTN_ISA_NEON_BF16 && c->device != DEVICES_CUDA; ++isa) {
        if ((c->isa != ATTN_ISA_AUTO && c->isa != isa) || !is_tier_here(c, (attn_isa)isa)) continue;
        ++asked;
        taken += check_tier(c, &problem, (attn_isa)isa, &random);
    }
    if (asked && !taken && c->isa == ATTN_ISA_AUTO) complain(c, "every tier", seed, attn_last_error());
    *on_cuda = check_cuda(c, &problem, &random);
    attni_problems_free(&problem);
    return TOOL_OK;
}

static void print_table(checker *c) {
    printf("%s%-26s %9s %7s  %s%s\n", terminal_bold(stdout), "kernel", "problems", "failed",
           "worst error/tolerance", terminal_plain(stdout));
    for (int32_t i = 0; i < c->count; ++i) {
        const kernel_row *row = &c->rows[i];
        if (!is_wanted(c, row) || why_skipped(c, row)) continue;
        printf("%-26s %9lld %7lld  %.3f\n", row->info.name, (long long)row->problems, (long long)row->failed,
               row->worst);
        if (row->problems == 0) {
            ++c->failed;
            fprintf(stderr, "%s: this machine has it, and no problem reached it\n", row->info.name);
        }
    }
    for (int32_t i = 0; i < c->count; ++i) {
        const char *reason = why_skipped(c, &c->rows[i]);
        if (!is_wanted(c, &c->rows[i]) || !reason) continue;
        printf("%-26s skipped: %s\n", c->rows[i].info.name, reason);
        ++c->skipped;
        if (!c->reason) c->reason = reason;
    }
}

static int list_kernels(checker *c) {
    int wanted = 0;
    c->count = attn_kernel_count();
    if (c->count > KERNEL_LIMIT)
        return tool_failure("check", "%d kernels are more than the %d it can list", c->count, KERNEL_LIMIT);
    for (int32_t i = 0; i < c->count; ++i) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        if (attn_kernel_get(i, &info) != ATTN_OK) return tool_failure("check", "%s", attn_last_error());
        c->rows[i].info = info;
        /* the name alone says which op */
        if (c->kernel && is_backward(info.op) && strcmp(info.name, c->kernel) == 0) c->op = CHECK_BACKWARD;
        wanted += is_wanted(c, &c->rows[i]);
    }
    if (!wanted && c->kernel)
        return tool_usage_error(
            "check", "no kernel of these options is called '%s'; attn info --kernels lists them", c->kernel);
    if (!wanted)
        return tool_usage_error("check", "--isa %s has no kernel for --op %s; attn info --kernels lists them",
                                work_isa_names[c->isa], op_names[c->op]);
    return TOOL_OK;
}

static void open_cuda(checker *c) {
    if (!attn_has_feature(ATTN_FEATURE_CUDA)) return;
    const char *reason = device_open(0);
    if (!reason && attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &c->cuda) != ATTN_OK) {
        reason = attn_last_error();
        device_close();
    }
    snprintf(c->no_cuda, sizeof c->no_cuda, "%s", reason ? reason : "");
}

/* So many seeds from the first on; with CUDA alone, until the device has taken so many. */
static int check_all(checker *c) {
    if (c->device == DEVICES_CUDA && !c->cuda) return TOOL_OK;
    int64_t done = 0;
    for (int64_t i = 0; done < c->problems && i / DRAWS < c->problems; ++i) {
        int on_cuda = 0;
        if (i % 16 == 0) terminal_progress((double)done, (double)c->problems, "problems");
        const int status = check_problem(c, c->seed + (uint64_t)i, &on_cuda);
        if (status != TOOL_OK) return status;
        done += c->device != DEVICES_CUDA || on_cuda;
    }
    return TOOL_OK;
}

int attn_tool_check(int argc, char **argv) {
    static checker c;
    c.problems = 1000;
    const flag_row rows[] = {
        flag_integer("--problems", &c.problems, 1, INT64_MAX, "N",
                     "random problems, each on every kernel (1000)"),
        flag_choice("--op", &c.op, op_names, "forward, decode included (default), or backward"),
        flag_unsigned("--seed", &c.seed, "S", "of the first problem; the next ones count up (0)"),
        flag_choice("--device", &c.device, device_names,
                    "all: the CPU, and a CUDA device where there is one"),
        flag_choice("--isa", &c.isa, work_isa_names, "only this tier's kernels"),
        flag_text("--kernel", &c.kernel, "NAME", "only this kernel"),
        flag_integer("--threads", &c.threads, 0, 4096, "N", "threads; 0: one to four at random"),
        flag_switch("--verbose", &c.verbose, "a line for each run"),
    };
    const flag_command command = {
        "check",
        "[OPTION]...",
        "Runs every kernel of this machine on random problems and compares with the float64 oracle.",
        rows,
        FLAG_COUNT(rows),
        NULL};
    int status = flags_parse(&command, argc, argv);
    if (status != FLAGS_GO) return status;
    if (c.device == DEVICES_CUDA && !attn_has_feature(ATTN_FEATURE_CUDA))
        return tool_usage_error("check", "--device cuda: " TOOL_NO_CUDA);
    if (c.isa != ATTN_ISA_AUTO && c.device == (work_isa_is_cuda(c.isa) ? DEVICES_CPU : DEVICES_CUDA))
        return tool_usage_error("check", "--isa %s is not one of --device %s", work_isa_names[c.isa],
                                device_names[c.device]);
    status = list_kernels(&c);
    if (status != TOOL_OK) return status;
    if (attn_context_create(ATTN_DEVICE_CPU, 0, NULL, &c.context) != ATTN_OK)
        return tool_failure("check", "%s", attn_last_error());

    if (c.device != DEVICES_CPU && (c.isa == ATTN_ISA_AUTO || work_isa_is_cuda(c.isa))) open_cuda(&c);
    status = check_all(&c);
    terminal_progress_clear();
    attn_context_destroy(c.context);
    if (status == TOOL_OK) print_table(&c);
    if (c.cuda) {
        attn_context_destroy(c.cuda);
        device_close();
    }
    if (status != TOOL_OK) return status;
    printf("%lld passed, %lld failed", (long long)c.passed, (long long)c.failed);
    if (c.device == DEVICES_CUDA && c.skipped) printf(", %d skipped", c.skipped);
    putchar('\n');
    if (c.passed == 0 && c.failed == 0)
        return tool_failure("check", "nothing was checked: %s", c.reason ? c.reason : "no kernel is for it");
    return c.failed ? TOOL_FAILED : TOOL_OK;
}
