#define _GNU_SOURCE
#include "cuda/nvrtc.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvrtc_result;
typedef struct nvrtc_program_opaque *nvrtc_program;

typedef struct nvrtc_table {
    nvrtc_result (*version)(int *major, int *minor);
    const char *(*error_string)(nvrtc_result result);
    nvrtc_result (*create)(nvrtc_program *program, const char *source, const char *name, int header_count,
                           const char *const *headers, const char *const *header_names);
    nvrtc_result (*destroy)(nvrtc_program *program);
    nvrtc_result (*compile)(nvrtc_program program, int option_count, const char *const *options);
    nvrtc_result (*cubin_size)(nvrtc_program program, size_t *bytes);
    nvrtc_result (*cubin)(nvrtc_program program, char *image);
    nvrtc_result (*ptx_size)(nvrtc_program program, size_t *bytes);
    nvrtc_result (*ptx)(nvrtc_program program, char *image);
    nvrtc_result (*log_size)(nvrtc_program program, size_t *bytes);
    nvrtc_result (*log)(nvrtc_program program, char *text);
    nvrtc_result (*arch_count)(int *count);
    nvrtc_result (*archs)(int *numbers);
} nvrtc_table;

#define FIELD(field) offsetof(nvrtc_table, field)

/* All of NVRTC 11.2 and later. */
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"nvrtcVersion", FIELD(version)},
    {"nvrtcGetErrorString", FIELD(error_string)},
    {"nvrtcCreateProgram", FIELD(create)},
    {"nvrtcDestroyProgram", FIELD(destroy)},
    {"nvrtcCompileProgram", FIELD(compile)},
    {"nvrtcGetCUBINSize", FIELD(cubin_size)},
    {"nvrtcGetCUBIN", FIELD(cubin)},
    {"nvrtcGetPTXSize", FIELD(ptx_size)},
    {"nvrtcGetPTX", FIELD(ptx)},
    {"nvrtcGetProgramLogSize", FIELD(log_size)},
    {"nvrtcGetProgramLog", FIELD(log)},
    {"nvrtcGetNumSupportedArchs", FIELD(arch_count)},
    {"nvrtcGetSupportedArchs", FIELD(archs)},
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nvrtc_table nvrtc;
static int found_version;         /* 0: none */
static char found_path[PATH_MAX]; /* or the reason why not */

/* ---------------------------------------------------------------- finding it */

/* NVRTC loads its helper library by name, and in a Python package finds it only if it is there already. */
static void load_builtins(int major, int minor) {
    char path[PATH_MAX + 64];
    const char *slash = strrchr(found_path, '/');
    if (!slash) return;
    snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - found_path), found_path,
             major, minor);
    (void)dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* Takes the library if it is whole. */
static bool try_library(const char *name, int flags) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL | flags);
    if (!library) return false;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            dlclose(library);
            return false;
        }
        memcpy((char *)&nvrtc + symbols[i].offset, &symbol, sizeof symbol);
    }
    int major = 0, minor = 0;
    if (nvrtc.version(&major, &minor) != 0) {
        dlclose(library);
        return false;
    }
    found_version = major * 1000 + minor;
    Dl_info info;
    void *address;
    memcpy(&address, &nvrtc.version, sizeof address);
    const bool known = dladdr(address, &info) && info.dli_fname;
    snprintf(found_path, sizeof found_path, "%s", known ? info.dli_fname : name);
    load_builtins(major, minor);
    return true;
}

static const char *const sonames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"};

/* What the process holds already (PyTorch's, say) first, and then the loader's path. */
static bool try_loader(void) {
    for (size_t i = 0; i < sizeof sonames / sizeof sonames[0]; i++)
        if (try_library(sonames[i], RTLD_NOLOAD)) return true;
    for (size_t i = 0; i < sizeof sonames / sizeof sonames[0]; i++)
        if (try_library(sonames[i], 0)) return true;
    return false;
}

/* The newest library of a folder pattern. */
static bool try_pattern(const char *folder, const char *rest) {
    char pattern[PATH_MAX];
    const int length = snprintf(pattern, sizeof pattern, "%s/%s/libnvrtc.so*", folder, rest);
    if (length < 0 || (size_t)length >= sizeof pattern) return false;
    glob_t matches;
    bool found = false;
    if (glob(pattern, 0, NULL, &matches) == 0) {
        for (size_t i = matches.gl_pathc; i > 0 && !found; i--)
            found = try_library(matches.gl_pathv[i - 1], 0);
        globfree(&matches);
    }
    return found;
}

static bool try_toolkit(const char *root) {
    return try_pattern(root, "lib64") || try_pattern(root, "lib") || try_pattern(root, "targets/*/lib");
}

/* A folder of Python packages: NVIDIA's wheels, of CUDA 13 and of 11 and 12. */
static bool try_packages(const char *folder) {
    return try_pattern(folder, "nvidia/cu1[3-9]/lib") || try_pattern(folder, "nvidia/cuda_nvrtc/lib");
}

/* A Python installation, virtual or not. */
static bool try_prefix(const char *prefix) {
    char folder[PATH_MAX];
    static const char *const places[] = {"lib/python3*/site-packages", "lib/python3*/dist-packages",
                                         "lib64/python3*/site-packages"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const int length = snprintf(folder, sizeof folder, "%s/%s", prefix, places[i]);
        if (length > 0 && (size_t)length < sizeof folder && try_packages(folder)) return true;
    }
    return false;
}

/* Each part of a colon-separated list, with a suffix that leads from it to where to look. */
static bool try_list(const char *list, const char *must_hold, const char *suffix, bool (*try)(const char *)) {
    while (list && *list) {
        const size_t length = strcspn(list, ":");
        char place[PATH_MAX];
        const int held = snprintf(place, sizeof place, "%.*s/%s", (int)length, list, must_hold);
        glob_t matches;
        if (length > 0 && held > 0 && (size_t)held < sizeof place && glob(place, 0, NULL, &matches) == 0) {
            globfree(&matches);
            snprintf(place, sizeof place, "%.*s%s", (int)length, list, suffix);
            if (try (place)) return true;
        }
        list += length + (list[length] == ':');
    }
    return false;
}

/* This library may itself lie in a Python package, beside NVIDIA's. */
static bool try_beside(void) {
    Dl_info info;
    if (!dladdr((const void *)&nvrtc, &info) || !info.dli_fname) return false;
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", info.dli_fname);
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(folder, '/');
        if (!slash) return false;
        *slash = 0;
        if (try_packages(folder)) return true;
    }
    return false;
}

static void find(void) {
    const char *given = getenv("ATTN_NVRTC");
    if (given && *given) {
        if (!try_library(given, 0)) {
            const char *reason = dlerror();
            snprintf(found_path, sizeof found_path, "ATTN_NVRTC names %s, which cannot be used (%s)", given,
                     reason ? reason : "it is older than NVRTC 11.2");
        }
        return;
    }
    static const char *const toolkits[] = {"CUDA_HOME", "CUDA_PATH"};
    static const char *const prefixes[] = {"VIRTUAL_ENV", "CONDA_PREFIX"};
    if (try_loader()) return;
    for (size_t i = 0; i < 2; i++) {
        const char *root = getenv(toolkits[i]);
        if (root && *root && try_toolkit(root)) return;
    }
    if (try_toolkit("/usr/local/cuda") || try_toolkit("/usr/local/cuda-1*") || try_toolkit("/opt/cuda"))
        return;
    if (try_beside()) return;
    for (size_t i = 0; i < 2; i++) {
        const char *prefix = getenv(prefixes[i]);
        if (prefix && *prefix && try_prefix(prefix)) return;
    }
    if (try_list(getenv("PYTHONPATH"), "nvidia", "", try_packages)) return;
    if (try_list(getenv("PATH"), "python3*", "/..", try_prefix)) return;
    const char *home = getenv("HOME");
    if (home && *home) {
        char local[PATH_MAX];
        const int length = snprintf(local, sizeof local, "%s/.local", home);
        if (length > 0 && (size_t)length < sizeof local && try_prefix(local)) return;
    }
    if (try_prefix("/usr/local") || try_prefix("/usr")) return;
    snprintf(
        found_path, sizeof found_path,
        "looked for libnvrtc.so on the loader's path, in CUDA_HOME, CUDA_PATH and /usr/local/cuda, and among "
        "Python's packages (pip install nvidia-cuda-nvrtc); ATTN_NVRTC can name the file");
}

attn_status attni_nvrtc_version(int *version) {
    pthread_once(&once, find);
    if (!found_version)
        return attni_fail(ATTN_COMPILE_ERROR, "a kernel must be compiled and there is no NVRTC: %s",
                          found_path);
    *version = found_version;
    return ATTN_OK;
}

const char *attni_nvrtc_path(void) { return found_version ? found_path : ""; }

/* ---------------------------------------------------------------- compiling */

enum { MAX_OPTIONS = 64, MAX_HEADERS = 32, MAX_ARCHS = 64 };

/* The first line of a compiler's log that says what is wrong. */
static void first_error(const char *log, char *line, size_t bytes) {
    const char *at = strstr(log, "error");
    while (at && at > log && at[-1] != '\n') at--;
    if (!at) at = log;
    snprintf(line, bytes, "%.*s", (int)strcspn(at, "\n"), at);
}

static attn_status compile_failure(const attni_nvrtc_job *job, nvrtc_program program, nvrtc_result result) {
    char line[400] = "";
    size_t bytes = 0;
    char *log = NULL;
    if (nvrtc.log_size(program, &bytes) == 0 && bytes > 1 && (log = malloc(bytes)) != NULL &&
        nvrtc.log(program, log) == 0)
        first_error(log, line, sizeof line);
    free(log);
    return attni_fail(ATTN_COMPILE_ERROR, "NVRTC %d.%d could not compile %s: %s: %s", found_version / 1000,
                      found_version % 1000, job->name, nvrtc.error_string(result), line);
}

/* The architecture to compile for: the job's, or where the compiler is older the newest one before it. */
static attn_status choose_arch(const attni_nvrtc_job *job, char *option, size_t bytes, bool *ptx) {
    const int wanted = job->major * 10 + job->minor;
    int count = 0, numbers[MAX_ARCHS], best = 0;
    if (nvrtc.arch_count(&count) != 0 || count > MAX_ARCHS || nvrtc.archs(numbers) != 0) count = 0;
    for (int i = 0; i < count; i++)
        if (numbers[i] <= wanted && numbers[i] > best) best = numbers[i];
    if (best == 0 || (job->specific && best != wanted))
        return attni_fail(ATTN_COMPILE_ERROR, "NVRTC %d.%d cannot compile for compute capability %d.%d",
                          found_version / 1000, found_version % 1000, job->major, job->minor);
    *ptx = job->ptx || best != wanted;
    snprintf(option, bytes, "--gpu-architecture=%s_%d%s", *ptx ? "compute" : "sm", best,
             job->specific ? "a" : "");
    return ATTN_OK;
}

static attn_status take_image(const attni_nvrtc_job *job, nvrtc_program program, bool ptx, char **image,
                              size_t *bytes) {
    size_t size = 0;
    nvrtc_result result = ptx ? nvrtc.ptx_size(program, &size) : nvrtc.cubin_size(program, &size);
    if (result != 0 || size == 0)
        return attni_fail(ATTN_COMPILE_ERROR, "NVRTC made nothing of %s: %s", job->name,
                          nvrtc.error_string(result));
    char *memory = malloc(size + 1);
    if (!memory) return attni_fail(ATTN_OUT_OF_MEMORY, "no memory for a compiled kernel of %zu bytes", size);
    result = ptx ? nvrtc.ptx(program, memory) : nvrtc.cubin(program, memory);
    if (result != 0) {
        free(memory);
        return attni_fail(ATTN_COMPILE_ERROR, "NVRTC did not hand over the compiled %s: %s", job->name,
                          nvrtc.error_string(result));
    }
    memory[size] = 0;
    *image = memory;
    *bytes = size + 1;
    return ATTN_OK;
}

static attn_status compile(const attni_nvrtc_job *job, nvrtc_program program, char *options_text,
                           char **image, size_t *bytes) {
    char arch[64];
    bool ptx = false;
    ATTNI_TRY(choose_arch(job, arch, sizeof arch, &ptx));
    const char *options[MAX_OPTIONS] = {arch};
    int count = 1;
    for (char *at = options_text; at && *at;) {
        if (count == MAX_OPTIONS)
            return attni_fail(ATTN_COMPILE_ERROR, "%s has more than %d options", job->name, MAX_OPTIONS);
        options[count++] = at;
        at = strchr(at, ' ');
        if (at) *at++ = 0;
    }
    const nvrtc_result result = nvrtc.compile(program, count, options);
    if (result != 0) return compile_failure(job, program, result);
    return take_image(job, program, ptx, image, bytes);
}

attn_status attni_nvrtc_compile(const attni_nvrtc_job *job, char **image, size_t *bytes) {
    int version;
    ATTNI_TRY(attni_nvrtc_version(&version));
    if (job->header_count > MAX_HEADERS)
        return attni_fail(ATTN_COMPILE_ERROR, "%s has more than %d headers", job->name, MAX_HEADERS);
    const char *names[MAX_HEADERS], *texts[MAX_HEADERS];
    for (int i = 0; i < job->header_count; i++) {
        names[i] = job->headers[i].name;
        texts[i] = job->headers[i].text;
    }
    char *options = malloc(strlen(job->options) + 1);
    if (!options) return attni_fail(ATTN_OUT_OF_MEMORY, "no memory for the options of %s", job->name);
    strcpy(options, job->options);
    nvrtc_program program = NULL;
    attn_status status = ATTN_OK;
    const nvrtc_result result =
        nvrtc.create(&program, job->source, job->name, job->header_count, texts, names);
    if (result != 0)
        status = attni_fail(ATTN_COMPILE_ERROR, "NVRTC does not take %s: %s", job->name,
                            nvrtc.error_string(result));
    if (status == ATTN_OK) {
        status = compile(job, program, options, image, bytes);
        nvrtc.destroy(&program);
    }
    free(options);
    return status;
}
