/*
 * The standard algorithm in plain C. For each sequence and head, with scale = 1/sqrt(D):
 *
 *   forward    S = scale Q K^T - slope (query - key)    P = softmax of S's rows, causal    O = P V
 *   backward   dV = P^T dO    dP = dO V^T    dS = P (dP - rowsum(P dP))
 *              dQ = scale dS K               dK = scale dS^T Q
 *
 * P of every layer is kept from forward to backward: context x context numbers for each sequence and head.
 * In the code T is the context and D a head's dim.
 */
#include "attention_layer.h"
#include "fail.h"
#include "matmul.h"

#include <math.h>
#include <stdlib.h>

typedef struct state {
    attention_shape shape;
    float *p;         /* (layers, batch, heads, context, context) */
    float *scores;    /* (batch, heads, context, context): dP, then dS */
    float *transposed; /* (batch, heads, dim, context): K, then V */
} state;

/* One head's part of a state and of (batch, context, ..) tensors; rows of qkv are 3 widths apart. */
typedef struct head {
    int64_t context, dim, width;
    float slope;
    int64_t qkv, o; /* offsets of its first number */
    float *p, *scores, *transposed;
} head;

static head head_at(const state *s, int layer, int64_t index) {
    const int64_t T = s->shape.context, D = s->shape.dim, H = s->shape.heads, B = s->shape.batch;
    const int64_t sequence = index / H, column = index % H * D, width = H * D;
    head h = {.context = T, .dim = D, .width = width, .slope = attention_slope(index % H, H)};
    h.qkv = sequence * T * 3 * width + column;
    h.o = sequence * T * width + column;
    h.p = s->p + (layer * B * H + index) * T * T;
    h.scores = s->scores + index * T * T;
    h.transposed = s->transposed + index * D * T;
    return h;
}

static int64_t p_count(const attention_shape *shape) {
    return shape->layers * shape->batch * shape->heads * shape->context * shape->context;
}

static void *create(const attention_shape *shape) {
    state *s = need_memory(1, sizeof *s);
    s->shape = *shape;
    s->p = need_memory(p_count(shape), sizeof(float));
    s->scores = need_memory(p_count(shape) / shape->layers, sizeof(float));
    s->transposed = need_memory(shape->batch * shape->heads * shape->context * shape->dim, sizeof(float));
    return s;
}

static void destroy(void *memory) {
    state *s = memory;
    free(s->p);
    free(s->scores);
    free(s->transposed);
    free(s);
}

/* S becomes P, in place. */
static void causal_softmax(int64_t context, float scale, float slope, float *p) {
    for (int64_t i = 0; i < context; i++) {
        float *row = p + i * context, m = -INFINITY, l = 0;
        for (int64_t j = 0; j <= i; j++) {
            row[j] = row[j] * scale - slope * (float)(i - j);
            m = fmaxf(m, row[j]);
        }
        for (int64_t j = 0; j <= i; j++) l += row[j] = expf(row[j] - m);
        for (int64_t j = 0; j <= i; j++) row[j] /= l;
        for (int64_t j = i + 1; j < context; j++) row[j] = 0;
    }
}

/* dP becomes scale dS, in place. */
static void softmax_backward(int64_t context, float scale, const float *p, float *scores) {
    for (int64_t i = 0; i < context; i++) {
        const float *P = p + i * context;
        float *row = scores + i * context, sum = 0;
        for (int64_t j = 0; j <= i; j++) sum += P[j] * row[j];
        for (int64_t j = 0; j < context; j++) row[j] = scale * P[j] * (row[j] - sum);
    }
}

static void head_forward(const head *h, const float *qkv, float *o) {
    const int64_t T = h->context, D = h->dim, row = 3 * h->width;
    const float *q = qkv + h->qkv, *k = q + h->width, *v = k + h->width;
    transpose(T, D, k, row, h->transposed);
    matmul_one_thread(&(product){T, D, T, q, row, 1, h->transposed, T, h->p, T, 0});
    causal_softmax(T, 1 / sqrtf((float)D), h->slope, h->p);
    matmul_one_thread(&(product){T, T, D, h->p, T, 1, v, row, o + h->o, h->width, 0});
}

static void head_backward(const head *h, const float *qkv, const float *o_gradient, float *qkv_gradient) {
    const int64_t T = h->context, D = h->dim, row = 3 * h->width;
    const float *q = qkv + h->qkv, *k = q + h->width, *v = k + h->width, *dout = o_gradient + h->o;
    float *dq = qkv_gradient + h->qkv, *dk = dq + h->width, *dv = dk + h->width;
    matmul_one_thread(&(product){T, T, D, h->p, 1, T, dout, h->width, dv, row, 0});
    transpose(T, D, v, row, h->transposed);
    matmul_one_thread(&(product){T, D, T, dout, h->width, 1, h->transposed, T, h->scores, T, 0});
    softmax_backward(T, 1 / sqrtf((float)D), h->p, h->scores);
    matmul_one_thread(&(product){T, T, D, h->scores, T, 1, k, row, dq, row, 0});
    matmul_one_thread(&(product){T, T, D, h->scores, 1, T, q, row, dk, row, 0});
}

static void forward(void *memory, int layer, const float *qkv, float *o) {
    const state *s = memory;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->shape.batch * s->shape.heads; i++) {
        const head h = head_at(s, layer, i);
        head_forward(&h, qkv, o);
    }
}

static void backward(void *memory, int layer, const float *qkv, const float *o, const float *o_gradient,
                     float *qkv_gradient) {
    const state *s = memory;
    (void)o; /* the other algorithm's shortcut: rowsum(P dP) = rowsum(dO O) */
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->shape.batch * s->shape.heads; i++) {
        const head h = head_at(s, layer, i);
        head_backward(&h, qkv, o_gradient, qkv_gradient);
    }
}

static int64_t kept_bytes(const attention_shape *shape) { return p_count(shape) * (int64_t)sizeof(float); }

const attention_kind attention_standard = {"standard", create, destroy, forward, backward, kept_bytes};
