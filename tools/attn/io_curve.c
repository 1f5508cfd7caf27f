/*
 * Traffic against the block size, forward: the middle of figure 2 of the FlashAttention paper, which plots a forward's
 * device memory and time over blocks of 64 to 512 keys. A larger block passes over the queries less often; the time
 * follows until the products take longer than the memory, or the block no longer fits.
 */
#include "io.h"
#include "plot_svg.h"
#include "terminal.h"
#include "tool.h"

#include <stdio.h>

enum { FIRST = 16, LAST = 2048, POINTS = 8 };

typedef struct point {
    double block, bytes[LAB_ALGORITHMS];
    int64_t held;
} point;

static const lab_algorithm lines[] = {LAB_FLASH1, LAB_FLASH2, LAB_STANDARD};
enum { LINES = sizeof lines / sizeof lines[0] };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The longer side of a tile is the block, the shorter at most D, as M would have it. */
static const char *count_point(const io_problem *problem, int64_t block, point *p) {
    const int64_t other = least(block, problem->dim);
    p->block = (double)block;
    for (int i = 0; i < LINES; i++) {
        io_problem at = *problem;
        io_counts counts;
        at.rule = LAB_TILES_GIVEN;
        at.tiles.br = lines[i] == LAB_FLASH1 ? other : block;
        at.tiles.bc = lines[i] == LAB_FLASH1 ? block : other;
        at.numbers = 0;
        const char *trouble = io_problem_refusal(&at);
        if (trouble == NULL) trouble = io_count(&at, lines[i], LAB_FORWARD, &counts);
        if (trouble != NULL) return trouble;
        p->bytes[lines[i]] = io_bytes(&counts);
        if (lines[i] == LAB_FLASH1) p->held = counts.held;
    }
    return NULL;
}

static int draw(const point *points, int count, const char *path, const char *command, const char *title) {
    static const char *const names[LINES] = {"FlashAttention", "FlashAttention-2", "standard"};
    double x[POINTS], y[LINES][POINTS];
    plot_series series[LINES]; /* standard first */
    for (int i = 0; i < LINES; i++) {
        for (int n = 0; n < count; n++) {
            x[n] = points[n].block;
            y[i][n] = points[n].bytes[lines[i]] * 1e-9;
        }
        series[(i + 1) % LINES] = (plot_series){names[i], x, y[i], (size_t)count, 0};
    }
    const plot chart = {.title = title,
                        .note = command,
                        .x_title =
                            "block size: keys of a tile (FlashAttention), queries of a tile (the others)",
                        .y_title = "slow memory read and written, GB",
                        .series = series,
                        .count = LINES,
                        .x_base = 2};
    const char *trouble = plot_svg_write(&chart, path);
    return trouble != NULL ? tool_failure("io", "--svg %s: %s", path, trouble) : TOOL_OK;
}

int io_print_curve(const io_problem *problem, const io_chip *chip, const char *svg, const char *command) {
    point points[POINTS];
    int count = 0;
    char text[IO_PROBLEM_TEXT_SIZE], title[IO_PROBLEM_TEXT_SIZE + 16];
    const double flops = problem->number_bytes == 2 ? chip->flops_16 : chip->flops_32;
    const double products = 4.0 * (double)(problem->batch * problem->heads) * (double)problem->rows *
                            (double)problem->keys * (double)problem->dim / flops;
    for (int64_t block = FIRST; block <= LAST && (block == FIRST || block < 2 * problem->keys); block *= 2) {
        const char *trouble = count_point(problem, block, &points[count]);
        if (trouble != NULL) return tool_usage_error("io", "%s", trouble);
        count++;
    }
    printf("%s, %d bytes a number, forward; %s, M = %lld bytes\n\n", io_problem_text(problem, text),
           problem->number_bytes, chip->title, (long long)problem->fast_bytes);
    printf("%sblock     held  in M   FlashAttention           FlashAttention-2         standard%s\n",
           terminal_bold(stdout), terminal_plain(stdout));
    printf("                          GB       ms  bound by      GB       ms  bound by      GB       ms\n");
    for (int n = 0; n < count; n++) {
        const point *p = &points[n];
        char held[TERMINAL_BYTES_SIZE];
        printf("%5.0f %8s  %-4s", p->block, terminal_bytes((double)p->held, held),
               p->held <= problem->fast_bytes ? "yes" : "no");
        for (int i = 0; i < LINES; i++) {
            const double memory = p->bytes[lines[i]] / chip->slow_high;
            printf(" %8.3f %8.3f", p->bytes[lines[i]] * 1e-9, 1e3 * (memory > products ? memory : products));
            if (lines[i] != LAB_STANDARD) printf("  %-8s", memory > products ? "memory" : "products");
        }
        putchar('\n');
    }
    printf("\nms: the longer of the memory's time at %.3g TB/s and the products', %.3g ms at %.3g TFLOP/s\n",
           chip->slow_high * 1e-12, products * 1e3, flops * 1e-12);
    snprintf(title, sizeof title, "Forward, %s", text);
    return svg != NULL ? draw(points, count, svg, command, title) : TOOL_OK;
}
