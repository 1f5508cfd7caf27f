/* The public header alone, as C99; the program runs, too. */
#include "attn/attn.h"

#include <stdio.h>

int main(void) {
    attn_problem problem = ATTN_PROBLEM_INIT;
    attn_tensors tensors = ATTN_TENSORS_INIT;
    attn_context_options context_options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_plan_options plan_options = ATTN_PLAN_OPTIONS_INIT;
    attn_execution execution = ATTN_EXECUTION_INIT;
    attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
    int good = problem.struct_size == sizeof problem && problem.q.batch == ATTN_STRIDE_PACKED &&
               problem.mask_strides.queries == ATTN_STRIDE_PACKED &&
               problem.window_right == ATTN_WINDOW_UNLIMITED && problem.batch == 1 && problem.reserved == 0 &&
               problem.alibi_stride_batch == 0 && problem.scale_stride_head == 0 &&
               tensors.struct_size == sizeof tensors && tensors.seqlen_k == ATTN_LENGTH_DEFAULT &&
               tensors.key_start == ATTN_POSITION_DEFAULT && tensors.scale == ATTN_SCALE_DEFAULT &&
               tensors.dropout_offset == 0 && tensors.total_q == ATTN_LENGTH_DEFAULT && tensors.sinks == 0 &&
               tensors.v_scale == 0 && context_options.struct_size == sizeof context_options &&
               context_options.stream == 0 && plan_options.struct_size == sizeof plan_options &&
               plan_options.workspace_limit == 0 && execution.struct_size == sizeof execution &&
               execution.stream == 0 && info.struct_size == sizeof info && info.refusal == 0;
    printf("%d passed, %d failed\n", good, !good);
    return !good;
}
