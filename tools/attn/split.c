/*
 * attn split: how the warps of a block share a tile. FlashAttention slices K, so that every warp has a part of each row
 * and the parts meet in shared memory; FlashAttention-2 splits Q, and nothing meets. The lab's model counts what each
 * costs; where there is a CUDA device the kernels that do it are timed.
 */
#include "attn/attn.h"
#include "device.h"
#include "flags.h"
#include "io_chips.h"
#include "lab/warp_split.h"
#include "ncu.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *shape, *tiles;
    int64_t warps;
    int dtype, chip, measure;
    int64_t batch, heads, rows, keys, dim;
    lab_tiles each[LAB_SPLITS];
} settings;

/* ---------------------------------------------------------------- flags */

static const char *const gpu_names[] = {"a100", "h100", "h200", NULL};
static const char *const dtype_names[] = {"f16", "bf16", NULL};

static int check_usage(settings *s) {
    enum { SIDES = 5 };
    int64_t n[SIDES], t[2];
    if (flags_parse_integers(s->shape, 1, 1 << 20, n, SIDES) != SIDES || n[4] > 4096 || n[0] * n[1] > 1 << 24)
        return tool_usage_error("split", "--shape is '%s'; allowed is B,H,Sq,Sk,D, as in 64,16,1024,1024,64",
                                s->shape);
    s->batch = n[0], s->heads = n[1], s->rows = n[2], s->keys = n[3], s->dim = n[4];
    /* flash1_sm80.cu's and forward_sm80.cu's */
    s->each[LAB_SLICED_K] = (lab_tiles){16, s->dim <= 64 ? 256 : 128};
    s->each[LAB_SPLIT_Q] = (lab_tiles){128, 64};
    if (s->tiles == NULL) return TOOL_OK;
    if (flags_parse_integers(s->tiles, 1, 1 << 20, t, 2) != 2)
        return tool_usage_error("split", "--tiles is '%s'; allowed is BR,BC, as in 64,64", s->tiles);
    s->each[LAB_SLICED_K] = s->each[LAB_SPLIT_Q] = (lab_tiles){t[0], t[1]};
    return TOOL_OK;
}

static int parse(int argc, char **argv, settings *s) {
    const flag_row rows[] = {
        flag_text("--shape", &s->shape, "SHAPE", "B,H,Sq,Sk,D; default 64,16,1024,1024,64"),
        flag_choice("--dtype", &s->dtype, dtype_names, "of Q, K and V; default f16"),
        flag_integer("--warps", &s->warps, 1, 32, "N", "of a block; default 4"),
        flag_text("--tiles", &s->tiles, "BR,BC", "the same for both; default: those of the CUDA kernels"),
        flag_choice("--chip", &s->chip, gpu_names, "whose shared memory gives the time; default a100"),
        flag_switch("--measure", &s->measure,
                    "times the kernels on a CUDA device, with ncu their shared memory too"),
    };
    const flag_command command = {"split",
                                  "[OPTION]...",
                                  "How the warps of a block share a tile: sliced K (FlashAttention) against "
                                  "split Q (FlashAttention-2).\n"
                                  "Bytes of shared memory and barriers, counted by the lab's model over all "
                                  "heads, and the kernels that\n"
                                  "do it, measured. docs/lab.md explains the table.",
                                  rows,
                                  FLAG_COUNT(rows),
                                  NULL};
    const int status = flags_parse(&command, argc, argv);
    return status == FLAGS_GO && check_usage(s) != TOOL_OK ? TOOL_USAGE : status;
}

/* ---------------------------------------------------------------- the model */

/* The model run with numbers on a small problem of the same tiles, against its formulas and attention itself. */
static const char *check_model(const settings *s) {
    lab_problem p;
    const char *trouble = NULL;
    if (lab_problem_make(&p, 40, 300, 8, 1) != 0) return "memory ran out";
    lab_machine machine = {.number_bytes = 4, .rule = LAB_TILES_GIVEN, .tiles = {16, 16}};
    float *o = malloc((size_t)(p.rows * p.dim) * sizeof *o);
    if (o == NULL) trouble = "memory ran out";
    if (trouble == NULL) trouble = lab_run(&machine, LAB_STANDARD, LAB_FORWARD, &p);
    if (trouble == NULL) memcpy(o, p.o, (size_t)(p.rows * p.dim) * sizeof *o);
    for (int i = 0; trouble == NULL && i < LAB_SPLITS; i++) {
        lab_split_counts counted;
        trouble = lab_split_run((lab_split)i, s->each[i], (int)s->warps, 2, &p, &counted);
        const lab_split_counts closed = lab_split_closed((lab_split)i, s->each[i], (int)s->warps, 2, &p);
        if (trouble == NULL && memcmp(&counted, &closed, sizeof closed) != 0)
            trouble = "the counters and the formulas disagree";
        for (int64_t n = 0; trouble == NULL && n < p.rows * p.dim; n++)
            if (!(fabsf(o[n] - p.o[n]) < 1e-5f)) trouble = "the model's result is not attention's";
    }
    free(o);
    lab_problem_free(&p);
    return trouble;
}

static void print_model(const settings *s) {
    const lab_problem p = {.rows = s->rows, .keys = s->keys, .dim = s->dim};
    const io_chip chip = io_chip_find((io_chip_name)s->chip);
    const double heads = (double)(s->batch * s->heads);
    printf("%lld x %lld heads, %lld queries, %lld keys, dim %lld, %s, forward, %lld warps\n\n",
           (long long)s->batch, (long long)s->heads, (long long)s->rows, (long long)s->keys,
           (long long)s->dim, dtype_names[s->dtype], (long long)s->warps);
    printf("%sShared memory, GB, and barriers, counted%s\n", terminal_bold(stdout), terminal_plain(stdout));
    printf("%-9s %-10s %8s %9s %9s %9s %9s %11s %9s %9s\n", "", "BR x BC", "filled", "operands", "exchange",
           "together", "ms", "barriers", "steps", "O a warp");
    for (int i = 0; i < LAB_SPLITS; i++) {
        const lab_tiles t = s->each[i];
        const lab_split_counts c = lab_split_closed((lab_split)i, t, (int)s->warps, 2, &p);
        const double together = (double)(c.filled + c.operands + c.exchange) * heads;
        char tiles[32];
        snprintf(tiles, sizeof tiles, "%lld x %lld", (long long)t.br, (long long)t.bc);
        printf("%-9s %-10s %8.2f %9.2f %9.2f %9.2f %9.2f %11.4g %9.4g %9lld\n", lab_split_names[i], tiles,
               (double)c.filled * heads * 1e-9, (double)c.operands * heads * 1e-9,
               (double)c.exchange * heads * 1e-9, together * 1e-9, together / chip.fast_rate * 1e3,
               (double)c.barriers * heads, (double)c.steps * heads,
               (long long)lab_split_registers((lab_split)i, t, (int)s->warps, s->dim));
    }
    printf("filled: Q, K, V put there; operands: read for products; exchange: maxima, sums and shares of O "
           "between\n"
           "warps; ms: all of it at %.3g TB/s (%s); barriers: of a block, over all blocks; O a warp: float32 "
           "numbers.\n",
           chip.fast_rate * 1e-12, chip.title);
}

/* ---------------------------------------------------------------- the kernels */

static int bench_kernel(const settings *s, const char *algorithm, const char *shape) {
    const char *const line[] = {
        "bench",       "--device", "cuda",  "--shape", shape, "--dtype", dtype_names[s->dtype],
        "--algorithm", algorithm,  "--isa", "sm80",    NULL};
    char *arguments[20];
    int count = 0;
    for (; line[count] != NULL; count++) arguments[count] = (char *)(uintptr_t)line[count];
    arguments[count] = NULL;
    return attn_tool_bench(count, arguments);
}

/* Bytes of shared memory that the kernels' instructions moved; says so where ncu is not there to tell. */
static void print_shared(const settings *s, const char *algorithm, const char *prefix, const char *shape) {
    static const char metric[] = "smsp__sass_data_bytes_mem_shared.sum",
                      conflicts[] = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum";
    char trouble[NCU_TROUBLE_SIZE], metrics[160];
    int launches;
    const char *const arguments[] = {
        "bench",       "--device", "cuda",  "--shape", shape,      "--dtype", dtype_names[s->dtype],
        "--algorithm", algorithm,  "--isa", "sm80",    "--repeat", "1",       "--seconds",
        "0",           NULL};
    snprintf(metrics, sizeof metrics, "%s,%s", metric, conflicts);
    char *text = ncu_profile(metrics, 1, 1, arguments, trouble);
    if (text == NULL) {
        printf("%-9s %s\n", algorithm, trouble);
        return;
    }
    const double bytes = ncu_sum(text, prefix, metric, &launches);
    const double wavefronts = ncu_sum(text, prefix, conflicts, &launches);
    printf("%-9s %9.2f GB by instructions, %9.2f GB as wavefronts of 128 bytes\n", algorithm, bytes * 1e-9,
           wavefronts * 128e-9);
    free(text);
}

static int measure(const settings *s) {
    char shape[160];
    snprintf(shape, sizeof shape, "%lld,%lld,%lld,%lld,%lld,%lld", (long long)s->batch, (long long)s->heads,
             (long long)s->heads, (long long)s->rows, (long long)s->keys, (long long)s->dim);
    printf("\n%sMeasured: flash1 (sliced K) and flash2 (split Q)%s\n", terminal_bold(stdout),
           terminal_plain(stdout));
    if (!attn_has_feature(ATTN_FEATURE_CUDA)) {
        printf("skipped: %s\n", TOOL_NO_CUDA);
        return TOOL_OK;
    }
    const char *no_device = device_open(0);
    if (no_device != NULL) {
        printf("skipped: %s\n", no_device);
        return TOOL_OK;
    }
    device_close();
    int status = bench_kernel(s, "flash1", shape);
    if (status == TOOL_OK) status = bench_kernel(s, "flash2", shape);
    if (status != TOOL_OK) return status;
    printf("\nshared memory, by ncu:\n");
    const char *refusal = ncu_refusal();
    if (refusal != NULL) {
        printf("skipped: %s\n", refusal);
        return TOOL_OK;
    }
    print_shared(s, "flash1", "flash1_sm", shape);
    print_shared(s, "flash2", "forward_sm", shape);
    return TOOL_OK;
}

int attn_tool_split(int argc, char **argv) {
    settings s = {.shape = "64,16,1024,1024,64", .warps = 4};
    const int status = parse(argc, argv, &s);
    if (status != FLAGS_GO) return status;
    const char *trouble = check_model(&s);
    if (trouble != NULL) return tool_failure("split", "%s", trouble);
    print_model(&s);
    return s.measure ? measure(&s) : TOOL_OK;
}
