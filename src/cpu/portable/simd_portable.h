/* The vector layer in plain C: four floats, which any compiler can keep in one 128-bit register. */
#ifndef ATTNI_SIMD_PORTABLE_H
#define ATTNI_SIMD_PORTABLE_H

#include <math.h>
#include <stdint.h>

#include "core/half.h"
#include "core/internal.h"

#define SIMD_LANES 4
#define SIMD_REGISTERS 16
#define SIMD_FUSED 0 /* vf_fma rounds its product */
#if defined(__GNUC__)
#define SIMD_INLINE static inline __attribute__((always_inline))
#define SIMD_CALLED __attribute__((noinline))
#define SIMD_UNROLL _Pragma("GCC unroll 8")
#else
#define SIMD_CALLED
#define SIMD_INLINE static inline
#define SIMD_UNROLL
#endif

typedef struct vf {
    float x[4];
} vf;

typedef struct vmask {
    int x[4];
} vmask;

#define SIMD_EACH for (int i = 0; i < 4; i++)

SIMD_INLINE vf vf_load(const float *p) {
    vf r;
    SIMD_EACH r.x[i] = p[i];
    return r;
}
SIMD_INLINE void vf_store(float *p, vf a) { SIMD_EACH p[i] = a.x[i]; }
SIMD_INLINE void simd_stream(float *p, vf a) { vf_store(p, a); } /* past the cache where that can be said */
SIMD_INLINE void simd_stream_done(void) {}
SIMD_INLINE vf vf_set1(float x) {
    vf r;
    SIMD_EACH r.x[i] = x;
    return r;
}
SIMD_INLINE vf vf_zero(void) { return vf_set1(0); }
SIMD_INLINE vf vf_add(vf a, vf b) {
    SIMD_EACH a.x[i] += b.x[i];
    return a;
}
SIMD_INLINE vf vf_sub(vf a, vf b) {
    SIMD_EACH a.x[i] -= b.x[i];
    return a;
}
SIMD_INLINE vf vf_mul(vf a, vf b) {
    SIMD_EACH a.x[i] *= b.x[i];
    return a;
}
SIMD_INLINE vf vf_div(vf a, vf b) {
    SIMD_EACH a.x[i] /= b.x[i];
    return a;
}
SIMD_INLINE vf vf_max(vf a, vf b) {
    SIMD_EACH a.x[i] = a.x[i] > b.x[i] ? a.x[i] : b.x[i];
    return a;
}
SIMD_INLINE vf vf_abs(vf a) {
    SIMD_EACH a.x[i] = fabsf(a.x[i]);
    return a;
}
/* Not fused: fmaf is a slow call where the processor has no such instruction. */
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) {
    SIMD_EACH c.x[i] += a.x[i] * b.x[i];
    return c;
}
SIMD_INLINE vmask vf_greater(vf a, vf b) {
    vmask r;
    SIMD_EACH r.x[i] = a.x[i] > b.x[i];
    return r;
}
SIMD_INLINE vmask vf_equal(vf a, vf b) {
    vmask r;
    SIMD_EACH r.x[i] = a.x[i] == b.x[i];
    return r;
}
SIMD_INLINE int vmask_any(vmask m) { return m.x[0] | m.x[1] | m.x[2] | m.x[3]; }
SIMD_INLINE vf vf_select(vmask m, vf yes, vf no) {
    SIMD_EACH yes.x[i] = m.x[i] ? yes.x[i] : no.x[i];
    return yes;
}
SIMD_INLINE float vf_sum(vf a) { return (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]); }

SIMD_INLINE float vf_top(vf a) {
    const float x = a.x[0] > a.x[1] ? a.x[0] : a.x[1], y = a.x[2] > a.x[3] ? a.x[2] : a.x[3];
    return x > y ? x : y;
}

SIMD_INLINE vmask vi_inside(const int32_t *begin, const int32_t *end, int32_t key) {
    vmask r;
    SIMD_EACH r.x[i] = begin[i] <= key && key < end[i];
    return r;
}

/* 2^(x c) as in simd_avx512.h. */
SIMD_INLINE vf vf_exp2(vf x, vf c) {
    SIMD_EACH {
        const float y = x.x[i] * c.x[i], shift = 0x1.8p23f + 127.0f, t = y + shift, f = y - (t - shift);
        float p = 0x1.5bba14p-10f;
        p = p * f + 0x1.3cea88p-7f;
        p = p * f + 0x1.c6b752p-5f;
        p = p * f + 0x1.ebf9bcp-3f;
        p = p * f + 0x1.62e42ap-1f;
        p = p * f + 1.0f;
        x.x[i] = t < 0x1.8p23f + 1.0f ? 0.0f : p * attni_from_bits(attni_bits(t) << 23);
    }
    return x;
}

SIMD_INLINE void simd_transpose(const float *source, int64_t source_stride, float *destination,
                                int64_t destination_stride) {
    for (int64_t r = 0; r < 4; r++)
        for (int64_t c = 0; c < 4; c++)
            destination[c * destination_stride + r] = source[r * source_stride + c];
}

SIMD_INLINE float simd_number(attn_dtype dtype, const void *p, int64_t i) {
    if (dtype == ATTN_F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return dtype == ATTN_F16 ? attni_f16_to_f32(h) : attni_bf16_to_f32(h);
}

/* Called, not inlined: conversions in plain C are long, and a kernel has hundreds of loads. */
static SIMD_CALLED vf simd_load_converted(attn_dtype dtype, const void *p, int64_t n) {
    vf r = vf_zero();
    for (int64_t i = 0; i < n && i < 4; i++) r.x[i] = simd_number(dtype, p, i);
    return r;
}

SIMD_INLINE vf simd_load_part(attn_dtype dtype, const void *p, int64_t n) {
    return simd_load_converted(dtype, p, n);
}

SIMD_INLINE vf simd_load(attn_dtype dtype, const void *p) {
    return dtype == ATTN_F32 ? vf_load(p) : simd_load_converted(dtype, p, 4);
}

SIMD_INLINE void simd_store_part(attn_dtype dtype, void *p, vf x, int64_t n) {
    for (int64_t i = 0; i < n && i < 4; i++) {
        if (dtype == ATTN_F32)
            ((float *)p)[i] = x.x[i];
        else
            ((uint16_t *)p)[i] = dtype == ATTN_F16 ? attni_f32_to_f16(x.x[i]) : attni_f32_to_bf16(x.x[i]);
    }
}

SIMD_INLINE void simd_prefetch_far(const void *p) { (void)p; }
SIMD_INLINE void simd_prefetch_near(const void *p) { (void)p; }

SIMD_INLINE vf simd_sums(const vf x[4]) {
    vf r;
    SIMD_EACH r.x[i] = vf_sum(x[i]);
    return r;
}

#include "cpu/simd_pack.h"

#endif
