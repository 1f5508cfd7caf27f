/* The functions of kernels.def, declared. */
#ifndef ATTNI_KERNELS_H
#define ATTNI_KERNELS_H

#include "cpu/kernel.h"

#define FORWARD(name, isa, dtypes, bf16_only, most_rows, multiple, keys)                                     \
    void attni_##name(const attni_job *job, const attni_tile *tile, void *scratch);                          \
    size_t attni_##name##_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v);
#define DECODE(name, isa, dtypes, bf16_only, most_rows)                                                      \
    void attni_##name(const attni_job *job, const attni_tile *tile, int64_t begin, int64_t end,              \
                      attni_accum partial, int64_t partial_stride, void *scratch);                           \
    size_t attni_##name##_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v);
#include "cpu/kernels.def"
#undef FORWARD
#undef DECODE

#endif
