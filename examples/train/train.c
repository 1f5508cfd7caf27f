/*
 * Trains a small character transformer on a text, all attention by libattn, forward and backward:
 *
 *   train TEXT                  a loss every few steps, then text that the model makes up
 *   train TEXT --compare        the same with the standard algorithm beside it, step by step
 *   train --help
 *
 *   model     transformer.c (what is computed), layers.c, matmul.c
 *   attention attention_libattn.c, attention_standard.c behind attention_layer.h
 *   training  training.c (the loop), adam.c, corpus.c (the text), loss_curve.c (CSV and SVG)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "loss_curve.h"
#include "training.h"

typedef struct options {
    training_options training;
    const char *text, *csv, *svg, *prompt;
    int64_t sample, seed, threads, layers, progress;
    double temperature, tolerance;
    int64_t standard, compare, nudge, help;
} options;

/* ---------------------------------------------------------------- flags */

typedef enum flag_type { SWITCH, INTEGER, NUMBER, WORDS } flag_type;

typedef struct flag {
    const char *name, *help;
    flag_type type;
    void *value; /* int64_t, int64_t, double or const char * */
    double least, most;
} flag;

static void print_help(const flag *flags, size_t count) {
    puts("usage: train TEXT [OPTION]...\n"
         "Trains a character transformer on a text file and lets it write. Attention is libattn's.\n");
    for (size_t i = 0; i < count; i++) {
        const flag *f = &flags[i];
        char value[64] = "";
        if (f->type == INTEGER) snprintf(value, sizeof value, " %lld", (long long)*(int64_t *)f->value);
        if (f->type == NUMBER) snprintf(value, sizeof value, " %g", *(double *)f->value);
        if (f->type == WORDS) {
            const char *words = *(const char **)f->value;
            snprintf(value, sizeof value, " %s", words ? words : "FILE");
        }
        printf("  %-13s%-10s %s\n", f->name, value, f->help);
    }
    puts("\nValues shown are the defaults. The same seed gives the same losses, whatever the number of "
         "threads.");
}

static void set_flag(const flag *f, const char *word) {
    char *end = NULL;
    errno = 0;
    if (f->type == WORDS) {
        *(const char **)f->value = word;
        return;
    }
    const double number = f->type == NUMBER ? strtod(word, &end) : (double)strtoll(word, &end, 10);
    if (end == word || *end != 0 || errno != 0 || !(number >= f->least && number <= f->most))
        fail("%s %s: expected %s from %g to %g", f->name, word, f->type == NUMBER ? "a number" : "an integer",
             f->least, f->most);
    if (f->type == NUMBER)
        *(double *)f->value = number;
    else
        *(int64_t *)f->value = (int64_t)number;
}

static void parse(int argc, char **argv, options *o) {
    training_options *t = &o->training;
    const flag flags[] = {
        {"--steps", "steps of training", INTEGER, &t->steps, 1, 1e6},
        {"--batch", "sequences a step", INTEGER, &t->batch, 1, 1024},
        {"--context", "characters a sequence", INTEGER, &t->model.context, 1, 4096},
        {"--layers", "layers", INTEGER, &o->layers, 1, 64},
        {"--heads", "heads of attention", INTEGER, &t->model.heads, 1, 64},
        {"--width", "numbers a character, a multiple of heads", INTEGER, &t->model.width, 1, 4096},
        {"--rate", "learning rate", NUMBER, &t->rate, 0, 1},
        {"--seed", "of weights, batches and sample", INTEGER, &o->seed, 0, 1e15},
        {"--threads", "threads; 0: all", INTEGER, &o->threads, 0, 1024},
        {"--standard", "the standard algorithm instead of libattn", SWITCH, &o->standard, 0, 0},
        {"--compare", "both, on the same batches; fails where their losses differ by more than", SWITCH,
         &o->compare, 0, 0},
        {"--tolerance", "this", NUMBER, &o->tolerance, 0, 100},
        {"--nudge", "and a third run: standard, its first weights moved by one unit in the last place",
         SWITCH, &o->nudge, 0, 0},
        {"--progress", "print a line every so many steps; 0: none", INTEGER, &o->progress, 0, 1e6},
        {"--csv", "write the losses", WORDS, &o->csv, 0, 0},
        {"--svg", "draw the losses", WORDS, &o->svg, 0, 0},
        {"--sample", "characters to make up at the end", INTEGER, &o->sample, 0, 1e6},
        {"--prompt", "they begin after this", WORDS, &o->prompt, 0, 0},
        {"--temperature", "below 1: likelier characters", NUMBER, &o->temperature, 0.01, 100},
        {"--help", "this", SWITCH, &o->help, 0, 0},
    };
    const size_t count = sizeof flags / sizeof *flags;
    for (int i = 1; i < argc; i++) {
        size_t f = 0;
        while (f < count && strcmp(argv[i], flags[f].name) != 0) f++;
        if (f == count) {
            if (argv[i][0] == '-' || o->text) fail("%s: not understood; see --help", argv[i]);
            o->text = argv[i];
        } else if (flags[f].type == SWITCH) {
            *(int64_t *)flags[f].value = 1;
        } else if (i + 1 == argc) {
            fail("%s: its value is missing", argv[i]);
        } else {
            set_flag(&flags[f], argv[++i]);
        }
        if (o->help) {
            print_help(flags, count);
            exit(0);
        }
    }
    if (!o->text) fail("which text? see --help");
    if (o->nudge) o->compare = 1;
    t->model.layers = (int)o->layers;
    t->seed = (uint64_t)o->seed;
    t->threads = (int)o->threads;
    t->progress = (int)o->progress;
}

/* ---------------------------------------------------------------- report */

static void report_run(const options *o, const corpus *text, training_run *run) {
    const double steps = (double)o->training.steps,
                 attention = activations_attention_seconds(run->activations);
    printf("%-16s %6.1f s, %5.1f ms a step, of which attention %5.1f ms; kept for its backward %8.1f KB\n",
           run->label, run->seconds, 1e3 * run->seconds / steps, 1e3 * attention / steps,
           (double)activations_attention_bytes(run->activations) / 1024);
    printf("%-16s loss of the last tenth of the text, never trained on: %.4f\n", "",
           training_held_out(&o->training, text, run));
}

/* Whether the second run's losses are the first's, within the tolerance. */
static int report_differences(const options *o, int count, const training_run *runs) {
    int same = 1;
    for (int r = 1; r < count; r++) {
        const double difference = training_difference(&o->training, &runs[0], &runs[r]);
        printf("largest distance of the losses of %s and %s over %lld steps: %.3g\n", runs[0].label,
               runs[r].label, (long long)o->training.steps, difference);
        if (r == 1) same = difference <= o->tolerance;
    }
    if (count > 2)
        printf("largest distance of the losses of %s and %s: %.3g\n", runs[1].label, runs[2].label,
               training_difference(&o->training, &runs[1], &runs[2]));
    if (!same) printf("the first is above the tolerance, %g\n", o->tolerance);
    return same;
}

static void write_curves(const options *o, int count, const training_run *runs) {
    const training_options *t = &o->training;
    loss_curve curves[3];
    char note[160];
    for (int r = 0; r < count; r++) curves[r] = (loss_curve){runs[r].label, runs[r].losses};
    snprintf(note, sizeof note,
             "%lld x %lld characters a step, %d layers, width %lld, %lld heads, %lld parameters",
             (long long)t->batch, (long long)t->model.context, t->model.layers, (long long)t->model.width,
             (long long)t->model.heads, (long long)runs[0].model.parameter_count);
    if (o->csv) loss_curve_csv(o->csv, t->steps, count, curves);
    if (o->svg) loss_curve_svg(o->svg, t->steps, count, curves, "A character transformer in training", note);
}

int main(int argc, char **argv) {
    options o = {
        .training = {.model = {.context = 128, .heads = 4, .width = 96},
                     .batch = 8,
                     .steps = 800,
                     .rate = 3e-3},
        .prompt = "Alice ",
        .sample = 600,
        .seed = 1,
        .layers = 2,
        .progress = 50,
        .temperature = 0.5,
        .tolerance = 1e-4,
    };
    parse(argc, argv, &o);

    training_run runs[3] = {{.label = "libattn", .kind = &attention_libattn},
                            {.label = "standard", .kind = &attention_standard},
                            {.label = "standard, nudged", .kind = &attention_standard, .nudge = 1}};
    training_run *first = o.standard && !o.compare ? &runs[1] : &runs[0];
    const int count = !o.compare ? 1 : o.nudge ? 3 : 2;

    corpus text = corpus_read(o.text, o.training.model.context);
    training_begin(&o.training, &text, count, first);
    printf("%s: %lld characters, %d different; %lld parameters\n", o.text, (long long)text.count,
           text.vocabulary, (long long)first->model.parameter_count);
    training_steps(&o.training, &text, count, first);
    for (int r = 0; r < count; r++) report_run(&o, &text, &first[r]);
    write_curves(&o, count, first);
    const int same = report_differences(&o, count, first);
    if (o.sample > 0) {
        putchar('\n');
        training_sample(&o.training, &text, &first->model, o.prompt, (int)o.sample, o.temperature);
    }
    training_end(count, first);
    corpus_destroy(&text);
    return same ? 0 : 1;
}
