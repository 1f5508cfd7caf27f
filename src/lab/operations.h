/*
 * What the lab's algorithms are written in: tiles taken from fast memory, moved from and to slow memory, and
 * arithmetic on them. Everything here counts itself in machine->counts.
 */
#ifndef ATTN_LAB_OPERATIONS_H
#define ATTN_LAB_OPERATIONS_H

#include "lab.h"

/* The part of n that tile number index of a size covers: its beginning and its length. */
typedef struct lab_range {
    int64_t begin, length;
} lab_range;

lab_range lab_part(int64_t n, int64_t size, int64_t index);
int64_t lab_parts(int64_t n, int64_t size); /* ceil(n / size) */

/* Begins a run with room for so many numbers in tiles, all counts 0; null or a sentence. lab_end frees the room. */
const char *lab_begin(lab_machine *machine, int64_t numbers);
void lab_end(lab_machine *machine);

/* Puts a matrix into slow memory, under its name. */
lab_array *lab_slow(lab_machine *machine, const char *name, float *data, int64_t rows, int64_t cols);
lab_array *lab_slow_statistic(lab_machine *machine, const char *name, float *data, int64_t rows);

/* Room for a tile in fast memory; a vector of rows is lab_take_statistic. lab_give_back_all ends a phase. */
lab_tile *lab_take(lab_machine *machine, const char *name, int64_t rows, int64_t cols);
lab_tile *lab_take_statistic(lab_machine *machine, const char *name, int64_t rows);
void lab_give_back_all(lab_machine *machine);

/* Which tiles the loops are at; null: none. */
void lab_at(lab_machine *machine, int64_t i, const lab_range *rows, int64_t j, const lab_range *keys);

/* Rows of an array, or a block of it, into a tile and back. */
void lab_load(lab_machine *machine, lab_tile *tile, const lab_array *array, lab_range rows);
void lab_store(lab_machine *machine, const lab_tile *tile, lab_array *array, lab_range rows);
void lab_load_block(lab_machine *machine, lab_tile *tile, const lab_array *array, lab_range rows,
                    lab_range cols);
void lab_store_block(lab_machine *machine, const lab_tile *tile, lab_array *array, lab_range rows,
                     lab_range cols);

/* Tells the observer. */
void lab_say(lab_machine *machine, lab_step step, const char *text);

/* Matrix products. */
void lab_product_nt(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a, const lab_tile *b);
void lab_add_product(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a, const lab_tile *b);
void lab_add_product_tn(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a, const lab_tile *b);

/* Elements. x is rows x cols, statistics have one number a row. */
void lab_fill(lab_machine *machine, lab_tile *x, int64_t rows, int64_t cols, float value);
void lab_copy(lab_machine *machine, lab_tile *to, const lab_tile *from);
void lab_add(lab_machine *machine, lab_tile *to, const lab_tile *x);
void lab_row_maximum(lab_machine *machine, lab_tile *m, const lab_tile *x); /* m = max(m, rowmax(x)) */
void lab_add_row_sum(lab_machine *machine, lab_tile *l, const lab_tile *x); /* l += rowsum(x) */
void lab_exponential(lab_machine *machine, lab_tile *x,
                     const lab_tile *m); /* x = exp(x - m); null m: exp(x) */
void lab_exp_difference(lab_machine *machine, lab_tile *a, const lab_tile *m, const lab_tile *reference);
void lab_rescale(lab_machine *machine, lab_tile *x, const lab_tile *a); /* row r of x times a[r] */
void lab_divide(lab_machine *machine, lab_tile *x, const lab_tile *l); /* row r of x by l[r] */
void lab_log_sum(lab_machine *machine, lab_tile *lse, const lab_tile *m, const lab_tile *l); /* m + log(l) */

/* The backward. */
void lab_row_dot(lab_machine *machine, lab_tile *d, const lab_tile *x,
                 const lab_tile *y); /* d = rowsum(x * y) */
void lab_add_row_dot(lab_machine *machine, lab_tile *d, const lab_tile *x, const lab_tile *y);
void lab_score_gradient(lab_machine *machine, lab_tile *dp, const lab_tile *p, const lab_tile *d);
void lab_clear_gradient(lab_machine *machine, lab_tile *tile, lab_array *array, int64_t rows);

/* Lazy rescaling: m_new goes back to m where it exceeds it by the limit at most; then the rows that moved, only. */
void lab_hold_back(lab_machine *machine, lab_tile *m_new, const lab_tile *m, float limit);
void lab_move(lab_machine *machine, lab_tile *l, lab_tile *O, lab_tile *m, const lab_tile *m_new);

#endif
