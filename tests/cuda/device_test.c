/*
 * The CUDA back end on a device: device_test [PROBLEMS [SEED [KERNEL]]]. Below 1000 problems (a sanitizer's run) the
 * long parts are left out. With a KERNEL, its random problems alone. Without a device the exit status is 77 and the
 * last line says why.
 */
#include <math.h>
#include <time.h>

#include "core/internal.h"
#include "cuda/hopper_cuda.h"
#include "device.h"
#include "device_case.h"
#include "device_tensors.h"
#include "reference/problems.h"
#include "test.h"

static double now_us(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* A kernel that has not ended in 10 s fails by the name of what it was at; a sanitizer's may take longer. */
static void watch(const char *part, const char *problem) {
    const char *seconds = getenv("ATTN_TEST_SECONDS");
    device_watch(seconds ? (unsigned)atoi(seconds) : 10, "%s: %s", part, problem);
}

/* ---------------------------------------------------------------- random problems */

/* The kernels of the forward, and what was run on each. */
enum { KERNELS = 4, F8 = 3 };
static const char *const kernel_names[KERNELS] = {"forward_sm80", "forward_sm80_general", "forward_sm90",
                                                  "forward_sm90_f8"};

typedef struct tally {
    long long count[KERNELS];
    double worst[KERNELS];
} tally;

static int kernel_of(const attn_plan *plan) {
    for (int i = 0; i < KERNELS; i++)
        if (strcmp(attn_plan_kernel(plan), kernel_names[i]) == 0) return i;
    CHECK(0, "%s is not among the kernels that are tested", attn_plan_kernel(plan));
    return 0;
}

/*
 * forward_sm90 is compiled for every set of its options: a sample of them keeps the time short. Each option is in
 * it at the dims where its code is another, with each kind of mask at dim 64.
 */
static int is_sampled(const attn_problem *p) {
    if (attni_dtype_is_f8(p->dtype_q)) {
        const int plain = p->window_left == ATTN_WINDOW_UNLIMITED && p->dtype_o == ATTN_BF16;
        if (p->dim_qk > 128 || p->dim_v > 128) return p->dtype_q == ATTN_F8_E4M3 && plain;
        if (p->dtype_q == ATTN_F8_E5M2) return p->dim_qk > 64 && plain;
        return p->dim_qk > 64 ? p->window_left == ATTN_WINDOW_UNLIMITED || p->dtype_o == ATTN_BF16 : plain;
    }
    const attni_hopper_shape s = attni_hopper_shape_of(p);
    const int options = s.softcap + s.alibi + s.bias, others = s.lengths + s.packed;
    const int d = attni_forward_sm90_width((int)p->dim_qk);
    if (!s.general && options + others == 0 && s.mask < 2) return 1;
    if (p->dtype_q != ATTN_BF16) return s.general && d == 64;
    if (s.general) return d == 64 || d == 128 || d == 256;
    if (options > 0) return others == 0 && (d == 64 ? s.mask > 0 : d == 128 && s.mask == 1);
    if (s.packed) return d == 64 ? s.mask == !s.lengths : !s.lengths && s.mask == (d == 128);
    return d == 64 || (s.lengths ? s.mask == 1 && d != 96 && d != 192 : d == 128 || d == 256);
}

/* Exact references: a quarter of the plain problems at one width. */
static int is_exact(const attni_problems_case *made) {
    const attni_hopper_shape s = attni_hopper_shape_of(&made->problem);
    return made->seed % 4 == 0 && s.dtype == ATTN_BF16 && s.mask < 2 && s.dim_qk > 96 && s.dim_qk <= 128 &&
           !(s.general || s.softcap || s.alibi || s.bias || s.lengths || s.packed);
}

/* Runs a case if its variant is still wanted; the oracle judges. */
static void run_case(attn_context *context, attni_problems_case *made, const long long *wanted, tally *t) {
    attn_plan *plan;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    const int f8 = attni_dtype_is_f8(made->problem.dtype_q);
    if (made->seed % 2 && !f8)
        options.isa = ATTN_ISA_SM80; /* plain problems too, where sm90 would have them */
    options.exact_reference = f8 ? made->seed % 4 == 0 : is_exact(made);
    if (!device_case_is_bounded(&made->problem)) return;
    if (options.isa == ATTN_ISA_AUTO && !is_sampled(&made->problem)) return;
    const attn_status status = attn_plan_create(context, &made->problem, &options, &plan);
    if (status == ATTN_UNSUPPORTED) return;
    CHECK(status == ATTN_OK, "%s: %s", made->text, attn_last_error());
    if (status != ATTN_OK) return;
    const int kernel = kernel_of(plan);
    const int general = strstr(attn_plan_kernel(plan), "general") != NULL;
    if (t->count[kernel] < wanted[kernel]) {
        char sentence[1024];
        double ratio = 0;
        attni_problems_poison(made);
        watch(attn_plan_kernel(plan), made->text);
        CHECK(device_case_run(plan, made, !general || made->seed % 2 == 0) == ATTN_OK, "%s: %s", made->text,
              attn_last_error());
        CHECK(attni_problems_verify(made, &ratio, sentence, sizeof sentence), "%s: %s",
              attn_plan_kernel(plan), sentence);
        if (!(ratio <= t->worst[kernel])) t->worst[kernel] = ratio;
        t->count[kernel]++;
    }
    attn_plan_destroy(plan);
}

/* As many problems on each kernel that the device has, some of them of several tiles; or all on the one named. */
static void problems(attn_context *context, long long count, uint64_t seed, const char *only) {
    const attni_problems_limits usual = {300000, 0, 1, 0, 0}, large = {8000000, 0, 1, 0, 0};
    const attni_problems_limits usual_f8 = {300000, 0, 1, 0, 1}, large_f8 = {8000000, 0, 1, 0, 1};
    tally t = {0};
    const int hopper = strstr(attn_context_describe(context), "compute capability 9.0") != NULL;
    const int kernels = hopper ? KERNELS : 2;
    long long wanted[KERNELS] = {0}, left = 0;
    for (int k = 0; k < kernels; k++) {
        wanted[k] = !only ? (count + kernels - 1) / kernels : strcmp(only, kernel_names[k]) == 0 ? count : 0;
        left += wanted[k];
    }
    for (uint64_t i = 0; left > 0 && i < 200 * (uint64_t)count; i++) {
        attni_problems_case made;
        const int f8 = t.count[F8] < wanted[F8] && (i % 4 == 3 || left == wanted[F8] - t.count[F8]);
        const attni_problems_limits *limits = !f8            ? (i % 16 ? &usual : &large)
                                              : i % 64 != 15 ? &usual_f8
                                                             : &large_f8;
        NEED(attni_problems_make(&made, seed + i, limits) == 0);
        run_case(context, &made, wanted, &t);
        attni_problems_free(&made);
        left = 0;
        for (int k = 0; k < kernels; k++) left += wanted[k] - t.count[k];
    }
    for (int k = 0; k < KERNELS; k++)
        printf("%-21s %lld problems, worst error/tolerance %.3f\n", kernel_names[k], t.count[k], t.worst[k]);
}

/* ---------------------------------------------------------------- packed problems */

/* The same bits each time, whichever variant. */
static void repeats(attn_context *context, int times) {
    for (int kind = 0; kind < 6; kind++) {
        packed made =
            kind == 5 ? make_packed(1, 2, 1, 9000, 128, 0, ATTN_BF16) /* keys in pieces */
                      : make_packed(2, 6, 517, 1029, 128, kind % 4 % 2, kind == 4 ? ATTN_F8_E4M3 : ATTN_BF16);
        attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
        options.isa = kind % 4 < 2 ? ATTN_ISA_AUTO : ATTN_ISA_SM80;
        on_device d = copy_packed(&made);
        const size_t bytes = (size_t)made.o_count * 2;
        void *again = test_memory(bytes);
        attn_plan *plan;
        int different = 0;
        const attn_status status = attn_plan_create(context, &made.problem, &options, &plan);
        NEED(status == ATTN_OK || (kind == 4 && status == ATTN_UNSUPPORTED));
        for (int i = 0; status == ATTN_OK && i < times; i++) {
            device_fill(d.o, 0xff, bytes);
            NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
            device_copy_out(i == 0 ? made.o : again, d.o, bytes);
            different += i > 0 && memcmp(made.o, again, bytes) != 0;
        }
        if (status == ATTN_OK) {
            CHECK(different == 0, "%s: %d of %d runs gave other bits", attn_plan_kernel(plan), different,
                  times);
            attn_plan_destroy(plan);
        }
        free_packed(&d);
        packed_free(&made);
        free(again);
    }
}

/* Keys in pieces over two accumulators, against one forward. */
static void pieces(attn_context *context) {
    packed made = make_packed(2, 4, 130, 700, 64, 0, ATTN_BF16);
    on_device d = copy_packed(&made);
    attn_plan *plan;
    NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
    NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
    const size_t bytes = (size_t)made.o_count * 2, accum_bytes = attn_accum_size(plan), row = 4 * 64;
    device_copy_out(made.o, d.o, bytes);
    device_copy_out(made.lse, d.lse, (size_t)made.rows * 4);
    void *accums[2] = {device_alloc(accum_bytes), device_alloc(accum_bytes)};
    for (int i = 0; i < 2; i++) {
        device_fill(accums[i], 0xff, accum_bytes);
        NEED(attn_accum_begin(plan, accums[i], accum_bytes, NULL) == ATTN_OK);
    }
    for (int64_t begin = 0, piece = 0; begin < 700; piece++) {
        attn_tensors t = d.tensors;
        t.seqlen_k = attni_min(40 + 37 * piece, 700 - begin);
        t.key_start = begin;
        t.k = (const uint16_t *)d.k + begin * (int64_t)row;
        t.v = (const uint16_t *)d.v + begin * (int64_t)row;
        NEED(attn_accum_add(plan, &t, accums[piece % 2], NULL) == ATTN_OK);
        begin += t.seqlen_k;
    }
    NEED(attn_accum_merge(plan, accums[0], accums[1], NULL) == ATTN_OK);
    device_fill(d.o, 0xff, bytes);
    device_fill(d.lse, 0xff, (size_t)made.rows * 4);
    NEED(attn_accum_finish(plan, &d.tensors, accums[0], NULL) == ATTN_OK);
    uint16_t *o = test_memory(bytes);
    float *lse = test_memory((size_t)made.rows * 4);
    device_copy_out(o, d.o, bytes);
    device_copy_out(lse, d.lse, (size_t)made.rows * 4);
    double worst = 0, worst_lse = 0;
    for (int64_t i = 0; i < made.o_count; i++) {
        const double apart =
            fabs(attni_reference_load(o, ATTN_BF16, i) - attni_reference_load(made.o, ATTN_BF16, i));
        worst = test_worse(worst, apart);
    }
    for (int64_t i = 0; i < made.rows; i++) {
        const double apart = fabs((double)lse[i] - (double)made.lse[i]);
        worst_lse = test_worse(worst_lse, apart);
    }
    CHECK(worst <= packed_slack(ATTN_BF16), "o in pieces is %g apart", worst);
    CHECK(worst_lse <= 1e-5, "lse in pieces is %g apart", worst_lse);
    device_free(accums[0]);
    device_free(accums[1]);
    free(o);
    free(lse);
    attn_plan_destroy(plan);
    free_packed(&d);
    packed_free(&made);
}

/* The algorithms that are there for measuring, against FlashAttention-2, by the norm of the difference. */
static void lab(attn_context *context) {
    static const attn_algorithm algorithms[] = {ATTN_ALGORITHM_FLASH2, ATTN_ALGORITHM_STANDARD,
                                                ATTN_ALGORITHM_FLASH1};
    for (int kind = 0; kind < 4; kind++) {
        packed made = make_packed(2, 3, 200, 333, kind % 2 ? 128 : 64, 0, ATTN_BF16);
        if (kind >= 2) made.problem.mask = ATTN_MASK_NONE;
        on_device d = copy_packed(&made);
        const size_t bytes = (size_t)made.o_count * 2, lse_bytes = (size_t)made.rows * 4;
        uint16_t *o = test_memory(bytes);
        float *lse = test_memory(lse_bytes);
        for (int a = 0; a < 3; a++) {
            attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
            attn_plan *plan;
            double apart = 0, whole = 0, lse_apart = 0;
            options.algorithm = algorithms[a];
            NEED(attn_plan_create(context, &made.problem, &options, &plan) == ATTN_OK);
            device_fill(d.o, 0xff, bytes);
            device_fill(d.lse, 0xff, lse_bytes);
            NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
            device_copy_out(a == 0 ? made.o : o, d.o, bytes);
            device_copy_out(a == 0 ? made.lse : lse, d.lse, lse_bytes);
            for (int64_t i = 0; i < made.o_count && a > 0; i++) {
                const double x = attni_reference_load(made.o, ATTN_BF16, i);
                const double difference = attni_reference_load(o, ATTN_BF16, i) - x;
                apart += difference * difference;
                whole += x * x;
            }
            for (int64_t i = 0; i < made.rows && a > 0; i++) {
                const double difference = fabs((double)lse[i] - (double)made.lse[i]);
                lse_apart = test_worse(lse_apart, difference);
            }
            CHECK(sqrt(apart) <= 8e-3 * sqrt(whole), "%s: o is %g apart", attn_plan_kernel(plan),
                  sqrt(apart / whole));
            CHECK(lse_apart <= 5e-3, "%s: lse is %g apart", attn_plan_kernel(plan), lse_apart); /* S in f16 */
            attn_plan_destroy(plan);
        }
        free(o);
        free(lse);
        free_packed(&d);
        packed_free(&made);
    }
}

/* Elements past 2^31: a second batch that far away, against the same packed. */
static void far_away(attn_context *context) {
    const size_t far = ((size_t)1 << 31) + 64, bytes = (far + 300 * 2 * 64) * 2;
    if (device_free_bytes() < 4 * bytes + ((size_t)1 << 30)) {
        printf("far_away: skipped, the device has %zu MB free\n", device_free_bytes() >> 20);
        return;
    }
    packed made = make_packed(2, 2, 300, 300, 64, 0, ATTN_BF16);
    on_device d = copy_packed(&made);
    attn_plan *plan;
    NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
    NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
    attn_plan_destroy(plan);
    const size_t slice = (size_t)made.o_count; /* bytes of one batch */
    device_copy_out(made.o, d.o, 2 * slice);

    attn_problem p = made.problem;
    p.q.batch = p.k.batch = p.v.batch = p.o.batch = (int64_t)far;
    unsigned char *large[4];
    const void *from[3] = {made.q, made.k, made.v};
    for (int i = 0; i < 4; i++) {
        large[i] = device_alloc(bytes);
        NEED(large[i] != NULL);
        for (size_t b = 0; b < 2; b++) {
            if (i < 3)
                device_copy_in(large[i] + b * far * 2, (const char *)from[i] + b * slice, slice);
            else
                device_fill(large[i] + b * far * 2, 0xff, slice);
        }
    }
    attn_tensors t = d.tensors;
    t.q = large[0];
    t.k = large[1];
    t.v = large[2];
    t.o = large[3];
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    NEED(attn_forward(plan, &t, NULL) == ATTN_OK);
    char *o = test_memory(2 * slice);
    for (size_t b = 0; b < 2; b++) device_copy_out(o + b * slice, large[3] + b * far * 2, slice);
    CHECK(memcmp(o, made.o, 2 * slice) == 0, "a batch that is 2^31 elements away differs");
    attn_plan_destroy(plan);
    for (int i = 0; i < 4; i++) device_free(large[i]);
    free(o);
    free_packed(&d);
    packed_free(&made);
}

/* ---------------------------------------------------------------- capture */

typedef struct graph_calls {
    int (*stream_create)(void **stream, unsigned flags);
    int (*begin)(void *stream, int mode);
    int (*end)(void *stream, void **graph);
    int (*instantiate)(void **executable, void *graph, unsigned long long flags);
    int (*launch)(void *executable, void *stream);
    int (*wait)(void *stream);
} graph_calls;

static int find_graph_calls(graph_calls *calls) {
    static const char *const names[] = {"cuStreamCreate",     "cuStreamBeginCapture_v2",
                                        "cuStreamEndCapture", "cuGraphInstantiateWithFlags",
                                        "cuGraphLaunch",      "cuStreamSynchronize"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *symbol = device_symbol(names[i]);
        if (!symbol) return 0;
        memcpy((char *)calls + i * sizeof symbol, &symbol, sizeof symbol);
    }
    return 1;
}

/* A graph with a forward and an accumulator's whole life, and a forward of f8 where there is one, replayed over new
 * inputs. */
static void capture(attn_context *context) {
    graph_calls cuda;
    if (!find_graph_calls(&cuda)) {
        printf("capture: skipped, the driver has no graphs\n");
        return;
    }
    packed made = make_packed(1, 2, 70, 2000, 64, 0, ATTN_BF16); /* on Hopper keys go in pieces */
    on_device d = copy_packed(&made);
    void *stream = NULL, *graph = NULL, *executable = NULL, *second = device_alloc((size_t)made.o_count * 2);
    packed eight = make_packed(1, 2, 4100, 500, 128, 0, ATTN_F8_E4M3); /* the first rows see no key */
    on_device e = copy_packed(&eight);
    attn_plan *plan, *plan8;
    NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
    const int has_f8 = attn_plan_create(context, &eight.problem, NULL, &plan8) == ATTN_OK;
    void *accum = device_alloc(attn_accum_size(plan));
    NEED(cuda.stream_create(&stream, 1) == 0);
    attn_execution execution = ATTN_EXECUTION_INIT;
    execution.stream = stream;
    attn_tensors finish = d.tensors;
    finish.o = second;
    NEED(cuda.begin(stream, 0) == 0);
    attn_plan *inside; /* a plan may be made meanwhile */
    attn_problem other = made.problem;
    other.dim_v = 32;
    CHECK(attn_plan_create(context, &other, NULL, &inside) == ATTN_OK, "%s", attn_last_error());
    CHECK(attn_forward(plan, &d.tensors, &execution) == ATTN_OK, "%s", attn_last_error());
    CHECK(attn_accum_begin(plan, accum, attn_accum_size(plan), &execution) == ATTN_OK, "%s",
          attn_last_error());
    CHECK(attn_accum_add(plan, &d.tensors, accum, &execution) == ATTN_OK, "%s", attn_last_error());
    CHECK(attn_accum_finish(plan, &finish, accum, &execution) == ATTN_OK, "%s", attn_last_error());
    CHECK(!has_f8 || attn_forward(plan8, &e.tensors, &execution) == ATTN_OK, "%s", attn_last_error());
    CHECK(cuda.end(stream, &graph) == 0 && graph != NULL, "the capture was spoiled");
    attn_plan_destroy(inside);
    if (!graph) return;
    NEED(cuda.instantiate(&executable, graph, 0) == 0);
    const size_t bytes = (size_t)made.o_count * 2, bytes8 = (size_t)eight.o_count * 2;
    void *pair8[2] = {test_memory(bytes8), test_memory(bytes8)};
    uint16_t *replayed = test_memory(bytes), *eager = test_memory(bytes);
    for (int round = 0; round < 3; round++) {
        ((uint16_t *)made.q)[round] ^= 0x8000; /* new inputs in the same place */
        device_copy_in(d.q, made.q, bytes);
        device_fill(d.o, 0xff, bytes);
        device_fill(second, 0xff, bytes);
        ((unsigned char *)eight.q)[round] ^= 0x80;
        device_copy_in(e.q, eight.q, (size_t)eight.q_count);
        device_fill(e.o, 0xff, bytes8);
        device_wait();
        NEED(cuda.launch(executable, stream) == 0 && cuda.wait(stream) == 0);
        device_copy_out(replayed, d.o, bytes);
        NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
        device_copy_out(eager, d.o, bytes);
        CHECK(memcmp(replayed, eager, bytes) == 0, "round %d: the graph's forward differs", round);
        device_copy_out(replayed, second, bytes);
        if (has_f8) {
            device_copy_out(pair8[0], e.o, bytes8);
            device_fill(e.o, 0xff, bytes8);
            NEED(attn_forward(plan8, &e.tensors, NULL) == ATTN_OK);
            device_copy_out(pair8[1], e.o, bytes8);
            CHECK(memcmp(pair8[0], pair8[1], bytes8) == 0, "round %d: the graph's forward of f8 differs",
                  round);
        }
        double worst = 0;
        for (int64_t i = 0; i < made.o_count; i++) {
            const double apart = fabs(attni_reference_load(replayed, ATTN_BF16, i) -
                                      attni_reference_load(eager, ATTN_BF16, i));
            worst = test_worse(worst, apart);
        }
        CHECK(worst <= packed_slack(ATTN_BF16), "round %d: the graph's accumulator is %g apart", round,
              worst);
    }
    free(replayed);
    free(eager);
    free(pair8[0]);
    free(pair8[1]);
    device_free(accum);
    device_free(second);
    attn_plan_destroy(plan);
    if (has_f8) attn_plan_destroy(plan8);
    free_packed(&d);
    free_packed(&e);
    packed_free(&made);
    packed_free(&eight);
}

/* ---------------------------------------------------------------- what the host takes */

static double plan_ms(attn_context *context, const attn_problem *problem) {
    attn_plan *plan;
    const double begin = now_us();
    NEED(attn_plan_create(context, problem, NULL, &plan) == ATTN_OK);
    const double end = now_us();
    attn_plan_destroy(plan);
    return (end - begin) * 1e-3;
}

/* Microseconds of one forward's call, the device idle before: the median of 21 series. */
static double launch_us(const attn_plan *plan, const attn_tensors *tensors) {
    enum { SERIES = 21, CALLS = 20 };
    double series[SERIES];
    for (int i = 0; i < SERIES; i++) {
        device_wait();
        const double begin = now_us();
        for (int j = 0; j < CALLS; j++) NEED(attn_forward(plan, tensors, NULL) == ATTN_OK);
        const double took = (now_us() - begin) / CALLS;
        int at = i;
        for (; at > 0 && series[at - 1] > took; at--) series[at] = series[at - 1];
        series[at] = took;
    }
    device_wait();
    return series[SERIES / 2];
}

/* Printed, not judged: a machine under load is not a fault. The disk cache must be empty, so the caller gives
 * XDG_CACHE_HOME a new folder. */
static void speed(attn_context *context) {
    packed made = make_packed(1, 1, 16, 16, 64, 0, ATTN_BF16);
    on_device d = copy_packed(&made);
    attn_problem rare = made.problem;
    attn_context *second;
    attn_plan *plan;
    rare.dim_qk = 200; /* not embedded */
    rare.dim_v = 72;
    rare.softcap = 5;
    attn_problem several = made.problem; /* on Hopper a variant that is not embedded either */
    several.dim_qk = several.dim_v = 128;
    several.softcap = 5;
    several.has_alibi = several.has_mask = 1;
    const double compiled = plan_ms(context, &rare), compiled_several = plan_ms(context, &several);
    NEED(attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &second) == ATTN_OK);
    const double from_disk = plan_ms(second, &rare);
    enum { TIMES = 2000 };
    const double begin = now_us();
    for (int i = 0; i < TIMES; i++) (void)plan_ms(second, &rare);
    const double warm = (now_us() - begin) / TIMES;
    attn_context_destroy(second);
    NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
    NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
    printf("first plan of a variant %.0f and %.0f ms (at most 3000), from the disk cache %.1f ms (20), "
           "warm %.2f us (50); a launch %.2f us (5)\n",
           compiled, compiled_several, from_disk, warm, launch_us(plan, &d.tensors));
    attn_plan_destroy(plan);
    free_packed(&d);
    packed_free(&made);
}

int main(int argc, char **argv) {
    const long long count = argc > 1 ? atoll(argv[1]) : 1000;
    const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    const char *only = argc > 3 ? argv[3] : NULL, *reason = device_open(0);
    if (reason) {
        puts(reason);
        return 77;
    }
    attn_context *context;
    NEED(attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context) == ATTN_OK);
    printf("%s", attn_context_describe(context));
    const int whole = count >= 1000;
    watch("speed", "small ones");
    speed(context);
    problems(context, count, seed, only);
    watch("repeats", "the same bits each time");
    repeats(context, whole ? 1000 : 3);
    if (whole) { /* these use tile records again: not for racecheck */
        watch("short tiles", "many");
        device_short_tiles(context, 8);
        watch("turned values", "many keys");
        device_turned_values(context);
        watch("windows", "narrow ones");
        device_windows(context);
    }
    watch("split keys", "few queries");
    device_split_keys(context, whole ? 9 : 3);
    watch("forward_sm90_f8", "beside other kernels, repeated, extreme numbers");
    device_f8_crowded(context, whole ? 20 : 2);
    device_f8_marked_tiles(context, count >= 50 ? 6 : 2); /* the last two are large */
    device_f8_repeats(context, whole ? 1000 : 3);
    device_f8_extremes(context, count >= 100 ? 20 : 2, seed);
    watch("accumulators", "keys in pieces");
    pieces(context);
    watch("lab", "STANDARD and FLASH1");
    lab(context);
    watch("capture", "a graph");
    capture(context);
    watch("far away", "2^31 elements apart");
    if (whole) far_away(context);
    attn_context_destroy(context);
    device_close();
    return test_report();
}
