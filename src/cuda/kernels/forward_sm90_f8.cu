/*
 * The forward of compute capability 9.0 over 8-bit q, k and v (e4m3 or e5m2, with scales): O = softmax(scale
 * Q K^T + mask) V in bf16 or f16. The roles, the stream of key blocks and the softmax's guard are
 * forward_sm90.cu's. Beside them:
 *
 *   turners   2 warps    V of a block into a slot with keys along memory: the only way wgmma takes it in 8 bits. Where
 *                        tiles are many (TURNED), once for all of them, by way of memory
 *
 *   the producer     K0 Q | K1 | V0 | K2 | V1 | ...
 *   the turners             | V0 turned | V1 turned | ...
 *   a warpgroup      Q K i+1 | P V i   | softmax i+1, packed beside P i ... | Q K i+2 | P V i+1 | ...
 *
 * With TURNED, from some length on, scores are f16 (HALF), unless float32 is asked for.
 *
 * The tensor core adds 8-bit products in a short accumulator (docs/numerics.md). Every INTERVAL blocks what
 * it has summed is added to float32 registers, and it begins anew; those may have an older reference, which
 * that addition makes good.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#define F8 1
#if E5M2
#define F8_TYPE "e5m2"
#else
#define F8_TYPE "e4m3"
#endif
#define DIRECT 1 /* O goes through memory of its own */
#include "hopper_f8_finish.cuh"
#if HALF
#include "hopper_f8_queries.cuh"
#include "hopper_f8_sample.cuh"
#include "wgmma_half.cuh"
#endif
#include "hopper_f8_values.cuh"
#include "hopper_memory.cuh"
#include "hopper_producer.cuh"
#include "hopper_turns.cuh"
#include "ptx_sm90.cuh"
#include "wgmma.cuh"

static_assert(WGS == 2 && BC == 128 && DV <= 128, "a row of V, and of V turned, is 128 bytes");

/* ---------------------------------------------------------------- the matrix warpgroups */

DEVICE bool is_chosen_lane(void) { return (threadIdx.x & 31) == 0; }

#define SCORES_HALF 0
namespace float_scores {
#include "hopper_f8_steps.cuh"
}

#if HALF
#undef SCORES_HALF
#define SCORES_HALF 1
namespace half_scores {
#include "hopper_f8_steps.cuh"
}
#endif

#if HALF
/* The end of a warpgroup's first pass: all slots are given back, and its O is written before the second pass may. */
DEVICE bool leave_first_pass(shared_memory *memory, u32 shared, int tiles, int blocks) {
    const bool chosen = is_chosen_lane();
    __syncwarp();
    mbarrier_arrive_if(AT(turned_empty) + 8 * ((blocks - 1) % STAGES), chosen);
#pragma unroll
    for (int i = 2; i > 0; i--) { /* the last tile, and the record without one */
        mbarrier_arrive_if(AT(tile_empty) + 8 * ((tiles - i) % RECORDS), chosen);
        mbarrier_arrive_if(AT(q_empty) + 8 * ((tiles - i) % Q_SLOTS), chosen);
    }
    mbarrier_arrive_if(AT(pass_done), chosen);
    if (!begin_second_pass(memory, shared, true)) {
        return false;
    }
    if ((threadIdx.x & 127) == 0) {
        tma_wait(0);
    }
    return true;
}

/* The scheduler's first pass, by its whole warp: as schedule(), but for tiles that it leaves to the
 * second. */
DEVICE u32 schedule_sampled(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int round,
                            bool any) {
    const bool chosen = is_chosen_lane();
    u32 count = 1;
    any = __shfl_sync(0xffffffffu, any, 0);
    if (chosen) {
        memory->round = round;
        mbarrier_arrive(AT(tile_full));
    }
#pragma unroll 1
    for (; any; count++) {
        tile_record *r = &memory->tile[count % RECORDS];
        if (chosen) {
            mbarrier_sleep(AT(tile_empty) + 8 * (count % RECORDS), (count / RECORDS & 1) ^ 1);
        }
#pragma unroll 1
        for (bool large = true; large;) {
            if (chosen) {
                scheduler at = {0, memory->round};
                do {
                    at.tile = next_tile(p, at.round++);
                } while (at.tile < p->tiles && !place_tile(&p->forward, at.tile, &r->facts));
                memory->tile_at_hand = at.tile;
                memory->round = at.round;
                if (at.tile < p->tiles) {
                    scale_record(p, r);
                }
            }
            __syncwarp();
            any = __shfl_sync(0xffffffffu, memory->tile_at_hand < p->tiles, 0);
            large = any && p->sampled && is_large_tile(&p->forward, r);
            if (large && chosen) {
                const int tile = memory->tile_at_hand;
                p->again[tile] = atomicExch(&memory->last_marked, tile);
            }
        }
        if (chosen) {
            fill_record(p, memory, memory->tile_at_hand, count, any);
            mbarrier_arrive(AT(tile_full) + 8 * (count % RECORDS));
        }
    }
    if (chosen && p->ticket && memory->tile_at_hand == p->tiles + (int)gridDim.x - 1) {
        *p->ticket = 0; /* the launch's last ticket */
    }
    return count;
}

/* The scheduler's second pass: the marked tiles, the last one first. */
DEVICE void schedule_marked(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared,
                            u32 count) {
    if (!begin_second_pass(memory, shared, true)) {
        return;
    }
    int tile = memory->last_marked;
#pragma unroll 1
    for (bool any = true; any; count++) {
        mbarrier_sleep(AT(tile_empty) + 8 * (count % RECORDS), (count / RECORDS & 1) ^ 1);
        any = tile != NO_TILE;
        if (any) {
            place_tile(&p->forward, tile, &memory->tile[count % RECORDS].facts);
        }
        fill_record(p, memory, tile, count, any);
        mbarrier_arrive(AT(tile_full) + 8 * (count % RECORDS));
        tile = any ? p->again[tile] : NO_TILE;
    }
}
#endif

/* ---------------------------------------------------------------- the kernel */

DEVICE void make_barriers(u32 shared) {
    for (int i = 0; i < RECORDS; i++) {
        mbarrier_init(AT(tile_full) + 8 * i, 1);
        mbarrier_init(AT(tile_empty) + 8 * i, 1 + 4 * WGS);
    }
    for (int i = 0; i < Q_SLOTS; i++) {
        mbarrier_init(AT(q_full) + 8 * i, 1);
        mbarrier_init(AT(q_empty) + 8 * i, 4 * WGS);
    }
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(k_full) + 8 * i, 1);
        mbarrier_init(AT(k_empty) + 8 * i, 4 * WGS);
#if !TURNED
        mbarrier_init(AT(v_full) + 8 * i, 1);
        mbarrier_init(AT(v_empty) + 8 * i, TURNERS);
#endif
        mbarrier_init(AT(turned_full) + 8 * i, TURNED ? 1 : TURNERS);
        mbarrier_init(AT(turned_empty) + 8 * i, 4 * WGS);
    }
#if TURNED
    mbarrier_init(AT(turn_full), 1);
#endif
#if HALF
    mbarrier_init(AT(pass_done), 4 * WGS);
#endif
    mbarrier_init_fence();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ENTRY(const __grid_constant__ attni_forward_sm90_params p) {
    extern __shared__ __align__(1024) char smem[];
    shared_memory *memory = (shared_memory *)smem;
    const u32 shared = shared_address(smem);
    const int warp = uniform((int)threadIdx.x / 32), warpgroup = warp / 4;
    scheduler scheduled;
    bool any = false;
    u32 turn = 0;
    if (threadIdx.x == 0) {
        make_barriers(shared);
#if HALF
        memory->last_marked = NO_TILE;
#endif
    } else if (threadIdx.x == 128 * WGS + 32) {
        any = begin_schedule(&p, memory, &scheduled);
#if TURNED
    } else if (threadIdx.x == 128 * WGS + 64) {
        turn = begin_values(&p);
#endif
    }
    __syncthreads();
    if (warpgroup == WGS) {
        registers_give(PRODUCER_REGISTERS);
        if (threadIdx.x == 128 * WGS) {
            produce(&p, memory, shared);
#if HALF
        } else if (warp == 4 * WGS + 1) {
            const u32 count = schedule_sampled(&p, memory, shared, scheduled.round, any);
            if (is_chosen_lane()) {
                schedule_marked(&p, memory, shared, count);
            }
#else
        } else if (threadIdx.x == 128 * WGS + 32) {
            schedule(&p, memory, shared, &scheduled, any);
#endif
        } else if (threadIdx.x >= 128 * WGS + 64) {
            turn_values(&p, memory, shared, warp - 4 * WGS - 2, turn);
        }
    } else {
        registers_take(MATRIX_REGISTERS);
#if HALF
        int tiles = 0, blocks = 0;
        half_scores::multiply(&p, memory, shared, warpgroup, &tiles, &blocks);
        if (leave_first_pass(memory, shared, tiles, blocks)) {
            float_scores::multiply(&p, memory, shared, warpgroup, &tiles, &blocks);
        }
#else
        int tiles = 0, blocks = 0;
        float_scores::multiply(&p, memory, shared, warpgroup, &tiles, &blocks);
#endif
        if ((threadIdx.x & 127) == 0) {
            tma_wait_read(0); /* shared memory must outlive the store */
        }
    }
}
