/* forward_avx2: register tile 4 x 3: 12 accumulators, 3 vectors of queries, 1 broadcast: all 16 registers. */
#include "cpu/x86/simd_avx2.h"

#define FORWARD_MR 4
#define FORWARD_NV 3
#define FORWARD_KEYS 128
#define FORWARD_TILE_ROWS 384

#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_avx2);

void attni_forward_avx2(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_avx2_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
