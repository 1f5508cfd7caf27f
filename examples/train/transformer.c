#include "transformer.h"
#include "dice.h"
#include "fail.h"
#include "layers.h"
#include "matmul.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

enum { HIDDEN = 4 }; /* the hidden layer's width, in widths */

/* Tensors in the order of their offsets: the embedding, those of each layer, the last norm and the logits. */
enum { TOKENS, LAYERS };
enum { NORM_1, QKV, OUT, NORM_2, UP, DOWN, LAYER_TENSORS };
enum { NORM, LOGITS, LAST_TENSORS };

static int layer_tensor(int layer, int which) { return LAYERS + layer * LAYER_TENSORS + which; }
static int last_tensor(const transformer *model, int which) {
    return layer_tensor(model->config.layers, which);
}

/* ---------------------------------------------------------------- parameters */

static void add_tensor(transformer *model, const char *name, int layer, int64_t rows, int64_t columns) {
    tensor *t = &model->tensors[model->tensor_count++];
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "layer%d.%s", layer, name);
    t->rows = rows;
    t->columns = columns;
    t->offset = model->parameter_count;
    model->parameter_count += rows * columns;
}

static void lay_out(transformer *model) {
    const transformer_config *c = &model->config;
    const int64_t width = c->width, hidden = HIDDEN * width;
    model->tensors = need_memory(LAYERS + c->layers * LAYER_TENSORS + LAST_TENSORS, sizeof *model->tensors);
    add_tensor(model, "tokens", -1, c->vocabulary, width);
    for (int layer = 0; layer < c->layers; layer++) {
        add_tensor(model, "norm1", layer, 2, width);
        add_tensor(model, "qkv", layer, width, 3 * width);
        add_tensor(model, "out", layer, width, width);
        add_tensor(model, "norm2", layer, 2, width);
        add_tensor(model, "up", layer, width, hidden);
        add_tensor(model, "down", layer, hidden, width);
    }
    add_tensor(model, "norm", -1, 2, width);
    add_tensor(model, "logits", -1, width, c->vocabulary);
}

static void fill_normal(const transformer *model, int index, double deviation, dice *d) {
    const tensor *t = &model->tensors[index];
    for (int64_t i = 0; i < t->rows * t->columns; i++)
        model->parameters[t->offset + i] = (float)(deviation * dice_normal(d));
}

static void fill_gain(const transformer *model, int index) {
    const tensor *t = &model->tensors[index];
    for (int64_t c = 0; c < t->columns; c++) model->parameters[t->offset + c] = 1;
}

/* Products keep the size of what they are given; branches begin small beside the residual stream. */
static void fill_parameters(const transformer *model, uint64_t seed) {
    const double width = (double)model->config.width, keep = 1 / sqrt(width);
    const double branch = keep / sqrt(2.0 * model->config.layers);
    dice d = {seed};
    fill_normal(model, TOKENS, 0.1, &d);
    for (int layer = 0; layer < model->config.layers; layer++) {
        fill_gain(model, layer_tensor(layer, NORM_1));
        fill_normal(model, layer_tensor(layer, QKV), keep, &d);
        fill_normal(model, layer_tensor(layer, OUT), branch, &d);
        fill_gain(model, layer_tensor(layer, NORM_2));
        fill_normal(model, layer_tensor(layer, UP), keep, &d);
        fill_normal(model, layer_tensor(layer, DOWN), branch / 2, &d);
    }
    fill_gain(model, last_tensor(model, NORM));
    fill_normal(model, last_tensor(model, LOGITS), keep / 10, &d);
}

transformer transformer_create(transformer_config config, uint64_t seed) {
    transformer model = {config, NULL, 0, 0, NULL, NULL};
    if (config.width % config.heads != 0)
        fail("width %lld is not a multiple of %lld heads", (long long)config.width, (long long)config.heads);
    lay_out(&model);
    model.parameters = need_memory(model.parameter_count, sizeof *model.parameters);
    model.gradients = need_memory(model.parameter_count, sizeof *model.gradients);
    fill_parameters(&model, seed);
    return model;
}

void transformer_destroy(transformer *model) {
    free(model->tensors);
    free(model->parameters);
    free(model->gradients);
}

static const float *parameters_of(const transformer *model, int index) {
    return model->parameters + model->tensors[index].offset;
}

static float *gradients_of(const transformer *model, int index) {
    return model->gradients + model->tensors[index].offset;
}

/* ---------------------------------------------------------------- activations */

typedef struct layer_activations {
    float *input; /* x as it enters */
    float *norm_1, *qkv, *o; /* (rows, width), (rows, 3 width), (rows, width) */
    float *middle; /* x between attention and the hidden layer */
    float *norm_2, *up, *act; /* (rows, width), twice (rows, hidden) */
    float *statistics_1, *statistics_2;
} layer_activations;

struct activations {
    int64_t batch, rows;
    int layers;
    layer_activations *layer;
    float *output, *norm, *statistics, *logits; /* x after the last layer, its norm, and the logits */
    float *x_gradient, *branch_gradient; /* (rows, width) */
    float *wide_gradient; /* (rows, hidden): of the hidden layer, and of qkv */
    float *transposed; /* a weight's transpose */
    const attention_kind *kind;
    attention_shape shape;
    void *attention;
    double attention_seconds;
};

double seconds_now(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Of the loops here; attention has its own. */
static void use_threads(int threads) {
#ifdef _OPENMP
    if (threads > 0) omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

activations *activations_create(const transformer *model, int64_t batch, const attention_kind *kind,
                                int threads) {
    const transformer_config *c = &model->config;
    const int64_t width = c->width, hidden = HIDDEN * width, rows = batch * c->context;
    const size_t size = sizeof(float);
    activations *a = need_memory(1, sizeof *a);
    use_threads(threads);
    a->batch = batch;
    a->rows = rows;
    a->layers = c->layers;
    a->layer = need_memory(c->layers, sizeof *a->layer);
    for (int i = 0; i < c->layers; i++) {
        layer_activations *l = &a->layer[i];
        l->input = need_memory(rows * width, size);
        l->norm_1 = need_memory(rows * width, size);
        l->qkv = need_memory(rows * 3 * width, size);
        l->o = need_memory(rows * width, size);
        l->middle = need_memory(rows * width, size);
        l->norm_2 = need_memory(rows * width, size);
        l->up = need_memory(rows * hidden, size);
        l->act = need_memory(rows * hidden, size);
        l->statistics_1 = need_memory(rows * 2, size);
        l->statistics_2 = need_memory(rows * 2, size);
    }
    a->output = need_memory(rows * width, size);
    a->norm = need_memory(rows * width, size);
    a->statistics = need_memory(rows * 2, size);
    a->logits = need_memory(rows * c->vocabulary, size);
    a->x_gradient = need_memory(rows * width, size);
    a->branch_gradient = need_memory(rows * width, size);
    a->wide_gradient = need_memory(rows * hidden, size);
    a->transposed = need_memory(width * (hidden > c->vocabulary ? hidden : c->vocabulary), size);
    a->kind = kind;
    a->shape = (attention_shape){batch, c->context, c->heads, width / c->heads, c->layers, threads};
    a->attention = kind->create(&a->shape);
    return a;
}

void activations_destroy(activations *a) {
    a->kind->destroy(a->attention);
    for (int i = 0; i < a->layers; i++) {
        layer_activations *l = &a->layer[i];
        float *all[] = {l->input, l->norm_1, l->qkv,          l->o,           l->middle, l->norm_2,
                        l->up,    l->act,    l->statistics_1, l->statistics_2};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    }
    float *all[] = {a->output,          a->norm,          a->statistics, a->logits, a->x_gradient,
                    a->branch_gradient, a->wide_gradient, a->transposed};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    free(a->layer);
    free(a);
}

double activations_attention_seconds(const activations *a) { return a->attention_seconds; }
int64_t activations_attention_bytes(const activations *a) { return a->kind->kept_bytes(&a->shape); }

/* ---------------------------------------------------------------- y = x W and its backward */

/* y (rows x out) = x W, where W is tensor index of the model; added to y where add says so. */
static void linear_forward(const transformer *model, int index, int64_t rows, const float *x, float *y,
                           int add) {
    const int64_t in = model->tensors[index].rows, out = model->tensors[index].columns;
    matmul(&(product){rows, in, out, x, in, 1, parameters_of(model, index), out, y, out, add});
}

/* W's gradient = x^T dy;  dx = dy W^T. */
static void linear_backward(const transformer *model, activations *a, int index, const float *x,
                            const float *dy, float *dx) {
    const int64_t in = model->tensors[index].rows, out = model->tensors[index].columns;
    matmul(&(product){in, a->rows, out, x, 1, in, dy, out, gradients_of(model, index), out, 0});
    transpose(in, out, parameters_of(model, index), out, a->transposed);
    matmul(&(product){a->rows, out, in, dy, out, 1, a->transposed, in, dx, in, 0});
}

/* ---------------------------------------------------------------- forward */

static void copy(float *to, const float *from, int64_t count) {
    memcpy(to, from, (size_t)count * sizeof *to);
}

/* From layer's input to the next one's. */
static void layer_forward(const transformer *model, activations *a, int layer, float *next) {
    layer_activations *l = &a->layer[layer];
    const int64_t rows = a->rows, width = model->config.width;

    norm_forward(rows, width, l->input, parameters_of(model, layer_tensor(layer, NORM_1)), l->norm_1,
                 l->statistics_1);
    linear_forward(model, layer_tensor(layer, QKV), rows, l->norm_1, l->qkv, 0);
    const double begin = seconds_now();
    a->kind->forward(a->attention, layer, l->qkv, l->o);
    a->attention_seconds += seconds_now() - begin;
    copy(l->middle, l->input, rows * width);
    linear_forward(model, layer_tensor(layer, OUT), rows, l->o, l->middle, 1);

    norm_forward(rows, width, l->middle, parameters_of(model, layer_tensor(layer, NORM_2)), l->norm_2,
                 l->statistics_2);
    linear_forward(model, layer_tensor(layer, UP), rows, l->norm_2, l->up, 0);
    squared_relu_forward(rows * HIDDEN * width, l->up, l->act);
    copy(next, l->middle, rows * width);
    linear_forward(model, layer_tensor(layer, DOWN), rows, l->act, next, 1);
}

float *transformer_forward(const transformer *model, activations *a, const uint8_t *ids) {
    const transformer_config *c = &model->config;
    float *input = c->layers > 0 ? a->layer[0].input : a->output;
    embedding_forward(a->rows, c->width, ids, parameters_of(model, TOKENS), input);
    for (int layer = 0; layer < c->layers; layer++)
        layer_forward(model, a, layer, layer + 1 < c->layers ? a->layer[layer + 1].input : a->output);
    norm_forward(a->rows, c->width, a->output, parameters_of(model, last_tensor(model, NORM)), a->norm,
                 a->statistics);
    linear_forward(model, last_tensor(model, LOGITS), a->rows, a->norm, a->logits, 0);
    return a->logits;
}

double transformer_loss(const transformer *model, activations *a, const uint8_t *ids,
                        const uint8_t *targets) {
    float *logits = transformer_forward(model, a, ids);
    return cross_entropy(a->rows, model->config.vocabulary, targets, logits, 0);
}

/* ---------------------------------------------------------------- backward */

/* a->x_gradient: of the layer's output on entry, of its input on return. What x_gradient holds passes each
 * branch by, and the branch's part is added by its norm. */
static void layer_backward(const transformer *model, activations *a, int layer) {
    layer_activations *l = &a->layer[layer];
    const int64_t rows = a->rows, width = model->config.width;
    const int norm_1 = layer_tensor(layer, NORM_1), norm_2 = layer_tensor(layer, NORM_2);

    linear_backward(model, a, layer_tensor(layer, DOWN), l->act, a->x_gradient, a->wide_gradient);
    squared_relu_backward(rows * HIDDEN * width, l->up, a->wide_gradient);
    linear_backward(model, a, layer_tensor(layer, UP), l->norm_2, a->wide_gradient, a->branch_gradient);
    norm_backward(rows, width, l->middle, parameters_of(model, norm_2), l->statistics_2, a->branch_gradient,
                  a->x_gradient, gradients_of(model, norm_2));

    linear_backward(model, a, layer_tensor(layer, OUT), l->o, a->x_gradient, a->branch_gradient);
    const double begin = seconds_now();
    a->kind->backward(a->attention, layer, l->qkv, l->o, a->branch_gradient, a->wide_gradient);
    a->attention_seconds += seconds_now() - begin;
    linear_backward(model, a, layer_tensor(layer, QKV), l->norm_1, a->wide_gradient, a->branch_gradient);
    norm_backward(rows, width, l->input, parameters_of(model, norm_1), l->statistics_1, a->branch_gradient,
                  a->x_gradient, gradients_of(model, norm_1));
}

double transformer_gradients(transformer *model, activations *a, const uint8_t *ids, const uint8_t *targets) {
    const transformer_config *c = &model->config;
    const int norm = last_tensor(model, NORM);
    float *logits = transformer_forward(model, a, ids);
    const double loss = cross_entropy(a->rows, c->vocabulary, targets, logits, 1);

    memset(model->gradients, 0, (size_t)model->parameter_count * sizeof *model->gradients);
    memset(a->x_gradient, 0, (size_t)(a->rows * c->width) * sizeof *a->x_gradient);
    linear_backward(model, a, last_tensor(model, LOGITS), a->norm, logits, a->branch_gradient);
    norm_backward(a->rows, c->width, a->output, parameters_of(model, norm), a->statistics, a->branch_gradient,
                  a->x_gradient, gradients_of(model, norm));
    for (int layer = c->layers - 1; layer >= 0; layer--) layer_backward(model, a, layer);
    embedding_backward(a->rows, c->width, ids, a->x_gradient, gradients_of(model, TOKENS));
    return loss;
}
