/* The algorithms, one file each. machine->tiles is set and the problem is one that lab_run has checked. */
#ifndef ATTN_LAB_ALGORITHMS_H
#define ATTN_LAB_ALGORITHMS_H

#include "operations.h"

#include <math.h>

/* In the algorithms gQ is Q in slow memory and Q the tile of it that is in fast memory, and so on. */

void lab_standard_forward(lab_machine *machine, lab_problem *problem);
void lab_simple_forward(lab_machine *machine, lab_problem *problem);
void lab_flash1_forward(lab_machine *machine, lab_problem *problem);
void lab_flash2_forward(lab_machine *machine, lab_problem *problem);
void lab_lazy_forward(lab_machine *machine, lab_problem *problem);

void lab_standard_backward(lab_machine *machine, lab_problem *problem);
void lab_flash1_backward(lab_machine *machine, lab_problem *problem);
void lab_flash2_backward(lab_machine *machine, lab_problem *problem);

#endif
