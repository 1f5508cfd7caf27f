#define _POSIX_C_SOURCE 200809L /* alarm */
#include "device.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The driver API's exported names and binary interface; pointers of the device are 64-bit numbers. */
static struct {
    int (*init)(unsigned flags);
    int (*error_name)(int result, const char **text);
    int (*get)(int *device, int ordinal);
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*set_current)(void *context);
    int (*wait)(void);
    int (*alloc)(uint64_t *memory, size_t bytes);
    int (*release_memory)(uint64_t memory);
    int (*copy_in)(uint64_t to, const void *from, size_t bytes);
    int (*copy_out)(void *to, uint64_t from, size_t bytes);
    int (*fill)(uint64_t memory, unsigned char value, size_t count);
    int (*info)(size_t *free, size_t *whole);
    int (*event_create)(void **event, unsigned flags);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
    int (*event_elapsed)(float *milliseconds, void *start, void *end);
} cuda;

static const struct {
    const char *name;
    void *to;
} symbols[] = {
    {"cuInit", &cuda.init},
    {"cuGetErrorName", &cuda.error_name},
    {"cuDeviceGet", &cuda.get},
    {"cuDevicePrimaryCtxRetain", &cuda.retain},
    {"cuDevicePrimaryCtxRelease_v2", &cuda.release},
    {"cuCtxSetCurrent", &cuda.set_current},
    {"cuCtxSynchronize", &cuda.wait},
    {"cuMemAlloc_v2", &cuda.alloc},
    {"cuMemFree_v2", &cuda.release_memory},
    {"cuMemcpyHtoD_v2", &cuda.copy_in},
    {"cuMemcpyDtoH_v2", &cuda.copy_out},
    {"cuMemsetD8_v2", &cuda.fill},
    {"cuMemGetInfo_v2", &cuda.info},
    {"cuEventCreate", &cuda.event_create},
    {"cuEventDestroy_v2", &cuda.event_destroy},
    {"cuEventRecord", &cuda.event_record},
    {"cuEventSynchronize", &cuda.event_wait},
    {"cuEventElapsedTime", &cuda.event_elapsed},
};

static void *library, *events[2];
static int device = -1;
static char sentence[300];

static const char *name_of(int result) {
    const char *name = NULL;
    return cuda.error_name(result, &name) == 0 && name ? name : "unknown CUDA error";
}

static void must(int result, const char *what) {
    if (result == 0) return;
    fprintf(stderr, "%s: %s (%d)\n", what, name_of(result), result);
    exit(1);
}

/* ---------------------------------------------------------------- what takes too long */

static char watched[700];
static size_t watched_length;
static unsigned watch_seconds;

static void give_up(int number) {
    (void)number;
    _exit(write(STDERR_FILENO, watched, watched_length) < 0 ? 3 : 1);
}

void device_watch(unsigned seconds, const char *format, ...) {
    char what[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(watched, sizeof watched, "%s: the device has not finished in %u s\n", what, seconds);
    watched_length = strlen(watched);
    watch_seconds = seconds;
    signal(SIGALRM, give_up);
}

static void begin_wait(void) {
    if (watch_seconds) alarm(watch_seconds);
}

/* Of a wait that has ended. */
static void must_end(int result, const char *what) {
    if (watch_seconds) alarm(0);
    must(result, what);
}

/* ---------------------------------------------------------------- the device */

static const char *refuse(const char *what, int result) {
    snprintf(sentence, sizeof sentence, "%s: %s", what, name_of(result));
    return sentence;
}

const char *device_open(int ordinal) {
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return "there is no NVIDIA driver (libcuda.so.1)";
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            snprintf(sentence, sizeof sentence, "the NVIDIA driver has no %s", symbols[i].name);
            return sentence;
        }
        memcpy(symbols[i].to, &symbol, sizeof symbol);
    }
    void *context;
    int result = cuda.init(0);
    if (result != 0) return refuse("cuInit", result);
    result = cuda.get(&device, ordinal);
    if (result != 0) return refuse("cuDeviceGet", result);
    result = cuda.retain(&context, device);
    if (result != 0) return refuse("cuDevicePrimaryCtxRetain", result);
    must(cuda.set_current(context), "cuCtxSetCurrent");
    for (int i = 0; i < 2; i++) must(cuda.event_create(&events[i], 0), "cuEventCreate");
    return NULL;
}

void device_close(void) {
    for (int i = 0; i < 2; i++) cuda.event_destroy(events[i]);
    cuda.set_current(NULL);
    cuda.release(device);
}

void *device_alloc(size_t bytes) {
    uint64_t memory = 0;
    return cuda.alloc(&memory, bytes > 0 ? bytes : 1) == 0 ? (void *)(uintptr_t)memory : NULL;
}

static uint64_t address(const void *memory) { return (uint64_t)(uintptr_t)memory; }

void device_free(void *memory) {
    if (!memory) return;
    begin_wait();
    must_end(cuda.release_memory(address(memory)), "cuMemFree");
}

void device_copy_in(void *to, const void *from, size_t bytes) {
    if (bytes == 0) return;
    begin_wait();
    must_end(cuda.copy_in(address(to), from, bytes), "cuMemcpyHtoD");
}

void device_copy_out(void *to, const void *from, size_t bytes) {
    if (bytes == 0) return;
    begin_wait();
    must_end(cuda.copy_out(to, address(from), bytes), "cuMemcpyDtoH");
}

void device_fill(void *memory, unsigned char value, size_t bytes) {
    if (bytes > 0) must(cuda.fill(address(memory), value, bytes), "cuMemsetD8");
}

void device_wait(void) {
    begin_wait();
    must_end(cuda.wait(), "cuCtxSynchronize");
}

size_t device_free_bytes(void) {
    size_t unused = 0, whole;
    must(cuda.info(&unused, &whole), "cuMemGetInfo");
    return unused;
}

void device_start(void) { must(cuda.event_record(events[0], NULL), "cuEventRecord"); }

double device_stop(void) {
    float milliseconds = 0;
    must(cuda.event_record(events[1], NULL), "cuEventRecord");
    begin_wait();
    must_end(cuda.event_wait(events[1]), "cuEventSynchronize");
    must(cuda.event_elapsed(&milliseconds, events[0], events[1]), "cuEventElapsedTime");
    return (double)milliseconds * 1e3;
}

void *device_symbol(const char *name) { return dlsym(library, name); }
