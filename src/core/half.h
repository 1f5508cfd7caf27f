/* f16 and bf16 from and to f32, and f8 from f32, one number at a time, rounding to nearest even. */
#ifndef ATTNI_HALF_H
#define ATTNI_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t attni_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float attni_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float attni_bf16_to_f32(uint16_t h) { return attni_from_bits((uint32_t)h << 16); }

static inline uint16_t attni_f32_to_bf16(float x) {
    const uint32_t u = attni_bits(x);
    if (x != x) return (uint16_t)((u >> 16) | 0x40); /* keep a NaN one */
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static inline float attni_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) return attni_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    /* Shifted into place the exponent is 112 too small: a multiplication mends it, subnormals included. */
    const float value = attni_from_bits(magnitude << 13) * 0x1p112f;
    return attni_from_bits(sign | attni_bits(value));
}

static inline uint16_t attni_f32_to_f16(float x) {
    const uint32_t u = attni_bits(x), magnitude = u & 0x7fffffff;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    if (magnitude >= 0x477ff000) return sign | 0x7c00; /* 65520 and above round to inf */
    if (magnitude < 0x38800000) {                      /* below 2^-14: adding 0.5 rounds at bit 2^-24 */
        const float rounded = attni_from_bits(magnitude) + 0.5f;
        return sign | (uint16_t)(attni_bits(rounded) - 0x3f000000);
    }
    return sign | (uint16_t)((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13);
}

/* What is beyond the largest number, inf included, becomes that number, as quantisers do; NaN stays one. e4m3:
 * fraction_bits 3, e5m2: 2. */
static inline uint8_t attni_f32_to_f8(float x, int fraction_bits) {
    const uint32_t u = attni_bits(x), magnitude = u & 0x7fffffff, lost = 23 - (uint32_t)fraction_bits;
    const uint8_t sign = (uint8_t)(u >> 24 & 0x80);
    const uint32_t bias = fraction_bits == 3 ? 7 : 15, largest = fraction_bits == 3 ? 0x7e : 0x7b;
    if (magnitude > 0x7f800000) return sign | 0x7f;
    if (magnitude >> 23 < 128 - bias) { /* below the smallest normal number: adding a power of two rounds */
        const float at = attni_from_bits((127 - bias + 1 + lost) << 23);
        return sign | (uint8_t)(attni_bits(attni_from_bits(magnitude) + at) - attni_bits(at));
    }
    const uint32_t half = (1u << (lost - 1)) - 1 + (magnitude >> lost & 1);
    const uint32_t rounded = ((magnitude + half) >> lost) - ((127 - bias) << fraction_bits);
    return sign | (uint8_t)(rounded < largest ? rounded : largest);
}

#endif
