/* What an algorithm holds in fast memory, and the tiles that follow from it. */
#ifndef ATTN_LAB_TILES_H
#define ATTN_LAB_TILES_H

#include "lab.h"

/* Tiles held at once in the largest phase of an algorithm. */
typedef struct lab_held {
    int row_tiles;   /* BR x D: Q, O and their gradients */
    int key_tiles;   /* BC x D: K, V and their gradients */
    int score_tiles; /* BR x BC: S, P and their gradients */
    int statistics;  /* BR: m, l and what they need */
    int keys_outer;  /* FlashAttention's proportion: BR = min(BC, D); else BC = min(BR, D) */
} lab_held;

lab_held lab_what_is_held(lab_algorithm algorithm, lab_direction direction);

/* Bytes, and numbers, of all that is held. */
int64_t lab_held_bytes(const lab_held *held, lab_tiles tiles, int64_t dim, int number_bytes);
int64_t lab_held_numbers(const lab_held *held, lab_tiles tiles, int64_t dim);

/*
 * Standard attention works on S by whole rows, as many as fit; where not one does, row by row in pieces, and S is
 * read twice. matrices: how many rows lie side by side (S; or P and dP).
 */
typedef struct lab_strip {
    int64_t rows, cols; /* cols = keys: whole rows */
} lab_strip;

enum { LAB_STRIP_STATISTICS = 4 }; /* of a row: m, l and what they need */
lab_strip lab_choose_strip(const lab_machine *machine, int64_t rows, int64_t keys, int matrices);

/* Tiles for standard attention's products with keys outer (dV, dK): the longer side lies along the keys. */
lab_tiles lab_turn_tiles(const lab_machine *machine, int64_t rows, int64_t keys);

#endif
