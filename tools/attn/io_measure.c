/*
 * What the CUDA kernels of the papers move through device memory, as ncu reads it, beside three counts: the lab's with
 * the kernel's tiles, the kernel's own (it differs from its paper in places), and every tensor once. Forward.
 */
#include "attn/attn.h"
#include "io.h"
#include "ncu.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METRICS "dram__bytes_read.sum,dram__bytes_write.sum,gpu__time_duration.sum"

typedef struct kernel {
    lab_algorithm algorithm;
    const char *name;   /* of attn bench --algorithm */
    const char *prefix; /* of its symbols */
    int launches;       /* of a forward */
} kernel;

static const kernel kernels[] = {{LAB_STANDARD, "standard", "standard_sm", 3},
                                 {LAB_FLASH1, "flash1", "flash1_sm", 1},
                                 {LAB_FLASH2, "flash2", "forward_sm", 1}};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

/* Tiles of standard_sm80.cu, flash1_sm80.cu and forward_sm80.cu at dims 64 and 128; other kernels' names say theirs. */
static lab_tiles tiles_of(lab_algorithm algorithm, int64_t dim, const char *kernel_name) {
    const lab_tiles standard = {128, 128}, flash1 = {16, dim <= 64 ? 256 : 128}, flash2 = {128, 64};
    for (const char *at = kernel_name; (at = strchr(at, '_')) != NULL; at++) {
        lab_tiles named;
        long long br, bc;
        if (sscanf(at, "_%lldx%lld", &br, &bc) != 2 || br < 1 || bc < 1) continue;
        named.br = br, named.bc = bc;
        return named;
    }
    return algorithm == LAB_STANDARD ? standard : algorithm == LAB_FLASH1 ? flash1 : flash2;
}

/*
 * Bytes that a kernel asks for, all heads. It differs from the lab's: standard's blocks of scores load their Q too, and
 * write LSE; flash1 holds O in float32 between its steps, reads nothing in the first and stores 16 bits in the last.
 */
static double kernel_bytes(const io_problem *p, lab_algorithm algorithm, lab_tiles t) {
    const double Sq = (double)p->rows, Sk = (double)p->keys, D = (double)p->dim, b = 2, s = 4;
    const double Tr = ceil(Sq / (double)t.br), Tc = ceil(Sk / (double)t.bc),
                 heads = (double)(p->batch * p->heads);
    switch (algorithm) {
    case LAB_STANDARD: return heads * (b * (Tc * Sq * D + 2 * Tr * Sk * D + 4 * Sq * Sk + Sq * D) + s * Sq);
    case LAB_FLASH1:
        return heads *
               (b * (2 * Sk * D + Tc * Sq * D + Sq * D) + 2 * (Tc - 1) * s * (Sq * D + 2 * Sq) + s * Sq);
    default: return heads * (b * (2 * Sq * D + 2 * Tr * Sk * D) + s * Sq);
    }
}

static double once_bytes(const io_problem *p, lab_algorithm algorithm) {
    const double Sq = (double)p->rows, Sk = (double)p->keys, D = (double)p->dim;
    const double tensors = 2 * (2 * Sq * D + 2 * Sk * D) + 4 * Sq;
    return (double)(p->batch * p->heads) * (tensors + (algorithm == LAB_STANDARD ? 8 * Sq * Sk : 0));
}

/* ---------------------------------------------------------------- the profile */

/* Appends what ncu says of one kernel to *all. */
static int profile(const io_problem *p, int dtype, const kernel *k, char **all) {
    char shape[160], trouble[NCU_TROUBLE_SIZE];
    snprintf(shape, sizeof shape, "%lld,%lld,%lld,%lld,%lld,%lld", (long long)p->batch, (long long)p->heads,
             (long long)p->heads, (long long)p->rows, (long long)p->keys, (long long)p->dim);
    const char *const arguments[] = {"bench",
                                     "--device",
                                     "cuda",
                                     "--shape",
                                     shape,
                                     "--dtype",
                                     work_dtype_name((attn_dtype)dtype),
                                     "--algorithm",
                                     k->name,
                                     "--repeat",
                                     "1",
                                     "--seconds",
                                     "0",
                                     NULL};
    terminal_progress((double)(k - kernels), KERNELS, k->name);
    char *text = ncu_profile(METRICS, k->launches, k->launches, arguments, trouble); /* the second forward */
    terminal_progress_clear();
    if (text == NULL) return tool_failure("io", "%s: %s", k->name, trouble);
    const size_t before = *all != NULL ? strlen(*all) : 0;
    char *joined = realloc(*all, before + strlen(text) + 1);
    if (joined == NULL) {
        free(text);
        return tool_failure("io", "no memory for the profile");
    }
    strcpy(joined + before, text);
    free(text);
    *all = joined;
    return TOOL_OK;
}

static int make_profile(const io_problem *p, int dtype, char **all) {
    if (!attn_has_feature(ATTN_FEATURE_CUDA)) return tool_usage_error("io", "--measure: " TOOL_NO_CUDA);
    const char *refusal = ncu_refusal();
    if (refusal != NULL) return tool_failure("io", "--measure: %s", refusal);
    for (int i = 0; i < KERNELS; i++)
        if (profile(p, dtype, &kernels[i], all) != TOOL_OK) return TOOL_FAILED;
    return TOOL_OK;
}

static int save_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    const int failed = file == NULL || fputs(text, file) < 0;
    if ((file != NULL && fclose(file) != 0) || failed)
        return tool_failure("io", "--save %s: %s", path, strerror(errno));
    return TOOL_OK;
}

/* ---------------------------------------------------------------- the table */

static int print_row(const io_problem *p, const kernel *k, const char *text) {
    io_problem at = *p;
    io_counts counts;
    int launches, ignored;
    char name[NCU_KERNEL_SIZE] = "";
    ncu_kernel(text, k->prefix, name);
    at.rule = LAB_TILES_GIVEN;
    at.tiles = tiles_of(k->algorithm, p->dim, name);
    const char *trouble = io_count(&at, k->algorithm, LAB_FORWARD, &counts);
    if (trouble != NULL) return tool_failure("io", "%s", trouble);
    double read = ncu_sum(text, k->prefix, "dram__bytes_read.sum", &launches);
    double written = ncu_sum(text, k->prefix, "dram__bytes_write.sum", &ignored);
    double nanoseconds = ncu_sum(text, k->prefix, "gpu__time_duration.sum", &ignored);
    const double asked = kernel_bytes(p, k->algorithm, at.tiles), once = once_bytes(p, k->algorithm);
    printf("%-9s %4lld x %-4lld %9.3f %9.3f %9.3f", k->name, (long long)counts.tiles.br,
           (long long)counts.tiles.bc, io_bytes(&counts) * 1e-9, asked * 1e-9, once * 1e-9);
    if (launches == 0) {
        printf("   the profile has no kernel %s*\n", k->prefix);
        return TOOL_OK;
    }
    const double forwards = (double)launches / k->launches;
    read /= forwards, written /= forwards, nanoseconds /= forwards;
    printf(" %9.3f %9.3f %9.3f %9.3f %9.3f%s%s\n", read * 1e-9, written * 1e-9, (read + written) / asked,
           (read + written) / once, nanoseconds * 1e-6, k->launches == 1 ? "  " : "",
           k->launches == 1 ? name : "");
    return TOOL_OK;
}

static int print_profile(const io_problem *p, int dtype, const char *text) {
    char shape[IO_PROBLEM_TEXT_SIZE];
    int status = TOOL_OK;
    printf("%s, %s, forward: GB of device memory\n\n", io_problem_text(p, shape),
           work_dtype_name((attn_dtype)dtype));
    printf("%s%-9s %-11s %9s %9s %9s %9s %9s %9s %9s %9s%s\n", terminal_bold(stdout), "kernel", "tile", "lab",
           "kernel", "once", "ncu read", "written", "/ kernel", "/ once", "ms", terminal_plain(stdout));
    for (int i = 0; status == TOOL_OK && i < KERNELS; i++) status = print_row(p, &kernels[i], text);
    printf(
        "\nlab: its counters with the kernel's tiles; kernel: what the kernel asks for; once: every tensor\n"
        "once, for standard also S and P out and in. Below 1: the second-level cache served it.\n");
    return status;
}

int io_print_measured(const io_problem *problem, int dtype, const char *path, const char *save) {
    char *text = NULL;
    int status = TOOL_OK;
    if (dtype == ATTN_F32) return tool_usage_error("io", "--dtype f32: the CUDA kernels take f16 and bf16");
    if (problem->dim != 64 && problem->dim != 128)
        return tool_usage_error("io", "--shape has D %lld; the measured kernels take 64 and 128",
                                (long long)problem->dim);
    if (path == NULL) {
        status = make_profile(problem, dtype, &text);
        if (status == TOOL_OK && save != NULL) status = save_text(save, text);
    } else if ((text = ncu_read(path)) == NULL) {
        status = tool_failure("io", "--profile %s: cannot read: %s", path, strerror(errno));
    }
    if (status == TOOL_OK) status = print_profile(problem, dtype, text);
    free(text);
    return status;
}
