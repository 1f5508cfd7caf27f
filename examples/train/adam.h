/* Adam (Kingma and Ba 2015, algorithm 1), with the gradient's norm clipped. */
#ifndef ATTN_EXAMPLE_ADAM_H
#define ATTN_EXAMPLE_ADAM_H

#include <stdint.h>

typedef struct adam {
    int64_t count;
    int64_t steps;          /* done so far */
    float *mean, *variance; /* running, of the gradient and of its square */
} adam;

adam adam_create(int64_t count);
void adam_destroy(adam *a);

/* One step against gradients, scaled down first where their norm is above clip. */
void adam_step(adam *a, double rate, double clip, float *parameters, const float *gradients);

#endif
