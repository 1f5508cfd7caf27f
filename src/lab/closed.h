/*
 * What an algorithm counts, in closed form: the sums of its loops done on paper. They equal machine.counts exactly,
 * for every shape and tile, uneven ones included, because tiles partition the rows and the keys.
 */
#ifndef ATTN_LAB_CLOSED_H
#define ATTN_LAB_CLOSED_H

#include "lab.h"
#include "softmax.h"

/*
 * The counts of lab_run with machine's fast_bytes, number_bytes, rule and, as lab_run leaves them, tiles. moves: how
 * often the reference of a row moved, which LAB_LAZY alone needs and only the numbers can tell (rows at least).
 */
lab_counts lab_closed(const lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                      const lab_problem *problem, int64_t moves);

/* machine.fast_peak of that run. */
int64_t lab_closed_fast_bytes(const lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                              const lab_problem *problem);

/* The counts of lab_softmax_run. */
lab_counts lab_closed_softmax(const lab_machine *machine, lab_softmax_form form, int64_t rows, int64_t cols);

#endif
