/*
 * Attention by libattn: one plan for all layers, tensors that are read and written where they lie in the
 * model's own (by strides), and from forward to backward LSE alone, one float for each row.
 */
#include "attention_layer.h"
#include "fail.h"

#include <stdlib.h>

#include "attn/attn.h"

typedef struct state {
    attention_shape shape;
    attn_context *context;
    attn_plan *plan;
    float *lse;    /* (layers, batch, heads, context) */
    float *slopes; /* (heads) */
} state;

static void check(attn_status status) {
    if (status != ATTN_OK) fail("%s: %s", attn_status_name(status), attn_last_error());
}

static int64_t lse_count(const attention_shape *shape) {
    return shape->batch * shape->heads * shape->context;
}

static void *create(const attention_shape *shape) {
    state *s = need_memory(1, sizeof *s);
    s->shape = *shape;
    s->lse = need_memory(shape->layers * lse_count(shape), sizeof *s->lse);
    s->slopes = need_memory(shape->heads, sizeof *s->slopes);
    for (int64_t head = 0; head < shape->heads; head++) s->slopes[head] = attention_slope(head, shape->heads);

    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    options.threads = shape->threads;
    check(attn_context_create(ATTN_DEVICE_CPU, 0, &options, &s->context));

    const int64_t width = shape->heads * shape->dim;
    const attn_strides in_qkv = {shape->context * 3 * width, 3 * width, shape->dim};
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = shape->batch;
    p.heads_q = p.heads_kv = shape->heads;
    p.seqlen_q = p.seqlen_k = shape->context;
    p.dim_qk = p.dim_v = shape->dim;
    p.mask = ATTN_MASK_CAUSAL;
    p.has_alibi = 1;
    p.needs_backward = 1;
    p.q = p.k = p.v = in_qkv;
    p.dq = p.dk = p.dv = in_qkv; /* o and dout are packed, as the problem is by itself */
    check(attn_plan_create(s->context, &p, NULL, &s->plan));
    return s;
}

static void destroy(void *memory) {
    state *s = memory;
    attn_plan_destroy(s->plan);
    attn_context_destroy(s->context);
    free(s->lse);
    free(s->slopes);
    free(s);
}

static attn_tensors tensors_of(const state *s, int layer, const float *qkv, float *o) {
    const int64_t width = s->shape.heads * s->shape.dim;
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = qkv;
    t.k = qkv + width;
    t.v = qkv + 2 * width;
    t.o = o;
    t.alibi_slopes = s->slopes;
    t.lse = s->lse + layer * lse_count(&s->shape);
    return t;
}

static void forward(void *memory, int layer, const float *qkv, float *o) {
    const state *s = memory;
    const attn_tensors t = tensors_of(s, layer, qkv, o);
    check(attn_forward(s->plan, &t, NULL));
}

static void backward(void *memory, int layer, const float *qkv, const float *o, const float *o_gradient,
                     float *qkv_gradient) {
    const state *s = memory;
    const int64_t width = s->shape.heads * s->shape.dim;
    attn_tensors t = tensors_of(s, layer, qkv, (float *)o); /* the backward only reads o */
    t.dout = o_gradient;
    t.dq = qkv_gradient;
    t.dk = qkv_gradient + width;
    t.dv = qkv_gradient + 2 * width;
    check(attn_backward(s->plan, &t, NULL));
}

static int64_t kept_bytes(const attention_shape *shape) {
    return shape->layers * lse_count(shape) * (int64_t)sizeof(float);
}

const attention_kind attention_libattn = {"libattn", create, destroy, forward, backward, kept_bytes};
