/*
 * What the parts of the library share: the context and plan behind the opaque types, and the table of
 * functions that a back end fills. Data flows problem -> plan -> run; a back end sees only resolved
 * problems and tensors.
 */
#ifndef ATTNI_INTERNAL_H
#define ATTNI_INTERNAL_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "attn/attn.h"
#include "core/status.h"

/* Positions and windows are clamped to this, so that sums of a few cannot overflow int64. */
#define ATTNI_POSITION_LIMIT ((int64_t)1 << 60)
#define ATTNI_DIM_LIMIT 1024
#define ATTNI_ACCUM_MAGIC 0x4e545441u
#define ATTNI_ACCUM_VERSION 1u

/* ---------------------------------------------------------------- text of bounded size */

typedef struct attni_text {
    char data[4000];
    size_t length;
} attni_text;

/* Appends; what does not fit is cut. */
void attni_text_add(attni_text *text, const char *format, ...) ATTNI_PRINTF(2, 3);

/* ---------------------------------------------------------------- run */

typedef enum attni_run_kind {
    ATTNI_RUN_FORWARD, /* tensors -> O, LSE */
    ATTNI_RUN_ADD,     /* tensors' keys -> accum */
    ATTNI_RUN_FINISH,  /* accum -> O, LSE */
    ATTNI_RUN_BACKWARD /* tensors -> gradients */
} attni_run_kind;

/* The arrays inside an accumulator's memory (or where a back end keeps partial results). */
typedef struct attni_accum {
    float *m, *l, *o;
} attni_accum;

/*
 * One run, resolved: tensors hold no DEFAULT, seqlen_q and seqlen_k are clamped to the plan's,
 * scale is a number; query_start stays ATTN_POSITION_DEFAULT where it is bottom right of each
 * sequence (key_start + its seqlen_k - its seqlen_q).
 */
typedef struct attni_run {
    attni_run_kind kind;
    attn_tensors tensors;
    attni_accum accum; /* ADD, FINISH */
    void *workspace;   /* plan->workspace_size bytes, or null where that is 0, and in FINISH */
    struct attni_block *block; /* of the pool, that it lies in; null: the caller's */
    void *stream;
} attni_run;

/* ---------------------------------------------------------------- back end */

typedef struct attni_backend {
    attn_device device;
    bool queues; /* a run may still be at work when it has returned, or be repeated by a captured graph */
    /* Fills backend_data and description. */
    attn_status (*context_open)(attn_context *context);
    void (*context_close)(attn_context *context);
    /* Fills backend_data, kernel, workspace_size, description and, if needed, backward_kernel; problem and
     * options are valid. */
    attn_status (*plan_open)(attn_plan *plan);
    void (*plan_close)(attn_plan *plan);
    /* Workspace memory of the device: null, with attni_fail's sentence, where there is none left. */
    void *(*workspace_alloc)(attn_context *context, size_t bytes);
    void (*workspace_free)(attn_context *context, void *pointer);
    attn_status (*run)(const attn_plan *plan, const attni_run *run);
    /* Null: the stream. What orders this thread's runs in a stream: of equal ones a workspace goes from run to run. */
    void *(*order_of)(void *stream);
    /* Memory of attn_accum_size bytes: write the header and an empty state; check a header. */
    attn_status (*accum_begin)(const attn_plan *plan, void *accum, void *stream);
    /* accum <- accum + other */
    attn_status (*accum_merge)(const attn_plan *plan, attni_accum accum, attni_accum other, void *stream);
    /* Whether accum's header is that of this plan's rows. A device may decline to look: ATTN_OK. */
    attn_status (*accum_check)(const attn_plan *plan, const void *accum);
} attni_backend;

const attni_backend *attni_cpu_backend(void);
#if ATTNI_HAVE_CUDA
const attni_backend *attni_cuda_backend(void);
int32_t attni_cuda_kernel_count(void);
void attni_cuda_kernel_get(int32_t index, attn_kernel_info *info);
#endif

/* ---------------------------------------------------------------- context */

/* A block of workspace that waits for its next run. */
typedef struct attni_block {
    struct attni_block *next;
    void *memory;
    size_t bytes;
    void *order; /* of the stream whose queued work may still use it; blocks go from stream to stream never */
    bool used; /* order is meant */
    /* Runs in that stream that used a back end's own bytes before the memory, which are cleared if it is
     * not 0; and a number of the back end's beside them. */
    uint32_t runs, counted;
} attni_block;

struct attn_context {
    const attni_backend *backend;
    int32_t ordinal;
    attn_context_options options; /* threads, parallel_for, alloc and free resolved, never 0 or null */
    void *backend_data;
    attni_text description;
    atomic_flag pool_lock;
    attni_block *pool;
};

/* Host memory, 64-byte aligned, or null with a sentence. */
void *attni_alloc(attn_context *context, size_t bytes);
void attni_free(attn_context *context, void *pointer);
void attni_log(const attn_context *context, const char *format, ...) ATTNI_PRINTF(2, 3);

/* A block of at least bytes, from the pool or new; a new one takes the place of a smaller one,
 * unless runs are queued. */
attn_status attni_pool_take(attn_context *context, size_t bytes, void *stream, attni_block **block);
void attni_pool_give(attn_context *context, attni_block *block, void *stream);
void attni_pool_put_back(attn_context *context, attni_block *block); /* no run since it was taken */

/* ---------------------------------------------------------------- plan */

struct attn_plan {
    attn_context *context;
    /* strides resolved: none is ATTN_STRIDE_PACKED; windows >= 0, clamped, or UNLIMITED */
    attn_problem problem;
    attn_plan_options options; /* threads resolved */
    int64_t group; /* heads_q / heads_kv */
    int64_t rows; /* batch * heads_q * seqlen_q */
    size_t workspace_size;
    const char *kernel;
    const char *backward_kernel; /* "" without needs_backward */
    void *backend_data;
    attni_text description;
};

/*
 * Copies a public struct: source begins with its size_t struct_size. A struct shorter than
 * size is refused, and so is a longer one whose further bytes are not all zero.
 */
attn_status attni_struct_copy(void *destination, const void *source, size_t size, const char *name);

/* Checks everything about a problem that no back end need know, and resolves its strides. */
attn_status attni_problem_resolve(const attn_problem *problem, attn_problem *resolved);

static inline bool attni_dtype_is_f8(attn_dtype dtype) { return dtype >= ATTN_F8_E4M3; }
static inline size_t attni_dtype_size(attn_dtype dtype) {
    return dtype == ATTN_F32 ? 4 : attni_dtype_is_f8(dtype) ? 1 : 2;
}
const char *attni_dtype_name(attn_dtype dtype);

/* The arrays of an accumulator for R rows of dim_v numbers; bytes may be null. */
attni_accum attni_accum_arrays(void *memory, int64_t rows, int64_t dim_v, size_t *bytes);

static inline int64_t attni_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t attni_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t attni_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t attni_round_up(int64_t a, int64_t b) { return attni_ceil_div(a, b) * b; }

#endif
