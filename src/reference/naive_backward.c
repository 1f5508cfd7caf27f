/* A row's dS as a plain program in float32 has it: P normalised, D from the O that it would have stored. */
#include "reference_head.h"
#include "rounding.h"

/* S of a row, and the largest score, the sink included. */
static float naive_scores(const attni_reference_head *head, int64_t row, float *s) {
    float top = (float)head->sink;
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = row * head->keys + j;
        s[j] = -INFINITY;
        if (!head->sees[at]) continue;
        float sum = 0.0f;
        for (int64_t d = 0; d < head->dim_qk; ++d)
            sum += (float)head->q[row * head->dim_qk + d] * (float)head->k[j * head->dim_qk + d];
        float score = sum * (float)head->scale;
        if (head->softcap > 0.0) score = (float)head->softcap * tanhf(score / (float)head->softcap);
        score -= (float)head->slope * (float)head->distance[at];
        s[j] = score + (float)head->bias[at];
        if (s[j] > top || isnan(s[j])) top = s[j];
    }
    return top;
}

static float naive_dot(const double *a, const double *b, int64_t n) {
    float sum = 0.0f;
    for (int64_t i = 0; i < n; ++i) sum += (float)a[i] * (float)b[i];
    return sum;
}

void attni_reference_naive_gradients(attni_reference_naive_backward *r) {
    const attni_reference_head *head = r->head;
    float top = naive_scores(head, r->row, r->p), lse;
    r->dsink = 0.0f;
    for (int64_t j = 0; j < head->keys; ++j) r->ds[j] = 0.0f;
    if (top != -INFINITY) {
        float sum = expf((float)head->sink - top);
        for (int64_t j = 0; j < head->keys; ++j) {
            r->p[j] = r->p[j] == -INFINITY ? 0.0f : expf(r->p[j] - top);
            sum += r->p[j];
        }
        lse = top + logf(sum);
        for (int64_t j = 0; j < head->keys; ++j) r->p[j] /= sum;
    } else {
        lse = -INFINITY;
        for (int64_t j = 0; j < head->keys; ++j) r->p[j] = 0.0f;
    }
    double unused;
    attni_reference_naive_row(head, r->row, r->ds, r->o, &unused); /* O; ds is its scratch */
    float d = naive_dot(r->dout, r->o, head->dim_v);
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = r->row * head->keys + j;
        r->ds[j] = 0.0f;
        if (!head->sees[at]) continue;
        float dp = naive_dot(r->dout, head->v + j * head->dim_v, head->dim_v) * (float)head->keep[at] *
                   (float)head->keep_scale;
        r->ds[j] = r->p[j] * (dp - d + r->dlse);
    }
    if (head->sink != (double)-INFINITY) r->dsink = expf((float)head->sink - lse) * (r->dlse - d);
}
