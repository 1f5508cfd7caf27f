/* Fast and slow memory, what moves between them, and the observer. */
#include "operations.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

lab_range lab_part(int64_t n, int64_t size, int64_t index) {
    const int64_t begin = index * size, left = n - begin;
    const lab_range range = {begin, left < size ? left : size};
    return range;
}

int64_t lab_parts(int64_t n, int64_t size) { return n / size + (n % size != 0); }

const char *lab_begin(lab_machine *machine, int64_t numbers) {
    const lab_counts none = {0};
    const lab_event nothing = {0};
    machine->counts = none;
    machine->event = nothing;
    machine->fast_peak = 0;
    machine->array_count = 0;
    lab_give_back_all(machine);
    lab_at(machine, -1, NULL, -1, NULL);
    machine->arena = NULL;
    machine->arena_size = numbers;
    if (machine->loops_only) return NULL;
    machine->arena = malloc((size_t)numbers * sizeof(float));
    return machine->arena != NULL ? NULL : "memory ran out";
}

void lab_end(lab_machine *machine) {
    free(machine->arena);
    machine->arena = NULL;
    machine->array_count = 0;
    lab_give_back_all(machine);
}

/* ---------------------------------------------------------------- what is where */

static lab_array *add_array(lab_machine *machine, const char *name, float *data, int64_t rows, int64_t cols,
                            int number_bytes) {
    assert(machine->array_count < LAB_ARRAY_LIMIT && (data != NULL || machine->loops_only));
    lab_array *array = &machine->arrays[machine->array_count++];
    const lab_array value = {name, data, rows, cols, number_bytes};
    *array = value;
    return array;
}

lab_array *lab_slow(lab_machine *machine, const char *name, float *data, int64_t rows, int64_t cols) {
    return add_array(machine, name, data, rows, cols, machine->number_bytes);
}

lab_array *lab_slow_statistic(lab_machine *machine, const char *name, float *data, int64_t rows) {
    return add_array(machine, name, data, rows, 1, LAB_STATISTIC_BYTES);
}

static lab_tile *add_tile(lab_machine *machine, const char *name, int64_t rows, int64_t cols,
                          int number_bytes) {
    assert(machine->fast_count < LAB_TILE_LIMIT);
    lab_tile *tile = &machine->fast[machine->fast_count++];
    const lab_tile value = {name, name, NULL, 0, 0, rows * cols, number_bytes};
    *tile = value;
    if (!machine->loops_only) {
        assert(machine->arena_used + tile->capacity <= machine->arena_size);
        tile->data = machine->arena + machine->arena_used;
        machine->arena_used += tile->capacity;
    }
    machine->fast_used += tile->capacity * number_bytes;
    if (machine->fast_used > machine->fast_peak) machine->fast_peak = machine->fast_used;
    return tile;
}

lab_tile *lab_take(lab_machine *machine, const char *name, int64_t rows, int64_t cols) {
    return add_tile(machine, name, rows, cols, machine->number_bytes);
}

lab_tile *lab_take_statistic(lab_machine *machine, const char *name, int64_t rows) {
    return add_tile(machine, name, rows, 1, LAB_STATISTIC_BYTES);
}

void lab_give_back_all(lab_machine *machine) {
    machine->fast_count = 0;
    machine->fast_used = machine->arena_used = 0;
}

const lab_tile *lab_find_tile(const lab_machine *machine, const char *name) {
    for (int i = 0; i < machine->fast_count; i++)
        if (strcmp(machine->fast[i].name, name) == 0) return &machine->fast[i];
    return NULL;
}

const lab_array *lab_find_array(const lab_machine *machine, const char *name) {
    for (int i = 0; i < machine->array_count; i++)
        if (strcmp(machine->arrays[i].name, name) == 0) return &machine->arrays[i];
    return NULL;
}

/* ---------------------------------------------------------------- the observer */

void lab_at(lab_machine *machine, int64_t i, const lab_range *rows, int64_t j, const lab_range *keys) {
    lab_event *event = &machine->event;
    event->i = rows != NULL ? i : -1;
    event->row = rows != NULL ? rows->begin : 0;
    event->rows = rows != NULL ? rows->length : 0;
    event->j = keys != NULL ? j : -1;
    event->key = keys != NULL ? keys->begin : 0;
    event->keys = keys != NULL ? keys->length : 0;
}

static void tell(lab_machine *machine, lab_step step, const char *text, const lab_tile *tile,
                 const lab_array *array, lab_range rows, lab_range cols) {
    if (machine->observe == NULL) return;
    lab_event *event = &machine->event;
    event->machine = machine;
    event->step = step;
    event->text = text;
    event->tile = tile;
    event->array = array;
    event->first_row = rows.begin;
    event->first_col = cols.begin;
    event->bytes = tile != NULL ? tile->rows * tile->cols * array->number_bytes : 0;
    machine->observe(machine->user, event);
    event->number++;
}

void lab_say(lab_machine *machine, lab_step step, const char *text) {
    const lab_range none = {0, 0};
    tell(machine, step, text, NULL, NULL, none, none);
}

/* ---------------------------------------------------------------- what moves */

void lab_load_block(lab_machine *machine, lab_tile *tile, const lab_array *array, lab_range rows,
                    lab_range cols) {
    assert(rows.length * cols.length <= tile->capacity && rows.begin + rows.length <= array->rows &&
           cols.begin + cols.length <= array->cols);
    tile->name = tile->first_name;
    tile->rows = rows.length;
    tile->cols = cols.length;
    machine->counts.read += rows.length * cols.length * array->number_bytes;
    if (!machine->loops_only)
        for (int64_t r = 0; r < rows.length; r++)
            memcpy(tile->data + r * cols.length, array->data + (rows.begin + r) * array->cols + cols.begin,
                   (size_t)cols.length * sizeof(float));
    tell(machine, LAB_STEP_LOAD, "load", tile, array, rows, cols);
}

void lab_store_block(lab_machine *machine, const lab_tile *tile, lab_array *array, lab_range rows,
                     lab_range cols) {
    assert(tile->rows == rows.length && tile->cols == cols.length &&
           rows.begin + rows.length <= array->rows && cols.begin + cols.length <= array->cols);
    machine->counts.written += rows.length * cols.length * array->number_bytes;
    if (!machine->loops_only)
        for (int64_t r = 0; r < rows.length; r++)
            memcpy(array->data + (rows.begin + r) * array->cols + cols.begin, tile->data + r * cols.length,
                   (size_t)cols.length * sizeof(float));
    tell(machine, LAB_STEP_STORE, "store", tile, array, rows, cols);
}

void lab_load(lab_machine *machine, lab_tile *tile, const lab_array *array, lab_range rows) {
    const lab_range cols = {0, array->cols};
    lab_load_block(machine, tile, array, rows, cols);
}

void lab_store(lab_machine *machine, const lab_tile *tile, lab_array *array, lab_range rows) {
    const lab_range cols = {0, array->cols};
    lab_store_block(machine, tile, array, rows, cols);
}
