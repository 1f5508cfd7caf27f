/* Random inputs of one shape, and where its output goes. */
#ifndef ATTN_TOOL_BENCH_DATA_H
#define ATTN_TOOL_BENCH_DATA_H

#include "attn/attn.h"
#include "bench_shapes.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bench_data {
    void *q, *o;
    void *dout, *dq, *dk, *dv; /* a backward's; null for others */
    float *lse;
    char *arena; /* K and V of every cache, one after another */
    size_t caches, cache_bytes, v_offset, kv_bytes; /* kv_bytes: what of a cache a run reads */
    size_t q_bytes, o_bytes;
} bench_data;

/*
 * Fills Q, K and V with normal numbers, other ones for each seed. Decode gets several caches of K and
 * V, which together exceed the last-level cache several times, so that none is found there, in pages as
 * machine_pages gives them. 1, or 0 if memory ran out; bench_data_free is allowed either way.
 */
int bench_data_make(bench_data *data, const bench_shape *shape, int decode, attn_dtype dtype_q,
                    attn_dtype dtype_kv, uint64_t seed, int small_pages);

/* To data that is made: dout as random, room for LSE and the gradients. 1, or 0 if memory ran out. */
int bench_data_add_gradients(bench_data *data, const bench_shape *shape, attn_dtype dtype_q, uint64_t seed);
void bench_data_free(bench_data *data);

/* Where run number index finds its tensors. */
attn_tensors bench_data_tensors(const bench_data *data, size_t index);

#endif
