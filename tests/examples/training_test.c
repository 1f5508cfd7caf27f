/*
 * examples/train: the whole model's gradient against central differences, libattn's attention against the
 * standard algorithm's, and losses that depend on the seed alone.
 */
#include "test.h"
#include "loss_curve.h"
#include "training.h"

#include <math.h>

enum { BATCH = 2, CONTEXT = 13, VOCABULARY = 11, ROWS = BATCH * CONTEXT };

/* A model whose every part matters and none is steep: not where training begins. */
static transformer small_model(uint64_t seed) {
    const transformer_config config = {VOCABULARY, CONTEXT, 2, 20, 2};
    transformer model = transformer_create(config, seed);
    dice d = {seed + 1};
    for (int i = 0; i < model.tensor_count; i++) {
        const tensor *t = &model.tensors[i];
        float *values = model.parameters + t->offset;
        for (int64_t k = 0; k < t->rows * t->columns; k++) {
            if (strstr(t->name, "norm")) values[k] += (float)(0.3 * dice_normal(&d));
            if (i == 0 || i == model.tensor_count - 1) values[k] *= 10; /* tokens and logits begin small */
        }
    }
    return model;
}

static void random_ids(dice *d, uint8_t *ids) {
    for (int i = 0; i < ROWS; i++) ids[i] = (uint8_t)dice_below(d, VOCABULARY);
}

/* The loss's derivative along direction (a tensor's numbers), from four losses (error O(step^4)). */
static double slope(const transformer *model, activations *a, const uint8_t *ids, const uint8_t *targets,
                    const tensor *t, const float *direction) {
    static const double at[] = {-2, -1, 1, 2}, weight[] = {1, -8, 8, -1};
    const double step = 4e-3;
    const int64_t count = t->rows * t->columns;
    float *values = model->parameters + t->offset, *kept = test_memory((size_t)count * sizeof *kept);
    double sum = 0;
    memcpy(kept, values, (size_t)count * sizeof *kept);
    for (int i = 0; i < 4; i++) {
        for (int64_t k = 0; k < count; k++)
            values[k] = (float)((double)kept[k] + at[i] * step * (double)direction[k]);
        sum += weight[i] * transformer_loss(model, a, ids, targets);
    }
    memcpy(values, kept, (size_t)count * sizeof *kept);
    free(kept);
    return sum / (12 * step);
}

/* The gradient's own, where its slope is the norm; then in turn one number's, or any. */
static void choose_direction(dice *d, int n, int64_t count, const float *gradient, double norm,
                             float *direction) {
    const int64_t chosen = dice_below(d, count);
    for (int64_t k = 0; k < count; k++) {
        if (n == 0)
            direction[k] = (float)((double)gradient[k] / norm);
        else if (n % 2 == 0)
            direction[k] = (float)(dice_normal(d) / sqrt((double)count));
        else
            direction[k] = k == chosen ? 1 : 0;
    }
}

static void test_gradients(const attention_kind *kind, uint64_t seed) {
    enum { DIRECTIONS = 9 };
    uint8_t ids[ROWS], targets[ROWS];
    dice d = {seed};
    transformer model = small_model(seed);
    activations *a = activations_create(&model, BATCH, kind, 1);
    random_ids(&d, ids);
    random_ids(&d, targets);
    memset(model.gradients, 0xff, (size_t)model.parameter_count * sizeof *model.gradients); /* NaN */
    transformer_gradients(&model, a, ids, targets);
    for (int i = 0; i < model.tensor_count; i++) {
        const tensor *t = &model.tensors[i];
        const int64_t count = t->rows * t->columns;
        const float *gradient = model.gradients + t->offset;
        float *direction = test_memory((size_t)count * sizeof *direction);
        double norm = 0, worst = 0;
        for (int64_t k = 0; k < count; k++) norm += (double)gradient[k] * (double)gradient[k];
        norm = sqrt(norm);
        for (int n = 0; n < DIRECTIONS; n++) {
            choose_direction(&d, n, count, gradient, norm, direction);
            double along = 0;
            for (int64_t k = 0; k < count; k++) along += (double)gradient[k] * (double)direction[k];
            const double error = fabs(slope(&model, a, ids, targets, t, direction) - along);
            worst = test_worse(worst, error);
        }
        /* 2e-4 is what float32 losses leave of a slope */
        CHECK(worst <= 3e-4 * norm + 2e-4, "%s, %s: off by %g, norm %g", kind->name, t->name, worst, norm);
        CHECK(norm > 1e-3, "%s, %s: norm %g says nothing", kind->name, t->name, norm);
        free(direction);
    }
    activations_destroy(a);
    transformer_destroy(&model);
}

/* Both algorithms' gradients of the same model, tensor by tensor. */
static void test_same_gradients(uint64_t seed) {
    uint8_t ids[ROWS], targets[ROWS];
    dice d = {seed};
    transformer one = small_model(seed), other = small_model(seed);
    activations *a = activations_create(&one, BATCH, &attention_libattn, 1);
    activations *b = activations_create(&other, BATCH, &attention_standard, 1);
    random_ids(&d, ids);
    random_ids(&d, targets);
    const double loss = transformer_gradients(&one, a, ids, targets);
    const double other_loss = transformer_gradients(&other, b, ids, targets);
    CHECK(fabs(loss - other_loss) <= 1e-6, "%.9g, %.9g", loss, other_loss);
    for (int i = 0; i < one.tensor_count; i++) {
        const tensor *t = &one.tensors[i];
        double largest = 0, worst = 0;
        for (int64_t k = t->offset; k < t->offset + t->rows * t->columns; k++) {
            const double error = fabs((double)one.gradients[k] - (double)other.gradients[k]);
            largest = fmax(largest, fabs((double)other.gradients[k]));
            worst = test_worse(worst, error);
        }
        CHECK(worst <= 1e-5 * largest, "%s: off by %g of %g", t->name, worst, largest);
    }
    activations_destroy(a);
    activations_destroy(b);
    transformer_destroy(&one);
    transformer_destroy(&other);
}

static training_options short_training(void) {
    return (training_options){.model = {.context = 48, .heads = 2, .width = 24, .layers = 2},
                              .batch = 3,
                              .steps = 20,
                              .rate = 1e-2,
                              .seed = 5,
                              .threads = 2};
}

static training_run trained(const training_options *options, const corpus *text, const attention_kind *kind) {
    training_run run = {.label = kind->name, .kind = kind};
    training_begin(options, text, 1, &run);
    training_steps(options, text, 1, &run);
    return run;
}

static int same_losses(const training_options *options, const training_run *a, const training_run *b) {
    return memcmp(a->losses, b->losses, (size_t)options->steps * sizeof *a->losses) == 0;
}

static void test_training(const corpus *text) {
    training_options options = short_training(), alone = options, other_seed = options;
    alone.threads = 1;
    other_seed.seed = 6;
    training_run run = trained(&options, text, &attention_libattn);
    training_run again = trained(&alone, text, &attention_libattn);
    training_run standard = trained(&options, text, &attention_standard);
    training_run other = trained(&other_seed, text, &attention_libattn);
    CHECK(same_losses(&options, &run, &again), "losses depend on the number of threads");
    CHECK(!same_losses(&options, &run, &other), "losses do not depend on the seed");
    const double difference = training_difference(&options, &run, &standard);
    CHECK(difference <= 1e-5, "libattn and standard: %g", difference);
    CHECK(training_difference(&options, &run, &other) > 1e-3, "a difference is not seen");
    CHECK(run.losses[options.steps - 1] < run.losses[0] - 0.4, "nothing was learnt: %g, %g", run.losses[0],
          run.losses[options.steps - 1]);
    CHECK(training_held_out(&options, text, &run) < run.losses[0] - 0.4, "held out");

    standard.losses[3] = NAN;
    CHECK(isnan(training_difference(&options, &run, &standard)), "NaN passes");
    training_end(1, &run);
    training_end(1, &again);
    training_end(1, &standard);
    training_end(1, &other);
}

static void test_files(void) {
    static const double losses[2][3] = {{4, 3, 2}, {4, 3.5, 2}};
    const loss_curve curves[] = {{"one", losses[0]}, {"two", losses[1]}};
    char line[64];
    loss_curve_csv("training_test.csv", 3, 2, curves);
    loss_curve_svg("training_test.svg", 3, 2, curves, "title", "note");
    FILE *file = fopen("training_test.csv", "r");
    NEED(file != NULL);
    CHECK(fgets(line, sizeof line, file) && strcmp(line, "step,one,two\n") == 0, "%s", line);
    CHECK(fgets(line, sizeof line, file) && strcmp(line, "0,4.00000000,4.00000000\n") == 0, "%s", line);
    CHECK(fgets(line, sizeof line, file) && strcmp(line, "1,3.00000000,3.50000000\n") == 0, "%s", line);
    fclose(file);
    remove("training_test.csv");
    remove("training_test.svg");
}

int main(void) {
    test_gradients(&attention_libattn, 1);
    test_gradients(&attention_standard, 2);
    test_same_gradients(3);
    corpus text = corpus_read(TRAINING_TEXT, short_training().model.context);
    test_training(&text);
    corpus_destroy(&text);
    test_files();
    return test_report();
}
