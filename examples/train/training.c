#include "training.h"
#include "dice.h"
#include "fail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double CLIP = 1.0;
enum { WARM_UP = 40 };

static void nudge(const transformer *model) {
    for (int64_t i = 0; i < model->parameter_count; i++)
        model->parameters[i] = nextafterf(model->parameters[i], i % 2 == 0 ? INFINITY : -INFINITY);
}

void training_begin(const training_options *options, const corpus *text, int count, training_run *runs) {
    transformer_config config = options->model;
    config.vocabulary = text->vocabulary;
    for (int r = 0; r < count; r++) {
        training_run *run = &runs[r];
        run->model = transformer_create(config, options->seed);
        if (run->nudge) nudge(&run->model);
        run->activations = activations_create(&run->model, options->batch, run->kind, options->threads);
        run->optimiser = adam_create(run->model.parameter_count);
        run->losses = need_memory(options->steps, sizeof *run->losses);
        run->seconds = 0;
    }
}

void training_end(int count, training_run *runs) {
    for (int r = 0; r < count; r++) {
        activations_destroy(runs[r].activations);
        transformer_destroy(&runs[r].model);
        adam_destroy(&runs[r].optimiser);
        free(runs[r].losses);
    }
}

static double rate_at(const training_options *options, int64_t step) {
    const double done = (double)step / (double)options->steps;
    const double warm = step < WARM_UP ? (double)(step + 1) / WARM_UP : 1;
    return options->rate * warm * (0.55 + 0.45 * cos(3.141592653589793 * done));
}

static void print_progress(const training_options *options, int64_t step, int count,
                           const training_run *runs) {
    if (options->progress <= 0) return;
    if (step == 0) {
        printf("%6s", "step");
        for (int r = 0; r < count; r++) printf("  %12s", runs[r].label);
        puts(count > 1 ? "    loss of each on the same batch" : "    loss");
    }
    if (step % options->progress != 0 && step + 1 != options->steps) return;
    printf("%6lld", (long long)step);
    for (int r = 0; r < count; r++) printf("  %12.8f", runs[r].losses[step]);
    putchar('\n');
    fflush(stdout);
}

void training_steps(const training_options *options, const corpus *text, int count, training_run *runs) {
    const int64_t rows = options->batch * options->model.context;
    uint8_t *ids = need_memory(rows, 1), *targets = need_memory(rows, 1);
    dice d = {options->seed ^ 0x7465787473u};
    for (int64_t step = 0; step < options->steps; step++) {
        corpus_batch(text, &d, options->batch, options->model.context, ids, targets);
        for (int r = 0; r < count; r++) {
            training_run *run = &runs[r];
            const double begin = seconds_now();
            run->losses[step] = transformer_gradients(&run->model, run->activations, ids, targets);
            adam_step(&run->optimiser, rate_at(options, step), CLIP, run->model.parameters,
                      run->model.gradients);
            run->seconds += seconds_now() - begin;
        }
        print_progress(options, step, count, runs);
    }
    free(ids);
    free(targets);
}

double training_held_out(const training_options *options, const corpus *text, training_run *run) {
    activations *a = activations_create(&run->model, 1, run->kind, options->threads);
    const int64_t context = options->model.context;
    uint8_t *ids = need_memory(context, 1), *targets = need_memory(context, 1);
    double sum = 0;
    int64_t sequences = 0;
    for (; corpus_held_out(text, sequences, context, ids, targets); sequences++)
        sum += transformer_loss(&run->model, a, ids, targets);
    activations_destroy(a);
    free(ids);
    free(targets);
    return sum / (double)sequences;
}

double training_difference(const training_options *options, const training_run *a, const training_run *b) {
    double largest = 0;
    for (int64_t step = 0; step < options->steps; step++) {
        const double difference = fabs(a->losses[step] - b->losses[step]);
        if (!(difference <= largest)) largest = difference;
        if (isnan(largest)) return largest;
    }
    return largest;
}

/* A class by softmax(logits / temperature). */
static int draw(const float *logits, int classes, double temperature, dice *d) {
    double m = -INFINITY, l = 0;
    for (int c = 0; c < classes; c++) m = fmax(m, (double)logits[c]);
    for (int c = 0; c < classes; c++) l += exp(((double)logits[c] - m) / temperature);
    double left = dice_uniform(d) * l;
    for (int c = 0; c < classes - 1; c++) {
        left -= exp(((double)logits[c] - m) / temperature);
        if (left < 0) return c;
    }
    return classes - 1;
}

void training_sample(const training_options *options, const corpus *text, const transformer *model,
                     const char *prompt, int characters, double temperature) {
    const int64_t context = options->model.context;
    uint8_t *window = need_memory(context, 1); /* no query sees what stands after it */
    activations *a = activations_create(model, 1, &attention_libattn, options->threads);
    dice d = {options->seed ^ 0x73616d706c65u};
    int64_t count = 0;
    fputs(prompt, stdout);
    for (; *prompt != 0 && count < context; prompt++) {
        const int id = text->id[(unsigned char)*prompt];
        if (id < 0) fail("the prompt's '%c' does not occur in the text", *prompt);
        window[count++] = (uint8_t)id;
    }
    if (count == 0) fail("the prompt is empty");
    for (int i = 0; i < characters; i++) {
        const float *logits = transformer_forward(model, a, window) + (count - 1) * text->vocabulary;
        const int id = draw(logits, text->vocabulary, temperature, &d);
        putchar(text->character[id]);
        if (count == context) { /* forget the older half */
            count -= context / 2;
            memmove(window, window + context / 2, (size_t)count);
        }
        window[count++] = (uint8_t)id;
    }
    putchar('\n');
    activations_destroy(a);
    free(window);
}
