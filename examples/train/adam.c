#include "adam.h"
#include "fail.h"

#include <math.h>
#include <stdlib.h>

static const double DECAY_MEAN = 0.9, DECAY_VARIANCE = 0.99, EPSILON = 1e-8;

adam adam_create(int64_t count) {
    return (adam){count, 0, need_memory(count, sizeof(float)), need_memory(count, sizeof(float))};
}

void adam_destroy(adam *a) {
    free(a->mean);
    free(a->variance);
}

void adam_step(adam *a, double rate, double clip, float *parameters, const float *gradients) {
    double squares = 0;
    for (int64_t i = 0; i < a->count; i++) squares += (double)gradients[i] * (double)gradients[i];
    const double norm = sqrt(squares);
    a->steps++;

    /* The corrections of algorithm 1 for means that begin at 0, folded into rate and epsilon. */
    const double correct = sqrt(1 - pow(DECAY_VARIANCE, (double)a->steps));
    const float step = (float)(rate * correct / (1 - pow(DECAY_MEAN, (double)a->steps)));
    const float epsilon = (float)(EPSILON * correct), scale = norm > clip ? (float)(clip / norm) : 1;
    const float keep_mean = (float)DECAY_MEAN, keep_variance = (float)DECAY_VARIANCE;
    float *mean = a->mean, *variance = a->variance;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->count; i++) {
        const float g = gradients[i] * scale;
        mean[i] = keep_mean * mean[i] + (1 - keep_mean) * g;
        variance[i] = keep_variance * variance[i] + (1 - keep_variance) * g * g;
        parameters[i] -= step * mean[i] / (sqrtf(variance[i]) + epsilon);
    }
}
