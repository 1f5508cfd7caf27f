/*
 * The vector layer for AVX-512 F, BW, DQ, VL: 16 floats. A "unit" is four bytes of a panel: here one
 * float; simd_avx512_bf16.h, which defines SIMD_PAIR as 2, holds two bf16 in each instead.
 */
#ifndef ATTNI_SIMD_AVX512_H
#define ATTNI_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "core/internal.h"

#define SIMD_LANES 16
#define SIMD_REGISTERS 32
#define SIMD_FUSED 1 /* vf_fma rounds once */
#if defined(__clang__) /* which ignores GCC's pragma */
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 16")
#endif
#define SIMD_INLINE static inline __attribute__((always_inline))

typedef __m512 vf;
typedef __mmask16 vmask;

SIMD_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
SIMD_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
SIMD_INLINE void simd_stream(float *p, vf a) { _mm512_stream_ps(p, a); } /* past the cache; p aligned */
SIMD_INLINE void simd_stream_done(void) { _mm_sfence(); } /* before other threads are told */
SIMD_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
SIMD_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
SIMD_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
SIMD_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
SIMD_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
SIMD_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); } /* a * b + c */
SIMD_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
SIMD_INLINE vmask vf_greater(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
SIMD_INLINE vmask vf_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
SIMD_INLINE int vmask_any(vmask m) { return m != 0; }
SIMD_INLINE vf vf_select(vmask m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
SIMD_INLINE float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
SIMD_INLINE float vf_top(vf a) { return _mm512_reduce_max_ps(a); }

/* Lanes whose interval [begin, end) holds key. */
SIMD_INLINE vmask vi_inside(const int32_t *begin, const int32_t *end, int32_t key) {
    const __m512i k = _mm512_set1_epi32(key);
    return _mm512_cmple_epi32_mask(_mm512_loadu_si512(begin), k) &
           _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(end), k);
}

/*
 * 2^y: y = n + f with n the integer below, 2^f by a polynomial of degree 5 on [0, 1], 1 and 2 at its ends (else a y
 * just below 0, as rounding the reference leaves, gives another 1 than 0 does; minimax, relative error 1.5e-7 with its
 * roundings), times 2^n. Below 2^-126 the result is 0: vscalefps takes 100 ns where it underflows. NaN stays NaN.
 */
#define SIMD_EXP2_OF 1
SIMD_INLINE vf vf_exp2_of(vf y) {
    const vf f = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf p = _mm512_set1_ps(0x1.eca6eap-10f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.269deep-7f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c9444p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebd8a6p-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e4c8p-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(y, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p, y);
}

SIMD_INLINE vf vf_exp2(vf x, vf c) { return vf_exp2_of(_mm512_mul_ps(x, c)); } /* 2^(x c) */

/* 16 x 16 floats (or units), rows of source_stride to rows of destination_stride. */
SIMD_INLINE void simd_transpose(const float *source, int64_t source_stride, float *destination,
                                int64_t destination_stride) {
    __m512 a[16], b[16];
    SIMD_UNROLL
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(source + i * source_stride);
    SIMD_UNROLL
    for (int i = 0; i < 8; i++) { /* pairs of rows: 2 x 2 blocks of floats */
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) { /* fours of rows */
        const __m512d x0 = _mm512_castps_pd(b[4 * i]), x1 = _mm512_castps_pd(b[4 * i + 2]);
        const __m512d y0 = _mm512_castps_pd(b[4 * i + 1]), y1 = _mm512_castps_pd(b[4 * i + 3]);
        a[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(x0, x1));
        a[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x0, x1));
        a[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(y0, y1));
        a[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(y0, y1));
    }
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) { /* 128-bit lanes of rows 0-7 and 8-15 */
        b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        b[8 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
    }
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_ps(destination + i * destination_stride, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
        _mm512_storeu_ps(destination + (4 + i) * destination_stride,
                         _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0x88));
        _mm512_storeu_ps(destination + (8 + i) * destination_stride,
                         _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
        _mm512_storeu_ps(destination + (12 + i) * destination_stride,
                         _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0xdd));
    }
}

/* 16 numbers of a dtype as floats; the masked form reads the first n and gives 0 beyond. */
SIMD_INLINE vf simd_load(attn_dtype dtype, const void *p) {
    if (dtype == ATTN_F32) return _mm512_loadu_ps(p);
    const __m256i h = _mm256_loadu_si256(p);
    if (dtype == ATTN_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

SIMD_INLINE vf simd_load_part(attn_dtype dtype, const void *p, int64_t n) {
    if (n == SIMD_LANES) return simd_load(dtype, p);
    const __mmask16 m = (__mmask16)((1u << n) - 1);
    if (dtype == ATTN_F32) return _mm512_maskz_loadu_ps(m, p);
    const __m256i h = _mm256_maskz_loadu_epi16(m, p);
    if (dtype == ATTN_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* 32 numbers; bf16 by even and odd positions, two instructions where widening takes four. */
#define SIMD_EVEN_ODD 1
SIMD_INLINE void simd_even_odd(__m512i pairs, vf x[2]) {
    x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    x[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

/* What simd_load_two gave, in the order of memory. */
SIMD_INLINE void simd_in_order(attn_dtype dtype, vf x[2]) {
    if (dtype != ATTN_BF16) return;
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const vf even = x[0];
    x[0] = _mm512_permutex2var_ps(even, low, x[1]);
    x[1] = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), x[1]);
}

/* And back. */
SIMD_INLINE void simd_out_of_order(attn_dtype dtype, vf x[2]) {
    if (dtype != ATTN_BF16) return;
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const vf first = x[0];
    x[0] = _mm512_permutex2var_ps(first, even, x[1]);
    x[1] = _mm512_permutex2var_ps(first, _mm512_add_epi32(even, _mm512_set1_epi32(1)), x[1]);
}

SIMD_INLINE void simd_load_two(attn_dtype dtype, const void *p, vf x[2]) {
    if (dtype == ATTN_BF16) {
        simd_even_odd(_mm512_loadu_si512(p), x);
        return;
    }
    x[0] = simd_load(dtype, p);
    x[1] = simd_load(dtype, (const char *)p + (dtype == ATTN_F32 ? 64 : 32));
}

SIMD_INLINE void simd_load_two_part(attn_dtype dtype, const void *p, int64_t n, vf x[2]) {
    if (dtype == ATTN_BF16) {
        simd_even_odd(_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p), x);
        return;
    }
    const int64_t first = attni_min(n, 16);
    x[0] = simd_load_part(dtype, p, first);
    x[1] = simd_load_part(dtype, (const char *)p + (dtype == ATTN_F32 ? 64 : 32), n - first);
}

SIMD_INLINE void simd_prefetch_far(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); } /* to L2 */
SIMD_INLINE void simd_prefetch_write(const void *p) { /* to be written soon */
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
}
SIMD_INLINE void simd_prefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); } /* to L1 */

/* The sums of 16 vectors, in one. */
SIMD_INLINE vf simd_sums(const vf x[16]) {
    __m512 t[8], u[4];
    SIMD_UNROLL
    for (int i = 0; i < 8; i++)
        t[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                             _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) { /* lanes of 128 bits: one sum of a quarter for each of four vectors */
        const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const vf low =
        _mm512_add_ps(_mm512_shuffle_f32x4(u[0], u[1], 0x88), _mm512_shuffle_f32x4(u[0], u[1], 0xdd));
    const vf high =
        _mm512_add_ps(_mm512_shuffle_f32x4(u[2], u[3], 0x88), _mm512_shuffle_f32x4(u[2], u[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
}

/* To bf16 with integer arithmetic, nearest even; NaN stays a NaN. */
SIMD_INLINE __m256i simd_to_bf16(vf x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

/* By the form with a mask: without optimization the other is a macro that -Wconversion does not like (gcc 12). */
SIMD_INLINE __m256i simd_to_f16(vf x) {
    return _mm512_maskz_cvtps_ph((__mmask16)0xffff, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

SIMD_INLINE void simd_store(attn_dtype dtype, void *p, vf x) {
    if (dtype == ATTN_F32)
        _mm512_storeu_ps(p, x);
    else if (dtype == ATTN_F16)
        _mm256_storeu_si256(p, simd_to_f16(x));
    else
        _mm256_storeu_si256(p, simd_to_bf16(x));
}

/* Whole vectors without a mask: storing 16-bit numbers under one takes dozens of cycles. */
SIMD_INLINE void simd_store_part(attn_dtype dtype, void *p, vf x, int64_t n) {
    const __mmask16 m = (__mmask16)((1u << n) - 1);
    if (n == SIMD_LANES)
        simd_store(dtype, p, x);
    else if (dtype == ATTN_F32)
        _mm512_mask_storeu_ps(p, m, x);
    else if (dtype == ATTN_F16)
        _mm256_mask_storeu_epi16(p, m, simd_to_f16(x));
    else
        _mm256_mask_storeu_epi16(p, m, simd_to_bf16(x));
}

#include "cpu/simd_pack.h"

#endif
