#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "trace_page.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands in the page where the JSON goes. */
static const char place[] = "\"the runs\"";

/* ---------------------------------------------------------------- JSON, with no space wasted */

static void put_text(FILE *out, const char *text) {
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++) {
        if (*c == '"' || *c == '\\' || *c == '<' || *c < ' ') /* "<" could end the script element */
            fprintf(out, "\\u%04x", (unsigned)*c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

static void put_key(FILE *out, const char *key, const char *text) {
    fprintf(out, "\"%s\":", key);
    put_text(out, text);
}

static void put_numbers(FILE *out, const float *values, int64_t count) {
    fputc('[', out);
    for (int64_t n = 0; n < count; n++) {
        if (n > 0) fputc(',', out);
        if (isfinite(values[n]))
            fprintf(out, "%.9g", (double)values[n]);
        else
            fputs(isnan(values[n]) ? "\"nan\"" : values[n] > 0 ? "\"inf\"" : "\"-inf\"", out);
    }
    fputc(']', out);
}

static void put_matrix(FILE *out, const char *key, const float *values, int64_t count) {
    fprintf(out, ",\"%s\":", key);
    put_numbers(out, values, count);
}

/* ---------------------------------------------------------------- a run */

static int same_tile(const trace_tile *a, const trace_tile *b) {
    return strcmp(a->name, b->name) == 0 && a->rows == b->rows && a->cols == b->cols &&
           (a->data == NULL || memcmp(a->data, b->data, (size_t)(a->rows * a->cols) * sizeof *a->data) == 0);
}

/* The tiles that are not as the event before left them: [place, name, rows, cols, numbers]. */
static void put_changes(FILE *out, const trace_event *event, const trace_event *before) {
    static const trace_tile none;
    const int old = before != NULL ? before->tile_count : 0;
    const int count = event->tile_count > old ? event->tile_count : old;
    int written = 0;
    fputs(",\"x\":[", out);
    for (int t = 0; t < count; t++) {
        const trace_tile *tile = t < event->tile_count ? &event->tiles[t] : &none;
        if (same_tile(tile, t < old ? &before->tiles[t] : &none)) continue;
        fprintf(out, "%s[%d,", written++ > 0 ? "," : "", t);
        put_text(out, tile->name);
        fprintf(out, ",%" PRId64 ",%" PRId64 ",", tile->rows, tile->cols);
        put_numbers(out, tile->data, tile->rows * tile->cols);
        fputc(']', out);
    }
    fputc(']', out);
}

static void put_event(FILE *out, const trace_event *event, const trace_event *before) {
    static const char *const steps[] = {
        [LAB_STEP_LOAD] = "load",
        [LAB_STEP_STORE] = "store",
        [LAB_STEP_CLEAR] = "clear",
        [LAB_STEP_SCORES] = "scores",
        [LAB_STEP_MAXIMUM] = "maximum",
        [LAB_STEP_PROBABILITIES] = "probabilities",
        [LAB_STEP_SUM] = "sum",
        [LAB_STEP_RESCALE] = "rescale",
        [LAB_STEP_ACCUMULATE] = "accumulate",
        [LAB_STEP_FINISH] = "finish",
        [LAB_STEP_GRADIENT] = "gradient",
    };
    fprintf(out, "%s\n{", before != NULL ? "," : "");
    put_key(out, "s", steps[event->step]);
    fputc(',', out);
    put_key(out, "f", event->text);
    fprintf(out,
            ",\"i\":%" PRId64 ",\"j\":%" PRId64 ",\"r\":[%" PRId64 ",%" PRId64 "],\"c\":[%" PRId64 ",%" PRId64
            "]",
            event->i, event->j, event->row, event->rows, event->key, event->keys);
    if (event->moved >= 0) {
        fputc(',', out);
        put_key(out, "a", event->array);
        fprintf(out, ",\"t\":%d,\"at\":[%" PRId64 ",%" PRId64 "],\"b\":%" PRId64, event->moved,
                event->first_row, event->first_col, event->bytes);
    }
    fprintf(out, ",\"rd\":%" PRId64 ",\"wr\":%" PRId64, event->read, event->written);
    put_changes(out, event, before);
    fputc('}', out);
}

static void put_run(FILE *out, const trace_named *named) {
    const trace_run *run = named->run;
    const trace_input *in = run->input;
    fprintf(out, "\n\"%s\":{", named->name);
    put_key(out, "algorithm", lab_algorithm_names[run->algorithm]);
    fprintf(out, ",\"maximum\":%s,", run->without_maximum ? "false" : "true");
    put_key(out, "input", in->name);
    fprintf(out, ",\"rows\":%" PRId64 ",\"keys\":%" PRId64 ",\"dim\":%" PRId64 ",\"scale\":%.9g", in->rows,
            in->keys, in->dim, (double)in->scale);
    fprintf(out,
            ",\"br\":%" PRId64 ",\"bc\":%" PRId64 ",\"fast\":%" PRId64 ",\"read\":%" PRId64
            ",\"written\":%" PRId64,
            run->tiles.br, run->tiles.bc, run->fast_peak, run->counts.read, run->counts.written);
    put_matrix(out, "Q", in->q, in->rows * in->dim);
    put_matrix(out, "K", in->k, in->keys * in->dim);
    put_matrix(out, "V", in->v, in->keys * in->dim);
    put_matrix(out, "O", run->problem.o, in->rows * in->dim);
    fputs(",\"events\":[", out);
    for (int64_t e = 0; e < run->count; e++)
        put_event(out, &run->events[e], e > 0 ? &run->events[e - 1] : NULL);
    fputs("]}", out);
}

/* ---------------------------------------------------------------- the page */

static int fail(char *message, const char *text) {
    snprintf(message, TRACE_MESSAGE_SIZE, "%s", text);
    return 0;
}

/* The runs as JSON, to be freed; null: memory ran out. */
static char *make_json(const trace_named *runs, int count, size_t *size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (out == NULL) return NULL;
    fputc('{', out);
    for (int n = 0; n < count; n++) {
        if (n > 0) fputc(',', out);
        put_run(out, &runs[n]);
    }
    fputs("\n}", out);
    const int bad = ferror(out);
    if (fclose(out) == 0 && !bad) return text;
    free(text);
    return NULL;
}

static int write_file(const char *path, const char *head, size_t head_size, const char *json,
                      size_t json_size, const char *tail) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) return 0;
    const int good = fwrite(head, 1, head_size, file) == head_size &&
                     fwrite(json, 1, json_size, file) == json_size && fputs(tail, file) >= 0;
    return (fclose(file) == 0) & good;
}

int trace_page_write(const char *path, const trace_named *runs, int count, char message[TRACE_MESSAGE_SIZE]) {
    const trace_input *in = runs[0].run->input;
    if (in->rows > TRACE_PAGE_TOKENS || in->keys > TRACE_PAGE_TOKENS || in->dim > TRACE_PAGE_DIM) {
        snprintf(message, TRACE_MESSAGE_SIZE,
                 "%" PRId64 " queries, %" PRId64 " keys and dim %" PRId64
                 "; a page shows up to %d, %d and %d",
                 in->rows, in->keys, in->dim, TRACE_PAGE_TOKENS, TRACE_PAGE_TOKENS, TRACE_PAGE_DIM);
        return 0;
    }
    const char *source = (const char *)trace_page_source, *middle = strstr(source, place);
    if (middle == NULL) return fail(message, "the page's source has no place for the runs");
    size_t json_size = 0;
    char *json = make_json(runs, count, &json_size);
    if (json == NULL) return fail(message, "memory ran out");
    const size_t head_size = (size_t)(middle - source);
    const char *tail = middle + strlen(place);
    const size_t size = head_size + json_size + strlen(tail);
    int done = 0;
    if (size > TRACE_PAGE_LIMIT)
        snprintf(message, TRACE_MESSAGE_SIZE,
                 "the page would take %zu bytes and may take %d; larger tiles make fewer steps", size,
                 TRACE_PAGE_LIMIT);
    else if (!write_file(path, source, head_size, json, json_size, tail))
        fail(message, strerror(errno));
    else
        done = 1;
    free(json);
    return done;
}
