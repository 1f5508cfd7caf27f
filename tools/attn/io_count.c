#include "io_count.h"

#include "lab/tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEP_LIMIT = 1 << 26 }; /* of tiles: some seconds */

const char *io_problem_text(const io_problem *p, char text[IO_PROBLEM_TEXT_SIZE]) {
    snprintf(text, IO_PROBLEM_TEXT_SIZE, "%lld x %lld heads, %lld queries, %lld keys, dim %lld",
             (long long)p->batch, (long long)p->heads, (long long)p->rows, (long long)p->keys,
             (long long)p->dim);
    return text;
}

static lab_machine machine_of(const io_problem *p) {
    const lab_machine machine = {.fast_bytes = p->fast_bytes,
                                 .number_bytes = p->number_bytes,
                                 .rule = p->rule,
                                 .tiles = p->tiles,
                                 .loops_only = !p->numbers};
    return machine;
}

const char *io_problem_refusal(const io_problem *p) {
    static char sentence[200];
    const lab_problem shape = {.rows = p->rows, .keys = p->keys, .dim = p->dim};
    for (int a = 0; a < LAB_ALGORITHMS; a++)
        for (int d = 0; d < 2; d++) {
            lab_machine machine = machine_of(p);
            lab_tiles tiles;
            const char *refusal =
                lab_choose_tiles(&machine, (lab_algorithm)a, (lab_direction)d, &shape, &tiles);
            if (refusal != NULL) {
                snprintf(sentence, sizeof sentence, "%s", refusal);
                return sentence;
            }
            const lab_strip strip = lab_choose_strip(&machine, p->rows, p->keys, 2);
            const double steps =
                ceil((double)p->rows / (double)tiles.br) * ceil((double)p->keys / (double)tiles.bc) +
                (double)p->rows * ceil((double)p->keys / (double)strip.cols);
            if (steps > STEP_LIMIT) {
                snprintf(sentence, sizeof sentence,
                         "%.3g tiles are more than the %d that are walked through; larger tiles make fewer",
                         steps, (int)STEP_LIMIT);
                return sentence;
            }
        }
    return NULL;
}

/* ---------------------------------------------------------------- numbers against the definition */

/* Attention of one row, in double; its gradients are left to the tests. */
static double row_difference(const lab_problem *p, int64_t row, double *P) {
    double top = -INFINITY, sum = 0, worst = 0;
    for (int64_t j = 0; j < p->keys; j++) {
        P[j] = 0;
        for (int64_t d = 0; d < p->dim; d++) P[j] += (double)p->q[row * p->dim + d] * p->k[j * p->dim + d];
        P[j] *= p->scale;
        top = fmax(top, P[j]);
    }
    for (int64_t j = 0; j < p->keys; j++) sum += P[j] = exp(P[j] - top);
    for (int64_t d = 0; d < p->dim; d++) {
        double o = 0;
        for (int64_t j = 0; j < p->keys; j++) o += P[j] / sum * p->v[j * p->dim + d];
        const double off = fabs(o - p->o[row * p->dim + d]);
        if (!(off <= worst) && !isnan(worst)) worst = off; /* NaN is kept */
    }
    return worst;
}

static double difference(const lab_problem *p) {
    double *P = malloc((size_t)p->keys * sizeof *P), worst = 0;
    if (P == NULL) return NAN;
    for (int64_t row = 0; row < p->rows; row++) {
        const double off = row_difference(p, row, P);
        if (!(off <= worst) && !isnan(worst)) worst = off; /* NaN is kept */
    }
    free(P);
    return worst;
}

/* ---------------------------------------------------------------- one count */

static const char *run_with_numbers(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                                    const io_problem *p, double *largest) {
    lab_problem head;
    if (lab_problem_make(&head, p->rows, p->keys, p->dim, 1) != 0) return "memory ran out";
    const char *trouble = lab_run(machine, algorithm, LAB_FORWARD, &head);
    if (trouble == NULL) *largest = difference(&head);
    if (trouble == NULL && direction == LAB_BACKWARD)
        trouble = lab_run(machine, algorithm, LAB_BACKWARD, &head);
    lab_problem_free(&head);
    return trouble;
}

const char *io_count(const io_problem *p, lab_algorithm algorithm, lab_direction direction,
                     io_counts *counts) {
    static lab_machine machine; /* callers print the sentence that lies in it */
    lab_problem shape = {.rows = p->rows, .keys = p->keys, .dim = p->dim};
    machine = machine_of(p);
    counts->largest_difference = 0;
    const char *trouble =
        p->numbers ? run_with_numbers(&machine, algorithm, direction, p, &counts->largest_difference)
                   : lab_run(&machine, algorithm, direction, &shape);
    if (trouble != NULL) return trouble;
    counts->held = machine.fast_peak;
    counts->head = machine.counts;
    counts->heads = (double)(p->batch * p->heads);
    trouble = lab_choose_tiles(&machine, algorithm, direction, &shape, &machine.tiles);
    counts->tiles = machine.tiles;
    counts->closed =
        lab_closed(&machine, algorithm, direction, &shape, machine.counts.rescales / (1 + p->dim));
    return trouble;
}

int io_counts_agree(const io_counts *c) {
    const lab_counts *a = &c->head, *b = &c->closed;
    return a->read == b->read && a->written == b->written && a->multiply_adds == b->multiply_adds &&
           a->exponentials == b->exponentials && a->logarithms == b->logarithms &&
           a->divisions == b->divisions && a->rescales == b->rescales;
}

double io_bytes(const io_counts *c) { return (double)(c->head.read + c->head.written) * c->heads; }
