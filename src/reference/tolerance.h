/*
 * How far from the oracle an answer may be: the project's one definition. For every element of O,
 * and of LSE, that a run writes:
 *
 *   |out - ref|  <=  2 max|naive - ref|  +  2 rounding  +  floor      max and rounding of its row
 *   ||out - ref||  <=  1.5 ||naive - ref||  +  floor of the norm
 *
 * ref is the oracle's float64, naive is naive.c's float32, rounding is half of the output dtype's step at the row's
 * largest number, norms run over the whole tensor. A row of O is the dim_v numbers of a query and head: were the
 * maximum the tensor's, a row of logits of 10^4 would excuse all others. LSE has one number a row, where naive may be
 * right by luck: for it, 2 floor max(|naive - ref| / floor) of all rows takes the place of 2 max|naive - ref|.
 *
 * On a GPU the maxima still run over the whole tensor: in f16 forward_sm90 keeps the largest p of a row near 2^-9, so that
 * what is 2^-15 of it is 0, and a row whose large ones dropout took, or a zero in V, may be off by more than its own naive.
 *
 * Every comparison is !(diff <= tolerance), so that NaN fails. Where ref is NaN or inf, out must be the same, and NaN
 * nowhere else. An out that is inf beside a finite ref counts as the least number that rounds to it.
 *
 * Why a floor. In a row of a few numbers naive may be right by luck, and then says nothing. The floor is
 * what first-order error analysis grants to any honest float32 kernel, element by element (u = 2^-24,
 * P_j the probability, A_j the sum of the sizes of the terms that score j was added up from):
 *   4u (sum P_j (A_j + c) |v_j|  +  |O| sum P_j (A_j + c))     c = 8 + sqrt(keys): exp, sums, rescales
 *   3w sqrt(sum (P_j v_j)^2)     only for 16-bit V: three deviations of P rounded with w = 2^-11 or 2^-8
 *   sqrt(keys) max|v| 2^-120     P that underflows (2^-25 for f16 V, whose P has subnormals)
 * and for LSE 4u (sum P_j (A_j + c) + |LSE| + 1). With q, k and v of 8 bits P is rounded to e4m3, w =
 * 2^-4 and an underflow of 2^-12 of the row's largest P, or of 2^-120 where that is more, as beside a sink far
 * above all scores: float32's exponents end there for every dtype; and the matrix units, which alone multiply
 * 8 bits, keep 13 bits below the largest of 32 products and the running sum and cut off the rest of each: up
 * to 2^-10 of a sum of one sign. So O has 2^-10 sum P_j (A_j + 8) |v_j| more, LSE 2^-10 sum P_j A_j.
 * Exponents, P and its sums may be f16 there: another 2^-9 |O|, and 2^-9 for LSE.
 * It shrinks with the row's own numbers, so that it hides no bug: a wrong key, mask or
 * scale moves O by far more than roundings do.
 *
 * The norm's floor is the floor of the worst row and one rounding: over many rows errors average out and the
 * norm must then show it.
 *
 * In 8 bits the norm's floor is that of all rows: what is cut off errs to the same side, and a row whose reference is
 * not its maximum has all the rounding of its largest P.
 *
 * What a GPU's matrix units lose comes on top, for LSE, element by element and in the norm of all rows: `cut`.
 * They align 16 products and the running sum to the largest and cut off what lies below, so that all scores err
 * to the same side (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, 2021). On an
 * H200 the cut is at 2^-26 of the largest: a model of that gives its errors to 1 part in 100. With r_j the
 * largest running sum of score j:   cut = sum P_j r_j D 2^-26, and in 8 bits D 2^-14:
 * numerics.md derives it.
 *
 * A gradient may be three times as far off, with the same formulas and a floor of its own: reference_backward.c
 * carries the errors of P, dP and D through the chain, and those of P and dS rounded to 16 bits.
 */
#ifndef ATTNI_REFERENCE_TOLERANCE_H
#define ATTNI_REFERENCE_TOLERANCE_H

#include "attn/attn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Packed arrays of one tensor: rows of dim numbers. Unwritten rows hold ATTNI_REFERENCE_UNWRITTEN in ref. */
typedef struct attni_tolerance_arrays {
    int64_t rows, dim;
    const double *out, *ref, *naive, *floor;
    attn_dtype dtype; /* of out */
    const double *cut; /* null: no matrix unit had part in it */
    int on_gpu;        /* the maxima are the tensor's */
    int is_lse;        /* one number a row: maxima in floors, of all rows */
    int is_gradient;  /* three times as much is allowed */
    int is_f8;        /* q, k and v have 8 bits: in the norm the floors of all rows count */
} attni_tolerance_arrays;

typedef struct attni_tolerance_verdict {
    int holds;
    double ratio;   /* the larger of error / tolerance, of the elements and of the norm */
    int64_t worst;  /* the element that decides, -1 for the norm */
    double error;   /* its error */
    double allowed; /* its tolerance */
} attni_tolerance_verdict;

attni_tolerance_verdict attni_tolerance_judge(const attni_tolerance_arrays *arrays);

#ifdef __cplusplus
}
#endif

#endif
