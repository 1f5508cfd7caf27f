/*
 * The forward's product by bfmmla, which multiplies a matrix of 2 x 4 bf16 by one of 4 x 2:
 *
 *     a0[4]  x  (b0[4], b1[4])  ->  a0.b0  a0.b1          16 multiply-adds; bfdot has 8, fmla 4
 *     a1[4]                         a1.b0  a1.b1
 *
 *     S^T   a: two keys, four dims        b: two queries, the same dims
 *     O^T   a: two dims, four keys        b: two queries, the same keys
 *
 * Panels, Q^T and P^T come as rows of units (pairs of bf16), a lane for each key, dim or query. Two rows hold the four
 * numbers of a lane, and are zipped where they stand, once for all the tiles that use them:
 *
 *     unit u        x0 x1 x2 x3  x4 ..          (x0 y0) (x1 y1)  (x4 y4) ..     an operand is two lanes, 16 bytes
 *     unit u + 1    y0 y1 y2 y3  y4 ..    ->    (x2 y2) (x3 y3)  (x6 y6) ..
 *
 * A result holds two rows of two queries; pairs of results become rows at the end.
 */
#ifndef ATTNI_PRODUCT_NEON_BF16_H
#define ATTNI_PRODUCT_NEON_BF16_H

#include "cpu/forward_scores.h"

#define FORWARD_OWN_PRODUCT

_Static_assert(FORWARD_MR % 4 == 0, "operands are halves of vectors of units");

SIMD_INLINE void arrange(float *x, int64_t rows, int64_t lanes, int64_t stride) {
    for (int64_t row = 0; row < rows; row += 2, x += 2 * stride) {
        for (int64_t v = 0; v < lanes; v += 4) {
            const vf a = vf_load(x + v), b = vf_load(x + stride + v);
            vf_store(x + v, vzip1q_f32(a, b));
            vf_store(x + stride + v, vzip2q_f32(a, b));
        }
    }
}

SIMD_INLINE vf first_halves(vf a, vf b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

SIMD_INLINE vf second_halves(vf a, vf b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

/* Operand i of two arranged rows: lanes 2 i and 2 i + 1. */
SIMD_INLINE bfloat16x8_t operand(const float *x, int64_t stride, int i) {
    return simd_units_as_bf16(vf_load(x + i % 2 * stride + i / 2 * 4));
}

/* c[r][v] += a[r] * b[v] over count units of a ([unit][FORWARD_MR]) and b ([unit][row]), both arranged. */
SIMD_INLINE void multiply_tile(const int nv, const float *a, const float *b, int64_t count,
                               vf c[FORWARD_MR][FORWARD_NV]) {
    vf sum[FORWARD_MR / 2][2 * FORWARD_NV]; /* of two rows of two queries */
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR / 2; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) {
            sum[r][2 * v] = first_halves(c[2 * r][v], c[2 * r + 1][v]);
            sum[r][2 * v + 1] = second_halves(c[2 * r][v], c[2 * r + 1][v]);
        }
    }
    for (int64_t i = 0; i < count; i += 2, a += 2 * FORWARD_MR, b += 2 * FORWARD_SUB_ROWS) {
        bfloat16x8_t left[FORWARD_MR / 2];
        SIMD_UNROLL
        for (int r = 0; r < FORWARD_MR / 2; r++) left[r] = operand(a, FORWARD_MR, r);
        SIMD_UNROLL
        for (int q = 0; q < 2 * nv; q++) {
            const bfloat16x8_t right = operand(b, FORWARD_SUB_ROWS, q);
            SIMD_UNROLL
            for (int r = 0; r < FORWARD_MR / 2; r++) sum[r][q] = vbfmmlaq_f32(sum[r][q], left[r], right);
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < FORWARD_MR / 2; r++) {
        SIMD_UNROLL
        for (int v = 0; v < nv; v++) {
            c[2 * r][v] = first_halves(sum[r][2 * v], sum[r][2 * v + 1]);
            c[2 * r + 1][v] = second_halves(sum[r][2 * v], sum[r][2 * v + 1]);
        }
    }
}

#endif
