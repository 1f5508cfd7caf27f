/* A packed problem of one dtype with random Q, K, V, kept in double so that tests can rearrange it. */
#ifndef ATTN_TEST_PACKED_H
#define ATTN_TEST_PACKED_H

#include "test.h"
#include "reference/random.h"
#include "reference/rounding.h"

typedef struct packed {
    attn_problem problem;
    attn_tensors tensors;
    void *q, *k, *v, *o;
    float *lse, *bias;
    int64_t rows, q_count, k_count, v_count, o_count, bias_count;
} packed;

static inline void packed_fill(void *array, attn_dtype dtype, int64_t count, attni_random *random) {
    for (int64_t i = 0; i < count; ++i) attni_reference_store(array, dtype, i, attni_random_normal(random));
}

/* Sizes stand in the problem; its dtypes are set to dtype, f8's output to bf16. A bias, if announced, is f32, all 0. */
static inline packed packed_make(const attn_problem *problem, attn_dtype dtype, attni_random *random) {
    packed made;
    attn_tensors tensors = ATTN_TENSORS_INIT;
    size_t size = attni_reference_size(dtype);
    attn_problem *p = &made.problem;
    *p = *problem;
    p->dtype_q = p->dtype_kv = dtype;
    p->dtype_o = attni_reference_size(dtype) == 1 ? ATTN_BF16 : dtype;
    made.tensors = tensors;
    made.rows = p->batch * p->heads_q * p->seqlen_q;
    made.q_count = made.rows * p->dim_qk;
    made.k_count = p->batch * p->heads_kv * p->seqlen_k * p->dim_qk;
    made.v_count = p->batch * p->heads_kv * p->seqlen_k * p->dim_v;
    made.o_count = made.rows * p->dim_v;
    made.bias_count = p->has_bias ? made.rows * p->seqlen_k : 0;
    made.tensors.q = made.q = test_memory((size_t)made.q_count * size);
    made.tensors.k = made.k = test_memory((size_t)made.k_count * size);
    made.tensors.v = made.v = test_memory((size_t)made.v_count * size);
    made.tensors.o = made.o = test_memory((size_t)made.o_count * attni_reference_size(p->dtype_o));
    made.tensors.lse = made.lse = test_memory((size_t)made.rows * sizeof(float));
    made.tensors.bias = made.bias = test_memory((size_t)made.bias_count * sizeof(float));
    memset(made.bias, 0, (size_t)made.bias_count * sizeof(float));
    packed_fill(made.q, dtype, made.q_count, random);
    packed_fill(made.k, dtype, made.k_count, random);
    packed_fill(made.v, dtype, made.v_count, random);
    return made;
}

static inline void packed_free(packed *made) {
    free(made->q);
    free(made->k);
    free(made->v);
    free(made->o);
    free(made->lse);
    free(made->bias);
}

/* Runs it on a tier; 0 where the tier cannot take it. */
static inline int packed_run(const packed *made, attn_context *context, attn_isa isa, int threads) {
    attn_plan *plan = test_plan(context, &made->problem, isa, threads);
    if (!plan) return 0;
    memset(made->o, 0xff, (size_t)made->o_count * attni_reference_size(made->problem.dtype_o));
    memset(made->lse, 0xff, (size_t)made->rows * sizeof(float));
    NEED(attn_forward(plan, &made->tensors, NULL) == ATTN_OK);
    attn_plan_destroy(plan);
    return 1;
}

static inline double packed_o(const packed *made, int64_t b, int64_t i, int64_t h, int64_t d) {
    const attn_problem *p = &made->problem;
    return attni_reference_load(made->o, p->dtype_o, ((b * p->seqlen_q + i) * p->heads_q + h) * p->dim_v + d);
}

/* How far apart two right answers may be when values are about 1. */
static inline double packed_slack(attn_dtype dtype) {
    return dtype == ATTN_F32 ? 1e-5 : dtype == ATTN_F16 ? 6e-3 : 5e-2;
}

/* Random sizes that cross tile edges now and then. */
static inline attn_problem packed_sizes(attni_random *random) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = attni_random_range(random, 1, 2);
    p.heads_kv = attni_random_range(random, 1, 2);
    p.heads_q = p.heads_kv * attni_random_range(random, 1, 3);
    p.seqlen_q = attni_random_range(random, 1, attni_random_chance(random, 30) ? 4 : 140);
    p.seqlen_k = attni_random_range(random, 1, attni_random_chance(random, 20) ? 700 : 200);
    p.dim_qk = attni_random_range(random, 1, attni_random_chance(random, 30) ? 130 : 40);
    p.dim_v = attni_random_range(random, 1, attni_random_chance(random, 30) ? 130 : 40);
    return p;
}

#endif
