/* attn run: Q, K and V in .npy files, O and LSE out, and a table of what it took. */
#include "flags.h"
#include "machine.h"
#include "npy.h"
#include "reference/rounding.h"
#include "run_inputs.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT_LIMIT = 1000 };

typedef struct settings {
    run_options inputs;
    int isa, describe;
    int64_t threads, warmup, repeat, workspace_limit;
    const char *compare;
    double tolerance; /* NAN: none */
} settings;

/* Everything that must be given back, whatever went wrong. */
typedef struct session {
    run_inputs inputs;
    machine_memory memory;
    attn_context *context;
    attn_plan *plan;
    void *o;
    float *lse;
    npy_array expected;
} session;

typedef struct outcome {
    double seconds, flops, score_bytes;
    size_t extra_bytes;
} outcome;

/* ---------------------------------------------------------------- flags */

static int parse(int argc, char **argv, settings *s) {
    static const char *const layouts[] = {"bshd", "bhsd", NULL};
    static const char *const dtypes_o[] = {"q", "f32", "f16", "bf16", NULL};
    int dtype_o = 0;
    run_options *in = &s->inputs;
    const flag_row rows[] = {
        flag_section("Files (.npy, little-endian, C order)"),
        flag_text("--q", &in->q, "FILE", "queries (batch, seqlen, heads, dim); 3 dimensions: batch 1"),
        flag_text("--k", &in->k, "FILE", "keys; heads may divide Q's; a batch of 1 serves all of Q's"),
        flag_text("--v", &in->v, "FILE", "values"),
        flag_text("--o", &in->o, "FILE", "where the output goes, in Q's layout"),
        flag_text("--lse", &in->lse, "FILE", "where the log-sum-exp goes: float32 (batch, heads, seqlen)"),
        flag_choice("--layout", &in->layout, layouts, "order of dimensions in the files; default bshd"),
        flag_switch("--bf16", &in->bf16, "uint16 arrays hold bfloat16"),
        flag_choice("--dtype-o", &dtype_o, dtypes_o, "the output's dtype; default: Q's"),
        flag_section("Mask"),
        flag_switch("--causal", &in->causal, "a query sees no key after its position, bottom right aligned"),
        flag_switch("--causal-top-left", &in->causal_top_left,
                    "causal, with query 0 at the position of key 0"),
        flag_text("--window", &in->window, "LEFT,RIGHT",
                  "keys this far before and after a query; -1: no limit"),
        flag_text("--mask", &in->mask, "FILE",
                  "bool or uint8, broadcasts to (batch, heads, seqlen_q, seqlen_k)"),
        flag_integer("--query-start", &in->query_start, -((int64_t)1 << 60), (int64_t)1 << 60, "N",
                     "position of query 0; default: its last query meets the last key"),
        flag_integer("--key-start", &in->key_start, -((int64_t)1 << 60), (int64_t)1 << 60, "N",
                     "position of key 0; default 0"),
        flag_section("Scores"),
        flag_number("--scale", &in->scale, "X", "default 1/sqrt(dim)"),
        flag_number("--softcap", &in->softcap, "X", "s = X * tanh(s / X); 0: none"),
        flag_text("--alibi", &in->alibi, "FILE", "slopes, float32 (heads) or (batch, heads)"),
        flag_text("--bias", &in->bias, "FILE", "added to scores; broadcasts as --mask does"),
        flag_text("--sinks", &in->sinks, "FILE",
                  "float32 (heads): a logit in each row's denominator, without a value"),
        flag_number("--dropout", &in->dropout, "P", "probability of dropping, below 1"),
        flag_unsigned("--seed", &in->seed, "N", "dropout's seed; default 0"),
        flag_unsigned("--offset", &in->offset, "N", "dropout's offset; default 0"),
        flag_section("Lengths"),
        flag_text("--lengths-q", &in->lengths_q, "FILE", "int32 (batch): rows of each padded sequence"),
        flag_text("--lengths-k", &in->lengths_k, "FILE", "the same of K and V"),
        flag_text("--cu-seqlens-q", &in->cu_seqlens_q, "FILE",
                  "int32 (batch + 1) from 0: sequences lie end to end in 3 dimensions"),
        flag_text("--cu-seqlens-k", &in->cu_seqlens_k, "FILE", "the same of K and V"),
        flag_section("How"),
        flag_choice("--isa", &s->isa, work_isa_names, "instruction set; default auto"),
        flag_integer("--threads", &s->threads, 0, 4096, "N", "default 0: one for each processor"),
        flag_integer("--workspace-limit", &s->workspace_limit, 0, INT64_MAX, "BYTES", "default 0: none"),
        flag_integer("--warmup", &s->warmup, 0, REPEAT_LIMIT, "N", "runs before the timed ones; default 1"),
        flag_integer("--repeat", &s->repeat, 1, REPEAT_LIMIT, "N",
                     "timed runs, of which the median counts; default 3"),
        flag_switch("--describe", &s->describe, "print the plan in words too"),
        flag_section("Check"),
        flag_text("--compare", &s->compare, "FILE",
                  "print the output's largest error and relative error norm"),
        flag_number("--tolerance", &s->tolerance, "X",
                    "with --compare: fail if the largest error is above X"),
        flag_later("--algorithm", "this version has flash2 alone"),
        flag_later("--device", "this version has the CPU alone"),
    };
    const flag_command command = {"run",
                                  "--q FILE --k FILE --v FILE [OPTION]...",
                                  "Computes attention over arrays in files and prints what it took.\n"
                                  "Without --o nothing is written.",
                                  rows,
                                  FLAG_COUNT(rows),
                                  NULL};
    const int status = flags_parse(&command, argc, argv);
    in->dtype_o = dtype_o - 1;
    if (status != FLAGS_GO) return status;
    if (in->o != NULL && in->lse != NULL && strcmp(in->o, in->lse) == 0)
        return tool_usage_error("run", "--o and --lse are both '%s'; one would take the other's place",
                                in->o);
    if (isnan(s->tolerance)) return FLAGS_GO;
    if (s->compare == NULL) return tool_usage_error("run", "--tolerance is given without --compare");
    if (s->tolerance < 0)
        return tool_usage_error("run", "--tolerance is %g; allowed is 0 and above", s->tolerance);
    return FLAGS_GO;
}

/* ---------------------------------------------------------------- run */

static int library_failed(const char *what) { return tool_failure("run", "%s: %s", what, attn_last_error()); }

static int64_t product(const int64_t *shape, int dims) {
    int64_t count = 1;
    for (int i = 0; i < dims; i++) count *= shape[i];
    return count;
}

static int make_plan(const settings *s, session *run) {
    attn_context_options context = ATTN_CONTEXT_OPTIONS_INIT;
    context.threads = (int32_t)s->threads;
    context.alloc = machine_alloc;
    context.free = machine_free;
    context.alloc_user = &run->memory;
    attn_plan_options plan = ATTN_PLAN_OPTIONS_INIT;
    plan.isa = (attn_isa)s->isa;
    plan.workspace_limit = (uint64_t)s->workspace_limit;
    if (attn_context_create(ATTN_DEVICE_CPU, 0, &context, &run->context) != ATTN_OK)
        return library_failed("cannot open the CPU");
    if (attn_plan_create(run->context, &run->inputs.problem, &plan, &run->plan) != ATTN_OK)
        return library_failed("cannot plan");
    return TOOL_OK;
}

static int make_outputs(const settings *s, session *run) {
    run_inputs *in = &run->inputs;
    /* Rows beyond a sequence's length are not written by a run: 0 there, and in the LSE what a row
     * that sees nothing has. */
    const size_t o_count = (size_t)product(in->o_shape, in->o_dims);
    run->o = aligned_alloc(64, (o_count * work_dtype_size(in->view_o.dtype) / 64 + 1) * 64);
    if (run->o == NULL) return tool_failure("run", "no memory for the output's %zu elements", o_count);
    memset(run->o, 0, o_count * work_dtype_size(in->view_o.dtype));
    in->tensors.o = run->o;
    if (s->inputs.lse == NULL) return TOOL_OK;
    const size_t lse_count = (size_t)product(in->lse_shape, in->lse_dims);
    run->lse = aligned_alloc(64, (lse_count * sizeof(float) / 64 + 1) * 64);
    if (run->lse == NULL)
        return tool_failure("run", "no memory for the log-sum-exp's %zu elements", lse_count);
    for (size_t i = 0; i < lse_count; i++) run->lse[i] = -INFINITY;
    in->tensors.lse = run->lse;
    return TOOL_OK;
}

static int time_runs(const settings *s, session *run, outcome *out) {
    double times[REPEAT_LIMIT];
    for (int64_t i = -s->warmup; i < s->repeat; i++) {
        terminal_progress((double)(i + s->warmup), (double)(s->warmup + s->repeat),
                          i < 0 ? "warm-up" : "timing");
        const double start = machine_seconds();
        if (attn_forward(run->plan, &run->inputs.tensors, NULL) != ATTN_OK)
            return library_failed("cannot run");
        if (i >= 0) times[i] = machine_seconds() - start;
    }
    terminal_progress_clear();
    out->seconds = machine_median(times, (size_t)s->repeat);
    out->extra_bytes = atomic_load(&run->memory.peak);

    const attn_problem *p = &run->inputs.problem;
    out->flops = out->score_bytes = 0;
    for (int64_t b = 0; b < p->batch && p->seqlen_q > 0; b++) {
        const run_sequence seq = run_inputs_sequence(&run->inputs, b);
        const double visible = work_visible(p, seq.seqlen_q, seq.seqlen_k, run->inputs.tensors.query_start,
                                            run->inputs.tensors.key_start);
        out->flops += 2.0 * visible * (double)p->heads_q * (double)(p->dim_qk + p->dim_v);
        out->score_bytes += 4.0 * (double)p->heads_q * (double)seq.seqlen_q * (double)seq.seqlen_k;
    }
    return TOOL_OK;
}

/* ---------------------------------------------------------------- results */

static int save(const char *option, const char *path, npy_type type, int dims, const int64_t *shape,
                const void *data) {
    char message[NPY_MESSAGE_SIZE];
    if (path == NULL || npy_save(path, type, dims, shape, data, message)) return TOOL_OK;
    return tool_failure("run", "%s %s: %s", option, path, message);
}

static int save_outputs(const settings *s, const session *run) {
    static const npy_type types[] = {[ATTN_F32] = NPY_F4, [ATTN_F16] = NPY_F2, [ATTN_BF16] = NPY_U2};
    const run_inputs *in = &run->inputs;
    const int status = save("--o", s->inputs.o, types[in->view_o.dtype], in->o_dims, in->o_shape, run->o);
    if (status != TOOL_OK) return status;
    return save("--lse", s->inputs.lse, NPY_F4, in->lse_dims, in->lse_shape, run->lse);
}

static void line(const char *name, const char *format, ...) TOOL_PRINTF(2);

static void line(const char *name, const char *format, ...) {
    va_list arguments;
    printf("  %-13s ", name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static void print_table(const settings *s, const session *run, const outcome *out) {
    const attn_problem *p = &run->inputs.problem;
    char extra[TERMINAL_BYTES_SIZE], work[TERMINAL_BYTES_SIZE], scores[TERMINAL_BYTES_SIZE];
    const int ragged = p->lengths_q == ATTN_LENGTHS_RAGGED;
    printf("%sattn run%s\n", terminal_bold(stdout), terminal_plain(stdout));
    line("queries", "batch %lld, seqlen %s%lld, heads %lld, dim %lld, %s", (long long)p->batch,
         p->lengths_q == ATTN_LENGTHS_FULL ? "" : "up to ", (long long)p->seqlen_q, (long long)p->heads_q,
         (long long)p->dim_qk, work_dtype_name(p->dtype_q));
    if (ragged) line("", "%lld rows end to end", (long long)run->inputs.view_q.seqlen);
    line("keys, values", "seqlen %s%lld, heads %lld, dim %lld and %lld, %s",
         p->lengths_k == ATTN_LENGTHS_FULL ? "" : "up to ", (long long)p->seqlen_k, (long long)p->heads_kv,
         (long long)p->dim_qk, (long long)p->dim_v, work_dtype_name(p->dtype_kv));
    line("mask", "%s%s%s%s",
         s->inputs.causal_top_left ? "causal, top left"
         : s->inputs.causal        ? "causal"
                                   : "none",
         s->inputs.window != NULL ? ", window " : "", s->inputs.window != NULL ? s->inputs.window : "",
         s->inputs.mask != NULL ? ", from a file" : "");
    line("kernel", "%s", attn_plan_kernel(run->plan));
    line("time", "%.3f ms (median of %lld)", out->seconds * 1e3, (long long)s->repeat);
    line("speed", "%.1f GFLOP/s", out->seconds > 0 ? out->flops / out->seconds * 1e-9 : 0.0);
    line("extra memory", "%s at the peak, %s of it workspace",
         terminal_bytes((double)out->extra_bytes, extra),
         terminal_bytes((double)attn_plan_workspace_size(run->plan), work));
    line("score matrix", "%s in float32 would be %.3g times the extra memory",
         terminal_bytes(out->score_bytes, scores),
         out->extra_bytes > 0 ? out->score_bytes / (double)out->extra_bytes : 0.0);
    if (s->describe) printf("\n%s\n", attn_plan_describe(run->plan));
}

/* ---------------------------------------------------------------- compare */

typedef struct difference {
    double largest, square, square_expected;
    int64_t wrong; /* places where one is NaN or infinite and the other is not the same */
} difference;

static void add_difference(difference *d, double got, double expected) {
    if (isfinite(got) && isfinite(expected)) {
        d->largest = fmax(d->largest, fabs(got - expected));
        d->square += (got - expected) * (got - expected);
        d->square_expected += expected * expected;
    } else if (!(got == expected || (isnan(got) && isnan(expected)))) {
        d->wrong++;
    }
}

/* Rows beyond a sequence's length do not count. */
static int compare(const settings *s, session *run) {
    if (s->compare == NULL) return TOOL_OK;
    char message[NPY_MESSAGE_SIZE];
    const run_inputs *in = &run->inputs;
    const run_view *o = &in->view_o;
    run_view e;
    if (!npy_load(s->compare, &run->expected, message))
        return tool_failure("run", "--compare %s: %s", s->compare, message);
    if (!run_view_of("--compare", s->compare, &run->expected, &s->inputs, &e)) return TOOL_FAILED;
    if (e.batch != o->batch || e.seqlen != o->seqlen || e.heads != o->heads || e.dim != o->dim) {
        npy_array output = {.dims = in->o_dims};
        char a[NPY_SHAPE_TEXT_SIZE], b[NPY_SHAPE_TEXT_SIZE];
        memcpy(output.shape, in->o_shape, sizeof in->o_shape);
        return tool_failure("run", "--compare %s: the shape is %s, the output's is %s", s->compare,
                            npy_shape_text(&run->expected, a), npy_shape_text(&output, b));
    }
    difference d = {0};
    for (int64_t b = 0; b < in->problem.batch && o->seqlen > 0; b++) {
        const run_sequence seq = run_inputs_sequence(in, b);
        for (int64_t row = seq.first_q; row < seq.first_q + seq.seqlen_q; row++)
            for (int64_t h = 0; h < o->heads; h++)
                for (int64_t i = 0; i < o->dim; i++) {
                    /* The same layout and packed, so one index serves both. */
                    const int64_t at =
                        seq.slice * o->strides.batch + row * o->strides.seqlen + h * o->strides.heads + i;
                    add_difference(&d, attni_reference_load(run->o, o->dtype, at),
                                   attni_reference_load(run->expected.data, e.dtype, at));
                }
    }
    const double relative = d.square_expected > 0 ? sqrt(d.square / d.square_expected) : sqrt(d.square);
    line("error", "largest %.3g, relative norm %.3g (against %s)", d.largest, relative, s->compare);
    if (d.wrong > 0)
        return tool_failure("run", "%lld elements are NaN or infinite where %s differs", (long long)d.wrong,
                            s->compare);
    if (!isnan(s->tolerance) && !(d.largest <= s->tolerance))
        return tool_failure("run", "the largest error is %.3g; allowed is %g", d.largest, s->tolerance);
    return TOOL_OK;
}

/* ---------------------------------------------------------------- the command */

static int work(const settings *s, session *run) {
    outcome out = {0};
    int status = run_inputs_load(&s->inputs, &run->inputs);
    if (status == TOOL_OK) status = make_plan(s, run);
    if (status == TOOL_OK) status = make_outputs(s, run);
    if (status == TOOL_OK) status = time_runs(s, run, &out);
    if (status == TOOL_OK) status = save_outputs(s, run);
    if (status != TOOL_OK) return status;
    print_table(s, run, &out);
    return compare(s, run);
}

int attn_tool_run(int argc, char **argv) {
    settings s = {.inputs = {.scale = HUGE_VAL,
                             .query_start = ATTN_POSITION_DEFAULT,
                             .key_start = ATTN_POSITION_DEFAULT},
                  .warmup = 1,
                  .repeat = 3,
                  .tolerance = NAN};
    const int parsed = parse(argc, argv, &s);
    if (parsed != FLAGS_GO) return parsed;
    session run = {.context = NULL};
    const int status = work(&s, &run);
    attn_plan_destroy(run.plan);
    attn_context_destroy(run.context);
    npy_free(&run.expected);
    run_inputs_free(&run.inputs);
    free(run.o);
    free(run.lse);
    return status;
}
