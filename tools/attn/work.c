#include "work.h"

const char *const work_dtype_names[] = {"f32", "f16", "bf16", NULL};
const char *const work_input_names[] = {"f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", NULL};
const char *const work_isa_names[] = {"auto", "portable",  "avx2", "avx512", "avx512_bf16", "amx",
                                      "neon", "neon_bf16", "sm80", "sm90",   NULL};

int work_isa_is_cuda(int isa) { return isa == ATTN_ISA_SM80 || isa == ATTN_ISA_SM90; }

const char *work_dtype_name(attn_dtype dtype) { return work_input_names[dtype]; }

int work_dtype_is_f8(attn_dtype dtype) { return dtype >= ATTN_F8_E4M3; }

size_t work_dtype_size(attn_dtype dtype) { return dtype == ATTN_F32 ? 4 : work_dtype_is_f8(dtype) ? 1 : 2; }

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

double work_visible(const attn_problem *problem, int64_t seqlen_q, int64_t seqlen_k, int64_t query_start,
                    int64_t key_start) {
    /* Beyond this a position is out of sight anyway, and sums stay within int64. */
    const int64_t far = (int64_t)1 << 60;
    const int64_t left = problem->window_left, right = problem->window_right;
    double visible = 0;
    if (key_start == ATTN_POSITION_DEFAULT) key_start = 0;
    if (query_start == ATTN_POSITION_DEFAULT) query_start = key_start + seqlen_k - seqlen_q;
    /* The first query's position as a key index. */
    const int64_t first = clamp(query_start, -far, far) - clamp(key_start, -far, far);
    for (int64_t i = 0; i < seqlen_q; i++) {
        int64_t begin = 0, end = seqlen_k;
        if (problem->mask == ATTN_MASK_CAUSAL) end = clamp(first + i + 1, 0, end);
        if (right != ATTN_WINDOW_UNLIMITED) end = clamp(first + i + clamp(right, 0, far) + 1, 0, end);
        if (left != ATTN_WINDOW_UNLIMITED) begin = clamp(first + i - clamp(left, 0, far), 0, end);
        visible += (double)(end - begin);
    }
    return visible;
}
