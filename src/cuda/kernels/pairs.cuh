/*
 * Pairs of f16 in a register, the first of them in its lower half.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_PAIRS_CUH
#define ATTNI_PAIRS_CUH

#include "ptx.cuh"

DEVICE float low_half(u32 x) {
    float r;
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, low;\n}" : "=f"(r) : "r"(x));
    return r;
}

DEVICE float high_half(u32 x) {
    float r;
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, high;\n}" : "=f"(r) : "r"(x));
    return r;
}

DEVICE u32 pair_of(float x) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %1;" : "=r"(r) : "f"(x));
    return r;
}

DEVICE u32 pair_fma(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

DEVICE u32 pair_add(u32 a, u32 b) {
    u32 r;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

DEVICE u32 pair_subtract(u32 a, u32 b) {
    u32 r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

DEVICE u32 pair_multiply(u32 a, u32 b) {
    u32 r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

DEVICE u32 pair_max(u32 a, u32 b) {
    u32 r;
    asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/* NaN where x is. */
DEVICE u32 pair_clamp(u32 x, u32 least, u32 most) {
    asm("max.NaN.f16x2 %0, %0, %1;\nmin.NaN.f16x2 %0, %0, %2;" : "+r"(x) : "r"(least), "r"(most));
    return x;
}

/* The two are put together by hand, or the assembler does so for every use. */
DEVICE u32 pair_exp2(u32 x) {
    u32 r;
    asm("{\n.reg .b16 a, b;\n.reg .b32 low, high;\nmov.b32 {a, b}, %1;\nex2.approx.f16 a, a;\nex2.approx.f16 "
        "b, b;\n"
        "cvt.u32.u16 low, a;\ncvt.u32.u16 high, b;\nprmt.b32 %0, low, high, 0x5410;\n}"
        : "=r"(r)
        : "r"(x));
    return r;
}

/*
 * The same in arithmetic: 2^n (1 + f (a + f (b + f c))), n the nearest whole number and f the rest, within 2^-13 and
 * what f16 rounds, 2^-11 in all. Adding 1536 leaves n in the lowest bits; it joins the exponents of the pair at once, where a
 * carry of the lower into the upper is a unit in its last place. From 2^-14 on down it fades to 0, which it is below
 * 2^-15. Beyond 2^15 it stays there, and NaN gives 65504 or NaN: all more than GUARD.
 */
DEVICE u32 pair_exp2_cubic(u32 x) {
    const u32 clamped = pair_clamp(x, 0xcb80cb80u /* -15 */, 0x4b804b80u /* 15 */),
              shifted = pair_add(clamped, 0x66006600u /* 1536 */),
              rest = pair_subtract(clamped, pair_subtract(shifted, 0x66006600u)),
              slope = pair_fma(pair_fma(rest, 0x2aff2affu /* 0.05466 */, 0x33c033c0u /* 0.2422 */), rest,
                               0x398c398cu /* 0.6934 */),
              mantissa = pair_fma(slope, rest, 0x3c003c00u /* 1 */);
    return mantissa + ((shifted & 0x003f003fu) << 10);
}

/* 9.7.9.21 cvt: two pairs of f16 to four e4m3, the first in the lowest byte; beyond 448 it stays 448. */
DEVICE u32 pairs_to_e4m3(u32 a, u32 b) {
    u32 r;
    asm("{\n.reg .b16 low, high;\ncvt.rn.satfinite.e4m3x2.f16x2 low, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f16x2 high, %2;\nmov.b32 %0, {low, high};\n}"
        : "=r"(r)
        : "r"(a), "r"(b));
    return r;
}

DEVICE u32 pair_absolute(u32 x) {
    u32 r;
    asm("abs.f16x2 %0, %1;" : "=r"(r) : "r"(x));
    return r;
}

/* Four elements of Q to two pairs, and back. */
DEVICE void f8_to_pairs(u32 x, u32 pair[2]) {
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.rn.f16x2." F8_TYPE "x2 %0, low;\n"
        "cvt.rn.f16x2." F8_TYPE "x2 %1, high;\n}"
        : "=r"(pair[0]), "=r"(pair[1])
        : "r"(x));
}

DEVICE u32 pairs_to_f8(u32 a, u32 b) {
    u32 r;
    asm("{\n.reg .b16 low, high;\ncvt.rn.satfinite." F8_TYPE "x2.f16x2 low, %1;\n"
        "cvt.rn.satfinite." F8_TYPE "x2.f16x2 high, %2;\nmov.b32 %0, {low, high};\n}"
        : "=r"(r)
        : "r"(a), "r"(b));
    return r;
}

#endif
