/*
 * A transformer for characters (pre-norm, as GPT-2; positions by ALiBi, in the attention):
 *
 *     x = token embedding
 *     each layer:   x += attention(norm(x) W_qkv) W_out
 *                   x += squared_relu(norm(x) W_up) W_down
 *     logits = norm(x) W_logits
 *
 * All parameters lie in one array, their gradients in another of the same layout, so that an optimiser sees
 * one vector; tensors[] says which part is what.
 */
#ifndef ATTN_EXAMPLE_TRANSFORMER_H
#define ATTN_EXAMPLE_TRANSFORMER_H

#include <stdint.h>

#include "attention_layer.h"

typedef struct transformer_config {
    int64_t vocabulary, context, heads, width; /* width is a multiple of heads */
    int layers;
} transformer_config;

typedef struct tensor {
    char name[24];
    int64_t rows, columns, offset;
} tensor;

typedef struct transformer {
    transformer_config config;
    tensor *tensors;
    int tensor_count;
    int64_t parameter_count;
    float *parameters, *gradients;
} transformer;

/* Random weights of that seed. To be ended by transformer_destroy. */
transformer transformer_create(transformer_config config, uint64_t seed);
void transformer_destroy(transformer *model);

/* What a forward leaves for the backward, of batch sequences of config.context tokens. */
typedef struct activations activations;

/* threads are those of all loops of the program from now on; 0: as they were. */
activations *activations_create(const transformer *model, int64_t batch, const attention_kind *kind,
                                int threads);
void activations_destroy(activations *a);

/* ids (batch, context). Returns logits (batch, context, vocabulary), which belong to a. */
float *transformer_forward(const transformer *model, activations *a, const uint8_t *ids);

/* The mean loss of predicting targets (batch, context) from ids. Overwrites the logits. */
double transformer_loss(const transformer *model, activations *a, const uint8_t *ids, const uint8_t *targets);

/* The same, and its gradient in model->gradients. */
double transformer_gradients(transformer *model, activations *a, const uint8_t *ids, const uint8_t *targets);

/* Seconds spent in attention so far, and bytes that it keeps from forward to backward. */
double activations_attention_seconds(const activations *a);
int64_t activations_attention_bytes(const activations *a);

double seconds_now(void);

#endif
