/*
 * forward_neon_bf16: both products by bfmmla, P rounded to bf16 on its way out of the softmax. Register tile 8 x 12
 * as in forward_neon: 24 accumulators of 2 x 2, 4 pairs of keys (or dims), 1 pair of queries: 29 of 32 registers.
 * Chosen by itself: others measured bfmmla against fmla in matrix products as 3.9 times as fast on Cortex-A710, 3.4 on
 * Cortex-X2 and 1.1 on Cortex-A510 (IREE, pull request 14495); this kernel has been run under emulation only.
 * Panels of 16-bit numbers are half as large as forward_neon's; the tile's sizes are the same, as O^T is.
 */
#include "cpu/arm/simd_neon_bf16.h"

#define FORWARD_MR 8
#define FORWARD_NV 3
#define FORWARD_KEYS 128
#define FORWARD_TILE_ROWS 192

#include "cpu/arm/product_neon_bf16.h"
#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_neon_bf16);
_Static_assert(FORWARD_STEP % 2 == 0, "arrange takes two rows of units");

void attni_forward_neon_bf16(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_neon_bf16_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
