#include "cuda/cuda_context.h"

#include "cuda/cache.h"
#include "cuda/module.h"

attn_status attni_cuda_enter(const attni_cuda *cuda, bool *pushed) {
    const attni_driver *driver = cuda->driver;
    attni_cu_context current = NULL;
    *pushed = false;
    ATTNI_TRY(attni_driver_check(driver, driver->context_current(&current), "cuCtxGetCurrent"));
    if (current == cuda->context) return ATTN_OK;
    ATTNI_TRY(attni_driver_check(driver, driver->context_push(cuda->context), "cuCtxPushCurrent"));
    *pushed = true;
    return ATTN_OK;
}

void attni_cuda_leave(const attni_cuda *cuda, bool pushed) {
    attni_cu_context ours;
    if (pushed) cuda->driver->context_pop(&ours);
}

attn_status attni_cuda_enter_relaxed(const attni_cuda *cuda, attni_cuda_scope *scope) {
    ATTNI_TRY(attni_cuda_enter(cuda, &scope->pushed));
    scope->capture_mode = ATTNI_CU_CAPTURE_MODE_RELAXED;
    if (cuda->driver->exchange_capture_mode) cuda->driver->exchange_capture_mode(&scope->capture_mode);
    return ATTN_OK;
}

void attni_cuda_leave_relaxed(const attni_cuda *cuda, attni_cuda_scope scope) {
    if (cuda->driver->exchange_capture_mode) cuda->driver->exchange_capture_mode(&scope.capture_mode);
    attni_cuda_leave(cuda, scope.pushed);
}

/* ---------------------------------------------------------------- opening */

static attn_status find_device(attni_cuda *cuda, int32_t ordinal) {
    const attni_driver *driver = cuda->driver;
    int count = 0;
    ATTNI_TRY(attni_driver_check(driver, driver->device_count(&count), "cuDeviceGetCount"));
    if (ordinal >= count)
        return attni_fail(ATTN_NO_DEVICE, "ordinal is %d; the NVIDIA driver has %d device%s here", ordinal,
                          count, count == 1 ? "" : "s");
    ATTNI_TRY(
        attni_driver_check(driver, driver->device_get(&cuda->device, ordinal), "cuDeviceGet(%d)", ordinal));
    const struct {
        int attribute, *value;
    } wanted[] = {
        {ATTNI_CU_CAPABILITY_MAJOR, &cuda->major},
        {ATTNI_CU_CAPABILITY_MINOR, &cuda->minor},
        {ATTNI_CU_MULTIPROCESSORS, &cuda->multiprocessors},
        {ATTNI_CU_L2_BYTES, &cuda->l2_bytes},
        {ATTNI_CU_SHARED_BYTES_A_BLOCK, &cuda->shared_limit},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        ATTNI_TRY(attni_driver_check(
            driver, driver->device_attribute(wanted[i].value, wanted[i].attribute, cuda->device),
            "cuDeviceGetAttribute(%d)", wanted[i].attribute));
    return ATTN_OK;
}

static attn_status device_of(const attni_cuda *cuda, attni_cu_context context, attni_cu_device *device) {
    const attni_driver *driver = cuda->driver;
    attni_cu_context popped;
    ATTNI_TRY(attni_driver_check(driver, driver->context_push(context), "cuCtxPushCurrent"));
    const attni_cu_result result = driver->context_device(device);
    driver->context_pop(&popped);
    return attni_driver_check(driver, result, "cuCtxGetDevice");
}

/* Uses a context that the caller has made; if it is the device's primary one, keeps that alive. */
static attn_status adopt(attni_cuda *cuda, attni_cu_context context) {
    const attni_driver *driver = cuda->driver;
    unsigned flags;
    int active = 0;
    cuda->context = context;
    if (driver->primary_state(cuda->device, &flags, &active) != ATTNI_CU_SUCCESS || !active) return ATTN_OK;
    attni_cu_context primary = NULL;
    ATTNI_TRY(attni_driver_check(driver, driver->primary_retain(&primary, cuda->device),
                                 "cuDevicePrimaryCtxRetain"));
    cuda->retained = primary == context;
    if (!cuda->retained) driver->primary_release(cuda->device);
    return ATTN_OK;
}

/* The context of the caller's stream; else the caller's current one on this device; else the primary one. */
static attn_status choose_context(attni_cuda *cuda, void *stream, int32_t ordinal) {
    const attni_driver *driver = cuda->driver;
    attni_cu_context context = NULL;
    attni_cu_device device = -1;
    if ((uintptr_t)stream > 2) { /* 0, 1 and 2 are the null streams of whichever context is current */
        ATTNI_TRY(attni_driver_check(driver, driver->stream_context(stream, &context),
                                     "cuStreamGetCtx of options.stream"));
        ATTNI_TRY(device_of(cuda, context, &device));
        if (device != cuda->device)
            return attni_fail(ATTN_INVALID_ARGUMENT, "options.stream belongs to device %d, and ordinal is %d",
                              device, ordinal);
        return adopt(cuda, context);
    }
    if (driver->context_current(&context) == ATTNI_CU_SUCCESS && context != NULL &&
        driver->context_device(&device) == ATTNI_CU_SUCCESS && device == cuda->device)
        return adopt(cuda, context);
    ATTNI_TRY(attni_driver_check(driver, driver->primary_retain(&cuda->context, cuda->device),
                                 "cuDevicePrimaryCtxRetain of device %d", ordinal));
    cuda->retained = true;
    return ATTN_OK;
}

static void describe(attn_context *context, const attni_cuda *cuda) {
    const attni_driver *driver = cuda->driver;
    attni_text *text = &context->description;
    char name[128] = "a GPU without a name", folder[1024];
    size_t memory = 0;
    int version = 0;
    driver->device_name(name, (int)sizeof name, cuda->device);
    driver->device_memory(&memory, cuda->device);
    driver->get_version(&version);
    attni_cache_folder(folder, sizeof folder);
    attni_text_add(text, "CUDA device %d: %s, compute capability %d.%d, %d multiprocessors\n",
                   context->ordinal, name, cuda->major, cuda->minor, cuda->multiprocessors);
    attni_text_add(text, "memory: %.1f GiB, %.1f MiB of L2 cache, %.1f KiB of shared memory a block\n",
                   (double)memory / (1 << 30), (double)cuda->l2_bytes / (1 << 20),
                   (double)cuda->shared_limit / 1024);
    attni_text_add(text, "driver: CUDA %d.%d; context: %s\n", version / 1000, version % 1000 / 10,
                   cuda->retained ? "the device's primary one" : "the caller's own");
    attni_text_add(
        text,
        "kernels: %d embedded; others are compiled by NVRTC when a plan first needs them and kept in %s\n",
        attni_module_embedded_count(), folder[0] ? folder : "memory (no cache folder)");
}

attn_status attni_cuda_context_open(attn_context *context) {
    attni_cuda found = {0};
    ATTNI_TRY(attni_driver_get(&found.driver));
    ATTNI_TRY(find_device(&found, context->ordinal));
    attni_cuda *cuda = attni_alloc(context, sizeof *cuda);
    if (!cuda) return ATTN_OUT_OF_MEMORY;
    *cuda = found;
    attn_status status = choose_context(cuda, context->options.stream, context->ordinal);
    if (status == ATTN_OK) {
        status = attni_modules_open(context, &cuda->modules);
        if (status != ATTN_OK && cuda->retained) cuda->driver->primary_release(cuda->device);
    }
    if (status != ATTN_OK) {
        attni_free(context, cuda);
        return status;
    }
    context->backend_data = cuda;
    describe(context, cuda);
    return ATTN_OK;
}

void attni_cuda_context_close(attn_context *context) {
    attni_cuda *cuda = context->backend_data;
    attni_modules_close(context, cuda->modules);
    if (cuda->retained) cuda->driver->primary_release(cuda->device);
    attni_free(context, cuda);
}

/* ---------------------------------------------------------------- workspace */

void *attni_cuda_workspace_alloc(attn_context *context, size_t bytes) {
    const attni_cuda *cuda = context->backend_data;
    attni_cuda_scope scope;
    attni_cu_pointer pointer = 0;
    if (attni_cuda_enter_relaxed(cuda, &scope) != ATTN_OK) return NULL;
    const attni_cu_result result = cuda->driver->memory_alloc(&pointer, bytes + ATTNI_CUDA_KEPT);
    attni_cuda_leave_relaxed(cuda, scope);
    if (attni_driver_check(cuda->driver, result, "cuMemAlloc of %zu bytes of workspace", bytes) != ATTN_OK)
        return NULL;
    return (void *)(uintptr_t)(pointer + ATTNI_CUDA_KEPT);
}

attn_status attni_cuda_take_words(const attni_cuda *cuda, const attni_run *run, size_t words,
                                  unsigned announced, attni_cuda_words *taken) {
    const attni_driver *driver = cuda->driver;
    attni_block *block = run->block;
    int captured = 1;
    bool pushed;
    ATTNI_TRY(attni_cuda_enter(cuda, &pushed));
    attni_cu_result result = ATTNI_CU_SUCCESS;
    if (driver->stream_capturing) result = driver->stream_capturing(run->stream, &captured);
    const bool kept = block && !captured && words * sizeof(unsigned) <= ATTNI_CUDA_KEPT;
    taken->at = kept ? (unsigned *)((char *)run->workspace - ATTNI_CUDA_KEPT) : run->workspace;
    taken->run = kept ? block->runs + 1 : 1;
    const bool first = taken->run <= 1; /* of all numbers */
    taken->counted = announced + (first ? 0 : block->counted);
    if (result == ATTNI_CU_SUCCESS && first)
        result = driver->set_words((attni_cu_pointer)(uintptr_t)taken->at, 0,
                                   kept ? ATTNI_CUDA_KEPT / sizeof(unsigned) : words, run->stream);
    attni_cuda_leave(cuda, pushed);
    ATTNI_TRY(attni_driver_check(driver, result, "clearing words of the workspace"));
    if (first) taken->run = 1;
    if (kept) {
        block->runs = taken->run;
        block->counted = taken->counted;
    }
    return ATTN_OK;
}

/* cuMemFree waits for the device, so work that still uses the memory is safe. */
void attni_cuda_workspace_free(attn_context *context, void *pointer) {
    const attni_cuda *cuda = context->backend_data;
    attni_cuda_scope scope;
    if (attni_cuda_enter_relaxed(cuda, &scope) != ATTN_OK) return;
    cuda->driver->memory_free((attni_cu_pointer)(uintptr_t)pointer - ATTNI_CUDA_KEPT);
    attni_cuda_leave_relaxed(cuda, scope);
}
