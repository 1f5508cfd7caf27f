/*
 * What attention promises whatever the numbers: V of ones gives ones; keys in another order, a constant
 * added to a row's scores, and keys and queries that a causal row cannot see change nothing.
 */
#include <float.h>

#include "packed.h"

enum { ROUNDS = 40 };

static attn_context *context;

static void test_ones(attn_isa isa, attn_dtype dtype, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    if (attni_random_chance(random, 50)) sizes.mask = ATTN_MASK_CAUSAL;
    packed a = packed_make(&sizes, dtype, random);
    for (int64_t i = 0; i < a.v_count; ++i) attni_reference_store(a.v, dtype, i, 1.0);
    if (packed_run(&a, context, isa, 1)) {
        int64_t hidden = sizes.mask == ATTN_MASK_CAUSAL ? sizes.seqlen_q - sizes.seqlen_k : 0;
        double most = 0.0;
        for (int64_t at = 0; at < a.o_count; ++at) {
            int64_t row = at / (sizes.dim_v * sizes.heads_q) % sizes.seqlen_q;
            double off = fabs(attni_reference_load(a.o, dtype, at) - (row < hidden ? 0.0 : 1.0));
            most = test_worse(most, off);
        }
        CHECK(most <= packed_slack(dtype) / 4.0, "isa %d dtype %d: %g from one", isa, dtype, most);
    }
    packed_free(&a);
}

static double most_apart(const packed *a, const packed *b, int64_t first_rows) {
    const attn_problem *p = &a->problem;
    double most = 0.0;
    for (int64_t n = 0; n < p->batch; ++n) {
        for (int64_t i = 0; i < first_rows; ++i) {
            for (int64_t h = 0; h < p->heads_q; ++h) {
                for (int64_t d = 0; d < p->dim_v; ++d) {
                    double apart = fabs(packed_o(a, n, i, h, d) - packed_o(b, n, i, h, d));
                    most = test_worse(most, apart);
                }
            }
        }
    }
    return most;
}

static void test_permuted(attn_isa isa, attn_dtype dtype, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    packed a = packed_make(&sizes, dtype, random);
    packed b = packed_make(&sizes, dtype, random);
    size_t size = attni_reference_size(dtype);
    size_t k_row = (size_t)(sizes.heads_kv * sizes.dim_qk) * size,
           v_row = (size_t)(sizes.heads_kv * sizes.dim_v) * size;
    memcpy(b.q, a.q, (size_t)a.q_count * size);
    int64_t *order = test_memory((size_t)sizes.seqlen_k * sizeof *order);
    for (int64_t j = 0; j < sizes.seqlen_k; ++j) {
        int64_t other = attni_random_range(random, 0, j);
        order[j] = order[other];
        order[other] = j;
    }
    for (int64_t n = 0; n < sizes.batch; ++n) {
        for (int64_t j = 0; j < sizes.seqlen_k; ++j) {
            size_t to = (size_t)(n * sizes.seqlen_k + j), from = (size_t)(n * sizes.seqlen_k + order[j]);
            memcpy((char *)b.k + to * k_row, (char *)a.k + from * k_row, k_row);
            memcpy((char *)b.v + to * v_row, (char *)a.v + from * v_row, v_row);
        }
    }
    if (packed_run(&a, context, isa, 1) && packed_run(&b, context, isa, 1)) {
        double most = most_apart(&a, &b, sizes.seqlen_q);
        CHECK(most <= packed_slack(dtype), "isa %d dtype %d: %g apart", isa, dtype, most);
    }
    free(order);
    packed_free(&a);
    packed_free(&b);
}

static void test_shifted(attn_isa isa, attn_dtype dtype, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    sizes.has_bias = 1;
    sizes.mask = ATTN_MASK_CAUSAL;
    packed a = packed_make(&sizes, dtype, random);
    packed b = packed_make(&sizes, dtype, random);
    size_t size = attni_reference_size(dtype);
    float shift = (float)attni_random_range(random, -40, 40);
    memcpy(b.q, a.q, (size_t)a.q_count * size);
    memcpy(b.k, a.k, (size_t)a.k_count * size);
    memcpy(b.v, a.v, (size_t)a.v_count * size);
    for (int64_t i = 0; i < b.bias_count; ++i) b.bias[i] = shift;
    if (packed_run(&a, context, isa, 1) && packed_run(&b, context, isa, 1)) {
        double most = most_apart(&a, &b, sizes.seqlen_q);
        CHECK(most <= 4.0 * packed_slack(dtype), "isa %d dtype %d: %g apart", isa, dtype, most);
        most = 0.0;
        for (int64_t row = 0; row < a.rows; ++row) {
            if (a.lse[row] == -INFINITY && b.lse[row] == -INFINITY) continue;
            double apart = fabs((double)b.lse[row] - (double)a.lse[row] - (double)shift);
            most = test_worse(most, apart);
        }
        CHECK(most <= 2e-5, "isa %d dtype %d: lse moved by %g more than %g", isa, dtype, most, (double)shift);
    }
    packed_free(&a);
    packed_free(&b);
}

static void test_prefix(attn_isa isa, attn_dtype dtype, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    sizes.batch = 1;
    sizes.mask = ATTN_MASK_CAUSAL;
    sizes.seqlen_k = sizes.seqlen_q;
    packed a = packed_make(&sizes, dtype, random);
    attn_problem longer = sizes;
    longer.seqlen_q = longer.seqlen_k = sizes.seqlen_q + attni_random_range(random, 1, 70);
    packed b = packed_make(&longer, dtype, random);
    size_t size = attni_reference_size(dtype);
    memcpy(b.q, a.q, (size_t)a.q_count * size);
    memcpy(b.k, a.k, (size_t)a.k_count * size);
    memcpy(b.v, a.v, (size_t)a.v_count * size);
    if (packed_run(&a, context, isa, 1) && packed_run(&b, context, isa, 1)) {
        double most = most_apart(&a, &b, sizes.seqlen_q);
        CHECK(most <= packed_slack(dtype), "isa %d dtype %d: %g apart", isa, dtype, most);
    }
    packed_free(&a);
    packed_free(&b);
}

/* Every key at the lowest finite bias: nothing is masked, so O is the mean of V. */
static void test_low_bias(attn_isa isa, attn_dtype dtype, attni_random *random) {
    const float lows[] = {-1e30f, -FLT_MAX};
    attn_problem sizes = packed_sizes(random);
    sizes.has_bias = 1;
    packed a = packed_make(&sizes, dtype, random);
    for (int64_t i = 0; i < a.v_count; ++i) attni_reference_store(a.v, dtype, i, 1.0);
    for (int n = 0; n < 2; ++n) {
        for (int64_t i = 0; i < a.bias_count; ++i) a.bias[i] = lows[n];
        if (!packed_run(&a, context, isa, 1)) continue;
        double most = 0.0;
        for (int64_t at = 0; at < a.o_count; ++at) {
            double off = fabs(attni_reference_load(a.o, dtype, at) - 1.0);
            most = test_worse(most, off);
        }
        CHECK(most <= packed_slack(dtype), "isa %d dtype %d: a bias of %g masked, %g from one", isa, dtype,
              (double)lows[n], most);
    }
    packed_free(&a);
}

int main(void) {
    context = test_context(1);
    FOR_EACH_TIER(isa) {
        attni_random random = {7};
        for (int round = 0; round < ROUNDS; ++round) {
            attn_dtype dtype = (attn_dtype)(round % 3);
            test_ones(isa, dtype, &random);
            test_permuted(isa, dtype, &random);
            test_shifted(isa, dtype, &random);
            test_prefix(isa, dtype, &random);
            test_low_bias(isa, dtype, &random);
        }
    }
    attn_context_destroy(context);
    return test_report();
}
