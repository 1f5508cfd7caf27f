/*
 * What a plain program in float32 would answer: scores and softmax in float32, normalised P rounded
 * to V's type where that has 16 bits, the product summed in float32, O rounded to its type. Under 8-bit V, P is not
 * normalised before it is rounded to e4m3, which has no small numbers, but times 256 over the row's largest. Its
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

    attn_dtype p_dtype = attni_reference_p_dtype(head->dtype_kv);
    float divisor = sum, after = 1.0f;
    if (attni_reference_size(p_dtype) == 1) {
        float largest = 0.0f; /* below 1 where a sink is the top */
        for (int64_t j = 0; j < head->keys; ++j) largest = weights[j] > largest ? weights[j] : largest;
        divisor = largest > 0.0f ? largest / 256.0f : 1.0f;
        after = divisor / sum;
    }
    for (int64_t j = 0; j < head->keys; ++j) {
        float p = weights[j] / divisor * (float)head->keep[row * head->keys + j] * (float)head->keep_scale;
        weights[j] = (float)attni_reference_round((double)p, p_dtype) * after;
    }
    for (int64_t d = 0; d < head->dim_v; ++d) {
        float total = 0.0f;
        for (int64_t j = 0; j < head->keys; ++j) {
            if (head->sees[row * head->keys + j]) total += weights[j] * (float)head->v[j * head->dim_v + d];
        }
        o[d] = attni_reference_round((double)total, head->dtype_o);
    }
}
