/*
 * forward_sm90_f8 with scores in f16: a look at a few scores of a tile before it is made. Where one of them
 * is so large that f16 will be too coarse for the tile, as a rule, it is left to the second pass at once
 * (hopper_f8_passes.cuh). A tile's sample is its own alone, so its bits do not depend on when it is taken.
 *
 * The scheduler's warp does so while the matrix warpgroups are at the tiles before: 8 rows and 8 keys, spread
 * over those that all of the tile's rows see. Registers are few: products are of f16, and an instruction of
 * the tensor core would want more of them.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_SAMPLE_CUH
#define ATTNI_HOPPER_F8_SAMPLE_CUH

#include "hopper_f8_softmax.cuh"
#include "pairs.cuh"

#define SAMPLE_BLOCKS 12 /* of keys of a tile; a shorter one is soon made again */
/* In powers of two. Of normal scores no tile is marked where they deviate by a third of it, and most are
 * where by half of it. */
#define SAMPLE_MOST 20.0f

/* A score of two rows of elements, without the last dims where they are no multiple of 4; 256 times less,
 * so that it is no more than f16's largest. */
DEVICE float sample_score(const u8 *q, const u8 *k, int dims) {
    u32 sum = 0;
#pragma unroll 1
    for (int left = dims; left >= 4; left -= 4) {
        u32 a[2], b[2];
        f8_to_pairs(*(const u32 *)q, a);
        f8_to_pairs(*(const u32 *)k, b);
        sum = pair_fma(pair_multiply(a[0], 0x1c001c00u), b[0], sum);
        sum = pair_fma(pair_multiply(a[1], 0x1c001c00u), b[1], sum);
        q += 4;
        k += 4;
    }
    return low_half(sum) + high_half(sum);
}

/* By a whole warp: 8 rows and 4 of the 8 keys. */
DEVICE bool has_large_scores(const attni_forward_params *p, const tile_record *r, int from) {
    const tile_facts *t = &r->facts;
    const int first = max(0, min(t->row0 + BR, t->rows) - 1 + t->first_key),
              keys = min(t->keys, t->row0 + t->last_key + 1) - first, row = (int)(threadIdx.x & 28) * 4,
              key = first + (int)(from + (threadIdx.x & 3)) * (keys / 8);
    const float score =
        sample_score((const u8 *)p->q + t->batch * p->q_stride.batch + t->head * p->q_stride.heads +
                         min(t->row0 + row, t->rows - 1) * p->q_stride.seqlen,
                     (const u8 *)p->k + t->batch * p->k_stride.batch +
                         divide(t->head, &p->by_gqa) * p->k_stride.heads + key * p->k_stride.seqlen,
                     keys > 0 && !E5M2 ? p->dim_qk : 0);
    return __any_sync(0xffffffffu, score * r->score_scale > SAMPLE_MOST / ATTNI_LOG2E / 256.0f);
}

DEVICE bool is_large_tile(const attni_forward_params *p, const tile_record *r) {
    bool large = false;
#pragma unroll 1
    for (int from = 0; from < 8 && !large && r->facts.block_end - r->facts.block_begin >= SAMPLE_BLOCKS;
         from += 4) {
        large = has_large_scores(p, r, from);
    }
    return large;
}

#endif
