/*
 * wgmma.mma_async (PTX ISA 9.7.16): 64 x n float32 accumulators of a warpgroup, += 64 x 16 times 16 x n (f8: 32).
 *
 * Included after BF16 and the two widths: WIDTH_S (scores: both operands in shared memory) and WIDTH_O
 * (output: the left operand in registers). A thread of the warpgroup holds rows lane / 4 and + 8 of its
 * warp's 16, and of each column group of 8 the columns 2 * (lane % 4) and + 1: accumulator d[4 i] and
 * d[4 i + 1] of the first row in group i, d[4 i + 2] and d[4 i + 3] of the second. Two neighbouring groups,
 * packed to 16 bits, are the left operand's four registers for those 16 columns: nothing moves.
 *
 * Instructions name every register, so their operands are lists; those are the only macros here.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_WGMMA_CUH
#define ATTNI_WGMMA_CUH

#include "ptx.cuh"

/* Step and types of each product, and which operands run along their columns: none may in 8 bits. */
#if F8
#define WGMMA_SCORES "k32.f32." F8_TYPE "." F8_TYPE
#define WGMMA_PRODUCT "k32.f32.e4m3." F8_TYPE
#define WGMMA_PLAIN ""
#define WGMMA_TURNED ""
#elif BF16
#define WGMMA_SCORES "k16.f32.bf16.bf16"
#define WGMMA_PRODUCT WGMMA_SCORES
#define WGMMA_PLAIN ", 0, 0"
#define WGMMA_TURNED ", 1"
#else
#define WGMMA_SCORES "k16.f32.f16.f16"
#define WGMMA_PRODUCT WGMMA_SCORES
#define WGMMA_PLAIN ", 0, 0"
#define WGMMA_TURNED ", 1"
#endif

/* ---------------------------------------------------------------- operand lists */

/* "%t0, %t1, ..": t is the tens. */
#define NAME2(t) "%" #t "0, %" #t "1"
#define NAME4(t) NAME2(t) ", %" #t "2, %" #t "3"
#define NAME6(t) NAME4(t) ", %" #t "4, %" #t "5"
#define NAME8(t) NAME6(t) ", %" #t "6, %" #t "7"
#define NAME10(t) NAME8(t) ", %" #t "8, %" #t "9"
#define NAME30 NAME10() ", " NAME10(1) ", " NAME10(2)
#define NAME40 NAME30 ", " NAME10(3)
#define NAME60 NAME40 ", " NAME10(4) ", " NAME10(5)
#define NAME80 NAME60 ", " NAME10(6) ", " NAME10(7)
#define NAME120 NAME80 ", " NAME10(8) ", " NAME10(9) ", " NAME10(10) ", " NAME10(11)

#define BOTH4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BOTH8(d, i) BOTH4(d, i), BOTH4(d, i + 4)
#define BOTH16(d, i) BOTH8(d, i), BOTH8(d, i + 8)
#define BOTH32(d, i) BOTH16(d, i), BOTH16(d, i + 16)
#define BOTH64(d, i) BOTH32(d, i), BOTH32(d, i + 32)
#define LIST16(d) BOTH16(d, 0)
#define LIST32(d) BOTH32(d, 0)
#define LIST36(d) BOTH32(d, 0), BOTH4(d, 32)
#define LIST40(d) BOTH32(d, 0), BOTH8(d, 32)
#define LIST48(d) BOTH32(d, 0), BOTH16(d, 32)
#define LIST56(d) LIST48(d), BOTH8(d, 48)
#define LIST64(d) BOTH64(d, 0)
#define LIST68(d) BOTH64(d, 0), BOTH4(d, 64)
#define LIST80(d) BOTH64(d, 0), BOTH16(d, 64)
#define LIST88(d) LIST80(d), BOTH8(d, 80)
#define LIST96(d) BOTH64(d, 0), BOTH32(d, 64)
#define LIST128(d) BOTH64(d, 0), BOTH64(d, 64)

/* Of each width: itself, the accumulators' names, their list, and the numbers of six operands after them. */
#define WGMMA_32(M) M(32, NAME10() ", " NAME6(1), LIST16, 16, 17, 18, 19, 20, 21)
#define WGMMA_64(M) M(64, NAME30 ", " NAME2(3), LIST32, 32, 33, 34, 35, 36, 37)
#define WGMMA_72(M) M(72, NAME30 ", " NAME6(3), LIST36, 36, 37, 38, 39, 40, 41)
#define WGMMA_80(M) M(80, NAME40, LIST40, 40, 41, 42, 43, 44, 45)
#define WGMMA_96(M) M(96, NAME40 ", " NAME8(4), LIST48, 48, 49, 50, 51, 52, 53)
#define WGMMA_112(M) M(112, NAME40 ", " NAME10(4) ", " NAME6(5), LIST56, 56, 57, 58, 59, 60, 61)
#define WGMMA_128(M) M(128, NAME60 ", " NAME4(6), LIST64, 64, 65, 66, 67, 68, 69)
#define WGMMA_136(M) M(136, NAME60 ", " NAME8(6), LIST68, 68, 69, 70, 71, 72, 73)
#define WGMMA_160(M) M(160, NAME80, LIST80, 80, 81, 82, 83, 84, 85)
#define WGMMA_176(M) M(176, NAME80 ", " NAME8(8), LIST88, 88, 89, 90, 91, 92, 93)
#define WGMMA_192(M) M(192, NAME80 ", " NAME10(8) ", " NAME6(9), LIST96, 96, 97, 98, 99, 100, 101)
#define WGMMA_256(M) M(256, NAME120 ", " NAME8(12), LIST128, 128, 129, 130, 131, 132, 133)
#define WGMMA_OF(width, M) WGMMA_OF_(width, M)
#define WGMMA_OF_(width, M) WGMMA_##width(M)

/* ---------------------------------------------------------------- functions */

/*
 * The high word of a descriptor (9.7.16.5.1): 8 rows of 128 bytes lie together, 128-byte swizzle. The low
 * word is wgmma_operand's: where the operand begins, and how far apart its chunks of 64 columns lie (read
 * only for a right operand whose columns run along memory).
 */
DEVICE u64 wgmma_descriptor(u32 low) { return ((u64)(1u << 30 | 1024 >> 4) << 32) | low; }

DEVICE u32 wgmma_operand(u32 address, u32 chunk_bytes) {
    return (address & 0x3ffff) >> 4 | chunk_bytes >> 4 << 16;
}

/* Orders this warpgroup's register accesses before its next wgmma. */
DEVICE void wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/* What was issued since the last commit becomes a group. */
DEVICE void wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/*
 * For accumulators of each width:
 *   wgmma_shared     d = or += (`add`) A B^T, both in shared memory with 64 columns of a row together
 *   wgmma_turned     d += A B, both in shared memory, A like wgmma_shared's, B with 8 columns of a row
 *                    together; of 16 bits
 *   wgmma_registers  d = or += A B, A in registers, B in shared memory with 64 columns of a row together (f8:
 *                    B^T, like wgmma_shared's)
 *   wgmma_wait_..    until no group is under way, or at most one: d may be read if its own is not
 *   wgmma_hold       d is not moved across this point, nor copied
 */
#define WGMMA_FUNCTIONS(n, NAMES, LIST, n0, n1, n2, n3, n4, n5)                                              \
    DEVICE void wgmma_shared(float (&d)[n / 2], u64 a, u64 b, int add) {                                     \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #n2 ", 0;\n"                                       \
                     "wgmma.mma_async.sync.aligned.m64n" #n WGMMA_SCORES " {" NAMES "}, %" #n0 ", %" #n1     \
                     ", p, 1, 1" WGMMA_PLAIN ";\n}"                                                          \
                     : LIST(d)                                                                               \
                     : "l"(a), "l"(b), "r"(add));                                                            \
    }                                                                                                        \
    DEVICE void wgmma_turned(float (&d)[n / 2], u64 a, u64 b) {                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #n WGMMA_SCORES " {" NAMES "}, %" #n0 ", %" #n1     \
                     ", 1, 1, 1, 0, 1;"                                                                      \
                     : LIST(d)                                                                               \
                     : "l"(a), "l"(b));                                                                      \
    }                                                                                                        \
    DEVICE void wgmma_registers(float (&d)[n / 2], const u32 *a, u64 b, int add) {                           \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #n5 ", 0;\n"                                       \
                     "wgmma.mma_async.sync.aligned.m64n" #n WGMMA_PRODUCT " {" NAMES "}, {%" #n0 ", %" #n1   \
                     ", %" #n2 ", %" #n3 "}, %" #n4 ", p, 1, 1" WGMMA_TURNED ";\n}"                          \
                     : LIST(d)                                                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                        \
    }                                                                                                        \
    DEVICE void wgmma_wait_for_all(float (&d)[n / 2]) {                                                      \
        asm volatile("wgmma.wait_group.sync.aligned 0;" : LIST(d) : : "memory");                             \
    }                                                                                                        \
    DEVICE void wgmma_wait_but_one(float (&d)[n / 2]) {                                                      \
        asm volatile("wgmma.wait_group.sync.aligned 1;" : LIST(d) : : "memory");                             \
    }                                                                                                        \
    DEVICE void wgmma_hold(float (&d)[n / 2]) { asm volatile("" : LIST(d) : : "memory"); }

WGMMA_OF(WIDTH_S, WGMMA_FUNCTIONS)
#if WIDTH_O != WIDTH_S
WGMMA_OF(WIDTH_O, WGMMA_FUNCTIONS)
#endif

#endif
