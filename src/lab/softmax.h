/*
 * Softmax of each row of x into y, tiled along the row: what a processor does whose fast memory cannot hold one. The
 * accumulator (m, l) is the context that it carries from tile to tile. Bytes of slow memory for a row of n numbers in
 * t tiles, in numbers read and written:
 *
 *     whole rows     n, n             where a row fits
 *     three passes   3n, n            maximum; sum of exp(x - m); y = exp(x - m) / l
 *     two passes     2n, n            m and l together, l rescaled when m rises; y = exp(x - m) / l
 *     streaming      n + t, n + 2t    x is read once; a tile is left as exp(x - m as far as known), and gets a factor
 *                                     when the row is done: y[tile] times factor[tile] is the softmax
 *
 * The last is what attention needs: it reads P on at once, and rescales its sum instead of P.
 */
#ifndef ATTN_LAB_SOFTMAX_H
#define ATTN_LAB_SOFTMAX_H

#include "lab.h"

typedef enum lab_softmax_form {
    LAB_SOFTMAX_WHOLE,
    LAB_SOFTMAX_THREE_PASSES,
    LAB_SOFTMAX_TWO_PASSES,
    LAB_SOFTMAX_STREAMING,
    LAB_SOFTMAX_FORMS
} lab_softmax_form;

extern const char *const lab_softmax_names[LAB_SOFTMAX_FORMS + 1]; /* "whole rows" and so on, ended by null */

/*
 * The standalone operation: x and y are rows x cols; factor, for STREAMING, rows x lab_softmax_tiles, else null.
 * Null, or a sentence: M is too small, memory ran out.
 */
const char *lab_softmax_run(lab_machine *machine, lab_softmax_form form, int64_t rows, int64_t cols, float *x,
                            float *y, float *factor);

/* Numbers of a row in a tile, and tiles in a row. With LAB_TILES_GIVEN the former is machine.tiles.bc. */
int64_t lab_softmax_tile(const lab_machine *machine, lab_softmax_form form, int64_t cols);
int64_t lab_softmax_tiles(const lab_machine *machine, lab_softmax_form form, int64_t cols);

/* The parts, for standard attention: strips of rows at a time, or tiles of cols numbers. */
void lab_softmax_whole_rows(lab_machine *machine, const lab_array *x, lab_array *y, int64_t rows);
void lab_softmax_two_passes(lab_machine *machine, const lab_array *x, lab_array *y, int64_t cols);

#endif
