/*
 * How a block of W warps shares a tile, and what that costs in shared memory. FlashAttention-2 (2023), section 3.3.
 *
 *     sliced K                              split Q
 *     keys outer, O in slow memory          queries outer, O in registers
 *
 *          K^T:  w0 | w1 | w2 | w3               K^T:  all warps
 *     Q  [ part of each row's sum ]         Q w0 [ whole rows ]
 *          all warps have all rows            w1 [ whole rows ]
 *     maxima, sums, shares of O meet in     w2 [ whole rows ]      nothing meets
 *     shared memory: two barriers a step    w3 [ whole rows ]
 *
 * Executed with numbers like the rest of the lab, W warps one after another, every access of shared memory counted.
 * A warp reads an operand of a product once a step; what it holds in registers costs nothing.
 */
#ifndef ATTN_LAB_WARP_SPLIT_H
#define ATTN_LAB_WARP_SPLIT_H

#include "lab.h"

typedef enum lab_split { LAB_SLICED_K, LAB_SPLIT_Q, LAB_SPLITS } lab_split;

extern const char *const lab_split_names[LAB_SPLITS + 1]; /* "sliced K", "split Q", null */

typedef struct lab_split_counts {
    int64_t filled;   /* bytes: tiles of Q, K, V put into shared memory */
    int64_t operands; /* bytes read for products */
    int64_t exchange; /* bytes written and read so that warps know of each other: maxima, sums, shares of O */
    int64_t barriers; /* of the whole block */
    int64_t steps; /* tiles of scores */
} lab_split_counts;

/* q, k, v give o and lse of one head. Null, or a sentence: memory ran out. */
const char *lab_split_run(lab_split split, lab_tiles tiles, int warps, int number_bytes, lab_problem *problem,
                          lab_split_counts *counts);

/* The same counts in closed form. */
lab_split_counts lab_split_closed(lab_split split, lab_tiles tiles, int warps, int number_bytes,
                                  const lab_problem *problem);

/* float32 numbers of O that a warp holds. */
int64_t lab_split_registers(lab_split split, lab_tiles tiles, int warps, int64_t dim);

#endif
