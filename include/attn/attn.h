/*
 * libattn: exact softmax attention, O = softmax(scale * Q K^T + mask) V.
 *
 *   problem  what is asked: mathematics and shapes            attn_problem
 *   plan     how it will be done; all that can fail fails here attn_plan_create
 *   run      pointers in, numbers out                          attn_forward
 *
 * Shapes are written (batch, seqlen, heads, dim). Strides count elements, never bytes; the last
 * dimension (dim, or keys for a bias and a mask) is always contiguous.
 *
 * Every function that can fail returns an attn_status; attn_last_error() then holds one sentence for
 * the calling thread: which field, what it was, what is allowed. The library never prints, aborts
 * or exits. Compiles alone as C99 and as C++.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTN_ATTN_H
#define ATTN_ATTN_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_VERSION_MAJOR 0
#define ATTN_VERSION_MINOR 1
#define ATTN_VERSION_PATCH 0
/* One comparable number: 0.1.0 is 100. */
#define ATTN_VERSION (ATTN_VERSION_MAJOR * 10000 + ATTN_VERSION_MINOR * 100 + ATTN_VERSION_PATCH)

#if defined(_WIN32)
#define ATTN_API
#elif defined(__GNUC__)
#define ATTN_API __attribute__((visibility("default")))
#else
#define ATTN_API
#endif

/* ---------------------------------------------------------------- constants, numbers pinned */

typedef enum attn_status {
    ATTN_OK = 0,
    ATTN_INVALID_ARGUMENT = 1,    /* a null pointer, a size, a stride or a combination without meaning */
    ATTN_UNSUPPORTED = 2,         /* has a meaning, but this build or this machine cannot do it */
    ATTN_OUT_OF_MEMORY = 3,       /* the context's allocator returned null */
    ATTN_WORKSPACE_TOO_SMALL = 4, /* the caller's workspace is below attn_plan_workspace_size */
    ATTN_NO_DEVICE = 5,           /* there is no such device, or no driver for it */
    ATTN_DEVICE_ERROR = 6,        /* the device or its driver reported an error */
    ATTN_COMPILE_ERROR = 7        /* a kernel had to be compiled at run time and could not be */
} attn_status;

typedef enum attn_dtype {
    ATTN_F32 = 0,
    ATTN_F16 = 1,
    ATTN_BF16 = 2,
    ATTN_F8_E4M3 = 3, /* q, k and v alone; no infinities, largest 448 (OCP 8-bit floating point) */
    ATTN_F8_E5M2 = 4  /* q, k and v alone */
} attn_dtype;

typedef enum attn_device { ATTN_DEVICE_CPU = 0, ATTN_DEVICE_CUDA = 1 } attn_device;

typedef enum attn_mask {
    ATTN_MASK_NONE = 0,
    ATTN_MASK_CAUSAL = 1 /* a query sees the keys at its own position and before */
} attn_mask;

typedef enum attn_lengths {
    ATTN_LENGTHS_FULL = 0,   /* every sequence has attn_tensors.seqlen_q (or _k) rows */
    ATTN_LENGTHS_PADDED = 1, /* sequence b has lengths[b] rows of the padded (batch, seqlen, ..) tensor */
    ATTN_LENGTHS_RAGGED = 2  /* sequences lie end to end: rows lengths[b] to lengths[b+1] of (total, ..) */
} attn_lengths;

typedef enum attn_algorithm {
    ATTN_ALGORITHM_AUTO = 0,     /* FlashAttention-2, or split keys where queries are few */
    ATTN_ALGORITHM_STANDARD = 1, /* S and P in memory, for measuring (a CUDA context) */
    ATTN_ALGORITHM_FLASH1 = 2,   /* FlashAttention: keys outer, queries inner (a CUDA context) */
    ATTN_ALGORITHM_FLASH2 = 3    /* FlashAttention-2: queries outer, division deferred, split queries */
} attn_algorithm;

typedef enum attn_isa {
    ATTN_ISA_AUTO = 0, /* the fastest that this machine has; the environment's ATTN_ISA overrides */
    ATTN_ISA_PORTABLE = 1,
    ATTN_ISA_AVX2 = 2,        /* AVX2, FMA, F16C */
    ATTN_ISA_AVX512 = 3,      /* AVX-512 F, BW, DQ, VL */
    ATTN_ISA_AVX512_BF16 = 4, /* and vdpbf16ps, for bf16 */
    ATTN_ISA_AMX = 5,         /* and AMX's tiles, for bf16; a context asks Linux for them */
    ATTN_ISA_NEON = 6,        /* 64-bit Arm */
    ATTN_ISA_NEON_BF16 = 7,   /* and bfmmla, for bf16 */
    ATTN_ISA_SM80 = 8,        /* CUDA, compute capability 8.0 and later */
    ATTN_ISA_SM90 = 9         /* CUDA, Hopper */
} attn_isa;

typedef enum attn_feature {
    ATTN_FEATURE_CPU = 0,
    ATTN_FEATURE_CUDA = 1, /* built with the CUDA back end (a device may still be absent) */
    ATTN_FEATURE_OPENMP = 2 /* the default parallel_for uses OpenMP; without it, one thread */
} attn_feature;

#define ATTN_STRIDE_PACKED INT64_MIN /* the stride of a tensor without gaps */
#define ATTN_POSITION_DEFAULT INT64_MIN
#define ATTN_LENGTH_DEFAULT INT64_MIN /* the plan's length */
#define ATTN_WINDOW_UNLIMITED INT64_MIN
#define ATTN_SCALE_DEFAULT HUGE_VALF /* 1/sqrt(dim_qk) */

/* ---------------------------------------------------------------- problem */

/* Strides of a (batch, seqlen, heads, dim) tensor. 0 broadcasts (inputs: batch and heads; never O). */
typedef struct attn_strides {
    int64_t batch; /* ignored for ragged tensors */
    int64_t seqlen;
    int64_t heads;
} attn_strides;

/* Strides of a (batch, heads_q, seqlen_q, seqlen_k) bias or mask; 0 broadcasts, any of the three. */
typedef struct attn_score_strides {
    int64_t batch;
    int64_t heads;
    int64_t queries;
} attn_score_strides;

/*
 * What is asked. Fill ATTN_PROBLEM_INIT's copy; a field left alone is off or packed.
 *
 * A score is s = scale * (q . k); then softcap, s = softcap * tanh(s / softcap); then
 * - slope * |query position - key position| and + bias; then what the mask hides becomes -inf.
 * Query row i stands at query_start + i, key row j at key_start + j (attn_tensors): masks, windows,
 * ALiBi and dropout see only these positions.
 */
typedef struct attn_problem {
    size_t struct_size;

    /* heads_q is a multiple of heads_kv: query head h reads h / (heads_q / heads_kv) */
    int64_t batch, heads_q, heads_kv;
    int64_t seqlen_q, seqlen_k; /* the largest that a run may have; 0 allowed */
    int64_t dim_qk, dim_v; /* 1 to 1024 */

    /* K and V of Q's dtype, or f16 or bf16 under f32 queries; O of any but f8, under f8 f16 or bf16 */
    attn_dtype dtype_q, dtype_kv, dtype_o;
    attn_strides q, k, v, o;

    attn_lengths lengths_q, lengths_k;

    attn_mask mask;
    int64_t window_left, window_right; /* keys from position - left to position + right; >= 0 or UNLIMITED */

    float softcap; /* > 0, or 0 for none */
    float dropout_p; /* probability of dropping, in [0, 1); 0 for none */
    int32_t has_alibi; /* attn_tensors.alibi_slopes is given */
    int32_t has_sinks; /* attn_tensors.sinks is given */
    int32_t has_bias; /* attn_tensors.bias is given, of dtype_bias and strides bias */
    int32_t has_mask; /* attn_tensors.mask is given, of strides mask_strides */
    attn_dtype dtype_bias;
    attn_score_strides bias;
    attn_score_strides mask_strides;
    /* 0: slopes are (heads_q); else the distance between rows of (batch, heads_q) */
    int64_t alibi_stride_batch;

    int32_t needs_backward; /* attn_backward will be called too; a CPU context has it */
    int32_t deterministic; /* same input, same plan, same bits: always so for a forward and on the CPU */
    int32_t batch_invariant; /* a row's bits do not depend on the batch beside it: always so on the CPU */
    int32_t reserved; /* 0 */

    /* needs_backward: gradients in attn_tensors, shaped as o, q, k and v and of their dtypes; 0 broadcasts
     * dout alone. Where k or v is broadcast, dk and dv are not summed over what it is broadcast to. */
    attn_strides dout, dq, dk, dv;

    /* f8: attn_tensors.q_scale, k_scale and v_scale are given, a number for each (batch, kv head): that of
     * batch b and kv head h is b * scale_stride_batch + h * scale_stride_head. 0 and 0: one for the tensor */
    int32_t has_scales;
    int32_t reserved_scales; /* 0 */
    int64_t scale_stride_batch, scale_stride_head;
} attn_problem;

/* clang-format off */
#define ATTN_STRIDES_PACKED_INIT                                       \
    {                                                                  \
        ATTN_STRIDE_PACKED, ATTN_STRIDE_PACKED, ATTN_STRIDE_PACKED     \
    }
/* clang-format on */

/* clang-format off */
#define ATTN_PROBLEM_INIT                                                                          \
    {                                                                                              \
        sizeof(attn_problem), 1, 1, 1, 0, 0, 0, 0, ATTN_F32, ATTN_F32, ATTN_F32,                   \
            ATTN_STRIDES_PACKED_INIT, ATTN_STRIDES_PACKED_INIT, ATTN_STRIDES_PACKED_INIT,          \
            ATTN_STRIDES_PACKED_INIT, ATTN_LENGTHS_FULL, ATTN_LENGTHS_FULL, ATTN_MASK_NONE,        \
            ATTN_WINDOW_UNLIMITED, ATTN_WINDOW_UNLIMITED, 0.0f, 0.0f, 0, 0, 0, 0, ATTN_F32,        \
            ATTN_STRIDES_PACKED_INIT, ATTN_STRIDES_PACKED_INIT, 0, 0, 0, 0, 0,                     \
            ATTN_STRIDES_PACKED_INIT, ATTN_STRIDES_PACKED_INIT, ATTN_STRIDES_PACKED_INIT,          \
            ATTN_STRIDES_PACKED_INIT, 0, 0, 0, 0                                                   \
    }
/* clang-format on */

/* ---------------------------------------------------------------- context */

/*
 * A context's callbacks are called from the threads that call the library, from several at once if
 * those run at once, and must not call the library themselves.
 */

/* One task of a parallel loop. */
typedef void (*attn_task_fn)(void *args, int64_t index);

/*
 * Calls task(args, i) once for each i in [0, count), in any order, on any threads, and returns when
 * all are done. A task waits only for work that another one has begun (backward, AMX), so running
 * them one after another, each to its end, is always right.
 */
typedef void (*attn_parallel_for_fn)(void *pool, int64_t count, attn_task_fn task, void *args);

typedef void *(*attn_alloc_fn)(void *user, size_t bytes); /* 64-byte aligned, or null */
typedef void (*attn_free_fn)(void *user, void *pointer); /* pointer is never null */
typedef void (*attn_log_fn)(void *user, const char *line); /* one line, no newline */

typedef struct attn_context_options {
    size_t struct_size;
    int32_t threads; /* how many tasks a run is cut into; 0: OpenMP's number (OMP_NUM_THREADS), or with
                        parallel_for the processors that this process may use */
    int32_t reserved;
    attn_parallel_for_fn parallel_for; /* null: OpenMP's threads, or a plain loop where it is not built in */
    void *pool;
    attn_alloc_fn alloc; /* null, with free: the C library's */
    attn_free_fn free;
    void *alloc_user;
    attn_log_fn log; /* null: silence */
    void *log_user;
    void *stream; /* CUDA: the default CUstream of runs; null is CUDA's null stream */
} attn_context_options;

/* clang-format off */
#define ATTN_CONTEXT_OPTIONS_INIT                                      \
    {                                                                  \
        sizeof(attn_context_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0     \
    }
/* clang-format on */

typedef struct attn_context attn_context;

/*
 * Opens a device: ATTN_DEVICE_CPU with ordinal 0, or ATTN_DEVICE_CUDA with the driver's ordinal.
 * options may be null. *context belongs to the caller until attn_context_destroy. May be shared by
 * threads.
 * ATTN_INVALID_ARGUMENT, ATTN_UNSUPPORTED (no such back end in this build), ATTN_NO_DEVICE,
 * ATTN_DEVICE_ERROR, ATTN_OUT_OF_MEMORY.
 */
ATTN_API attn_status attn_context_create(attn_device device, int32_t ordinal,
                                         const attn_context_options *options, attn_context **context);

/* Ends a context, after all of its plans and runs have ended. Null is allowed. */
ATTN_API void attn_context_destroy(attn_context *context);

/* What the device is, in lines of text. Lives as long as the context. Null gives "". */
ATTN_API const char *attn_context_describe(const attn_context *context);

/* ---------------------------------------------------------------- plan */

typedef struct attn_plan_options {
    size_t struct_size;
    attn_algorithm algorithm;
    attn_isa isa;
    int32_t threads; /* 0: the context's */
    int32_t exact_reference; /* 1: a weight that dominates its row is exact when weights are rounded to 16
                                bits. forward_sm90 alone is faster without; the others always do it. In 8 bits,
                                where no weight is, it asks for scores in float32 instead of f16 */
    uint64_t workspace_limit; /* bytes; 0: none. A plan that needs more is refused */
} attn_plan_options;

/* clang-format off */
#define ATTN_PLAN_OPTIONS_INIT                                                         \
    {                                                                                  \
        sizeof(attn_plan_options), ATTN_ALGORITHM_AUTO, ATTN_ISA_AUTO, 0, 0, 0         \
    }
/* clang-format on */

typedef struct attn_plan attn_plan;

/*
 * Chooses how to solve a problem on a context's device. options may be null. Everything that can be
 * wrong with the problem is found here. *plan belongs to the caller until attn_plan_destroy, is
 * immutable, and may be run from many threads at once. The context must outlive it.
 * ATTN_INVALID_ARGUMENT, ATTN_UNSUPPORTED, ATTN_OUT_OF_MEMORY, ATTN_WORKSPACE_TOO_SMALL (the plan
 * needs more than workspace_limit), ATTN_DEVICE_ERROR, ATTN_COMPILE_ERROR.
 */
ATTN_API attn_status attn_plan_create(attn_context *context, const attn_problem *problem,
                                      const attn_plan_options *options, attn_plan **plan);

/* Ends a plan, after all of its runs have ended. Null is allowed. */
ATTN_API void attn_plan_destroy(attn_plan *plan);

/* In words: kernel, tiles, threads, workspace, work, and why not the other kernels. Lives as long
 * as the plan. Null gives "". */
ATTN_API const char *attn_plan_describe(const attn_plan *plan);

/* Bytes of workspace that one run needs, forward or backward, on the plan's device, at a 64-byte aligned
 * address. Null gives 0. */
ATTN_API size_t attn_plan_workspace_size(const attn_plan *plan);

/* The name of the kernel that runs, such as "forward_avx512". Lives for ever. Null gives "". */
ATTN_API const char *attn_plan_kernel(const attn_plan *plan);

/* The one of attn_backward, such as "backward_avx512"; "" if the problem does not need a backward. */
ATTN_API const char *attn_plan_backward_kernel(const attn_plan *plan);

/* ---------------------------------------------------------------- run */

/*
 * Pointers of one run and what may change from run to run. Tensors are on the plan's device,
 * element aligned; nothing is kept after the run. Those that the problem does not announce are not
 * read. Outputs overlap neither inputs nor one another.
 */
typedef struct attn_tensors {
    size_t struct_size;

    const void *q; /* (batch, seqlen_q, heads_q, dim_qk), or (total_q, heads_q, dim_qk) ragged */
    const void *k; /* (batch, seqlen_k, heads_kv, dim_qk), or (total_k, heads_kv, dim_qk) ragged */
    const void *v; /* (batch, seqlen_k, heads_kv, dim_v), or (total_k, heads_kv, dim_v) ragged */
    void *o; /* (batch, seqlen_q, heads_q, dim_v), or (total_q, heads_q, dim_v) ragged */
    float *lse; /* may be null. Natural log of each row's denominator, sink included, packed
                      (batch, heads_q, seqlen_q of the problem), or (heads_q, total_q) ragged */

    const int32_t *lengths_q; /* padded: (batch); ragged: cumulative (batch + 1), ascending from 0 */
    const int32_t *lengths_k;

    const void *bias; /* (batch, heads_q, seqlen_q, seqlen_k) of dtype_bias, rows and columns
                                  counted from each sequence's start; -inf masks, no finite value does */
    const uint8_t *mask; /* likewise; nonzero: the query may see the key */
    const float *alibi_slopes; /* (heads_q) or (batch, heads_q) */
    const float *sinks; /* (heads_q): one more logit in each row's denominator, without a value */

    int64_t seqlen_q, seqlen_k; /* this run's lengths under ATTN_LENGTHS_FULL; clamped to the plan's */
    int64_t total_q; /* ragged queries: their number over all sequences; needed with lse, else unread */
    int64_t query_start; /* default: key_start + seqlen_k - seqlen_q of each sequence (bottom
                                   right); 0 is top left; a chunk or a rank of a ring gives its own */
    int64_t key_start; /* default: 0 */

    uint64_t dropout_seed, dropout_offset;
    float scale; /* any finite number; ATTN_SCALE_DEFAULT: 1/sqrt(dim_qk) */
    int32_t reserved; /* 0 */

    /* attn_backward alone reads and writes these; attn_backward says which may be null */
    const void *dout; /* gradient of o, of its shape and dtype, strides problem.dout */
    const float *dlse; /* gradient of lse, laid out like lse */
    void *dq; /* of q's shape and dtype, strides problem.dq */
    void *dk; /* of k's shape and dtype, strides problem.dk */
    void *dv; /* of v's shape and dtype, strides problem.dv */
    float *dbias; /* packed (batch, heads_q, seqlen_q, seqlen_k) of the problem, float32 whatever dtype_bias
                     is, with 1 for each of the first three whose stride in problem.bias is 0: summed over it */
    float *dsinks; /* (heads_q) */

    /* f8: an element of q, k or v stands for itself times these. Those of q are its group's: (batch, heads_kv)
     * like the others. Any numbers; read on the device, by the run */
    const float *q_scale, *k_scale, *v_scale;
} attn_tensors;

/* clang-format off */
#define ATTN_TENSORS_INIT                                                                         \
    {                                                                                             \
        sizeof(attn_tensors), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ATTN_LENGTH_DEFAULT,               \
            ATTN_LENGTH_DEFAULT, ATTN_LENGTH_DEFAULT, ATTN_POSITION_DEFAULT,                      \
            ATTN_POSITION_DEFAULT, 0, 0, ATTN_SCALE_DEFAULT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0       \
    }
/* clang-format on */

/*
 * Where a run works. Null instead of it: workspace from the context's pool, the context's stream.
 * CU_STREAM_PER_THREAD is the calling thread's: end the thread when its work is done. A graph that runs are captured
 * into works in their workspace whenever it is launched: where that is the pool's, which other runs in the stream use
 * too, launch it in the stream of the capture, and end the context after it; or give workspace of its own.
 */
typedef struct attn_execution {
    size_t struct_size;
    void *workspace; /* null: from the context's pool */
    size_t workspace_bytes;
    void *stream; /* CUDA; used as it is, null being the null stream */
} attn_execution;

/* clang-format off */
#define ATTN_EXECUTION_INIT            \
    {                                  \
        sizeof(attn_execution), 0, 0, 0 \
    }
/* clang-format on */

/*
 * Computes O, and LSE where its pointer is given. A row that sees no key gets o = 0 and lse = -inf
 * (its sink's logit where there are sinks). Output rows beyond a sequence's length are not written,
 * and keys beyond it are never read. On a CUDA plan the work is queued and the call returns.
 * Checks only that required pointers are there, element aligned, the scale, and the workspace's size.
 * Allocates nothing when a workspace is given, or when no other run of the context is in flight.
 * ATTN_INVALID_ARGUMENT, ATTN_WORKSPACE_TOO_SMALL, ATTN_OUT_OF_MEMORY, ATTN_DEVICE_ERROR, ATTN_UNSUPPORTED
 * (a plan for measuring, STANDARD or FLASH1, and a run with rows that see no key).
 */
ATTN_API attn_status attn_forward(const attn_plan *plan, const attn_tensors *tensors,
                                  const attn_execution *execution);

/*
 * Computes gradients of a loss from those of O (dout) and, where it is given, of LSE (dlse), as
 * FlashAttention-2 does (Dao 2023, algorithm 2, extended by the options): P is computed again from q, k and
 * lse, and no array of seqlen_q * seqlen_k numbers is stored. For a row, with P before dropout,
 *   dP = keep/(1-p) (dout . v)    D = dout . o    dS = P (dP - D + dlse)
 *   dv = sum P keep/(1-p) dout    dq = scale sum dS c k    dk = scale sum dS c q    dbias = sum dS
 *   dsinks = sum exp(sink - lse) (dlse - D)               c = 1 - tanh^2 of a softcap, else 1
 * o and lse are read: a forward's over the same tensors, seed and lengths, sinks included. Keys may come in
 * pieces, each with its key_start and the query_start of the whole: dk and dv are then the piece's, and dq
 * its part of the sum. dq, dk, dv, dbias and dsinks may each be null, not wanted; dlse null is 0.
 *
 * dk and dv are summed over the query heads of a group. Rows beyond a sequence's length are not written; what
 * no row sees, and a row that sees nothing, get 0. dbias and dsinks are written whole. A NaN or inf in dout
 * may reach every dv of its sequence and kv head. On the CPU the bits do not depend on the number of threads,
 * nor those of dq, dk and dv on the batch beside them.
 * The plan's problem says needs_backward. Checks and allocations are those of attn_forward.
 * ATTN_INVALID_ARGUMENT, ATTN_WORKSPACE_TOO_SMALL, ATTN_OUT_OF_MEMORY, ATTN_DEVICE_ERROR.
 */
ATTN_API attn_status attn_backward(const attn_plan *plan, const attn_tensors *tensors,
                                   const attn_execution *execution);

/*
 * One call for the CPU: makes a plan or finds it among the last 16 used, and runs it. Thread safe. These
 * plans and the workspaces of their runs stay until the process ends.
 * Statuses of attn_context_create, attn_plan_create and attn_forward.
 */
ATTN_API attn_status attn_attention(const attn_problem *problem, const attn_tensors *tensors);

/* ---------------------------------------------------------------- accumulator
 *
 * The state of a softmax whose key axis comes in pieces. For each row (batch, head, query):
 *   m  the reference that was used: the row's maximum, or a number a little below or above it;
 *      -inf while the row has seen nothing
 *   l  sum of exp(score - m)
 *   o  sum of exp(score - m) * v, dim_v numbers
 * in natural units, float32. Two over disjoint keys merge, in any order (FlashAttention, section
 * 3.1; the online softmax of Milakov and Gimelshein, 2018):
 *   m = max(m1, m2), l = l1 exp(m1 - m) + l2 exp(m2 - m), o likewise.
 *
 * An accumulator is plain memory that the caller owns, on the plan's device, 64-byte aligned, to be
 * copied, saved and sent at will. Layout, version 1, rows R = batch * heads_q * seqlen_q of the
 * problem in that order:
 *   byte 0   uint32 magic 0x4e545441 ("ATTN"), uint32 version 1, int64 R, int64 dim_v, 40 bytes 0
 *   byte 64  float m[R], then float l[R], then float o[R][dim_v], each array begun on a multiple of 64 bytes
 */

/* Bytes of an accumulator for a plan's rows. 0 for a null plan. */
ATTN_API size_t attn_accum_size(const attn_plan *plan);

/* Makes memory of at least attn_accum_size(plan) bytes an accumulator that has seen nothing.
 * ATTN_INVALID_ARGUMENT (null or misaligned), ATTN_WORKSPACE_TOO_SMALL (bytes), ATTN_DEVICE_ERROR. */
ATTN_API attn_status attn_accum_begin(const attn_plan *plan, void *accum, size_t bytes,
                                      const attn_execution *execution);

/*
 * Adds a piece of keys: tensors' k, v and seqlen_k (or lengths_k) describe the piece, key_start its
 * first key's position. query_start defaults to the whole problem's seqlen_k - seqlen_q. bias and
 * mask, if any, begin at the piece's first key. o, lse and sinks are not read. May be called again
 * and again, one call at a time for an accumulator.
 * Statuses of attn_forward; ATTN_INVALID_ARGUMENT too if accum is not one of this plan's shape (looked at
 * on the CPU), and ATTN_UNSUPPORTED where a CUDA plan's kernel has no accumulators: 8 bits, measuring,
 * dim_v above 256 where forward_sm80 would have to take it.
 */
ATTN_API attn_status attn_accum_add(const attn_plan *plan, const attn_tensors *tensors, void *accum,
                                    const attn_execution *execution);

/* Merges another accumulator of the same plan's shape, over other keys, into accum.
 * ATTN_INVALID_ARGUMENT, ATTN_UNSUPPORTED as in attn_accum_add, ATTN_DEVICE_ERROR. */
ATTN_API attn_status attn_accum_merge(const attn_plan *plan, void *accum, const void *other,
                                      const attn_execution *execution);

/* Writes O and LSE (where lse is given) from an accumulator, which stays as it is; sinks join here. Needs no
 * workspace. ATTN_INVALID_ARGUMENT, ATTN_UNSUPPORTED as in attn_accum_add, ATTN_DEVICE_ERROR. */
ATTN_API attn_status attn_accum_finish(const attn_plan *plan, const attn_tensors *tensors, const void *accum,
                                       const attn_execution *execution);

/* ---------------------------------------------------------------- asking */

/* The sentence of this thread's last failed call; "" before the first. Valid until the next one. */
ATTN_API const char *attn_last_error(void);

/* "ATTN_OK" and so on; "unknown status" for another number. */
ATTN_API const char *attn_status_name(attn_status status);

/* The library's ATTN_VERSION, which may differ from the header's. */
ATTN_API int32_t attn_version(void);

/* 1 if this build has the feature, else 0. */
ATTN_API int32_t attn_has_feature(attn_feature feature);

/* A row of the kernel lists (src/cpu/kernels.def, src/cuda/kernels.def). */
typedef struct attn_kernel_info {
    size_t struct_size;
    const char *name; /* "forward_avx512" */
    attn_device device;
    attn_isa isa; /* CPU */
    const char *op; /* "forward", "decode", "backward" */
    const char *dtypes; /* which tensors it takes, in words */
    const char *refusal; /* why this machine cannot run it; null if it can */
} attn_kernel_info;

/* clang-format off */
#define ATTN_KERNEL_INFO_INIT                                              \
    {                                                                      \
        sizeof(attn_kernel_info), 0, ATTN_DEVICE_CPU, ATTN_ISA_AUTO, 0, 0, 0 \
    }
/* clang-format on */

/* Number of rows, and row index of it. Strings live for ever. attn_kernel_get: ATTN_INVALID_ARGUMENT. */
ATTN_API int32_t attn_kernel_count(void);
ATTN_API attn_status attn_kernel_get(int32_t index, attn_kernel_info *info);

#ifdef __cplusplus
}
#endif

#endif
