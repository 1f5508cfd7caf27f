/* Mathematics of scores that forward and decode share: tanh, the options of one row, its dropout. */
#ifndef ATTNI_SCORE_MATH_H
#define ATTNI_SCORE_MATH_H

#include "core/philox.h"
#include "cpu/kernel.h"

/* A function that stays one, so that the file compiles in less time. */
#ifndef SIMD_CALLED
#if defined(__GNUC__)
#define SIMD_CALLED __attribute__((noinline))
#else
#define SIMD_CALLED
#endif
#endif

#define LOG2_E 1.44269504088896341f
#define LN_2 0.69314718055994530942
#define LAZY 8.0f /* log2 of how much a row's maximum may outgrow its reference */

/*
 * Scores in memory are in units of their own: raw products where scale is all that is asked for, else natural.
 * 2^(s * to_log2) and exp(s * to_natural) are the same number; to_log2 > 0. References m are in the same units,
 * so that s - m is exact where it matters, however large both are.
 */
typedef struct score_units {
    float to_log2;
    double to_natural;
    float lazy; /* LAZY in these units */
} score_units;

static inline score_units score_units_of(const attni_job *job) {
    score_units u;
    u.to_natural = job->options & ATTNI_SCORE_OPTIONS ? 1.0 : (double)job->t.scale;
    u.to_log2 = (float)(u.to_natural / LN_2);
    u.lazy = u.to_log2 > LAZY * 0x1p-120f ? LAZY / u.to_log2 : 0x1p120f;
    return u;
}

/* 2^y, where a layer has nothing shorter. */
#ifndef SIMD_EXP2_OF
SIMD_INLINE vf vf_exp2_of(vf y) { return vf_exp2(y, vf_set1(1.0f)); }
#endif

/* tanh: an odd polynomial below 0.625 (coefficients of Cephes' tanhf), else 1 - 2 / (e^2x + 1). */
SIMD_INLINE vf vf_tanh(vf x) {
    const vf one = vf_set1(1.0f), a = vf_abs(x), z = vf_mul(x, x);
    vf p = vf_set1(-5.70498872745e-3f);
    p = vf_fma(p, z, vf_set1(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set1(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set1(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set1(-3.33332819422e-1f));
    const vf low = vf_fma(vf_mul(p, z), x, x);
    const vf capped = vf_select(vf_greater(a, vf_set1(10.0f)), vf_set1(10.0f), a); /* 1 to float's last bit */
    const vf e = vf_exp2(capped, vf_set1(2 * LOG2_E));
    const vf high = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(e, one)));
    const vf signed_high = vf_select(vf_greater(vf_zero(), x), vf_sub(vf_zero(), high), high);
    return vf_select(vf_greater(a, vf_set1(0.625f)), signed_high, low);
}

/* A bias of any dtype added, and -inf where a boolean mask hides a key: scores of one row, stride apart. */
static void score_row_inputs(const attni_job *job, const attni_tile *tile, int64_t row, int64_t key0,
                             int64_t count, float *s, int64_t stride) {
    const attn_problem *p = job->p;
    const int64_t batch = tile->sequence.batch, head = attni_tile_head(job, tile, row),
                  query = row / job->group;
    count = attni_min(count, tile->sequence.k_len - key0); /* keys beyond the length are never read */
    if (job->options & ATTNI_BIAS) {
        const int64_t at = batch * p->bias.batch + head * p->bias.heads + query * p->bias.queries + key0;
        for (int64_t j = 0; j < count; j += SIMD_LANES) {
            float part[SIMD_LANES];
            const int64_t n = attni_min(SIMD_LANES, count - j);
            vf_store(part,
                     n == SIMD_LANES
                         ? simd_load(p->dtype_bias, attni_at(job->t.bias, p->dtype_bias, at + j))
                         : simd_load_part(p->dtype_bias, attni_at(job->t.bias, p->dtype_bias, at + j), n));
            for (int64_t i = 0; i < n; i++) s[(j + i) * stride] += part[i];
        }
    }
    if (job->options & ATTNI_MASK) {
        const uint8_t *mask = job->t.mask + batch * p->mask_strides.batch + head * p->mask_strides.heads +
                              query * p->mask_strides.queries + key0;
        for (int64_t j = 0; j < count; j++)
            if (mask[j] == 0) s[j * stride] = -INFINITY;
    }
}

/* SIMD_LANES raw products become scores: scale, softcap, ALiBi with each lane's slope and distance. */
SIMD_INLINE vf score_options_vector(const attni_job *job, vf s, vf slope, vf distance) {
    vf x = vf_mul(s, vf_set1(job->t.scale));
    if (job->options & ATTNI_SOFTCAP)
        x = vf_mul(vf_tanh(vf_div(x, vf_set1(job->p->softcap))), vf_set1(job->p->softcap));
    if (job->options & ATTNI_ALIBI) x = vf_sub(x, vf_mul(slope, vf_abs(distance)));
    return x;
}

#endif
