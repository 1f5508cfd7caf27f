/*
 * AMX's tiles: eight registers of 16 rows of 64 bytes. A product adds to a tile of floats:
 *
 *     C[m][n] += sum over k of  A[m][2k] B[k][2n] + A[m][2k + 1] B[k][2n + 1]      m, n, k from 0 to 15
 *
 *     A   16 rows x 32 bf16: the summed axis runs along the row
 *     B   16 rows x 16 pairs of bf16: the summed axis runs down the rows, two neighbours of it in a pair
 *     C   16 rows x 16 float
 *
 * It flushes denormals and rounds to nearest even (Intel SDM, TDPBF16PS). Macros, because a register is part
 * of an instruction's name. With ATTNI_TILES_IN_C the same in plain C, for tests on processors without tiles.
 */
#ifndef ATTNI_TILES_AMX_H
#define ATTNI_TILES_AMX_H

#include <stdint.h>

#if ATTNI_TILES_IN_C

#include <string.h>

static _Thread_local struct {
    uint8_t bytes[16][64];
} tiles_in_c[8];

static inline void tile_load_in_c(int t, const void *from, int64_t stride) {
    for (int64_t r = 0; r < 16; r++) memcpy(tiles_in_c[t].bytes[r], (const char *)from + r * stride, 64);
}

static inline void tile_store_in_c(int t, void *to, int64_t stride) {
    for (int64_t r = 0; r < 16; r++) memcpy((char *)to + r * stride, tiles_in_c[t].bytes[r], 64);
}

/* It sees these registers alone; address sanitizers would take most of the tests' time here. */
__attribute__((no_sanitize("address", "undefined"))) static inline void tile_dot_in_c(int c, int a, int b) {
    for (int m = 0; m < 16; m++) {
        float even[16] = {0}, odd[16] = {0}, sum[16];
        for (int k = 0; k < 16; k++) {
            uint32_t pair, row[16];
            float low, high;
            memcpy(&pair, tiles_in_c[a].bytes[m] + 4 * k, sizeof pair);
            memcpy(row, tiles_in_c[b].bytes[k], sizeof row);
            const uint32_t bits[2] = {pair << 16, pair & 0xffff0000u};
            memcpy(&low, &bits[0], sizeof low);
            memcpy(&high, &bits[1], sizeof high);
            for (int n = 0; n < 16; n++) {
                const uint32_t x = row[n] << 16, y = row[n] & 0xffff0000u;
                float fx, fy;
                memcpy(&fx, &x, sizeof fx);
                memcpy(&fy, &y, sizeof fy);
                even[n] += low * fx;
                odd[n] += high * fy;
            }
        }
        memcpy(sum, tiles_in_c[c].bytes[m], sizeof sum);
        for (int n = 0; n < 16; n++) sum[n] += even[n] + odd[n];
        memcpy(tiles_in_c[c].bytes[m], sum, sizeof sum);
    }
}

#define TILE_BEGIN() memset(tiles_in_c, 0xff, sizeof tiles_in_c)
#define TILE_END() ((void)0)
#define TILE_ZERO(t) memset(&tiles_in_c[t], 0, sizeof tiles_in_c[t])
#define TILE_LOAD(t, from, stride) tile_load_in_c(t, from, stride)
#define TILE_STREAM(t, from, stride) tile_load_in_c(t, from, stride)
#define TILE_STORE(t, to, stride) tile_store_in_c(t, to, stride)
#define TILE_DOT(c, a, b) tile_dot_in_c(c, a, b)
#define TILE_PAUSE() ((void)0)

/* A test may define it, to keep a task that converts a block busy while others want the block. */
__attribute__((weak)) void attni_tiles_taken(void);
#define TILE_TAKEN() (attni_tiles_taken ? attni_tiles_taken() : (void)0)

#else

/* LDTILECFG's 64 bytes: palette 1, and the sizes of each tile. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline void tile_begin(void) {
    static const tile_config whole = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    __asm__ volatile("ldtilecfg %0" : : "m"(whole));
}

/* The compiler must not move what fills memory past a load, nor what reads it before a store. */
#define TILE_BEGIN() tile_begin()
#define TILE_END() __asm__ volatile("tilerelease")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define TILE_LOAD(t, from, stride)                                                                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STREAM(t, from, stride) /* of what L1 need not keep */                                          \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(t, to, stride)                                                                            \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"((int64_t)(stride)) : "memory")
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

/*
 * For between two products that nothing else stands between. While the core's other hardware thread is at work
 * products in a row take 15 ns each, with eight or more other instructions between them 9; while it is idle 6.3
 * either way.
 */
#define TILE_PAUSE() __asm__ volatile(".rept 12\n\tnop\n\t.endr")

#define TILE_TAKEN() ((void)0)

#endif

#endif
