/* What the machine can do at best, measured beside the kernels: the ceilings of `attn bench`. */
#ifndef ATTN_TOOL_BENCH_PEAK_H
#define ATTN_TOOL_BENCH_PEAK_H

#include <stddef.h>
#include <stdint.h>

typedef enum bench_peak { BENCH_PEAK_FMA, BENCH_PEAK_BF16, BENCH_PEAK_TILES } bench_peak;

/* The loop that is measured: "fma_avx512", "fma_avx2", "fma_neon", "fma_portable", "vdpbf16ps", "bfmmla",
 * "tdpbf16ps". */
const char *bench_peak_name(bench_peak peak);

/* 64-bit Arm's bfmmla, in a file with flags of its own: so many rounds; gives their floating-point operations. */
double bench_peak_bfmmla(int64_t rounds, const float *data, float *sink);

/*
 * One sample of some 10 ms: GFLOP/s of all threads together, multiply-adds on registers alone. The
 * dot-product peak falls back to the other where the machine has no such instruction; the tiles' is only for
 * machines on which a kernel with them runs.
 */
double bench_peak_gflops(bench_peak peak, int threads);

/*
 * One sample: GB/s at which threads together read bytes of memory, each its own part, by loop number loop of so many.
 * Which is the fastest depends on the neighbours: the ceiling is the larger of their medians.
 */
enum { BENCH_READ_LOOPS = 2 };
int bench_peak_read_loops(void);
double bench_peak_read(const void *memory, size_t bytes, int threads, int loop);

#endif
