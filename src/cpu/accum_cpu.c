/* Rows of accumulators on the CPU: begin, merge, finish. Little work, so portable C serves every tier. */
#include <string.h>

#include "cpu/accum_cpu.h"
#include "cpu/plan_cpu.h"
#include "cpu/portable/simd_portable.h"

#include "cpu/emit.h"

typedef struct accum_header {
    uint32_t magic, version;
    int64_t rows, dim_v;
    char zeros[40];
} accum_header;

attn_status attni_cpu_accum_begin(const attn_plan *plan, void *accum, void *stream) {
    (void)stream;
    const accum_header header = {
        ATTNI_ACCUM_MAGIC, ATTNI_ACCUM_VERSION, plan->rows, plan->problem.dim_v, {0}};
    memset(accum, 0, attn_accum_size(plan));
    memcpy(accum, &header, sizeof header);
    const attni_accum a = attni_accum_arrays(accum, plan->rows, plan->problem.dim_v, NULL);
    for (int64_t row = 0; row < plan->rows; row++) a.m[row] = -INFINITY;
    return ATTN_OK;
}

attn_status attni_cpu_accum_check(const attn_plan *plan, const void *accum) {
    accum_header header;
    memcpy(&header, accum, sizeof header);
    if (header.magic != ATTNI_ACCUM_MAGIC)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "accum begins with %#x, not with %#x; attn_accum_begin prepares one", header.magic,
                          ATTNI_ACCUM_MAGIC);
    if (header.version != ATTNI_ACCUM_VERSION)
        return attni_fail(ATTN_UNSUPPORTED, "accum is of version %u; this library reads version %u",
                          header.version, ATTNI_ACCUM_VERSION);
    if (header.rows != plan->rows || header.dim_v != plan->problem.dim_v)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "accum has %lld rows of %lld numbers; this plan has %lld of %lld",
                          (long long)header.rows, (long long)header.dim_v, (long long)plan->rows,
                          (long long)plan->problem.dim_v);
    return ATTN_OK;
}

attn_status attni_cpu_accum_merge(const attn_plan *plan, attni_accum a, attni_accum b, void *stream) {
    (void)stream;
    const int64_t dim_v = plan->problem.dim_v;
    for (int64_t row = 0; row < plan->rows; row++)
        attni_accum_merge_row(&a.m[row], &a.l[row], a.o + row * dim_v, b.m[row], b.l[row], b.o + row * dim_v,
                              dim_v);
    return ATTN_OK;
}

void attni_cpu_finish(const attn_plan *plan, const attni_job *job, attni_accum accum) {
    const attn_problem *p = &plan->problem;
    for (int64_t pair = 0; pair < p->batch * p->heads_q; pair++) {
        attni_tile tile = {.head_kv = pair % p->heads_q / job->group, .heads = 1};
        tile.sequence = attni_sequence_of(p, &job->t, pair / p->heads_q);
        const int64_t in_group = pair % p->heads_q % job->group;
        for (int64_t query = 0; query < tile.sequence.q_len; query++) {
            const int64_t at = pair * p->seqlen_q + query;
            emit_row(job, &tile, query * job->group + in_group, accum.m[at], accum.l[at], 1,
                     accum.o + at * p->dim_v);
        }
    }
}
