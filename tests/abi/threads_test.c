/*
 * A caller's own threads: a parallel_for over pthreads, one that runs tasks backwards on one thread, and
 * one plan run from several threads at once. A thread sanitizer sees all of it.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdatomic.h>

#include "properties/packed.h"

enum { POOL_THREADS = 3, RUNNERS = 4, RUNS = 25 };

typedef struct loop {
    atomic_llong next;
    int64_t count;
    attn_task_fn task;
    void *args;
} loop;

static atomic_llong loops, strangers; /* that the library asked for; with a pool that is not ours */

static void *work(void *user) {
    loop *l = user;
    for (;;) {
        int64_t index = atomic_fetch_add(&l->next, 1);
        if (index >= l->count) return NULL;
        l->task(l->args, index);
    }
}

static void pthread_for(void *pool, int64_t count, attn_task_fn task, void *args) {
    loop l = {0, count, task, args};
    pthread_t threads[POOL_THREADS];
    if (pool != &loops) atomic_fetch_add(&strangers, 1); /* CHECK counts for one thread */
    atomic_fetch_add(&loops, 1);
    for (int i = 0; i < POOL_THREADS; ++i) NEED(pthread_create(&threads[i], NULL, work, &l) == 0);
    for (int i = 0; i < POOL_THREADS; ++i) pthread_join(threads[i], NULL);
}

static void backwards_for(void *pool, int64_t count, attn_task_fn task, void *args) {
    (void)pool;
    for (int64_t i = count - 1; i >= 0; --i) task(args, i);
}

static attn_context *context_of(attn_parallel_for_fn parallel_for, int threads) {
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    attn_context *context;
    options.parallel_for = parallel_for;
    options.pool = &loops;
    options.threads = threads;
    NEED(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &context) == ATTN_OK);
    return context;
}

typedef struct runner {
    const attn_plan *plan;
    const packed *problem;
    const float *wanted;
    int wrong;
} runner;

static void *run_often(void *user) {
    runner *r = user;
    size_t bytes = (size_t)r->problem->o_count * sizeof(float);
    float *o = aligned_alloc(64, (bytes / 64 + 1) * 64);
    attn_tensors t = r->problem->tensors;
    t.o = o;
    t.lse = NULL;
    for (int i = 0; i < RUNS; ++i) {
        memset(o, 0xff, bytes);
        if (attn_forward(r->plan, &t, NULL) != ATTN_OK || memcmp(o, r->wanted, bytes) != 0) ++r->wrong;
    }
    free(o);
    return NULL;
}

/* The bits of one thread's run, by other pools, and by many callers of one plan at once. */
static void test_pools(attn_isa isa, int64_t seqlen_q, int64_t seqlen_k) {
    attn_problem sizes = ATTN_PROBLEM_INIT;
    attni_random random = {5};
    sizes.heads_q = 6;
    sizes.heads_kv = 2;
    sizes.seqlen_q = seqlen_q;
    sizes.seqlen_k = seqlen_k;
    sizes.dim_qk = sizes.dim_v = 40;
    sizes.mask = ATTN_MASK_CAUSAL;
    packed a = packed_make(&sizes, ATTN_F32, &random);
    size_t bytes = (size_t)a.o_count * sizeof(float);
    float *wanted = test_memory(bytes);

    attn_context *one = context_of(backwards_for, 1), *many = context_of(pthread_for, POOL_THREADS),
                 *backwards = context_of(backwards_for, POOL_THREADS);
    if (packed_run(&a, one, isa, 0)) {
        memcpy(wanted, a.o, bytes);
        NEED(packed_run(&a, backwards, isa, 0));
        CHECK(memcmp(wanted, a.o, bytes) == 0, "isa %d: tasks run backwards give other bits", isa);
        NEED(packed_run(&a, many, isa, 0));
        CHECK(memcmp(wanted, a.o, bytes) == 0, "isa %d: %d threads give other bits", isa, POOL_THREADS);

        attn_plan *plan = test_plan(many, &a.problem, isa, 0);
        pthread_t threads[RUNNERS];
        runner runners[RUNNERS];
        for (int i = 0; i < RUNNERS; ++i) {
            runners[i] = (runner){plan, &a, wanted, 0};
            NEED(pthread_create(&threads[i], NULL, run_often, &runners[i]) == 0);
        }
        for (int i = 0; i < RUNNERS; ++i) {
            pthread_join(threads[i], NULL);
            CHECK(runners[i].wrong == 0, "isa %d: %d of %d runs beside others were wrong", isa,
                  runners[i].wrong, RUNS);
        }
        attn_plan_destroy(plan);
    }
    attn_context_destroy(one);
    attn_context_destroy(many);
    attn_context_destroy(backwards);
    free(wanted);
    packed_free(&a);
}

/* Gradients by other pools, of one head whose steps all tasks share, and of several heads that add to one dbias. */
static void test_backward_pools(attn_isa isa, int64_t heads) {
    attn_problem sizes = ATTN_PROBLEM_INIT;
    attni_random random = {6};
    sizes.heads_q = 2 * heads;
    sizes.heads_kv = heads;
    sizes.seqlen_q = 300;
    sizes.seqlen_k = 500;
    sizes.dim_qk = sizes.dim_v = 4;
    sizes.mask = ATTN_MASK_CAUSAL;
    sizes.has_bias = sizes.has_sinks = sizes.needs_backward = 1;
    sizes.bias.heads = 0;
    sizes.bias.batch = sizes.seqlen_q * sizes.seqlen_k;
    packed a = packed_make(&sizes, ATTN_F32, &random);
    const size_t counts[] = {(size_t)a.q_count, (size_t)a.k_count, (size_t)a.v_count,
                             (size_t)(sizes.seqlen_q * sizes.seqlen_k), (size_t)sizes.heads_q};
    float *made[5], *wanted[5], *dout = test_memory((size_t)a.o_count * sizeof(float));
    float sinks[8] = {0};
    for (int i = 0; i < 5; ++i) {
        made[i] = test_memory(counts[i] * sizeof(float));
        wanted[i] = test_memory(counts[i] * sizeof(float));
    }
    packed_fill(dout, ATTN_F32, a.o_count, &random);
    attn_tensors *t = &a.tensors;
    t->sinks = sinks;
    t->dout = dout;
    t->dq = made[0];
    t->dk = made[1];
    t->dv = made[2];
    t->dbias = made[3];
    t->dsinks = made[4];
    attn_context *contexts[] = {context_of(backwards_for, 1), context_of(pthread_for, POOL_THREADS),
                                context_of(backwards_for, POOL_THREADS)};
    for (int c = 0; c < 3; ++c) {
        attn_plan *plan = test_plan(contexts[c], &a.problem, isa, 0);
        if (plan) {
            if (c == 0) NEED(attn_forward(plan, t, NULL) == ATTN_OK);
            for (int i = 0; i < 5; ++i) memset(made[i], 0xff, counts[i] * sizeof(float));
            NEED(attn_backward(plan, t, NULL) == ATTN_OK);
            for (int i = 0; i < 5; ++i) {
                if (c == 0) memcpy(wanted[i], made[i], counts[i] * sizeof(float));
                CHECK(memcmp(wanted[i], made[i], counts[i] * sizeof(float)) == 0,
                      "isa %d, %lld heads: pool %d gives other bits of gradient %d", isa, (long long)heads, c,
                      i);
            }
            attn_plan_destroy(plan);
        }
        attn_context_destroy(contexts[c]);
    }
    for (int i = 0; i < 5; ++i) {
        free(made[i]);
        free(wanted[i]);
    }
    free(dout);
    packed_free(&a);
}

/* attn_attention, and each thread's own last error, from several threads at once. */
static void *call_simply(void *user) {
    float q[4 * 8] = {0}, kv[9 * 8], o[4 * 8];
    int *wrong = user;
    for (int i = 0; i < 72; ++i) kv[i] = 3.0f;
    for (int i = 0; i < RUNS; ++i) {
        attn_problem p = ATTN_PROBLEM_INIT;
        attn_tensors t = ATTN_TENSORS_INIT;
        p.seqlen_q = 1 + i % 4;
        p.seqlen_k = 1 + i % 9;
        p.dim_qk = p.dim_v = 8;
        t.q = q;
        t.k = t.v = kv;
        t.o = o;
        if (attn_attention(&p, &t) != ATTN_OK || fabsf(o[0] - 3.0f) > 1e-5f) ++*wrong;
        p.dim_qk = -1 - *wrong;
        if (attn_attention(&p, &t) != ATTN_INVALID_ARGUMENT || !strstr(attn_last_error(), "dim_qk")) ++*wrong;
    }
    return NULL;
}

static void test_simple_calls(void) {
    pthread_t threads[RUNNERS];
    int wrong[RUNNERS] = {0};
    for (int i = 0; i < RUNNERS; ++i) NEED(pthread_create(&threads[i], NULL, call_simply, &wrong[i]) == 0);
    for (int i = 0; i < RUNNERS; ++i) {
        pthread_join(threads[i], NULL);
        CHECK(wrong[i] == 0, "%d calls of attn_attention were wrong", wrong[i]);
    }
}

int main(void) {
    FOR_EACH_TIER(isa) {
        test_pools(isa, 100, 333);
        test_pools(isa, 1, 333);
        test_backward_pools(isa, 1);
        test_backward_pools(isa, 3);
    }
    test_pools(ATTN_ISA_AUTO, 1, 3900); /* pieces of keys, of which some wait for those before them */
    CHECK(atomic_load(&loops) > 0, "the caller's parallel_for was never called");
    CHECK(atomic_load(&strangers) == 0, "%lld calls had a pool that is not the caller's",
          (long long)atomic_load(&strangers));
    test_simple_calls();
    return test_report();
}
