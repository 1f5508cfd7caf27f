/*
 * forward_sm90: ALiBi. Where all keys of a block lie on one side of all rows of a warpgroup, it is a line in the key's
 * place in its block, and as much for all rows (LINED):
 *
 *   -slope |row - key|  =  +-slope place  -+ slope (row - the block's middle)        place = key - the block's middle
 *
 * The first term is one more step of 16 of the product Q K^T: three columns hold the slope in pieces, in the same three rows
 * are the places. The second joins the rows' references. So what is done to each score is what is done without ALiBi. A place is
 * exact in 16 bits, a slope in three pieces in float32; what the product's float32 sums lose is 2^-23 of half a block's
 * slopes, and of the longer way that the other blocks take, no less is lost.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_ALIBI_CUH
#define ATTNI_HOPPER_ALIBI_CUH

#include "hopper_producer.cuh"
#include "hopper_softmax.cuh"

#if ALIBI
#define BLOCK_SHIFT (BC == 64 ? 6 : 7)
static_assert(!LINED || BC == 1 << BLOCK_SHIFT, "a block's number is a shift");
static_assert(!ROTATED || (Q_PARTS >= 2 * PARTS && !DIRECT),
              "the producer and the slots of Q go by a count of blocks");

/*
 * The right operand, once: of 8 keys a row of 16 bytes for each piece. The product reads 8 rows, and those twice, but
 * the left operand has zeros for all but three.
 */
DEVICE void write_places(shared_memory *memory) {
    for (int i = threadIdx.x; i < ATTNI_SM90_PLACES(BC) / 2; i += THREADS) {
        const int row = i / 8, piece = row % 3, key = row / 3 * 8 + i % 8;
        const float place = (float)(key - BC / 2) * power_of_two(-PIECE_SHIFT(piece));
        memory->places[i] = key < BC ? (u16)pack_16(place, 0.0f) : 0;
    }
    if (threadIdx.x < 64) {
        memory->no_slope[threadIdx.x / 8][threadIdx.x % 8] = 0;
    }
    fence_async_proxy();
}

/* Not swizzled; the next 8 keys lie as far on as the high word says, and the next 8 rows where these do. */
DEVICE u64 places_operand(u32 shared) { return (u64)(48 >> 4) << 32 | wgmma_operand(AT(places), 0); }

/* The left operand: all its rows are the same 8. */
DEVICE u64 slope_operand(u32 shared, const matrix_state *at, bool line) {
    const u32 slope = AT(alibi) + at->tiles % RECORDS * ATTNI_SM90_ALIBI_BYTES;
    return wgmma_operand(!line ? AT(no_slope) : at->block >= at->after_begin ? slope + 128 : slope, 0);
}

/* Which blocks of a tile are lines: of those seen whole those before before_end and from after_begin on. */
DEVICE void find_lines(const shared_memory *memory, int place, matrix_state *at) {
    const tile_facts *t = &memory->tile[at->tiles % RECORDS].facts;
    const bool lined = memory->alibi[at->tiles % RECORDS].lined;
    const int first = uniform(t->row0 + place * 64 + t->distance);
    at->last = uniform(t->block_end) - 1;
    at->blocks_left = (ROTATED ? at->last : at->block) - at->begin;
    at->before_end = lined ? (first + 1) >> BLOCK_SHIFT : 0;
    at->after_begin = lined ? (first + 63 + BC - 1) >> BLOCK_SHIFT : SEEN_ALL;
}

DEVICE bool is_line(const matrix_state *at) {
    return (at->block < at->before_end || at->block >= at->after_begin) && at->block >= whole_begin_of(at) &&
           at->block < at->whole_end;
}

/* How far a thread's first row is from a key of the block at hand. */
DEVICE int apart_from(const tile_facts *t, int place, int block, int key) {
    return t->row0 + thread_row(place) + t->distance - block * BC - key;
}

/* The part of a line that is a row's. */
DEVICE void set_line(const shared_memory *memory, int place, const matrix_state *at, bool line,
                     score_shape *shape) {
    const int own = apart_from(&memory->tile[at->tiles % RECORDS].facts, place, at->block, BC / 2);
    const float slope = memory->alibi[at->tiles % RECORDS].slope, rise = !line ? 0.0f
                                                                         : at->block >= at->after_begin
                                                                             ? -slope
                                                                             : slope;
    shape->base[0] = rise * (float)own; /* exact below 2^24 */
    shape->base[1] = rise * (float)(own + 8);
}

/* Scale and references as the exponents' multiply-add wants them, before the wait for the scores: the scale in a uniform
 * register, and the assembler is not to put it off. */
DEVICE void ready_line(const matrix_state *at, score_shape *shape) {
    shape->scale = __int_as_float(uniform(__float_as_int(shape->scale)));
    shape->low[0] = at->reference[0] + shape->base[0];
    shape->low[1] = at->reference[1] + shape->base[1];
    asm volatile("" : "+f"(shape->low[0]), "+f"(shape->low[1]));
}

/* ALiBi into the scores, of any block. */
DEVICE void slope_scores(float (&s)[BC / 2], const shared_memory *memory, int place, const matrix_state *at,
                         score_shape *shape) {
    const int own =
        apart_from(&memory->tile[at->tiles % RECORDS].facts, place, at->block, (int)(threadIdx.x & 3) * 2);
    const float apart[2] = {(float)own, (float)(own + 8)}, slope = memory->alibi[at->tiles % RECORDS].slope;
#pragma unroll
    for (int i = 0; i < BC / 2; i++) {
        const float away = fabsf(apart[i / 2 & 1] - (float)(i / 4 * 8 + (i & 1)));
        s[i] = fmaf(-slope, away, s[i] * shape->scale);
    }
    shape->scale = 1.0f;
}
#endif

#endif
