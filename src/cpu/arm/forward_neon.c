/*
 * forward_neon: f32 products by fmla, for every dtype (16-bit inputs are converted once a block).
 * Register tile 8 x 3: 24 accumulators, 3 vectors of queries, 2 of the 8 numbers that they are multiplied by: 29 of
 * 32 registers. 24 chains cover a latency of 4 cycles on cores that start up to 6 fmla a cycle; the widest start 4.
 *
 * At D = Dv = 128: Q^T and S^T of a sub of 12 rows 6 KB each, for L1; panels of a block of 128 keys 64 KB each, and
 * O^T and Q^T of a tile of 192 rows 96 KB each, for an L2 of 512 KB.
 */
#include "cpu/arm/simd_neon.h"

#define FORWARD_MR 8
#define FORWARD_NV 3
#define FORWARD_KEYS 128
#define FORWARD_TILE_ROWS 192

#include "cpu/arm/product_neon.h"
#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_neon);

void attni_forward_neon(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_neon_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
