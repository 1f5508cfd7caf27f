/* Problems and counts of `attn io`: the lab's counters over all heads, beside the closed formulas. */
#ifndef ATTN_TOOL_IO_COUNT_H
#define ATTN_TOOL_IO_COUNT_H

#include "lab/closed.h"
#include "lab/lab.h"

#include <stdint.h>

/* batch * heads problems of one shape, each counted as the same. */
typedef struct io_problem {
    int64_t batch, heads, rows, keys, dim;
    int number_bytes;
    lab_tile_rule rule;
    int64_t fast_bytes; /* M */
    lab_tiles tiles;    /* with LAB_TILES_GIVEN */
    int numbers;        /* runs the arithmetic too */
} io_problem;

typedef struct io_counts {
    lab_tiles tiles;
    int64_t held;           /* bytes of fast memory at most */
    lab_counts head;        /* of one head, counted */
    lab_counts closed;      /* of one head, by formula */
    double heads;           /* how many there are */
    double largest_difference; /* with numbers: of O from the definition in double */
} io_counts;

/* One algorithm, one direction. Null, or a sentence. */
const char *io_count(const io_problem *problem, lab_algorithm algorithm, lab_direction direction,
                     io_counts *counts);

/* Whether the counters agree with the formulas. */
int io_counts_agree(const io_counts *counts);

/* Bytes of slow memory over all heads. */
double io_bytes(const io_counts *counts);

/* "64 x 16 heads, 1024 queries, 1024 keys, dim 64" into text, which is returned. */
enum { IO_PROBLEM_TEXT_SIZE = 160 };
const char *io_problem_text(const io_problem *problem, char text[IO_PROBLEM_TEXT_SIZE]);

/* Null, or why a problem is too large to walk through: B,H,Sq,Sk,D and its tiles. */
const char *io_problem_refusal(const io_problem *problem);

#endif
