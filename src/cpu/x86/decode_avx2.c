/* decode_avx2: see decode_body.h. */
#include "cpu/x86/simd_avx2.h"

#include "cpu/decode_task.h"
#include "cpu/kernels.h"

_Static_assert(DECODE_TILE_ROWS == attni_decode_avx2_rows, "kernels.def and decode_avx2.c disagree");

void attni_decode_avx2(const attni_job *job, const attni_decode_pieces *pieces, void *scratch) {
    decode_task(job, pieces, scratch);
}

void attni_decode_avx2_merge(const attni_job *job, const attni_tile *tile, attni_accum into,
                             attni_accum piece, bool emit) {
    decode_merge(job, tile, into, piece, emit);
}

size_t attni_decode_avx2_scratch(int64_t heads, int64_t groups, int64_t dim_qk, int64_t dim_v) {
    return decode_scratch_bytes(heads, groups, dim_qk, dim_v);
}
