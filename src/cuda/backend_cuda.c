/* The CUDA back end's table, and its rows of the public kernel list. */
#include <pthread.h>
#include <stdio.h>

#include "cuda/accum_cuda.h"
#include "cuda/cuda_context.h"
#include "cuda/plan_cuda.h"

/* CU_STREAM_PER_THREAD is one number, and each thread's own stream. */
static void *order_of(void *stream) {
    static _Thread_local char thread;
    return (uintptr_t)stream == 2 ? &thread : stream;
}

const attni_backend *attni_cuda_backend(void) {
    static const attni_backend backend = {
        .device = ATTN_DEVICE_CUDA,
        .queues = true,
        .context_open = attni_cuda_context_open,
        .context_close = attni_cuda_context_close,
        .plan_open = attni_cuda_plan_open,
        .plan_close = attni_cuda_plan_close,
        .workspace_alloc = attni_cuda_workspace_alloc,
        .workspace_free = attni_cuda_workspace_free,
        .run = attni_cuda_run,
        .order_of = order_of,
        .accum_begin = attni_cuda_accum_begin,
        .accum_merge = attni_cuda_accum_merge,
        .accum_check = attni_cuda_accum_check,
    };
    return &backend;
}

/* ---------------------------------------------------------------- the kernel list */

/* A family of kernels: a row of the list, whichever of its variants are embedded. */
static const struct {
    const char *name, *op, *dtypes;
    int capability;
} families[] = {
    {"forward_sm80", "forward", "f16 or bf16, one for q, k, v and o", 80},
    {"forward_sm80_general", "forward", "f16 or bf16, one for q, k, v and o; bias f32, f16 or bf16", 80},
    {"forward_sm90", "forward", "f16 or bf16, one for q, k, v and o", 90},
    {"forward_sm90_f8", "forward", "f8_e4m3 or f8_e5m2 for q, k and v; o f16 or bf16", 90},
    {"standard_sm80", "forward", "f16 or bf16; for measuring (options.algorithm)", 80},
    {"flash1_sm80", "forward", "f16 or bf16; for measuring (options.algorithm)", 80},
};

enum { FAMILIES = sizeof families / sizeof families[0] };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char refusals[FAMILIES][640];

/* Against the best device, as a context may be made on any. */
static void find_refusals(void) {
    const attni_driver *driver;
    int count = 0, best = 0;
    const bool loaded = attni_driver_get(&driver) == ATTN_OK;
    if (loaded && driver->device_count(&count) != ATTNI_CU_SUCCESS) count = 0;
    for (int i = 0; i < count; i++) {
        attni_cu_device device;
        int major = 0, minor = 0;
        if (driver->device_get(&device, i) != ATTNI_CU_SUCCESS ||
            driver->device_attribute(&major, ATTNI_CU_CAPABILITY_MAJOR, device) != ATTNI_CU_SUCCESS ||
            driver->device_attribute(&minor, ATTNI_CU_CAPABILITY_MINOR, device) != ATTNI_CU_SUCCESS)
            continue;
        if (major * 10 + minor > best) best = major * 10 + minor;
    }
    for (int i = 0; i < FAMILIES; i++) {
        const int needed = families[i].capability;
        if (!loaded)
            snprintf(refusals[i], sizeof refusals[i], "%s", attn_last_error());
        else if (best == 0)
            snprintf(refusals[i], sizeof refusals[i], "the NVIDIA driver has no device here");
        else if (best < needed)
            snprintf(refusals[i], sizeof refusals[i],
                     "it needs compute capability %d.%d; the best device here has %d.%d", needed / 10,
                     needed % 10, best / 10, best % 10);
    }
}

int32_t attni_cuda_kernel_count(void) { return FAMILIES; }

void attni_cuda_kernel_get(int32_t index, attn_kernel_info *info) {
    pthread_once(&once, find_refusals);
    info->name = families[index].name;
    info->device = ATTN_DEVICE_CUDA;
    info->isa = families[index].capability == 90 ? ATTN_ISA_SM90 : ATTN_ISA_SM80;
    info->op = families[index].op;
    info->dtypes = families[index].dtypes;
    info->refusal = refusals[index][0] ? refusals[index] : NULL;
}
