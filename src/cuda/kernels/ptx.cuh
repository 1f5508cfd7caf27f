/*
 * One function an instruction, each named with its section of the PTX ISA. Nothing else in this folder
 * holds inline assembly for sm_80.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_PTX_CUH
#define ATTNI_PTX_CUH

#define DEVICE static __device__ __forceinline__

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef long long i64;

/* The 32-bit shared address of a generic pointer. */
DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

/* 9.7.9.25.3.1 cp.async: 16 bytes, of which the first `bytes` (0 or 16) are read and the rest are zeros. */
DEVICE void cp_async_16(u32 to, const void *from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

/* 9.7.9.25.3.2 cp.async.commit_group */
DEVICE void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* 9.7.9.25.3.3 cp.async.wait_group: at most `pending` groups are left. */
#define cp_async_wait(pending) asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory")

/* 9.7.13.1 bar.sync: all warps of the block, each from its own place in the program. */
DEVICE void block_barrier(void) { asm volatile("bar.sync 0;" ::: "memory"); }

/* 9.7.15.5.15 ldmatrix: four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of
 * matrix i / 8, and holds elements 2 * (lane % 4) and the next of row lane / 4 of each. */
DEVICE void ldmatrix_x4(u32 r[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* The same, each matrix transposed on the way. */
DEVICE void ldmatrix_x4_trans(u32 r[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* 9.7.15.5.14 mma.m16n8k16: c += a b. a: rows lane / 4 and + 8, columns 2 * (lane % 4) and + 8, two each;
 * b: column lane / 4; c: rows lane / 4 (c[0], c[1]) and + 8 (c[2], c[3]), columns 2 * (lane % 4), + 1. */
DEVICE void mma_16816(float c[4], const u32 a[4], u32 b0, u32 b1) {
#if BF16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* 9.7.9.21 cvt: two floats to one register of 16-bit elements, the first in the low half. */
DEVICE u32 pack_16(float low, float high) {
    u32 r;
#if BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#endif
    return r;
}

/* 9.7.9.21 cvt: a 16-bit element as a float. */
DEVICE float bf16_to_float(u16 x) { return __uint_as_float((u32)x << 16); }

DEVICE float f16_to_float(u16 x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
    return r;
}

/* 9.7.3.22 ex2.approx: 2^x, within 2 ulp; 0 for -inf. */
DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

#endif
