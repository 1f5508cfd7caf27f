/* What a kernel does with a finished row: (m, l, o) into O and LSE, or merged into an accumulator. */
#ifndef ATTNI_EMIT_H
#define ATTNI_EMIT_H

#include "cpu/kernel.h"

/* m in natural units; o is dim_v floats, un-normalised, each to be multiplied by weight. */
static void emit_row(const attni_job *job, const attni_tile *tile, int64_t row, double m, float l,
                     float weight, float *o) {
    const attn_problem *p = job->p;
    const attni_sequence *s = &tile->sequence;
    const int64_t head = attni_tile_head(job, tile, row), query = attni_row_query(job, row);
    if (job->kind == ATTNI_RUN_ADD) {
        const int64_t at = (s->batch * p->heads_q + head) * p->seqlen_q + query;
        /* m is rounded to float: l and o take the difference, so that exp(m) l stays what it was */
        const float rounded = (float)m, rest = l == 0 ? 1 : (float)exp(m - rounded);
        for (int64_t d = 0; d < p->dim_v; d++) o[d] *= rest * weight;
        attni_accum_merge_row(&job->accum.m[at], &job->accum.l[at], job->accum.o + at * p->dim_v, rounded,
                              l * rest, o, p->dim_v);
        return;
    }
    float lse, factor = l == 0 ? 0 : 1 / l;
    if (job->t.lse != NULL || p->has_sinks) {
        factor = attni_accum_finish_row(m, l, p->has_sinks ? job->t.sinks[head] : -INFINITY, &lse);
        if (job->t.lse != NULL) job->t.lse[attni_lse_index(job, s, head, query)] = lse;
    }
    factor *= weight;
    char *out = attni_o_row(job, tile, row);
    const int64_t size = (int64_t)attni_dtype_size(p->dtype_o);
    for (int64_t d = 0; d < p->dim_v; d += SIMD_LANES) {
        const int64_t n = attni_min(SIMD_LANES, p->dim_v - d);
        /* o is 0, not 0 times what may be infinite, in a row that saw nothing */
        const vf x = l == 0 ? vf_zero() : vf_mul(simd_load_part(ATTN_F32, o + d, n), vf_set1(factor));
        simd_store_part(p->dtype_o, out + d * size, x, n);
    }
}

#endif
