/* How much work an attention is, whatever a kernel makes of it. */
#ifndef ATTN_TOOL_WORK_H
#define ATTN_TOOL_WORK_H

#include "attn/attn.h"

/* Scores that rows of one head may see: causal masks and windows count, a mask tensor does not. */
double work_visible(const attn_problem *problem, int64_t seqlen_q, int64_t seqlen_k, int64_t query_start,
                    int64_t key_start);

/* "f32" and so on, and the bytes of an element. */
const char *work_dtype_name(attn_dtype dtype);
size_t work_dtype_size(attn_dtype dtype);
int work_dtype_is_f8(attn_dtype dtype);

/* The names in the numbers' order, ended by null, for flags. */
extern const char *const work_dtype_names[];
extern const char *const work_input_names[]; /* of q, k and v: with those of 8 bits */
extern const char *const work_isa_names[];
int work_isa_is_cuda(int isa);

#endif
