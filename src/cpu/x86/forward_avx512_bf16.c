/*
 * forward_avx512_bf16: both products by vdpbf16ps, P rounded to bf16 on its way out of the softmax. The
 * register tile is forward_avx512's, with units of two bf16. Chosen by itself where vdpbf16ps does more a
 * cycle than the f32 FMA (AMD's Zen 4 and 5: twice; Intel's Emerald Rapids: half, measured).
 */
#include "cpu/x86/simd_avx512_bf16.h"

#define FORWARD_MR 16
#define FORWARD_NV 1
#define FORWARD_KEYS 256
#define FORWARD_TILE_ROWS 768

#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_avx512_bf16);

void attni_forward_avx512_bf16(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_avx512_bf16_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
