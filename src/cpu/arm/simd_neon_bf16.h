/*
 * The vector layer with units of two bf16 neighbours along the axis that a product sums over (dims for Q K^T, keys
 * for P V). bfdot and bfmmla flush denormals and round to odd, unless a caller has set FPCR.EBF.
 */
#ifndef ATTNI_SIMD_NEON_BF16_H
#define ATTNI_SIMD_NEON_BF16_H

#include <string.h>

#define SIMD_PAIR 2
#include "cpu/arm/simd_neon.h"

SIMD_INLINE bfloat16x8_t simd_units_as_bf16(vf a) { return vreinterpretq_bf16_f32(a); }

SIMD_INLINE vf simd_dot(vf a, vf b, vf c) {
    return vbfdotq_f32(c, simd_units_as_bf16(a), simd_units_as_bf16(b));
}

/* (bf16(low), bf16(high)) in each lane. */
SIMD_INLINE vf simd_pair(vf low, vf high) {
    static const uint8_t order[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
    const bfloat16x8_t both = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high); /* low's 4, then high's */
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_bf16(both), vld1q_u8(order)));
}

/* Computed: gcc 12 turns a constant into an fmov of f16 ones. */
SIMD_INLINE vf simd_pair_ones(void) { return simd_pair(vf_set1(1), vf_set1(1)); }

/* The first n of 8 bf16, then zeros. */
SIMD_INLINE uint16x8_t simd_load_first(const uint16_t *from, int64_t n) {
    if (n >= 8) return vld1q_u16(from);
    uint16_t part[8] = {0};
    if (n > 0) memcpy(part, from, (size_t)n * sizeof *part);
    return vld1q_u16(part);
}

/* n bf16 into (n + 1) / 2 units; the last vector is filled with zeros. */
static inline void simd_pack_row(attn_dtype dtype, const void *source, float *units, int64_t n) {
    (void)dtype;
    const uint16_t *from = source;
    for (int64_t i = 0; i < n; i += 8)
        vst1q_f32(units + i / 2, vreinterpretq_f32_u16(simd_load_first(from + i, n - i)));
}

/* Two rows of n bf16 into n units; the second may be null: zeros. */
static inline void simd_pack_values(attn_dtype dtype, const void *const rows[2], float *units, int64_t n) {
    (void)dtype;
    const uint16_t *a = rows[0], *b = rows[1];
    for (int64_t i = 0; i < n; i += 8) {
        const uint16x8_t x = simd_load_first(a + i, n - i),
                         y = b == NULL ? vdupq_n_u16(0) : simd_load_first(b + i, n - i);
        vst1q_f32(units + i, vreinterpretq_f32_u16(vzip1q_u16(x, y)));
        if (n - i > 4) vst1q_f32(units + i + 4, vreinterpretq_f32_u16(vzip2q_u16(x, y)));
    }
}

#endif
