#include "rounding.h"

#include <string.h>

size_t attni_reference_size(attn_dtype dtype) { return dtype == ATTN_F32 ? 4 : 2; }

double attni_reference_unit(attn_dtype dtype) {
    return dtype == ATTN_F32 ? 0x1p-24 : dtype == ATTN_F16 ? 0x1p-11 : 0x1p-8;
}

double attni_reference_round(double x, attn_dtype dtype) {
    if (dtype == ATTN_F32) return (double)(float)x;
    if (x == 0.0 || !isfinite(x)) return x;

    int digits = dtype == ATTN_F16 ? 11 : 8;
    int lowest = dtype == ATTN_F16 ? -14 : -126; /* exponent of the smallest normal number */
    double largest = dtype == ATTN_F16 ? 65504.0 : 0x1.fep127;
    int exponent;
    frexp(x, &exponent);
    exponent -= 1; /* |x| is in [2^exponent, 2^(exponent + 1)) */
    int quantum = (exponent > lowest ? exponent : lowest) - (digits - 1);
    double rounded = ldexp(rint(ldexp(x, -quantum)), quantum);
    return fabs(rounded) > largest ? copysign((double)INFINITY, x) : rounded;
}

static double half_value(uint16_t bits) {
    int exponent = (bits >> 10) & 31;
    int fraction = bits & 1023;
    double x;
    if (exponent == 31) {
        x = fraction ? (double)NAN : (double)INFINITY;
    } else if (exponent == 0) {
        x = ldexp(fraction, -24);
    } else {
        x = ldexp(1024 + fraction, exponent - 25);
    }
    return bits & 0x8000 ? -x : x;
}

/* x is a number that binary16 holds. */
static uint16_t half_bits(double x) {
    unsigned sign = signbit(x) ? 0x8000u : 0u;
    if (isnan(x)) return 0x7e00;
    if (isinf(x)) return (uint16_t)(sign | 0x7c00u);
    double size = fabs(x);
    if (size < 0x1p-14) return (uint16_t)(sign | (unsigned)ldexp(size, 24));
    int exponent;
    double fraction = frexp(size, &exponent); /* in [0.5, 1) */
    return (uint16_t)(sign | (unsigned)(exponent + 14) << 10 | (unsigned)(ldexp(fraction, 11) - 1024.0));
}

double attni_reference_load(const void *base, attn_dtype dtype, int64_t index) {
    const char *at = (const char *)base + index * (int64_t)attni_reference_size(dtype);
    if (dtype == ATTN_F32) {
        float x;
        memcpy(&x, at, sizeof x);
        return (double)x;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    if (dtype == ATTN_F16) return half_value(bits);
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return (double)x;
}

void attni_reference_store(void *base, attn_dtype dtype, int64_t index, double x) {
    char *at = (char *)base + index * (int64_t)attni_reference_size(dtype);
    double rounded = attni_reference_round(x, dtype);
    if (dtype == ATTN_F16) {
        uint16_t bits = half_bits(rounded);
        memcpy(at, &bits, sizeof bits);
        return;
    }
    float narrow = (float)rounded;
    if (dtype == ATTN_F32) {
        memcpy(at, &narrow, sizeof narrow);
        return;
    }
    uint32_t wide;
    memcpy(&wide, &narrow, sizeof wide);
    uint16_t bits = (uint16_t)(wide >> 16 | (isnan(x) ? 0x40u : 0u));
    memcpy(at, &bits, sizeof bits);
}
