// The public header alone, as C++, linked with the C library.
#include "attn/attn.h"

#include <cstdio>

int main() {
    attn_problem problem = ATTN_PROBLEM_INIT;
    attn_tensors tensors = ATTN_TENSORS_INIT;
    attn_context_options context_options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_plan_options plan_options = ATTN_PLAN_OPTIONS_INIT;
    attn_execution execution = ATTN_EXECUTION_INIT;
    attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
    const bool good = problem.struct_size == sizeof problem && tensors.struct_size == sizeof tensors &&
                      context_options.struct_size == sizeof context_options &&
                      plan_options.struct_size == sizeof plan_options &&
                      execution.struct_size == sizeof execution && info.struct_size == sizeof info &&
                      attn_version() == ATTN_VERSION;
    std::printf("%d passed, %d failed\n", good, !good);
    return !good;
}
