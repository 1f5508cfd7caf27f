/*
 * What the backward on AMX spends its time on: the five products on tiles, and P and dS of a unit on AVX-512, a pair of
 * keys at a time, so that the products' loops can take one between two instructions of the tiles.
 *
 *     S^T, dP^T    2 x 2 sums over D, the loads of a step first; to 64 dims B's four tiles stay in registers
 *     dQ^T         B, the dS^T of 64 keys, stays in registers; sums of 64 keys are stored and added by vectors
 *     dV, dK       2 x 2 sums, loaded and stored, over the rows of a group
 */
#ifndef ATTNI_BACKWARD_PRODUCTS_AMX_H
#define ATTNI_BACKWARD_PRODUCTS_AMX_H

#include "cpu/x86/backward_panels_amx.h"
#include "cpu/x86/exp2_amx.h"
#include "cpu/x86/tiles_amx.h"

/* ---------------------------------------------------------------- P and dS */

/* The unit whose P^T and dS^T are computed: from S^T and dP^T to tiles of A, and dS^T of B too, two keys at a time. */
typedef struct amx_elements {
    const float *s, *dp;
    char *p, *ds, *ds_b;
    int64_t apart; /* bytes of A from 32 keys to the next */
    int64_t key, keys; /* the next one, of so many */
    vf scale, lse[2], delta[2];
} amx_elements;

/* 32 rows of a key in bf16, nearest even; NaN stays NaN. */
SIMD_INLINE __m512i round_rows(vf first, vf second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* The next pair of keys; raw: s and dp are S and dP, else P and dS already. */
SIMD_INLINE void elements_pair(const bool raw, amx_elements *e) {
    const vf hidden = vf_set1(-INFINITY);
    const int64_t at = e->key / 32 * e->apart + e->key % 32 * 64;
    __m512i ds[2];
    SIMD_UNROLL
    for (int i = 0; i < 2; i++, e->s += FORWARD_SUB_ROWS, e->dp += FORWARD_SUB_ROWS) {
        vf p[2], d[2];
        SIMD_UNROLL
        for (int v = 0; v < 2; v++) {
            p[v] = vf_load(e->s + v * SIMD_LANES);
            d[v] = vf_load(e->dp + v * SIMD_LANES);
            if (!raw) continue;
            const vmask seen = _mm512_cmp_ps_mask(p[v], hidden, _CMP_NEQ_UQ);
            p[v] = amx_exp2(seen, vf_mul(vf_sub(p[v], e->lse[v]), e->scale));
            d[v] = _mm512_maskz_mul_ps(seen, p[v], vf_sub(d[v], e->delta[v]));
        }
        ds[i] = round_rows(d[0], d[1]);
        _mm512_storeu_si512(e->p + at + i * 64, round_rows(p[0], p[1]));
        _mm512_storeu_si512(e->ds + at + i * 64, ds[i]);
    }
    char *pairs = e->ds_b + e->key / 32 * PAIR_BYTES + e->key % 32 * 32;
    _mm512_storeu_si512(pairs, _mm512_unpacklo_epi16(ds[0], ds[1]));
    _mm512_storeu_si512(pairs + TILE_BYTES, _mm512_unpackhi_epi16(ds[0], ds[1]));
    e->key += 2;
}

/* The next `most` pairs of keys, or those that are left. */
SIMD_INLINE void elements_step(const bool raw, amx_elements *e, int64_t most) {
    for (int64_t left = attni_min(most, (e->keys - e->key) / 2); left > 0; left--) elements_pair(raw, e);
}

/* ---------------------------------------------------------------- products */

/* Where 2 x 2 tiles of C stand, in floats, and how many bytes lie between rows of a tile. */
typedef struct amx_sums {
    int64_t down, right, row_bytes;
} amx_sums;

#define BEGIN_SUMS(t, at)                                                                                    \
    do {                                                                                                     \
        if (zero)                                                                                            \
            TILE_ZERO(t);                                                                                    \
        else                                                                                                 \
            TILE_LOAD(t, at, x.row_bytes);                                                                   \
    } while (0)

/* What stands beside product i of four, where nothing does the pause. GUEST_*: how many pairs of keys that is. */
enum { GUEST_NONE, GUEST_HALF, GUEST_ONE, GUEST_ANY };

SIMD_INLINE void beside(const int i, const int kind, amx_elements *guest, int64_t pairs) {
    if (kind == GUEST_NONE)
        TILE_PAUSE();
    else if (kind == GUEST_ONE)
        elements_pair(true, guest);
    else if (i % 2 != 0)
        TILE_PAUSE();
    else if (kind == GUEST_HALF)
        elements_pair(true, guest);
    else
        elements_step(true, guest, pairs);
}

/* One or two by one or two tiles of C (+)= A B over so many steps; between them, some of the guest's elements. */
SIMD_INLINE void multiply_block(const int high, const int wide, const bool zero, const int kind,
                                const amx_sums x, float *c, const char *a, const char *b, int64_t steps,
                                amx_elements *guest, int64_t pairs) {
    float *lower = c + x.down;
    BEGIN_SUMS(0, c);
    if (wide > 1) BEGIN_SUMS(1, c + x.right);
    if (high > 1) BEGIN_SUMS(2, lower);
    if (high > 1 && wide > 1) BEGIN_SUMS(3, lower + x.right);
    for (int64_t i = 0; i < steps; i++, a += PAIR_BYTES, b += PAIR_BYTES) {
        TILE_STREAM(4, a, 64);
        TILE_LOAD(6, b, 64);
        if (wide > 1) TILE_LOAD(7, b + TILE_BYTES, 64);
        if (high > 1) TILE_STREAM(5, a + TILE_BYTES, 64);
        beside(0, kind, guest, pairs);
        TILE_DOT(0, 4, 6);
        beside(1, kind, guest, pairs);
        if (wide > 1) TILE_DOT(1, 4, 7);
        beside(2, kind, guest, pairs);
        if (high > 1) TILE_DOT(2, 5, 6);
        beside(3, kind, guest, pairs);
        if (high > 1 && wide > 1) TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, c, x.row_bytes);
    if (wide > 1) TILE_STORE(1, c + x.right, x.row_bytes);
    if (high > 1) TILE_STORE(2, lower, x.row_bytes);
    if (high > 1 && wide > 1) TILE_STORE(3, lower + x.right, x.row_bytes);
}

/* 32 keys of S^T or dP^T over two steps of dims, whose B, tiles 4 to 7, stay. */
SIMD_INLINE void multiply_few(const int kind, float *c, const char *a, amx_elements *guest, int64_t pairs) {
    SIMD_UNROLL
    for (int half = 0; half < 2; half++, a += TILE_BYTES, c += 16 * FORWARD_SUB_ROWS) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_STREAM(2, a, 64);
        TILE_STREAM(3, a + PAIR_BYTES, 64);
        beside(0, kind, guest, pairs);
        TILE_DOT(0, 2, 4);
        beside(1, kind, guest, pairs);
        TILE_DOT(1, 2, 5);
        beside(2, kind, guest, pairs);
        TILE_DOT(0, 3, 6);
        beside(3, kind, guest, pairs);
        TILE_DOT(1, 3, 7);
        TILE_STORE(0, c, 4 * FORWARD_SUB_ROWS);
        TILE_STORE(1, c + 16, 4 * FORWARD_SUB_ROWS);
    }
}

/* 32 keys of S^T or dP^T; B is there already where the steps are two. */
SIMD_INLINE void multiply_keys_32(const int kind, float *c, const char *a, const char *b, int64_t steps,
                                  amx_elements *guest, int64_t pairs) {
    const amx_sums x = {16 * FORWARD_SUB_ROWS, 16, 4 * FORWARD_SUB_ROWS};
    if (steps == 2)
        multiply_few(kind, c, a, guest, pairs);
    else
        multiply_block(2, 2, true, kind, x, c, a, b, steps, guest, pairs);
}

/* S^T or dP^T of a unit, 32 keys after 32; `pairs` of the guest's keys with each two products. */
static void multiply_scores(float *c, const char *a, const char *b, int64_t keys, int64_t steps,
                            amx_elements *guest, int64_t pairs) {
    amx_elements e = *guest; /* in registers */
    if (steps == 2) {
        TILE_LOAD(4, b, 64);
        TILE_LOAD(5, b + TILE_BYTES, 64);
        TILE_LOAD(6, b + PAIR_BYTES, 64);
        TILE_LOAD(7, b + PAIR_BYTES + TILE_BYTES, 64);
    }
    for (int64_t j = 0; j < keys; j += 32, c += 32 * FORWARD_SUB_ROWS, a += steps * PAIR_BYTES) {
        const bool enough = (e.keys - e.key) / 2 >= 2 * pairs * steps;
        if (enough && pairs == 1)
            multiply_keys_32(GUEST_HALF, c, a, b, steps, &e, pairs);
        else if (enough && pairs == 2)
            multiply_keys_32(GUEST_ONE, c, a, b, steps, &e, pairs);
        else
            multiply_keys_32(GUEST_ANY, c, a, b, steps, &e, pairs);
    }
    *guest = e;
}

/* Two tiles of sums and the two below, to L1. */
SIMD_INLINE void ahead_sums(const float *c, int64_t down) {
    for (int64_t i = 0; i < 2 * TILE_FLOATS; i += 16) {
        _mm_prefetch((const char *)(c + i), _MM_HINT_T0);
        _mm_prefetch((const char *)(c + down + i), _MM_HINT_T0);
    }
}

/* Where the sums of two products wait for being added to C: so many pairs of tiles. */
#define WAITING 4
#define ADDED_FLOATS (2 * TILE_FLOATS)

/* A quarter of two tiles of sums, added to C. */
SIMD_INLINE void add_quarter(float *c, const float *sums, int i) {
    SIMD_UNROLL
    for (int at = i * ADDED_FLOATS / 4; at < (i + 1) * ADDED_FLOATS / 4; at += SIMD_LANES)
        vf_store(c + at, vf_add(vf_load(c + at), vf_load(sums + at)));
}

/*
 * C += A B where B is 2 tiles wide and stays in registers: one or two steps, `tiles` row tiles of A, in pairs `apart` bytes
 * from one to the next. The sums of a row tile are stored, and added by vectors two row tiles later.
 */
SIMD_INLINE void multiply_added(const int steps, float *c, int64_t down, const char *a, int64_t apart,
                                const char *b, int64_t tiles) {
    _Alignas(64) float waiting[WAITING][ADDED_FLOATS];
    TILE_LOAD(4, b, 64);
    TILE_LOAD(5, b + TILE_BYTES, 64);
    if (steps > 1) {
        TILE_LOAD(6, b + PAIR_BYTES, 64);
        TILE_LOAD(7, b + PAIR_BYTES + TILE_BYTES, 64);
    }
    for (int64_t r = 0; r < tiles + 2; r++) {
        float *sums = waiting[r % WAITING], *to = r < 2 ? NULL : c + (r - 2) * down;
        const float *before = waiting[(r - 2) & (WAITING - 1)];
        if (r >= tiles) {
            for (int i = 0; r >= 2 && i < 4; i++) add_quarter(to, before, i);
            continue;
        }
        const char *from = a + r / 2 * apart + r % 2 * TILE_BYTES;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_STREAM(2, from, 64);
        if (steps > 1) TILE_STREAM(3, from + PAIR_BYTES, 64);
        if (r < 2) {
            TILE_DOT(0, 2, 4);
            TILE_PAUSE();
            TILE_DOT(1, 2, 5);
            if (steps > 1) {
                TILE_PAUSE();
                TILE_DOT(0, 3, 6);
                TILE_PAUSE();
                TILE_DOT(1, 3, 7);
            }
        } else {
            add_quarter(to, before, 0);
            TILE_DOT(0, 2, 4);
            add_quarter(to, before, 1);
            TILE_DOT(1, 2, 5);
            add_quarter(to, before, 2);
            if (steps > 1) TILE_DOT(0, 3, 6);
            add_quarter(to, before, 3);
            if (steps > 1) TILE_DOT(1, 3, 7);
        }
        TILE_STORE(0, sums, 64);
        TILE_STORE(1, sums + TILE_FLOATS, 64);
    }
}

static void multiply_steps(float *c, int64_t down, const char *a, int64_t apart, const char *b, int64_t tiles,
                           int64_t steps) {
    if (steps == 2)
        multiply_added(2, c, down, a, apart, b, tiles);
    else
        multiply_added(1, c, down, a, apart, b, tiles);
}

/* dQ^T of a sub, all dims; `apart` bytes of A from 32 dims to the next. */
static void multiply_queries(float *c, const char *a, int64_t apart, const char *b, int64_t tiles,
                             int64_t steps) {
    for (int64_t i = 0; i < steps; i += 2)
        multiply_steps(c, ADDED_FLOATS, a + i * PAIR_BYTES, apart, b + i * PAIR_BYTES, tiles,
                       attni_min(2, steps - i));
}

#endif
