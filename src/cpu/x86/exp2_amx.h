/* The exponential of the AMX kernels' vector half. Included after the vector layer. */
#ifndef ATTNI_EXP2_AMX_H
#define ATTNI_EXP2_AMX_H

/*
 * 2^x where `seen`, else 0: x = floor(x) + f, 2^f by a polynomial of degree 5 on [0, 1) (minimax
 * with P(0) = 1, relative error 1.4e-7), times 2^floor(x). -inf gives 0, as does what would be denormal, since the
 * kernels flush those; NaN stays NaN.
 */
SIMD_INLINE vf amx_exp2(vmask seen, vf x) {
    const vf f = _mm512_reduce_ps(x, 0x09); /* x - floor(x) */
    vf p = vf_set1(0x1.e974fap-10f);
    p = vf_fma(p, f, vf_set1(0x1.27785ap-7f));
    p = vf_fma(p, f, vf_set1(0x1.c91ce8p-5f));
    p = vf_fma(p, f, vf_set1(0x1.ebdb5ap-3f));
    p = vf_fma(p, f, vf_set1(0x1.62e4bap-1f));
    p = vf_fma(p, f, vf_set1(1.0f));
    return _mm512_maskz_scalef_ps(seen, p, x);
}

#endif
