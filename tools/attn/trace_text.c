#include "trace_text.h"

#include "terminal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/*
 * One number takes CELL columns, its text at most CELL - 1. A bracket stands where the first column of the
 * next cell would be, so the tile at hand shows without colours too:
 *
 *     q0 [  1.00  0.00]  2.00 -1.00  2.00 -1.00   |    1.00  0.00   1.00  1.37   1.00  0.37
 *     lead         whole A                    gap             tile      m     l         O
 */
enum { CELL = 6, LEAD = 4, GAP = 4 };

static const char *bold(void) { return terminal_bold(stdout); }
static const char *dim(void) { return terminal_dim(stdout); }
static const char *plain(void) { return terminal_plain(stdout); }

int64_t trace_text_width(const trace_input *input, lab_tiles tiles) {
    const int64_t whole = CELL * input->keys + 1, right = CELL * (tiles.bc + 2 + input->dim);
    const int64_t standard = CELL * 2 * input->keys + 1, matrices = 3 * (LEAD + CELL * input->dim);
    int64_t width = whole + GAP - 1 + right;
    if (standard > width) width = standard;
    if (LEAD + width > matrices) return LEAD + width;
    return matrices;
}

/* ---------------------------------------------------------------- numbers */

static void number(const char *colour, float value) {
    char text[TRACE_NUMBER_SIZE];
    printf("%s%*s%s", isfinite(value) || value == -INFINITY ? colour : terminal_red(stdout), CELL,
           trace_number(value, text), plain());
}

static void numbers(const char *colour, const float *values, int64_t count) {
    for (int64_t c = 0; c < count; c++) number(colour, values[c]);
}

static void blanks(int64_t count) { printf("%*s", (int)(CELL * count), ""); }

/* A title over some cells, flush with their right edge. */
static void title(const char *text, int64_t cells) {
    printf("%s%*s%s", dim(), (int)(CELL * cells), text, plain());
}

static void label(char letter, int64_t number_of) {
    char text[24];
    snprintf(text, sizeof text, "%c%" PRId64, letter, number_of);
    printf("%s%*s%s", dim(), LEAD, text, plain());
}

/* ---------------------------------------------------------------- what stands above */

void trace_text_heading(const char *text) { printf("\n%s%s%s\n", bold(), text, plain()); }

void trace_text_inputs(const trace_input *in, lab_tiles tiles) {
    printf("%sattn trace%s: O = softmax(scale Q K^T) V, tile by tile\n\n", bold(), plain());
    printf("  %" PRId64 " queries, %" PRId64 " keys, dim %" PRId64 ", scale %g (%s)\n", in->rows, in->keys,
           in->dim, (double)in->scale, in->name);
    printf("  a tile has %" PRId64 " queries and %" PRId64 " keys; numbers are float32\n\n", tiles.br,
           tiles.bc);
    static const char *const names[] = {"Q", "K", "V"};
    for (int n = 0; n < 3; n++) {
        printf("%*s", LEAD, "");
        title(names[n], in->dim);
    }
    putchar('\n');
    for (int64_t r = 0; r < in->rows || r < in->keys; r++) {
        if (r < in->rows) {
            label('q', r);
            numbers("", in->q + r * in->dim, in->dim);
        } else {
            printf("%*s", (int)(LEAD + CELL * in->dim), "");
        }
        if (r < in->keys) {
            label('k', r);
            numbers("", in->k + r * in->dim, in->dim);
            label('v', r);
            numbers("", in->v + r * in->dim, in->dim);
        }
        putchar('\n');
    }
}

void trace_text_standard(const trace_run *run) {
    const trace_input *in = run->input;
    trace_text_heading("1. The standard way: the whole matrix");
    printf("  A is stored and read back for P = softmax(A); so is P, for O = P V.\n\n%*s", LEAD, "");
    title("A = scale Q K^T", in->keys);
    putchar(' ');
    title("P = softmax of each row of A", in->keys);
    putchar('\n');
    for (int64_t r = 0; r < in->rows; r++) {
        label('q', r);
        numbers("", run->problem.s + r * in->keys, in->keys);
        putchar(' ');
        numbers("", run->problem.p + r * in->keys, in->keys);
        putchar('\n');
    }
    printf("\n%*s", LEAD, "");
    title("O = P V", in->dim);
    putchar('\n');
    for (int64_t r = 0; r < in->rows; r++) {
        label('q', r);
        numbers(bold(), run->problem.o + r * in->dim, in->dim);
        putchar('\n');
    }
}

/* ---------------------------------------------------------------- one tile after another */

/* The whole row r of A, the tile's part in brackets where the row belongs to the tile. */
static void whole_row(const trace_run *run, const trace_event *tile, int64_t r) {
    const trace_input *in = run->input;
    const int inside = r >= tile->row && r < tile->row + tile->rows;
    for (int64_t c = 0; c < in->keys; c++) {
        const int lit = inside && c >= tile->key && c < tile->key + tile->keys;
        const int edge = inside && (c == tile->key || c == tile->key + tile->keys);
        const trace_event *scores = trace_last(run, LAB_STEP_SCORES, r / run->tiles.br, c / run->tiles.bc);
        const trace_tile *s = trace_find(scores, "S");
        char text[TRACE_NUMBER_SIZE];
        trace_number(s->data[(r - scores->row) * s->cols + c - scores->key], text);
        printf("%s%s%s%*s%s", lit || edge ? terminal_cyan(stdout) : "",
               !edge            ? " "
               : c == tile->key ? "["
                                : "]",
               lit || !edge ? "" : plain(), CELL - 1, text, plain());
    }
    printf("%s%s%s", terminal_cyan(stdout), inside && tile->key + tile->keys == in->keys ? "]" : " ",
           plain());
}

/* What fast memory holds of row r after the tile; the finished O of rows that are done. */
static void tile_row(const trace_run *run, const trace_event *scores, const trace_event *after, int64_t r) {
    const trace_input *in = run->input;
    const trace_event *finish = trace_last(run, LAB_STEP_FINISH, r / run->tiles.br, -1);
    const int64_t at = r - after->row;
    if (at >= after->rows) return;
    printf("%*s", GAP - 2, "");
    if (at < 0) {
        printf("%s%*s%s", dim(), (int)(CELL * (run->tiles.bc + 2)), "done", plain());
        numbers(dim(), trace_find(finish, "O")->data + (r - finish->row) * in->dim, in->dim);
        return;
    }
    const trace_tile *s = trace_find(scores, "S"), *m = trace_find(after, "m"), *l = trace_find(after, "l"),
                     *o = trace_find(after, "O");
    numbers(terminal_cyan(stdout), s->data + at * s->cols, s->cols);
    blanks(run->tiles.bc - s->cols);
    if (m != NULL)
        number("", m->data[at]);
    else
        title("-", 1);
    number("", l->data[at]);
    numbers(bold(), o->data + at * in->dim, in->dim);
}

static int64_t count_not_finite(const trace_tile *tile) {
    int64_t count = 0;
    for (int64_t n = 0; n < tile->rows * tile->cols; n++) count += !isfinite(tile->data[n]);
    return count;
}

/* One line on what this tile did, in words. */
static void explain(const trace_run *run, const trace_event *scores, const trace_event *after) {
    char text[TRACE_NUMBER_SIZE];
    const trace_tile *a = trace_find(after, "a"), *s = trace_find(scores, "S");
    if (run->algorithm == LAB_SIMPLE) {
        float largest = -INFINITY;
        for (int64_t n = 0; n < s->rows * s->cols; n++) largest = fmaxf(largest, s->data[n]);
        if (count_not_finite(trace_find(after, "P")) > 0)
            printf("%sexp(%s) is inf in float32%s", terminal_red(stdout), trace_number(largest, text),
                   plain());
        else
            printf("%s", count_not_finite(trace_find(after, "l")) > 0
                             ? "what is inf stays inf"
                             : "l grows by the sum of exp(A), O by exp(A) V");
        return;
    }
    int64_t grew = 0;
    for (int64_t r = 0; r < a->rows; r++) grew += a->data[r] != 1;
    if (after->j == 0) {
        printf("the first keys: m is their maximum");
    } else if (grew == 0) {
        printf("no maximum grew: l and O stay and grow");
    } else {
        printf("m grew:");
        int64_t shown = 0;
        for (int64_t r = 0; r < a->rows && shown < 3; r++) {
            if (a->data[r] == 1) continue;
            printf("%s l and O of q%" PRId64 " times %s", shown > 0 ? "," : "", after->row + r,
                   trace_number(a->data[r], text));
            shown++;
        }
        if (shown < grew) printf(", ...");
    }
}

static void show_tile(const trace_run *run, int64_t i, int64_t j) {
    const trace_input *in = run->input;
    const trace_event *scores = trace_last(run, LAB_STEP_SCORES, i, j),
                      *after = trace_last(run, LAB_STEP_ACCUMULATE, i, j);
    printf("\n  %sA[%" PRId64 ",%" PRId64 "]%s  ", terminal_cyan(stdout), i, j, plain());
    explain(run, scores, after);
    printf("\n%*s", LEAD, "");
    title("the whole A", in->keys);
    printf("%*s", GAP, "");
    title("tile", run->tiles.bc);
    title("m", 1);
    title("l", 1);
    title("O", in->dim);
    putchar('\n');
    for (int64_t r = 0; r < in->rows; r++) {
        label('q', r);
        whole_row(run, after, r);
        printf("%s|%s", dim(), plain());
        tile_row(run, scores, after, r);
        putchar('\n');
    }
}

/* The division, under the tiles of its rows. */
static void show_finish(const trace_run *run, int64_t i) {
    const trace_input *in = run->input;
    const trace_event *finish = trace_last(run, LAB_STEP_FINISH, i, -1);
    const trace_tile *o = trace_find(finish, "O");
    const int nan = count_not_finite(o) > 0;
    for (int64_t r = 0; r < o->rows; r++) {
        printf("%*s", (int)(LEAD + CELL * in->keys + GAP), "");
        char text[48];
        snprintf(text, sizeof text, "q%" PRId64 ": O / l", finish->row + r);
        title(text, run->tiles.bc + 2);
        numbers(terminal_green(stdout), o->data + r * in->dim, in->dim);
        putchar('\n');
    }
    if (nan)
        printf("  %sinf / inf and 0 * inf are NaN: these rows are lost%s\n", terminal_red(stdout), plain());
}

void trace_text_steps(const trace_run *run, int64_t first_i) {
    const trace_input *in = run->input;
    const int64_t key_tiles = (in->keys + run->tiles.bc - 1) / run->tiles.bc;
    for (int64_t i = first_i; i * run->tiles.br < in->rows; i++) {
        for (int64_t j = 0; j < key_tiles; j++) show_tile(run, i, j);
        show_finish(run, i);
    }
}

/* ---------------------------------------------------------------- at the end */

static void traffic(const trace_run *run, const char *name) {
    printf("  %-17s read %5" PRId64 " B, wrote %5" PRId64 " B, fast memory %5" PRId64 " B\n", name,
           run->counts.read, run->counts.written, run->fast_peak);
}

void trace_text_summary(const trace_run *standard, const trace_run *flash2) {
    const trace_input *in = standard->input;
    float largest = 0;
    for (int64_t n = 0; n < in->rows * in->dim; n++) {
        const float difference = fabsf(standard->problem.o[n] - flash2->problem.o[n]);
        if (!(difference <= largest) && !isnan(largest)) largest = difference; /* NaN is kept */
    }
    trace_text_heading("Slow memory");
    traffic(standard, "standard");
    traffic(flash2, "FlashAttention-2");
    printf("  The two O differ by %.1e at most.\n", (double)largest);
}
