/*
 * The oracle's gradients against central differences of its own forward: the loss is sum dout O + sum dlse LSE, in
 * double. And the tolerance: gradients of another problem than the one asked have to be refused.
 */
#include "test.h"
#include "reference/problems.h"
#include "reference/rounding.h"

enum { CASES = 250, ELEMENTS = 6 };

static double *o, *lse; /* of the case at hand */

static double loss(const attni_problems_case *c) {
    const attn_problem *p = &c->problem;
    const attn_tensors *t = &c->tensors;
    const attni_reference_result result = {.o = o, .lse = lse};
    NEED(attni_reference_forward(p, t, &result) == 0);
    attn_strides s = attni_reference_strides(p->dout, p->seqlen_q, p->heads_q, p->dim_v);
    int ragged = p->lengths_q == ATTN_LENGTHS_RAGGED;
    double sum = 0.0;
    for (int64_t b = 0; b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, t, b);
        for (int64_t i = 0; i < at.rows; ++i) {
            for (int64_t h = 0; h < p->heads_q; ++h) {
                int64_t row = ragged ? at.first_row + i : b * p->seqlen_q + i;
                int64_t from = at.slice_q * s.batch + (at.first_row + i) * s.seqlen + h * s.heads;
                for (int64_t d = 0; d < p->dim_v; ++d)
                    sum += o[(row * p->heads_q + h) * p->dim_v + d] *
                           attni_reference_load(t->dout, p->dtype_o, from + d);
                int64_t lse_at =
                    ragged ? h * attni_reference_rows(p, t) + row : (b * p->heads_q + h) * p->seqlen_q + i;
                if (t->dlse && lse[lse_at] != (double)-INFINITY) sum += lse[lse_at] * (double)t->dlse[lse_at];
            }
        }
    }
    return sum;
}

/* The slope of the loss in *x, and how far two step sizes are apart. */
static double slope(const attni_problems_case *c, float *x, float step, double *apart) {
    const float kept = *x;
    double slopes[2];
    for (int half = 0; half < 2; ++half) {
        double losses[2];
        float at[2];
        for (int side = 0; side < 2; ++side) {
            *x = at[side] = side ? kept + step : kept - step;
            losses[side] = loss(c);
        }
        slopes[half] = (losses[1] - losses[0]) / ((double)at[1] - (double)at[0]);
        step /= 2;
    }
    *x = kept;
    *apart = fabs(slopes[1] - slopes[0]);
    return slopes[1] + (slopes[1] - slopes[0]) / 3.0; /* Richardson: the error of order step^2 goes */
}

/* A random element of q, k, v, the bias or the sinks that the run reads, and where its gradient is; null: none. */
static float *pick(attni_random *r, const attni_problems_case *c, attni_reference_gradient which,
                   int64_t *gradient) {
    const attn_problem *p = &c->problem;
    const attn_tensors *t = &c->tensors;
    if (p->batch == 0) return NULL;
    int64_t b = attni_random_range(r, 0, p->batch - 1);
    attni_reference_sequence at = attni_reference_find(p, t, b);
    if (at.rows == 0 || at.keys == 0) return NULL;
    int64_t i = attni_random_range(r, 0, at.rows - 1), j = attni_random_range(r, 0, at.keys - 1);
    int64_t h = attni_random_range(r, 0, p->heads_q - 1), g = h / (p->heads_q / p->heads_kv);
    int64_t row = p->lengths_q == ATTN_LENGTHS_RAGGED ? at.first_row + i : b * p->seqlen_q + i;
    int64_t key = p->lengths_k == ATTN_LENGTHS_RAGGED ? at.first_key + j : b * p->seqlen_k + j;
    if (which == ATTNI_REFERENCE_DSINKS) {
        *gradient = h;
        return p->has_sinks ? (float *)(uintptr_t)t->sinks + h : NULL;
    }
    if (which == ATTNI_REFERENCE_DBIAS) {
        if (!p->has_bias) return NULL;
        attn_score_strides s = attni_reference_score_strides(p->bias, p);
        *gradient = attni_reference_dbias_row(p, b, h, i) + j;
        return (float *)(uintptr_t)t->bias + b * s.batch + h * s.heads + i * s.queries + j;
    }
    int queries = which == ATTNI_REFERENCE_DQ, values = which == ATTNI_REFERENCE_DV;
    int64_t heads = queries ? p->heads_q : p->heads_kv, dim = values ? p->dim_v : p->dim_qk;
    int64_t d = attni_random_range(r, 0, dim - 1), head = queries ? h : g;
    attn_strides s = attni_reference_strides(queries  ? p->q
                                             : values ? p->v
                                                      : p->k,
                                             queries ? p->seqlen_q : p->seqlen_k, heads, dim);
    int ragged = (queries ? p->lengths_q : p->lengths_k) == ATTN_LENGTHS_RAGGED;
    if ((heads > 1 && s.heads == 0) || (p->batch > 1 && !ragged && s.batch == 0))
        return NULL; /* in many gradients */
    *gradient = ((queries ? row : key) * heads + head) * dim + d;
    return (float *)(uintptr_t)(queries  ? t->q
                                : values ? t->v
                                         : t->k) +
           (queries ? at.slice_q : at.slice_k) * s.batch +
           (queries ? at.first_row + i : at.first_key + j) * s.seqlen + head * s.heads + d;
}

static int is_float32(const attn_problem *p) {
    return p->dtype_q == ATTN_F32 && p->dtype_kv == ATTN_F32 && (!p->has_bias || p->dtype_bias == ATTN_F32);
}

static void test_differences(void) {
    static const char *const names[] = {"dq", "dk", "dv", "dbias", "dsinks"};
    const attni_problems_limits limits = {9000, 0, 0, 0,
                                          0}; /* the least that a row of the largest dims takes */
    int64_t checked[ATTNI_REFERENCE_GRADIENTS] = {0}, options[3] = {0};
    uint64_t seed = 0;
    for (int done = 0; done < CASES; ++seed) {
        attni_problems_case c;
        attni_random random = {seed};
        NEED(attni_problems_make_backward(&c, seed, &limits) == 0);
        size_t rows = (size_t)attni_reference_lse_count(&c.problem, &c.tensors);
        o = test_memory(rows * (size_t)c.problem.dim_v * sizeof *o);
        lse = test_memory(rows * sizeof *lse);
        if (is_float32(&c.problem) && isfinite(loss(&c))) {
            ++done;
            options[0] += c.problem.softcap > 0.0f;
            options[1] += c.problem.dropout_p > 0.0f;
            options[2] += c.tensors.dlse != NULL;
            NEED(attni_reference_backward(&c.problem, &c.tensors, &c.gradients) == 0);
            for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which) {
                for (int e = 0; e < ELEMENTS; ++e) {
                    int64_t at;
                    float *x = pick(&random, &c, (attni_reference_gradient)which, &at);
                    if (!x || !isfinite(*x) || fabsf(*x) > 100.0f) continue;
                    double apart, wanted = slope(&c, x, 0x1p-9f, &apart), got = c.gradients.truth[which][at];
                    if (!(apart <= 1e-3 * (0.1 + fabs(wanted)))) continue; /* too bent for this step */
                    ++checked[which];
                    CHECK(fabs(got - wanted) <= 0.3 * apart + 1e-6 * (1.0 + fabs(wanted)),
                          "%s[%lld] is %.12g, differences give %.12g (%s)", names[which], (long long)at, got,
                          wanted, c.text);
                }
            }
        }
        free(o);
        free(lse);
        attni_problems_free(&c);
    }
    for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which)
        CHECK(checked[which] >= 25, "%lld elements of %s were compared", (long long)checked[which],
              names[which]);
    for (int i = 0; i < 3; ++i)
        CHECK(options[i] > 5, "option %d was in %lld problems", i, (long long)options[i]);
}

/* Exact gradients of a problem that is wrong in one thing. */
typedef enum wrong { ONE_KEY_LESS, ONE_POSITION_OFF, SCALE_OFF, NO_DLSE, OTHER_DROPOUT, WRONG_COUNT } wrong;

static int make_wrong(const attni_problems_case *c, wrong what, attni_reference_gradients *result) {
    attn_problem p = c->problem;
    attn_tensors t = c->tensors;
    if (p.batch == 0 || p.lengths_q || p.lengths_k) return 0;
    attni_reference_sequence at = attni_reference_find(&p, &t, 0);
    if (at.keys < 2 || at.rows < 1) return 0;
    t.query_start = at.query_start;
    t.key_start = at.key_start;
    switch (what) {
    case ONE_KEY_LESS: t.seqlen_k = at.keys - 1; break;
    case ONE_POSITION_OFF: --t.query_start; break;
    case SCALE_OFF: /* 1%, as much as six roundings to bf16 */
        if (!is_float32(&p) || p.dtype_o != ATTN_F32) return 0;
        t.scale = t.scale == ATTN_SCALE_DEFAULT ? 1.01f / sqrtf((float)p.dim_qk) : 1.01f * t.scale;
        break;
    case NO_DLSE:
        if (!t.dlse) return 0;
        t.dlse = NULL;
        break;
    default:
        if (!(p.dropout_p > 0.01f && p.dropout_p < 0.95f)) return 0;
        ++t.dropout_seed;
        break;
    }
    NEED(attni_reference_backward(&p, &t, result) == 0);
    return 1;
}

static attni_tolerance_verdict judge(const attni_problems_case *c, int which, const double *out) {
    const attn_problem *p = &c->problem;
    attni_tolerance_arrays arrays;
    int64_t count =
        attni_reference_gradient_count(p, &c->tensors, (attni_reference_gradient)which, &arrays.dim);
    arrays.rows = arrays.dim ? count / arrays.dim : 0;
    arrays.out = out;
    arrays.ref = c->gradients.truth[which];
    arrays.naive = c->gradients.naive[which];
    arrays.floor = c->gradients.floor[which];
    arrays.dtype = which == 0 ? p->dtype_q : which < 3 ? p->dtype_kv : ATTN_F32;
    arrays.cut = NULL;
    arrays.on_gpu = arrays.is_lse = 0;
    arrays.is_gradient = 1;
    arrays.is_f8 = 0;
    return attni_tolerance_judge(&arrays);
}

/* The largest difference, against the largest number. */
static double moved(const double *a, const double *b, int64_t count) {
    double most = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; ++i) {
        if (a[i] == ATTNI_REFERENCE_UNWRITTEN || b[i] == ATTNI_REFERENCE_UNWRITTEN) continue;
        if (isfinite(a[i]) && isfinite(b[i])) most = fmax(most, fabs(a[i] - b[i]));
        if (isfinite(a[i])) size = fmax(size, fabs(a[i]));
    }
    return size > 0.0 ? most / size : 0.0;
}

static void test_tolerance(void) {
    int seen[WRONG_COUNT] = {0}, caught[WRONG_COUNT] = {0};
    for (uint64_t seed = 0; seed < 300; ++seed) {
        attni_problems_case c;
        NEED(attni_problems_make_backward(&c, seed, NULL) == 0);
        NEED(attni_reference_backward(&c.problem, &c.tensors, &c.gradients) == 0);
        for (int which = 0; which < ATTNI_REFERENCE_GRADIENTS; ++which)
            CHECK(judge(&c, which, c.gradients.naive[which]).holds, "naive's gradient %d (%s)", which,
                  c.text);
        for (int what = 0; what < WRONG_COUNT; ++what) {
            attni_reference_gradients other;
            int differs = 0, refused = 0;
            if (!make_wrong(&c, (wrong)what, &other)) continue;
            for (int which = 0; which <= ATTNI_REFERENCE_DV; ++which) {
                int64_t dim, count = attni_reference_gradient_count(&c.problem, &c.tensors,
                                                                    (attni_reference_gradient)which, &dim);
                double by = moved(c.gradients.truth[which], other.truth[which], count);
                differs |= by > (what == SCALE_OFF ? 0.005 : 0.1) &&
                           moved(c.gradients.truth[which], c.gradients.naive[which], count) < 0.05 * by;
                for (int64_t i = 0; i < count; ++i)
                    if (other.truth[which][i] == ATTNI_REFERENCE_UNWRITTEN) other.truth[which][i] = 0.0;
                refused |= !judge(&c, which, other.truth[which]).holds;
            }
            seen[what] += differs;
            caught[what] += differs && refused;
            attni_reference_gradients_free(&other);
        }
        attni_problems_free(&c);
    }
    for (int what = 0; what < WRONG_COUNT; ++what) {
        CHECK(seen[what] >= 10, "mistake %d was made %d times", what, seen[what]);
        CHECK(caught[what] >= seen[what] * 97 / 100, "mistake %d: %d of %d caught", what, caught[what],
              seen[what]);
    }
}

int main(void) {
    test_differences();
    test_tolerance();
    return test_report();
}
