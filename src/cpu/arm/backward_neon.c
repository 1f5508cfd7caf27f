/*
 * backward_neon: f32 products by fmla, for every dtype; see backward_body.h. Register tiles 8 x 3 (24 accumulators, 3
 * vectors, 1 broadcast) with rows in the lanes and 6 x 4 (24, 4, 1) with dims in them: 28 and 29 of 32 registers.
 */
#include "cpu/arm/simd_neon.h"

#define FORWARD_MR 8
#define FORWARD_NV 3
#define FORWARD_TILE_ROWS 960
#define BACKWARD_MR 6
#define BACKWARD_NV 4
#define BACKWARD_STEP 24
#define BACKWARD_BLOCK 96
#define BACKWARD_DEPTH 96
#define BACKWARD_KEYS 960
#define BACKWARD_GROUP 8

#include "cpu/backward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_neon);

void attni_backward_neon(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    backward_chunk(job, chunk, scratch);
}

size_t attni_backward_neon_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    return backward_scratch_bytes(rows, keys, dim_qk, dim_v);
}
