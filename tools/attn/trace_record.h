/*
 * What the lab's algorithms did to a small input, event by event. `attn trace` prints it and puts it into its
 * page; both read the same record, so they show the same numbers.
 */
#ifndef ATTN_TOOL_TRACE_RECORD_H
#define ATTN_TOOL_TRACE_RECORD_H

#include "lab/lab.h"

enum { TRACE_NAME_SIZE = 16 };

/* One head: q is rows x dim, k and v are keys x dim. */
typedef struct trace_input {
    const char *name; /* in words */
    int64_t rows, keys, dim;
    float scale;
    const float *q, *k, *v;
} trace_input;

/* A tile of fast memory as an event left it. */
typedef struct trace_tile {
    char name[TRACE_NAME_SIZE]; /* "Q"; "" where nothing has been put yet */
    int64_t rows, cols;
    float *data;
} trace_tile;

typedef struct trace_event {
    lab_step step;
    char text[64]; /* the step as a formula */
    int64_t i, j, row, rows, key, keys;
    char array[TRACE_NAME_SIZE]; /* LOAD and STORE: which matrix of slow memory, */
    int moved;                   /* which of the tiles, else -1, */
    int64_t first_row, first_col, bytes; /* and where it lies there */
    int64_t read, written;       /* bytes of slow memory, from the run's beginning */
    int tile_count;
    trace_tile *tiles;
    float *numbers; /* behind all tiles' data */
} trace_event;

typedef struct trace_run {
    const trace_input *input;
    lab_algorithm algorithm;
    int without_maximum; /* LAB_SIMPLE, or LAB_STANDARD without one */
    lab_tiles tiles;
    lab_counts counts;
    int64_t fast_peak; /* bytes */
    trace_event *events;
    int64_t count, capacity;
    int failed;         /* memory ran out */
    lab_problem problem; /* its arrays are the results */
} trace_run;

/* Runs an algorithm forward with these tiles. Null, or a sentence; either way trace_run_free is allowed. */
const char *trace_record(trace_run *run, lab_algorithm algorithm, int without_maximum,
                         const trace_input *input, lab_tiles tiles);
void trace_run_free(trace_run *run);

/* A tile of an event by name, or null. */
const trace_tile *trace_find(const trace_event *event, const char *name);

/* The last event of a step for row tile i and key tile j (-1: any), or null. */
const trace_event *trace_last(const trace_run *run, lab_step step, int64_t i, int64_t j);

/* A number in at most 5 characters, "-0.37", "120", "6e34", "inf", into text, which is returned. */
enum { TRACE_NUMBER_SIZE = 16 };
const char *trace_number(float value, char text[TRACE_NUMBER_SIZE]);

#endif
