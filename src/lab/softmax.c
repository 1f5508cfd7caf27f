#include "softmax.h"

#include "operations.h"
#include "tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const lab_softmax_names[LAB_SOFTMAX_FORMS + 1] = {"whole rows", "three passes", "two passes",
                                                              "streaming", NULL};

/* ---------------------------------------------------------------- rows that fit */

static void maximum(lab_machine *machine, lab_tile *m, const lab_tile *S, int64_t rows) {
    if (machine->without_maximum) {
        lab_fill(machine, m, rows, 1, 0);
        return;
    }
    lab_fill(machine, m, rows, 1, -INFINITY);
    lab_row_maximum(machine, m, S);
    lab_say(machine, LAB_STEP_MAXIMUM, "m = rowmax(S)");
}

void lab_softmax_whole_rows(lab_machine *machine, const lab_array *x, lab_array *y, int64_t rows) {
    lab_tile *S = lab_take(machine, "S", rows, x->cols);
    lab_tile *m = lab_take_statistic(machine, "m", rows), *l = lab_take_statistic(machine, "l", rows);
    for (int64_t i = 0; i < lab_parts(x->rows, rows); i++) {
        const lab_range range = lab_part(x->rows, rows, i), all = {0, x->cols};
        lab_at(machine, i, &range, 0, &all);
        lab_load(machine, S, x, range);
        maximum(machine, m, S, range.length);
        lab_exponential(machine, S, m);
        lab_say(machine, LAB_STEP_PROBABILITIES, machine->without_maximum ? "P = exp(S)" : "P = exp(S - m)");
        lab_fill(machine, l, range.length, 1, 0);
        lab_add_row_sum(machine, l, S);
        lab_say(machine, LAB_STEP_SUM, "l = rowsum(P)");
        lab_divide(machine, S, l);
        lab_say(machine, LAB_STEP_FINISH, "P = P / l");
        lab_store(machine, S, y, range);
    }
    lab_give_back_all(machine);
}

/* ---------------------------------------------------------------- rows in tiles */

typedef struct row_tiles {
    lab_tile *S, *m, *l, *m_new, *a;
} row_tiles;

static row_tiles take(lab_machine *machine, int64_t cols) {
    const row_tiles t = {lab_take(machine, "S", 1, cols), lab_take_statistic(machine, "m", 1),
                         lab_take_statistic(machine, "l", 1), lab_take_statistic(machine, "m'", 1),
                         lab_take_statistic(machine, "a", 1)};
    return t;
}

static void clear(lab_machine *machine, row_tiles t) {
    lab_fill(machine, t.m, 1, 1, machine->without_maximum ? 0 : -INFINITY);
    lab_fill(machine, t.l, 1, 1, 0);
    lab_say(machine, LAB_STEP_CLEAR, machine->without_maximum ? "m = 0, l = 0" : "m = -inf, l = 0");
}

/* The tile in S joins (m, l), and becomes exp(S - m) on the way. */
static void carry(lab_machine *machine, row_tiles t) {
    lab_copy(machine, t.m_new, t.m);
    if (!machine->without_maximum) lab_row_maximum(machine, t.m_new, t.S);
    lab_say(machine, LAB_STEP_MAXIMUM, "m' = max(m, rowmax(S))");
    lab_exponential(machine, t.S, t.m_new);
    lab_say(machine, LAB_STEP_PROBABILITIES, "P = exp(S - m')");
    lab_exp_difference(machine, t.a, t.m, t.m_new);
    lab_rescale(machine, t.l, t.a);
    lab_add_row_sum(machine, t.l, t.S);
    lab_copy(machine, t.m, t.m_new);
    lab_say(machine, LAB_STEP_SUM, "a = exp(m - m'), l = a l + rowsum(P), m = m'");
}

/* Goes to tile number j of row i and loads it. */
static lab_range visit(lab_machine *machine, row_tiles t, const lab_array *x, int64_t i, int64_t j,
                       int64_t cols) {
    const lab_range row = {i, 1}, part = lab_part(x->cols, cols, j);
    lab_at(machine, i, &row, j, &part);
    lab_load_block(machine, t.S, x, row, part);
    return part;
}

/* y = exp(x - m) / l, the last pass. */
static void write_row(lab_machine *machine, row_tiles t, const lab_array *x, lab_array *y, int64_t i,
                      int64_t cols) {
    const lab_range row = {i, 1};
    for (int64_t j = 0; j < lab_parts(x->cols, cols); j++) {
        const lab_range part = visit(machine, t, x, i, j, cols);
        lab_exponential(machine, t.S, t.m);
        lab_say(machine, LAB_STEP_PROBABILITIES, "P = exp(S - m)");
        lab_divide(machine, t.S, t.l);
        lab_say(machine, LAB_STEP_FINISH, "P = P / l");
        lab_store_block(machine, t.S, y, row, part);
    }
}

void lab_softmax_two_passes(lab_machine *machine, const lab_array *x, lab_array *y, int64_t cols) {
    const row_tiles t = take(machine, cols);
    for (int64_t i = 0; i < x->rows; i++) {
        clear(machine, t);
        for (int64_t j = 0; j < lab_parts(x->cols, cols); j++) {
            visit(machine, t, x, i, j, cols);
            carry(machine, t);
        }
        write_row(machine, t, x, y, i, cols);
    }
    lab_give_back_all(machine);
}

static void three_passes(lab_machine *machine, const lab_array *x, lab_array *y, int64_t cols) {
    const row_tiles t = take(machine, cols);
    for (int64_t i = 0; i < x->rows; i++) {
        clear(machine, t);
        for (int64_t j = 0; j < lab_parts(x->cols, cols); j++) {
            visit(machine, t, x, i, j, cols);
            lab_row_maximum(machine, t.m, t.S);
            lab_say(machine, LAB_STEP_MAXIMUM, "m = max(m, rowmax(S))");
        }
        for (int64_t j = 0; j < lab_parts(x->cols, cols); j++) {
            visit(machine, t, x, i, j, cols);
            lab_exponential(machine, t.S, t.m);
            lab_add_row_sum(machine, t.l, t.S);
            lab_say(machine, LAB_STEP_SUM, "l = l + rowsum(exp(S - m))");
        }
        write_row(machine, t, x, y, i, cols);
    }
    lab_give_back_all(machine);
}

static void streaming(lab_machine *machine, const lab_array *x, lab_array *y, lab_array *factor,
                      int64_t cols) {
    const row_tiles t = take(machine, cols);
    for (int64_t i = 0; i < x->rows; i++) {
        const lab_range row = {i, 1};
        clear(machine, t);
        for (int64_t j = 0; j < lab_parts(x->cols, cols); j++) {
            const lab_range part = visit(machine, t, x, i, j, cols), one = {j, 1};
            carry(machine, t);
            lab_store_block(machine, t.S, y, row, part);
            lab_store_block(machine, t.m, factor, row, one); /* what it was taken against, for now */
        }
        for (int64_t j = 0; j < factor->cols; j++) {
            const lab_range one = {j, 1};
            lab_at(machine, i, &row, j, &one);
            lab_load_block(machine, t.m_new, factor, row, one);
            lab_exp_difference(machine, t.a, t.m_new, t.m);
            lab_divide(machine, t.a, t.l);
            lab_say(machine, LAB_STEP_FINISH, "factor = exp(m' - m) / l");
            lab_store_block(machine, t.a, factor, row, one);
        }
    }
    lab_give_back_all(machine);
}

/* ---------------------------------------------------------------- the operation */

int64_t lab_softmax_tile(const lab_machine *machine, lab_softmax_form form, int64_t cols) {
    const int64_t room =
        (machine->fast_bytes - LAB_STRIP_STATISTICS * LAB_STATISTIC_BYTES) / machine->number_bytes;
    const int64_t tile = machine->rule == LAB_TILES_GIVEN ? machine->tiles.bc : room;
    return form == LAB_SOFTMAX_WHOLE || tile > cols ? cols : tile;
}

int64_t lab_softmax_tiles(const lab_machine *machine, lab_softmax_form form, int64_t cols) {
    return lab_parts(cols, lab_softmax_tile(machine, form, cols));
}

const char *lab_softmax_run(lab_machine *machine, lab_softmax_form form, int64_t rows, int64_t cols, float *x,
                            float *y, float *factor) {
    const lab_strip strip = lab_choose_strip(machine, rows, cols, 1);
    const int64_t whole = machine->rule == LAB_TILES_GIVEN
                              ? 0
                              : cols * machine->number_bytes + LAB_STRIP_STATISTICS * LAB_STATISTIC_BYTES;
    const int64_t tile = lab_softmax_tile(machine, form, cols);
    if (tile < 1 || (form == LAB_SOFTMAX_WHOLE && whole > machine->fast_bytes))
        return tile < 1 ? "fast memory holds no number beside the statistics"
                        : "fast memory does not hold a row";
    const char *trouble =
        lab_begin(machine, form == LAB_SOFTMAX_WHOLE ? strip.rows * (cols + LAB_STRIP_STATISTICS)
                                                     : tile + LAB_STRIP_STATISTICS);
    if (trouble != NULL) return trouble;
    const lab_array *gx = lab_slow(machine, "S", x, rows, cols);
    lab_array *gy = lab_slow(machine, "P", y, rows, cols);
    switch (form) {
    case LAB_SOFTMAX_WHOLE: lab_softmax_whole_rows(machine, gx, gy, strip.rows); break;
    case LAB_SOFTMAX_THREE_PASSES: three_passes(machine, gx, gy, tile); break;
    case LAB_SOFTMAX_TWO_PASSES: lab_softmax_two_passes(machine, gx, gy, tile); break;
    case LAB_SOFTMAX_STREAMING: {
        lab_array *gf = lab_slow_statistic(machine, "factor", factor, rows);
        gf->cols = lab_parts(cols, tile);
        streaming(machine, gx, gy, gf, tile);
        break;
    }
    case LAB_SOFTMAX_FORMS: break;
    }
    lab_end(machine);
    return NULL;
}
