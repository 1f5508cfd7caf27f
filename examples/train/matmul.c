/*
 * C = A B, four rows of C and four steps of depth at a time:
 *
 *      B  k     [ . . . . . . . . ]      For each column 16 multiply-adds, which hide four loads
 *         k+1   [ . . . . . . . . ]      of B and four loads and stores of C. The loop over columns
 *         k+2   [ . . . . . . . . ]      is the compiler's to vectorise.
 *         k+3   [ . . . . . . . . ]
 *      A        C
 *   i   aaaa    [ . . . . . . . . ]
 *   i+1 aaaa    [ . . . . . . . . ]
 *   i+2 aaaa    [ . . . . . . . . ]
 *   i+3 aaaa    [ . . . . . . . . ]
 *
 * DEPTH rows of B, which all rows of C need, stay in the cache meanwhile.
 */
#include "matmul.h"

#include <math.h>
#include <string.h>

enum { ROWS = 4, STEPS = 4, DEPTH = 128, PARALLEL_ROWS = 16 };

/* The library is compiled without contraction, so a fused multiply-add is written out where there is one. */
static inline float multiply_add(float a, float b, float c) {
#ifdef FP_FAST_FMAF
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

static inline float add_steps(float c, const float a[STEPS], float b0, float b1, float b2, float b3) {
    return multiply_add(a[3], b3, multiply_add(a[2], b2, multiply_add(a[1], b1, multiply_add(a[0], b0, c))));
}

static void update_rows(int64_t columns, float *restrict c, int64_t c_row, float a[ROWS][STEPS],
                        const float *const b[STEPS]) {
    const float *restrict b0 = b[0], *restrict b1 = b[1], *restrict b2 = b[2], *restrict b3 = b[3];
    float *restrict c0 = c, *restrict c1 = c + c_row, *restrict c2 = c + 2 * c_row,
                    *restrict c3 = c + 3 * c_row;
    for (int64_t j = 0; j < columns; j++) {
        c0[j] = add_steps(c0[j], a[0], b0[j], b1[j], b2[j], b3[j]);
        c1[j] = add_steps(c1[j], a[1], b0[j], b1[j], b2[j], b3[j]);
        c2[j] = add_steps(c2[j], a[2], b0[j], b1[j], b2[j], b3[j]);
        c3[j] = add_steps(c3[j], a[3], b0[j], b1[j], b2[j], b3[j]);
    }
}

static void update_row(int64_t columns, float *restrict c, const float a[STEPS],
                       const float *const b[STEPS]) {
    const float *restrict b0 = b[0], *restrict b1 = b[1], *restrict b2 = b[2], *restrict b3 = b[3];
    for (int64_t j = 0; j < columns; j++) c[j] = add_steps(c[j], a, b0[j], b1[j], b2[j], b3[j]);
}

/* Rows [first, last) of C. */
static void multiply_rows(const product *p, int64_t first, int64_t last) {
    if (!p->add)
        for (int64_t i = first; i < last; i++)
            memset(p->c + i * p->c_row, 0, (size_t)p->columns * sizeof *p->c);
    for (int64_t block = 0; block < p->depth; block += DEPTH) {
        const int64_t end = block + DEPTH < p->depth ? block + DEPTH : p->depth;
        for (int64_t i = first; i < last; i += ROWS) {
            const int64_t rows = last - i < ROWS ? last - i : ROWS;
            for (int64_t k = block; k < end; k += STEPS) {
                float a[ROWS][STEPS];
                const float *b[STEPS];
                for (int64_t step = 0; step < STEPS;
                     step++) { /* steps beyond the end add 0 times the last row */
                    const int there = k + step < end;
                    const int64_t at = there ? k + step : end - 1;
                    b[step] = p->b + at * p->b_row;
                    for (int64_t r = 0; r < rows; r++)
                        a[r][step] = there ? p->a[(i + r) * p->a_row + at * p->a_column] : 0.0f;
                }
                float *c = p->c + i * p->c_row;
                if (rows == ROWS)
                    update_rows(p->columns, c, p->c_row, a, b);
                else
                    for (int64_t r = 0; r < rows; r++) update_row(p->columns, c + r * p->c_row, a[r], b);
            }
        }
    }
}

void matmul_one_thread(const product *p) { multiply_rows(p, 0, p->rows); }

void matmul(const product *p) {
    const int64_t tasks = (p->rows + PARALLEL_ROWS - 1) / PARALLEL_ROWS;
#pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t first = task * PARALLEL_ROWS, last = first + PARALLEL_ROWS;
        multiply_rows(p, first, last < p->rows ? last : p->rows);
    }
}

void transpose(int64_t rows, int64_t columns, const float *from, int64_t from_row, float *to) {
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) to[j * rows + i] = from[i * from_row + j];
}
