/* Rows of `attn bench`: as a table on stdout, as JSON and as CSV. */
#ifndef ATTN_TOOL_BENCH_REPORT_H
#define ATTN_TOOL_BENCH_REPORT_H

#include "bench_shapes.h"
#include "json.h"

#include <stdint.h>
#include <stdio.h>

typedef struct bench_row {
    const char *op, *device, *kernel, *algorithm, *dtype, *dtype_kv;
    bench_shape shape;
    int threads, runs;
    double ms_median, ms_min, gflops, gbps;
    const char *peak_kind; /* the loop that fraction_of_peak refers to */
    double peak_gflops, peak_gbps, fraction_of_peak; /* peak_gbps: 0 where not measured */
    int64_t extra_bytes, caches;
} bench_row;

typedef struct bench_report {
    json json; /* files null where not asked for */
    FILE *csv;
    const char *gpu; /* a sentence on it; "" for rows of the CPU */
    const char *json_path, *csv_path;
    char command[512]; /* the command line */
} bench_report;

/* Exit statuses. The files are opened before anything is timed. */
int bench_report_open(bench_report *report, const char *json_path, const char *csv_path, const char *gpu,
                      int argc, char **argv);
void bench_report_row(bench_report *report, const bench_row *row);
int bench_report_close(bench_report *report);

#endif
