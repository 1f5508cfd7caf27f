/*
 * Problem validation over any bytes: plan creation answers with a plan or with a status and a sentence,
 * whatever numbers stand in the problem. Small plans are run too, with every option that they announce, and
 * means of equal values are those.
 */
#include "attn/attn.h"
#include "reference/rounding.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int condition) {
    if (!condition) abort();
}

/* ---------------------------------------------------------------- bytes to numbers */

typedef struct reader {
    const uint8_t *at;
    size_t left;
} reader;

static uint8_t take_byte(reader *r) {
    if (r->left == 0) return 0;
    r->left--;
    return *r->at++;
}

static uint64_t take_word(reader *r) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) word = word << 8 | take_byte(r);
    return word;
}

/* Mostly a small number, now and then one at the edge of its type. */
static int64_t take_size(reader *r) {
    static const int64_t edges[] = {-1,        INT64_MIN,        INT64_MAX, INT64_MAX / 2,
                                    INT32_MAX, (int64_t)1 << 32, 1024,      1025};
    const uint8_t kind = take_byte(r);
    if (kind < 224) return kind % 24;
    if (kind < 248) return edges[kind % 8];
    return (int64_t)take_word(r);
}

static int64_t take_stride(reader *r) {
    const uint8_t kind = take_byte(r);
    if (kind < 192) return ATTN_STRIDE_PACKED;
    return kind < 208 ? 0 : take_size(r);
}

static int32_t take_flag(reader *r) {
    const uint8_t kind = take_byte(r);
    return kind < 160 ? 0 : kind < 250 ? 1 : (int32_t)kind - 252;
}

static int take_enum(reader *r, int count) {
    const uint8_t kind = take_byte(r);
    return kind < 250 ? kind % count : (int)kind - 253;
}

static float take_float(reader *r) {
    const uint8_t kind = take_byte(r);
    if (kind < 128) return 0.0f;
    if (kind < 240) return (float)(kind - 128) / 112.0f;
    const uint32_t bits = (uint32_t)take_word(r);
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static int64_t take_window(reader *r) { return take_byte(r) < 160 ? ATTN_WINDOW_UNLIMITED : take_size(r); }

static attn_strides take_strides(reader *r) {
    attn_strides strides;
    strides.batch = take_stride(r);
    strides.seqlen = take_stride(r);
    strides.heads = take_stride(r);
    return strides;
}

static attn_score_strides take_score_strides(reader *r) {
    attn_score_strides strides;
    strides.batch = take_stride(r);
    strides.heads = take_stride(r);
    strides.queries = take_stride(r);
    return strides;
}

static attn_problem take_problem(reader *r) {
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = take_size(r);
    p.heads_kv = take_size(r);
    p.heads_q = take_byte(r) < 240 && p.heads_kv > 0 && p.heads_kv < 64 ? p.heads_kv * (1 + take_byte(r) % 4)
                                                                        : take_size(r);
    p.seqlen_q = take_size(r);
    p.seqlen_k = take_size(r);
    p.dim_qk = take_size(r);
    p.dim_v = take_size(r);
    p.dtype_q = (attn_dtype)take_enum(r, 3);
    p.dtype_kv = take_byte(r) < 192 ? p.dtype_q : (attn_dtype)take_enum(r, 3);
    p.dtype_o = (attn_dtype)take_enum(r, 3);
    p.mask = (attn_mask)take_enum(r, 2);
    p.lengths_q = (attn_lengths)take_enum(r, 3);
    p.lengths_k = (attn_lengths)take_enum(r, 3);
    p.window_left = take_window(r);
    p.window_right = take_window(r);
    p.softcap = take_float(r);
    p.dropout_p = take_float(r);
    p.has_alibi = take_flag(r);
    p.has_sinks = take_flag(r);
    p.has_bias = take_flag(r);
    p.has_mask = take_flag(r);
    p.dtype_bias = (attn_dtype)take_enum(r, 3);
    p.needs_backward = take_byte(r) < 128 ? 1 : 0; /* 1 where the input is at its end: else few would be */
    p.deterministic = take_flag(r);
    p.batch_invariant = take_flag(r);
    p.q = take_strides(r);
    p.k = take_strides(r);
    p.v = take_strides(r);
    p.o = take_strides(r);
    p.bias = take_score_strides(r);
    p.mask_strides = take_score_strides(r);
    p.alibi_stride_batch = take_byte(r) < 192 ? 0 : take_size(r);
    p.reserved = take_byte(r) < 250 ? 0 : 1;
    if (take_byte(r) >= 250) p.struct_size = (size_t)take_size(r) % (sizeof p + 1);
    return p;
}

/* ---------------------------------------------------------------- running */

enum { RUN_LIMIT = 1 << 22 }; /* elements of a tensor that is worth running */

/* One more than the last element's index, or -1 if that is too much. */
static int64_t extent(int dims, const int64_t *sizes, const int64_t *strides) {
    int64_t last = 0;
    for (int i = 0; i < dims; i++) {
        if (sizes[i] == 0) return 0;
        if (sizes[i] > RUN_LIMIT || strides[i] > RUN_LIMIT || strides[i] < 0) return -1;
        last += (sizes[i] - 1) * strides[i];
        if (last >= RUN_LIMIT) return -1;
    }
    return last + 1;
}

static int64_t or_packed(int64_t stride, int64_t packed) {
    return stride == ATTN_STRIDE_PACKED ? packed : stride;
}

/* total: ragged rows, which lie end to end and know no batch stride; -1: they are not ragged. */
static int64_t tensor_extent(const attn_problem *p, attn_strides s, int64_t total, int64_t seqlen,
                             int64_t heads, int64_t dim) {
    const int64_t sizes[4] = {total < 0 ? p->batch : 1, total < 0 ? seqlen : total, heads, dim};
    int64_t strides[4] = {0, 0, or_packed(s.heads, dim), 1};
    if (seqlen > RUN_LIMIT || heads > RUN_LIMIT) return -1;
    strides[1] = or_packed(s.seqlen, heads * dim);
    strides[0] = total < 0 ? or_packed(s.batch, seqlen * heads * dim) : 0;
    return extent(4, sizes, strides);
}

static int64_t score_extent(const attn_problem *p, attn_score_strides s) {
    const int64_t sizes[4] = {p->batch, p->heads_q, p->seqlen_q, p->seqlen_k};
    if (p->heads_q > 4096 || p->seqlen_q > 4096 || p->seqlen_k > 4096) return -1;
    const int64_t strides[4] = {or_packed(s.batch, p->heads_q * p->seqlen_q * p->seqlen_k),
                                or_packed(s.heads, p->seqlen_q * p->seqlen_k),
                                or_packed(s.queries, p->seqlen_k), 1};
    return extent(4, sizes, strides);
}

static void *make(int64_t elements, size_t size, int fill) {
    void *memory = malloc((size_t)elements * size + 1);
    demand(memory != NULL);
    memset(memory, fill, (size_t)elements * size + 1);
    return memory;
}

/*
 * Lengths of each sequence, or their sums so far: the plan's where the input is at its end, at times one more, which
 * is clamped. Returns the sum, or -1 where sequences do not lie end to end.
 */
static int64_t take_lengths(reader *r, attn_lengths kind, int64_t batch, int64_t seqlen, int32_t *lengths) {
    const int ragged = kind == ATTN_LENGTHS_RAGGED;
    lengths[0] = 0;
    for (int64_t b = 0; b < batch; b++) {
        const int32_t length = (int32_t)((seqlen + take_byte(r)) % (seqlen + 2));
        lengths[b + ragged] = ragged ? lengths[b] + length : length;
    }
    return ragged ? lengths[batch] : -1;
}

/* The gradients, packed, after a forward: their strides are left alone. */
static void run_backward(const attn_plan *plan, const attn_problem *p, attn_tensors t, float *lse,
                         int64_t rows, int64_t keys) {
    const int64_t heads = p->heads_q;
    if (rows * heads * 2048 > RUN_LIMIT || keys * p->heads_kv * 2048 > RUN_LIMIT) return;
    void *blocks[] = {make(rows * heads * p->dim_v, 4, 0x3c),
                      make(rows * heads * p->dim_qk, 4, 0),
                      make(keys * p->heads_kv * p->dim_qk, 4, 0),
                      make(keys * p->heads_kv * p->dim_v, 4, 0),
                      make((p->batch + 1) * heads * (p->seqlen_q + 1) * p->seqlen_k, 4, 0), /* broadcast: 1 */
                      make(heads, 4, 0)};
    t.lse = lse;
    t.dout = blocks[0];
    t.dq = blocks[1];
    t.dk = blocks[2];
    t.dv = blocks[3];
    t.dbias = blocks[4];
    t.dsinks = blocks[5];
    const attn_status status = attn_backward(plan, &t, NULL);
    demand(status == ATTN_OK || attn_last_error()[0] != 0);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) free(blocks[i]);
}

/* Every tensor lies in a block of exactly its size; total_q and total_k are those of ragged ones, else -1. */
static void run_lengths(const attn_plan *plan, const attn_problem *p, reader *r, const int32_t *lengths_q,
                        const int32_t *lengths_k, int64_t total_q, int64_t total_k) {
    const int64_t extents[] = {tensor_extent(p, p->q, total_q, p->seqlen_q, p->heads_q, p->dim_qk),
                               tensor_extent(p, p->k, total_k, p->seqlen_k, p->heads_kv, p->dim_qk),
                               tensor_extent(p, p->v, total_k, p->seqlen_k, p->heads_kv, p->dim_v),
                               tensor_extent(p, p->o, total_q, p->seqlen_q, p->heads_q, p->dim_v),
                               p->has_bias ? score_extent(p, p->bias) : 0,
                               p->has_mask ? score_extent(p, p->mask_strides) : 0};
    for (size_t i = 0; i < sizeof extents / sizeof extents[0]; i++)
        if (extents[i] < 0) return;
    const int64_t rows = total_q < 0 ? p->batch * p->seqlen_q : total_q;
    const int64_t keys = total_k < 0 ? p->batch * p->seqlen_k : total_k;
    const int fill = take_byte(r) % 4 == 0 ? 0xff : 0x3c; /* all NaN, or small numbers in every dtype */
    attn_tensors t = ATTN_TENSORS_INIT;
    void *blocks[] = {make(extents[0], p->dtype_q == ATTN_F32 ? 4 : 2, fill),
                      make(extents[1], p->dtype_kv == ATTN_F32 ? 4 : 2, fill),
                      make(extents[2], p->dtype_kv == ATTN_F32 ? 4 : 2, fill),
                      make(extents[3], p->dtype_o == ATTN_F32 ? 4 : 2, 0),
                      make(extents[4], p->dtype_bias == ATTN_F32 ? 4 : 2, 0x3c),
                      make(extents[5], 1, 1),
                      make(p->heads_q + p->batch * p->alibi_stride_batch, 4, 0x3c),
                      make(p->heads_q, 4, 0x3c),
                      make(rows * p->heads_q, 4, 0)};
    t.q = blocks[0];
    t.k = blocks[1];
    t.v = blocks[2];
    t.o = blocks[3];
    t.bias = blocks[4];
    t.mask = blocks[5];
    t.alibi_slopes = blocks[6];
    t.sinks = blocks[7];
    t.lse = take_byte(r) % 2 ? blocks[8] : NULL;
    t.lengths_q = lengths_q;
    t.lengths_k = lengths_k;
    t.total_q = rows;
    t.query_start = take_byte(r) < 128 ? ATTN_POSITION_DEFAULT : take_size(r);
    t.key_start = take_byte(r) < 128 ? ATTN_POSITION_DEFAULT : take_size(r);
    t.seqlen_k = take_byte(r) < 128 ? ATTN_LENGTH_DEFAULT : take_size(r);
    const attn_status status = attn_forward(plan, &t, NULL);
    demand(status == ATTN_OK || attn_last_error()[0] != 0);
    /* Of equal values every mean is that value, a row that sees nothing has 0, and a sink takes a part. */
    if (status == ATTN_OK && fill == 0x3c && p->dropout_p == 0.0f && extents[2] > 0) {
        const double value = attni_reference_load(t.v, p->dtype_kv, 0);
        for (int64_t i = 0; i < extents[3]; i++) {
            const double o = attni_reference_load(t.o, p->dtype_o, i);
            demand(o >= 0 && o <= 1.01 * value);
        }
    }
    if (p->needs_backward) run_backward(plan, p, t, blocks[8], rows, keys);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) free(blocks[i]);
}

static void run(const attn_plan *plan, const attn_problem *p, reader *r) {
    /* A stride between batches of slopes may be anything. */
    if (p->alibi_stride_batch < 0 || p->alibi_stride_batch > 4096) return;
    if (p->batch > 64 || p->heads_q > 64 || p->batch * p->heads_q * p->seqlen_q * p->seqlen_k > 200000)
        return;
    int32_t *lengths_q = make(p->batch + 1, 4, 0), *lengths_k = make(p->batch + 1, 4, 0);
    const int64_t total_q = take_lengths(r, p->lengths_q, p->batch, p->seqlen_q, lengths_q);
    const int64_t total_k = take_lengths(r, p->lengths_k, p->batch, p->seqlen_k, lengths_k);
    run_lengths(plan, p, r, lengths_q, lengths_k, total_q, total_k);
    free(lengths_q);
    free(lengths_k);
}

/* Valid problems may want terabytes: more than this is out of memory. */
static void *bounded_alloc(void *user, size_t bytes) {
    (void)user;
    return bytes > 1u << 28 ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void plain_free(void *user, void *pointer) {
    (void)user;
    free(pointer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static attn_context *context;
    reader r = {data, size};
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    attn_plan *plan = NULL;
    if (context == NULL) {
        attn_context_options one = ATTN_CONTEXT_OPTIONS_INIT;
        one.threads = 1;
        one.alloc = bounded_alloc;
        one.free = plain_free;
        demand(attn_context_create(ATTN_DEVICE_CPU, 0, &one, &context) == ATTN_OK);
    }
    const attn_problem problem = take_problem(&r);
    options.isa = (attn_isa)take_enum(&r, 5);
    options.algorithm = (attn_algorithm)(take_byte(&r) < 224 ? 0 : take_enum(&r, 4));
    options.threads = take_byte(&r) < 224 ? 0 : (int32_t)take_size(&r);
    options.workspace_limit = take_byte(&r) < 240 ? 0 : take_word(&r);
    const attn_status status = attn_plan_create(context, &problem, &options, &plan);
    if (status == ATTN_OK) {
        demand(plan != NULL && attn_plan_kernel(plan)[0] != 0 && attn_plan_describe(plan)[0] != 0);
        demand(attn_accum_size(plan) >= 64);
        run(plan, &problem, &r);
    } else {
        demand(plan == NULL && attn_last_error()[0] != 0 &&
               strcmp(attn_status_name(status), "unknown status") != 0);
    }
    attn_plan_destroy(plan);
    return 0;
}
