/* Bad input: each kind has its status and a sentence that names the field. */
#include "test.h"

static attn_context *context;

static attn_problem usual(void) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = 2;
    p.heads_q = 4;
    p.heads_kv = 2;
    p.seqlen_q = 3;
    p.seqlen_k = 5;
    p.dim_qk = p.dim_v = 8;
    return p;
}

static void expect(const char *call, attn_status got, attn_status wanted, const char *field) {
    CHECK(got == wanted, "%s, %s: %s (%s)", call, field, attn_status_name(got), attn_last_error());
    if (got == wanted)
        CHECK(strstr(attn_last_error(), field) != NULL, "'%s' does not name %s", attn_last_error(), field);
}

static void expect_plan(const attn_problem *problem, const attn_plan_options *options, attn_status wanted,
                        const char *field) {
    attn_plan *plan = (attn_plan *)(uintptr_t)64;
    attn_status status = attn_plan_create(context, problem, options, &plan);
    expect("attn_plan_create", status, wanted, field);
    CHECK(status == ATTN_OK || plan == NULL, "%s: a refused plan is not null", field);
    if (status == ATTN_OK) attn_plan_destroy(plan);
}

/* One bad value in one field. */
#define BAD_OF(status, field, text, ...)                                                                     \
    do {                                                                                                     \
        const int64_t values[] = {__VA_ARGS__};                                                              \
        for (size_t n = 0; n < sizeof values / sizeof values[0]; ++n) {                                      \
            attn_problem p = usual();                                                                        \
            bad_prepare(&p);                                                                                 \
            bad_set(&p.field, sizeof p.field, values[n]);                                                    \
            expect_plan(&p, NULL, status, text);                                                             \
        }                                                                                                    \
    } while (0)
#define BAD(field, ...) BAD_OF(ATTN_INVALID_ARGUMENT, field, #field, __VA_ARGS__)

/* So that every optional tensor's strides are looked at. */
static void bad_prepare(attn_problem *p) { p->has_bias = p->has_mask = p->has_alibi = 1; }

static void bad_set(void *field, size_t size, int64_t value) {
    int32_t narrow = (int32_t)value;
    memcpy(field, size == 8 ? (void *)&value : (void *)&narrow, size);
}

static void test_problem(void) {
    const int64_t huge = INT64_MAX;
    BAD(batch, -1, INT64_MIN, huge);
    BAD(heads_q, 0, -4, 3, 5, huge);
    BAD(heads_kv, 0, -2, 3, huge);
    BAD(seqlen_q, -1, INT64_MIN, huge);
    BAD(seqlen_k, -1, INT64_MIN, huge);
    BAD(dim_qk, 0, -1, 1025, huge);
    BAD(dim_v, 0, -1, 1025, huge);
    BAD(dtype_q, 5, -1, 1000);
    BAD(dtype_kv, 3, -1, 1000);
    BAD(dtype_o, 3, -1, 1000);
    BAD(dtype_bias, 3, -1);
    BAD(lengths_q, 3, -1);
    BAD(lengths_k, 3, -1);
    BAD(mask, 2, -1);
    BAD(window_left, -1, INT64_MIN + 1);
    BAD(window_right, -1, INT64_MIN + 1);
    BAD(has_alibi, 2, -1);
    BAD(has_sinks, 2, -1);
    BAD(has_bias, 2, -1);
    BAD(has_mask, 2, -1);
    BAD(deterministic, 2, -1);
    BAD(batch_invariant, 2, -1);
    BAD(reserved, 1);
    BAD(alibi_stride_batch, huge, -huge);
    BAD(needs_backward, 2, -1);

    BAD_OF(ATTN_INVALID_ARGUMENT, q.batch, "problem.q", huge, -huge, huge / 4);
    BAD_OF(ATTN_INVALID_ARGUMENT, q.seqlen, "problem.q", huge, huge / 8);
    BAD_OF(ATTN_INVALID_ARGUMENT, k.seqlen, "problem.k", huge, -huge);
    BAD_OF(ATTN_INVALID_ARGUMENT, k.heads, "problem.k", huge);
    BAD_OF(ATTN_INVALID_ARGUMENT, v.heads, "problem.v", huge, huge / 2);
    BAD_OF(ATTN_INVALID_ARGUMENT, o.batch, "problem.o", huge, 0);
    BAD_OF(ATTN_INVALID_ARGUMENT, o.seqlen, "problem.o", huge / 2, 0);
    BAD_OF(ATTN_INVALID_ARGUMENT, o.heads, "problem.o", huge / 3, 0);
    BAD_OF(ATTN_INVALID_ARGUMENT, bias.queries, "bias", huge);
    BAD_OF(ATTN_INVALID_ARGUMENT, bias.batch, "bias", -huge);
    BAD_OF(ATTN_INVALID_ARGUMENT, mask_strides.heads, "mask", huge);
}

static void test_floats(void) {
    const float caps[] = {-1.0f, NAN, INFINITY, -INFINITY}, drops[] = {-0.1f, 1.0f, 1.5f, NAN, INFINITY};
    for (int i = 0; i < 4; ++i) {
        attn_problem p = usual();
        p.softcap = caps[i];
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "softcap");
    }
    for (int i = 0; i < 5; ++i) {
        attn_problem p = usual();
        p.dropout_p = drops[i];
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dropout_p");
    }
    const attn_dtype mixed[][2] = {
        {ATTN_F16, ATTN_F32}, {ATTN_F16, ATTN_BF16}, {ATTN_BF16, ATTN_F16}, {ATTN_BF16, ATTN_F32}};
    for (int i = 0; i < 4; ++i) {
        attn_problem p = usual();
        p.dtype_q = mixed[i][0];
        p.dtype_kv = mixed[i][1];
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dtype_kv");
    }
}

static void test_f8(void) {
    for (int kind = 0; kind < 2; ++kind) {
        attn_problem f8 = usual(), p;
        f8.dtype_q = f8.dtype_kv = kind ? ATTN_F8_E5M2 : ATTN_F8_E4M3;
        f8.dtype_o = ATTN_BF16;
        expect_plan(&f8, NULL, ATTN_UNSUPPORTED, "dtype_q is f8"); /* by the CPU */
        p = f8;
        p.dtype_o = ATTN_F32;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dtype_o");
        p.dtype_o = p.dtype_q;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dtype_o");
        p = f8;
        p.dtype_kv = kind ? ATTN_F8_E4M3 : ATTN_F16;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dtype_kv");
        p = f8;
        p.needs_backward = 1;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "needs_backward");
        p = f8;
        p.has_scales = 2;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "has_scales");
        p.has_scales = 1;
        p.batch = 2;
        p.scale_stride_batch = INT64_MAX;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "scale_stride_batch");
        p = usual();
        p.dtype_kv = f8.dtype_q;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "dtype_kv");
    }
    attn_problem p = usual();
    p.has_scales = 1;
    expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, "has_scales");
}

static void test_plan_options(void) {
    const attn_problem p = usual();
    const attn_plan_options init = ATTN_PLAN_OPTIONS_INIT;
    attn_plan_options o = init;
    o.threads = -1;
    expect_plan(&p, &o, ATTN_INVALID_ARGUMENT, "threads");
    o = init;
    o.isa = (attn_isa)17;
    expect_plan(&p, &o, ATTN_INVALID_ARGUMENT, "isa");
    o.isa = (attn_isa)-1;
    expect_plan(&p, &o, ATTN_INVALID_ARGUMENT, "isa");
    o = init;
    o.algorithm = (attn_algorithm)9;
    expect_plan(&p, &o, ATTN_INVALID_ARGUMENT, "algorithm");
    o.algorithm = ATTN_ALGORITHM_STANDARD;
    expect_plan(&p, &o, ATTN_UNSUPPORTED, "algorithm");
    o = init;
    o.exact_reference = 2;
    expect_plan(&p, &o, ATTN_INVALID_ARGUMENT, "exact_reference");
    o = init;
    o.workspace_limit = 1;
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    if (attn_plan_workspace_size(plan) > 1) expect_plan(&p, &o, ATTN_WORKSPACE_TOO_SMALL, "workspace_limit");
    attn_plan_destroy(plan);
    attn_problem many = usual(); /* a prime number of heads: no divisor is looked for one by one */
    many.batch = many.seqlen_q = many.seqlen_k = many.dim_qk = many.dim_v = 1;
    many.heads_q = many.heads_kv = INT32_MAX;
    expect_plan(&many, &o, ATTN_WORKSPACE_TOO_SMALL, "workspace_limit");

    expect("attn_plan_create", attn_plan_create(NULL, &p, NULL, &plan), ATTN_INVALID_ARGUMENT, "context");
    expect("attn_plan_create", attn_plan_create(context, NULL, NULL, &plan), ATTN_INVALID_ARGUMENT,
           "problem");
    expect("attn_plan_create", attn_plan_create(context, &p, NULL, NULL), ATTN_INVALID_ARGUMENT, "plan");
}

static void *no_alloc(void *user, size_t bytes) {
    (void)user;
    (void)bytes;
    return NULL;
}

static void no_free(void *user, void *pointer) {
    (void)user;
    (void)pointer;
}

static void expect_context(attn_device device, int32_t ordinal, const attn_context_options *options,
                           attn_status wanted, const char *field) {
    attn_context *made = (attn_context *)(uintptr_t)64;
    expect("attn_context_create", attn_context_create(device, ordinal, options, &made), wanted, field);
    CHECK(made == NULL, "%s: a refused context is not null", field);
}

static void test_context_options(void) {
    const attn_context_options init = ATTN_CONTEXT_OPTIONS_INIT;
    attn_context_options o = init;
    o.threads = -3;
    expect_context(ATTN_DEVICE_CPU, 0, &o, ATTN_INVALID_ARGUMENT, "threads");
    o = init;
    o.reserved = 1;
    expect_context(ATTN_DEVICE_CPU, 0, &o, ATTN_INVALID_ARGUMENT, "reserved");
    o = init;
    o.alloc = no_alloc;
    expect_context(ATTN_DEVICE_CPU, 0, &o, ATTN_INVALID_ARGUMENT, "free");
    o.alloc = NULL;
    o.free = no_free;
    expect_context(ATTN_DEVICE_CPU, 0, &o, ATTN_INVALID_ARGUMENT, "alloc");
    expect_context(ATTN_DEVICE_CPU, 1, NULL, ATTN_INVALID_ARGUMENT, "ordinal");
    expect_context(ATTN_DEVICE_CPU, -1, NULL, ATTN_INVALID_ARGUMENT, "ordinal");
    expect_context((attn_device)5, 0, NULL, ATTN_INVALID_ARGUMENT, "device");
    if (!attn_has_feature(ATTN_FEATURE_CUDA))
        expect_context(ATTN_DEVICE_CUDA, 0, NULL, ATTN_UNSUPPORTED, "CUDA");
    expect("attn_context_create", attn_context_create(ATTN_DEVICE_CPU, 0, NULL, NULL), ATTN_INVALID_ARGUMENT,
           "context");
}

static void test_run(void) {
    static float memory[2 * 5 * 4 * 8 + 1], out[2 * 3 * 4 * 8 + 1], lse[2 * 4 * 3 + 1];
    static const int32_t lengths[3] = {0, 1, 2};
    attn_problem p = usual();
    p.has_alibi = p.has_bias = p.has_mask = p.has_sinks = 1;
    p.lengths_k = ATTN_LENGTHS_PADDED;
    p.lengths_q = ATTN_LENGTHS_RAGGED;
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.bias = t.sinks = t.alibi_slopes = memory;
    t.mask = (const uint8_t *)memory;
    t.lengths_q = t.lengths_k = lengths;
    t.o = out;
    t.lse = lse;
    t.total_q = 2;
    CHECK(attn_forward(plan, &t, NULL) == ATTN_OK, "%s", attn_last_error());

#define EXPECT_RUN(field, value)                                                                             \
    do {                                                                                                     \
        attn_tensors broken = t;                                                                             \
        broken.field = value;                                                                                \
        expect("attn_forward", attn_forward(plan, &broken, NULL), ATTN_INVALID_ARGUMENT, #field);            \
    } while (0)
    const void *odd = (const char *)memory + 1;
    EXPECT_RUN(q, NULL);
    EXPECT_RUN(k, NULL);
    EXPECT_RUN(v, NULL);
    EXPECT_RUN(o, NULL);
    EXPECT_RUN(bias, NULL);
    EXPECT_RUN(mask, NULL);
    EXPECT_RUN(alibi_slopes, NULL);
    EXPECT_RUN(sinks, NULL);
    EXPECT_RUN(lengths_q, NULL);
    EXPECT_RUN(lengths_k, NULL);
    EXPECT_RUN(q, odd);
    EXPECT_RUN(k, odd);
    EXPECT_RUN(v, odd);
    EXPECT_RUN(bias, odd);
    EXPECT_RUN(o, (char *)out + 1);
    EXPECT_RUN(lse, (float *)(void *)((char *)lse + 1));
    EXPECT_RUN(lengths_k, (const int32_t *)odd);
    EXPECT_RUN(total_q, -1);
    EXPECT_RUN(total_q, ATTN_LENGTH_DEFAULT);
    EXPECT_RUN(struct_size, 12);
    EXPECT_RUN(scale, NAN);
    EXPECT_RUN(scale, -INFINITY);
    EXPECT_RUN(reserved, 1);
    expect("attn_forward", attn_forward(NULL, &t, NULL), ATTN_INVALID_ARGUMENT, "plan");
    expect("attn_forward", attn_forward(plan, NULL, NULL), ATTN_INVALID_ARGUMENT, "tensors");

    size_t bytes = attn_plan_workspace_size(plan);
    char *workspace = test_memory(bytes + 64);
    attn_execution e = ATTN_EXECUTION_INIT;
    e.workspace = workspace;
    e.workspace_bytes = bytes;
    CHECK(attn_forward(plan, &t, &e) == ATTN_OK, "%s", attn_last_error());
    if (bytes > 0) {
        e.workspace_bytes = bytes - 1;
        expect("attn_forward", attn_forward(plan, &t, &e), ATTN_WORKSPACE_TOO_SMALL, "workspace_bytes");
        e.workspace_bytes = bytes;
        e.workspace = workspace + 1;
        expect("attn_forward", attn_forward(plan, &t, &e), ATTN_INVALID_ARGUMENT, "workspace");
    }
    free(workspace);
    attn_plan_destroy(plan);
}

/* What a backward needs beyond a forward, and what it may go without. */
static void test_backward(void) {
    const int64_t huge = INT64_MAX;
    float x[2 * 5 * 4 * 9] = {0}, gradients[3][2 * 5 * 4 * 9], lse[2 * 4 * 3] = {0};
    attn_problem p = usual();
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.dout = x;
    t.o = x;
    t.lse = lse;
    CHECK(attn_plan_backward_kernel(plan)[0] == 0, "a forward's plan has %s",
          attn_plan_backward_kernel(plan));
    expect("attn_backward", attn_backward(plan, &t, NULL), ATTN_INVALID_ARGUMENT, "needs_backward");
    attn_plan_destroy(plan);

    p.needs_backward = 1;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    CHECK(strncmp(attn_plan_backward_kernel(plan), "backward_", 9) == 0, "'%s'",
          attn_plan_backward_kernel(plan));
    CHECK(strstr(attn_plan_describe(plan), attn_plan_backward_kernel(plan)) != NULL, "the description");
    CHECK(attn_backward(plan, &t, NULL) == ATTN_OK, "no gradient is wanted: %s", attn_last_error());
    t.dq = gradients[0];
    t.dk = gradients[1];
    t.dv = gradients[2];
    CHECK(attn_backward(plan, &t, NULL) == ATTN_OK, "%s", attn_last_error());
    const void *odd = (const char *)x + 1;
    struct {
        const char *name;
        const void **field;
        const void *value;
    } cases[] = {{"lse", (const void **)&t.lse, NULL},
                 {"lse", (const void **)&t.lse, odd},
                 {"o", (const void **)&t.o, NULL},
                 {"dout", &t.dout, NULL},
                 {"dout", &t.dout, odd},
                 {"dlse", (const void **)&t.dlse, odd},
                 {"dq", (const void **)&t.dq, odd},
                 {"dk", (const void **)&t.dk, odd},
                 {"dv", (const void **)&t.dv, odd}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        const void *kept = *cases[i].field;
        *cases[i].field = cases[i].value;
        expect("attn_backward", attn_backward(plan, &t, NULL), ATTN_INVALID_ARGUMENT, cases[i].name);
        *cases[i].field = kept;
    }
    expect("attn_backward", attn_backward(NULL, &t, NULL), ATTN_INVALID_ARGUMENT, "plan");
    expect("attn_backward", attn_backward(plan, NULL, NULL), ATTN_INVALID_ARGUMENT, "tensors");
    attn_plan_destroy(plan);

    attn_strides *strides[] = {&p.dout, &p.dq, &p.dk, &p.dv};
    static const char *const names[] = {"dout", "dq", "dk", "dv"};
    for (int i = 0; i < 4; ++i) {
        const attn_strides kept = *strides[i];
        strides[i]->seqlen = huge / 2;
        expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, names[i]);
        *strides[i] = kept;
        strides[i]->heads = 0;
        if (i > 0) expect_plan(&p, NULL, ATTN_INVALID_ARGUMENT, names[i]);
        *strides[i] = kept;
    }
}

static void test_accum(void) {
    float x[2 * 5 * 4 * 8] = {0};
    attn_problem p = usual(), other = usual();
    other.dim_v = 9;
    attn_plan *plan, *other_plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    NEED(attn_plan_create(context, &other, NULL, &other_plan) == ATTN_OK);
    size_t bytes = attn_accum_size(plan), other_bytes = attn_accum_size(other_plan);
    char *accum = test_memory(bytes), *alien = test_memory(other_bytes);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = x;
    t.o = x;

    expect("attn_accum_begin", attn_accum_begin(NULL, accum, bytes, NULL), ATTN_INVALID_ARGUMENT, "plan");
    expect("attn_accum_begin", attn_accum_begin(plan, NULL, bytes, NULL), ATTN_INVALID_ARGUMENT, "accum");
    expect("attn_accum_begin", attn_accum_begin(plan, accum + 4, bytes, NULL), ATTN_INVALID_ARGUMENT,
           "accum");
    expect("attn_accum_begin", attn_accum_begin(plan, accum, bytes - 1, NULL), ATTN_WORKSPACE_TOO_SMALL,
           "bytes");
    memset(accum, 0, bytes);
    expect("attn_accum_add", attn_accum_add(plan, &t, accum, NULL), ATTN_INVALID_ARGUMENT, "accum");
    NEED(attn_accum_begin(plan, accum, bytes, NULL) == ATTN_OK);
    NEED(attn_accum_begin(other_plan, alien, other_bytes, NULL) == ATTN_OK);
    expect("attn_accum_add", attn_accum_add(plan, &t, alien, NULL), ATTN_INVALID_ARGUMENT, "accum");
    expect("attn_accum_add", attn_accum_add(plan, NULL, accum, NULL), ATTN_INVALID_ARGUMENT, "tensors");
    expect("attn_accum_add", attn_accum_add(plan, &t, NULL, NULL), ATTN_INVALID_ARGUMENT, "accum");
    expect("attn_accum_merge", attn_accum_merge(plan, accum, alien, NULL), ATTN_INVALID_ARGUMENT, "accum");
    expect("attn_accum_merge", attn_accum_merge(plan, accum, NULL, NULL), ATTN_INVALID_ARGUMENT, "other");
    expect("attn_accum_merge", attn_accum_merge(NULL, accum, accum, NULL), ATTN_INVALID_ARGUMENT, "plan");
    expect("attn_accum_finish", attn_accum_finish(plan, NULL, accum, NULL), ATTN_INVALID_ARGUMENT, "tensors");
    expect("attn_accum_finish", attn_accum_finish(plan, &t, alien, NULL), ATTN_INVALID_ARGUMENT, "accum");
    attn_execution e = ATTN_EXECUTION_INIT; /* finish works in none */
    e.workspace = alien;
    CHECK(attn_accum_finish(plan, &t, accum, &e) == ATTN_OK, "%s", attn_last_error());
    t.o = NULL;
    expect("attn_accum_finish", attn_accum_finish(plan, &t, accum, NULL), ATTN_INVALID_ARGUMENT, "o");
    free(accum);
    free(alien);
    attn_plan_destroy(plan);
    attn_plan_destroy(other_plan);
}

static void test_attention(void) {
    float q[2 * 3 * 4 * 8] = {0}, kv[2 * 5 * 2 * 8], o[2 * 3 * 4 * 8];
    for (size_t i = 0; i < sizeof kv / sizeof kv[0]; ++i) kv[i] = 2.0f;
    attn_problem p = usual();
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = q;
    t.k = t.v = kv;
    t.o = o;
    for (int i = 0; i < 3; ++i) CHECK(attn_attention(&p, &t) == ATTN_OK, "%s", attn_last_error());
    CHECK(fabsf(o[0] - 2.0f) < 1e-5f, "o[0] is %g", (double)o[0]);
    expect("attn_attention", attn_attention(NULL, &t), ATTN_INVALID_ARGUMENT, "problem");
    expect("attn_attention", attn_attention(&p, NULL), ATTN_INVALID_ARGUMENT, "tensors");
    p.heads_kv = 3;
    expect("attn_attention", attn_attention(&p, &t), ATTN_INVALID_ARGUMENT, "heads_kv");
}

int main(void) {
    context = test_context(1);
    test_problem();
    test_floats();
    test_f8();
    test_plan_options();
    test_context_options();
    test_run();
    test_backward();
    test_accum();
    test_attention();
    attn_context_destroy(context);
    return test_report();
}
