/* Trains one or more models side by side on the same batches, and keeps their losses. */
#ifndef ATTN_EXAMPLE_TRAINING_H
#define ATTN_EXAMPLE_TRAINING_H

#include <stdint.h>

#include "adam.h"
#include "attention_layer.h"
#include "corpus.h"
#include "transformer.h"

typedef struct training_options {
    transformer_config model; /* vocabulary: the text's */
    int64_t batch, steps;
    double rate; /* of Adam after the warm-up; falls to a tenth along a cosine */
    uint64_t seed;
    int threads;  /* 0: all */
    int progress; /* a line every so many steps; 0: none */
} training_options;

typedef struct training_run {
    const char *label;
    const attention_kind *kind;
    int nudge; /* begin with every weight moved by one unit in its last place */

    transformer model;
    activations *activations;
    adam optimiser;
    double *losses; /* (steps) of each batch, before its step */
    double seconds;
} training_run;

/* runs have label, kind and nudge; the rest is filled in, to be ended by training_end. */
void training_begin(const training_options *options, const corpus *text, int count, training_run *runs);
void training_steps(const training_options *options, const corpus *text, int count, training_run *runs);
void training_end(int count, training_run *runs);

/* The loss of the text's held-out part. */
double training_held_out(const training_options *options, const corpus *text, training_run *run);

/* The largest distance of two runs' losses at one step. NaN if any loss is. */
double training_difference(const training_options *options, const training_run *a, const training_run *b);

/* Writes characters that a model makes up after a prompt to standard output. */
void training_sample(const training_options *options, const corpus *text, const transformer *model,
                     const char *prompt, int characters, double temperature);

#endif
