/*
 * The vector layer for 64-bit Arm's Advanced SIMD: 4 floats, 32 registers. f16 is converted by base instructions
 * (fcvtl, fcvtn) and bf16 by shifts, so this layer needs nothing beyond Armv8.0.
 */
#ifndef ATTNI_SIMD_NEON_H
#define ATTNI_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#include "core/internal.h"

#define SIMD_LANES 4
#define SIMD_REGISTERS 32
#define SIMD_FUSED 1 /* vf_fma rounds once */
#if defined(                                                                                                 \
    __clang__) /* which reads no GCC unroll, and by itself leaves the larger tiles rolled, in memory */
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 8")
#endif
#define SIMD_INLINE static inline __attribute__((always_inline))

typedef float32x4_t vf;
typedef uint32x4_t vmask;

SIMD_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
SIMD_INLINE void vf_store(float *p, vf a) { vst1q_f32(p, a); }
SIMD_INLINE void simd_stream(float *p, vf a) { vf_store(p, a); } /* past the cache where that can be said */
SIMD_INLINE void simd_stream_done(void) {}
SIMD_INLINE vf vf_set1(float x) { return vdupq_n_f32(x); }
SIMD_INLINE vf vf_zero(void) { return vdupq_n_f32(0); }
SIMD_INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
SIMD_INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
SIMD_INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
SIMD_INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return vmaxnmq_f32(a, b); } /* of a NaN and a number: the number */
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); } /* a * b + c */
SIMD_INLINE vf vf_abs(vf a) { return vabsq_f32(a); }
SIMD_INLINE vmask vf_greater(vf a, vf b) { return vcgtq_f32(a, b); }
SIMD_INLINE vmask vf_equal(vf a, vf b) { return vceqq_f32(a, b); }
SIMD_INLINE int vmask_any(vmask m) { return vmaxvq_u32(m) != 0; }
SIMD_INLINE vf vf_select(vmask m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
SIMD_INLINE float vf_sum(vf a) { return vaddvq_f32(a); }
SIMD_INLINE float vf_top(vf a) { return vmaxnmvq_f32(a); }

/* Lanes whose interval [begin, end) holds key. */
SIMD_INLINE vmask vi_inside(const int32_t *begin, const int32_t *end, int32_t key) {
    const int32x4_t k = vdupq_n_s32(key);
    return vandq_u32(vcleq_s32(vld1q_s32(begin), k), vcgtq_s32(vld1q_s32(end), k));
}

/* a * b[i] + c by one instruction; i is a constant once loops are unrolled. */
SIMD_INLINE vf vf_fma_lane(vf a, vf b, int i, vf c) {
    switch (i) {
    case 0: return vfmaq_laneq_f32(c, a, b, 0);
    case 1: return vfmaq_laneq_f32(c, a, b, 1);
    case 2: return vfmaq_laneq_f32(c, a, b, 2);
    default: return vfmaq_laneq_f32(c, a, b, 3);
    }
}

/* 2^(x c) as in simd_avx512.h. */
SIMD_INLINE vf vf_exp2(vf x, vf c) {
    const vf shift = vdupq_n_f32(0x1.8p23f + 127.0f);
    const vf t = vfmaq_f32(shift, x, c);
    const vf f = vfmaq_f32(vsubq_f32(shift, t), x, c);
    vf p = vdupq_n_f32(0x1.5bba14p-10f);
    p = vfmaq_f32(vdupq_n_f32(0x1.3cea88p-7f), p, f);
    p = vfmaq_f32(vdupq_n_f32(0x1.c6b752p-5f), p, f);
    p = vfmaq_f32(vdupq_n_f32(0x1.ebf9bcp-3f), p, f);
    p = vfmaq_f32(vdupq_n_f32(0x1.62e42ap-1f), p, f);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, f);
    const vf power = vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
    const vmask below = vcltq_f32(t, vdupq_n_f32(0x1.8p23f + 1.0f)); /* false for NaN, which stays */
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(vmulq_f32(p, power)), below));
}

SIMD_INLINE void simd_transpose_vectors(vf a[4]) {
    const float64x2_t b0 = vreinterpretq_f64_f32(vtrn1q_f32(a[0], a[1])),
                      b1 = vreinterpretq_f64_f32(vtrn2q_f32(a[0], a[1])),
                      b2 = vreinterpretq_f64_f32(vtrn1q_f32(a[2], a[3])),
                      b3 = vreinterpretq_f64_f32(vtrn2q_f32(a[2], a[3]));
    a[0] = vreinterpretq_f32_f64(vtrn1q_f64(b0, b2));
    a[1] = vreinterpretq_f32_f64(vtrn1q_f64(b1, b3));
    a[2] = vreinterpretq_f32_f64(vtrn2q_f64(b0, b2));
    a[3] = vreinterpretq_f32_f64(vtrn2q_f64(b1, b3));
}

/* 4 x 4 floats (or units), rows of source_stride to rows of destination_stride. */
SIMD_INLINE void simd_transpose(const float *source, int64_t source_stride, float *destination,
                                int64_t destination_stride) {
    vf a[4];
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) a[i] = vld1q_f32(source + i * source_stride);
    simd_transpose_vectors(a);
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) vst1q_f32(destination + i * destination_stride, a[i]);
}

/* 4 numbers of a dtype as floats; the partial form reads the first n and gives 0 beyond. */
SIMD_INLINE vf simd_load(attn_dtype dtype, const void *p) {
    if (dtype == ATTN_F32) return vld1q_f32(p);
    const uint16x4_t h = vld1_u16(p);
    if (dtype == ATTN_F16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

/* Element by element: memcpy would be a call, which saves all registers of a product around it. */
SIMD_INLINE vf simd_load_part(attn_dtype dtype, const void *p, int64_t n) {
    if (n >= 4) return simd_load(dtype, p);
    if (dtype == ATTN_F32) {
        const float *from = p;
        const float part[4] = {n > 0 ? from[0] : 0, n > 1 ? from[1] : 0, n > 2 ? from[2] : 0, 0};
        return vld1q_f32(part);
    }
    const uint16_t *from = p;
    const uint16_t part[4] = {n > 0 ? from[0] : 0, n > 1 ? from[1] : 0, n > 2 ? from[2] : 0, 0};
    return simd_load(dtype, part);
}

/* To bf16 with integer arithmetic, nearest even; NaN stays a NaN. */
SIMD_INLINE uint16x4_t simd_to_bf16(vf x) {
    const uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

SIMD_INLINE void simd_store_part(attn_dtype dtype, void *p, vf x, int64_t n) {
    if (dtype == ATTN_F32) {
        float *to = p;
        if (n >= 4) {
            vst1q_f32(to, x);
            return;
        }
        if (n > 0) vst1q_lane_f32(to, x, 0);
        if (n > 1) vst1q_lane_f32(to + 1, x, 1);
        if (n > 2) vst1q_lane_f32(to + 2, x, 2);
        return;
    }
    const uint16x4_t h = dtype == ATTN_F16 ? vreinterpret_u16_f16(vcvt_f16_f32(x)) : simd_to_bf16(x);
    uint16_t *to = p;
    if (n >= 4) {
        vst1_u16(to, h);
        return;
    }
    if (n > 0) vst1_lane_u16(to, h, 0);
    if (n > 1) vst1_lane_u16(to + 1, h, 1);
    if (n > 2) vst1_lane_u16(to + 2, h, 2);
}

SIMD_INLINE void simd_prefetch_far(const void *p) { __builtin_prefetch(p, 0, 2); } /* to L2 */
SIMD_INLINE void simd_prefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); } /* to L1 */

/* The sums of 4 vectors, in one. */
SIMD_INLINE vf simd_sums(const vf x[4]) { return vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])); }

#include "cpu/simd_pack.h"

#endif
