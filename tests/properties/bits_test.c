/* Same input, same bits: over threads, over the batch beside a row, over repeats. */
#include "packed.h"
#include "reference/problems.h"

enum { PROBLEMS = 200, REPEATS = 1000 };

static int same_outputs(const attni_problems_case *c, unsigned char *const kept[2]) {
    for (int i = 0; i < 2; ++i) {
        const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_O + i];
        if (buffer->memory && memcmp(buffer->memory, kept[i], buffer->bytes) != 0) return 0;
    }
    return 1;
}

static void test_threads(attn_context *context, attni_problems_case *c, attn_isa isa) {
    unsigned char *kept[2];
    for (int i = 0; i < 2; ++i) kept[i] = test_memory(c->buffers[ATTNI_PROBLEMS_O + i].bytes);
    for (int threads = 1; threads <= 4; ++threads) {
        attn_plan *plan = test_plan(context, &c->problem, isa, threads);
        if (!plan) break;
        attni_problems_poison(c);
        NEED(attn_forward(plan, &c->tensors, NULL) == ATTN_OK);
        if (threads == 1) {
            for (int i = 0; i < 2; ++i) {
                const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_O + i];
                if (buffer->memory) memcpy(kept[i], buffer->memory, buffer->bytes);
            }
        } else {
            CHECK(same_outputs(c, kept), "%s: %d threads and one differ (%s)", attn_plan_kernel(plan),
                  threads, c->text);
        }
        attn_plan_destroy(plan);
    }
    free(kept[0]);
    free(kept[1]);
}

/* Each sequence alone answers what it answered in the batch. */
static void test_neighbours(attn_context *context, attn_isa isa, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    sizes.batch = 3;
    if (attni_random_chance(random, 50)) sizes.mask = ATTN_MASK_CAUSAL;
    attn_dtype dtype = (attn_dtype)attni_random_range(random, 0, 2);
    packed all = packed_make(&sizes, dtype, random);
    size_t size = attni_reference_size(dtype), o_bytes = (size_t)(all.o_count / 3) * size;
    if (packed_run(&all, context, isa, 2)) {
        sizes.batch = 1;
        for (int64_t b = 0; b < 3; ++b) {
            packed one = packed_make(&sizes, dtype, random);
            memcpy(one.q, (char *)all.q + (size_t)(b * one.q_count) * size, (size_t)one.q_count * size);
            memcpy(one.k, (char *)all.k + (size_t)(b * one.k_count) * size, (size_t)one.k_count * size);
            memcpy(one.v, (char *)all.v + (size_t)(b * one.v_count) * size, (size_t)one.v_count * size);
            NEED(packed_run(&one, context, isa, 1));
            CHECK(memcmp(one.o, (char *)all.o + (size_t)b * o_bytes, o_bytes) == 0,
                  "isa %d dtype %d: o of sequence %lld", isa, dtype, (long long)b);
            CHECK(memcmp(one.lse, all.lse + b * one.rows, (size_t)one.rows * sizeof(float)) == 0,
                  "isa %d dtype %d: lse of sequence %lld", isa, dtype, (long long)b);
            packed_free(&one);
        }
    }
    packed_free(&all);
}

static void test_repeats(attn_context *context, attn_isa isa, int64_t seqlen_q) {
    attn_problem sizes = ATTN_PROBLEM_INIT;
    attni_random random = {3};
    sizes.heads_q = 4;
    sizes.heads_kv = 2;
    sizes.seqlen_q = seqlen_q;
    sizes.seqlen_k = 130;
    sizes.dim_qk = sizes.dim_v = 33;
    packed a = packed_make(&sizes, ATTN_F32, &random);
    attn_plan *plan = test_plan(context, &a.problem, isa, 3);
    if (plan) {
        float *kept = test_memory((size_t)a.o_count * sizeof(float));
        int differ = 0;
        for (int i = 0; i < REPEATS; ++i) {
            NEED(attn_forward(plan, &a.tensors, NULL) == ATTN_OK);
            if (i == 0) memcpy(kept, a.o, (size_t)a.o_count * sizeof(float));
            differ += memcmp(kept, a.o, (size_t)a.o_count * sizeof(float)) != 0;
        }
        CHECK(differ == 0, "%s: %d of %d repeats differ", attn_plan_kernel(plan), differ, REPEATS);
        free(kept);
        attn_plan_destroy(plan);
    }
    packed_free(&a);
}

int main(void) {
    attn_context *context = test_context(0);
    for (uint64_t seed = 0; seed < PROBLEMS; ++seed) {
        attni_problems_case c;
        NEED(attni_problems_make(&c, seed, NULL) == 0);
        FOR_EACH_TIER(isa) test_threads(context, &c, isa);
        attni_problems_free(&c);
    }
    FOR_EACH_TIER(isa) {
        attni_random random = {11};
        for (int round = 0; round < 30; ++round) test_neighbours(context, isa, &random);
        test_repeats(context, isa, 9);
        test_repeats(context, isa, 1);
    }
    attn_context_destroy(context);
    return test_report();
}
