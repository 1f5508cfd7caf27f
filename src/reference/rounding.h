/*
 * Numbers of the three dtypes, for the oracle: written from the formats' definitions with frexp and
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

/* Half the distance from 1 to the next number: 2^-24, 2^-11, 2^-8. */
double attni_reference_unit(attn_dtype dtype);

/* x as the dtype holds it, infinity beyond its range. */
double attni_reference_round(double x, attn_dtype dtype);

/* Element index of an array. The base needs no alignment. */
double attni_reference_load(const void *base, attn_dtype dtype, int64_t index);
void attni_reference_store(void *base, attn_dtype dtype, int64_t index, double x);

#ifdef __cplusplus
}
#endif

#endif
