#include "run_inputs.h"

#include "flags.h"
#include "tool.h"

#include <math.h>
#include <string.h>

static int load(const char *flag, const char *path, npy_array *array) {
    char message[NPY_MESSAGE_SIZE];
    if (npy_load(path, array, message)) return 1;
    tool_failure("run", "%s %s: %s", flag, path, message);
    return 0;
}

/* ---------------------------------------------------------------- tensors */

static int find_dtype(const char *flag, const char *path, const npy_array *array, int bf16,
                      attn_dtype *dtype) {
    switch (array->type) {
    case NPY_F4: *dtype = ATTN_F32; return 1;
    case NPY_F2: *dtype = ATTN_F16; return 1;
    case NPY_U2:
        *dtype = ATTN_BF16;
        if (bf16) return 1;
        tool_failure("run", "%s %s: the elements are uint16; give --bf16 to read them as bfloat16", flag,
                     path);
        return 0;
    case NPY_U1:
    case NPY_BOOL:
    case NPY_I4: break;
    }
    tool_failure("run", "%s %s: the elements are %s; allowed are float32, float16, and uint16 with --bf16",
                 flag, path, npy_type_name(array->type));
    return 0;
}

/* A stride is never 0 here, even of an empty tensor: 0 would mean broadcast. */
static int64_t stride(int64_t a, int64_t b) {
    if (a < 1) a = 1;
    if (b < 1) b = 1;
    return a > INT64_MAX / b ? INT64_MAX : a * b;
}

static attn_strides packed_strides(const run_view *view, int layout) {
    attn_strides strides;
    if (layout == RUN_BSHD) {
        strides.heads = stride(view->dim, 1);
        strides.seqlen = stride(strides.heads, view->heads);
        strides.batch = stride(strides.seqlen, view->seqlen);
    } else {
        strides.seqlen = stride(view->dim, 1);
        strides.heads = stride(strides.seqlen, view->seqlen);
        strides.batch = stride(strides.heads, view->heads);
    }
    return strides;
}

int run_view_of(const char *flag, const char *path, const npy_array *array, const run_options *options,
                run_view *view) {
    char text[NPY_SHAPE_TEXT_SIZE];
    if (!find_dtype(flag, path, array, options->bf16, &view->dtype)) return 0;
    if (array->dims != 3 && array->dims != 4) {
        tool_failure("run", "%s %s: the shape is %s; allowed is %s, or 3 dimensions without the batch", flag,
                     path, npy_shape_text(array, text),
                     options->layout == RUN_BSHD ? "(batch, seqlen, heads, dim)"
                                                 : "(batch, heads, seqlen, dim)");
        return 0;
    }
    const int64_t *shape = array->shape + (array->dims - 3);
    view->batch = array->dims == 4 ? array->shape[0] : 1;
    view->seqlen = shape[options->layout == RUN_BSHD ? 0 : 1];
    view->heads = shape[options->layout == RUN_BSHD ? 1 : 0];
    view->dim = shape[2];
    view->strides = packed_strides(view, options->layout);
    return 1;
}

static int load_view(const char *flag, const char *path, const run_options *options, npy_array *array,
                     run_view *view) {
    return load(flag, path, array) && run_view_of(flag, path, array, options, view);
}

/* ---------------------------------------------------------------- lengths */

typedef struct length_flags {
    const char *padded_flag, *padded, *ragged_flag, *ragged;
} length_flags;

/* Reads lengths or cumulative lengths of one side; sets its kind, the batch (if ragged) and the largest length. */
static int load_lengths(const length_flags *flags, const run_view *view, npy_array *array, attn_lengths *kind,
                        int64_t *batch, int64_t *seqlen) {
    const int ragged = flags->ragged != NULL;
    const char *flag = ragged ? flags->ragged_flag : flags->padded_flag;
    const char *path = ragged ? flags->ragged : flags->padded;
    *kind = ATTN_LENGTHS_FULL;
    *batch = view->batch;
    *seqlen = view->seqlen;
    if (path == NULL) return 1;
    if (!load(flag, path, array)) return 0;
    char text[NPY_SHAPE_TEXT_SIZE];
    if (array->type != NPY_I4 || array->dims != 1 || array->count < (ragged ? 1u : 0u)) {
        tool_failure("run", "%s %s: it is %s %s; allowed is int32 (%s,)", flag, path,
                     npy_type_name(array->type), npy_shape_text(array, text), ragged ? "batch + 1" : "batch");
        return 0;
    }
    const int32_t *values = array->data;
    if (!ragged) {
        *kind = ATTN_LENGTHS_PADDED;
        for (size_t i = 0; i < array->count; i++) {
            if (values[i] >= 0 && values[i] <= view->seqlen) continue;
            tool_failure("run", "%s %s: element %zu is %d; allowed is 0 to the tensor's %lld rows", flag,
                         path, i, values[i], (long long)view->seqlen);
            return 0;
        }
        *batch = array->shape[0];
        return 1;
    }
    *kind = ATTN_LENGTHS_RAGGED;
    *batch = array->shape[0] - 1;
    *seqlen = 0;
    if (view->batch != 1) {
        tool_failure("run",
                     "%s: the tensor has a batch of %lld; allowed are 3 dimensions, all rows end to end",
                     flag, (long long)view->batch);
        return 0;
    }
    for (size_t i = 0; i < array->count; i++) {
        const int32_t least = i == 0 ? 0 : values[i - 1];
        if (values[i] < least || values[i] > (i == 0 ? 0 : view->seqlen)) {
            tool_failure(
                "run",
                "%s %s: element %zu is %d; allowed is 0 first, then ascending to the tensor's %lld rows",
                flag, path, i, values[i], (long long)view->seqlen);
            return 0;
        }
        if (values[i] - least > *seqlen) *seqlen = values[i] - least;
    }
    return 1;
}

/* ---------------------------------------------------------------- one array a score, a head, a row */

/* Strides of an array that broadcasts to (batch, heads_q, seqlen_q, seqlen_k), as NumPy does, keys excepted. */
static int broadcast(const char *flag, const char *path, const npy_array *array, const attn_problem *p,
                     attn_score_strides *strides) {
    const int64_t full[4] = {p->batch, p->heads_q, p->seqlen_q, p->seqlen_k};
    int64_t steps[4], step = 1;
    int good = array->dims >= 1 && array->dims <= 4;
    for (int i = 3; i >= 0 && good; i--) {
        const int from_end = 3 - i;
        const int64_t size = from_end < array->dims ? array->shape[array->dims - 1 - from_end] : 1;
        good = size == full[i] || (size == 1 && i < 3);
        steps[i] = size == 1 ? 0 : step;
        step = stride(step, size);
    }
    if (!good) {
        char text[NPY_SHAPE_TEXT_SIZE];
        tool_failure(
            "run",
            "%s %s: the shape is %s; allowed is (%lld, %lld, %lld, %lld), where all but the last may be 1 or"
            " left out in front",
            flag, path, npy_shape_text(array, text), (long long)full[0], (long long)full[1],
            (long long)full[2], (long long)full[3]);
        return 0;
    }
    strides->batch = steps[0];
    strides->heads = steps[1];
    strides->queries = steps[2];
    return 1;
}

static int load_bias(const run_options *options, run_inputs *in) {
    attn_problem *p = &in->problem;
    if (options->bias == NULL) return 1;
    if (!load("--bias", options->bias, &in->bias)) return 0;
    if (!find_dtype("--bias", options->bias, &in->bias, options->bf16, &p->dtype_bias)) return 0;
    p->has_bias = 1;
    in->tensors.bias = in->bias.data;
    return broadcast("--bias", options->bias, &in->bias, p, &p->bias);
}

static int load_mask(const run_options *options, run_inputs *in) {
    attn_problem *p = &in->problem;
    if (options->mask == NULL) return 1;
    if (!load("--mask", options->mask, &in->mask)) return 0;
    if (in->mask.type != NPY_BOOL && in->mask.type != NPY_U1) {
        tool_failure("run", "--mask %s: the elements are %s; allowed are bool and uint8 (not 0: may see)",
                     options->mask, npy_type_name(in->mask.type));
        return 0;
    }
    p->has_mask = 1;
    in->tensors.mask = in->mask.data;
    return broadcast("--mask", options->mask, &in->mask, p, &p->mask_strides);
}

static int load_alibi(const run_options *options, run_inputs *in) {
    attn_problem *p = &in->problem;
    const npy_array *a = &in->alibi;
    if (options->alibi == NULL) return 1;
    if (!load("--alibi", options->alibi, &in->alibi)) return 0;
    const int whole = a->dims == 2 && a->shape[0] == p->batch && a->shape[1] == p->heads_q;
    if (a->type != NPY_F4 || !(whole || (a->dims == 1 && a->shape[0] == p->heads_q))) {
        char text[NPY_SHAPE_TEXT_SIZE];
        tool_failure("run", "--alibi %s: it is %s %s; allowed is float32 (%lld,) or (%lld, %lld)",
                     options->alibi, npy_type_name(a->type), npy_shape_text(a, text), (long long)p->heads_q,
                     (long long)p->batch, (long long)p->heads_q);
        return 0;
    }
    p->has_alibi = 1;
    p->alibi_stride_batch = whole ? p->heads_q : 0;
    in->tensors.alibi_slopes = a->data;
    return 1;
}

static int load_sinks(const run_options *options, run_inputs *in) {
    attn_problem *p = &in->problem;
    const npy_array *a = &in->sinks;
    if (options->sinks == NULL) return 1;
    if (!load("--sinks", options->sinks, &in->sinks)) return 0;
    if (a->type != NPY_F4 || a->dims != 1 || a->shape[0] != p->heads_q) {
        char text[NPY_SHAPE_TEXT_SIZE];
        tool_failure("run", "--sinks %s: it is %s %s; allowed is float32 (%lld,)", options->sinks,
                     npy_type_name(a->type), npy_shape_text(a, text), (long long)p->heads_q);
        return 0;
    }
    p->has_sinks = 1;
    in->tensors.sinks = a->data;
    return 1;
}

/* ---------------------------------------------------------------- the whole */

static int check_usage(const run_options *options, attn_problem *p) {
    if (options->q == NULL || options->k == NULL || options->v == NULL)
        return tool_usage_error("run", "%s is not given; --q, --k and --v are needed (see attn run --help)",
                                options->q == NULL   ? "--q"
                                : options->k == NULL ? "--k"
                                                     : "--v");
    if (options->window != NULL) {
        int64_t window[2];
        if (flags_parse_integers(options->window, -1, INT64_MAX, window, 2) != 2)
            return tool_usage_error(
                "run", "--window is '%s'; allowed is LEFT,RIGHT, each from 0 up, or -1 for no limit",
                options->window);
        if (window[0] >= 0) p->window_left = window[0];
        if (window[1] >= 0) p->window_right = window[1];
    }
    if (options->lengths_q != NULL && options->cu_seqlens_q != NULL)
        return tool_usage_error("run", "--lengths-q and --cu-seqlens-q exclude each other");
    if (options->lengths_k != NULL && options->cu_seqlens_k != NULL)
        return tool_usage_error("run", "--lengths-k and --cu-seqlens-k exclude each other");
    if (options->causal_top_left && options->query_start != ATTN_POSITION_DEFAULT)
        return tool_usage_error("run", "--causal-top-left and --query-start exclude each other");
    if (options->softcap < 0)
        return tool_usage_error("run", "--softcap is %g; allowed is 0 (none) and above", options->softcap);
    if (options->scale != HUGE_VAL && !isfinite((float)options->scale))
        return tool_usage_error("run", "--scale is %g; allowed is a finite float32", options->scale);
    if (!(options->dropout >= 0 && options->dropout < 1))
        return tool_usage_error("run", "--dropout is %g; allowed is 0 to below 1", options->dropout);
    return TOOL_OK;
}

static int match(const char *what_a, int64_t a, const char *what_b, int64_t b) {
    if (a == b) return 1;
    tool_failure("run", "%s is %lld and %s is %lld; they must agree", what_a, (long long)a, what_b,
                 (long long)b);
    return 0;
}

static int load_tensors(const run_options *options, run_inputs *in) {
    attn_problem *p = &in->problem;
    run_view *q = &in->view_q, *k = &in->view_k, *v = &in->view_v, *o = &in->view_o;
    int64_t batch_k, seqlen_k;
    if (!load_view("--q", options->q, options, &in->q, q) ||
        !load_view("--k", options->k, options, &in->k, k) ||
        !load_view("--v", options->v, options, &in->v, v))
        return 0;
    if (!match("the head dim of Q", q->dim, "of K", k->dim) ||
        !match("the heads of K", k->heads, "of V", v->heads) ||
        !match("the sequence length of K", k->seqlen, "of V", v->seqlen) ||
        !match("the batch of K", k->batch, "of V", v->batch))
        return 0;
    if (k->dtype != v->dtype) {
        tool_failure("run", "K is %s and V is %s; they must agree", npy_type_name(in->k.type),
                     npy_type_name(in->v.type));
        return 0;
    }
    const length_flags flags_q = {"--lengths-q", options->lengths_q, "--cu-seqlens-q", options->cu_seqlens_q};
    const length_flags flags_k = {"--lengths-k", options->lengths_k, "--cu-seqlens-k", options->cu_seqlens_k};
    if (!load_lengths(&flags_q, q, &in->lengths_q, &p->lengths_q, &p->batch, &p->seqlen_q)) return 0;
    if (!load_lengths(&flags_k, k, &in->lengths_k, &p->lengths_k, &batch_k, &seqlen_k)) return 0;
    if (p->lengths_q == ATTN_LENGTHS_PADDED &&
        !match("the batch of Q", q->batch, "the number of --lengths-q", p->batch))
        return 0;
    /* K and V of one sequence serve a whole batch. */
    const int shared = p->lengths_k != ATTN_LENGTHS_RAGGED && k->batch == 1 && p->batch != 1;
    if (!shared &&
        !match("the batch of Q", p->batch, "of K", p->lengths_k == ATTN_LENGTHS_RAGGED ? batch_k : k->batch))
        return 0;
    if (p->lengths_k == ATTN_LENGTHS_PADDED &&
        !match("the batch", p->batch, "the number of --lengths-k", batch_k))
        return 0;
    if (shared) k->strides.batch = v->strides.batch = 0;

    p->seqlen_k = seqlen_k;
    p->heads_q = q->heads;
    p->heads_kv = k->heads;
    p->dim_qk = q->dim;
    p->dim_v = v->dim;
    p->dtype_q = q->dtype;
    p->dtype_kv = k->dtype;
    p->dtype_o = options->dtype_o < 0 ? q->dtype : (attn_dtype)options->dtype_o;
    *o = *q;
    o->dim = v->dim;
    o->dtype = p->dtype_o;
    o->strides = packed_strides(o, options->layout);
    p->q = q->strides;
    p->k = k->strides;
    p->v = v->strides;
    p->o = o->strides;
    in->tensors.q = in->q.data;
    in->tensors.k = in->k.data;
    in->tensors.v = in->v.data;
    in->tensors.lengths_q = in->lengths_q.data;
    in->tensors.lengths_k = in->lengths_k.data;
    in->tensors.total_q = p->lengths_q == ATTN_LENGTHS_RAGGED ? q->seqlen : 0;
    return 1;
}

static void describe_outputs(run_inputs *in) {
    in->o_dims = in->q.dims;
    memcpy(in->o_shape, in->q.shape, sizeof in->o_shape);
    in->o_shape[in->o_dims - 1] = in->view_o.dim;
    const int ragged = in->problem.lengths_q == ATTN_LENGTHS_RAGGED;
    in->lse_dims = ragged || in->q.dims == 3 ? 2 : 3;
    int64_t *next = in->lse_shape;
    if (in->lse_dims == 3) *next++ = in->view_q.batch;
    *next++ = in->view_q.heads;
    *next = in->view_q.seqlen;
}

int run_inputs_load(const run_options *options, run_inputs *in) {
    memset(in, 0, sizeof *in);
    in->problem = (attn_problem)ATTN_PROBLEM_INIT;
    in->tensors = (attn_tensors)ATTN_TENSORS_INIT;
    attn_problem *p = &in->problem;
    const int status = check_usage(options, p);
    if (status != TOOL_OK) return status;

    p->mask = options->causal || options->causal_top_left ? ATTN_MASK_CAUSAL : ATTN_MASK_NONE;
    p->softcap = (float)options->softcap;
    p->dropout_p = (float)options->dropout;
    in->tensors.query_start = options->causal_top_left ? 0 : options->query_start;
    in->tensors.key_start = options->key_start;
    in->tensors.scale = (float)options->scale;
    in->tensors.dropout_seed = options->seed;
    in->tensors.dropout_offset = options->offset;
    if (!load_tensors(options, in) || !load_bias(options, in) || !load_mask(options, in) ||
        !load_alibi(options, in) || !load_sinks(options, in))
        return TOOL_FAILED;
    describe_outputs(in);
    return TOOL_OK;
}

void run_inputs_free(run_inputs *in) {
    npy_array *const arrays[] = {&in->q,    &in->k,     &in->v,         &in->alibi,    &in->bias,
                                 &in->mask, &in->sinks, &in->lengths_q, &in->lengths_k};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) npy_free(arrays[i]);
}

run_sequence run_inputs_sequence(const run_inputs *in, int64_t batch) {
    const attn_problem *p = &in->problem;
    const int32_t *q = in->lengths_q.data, *k = in->lengths_k.data;
    run_sequence sequence = {batch, 0, p->seqlen_q, p->seqlen_k};
    if (p->lengths_q == ATTN_LENGTHS_PADDED) sequence.seqlen_q = q[batch];
    if (p->lengths_k == ATTN_LENGTHS_PADDED) sequence.seqlen_k = k[batch];
    if (p->lengths_k == ATTN_LENGTHS_RAGGED) sequence.seqlen_k = k[batch + 1] - k[batch];
    if (p->lengths_q == ATTN_LENGTHS_RAGGED) {
        sequence.slice = 0;
        sequence.first_q = q[batch];
        sequence.seqlen_q = q[batch + 1] - q[batch];
    }
    return sequence;
}
