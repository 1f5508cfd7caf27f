/* What this processor and its operating system can run; read once. */
#ifndef ATTNI_FEATURES_H
#define ATTNI_FEATURES_H

#include <stdbool.h>

#include "attn/attn.h"

typedef struct attni_cpu_features {
    char name[64];
    bool avx2;        /* and FMA and F16C, with the OS saving ymm */
    bool avx512;      /* F, BW, DQ, VL, with the OS saving zmm and masks */
    bool avx512_bf16; /* and vdpbf16ps */
    bool amx;         /* and AMX-BF16, with the OS saving tiles and letting this process use them */
    bool neon;          /* 64-bit Arm */
    bool neon_bf16;     /* and bfmmla (FEAT_BF16) */
    bool bf16_dot_pays; /* vdpbf16ps or bfmmla does more flop a cycle than the f32 FMA */
} attni_cpu_features;

const attni_cpu_features *attni_cpu_features_get(void);

/* Null if this machine runs isa, else the reason. */
const char *attni_isa_refusal(attn_isa isa);
const char *attni_isa_name(attn_isa isa);

#endif
