/* forward_portable: plain C for any processor; the truth that the faster tiers are compared with. */
#include "cpu/portable/simd_portable.h"

#define FORWARD_MR 4
#define FORWARD_NV 2
#define FORWARD_KEYS 64
#define FORWARD_TILE_ROWS 64
#define FORWARD_WHOLE 1

#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_portable);

void attni_forward_portable(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_portable_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
