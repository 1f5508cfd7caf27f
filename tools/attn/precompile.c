/* attn precompile: CUDA kernels into the disk cache, before anybody waits for them. It needs NVRTC and no GPU. */
#include "attn/attn.h"
#include "flags.h"
#include "terminal.h"
#include "tool.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cuda/accum_cuda.h"
#include "cuda/cache.h"
#include "cuda/forward_cuda.h"
#include "cuda/hopper_cuda.h"
#include "cuda/hopper_f8_cuda.h"
#include "cuda/nvrtc.h"

enum { DIM_LIMIT = 32 };

typedef struct precompiler {
    const char *dims, *dims_v;
    int64_t capability;
    int dtype, variant, list;
    int64_t compiled, failed;
} precompiler;

static const char *const dtype_names[] = {"all", "f16", "bf16", "f8_e4m3", "f8_e5m2", NULL};
static const char *const variant_names[] = {"all", "fast", "general", "hopper", NULL};

static double now_ms(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Shared memory that a block may ask for (CUDA C++ Programming Guide, technical specifications). */
static int shared_limit_of(int64_t capability) {
    switch (capability) {
    case 80:
    case 87: return 163 * 1024;
    case 86:
    case 89:
    case 120:
    case 121: return 99 * 1024;
    default: return 227 * 1024;
    }
}

static void precompile(precompiler *p, const attni_kernel_spec *spec) {
    if (p->list) {
        printf("%s|%s|%d|%s|%d|%d\n", spec->name, spec->source, spec->capability, spec->options,
               spec->threads, spec->shared_bytes);
        return;
    }
    const char *origin;
    const double begin = now_ms();
    if (attni_module_precompile(spec, (int)p->capability, &origin) != ATTN_OK) {
        p->failed++;
        tool_failure("precompile", "%s: %s", spec->name, attn_last_error());
        return;
    }
    p->compiled += strcmp(origin, "compiled by NVRTC") == 0;
    printf("%-40s %-18s %7.0f ms\n", spec->name, origin, now_ms() - begin);
    fflush(stdout);
}

static void precompile_shape(precompiler *p, const attni_hopper_shape *shape) {
    attni_kernel_spec spec;
    attni_forward_tiles tiles;
    if (attni_hopper_spec(shape, shared_limit_of(p->capability), &spec, &tiles)) precompile(p, &spec);
}

/* forward_sm90, full and causal, for few and for many queries; then those of most registers: every option, and ragged
 * or padded windows. */
static void precompile_hopper(precompiler *p, attn_dtype dtype, int64_t dim_qk, int64_t dim_v) {
    if (!attni_hopper_takes_dims(dim_qk, dim_v)) return;
    attni_hopper_shape shape = {.dtype = dtype, .dim_qk = dim_qk, .dim_v = dim_v};
    for (shape.mask = 0; shape.mask < 2; shape.mask++) {
        const bool same = attni_forward_sm90_width((int)(dim_qk > dim_v ? dim_qk : dim_v)) > 64;
        for (shape.seqlen_q = 512; shape.seqlen_q <= (same ? 512 : 4096); shape.seqlen_q *= 8)
            precompile_shape(p, &shape);
    }
    shape.seqlen_q = 512;
    shape.mask = 2;
    shape.lengths = true;
    precompile_shape(p, &shape);
    if (attni_forward_sm90_width((int)dim_qk) == 128) { /* tiles of its own */
        shape.narrow = true;
        precompile_shape(p, &shape);
        shape.narrow = false;
    }
    shape.general = true;
    precompile_shape(p, &shape);
}

/* forward_sm90_f8: both outputs, every mask, V turned by tiles and, with f16 and with float32 scores, once. */
static void precompile_f8(precompiler *p, attn_dtype dtype, int64_t dim_qk, int64_t dim_v) {
    if (!attni_f8_takes_dims(dim_qk, dim_v)) return;
    for (int i = 0; i < (attni_f8_may_turn(dim_qk, dim_v) ? 18 : 6); i++) {
        const attni_f8_shape shape = {.dtype = dtype,
                                      .dtype_o = i % 2 ? ATTN_BF16 : ATTN_F16,
                                      .dim_qk = dim_qk,
                                      .dim_v = dim_v,
                                      .mask = i / 2 % 3,
                                      .turned = i >= 6,
                                      .exact = i >= 12};
        attni_kernel_spec spec;
        attni_forward_tiles tiles;
        if (attni_f8_spec(&shape, shared_limit_of(p->capability), &spec, &tiles)) precompile(p, &spec);
    }
}

static void precompile_dims(precompiler *p, int64_t dim_qk, int64_t dim_v) {
    for (attn_dtype dtype = ATTN_F8_E4M3; dtype <= ATTN_F8_E5M2; dtype = (attn_dtype)(dtype + 1))
        if (p->dtype == (int)dtype && p->capability == 90) precompile_f8(p, dtype, dim_qk, dim_v);
    for (attn_dtype dtype = ATTN_F16; dtype <= ATTN_BF16; dtype = (attn_dtype)(dtype + 1)) {
        if (p->dtype != 0 && p->dtype != (int)dtype) continue;
        if (p->capability == 90 && (p->variant == 0 || p->variant == 3))
            precompile_hopper(p, dtype, dim_qk, dim_v);
        for (int general = 0; general < 2; general++) {
            attni_kernel_spec spec;
            attni_forward_tiles tiles;
            if (p->variant != 0 && p->variant != general + 1) continue;
            if (attni_cuda_forward_spec(dtype, dim_qk, dim_v, general != 0, shared_limit_of(p->capability),
                                        &spec, &tiles) == ATTN_OK) {
                precompile(p, &spec);
            } else {
                p->failed++;
                tool_failure("precompile", "%s", attn_last_error());
            }
        }
    }
}

static void precompile_all(precompiler *p, const int64_t *dims, const int64_t *dims_v, size_t count) {
    const attni_kernel_spec accum =
        attni_cuda_accum_spec("accum_merge"); /* accum_finish is in the same image */
    precompile(p, &accum);
    if (p->capability == 90 && (p->variant == 0 || p->variant == 3)) {
        const attni_kernel_spec sequences = attni_hopper_sequences_spec();
        precompile(p, &sequences);
    }
    for (size_t i = 0; i < count; i++) precompile_dims(p, dims[i], dims_v[i]);
}

/* The first device's capability; 0 where there is none. */
static int64_t find_capability(void) {
    const attni_driver *driver;
    attni_cu_device device;
    int major = 0, minor = 0;
    if (attni_driver_get(&driver) != ATTN_OK || driver->device_get(&device, 0) != ATTNI_CU_SUCCESS ||
        driver->device_attribute(&major, ATTNI_CU_CAPABILITY_MAJOR, device) != ATTNI_CU_SUCCESS ||
        driver->device_attribute(&minor, ATTNI_CU_CAPABILITY_MINOR, device) != ATTNI_CU_SUCCESS)
        return 0;
    return major * 10 + minor;
}

static int run(precompiler *p) {
    int64_t dims[DIM_LIMIT], dims_v[DIM_LIMIT];
    const size_t count = flags_parse_integers(p->dims, 1, ATTNI_DIM_LIMIT, dims, DIM_LIMIT);
    const size_t count_v =
        p->dims_v ? flags_parse_integers(p->dims_v, 1, ATTNI_DIM_LIMIT, dims_v, DIM_LIMIT) : count;
    if (count == 0)
        return tool_usage_error("precompile", "--dims is '%s'; it takes numbers with commas between them",
                                p->dims);
    if (count_v != count)
        return tool_usage_error("precompile", "--dims-v must have as many numbers as --dims");
    if (p->capability == 0 && (p->capability = find_capability()) == 0)
        return tool_usage_error(
            "precompile", "there is no CUDA device here, so --capability must say for which (90: compute "
                          "capability 9.0)");
    if (p->capability < 80)
        return tool_usage_error("precompile", "the kernels need compute capability 8.0 (80)");
    const int64_t *other = p->dims_v ? dims_v : dims;
    if (p->list) {
        precompile_all(p, dims, other, count);
        return p->failed ? TOOL_FAILED : TOOL_OK;
    }
    int version;
    if (attni_nvrtc_version(&version) != ATTN_OK) return tool_failure("precompile", "%s", attn_last_error());
    char folder[1024];
    attni_cache_folder(folder, sizeof folder);
    printf("NVRTC %d.%d (%s), for compute capability %d.%d, into %s\n", version / 1000, version % 1000,
           attni_nvrtc_path(), (int)p->capability / 10, (int)p->capability % 10, folder);
    precompile_all(p, dims, other, count);
    printf("%lld compiled, %lld failed\n", (long long)p->compiled, (long long)p->failed);
    return p->failed ? TOOL_FAILED : TOOL_OK;
}

int attn_tool_precompile(int argc, char **argv) {
    precompiler p = {.dims = "64,128,256"};
    const flag_row rows[] = {
        flag_text("--dims", &p.dims, "D,..", "head dims of Q and K (64,128,256)"),
        flag_text("--dims-v", &p.dims_v, "D,..", "head dims of V and O, one for each of --dims (the same)"),
        flag_choice("--dtype", &p.dtype, dtype_names,
                    "of q, k, v and o; f8, whose o is f16 and bf16, is not among all"),
        flag_choice("--variant", &p.variant, variant_names,
                    "fast: no softcap, bias, mask, ALiBi, dropout; hopper: forward_sm90"),
        flag_switch("--list", &p.list,
                    "only print name, source, least capability, options, threads and shared bytes"),
        flag_integer("--capability", &p.capability, 0, 999, "N",
                     "of the device, as 90 for 9.0; 0: this machine's first device"),
    };
    const flag_command command = {
        "precompile", "[OPTION]...",    "Compiles CUDA kernels that are not embedded into the disk cache.",
        rows,         FLAG_COUNT(rows), NULL};
    const int status = flags_parse(&command, argc, argv);
    return status == FLAGS_GO ? run(&p) : status;
}
