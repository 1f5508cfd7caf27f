/*
 * What decode's pieces of keys left of a sequence's rows, merged in ascending order and emitted. Compiled once per
 * instruction set: in plain C the conversion of O to 16 bits alone took 2% of a decode over 4,096 keys.
 */
#ifndef ATTNI_DECODE_MERGE_H
#define ATTNI_DECODE_MERGE_H

#include "cpu/emit.h"

/* What (m, l) += (m2, l2) multiplies o and o2 by, as in attni_accum_merge_row. */
typedef struct merge_weights {
    float old, more;
    bool nothing, empty; /* m2 has seen nothing; m has not */
} merge_weights;

/* One of the two weights is exp(0), which needs no call. */
static merge_weights merge_sums(float *m, float *l, float m2, float l2) {
    merge_weights w = {1, 1, l2 == 0 && m2 == -INFINITY, *m == -INFINITY && *l == 0};
    if (w.nothing) return w;
    if (w.empty) {
        *m = m2;
        *l = l2;
        return w;
    }
    const float top = *m > m2 ? *m : m2, down = *m - top, down2 = m2 - top; /* NaN where both are infinite */
    w.old = down == 0 ? 1 : expf(down);
    w.more = down2 == 0 ? 1 : expf(down2);
    *m = top;
    *l = *l * w.old + l2 * w.more;
    return w;
}

/* attni_accum_merge_row over vectors; its bits. */
static void merge_row(attni_accum a, attni_accum b, int64_t row, int64_t dim_v) {
    float *o = a.o + row * dim_v;
    const float *o2 = b.o + row * dim_v;
    const merge_weights w = merge_sums(&a.m[row], &a.l[row], b.m[row], b.l[row]);
    for (int64_t d = 0; !w.nothing && d < dim_v; d += SIMD_LANES) {
        const int64_t n = attni_min(SIMD_LANES, dim_v - d);
        const vf more = vf_mul(simd_load_part(ATTN_F32, o2 + d, n), vf_set1(w.more));
        const vf old = vf_mul(simd_load_part(ATTN_F32, o + d, n), vf_set1(w.old));
        simd_store_part(ATTN_F32, o + d, w.empty ? more : vf_add(old, more), n);
    }
}

static void decode_merge(const attni_job *job, const attni_tile *tile, attni_accum into, attni_accum piece,
                         bool emit) {
    const int64_t dim_v = job->p->dim_v;
    for (int64_t row = 0; row < tile->row_end; row++) {
        if (piece.m != NULL) merge_row(into, piece, row, dim_v);
        if (emit) emit_row(job, tile, row, into.m[row], into.l[row], 1, into.o + row * dim_v);
    }
}

#endif
