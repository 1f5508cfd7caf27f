/* The vector layer for AVX2, FMA and F16C: 8 floats. Masks are vectors of all ones or zeros. */
#ifndef ATTNI_SIMD_AVX2_H
#define ATTNI_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "core/half.h"
#include "core/internal.h"

#define SIMD_LANES 8
#define SIMD_REGISTERS 16
#define SIMD_FUSED 1 /* vf_fma rounds once */
#if defined(__clang__) /* which ignores GCC's pragma */
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 8")
#endif
#define SIMD_INLINE static inline __attribute__((always_inline))

typedef __m256 vf;
typedef __m256 vmask;

SIMD_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
SIMD_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
SIMD_INLINE void simd_stream(float *p, vf a) { _mm256_stream_ps(p, a); } /* past the cache; p aligned */
SIMD_INLINE void simd_stream_done(void) { _mm_sfence(); } /* before other threads are told */
SIMD_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
SIMD_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
SIMD_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
SIMD_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
SIMD_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
SIMD_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); } /* a * b + c */
SIMD_INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SIMD_INLINE vmask vf_greater(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
SIMD_INLINE vmask vf_equal(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
SIMD_INLINE int vmask_any(vmask m) { return _mm256_movemask_ps(m) != 0; }
SIMD_INLINE vf vf_select(vmask m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }

SIMD_INLINE float vf_sum(vf a) {
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

SIMD_INLINE float vf_top(vf a) {
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* Lanes whose interval [begin, end) holds key. */
SIMD_INLINE vmask vi_inside(const int32_t *begin, const int32_t *end, int32_t key) {
    const __m256i k = _mm256_set1_epi32(key);
    const __m256i below = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(const void *)begin), k);
    const __m256i under = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(const void *)end), k);
    return _mm256_castsi256_ps(_mm256_andnot_si256(below, under));
}

/* 2^(x c) as in simd_avx512.h. */
SIMD_INLINE vf vf_exp2(vf x, vf c) {
    const vf shift = _mm256_set1_ps(0x1.8p23f + 127.0f);
    const vf t = _mm256_fmadd_ps(x, c, shift);
    const vf f = _mm256_fmsub_ps(x, c, _mm256_sub_ps(t, shift));
    vf p = _mm256_set1_ps(0x1.5bba14p-10f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.3cea88p-7f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.c6b752p-5f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.ebf9bcp-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.62e42ap-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    const vf power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
    return _mm256_and_ps(_mm256_mul_ps(p, power),
                         _mm256_cmp_ps(t, _mm256_set1_ps(0x1.8p23f + 1.0f), _CMP_NLT_UQ));
}

/* 8 x 8 floats, rows of source_stride to rows of destination_stride. */
SIMD_INLINE void simd_transpose(const float *source, int64_t source_stride, float *destination,
                                int64_t destination_stride) {
    __m256 a[8], b[8];
    SIMD_UNROLL
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(source + i * source_stride);
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    SIMD_UNROLL
    for (int i = 0; i < 2; i++) {
        a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
        a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(destination + i * destination_stride, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
        _mm256_storeu_ps(destination + (4 + i) * destination_stride,
                         _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
    }
}

/* 8 numbers of a dtype as floats; the partial form reads the first n < 8 and gives 0 beyond. */
SIMD_INLINE vf simd_load(attn_dtype dtype, const void *p) {
    if (dtype == ATTN_F32) return _mm256_loadu_ps(p);
    const __m128i h = _mm_loadu_si128(p);
    if (dtype == ATTN_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

SIMD_INLINE __m256i simd_first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

SIMD_INLINE vf simd_load_part(attn_dtype dtype, const void *p, int64_t n) {
    if (dtype == ATTN_F32) return _mm256_maskload_ps(p, simd_first(n));
    uint16_t part[8] = {0};
    for (int64_t i = 0; i < n && i < 8; i++) part[i] = ((const uint16_t *)p)[i];
    return simd_load(dtype, part);
}

SIMD_INLINE void simd_store_part(attn_dtype dtype, void *p, vf x, int64_t n) {
    if (dtype == ATTN_F32) {
        _mm256_maskstore_ps(p, simd_first(n), x);
        return;
    }
    float floats[8];
    uint16_t halves[8];
    if (dtype == ATTN_F16) {
        _mm_storeu_si128((__m128i *)(void *)halves,
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else {
        vf_store(floats, x);
        for (int i = 0; i < 8; i++) halves[i] = attni_f32_to_bf16(floats[i]);
    }
    for (int64_t i = 0; i < n && i < 8; i++) ((uint16_t *)p)[i] = halves[i];
}

SIMD_INLINE void simd_prefetch_far(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); } /* to L2 */
SIMD_INLINE void simd_prefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); } /* to L1 */

/* The sums of 8 vectors, in one. */
SIMD_INLINE vf simd_sums(const vf x[8]) {
    const vf a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    const vf b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

#include "cpu/simd_pack.h"

#endif
