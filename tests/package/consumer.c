/* One row over two equal keys: the mean of their values. */
#include <attn/attn.h>

int main(void) {
    const float q[1] = {1.0f}, k[2] = {1.0f, 1.0f}, v[2] = {1.0f, 3.0f};
    float o[1] = {0.0f};
    attn_problem problem = ATTN_PROBLEM_INIT;
    problem.seqlen_q = 1, problem.seqlen_k = 2, problem.dim_qk = problem.dim_v = 1;
    attn_tensors tensors = ATTN_TENSORS_INIT;
    tensors.q = q, tensors.k = k, tensors.v = v, tensors.o = o;
    return attn_attention(&problem, &tensors) == ATTN_OK && o[0] == 2.0f ? 0 : 1;
}
