#include "rounding.h"

#include <string.h>

/* By attn_dtype: significant bits, exponent of the smallest normal number, largest number, bytes. */
static const struct {
    int digits, lowest;
    double largest;
    size_t size;
} formats[] = {{24, -126, 0x1.fffffep127, 4},
               {11, -14, 65504.0, 2},
               {8, -126, 0x1.fep127, 2},
               {4, -6, 448.0, 1},
               {3, -14, 57344.0, 1}};

size_t attni_reference_size(attn_dtype dtype) { return formats[dtype].size; }

double attni_reference_unit(attn_dtype dtype) { return ldexp(1.0, -formats[dtype].digits); }

attn_dtype attni_reference_p_dtype(attn_dtype dtype_v) {
    return dtype_v == ATTN_F8_E5M2 ? ATTN_F8_E4M3 : dtype_v;
}

/* From a number of x's size to the next. */
static double step_of(double x, attn_dtype dtype) {
    int exponent;
    frexp(x, &exponent); /* |x| is in [2^(exponent - 1), 2^exponent) */
    exponent = x == 0.0 ? formats[dtype].lowest : exponent - 1;
    if (exponent < formats[dtype].lowest) exponent = formats[dtype].lowest;
    return ldexp(1.0, exponent - (formats[dtype].digits - 1));
}

double attni_reference_half_step(double x, attn_dtype dtype) { return 0.5 * step_of(x, dtype); }

double attni_reference_overflow(attn_dtype dtype) {
    return formats[dtype].largest + 0.5 * step_of(formats[dtype].largest, dtype);
}

double attni_reference_round(double x, attn_dtype dtype) {
    if (dtype == ATTN_F32) return (double)(float)x;
    if (x == 0.0 || !isfinite(x)) return x;

    double step = step_of(x, dtype), rounded = rint(x / step) * step;
    if (!(fabs(rounded) > formats[dtype].largest)) return rounded;
    return dtype == ATTN_F8_E4M3 ? (double)NAN : copysign((double)INFINITY, x);
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

/* e5m2 is the upper half of binary16. e4m3 has no infinities: its last exponent is one like the others, but for
 * the NaN. */
static double byte_value(uint8_t bits, attn_dtype dtype) {
    if (dtype == ATTN_F8_E5M2) return half_value((uint16_t)(bits << 8));
    int exponent = (bits >> 3) & 15, fraction = bits & 7;
    double x = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);
    if ((bits & 127) == 127) x = (double)NAN;
    return bits & 128 ? -x : x;
}

/* x is a number that the dtype holds. */
static uint8_t byte_bits(double x, attn_dtype dtype) {
    if (dtype == ATTN_F8_E5M2) return (uint8_t)(half_bits(x) >> 8);
    unsigned sign = signbit(x) ? 128u : 0u;
    if (isnan(x)) return 127;
    double size = fabs(x);
    if (size < 0x1p-6) return (uint8_t)(sign | (unsigned)ldexp(size, 9));
    int exponent;
    double fraction = frexp(size, &exponent); /* in [0.5, 1) */
    return (uint8_t)(sign | (unsigned)(exponent + 6) << 3 | (unsigned)(ldexp(fraction, 4) - 8.0));
}

double attni_reference_load(const void *base, attn_dtype dtype, int64_t index) {
    const char *at = (const char *)base + index * (int64_t)attni_reference_size(dtype);
    if (dtype == ATTN_F32) {
        float x;
        memcpy(&x, at, sizeof x);
        return (double)x;
    }
    if (formats[dtype].size == 1) return byte_value(*(const uint8_t *)at, dtype);
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
    if (formats[dtype].size == 1) {
        *(uint8_t *)at = byte_bits(rounded, dtype);
        return;
    }
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
