/*
 * The forward's product on NEON. fmla multiplies a vector by one lane of another, so the FORWARD_MR numbers of K or V
 * that a register tile broadcasts are loaded as vectors: 5 loads and no broadcast for 24 multiply-adds. (ld1r, which
 * loads and broadcasts, takes a vector pipe beside the load on many cores.)
 */
#ifndef ATTNI_PRODUCT_NEON_H
#define ATTNI_PRODUCT_NEON_H

#include "cpu/forward_scores.h"

#define FORWARD_OWN_PRODUCT

_Static_assert(FORWARD_MR % 4 == 0, "the broadcast operands are whole vectors");

SIMD_INLINE void arrange(float *x, int64_t rows, int64_t lanes, int64_t stride) {
    (void)x, (void)rows, (void)lanes, (void)stride;
}

/* c[r][v] += a[r] * b[v] over count units of a ([unit][FORWARD_MR]) and b ([unit][row]). */
SIMD_INLINE void multiply_tile(const int nv, const float *a, const float *b, int64_t count,
                               vf c[FORWARD_MR][FORWARD_NV]) {
    for (int64_t i = 0; i < count; i++, a += FORWARD_MR, b += FORWARD_SUB_ROWS) {
        vf one[FORWARD_MR / 4], lane[FORWARD_NV];
        SIMD_UNROLL
        for (int r = 0; r < FORWARD_MR / 4; r++) one[r] = vf_load(a + r * 4);
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) lane[v] = vf_load(b + v * 4);
        SIMD_UNROLL
        for (int r = 0; r < FORWARD_MR; r++) {
            SIMD_UNROLL
            for (int v = 0; v < nv; v++) c[r][v] = vf_fma_lane(lane[v], one[r / 4], r % 4, c[r][v]);
        }
    }
}

#endif
