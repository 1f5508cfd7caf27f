/*
 * The register tiles of backward_body.h for AVX-512, full ones, as assembly: 24 sums (zmm0 to 23), vectors of B from zmm24 on
 * and numbers of A broadcast behind them.
 *
 * Beside a busy hardware thread a core has half of its scheduler and registers left, and multiply-adds that wait there
 * for their loads are what products lose by: a loop without loads keeps 0.96 of its rate, one whose loads nothing depends
 * on 0.90, one that loads a number and multiplies by it next 0.80 to 0.85. So numbers of A are loaded one to three rows before
 * their use, each vector of B right behind its last use in the step before, and half of S^T's numbers come within the
 * multiply-add, which needs no register for them. Compilers undo that: GCC 12 adds 8 to 14 instructions of moves and
 * spills to such a step of 34.
 *
 * Loads ahead run past the last step, by less than 256 bytes: behind every operand more of the workspace follows.
 */
#ifndef ATTNI_BACKWARD_TILES_AVX512_H
#define ATTNI_BACKWARD_TILES_AVX512_H

#include "cpu/forward_scores.h"

#define BACKWARD_OWN_TILES 1

/* clang-format off */
/* `lines` for each n of a list, which the assembler counts: a literal of ISO C has 4,095 characters at most. */
#define EACH(list, lines) ".irp n, " list "\n\t" lines ".endr\n\t"
#define SUMS "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
#define ZERO_SUMS EACH(SUMS, "vpxord %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t")
#define STORE_SUMS EACH(SUMS, "vmovups %%zmm\\n, 64 * \\n(%[c])\n\t")
#define ADD_SUMS EACH(SUMS, "vaddps 64 * \\n(%[c]), %%zmm\\n, %%zmm\\n\n\tvmovups %%zmm\\n, 64 * \\n(%[c])\n\t")
#define LANE(b, at) "vmovups " #at "(%[b]), %%zmm" #b "\n\t"
#define ONE(a, at) "vbroadcastss " #at "(%[a]), %%zmm" #a "\n\t"
#define SUM(c, b, a) "vfmadd231ps %%zmm" #a ", %%zmm" #b ", %%zmm" #c "\n\t"
#define SUM_OF(c, b, at) "vfmadd231ps " #at "(%[a])%{1to16%}, %%zmm" #b ", %%zmm" #c "\n\t"
#define EACH_ZMM                                                                                             \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",        \
    "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",       \
    "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

/* ---------------------------------------------------------------- 8 keys x 3 vectors of rows */

#define ROW_3(c0, c1, c2, a) SUM(c0, 24, a) SUM(c1, 25, a) SUM(c2, 26, a)
#define ROW_3_OF(c0, c1, c2, at) SUM_OF(c0, 24, at) SUM_OF(c1, 25, at) SUM_OF(c2, 26, at)
/* Dim n of four; leaves zmm27 and the vectors of B as the next wants them. */
#define ROWS_DIM                                                                                             \
    ONE(28, 32 * \\n + 8) ROW_3(0, 1, 2, 27) ROW_3_OF(3, 4, 5, 32 * \\n + 4)                                 \
    ONE(27, 32 * \\n + 16) ROW_3(6, 7, 8, 28) ROW_3_OF(9, 10, 11, 32 * \\n + 12)                             \
    ONE(28, 32 * \\n + 24) ROW_3(12, 13, 14, 27) ROW_3_OF(15, 16, 17, 32 * \\n + 20)                         \
    ONE(27, 32 * \\n + 32) ROW_3(18, 19, 20, 28)                                                             \
    SUM_OF(21, 24, 32 * \\n + 28) LANE(24, 192 * \\n + 192)                                                  \
    SUM_OF(22, 25, 32 * \\n + 28) LANE(25, 192 * \\n + 256)                                                  \
    SUM_OF(23, 26, 32 * \\n + 28) LANE(26, 192 * \\n + 320)

/* S^T or dP^T, stored; depth a multiple of 4, and with 4 dims half a line from `next` on is fetched. */
SIMD_INLINE void own_rows_tile(const float *a, const float *b, int64_t depth, const float *next, float *c) {
    int64_t left = depth / 4;
    __asm__ volatile(
        ZERO_SUMS ONE(27, 0) LANE(24, 0) LANE(25, 64) LANE(26, 128)
        "1:\n\t"
        EACH("0,1,2,3", ROWS_DIM)
        "prefetcht1 (%[next])\n\t"
        "add $32, %[next]\n\t"
        "add $4 * 32, %[a]\n\t"
        "add $4 * 192, %[b]\n\t"
        "dec %[left]\n\t"
        "jnz 1b\n\t"
        STORE_SUMS
        : [a] "+&r"(a), [b] "+&r"(b), [next] "+&r"(next), [left] "+&r"(left)
        : [c] "r"(c)
        : "memory", "cc", EACH_ZMM);
}

/* ---------------------------------------------------------------- 6 keys or rows x 4 vectors of dims */

#define ROW_4(c0, c1, c2, c3, a) SUM(c0, 24, a) SUM(c1, 25, a) SUM(c2, 26, a) SUM(c3, 27, a)
/* A step's last row, and the vectors of B of the next step, the m-th. */
#define LAST_4(c0, c1, c2, c3, a, m)                                                                         \
    SUM(c0, 24, a) LANE(24, 256 * (m)) SUM(c1, 25, a) LANE(25, 256 * (m) + 64)                               \
    SUM(c2, 26, a) LANE(26, 256 * (m) + 128) SUM(c3, 27, a) LANE(27, 256 * (m) + 192)
/* Two steps, n and n + 1, of A's rows r and steps s bytes apart; zmm28 to 30 hold rows 0 to 2 of the next. */
#define DIMS_STEPS(r, s)                                                                                     \
    ONE(31, s * \\n + 3 * r) ROW_4(0, 1, 2, 3, 28)                                                           \
    ONE(28, s * \\n + 4 * r) ROW_4(4, 5, 6, 7, 29)                                                           \
    ONE(29, s * \\n + 5 * r) ROW_4(8, 9, 10, 11, 30)                                                         \
    ONE(30, s * \\n + s) ROW_4(12, 13, 14, 15, 31)                                                           \
    ONE(31, s * \\n + s + r) ROW_4(16, 17, 18, 19, 28)                                                       \
    ONE(28, s * \\n + s + 2 * r) LAST_4(20, 21, 22, 23, 29, \\n + 1)                                         \
    ONE(29, s * \\n + s + 3 * r) ROW_4(0, 1, 2, 3, 30)                                                       \
    ONE(30, s * \\n + s + 4 * r) ROW_4(4, 5, 6, 7, 31)                                                       \
    ONE(31, s * \\n + s + 5 * r) ROW_4(8, 9, 10, 11, 28)                                                     \
    ONE(28, s * \\n + 2 * s) ROW_4(12, 13, 14, 15, 29)                                                       \
    ONE(29, s * \\n + 2 * s + r) ROW_4(16, 17, 18, 19, 30)                                                   \
    ONE(30, s * \\n + 2 * s + 2 * r) LAST_4(20, 21, 22, 23, 31, \\n + 2)

/* parts times 4 count steps; between the parts A goes on by `jump` bytes. With 4 steps a line behind C is fetched. */
#define DIMS_TILE(r, s)                                                                                      \
    __asm__ volatile(                                                                                        \
        ZERO_SUMS LANE(24, 0) LANE(25, 64) LANE(26, 128) LANE(27, 192)                                       \
        "2:\n\t"                                                                                             \
        "mov %[count], %[left]\n\t"                                                                          \
        ONE(28, 0) ONE(29, r) ONE(30, 2 * r)                                                                 \
        "1:\n\t"                                                                                             \
        EACH("0,2", DIMS_STEPS(r, s))                                                                        \
        "prefetcht0 (%[next])\n\t"                                                                           \
        "add $64, %[next]\n\t"                                                                               \
        "add $4 * " #s ", %[a]\n\t"                                                                          \
        "add $4 * 256, %[b]\n\t"                                                                             \
        "dec %[left]\n\t"                                                                                    \
        "jnz 1b\n\t"                                                                                         \
        "add %[jump], %[a]\n\t"                                                                              \
        "dec %[parts]\n\t"                                                                                   \
        "jnz 2b\n\t"                                                                                         \
        ADD_SUMS                                                                                             \
        : [a] "+&r"(a), [b] "+&r"(b), [next] "+&r"(next), [left] "=&r"(left), [parts] "+&r"(parts)           \
        : [c] "r"(c), [count] "r"(count), [jump] "r"(jump)                                                   \
        : "memory", "cc", EACH_ZMM)
/* clang-format on */

/* dV and dK (by_keys: rows of A are keys, FORWARD_SUB_ROWS apart) or dQ, added to C; block a multiple of 4. */
SIMD_INLINE void own_dims_tile(const int by_keys, const float *a, const float *b, int64_t block,
                               int64_t parts, float *c) {
    _Static_assert(FORWARD_SUB_ROWS == 48 && BACKWARD_MR == 6 && BACKWARD_NV == 4, "192 bytes");
    const float *next = c + BACKWARD_MR * BACKWARD_NV * SIMD_LANES;
    const int64_t count = block / 4,
                  jump = (BACKWARD_BLOCK * FORWARD_SUB_ROWS - block) * (int64_t)sizeof(float);
    int64_t left;
    if (by_keys)
        DIMS_TILE(192, 4);
    else
        DIMS_TILE(4, 192);
}

#endif
