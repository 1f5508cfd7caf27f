#define _POSIX_C_SOURCE 200809L
#include "cuda/module.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/cache.h"
#include "cuda/embedded.h"
#include "cuda/nvrtc.h"

struct attni_modules {
    pthread_mutex_t lock;
    attni_kernel *first;
};

enum { MAX_HEADERS = 32, MAX_KEY = 640 };

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

int attni_module_embedded_count(void) { return attni_embedded_image_count; }

/* ---------------------------------------------------------------- finding an image */

static bool fits(const attni_embedded_image *image, const attni_kernel_spec *spec, int capability) {
    if (strcmp(image->name, spec->name) != 0 || strcmp(image->options, spec->options) != 0) return false;
    if (image->capability > capability) return false;
    return image->kind != ATTNI_IMAGE_CUBIN || image->capability / 10 == capability / 10;
}

/* The first image after *index that a device can take; null at the end. */
static const attni_embedded_image *next_image(const attni_kernel_spec *spec, int capability, int *index) {
    while (*index < attni_embedded_image_count) {
        const attni_embedded_image *image = &attni_embedded_images[(*index)++];
        if (fits(image, spec, capability)) return image;
    }
    return NULL;
}

static const char *source_text(const char *name) {
    for (int i = 0; i < attni_embedded_source_count; i++)
        if (strcmp(attni_embedded_sources[i].name, name) == 0) return attni_embedded_sources[i].text;
    return NULL;
}

static bool is_header(const attni_embedded_source *file) {
    const size_t length = strlen(file->name);
    return length < 3 || strcmp(file->name + length - 3, ".cu") != 0;
}

/* What a compiled kernel depends on but the compiler. Any header may be included, so all of them count. */
static void describe_key(const attni_kernel_spec *spec, int capability, char key[MAX_KEY]) {
    uint64_t hash = 0;
    for (int i = 0; i < attni_embedded_source_count; i++) {
        const attni_embedded_source *file = &attni_embedded_sources[i];
        if (is_header(file) || strcmp(file->name, spec->source) == 0)
            hash = attni_cache_hash(hash, file->text, strlen(file->text));
    }
    snprintf(key, MAX_KEY, "%s %s %s sm_%d %016llx", spec->source, spec->name, spec->options, capability,
             (unsigned long long)hash);
}

static attn_status compile(const attni_kernel_spec *spec, int capability, char **image, size_t *bytes) {
    attni_nvrtc_header headers[MAX_HEADERS];
    char options[sizeof spec->options + sizeof spec->name + 64];
    attni_nvrtc_job job = {.name = spec->source, .source = source_text(spec->source), .headers = headers};
    if (!job.source)
        return attni_fail(ATTN_COMPILE_ERROR, "this build holds no kernel source %s", spec->source);
    for (int i = 0; i < attni_embedded_source_count && job.header_count < MAX_HEADERS; i++) {
        if (!is_header(&attni_embedded_sources[i])) continue;
        headers[job.header_count].name = attni_embedded_sources[i].name;
        headers[job.header_count++].text = attni_embedded_sources[i].text;
    }
    snprintf(options, sizeof options, "--std=c++17 -DENTRY=%s %s", spec->name, spec->options);
    job.options = options;
    job.major = capability / 10;
    job.minor = capability % 10;
    job.specific = spec->capability == 90; /* wgmma is not in later architectures */
    return attni_nvrtc_compile(&job, image, bytes);
}

/* ---------------------------------------------------------------- loading */

/* Whether another image may load where this one failed so. */
static bool is_image_error(attni_cu_result result) {
    return result == ATTNI_CU_INVALID_IMAGE || result == ATTNI_CU_NO_BINARY_FOR_GPU ||
           result == ATTNI_CU_INVALID_PTX || result == ATTNI_CU_UNSUPPORTED_PTX_VERSION ||
           result == ATTNI_CU_JIT_COMPILER_NOT_FOUND || result == ATTNI_CU_JIT_COMPILATION_DISABLED;
}

/* Loads an image and asks what the plan must know of it. Our CUDA context is current. */
static attn_status load(const attni_cuda *cuda, const void *image, attni_kernel *kernel, bool *try_another) {
    const attni_driver *driver = cuda->driver;
    const char *name = kernel->spec.entry, *what = "cuModuleGetFunction";
    attni_cu_result result = driver->module_load(&kernel->module, image);
    *try_another = is_image_error(result);
    ATTNI_TRY(attni_driver_check(driver, result, "cuModuleLoadData of %s", name));
    result = driver->module_function(&kernel->function, kernel->module, name);
    const struct {
        int attribute, *value;
    } wanted[] = {
        {ATTNI_CU_FUNCTION_REGISTERS, &kernel->registers},
        {ATTNI_CU_FUNCTION_LOCAL_BYTES, &kernel->local_bytes},
        {ATTNI_CU_FUNCTION_SHARED_BYTES, &kernel->static_shared},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && result == ATTNI_CU_SUCCESS; i++) {
        what = "cuFuncGetAttribute";
        result = driver->function_get(wanted[i].value, wanted[i].attribute, kernel->function);
    }
    if (result == ATTNI_CU_SUCCESS && kernel->spec.shared_bytes > 0) {
        what = "cuFuncSetAttribute (shared memory)";
        result = driver->function_set(kernel->function, ATTNI_CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES,
                                      kernel->spec.shared_bytes);
    }
    if (result == ATTNI_CU_SUCCESS) {
        what = "cuOccupancyMaxActiveBlocksPerMultiprocessor";
        result = driver->occupancy(&kernel->blocks, kernel->function, kernel->spec.threads,
                                   (size_t)kernel->spec.shared_bytes);
    }
    if (result != ATTNI_CU_SUCCESS) driver->module_unload(kernel->module);
    ATTNI_TRY(attni_driver_check(driver, result, "%s of %s", what, name));
    if (kernel->blocks > 0) return ATTN_OK;
    driver->module_unload(kernel->module);
    return attni_fail(ATTN_UNSUPPORTED,
                      "%s does not fit on a multiprocessor: %d threads of %d registers, %d bytes of "
                      "shared memory",
                      name, kernel->spec.threads, kernel->registers,
                      kernel->spec.shared_bytes + kernel->static_shared);
}

/*
 * From the disk, or compiled and put there. Computers of different drivers and compilers may share the disk: what the
 * newest compiler made may be for a newer driver than this one, and what an older one made may not.
 */
static attn_status load_composed(attn_context *context, attni_kernel *kernel) {
    const attni_cuda *cuda = context->backend_data;
    const int capability = cuda->major * 10 + cuda->minor;
    char key[MAX_KEY], reason[512], *image;
    size_t bytes = 0;
    bool corrupt = false;
    describe_key(&kernel->spec, capability, key);
    for (int made_by = INT_MAX; (made_by = attni_cache_newest(key, made_by)) != 0;) {
        image = attni_cache_read(key, made_by, &bytes, &corrupt);
        if (!image) continue;
        const attn_status status = load(cuda, image, kernel, &corrupt);
        free(image);
        kernel->origin = "disk cache";
        if (!corrupt) return status;
    }
    if (corrupt)
        attni_log(context, "%s: the disk cache's entry is of no use; compiling again", kernel->spec.name);
    int compiler;
    ATTNI_TRY(attni_nvrtc_version(&compiler));
    const double begin = now_ms();
    ATTNI_TRY(compile(&kernel->spec, capability, &image, &bytes));
    attni_log(context, "%s: compiled by NVRTC %d.%d in %.0f ms", kernel->spec.name, compiler / 1000,
              compiler % 1000, now_ms() - begin);
    const attn_status status = load(cuda, image, kernel, &corrupt);
    if (status == ATTN_OK && !attni_cache_write(key, compiler, image, bytes, reason, sizeof reason))
        attni_log(context, "%s: not kept in the disk cache: %s", kernel->spec.name, reason);
    free(image);
    kernel->origin = "compiled by NVRTC";
    return status;
}

static attn_status load_any(attn_context *context, attni_kernel *kernel) {
    const attni_cuda *cuda = context->backend_data;
    const attni_embedded_image *image;
    int index = 0;
    while ((image = next_image(&kernel->spec, cuda->major * 10 + cuda->minor, &index)) != NULL) {
        bool try_another;
        const attn_status status = load(cuda, image->begin, kernel, &try_another);
        kernel->origin = "embedded";
        if (!try_another) return status;
        attni_log(context, "%s: an embedded image does not load here (%s)", kernel->spec.name,
                  attn_last_error());
    }
    return load_composed(context, kernel);
}

/* ---------------------------------------------------------------- the table of a context */

attn_status attni_modules_open(attn_context *context, attni_modules **modules) {
    attni_modules *made = attni_alloc(context, sizeof *made);
    if (!made) return ATTN_OUT_OF_MEMORY;
    made->first = NULL;
    if (pthread_mutex_init(&made->lock, NULL) != 0) {
        attni_free(context, made);
        return attni_fail(ATTN_OUT_OF_MEMORY, "the system has no mutex left");
    }
    *modules = made;
    return ATTN_OK;
}

void attni_modules_close(attn_context *context, attni_modules *modules) {
    const attni_cuda *cuda = context->backend_data;
    bool pushed = false;
    const bool entered = attni_cuda_enter(cuda, &pushed) == ATTN_OK;
    while (modules->first) {
        attni_kernel *kernel = modules->first;
        modules->first = kernel->next;
        if (entered) cuda->driver->module_unload(kernel->module);
        attni_free(context, kernel);
    }
    if (entered) attni_cuda_leave(cuda, pushed);
    pthread_mutex_destroy(&modules->lock);
    attni_free(context, modules);
}

static attni_kernel *find(const attni_modules *modules, const attni_kernel_spec *spec) {
    for (attni_kernel *kernel = modules->first; kernel; kernel = kernel->next)
        if (strcmp(kernel->spec.entry, spec->entry) == 0 && strcmp(kernel->spec.options, spec->options) == 0)
            return kernel;
    return NULL;
}

static attn_status load_new(attn_context *context, const attni_kernel_spec *spec, attni_kernel **made) {
    const attni_cuda *cuda = context->backend_data;
    if (cuda->major * 10 + cuda->minor < spec->capability)
        return attni_fail(ATTN_UNSUPPORTED, "%s needs compute capability %d.%d; this device has %d.%d",
                          spec->name, spec->capability / 10, spec->capability % 10, cuda->major, cuda->minor);
    attni_kernel *kernel = attni_alloc(context, sizeof *kernel);
    if (!kernel) return ATTN_OUT_OF_MEMORY;
    *kernel = (attni_kernel){.spec = *spec};
    attni_cuda_scope scope;
    attn_status status = attni_cuda_enter_relaxed(cuda, &scope);
    if (status == ATTN_OK) {
        const double begin = now_ms();
        status = load_any(context, kernel);
        kernel->milliseconds = now_ms() - begin;
        attni_cuda_leave_relaxed(cuda, scope);
    }
    if (status != ATTN_OK) {
        attni_free(context, kernel);
        return status;
    }
    *made = kernel;
    return ATTN_OK;
}

attn_status attni_module_kernel(attn_context *context, const attni_kernel_spec *spec,
                                const attni_kernel **kernel) {
    attni_modules *modules = ((attni_cuda *)context->backend_data)->modules;
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&modules->lock); /* held while compiling, so that no kernel is compiled twice */
    attni_kernel *found = find(modules, spec);
    if (!found) {
        status = load_new(context, spec, &found);
        if (status == ATTN_OK) {
            found->next = modules->first;
            modules->first = found;
        }
    }
    pthread_mutex_unlock(&modules->lock);
    *kernel = found;
    return status;
}

attn_status attni_module_precompile(const attni_kernel_spec *spec, int capability, const char **origin) {
    char key[MAX_KEY], reason[512];
    size_t bytes = 0;
    bool corrupt;
    int compiler;
    int index = 0;
    *origin = "embedded";
    if (next_image(spec, capability, &index)) return ATTN_OK;
    ATTNI_TRY(attni_nvrtc_version(&compiler));
    describe_key(spec, capability, key);
    char *image = attni_cache_read(key, compiler, &bytes, &corrupt);
    *origin = image ? "disk cache" : "compiled by NVRTC";
    attn_status status = ATTN_OK;
    if (!image) {
        ATTNI_TRY(compile(spec, capability, &image, &bytes));
        if (!attni_cache_write(key, compiler, image, bytes, reason, sizeof reason))
            status = attni_fail(ATTN_COMPILE_ERROR, "%s was compiled and could not be stored: %s", spec->name,
                                reason);
    }
    free(image);
    return status;
}
