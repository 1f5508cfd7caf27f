/*
 * backward_avx2: see backward_body.h. Register tiles 4 x 3 (12 accumulators, 3 vectors, 1 broadcast) with rows in
 * the lanes and 6 x 2 (12, 2, 1) with dims in them: 16 and 15 of 16 registers.
 */
#include "cpu/x86/simd_avx2.h"

#define FORWARD_MR 4
#define FORWARD_NV 3
#define FORWARD_TILE_ROWS 1920
#define BACKWARD_MR 6
#define BACKWARD_NV 2
#define BACKWARD_STEP 12
#define BACKWARD_BLOCK 192
#define BACKWARD_DEPTH 192
#define BACKWARD_KEYS 1920
#define BACKWARD_GROUP 4

#include "cpu/backward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_avx2);

void attni_backward_avx2(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    backward_chunk(job, chunk, scratch);
}

size_t attni_backward_avx2_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    return backward_scratch_bytes(rows, keys, dim_qk, dim_v);
}
