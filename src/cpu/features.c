#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif

#include "cpu/features.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* XCR0: which register files the operating system saves on a switch. */
static uint64_t xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

/*
 * Linux gives a process the tiles' 8 KB only if asked; all its threads, present and future, then have them.
 * From then on it wants alternate signal stacks that can hold them, and it refuses where one cannot.
 */
static bool ask_for_tiles(void) {
#if ATTNI_TILES_IN_C /* a test's library: forward_amx.c needs none */
    return true;
#elif ATTNI_HAVE_AMX && defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* leaf7_d: EDX of CPUID 7. */
static bool has_tiles(uint32_t leaf7_d, uint64_t saved) {
#if ATTNI_TILES_IN_C
    (void)leaf7_d, (void)saved;
    return true;
#else
    const uint32_t tile_and_bf16 = 0x01400000u;
    return (leaf7_d & tile_and_bf16) == tile_and_bf16 && (saved & 0x60000) == 0x60000;
#endif
}

static void read_name(char name[64]) {
    uint32_t regs[12] = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &regs[4 * i], &regs[4 * i + 1], &regs[4 * i + 2], &regs[4 * i + 3]))
            return;
    memcpy(name, regs, sizeof regs);
    name[sizeof regs] = 0;
}

static void detect(attni_cpu_features *f) {
    uint32_t a, b, c, d, vendor_b = 0;
    strcpy(f->name, "x86-64");
    read_name(f->name);
    if (__get_cpuid(0, &a, &b, &c, &d)) vendor_b = b;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const bool osxsave = c & bit_OSXSAVE, fma = c & bit_FMA, f16c = c & bit_F16C, avx = c & bit_AVX;
    if (!osxsave || !avx) return;
    const uint64_t saved = xcr0();
    const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    const uint32_t leaves = a, leaf7_d = d;
    f->avx2 = ymm && fma && f16c && (b & bit_AVX2);
    f->avx512 =
        f->avx2 && zmm && (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_AVX512DQ) && (b & bit_AVX512VL);
    if (leaves < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return;
    f->avx512_bf16 = f->avx512 && (a & 0x20);
    f->amx = f->avx512_bf16 && has_tiles(leaf7_d, saved) && ask_for_tiles();
    /* AMD's cores issue two vdpbf16ps a cycle; Intel's (measured on Emerald Rapids) one in two. */
    f->bf16_dot_pays = f->avx512_bf16 && vendor_b == 0x68747541u; /* "Auth" of AuthenticAMD */
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <stdio.h>
#include <sys/auxv.h>

/* Bits of the kernel's arch/arm64/include/uapi/asm/hwcap.h, which old headers lack. */
enum { CAP_CPUID = 1 << 11, CAP2_BF16 = 1 << 14 };

static void detect(attni_cpu_features *f) {
    strcpy(f->name, "64-bit Arm");
    if (getauxval(AT_HWCAP) & CAP_CPUID) { /* the kernel answers for the register, which is not the user's */
        uint64_t midr;
        __asm__("mrs %0, midr_el1" : "=r"(midr));
        snprintf(f->name, sizeof f->name, "64-bit Arm, implementer 0x%02x, part 0x%03x",
                 (unsigned)(midr >> 24 & 0xff), (unsigned)(midr >> 4 & 0xfff));
    }
    f->neon = true; /* every 64-bit Arm that runs C with floating-point arguments has it */
    f->neon_bf16 = f->bf16_dot_pays = (getauxval(AT_HWCAP2) & CAP2_BF16) != 0;
}
#else
static void detect(attni_cpu_features *f) {
    strcpy(f->name, "64-bit Arm");
    f->neon = true;
}
#endif
#else
static void detect(attni_cpu_features *f) { strcpy(f->name, "a processor without kernels of its own"); }
#endif

const attni_cpu_features *attni_cpu_features_get(void) {
    static attni_cpu_features features;
    static atomic_int state; /* 0: nobody, 1: being read, 2: done */
    if (atomic_load_explicit(&state, memory_order_acquire) == 2) return &features;
    int expected = 0;
    if (atomic_compare_exchange_strong(&state, &expected, 1)) {
        detect(&features);
        atomic_store_explicit(&state, 2, memory_order_release);
    }
    while (atomic_load_explicit(&state, memory_order_acquire) != 2) {
    }
    return &features;
}

const char *attni_isa_name(attn_isa isa) {
    switch (isa) {
    case ATTN_ISA_AUTO: return "auto";
    case ATTN_ISA_PORTABLE: return "portable";
    case ATTN_ISA_AVX2: return "avx2";
    case ATTN_ISA_AVX512: return "avx512";
    case ATTN_ISA_AVX512_BF16: return "avx512_bf16";
    case ATTN_ISA_AMX: return "amx";
    case ATTN_ISA_NEON: return "neon";
    case ATTN_ISA_NEON_BF16: return "neon_bf16";
    case ATTN_ISA_SM80: return "sm80";
    case ATTN_ISA_SM90: return "sm90";
    }
    return "unknown";
}

const char *attni_isa_refusal(attn_isa isa) {
    const attni_cpu_features *f = attni_cpu_features_get();
    switch (isa) {
    case ATTN_ISA_AVX2:
        return f->avx2 ? NULL : "this processor or its operating system lacks AVX2, FMA or F16C";
    case ATTN_ISA_AVX512:
        return f->avx512 ? NULL : "this processor or its operating system lacks AVX-512 F, BW, DQ or VL";
    case ATTN_ISA_AVX512_BF16: return f->avx512_bf16 ? NULL : "this processor lacks AVX-512 BF16 (vdpbf16ps)";
    case ATTN_ISA_AMX:
        return f->amx ? NULL
                      : "this processor, its operating system or this build of the library "
                        "lacks AMX-BF16";
    case ATTN_ISA_NEON: return f->neon ? NULL : "this processor is no 64-bit Arm";
    case ATTN_ISA_NEON_BF16:
        return f->neon_bf16
                   ? NULL
                   : "this processor lacks FEAT_BF16 (bfmmla), or the operating system does not tell";
    case ATTN_ISA_SM80:
    case ATTN_ISA_SM90: return "it is a CUDA device's, and this is a CPU context";
    case ATTN_ISA_AUTO:
    case ATTN_ISA_PORTABLE: return NULL;
    }
    return "unknown";
}
