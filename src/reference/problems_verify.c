/* Buffers between red zones, and the verdict over what a run left in them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problems_parts.h"
#include "rounding.h"

/* ---------------------------------------------------------------- buffers */

enum { RED_ZONE = 128 };

void *attni_buffer_input(attni_problems_buffer *buffer, int64_t bytes, int64_t skew, int64_t origin) {
    buffer->bytes = (size_t)(bytes + skew);
    buffer->offset = (size_t)(skew + origin);
    buffer->memory = malloc(buffer->bytes ? buffer->bytes : 1);
    if (!buffer->memory) return NULL;
    memset(buffer->memory, 0xff, buffer->bytes);
    return buffer->memory + buffer->offset;
}

void *attni_buffer_output(attni_problems_buffer *buffer, int64_t bytes, int64_t skew, int64_t origin) {
    if (!attni_buffer_input(buffer, bytes + RED_ZONE, skew + RED_ZONE, origin)) return NULL;
    for (size_t i = 0; i < buffer->bytes; ++i) buffer->memory[i] = attni_buffer_poison(buffer, i);
    return buffer->memory + buffer->offset;
}

unsigned char attni_buffer_poison(const attni_problems_buffer *buffer, size_t i) {
    return i < RED_ZONE || i >= buffer->bytes - RED_ZONE ? 0xa5 : 0xff;
}

void attni_problems_poison(attni_problems_case *made) {
    for (int which = ATTNI_PROBLEMS_O; which <= ATTNI_PROBLEMS_LSE; ++which) {
        attni_problems_buffer *buffer = &made->buffers[which];
        for (size_t i = 0; i < buffer->bytes; ++i) buffer->memory[i] = attni_buffer_poison(buffer, i);
    }
}

/* ---------------------------------------------------------------- words */

typedef struct sentence {
    char *data;
    size_t bytes, length;
} sentence;

static void say(sentence *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(s->data + s->length, s->bytes - s->length, format, arguments);
    va_end(arguments);
    if (written > 0) s->length += (size_t)written;
    if (s->length >= s->bytes) s->length = s->bytes - 1;
}

static void say_position(sentence *s, const char *name, int64_t position) {
    if (position != ATTN_POSITION_DEFAULT) say(s, " %s %lld", name, (long long)position);
}

void attni_problems_describe(attni_problems_case *c) {
    static const char *const dtypes[] = {"f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"};
    static const char *const lengths[] = {"full", "padded", "ragged"};
    const attn_problem *p = &c->problem;
    sentence s = {c->text, sizeof c->text, 0};
    say(&s, "seed %llu: B %lld Hq %lld Hkv %lld Sq %lld Sk %lld D %lld Dv %lld, q %s kv %s o %s",
        (unsigned long long)c->seed, (long long)p->batch, (long long)p->heads_q, (long long)p->heads_kv,
        (long long)p->seqlen_q, (long long)p->seqlen_k, (long long)p->dim_qk, (long long)p->dim_v,
        dtypes[p->dtype_q], dtypes[p->dtype_kv], dtypes[p->dtype_o]);
    if (p->lengths_q || p->lengths_k)
        say(&s, ", lengths q %s k %s", lengths[p->lengths_q], lengths[p->lengths_k]);
    if (p->mask == ATTN_MASK_CAUSAL) say(&s, ", causal");
    if (p->window_left != ATTN_WINDOW_UNLIMITED) say(&s, ", left %lld", (long long)p->window_left);
    if (p->window_right != ATTN_WINDOW_UNLIMITED) say(&s, ", right %lld", (long long)p->window_right);
    if (p->softcap > 0.0f) say(&s, ", softcap %g", (double)p->softcap);
    if (p->has_alibi) say(&s, ", alibi");
    if (p->has_bias) say(&s, ", bias %s", dtypes[p->dtype_bias]);
    if (p->has_mask) say(&s, ", mask");
    if (p->has_sinks) say(&s, ", sinks");
    if (p->has_scales)
        say(&s, ", scales %lld %lld apart", (long long)p->scale_stride_batch,
            (long long)p->scale_stride_head);
    if (p->dropout_p > 0.0f) say(&s, ", dropout %g", (double)p->dropout_p);
    if (c->tensors.scale != ATTN_SCALE_DEFAULT) say(&s, ", scale %g", (double)c->tensors.scale);
    say_position(&s, "query start", c->tensors.query_start);
    say_position(&s, "key start", c->tensors.key_start);
}

/* ---------------------------------------------------------------- verdict */

void attni_problems_free_truth(attni_reference_result *t) {
    double *arrays[] = {t->o, t->o_naive, t->o_floor, t->lse, t->lse_naive, t->lse_floor, t->lse_cut};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; ++i) free(arrays[i]);
    memset(t, 0, sizeof *t);
}

static int make_truth(attni_problems_case *c) {
    if (c->truth.o && (c->truth.lse_cut || !c->on_gpu)) return 0;
    attni_problems_free_truth(&c->truth);
    size_t o = (size_t)attni_reference_o_count(&c->problem, &c->tensors) * sizeof(double) + 1;
    size_t lse = (size_t)attni_reference_lse_count(&c->problem, &c->tensors) * sizeof(double) + 1;
    attni_reference_result *t = &c->truth;
    t->o_naive = malloc(o);
    t->o_floor = malloc(o);
    t->lse = malloc(lse);
    t->lse_naive = malloc(lse);
    t->lse_floor = malloc(lse);
    t->lse_cut = c->on_gpu ? malloc(lse) : NULL;
    double *ref = malloc(o);
    int missing = !t->o_naive || !t->o_floor || !t->lse || !t->lse_naive || !t->lse_floor ||
                  (c->on_gpu && !t->lse_cut) || !ref;
    attni_reference_result wanted = *t;
    wanted.o = ref;
    if (!missing && attni_reference_forward(&c->problem, &c->tensors, &wanted) == 0) {
        t->o = ref;
        return 0;
    }
    free(ref);
    attni_problems_free_truth(t);
    return -1;
}

/*
 * Reads the rows that the run owed out of an output into a packed array, and finds the first byte
 * outside of them that is no longer poison; -1: none.
 */
static int64_t read_o(const attni_problems_case *c, double *out, unsigned char *owed) {
    const attn_problem *p = &c->problem;
    const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_O];
    attn_strides s = attni_reference_strides(p->o, p->seqlen_q, p->heads_q, p->dim_v);
    int64_t size = (int64_t)attni_reference_size(p->dtype_o);
    int ragged = p->lengths_q == ATTN_LENGTHS_RAGGED;
    memset(owed, 0, buffer->bytes);
    for (int64_t b = 0; b < p->batch; ++b) {
        attni_reference_sequence at = attni_reference_find(p, &c->tensors, b);
        for (int64_t i = 0; i < at.rows; ++i) {
            int64_t row = ragged ? at.first_row + i : b * p->seqlen_q + i;
            for (int64_t h = 0; h < p->heads_q; ++h) {
                int64_t from = at.slice_q * s.batch + (at.first_row + i) * s.seqlen + h * s.heads;
                memset(owed + (int64_t)buffer->offset + from * size, 1, (size_t)(p->dim_v * size));
                for (int64_t d = 0; d < p->dim_v; ++d) {
                    out[(row * p->heads_q + h) * p->dim_v + d] =
                        attni_reference_load(buffer->memory + buffer->offset, p->dtype_o, from + d);
                }
            }
        }
    }
    for (size_t i = 0; i < buffer->bytes; ++i) {
        if (!owed[i] && buffer->memory[i] != attni_buffer_poison(buffer, i)) return (int64_t)i;
    }
    return -1;
}

static int64_t read_lse(const attni_problems_case *c, double *out) {
    const attni_problems_buffer *buffer = &c->buffers[ATTNI_PROBLEMS_LSE];
    int64_t count = attni_reference_lse_count(&c->problem, &c->tensors);
    for (int64_t i = 0; i < count; ++i) {
        out[i] = attni_reference_load(buffer->memory + buffer->offset, ATTN_F32, i);
    }
    for (size_t i = 0; i < buffer->bytes; ++i) {
        int64_t element = i < buffer->offset ? -1 : (int64_t)((i - buffer->offset) / 4);
        int owed = element >= 0 && element < count && c->truth.lse[element] != ATTNI_REFERENCE_UNWRITTEN;
        if (!owed && buffer->memory[i] != attni_buffer_poison(buffer, i)) return (int64_t)i;
    }
    return -1;
}

/* Where element at of packed O is; LSE's element counts rows, O's dims too. */
static void say_place(sentence *s, const attni_problems_case *c, int is_lse, int64_t at) {
    const attn_problem *p = &c->problem;
    int64_t row = is_lse ? at : at / p->dim_v;
    int ragged = p->lengths_q == ATTN_LENGTHS_RAGGED;
    int64_t rows = ragged ? attni_reference_lse_count(p, &c->tensors) / p->heads_q : p->seqlen_q;
    int64_t h = is_lse ? row / rows % p->heads_q : row % p->heads_q;
    int64_t i = is_lse ? row % rows : row / p->heads_q % rows;
    int64_t b = row / rows / p->heads_q;
    if (ragged)
        say(s, "%s of row %lld of all, head %lld", is_lse ? "lse" : "o", (long long)i, (long long)h);
    else
        say(s, "%s of batch %lld, row %lld, head %lld", is_lse ? "lse" : "o", (long long)b, (long long)i,
            (long long)h);
    if (!is_lse) say(s, ", column %lld", (long long)(at % p->dim_v));
}

static int judge(const attni_problems_case *c, int is_lse, const double *out, double *ratio, sentence *s) {
    const attni_reference_result *t = &c->truth;
    attni_tolerance_arrays arrays;
    arrays.dim = is_lse ? 1 : c->problem.dim_v;
    arrays.rows = attni_reference_lse_count(&c->problem, &c->tensors);
    arrays.out = out;
    arrays.ref = is_lse ? t->lse : t->o;
    arrays.naive = is_lse ? t->lse_naive : t->o_naive;
    arrays.floor = is_lse ? t->lse_floor : t->o_floor;
    arrays.dtype = is_lse ? ATTN_F32 : c->problem.dtype_o;
    arrays.cut = is_lse && c->on_gpu ? t->lse_cut : NULL;
    arrays.on_gpu = c->on_gpu;
    arrays.is_lse = is_lse;
    arrays.is_gradient = 0;
    arrays.is_f8 = c->problem.dtype_q >= ATTN_F8_E4M3;
    attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
    if (!(verdict.ratio <= *ratio)) *ratio = verdict.ratio;
    if (verdict.holds) return 1;
    if (verdict.worst < 0) {
        say(s, "the norm of the error of %s is %g, allowed is %g", is_lse ? "lse" : "o", verdict.error,
            verdict.allowed);
    } else {
        say_place(s, c, is_lse, verdict.worst);
        say(s, " is %.9g, the oracle says %.9g: %g apart, allowed is %g", out[verdict.worst],
            arrays.ref[verdict.worst], verdict.error, verdict.allowed);
    }
    say(s, " (%s)", c->text);
    return 0;
}

int attni_problems_verify(attni_problems_case *made, double *ratio, char *message, size_t bytes) {
    sentence s = {message, bytes, 0};
    message[0] = '\0';
    *ratio = 0.0;
    int64_t count = attni_reference_o_count(&made->problem, &made->tensors);
    double *out = malloc((size_t)count * sizeof *out + 1);
    unsigned char *owed = malloc(made->buffers[ATTNI_PROBLEMS_O].bytes + 1);
    int good = 0;
    if (!out || !owed || make_truth(made)) {
        say(&s, "memory ran out (%s)", made->text);
    } else {
        int64_t touched = read_o(made, out, owed);
        good = judge(made, 0, out, ratio, &s);
        if (good && touched >= 0) {
            say(&s, "byte %lld of o's memory was written, which no row owns (%s)", (long long)touched,
                made->text);
            good = 0;
        }
        if (good && made->buffers[ATTNI_PROBLEMS_LSE].memory) {
            touched = read_lse(made, out);
            good = judge(made, 1, out, ratio, &s);
            if (good && touched >= 0) {
                say(&s, "byte %lld of lse's memory was written, which no row owns (%s)", (long long)touched,
                    made->text);
                good = 0;
            }
        }
    }
    free(out);
    free(owed);
    return good;
}
