/* A run: tiles, room, the algorithm. */
#include "algorithms.h"
#include "tiles.h"

const char *const lab_algorithm_names[LAB_ALGORITHMS + 1] = {"standard", "simple", "flash1",
                                                             "flash2",   "lazy",   NULL};

typedef void (*algorithm_function)(lab_machine *machine, lab_problem *problem);

static const algorithm_function functions[2][LAB_ALGORITHMS] = {
    [LAB_FORWARD] = {[LAB_STANDARD] = lab_standard_forward,
                     [LAB_SIMPLE] = lab_simple_forward,
                     [LAB_FLASH1] = lab_flash1_forward,
                     [LAB_FLASH2] = lab_flash2_forward,
                     [LAB_LAZY] = lab_lazy_forward},
    /* LAB_LAZY leaves the same LSE as LAB_FLASH2, so the backward is the same */
    [LAB_BACKWARD] = {[LAB_STANDARD] = lab_standard_backward,
                      [LAB_FLASH1] = lab_flash1_backward,
                      [LAB_FLASH2] = lab_flash2_backward,
                      [LAB_LAZY] = lab_flash2_backward},
};

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Numbers of fast memory for the largest phase. */
static int64_t room(const lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                    const lab_problem *problem) {
    const lab_held held = lab_what_is_held(algorithm, direction);
    const int64_t tiles = lab_held_numbers(&held, machine->tiles, problem->dim);
    if (algorithm != LAB_STANDARD) return tiles;
    const int matrices = direction == LAB_FORWARD ? 1 : 2;
    const lab_strip strip = lab_choose_strip(machine, problem->rows, problem->keys, matrices);
    return larger(tiles, strip.rows * (matrices * strip.cols + LAB_STRIP_STATISTICS));
}

const char *lab_run(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                    lab_problem *problem) {
    if (functions[direction][algorithm] == NULL) return "the simple exposition has no backward";
    lab_tiles tiles;
    const char *trouble = lab_choose_tiles(machine, algorithm, direction, problem, &tiles);
    if (trouble != NULL) return trouble;
    const lab_tiles given = machine->tiles;
    machine->tiles = tiles;
    trouble = lab_begin(machine, room(machine, algorithm, direction, problem));
    machine->event.algorithm = algorithm;
    machine->event.direction = direction;
    if (trouble == NULL) functions[direction][algorithm](machine, problem);
    lab_end(machine);
    if (machine->rule == LAB_TILES_GIVEN) machine->tiles = given; /* they may have been cut to the problem */
    return trouble;
}
