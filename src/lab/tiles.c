#include "tiles.h"

#include <stdio.h>

/*
 * FlashAttention chooses BC = ceil(M / 4D) and BR = min(BC, D) for keys in the outer loop (Dao and others 2022,
 * algorithms 1 and 4). With queries in the outer loop the roles change: BR = ceil(M / 4D), BC = min(BR, D).
 */
lab_held lab_what_is_held(lab_algorithm algorithm, lab_direction direction) {
    static const lab_held forward[LAB_ALGORITHMS] = {
        [LAB_STANDARD] = {1, 1, 1, 0, 0}, [LAB_SIMPLE] = {2, 2, 1, 1, 0}, [LAB_FLASH1] = {3, 2, 1, 7, 1},
        [LAB_FLASH2] = {2, 2, 1, 5, 0},   [LAB_LAZY] = {2, 2, 1, 4, 0},
    };
    static const lab_held backward[LAB_ALGORITHMS] = {
        [LAB_STANDARD] = {1, 1, 1, 0, 0},
        [LAB_FLASH1] = {4, 4, 2, 3, 1},
        [LAB_FLASH2] = {3, 4, 2, 2, 1},
        [LAB_LAZY] = {3, 4, 2, 2, 1},
    };
    return direction == LAB_FORWARD ? forward[algorithm] : backward[algorithm];
}

int64_t lab_held_numbers(const lab_held *held, lab_tiles t, int64_t dim) {
    return (held->row_tiles * t.br + held->key_tiles * t.bc) * dim + held->score_tiles * t.br * t.bc +
           held->statistics * t.br;
}

int64_t lab_held_bytes(const lab_held *held, lab_tiles t, int64_t dim, int number_bytes) {
    const int64_t statistics = held->statistics * t.br;
    return (lab_held_numbers(held, t, dim) - statistics) * number_bytes + statistics * LAB_STATISTIC_BYTES;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The tiles whose longer side is n. */
static lab_tiles proportioned(const lab_held *held, int64_t n, const lab_problem *problem) {
    const int64_t other = least(n, problem->dim);
    const lab_tiles tiles = {least(held->keys_outer ? other : n, problem->rows),
                             least(held->keys_outer ? n : other, problem->keys)};
    return tiles;
}

static const char *too_small(lab_machine *machine, int64_t dim, int64_t bytes, const char *what) {
    snprintf(machine->sentence, sizeof machine->sentence,
             "a fast memory of %lld bytes is too small for one tile: at dim %lld, %s take %lld bytes",
             (long long)machine->fast_bytes, (long long)dim, what, (long long)bytes);
    return machine->sentence;
}

const char *lab_choose_tiles(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                             const lab_problem *problem, lab_tiles *tiles) {
    const lab_held held = lab_what_is_held(algorithm, direction);
    const int64_t row_bytes = problem->dim * machine->number_bytes;
    switch (machine->rule) {
    case LAB_TILES_GIVEN:
        tiles->br = least(machine->tiles.br, problem->rows);
        tiles->bc = least(machine->tiles.bc, problem->keys);
        return NULL;
    case LAB_TILES_PAPER: {
        const int64_t quarter = 4 * row_bytes;
        if (machine->fast_bytes < quarter)
            return too_small(machine, problem->dim, quarter, "a row of Q, K, V and O each");
        *tiles = proportioned(&held, machine->fast_bytes / quarter + (machine->fast_bytes % quarter != 0),
                              problem);
        return NULL;
    }
    case LAB_TILES_FIT: break;
    }
    const lab_tiles one = {1, 1};
    const int64_t strip = algorithm == LAB_STANDARD
                              ? LAB_STRIP_STATISTICS * LAB_STATISTIC_BYTES + 2 * machine->number_bytes
                              : 0;
    int64_t smallest = lab_held_bytes(&held, one, problem->dim, machine->number_bytes);
    if (smallest < strip) smallest = strip;
    if (machine->fast_bytes < smallest)
        return too_small(machine, problem->dim, smallest, "a row and a key of all that is held at once");
    int64_t low = 1, high = problem->rows > problem->keys ? problem->rows : problem->keys;
    while (low < high) { /* the largest that fits */
        const int64_t middle = low + (high - low + 1) / 2;
        const lab_tiles tried = proportioned(&held, middle, problem);
        if (lab_held_bytes(&held, tried, problem->dim, machine->number_bytes) <= machine->fast_bytes)
            low = middle;
        else
            high = middle - 1;
    }
    *tiles = proportioned(&held, low, problem);
    return NULL;
}

lab_strip lab_choose_strip(const lab_machine *machine, int64_t rows, int64_t keys, int matrices) {
    const int64_t number = machine->number_bytes, row = LAB_STRIP_STATISTICS * LAB_STATISTIC_BYTES;
    const int64_t fitting = machine->fast_bytes / (matrices * keys * number + row);
    lab_strip strip = {least(fitting, rows), keys};
    if (machine->rule == LAB_TILES_GIVEN) {
        strip.rows = least(machine->tiles.br, rows);
    } else if (fitting == 0) {
        const int64_t cols = (machine->fast_bytes - row) / (matrices * number);
        strip.rows = 1;
        strip.cols = cols > 0 ? cols : 1; /* M of a few bytes: one number at a time */
    }
    return strip;
}

lab_tiles lab_turn_tiles(const lab_machine *machine, int64_t rows, int64_t keys) {
    const lab_tiles t = machine->tiles;
    const lab_tiles turned = {least(t.bc, rows), least(t.br, keys)};
    return machine->rule == LAB_TILES_GIVEN ? t : turned;
}
