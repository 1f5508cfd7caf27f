/*
 * Each ceiling is a loop on every thread at once. The threads wait for each other before they begin,
 * and the rate is the work of all over the time from the first beginning to the last end, which is
 * how a kernel's time is taken too.
 *
 * Multiply-adds: twelve independent accumulators hide the latency (4 to 6 cycles times 2 pipes), none
 * leaves its register. Reading: the faster of two loops, each with several pointers a
 * thread, a cache line each in turn, prefetched some lines ahead; one stream a thread does not keep enough misses in
 * flight.
 */
#include "bench_peak.h"

#include "machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#define ARM 1
#include <arm_neon.h>
#endif

#if ATTNI_HAVE_AMX
#include "cpu/x86/tiles_amx.h"
#endif

/* ---------------------------------------------------------------- multiply-adds */

/*
 * Runs rounds of the loop and returns its floating-point operations. data holds DATA numbers between
 * -1 and 1, so that the multipliers toggle as in real work; *sink keeps the results alive.
 */
typedef double (*flops_fn)(int64_t rounds, const float *data, float *sink);
enum { DATA = 128 };

static double fma_portable(int64_t rounds, const float *data, float *sink) {
    enum { WIDTH = 64 };
    float sums[WIDTH];
    for (int j = 0; j < WIDTH; j++) sums[j] = data[j];
    for (int64_t i = 0; i < rounds; i++)
        for (int j = 0; j < WIDTH; j++) sums[j] = sums[j] * data[0] + data[1];
    for (int j = 0; j < WIDTH; j++) *sink += sums[j];
    return 2.0 * WIDTH * (double)rounds;
}

/*
 * Twelve accumulators as locals, so that they stay in registers. Each starts with other numbers:
 * the compiler would make equal ones one.
 */
#define DECLARE(type) type s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb
#define EACH(f) f(s0) f(s1) f(s2) f(s3) f(s4) f(s5) f(s6) f(s7) f(s8) f(s9) f(sa) f(sb)

#if X86
__attribute__((target("avx2,fma"))) static double fma_avx2(int64_t rounds, const float *data, float *sink) {
    const __m256 a = _mm256_loadu_ps(data), b = _mm256_loadu_ps(data + 32);
    __m256 sum = b;
    DECLARE(__m256);
#define BEGIN(s) s = _mm256_loadu_ps(data++);
#define STEP(s) s = _mm256_fmadd_ps(s, a, b);
#define END(s) sum = _mm256_add_ps(sum, s);
    EACH(BEGIN)
    for (int64_t i = 0; i < rounds; i++) {
        EACH(STEP)
    }
    EACH(END)
#undef BEGIN
#undef STEP
#undef END
    *sink += _mm256_cvtss_f32(sum);
    return 2.0 * 12 * 8 * (double)rounds;
}

#define BEGIN(s) s = _mm512_loadu_ps(data++);
#define END(s) sum = _mm512_add_ps(sum, s);

__attribute__((target("avx512f"))) static double fma_avx512(int64_t rounds, const float *data, float *sink) {
    const __m512 a = _mm512_loadu_ps(data), b = _mm512_loadu_ps(data + 32);
    __m512 sum = b;
    DECLARE(__m512);
#define STEP(s) s = _mm512_fmadd_ps(s, a, b);
    EACH(BEGIN)
    for (int64_t i = 0; i < rounds; i++) {
        EACH(STEP)
    }
    EACH(END)
#undef STEP
    *sink += _mm512_cvtss_f32(sum);
    return 2.0 * 12 * 16 * (double)rounds;
}

__attribute__((target("avx512f,avx512bf16"))) static double dot_bf16(int64_t rounds, const float *data,
                                                                     float *sink) {
    const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(data), _mm512_loadu_ps(data + 16));
    const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(data + 32), _mm512_loadu_ps(data + 48));
    __m512 sum = _mm512_loadu_ps(data);
    DECLARE(__m512);
#define STEP(s) s = _mm512_dpbf16_ps(s, a, b);
    EACH(BEGIN)
    for (int64_t i = 0; i < rounds; i++) {
        EACH(STEP)
    }
    EACH(END)
#undef STEP
    *sink += _mm512_cvtss_f32(sum);
    return 4.0 * 12 * 16 * (double)rounds;
}
#endif

#if ARM
/* Sixteen: four pipes of latency 4. */
#define EACH16(f) EACH(f) f(sc) f(sd) f(se) f(sf)

static double fma_neon(int64_t rounds, const float *data, float *sink) {
    const float32x4_t a = vld1q_f32(data), b = vld1q_f32(data + 32);
    float32x4_t sum = b, sc, sd, se, sf;
    DECLARE(float32x4_t);
#define BEGIN(s) s = vld1q_f32(data++);
#define STEP(s) s = vfmaq_laneq_f32(s, b, a, 1);
#define END(s) sum = vaddq_f32(sum, s);
    EACH16(BEGIN)
    for (int64_t i = 0; i < rounds; i++) {
        EACH16(STEP)
    }
    EACH16(END)
#undef BEGIN
#undef STEP
#undef END
    *sink += vgetq_lane_f32(sum, 0);
    return 2.0 * 16 * 4 * (double)rounds;
}
#endif

#if ATTNI_HAVE_AMX
/* 2 x 2 tiles of sums, as the kernel has them: four products in turn hide the latency of one. */
__attribute__((target("amx-tile,amx-bf16"))) static double dot_tiles(int64_t rounds, const float *data,
                                                                     float *sink) {
    uint32_t pairs[256];
    float sums[256];
    for (int i = 0; i < 256; i++) pairs[i] = 0x3f003f80u ^ ((uint32_t)(data[i % DATA] < 0) << 31);
    TILE_BEGIN();
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    TILE_LOAD(4, pairs, 64);
    TILE_LOAD(5, pairs, 64);
    TILE_LOAD(6, pairs, 64);
    TILE_LOAD(7, pairs, 64);
    for (int64_t i = 0; i < rounds; i++) {
        TILE_DOT(0, 4, 6);
        TILE_DOT(1, 4, 7);
        TILE_DOT(2, 5, 6);
        TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, sums, 64);
    TILE_END();
    *sink += sums[0];
    return 2.0 * 4 * 16 * 16 * 32 * (double)rounds;
}
#endif

typedef struct flops_loop {
    const char *name;
    flops_fn run;
} flops_loop;

static flops_loop find_loop(bench_peak peak) {
#if ATTNI_HAVE_AMX
    if (peak == BENCH_PEAK_TILES) return (flops_loop){"tdpbf16ps", dot_tiles};
#endif
#if X86
    if (peak == BENCH_PEAK_BF16 && __builtin_cpu_supports("avx512bf16"))
        return (flops_loop){"vdpbf16ps", dot_bf16};
    if (__builtin_cpu_supports("avx512f")) return (flops_loop){"fma_avx512", fma_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (flops_loop){"fma_avx2", fma_avx2};
#elif ARM
    if (peak == BENCH_PEAK_BF16)
        return (flops_loop){"bfmmla", bench_peak_bfmmla}; /* asked for by a kernel that has it */
    return (flops_loop){"fma_neon", fma_neon};
#else
    (void)peak;
#endif
    return (flops_loop){"fma_portable", fma_portable};
}

const char *bench_peak_name(bench_peak peak) { return find_loop(peak).name; }

/* ---------------------------------------------------------------- reading */

typedef uint64_t (*read_fn)(const char *from, size_t lines);

enum { LINE = 64, AHEAD = 16 * LINE, STREAM_LIMIT = 8 };

static uint64_t read_portable(const char *from, size_t lines) {
    uint64_t mix = 0;
    const uint64_t *words = (const uint64_t *)(const void *)from;
    for (size_t i = 0; i < lines * (LINE / sizeof *words); i++) mix ^= words[i];
    return mix;
}

#if X86
/* A line of each stream in turn, prefetched to L1 some lines ahead, and to L2 so many bytes ahead, or not. */
__attribute__((target("avx512f"), always_inline)) static inline uint64_t read_streams(const char *from,
                                                                                      size_t lines,
                                                                                      const int streams,
                                                                                      const size_t far) {
    const size_t part = lines / (size_t)streams * LINE;
    __m512i sum[STREAM_LIMIT];
    for (int j = 0; j < streams; j++) sum[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < part; i += LINE) {
        _Pragma("GCC unroll 8") for (int j = 0; j < streams; j++) {
            const char *p = from + (size_t)j * part + i;
            if (far != 0) _mm_prefetch(p + far, _MM_HINT_T1);
            _mm_prefetch(p + AHEAD, _MM_HINT_T0);
            sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(p));
        }
    }
    for (int j = 1; j < streams; j++) sum[0] = _mm512_xor_si512(sum[0], sum[j]);
    uint64_t words[8];
    _mm512_storeu_si512(words, sum[0]);
    return words[0] ^ words[7] ^ read_portable(from + (size_t)streams * part, lines % (size_t)streams);
}

__attribute__((target("avx512f"))) static uint64_t read_4(const char *from, size_t lines) {
    return read_streams(from, lines, 4, 0);
}

__attribute__((target("avx512f"))) static uint64_t read_6(const char *from, size_t lines) {
    return read_streams(from, lines, 6, 4096);
}
#endif

/*
 * What is tried. Of 1 to 16 streams and 0 to 64 lines ahead, 4 and 16 read fastest with one prefetch, on one thread
 * and on two; with a second one six streams are at times faster still, beside a busy hardware thread by 5%.
 */
static size_t read_loops(read_fn loops[BENCH_READ_LOOPS]) {
#if X86
    if (__builtin_cpu_supports("avx512f")) {
        loops[0] = read_4;
        loops[1] = read_6;
        return 2;
    }
#endif
    loops[0] = read_portable;
    return 1;
}

/* ---------------------------------------------------------------- threads */

typedef struct peak_team {
    atomic_int waiting; /* threads that have not come yet */
    flops_fn flops;     /* or null: read */
    read_fn read;
    int64_t rounds;
    float data[DATA];
} peak_team;

typedef struct member {
    peak_team *team;
    pthread_t thread;
    const char *from;
    size_t lines;
    double begin, end, work;
    float sink_flops;
    uint64_t sink_read;
} member;

static void *run_member(void *argument) {
    member *m = argument;
    atomic_fetch_sub(&m->team->waiting, 1);
    while (atomic_load(&m->team->waiting) > 0) sched_yield();
    m->begin = machine_seconds();
    if (m->team->flops != NULL)
        m->work = m->team->flops(m->team->rounds, m->team->data, &m->sink_flops);
    else
        m->sink_read = m->team->read(m->from, m->lines);
    m->end = machine_seconds();
    return NULL;
}

/* Runs all members, the first on the calling thread; the seconds from first begin to last end, or 0. */
static double run_team(peak_team *team, member *members, int threads) {
    int started = 1;
    atomic_init(&team->waiting, threads);
    for (; started < threads; started++)
        if (pthread_create(&members[started].thread, NULL, run_member, &members[started]) != 0) break;
    /* Those that could not be started must not be waited for. */
    atomic_fetch_sub(&team->waiting, threads - started);
    run_member(&members[0]);
    double begin = members[0].begin, end = members[0].end;
    for (int i = 1; i < started; i++) {
        pthread_join(members[i].thread, NULL);
        if (members[i].begin < begin) begin = members[i].begin;
        if (members[i].end > end) end = members[i].end;
    }
    return started == threads ? end - begin : 0;
}

double bench_peak_gflops(bench_peak peak, int threads) {
    member *members = calloc((size_t)threads, sizeof *members);
    if (members == NULL) return 0;
    const double wanted = 0.01;
    peak_team team = {.flops = find_loop(peak).run, .rounds = 20000};
    uint32_t random = 12345;
    for (int i = 0; i < DATA; i++) {
        random = random * 1664525u + 1013904223u;
        team.data[i] = (float)(int32_t)random * 0x1p-31f;
    }
    double rate = 0;
    /* The second time is the sample; the first warms up and says how long the loop must be. */
    for (int pass = 0; pass < 2; pass++) {
        double work = 0;
        for (int i = 0; i < threads; i++) members[i] = (member){.team = &team};
        const double seconds = run_team(&team, members, threads);
        if (seconds <= 0) break;
        for (int i = 0; i < threads; i++) work += members[i].work;
        rate = work / seconds * 1e-9;
        team.rounds = (int64_t)((double)team.rounds * wanted / seconds) + 1;
    }
    free(members);
    return rate;
}

int bench_peak_read_loops(void) {
    read_fn loops[BENCH_READ_LOOPS];
    return (int)read_loops(loops);
}

double bench_peak_read(const void *memory, size_t bytes, int threads, int loop) {
    member *members = calloc((size_t)threads, sizeof *members);
    if (members == NULL) return 0;
    const size_t lines = bytes / LINE / (size_t)threads;
    read_fn loops[BENCH_READ_LOOPS];
    read_loops(loops);
    peak_team team = {.flops = NULL, .read = loops[loop]};
    for (int i = 0; i < threads; i++)
        members[i] =
            (member){.team = &team, .from = (const char *)memory + (size_t)i * lines * LINE, .lines = lines};
    const double seconds = run_team(&team, members, threads);
    free(members);
    return seconds > 0 ? (double)(lines * LINE * (size_t)threads) / seconds * 1e-9 : 0;
}
