/* The backward of a random problem: what its gradients' buffers are, and the verdict over them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problems_parts.h"
#include "rounding.h"

static int64_t range(attni_random *r, int64_t low, int64_t high) { return attni_random_range(r, low, high); }
static int chance(attni_random *r, int percent) { return attni_random_chance(r, percent); }

/* A tensor of rows of queries (o, dout, dq) or of keys (dk, dv). */
typedef struct rows_tensor {
    attni_problems_which which;
    int queries;
    int64_t heads, dim;
    attn_dtype dtype;
    attn_strides *strides;
} rows_tensor;

static rows_tensor tensor_of(attn_problem *p, attni_problems_which which) {
    rows_tensor t = {which, 1, p->heads_q, p->dim_v, p->dtype_o, &p->o};
    switch (which) {
    case ATTNI_PROBLEMS_DOUT: t.strides = &p->dout; break;
    case ATTNI_PROBLEMS_DQ:
        t.dim = p->dim_qk;
        t.dtype = p->dtype_q;
        t.strides = &p->dq;
        break;
    case ATTNI_PROBLEMS_DK:
    case ATTNI_PROBLEMS_DV:
        t.queries = 0;
        t.heads = p->heads_kv;
        t.dim = which == ATTNI_PROBLEMS_DK ? p->dim_qk : p->dim_v;
        t.dtype = p->dtype_kv;
        t.strides = which == ATTNI_PROBLEMS_DK ? &p->dk : &p->dv;
        break;
    default: break;
    }
    return t;
}

/* ---------------------------------------------------------------- elements of a tensor */

typedef struct row_place {
    int64_t packed, element; /* the row in a packed array; its first element in the tensor */
} row_place;

/* Row i of head h of a sequence. */
static row_place place_of(const attni_problems_case *c, const rows_tensor *t,
                          const attni_reference_sequence *at, int64_t b, int64_t i, int64_t h) {
    const attn_problem *p = &c->problem;
    int64_t seqlen = t->queries ? p->seqlen_q : p->seqlen_k;
    int ragged = (t->queries ? p->lengths_q : p->lengths_k) == ATTN_LENGTHS_RAGGED;
    int64_t first = t->queries ? at->first_row : at->first_key,
            slice = t->queries ? at->slice_q : at->slice_k;
    attn_strides s = attni_reference_strides(*t->strides, seqlen, t->heads, t->dim);
    int64_t row = ragged ? first + i : b * seqlen + i;
    row_place place = {row * t->heads + h, slice * s.batch + (first + i) * s.seqlen + h * s.heads};
    return place;
}

/* ---------------------------------------------------------------- making */

static int place_rows(attni_random *r, attni_problems_case *c, attni_problems_which which, int output) {
    attn_problem *p = &c->problem;
    rows_tensor t = tensor_of(p, which);
    return attni_problems_place(r, c, which, t.strides, t.queries, t.heads, t.dim, t.dtype, output);
}

/* O and LSE as the oracle has them, rounded: what a forward without errors would have left. */
static int fill_forward(attni_problems_case *c) {
    attn_problem *p = &c->problem;
    int64_t rows = attni_reference_lse_count(p, &c->tensors);
    double *o = malloc((size_t)(rows * p->dim_v) * sizeof *o + 1),
           *lse = malloc((size_t)rows * sizeof *lse + 1);
    attni_reference_result result = {.o = o, .lse = lse};
    int good = o && lse && attni_reference_forward(p, &c->tensors, &result) == 0;
    rows_tensor t = tensor_of(p, ATTNI_PROBLEMS_O);
    for (int64_t b = 0; good && b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
        for (int64_t i = 0; i < at.rows; ++i) {
            for (int64_t h = 0; h < p->heads_q; ++h) {
                row_place place = place_of(c, &t, &at, b, i, h);
                for (int64_t d = 0; d < p->dim_v; ++d)
                    attni_reference_store(c->tensors.o, p->dtype_o, place.element + d,
                                          o[place.packed * p->dim_v + d]);
            }
        }
    }
    for (int64_t i = 0; good && i < rows; ++i)
        if (lse[i] != ATTNI_REFERENCE_UNWRITTEN) c->tensors.lse[i] = (float)lse[i];
    free(o);
    free(lse);
    return good ? 0 : -1;
}

static void fill_upstream(attni_random *r, attni_problems_case *c) {
    attn_problem *p = &c->problem;
    rows_tensor t = tensor_of(p, ATTNI_PROBLEMS_DOUT);
    double size = chance(r, 10) ? 1e-3 : 1.0;
    for (int64_t b = 0; b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
        for (int64_t i = 0; i < at.rows; ++i) {
            for (int64_t h = 0; h < p->heads_q; ++h) {
                int64_t element = place_of(c, &t, &at, b, i, h).element;
                for (int64_t d = 0; d < p->dim_v; ++d)
                    attni_reference_store((void *)(uintptr_t)c->tensors.dout, p->dtype_o, element + d,
                                          size * attni_random_normal(r));
            }
        }
    }
    float *dlse = (float *)(uintptr_t)c->tensors.dlse;
    int64_t rows = dlse ? attni_reference_lse_count(p, &c->tensors) : 0;
    for (int64_t i = 0; i < rows; ++i) dlse[i] = (float)(size * attni_random_normal(r));
}

static int make(attni_random *r, attni_problems_case *c) {
    attn_problem *p = &c->problem;
    attn_tensors *t = &c->tensors;
    int64_t rows = attni_reference_lse_count(p, t), dim;
    p->needs_backward = 1;
    if (!t->lse && !attni_buffer_output(&c->buffers[ATTNI_PROBLEMS_LSE], rows * 4, 4, 0)) return -1;
    if (p->lengths_q == ATTN_LENGTHS_RAGGED) t->total_q = attni_reference_rows(p, t);
    if (place_rows(r, c, ATTNI_PROBLEMS_DOUT, 0)) return -1;
    if (chance(r, 50) &&
        !attni_buffer_input(&c->buffers[ATTNI_PROBLEMS_DLSE], rows * 4, range(r, 0, 7) * 4, 0))
        return -1;
    for (int which = ATTNI_PROBLEMS_DQ; which <= ATTNI_PROBLEMS_DV; ++which)
        if (chance(r, 92) && place_rows(r, c, (attni_problems_which)which, 1)) return -1;
    int64_t bias = attni_reference_gradient_count(p, t, ATTNI_REFERENCE_DBIAS, &dim);
    if (p->has_bias && chance(r, 85) &&
        !attni_buffer_output(&c->buffers[ATTNI_PROBLEMS_DBIAS], bias * 4, 4, 0))
        return -1;
    if (p->has_sinks && chance(r, 90) &&
        !attni_buffer_output(&c->buffers[ATTNI_PROBLEMS_DSINKS], p->heads_q * 4, 4, 0))
        return -1;
    attni_problems_point(c);
    if (fill_forward(c)) return -1;
    fill_upstream(r, c);
    size_t length = strlen(c->text);
    snprintf(c->text + length, sizeof c->text - length, ", backward%s", t->dlse ? " with dlse" : "");
    attni_problems_poison_gradients(c);
    return 0;
}

int attni_problems_make_backward(attni_problems_case *made, uint64_t seed,
                                 const attni_problems_limits *limits) {
    static const attni_problems_limits usual = {150000, 0, 0, 8, 0};
    attni_random random = {seed ^ 0x6261636b77617264u};
    if (attni_problems_make(made, seed, limits ? limits : &usual)) return -1;
    if (make(&random, made) == 0) return 0;
    attni_problems_free(made);
    return -1;
}

void attni_problems_poison_gradients(attni_problems_case *made) {
    for (int which = ATTNI_PROBLEMS_DQ; which <= ATTNI_PROBLEMS_DSINKS; ++which) {
        attni_problems_buffer *buffer = &made->buffers[which];
        for (size_t i = 0; i < buffer->bytes; ++i) buffer->memory[i] = attni_buffer_poison(buffer, i);
    }
}

/* ---------------------------------------------------------------- verdict */

static const char *const names[] = {"dq", "dk", "dv", "dbias", "dsinks"};

/* Reads a gradient's rows into a packed array and marks their bytes. */
static void read_rows(attni_problems_case *c, attni_problems_which which, double *out, unsigned char *owed) {
    rows_tensor t = tensor_of(&c->problem, which);
    const attni_problems_buffer *buffer = &c->buffers[which];
    int64_t size = (int64_t)attni_reference_size(t.dtype);
    for (int64_t b = 0; b < c->problem.batch; ++b) {
        attni_reference_sequence at = attni_reference_find(&c->problem, &c->tensors, b);
        for (int64_t i = 0; i < (t.queries ? at.rows : at.keys); ++i) {
            for (int64_t h = 0; h < t.heads; ++h) {
                row_place place = place_of(c, &t, &at, b, i, h);
                memset(owed + (int64_t)buffer->offset + place.element * size, 1, (size_t)(t.dim * size));
                for (int64_t d = 0; d < t.dim; ++d)
                    out[place.packed * t.dim + d] =
                        attni_reference_load(buffer->memory + buffer->offset, t.dtype, place.element + d);
            }
        }
    }
}

static void read_floats(const attni_problems_buffer *buffer, int64_t count, double *out,
                        unsigned char *owed) {
    memset(owed + buffer->offset, 1, (size_t)count * 4);
    for (int64_t i = 0; i < count; ++i)
        out[i] = attni_reference_load(buffer->memory + buffer->offset, ATTN_F32, i);
}

/* One gradient; out and owed are large enough. */
static int judge(attni_problems_case *c, attni_reference_gradient gradient, double *out, unsigned char *owed,
                 double *ratio, char *message, size_t bytes) {
    const attni_problems_which which = (attni_problems_which)(ATTNI_PROBLEMS_DQ + (int)gradient);
    const attni_problems_buffer *buffer = &c->buffers[which];
    int rows = gradient <= ATTNI_REFERENCE_DV;
    attni_tolerance_arrays arrays;
    int64_t count = attni_reference_gradient_count(&c->problem, &c->tensors, gradient, &arrays.dim);
    memset(owed, 0, buffer->bytes);
    if (rows)
        read_rows(c, which, out, owed);
    else
        read_floats(buffer, count, out, owed);
    arrays.rows = arrays.dim ? count / arrays.dim : 0;
    arrays.out = out;
    arrays.ref = c->gradients.truth[gradient];
    arrays.naive = c->gradients.naive[gradient];
    arrays.floor = c->gradients.floor[gradient];
    arrays.dtype = rows ? tensor_of(&c->problem, which).dtype : ATTN_F32;
    arrays.cut = NULL;
    arrays.on_gpu = arrays.is_lse = 0;
    arrays.is_gradient = 1;
    arrays.is_f8 = 0;
    attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
    if (!(verdict.ratio <= *ratio)) *ratio = verdict.ratio;
    if (!verdict.holds && verdict.worst < 0)
        snprintf(message, bytes, "the norm of the error of %s is %g, allowed is %g (%s)", names[gradient],
                 verdict.error, verdict.allowed, c->text);
    else if (!verdict.holds)
        snprintf(
            message, bytes,
            "%s, row %lld of all, column %lld is %.9g, the oracle says %.9g: %g apart, allowed is %g (%s)",
            names[gradient], (long long)(verdict.worst / arrays.dim), (long long)(verdict.worst % arrays.dim),
            out[verdict.worst], arrays.ref[verdict.worst], verdict.error, verdict.allowed, c->text);
    if (!verdict.holds) return 0;
    for (size_t i = 0; i < buffer->bytes; ++i) {
        if (owed[i] || buffer->memory[i] == attni_buffer_poison(buffer, i)) continue;
        snprintf(message, bytes, "byte %lld of %s's memory was written, which no row owns (%s)", (long long)i,
                 names[gradient], c->text);
        return 0;
    }
    return 1;
}

int attni_problems_verify_gradients(attni_problems_case *made, double *ratio, char *message, size_t bytes) {
    message[0] = '\0';
    *ratio = 0.0;
    size_t most = 1;
    for (int which = ATTNI_PROBLEMS_DQ; which <= ATTNI_PROBLEMS_DSINKS; ++which)
        if (made->buffers[which].bytes > most) most = made->buffers[which].bytes;
    int64_t numbers = 1, dim;
    for (int gradient = 0; gradient < ATTNI_REFERENCE_GRADIENTS; ++gradient) {
        int64_t count = attni_reference_gradient_count(&made->problem, &made->tensors,
                                                       (attni_reference_gradient)gradient, &dim);
        if (count > numbers) numbers = count;
    }
    double *out = malloc((size_t)numbers * sizeof *out);
    unsigned char *owed = malloc(most);
    int good = out && owed &&
               (made->gradients.truth[0] ||
                attni_reference_backward(&made->problem, &made->tensors, &made->gradients) == 0);
    if (!good) snprintf(message, bytes, "memory ran out (%s)", made->text);
    for (int gradient = 0; good && gradient < ATTNI_REFERENCE_GRADIENTS; ++gradient)
        if (made->buffers[ATTNI_PROBLEMS_DQ + gradient].memory)
            good = judge(made, (attni_reference_gradient)gradient, out, owed, ratio, message, bytes);
    free(out);
    free(owed);
    return good;
}
