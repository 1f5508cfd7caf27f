/*
 * forward_avx512: f32 products on AVX-512, for every dtype (16-bit inputs are converted once a block).
 *
 * Register tile 16 x 1: 16 accumulators and a vector of queries; each number of K or V is broadcast by the multiply-add
 * that uses it, so 64 multiply-adds take 72 instructions. What decides is not the tile, though: alone from L1 the tiles
 * 8x3, 12x2, 14x2, 16x1, 24x1 and 30x1 run at 0.98 to 1.00 of the FMA peak with the core's other hardware thread idle
 * and at 0.83 to 0.86 with it busy. But 16 rows need half of the L1 that 48 rows do (at dim 128 Q^T has 8 KB and S^T
 * 16 KB, against 24 and 24), and no more than that is what a busy neighbour leaves. Beside one, where the FMA peak would
 * take 1, the products take 0.65 + 0.61, with 8 x 3 and 128 keys 0.69 + 0.65; the whole forward is 1.09 to 1.10 times as
 * fast at dim 128 and 1.03 to 1.09 at dim 64 (Emerald Rapids, one thread, sequences of 2048, medians of interleaved
 * runs). Beside an idle one they are equal: 0.51 + 0.51, and softmax 0.044 at dim 128, 0.088 at dim 64 (0.054 and 0.108
 * before vreduceps and vscalefps: 10 operations a vector instead of 13).
 * The price is a load for each multiply-add, which Emerald Rapids has to spare (three a cycle); a core with two loads a
 * cycle might prefer 8 x 3. Not measured on AMD.
 *
 * Tried: 256 keys against 64, 96, 128 (up to 7% slower), 192, 384 and 512 (equal); 8 units a turn instead of 4 (equal)
 * and 2 (4% slower); the panels' lines brought from L2 to L1 512 to 4096 bytes ahead (beside an idle thread 0 to 2% faster
 * at dim 128 and 0 to 1% slower at dim 64, beside a busy one 1 to 2% slower);
 * tiles of 384 and 1152 rows (equal); two subs by turns for each register tile's part of a panel, which halves what comes
 * from L2 (equal to 2% slower, with 256 keys and with 128); 24 x 1 (its second product pads dim 64 and 128).
 */
#include "cpu/x86/simd_avx512.h"

#define FORWARD_MR 16
#define FORWARD_NV 1
#define FORWARD_KEYS 256
#define FORWARD_TILE_ROWS 768

#include "cpu/forward_body.h"
#include "cpu/kernels.h"

ATTNI_ASSERT_ROW(forward_avx512);

void attni_forward_avx512(const attni_job *job, const attni_tile *tile, void *scratch) {
    forward_tile(job, tile, scratch);
}

size_t attni_forward_avx512_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    return forward_scratch_bytes(rows, slots, dim_qk, dim_v);
}
