/* The table of kernels.def, and the public list of it. */
#include "cpu/features.h"
#include "cpu/kernels.h"

const attni_cpu_kernel attni_cpu_kernels[] = {
#define FORWARD(symbol, isa_, dtypes_, bf16, rows, multiple, keys, blocks)                                   \
    {.name = #symbol,                                                                                        \
     .op = "forward",                                                                                        \
     .isa = isa_,                                                                                            \
     .dtypes = dtypes_,                                                                                      \
     .bf16_only = bf16,                                                                                      \
     .tile_rows = rows,                                                                                      \
     .sub_rows = multiple,                                                                                   \
     .block_keys = keys,                                                                                     \
     .forward = attni_##symbol,                                                                              \
     .block_bytes = blocks,                                                                                  \
     .scratch_bytes = attni_##symbol##_scratch},
#define DECODE(symbol, isa_, dtypes_, bf16, rows)                                                            \
    {.name = #symbol,                                                                                        \
     .op = "decode",                                                                                         \
     .isa = isa_,                                                                                            \
     .dtypes = dtypes_,                                                                                      \
     .bf16_only = bf16,                                                                                      \
     .tile_rows = rows,                                                                                      \
     .sub_rows = 1,                                                                                          \
     .decode = attni_##symbol,                                                                               \
     .merge = attni_##symbol##_merge,                                                                        \
     .scratch_bytes = attni_##symbol##_scratch},
#define BACKWARD(symbol, isa_, dtypes_, bf16, rows, keys, panels)                                            \
    {.name = #symbol,                                                                                        \
     .op = "backward",                                                                                       \
     .isa = isa_,                                                                                            \
     .dtypes = dtypes_,                                                                                      \
     .bf16_only = bf16,                                                                                      \
     .tile_rows = rows,                                                                                      \
     .sub_rows = 1,                                                                                          \
     .block_keys = keys,                                                                                     \
     .backward = attni_##symbol,                                                                             \
     .panel_bytes = panels,                                                                                  \
     .scratch_bytes = attni_##symbol##_scratch},
#include "cpu/kernels.def"
#undef FORWARD
#undef DECODE
#undef BACKWARD
};

const int32_t attni_cpu_kernel_count = sizeof attni_cpu_kernels / sizeof attni_cpu_kernels[0];

int32_t attn_kernel_count(void) {
#if ATTNI_HAVE_CUDA
    return attni_cpu_kernel_count + attni_cuda_kernel_count();
#else
    return attni_cpu_kernel_count;
#endif
}

attn_status attn_kernel_get(int32_t index, attn_kernel_info *info) {
    if (info == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "info is null");
    if (index < 0 || index >= attn_kernel_count())
        return attni_fail(ATTN_INVALID_ARGUMENT, "index is %d; allowed is 0 to %d", index,
                          attn_kernel_count() - 1);
    if (info->struct_size < sizeof *info)
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "info.struct_size is %zu; this library's is %zu: start from the INIT macro",
                          info->struct_size, sizeof *info);
#if ATTNI_HAVE_CUDA
    if (index >= attni_cpu_kernel_count) {
        attni_cuda_kernel_get(index - attni_cpu_kernel_count, info);
        return ATTN_OK;
    }
#endif
    const attni_cpu_kernel *k = &attni_cpu_kernels[index];
    info->name = k->name;
    info->device = ATTN_DEVICE_CPU;
    info->isa = k->isa;
    info->op = k->op;
    info->dtypes = k->dtypes;
    info->refusal = attni_isa_refusal(k->isa);
    return ATTN_OK;
}
