#include "bench_report.h"

#include "attn/attn.h"
#include "machine.h"
#include "terminal.h"
#include "tool.h"

#include <errno.h>
#include <string.h>

/* The keys of a row, of JSON and CSV alike. */
typedef enum key_type { KEY_TEXT, KEY_INTEGER, KEY_NUMBER, KEY_BOOLEAN } key_type;

typedef struct key_value {
    const char *key;
    key_type type;
    const char *text;
    int64_t integer;
    double number;
} key_value;

enum { KEY_COUNT = 27 };

static key_value text_of(const char *key, const char *value) {
    return (key_value){key, KEY_TEXT, value, 0, 0};
}
static key_value integer_of(const char *key, int64_t value) {
    return (key_value){key, KEY_INTEGER, NULL, value, 0};
}
static key_value number_of(const char *key, double value) {
    return (key_value){key, KEY_NUMBER, NULL, 0, value};
}
static key_value boolean_of(const char *key, int value) {
    return (key_value){key, KEY_BOOLEAN, NULL, value, 0};
}

static void list_keys(const bench_row *r, key_value keys[KEY_COUNT]) {
    const key_value all[KEY_COUNT] = {
        text_of("op", r->op),
        text_of("device", r->device),
        text_of("kernel", r->kernel),
        text_of("algorithm", r->algorithm),
        text_of("dtype", r->dtype),
        integer_of("batch", r->shape.batch),
        integer_of("heads_q", r->shape.heads_q),
        integer_of("heads_kv", r->shape.heads_kv),
        integer_of("seqlen_q", r->shape.seqlen_q),
        integer_of("seqlen_k", r->shape.seqlen_k),
        integer_of("dim_qk", r->shape.dim_qk),
        integer_of("dim_v", r->shape.dim_v),
        boolean_of("causal", r->shape.causal),
        integer_of("threads", r->threads),
        number_of("ms_median", r->ms_median),
        number_of("ms_min", r->ms_min),
        number_of("gflops", r->gflops),
        number_of("gbps", r->gbps),
        number_of("peak_gflops", r->peak_gflops),
        number_of("fraction_of_peak", r->fraction_of_peak),
        integer_of("extra_bytes", r->extra_bytes),
        text_of("dtype_kv", r->dtype_kv),
        text_of("peak_kind", r->peak_kind),
        number_of("peak_gbps", r->peak_gbps),
        integer_of("runs", r->runs),
        integer_of("caches", r->caches),
        number_of("ms_per_gscore",
                  r->ms_median / ((double)r->shape.batch * (double)r->shape.heads_q *
                                  (double)r->shape.seqlen_q * (double)r->shape.seqlen_k * 1e-9)),
    };
    memcpy(keys, all, sizeof all);
}

/* ---------------------------------------------------------------- JSON */

static void write_machine(json *out, const bench_report *report) {
    char name[MACHINE_NAME_SIZE], version[32];
    const int number = (int)attn_version();
    snprintf(version, sizeof version, "%d.%d.%d", number / 10000, number / 100 % 100, number % 100);
    json_open(out, NULL, '{');
    json_open(out, "machine", '{');
    json_text(out, "cpu", machine_name(name));
    json_integer(out, "processors", machine_processors());
    json_integer(out, "last_level_cache_bytes", machine_cache_bytes());
    if (report->gpu[0] != 0) json_text(out, "gpu", report->gpu);
    json_text(out, "library", version);
    json_boolean(out, "openmp", attn_has_feature(ATTN_FEATURE_OPENMP) != 0);
    json_text(out, "command", report->command);
    json_close(out, '}');
    json_open(out, "rows", '[');
}

static void write_json_row(json *out, const bench_row *row) {
    key_value keys[KEY_COUNT];
    list_keys(row, keys);
    json_open(out, NULL, '{');
    for (int i = 0; i < KEY_COUNT; i++) {
        switch (keys[i].type) {
        case KEY_TEXT: json_text(out, keys[i].key, keys[i].text); break;
        case KEY_INTEGER: json_integer(out, keys[i].key, keys[i].integer); break;
        case KEY_NUMBER: json_number(out, keys[i].key, keys[i].number); break;
        case KEY_BOOLEAN: json_boolean(out, keys[i].key, (int)keys[i].integer); break;
        }
    }
    json_close(out, '}');
}

/* ---------------------------------------------------------------- CSV */

static void write_csv_text(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text != 0; text++) fprintf(file, *text == '"' ? "\"%c" : "%c", *text);
    fputc('"', file);
}

static void write_csv_header(FILE *file) {
    const bench_row none = {
        .op = "", .device = "", .kernel = "", .algorithm = "", .dtype = "", .dtype_kv = "", .peak_kind = ""};
    key_value keys[KEY_COUNT];
    list_keys(&none, keys);
    for (int i = 0; i < KEY_COUNT; i++) fprintf(file, "%s,", keys[i].key);
    fputs("cpu,gpu,command\n", file);
}

/* Machine and command stand in every row, so that rows of several files can be put together. */
static void write_csv_row(const bench_report *report, const bench_row *row) {
    char name[MACHINE_NAME_SIZE];
    key_value keys[KEY_COUNT];
    list_keys(row, keys);
    for (int i = 0; i < KEY_COUNT; i++) {
        switch (keys[i].type) {
        case KEY_TEXT: fputs(keys[i].text, report->csv); break;
        case KEY_INTEGER: fprintf(report->csv, "%lld", (long long)keys[i].integer); break;
        case KEY_NUMBER: fprintf(report->csv, "%.6g", keys[i].number); break;
        case KEY_BOOLEAN: fputs(keys[i].integer ? "true" : "false", report->csv); break;
        }
        fputc(',', report->csv);
    }
    write_csv_text(report->csv, machine_name(name));
    fputc(',', report->csv);
    write_csv_text(report->csv, report->gpu);
    fputc(',', report->csv);
    write_csv_text(report->csv, report->command);
    fputc('\n', report->csv);
}

/* ---------------------------------------------------------------- table */

/* "extra" is memory beyond the inputs and outputs, "scores" what the float32 score matrix would take. */

static void print_header(const bench_report *report) {
    char name[MACHINE_NAME_SIZE], cache[TERMINAL_BYTES_SIZE];
    printf("%s, %d processors, last-level cache %s\n", machine_name(name), machine_processors(),
           terminal_bytes((double)machine_cache_bytes(), cache));
    if (report->gpu[0] != 0) printf("%s\n", report->gpu);
    printf("%s%-8s %-30s %-9s %-20s %3s %10s %10s %8s %7s %7s  %-18s %9s %9s%s\n", terminal_bold(stdout),
           "op", "B,Hq,Hkv,Sq,Sk,D[,Dv]", "dtype", "kernel", "thr", "median ms", "min ms", "GFLOP/s", "GB/s",
           "of peak", "peak", "extra", "scores", terminal_plain(stdout));
    fflush(stdout);
}

static void print_row(const bench_row *r) {
    char shape[BENCH_SHAPE_TEXT_SIZE], dtype[16], peak[48], extra[TERMINAL_BYTES_SIZE],
        scores[TERMINAL_BYTES_SIZE];
    const bench_shape *s = &r->shape;
    const double score_bytes =
        4.0 * (double)s->batch * (double)s->heads_q * (double)s->seqlen_q * (double)s->seqlen_k;
    snprintf(dtype, sizeof dtype, r->dtype == r->dtype_kv ? "%s" : "%s/%s", r->dtype, r->dtype_kv);
    if (r->peak_gbps > 0)
        snprintf(peak, sizeof peak, "%.1f GB/s %s", r->peak_gbps, r->peak_kind);
    else if (r->peak_gflops > 0)
        snprintf(peak, sizeof peak, "%.0f %s", r->peak_gflops, r->peak_kind);
    else
        snprintf(peak, sizeof peak, "%s", r->peak_kind);
    terminal_progress_clear();
    printf("%-8s %-30s %-9s %-20s %3d %10.3f %10.3f %8.1f %7.2f %6.1f%%  %-18s %9s %9s\n", r->op,
           bench_shape_text(s, shape), dtype, r->kernel, r->threads, r->ms_median, r->ms_min, r->gflops,
           r->gbps, r->fraction_of_peak * 100, peak, terminal_bytes((double)r->extra_bytes, extra),
           terminal_bytes(score_bytes, scores));
    fflush(stdout);
}

/* ---------------------------------------------------------------- report */

static FILE *open_file(const char *option, const char *path) {
    FILE *file = fopen(path, "w");
    if (file == NULL) tool_failure("bench", "%s %s: cannot open: %s", option, path, strerror(errno));
    return file;
}

int bench_report_open(bench_report *report, const char *json_path, const char *csv_path, const char *gpu,
                      int argc, char **argv) {
    memset(report, 0, sizeof *report);
    report->gpu = gpu;
    report->json_path = json_path;
    report->csv_path = csv_path;
    size_t used = (size_t)snprintf(report->command, sizeof report->command, "attn");
    for (int i = 0; i < argc && used < sizeof report->command; i++)
        used += (size_t)snprintf(report->command + used, sizeof report->command - used, " %s", argv[i]);
    if (json_path != NULL && (report->json.file = open_file("--json", json_path)) == NULL) return TOOL_FAILED;
    if (csv_path != NULL && (report->csv = open_file("--csv", csv_path)) == NULL) return TOOL_FAILED;
    if (report->json.file != NULL) write_machine(&report->json, report);
    if (report->csv != NULL) write_csv_header(report->csv);
    print_header(report);
    return TOOL_OK;
}

void bench_report_row(bench_report *report, const bench_row *row) {
    print_row(row);
    if (report->json.file != NULL) write_json_row(&report->json, row);
    if (report->csv != NULL) write_csv_row(report, row);
}

static int close_file(const char *option, const char *path, FILE *file) {
    const int wrong = ferror(file);
    if (fclose(file) == 0 && !wrong) return TOOL_OK;
    return tool_failure("bench", "%s %s: cannot write: %s", option, path, strerror(errno));
}

int bench_report_close(bench_report *report) {
    int status = TOOL_OK;
    if (report->json.file != NULL) {
        if (report->json.depth == 2) {
            json_close(&report->json, ']');
            json_close(&report->json, '}');
        }
        status = close_file("--json", report->json_path, report->json.file);
    }
    if (report->csv != NULL) {
        const int closed = close_file("--csv", report->csv_path, report->csv);
        if (status == TOOL_OK) status = closed;
    }
    return status;
}
