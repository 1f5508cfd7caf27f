/*
 * The element of the fold: (m, l, o) of one row, in natural units, float32. Two over disjoint keys merge
 * into one (FlashAttention, section 3.1), and the answer is o / l with m + log(l) beside it.
 */
#ifndef ATTNI_ACCUM_H
#define ATTNI_ACCUM_H

#include <math.h>
#include <stdint.h>

/* (*m, *l, o) += (m2, l2, o2) */
static inline void attni_accum_merge_row(float *m, float *l, float *o, float m2, float l2, const float *o2,
                                         int64_t dim_v) {
    if (l2 == 0 && m2 == -INFINITY) return; /* has seen nothing */
    if (*m == -INFINITY && *l == 0) {
        *m = m2;
        *l = l2;
        for (int64_t d = 0; d < dim_v; d++) o[d] = o2[d];
        return;
    }
    const float top = *m > m2 ? *m : m2;
    const float w1 = expf(*m - top), w2 = expf(m2 - top); /* NaN and inf spread, as they should */
    *m = top;
    *l = *l * w1 + l2 * w2;
    for (int64_t d = 0; d < dim_v; d++) o[d] = o[d] * w1 + o2[d] * w2;
}

/*
 * The factor that o is multiplied by, and the row's LSE. sink is one more logit without a value, -inf
 * where there is none. A row that sees nothing gets factor 0 and lse = sink.
 */
static inline float attni_accum_finish_row(double m, float l, float sink, float *lse) {
    if (l == 0) {
        *lse = sink;
        return 0;
    }
    const double without = m + log((double)l);
    if (sink == -INFINITY) {
        *lse = (float)without;
        return 1 / l;
    }
    const double top = without > sink ? without : sink;
    const double whole = top + log(exp(without - top) + exp(sink - top));
    *lse = (float)whole;
    return (float)(exp(without - whole) / (double)l);
}

#endif
