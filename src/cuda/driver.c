#define _GNU_SOURCE
#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FIELD(field) offsetof(attni_driver, field)

/* The exported names, with the versions of their interfaces. All but the optional ones are older than CUDA 10. */
static const struct {
    const char *name;
    size_t offset;
    bool optional;
} symbols[] = {
    {"cuInit", FIELD(init), false},
    {"cuDriverGetVersion", FIELD(get_version), false},
    {"cuGetErrorName", FIELD(error_name), false},
    {"cuGetErrorString", FIELD(error_string), false},
    {"cuDeviceGetCount", FIELD(device_count), false},
    {"cuDeviceGet", FIELD(device_get), false},
    {"cuDeviceGetName", FIELD(device_name), false},
    {"cuDeviceGetAttribute", FIELD(device_attribute), false},
    {"cuDeviceTotalMem_v2", FIELD(device_memory), false},
    {"cuDevicePrimaryCtxGetState", FIELD(primary_state), false},
    {"cuDevicePrimaryCtxRetain", FIELD(primary_retain), false},
    {"cuDevicePrimaryCtxRelease_v2", FIELD(primary_release), false},
    {"cuCtxGetCurrent", FIELD(context_current), false},
    {"cuCtxPushCurrent_v2", FIELD(context_push), false},
    {"cuCtxPopCurrent_v2", FIELD(context_pop), false},
    {"cuCtxGetDevice", FIELD(context_device), false},
    {"cuStreamGetCtx", FIELD(stream_context), false},
    {"cuModuleLoadData", FIELD(module_load), false},
    {"cuModuleUnload", FIELD(module_unload), false},
    {"cuModuleGetFunction", FIELD(module_function), false},
    {"cuFuncGetAttribute", FIELD(function_get), false},
    {"cuFuncSetAttribute", FIELD(function_set), false},
    {"cuOccupancyMaxActiveBlocksPerMultiprocessor", FIELD(occupancy), false},
    {"cuLaunchKernel", FIELD(launch), false},
    {"cuMemAlloc_v2", FIELD(memory_alloc), false},
    {"cuMemFree_v2", FIELD(memory_free), false},
    {"cuMemsetD8Async", FIELD(set_bytes), false},
    {"cuMemsetD32Async", FIELD(set_words), false},
    {"cuThreadExchangeStreamCaptureMode", FIELD(exchange_capture_mode), true},
    {"cuStreamIsCapturing", FIELD(stream_capturing), true},
    {"cuTensorMapEncodeTiled", FIELD(encode_tensor_map), true},
    {"cuLaunchKernelEx", FIELD(launch_configured), true},
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static attni_driver loaded;
static attn_status load_status;
static char load_sentence[600]; /* told again to every caller: a driver is not looked for twice */

static void refuse(const char *format, ...) ATTNI_PRINTF(1, 2);

static void refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(load_sentence, sizeof load_sentence, format, arguments);
    va_end(arguments);
    load_status = ATTN_NO_DEVICE;
}

static const char *name_of(const attni_driver *driver, attni_cu_result result) {
    const char *name = NULL;
    if (driver->error_name(result, &name) != ATTNI_CU_SUCCESS || !name) name = "unknown CUDA error";
    return name;
}

static void load(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        refuse("no NVIDIA driver on this machine: libcuda.so.1 could not be loaded (%s)",
               reason ? reason : "no reason given");
        return;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol && !symbols[i].optional) {
            refuse("the NVIDIA driver is too old: its libcuda.so.1 has no %s", symbols[i].name);
            return;
        }
        memcpy((char *)&loaded + symbols[i].offset, &symbol, sizeof symbol);
    }
    const attni_cu_result result = loaded.init(0);
    if (result == ATTNI_CU_NO_DEVICE)
        refuse("the NVIDIA driver finds no GPU (cuInit: CUDA_ERROR_NO_DEVICE)");
    else if (result == ATTNI_CU_STUB_LIBRARY)
        refuse("libcuda.so.1 is the toolkit's stub, not a driver (cuInit: CUDA_ERROR_STUB_LIBRARY)");
    else if (result != ATTNI_CU_SUCCESS)
        refuse("the NVIDIA driver does not start (cuInit: %s)", name_of(&loaded, result));
}

attn_status attni_driver_get(const attni_driver **driver) {
    pthread_once(&once, load);
    if (load_status != ATTN_OK) return attni_fail(load_status, "%s", load_sentence);
    *driver = &loaded;
    return ATTN_OK;
}

/* After these every call in the CUDA context fails alike, whoever caused them. */
static bool is_sticky(attni_cu_result result) {
    switch (result) {
    case ATTNI_CU_ECC_UNCORRECTABLE:
    case ATTNI_CU_ILLEGAL_ADDRESS:
    case ATTNI_CU_LAUNCH_TIMEOUT:
    case ATTNI_CU_ASSERT:
    case ATTNI_CU_HARDWARE_STACK_ERROR:
    case ATTNI_CU_ILLEGAL_INSTRUCTION:
    case ATTNI_CU_MISALIGNED_ADDRESS:
    case ATTNI_CU_INVALID_ADDRESS_SPACE:
    case ATTNI_CU_INVALID_PC:
    case ATTNI_CU_LAUNCH_FAILED: return true;
    default: return false;
    }
}

static attn_status status_of(attni_cu_result result) {
    switch (result) {
    case ATTNI_CU_SUCCESS: return ATTN_OK;
    case ATTNI_CU_OUT_OF_MEMORY: return ATTN_OUT_OF_MEMORY;
    case ATTNI_CU_STUB_LIBRARY:
    case ATTNI_CU_NO_DEVICE:
    case ATTNI_CU_INVALID_DEVICE:
    case ATTNI_CU_SYSTEM_DRIVER_MISMATCH:
    case ATTNI_CU_COMPAT_NOT_SUPPORTED: return ATTN_NO_DEVICE;
    default: return ATTN_DEVICE_ERROR;
    }
}

attn_status attni_driver_check(const attni_driver *driver, attni_cu_result result, const char *what, ...) {
    if (result == ATTNI_CU_SUCCESS) return ATTN_OK;
    char action[256];
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(action, sizeof action, what, arguments);
    va_end(arguments);
    const char *words = NULL;
    if (driver->error_string(result, &words) != ATTNI_CU_SUCCESS || !words) words = "no description";
    return attni_fail(status_of(result), "%s: %s (%d): %s%s", action, name_of(driver, result), result, words,
                      is_sticky(result)
                          ? "; the error may come from earlier work of the caller, and lasts until "
                            "the device's CUDA context is reset or the process ends"
                          : "");
}
