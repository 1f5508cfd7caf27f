/*
 * wgmma with f16 accumulators (PTX ISA 9.7.16): 64 x n of a warpgroup, in pairs of neighbouring columns. A thread's
 * d[2 i] is of its first row and column group i of 8, d[2 i + 1] of its second: what the float32 accumulators d[4 i]
 * to d[4 i + 3] of wgmma.cuh are. Half the registers, and half of what wgmma reads and writes of them.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_WGMMA_HALF_CUH
#define ATTNI_WGMMA_HALF_CUH

#include "wgmma.cuh"

#define PAIRS4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define PAIRS16(d, i) PAIRS4(d, i), PAIRS4(d, i + 4), PAIRS4(d, i + 8), PAIRS4(d, i + 12)
#define PAIRS32(d) PAIRS16(d, 0), PAIRS16(d, 16)

/* d = or += (`add`) A B^T, both in shared memory with the columns of a row together. */
DEVICE void wgmma_shared(u32 (&d)[32], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f16." F8_TYPE "." F8_TYPE " {" NAME30
                 ", " NAME2(3) "}, %32, %33, p, 1, 1;\n}"
                 : PAIRS32(d)
                 : "l"(a), "l"(b), "r"(add));
}

/* As in wgmma.cuh. */
DEVICE void wgmma_wait_for_all(u32 (&d)[32]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" : PAIRS32(d) : : "memory");
}

DEVICE void wgmma_wait_but_one(u32 (&d)[32]) {
    asm volatile("wgmma.wait_group.sync.aligned 1;" : PAIRS32(d) : : "memory");
}

DEVICE void wgmma_hold(u32 (&d)[32]) { asm volatile("" : PAIRS32(d) : : "memory"); }

#endif
