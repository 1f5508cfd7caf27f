/* Packed problems on a device, for device_test. */
#ifndef ATTN_TEST_DEVICE_TENSORS_H
#define ATTN_TEST_DEVICE_TENSORS_H

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

/* device_split.c: its first kinds of problems. */
void device_split_keys(attn_context *context, int kinds);

/* device_f8.c */
void device_short_tiles(attn_context *context, int rounds);
void device_turned_values(attn_context *context);
void device_f8_marked_tiles(attn_context *context, int kinds);
void device_f8_repeats(attn_context *context, int times);
void device_f8_extremes(attn_context *context, int problems, uint64_t first);

#endif
