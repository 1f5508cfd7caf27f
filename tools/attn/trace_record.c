#include "trace_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy_text(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from); }

/* ---------------------------------------------------------------- the observer */

static trace_event *new_event(trace_run *run) {
    if (run->count == run->capacity) {
        const int64_t capacity = run->capacity > 0 ? 2 * run->capacity : 64;
        trace_event *grown = realloc(run->events, (size_t)capacity * sizeof *grown);
        if (grown == NULL) return NULL;
        run->events = grown;
        run->capacity = capacity;
    }
    trace_event *event = &run->events[run->count];
    memset(event, 0, sizeof *event);
    return event;
}

static int copy_tiles(trace_event *to, const lab_machine *machine) {
    size_t numbers = 0;
    for (int t = 0; t < machine->fast_count; t++)
        numbers += (size_t)(machine->fast[t].rows * machine->fast[t].cols);
    to->tile_count = machine->fast_count;
    to->tiles = calloc((size_t)machine->fast_count + 1, sizeof *to->tiles);
    to->numbers = malloc((numbers + 1) * sizeof *to->numbers);
    if (to->tiles == NULL || to->numbers == NULL) return 0;
    float *data = to->numbers;
    for (int t = 0; t < machine->fast_count; t++) {
        const lab_tile *from = &machine->fast[t];
        const size_t count = (size_t)(from->rows * from->cols);
        trace_tile *tile = &to->tiles[t];
        if (count == 0) continue; /* room that nothing has been put into */
        copy_text(tile->name, sizeof tile->name, from->name);
        tile->rows = from->rows;
        tile->cols = from->cols;
        tile->data = memcpy(data, from->data, count * sizeof *data);
        data += count;
    }
    return 1;
}

static void observe(void *user, const lab_event *from) {
    trace_run *run = user;
    trace_event *event = run->failed ? NULL : new_event(run);
    if (event == NULL || !copy_tiles(event, from->machine)) {
        if (event != NULL) free(event->tiles), free(event->numbers);
        run->failed = 1;
        return;
    }
    run->count++;
    event->step = from->step;
    copy_text(event->text, sizeof event->text, from->text);
    event->i = from->i;
    event->j = from->j;
    event->row = from->row;
    event->rows = from->rows;
    event->key = from->key;
    event->keys = from->keys;
    event->moved = from->tile != NULL ? (int)(from->tile - from->machine->fast) : -1;
    if (from->array != NULL) copy_text(event->array, sizeof event->array, from->array->name);
    event->first_row = from->first_row;
    event->first_col = from->first_col;
    event->bytes = from->bytes;
    event->read = from->machine->counts.read;
    event->written = from->machine->counts.written;
}

/* ---------------------------------------------------------------- a run */

static const char *run_lab(trace_run *run, lab_machine *machine) {
    const trace_input *in = run->input;
    const size_t queries = (size_t)(in->rows * in->dim), keys = (size_t)(in->keys * in->dim);
    if (lab_problem_make(&run->problem, in->rows, in->keys, in->dim, 0) != 0) return "memory ran out";
    memcpy(run->problem.q, in->q, queries * sizeof(float));
    memcpy(run->problem.k, in->k, keys * sizeof(float));
    memcpy(run->problem.v, in->v, keys * sizeof(float));
    run->problem.scale = in->scale;
    machine->number_bytes = 4;
    machine->rule = LAB_TILES_GIVEN;
    machine->tiles = run->tiles;
    machine->fast_bytes = INT64_MAX;
    machine->without_maximum = run->without_maximum;
    machine->observe = observe;
    machine->user = run;
    return lab_run(machine, run->algorithm, LAB_FORWARD, &run->problem);
}

const char *trace_record(trace_run *run, lab_algorithm algorithm, int without_maximum,
                         const trace_input *input, lab_tiles tiles) {
    memset(run, 0, sizeof *run);
    run->input = input;
    run->algorithm = algorithm;
    run->without_maximum = without_maximum;
    run->tiles = tiles;
    lab_machine *machine = calloc(1, sizeof *machine);
    if (machine == NULL) return "memory ran out";
    const char *message = run_lab(run, machine);
    run->counts = machine->counts;
    run->fast_peak = machine->fast_peak;
    free(machine);
    return message == NULL && run->failed ? "memory ran out" : message;
}

void trace_run_free(trace_run *run) {
    for (int64_t e = 0; e < run->count; e++) {
        free(run->events[e].tiles);
        free(run->events[e].numbers);
    }
    free(run->events);
    lab_problem_free(&run->problem);
    memset(run, 0, sizeof *run);
}

/* ---------------------------------------------------------------- looking things up */

const trace_tile *trace_find(const trace_event *event, const char *name) {
    for (int t = 0; t < event->tile_count; t++)
        if (strcmp(event->tiles[t].name, name) == 0) return &event->tiles[t];
    return NULL;
}

const trace_event *trace_last(const trace_run *run, lab_step step, int64_t i, int64_t j) {
    const trace_event *found = NULL;
    for (int64_t e = 0; e < run->count; e++) {
        const trace_event *event = &run->events[e];
        if (event->step == step && event->i == i && (j < 0 || event->j == j)) found = event;
    }
    return found;
}

const char *trace_number(float value, char text[TRACE_NUMBER_SIZE]) {
    const double size = fabs((double)value);
    if (isnan(value))
        copy_text(text, TRACE_NUMBER_SIZE, "nan");
    else if (isinf(value))
        copy_text(text, TRACE_NUMBER_SIZE, value > 0 ? "inf" : "-inf");
    else if (size < 0.005) /* no "-0.00" */
        copy_text(text, TRACE_NUMBER_SIZE, "0.00");
    else if (size < 9999.5)
        snprintf(text, TRACE_NUMBER_SIZE, "%.*f", size < 9.995 ? 2 : size < 99.95 ? 1 : 0, (double)value);
    else {
        char digits[TRACE_NUMBER_SIZE]; /* "6e+34" */
        snprintf(digits, sizeof digits, "%.0e", (double)value);
        const size_t mantissa = strcspn(digits, "e");
        snprintf(text, TRACE_NUMBER_SIZE, "%.*se%ld", (int)mantissa, digits,
                 strtol(digits + mantissa + 1, NULL, 10));
    }
    return text;
}
