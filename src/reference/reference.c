#include "reference.h"

#include <stdlib.h>

#include "reference_head.h"
#include "rounding.h"

/* ---------------------------------------------------------------- strides, lengths, positions */

attn_strides attni_reference_strides(attn_strides strides, int64_t seqlen, int64_t heads, int64_t dim) {
    if (strides.heads == ATTN_STRIDE_PACKED) strides.heads = dim;
    if (strides.seqlen == ATTN_STRIDE_PACKED) strides.seqlen = heads * dim;
    if (strides.batch == ATTN_STRIDE_PACKED) strides.batch = seqlen * heads * dim;
    return strides;
}

attn_score_strides attni_reference_score_strides(attn_score_strides strides, const attn_problem *problem) {
    int64_t rows = problem->seqlen_q, keys = problem->seqlen_k;
    if (strides.queries == ATTN_STRIDE_PACKED) strides.queries = keys;
    if (strides.heads == ATTN_STRIDE_PACKED) strides.heads = rows * keys;
    if (strides.batch == ATTN_STRIDE_PACKED) strides.batch = problem->heads_q * rows * keys;
    return strides;
}

static int64_t clamp(int64_t length, int64_t largest) {
    return length < 0 ? 0 : length > largest ? largest : length;
}

static int64_t run_length(attn_lengths kind, const int32_t *lengths, int64_t given, int64_t largest,
                          int64_t batch) {
    if (kind == ATTN_LENGTHS_PADDED) return clamp(lengths[batch], largest);
    if (kind == ATTN_LENGTHS_RAGGED) return clamp((int64_t)lengths[batch + 1] - lengths[batch], largest);
    return given == ATTN_LENGTH_DEFAULT ? largest : clamp(given, largest);
}

attni_reference_sequence attni_reference_find(const attn_problem *problem, const attn_tensors *tensors,
                                              int64_t batch) {
    int ragged_q = problem->lengths_q == ATTN_LENGTHS_RAGGED;
    int ragged_k = problem->lengths_k == ATTN_LENGTHS_RAGGED;
    attni_reference_sequence found;
    found.rows =
        run_length(problem->lengths_q, tensors->lengths_q, tensors->seqlen_q, problem->seqlen_q, batch);
    found.keys =
        run_length(problem->lengths_k, tensors->lengths_k, tensors->seqlen_k, problem->seqlen_k, batch);
    found.first_row = ragged_q ? tensors->lengths_q[batch] : 0;
    found.first_key = ragged_k ? tensors->lengths_k[batch] : 0;
    found.slice_q = ragged_q ? 0 : batch;
    found.slice_k = ragged_k ? 0 : batch;
    found.key_start = tensors->key_start == ATTN_POSITION_DEFAULT ? 0 : tensors->key_start;
    found.query_start = tensors->query_start == ATTN_POSITION_DEFAULT
                            ? found.key_start + found.keys - found.rows
                            : tensors->query_start;
    return found;
}

int64_t attni_reference_rows(const attn_problem *problem, const attn_tensors *tensors) {
    if (problem->lengths_q != ATTN_LENGTHS_RAGGED) return problem->batch * problem->seqlen_q;
    return tensors->lengths_q[problem->batch];
}

int64_t attni_reference_o_count(const attn_problem *problem, const attn_tensors *tensors) {
    return attni_reference_lse_count(problem, tensors) * problem->dim_v;
}

int64_t attni_reference_lse_count(const attn_problem *problem, const attn_tensors *tensors) {
    return attni_reference_rows(problem, tensors) * problem->heads_q;
}

/* ---------------------------------------------------------------- dropout */

void attni_reference_philox(uint32_t counter[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        uint64_t product0 = (uint64_t)0xD2511F53u * counter[0];
        uint64_t product1 = (uint64_t)0xCD9E8D57u * counter[2];
        uint32_t word1 = counter[1], word3 = counter[3];
        counter[0] = (uint32_t)(product1 >> 32) ^ word1 ^ key0;
        counter[1] = (uint32_t)product1;
        counter[2] = (uint32_t)(product0 >> 32) ^ word3 ^ key1;
        counter[3] = (uint32_t)product0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

int attni_reference_keeps(const attn_problem *problem, const attn_tensors *tensors, int64_t batch,
                          int64_t head, int64_t query_position, int64_t key_position) {
    int64_t lane = ((key_position % 8) + 8) % 8;
    uint32_t counter[4] = {(uint32_t)((key_position - lane) / 8), (uint32_t)query_position,
                           (uint32_t)(batch * problem->heads_q + head), (uint32_t)tensors->dropout_offset};
    attni_reference_philox(counter, (uint32_t)tensors->dropout_seed, (uint32_t)(tensors->dropout_seed >> 32));
    uint32_t value = counter[lane / 2] >> (lane % 2 ? 16 : 0) & 0xffffu;
    uint32_t threshold = (uint32_t)round((double)problem->dropout_p * 65536.0);
    return value >= threshold;
}

/* ---------------------------------------------------------------- one head */

void attni_reference_constants(const attn_problem *problem, const attn_tensors *tensors,
                               attni_reference_head *head) {
    head->dim_qk = problem->dim_qk;
    head->dim_v = problem->dim_v;
    head->dtype_kv = problem->dtype_kv;
    head->dtype_o = problem->dtype_o;
    head->scale = (double)tensors->scale;
    if (tensors->scale == ATTN_SCALE_DEFAULT) head->scale = 1.0 / sqrt((double)problem->dim_qk);
    head->softcap = (double)problem->softcap;
    head->keep_scale = 1.0 / (1.0 - (double)problem->dropout_p);
}

static int is_seen(const attn_problem *problem, int64_t query_position, int64_t key_position) {
    int64_t ahead = key_position - query_position;
    if (problem->mask == ATTN_MASK_CAUSAL && ahead > 0) return 0;
    if (problem->window_left != ATTN_WINDOW_UNLIMITED && -ahead > problem->window_left) return 0;
    if (problem->window_right != ATTN_WINDOW_UNLIMITED && ahead > problem->window_right) return 0;
    return 1;
}

static void widen(double *to, const void *from, attn_dtype dtype, int64_t origin, int64_t rows,
                  int64_t row_stride, int64_t dim, double scale) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t d = 0; d < dim; ++d) {
            to[i * dim + d] = attni_reference_load(from, dtype, origin + i * row_stride + d) * scale;
        }
    }
}

/* Everything about a head that is not a product: widened inputs, positions, bias, mask, dropout. */
void attni_reference_gather(const attn_problem *problem, const attn_tensors *tensors,
                            const attni_reference_sequence *sequence, int64_t batch, int64_t h,
                            attni_reference_head *head) {
    int64_t kv_head = h / (problem->heads_q / problem->heads_kv);
    attn_strides sq =
        attni_reference_strides(problem->q, problem->seqlen_q, problem->heads_q, problem->dim_qk);
    attn_strides sk =
        attni_reference_strides(problem->k, problem->seqlen_k, problem->heads_kv, problem->dim_qk);
    attn_strides sv =
        attni_reference_strides(problem->v, problem->seqlen_k, problem->heads_kv, problem->dim_v);
    attn_score_strides sb = attni_reference_score_strides(problem->bias, problem);
    attn_score_strides sm = attni_reference_score_strides(problem->mask_strides, problem);
    int scaled = problem->has_scales;
    int64_t scale_at = batch * problem->scale_stride_batch + kv_head * problem->scale_stride_head;

    head->rows = sequence->rows;
    head->keys = sequence->keys;
    if (problem->has_alibi) {
        head->slope = (double)tensors->alibi_slopes[batch * problem->alibi_stride_batch + h];
    }
    head->sink = problem->has_sinks ? (double)tensors->sinks[h] : (double)-INFINITY;

    widen(head->q, tensors->q, problem->dtype_q,
          sequence->slice_q * sq.batch + sequence->first_row * sq.seqlen + h * sq.heads, head->rows,
          sq.seqlen, head->dim_qk, scaled ? (double)tensors->q_scale[scale_at] : 1.0);
    widen(head->k, tensors->k, problem->dtype_kv,
          sequence->slice_k * sk.batch + sequence->first_key * sk.seqlen + kv_head * sk.heads, head->keys,
          sk.seqlen, head->dim_qk, scaled ? (double)tensors->k_scale[scale_at] : 1.0);
    widen(head->v, tensors->v, problem->dtype_kv,
          sequence->slice_k * sv.batch + sequence->first_key * sv.seqlen + kv_head * sv.heads, head->keys,
          sv.seqlen, head->dim_v, scaled ? (double)tensors->v_scale[scale_at] : 1.0);

    for (int64_t i = 0; i < head->rows; ++i) {
        for (int64_t j = 0; j < head->keys; ++j) {
            int64_t at = i * head->keys + j;
            int64_t query_position = sequence->query_start + i, key_position = sequence->key_start + j;
            head->distance[at] = fabs((double)(query_position - key_position));
            head->sees[at] = (unsigned char)is_seen(problem, query_position, key_position);
            if (problem->has_mask && !tensors->mask[batch * sm.batch + h * sm.heads + i * sm.queries + j]) {
                head->sees[at] = 0;
            }
            head->bias[at] = 0.0;
            if (problem->has_bias) {
                head->bias[at] = attni_reference_load(tensors->bias, problem->dtype_bias,
                                                      batch * sb.batch + h * sb.heads + i * sb.queries + j);
            }
            head->keep[at] = 1.0;
            if (problem->dropout_p > 0.0f) {
                head->keep[at] =
                    attni_reference_keeps(problem, tensors, batch, h, query_position, key_position);
            }
        }
    }
}

/* S, and beside each score the sum of the sizes of what it was added up from. */
void attni_reference_scores(const attni_reference_head *head, double *s, double *size) {
    for (int64_t i = 0; i < head->rows; ++i) {
        for (int64_t j = 0; j < head->keys; ++j) {
            int64_t at = i * head->keys + j;
            double dot = 0.0, total = 0.0;
            for (int64_t d = 0; d < head->dim_qk; ++d) {
                double product = head->q[i * head->dim_qk + d] * head->k[j * head->dim_qk + d];
                dot += product;
                total += fabs(product);
            }
            double score = head->scale * dot;
            if (head->softcap > 0.0) score = head->softcap * tanh(score / head->softcap);
            s[at] = score - head->slope * head->distance[at] + head->bias[at];
            size[at] = fabs(head->scale) * total + head->softcap + fabs(head->slope) * head->distance[at] +
                       fabs(head->bias[at]);
        }
    }
}

void attni_reference_mask(const attni_reference_head *head, double *s) {
    for (int64_t at = 0; at < head->rows * head->keys; ++at) {
        if (!head->sees[at]) s[at] = (double)-INFINITY;
    }
}

/* S becomes P of one row; returns its LSE. */
double attni_reference_softmax_row(const attni_reference_head *head, double *s) {
    double top = head->sink;
    for (int64_t j = 0; j < head->keys; ++j) {
        if (s[j] > top || isnan(s[j])) top = s[j];
    }
    double sum = top == (double)-INFINITY ? 0.0 : exp(head->sink - top);
    for (int64_t j = 0; j < head->keys; ++j) {
        s[j] = s[j] == (double)-INFINITY ? 0.0 : exp(s[j] - top);
        sum += s[j];
    }
    if (sum == 0.0) return (double)-INFINITY;
    for (int64_t j = 0; j < head->keys; ++j) s[j] /= sum;
    return top + log(sum);
}

double attni_reference_product(const attni_reference_head *head, int64_t i, const double *p, int64_t d) {
    double total = 0.0;
    for (int64_t j = 0; j < head->keys; ++j) {
        int64_t at = i * head->keys + j;
        if (head->sees[at]) total += p[j] * head->keep[at] * head->keep_scale * head->v[j * head->dim_v + d];
    }
    return total;
}

/*
 * The floors of tolerance.h for one row; p and size are its probabilities and score sizes. For
 * column d:
 *   4u sum_j P_j (A_j + c) |v_jd|  +  4u |O_d| sum_j P_j (A_j + c)    scores, exp and sums in float32
 *   3w sqrt(sum_j (P_j v_jd)^2)                                       P rounded to 16 bits, where it is
 *   t keys max |v|                                                    what underflows in P
 * and, with 8-bit V, which matrix units alone take, e sum_j P_j (A_j + 8) |v_jd| and e sum_j P_j A_j, and f |O_d|
 * and f for exponents, P and sums in f16: tolerance.h.
 */
static void floor_row(const attni_reference_head *head, int64_t i, const double *p, const double *size,
                      const double *o, double lse, double *o_floor, double *lse_floor) {
    double unit = attni_reference_unit(ATTN_F32);
    attn_dtype p_dtype = attni_reference_p_dtype(head->dtype_kv);
    double narrow = p_dtype == ATTN_F32 ? 0.0 : attni_reference_unit(p_dtype);
    int f8 = head->dtype_kv == ATTN_F8_E4M3 || head->dtype_kv == ATTN_F8_E5M2;
    double cut = f8 ? 0x1p-10 : 0.0, short_sums = f8 ? 0x1p-9 : 0.0;
    double steps = 8.0 + sqrt((double)head->keys);

    double weighted = 0.0, sizes = 0.0, most = 0.0;
    for (int64_t j = 0; j < head->keys; ++j) {
        if (p[j] > 0.0) weighted += p[j] * (size[j] + steps);
        if (p[j] > 0.0) sizes += p[j] * size[j];
        most = fmax(most, p[j]);
    }
    double lost = f8 ? fmax(0x1p-12 * most, 0x1p-120) : head->dtype_kv == ATTN_F16 ? 0x1p-25 : 0x1p-120;
    *lse_floor = 4.0 * unit * (weighted + fabs(lse) + 1.0) + cut * sizes + short_sums;

    for (int64_t d = 0; d < head->dim_v; ++d) {
        double moved = 0.0, cut_short = 0.0, squares = 0.0, largest = 0.0;
        for (int64_t j = 0; j < head->keys; ++j) {
            int64_t at = i * head->keys + j;
            if (!head->sees[at]) continue;
            double v = fabs(head->v[j * head->dim_v + d]);
            double part = p[j] * head->keep[at] * head->keep_scale * v;
            if (part > 0.0) moved += part * (size[j] + steps);
            if (part > 0.0) cut_short += part * (size[j] + 8.0);
            squares += part * part;
            largest = fmax(largest, v);
        }
        o_floor[d] = 4.0 * unit * (moved + fabs(o[d]) * (weighted + steps)) + 3.0 * narrow * sqrt(squares) +
                     lost * sqrt((double)head->keys) * largest * head->keep_scale + cut * cut_short +
                     short_sums * fabs(o[d]);
    }
}

/* The cut of tolerance.h for a row whose probabilities are p. */
static double cut_row(const attni_reference_head *head, int64_t i, const double *p) {
    double weighted = 0.0;
    for (int64_t j = 0; j < head->keys; ++j) {
        double dot = 0.0, reach = 0.0;
        if (!(p[j] > 0.0)) continue;
        for (int64_t d = 0; d < head->dim_qk; ++d) {
            double product = head->q[i * head->dim_qk + d] * head->k[j * head->dim_qk + d];
            dot += product;
            reach = fmax(reach, fmax(fabs(product), fabs(dot)));
        }
        weighted += p[j] * reach;
    }
    double cut = attni_reference_size(head->dtype_kv) == 1 ? 0x1p-14 : 0x1p-26;
    return weighted * fabs(head->scale) * (double)head->dim_qk * cut;
}

/* ---------------------------------------------------------------- all heads */

typedef struct scratch {
    attni_reference_head head;
    double *s, *size, *o, *o_naive, *o_floor;
    float *weights;
} scratch;

static int scratch_make(scratch *w, const attn_problem *problem) {
    size_t rows = (size_t)problem->seqlen_q, keys = (size_t)problem->seqlen_k;
    size_t dim_qk = (size_t)problem->dim_qk, dim_v = (size_t)problem->dim_v;
    size_t counts[] = {rows * dim_qk, keys * dim_qk, keys * dim_v, rows * keys, rows * keys, rows * keys,
                       rows * keys,   rows * keys,   dim_v,        dim_v,       dim_v};
    double **places[] = {&w->head.q, &w->head.k, &w->head.v, &w->head.distance, &w->head.bias, &w->head.keep,
                         &w->s,      &w->size,   &w->o,      &w->o_naive,       &w->o_floor};
    int missing = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
        *places[i] = malloc(counts[i] * sizeof(double) + 1);
        if (!*places[i]) missing = 1;
    }
    w->head.sees = malloc(rows * keys + 1);
    w->weights = malloc(keys * sizeof(float) + 1);
    return missing || !w->head.sees || !w->weights ? -1 : 0;
}

static void scratch_free(scratch *w) {
    double *places[] = {w->head.q, w->head.k, w->head.v, w->head.distance, w->head.bias, w->head.keep,
                        w->s,      w->size,   w->o,      w->o_naive,       w->o_floor};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) free(places[i]);
    free(w->head.sees);
    free(w->weights);
}

static void put(double *array, int64_t at, const double *values, int64_t count) {
    if (!array) return;
    for (int64_t i = 0; i < count; ++i) array[at + i] = values[i];
}

static void put_unwritten(double *array, int64_t count) {
    for (int64_t i = 0; array && i < count; ++i) array[i] = ATTNI_REFERENCE_UNWRITTEN;
}

/* Row i of the head, whose scores are masked: softmax, product, and what is wanted beside them. */
static void solve_row(scratch *w, int64_t i, int64_t o_at, int64_t lse_at,
                      const attni_reference_result *result) {
    const attni_reference_head *head = &w->head;
    double *p = w->s + i * head->keys;
    double lse = attni_reference_softmax_row(head, p), lse_naive, lse_floor;
    for (int64_t d = 0; d < head->dim_v; ++d) w->o[d] = attni_reference_product(head, i, p, d);
    put(result->o, o_at, w->o, head->dim_v);
    put(result->lse, lse_at, &lse, 1);
    if (result->o_naive || result->lse_naive) {
        attni_reference_naive_row(head, i, w->weights, w->o_naive, &lse_naive);
        put(result->o_naive, o_at, w->o_naive, head->dim_v);
        put(result->lse_naive, lse_at, &lse_naive, 1);
    }
    if (result->o_floor || result->lse_floor) {
        floor_row(head, i, p, w->size + i * head->keys, w->o, lse, w->o_floor, &lse_floor);
        put(result->o_floor, o_at, w->o_floor, head->dim_v);
        put(result->lse_floor, lse_at, &lse_floor, 1);
    }
    if (result->lse_cut) result->lse_cut[lse_at] = cut_row(head, i, p);
}

static void solve(const attn_problem *problem, const attn_tensors *tensors, scratch *w,
                  const attni_reference_result *result) {
    int ragged = problem->lengths_q == ATTN_LENGTHS_RAGGED;
    for (int64_t b = 0; b < problem->batch; ++b) {
        attni_reference_sequence sequence = attni_reference_find(problem, tensors, b);
        for (int64_t h = 0; h < problem->heads_q; ++h) {
            attni_reference_gather(problem, tensors, &sequence, b, h, &w->head);
            attni_reference_scores(&w->head, w->s, w->size);
            attni_reference_mask(&w->head, w->s);
            for (int64_t i = 0; i < sequence.rows; ++i) {
                int64_t row = ragged ? sequence.first_row + i : b * problem->seqlen_q + i;
                int64_t o_at = (row * problem->heads_q + h) * problem->dim_v;
                int64_t lse_at = ragged ? h * attni_reference_rows(problem, tensors) + row
                                        : (b * problem->heads_q + h) * problem->seqlen_q + i;
                solve_row(w, i, o_at, lse_at, result);
            }
        }
    }
}

int attni_reference_forward(const attn_problem *problem, const attn_tensors *tensors,
                            const attni_reference_result *result) {
    double *const o[] = {result->o, result->o_naive, result->o_floor};
    double *const lse[] = {result->lse, result->lse_naive, result->lse_floor, result->lse_cut};
    for (int i = 0; i < 3; ++i) put_unwritten(o[i], attni_reference_o_count(problem, tensors));
    for (int i = 0; i < 4; ++i) put_unwritten(lse[i], attni_reference_lse_count(problem, tensors));
    scratch w = {0};
    int made = scratch_make(&w, problem);
    if (made == 0) {
        attni_reference_constants(problem, tensors, &w.head);
        solve(problem, tensors, &w, result);
    }
    scratch_free(&w);
    return made;
}
