/*
 * The lab: the papers' algorithms over one head, as short C that reads like them, on a machine that counts.
 *
 *     slow memory  (lab_array)                     fast memory, M bytes  (lab_tile)
 *     Q K V O, statistics, S P where stored  --->  tiles; all arithmetic happens here
 *                                            <---
 *
 * Arithmetic takes tiles only and a tile is filled by lab_load only, so nothing is used that was not read and
 * counted. The operations on tiles count what they do; the algorithms only say what is done, and in what order.
 * All numbers are float. Not counted: comparisons, additions of the softmax, multiplications by the scale.
 *
 *     lab_problem problem;
 *     lab_machine machine = {.fast_bytes = 65536, .number_bytes = 4, .observe = show, .user = screen};
 *     lab_problem_make(&problem, 256, 256, 64, 1);
 *     lab_run(&machine, LAB_FLASH2, LAB_FORWARD, &problem);        problem.o, problem.lse, machine.counts
 *
 * Names: Sq x D queries, Sk x D keys and values, tiles of BR queries and BC keys, S scores, P probabilities,
 * m row maximum, l row sum. The lab is for the command and the tests; the library does not contain it.
 */
#ifndef ATTN_LAB_H
#define ATTN_LAB_H

#include <stddef.h>
#include <stdint.h>

typedef enum lab_algorithm {
    LAB_STANDARD, /* S and P are stored in slow memory */
    LAB_SIMPLE,   /* LAB_FLASH2 without the maximum: the simple exposition, which overflows; forward only */
    LAB_FLASH1,   /* keys outer, queries inner, O divided at every step */
    LAB_FLASH2,   /* queries outer, division deferred */
    LAB_LAZY,     /* LAB_FLASH2, whose reference m moves only when a score exceeds it by LAB_LAZY_LIMIT */
    LAB_ALGORITHMS
} lab_algorithm;

typedef enum lab_direction { LAB_FORWARD, LAB_BACKWARD } lab_direction;

extern const char *const lab_algorithm_names[LAB_ALGORITHMS + 1]; /* "standard" and so on, ended by null */

#define LAB_LAZY_LIMIT 5.545177f /* log(256): what l and O may grow by before they are rescaled */
enum { LAB_STATISTIC_BYTES = 4 }; /* a row's m, l, LSE, D: float32 whatever number_bytes is */

/* ---------------------------------------------------------------- the problem */

/* One head. Arrays are packed; those of a direction that is not run, and all of them if loops_only, may be null. */
typedef struct lab_problem {
    int64_t rows, keys, dim; /* Sq, Sk, D */
    float scale;
    float *q, *k, *v, *o; /* rows x dim, keys x dim, keys x dim, rows x dim */
    float *m, *l; /* rows: FlashAttention's statistics */
    float *lse; /* rows: FlashAttention-2's */
    float *s, *p; /* rows x keys: standard attention's */
    float *d_o, *d_q, *d_k, *d_v; /* as o, q, k, v */
    float *d_p, *d_s; /* rows x keys: standard attention's */
    float *delta; /* rows: D = rowsum(dO * O), FlashAttention-2's */
} lab_problem;

/* Random normal Q, K, V and dO, all outputs NaN, scale 1/sqrt(dim). 0, or -1 when memory ran out. */
int lab_problem_make(lab_problem *problem, int64_t rows, int64_t keys, int64_t dim, uint64_t seed);
void lab_problem_free(lab_problem *problem);

/* ---------------------------------------------------------------- tiles */

typedef enum lab_tile_rule {
    LAB_TILES_PAPER, /* FlashAttention's: a quarter of M for each of Q, K, V, O; S and statistics are not in it */
    LAB_TILES_FIT, /* the largest in the same proportion for which all that is held at once fits into M */
    LAB_TILES_GIVEN /* machine.tiles */
} lab_tile_rule;

typedef struct lab_tiles {
    int64_t br, bc; /* rows and keys of a tile */
} lab_tiles;

/* ---------------------------------------------------------------- the machine */

typedef struct lab_counts {
    int64_t read, written; /* bytes of slow memory */
    int64_t multiply_adds; /* of the matrix products and of D */
    int64_t exponentials, logarithms, divisions;
    int64_t rescales; /* numbers of l and O multiplied because a reference moved */
} lab_counts;

/* A matrix in slow memory. */
typedef struct lab_array {
    const char *name; /* "Q" */
    float *data;
    int64_t rows, cols;
    int number_bytes;
} lab_array;

/* A matrix in fast memory: rows x cols of it are in use, packed. A vector of the rows has cols = 1. */
typedef struct lab_tile {
    const char *name; /* "Q", "S"; S is called "P" once it is exponentiated in place */
    const char *first_name;
    float *data;
    int64_t rows, cols;
    int64_t capacity; /* numbers */
    int number_bytes;
} lab_tile;

/* What a step did. LOAD and STORE are told by lab_load and lab_store, the others by the algorithm. */
typedef enum lab_step {
    LAB_STEP_LOAD, /* a tile came from slow memory */
    LAB_STEP_STORE, /* a tile went to slow memory */
    LAB_STEP_CLEAR, /* accumulators are set to their beginning */
    LAB_STEP_SCORES, /* S = scale Q K^T */
    LAB_STEP_MAXIMUM, /* the new m */
    LAB_STEP_PROBABILITIES, /* P = exp(S - m), in S's place */
    LAB_STEP_SUM, /* the new l */
    LAB_STEP_RESCALE, /* O is taken to the new reference */
    LAB_STEP_ACCUMULATE, /* O += P V */
    LAB_STEP_FINISH, /* O / l */
    LAB_STEP_GRADIENT /* any product of the backward; the text says which */
} lab_step;

struct lab_machine;

typedef struct lab_event {
    const struct lab_machine *machine; /* its tiles, arrays and counts as the step left them */
    lab_algorithm algorithm;
    lab_direction direction;
    lab_step step;
    const char *text; /* the step as a formula, "S = scale Q K^T" */
    int64_t number; /* of this event in its run, from 0 */
    int64_t i, j; /* the row tile and the key tile at hand; -1: none */
    int64_t row, rows, key, keys; /* what they cover; rows or keys 0: none */
    const lab_tile *tile; /* LOAD and STORE: what moved, and */
    const lab_array *array; /* from or to where: */
    int64_t first_row, first_col; /* its place there */
    int64_t bytes;
} lab_event;

typedef void (*lab_observer)(void *user, const lab_event *event);

enum { LAB_TILE_LIMIT = 24, LAB_ARRAY_LIMIT = 20 };

typedef struct lab_machine {
    /* Set by the caller. */
    int64_t fast_bytes; /* M */
    int number_bytes; /* of a number of Q, K, V, O, S, P and gradients, in both memories: 2 or 4 */
    lab_tile_rule rule;
    lab_tiles tiles; /* with LAB_TILES_GIVEN; else set by lab_run */
    int loops_only; /* the same loops and counts with no arithmetic and no arrays, for problems that are too large */
    int without_maximum; /* standard attention with m = 0, which overflows as LAB_SIMPLE does */
    lab_observer observe; /* after each step; null: nobody looks */
    void *user;

    /* Results, set anew by each lab_run. */
    lab_counts counts;
    int64_t fast_peak; /* the most fast memory held at once, bytes */

    /* What is where at the moment, for observers. */
    lab_array arrays[LAB_ARRAY_LIMIT];
    lab_tile fast[LAB_TILE_LIMIT];
    int array_count, fast_count;
    int64_t fast_used; /* bytes */

    /* The lab's own. */
    lab_event event;
    float *arena;
    int64_t arena_used, arena_size; /* numbers */
    char sentence[160];
} lab_machine;

/* A tile or array by name, or null: lab_find_tile(event->machine, "S"). */
const lab_tile *lab_find_tile(const lab_machine *machine, const char *name);
const lab_array *lab_find_array(const lab_machine *machine, const char *name);

/* The tiles that lab_run will take. Null, or a sentence: M is too small for one. */
const char *lab_choose_tiles(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                             const lab_problem *problem, lab_tiles *tiles);

/*
 * Runs one algorithm over one head. A backward needs its forward's results in the problem (O with m and l, with lse,
 * or with p). Null, or a sentence: M is too small, memory ran out, LAB_SIMPLE has no backward.
 */
const char *lab_run(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                    lab_problem *problem);

#endif
