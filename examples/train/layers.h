/*
 * What a transformer has beside matrix products and attention, forward and backward, in plain loops.
 * x is (rows, width); a gradient has its tensor's shape. No sum depends on the number of threads.
 */
#ifndef ATTN_EXAMPLE_LAYERS_H
#define ATTN_EXAMPLE_LAYERS_H

#include <stdint.h>

/* x[row] = the row of tokens that belongs to the row's token, ids[row]. */
void embedding_forward(int64_t rows, int64_t width, const uint8_t *ids, const float *tokens, float *x);
/* Adds to the tokens' gradient. */
void embedding_backward(int64_t rows, int64_t width, const uint8_t *ids, const float *x_gradient,
                        float *tokens_gradient);

/*
 * Layer normalisation (Ba, Kiros and Hinton 2016): y = gain (x - mean) / sqrt(variance + epsilon) + shift.
 * parameters are (2, width), gain then shift; statistics are (rows, 2), mean and 1 / deviation.
 */
void norm_forward(int64_t rows, int64_t width, const float *x, const float *parameters, float *y,
                  float *statistics);
/* Adds to x's gradient, which then holds a residual branch's, and to the parameters'. */
void norm_backward(int64_t rows, int64_t width, const float *x, const float *parameters,
                   const float *statistics, const float *y_gradient, float *x_gradient,
                   float *parameters_gradient);

/* y = max(x, 0)^2 (So et al. 2021, Primer). Its slope has no step, so central differences can check it. */
void squared_relu_forward(int64_t count, const float *x, float *y);
/* gradient: of y on entry, of x on return. */
void squared_relu_backward(int64_t count, const float *x, float *gradient);

/*
 * Mean over rows of -log softmax(logits)[target]. logits (rows, classes) become their gradient where
 * want_gradient says so.
 */
double cross_entropy(int64_t rows, int64_t classes, const uint8_t *targets, float *logits, int want_gradient);

#endif
