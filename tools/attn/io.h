/* The parts of `attn io` that have files of their own. */
#ifndef ATTN_TOOL_IO_H
#define ATTN_TOOL_IO_H

#include "io_chips.h"
#include "io_count.h"

/* Traffic against the block size; the picture too if svg is not null. Exit statuses. */
int io_print_curve(const io_problem *problem, const io_chip *chip, const char *svg, const char *command);

/* Softmax alone, tiled along its rows, in every form. */
int io_print_softmax(const io_problem *problem, const io_chip *chip);

/* The published tables beside our counts, and why figures differ. */
int io_print_published(void);

/* Device memory that a profiler saw, beside the counts: of the profile in a file, or of one made now. */
int io_print_measured(const io_problem *problem, int dtype, const char *profile, const char *save);

#endif
