/*
 * What decode's chunks of keys left of a sequence's rows, merged in ascending order and emitted. Compiled once per
 * instruction set: in plain C the conversion of O to 16 bits alone took 2% of a decode over 4,096 keys.
 */
#ifndef ATTNI_DECODE_MERGE_H
#define ATTNI_DECODE_MERGE_H

#include "cpu/emit.h"

/* attni_accum_merge_row over vectors; its bits. */
static void merge_row(attni_accum a, attni_accum b, int64_t row, int64_t dim_v) {
    float *o = a.o + row * dim_v;
    const float *o2 = b.o + row * dim_v;
    const int64_t whole = dim_v / SIMD_LANES * SIMD_LANES;
    float m = a.m[row], l = a.l[row];
    attni_accum_merge_row(&m, &l, o + whole, b.m[row], b.l[row], o2 + whole, dim_v - whole);
    if (b.l[row] == 0 && b.m[row] == -INFINITY) return;
    const bool empty = a.m[row] == -INFINITY && a.l[row] == 0;
    const vf w1 = vf_set1(empty ? 0 : expf(a.m[row] - m)), w2 = vf_set1(empty ? 1 : expf(b.m[row] - m));
    for (int64_t d = 0; d < whole; d += SIMD_LANES) {
        const vf more = vf_mul(vf_load(o2 + d), w2);
        vf_store(o + d, empty ? more : vf_add(vf_mul(vf_load(o + d), w1), more));
    }
    a.m[row] = m;
    a.l[row] = l;
}

/* The pieces' arrays lie stride floats apart; the first is written over. */
static void decode_merge(const attni_job *job, const attni_tile *tile, attni_accum first, int64_t stride,
                         int64_t pieces) {
    const int64_t dim_v = job->p->dim_v;
    for (int64_t piece = 1; piece < pieces; piece++) {
        const int64_t at = piece * stride;
        const attni_accum part = {first.m + at, first.l + at, first.o + at};
        for (int64_t row = 0; row < tile->row_end; row++) merge_row(first, part, row, dim_v);
    }
    for (int64_t row = 0; row < tile->row_end; row++)
        emit_row(job, tile, row, first.m[row], first.l[row], 1, first.o + row * dim_v);
}

#endif
