/* The host side of the CUDA back end: contexts, parameters, capture. cuda_host_test SCENARIO. */
#define _DEFAULT_SOURCE
#include "cuda_host.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

#include "properties/packed.h"
#include "reference/problems.h"

/* ---------------------------------------------------------------- contexts and streams */

static void contexts(void) {
    attn_context *context = open_device(0, NULL);
    CHECK(fake_current() == NULL && fake_retains() == 1, "opened: current %p, %d retains", fake_current(),
          fake_retains());
    CHECK(strstr(attn_context_describe(context), "Fake GPU 0"), "%s", attn_context_describe(context));
    attn_context_destroy(context);
    CHECK(fake_retains() == 0 && fake_current() == NULL, "%d retains", fake_retains());

    void *own = fake_context(0), *other = fake_context(1);
    fake_set_current(own);
    context = open_device(0, NULL);
    CHECK(fake_retains() == 0, "a primary context was made beside the caller's");
    CHECK(strstr(attn_context_describe(context), "the caller's own"), "%s", attn_context_describe(context));
    fake_set_current(other); /* runs and plans go to own, and put other back */
    attn_problem problem = small_problem();
    CHECK(make_plan(context, &problem) == ATTN_OK, "%s", attn_last_error());
    CHECK(fake_current() == other, "the caller's context was not put back");
    attn_context_destroy(context);
    CHECK(fake_current() == other && fake_modules() == 0, "%d modules", fake_modules());

    fake_set_current(other); /* of another device: the primary one of ours */
    context = open_device(0, NULL);
    CHECK(fake_retains() == 1 && fake_current() == other, "%d retains", fake_retains());
    attn_context_destroy(context);

    fake_set_current(NULL);
    context = open_device(0, fake_stream(own)); /* the stream's */
    CHECK(fake_retains() == 0, "%d retains", fake_retains());
    attn_context_destroy(context);
    context = open_device(0, NULL); /* keeps the primary one alive for a second */
    fake_set_current(fake_primary(0));
    attn_context *second = open_device(0, NULL);
    CHECK(fake_retains() == 2, "%d retains", fake_retains());
    attn_context_destroy(context);
    attn_context_destroy(second);
    CHECK(fake_retains() == 0, "%d retains", fake_retains());

    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    options.stream = fake_stream(other);
    CHECK(attn_context_create(ATTN_DEVICE_CUDA, 0, &options, &context) == ATTN_INVALID_ARGUMENT &&
              says("device 1"),
          "%s", attn_last_error());
    CHECK(attn_context_create(ATTN_DEVICE_CUDA, 7, NULL, &context) == ATTN_NO_DEVICE && says("has 2 devices"),
          "%s", attn_last_error());
    fake_fail("cuDevicePrimaryCtxRetain", 0, 2);
    fake_set_current(NULL);
    CHECK(attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context) == ATTN_OUT_OF_MEMORY, "%s",
          attn_last_error());
    CHECK(fake_retains() == 0, "%d retains", fake_retains());
}

/* ---------------------------------------------------------------- problems against the oracle */

/* A copy of a case's buffers whose tensors begin at multiples of 16 bytes, as a device's often do. */
typedef struct aligned_case {
    void *memory[ATTNI_PROBLEMS_BUFFERS];
    attn_tensors tensors;
} aligned_case;

static void *align_one(aligned_case *copy, const attni_problems_case *made, int which, size_t skew) {
    const attni_problems_buffer *buffer = &made->buffers[which];
    if (!buffer->bytes) return NULL;
    unsigned char *memory = copy->memory[which] = test_memory(buffer->bytes + 32);
    unsigned char *begin = memory + (16 - buffer->offset % 16) % 16 + skew;
    memcpy(begin, buffer->memory, buffer->bytes);
    return begin + buffer->offset;
}

static void align_case(aligned_case *copy, const attni_problems_case *made, size_t bias_skew) {
    memset(copy, 0, sizeof *copy);
    copy->tensors = made->tensors;
    copy->tensors.q = align_one(copy, made, ATTNI_PROBLEMS_Q, 0);
    copy->tensors.k = align_one(copy, made, ATTNI_PROBLEMS_K, 0);
    copy->tensors.v = align_one(copy, made, ATTNI_PROBLEMS_V, 0);
    copy->tensors.o = align_one(copy, made, ATTNI_PROBLEMS_O, 0);
    if (made->problem.has_bias) copy->tensors.bias = align_one(copy, made, ATTNI_PROBLEMS_BIAS, bias_skew);
}

static void unalign_output(aligned_case *copy, attni_problems_case *made) {
    attni_problems_buffer *o = &made->buffers[ATTNI_PROBLEMS_O];
    if (o->bytes) memcpy(o->memory, (unsigned char *)copy->tensors.o - o->offset, o->bytes);
    for (int i = 0; i < ATTNI_PROBLEMS_BUFFERS; i++) free(copy->memory[i]);
}

static void run_aligned(const attn_plan *plan, attni_problems_case *made, size_t bias_skew) {
    aligned_case copy;
    attni_problems_poison(made);
    align_case(&copy, made, bias_skew);
    const attn_status ran = attn_forward(plan, &copy.tensors, NULL);
    CHECK(ran == ATTN_OK, "%s: %s", made->text, attn_last_error());
    unalign_output(&copy, made);
}

static void problems(void) {
    attn_context *context = open_device(0, NULL);
    enum { GENERAL = 300, FAST = 40 };
    int run = 0, fast = 0, refused = 0, hopper = 0, is_hopper;
    for (uint64_t seed = 0; run - fast < GENERAL || fast < FAST; seed++) {
        attni_problems_case made;
        NEED(attni_problems_make(&made, seed, NULL) == 0);
        attn_plan *plan;
        const attn_status status = attn_plan_create(context, &made.problem, NULL, &plan);
        if (status != ATTN_OK) {
            CHECK(status == ATTN_UNSUPPORTED || made.problem.seqlen_q == 0, "%s: %s", made.text,
                  attn_last_error());
            refused++;
            attni_problems_free(&made);
            continue;
        }
        const int is_fast = strcmp(attn_plan_kernel(plan), "forward_sm80_general") != 0;
        is_hopper = strcmp(attn_plan_kernel(plan), "forward_sm90") == 0;
        if (!is_fast && run - fast >= GENERAL) {
            attn_plan_destroy(plan);
            attni_problems_free(&made);
            continue;
        }
        double ratio;
        char sentence[512];
        run_aligned(plan, &made, 0);
        CHECK(attni_problems_verify(&made, &ratio, sentence, sizeof sentence), "%s", sentence);
        run++;
        fast += is_fast;
        hopper += is_hopper;
        attn_plan_destroy(plan);
        attni_problems_free(&made);
    }
    printf("%d problems, %d of them on fast variants, %d of these on forward_sm90; %d refused\n", run, fast,
           hopper, refused);
    CHECK(hopper > 0, "no problem reached forward_sm90");
    attn_context_destroy(context);
    CHECK(fake_modules() == 0, "%d modules are left", fake_modules());
}

/* forward_sm90's ways to launch, on problems drawn for a device. The fake kernels look at what each variant relies on. */
static void hopper(void) {
    static const char *const ways[] = {"_lengths", "_packed", "_bias", "_general", "_window"};
    enum { WAYS = sizeof ways / sizeof ways[0], WANTED = 12 };
    const attni_problems_limits limits = {.work = 20000, .device = 1};
    attn_context *context = open_device(0, NULL);
    int runs[WAYS] = {0}, left = WAYS;
    for (uint64_t seed = 0; left > 0 && seed < 100000; seed++) {
        attni_problems_case made;
        NEED(attni_problems_make(&made, seed, &limits) == 0);
        attn_plan *plan;
        int wanted = 0;
        if (attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK) {
            const char *name = strstr(attn_plan_describe(plan), "forward_sm90_");
            char word[100] = "";
            if (name) sscanf(name, "%99[a-z0-9_]", word);
            for (int i = 0; i < WAYS; i++) {
                if (!strstr(word, ways[i]) || runs[i] >= WANTED) continue;
                left -= ++runs[i] == WANTED;
                wanted = 1;
            }
            if (wanted) {
                char sentence[512];
                double ratio;
                CHECK(strcmp(attn_plan_kernel(plan), "forward_sm90") == 0, "%s", attn_plan_kernel(plan));
                const size_t skew = strstr(word, "_bias") && seed % 2 ? 2 : 0; /* bytes */
                const int launches = fake_calls("cuLaunchKernel");
                run_aligned(plan, &made, skew);
                if (skew && fake_calls("cuLaunchKernel") > launches)
                    CHECK(strstr(fake_last_launch()->name, "sm80_"), "%s", fake_last_launch()->name);
                CHECK(attni_problems_verify(&made, &ratio, sentence, sizeof sentence), "%s: %s", word,
                      sentence);
            }
            attn_plan_destroy(plan);
        }
        attni_problems_free(&made);
    }
    for (int i = 0; i < WAYS; i++) CHECK(runs[i] == WANTED, "%d problems reached %s", runs[i], ways[i]);
    attn_context_destroy(context);
}

/* Keys in pieces, two accumulators merged, against one forward. */
static void pieces(void) {
    attn_context *context = open_device(0, NULL);
    attn_problem p = small_problem();
    enum { B = 2, H = 3, SQ = 5, SK = 11, D = 64 };
    p.batch = B;
    p.heads_q = p.heads_kv = H;
    p.seqlen_q = SQ;
    p.seqlen_k = SK;
    p.mask = ATTN_MASK_CAUSAL;
    p.has_sinks = 1;
    const size_t q_count = B * SQ * H * D, k_count = B * SK * H * D;
    uint16_t *q = test_memory(q_count * 2), *k = test_memory(k_count * 2), *v = test_memory(k_count * 2);
    uint16_t *o = test_memory(q_count * 2), *whole = test_memory(q_count * 2);
    float lse[B * H * SQ], whole_lse[B * H * SQ];
    const float sinks[H] = {0.5f, -1.0f, 2.0f};
    for (size_t i = 0; i < q_count; i++) q[i] = (uint16_t)(0x3c00 + (i * 2654435761u >> 8) % 0x300);
    for (size_t i = 0; i < k_count; i++) {
        k[i] = (uint16_t)(0x3c00 + (i * 40503u >> 3) % 0x300);
        v[i] = (uint16_t)(0x3e00 + (i * 2246822519u >> 9) % 0x180);
    }
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = q, t.k = k, t.v = v, t.o = whole, t.lse = whole_lse, t.sinks = sinks;
    NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    void *first = test_memory(attn_accum_size(plan)), *second = test_memory(attn_accum_size(plan));
    memset(first, 0xff, attn_accum_size(plan));
    memset(second, 0xff, attn_accum_size(plan));
    NEED(attn_accum_begin(plan, first, attn_accum_size(plan), NULL) == ATTN_OK);
    NEED(attn_accum_begin(plan, second, attn_accum_size(plan), NULL) == ATTN_OK);
    const uint32_t *header = first;
    CHECK(header[0] == ATTNI_ACCUM_MAGIC && header[1] == 1 && header[2] == B * H * SQ && header[4] == D &&
              header[15] == 0,
          "header %x %u %u %u", header[0], header[1], header[2], header[4]);
    for (int begin = 0; begin < SK; begin += 4) {
        attn_tensors piece = t;
        piece.k = k + begin * H * D;
        piece.v = v + begin * H * D;
        piece.key_start = begin;
        piece.seqlen_k = begin + 4 < SK ? 4 : SK - begin;
        NEED(attn_accum_add(plan, &piece, begin == 4 ? second : first, NULL) == ATTN_OK);
    }
    NEED(attn_accum_merge(plan, first, second, NULL) == ATTN_OK);
    t.o = o;
    t.lse = lse;
    NEED(attn_accum_finish(plan, &t, first, NULL) == ATTN_OK);
    for (int i = 0; i < B * H * SQ; i++)
        CHECK(fabsf(lse[i] - whole_lse[i]) < 1e-5f, "lse %d: %g and %g", i, (double)lse[i],
              (double)whole_lse[i]);
    for (size_t i = 0; i < q_count; i++)
        CHECK(abs(o[i] - whole[i]) <= 1, "o %zu: %x and %x", i, o[i], whole[i]);
    attn_plan_destroy(plan);
    free(second);
    free(q);
    free(k);
    free(v);
    free(o);
    free(whole);

    p.dim_v = 512;
    p.has_sinks = 0;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    CHECK(attn_accum_add(plan, &t, first, NULL) == ATTN_UNSUPPORTED && says("at most 256"), "%s",
          attn_last_error());
    attn_plan_destroy(plan);
    free(first);
    attn_context_destroy(context);
}

/* The algorithms that are there for measuring give the same answers, and say what they do not take. */
static void lab(void) {
    attn_context *context = open_device(0, NULL);
    attn_problem p = small_problem();
    p.mask = ATTN_MASK_CAUSAL;
    enum { B = 2, H = 3, SQ = 5, SK = 9, D = 64 };
    p.batch = B;
    p.heads_q = H;
    p.seqlen_q = SQ;
    p.seqlen_k = SK;
    const size_t q_count = B * SQ * H * D, k_count = B * SK * D;
    uint16_t *q = test_memory(q_count * 2), *k = test_memory(k_count * 2), *o[3];
    for (size_t i = 0; i < q_count; i++) q[i] = (uint16_t)(0x3c00 + (i * 2654435761u >> 8) % 0x300);
    for (size_t i = 0; i < k_count; i++) k[i] = (uint16_t)(0x3c00 + (i * 40503u >> 3) % 0x300);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = q;
    t.k = t.v = k;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    attn_plan *plan;
    for (int i = 0; i < 3; i++) {
        options.algorithm = i == 0   ? ATTN_ALGORITHM_FLASH2
                            : i == 1 ? ATTN_ALGORITHM_STANDARD
                                     : ATTN_ALGORITHM_FLASH1;
        NEED(attn_plan_create(context, &p, &options, &plan) == ATTN_OK);
        t.o = o[i] = test_memory(q_count * 2);
        fake_reset();
        CHECK(attn_forward(plan, &t, NULL) == ATTN_OK, "%s: %s", attn_plan_kernel(plan), attn_last_error());
        CHECK(fake_calls("cuLaunchKernel") == (i == 1 ? 3 : 1), "%d launches", fake_calls("cuLaunchKernel"));
        CHECK(fake_calls("cuMemAlloc_v2") == 0, "%s allocated in a run", attn_plan_kernel(plan));
        CHECK(memcmp(o[i], o[0], q_count * 2) == 0, "%s: another answer", attn_plan_kernel(plan));
        CHECK(i > 0 ? attn_plan_workspace_size(plan) > 0
                    : attn_plan_workspace_size(plan) <= 256, /* a ticket */
              "%zu bytes of workspace", attn_plan_workspace_size(plan));
        if (i > 0) {
            t.seqlen_k = 0;
            CHECK(attn_forward(plan, &t, NULL) == ATTN_UNSUPPORTED && says("key"), "%s", attn_last_error());
            t.seqlen_k = ATTN_LENGTH_DEFAULT;
            void *accum = test_memory(attn_accum_size(plan));
            CHECK(attn_accum_add(plan, &t, accum, NULL) == ATTN_UNSUPPORTED && says("FLASH2"), "%s",
                  attn_last_error());
            CHECK(attn_accum_finish(plan, &t, accum, NULL) == ATTN_UNSUPPORTED && says("FLASH2"), "%s",
                  attn_last_error());
            free(accum);
        }
        attn_plan_destroy(plan);
    }
    p.softcap = 2;
    CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_UNSUPPORTED && says("softcap"), "%s",
          attn_last_error());
    p.softcap = 0;
    p.dim_v = 128;
    CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_UNSUPPORTED && says("dim_qk"), "%s",
          attn_last_error());
    free(q);
    free(k);
    for (int i = 0; i < 3; i++) free(o[i]);
    attn_context_destroy(context);
    CHECK(fake_memory() == 0 && fake_modules() == 0, "%zu bytes, %d modules are left", fake_memory(),
          fake_modules());
}

/* ---------------------------------------------------------------- capture */

static void capture(void) {
    void *own = fake_context(0), *stream = fake_stream(own);
    attn_context *context = open_device(0, stream);
    attn_problem p = small_problem();
    uint16_t *tensor = test_memory(4 * 64 * 2);
    memset(tensor, 0, 4 * 64 * 2);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.o = tensor;
    attn_plan *plan;
    fake_reset();
    fake_begin_capture();
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    const int allocations = fake_calls("cuMemAlloc_v2"), loads = fake_calls("cuModuleLoadData");
    void *accum = test_memory(attn_accum_size(plan));
    NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    NEED(attn_accum_begin(plan, accum, attn_accum_size(plan), NULL) == ATTN_OK);
    NEED(attn_accum_add(plan, &t, accum, NULL) == ATTN_OK);
    NEED(attn_accum_merge(plan, accum, accum, NULL) == ATTN_OK);
    NEED(attn_accum_finish(plan, &t, accum, NULL) == ATTN_OK);
    CHECK(fake_end_capture() == 0, "the capture was spoiled");
    CHECK(fake_last_launch()->stream == stream && !fake_last_launch()->failed, "launched elsewhere");
    CHECK(fake_calls("cuMemAlloc_v2") == allocations && fake_calls("cuModuleLoadData") == loads,
          "a run allocated or loaded something");
    CHECK(fake_calls("cuLaunchKernel") == 4, "%d launches", fake_calls("cuLaunchKernel"));
    attn_execution execution = ATTN_EXECUTION_INIT; /* the null stream, and not the context's */
    NEED(attn_forward(plan, &t, &execution) == ATTN_OK);
    CHECK(fake_last_launch()->stream == NULL, "launched elsewhere");
    attn_plan_destroy(plan);
    free(accum);
    free(tensor);
    attn_context_destroy(context);
}

typedef struct stream_run {
    const attn_plan *plan;
    const attn_tensors *tensors;
} stream_run;

static void *run_in_own_stream(void *user) {
    const stream_run *r = user;
    attn_execution execution = ATTN_EXECUTION_INIT;
    execution.stream = (void *)(uintptr_t)2; /* CU_STREAM_PER_THREAD */
    for (int i = 0; i < 3; i++) NEED(attn_forward(r->plan, r->tensors, &execution) == ATTN_OK);
    return NULL;
}

/* Each thread's own stream is another one, though they have one number: its runs need a workspace of their own. */
static void streams_of_threads(const attn_plan *plan, const attn_tensors *t) {
    stream_run r = {plan, t};
    pthread_t thread;
    run_in_own_stream(&r);
    const int blocks = fake_blocks();
    run_in_own_stream(&r);
    CHECK(fake_blocks() == blocks, "%d blocks became %d in one stream", blocks, fake_blocks());
    NEED(pthread_create(&thread, NULL, run_in_own_stream, &r) == 0);
    pthread_join(thread, NULL);
    CHECK(fake_blocks() == blocks + 1, "%d blocks became %d", blocks, fake_blocks());
}

/* A ticket is cleared once for each block of the pool; for a caller's workspace, and under capture, every time. */
static void tickets(void) {
    attn_context *context = open_device(0, NULL);
    attn_problem p = small_problem();
    p.mask = ATTN_MASK_CAUSAL;
    p.batch = 133; /* more tiles than multiprocessors */
    const size_t rows = (size_t)(p.batch * p.heads_q * p.seqlen_q), bytes = rows * (size_t)p.dim_qk * 2;
    uint16_t *tensor = test_memory(bytes);
    memset(tensor, 0, bytes);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.o = tensor;
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    NEED(strcmp(attn_plan_kernel(plan), "forward_sm90") == 0 && attn_plan_workspace_size(plan) > 0);
    fake_reset();
    for (int i = 0; i < 3; i++) NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    CHECK(fake_calls("cuMemsetD32Async") == 1, "%d times", fake_calls("cuMemsetD32Async"));
    fake_begin_capture();
    for (int i = 0; i < 2; i++) NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    CHECK(fake_end_capture() == 0 && fake_calls("cuMemsetD32Async") == 3, "%d times",
          fake_calls("cuMemsetD32Async"));
    attn_execution execution = ATTN_EXECUTION_INIT;
    execution.workspace_bytes = attn_plan_workspace_size(plan);
    execution.workspace = test_memory(execution.workspace_bytes);
    for (int i = 0; i < 2; i++) {
        memset(execution.workspace, 0xff, execution.workspace_bytes);
        NEED(attn_forward(plan, &t, &execution) == ATTN_OK);
    }
    CHECK(fake_calls("cuMemsetD32Async") == 5, "%d times", fake_calls("cuMemsetD32Async"));
    free(execution.workspace);
    streams_of_threads(plan, &t);
    free(tensor);
    attn_plan_destroy(plan);
    attn_context_destroy(context);
}

/* Many queries, for which V is turned once, into the workspace; below a limit it is not. What says which
 * blocks are turned is cleared once for the pool's memory. */
static void turned_values(attn_context *context) {
    for (int kind = 0; kind < 8; kind++) {
        attn_problem p = ATTN_PROBLEM_INIT;
        attni_random random = {(uint64_t)kind};
        p.heads_q = 8;
        p.heads_kv = 1;
        p.seqlen_q = 1030;
        p.seqlen_k = kind & 4 ? 0 : 8;
        p.dim_qk = p.dim_v = kind & 2 ? 80 : 48;
        p.mask = kind & 1 ? ATTN_MASK_CAUSAL : ATTN_MASK_NONE;
        packed made = packed_make(&p, ATTN_F8_E4M3, &random);
        const size_t v = (size_t)(kind & 4 ? 0 : 128) * (kind & 2 ? 128 : 64);
        for (int limited = 0; limited < 2; limited++) {
            attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
            attn_plan *plan;
            options.workspace_limit = limited ? 64 : 0;
            NEED(attn_plan_create(context, &made.problem, &options, &plan) == ATTN_OK);
            const bool turned = v > 0 && !limited;
            const size_t own = attn_plan_workspace_size(plan), expected = turned ? 384 + 384 + v
                                                                          : kind & 1
                                                                              ? 64
                                                                              : 0; /* words, marks, V */
            CHECK(own == expected, "kind %d: a workspace of %zu bytes", kind, own);
            CHECK((strstr(attn_plan_describe(plan), "V is turned once") != NULL) == turned, "%s",
                  attn_plan_describe(plan));
            fake_reset();
            CHECK(attn_forward(plan, &made.tensors, NULL) == ATTN_OK, "%s", attn_last_error());
            if (turned && kind == 1) {
                attn_execution execution = ATTN_EXECUTION_INIT;
                execution.workspace_bytes = own;
                execution.workspace = test_memory(own);
                memset(execution.workspace, 1, own);
                for (int i = 0; i < 2; i++) {
                    CHECK(attn_forward(plan, &made.tensors, NULL) == ATTN_OK, "%s", attn_last_error());
                    CHECK(attn_forward(plan, &made.tensors, &execution) == ATTN_OK, "%s", attn_last_error());
                }
                CHECK(fake_calls("cuMemsetD32Async") <= 3, "%d times", fake_calls("cuMemsetD32Async"));
                free(execution.workspace);
            }
            attn_plan_destroy(plan);
        }
        packed_free(&made);
    }
}

/* q, k and v of 8 bits: another kernel, scales, maps of bytes, runs without keys. */
static void eight_bits(void) {
    const attni_problems_limits limits = {300000, 0, 1, 0, 1};
    attn_context *context = open_device(0, NULL);
    int run = 0, scaled = 0, keyless = 0;
    for (uint64_t seed = 1; run < 60; seed++) {
        attni_problems_case made;
        NEED(attni_problems_make(&made, seed, &limits) == 0);
        attn_plan *plan;
        const attn_status status = attn_plan_create(context, &made.problem, NULL, &plan);
        CHECK(status == ATTN_OK || status == ATTN_UNSUPPORTED, "%s: %s", made.text, attn_last_error());
        if (status == ATTN_OK) {
            aligned_case copy;
            double ratio;
            char sentence[512];
            CHECK(strcmp(attn_plan_kernel(plan), "forward_sm90_f8") == 0, "%s", attn_plan_kernel(plan));
            attni_problems_poison(&made);
            align_case(&copy, &made, 0);
            CHECK(attn_forward(plan, &copy.tensors, NULL) == ATTN_OK, "%s: %s", made.text, attn_last_error());
            unalign_output(&copy, &made);
            CHECK(attni_problems_verify(&made, &ratio, sentence, sizeof sentence), "%s", sentence);
            attn_plan_destroy(plan);
            run++;
            scaled += made.problem.has_scales;
            keyless += made.problem.seqlen_k == 0 || made.tensors.seqlen_k == 0;
        }
        attni_problems_free(&made);
    }
    printf("%d problems of 8 bits, %d with scales, %d without keys\n", run, scaled, keyless);
    CHECK(scaled > 0 && scaled < run, "%d of %d with scales", scaled, run);

    turned_values(context);
    attn_problem p = small_problem();
    p.dtype_q = p.dtype_kv = ATTN_F8_E4M3;
    attn_plan *plan;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    const int64_t few = p.seqlen_q;
    p.seqlen_q = 4096; /* so that V is turned once */
    for (int exact = 0; exact < 2; exact++) {
        options.exact_reference = exact;
        CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_OK, "%s", attn_last_error());
        CHECK(strstr(attn_plan_describe(plan), exact ? "scores are float32" : "scores are f16, and float32"),
              "%s", attn_plan_describe(plan));
        attn_plan_destroy(plan);
    }
    p.seqlen_q = few;
    p.softcap = 1;
    CHECK(attn_plan_create(context, &p, NULL, &plan) == ATTN_UNSUPPORTED &&
              strstr(attn_last_error(), "softcap"),
          "%s", attn_last_error());
    p.softcap = 0;
    p.dim_qk = 32;
    p.dim_v = 128;
    CHECK(attn_plan_create(context, &p, NULL, &plan) == ATTN_UNSUPPORTED && strstr(attn_last_error(), "dims"),
          "%s", attn_last_error());
    attn_context_destroy(context);
}

/* ---------------------------------------------------------------- what it takes */

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* What the host itself takes. Bounds are loose, for busy machines and sanitizers; device_test has the real ones. */
static void speed(void) {
    attn_context *context = open_device(0, NULL);
    attn_problem p = small_problem();
    p.seqlen_q = 1;
    p.seqlen_k = 0; /* so that the fake kernel has next to nothing to do */
    _Alignas(16) uint16_t tensor[64] = {0};
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.o = tensor;
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    enum { TIMES = 2000 };
    double begin = now_us();
    for (int i = 0; i < TIMES; i++) NEED(make_plan(context, &p) == ATTN_OK);
    const double plan_us = (now_us() - begin) / TIMES;
    begin = now_us();
    for (int i = 0; i < TIMES; i++) NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    const double run_us = (now_us() - begin) / TIMES;
    printf("a warm plan takes %.2f us, a run %.2f us\n", plan_us, run_us);
    CHECK(plan_us < 500, "a warm plan takes %.2f us", plan_us);
    CHECK(run_us < 100, "a run takes %.2f us", run_us);
    attn_plan_destroy(plan);
    attn_context_destroy(context);
}

int main(int argc, char **argv) {
    static const host_scenario scenarios[] = {
        {"contexts", contexts},     {"problems", problems}, {"hopper", hopper},
        {"eight_bits", eight_bits}, {"pieces", pieces},     {"lab", lab},
        {"capture", capture},       {"tickets", tickets},   {"speed", speed},
    };
    return host_main(argc, argv, scenarios, sizeof scenarios / sizeof scenarios[0]);
}
