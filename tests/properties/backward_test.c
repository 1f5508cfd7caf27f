/*
 * Gradients: the same bits for any number of threads, any batch beside a sequence, over repeats and whatever else
 * is wanted beside them; and keys that come in pieces.
 */
#include "packed.h"
#include "reference/problems.h"

enum { PROBLEMS = 150, LARGE = 100, REPEATS = 1000, OUTPUTS = ATTNI_PROBLEMS_DSINKS - ATTNI_PROBLEMS_DQ + 1 };

static attn_status run(attni_problems_case *c, const attn_plan *plan) {
    attni_problems_poison_gradients(c);
    return attn_backward(plan, &c->tensors, NULL);
}

static void keep(const attni_problems_case *c, unsigned char *kept[OUTPUTS]) {
    for (int i = 0; i < OUTPUTS; ++i) {
        const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_DQ + i];
        kept[i] = test_memory(buffer->bytes);
        if (buffer->memory) memcpy(kept[i], buffer->memory, buffer->bytes);
    }
}

/* The first output that is not what was kept; -1: none. */
static int differs(const attni_problems_case *c, unsigned char *const kept[OUTPUTS], int except) {
    for (int i = 0; i < OUTPUTS; ++i) {
        const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_DQ + i];
        if (i != except && buffer->memory && memcmp(buffer->memory, kept[i], buffer->bytes) != 0) return i;
    }
    return -1;
}

static void test_threads(attn_context *context, attni_problems_case *c, attn_isa isa) {
    unsigned char *kept[OUTPUTS] = {NULL};
    for (int threads = 1; threads <= 4; ++threads) {
        attn_plan *plan = test_plan(context, &c->problem, isa, threads);
        if (!plan) break;
        NEED(run(c, plan) == ATTN_OK);
        if (threads == 1) keep(c, kept);
        int which = differs(c, kept, -1);
        CHECK(which < 0, "%s: output %d of %d threads and one differ (%s)", attn_plan_backward_kernel(plan),
              which, threads, c->text);
        attn_plan_destroy(plan);
    }
    for (int i = 0; i < OUTPUTS; ++i) free(kept[i]);
}

/* A gradient that is not wanted takes nothing from the others. */
static void test_unwanted(attn_context *context, attni_problems_case *c) {
    unsigned char *kept[OUTPUTS];
    attn_plan *plan = test_plan(context, &c->problem, ATTN_ISA_AUTO, 2);
    NEED(plan && run(c, plan) == ATTN_OK);
    keep(c, kept);
    for (int i = 0; i < OUTPUTS; ++i) {
        const attn_tensors all = c->tensors;
        if (i == 0) c->tensors.dq = NULL;
        if (i == 1) c->tensors.dk = NULL;
        if (i == 2) c->tensors.dv = NULL;
        if (i == 3) c->tensors.dbias = NULL;
        if (i == 4) c->tensors.dsinks = NULL;
        NEED(run(c, plan) == ATTN_OK);
        CHECK(differs(c, kept, i) < 0, "without output %d output %d differs (%s)", i, differs(c, kept, i),
              c->text);
        c->tensors = all;
    }
    for (int i = 0; i < OUTPUTS; ++i) free(kept[i]);
    attn_plan_destroy(plan);
}

/* ---------------------------------------------------------------- packed problems */

typedef struct gradients {
    packed of;
    void *dout, *dq, *dk, *dv;
} gradients;

static gradients gradients_make(const attn_problem *sizes, attn_dtype dtype, attni_random *random) {
    gradients g;
    attn_problem problem = *sizes;
    size_t size = attni_reference_size(dtype);
    problem.needs_backward = 1;
    g.of = packed_make(&problem, dtype, random);
    g.of.tensors.dout = g.dout = test_memory((size_t)g.of.o_count * size);
    g.of.tensors.dq = g.dq = test_memory((size_t)g.of.q_count * size);
    g.of.tensors.dk = g.dk = test_memory((size_t)g.of.k_count * size);
    g.of.tensors.dv = g.dv = test_memory((size_t)g.of.v_count * size);
    packed_fill(g.dout, dtype, g.of.o_count, random);
    return g;
}

static void gradients_free(gradients *g) {
    packed_free(&g->of);
    free(g->dout);
    free(g->dq);
    free(g->dk);
    free(g->dv);
}

/* Forward, then backward; 0 where the tier cannot take it. */
static int gradients_run(gradients *g, attn_context *context, attn_isa isa, int threads) {
    attn_plan *plan = test_plan(context, &g->of.problem, isa, threads);
    if (!plan) return 0;
    NEED(attn_forward(plan, &g->of.tensors, NULL) == ATTN_OK);
    NEED(attn_backward(plan, &g->of.tensors, NULL) == ATTN_OK);
    attn_plan_destroy(plan);
    return 1;
}

static void test_neighbours(attn_context *context, attn_isa isa, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    attn_dtype dtype = (attn_dtype)attni_random_range(random, 0, 2);
    size_t size = attni_reference_size(dtype);
    sizes.batch = 3;
    if (attni_random_chance(random, 50)) sizes.mask = ATTN_MASK_CAUSAL;
    gradients all = gradients_make(&sizes, dtype, random);
    if (gradients_run(&all, context, isa, 2)) {
        sizes.batch = 1;
        for (int64_t b = 0; b < 3; ++b) {
            gradients one = gradients_make(&sizes, dtype, random);
            const struct {
                void *alone, *beside;
                int64_t count;
                int output;
            } arrays[] = {{one.of.q, all.of.q, one.of.q_count, 0}, {one.of.k, all.of.k, one.of.k_count, 0},
                          {one.of.v, all.of.v, one.of.v_count, 0}, {one.dout, all.dout, one.of.o_count, 0},
                          {one.dq, all.dq, one.of.q_count, 1},     {one.dk, all.dk, one.of.k_count, 1},
                          {one.dv, all.dv, one.of.v_count, 1}};
            for (int output = 0; output < 2; ++output) {
                if (output) NEED(gradients_run(&one, context, isa, 1));
                for (int i = 0; i < 7; ++i) {
                    size_t bytes = (size_t)arrays[i].count * size;
                    char *beside = (char *)arrays[i].beside + (size_t)b * bytes;
                    if (arrays[i].output != output) continue;
                    if (!output) memcpy(arrays[i].alone, beside, bytes);
                    CHECK(memcmp(arrays[i].alone, beside, bytes) == 0,
                          "isa %d dtype %d: array %d of sequence %lld", isa, dtype, i, (long long)b);
                }
            }
            gradients_free(&one);
        }
    }
    gradients_free(&all);
}

/* One head of several chunks, so that tasks share its steps. */
static void test_repeats(attn_context *context, attn_isa isa, attn_dtype dtype) {
    attn_problem sizes = ATTN_PROBLEM_INIT;
    attni_random random = {5};
    sizes.seqlen_q = 530;
    sizes.seqlen_k = 500;
    sizes.dim_qk = 5;
    sizes.dim_v = 3;
    sizes.mask = ATTN_MASK_CAUSAL;
    gradients g = gradients_make(&sizes, dtype, &random);
    NEED(gradients_run(&g, context, isa, 3));
    attn_plan *plan = test_plan(context, &g.of.problem, isa, 3);
    NEED(plan != NULL);
    size_t size = attni_reference_size(dtype);
    size_t bytes[3] = {(size_t)g.of.q_count * size, (size_t)g.of.k_count * size, (size_t)g.of.v_count * size};
    void *made[3] = {g.dq, g.dk, g.dv}, *kept[3];
    for (int i = 0; i < 3; ++i) kept[i] = memcpy(test_memory(bytes[i]), made[i], bytes[i]);
    int differ = 0;
    for (int repeat = 0; repeat < REPEATS; ++repeat) {
        NEED(attn_backward(plan, &g.of.tensors, NULL) == ATTN_OK);
        for (int i = 0; i < 3; ++i) differ += memcmp(kept[i], made[i], bytes[i]) != 0;
    }
    CHECK(differ == 0, "%s: %d of %d outputs differ", attn_plan_backward_kernel(plan), differ, 3 * REPEATS);
    for (int i = 0; i < 3; ++i) free(kept[i]);
    attn_plan_destroy(plan);
    gradients_free(&g);
}

/* With the whole's O and LSE, two pieces of keys give dk and dv of their keys, and parts of dq. */
static void test_pieces(attn_context *context, attni_random *random) {
    attn_problem sizes = packed_sizes(random);
    sizes.batch = 1;
    sizes.seqlen_k += 2;
    sizes.mask = ATTN_MASK_CAUSAL;
    sizes.dropout_p = 0.25f;
    gradients whole = gradients_make(&sizes, ATTN_F32, random);
    whole.of.tensors.query_start = sizes.seqlen_k - sizes.seqlen_q;
    whole.of.tensors.dropout_seed = attni_random_next(random);
    NEED(gradients_run(&whole, context, ATTN_ISA_AUTO, 2));
    const int64_t cut = attni_random_range(random, 1, sizes.seqlen_k - 1);
    const int64_t k_row = sizes.heads_kv * sizes.dim_qk, v_row = sizes.heads_kv * sizes.dim_v;
    float *dq = test_memory((size_t)whole.of.q_count * 4), *dk = test_memory((size_t)whole.of.k_count * 4),
          *dv = test_memory((size_t)whole.of.v_count * 4), *sum = test_memory((size_t)whole.of.q_count * 4);
    memset(sum, 0, (size_t)whole.of.q_count * 4);
    attn_plan *plan = test_plan(context, &whole.of.problem, ATTN_ISA_AUTO, 2);
    for (int piece = 0; piece < 2; ++piece) {
        const int64_t from = piece ? cut : 0;
        attn_tensors t = whole.of.tensors;
        t.key_start = from;
        t.seqlen_k = piece ? sizes.seqlen_k - cut : cut;
        t.k = (const float *)whole.of.k + from * k_row;
        t.v = (const float *)whole.of.v + from * v_row;
        t.dq = dq;
        t.dk = dk + from * k_row;
        t.dv = dv + from * v_row;
        CHECK(attn_backward(plan, &t, NULL) == ATTN_OK, "%s", attn_last_error());
        for (int64_t i = 0; i < whole.of.q_count; ++i) sum[i] += dq[i];
    }
    const struct {
        const float *pieces, *whole;
        int64_t count;
    } pairs[] = {{sum, whole.dq, whole.of.q_count},
                 {dk, whole.dk, whole.of.k_count},
                 {dv, whole.dv, whole.of.v_count}};
    for (int a = 0; a < 3; ++a) {
        double most = 0.0;
        for (int64_t i = 0; i < pairs[a].count; ++i) {
            double off = fabs((double)pairs[a].pieces[i] - (double)pairs[a].whole[i]);
            most = test_worse(most, off);
        }
        CHECK(most < 1e-4, "array %d of pieces and the whole are %g apart, cut at %lld", a, most,
              (long long)cut);
    }
    attn_plan_destroy(plan);
    free(dq);
    free(dk);
    free(dv);
    free(sum);
    gradients_free(&whole);
}

/*
 * A NaN in k (in 0, and 1 with a softcap) or q (2) reaches the gradients of what saw it or was seen by it, and no
 * other. One in v does not stop there: the forward's O leaks it.
 */
static void test_trouble(attn_context *context, attn_isa isa, attn_dtype dtype, int in) {
    enum { ROWS = 60, AT = 40, DIM = 5 };
    attn_problem sizes = ATTN_PROBLEM_INIT;
    attni_random random = {8};
    sizes.seqlen_q = sizes.seqlen_k = ROWS;
    sizes.dim_qk = sizes.dim_v = DIM;
    sizes.mask = ATTN_MASK_CAUSAL;
    sizes.softcap = in == 1 ? 20.0f : 0.0f;
    gradients g = gradients_make(&sizes, dtype, &random);
    attni_reference_store(in == 2 ? g.of.q : g.of.k, dtype, AT * DIM + 2, NAN);
    if (gradients_run(&g, context, isa, 1)) {
        int wrong = 0;
        for (int i = 0; i < ROWS * DIM; ++i) {
            /* rows from AT on see the key, and with them they are NaN to all keys before; the row sees keys up to AT */
            const int bad_query = in == 2 ? i / DIM == AT : i / DIM >= AT,
                      bad_key = in == 2 ? i / DIM <= AT : 1;
            wrong += isnan(attni_reference_load(g.dq, dtype, i)) ? !bad_query : bad_query;
            wrong += isnan(attni_reference_load(g.dk, dtype, i)) ? !bad_key : bad_key;
            wrong += isnan(attni_reference_load(g.dv, dtype, i)) ? !bad_key : bad_key;
        }
        CHECK(wrong == 0,
              "isa %d dtype %d, trouble %d: %d gradients are NaN and should not, or the other way round", isa,
              dtype, in, wrong);
    }
    gradients_free(&g);
}

/* Many rows and keys of many dims, which the random problems of `attn check` have not: whole tiles of every kernel. */
static void test_large(attn_context *context, uint64_t seed) {
    const attni_problems_limits limits = {.work = 4000000};
    attni_problems_case c;
    NEED(attni_problems_make_backward(&c, seed, &limits) == 0);
    FOR_EACH_TIER(isa) {
        attn_plan *plan = test_plan(context, &c.problem, isa, 2);
        if (!plan) continue;
        char message[1024] = "";
        double ratio;
        NEED(run(&c, plan) == ATTN_OK);
        CHECK(attni_problems_verify_gradients(&c, &ratio, message, sizeof message), "isa %d: %s", isa,
              message);
        attn_plan_destroy(plan);
    }
    attni_problems_free(&c);
}

int main(void) {
    attn_context *context = test_context(0);
    attni_random random = {17};
    for (uint64_t seed = 0; seed < PROBLEMS; ++seed) {
        attni_problems_case c;
        NEED(attni_problems_make_backward(&c, seed, NULL) == 0);
        FOR_EACH_TIER(isa) test_threads(context, &c, isa);
        if (seed % 3 == 0) test_unwanted(context, &c);
        attni_problems_free(&c);
    }
    FOR_EACH_TIER(isa) {
        for (int round = 0; round < 15; ++round) test_neighbours(context, isa, &random);
        const attn_dtype dtype =
            isa == ATTN_ISA_AMX ? ATTN_BF16 : ATTN_F32; /* which has a kernel of its own */
        test_repeats(context, isa, dtype);
        for (int in = 0; in < 3; ++in) test_trouble(context, isa, dtype, in);
    }
    for (int round = 0; round < 40; ++round) test_pieces(context, &random);
    for (uint64_t seed = 5000; seed < 5000 + LARGE; ++seed) test_large(context, seed);
    attn_context_destroy(context);
    return test_report();
}
