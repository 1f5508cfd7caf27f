/*
 * forward_sm90: the products that a warpgroup issues, and the slots that they read.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_PRODUCTS_CUH
#define ATTNI_HOPPER_PRODUCTS_CUH

#include "hopper_alibi.cuh"
#include "hopper_producer.cuh"
#include "hopper_softmax.cuh"
#include "hopper_turns.cuh"
#include "wgmma.cuh"

/* A scale of 0 or below works on the bits of Q (this warpgroup's part, or its share), so that everything after may
 * take it as positive. What is not finite gives NaN with a scale of 0. */
DEVICE void turn_queries(u32 *part, float scale) {
    for (u32 i = threadIdx.x % (128 * SLICES); i < Q_PART_BYTES / 4; i += 128 * SLICES) {
        const u32 exponents = BF16 ? 0x7f807f80u : 0x7c007c00u, x = part[i];
        const u32 odd = ((x & exponents & 0xffff0000u) == (exponents & 0xffff0000u) ? 0x7fff0000u : 0u) |
                        ((x & exponents & 0xffffu) == (exponents & 0xffffu) ? 0x7fffu : 0u);
        part[i] = scale < 0.0f ? x ^ 0x80008000u : odd;
    }
}

#if UNIT
/* Q of this warpgroup takes a power of two. */
DEVICE void weigh_queries(uint4 *part, float by) {
    const u32 both = pack_16(by, by);
    for (u32 i = threadIdx.x % 128; i < Q_PART_BYTES / 16; i += 128) {
        uint4 x = part[i];
        x.x = multiply_16(x.x, both);
        x.y = multiply_16(x.y, both);
        x.z = multiply_16(x.z, both);
        x.w = multiply_16(x.w, both);
        part[i] = x;
    }
}
#endif

/* Where a thread works; all of it constant. */
struct matrix_place {
    u32 shared;
    int warpgroup;
    u32 q, k, v; /* descriptors' low words, of stage 0 */
    float scale; /* of scores to powers of two; under a softcap the cap in them */
    float to_exponent; /* SOFTCAP: of raw scores to the power of two that is e^(2 score / cap) */
};

/* One lane of the warp. An election takes no register; a kept predicate, where there are registers, no time. */
DEVICE bool is_chosen_lane(void) { return DV > 192 || WGS > 2 ? elect_lane() : (threadIdx.x & 31) == 0; }

/* The block whose V is taken next: the one before, of which P is. */
DEVICE int value_block(const matrix_state *at) { return PASSING ? at->values : at->blocks - 1; }

/* The slots that a step works on. Where PASSING, the assembler no longer sees that all lanes agree on them, and every
 * descriptor costs moves: one REDUX spares them. */
struct slots_at_hand {
    u32 q, k, v;
};

DEVICE slots_at_hand find_slots(const matrix_place *w, const matrix_state *at, int values) {
    slots_at_hand slots = {queries_turn(at->tiles, place_in_tile(at->tiles, w->warpgroup)) % Q_BARRIERS,
                           (u32)at->blocks % STAGES, (u32)values % STAGES};
    if (PASSING && WGS == 4) { /* 1 to 2% of the time; beside longer steps it costs as much */
        const u32 all = uniform(slots.q << 16 | slots.k << 8 | slots.v);
        slots.q = all >> 16;
        slots.k = all >> 8 & 255;
        slots.v = all & 255;
    }
    return slots;
}

/* S = Q K^T of a block, or BEGUN += it. LINED: with a line of ALiBi, whose left operand this is. */
DEVICE void issue_scores(float (&s)[BC / 2], const matrix_place *w, const slots_at_hand *slots, u64 slope) {
    const u32 q = w->q + slots->q * ((APART ? 1 : PARTS) * Q_PART_BYTES >> 4),
              k = w->k + slots->k * (K_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        wgmma_shared(s, wgmma_descriptor(q + i / 4 * (O_CHUNK_BYTES >> 4) + i % 4 * 2),
                     wgmma_descriptor(k + i / 4 * (CHUNK_BYTES >> 4) + i % 4 * 2), BEGUN || i > 0);
    }
#if LINED
    wgmma_turned(s, slope, places_operand(w->shared));
#endif
    wgmma_commit();
}

/* O += P V of a block, or = P V. */
DEVICE void issue_product(float (&o)[DV / 2], const u32 (&p)[BC / 4], const matrix_place *w, u32 slot,
                          bool fresh) {
    const u32 v = w->v + slot * (V_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < BC / 16; i++) {
        wgmma_registers(o, p + 4 * i, wgmma_descriptor(v + i * (16 * 128 >> 4)), i > 0 || !ROOMY || !fresh);
    }
    wgmma_commit();
}

/* The Q slot that O left from is free once the copy engine has read it: the producer may know. */
DEVICE void free_storing_slot(const matrix_place *w, matrix_state *at) {
    if (!DIRECT && at->storing >= 0) {
        if ((threadIdx.x & 127) == 0) {
            tma_wait_read(0);
            mbarrier_arrive(w->shared + OFFSET(q_empty) + 8 * at->storing);
        }
        at->storing = -1;
    }
}

/* Where O does not leave from it, a Q slot is free after a tile's last scores. */
DEVICE void free_read_slot(const matrix_place *w, const matrix_state *at) {
    if (DIRECT) {
        const u32 turn = queries_turn(at->tiles, place_in_tile(at->tiles, w->warpgroup));
        mbarrier_arrive_if(w->shared + OFFSET(q_empty) + 8 * (turn % Q_BARRIERS),
                           is_chosen_lane() && at->block == at->begin);
    }
}

#endif
