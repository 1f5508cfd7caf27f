#include "reference_backward.h"

#include <stdlib.h>
#include <string.h>

#include "reference_head.h"
#include "rounding.h"

/* ---------------------------------------------------------------- sizes */

static int64_t total_keys(const attn_problem *problem, const attn_tensors *tensors) {
    if (problem->lengths_k != ATTN_LENGTHS_RAGGED) return problem->batch * problem->seqlen_k;
    return tensors->lengths_k[problem->batch];
}

/* A dimension of the bias that is broadcast counts once. */
static int64_t bias_extent(int64_t stride, int64_t extent) { return stride == 0 ? 1 : extent; }

int64_t attni_reference_dbias_row(const attn_problem *problem, int64_t batch, int64_t head, int64_t query) {
    int64_t heads = bias_extent(problem->bias.heads, problem->heads_q);
    int64_t queries = bias_extent(problem->bias.queries, problem->seqlen_q);
    int64_t b = problem->bias.batch == 0 ? 0 : batch, h = problem->bias.heads == 0 ? 0 : head;
    int64_t i = problem->bias.queries == 0 ? 0 : query;
    return ((b * heads + h) * queries + i) * problem->seqlen_k;
}

int64_t attni_reference_gradient_count(const attn_problem *problem, const attn_tensors *tensors,
                                       attni_reference_gradient which, int64_t *dim) {
    switch (which) {
    case ATTNI_REFERENCE_DQ:
        *dim = problem->dim_qk;
        return attni_reference_rows(problem, tensors) * problem->heads_q * *dim;
    case ATTNI_REFERENCE_DK:
        *dim = problem->dim_qk;
        return total_keys(problem, tensors) * problem->heads_kv * *dim;
    case ATTNI_REFERENCE_DV:
        *dim = problem->dim_v;
        return total_keys(problem, tensors) * problem->heads_kv * *dim;
    case ATTNI_REFERENCE_DBIAS:
        *dim = problem->has_bias ? problem->seqlen_k : 0;
        return *dim * bias_extent(problem->bias.batch, problem->batch) *
               bias_extent(problem->bias.heads, problem->heads_q) *
               bias_extent(problem->bias.queries, problem->seqlen_q);
    default: *dim = 1; return problem->heads_q;
    }
}

/* ---------------------------------------------------------------- one head */

/* Beside the head: its upstream gradients, and rows x keys of each quantity of the chain. */
typedef struct work {
    attni_reference_head head;
    double *dout, *dlse;
    double *p, *size, *derivative; /* probability; of the score: size of its terms, softcap's derivative */
    double *ds, *error;            /* gradient of the score, and the floor of its error */
    double *o, *lse, *d;           /* a row's o; of each row: its LSE, D */
    double *d_error;
    float *weights;
    int64_t q_at, q_step, k_at, k_step,
        v_step; /* element of row 0, and from row to row, of dq, of dk and dv */
    double *squares[ATTNI_REFERENCE_GRADIENTS]; /* of the terms of each gradient */
} work;

static double dot(const double *a, const double *b, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total += a[i] * b[i];
    return total;
}

static double dot_sizes(const double *a, const double *b, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total += fabs(a[i] * b[i]);
    return total;
}

static double dot_squares(const double *a, const double *b, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total += a[i] * b[i] * a[i] * b[i];
    return total;
}

/* Roundings that sums of this head's sizes collect, in units. */
static double steps_of(const attni_reference_head *head) {
    return 8.0 + sqrt((double)head->keys) + sqrt((double)head->rows) +
           sqrt((double)(head->dim_qk + head->dim_v));
}

/* S, P, LSE and softcap's derivative; from here on what has a score of -inf is not seen. */
static void probabilities(work *w) {
    attni_reference_head *head = &w->head;
    attni_reference_scores(head, w->p, w->size);
    for (int64_t at = 0; at < head->rows * head->keys; ++at) {
        w->derivative[at] = 1.0;
        if (head->softcap > 0.0) {
            int64_t i = at / head->keys, j = at % head->keys;
            double t =
                tanh(head->scale * dot(head->q + i * head->dim_qk, head->k + j * head->dim_qk, head->dim_qk) /
                     head->softcap);
            w->derivative[at] = 1.0 - t * t;
        }
        if (w->p[at] == (double)-INFINITY) head->sees[at] = 0;
    }
    attni_reference_mask(head, w->p);
    for (int64_t i = 0; i < head->rows; ++i)
        w->lse[i] = attni_reference_softmax_row(head, w->p + i * head->keys);
}

/* dS of row i, and what its errors may be. */
static void score_gradients(work *w, int64_t i) {
    const attni_reference_head *head = &w->head;
    const double unit = attni_reference_unit(ATTN_F32), steps = steps_of(head);
    const double *dout = w->dout + i * head->dim_v, *p = w->p + i * head->keys;
    double *ds = w->ds + i * head->keys;
    double d = 0.0;
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = i * head->keys + j;
        if (!head->sees[at]) continue;
        ds[j] =
            head->keep[at] * head->keep_scale * dot(dout, head->v + j * head->dim_v, head->dim_v); /* dP */
        d += p[j] * ds[j];
    }
    for (int64_t c = 0; c < head->dim_v; ++c) w->o[c] = attni_reference_product(head, i, p, c);
    w->d[i] = d;
    w->d_error[i] = 4.0 * unit * steps * (dot_sizes(dout, w->o, head->dim_v) + fabs(w->dlse[i])) +
                    3.0 * attni_reference_unit(head->dtype_o) * sqrt(dot_squares(dout, w->o, head->dim_v));
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = i * head->keys + j;
        if (!head->sees[at]) continue;
        double dp = ds[j];
        double dp_size =
            head->keep[at] * head->keep_scale * dot_sizes(dout, head->v + j * head->dim_v, head->dim_v);
        ds[j] = p[j] * (dp - d + w->dlse[i]);
        w->error[at] = 4.0 * unit * (w->size[at] + fabs(w->lse[i]) + steps) * fabs(ds[j]) +
                       p[j] * (4.0 * unit * steps * dp_size + w->d_error[i]) +
                       0x1p-120 * (fabs(dp) + fabs(d) + fabs(w->dlse[i]));
    }
}

/* Softcap's part of a floor. */
static double derivative_error(const work *w, int64_t at) {
    if (!(w->head.softcap > 0.0)) return 0.0;
    return attni_reference_unit(ATTN_F32) * (16.0 + 2.0 * w->size[at] / w->head.softcap);
}

/* ---------------------------------------------------------------- sums */

static void add(attni_reference_gradients *r, work *w, attni_reference_gradient which, int64_t at,
                double term, double error) {
    r->truth[which][at] += term;
    r->floor[which][at] += error;
    w->squares[which][at] += term * term;
}

static void add_row(const attn_problem *problem, work *w, int64_t b, int64_t h, int64_t i,
                    attni_reference_gradients *r) {
    const attni_reference_head *head = &w->head;
    const double unit = attni_reference_unit(ATTN_F32), steps = steps_of(head), scale = head->scale;
    const int64_t dq_at = w->q_at + i * w->q_step;
    const double *q = head->q + i * head->dim_qk, *dout = w->dout + i * head->dim_v;
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = i * head->keys + j, dk_at = w->k_at * head->dim_qk + j * w->k_step;
        if (!head->sees[at]) continue;
        double ds = w->ds[at], dz = ds * w->derivative[at] * scale;
        double error = fabs(scale) * (w->error[at] * w->derivative[at] + fabs(ds) * derivative_error(w, at)) +
                       4.0 * unit * steps * fabs(dz);
        for (int64_t c = 0; c < head->dim_qk; ++c) {
            double k = head->k[j * head->dim_qk + c];
            add(r, w, ATTNI_REFERENCE_DQ, dq_at + c, dz * k, error * fabs(k));
            add(r, w, ATTNI_REFERENCE_DK, dk_at + c, dz * q[c], error * fabs(q[c]));
        }
        double p = w->p[at] * head->keep[at] * head->keep_scale;
        double p_error =
            4.0 * unit * (w->size[at] + fabs(w->lse[i]) + 2.0 * steps) * p + 0x1p-120 * head->keep_scale;
        for (int64_t c = 0; c < head->dim_v; ++c)
            add(r, w, ATTNI_REFERENCE_DV, w->k_at * head->dim_v + j * w->v_step + c, p * dout[c],
                p_error * fabs(dout[c]));
        if (problem->has_bias)
            add(r, w, ATTNI_REFERENCE_DBIAS, attni_reference_dbias_row(problem, b, h, i) + j, ds,
                w->error[at] + 4.0 * unit * steps * fabs(ds));
    }
    if (!problem->has_sinks) return;
    if (head->sink == (double)-INFINITY) {
        if (isnan(w->lse[i])) r->truth[ATTNI_REFERENCE_DSINKS][h] += w->lse[i];
        return;
    }
    double weight = exp(head->sink - w->lse[i]), term = weight * (w->dlse[i] - w->d[i]);
    double error =
        4.0 * unit * (fabs(head->sink) + fabs(w->lse[i]) + steps) * fabs(term) + weight * w->d_error[i];
    r->truth[ATTNI_REFERENCE_DSINKS][h] += term;
    r->floor[ATTNI_REFERENCE_DSINKS][h] += error;
}

/* Naive's arrays are floats that grow; rounded to their dtypes at the end. P and dS are rounded where K and V are. */
static void add_naive(const attn_problem *problem, work *w, int64_t b, int64_t h, int64_t i,
                      attni_reference_gradients *r) {
    const attni_reference_head *head = &w->head;
    attni_reference_naive_backward row = {
        head, w->dout + i * head->dim_v, (float)w->dlse[i], i, w->weights, w->weights + head->keys, w->o,
        0.0f};
    attni_reference_naive_gradients(&row);
    double **to = r->naive;
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = i * head->keys + j, dk_at = w->k_at * head->dim_qk + j * w->k_step;
        if (!head->sees[at]) continue;
        float dz = row.ds[j] * (float)w->derivative[at];
        dz = (float)attni_reference_round((double)dz, head->dtype_kv) * (float)head->scale;
        for (int64_t c = 0; c < head->dim_qk; ++c) {
            double *dq = to[ATTNI_REFERENCE_DQ] + w->q_at + i * w->q_step + c,
                   *dk = to[ATTNI_REFERENCE_DK] + dk_at + c;
            *dq = (double)((float)*dq + dz * (float)head->k[j * head->dim_qk + c]);
            *dk = (double)((float)*dk + dz * (float)head->q[i * head->dim_qk + c]);
        }
        float p = row.p[j] * (float)head->keep[at] * (float)head->keep_scale;
        p = (float)attni_reference_round((double)p, head->dtype_kv);
        for (int64_t c = 0; c < head->dim_v; ++c) {
            double *dv = to[ATTNI_REFERENCE_DV] + w->k_at * head->dim_v + j * w->v_step + c;
            *dv = (double)((float)*dv + p * (float)w->dout[i * head->dim_v + c]);
        }
        if (problem->has_bias) {
            double *dbias = to[ATTNI_REFERENCE_DBIAS] + attni_reference_dbias_row(problem, b, h, i) + j;
            *dbias = (double)((float)*dbias + row.ds[j]);
        }
    }
    double *dsink = to[ATTNI_REFERENCE_DSINKS] + h;
    if (problem->has_sinks) *dsink = (double)((float)*dsink + row.dsink);
}

/* ---------------------------------------------------------------- all heads */

static int work_make(work *w, const attn_problem *problem) {
    size_t rows = (size_t)problem->seqlen_q, keys = (size_t)problem->seqlen_k;
    size_t dim_qk = (size_t)problem->dim_qk, dim_v = (size_t)problem->dim_v, scores = rows * keys;
    attni_reference_head *head = &w->head;
    const struct {
        double **place;
        size_t count;
    } parts[] = {{&head->q, rows * dim_qk}, {&head->k, keys * dim_qk},
                 {&head->v, keys * dim_v},  {&head->distance, scores},
                 {&head->bias, scores},     {&head->keep, scores},
                 {&w->dout, rows * dim_v},  {&w->dlse, rows},
                 {&w->p, scores},           {&w->size, scores},
                 {&w->derivative, scores},  {&w->ds, scores},
                 {&w->error, scores},       {&w->o, dim_v},
                 {&w->lse, rows},           {&w->d, rows},
                 {&w->d_error, rows}};
    int missing = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
        *parts[i].place = malloc(parts[i].count * sizeof(double) + 1);
        if (!*parts[i].place) missing = 1;
    }
    head->sees = malloc(scores + 1);
    w->weights = malloc(2 * keys * sizeof(float) + 1);
    return missing || !head->sees || !w->weights ? -1 : 0;
}

static void work_free(work *w) {
    attni_reference_head *head = &w->head;
    double *parts[] = {head->q,  head->k, head->v, head->distance, head->bias,    head->keep,
                       w->dout,  w->dlse, w->p,    w->size,        w->derivative, w->ds,
                       w->error, w->o,    w->lse,  w->d,           w->d_error};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) free(parts[i]);
    for (int i = 0; i < ATTNI_REFERENCE_GRADIENTS; ++i) free(w->squares[i]);
    free(head->sees);
    free(w->weights);
}

/* The head's rows of dout and dlse. */
static void gather_upstream(const attn_problem *problem, const attn_tensors *tensors,
                            const attni_reference_sequence *sequence, int64_t b, int64_t h, work *w) {
    attn_strides s =
        attni_reference_strides(problem->dout, problem->seqlen_q, problem->heads_q, problem->dim_v);
    int ragged = problem->lengths_q == ATTN_LENGTHS_RAGGED;
    for (int64_t i = 0; i < sequence->rows; ++i) {
        int64_t from = sequence->slice_q * s.batch + (sequence->first_row + i) * s.seqlen + h * s.heads;
        for (int64_t c = 0; c < problem->dim_v; ++c)
            w->dout[i * problem->dim_v + c] = attni_reference_load(tensors->dout, problem->dtype_o, from + c);
        int64_t lse_at = ragged ? h * attni_reference_rows(problem, tensors) + sequence->first_row + i
                                : (b * problem->heads_q + h) * problem->seqlen_q + i;
        w->dlse[i] = tensors->dlse ? (double)tensors->dlse[lse_at] : 0.0;
    }
}

static void zero(attni_reference_gradients *r, attni_reference_gradient which, int64_t at, int64_t count) {
    double *arrays[] = {r->truth[which], r->naive[which], r->floor[which]};
    for (int a = 0; a < 3; ++a)
        for (int64_t i = 0; i < count; ++i) arrays[a][at + i] = 0.0;
}

static void solve(const attn_problem *problem, const attn_tensors *tensors, work *w,
                  attni_reference_gradients *r) {
    for (int64_t b = 0; b < problem->batch; ++b) {
        attni_reference_sequence s = attni_reference_find(problem, tensors, b);
        int64_t row = problem->lengths_q == ATTN_LENGTHS_RAGGED ? s.first_row : b * problem->seqlen_q;
        int64_t key = problem->lengths_k == ATTN_LENGTHS_RAGGED ? s.first_key : b * problem->seqlen_k;
        int64_t dim = problem->dim_qk, dim_v = problem->dim_v, hq = problem->heads_q, hkv = problem->heads_kv;
        zero(r, ATTNI_REFERENCE_DQ, row * hq * dim, s.rows * hq * dim);
        zero(r, ATTNI_REFERENCE_DK, key * hkv * dim, s.keys * hkv * dim);
        zero(r, ATTNI_REFERENCE_DV, key * hkv * dim_v, s.keys * hkv * dim_v);
        for (int64_t h = 0; h < hq; ++h) {
            attni_reference_gather(problem, tensors, &s, b, h, &w->head);
            gather_upstream(problem, tensors, &s, b, h, w);
            probabilities(w);
            w->q_at = (row * hq + h) * dim;
            w->q_step = hq * dim;
            w->k_at = key * hkv + h / (hq / hkv);
            w->k_step = hkv * dim;
            w->v_step = hkv * dim_v;
            for (int64_t i = 0; i < s.rows; ++i) {
                score_gradients(w, i);
                add_row(problem, w, b, h, i, r);
                add_naive(problem, w, b, h, i, r);
            }
        }
    }
}

/* Naive's sums rounded to what holds them, and the floors' part of P and dS in 16 bits. */
static void finish(const attn_problem *problem, const attn_tensors *tensors, const work *w,
                   attni_reference_gradients *r) {
    const attn_dtype dtypes[] = {problem->dtype_q, problem->dtype_kv, problem->dtype_kv, ATTN_F32, ATTN_F32};
    double narrow = problem->dtype_kv == ATTN_F32 ? 0.0 : attni_reference_unit(problem->dtype_kv);
    for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which) {
        int64_t dim,
            count = attni_reference_gradient_count(problem, tensors, (attni_reference_gradient)which, &dim);
        for (int64_t i = 0; i < count; ++i) {
            if (r->truth[which][i] == ATTNI_REFERENCE_UNWRITTEN) continue;
            r->naive[which][i] = attni_reference_round(r->naive[which][i], dtypes[which]);
            if (which <= ATTNI_REFERENCE_DV) r->floor[which][i] += 3.0 * narrow * sqrt(w->squares[which][i]);
        }
    }
}

static int arrays_make(const attn_problem *problem, const attn_tensors *tensors, work *w,
                       attni_reference_gradients *r) {
    for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which) {
        int64_t dim,
            count = attni_reference_gradient_count(problem, tensors, (attni_reference_gradient)which, &dim);
        double **arrays[] = {&r->truth[which], &r->naive[which], &r->floor[which], &w->squares[which]};
        for (int a = 0; a < 4; ++a) {
            *arrays[a] = malloc((size_t)count * sizeof(double) + 1);
            if (!*arrays[a]) return -1;
            for (int64_t i = 0; i < count; ++i) (*arrays[a])[i] = a == 3 ? 0.0 : ATTNI_REFERENCE_UNWRITTEN;
        }
        if (which >= ATTNI_REFERENCE_DBIAS) zero(r, (attni_reference_gradient)which, 0, count);
    }
    return 0;
}

int attni_reference_backward(const attn_problem *problem, const attn_tensors *tensors,
                             attni_reference_gradients *result) {
    work w;
    memset(&w, 0, sizeof w);
    memset(result, 0, sizeof *result);
    int made = work_make(&w, problem) == 0 && arrays_make(problem, tensors, &w, result) == 0 ? 0 : -1;
    if (made == 0) {
        attni_reference_constants(problem, tensors, &w.head);
        solve(problem, tensors, &w, result);
        finish(problem, tensors, &w, result);
    } else {
        attni_reference_gradients_free(result);
    }
    work_free(&w);
    return made;
}

void attni_reference_gradients_free(attni_reference_gradients *result) {
    for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which) {
        free(result->truth[which]);
        free(result->naive[which]);
        free(result->floor[which]);
    }
    memset(result, 0, sizeof *result);
}
