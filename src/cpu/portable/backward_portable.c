/* backward_portable: see backward_body.h. */
#include "cpu/portable/simd_portable.h"

#define FORWARD_MR 4
#define FORWARD_NV 2
#define FORWARD_TILE_ROWS 1920
#define BACKWARD_MR 4
#define BACKWARD_NV 2
#define BACKWARD_STEP 4
#define BACKWARD_BLOCK 96
#define BACKWARD_DEPTH 96
#define BACKWARD_KEYS 1920
#define BACKWARD_GROUP 12

#include "cpu/backward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_BACKWARD_ROW(backward_portable);

void attni_backward_portable(const attni_job *job, const attni_chunk *chunk, void *scratch) {
    backward_chunk(job, chunk, scratch);
}

size_t attni_backward_portable_scratch(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v) {
    return backward_scratch_bytes(rows, keys, dim_qk, dim_v);
}
