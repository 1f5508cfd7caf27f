/* Packed problems on a device, for device_test. */
#ifndef ATTN_TEST_DEVICE_TENSORS_H
#define ATTN_TEST_DEVICE_TENSORS_H

#include <math.h>

#include "device.h"
#include "properties/packed.h"
#include "test.h"

typedef struct on_device {
    void *q, *k, *v, *o;
    float *lse;
    attn_tensors tensors;
} on_device;

static inline on_device copy_packed(const packed *made) {
    const size_t size = attni_reference_size(made->problem.dtype_q), o_bytes = (size_t)made->o_count * 2;
    on_device d;
    d.q = device_alloc((size_t)made->q_count * size);
    d.k = device_alloc((size_t)made->k_count * size);
    d.v = device_alloc((size_t)made->v_count * size);
    d.o = device_alloc(o_bytes);
    d.lse = device_alloc((size_t)made->rows * 4);
    NEED(d.q && d.k && d.v && d.o && d.lse);
    device_copy_in(d.q, made->q, (size_t)made->q_count * size);
    device_copy_in(d.k, made->k, (size_t)made->k_count * size);
    device_copy_in(d.v, made->v, (size_t)made->v_count * size);
    device_fill(d.o, 0xff, o_bytes);
    device_fill(d.lse, 0xff, (size_t)made->rows * 4);
    d.tensors = made->tensors;
    d.tensors.q = d.q;
    d.tensors.k = d.k;
    d.tensors.v = d.v;
    d.tensors.o = d.o;
    d.tensors.lse = d.lse;
    d.tensors.bias = NULL;
    return d;
}

static inline void free_packed(on_device *d) {
    device_free(d->q);
    device_free(d->k);
    device_free(d->v);
    device_free(d->o);
    device_free(d->lse);
}

static inline packed make_packed(int64_t batch, int64_t heads, int64_t seqlen_q, int64_t seqlen_k,
                                 int64_t dim, int softcap, attn_dtype dtype) {
    attn_problem p = ATTN_PROBLEM_INIT;
    attni_random random = {7};
    p.batch = batch;
    p.heads_q = p.heads_kv = heads;
    p.seqlen_q = seqlen_q;
    p.seqlen_k = seqlen_k;
    p.dim_qk = p.dim_v = dim;
    p.mask = ATTN_MASK_CAUSAL;
    if (softcap) p.softcap = 20;
    return packed_make(&p, dtype, &random);
}

/* Runs a plan into o and lse of the host, from poison. */
static inline void run_packed(const attn_plan *plan, const packed *made, const on_device *d, void *o,
                              void *lse) {
    device_fill(d->o, 0xff, (size_t)made->o_count * 2);
    device_fill(d->lse, 0xff, (size_t)made->rows * 4);
    CHECK(attn_forward(plan, &d->tensors, NULL) == ATTN_OK, "%s", attn_last_error());
    device_copy_out(o, d->o, (size_t)made->o_count * 2);
    device_copy_out(lse, d->lse, (size_t)made->rows * 4);
}

/* Twenty runs more have o's bits. */
static inline void repeat_packed(const attn_plan *plan, const packed *made, const on_device *d, const void *o,
                                 const char *what, int kind) {
    void *again = test_memory((size_t)made->o_count * 2);
    float *lse = test_memory((size_t)made->rows * 4);
    for (int i = 0; i < 20; i++) {
        run_packed(plan, made, d, again, lse);
        CHECK(memcmp(o, again, (size_t)made->o_count * 2) == 0, "%s %d: other bits in run %d", what, kind, i);
    }
    free(again);
    free(lse);
}

/* o and lse beside those of another way, which made holds; what and kind say of which problem. */
static inline void compare_packed(const packed *made, attn_dtype dtype, const void *o, const float *lse,
                                  const char *what, int kind) {
    double apart = 0, whole = 0, lse_apart = 0;
    for (int64_t i = 0; i < made->o_count; i++) {
        const double x = attni_reference_load(made->o, dtype, i);
        const double difference = attni_reference_load(o, dtype, i) - x;
        apart += difference * difference;
        whole += x * x;
    }
    for (int64_t i = 0; i < made->rows; i++) {
        const double difference = lse[i] == made->lse[i] ? 0.0 : fabs((double)lse[i] - (double)made->lse[i]);
        lse_apart = test_worse(lse_apart, difference);
    }
    /* Both err by some 2e-3 of the norm in bf16, 3e-4 in f16. */
    CHECK(sqrt(apart) <= (dtype == ATTN_BF16 ? 5e-3 : 8e-4) * sqrt(whole), "%s %d: o is %g apart", what, kind,
          sqrt(apart / whole));
    CHECK(lse_apart <= 1e-5, "%s %d: lse is %g apart", what, kind, lse_apart);
}

/* device_split.c: its first kinds of problems. */
void device_split_keys(attn_context *context, int kinds);

/* device_windows.c */
void device_windows(attn_context *context);

/* device_f8.c */
void device_short_tiles(attn_context *context, int rounds);
void device_turned_values(attn_context *context);
void device_f8_crowded(attn_context *context, int rounds);
void device_f8_marked_tiles(attn_context *context, int kinds);
void device_f8_repeats(attn_context *context, int times);
void device_f8_extremes(attn_context *context, int problems, uint64_t first);

#endif
