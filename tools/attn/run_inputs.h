/* From the files of `attn run` to a problem and its tensors. */
#ifndef ATTN_TOOL_RUN_INPUTS_H
#define ATTN_TOOL_RUN_INPUTS_H

#include "attn/attn.h"
#include "npy.h"

#include <stdint.h>

typedef enum run_layout { RUN_BSHD, RUN_BHSD } run_layout;

/* What the command line says. Paths are null where not given. */
typedef struct run_options {
    const char *q, *k, *v, *o, *lse;
    int layout, bf16, dtype_o; /* dtype_o: an attn_dtype, or -1 for Q's */

    int causal, causal_top_left;
    const char *window;
    double softcap, scale; /* scale: HUGE_VAL where not given */
    const char *alibi, *bias, *mask, *sinks;
    double dropout;
    uint64_t seed, offset;
    int64_t query_start, key_start;
    const char *lengths_q, *lengths_k, *cu_seqlens_q, *cu_seqlens_k;
} run_options;

/* A (batch, seqlen, heads, dim) tensor, whatever the order in its file. */
typedef struct run_view {
    int64_t batch, seqlen, heads, dim;
    attn_strides strides;
    attn_dtype dtype;
} run_view;

typedef struct run_inputs {
    npy_array q, k, v, alibi, bias, mask, sinks, lengths_q, lengths_k;
    run_view view_q, view_k, view_v, view_o;
    attn_problem problem;
    attn_tensors tensors; /* o and lse still null */
    int64_t o_shape[4], lse_shape[3];
    int o_dims, lse_dims;
} run_inputs;

/* One sequence of the batch: its rows in Q and O. */
typedef struct run_sequence {
    int64_t slice, first_q, seqlen_q, seqlen_k;
} run_sequence;

/* An exit status; what is wrong is on stderr. run_inputs_free is allowed either way. */
int run_inputs_load(const run_options *options, run_inputs *inputs);
void run_inputs_free(run_inputs *inputs);

run_sequence run_inputs_sequence(const run_inputs *inputs, int64_t batch);

/* Understands an array as a tensor of the layout; 1, or 0 after a sentence on stderr. */
int run_view_of(const char *flag, const char *path, const npy_array *array, const run_options *options,
                run_view *view);

#endif
