/* What the files of the problem generator share. */
#ifndef ATTNI_REFERENCE_PROBLEMS_PARTS_H
#define ATTNI_REFERENCE_PROBLEMS_PARTS_H

#include "problems.h"

/*
 * Memory of bytes for a tensor whose first byte stands skew bytes into it and whose pointer stands
 * origin bytes further, all 0xff, a NaN of each dtype. Returns where the pointer stands, null when memory
 * ran out. An input ends with its memory; an output lies between red zones.
 */
void *attni_buffer_input(attni_problems_buffer *buffer, int64_t bytes, int64_t skew, int64_t origin);
void *attni_buffer_output(attni_problems_buffer *buffer, int64_t bytes, int64_t skew, int64_t origin);

/* What byte i of an output's memory holds before a run. */
unsigned char attni_buffer_poison(const attni_problems_buffer *buffer, size_t i);

/* problems.c: draws strides for a tensor of rows of queries or of keys, and its buffer; 0, or -1. */
int attni_problems_place(attni_random *random, attni_problems_case *c, attni_problems_which which,
                         attn_strides *strides, int queries, int64_t heads, int64_t dim, attn_dtype dtype,
                         int output);
/* problems.c: sets tensors' pointers to the buffers. */
void attni_problems_point(attni_problems_case *c);

/* problems_values.c: fills the inputs. */
void attni_problems_fill(attni_random *random, const attni_problems_case *c);

/* problems_verify.c: writes text; frees the arrays and sets them to null. */
void attni_problems_describe(attni_problems_case *c);
void attni_problems_free_truth(attni_reference_result *truth);

#endif
