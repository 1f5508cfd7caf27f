/* Every allocation fails once: ATTN_OUT_OF_MEMORY with a sentence, and nothing stays behind. No memory in vain. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */

#include "test.h"

static long long c_library_calls; /* of the default allocator, in place of the C library's function */

void *aligned_alloc(size_t alignment, size_t bytes) {
    void *memory;
    ++c_library_calls;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

typedef struct ledger {
    long long calls, fails_at, live; /* the call numbered fails_at (from 1) returns null */
} ledger;

static void *ledger_alloc(void *user, size_t bytes) {
    ledger *l = user;
    if (++l->calls == l->fails_at) return NULL;
    ++l->live;
    return test_memory(bytes);
}

static void ledger_free(void *user, void *pointer) {
    ledger *l = user;
    CHECK(pointer != NULL, "free was given null");
    --l->live;
    free(pointer);
}

static attn_context_options ledger_options(ledger *l) {
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    options.alloc = ledger_alloc;
    options.free = ledger_free;
    options.alloc_user = l;
    return options;
}

/* Tensors whose q, k and v are the returned memory, of zeros, and dout and lse if there is a backward; it and t->o are the
 * caller's to free, in which dq lies after o. */
static float *make_tensors(const attn_problem *problem, attn_tensors *t) {
    const size_t count = (size_t)(problem->heads_q * (problem->seqlen_q + problem->seqlen_k) * 64);
    float *x = test_memory(count * sizeof(float));
    memset(x, 0, count * sizeof(float));
    *t = (attn_tensors)ATTN_TENSORS_INIT;
    t->q = t->k = t->v = x;
    float *o = test_memory(3 * count * sizeof(float));
    t->o = o;
    if (problem->needs_backward) {
        t->dout = x;
        t->dq = o + count;
        t->lse = o + 2 * count;
    }
    return x;
}

/* What a program does with the library: the first status that is not ATTN_OK, with everything given back. */
static attn_status live_through(ledger *l, const attn_problem *problem, const attn_tensors *tensors) {
    attn_context_options options = ledger_options(l);
    options.threads = 2;
    attn_context *context;
    attn_status status = attn_context_create(ATTN_DEVICE_CPU, 0, &options, &context);
    if (status != ATTN_OK) return status;
    attn_plan *plan, *other = NULL;
    status = attn_plan_create(context, problem, NULL, &plan);
    if (status == ATTN_OK) {
        attn_problem wider = *problem;
        wider.seqlen_q *= 3;
        status = attn_forward(plan, tensors, NULL);
        if (status == ATTN_OK && problem->needs_backward) status = attn_backward(plan, tensors, NULL);
        if (status == ATTN_OK) status = attn_plan_create(context, &wider, NULL, &other);
        if (status == ATTN_OK) {
            char *accum = test_memory(attn_accum_size(plan));
            status = attn_accum_begin(plan, accum, attn_accum_size(plan), NULL);
            if (status == ATTN_OK) status = attn_accum_add(plan, tensors, accum, NULL);
            if (status == ATTN_OK) status = attn_accum_finish(plan, tensors, accum, NULL);
            free(accum);
        }
        attn_plan_destroy(other);
        attn_plan_destroy(plan);
    }
    attn_context_destroy(context);
    return status;
}

static void test_failures(const attn_problem *problem) {
    attn_tensors t;
    float *x = make_tensors(problem, &t);
    for (long long n = 1;; ++n) {
        ledger l = {0, n, 0};
        attn_status status = live_through(&l, problem, &t);
        CHECK(l.live == 0, "call %lld failed, %lld blocks stayed behind", n, l.live);
        if (l.calls < n) {
            CHECK(status == ATTN_OK, "%s: %s", attn_status_name(status), attn_last_error());
            CHECK(n > 1, "the context's allocator was never called");
            break;
        }
        CHECK(status == ATTN_OUT_OF_MEMORY, "call %lld failed: %s", n, attn_status_name(status));
        CHECK(attn_last_error()[0] != 0, "no sentence");
        NEED(n < 10000);
    }
    free(x);
    free(t.o);
}

/* A run with a workspace of its own, and a lone run without one, allocate nothing. */
static void test_quiet(const attn_problem *problem) {
    ledger l = {0, 0, 0};
    attn_context_options options = ledger_options(&l);
    attn_context *context;
    attn_plan *plan;
    NEED(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &context) == ATTN_OK);
    NEED(attn_plan_create(context, problem, NULL, &plan) == ATTN_OK);
    attn_tensors t;
    float *x = make_tensors(problem, &t);
    attn_execution e = ATTN_EXECUTION_INIT;
    e.workspace_bytes = attn_plan_workspace_size(plan);
    e.workspace = test_memory(e.workspace_bytes);
    long long calls = l.calls;
    for (int i = 0; i < 3; ++i) {
        NEED(attn_forward(plan, &t, &e) == ATTN_OK);
        NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
        if (!problem->needs_backward) continue;
        NEED(attn_backward(plan, &t, &e) == ATTN_OK);
        NEED(attn_backward(plan, &t, NULL) == ATTN_OK);
    }
    CHECK(l.calls == calls, "runs allocated %lld times", l.calls - calls);
    free(e.workspace);
    free(x);
    free(t.o);
    attn_plan_destroy(plan);
    attn_context_destroy(context);
    CHECK(l.live == 0, "%lld blocks stayed behind", l.live);
}

/* Plans of ever longer sequences, as a prompt grows: their workspaces are one, the largest. */
static void test_growing(const attn_problem *problem) {
    ledger l = {0, 0, 0};
    attn_context_options options = ledger_options(&l);
    attn_context *context;
    NEED(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &context) == ATTN_OK);
    attn_problem p = *problem;
    long long first = 0;
    for (int i = 0; i < 20; ++i) {
        attn_plan *plan;
        p.seqlen_q += 40;
        p.seqlen_k += 2000;
        NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
        attn_plan_destroy(plan);
        if (i == 0) first = l.live;
        CHECK(l.live == first, "seqlen_q %lld: %lld blocks, where one plan left %lld", (long long)p.seqlen_q,
              l.live, first);
    }
    attn_context_destroy(context);
    CHECK(l.live == 0, "%lld blocks stayed behind", l.live);
}

/* The same problem again makes no plan anew, whatever its memory holds between the fields. */
static void test_attention(const attn_problem *problem) {
    attn_tensors t;
    float *x = make_tensors(problem, &t);
    const struct {
        size_t begin, end;
    } gaps[] = {
        {offsetof(attn_problem, dtype_o) + sizeof problem->dtype_o, offsetof(attn_problem, q)},
        {offsetof(attn_problem, mask) + sizeof problem->mask, offsetof(attn_problem, window_left)},
        {offsetof(attn_problem, dtype_bias) + sizeof problem->dtype_bias, offsetof(attn_problem, bias)}};
    attn_problem p;
    memcpy(&p, problem, sizeof p);
    for (int i = 0; i < 3; ++i) {
        const long long calls = c_library_calls;
        for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; ++g)
            memset((char *)&p + gaps[g].begin, i, gaps[g].end - gaps[g].begin);
        NEED(attn_attention(&p, &t) == ATTN_OK);
        CHECK(i > 0 ? c_library_calls == calls : c_library_calls > calls, "call %d allocated %lld times", i,
              c_library_calls - calls);
    }
    free(x);
    free(t.o);
}

int main(void) {
    attn_problem problem = ATTN_PROBLEM_INIT;
    problem.heads_q = 4;
    problem.heads_kv = 2;
    problem.dim_qk = problem.dim_v = 64;
    problem.seqlen_k = 300;
    for (problem.seqlen_q = 1; problem.seqlen_q < 200;
         problem.seqlen_q += 99) { /* decode, forward, backward */
        problem.needs_backward = problem.seqlen_q == 199;
        test_failures(&problem);
        test_quiet(&problem);
        test_growing(&problem);
        test_attention(&problem);
    }
    return test_report();
}
