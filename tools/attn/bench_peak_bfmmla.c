/* The bf16 ceiling of 64-bit Arm, called only where a kernel with FEAT_BF16 runs. */
#include "bench_peak.h"

#include <arm_neon.h>

/* Each accumulator starts with other numbers: the compiler would make equal ones one. */
#define EACH(f)                                                                                              \
    f(s0) f(s1) f(s2) f(s3) f(s4) f(s5) f(s6) f(s7) f(s8) f(s9) f(sa) f(sb) f(sc) f(sd) f(se) f(sf)
#define BEGIN(s) float32x4_t s = vld1q_f32(data++);
#define STEP(s) s = vbfmmlaq_f32(s, a, b);
#define END(s) sum = vaddq_f32(sum, s);

double bench_peak_bfmmla(int64_t rounds, const float *data, float *sink) {
    uint16_t halves[16];
    for (int i = 0; i < 16; i++) halves[i] = data[i] < 0 ? 0xbf00 : 0x3f00;
    const bfloat16x8_t a = vreinterpretq_bf16_u16(vld1q_u16(halves)),
                       b = vreinterpretq_bf16_u16(vld1q_u16(halves + 8));
    float32x4_t sum = vdupq_n_f32(0);
    EACH(BEGIN)
    for (int64_t i = 0; i < rounds; i++) {
        EACH(STEP)
    }
    EACH(END)
    *sink += vgetq_lane_f32(sum, 0);
    return 2.0 * 16 * 16 * (double)rounds;
}
