/*
 * attn bench: times shapes, by turns with what the machine can do at best.
 *
 *   warm-up | ceiling | run, run, run, ... | ceiling | run, run, ... | ceiling ...
 *              10 ms       one slice, 20 ms
 *
 * Absolute figures move with the neighbours of a machine, within milliseconds; so the fraction of the peak is
 * the median over slices of the rate of their median run over the mean of the ceilings before and after it.
 *
 * On a CUDA device there is no ceiling, and events on the device keep the time: a sample is the mean of runs
 * that together take CUDA_SAMPLE seconds, so that the gaps between launches hide behind the runs.
 */
#include "bench_data.h"
#include "bench_peak.h"
#include "bench_report.h"
#include "bench_shapes.h"
#include "device.h"
#include "flags.h"
#include "machine.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <stdio.h>
#include <string.h>

#define SLICE 0.02         /* seconds of runs, one at least, between two ceilings */
#define READ_CEILING 0.01  /* seconds of reading, each loop */
#define CUDA_SAMPLE 1e-3
#define CUDA_WARMUP 0.05 /* for the clocks too */
enum { SAMPLE_LIMIT = 20000, THREAD_LIMIT = 16 };

typedef enum bench_op { OP_FORWARD, OP_DECODE, OP_BACKWARD } bench_op;

typedef struct settings {
    flag_list files, shape_texts, shape_files;
    int op; /* -1: as the shape says */
    int dtype, dtype_kv, isa, causal, device, algorithm, small_pages; /* dtype -1: as the device says */
    const char *threads_text, *json, *csv;
    int64_t threads[THREAD_LIMIT];
    size_t thread_counts;
    int64_t repeat, seed;
    double seconds;
} settings;

typedef struct samples {
    double values[SAMPLE_LIMIT];
    size_t count;
} samples;

static void add_sample(samples *s, double value) {
    if (s->count < SAMPLE_LIMIT) s->values[s->count++] = value;
}

/* ---------------------------------------------------------------- flags */

static const char *const device_names[] = {"cpu", "cuda", NULL};
static const char *const algorithm_names[] = {"auto", "standard", "flash1", "flash2", NULL};
static const char *const op_names[] = {"forward", "decode", "backward", NULL};

static int check_usage(settings *s) {
    const int cuda = s->device == (int)ATTN_DEVICE_CUDA;
    if (cuda && s->op == OP_BACKWARD)
        return tool_usage_error("bench",
                                "--op backward is the CPU's; --device cuda has none in this version");
    if (cuda && !attn_has_feature(ATTN_FEATURE_CUDA))
        return tool_usage_error("bench", "--device cuda: " TOOL_NO_CUDA);
    if (cuda && s->threads_text != NULL)
        return tool_usage_error("bench", "--threads is a CPU's; --device cuda has none");
    if (s->isa != ATTN_ISA_AUTO && work_isa_is_cuda(s->isa) != cuda)
        return tool_usage_error("bench", "--isa %s is not one of --device %s", work_isa_names[s->isa],
                                device_names[s->device]);
    if (s->dtype < 0) s->dtype = cuda ? ATTN_BF16 : ATTN_F32;
    if (s->seconds < 0)
        return tool_usage_error("bench", "--seconds is %g; allowed is 0 and above", s->seconds);
    if (s->dtype_kv < 0) s->dtype_kv = s->dtype;
    s->threads[0] = cuda ? 0 : machine_processors();
    s->thread_counts = 1;
    if (s->threads_text == NULL) return TOOL_OK;
    s->thread_counts = flags_parse_integers(s->threads_text, 1, 1024, s->threads, THREAD_LIMIT);
    if (s->thread_counts > 0) return TOOL_OK;
    return tool_usage_error("bench",
                            "--threads is '%s'; allowed are up to %d counts from 1 to 1024, as in 1,2",
                            s->threads_text, THREAD_LIMIT);
}

static int parse(int argc, char **argv, settings *s) {
    const flag_row rows[] = {
        flag_section("What"),
        flag_many("--shapes", &s->shape_files, "FILE",
                  "a shape a line, # begins a comment; may be given again"),
        flag_many("--shape", &s->shape_texts, "SHAPE", "B,Hq,Hkv,Sq,Sk,D[,Dv]; may be given again"),
        flag_choice("--op", &s->op, op_names, "default: decode where the file says so, else forward"),
        flag_choice("--dtype", &s->dtype, work_input_names,
                    "of Q and O; default f32, with cuda bf16; O of f8 is bf16"),
        flag_choice("--dtype-kv", &s->dtype_kv, work_input_names, "of K and V; default: --dtype"),
        flag_switch("--causal", &s->causal,
                    "causal mask for every shape; counted as the scores that are seen"),
        flag_section("How"),
        flag_choice("--device", &s->device, device_names, "default cpu"),
        flag_choice("--algorithm", &s->algorithm, algorithm_names,
                    "default auto; those of the papers with cuda"),
        flag_choice("--isa", &s->isa, work_isa_names, "instruction set; default auto"),
        flag_text("--threads", &s->threads_text, "N,N,..", "default: one for each processor"),
        flag_integer("--repeat", &s->repeat, 1, SAMPLE_LIMIT, "N", "at least N timed runs; default 5"),
        flag_number("--seconds", &s->seconds, "X", "and at least X seconds of them; default 1"),
        flag_switch("--small-pages", &s->small_pages,
                    "K and V in the smallest pages; default: 2 MB, where there are such"),
        flag_integer("--seed", &s->seed, 0, INT64_MAX, "N", "of the random inputs; default 1"),
        flag_section("Results"),
        flag_text("--json", &s->json, "FILE", "machine and rows"),
        flag_text("--csv", &s->csv, "FILE", "rows"),
    };
    const flag_command command = {
        "bench",
        "[OPTION]... [FILE]...",
        "Times shapes on random normal data: median and fastest, GFLOP/s, and the fraction of the\n"
        "machine's peak measured by turns with it, the median of the turns' ratios: multiply-adds on\n"
        "registers with the same number of threads for forward and backward (counted as five products),\n"
        "reading memory for decode. Decode takes turns among caches of K and V that together exceed the\n"
        "last-level cache; its GB/s count K and V once.\n"
        "In the table, extra is the memory beyond inputs and outputs at its peak, and scores what the\n"
        "float32 score matrix would take. A CUDA device is timed by its own events, without a peak.",
        rows,
        FLAG_COUNT(rows),
        &s->files};
    const int status = flags_parse(&command, argc, argv);
    return status == FLAGS_GO && check_usage(s) != TOOL_OK ? TOOL_USAGE : status;
}

static int list_shapes(const settings *s, bench_shapes *shapes) {
    int status = TOOL_OK;
    for (size_t i = 0; status == TOOL_OK && i < s->shape_files.count; i++)
        status = bench_shapes_add_file(shapes, s->shape_files.items[i]);
    for (size_t i = 0; status == TOOL_OK && i < s->files.count; i++)
        status = bench_shapes_add_file(shapes, s->files.items[i]);
    for (size_t i = 0; status == TOOL_OK && i < s->shape_texts.count; i++)
        status = bench_shapes_add(shapes, "--shape", s->shape_texts.items[i]);
    if (status == TOOL_OK && shapes->count == 0)
        status = tool_usage_error(
            "bench", "no shape is given; allowed are --shape B,Hq,Hkv,Sq,Sk,D[,Dv] and files such as"
                     " bench/shapes/cpu_forward.txt");
    for (size_t i = 0; status == TOOL_OK && i < shapes->count; i++) {
        bench_shape *shape = &shapes->items[i];
        char text[BENCH_SHAPE_TEXT_SIZE];
        shape->causal |= s->causal;
        if (s->op >= 0) shape->decode = s->op == OP_DECODE;
        if (shape->decode && s->device == (int)ATTN_DEVICE_CUDA)
            status = tool_usage_error("bench", "shape %s is decode, for which --device cuda has no kernel",
                                      bench_shape_text(shape, text));
        else if (shape->decode && shape->seqlen_q != 1)
            status = tool_usage_error("bench", "shape %s has Sq %lld; allowed is 1 with decode",
                                      bench_shape_text(shape, text), (long long)shape->seqlen_q);
    }
    return status;
}

/* ---------------------------------------------------------------- one row */

typedef struct measurement {
    const settings *settings;
    const bench_shape *shape;
    const bench_data *data; /* where the device finds it */
    int threads;
    double progress_done, progress_whole;
    machine_memory memory;
    attn_context *context;
    attn_plan *plan;
    bench_peak peak;
    samples times, rates; /* of each run; of each slice's median run, GFLOP/s or of decode GB/s */
    samples flops_peaks, read_peaks[BENCH_READ_LOOPS];
    size_t read_at; /* where in the caches the next ceiling reads */
} measurement;

static attn_problem problem_of(const settings *s, const bench_shape *shape) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = shape->batch;
    p.heads_q = shape->heads_q;
    p.heads_kv = shape->heads_kv;
    p.seqlen_q = shape->seqlen_q;
    p.seqlen_k = shape->seqlen_k;
    p.dim_qk = shape->dim_qk;
    p.dim_v = shape->dim_v;
    p.dtype_q = (attn_dtype)s->dtype;
    p.dtype_o = work_dtype_is_f8(p.dtype_q) ? ATTN_BF16 : p.dtype_q;
    p.dtype_kv = (attn_dtype)s->dtype_kv;
    p.mask = shape->causal ? ATTN_MASK_CAUSAL : ATTN_MASK_NONE;
    p.needs_backward = s->op == OP_BACKWARD;
    return p;
}

static int failed(const measurement *m, const char *what) {
    char text[BENCH_SHAPE_TEXT_SIZE];
    return tool_failure("bench", "%s: %s: %s", bench_shape_text(m->shape, text), what, attn_last_error());
}

static int is_backward(const measurement *m) { return m->settings->op == OP_BACKWARD; }

static const char *kernel_of(const measurement *m) {
    return is_backward(m) ? attn_plan_backward_kernel(m->plan) : attn_plan_kernel(m->plan);
}

static int make_plan(measurement *m) {
    const attn_problem problem = problem_of(m->settings, m->shape);
    attn_context_options context = ATTN_CONTEXT_OPTIONS_INIT;
    context.threads = (int32_t)m->threads;
    context.alloc = machine_alloc;
    context.free = machine_free;
    context.alloc_user = &m->memory;
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.isa = (attn_isa)m->settings->isa;
    options.algorithm = (attn_algorithm)m->settings->algorithm;
    if (attn_context_create((attn_device)m->settings->device, 0, &context, &m->context) != ATTN_OK)
        return failed(m, "cannot open the device");
    if (attn_plan_create(m->context, &problem, &options, &m->plan) != ATTN_OK)
        return failed(m, "cannot plan");
    m->peak = strstr(kernel_of(m), "_amx") != NULL    ? BENCH_PEAK_TILES
              : strstr(kernel_of(m), "_bf16") != NULL ? BENCH_PEAK_BF16
                                                      : BENCH_PEAK_FMA;
    return TOOL_OK;
}

static int is_on_cuda(const measurement *m) { return m->settings->device == (int)ATTN_DEVICE_CUDA; }

/* Floating-point operations of a run. */
static double flops_of(const measurement *m) {
    const bench_shape *shape = m->shape;
    const attn_problem problem = problem_of(m->settings, shape);
    const double heads = (double)shape->batch * (double)shape->heads_q;
    const double visible = heads * work_visible(&problem, shape->seqlen_q, shape->seqlen_k,
                                                ATTN_POSITION_DEFAULT, ATTN_POSITION_DEFAULT);
    /* a backward has five products to the forward's two */
    return (is_backward(m) ? 5.0 : 2.0) * visible * (double)(shape->dim_qk + shape->dim_v);
}

/* The next part of the caches, none of which is in the last-level cache when its turn comes again. */
static double read_ceiling(measurement *m, int loop) {
    const size_t all = m->data->caches * m->data->cache_bytes;
    const samples *s = &m->read_peaks[loop];
    const double wanted = s->count > 0 ? s->values[s->count - 1] * 1e9 * READ_CEILING : (double)all / 8;
    const size_t bytes = wanted<(double)all / 16 ? all / 16 : wanted>(double) all ? all : (size_t)wanted;
    if (m->read_at + bytes > all) m->read_at = 0;
    const char *from = (const char *)m->data->arena + m->read_at / 64 * 64;
    m->read_at += bytes;
    return bench_peak_read(from, bytes, m->threads, loop);
}

static void sample_ceiling(measurement *m) {
    if (m->threads > 1) machine_sleep(0.01); /* the threads of the last run may still spin */
    for (int loop = 0; m->shape->decode && loop < bench_peak_read_loops(); loop++)
        add_sample(&m->read_peaks[loop], read_ceiling(m, loop));
    if (!m->shape->decode || m->flops_peaks.count == 0)
        add_sample(&m->flops_peaks, bench_peak_gflops(m->peak, m->threads));
}

/* Of slices, each between two samples of the ceiling. */
static double fraction_of(const measurement *m, const samples *ceiling) {
    static samples ratios;
    ratios.count = 0;
    for (size_t i = 0; i < m->rates.count && i + 1 < ceiling->count; i++)
        add_sample(&ratios, 2 * m->rates.values[i] / (ceiling->values[i] + ceiling->values[i + 1]));
    return ratios.count > 0 ? machine_median(ratios.values, ratios.count) : 0;
}

/* Seconds of the device that a run took, the mean of several. */
static int time_on_cuda(measurement *m, size_t runs, double *seconds) {
    const attn_tensors tensors = bench_data_tensors(m->data, 0);
    device_start();
    for (size_t i = 0; i < runs; i++)
        if (attn_forward(m->plan, &tensors, NULL) != ATTN_OK) return failed(m, "cannot run");
    *seconds = device_stop() * 1e-6 / (double)runs;
    return TOOL_OK;
}

static int time_runs_on_cuda(measurement *m) {
    const settings *s = m->settings;
    char text[BENCH_SHAPE_TEXT_SIZE];
    double spent = 0, seconds = 0;
    bench_shape_text(m->shape, text);
    for (size_t run = 0; run < 2 || (run < 1000 && spent < CUDA_WARMUP); run++, spent += seconds)
        if (time_on_cuda(m, 1, &seconds) != TOOL_OK) return TOOL_FAILED;
    const double wanted = seconds > 0 ? CUDA_SAMPLE / seconds : 1;
    const size_t runs = wanted < 1 ? 1 : wanted > 100 ? 100 : (size_t)wanted + 1;
    for (spent = 0; m->times.count < SAMPLE_LIMIT; spent += seconds * (double)runs) {
        if (m->times.count >= (size_t)s->repeat && spent >= s->seconds) break;
        if (m->times.count % 16 == 0)
            terminal_progress(m->progress_done + (spent < s->seconds ? spent / s->seconds : 0.5),
                              m->progress_whole, text);
        if (time_on_cuda(m, runs, &seconds) != TOOL_OK) return TOOL_FAILED;
        add_sample(&m->times, seconds);
    }
    return TOOL_OK;
}

static int time_run(measurement *m, size_t run, double *seconds) {
    const attn_tensors tensors = bench_data_tensors(m->data, run);
    const double start = machine_seconds();
    const attn_status status =
        is_backward(m) ? attn_backward(m->plan, &tensors, NULL) : attn_forward(m->plan, &tensors, NULL);
    *seconds = machine_seconds() - start;
    return status == ATTN_OK ? TOOL_OK : failed(m, "cannot run");
}

static int time_runs(measurement *m) {
    static samples slice;
    const settings *s = m->settings;
    const attn_tensors first = bench_data_tensors(m->data, 0);
    char text[BENCH_SHAPE_TEXT_SIZE];
    /* in units of 10^9, as the ceilings: of decode bytes of K and V */
    const double work = (m->shape->decode ? (double)m->data->kv_bytes : flops_of(m)) * 1e-9;
    double seconds = 0;
    size_t run = 0;
    bench_shape_text(m->shape, text);
    terminal_progress(m->progress_done, m->progress_whole, text);
    /* a backward reads what a forward left */
    if (is_backward(m) && attn_forward(m->plan, &first, NULL) != ATTN_OK) return failed(m, "cannot run");
    if (time_run(m, run++, &seconds) != TOOL_OK) return TOOL_FAILED;
    const double begin = machine_seconds();
    sample_ceiling(m);
    while (m->times.count < SAMPLE_LIMIT) {
        const double past = machine_seconds() - begin;
        if (m->times.count >= (size_t)s->repeat && past >= s->seconds) break;
        terminal_progress(m->progress_done + (past < s->seconds ? past / s->seconds : 0.5), m->progress_whole,
                          text);
        /* after a pause of the threads the first run is slow; of long ones it does not matter */
        if (seconds < SLICE / 4 && time_run(m, run++, &seconds) != TOOL_OK) return TOOL_FAILED;
        slice.count = 0;
        for (double spent = 0; spent < SLICE && m->times.count < SAMPLE_LIMIT; spent += seconds) {
            if (time_run(m, run++, &seconds) != TOOL_OK) return TOOL_FAILED;
            add_sample(&m->times, seconds);
            add_sample(&slice, seconds);
        }
        add_sample(&m->rates, work / machine_median(slice.values, slice.count));
        sample_ceiling(m);
    }
    return TOOL_OK;
}

static const char *algorithm_of(const char *kernel) {
    static const char *const prefixes[][2] = {
        {"decode", "split_keys"}, {"standard", "standard"}, {"flash1", "flash1"}};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(kernel, prefixes[i][0], strlen(prefixes[i][0])) == 0) return prefixes[i][1];
    return "flash2";
}

static double minimum(const samples *s) {
    double least = s->values[0];
    for (size_t i = 1; i < s->count; i++) least = s->values[i] < least ? s->values[i] : least;
    return least;
}

static void report_row(measurement *m, bench_report *report) {
    const settings *s = m->settings;
    const bench_shape *shape = m->shape;
    const double query_bytes = (double)(m->data->q_bytes + m->data->o_bytes);
    const double bytes = is_backward(m) ? 2 * ((double)m->data->kv_bytes + query_bytes)
                                        : (double)m->data->kv_bytes + (shape->decode ? 0 : query_bytes);
    const double seconds = machine_median(m->times.values, m->times.count);
    const char *kernel = kernel_of(m);
    bench_row row = {
        .op = op_names[shape->decode    ? OP_DECODE
                       : is_backward(m) ? OP_BACKWARD
                                        : OP_FORWARD],
        .kernel = kernel,
        .device = device_names[s->device],
        .algorithm = algorithm_of(kernel),
        .dtype = work_dtype_name((attn_dtype)s->dtype),
        .dtype_kv = work_dtype_name((attn_dtype)s->dtype_kv),
        .shape = *shape,
        .threads = m->threads,
        .runs = (int)m->times.count,
        .ms_median = seconds * 1e3,
        .ms_min = minimum(&m->times) * 1e3,
        .gflops = flops_of(m) / seconds * 1e-9,
        .gbps = bytes / seconds * 1e-9,
        .peak_kind = is_on_cuda(m) ? "none" : bench_peak_name(m->peak),
        .extra_bytes = is_on_cuda(m) ? (int64_t)attn_plan_workspace_size(m->plan)
                                     : (int64_t)atomic_load(&m->memory.peak),
        .caches = (int64_t)m->data->caches,
    };
    /* before the medians, which sort */
    row.fraction_of_peak = fraction_of(m, &m->flops_peaks);
    if (!is_on_cuda(m)) row.peak_gflops = machine_median(m->flops_peaks.values, m->flops_peaks.count);
    for (int loop = 0; shape->decode && loop < bench_peak_read_loops(); loop++) {
        samples *peaks = &m->read_peaks[loop];
        const double fraction = fraction_of(m, peaks), rate = machine_median(peaks->values, peaks->count);
        row.peak_kind = "read";
        if (rate <= row.peak_gbps) continue;
        row.peak_gbps = rate;
        row.fraction_of_peak = fraction;
    }
    bench_report_row(report, &row);
}

static int measure(measurement *m, bench_report *report) {
    m->context = NULL;
    m->plan = NULL;
    m->times.count = m->rates.count = m->flops_peaks.count = m->read_at = 0;
    for (int loop = 0; loop < BENCH_READ_LOOPS; loop++) m->read_peaks[loop].count = 0;
    atomic_init(&m->memory.live, 0);
    atomic_init(&m->memory.peak, 0);
    int status = make_plan(m);
    if (status == TOOL_OK) {
        status = is_on_cuda(m) ? time_runs_on_cuda(m) : time_runs(m);
        if (status == TOOL_OK) report_row(m, report);
    }
    attn_plan_destroy(m->plan);
    attn_context_destroy(m->context);
    return status;
}

/* ---------------------------------------------------------------- the command */

static void say_caches(const bench_data *data) {
    char each[TERMINAL_BYTES_SIZE], all[TERMINAL_BYTES_SIZE];
    terminal_progress_clear();
    printf("%s%zu caches of K and V, %s each, %s in all%s\n", terminal_dim(stdout), data->caches,
           terminal_bytes((double)data->kv_bytes, each),
           terminal_bytes((double)(data->caches * data->cache_bytes), all), terminal_plain(stdout));
}

static void free_on_device(bench_data *copy) {
    device_free(copy->q);
    device_free(copy->o);
    device_free(copy->arena);
}

/* 1, or 0 if the device has no room. */
static int copy_to_device(const bench_data *data, bench_data *copy) {
    *copy = *data;
    copy->q = device_alloc(data->q_bytes);
    copy->o = device_alloc(data->o_bytes);
    copy->arena = device_alloc(data->caches * data->cache_bytes);
    if (copy->q == NULL || copy->o == NULL || copy->arena == NULL) {
        free_on_device(copy);
        return 0;
    }
    device_copy_in(copy->q, data->q, data->q_bytes);
    device_copy_in(copy->arena, data->arena, data->caches * data->cache_bytes);
    return 1;
}

static int measure_on_cuda(measurement *m, bench_report *report) {
    bench_data copy;
    char text[BENCH_SHAPE_TEXT_SIZE];
    if (!copy_to_device(m->data, &copy))
        return tool_failure("bench", "%s: no memory for the inputs on the device",
                            bench_shape_text(m->shape, text));
    m->data = &copy;
    const int status = measure(m, report);
    free_on_device(&copy);
    return status;
}

static int measure_all(const settings *s, const bench_shapes *shapes, bench_report *report) {
    static measurement m; /* some hundred kilobytes of samples */
    int status = TOOL_OK;
    m.settings = s;
    m.progress_whole = (double)(shapes->count * s->thread_counts);
    for (size_t i = 0; status == TOOL_OK && i < shapes->count; i++) {
        bench_data data;
        char text[BENCH_SHAPE_TEXT_SIZE];
        m.shape = &shapes->items[i];
        m.data = &data;
        if (!bench_data_make(&data, m.shape, m.shape->decode, (attn_dtype)s->dtype, (attn_dtype)s->dtype_kv,
                             (uint64_t)s->seed + i, s->small_pages))
            status = tool_failure("bench", "%s: no memory for the inputs", bench_shape_text(m.shape, text));
        if (status == TOOL_OK && s->op == OP_BACKWARD &&
            !bench_data_add_gradients(&data, m.shape, (attn_dtype)s->dtype, (uint64_t)s->seed + i))
            status =
                tool_failure("bench", "%s: no memory for the gradients", bench_shape_text(m.shape, text));
        if (status == TOOL_OK && m.shape->decode) say_caches(&data);
        for (size_t t = 0; status == TOOL_OK && t < s->thread_counts; t++) {
            m.threads = (int)s->threads[t];
            m.progress_done = (double)(i * s->thread_counts + t);
            status = is_on_cuda(&m) ? measure_on_cuda(&m, report) : measure(&m, report);
        }
        bench_data_free(&data);
    }
    terminal_progress_clear();
    return status;
}

/* The first line of what the device says of itself; "" for the CPU, which the report knows. */
static void name_gpu(const settings *s, char *text, size_t size) {
    attn_context *context;
    text[0] = 0;
    if (s->device == (int)ATTN_DEVICE_CPU ||
        attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context) != ATTN_OK)
        return;
    snprintf(text, size, "%s", attn_context_describe(context));
    text[strcspn(text, "\n")] = 0;
    attn_context_destroy(context);
}

static int write_report(const settings *s, const bench_shapes *shapes, int argc, char **argv) {
    bench_report report;
    char gpu[256];
    name_gpu(s, gpu, sizeof gpu);
    int status = bench_report_open(&report, s->json, s->csv, gpu, argc, argv);
    if (status == TOOL_OK) status = measure_all(s, shapes, &report);
    const int closed = bench_report_close(&report);
    return status == TOOL_OK ? closed : status;
}

int attn_tool_bench(int argc, char **argv) {
    settings s = {.op = -1, .dtype = -1, .dtype_kv = -1, .repeat = 5, .seconds = 1, .seed = 1};
    bench_shapes shapes = {NULL, 0};
    int status = parse(argc, argv, &s);
    if (status != FLAGS_GO) return status;
    status = list_shapes(&s, &shapes);
    if (status == TOOL_OK) {
        const char *no_device = s.device == (int)ATTN_DEVICE_CUDA ? device_open(0) : NULL;
        status = no_device != NULL ? tool_failure("bench", "--device cuda: %s", no_device)
                                   : write_report(&s, &shapes, argc, argv);
        if (s.device == (int)ATTN_DEVICE_CUDA && no_device == NULL) device_close();
    }
    bench_shapes_free(&shapes);
    return status;
}
