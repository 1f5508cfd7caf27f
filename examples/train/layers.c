#include "layers.h"
#include "fail.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float NORM_EPSILON = 1e-5f;

void embedding_forward(int64_t rows, int64_t width, const uint8_t *ids, const float *tokens, float *x) {
    for (int64_t row = 0; row < rows; row++)
        memcpy(x + row * width, tokens + ids[row] * width, (size_t)width * sizeof *x);
}

void embedding_backward(int64_t rows, int64_t width, const uint8_t *ids, const float *x_gradient,
                        float *tokens_gradient) {
    for (int64_t row = 0; row < rows; row++) {
        float *token = tokens_gradient + ids[row] * width;
        for (int64_t c = 0; c < width; c++) token[c] += x_gradient[row * width + c];
    }
}

void norm_forward(int64_t rows, int64_t width, const float *x, const float *parameters, float *y,
                  float *statistics) {
    const float *gain = parameters, *shift = parameters + width;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *in = x + row * width;
        float *out = y + row * width, sum = 0, squares = 0;
        for (int64_t c = 0; c < width; c++) sum += in[c];
        const float mean = sum / (float)width;
        for (int64_t c = 0; c < width; c++) squares += (in[c] - mean) * (in[c] - mean);
        const float scale = 1 / sqrtf(squares / (float)width + NORM_EPSILON);
        for (int64_t c = 0; c < width; c++) out[c] = gain[c] * (in[c] - mean) * scale + shift[c];
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = scale;
    }
}

/* With n = (x - mean) scale and g = gain dy:  dx = scale (g - mean(g) - n mean(g n)). */
static void norm_backward_row(int64_t width, const float *x, const float *gain, float mean, float scale,
                              const float *dy, float *dx) {
    float sum = 0, sum_n = 0;
    for (int64_t c = 0; c < width; c++) {
        sum += gain[c] * dy[c];
        sum_n += gain[c] * dy[c] * (x[c] - mean) * scale;
    }
    sum /= (float)width;
    sum_n /= (float)width;
    for (int64_t c = 0; c < width; c++)
        dx[c] += scale * (gain[c] * dy[c] - sum - (x[c] - mean) * scale * sum_n);
}

void norm_backward(int64_t rows, int64_t width, const float *x, const float *parameters,
                   const float *statistics, const float *y_gradient, float *x_gradient,
                   float *parameters_gradient) {
    float *gain_gradient = parameters_gradient, *shift_gradient = parameters_gradient + width;
    for (int64_t row = 0; row < rows; row++) { /* a sum over rows: on one thread, for its order */
        const float *in = x + row * width, *dy = y_gradient + row * width;
        const float mean = statistics[2 * row], scale = statistics[2 * row + 1];
        for (int64_t c = 0; c < width; c++) {
            gain_gradient[c] += dy[c] * (in[c] - mean) * scale;
            shift_gradient[c] += dy[c];
        }
    }
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        norm_backward_row(width, x + row * width, parameters, statistics[2 * row], statistics[2 * row + 1],
                          y_gradient + row * width, x_gradient + row * width);
}

void squared_relu_forward(int64_t count, const float *x, float *y) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) {
        const float positive = x[i] > 0 ? x[i] : 0;
        y[i] = positive * positive;
    }
}

void squared_relu_backward(int64_t count, const float *x, float *gradient) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) gradient[i] *= x[i] > 0 ? 2 * x[i] : 0;
}

/* One row's loss. logits become (softmax - 1 at the target) * weight. */
static double cross_entropy_row(int64_t classes, int target, float *logits, int want_gradient, float weight) {
    float m = -INFINITY, l = 0;
    for (int64_t c = 0; c < classes; c++) m = fmaxf(m, logits[c]);
    const float at_target = logits[target] - m;
    for (int64_t c = 0; c < classes; c++) l += logits[c] = expf(logits[c] - m);
    if (want_gradient) {
        for (int64_t c = 0; c < classes; c++) logits[c] *= weight / l;
        logits[target] -= weight;
    }
    return log((double)l) - (double)at_target;
}

double cross_entropy(int64_t rows, int64_t classes, const uint8_t *targets, float *logits,
                     int want_gradient) {
    double *losses = need_memory(rows, sizeof *losses), sum = 0;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        losses[row] =
            cross_entropy_row(classes, targets[row], logits + row * classes, want_gradient, 1 / (float)rows);
    for (int64_t row = 0; row < rows; row++) sum += losses[row];
    free(losses);
    return sum / (double)rows;
}
