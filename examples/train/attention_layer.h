/*
 * Causal multi-head attention of one model: what it needs between forward and backward, for each layer.
 * Two of a kind: libattn (attention_libattn.c), which keeps LSE, and the standard algorithm
 * (attention_standard.c), which keeps P.
 *
 * qkv is (batch, context, 3, heads, dim): queries, keys and values of a token lie side by side, as one
 * product of the model makes them. o is (batch, context, heads, dim). Gradients are shaped like what they
 * belong to.
 */
#ifndef ATTN_EXAMPLE_ATTENTION_LAYER_H
#define ATTN_EXAMPLE_ATTENTION_LAYER_H

#include <math.h>
#include <stdint.h>

typedef struct attention_shape {
    int64_t batch, context, heads, dim;
    int layers;
    int threads; /* 0: all */
} attention_shape;

/*
 * Heads look back over different distances (ALiBi, Press, Smith and Lewis 2022): a score loses slope for each
 * character between query and key. Slopes fall from 1 to near 1/256, by the same factor from head to head.
 */
static inline float attention_slope(int64_t head, int64_t heads) {
    return exp2f(-8 * (float)head / (float)heads);
}

typedef struct attention_kind {
    const char *name;
    /* The state, to be ended by destroy. Ends the program when it cannot be made. */
    void *(*create)(const attention_shape *shape);
    void (*destroy)(void *state);
    void (*forward)(void *state, int layer, const float *qkv, float *o);
    /* After a forward of the same layer, whose qkv and o these are. */
    void (*backward)(void *state, int layer, const float *qkv, const float *o, const float *o_gradient,
                     float *qkv_gradient);
    /* Bytes kept from forward to backward by all layers, beyond qkv and o. */
    int64_t (*kept_bytes)(const attention_shape *shape);
} attention_kind;

extern const attention_kind attention_libattn, attention_standard;

#endif
