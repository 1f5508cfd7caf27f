#define _POSIX_C_SOURCE 200809L
#include "fake_libcuda.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fake_cu_context {
    int device, primary, retains;
} fake_cu_context;

typedef struct fake_cu_stream {
    fake_cu_context *context;
} fake_cu_stream;

/* A module is its image's text; the fake compiler writes "FAKE -DENTRY=name ..". */
typedef struct fake_cu_function {
    char name[112];
} fake_cu_function;

typedef struct fake_cu_module {
    fake_cu_function function;
    int any_name;
    char entry[112];
} fake_cu_module;

enum { DEVICES = 2, STACK = 16, SYMBOLS = 64, BLOCKS = 256 };
enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char name[48];
    int calls, skip, result, hangs;
} symbols[SYMBOLS];
static int sticky, modules, capturing, spoiled;
static size_t limit = (size_t)1 << 40, used;
static struct {
    void *pointer;
    size_t bytes;
} blocks[BLOCKS];
static fake_cu_context primaries[DEVICES] = {{0, 1, 0}, {1, 1, 0}};
static _Thread_local fake_launch last; /* of this thread */

static _Thread_local fake_cu_context *stack[STACK];
static _Thread_local int depth;
static _Thread_local int capture_mode; /* 0 global, 1 thread-local, 2 relaxed */

#define EXPORT __attribute__((visibility("default")))

/* ---------------------------------------------------------------- control */

static int find(const char *name) {
    for (int i = 0; i < SYMBOLS; i++) {
        if (strcmp(symbols[i].name, name) == 0) return i;
        if (symbols[i].name[0] == 0) {
            snprintf(symbols[i].name, sizeof symbols[i].name, "%s", name);
            return i;
        }
    }
    abort();
}

static int enter(const char *name, int asynchronous, int forbidden_in_capture) {
    pthread_mutex_lock(&lock);
    const int i = find(name);
    symbols[i].calls++;
    const int hangs = symbols[i].hangs;
    int result = 0;
    if (symbols[i].result && symbols[i].skip-- == 0) {
        result = symbols[i].result;
        symbols[i].result = 0;
    } else if (asynchronous && sticky) {
        result = sticky;
    } else if (forbidden_in_capture && capturing && capture_mode != 2) {
        spoiled = 1;
        result = CAPTURE_UNSUPPORTED;
    }
    pthread_mutex_unlock(&lock);
    while (hangs) pause();
    return result;
}

#define ENTER(asynchronous, forbidden_in_capture)                                                            \
    do {                                                                                                     \
        const int entered = enter(__func__, asynchronous, forbidden_in_capture);                             \
        if (entered) return entered;                                                                         \
    } while (0)
#define NEED_CONTEXT                                                                                         \
    if (depth == 0) return INVALID_CONTEXT

EXPORT void fake_fail(const char *symbol, int skip, int result) {
    const int i = find(symbol);
    symbols[i].skip = skip;
    symbols[i].result = result;
}
EXPORT void fake_hang(const char *symbol) { symbols[find(symbol)].hangs = 1; }
EXPORT void fake_stick(int result) { sticky = result; }
EXPORT int fake_calls(const char *symbol) { return symbols[find(symbol)].calls; }
EXPORT void fake_reset(void) {
    memset(symbols, 0, sizeof symbols);
    sticky = 0;
    limit = (size_t)1 << 40;
}
EXPORT size_t fake_memory(void) { return used; }
EXPORT int fake_blocks(void) {
    int count = 0;
    for (int i = 0; i < BLOCKS; i++) count += blocks[i].pointer != NULL;
    return count;
}
EXPORT int fake_modules(void) { return modules; }
EXPORT int fake_retains(void) { return primaries[0].retains + primaries[1].retains; }
EXPORT void fake_limit(size_t bytes) { limit = bytes; }
EXPORT void *fake_context(int device) {
    static fake_cu_context made[16];
    static int count;
    made[count].device = device;
    return &made[count++];
}
EXPORT void *fake_stream(void *context) {
    static fake_cu_stream made[16];
    static int count;
    made[count].context = context;
    return &made[count++];
}
EXPORT void *fake_primary(int device) { return &primaries[device]; }
EXPORT void fake_set_current(void *context) {
    depth = context != NULL;
    stack[0] = context;
}
EXPORT void *fake_current(void) { return depth ? stack[depth - 1] : NULL; }
EXPORT void fake_begin_capture(void) {
    capturing = 1;
    spoiled = 0;
}
EXPORT int fake_end_capture(void) {
    capturing = 0;
    return spoiled;
}
EXPORT const fake_launch *fake_last_launch(void) { return &last; }

/* ---------------------------------------------------------------- the driver API */

EXPORT int cuInit(unsigned flags) {
    ENTER(0, 0);
    if (getenv("FAKE_CUINIT")) return atoi(getenv("FAKE_CUINIT"));
    return flags == 0 ? 0 : INVALID_VALUE;
}
EXPORT int cuDriverGetVersion(int *version) {
    ENTER(0, 0);
    *version = 13000;
    return 0;
}
EXPORT int cuGetErrorName(int result, const char **text) {
    *text = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : result == 700         ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                    : "CUDA_ERROR_FAKE";
    return 0;
}
EXPORT int cuGetErrorString(int result, const char **text) {
    *text = result == OUT_OF_MEMORY ? "out of memory" : "as the test asked";
    return 0;
}
EXPORT int cuDeviceGetCount(int *count) {
    ENTER(0, 0);
    *count = DEVICES;
    return 0;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    ENTER(0, 0);
    *device = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? 0 : INVALID_DEVICE;
}
EXPORT int cuDeviceGetName(char *name, int length, int device) {
    ENTER(0, 0);
    snprintf(name, (size_t)length, "Fake GPU %d", device);
    return 0;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(0, 0);
    switch (attribute) {
    case 16: *value = 132; return 0;
    case 38: *value = 50 << 20; return 0;
    case 75: *value = device == 0 ? 9 : 7; return 0;
    case 76: *value = device == 0 ? 0 : 5; return 0;
    case 97: *value = device == 0 ? 232448 : 65536; return 0;
    default: return INVALID_VALUE;
    }
}
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    ENTER(0, 0);
    *bytes = (size_t)(device + 1) << 34;
    return 0;
}
EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    ENTER(0, 0);
    *flags = 0;
    *active = primaries[device].retains > 0;
    return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER(0, 0);
    primaries[device].retains++;
    *context = &primaries[device];
    return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER(0, 0);
    return --primaries[device].retains >= 0 ? 0 : INVALID_CONTEXT;
}
EXPORT int cuCtxGetCurrent(void **context) {
    ENTER(0, 0);
    *context = fake_current();
    return 0;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
    ENTER(0, 0);
    if (context == NULL || depth == STACK) return INVALID_CONTEXT;
    stack[depth++] = context;
    return 0;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
    ENTER(0, 0);
    NEED_CONTEXT;
    *context = stack[--depth];
    return 0;
}
EXPORT int cuCtxGetDevice(int *device) {
    ENTER(0, 0);
    NEED_CONTEXT;
    *device = stack[depth - 1]->device;
    return 0;
}
EXPORT int cuStreamGetCtx(void *stream, void **context) {
    ENTER(1, 0);
    *context = ((fake_cu_stream *)stream)->context;
    return 0;
}
EXPORT int cuThreadExchangeStreamCaptureMode(int *mode) {
    ENTER(0, 0);
    const int old = capture_mode;
    capture_mode = *mode;
    *mode = old;
    return 0;
}

EXPORT int cuStreamIsCapturing(void *stream, int *status) {
    ENTER(0, 0);
    (void)stream;
    *status = capturing;
    return 0;
}

EXPORT int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, uint64_t base, const uint64_t *sizes,
                                  const uint64_t *strides, const unsigned *box, const unsigned *steps,
                                  int interleave, int swizzle, int promotion, int fill) {
    ENTER(1, 0);
    if (rank != 4 || (type != 0 && type != 6 && type != 9) || box[0] * (type == 0 ? 1u : 2u) > 128 ||
        interleave != 0 || swizzle != 3 || promotion > 3 || fill != 0 || base % 16 != 0 ||
        (uintptr_t)map % 64 != 0)
        return INVALID_VALUE;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] == 0 || sizes[i] >> 32 != 0 || box[i] == 0 || box[i] > 256 || steps[i] != 1)
            return INVALID_VALUE;
        if (i < 3 && (strides[i] % 16 != 0 || strides[i] >> 40 != 0)) return INVALID_VALUE;
    }
    const uint64_t kept[16] = {base,     sizes[0],   sizes[1],   sizes[2],
                               sizes[3], strides[0], strides[1], strides[2]}; /* for fake_kernels.c */
    memcpy(map, kept, sizeof kept);
    return 0;
}

EXPORT int cuModuleLoadData(void **module, const void *image) {
    ENTER(1, 1);
    NEED_CONTEXT;
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    const int fatbin = magic == 0xba55ed50u, elf = memcmp(image, "\177ELF", 4) == 0;
    if (!fatbin && !elf && memcmp(image, "FAKE", 4) != 0) return INVALID_IMAGE;
    fake_cu_module *made = calloc(1, sizeof *made);
    made->any_name = fatbin || elf;
    if (!made->any_name) {
        const char *entry = strstr(image, "-DENTRY=");
        if (entry) sscanf(entry, "-DENTRY=%111s", made->entry);
    }
    __atomic_add_fetch(&modules, 1, __ATOMIC_RELAXED);
    *module = made;
    return 0;
}
EXPORT int cuModuleUnload(void *module) {
    ENTER(1, 0);
    NEED_CONTEXT;
    free(module);
    __atomic_sub_fetch(&modules, 1, __ATOMIC_RELAXED);
    return 0;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER(1, 0);
    fake_cu_module *from = module;
    if (!from->any_name && strncmp(from->entry, name, 5) != 0)
        return NOT_FOUND; /* a source's entries share that */
    snprintf(from->function.name, sizeof from->function.name, "%s", name);
    *function = &from->function;
    return 0;
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *function) {
    ENTER(1, 0);
    (void)function;
    *value = attribute == 4 ? 128 : 0;
    return 0;
}
EXPORT int cuFuncSetAttribute(void *function, int attribute, int value) {
    ENTER(1, 0);
    (void)function;
    return attribute == 8 && value <= 232448 ? 0 : INVALID_VALUE;
}
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *count, void *function, int threads,
                                                       size_t shared) {
    ENTER(1, 0);
    (void)function;
    /* 228 KB, of which each block has 1 KB more than it asks for: 227 KB fit once */
    *count = threads > 0 ? (int)(233472 / (shared + 1024)) : 0;
    if (*count > 16) *count = 16;
    return 0;
}
static int launch(void *function, const unsigned *grid, const unsigned *block, unsigned shared, void *stream,
                  void **params, void **extra) {
    const fake_cu_function *f = function;
    last = (fake_launch){.grid = grid[0], .threads = block[0], .shared = shared, .stream = stream};
    snprintf(last.name, sizeof last.name, "%s", f->name);
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535 || block[1] != 1 ||
        block[2] != 1 || extra)
        return INVALID_VALUE;
    last.failed = ((uintptr_t)stream > 2 && ((fake_cu_stream *)stream)->context != stack[depth - 1]) ||
                  !fake_run_kernel(f->name, params[0]);
    return last.failed ? INVALID_CONTEXT : 0;
}
EXPORT int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **params,
                          void **extra) {
    ENTER(1, 0);
    NEED_CONTEXT;
    const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    return launch(function, grid, block, shared, stream, params, extra);
}
/* CUlaunchConfig and its attributes: a kernel may begin before the one before it ends, and nothing else. */
EXPORT int cuLaunchKernelEx(const void *config, void *function, void **params, void **extra) {
    ENTER(1, 0);
    NEED_CONTEXT;
    struct {
        unsigned grid[3], block[3], shared;
        void *stream;
        const int *attributes;
        unsigned count;
    } c;
    memcpy(&c, config, sizeof c);
    if (c.count != 1 || c.attributes[0] != 6 || c.attributes[2] != 1) return INVALID_VALUE;
    return launch(function, c.grid, c.block, c.shared, c.stream, params, extra);
}

EXPORT int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
    ENTER(1, 1);
    NEED_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > limit) return OUT_OF_MEMORY;
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i].pointer) continue;
        blocks[i].pointer = aligned_alloc(256, (bytes + 255) / 256 * 256);
        if (!blocks[i].pointer) return OUT_OF_MEMORY;
        blocks[i].bytes = bytes;
        used += bytes;
        *pointer = (uintptr_t)blocks[i].pointer;
        return 0;
    }
    return OUT_OF_MEMORY;
}
EXPORT int cuMemFree_v2(uint64_t pointer) {
    ENTER(1, 1);
    NEED_CONTEXT;
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i].pointer != (void *)(uintptr_t)pointer) continue;
        used -= blocks[i].bytes;
        free(blocks[i].pointer);
        blocks[i].pointer = NULL;
        return 0;
    }
    return INVALID_VALUE;
}
EXPORT int cuMemsetD8Async(uint64_t pointer, unsigned char value, size_t count, void *stream) {
    ENTER(1, 0);
    NEED_CONTEXT;
    (void)stream;
    memset((void *)(uintptr_t)pointer, value, count);
    return 0;
}
EXPORT int cuMemsetD32Async(uint64_t pointer, unsigned value, size_t count, void *stream) {
    ENTER(1, 0);
    NEED_CONTEXT;
    (void)stream;
    for (size_t i = 0; i < count; i++) ((uint32_t *)(uintptr_t)pointer)[i] = value;
    return 0;
}

/* ---------------------------------------------------------------- what the tests and the tools use beside */

EXPORT int cuCtxSetCurrent(void *context) {
    ENTER(0, 0);
    fake_set_current(context);
    return 0;
}
EXPORT int cuCtxSynchronize(void) {
    ENTER(1, 1);
    return 0;
}
EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
    ENTER(1, 1);
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}
EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
    ENTER(1, 1);
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return 0;
}
EXPORT int cuMemsetD8_v2(uint64_t pointer, unsigned char value, size_t count) {
    ENTER(1, 1);
    memset((void *)(uintptr_t)pointer, value, count);
    return 0;
}
EXPORT int cuMemGetInfo_v2(size_t *unused, size_t *whole) {
    ENTER(0, 0);
    *whole = (size_t)1 << 32;
    *unused = *whole - used;
    return 0;
}
EXPORT int cuEventCreate(void **event, unsigned flags) {
    ENTER(1, 0);
    *event = calloc(1, 1);
    return flags == 0 ? 0 : INVALID_VALUE;
}
EXPORT int cuEventDestroy_v2(void *event) {
    ENTER(1, 0);
    free(event);
    return 0;
}
EXPORT int cuEventRecord(void *event, void *stream) {
    ENTER(1, 0);
    (void)stream;
    return event ? 0 : INVALID_VALUE;
}
EXPORT int cuEventSynchronize(void *event) {
    ENTER(1, 1);
    return event ? 0 : INVALID_VALUE;
}
EXPORT int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    ENTER(1, 0);
    *milliseconds = 1;
    return start && end ? 0 : INVALID_VALUE;
}
