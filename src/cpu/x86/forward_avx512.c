/*
 * forward_avx512: f32 products on AVX-512, for every dtype (16-bit inputs are converted once a block).
 * Register tile 8 x 3: 24 accumulators, 3 vectors of queries, 1 broadcast: 28 of 32 registers.
 */
#include "cpu/x86/simd_avx512.h"

#define FORWARD_MR 16
#define FORWARD_NV 1
#define FORWARD_KEYS 256
#define FORWARD_TILE_ROWS 768

#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_avx512);

void attni_forward_avx512(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_avx512_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
