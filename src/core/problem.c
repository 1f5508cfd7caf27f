/* Problems: everything that can be wrong with one before any back end looks at it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/internal.h"

const char *attni_dtype_name(attn_dtype dtype) {
    switch (dtype) {
    case ATTN_F32: return "f32";
    case ATTN_F16: return "f16";
    case ATTN_BF16: return "bf16";
    case ATTN_F8_E4M3: return "f8_e4m3";
    case ATTN_F8_E5M2: return "f8_e5m2";
    }
    return "unknown";
}

attn_status attni_struct_copy(void *destination, const void *source, size_t size, const char *name) {
    size_t given;
    memcpy(&given, source, sizeof given);
    if (given < size)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "%s.struct_size is %zu; this library's is %zu: start from the INIT macro", name,
                          given, size);
    if (given > 65536)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "%s.struct_size is %zu, which is no struct's: start from the INIT macro", name,
                          given);
    for (size_t i = size; i < given; i++)
        if (((const unsigned char *)source)[i] != 0)
            return attni_fail(ATTN_UNSUPPORTED,
                              "%s holds a field set at byte %zu that this library (%zu bytes) does not know",
                              name, i, size);
    memcpy(destination, source, size);
    memcpy(destination, &size, sizeof size);
    return ATTN_OK;
}

static attn_status check_range(const char *field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return ATTN_OK;
    return attni_fail(ATTN_INVALID_ARGUMENT, "%s is %lld; allowed is %lld to %lld", field, (long long)value,
                      (long long)low, (long long)high);
}

static attn_status check_enum(const char *field, int64_t value, int64_t last, const char *allowed) {
    if (value >= 0 && value <= last) return ATTN_OK;
    return attni_fail(ATTN_INVALID_ARGUMENT, "%s is %lld; allowed is %s", field, (long long)value, allowed);
}

/* *sum += |stride| * (extent - 1); false on overflow. */
static bool add_extent(int64_t *sum, int64_t stride, int64_t extent) {
    if (extent <= 1 || stride == 0) return true;
    if (stride == INT64_MIN) return false;
    const int64_t size = stride < 0 ? -stride : stride;
    if (size > INT64_MAX / (extent - 1)) return false;
    const int64_t term = size * (extent - 1);
    if (*sum > INT64_MAX - term) return false;
    *sum += term;
    return true;
}

/* a * b, or -1 on overflow or if a is -1. Neither is otherwise negative. */
static int64_t product(int64_t a, int64_t b) {
    if (a < 0 || (b != 0 && a > INT64_MAX / b)) return -1;
    return a * b;
}

typedef struct dimension {
    const char *name;
    int64_t *stride;
    int64_t extent;
    int64_t packed; /* -1: does not fit */
} dimension;

/* Fills packed strides and makes sure that every element's byte offset fits in int64. */
static attn_status resolve_strides(const char *tensor, dimension *dims, int count, int64_t contiguous,
                                   size_t element, bool output) {
    int64_t last = contiguous;
    bool empty = false;
    for (int i = 0; i < count; i++) empty = empty || dims[i].extent == 0;
    for (int i = 0; i < count; i++) {
        dimension *d = &dims[i];
        if (*d->stride == ATTN_STRIDE_PACKED) {
            if (d->packed < 0)
                return attni_fail(ATTN_INVALID_ARGUMENT, "the size of %s overflows int64 in its %s stride",
                                  tensor, d->name);
            *d->stride = d->packed;
        } else if (output && !empty && *d->stride == 0 && d->extent > 1) {
            return attni_fail(ATTN_INVALID_ARGUMENT,
                              "%s.%s is 0 with %lld of them; an output cannot be broadcast", tensor, d->name,
                              (long long)d->extent);
        }
        if (!add_extent(&last, *d->stride, d->extent))
            return attni_fail(ATTN_INVALID_ARGUMENT, "%s.%s is %lld; times %lld it overflows int64", tensor,
                              d->name, (long long)*d->stride, (long long)d->extent);
    }
    if (last > INT64_MAX / (int64_t)element)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "the strides of %s reach element %lld, whose byte offset overflows int64", tensor,
                          (long long)last);
    return ATTN_OK;
}

static attn_status resolve_tensor(const char *name, attn_strides *s, int64_t batch, int64_t seqlen,
                                  int64_t heads, int64_t dim, attn_dtype dtype, attn_lengths lengths,
                                  bool output) {
    const int64_t row = product(heads, dim);
    const bool ragged = lengths == ATTN_LENGTHS_RAGGED; /* sequences lie end to end: one batch of them all */
    if (ragged) s->batch = 0;
    dimension dims[3] = {
        {"batch", &s->batch, ragged ? 1 : batch, product(product(seqlen, heads), dim)},
        {"seqlen", &s->seqlen, ragged ? product(batch, seqlen) : seqlen, row},
        {"heads", &s->heads, heads, dim},
    };
    if (dims[1].extent < 0)
        return attni_fail(ATTN_INVALID_ARGUMENT, "batch %lld times the seqlen %lld of %s overflows int64",
                          (long long)batch, (long long)seqlen, name);
    return resolve_strides(name, dims, 3, dim, attni_dtype_size(dtype), output);
}

static attn_status resolve_scores(const char *name, attn_score_strides *s, const attn_problem *p,
                                  size_t element) {
    const int64_t plane = product(p->seqlen_q, p->seqlen_k);
    dimension dims[3] = {
        {"batch", &s->batch, p->batch, product(plane, p->heads_q)},
        {"heads", &s->heads, p->heads_q, plane},
        {"queries", &s->queries, p->seqlen_q, p->seqlen_k},
    };
    return resolve_strides(name, dims, 3, p->seqlen_k, element, false);
}

static attn_status check_dtypes(const attn_problem *p) {
    static const char allowed[] = "ATTN_F32 (0), ATTN_F16 (1) or ATTN_BF16 (2)";
    static const char inputs[] =
        "ATTN_F32 (0), ATTN_F16 (1), ATTN_BF16 (2), ATTN_F8_E4M3 (3) or ATTN_F8_E5M2 (4)";
    ATTNI_TRY(check_enum("problem.dtype_q", p->dtype_q, ATTN_F8_E5M2, inputs));
    ATTNI_TRY(check_enum("problem.dtype_kv", p->dtype_kv, ATTN_F8_E5M2, inputs));
    ATTNI_TRY(check_enum("problem.dtype_o", p->dtype_o, ATTN_BF16, allowed));
    ATTNI_TRY(check_enum("problem.dtype_bias", p->dtype_bias, ATTN_BF16, allowed));
    if (p->dtype_kv != p->dtype_q && (p->dtype_q != ATTN_F32 || attni_dtype_is_f8(p->dtype_kv)))
        return attni_fail(
            ATTN_INVALID_ARGUMENT,
            "problem.dtype_kv is %s with %s queries; allowed is %s, or f16 or bf16 under f32 queries",
            attni_dtype_name(p->dtype_kv), attni_dtype_name(p->dtype_q), attni_dtype_name(p->dtype_q));
    if (attni_dtype_is_f8(p->dtype_q) && p->dtype_o == ATTN_F32)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.dtype_o is f32 with %s queries; allowed is f16 or bf16",
                          attni_dtype_name(p->dtype_q));
    return ATTN_OK;
}

/* What f8 has, and what it alone has. */
static attn_status check_f8(const attn_problem *p) {
    const bool f8 = attni_dtype_is_f8(p->dtype_q);
    ATTNI_TRY(check_range("problem.has_scales", p->has_scales, 0, 1));
    ATTNI_TRY(check_range("problem.reserved_scales", p->reserved_scales, 0, 0));
    if (p->has_scales && !f8)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.has_scales is 1 with %s queries; f8 alone has scales",
                          attni_dtype_name(p->dtype_q));
    if (f8 && p->needs_backward)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.needs_backward is 1 with %s queries; f8 has a forward alone",
                          attni_dtype_name(p->dtype_q));
    int64_t last = 1;
    if (p->has_scales && (!add_extent(&last, p->scale_stride_batch, p->batch) ||
                          !add_extent(&last, p->scale_stride_head, p->heads_kv) || last > INT64_MAX / 4))
        return attni_fail(
            ATTN_INVALID_ARGUMENT,
            "problem.scale_stride_batch is %lld and scale_stride_head %lld; times %lld and %lld "
            "they overflow int64",
            (long long)p->scale_stride_batch, (long long)p->scale_stride_head, (long long)p->batch,
            (long long)p->heads_kv);
    return ATTN_OK;
}

static attn_status check_options(const attn_problem *p) {
    ATTNI_TRY(check_enum("problem.lengths_q", p->lengths_q, ATTN_LENGTHS_RAGGED,
                         "FULL (0), PADDED (1) or RAGGED (2)"));
    ATTNI_TRY(check_enum("problem.lengths_k", p->lengths_k, ATTN_LENGTHS_RAGGED,
                         "FULL (0), PADDED (1) or RAGGED (2)"));
    ATTNI_TRY(
        check_enum("problem.mask", p->mask, ATTN_MASK_CAUSAL, "ATTN_MASK_NONE (0) or ATTN_MASK_CAUSAL (1)"));
    if (p->window_left != ATTN_WINDOW_UNLIMITED)
        ATTNI_TRY(
            check_range("problem.window_left (unless ATTN_WINDOW_UNLIMITED)", p->window_left, 0, INT64_MAX));
    if (p->window_right != ATTN_WINDOW_UNLIMITED)
        ATTNI_TRY(check_range("problem.window_right (unless ATTN_WINDOW_UNLIMITED)", p->window_right, 0,
                              INT64_MAX));
    if (!(p->softcap >= 0) || isinf(p->softcap))
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.softcap is %g; allowed is 0 (none) or a finite number above it",
                          (double)p->softcap);
    if (!(p->dropout_p >= 0 && p->dropout_p < 1))
        return attni_fail(ATTN_INVALID_ARGUMENT, "problem.dropout_p is %g; allowed is 0 (none) to below 1",
                          (double)p->dropout_p);
    ATTNI_TRY(check_range("problem.has_alibi", p->has_alibi, 0, 1));
    ATTNI_TRY(check_range("problem.has_sinks", p->has_sinks, 0, 1));
    ATTNI_TRY(check_range("problem.has_bias", p->has_bias, 0, 1));
    ATTNI_TRY(check_range("problem.has_mask", p->has_mask, 0, 1));
    ATTNI_TRY(check_range("problem.deterministic", p->deterministic, 0, 1));
    ATTNI_TRY(check_range("problem.batch_invariant", p->batch_invariant, 0, 1));
    ATTNI_TRY(check_range("problem.needs_backward", p->needs_backward, 0, 1));
    return check_range("problem.reserved", p->reserved, 0, 0);
}

static attn_status resolve_gradients(attn_problem *p) {
    ATTNI_TRY(resolve_tensor("problem.dout", &p->dout, p->batch, p->seqlen_q, p->heads_q, p->dim_v,
                             p->dtype_o, p->lengths_q, false));
    ATTNI_TRY(resolve_tensor("problem.dq", &p->dq, p->batch, p->seqlen_q, p->heads_q, p->dim_qk, p->dtype_q,
                             p->lengths_q, true));
    ATTNI_TRY(resolve_tensor("problem.dk", &p->dk, p->batch, p->seqlen_k, p->heads_kv, p->dim_qk, p->dtype_kv,
                             p->lengths_k, true));
    ATTNI_TRY(resolve_tensor("problem.dv", &p->dv, p->batch, p->seqlen_k, p->heads_kv, p->dim_v, p->dtype_kv,
                             p->lengths_k, true));
    if (!p->has_bias) return ATTN_OK;
    const int64_t scores = product(product(product(p->batch, p->heads_q), p->seqlen_q), p->seqlen_k);
    if (product(scores, 4) < 0)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "batch * heads_q * seqlen_q * seqlen_k numbers of dbias overflow int64 bytes");
    return ATTN_OK;
}

attn_status attni_problem_resolve(const attn_problem *problem, attn_problem *p) {
    ATTNI_TRY(attni_struct_copy(p, problem, sizeof *p, "problem"));
    ATTNI_TRY(check_range("problem.batch", p->batch, 0, INT32_MAX));
    ATTNI_TRY(check_range("problem.heads_q", p->heads_q, 1, INT32_MAX));
    ATTNI_TRY(check_range("problem.heads_kv", p->heads_kv, 1, INT32_MAX));
    if (p->heads_q % p->heads_kv != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "problem.heads_q is %lld; it must be a multiple of heads_kv, %lld",
                          (long long)p->heads_q, (long long)p->heads_kv);
    ATTNI_TRY(check_range("problem.seqlen_q", p->seqlen_q, 0, INT32_MAX / 2));
    ATTNI_TRY(check_range("problem.seqlen_k", p->seqlen_k, 0, INT32_MAX / 2));
    ATTNI_TRY(check_range("problem.dim_qk", p->dim_qk, 1, ATTNI_DIM_LIMIT));
    ATTNI_TRY(check_range("problem.dim_v", p->dim_v, 1, ATTNI_DIM_LIMIT));
    ATTNI_TRY(check_dtypes(p));
    ATTNI_TRY(check_options(p));
    ATTNI_TRY(check_f8(p));
    const int64_t rows = product(product(p->batch, p->heads_q), p->seqlen_q);
    if (product(rows, (p->dim_v + 2) * 4) < 0)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "batch * heads_q * seqlen_q rows of %lld numbers overflow int64 bytes",
                          (long long)p->dim_v);
    if (p->window_left > ATTNI_POSITION_LIMIT) p->window_left = ATTNI_POSITION_LIMIT;
    if (p->window_right > ATTNI_POSITION_LIMIT) p->window_right = ATTNI_POSITION_LIMIT;

    ATTNI_TRY(resolve_tensor("problem.q", &p->q, p->batch, p->seqlen_q, p->heads_q, p->dim_qk, p->dtype_q,
                             p->lengths_q, false));
    ATTNI_TRY(resolve_tensor("problem.k", &p->k, p->batch, p->seqlen_k, p->heads_kv, p->dim_qk, p->dtype_kv,
                             p->lengths_k, false));
    ATTNI_TRY(resolve_tensor("problem.v", &p->v, p->batch, p->seqlen_k, p->heads_kv, p->dim_v, p->dtype_kv,
                             p->lengths_k, false));
    ATTNI_TRY(resolve_tensor("problem.o", &p->o, p->batch, p->seqlen_q, p->heads_q, p->dim_v, p->dtype_o,
                             p->lengths_q, true));
    if (p->needs_backward) ATTNI_TRY(resolve_gradients(p));
    if (p->has_bias) ATTNI_TRY(resolve_scores("problem.bias", &p->bias, p, attni_dtype_size(p->dtype_bias)));
    if (p->has_mask) ATTNI_TRY(resolve_scores("problem.mask_strides", &p->mask_strides, p, 1));
    if (p->has_alibi) {
        int64_t last = p->heads_q;
        if (!add_extent(&last, p->alibi_stride_batch, p->batch) || last > INT64_MAX / 4)
            return attni_fail(ATTN_INVALID_ARGUMENT,
                              "problem.alibi_stride_batch is %lld; times %lld it overflows int64",
                              (long long)p->alibi_stride_batch, (long long)p->batch);
    }
    return ATTN_OK;
}
