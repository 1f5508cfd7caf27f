/*
 * The vector layer with panels of bf16 pairs: a unit holds two neighbours along the axis that a product sums
 * over (dims for Q K^T, keys for P V), and vdpbf16ps adds both products to a float. It flushes denormals.
 */
#ifndef ATTNI_SIMD_AVX512_BF16_H
#define ATTNI_SIMD_AVX512_BF16_H

#define SIMD_PAIR 2
#include "cpu/x86/simd_avx512.h"

SIMD_INLINE vf simd_dot(vf a, vf b, vf c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

/* (bf16(low), bf16(high)) in each lane. */
SIMD_INLINE vf simd_pair(vf low, vf high) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low); /* low's 16 numbers, then high's */
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both));
}

SIMD_INLINE vf simd_pair_ones(void) { return _mm512_castsi512_ps(_mm512_set1_epi32(0x3f803f80)); }

/* n bf16 into (n + 1) / 2 units; the last vector is filled with zeros. */
static inline void simd_pack_row(attn_dtype dtype, const void *source, float *units, int64_t n) {
    (void)dtype;
    const uint16_t *from = source;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) _mm512_storeu_si512(units + i / 2, _mm512_loadu_si512(from + i));
    if (i < n)
        _mm512_storeu_si512(units + i / 2,
                            _mm512_maskz_loadu_epi16((__mmask32)((1ull << (n - i)) - 1), from + i));
}

/* Two rows of n bf16 into n units; the second may be null: zeros. */
static inline void simd_pack_values(attn_dtype dtype, const void *const rows[2], float *units, int64_t n) {
    (void)dtype;
    const uint16_t *a = rows[0], *b = rows[1];
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, a + i));
        const __m512i high =
            b == NULL ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, b + i));
        _mm512_storeu_si512(units + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

#endif
