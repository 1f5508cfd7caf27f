/* One query head of one sequence, widened to double: what reference.c and naive.c both solve. */
#ifndef ATTNI_REFERENCE_HEAD_H
#define ATTNI_REFERENCE_HEAD_H

#include "attn/attn.h"

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

/* A row's answer in float32, widened: dim_v numbers of o, and its lse. weights holds keys floats. */
void attni_reference_naive_row(const attni_reference_head *head, int64_t row, float *weights, double *o,
                               double *lse);

#endif
