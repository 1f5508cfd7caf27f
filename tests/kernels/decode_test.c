/*
 * Decode over whole blocks, whose quarters are read as four streams (decode_ahead.h), over lengths beside them,
 * and over both layouts of K and V, on every tier. The oracle judges; a key that is read twice or never shows by
 * far.
 */
#include <math.h>

#include "properties/packed.h"
#include "reference/reference.h"

static void test_shape(attn_context *context, attn_isa isa, attn_dtype dtype, int64_t group, int64_t keys,
                       int heads_apart) {
    attni_random random = {(uint64_t)(keys * 100 + group)};
    attn_problem sizes = ATTN_PROBLEM_INIT;
    sizes.batch = 1;
    sizes.heads_kv = 3;
    sizes.heads_q = 3 * group;
    sizes.seqlen_q = 1;
    sizes.seqlen_k = keys;
    sizes.dim_qk = 40;
    sizes.dim_v = 72;
    if (heads_apart) { /* (batch, heads, seqlen, dim) */
        sizes.k = (attn_strides){0, sizes.dim_qk, keys * sizes.dim_qk};
        sizes.v = (attn_strides){0, sizes.dim_v, keys * sizes.dim_v};
    }
    packed a = packed_make(&sizes, dtype, &random);
    NEED(packed_run(&a, context, isa, 3));
    attni_reference_result truth = {.o = test_memory((size_t)a.o_count * sizeof(double)),
                                    .lse = test_memory((size_t)a.rows * sizeof(double))};
    NEED(attni_reference_forward(&a.problem, &a.tensors, &truth) == 0);
    double off = 0, off_lse = 0;
    for (int64_t i = 0; i < a.o_count; ++i) {
        const double error = fabs(attni_reference_load(a.o, dtype, i) - truth.o[i]);
        off = test_worse(off, error);
    }
    for (int64_t i = 0; i < a.rows; ++i) {
        const double error = fabs((double)a.lse[i] - truth.lse[i]);
        off_lse = test_worse(off_lse, error);
    }
    /* outputs are averages of many values, about 0.1 */
    CHECK(off <= packed_slack(dtype) / 10, "tier %d, dtype %d, %lld keys, group %lld: o is off by %g",
          (int)isa, (int)dtype, (long long)keys, (long long)group, off);
    CHECK(off_lse <= 1e-5, "tier %d, dtype %d, %lld keys, group %lld: lse is off by %g", (int)isa, (int)dtype,
          (long long)keys, (long long)group, off_lse);
    free(truth.o);
    free(truth.lse);
    packed_free(&a);
}

/*
 * Plans and runs of every length up to where pieces have their largest size, whatever their number: scores of 0, so
 * that O is the mean of what keys there are and LSE their number's logarithm.
 */
static void test_lengths(attn_context *context) {
    enum { MOST = 10500 };
    attni_random random = {7};
    float *k = test_memory(MOST * sizeof *k), *v = test_memory(MOST * sizeof *v), q = 0, o, lse;
    for (int64_t i = 0; i < MOST; ++i) k[i] = v[i] = (float)i;
    for (int64_t keys = 1; keys <= MOST; keys += attni_random_range(&random, 1, 5)) {
        attn_problem p = ATTN_PROBLEM_INIT;
        p.seqlen_q = p.dim_qk = p.dim_v = 1;
        p.seqlen_k = keys;
        attn_plan *plan = test_plan(context, &p, ATTN_ISA_AUTO, 1);
        NEED(plan != NULL);
        attn_tensors t = ATTN_TENSORS_INIT;
        t.q = &q;
        t.k = k;
        t.v = v;
        t.o = &o;
        t.lse = &lse;
        for (int shorter = 0; shorter < 2; ++shorter) {
            t.seqlen_k = shorter ? attni_random_range(&random, 1, keys) : keys;
            o = lse = NAN;
            NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
            const double count = (double)t.seqlen_k, mean = (count - 1) / 2;
            CHECK(fabs((double)o - mean) <= 1e-5 * (mean + 1) && fabs((double)lse - log(count)) <= 1e-5,
                  "%lld of %lld keys: o %g, lse %g", (long long)t.seqlen_k, (long long)keys, (double)o,
                  (double)lse);
        }
        attn_plan_destroy(plan);
    }
    free(k);
    free(v);
}

int main(void) {
    static const int64_t keys[] = {1, 16, 63, 64, 65, 80, 272, 1023, 2112, 3071};
    static const int64_t groups[] = {1, 4, 8};
    static const attn_dtype dtypes[] = {ATTN_F32, ATTN_F16, ATTN_BF16};
    attn_context *context = test_context(3);
    for (int isa = ATTN_ISA_PORTABLE; isa <= ATTN_ISA_NEON_BF16; ++isa) {
        if (!test_has_tier((attn_isa)isa)) continue;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; ++k)
            for (size_t d = 0; d < 3; ++d)
                test_shape(context, (attn_isa)isa, dtypes[d], groups[(k + d) % 3], keys[k], k % 2 == 1);
    }
    test_lengths(context);
    attn_context_destroy(context);
    return test_report();
}
