/* decode_avx512: see decode_body.h. */
#include "cpu/x86/simd_avx512.h"

#include "cpu/decode_body.h"
#include "cpu/decode_merge.h"
#include "cpu/kernels.h"

_Static_assert(DECODE_TILE_ROWS == attni_decode_avx512_rows, "kernels.def and decode_avx512.c disagree");

void attni_decode_avx512(const attni_job *job, const attni_tile *tile, int64_t begin, int64_t end,
                         attni_accum partial, int64_t partial_stride, void *scratch) {
    decode_tile_chunk(job, tile, begin, end, partial, partial_stride, scratch);
}

void attni_decode_avx512_merge(const attni_job *job, const attni_tile *tile, attni_accum first,
                               int64_t stride, int64_t pieces) {
    decode_merge(job, tile, first, stride, pieces);
}

size_t attni_decode_avx512_scratch(int64_t heads, int64_t groups, int64_t dim_qk, int64_t dim_v) {
    return decode_scratch_bytes(heads, groups, dim_qk, dim_v);
}
