/*
 * Numbers of the dtypes, for the oracle: written from the formats' definitions with frexp and
 * ldexp, sharing nothing with the library's conversions. Rounding is to nearest, ties to even, once,
 * straight from double.
 */
#ifndef ATTNI_REFERENCE_ROUNDING_H
#define ATTNI_REFERENCE_ROUNDING_H

#include "attn/attn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of one element. */
size_t attni_reference_size(attn_dtype dtype);

/* Half the distance from 1 to the next number: 2^-24, 2^-11, 2^-8, 2^-4 (e4m3), 2^-3 (e5m2). */
double attni_reference_unit(attn_dtype dtype);

/* What P is rounded to before its product with a V of this dtype: the same, and e4m3 for both of 8 bits. */
attn_dtype attni_reference_p_dtype(attn_dtype dtype_v);

/* x as the dtype holds it, beyond its range infinity, or in e4m3, which has none, NaN. */
double attni_reference_round(double x, attn_dtype dtype);

/* The most that rounding a number of x's size can be off by: half the distance to the next one. */
double attni_reference_half_step(double x, attn_dtype dtype);

/* The least number that rounds to infinity. */
double attni_reference_overflow(attn_dtype dtype);

/* Element index of an array. The base needs no alignment. */
double attni_reference_load(const void *base, attn_dtype dtype, int64_t index);
void attni_reference_store(void *base, attn_dtype dtype, int64_t index, double x);

#ifdef __cplusplus
}
#endif

#endif
