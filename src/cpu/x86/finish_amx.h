/* How a finished row of the AMX forward leaves: what emit_row does, for the usual case and many rows at once. */
#ifndef ATTNI_FINISH_AMX_H
#define ATTNI_FINISH_AMX_H

#include "cpu/emit.h"
#include "cpu/forward_scores.h"

/* Without optimization gcc 12's getexp and getmant are macros that turn a mask of 0xff into a char. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

/* log of positive numbers, off by 2e-9 and what rounding adds: 2 atanh((x - 1) / (x + 1)) of the mantissa, and the exponent. */
SIMD_INLINE __m512d amx_log(__m512d x) {
    const __m512d one = _mm512_set1_pd(1), m = _mm512_getmant_pd(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    const __m512d e = _mm512_mask_add_pd(_mm512_getexp_pd(x), _mm512_cmp_pd_mask(m, one, _CMP_LT_OQ),
                                         _mm512_getexp_pd(x), one); /* of m below 1 it is one more */
    const __m512d z = _mm512_div_pd(_mm512_sub_pd(m, one), _mm512_add_pd(m, one)), y = _mm512_mul_pd(z, z);
    __m512d p = _mm512_set1_pd(2.0 / 9);
    for (int i = 7; i > 0; i -= 2) p = _mm512_fmadd_pd(p, y, _mm512_set1_pd(2.0 / i));
    return _mm512_fmadd_pd(e, _mm512_set1_pd(0.6931471805599453), _mm512_mul_pd(p, z));
}

#pragma GCC diagnostic pop

/* LSE of 16 rows, -inf where nothing was seen. */
static void row_lse(const tile_rows *r, int64_t first, float lse[SIMD_LANES]) {
    for (int64_t i = 0; i < SIMD_LANES; i += 8) {
        const __m512d m = _mm512_cvtps_pd(_mm256_loadu_ps(r->m + first + i)),
                      l = _mm512_cvtps_pd(_mm256_loadu_ps(r->l + first + i));
        const __mmask8 seen = _mm512_cmp_pd_mask(l, _mm512_setzero_pd(), _CMP_NEQ_UQ);
        const __m512d sum = _mm512_fmadd_pd(m, _mm512_set1_pd(r->units.to_natural), amx_log(l));
        _mm256_storeu_ps(lse + i, _mm512_cvtpd_ps(_mm512_mask_mov_pd(_mm512_set1_pd(-INFINITY), seen, sum)));
    }
}

/*
 * Whole vectors of bf16 by the instruction for it, which rounds alike in half the operations, but takes
 * denormals as 0.
 */
SIMD_INLINE void store_rounded(attn_dtype dtype, void *to, vf x, int64_t count) {
    if (dtype == ATTN_BF16 && count == SIMD_LANES && _mm512_fpclass_ps_mask(x, 0x20) == 0)
        _mm256_storeu_si256(to, (__m256i)_mm512_cvtneps_pbh(x));
    else
        simd_store_part(dtype, to, x, count);
}

/* A finished row of a FORWARD without sinks; o is divided by the sum of P as it was rounded. */
static void store_row(const attni_job *job, const attni_tile *tile, int64_t row, float l, float rounded,
                      float lse, const float *o) {
    const attn_problem *p = job->p;
    if (job->t.lse != NULL)
        job->t.lse[attni_lse_index(job, &tile->sequence, attni_tile_head(job, tile, row),
                                   attni_row_query(job, row))] = lse;
    const vf factor = vf_set1(job->dropout_scale / (rounded == 0 ? l : rounded));
    const int64_t size = (int64_t)attni_dtype_size(p->dtype_o);
    char *out = attni_o_row(job, tile, row);
    for (int64_t d = 0; d < p->dim_v; d += SIMD_LANES) {
        const vf x = l == 0 ? vf_zero() : vf_mul(vf_load(o + d), factor);
        store_rounded(p->dtype_o, out + d * size, x, attni_min(SIMD_LANES, p->dim_v - d));
    }
}

#endif
