/*
 * The CUDA driver API, loaded with dlopen: no CUDA header or library is needed to build, and a machine
 * without a driver gets a sentence. Types and numbers are those of the driver's binary interface.
 */
#ifndef ATTNI_DRIVER_H
#define ATTNI_DRIVER_H

#include "core/status.h"

typedef int attni_cu_result;
typedef int attni_cu_device;
typedef uint64_t attni_cu_pointer;
typedef struct attni_cu_context_opaque *attni_cu_context;
typedef struct attni_cu_module_opaque *attni_cu_module;
typedef struct attni_cu_function_opaque *attni_cu_function;
typedef void *attni_cu_stream;

/* Results that are treated apart; every other one is only named. */
enum {
    ATTNI_CU_SUCCESS = 0,
    ATTNI_CU_OUT_OF_MEMORY = 2,
    ATTNI_CU_STUB_LIBRARY = 34,
    ATTNI_CU_NO_DEVICE = 100,
    ATTNI_CU_INVALID_DEVICE = 101,
    ATTNI_CU_INVALID_IMAGE = 200,
    ATTNI_CU_NO_BINARY_FOR_GPU = 209,
    ATTNI_CU_ECC_UNCORRECTABLE = 214,
    ATTNI_CU_INVALID_PTX = 218,
    ATTNI_CU_JIT_COMPILER_NOT_FOUND = 221,
    ATTNI_CU_UNSUPPORTED_PTX_VERSION = 222,
    ATTNI_CU_JIT_COMPILATION_DISABLED = 223,
    ATTNI_CU_ILLEGAL_ADDRESS = 700,
    ATTNI_CU_LAUNCH_TIMEOUT = 702,
    ATTNI_CU_ASSERT = 710,
    ATTNI_CU_HARDWARE_STACK_ERROR = 714,
    ATTNI_CU_ILLEGAL_INSTRUCTION = 715,
    ATTNI_CU_MISALIGNED_ADDRESS = 716,
    ATTNI_CU_INVALID_ADDRESS_SPACE = 717,
    ATTNI_CU_INVALID_PC = 718,
    ATTNI_CU_LAUNCH_FAILED = 719,
    ATTNI_CU_SYSTEM_DRIVER_MISMATCH = 803,
    ATTNI_CU_COMPAT_NOT_SUPPORTED = 804
};

/* CUdevice_attribute */
enum {
    ATTNI_CU_MULTIPROCESSORS = 16,
    ATTNI_CU_L2_BYTES = 38,
    ATTNI_CU_CAPABILITY_MAJOR = 75,
    ATTNI_CU_CAPABILITY_MINOR = 76,
    ATTNI_CU_SHARED_BYTES_A_BLOCK = 97 /* the opt-in limit */
};

/* CUfunction_attribute */
enum {
    ATTNI_CU_FUNCTION_SHARED_BYTES = 1,
    ATTNI_CU_FUNCTION_LOCAL_BYTES = 3,
    ATTNI_CU_FUNCTION_REGISTERS = 4,
    ATTNI_CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES = 8
};

enum { ATTNI_CU_CAPTURE_MODE_RELAXED = 2 }; /* CUstreamCaptureMode */

/* CUlaunchAttribute and CUlaunchConfig */
enum { ATTNI_CU_LAUNCH_PROGRAMMATIC = 6 }; /* may begin before the kernel before it in the stream ends */

typedef struct attni_cu_launch_attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        int flag;
    } value;
} attni_cu_launch_attribute;

typedef struct attni_cu_launch_config {
    unsigned grid[3], block[3], shared_bytes;
    attni_cu_stream stream;
    const attni_cu_launch_attribute *attributes;
    unsigned attribute_count;
} attni_cu_launch_config;

/* One pointer a symbol of the table in driver.c. Optional ones may be null. */
typedef struct attni_driver {
    attni_cu_result (*init)(unsigned flags);
    attni_cu_result (*get_version)(int *version);
    attni_cu_result (*error_name)(attni_cu_result result, const char **text);
    attni_cu_result (*error_string)(attni_cu_result result, const char **text);
    attni_cu_result (*device_count)(int *count);
    attni_cu_result (*device_get)(attni_cu_device *device, int ordinal);
    attni_cu_result (*device_name)(char *name, int length, attni_cu_device device);
    attni_cu_result (*device_attribute)(int *value, int attribute, attni_cu_device device);
    attni_cu_result (*device_memory)(size_t *bytes, attni_cu_device device);
    attni_cu_result (*primary_state)(attni_cu_device device, unsigned *flags, int *active);
    attni_cu_result (*primary_retain)(attni_cu_context *context, attni_cu_device device);
    attni_cu_result (*primary_release)(attni_cu_device device);
    attni_cu_result (*context_current)(attni_cu_context *context);
    attni_cu_result (*context_push)(attni_cu_context context);
    attni_cu_result (*context_pop)(attni_cu_context *context);
    attni_cu_result (*context_device)(attni_cu_device *device);
    attni_cu_result (*stream_context)(attni_cu_stream stream, attni_cu_context *context);
    attni_cu_result (*module_load)(attni_cu_module *module, const void *image);
    attni_cu_result (*module_unload)(attni_cu_module module);
    attni_cu_result (*module_function)(attni_cu_function *function, attni_cu_module module, const char *name);
    attni_cu_result (*function_get)(int *value, int attribute, attni_cu_function function);
    attni_cu_result (*function_set)(attni_cu_function function, int attribute, int value);
    attni_cu_result (*occupancy)(int *blocks, attni_cu_function function, int threads, size_t shared_bytes);
    attni_cu_result (*launch)(attni_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                              unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                              attni_cu_stream stream, void **params, void **extra);
    attni_cu_result (*memory_alloc)(attni_cu_pointer *pointer, size_t bytes);
    attni_cu_result (*memory_free)(attni_cu_pointer pointer);
    attni_cu_result (*set_bytes)(attni_cu_pointer pointer, unsigned char value, size_t count,
                                 attni_cu_stream stream);
    attni_cu_result (*set_words)(attni_cu_pointer pointer, unsigned value, size_t count,
                                 attni_cu_stream stream);
    attni_cu_result (*exchange_capture_mode)(int *mode); /* optional: CUDA 10.1 */
    attni_cu_result (*stream_capturing)(attni_cu_stream stream,
                                        int *status); /* optional: CUDA 10.0; 0: it is not */
    attni_cu_result (*encode_tensor_map)(void *map, int type, uint32_t rank, attni_cu_pointer base,
                                         const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                                         const uint32_t *steps, int interleave, int swizzle, int promotion,
                                         int fill); /* optional: CUDA 12.0 */
    attni_cu_result (*launch_configured)(const attni_cu_launch_config *config, attni_cu_function function,
                                         void **params, void **extra); /* optional: CUDA 11.8 */
} attni_driver;

/* The driver, loaded once for the process. ATTN_NO_DEVICE with a sentence where there is none. */
attn_status attni_driver_get(const attni_driver **driver);

/* ATTN_OK, or the failure of what was done ("cuLaunchKernel of forward_sm80") as status and sentence. */
attn_status attni_driver_check(const attni_driver *driver, attni_cu_result result, const char *what, ...)
    ATTNI_PRINTF(3, 4);

#endif
