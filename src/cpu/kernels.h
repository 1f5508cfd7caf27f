/* The functions of kernels.def, declared, and its sizes as constants: each forward_*.c holds its own to them. */
#ifndef ATTNI_KERNELS_H
#define ATTNI_KERNELS_H

#include "cpu/kernel.h"

#define FORWARD(name, isa, dtypes, bf16_only, most_rows, multiple, keys, blocks)                             \
    void attni_##name(const attni_job *job, const attni_tile *tile, void *scratch);                          \
    size_t attni_##name##_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v);               \
    enum { attni_##name##_rows = most_rows, attni_##name##_multiple = multiple, attni_##name##_keys = keys };
#define DECODE(name, isa, dtypes, bf16_only, most_rows)                                                      \
    void attni_##name(const attni_job *job, const attni_decode_pieces *pieces, void *scratch);               \
    void attni_##name##_merge(const attni_job *job, const attni_tile *tile, attni_accum into,                \
                              attni_accum piece, bool emit);                                                 \
    size_t attni_##name##_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v);               \
    enum { attni_##name##_rows = most_rows };
#define BACKWARD(name, isa, dtypes, bf16_only, rows, keys, panels)                                           \
    void attni_##name(const attni_job *job, const attni_chunk *chunk, void *scratch);                        \
    size_t attni_##name##_scratch(int64_t rows_of_chunk, int64_t keys_of_chunk, int64_t dim_qk,              \
                                  int64_t dim_v);                                                            \
    enum { attni_##name##_rows = rows, attni_##name##_keys = keys };
#include "cpu/kernels.def"
#undef FORWARD
#undef DECODE
#undef BACKWARD

size_t attni_forward_amx_block(int64_t dim_qk, int64_t dim_v);
size_t attni_backward_amx_panels(int64_t rows, int64_t keys, int64_t dim_qk, int64_t dim_v);

/* After forward_body.h: the row of kernels.def says what the file was compiled with. */
#define ATTNI_ASSERT_ROW(name)                                                                               \
    _Static_assert(FORWARD_TILE_ROWS == attni_##name##_rows &&                                               \
                       FORWARD_SUB_ROWS == attni_##name##_multiple && FORWARD_KEYS == attni_##name##_keys,   \
                   "kernels.def and " #name ".c disagree")
#define ATTNI_ASSERT_BACKWARD_ROW(name)                                                                      \
    _Static_assert(FORWARD_TILE_ROWS == attni_##name##_rows && BACKWARD_KEYS == attni_##name##_keys,         \
                   "kernels.def and " #name ".c disagree")

#endif
