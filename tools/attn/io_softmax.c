/*
 * Softmax alone, of rows that a fast memory of M bytes may not hold: what each way to tile its reduction axis moves.
 */
#include "io.h"
#include "lab/softmax.h"
#include "terminal.h"
#include "tool.h"

#include <stdio.h>

static void print_row(const lab_machine *machine, lab_softmax_form form, const io_problem *p,
                      const lab_counts *closed, const io_chip *chip) {
    const double rows = (double)(p->batch * p->heads),
                 bytes = (double)(machine->counts.read + machine->counts.written) * rows;
    printf("%-13s %8lld %6lld %16.0f %16.0f %9.3g %9.3g %9.3g %9.3g\n", lab_softmax_names[form],
           (long long)lab_softmax_tile(machine, form, p->keys),
           (long long)lab_softmax_tiles(machine, form, p->keys), bytes,
           (double)(closed->read + closed->written) * rows,
           (double)machine->counts.exponentials * rows * 1e-9,
           (double)machine->counts.divisions * rows * 1e-9, (double)machine->counts.rescales * rows * 1e-9,
           bytes / chip->slow_high * 1e3);
}

static int is_same(const lab_counts *a, const lab_counts *b) {
    return a->read == b->read && a->written == b->written && a->exponentials == b->exponentials &&
           a->divisions == b->divisions && a->rescales == b->rescales;
}

int io_print_softmax(const io_problem *p, const io_chip *chip) {
    enum { LIMIT = 1 << 26 }; /* tiles: some seconds */
    if (p->fast_bytes < 4 * LAB_STATISTIC_BYTES + p->number_bytes)
        return tool_usage_error("io",
                                "a fast memory of %lld bytes is too small for one tile: a row's statistics "
                                "and one number take %d bytes",
                                (long long)p->fast_bytes, 4 * LAB_STATISTIC_BYTES + p->number_bytes);
    printf("softmax of %lld x %lld x %lld rows of %lld numbers of %d bytes; %s, M = %lld bytes\n\n",
           (long long)p->batch, (long long)p->heads, (long long)p->rows, (long long)p->keys, p->number_bytes,
           chip->title, (long long)p->fast_bytes);
    printf("%s%-13s %8s %6s %16s %16s %9s %9s %9s %9s%s\n", terminal_bold(stdout), "form", "tile", "tiles",
           "bytes counted", "formula", "10^9 exps", "divisions", "rescales", "ms", terminal_plain(stdout));
    for (int f = 0; f < LAB_SOFTMAX_FORMS; f++) {
        const lab_softmax_form form = (lab_softmax_form)f;
        lab_machine machine = {.fast_bytes = p->fast_bytes,
                               .number_bytes = p->number_bytes,
                               .rule = LAB_TILES_FIT,
                               .loops_only = 1};
        const int64_t tile = lab_softmax_tile(&machine, form, p->keys);
        if (tile > 0 && (double)p->rows * (double)(p->keys / tile + 1) > LIMIT)
            return tool_usage_error("io",
                                    "%lld rows in tiles of %lld numbers are more than are walked through",
                                    (long long)p->rows, (long long)tile);
        const char *trouble = lab_softmax_run(&machine, form, p->rows, p->keys, NULL, NULL, NULL);
        if (trouble != NULL) {
            printf("%-13s %s\n", lab_softmax_names[form], trouble);
            continue;
        }
        const lab_counts closed = lab_closed_softmax(&machine, form, p->rows, p->keys);
        if (!is_same(&machine.counts, &closed))
            return tool_failure("io", "%s: the counters and the formulas disagree", lab_softmax_names[form]);
        print_row(&machine, form, p, &closed, chip);
    }
    printf("ms: these bytes at %.3g TB/s\n", chip->slow_high * 1e-12);
    return TOOL_OK;
}
