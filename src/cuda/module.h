/* Finds a compiled kernel or compiles it, and loads it into a CUDA context. */
#ifndef ATTNI_MODULE_H
#define ATTNI_MODULE_H

#include "cuda/cuda_context.h"

/* Which kernel: a source of src/cuda/kernels, specialised. */
typedef struct attni_kernel_spec {
    const char *source;
    char name[112];    /* the row's or a composed one's; ENTRY of the source */
    char entry[112];   /* the symbol: the name, or one of several that the source makes of it */
    char options[256]; /* "-DBF16=1 -DD=64 .." as in kernels.def */
    int capability;    /* the least that runs it: 80 */
    int threads;       /* of a block */
    int shared_bytes;  /* dynamic shared memory of a block */
} attni_kernel_spec;

/* A loaded kernel. Lives as long as the context. */
typedef struct attni_kernel {
    struct attni_kernel *next;
    attni_kernel_spec spec;
    attni_cu_module module;
    attni_cu_function function;
    const char *origin; /* "embedded", "disk cache" or "compiled by NVRTC" */
    double milliseconds; /* that finding, compiling and loading took */
    int registers;      /* a thread */
    int local_bytes;    /* a thread: spills and arrays that are not in registers */
    int static_shared;
    int blocks;         /* that share a multiprocessor */
} attni_kernel;

attn_status attni_modules_open(attn_context *context, attni_modules **modules);
void attni_modules_close(attn_context *context, attni_modules *modules);

/*
 * The kernel, ready to launch: as loaded before, else the embedded one, the disk cache's, or a newly
 * compiled one. Safe from many threads, and while a stream is being captured.
 * ATTN_UNSUPPORTED (the device), ATTN_COMPILE_ERROR, ATTN_DEVICE_ERROR, ATTN_OUT_OF_MEMORY.
 */
attn_status attni_module_kernel(attn_context *context, const attni_kernel_spec *spec,
                                const attni_kernel **kernel);

/*
 * Puts a kernel's image for an architecture ("compute capability 9.0": 90) into the disk cache, with no
 * device needed. *origin says where it was: "embedded", "disk cache" or "compiled by NVRTC".
 * ATTN_COMPILE_ERROR, ATTN_OUT_OF_MEMORY.
 */
attn_status attni_module_precompile(const attni_kernel_spec *spec, int capability, const char **origin);

int attni_module_embedded_count(void);

#endif
