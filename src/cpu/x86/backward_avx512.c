/*
 * backward_avx512: f32 products on AVX-512, for every dtype; see backward_body.h. Register tiles 8 x 3 (24
 * accumulators, 3 vectors, 1 broadcast) with rows in the lanes and 6 x 4 (24, 4, 1) with dims in them: 28 and 29 of
 * 32 registers. B of a strip is 24 KB of L1: 96 rows, or BACKWARD_DEPTH keys, of 64 dims; at dim 128 that of S^T too. P^T
 * and dS^T of a block and group take 147 KB of L2, K, V, dK and dV of a block 0.5 MB at dim 128; rows stream from L3.
 *
 * Tried (Emerald Rapids, one thread, 2,048 keys, dims 64 and 128, alternating runs in one process, time over this
 * one's): chunks of 480 with blocks of 96 1.00 to 1.05, causal 1.08 to 1.11; chunks of 288 1.0 to 1.07; dims' tile
 * 8 x 3 1.05 to 1.07, 12 x 2 1.10; distances of A known at run time only 1.01 to 1.04; the depth's loop unrolled 0.98
 * to 1.01; 16 x 1 with broadcasts folded into the FMA 0.97 to 1.10 for dims, 1.04 to 1.15 for all products with K and V
 * packed for it, and beside a busy hardware thread, for S^T and dP^T alone, 1.00 and 1.01; -O3 1.00. More in
 * docs/schedules/backward_cpu.md.
 */
#include "cpu/x86/simd_avx512.h"

#define FORWARD_MR 8
#define FORWARD_NV 3
#define FORWARD_TILE_ROWS 2112
#define BACKWARD_MR 6
#define BACKWARD_NV 4
#define BACKWARD_STEP 24
#define BACKWARD_BLOCK 192
#define BACKWARD_DEPTH 96
#define BACKWARD_KEYS 2112
#define BACKWARD_GROUP 2

#include "cpu/x86/backward_tiles_avx512.h"

#include "cpu/backward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_avx512);

void attni_backward_avx512(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    backward_chunk(job, chunk, scratch);
}

size_t attni_backward_avx512_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    return backward_scratch_bytes(rows, keys, dim_qk, dim_v);
}
