#include "bench_data.h"

#include "core/half.h"
#include "machine.h"
#include "work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- random numbers */

/* Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): splitmix64. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state) { return ((double)(next_random(state) >> 11) + 0.5) * 0x1p-53; }

/*
 * A pool of normal numbers, from which pieces at random places make up a tensor: a decode's caches
 * hold a billion numbers, and a logarithm for each would take longer than the measurement.
 */
enum { POOL = 1 << 20, PIECE = 4096 };

static void store(void *base, attn_dtype dtype, size_t index, float value) {
    switch (dtype) {
    case ATTN_F32: ((float *)base)[index] = value; return;
    case ATTN_F16: ((uint16_t *)base)[index] = attni_f32_to_f16(value); return;
    case ATTN_BF16: ((uint16_t *)base)[index] = attni_f32_to_bf16(value); return;
    case ATTN_F8_E4M3: ((uint8_t *)base)[index] = attni_f32_to_f8(value, 3); return;
    case ATTN_F8_E5M2: ((uint8_t *)base)[index] = attni_f32_to_f8(value, 2); return;
    }
}

static void *make_pool(attn_dtype dtype, uint64_t *state) {
    char *pool = malloc(POOL * work_dtype_size(dtype));
    if (pool == NULL) return NULL;
    for (size_t i = 0; i < POOL; i += 2) { /* Box and Muller */
        const double radius = sqrt(-2 * log(uniform(state))), angle = 6.283185307179586 * uniform(state);
        store(pool, dtype, i, (float)(radius * cos(angle)));
        store(pool, dtype, i + 1, (float)(radius * sin(angle)));
    }
    return pool;
}

static void fill(void *to, size_t bytes, const char *pool, attn_dtype dtype, uint64_t *state) {
    const size_t element = work_dtype_size(dtype);
    for (size_t done = 0; done < bytes;) {
        const size_t at = (size_t)(next_random(state) % (POOL - PIECE)) * element;
        const size_t piece = bytes - done < PIECE * element ? bytes - done : PIECE * element;
        memcpy((char *)to + done, pool + at, piece);
        done += piece;
    }
}

/* ---------------------------------------------------------------- sizes */

static size_t round_up(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

/* Four times the last-level cache, but between half a gigabyte and three, and half of the free memory. */
static double wanted_caches_bytes(void) {
    const double cache = (double)machine_cache_bytes(), memory = (double)machine_memory_bytes();
    double wanted = fmin(fmax(4 * cache, 512e6), 3e9);
    if (memory > 0) wanted = fmin(wanted, memory / 2);
    return wanted;
}

static double elements(int64_t a, int64_t b, int64_t c, int64_t d) {
    return (double)a * (double)b * (double)c * (double)d;
}

int bench_data_make(bench_data *data, const bench_shape *s, int decode, attn_dtype dtype_q,
                    attn_dtype dtype_kv, uint64_t seed, int small_pages) {
    memset(data, 0, sizeof *data);
    const double size_q = (double)work_dtype_size(dtype_q), size_kv = (double)work_dtype_size(dtype_kv);
    const double q = size_q * elements(s->batch, s->seqlen_q, s->heads_q, s->dim_qk);
    const double size_o = work_dtype_is_f8(dtype_q) ? 2 : size_q;
    const double o = size_o * elements(s->batch, s->seqlen_q, s->heads_q, s->dim_v);
    const double k = size_kv * elements(s->batch, s->seqlen_k, s->heads_kv, s->dim_qk);
    const double v = size_kv * elements(s->batch, s->seqlen_k, s->heads_kv, s->dim_v);
    if (!(fmax(q, o) < 1e15 && k + v < 1e15)) return 0;
    data->q_bytes = (size_t)q;
    data->o_bytes = (size_t)o;
    data->kv_bytes = (size_t)k + (size_t)v;
    data->v_offset = round_up((size_t)k);
    data->cache_bytes = data->v_offset + round_up((size_t)v);
    data->caches = decode ? (size_t)(wanted_caches_bytes() / (double)data->cache_bytes) + 1 : 1;
    if (decode && data->caches < 2) data->caches = 2;

    uint64_t state = seed * 0x2545f4914f6cdd1du;
    char *pool_q = make_pool(dtype_q, &state);
    char *pool_kv = dtype_kv == dtype_q ? pool_q : make_pool(dtype_kv, &state);
    data->q = aligned_alloc(4096, round_up(data->q_bytes));
    data->o = aligned_alloc(4096, round_up(data->o_bytes));
    data->arena = machine_pages(data->caches * data->cache_bytes, small_pages);
    const int good =
        pool_q != NULL && pool_kv != NULL && data->q != NULL && data->o != NULL && data->arena != NULL;
    if (good) {
        fill(data->q, data->q_bytes, pool_q, dtype_q, &state);
        fill(data->arena, data->caches * data->cache_bytes, pool_kv, dtype_kv, &state);
        memset(data->o, 0, data->o_bytes);
    }
    if (pool_kv != pool_q) free(pool_kv);
    free(pool_q);
    return good;
}

int bench_data_add_gradients(bench_data *data, const bench_shape *s, attn_dtype dtype_q, uint64_t seed) {
    uint64_t state = seed * 0x2545f4914f6cdd1du + 1;
    char *pool = make_pool(dtype_q, &state);
    data->lse = aligned_alloc(4096, round_up((size_t)(s->batch * s->heads_q * s->seqlen_q) * sizeof(float)));
    data->dout = aligned_alloc(4096, round_up(data->o_bytes));
    data->dq = aligned_alloc(4096, round_up(data->q_bytes));
    data->dk = aligned_alloc(4096, data->v_offset);
    data->dv = aligned_alloc(4096, data->cache_bytes - data->v_offset);
    const int good = pool != NULL && data->lse != NULL && data->dout != NULL && data->dq != NULL &&
                     data->dk != NULL && data->dv != NULL;
    if (good) {
        fill(data->dout, data->o_bytes, pool, dtype_q, &state);
        memset(data->dq, 0, data->q_bytes);
        memset(data->dk, 0, data->v_offset);
        memset(data->dv, 0, data->cache_bytes - data->v_offset);
    }
    free(pool);
    return good;
}

void bench_data_free(bench_data *data) {
    free(data->lse);
    free(data->dout);
    free(data->dq);
    free(data->dk);
    free(data->dv);
    free(data->q);
    free(data->o);
    free(data->arena);
    memset(data, 0, sizeof *data);
}

attn_tensors bench_data_tensors(const bench_data *data, size_t index) {
    attn_tensors tensors = ATTN_TENSORS_INIT;
    const char *cache = data->arena + index % data->caches * data->cache_bytes;
    tensors.q = data->q;
    tensors.k = cache;
    tensors.v = cache + data->v_offset;
    tensors.o = data->o;
    tensors.lse = data->lse;
    tensors.dout = data->dout;
    tensors.dq = data->dq;
    tensors.dk = data->dk;
    tensors.dv = data->dv;
    return tensors;
}
