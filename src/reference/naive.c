/*
 * What a plain program in float32 would answer: scores and softmax in float32, normalised P rounded
 * to V's type where that has 16 bits, the product summed in float32, O rounded to its type. Its
 * distance from the truth is the yardstick of tolerance.h.
 */
#include "reference_head.h"
#include "rounding.h"

void attni_reference_naive_row(const attni_reference_head *head, int64_t row, float *weights, double *o,
                               double *lse) {
    float sink = (float)head->sink;
    float softcap = (float)head->softcap;
    float top = sink;
    for (int64_t j = 0; j < head->keys; ++j) {
        const double *q = head->q + row * head->dim_qk;
        const double *k = head->k + j * head->dim_qk;
        int64_t at = row * head->keys + j;
        weights[j] = -INFINITY;
        if (!head->sees[at]) continue;
        float dot = 0.0f;
        for (int64_t d = 0; d < head->dim_qk; ++d) dot += (float)q[d] * (float)k[d];
        float score = dot * (float)head->scale;
        if (softcap > 0.0f) score = softcap * tanhf(score / softcap);
        score -= (float)head->slope * (float)head->distance[at];
        score += (float)head->bias[at];
        weights[j] = score;
        if (score > top || isnan(score)) top = score;
    }

    for (int64_t d = 0; d < head->dim_v; ++d) o[d] = 0.0;
    *lse = (double)-INFINITY;
    if (top == -INFINITY) return;

    float sum = expf(sink - top);
    for (int64_t j = 0; j < head->keys; ++j) {
        weights[j] = weights[j] == -INFINITY ? 0.0f : expf(weights[j] - top);
        sum += weights[j];
    }
    *lse = (double)(top + logf(sum));

    for (int64_t j = 0; j < head->keys; ++j) {
        float p = weights[j] / sum * (float)head->keep[row * head->keys + j] * (float)head->keep_scale;
        weights[j] = (float)attni_reference_round((double)p, head->dtype_kv);
    }
    for (int64_t d = 0; d < head->dim_v; ++d) {
        float total = 0.0f;
        for (int64_t j = 0; j < head->keys; ++j) {
            if (head->sees[row * head->keys + j]) total += weights[j] * (float)head->v[j * head->dim_v + d];
        }
        o[d] = attni_reference_round((double)total, head->dtype_o);
    }
}
