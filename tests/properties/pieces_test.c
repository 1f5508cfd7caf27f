/*
 * A key axis cut anywhere, its pieces added to several accumulators in any order, those saved, loaded and
 * merged in any order, finish as the whole does: the oracle judges them with the whole's tolerance.
 */
#include "test.h"
#include "reference/problems.h"
#include "reference/rounding.h"

enum { PROBLEMS = 400, ACCUMS = 3, PIECES = 8 };

/* The case's tensors from key first on, count of them. */
static attn_tensors piece_of(const attni_problems_case *c, int64_t first, int64_t count) {
    const attn_problem *p = &c->problem;
    attn_tensors t = c->tensors;
    attn_strides k = attni_reference_strides(p->k, p->seqlen_k, p->heads_kv, p->dim_qk);
    attn_strides v = attni_reference_strides(p->v, p->seqlen_k, p->heads_kv, p->dim_v);
    int64_t size = (int64_t)attni_reference_size(p->dtype_kv);
    t.k = (const char *)t.k + first * k.seqlen * size;
    t.v = (const char *)t.v + first * v.seqlen * size;
    if (t.bias) t.bias = (const char *)t.bias + first * (int64_t)attni_reference_size(p->dtype_bias);
    if (t.mask) t.mask += first;
    t.seqlen_k = count;
    t.key_start += first;
    t.o = NULL;
    t.lse = NULL;
    t.sinks = NULL;
    return t;
}

/* Cuts [0, keys) into at most PIECES pieces, some empty; returns their number. */
static int cut(attni_random *random, int64_t keys, int64_t bounds[PIECES + 1]) {
    int pieces = (int)attni_random_range(random, 1, PIECES);
    bounds[0] = 0;
    for (int i = 1; i < pieces; ++i) bounds[i] = attni_random_range(random, bounds[i - 1], keys);
    bounds[pieces] = keys;
    return pieces;
}

static void test_case(attn_context *context, attni_problems_case *c, attn_isa isa, attni_random *random) {
    attn_plan *plan = test_plan(context, &c->problem, isa, (int)attni_random_range(random, 1, 2));
    if (!plan) return;
    size_t bytes = attn_accum_size(plan);
    char *accums[ACCUMS];
    for (int i = 0; i < ACCUMS; ++i) {
        accums[i] = test_memory(bytes);
        memset(accums[i], 0xff, bytes);
        NEED(attn_accum_begin(plan, accums[i], bytes, NULL) == ATTN_OK);
    }

    int64_t keys = c->tensors.seqlen_k == ATTN_LENGTH_DEFAULT || c->tensors.seqlen_k > c->problem.seqlen_k
                       ? c->problem.seqlen_k
                       : c->tensors.seqlen_k;
    int64_t bounds[PIECES + 1];
    int pieces = cut(random, keys, bounds), order[PIECES];
    for (int i = 0; i < pieces; ++i) {
        int other = (int)attni_random_range(random, 0, i);
        order[i] = order[other];
        order[other] = i;
    }
    for (int i = 0; i < pieces; ++i) {
        attn_tensors t = piece_of(c, bounds[order[i]], bounds[order[i] + 1] - bounds[order[i]]);
        attn_status status =
            attn_accum_add(plan, &t, accums[attni_random_range(random, 0, ACCUMS - 1)], NULL);
        CHECK(status == ATTN_OK, "%s (%s)", attn_last_error(), c->text);
    }
    for (int i = 0; i < ACCUMS; ++i) { /* saved, lost and loaded elsewhere */
        char *moved = test_memory(bytes);
        memcpy(moved, accums[i], bytes);
        memset(accums[i], 0xff, bytes);
        free(accums[i]);
        accums[i] = moved;
    }
    int into = (int)attni_random_range(random, 0, ACCUMS - 1);
    for (int i = 1; i < ACCUMS; ++i) {
        CHECK(attn_accum_merge(plan, accums[into], accums[(into + i) % ACCUMS], NULL) == ATTN_OK, "%s",
              attn_last_error());
    }

    for (int twice = 0; twice < 2; ++twice) { /* finish leaves the accumulator as it was */
        double ratio;
        char message[1024];
        attni_problems_poison(c);
        CHECK(attn_accum_finish(plan, &c->tensors, accums[into], NULL) == ATTN_OK, "%s", attn_last_error());
        CHECK(attni_problems_verify(c, &ratio, message, sizeof message), "%s, %d pieces: %s",
              attn_plan_kernel(plan), pieces, message);
    }
    for (int i = 0; i < ACCUMS; ++i) free(accums[i]);
    attn_plan_destroy(plan);
}

/* The documented layout: header, then m, l and o, each begun on 64 bytes. */
static void test_layout(attn_context *context) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = 2;
    p.heads_q = 3;
    p.seqlen_q = 5;
    p.seqlen_k = 1;
    p.dim_qk = 4;
    p.dim_v = 7;
    float q[2 * 5 * 3 * 4] = {0}, k[2 * 4] = {0}, v[2 * 7];
    for (int i = 0; i < 14; ++i) v[i] = (float)i;
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = q;
    t.k = k;
    t.v = v;
    attn_plan *plan = test_plan(context, &p, ATTN_ISA_AUTO, 1);
    NEED(plan != NULL);
    size_t bytes = attn_accum_size(plan);
    CHECK(bytes == 64 + 128 + 128 + 896, "%zu bytes",
          bytes); /* 30 rows: 120, 120 and 840 bytes, rounded up to 64 */
    char *accum = test_memory(bytes);
    NEED(attn_accum_begin(plan, accum, bytes, NULL) == ATTN_OK);
    const float *m = (const float *)(const void *)(accum + 64), *l = m + 32, *o = l + 32;
    for (int row = 0; row < 30; ++row)
        CHECK(m[row] == -INFINITY && l[row] == 0.0f, "row %d begins with m %g, l %g", row, (double)m[row],
              (double)l[row]);
    NEED(attn_accum_add(plan, &t, accum, NULL) == ATTN_OK);
    uint32_t words[2];
    int64_t longs[2];
    memcpy(words, accum, 8);
    memcpy(longs, accum + 8, 16);
    CHECK(words[0] == 0x4e545441u && words[1] == 1, "magic %x, version %u", words[0], words[1]);
    CHECK(longs[0] == 30 && longs[1] == 7, "R %lld, dim_v %lld", (long long)longs[0], (long long)longs[1]);
    for (int i = 24; i < 64; ++i) CHECK(accum[i] == 0, "byte %d is %d", i, accum[i]);
    for (int row = 0; row < 30; ++row) { /* every score is 0 */
        CHECK(fabsf(m[row] + logf(l[row])) < 1e-6f, "row %d: m %g, l %g", row, (double)m[row],
              (double)l[row]);
        for (int d = 0; d < 7; ++d) {
            float wanted = v[row / 15 * 7 + d];
            CHECK(fabsf(o[row * 7 + d] / l[row] - wanted) < 1e-5f, "row %d, column %d: %g", row, d,
                  (double)o[row * 7 + d]);
        }
    }
    free(accum);
    attn_plan_destroy(plan);
}

int main(void) {
    const attni_problems_limits limits = {60000, 1, 0, 0, 0};
    attn_context *context = test_context(2);
    test_layout(context);
    for (uint64_t seed = 0; seed < PROBLEMS; ++seed) {
        attni_problems_case c;
        attni_random random = {seed};
        NEED(attni_problems_make(&c, seed, &limits) == 0);
        FOR_EACH_TIER(isa) test_case(context, &c, isa, &random);
        attni_problems_free(&c);
    }
    attn_context_destroy(context);
    return test_report();
}
