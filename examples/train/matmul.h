/* Matrix products in plain C: row-major, float32, any A by its strides, B and C with contiguous columns. */
#ifndef ATTN_EXAMPLE_MATMUL_H
#define ATTN_EXAMPLE_MATMUL_H

#include <stdint.h>

typedef struct product {
    int64_t rows, depth, columns; /* C is rows x columns, A rows x depth, B depth x columns */
    const float *a;
    int64_t a_row,
        a_column; /* A's strides: (depth, 1) as it lies, (1, rows) for the transpose of depth x rows */
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
    int add; /* C += A B instead of C = A B */
} product;

/* Each element is summed over ascending depth, so that the bits do not depend on the number of threads. */
void matmul(const product *p);          /* on all threads */
void matmul_one_thread(const product *p); /* for callers that are parallel themselves */

/* to (columns x rows) = the transpose of from (rows x columns), whose rows are from_row apart. */
void transpose(int64_t rows, int64_t columns, const float *from, int64_t from_row, float *to);

#endif
