/* One query head of one sequence, widened to double: what reference.c and naive.c both solve. */
#ifndef ATTNI_REFERENCE_HEAD_H
#define ATTNI_REFERENCE_HEAD_H

#include "reference.h"

typedef struct attni_reference_head {
    int64_t rows, keys, dim_qk, dim_v;
    attn_dtype dtype_kv, dtype_o;
    double scale, softcap, slope, sink; /* softcap 0: none; sink -inf: none */
    double keep_scale;                  /* 1 / (1 - dropout_p) */
    double *q, *k, *v;                  /* rows x dim_qk, keys x dim_qk, keys x dim_v */
    double *distance;                   /* rows x keys: |query position - key position| */
    double *bias;                       /* rows x keys, 0 where there is none */
    double *keep;                       /* rows x keys: 1 or 0 */
    unsigned char *sees;                /* rows x keys */
} attni_reference_head;

/* What is the same for all heads; then what a head has but its products: widened inputs, bias, mask, dropout. */
void attni_reference_constants(const attn_problem *problem, const attn_tensors *tensors,
                               attni_reference_head *head);
void attni_reference_gather(const attn_problem *problem, const attn_tensors *tensors,
                            const attni_reference_sequence *sequence, int64_t batch, int64_t h,
                            attni_reference_head *head);

/* S, and beside each score the sum of the sizes of what it was added up from; then -inf where nothing is seen. */
void attni_reference_scores(const attni_reference_head *head, double *s, double *size);
void attni_reference_mask(const attni_reference_head *head, double *s);

/* A row of S becomes P; returns its LSE. Then column d of O from P of row i. */
double attni_reference_softmax_row(const attni_reference_head *head, double *s);
double attni_reference_product(const attni_reference_head *head, int64_t i, const double *p, int64_t d);

/* A row's answer in float32, widened: dim_v numbers of o, and its lse. weights holds keys floats. */
void attni_reference_naive_row(const attni_reference_head *head, int64_t row, float *weights, double *o,
                               double *lse);

/* Row `row` in float32: p and ds of keys floats each, o of dim_v as it would be stored, and the sink's gradient. */
typedef struct attni_reference_naive_backward {
    const attni_reference_head *head;
    const double *dout; /* the row's */
    float dlse;
    int64_t row;
    float *p, *ds;
    double *o;
    float dsink;
} attni_reference_naive_backward;

void attni_reference_naive_gradients(attni_reference_naive_backward *row);

#endif
