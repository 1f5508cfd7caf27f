/*
 * A libcuda.so.1 for tests on machines without a GPU: devices in plain memory, kernels run at launch by
 * plain loops (fake_kernels.c), and failures on demand. Two devices: 0 has compute capability 9.0, 1 has 7.5.
 */
#ifndef ATTN_FAKE_LIBCUDA_H
#define ATTN_FAKE_LIBCUDA_H

#include <stddef.h>

/* The next call of this symbol ("cuMemAlloc_v2") after skipping so many fails with result. */
void fake_fail(const char *symbol, int skip, int result);

/* From now on every call that may meet an asynchronous error gives it; 0 ends that. */
void fake_stick(int result);

/* The next call of this symbol never returns. */
void fake_hang(const char *symbol);

/* How often a symbol was called since the last fake_reset, which also forgets fake_fail and fake_stick. */
int fake_calls(const char *symbol);
void fake_reset(void);

/* Bytes and blocks of device memory that are in use, modules that are loaded, retains of primary contexts. */
size_t fake_memory(void);
int fake_blocks(void);
int fake_modules(void);
int fake_retains(void);
void fake_limit(size_t bytes); /* device memory there is */

/* A context that is not the primary one of its device, and streams. */
void *fake_context(int device);
void *fake_stream(void *context);
void *fake_primary(int device);
void fake_set_current(void *context); /* replaces this thread's stack; null: empty */
void *fake_current(void);

/* While capturing, calls that a capture forbids fail and spoil it, as in CUDA's thread-local mode. */
void fake_begin_capture(void);
int fake_end_capture(
    void); /* 0, or 1 if it was spoiled; launches and memsets since are counted by fake_calls */

/* The last launch. */
typedef struct fake_launch {
    char name[112];
    unsigned grid, threads, shared;
    void *stream;
    int failed; /* its stream was of another context than the current one, or its name unknown */
} fake_launch;
const fake_launch *fake_last_launch(void);

/* fake_kernels.c: runs a kernel of src/cuda/kernels; 0 if there is none of this name. */
int fake_run_kernel(const char *name, const void *params);

#endif
