/*
 * What a vector layer (simd_*.h) packs with, written once over its loads; a layer includes it last. A layer whose units
 * are pairs of 16-bit numbers defines SIMD_PAIR as 2 beforehand, and brings the second half itself.
 */
#ifndef ATTNI_SIMD_PACK_H
#define ATTNI_SIMD_PACK_H

/* n numbers of a dtype as floats; the last vector is filled with zeros. */
SIMD_INLINE void simd_pack_typed(attn_dtype dtype, const void *source, float *floats, int64_t n) {
    const int64_t size = (int64_t)attni_dtype_size(dtype);
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES)
        vf_store(floats + i, simd_load(dtype, (const char *)source + i * size));
    if (i < n) vf_store(floats + i, simd_load_part(dtype, (const char *)source + i * size, n - i));
}

static inline void simd_pack_floats(attn_dtype dtype, const void *source, float *floats, int64_t n) {
    if (dtype == ATTN_F32)
        simd_pack_typed(ATTN_F32, source, floats, n);
    else if (dtype == ATTN_F16)
        simd_pack_typed(ATTN_F16, source, floats, n);
    else
        simd_pack_typed(ATTN_BF16, source, floats, n);
}

/* Panels: a unit is a float here. */
#ifndef SIMD_PAIR
#define SIMD_PAIR 1
SIMD_INLINE vf simd_dot(vf a, vf b, vf c) { return vf_fma(a, b, c); }

static inline void simd_pack_row(attn_dtype dtype, const void *source, float *units, int64_t n) {
    simd_pack_floats(dtype, source, units, n);
}

static inline void simd_pack_values(attn_dtype dtype, const void *const rows[2], float *units, int64_t n) {
    simd_pack_floats(dtype, rows[0], units, n);
}
#endif

#endif
