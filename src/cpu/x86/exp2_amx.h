/* The exponential of the AMX kernels' vector half. Included after the vector layer. */
#ifndef ATTNI_EXP2_AMX_H
#define ATTNI_EXP2_AMX_H

/*
 * 2^x: x = floor(x) + f, 2^f by a polynomial of degree 5 on [0, 1) (minimax with P(0) = 1, relative error 1.4e-7), times
 * 2^floor(x). -inf gives 0, as does what would be denormal, since the kernels flush those; NaN stays NaN.
 */
#define EXP2_5 0x1.e974fap-10f
#define EXP2_4 0x1.27785ap-7f
#define EXP2_3 0x1.c91ce8p-5f
#define EXP2_2 0x1.ebdb5ap-3f
#define EXP2_1 0x1.62e4bap-1f

/* One vector; 0 where not `seen`. */
SIMD_INLINE vf amx_exp2(vmask seen, vf x) {
    const vf f = _mm512_reduce_ps(x, 0x09); /* x - floor(x) */
    vf p = vf_set1(EXP2_5);
    p = vf_fma(p, f, vf_set1(EXP2_4));
    p = vf_fma(p, f, vf_set1(EXP2_3));
    p = vf_fma(p, f, vf_set1(EXP2_2));
    p = vf_fma(p, f, vf_set1(EXP2_1));
    p = vf_fma(p, f, vf_set1(1.0f));
    return _mm512_maskz_scalef_ps(seen, p, x);
}

/*
 * Four vectors, in two halves: chains of dependent operations, step by step. Beside a busy hardware thread the core's window
 * is half as long as else and holds hardly more than one chain of 45 cycles. TOGETHER keeps the compiler from putting one
 * after another.
 */
#define CHAINS 4
#define TOGETHER(x) __asm__("" : "+v"((x)[0]), "+v"((x)[1]), "+v"((x)[2]), "+v"((x)[3]))

typedef struct exp2_chains {
    vf x[CHAINS], f[CHAINS], p[CHAINS];
} exp2_chains;

SIMD_INLINE void exp2_step(exp2_chains *e, float coefficient) {
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++) e->p[i] = vf_fma(e->p[i], e->f[i], vf_set1(coefficient));
    TOGETHER(e->p);
}

/* The first half of the operations, from x on. */
SIMD_INLINE void exp2_begin(exp2_chains *e) {
    TOGETHER(e->x);
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++) e->f[i] = _mm512_reduce_ps(e->x[i], 0x09); /* x - floor(x) */
    TOGETHER(e->f);
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++) e->p[i] = vf_set1(EXP2_5);
    exp2_step(e, EXP2_4);
    exp2_step(e, EXP2_3);
}

/* The second: p is 2^x. */
SIMD_INLINE void exp2_end(exp2_chains *e) {
    exp2_step(e, EXP2_2);
    exp2_step(e, EXP2_1);
    exp2_step(e, 1.0f);
    SIMD_UNROLL
    for (int i = 0; i < CHAINS; i++) e->p[i] = _mm512_scalef_ps(e->p[i], e->x[i]);
    TOGETHER(e->p);
}

#endif
