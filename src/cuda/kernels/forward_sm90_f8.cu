/*
 * The forward of compute capability 9.0 over 8-bit q, k and v (e4m3 or e5m2, with scales): O = softmax(scale
 * Q K^T + mask) V in bf16 or f16. The roles, the stream of key blocks and the softmax's guard are
 * forward_sm90.cu's. Beside them:
 *
 *   turners   2 warps    V of a block into a slot with keys along memory: the only way wgmma takes it in 8 bits.
 *                        None where V comes turned (TURNED, values_sm90.cu)
 *
 *   the producer     K0 Q | K1 | V0 | K2 | V1 | ...
 *   the turners             | V0 turned | V1 turned | ...
 *   a warpgroup      Q K i+1 | P V i   | softmax i+1, packed beside P i ... | Q K i+2 | P V i+1 | ...
 *
 * Where V comes turned scores are f16 (HALF), unless float32 is asked for.
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

/* HALF: the scales of the rows of the tile at hand. */
#if HALF
#define Q_SCALES memory->q_scale[at->tiles % Q_SLOTS]
#else
#define Q_SCALES ((const float *)0)
#endif

DEVICE int whole_begin_of(const f8_state *at) { return MASK == 2 ? at->whole_begin : at->begin; }

/* T = or += P V of a block. */
DEVICE void issue_product(float (&t)[DV / 2], const u32 (&p)[BC / 8], const matrix_place *w, int block,
                          int add) {
    const u32 v = w->v + block % STAGES * (TURNED_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < BC / 32; i++) {
        wgmma_registers(t, p + 4 * i, wgmma_descriptor(v + i * 2), i > 0 ? 1 : add);
    }
    wgmma_commit();
}

/* O and LSE of the tile before this one. */
DEVICE void finish_tile(const attni_forward_sm90_params *p, shared_memory *memory, const f8_state *at,
                        const float (&o)[DV / 2], float (&t)[DV / 2], int tile) {
    const tile_record *record = &memory->tile[tile % RECORDS];
    const int warpgroup = this_warpgroup();
    const float excess[2] = {0.0f, 0.0f};
    float inverse[2];
    finish_rows(&p->forward, record, warpgroup, at->last_sum, excess, at->last_reference, inverse);
    inverse[0] *= record->value_scale;
    inverse[1] *= record->value_scale;
    join_sums(t, o, t, at, at->last_reference);
    if (record->facts.keys == 0) { /* t is made of what there is no V */
#pragma unroll
        for (int i = 0; i < DV / 2; i++) {
            t[i] = 0.0f;
        }
    }
    wait_for_store(warpgroup);
    f8_store(p, &record->facts, memory->o[warpgroup], warpgroup, t, inverse);
}

/* Takes the next tile: its Q and facts. False at the end of all. */
DEVICE bool open_tile(shared_memory *memory, const matrix_place *w, f8_state *at) {
    const u32 shared = w->shared;
    const int slot = at->tiles % Q_SLOTS;
    mbarrier_wait(AT(q_full) + 8 * slot, at->tiles / Q_SLOTS & 1);
    const tile_record *record = &memory->tile[at->tiles % RECORDS];
    const int4 view = record->view[this_warpgroup()];
    at->block = uniform(view.x);
    if (at->block < 0) {
        return false;
    }
    at->begin = uniform(view.y);
    if (MASK == 2) {
        at->whole_begin = uniform(view.z);
    }
    at->whole_end = uniform(view.w);
#if HALF
    scale_rows(memory->q[slot][this_warpgroup()][0], memory->q_scale[slot] + 64 * this_warpgroup(),
               record->score_scale);
    fence_async_proxy();
    named_barrier_sync(OWN + this_warpgroup(), 128);
    f8_take_scales(memory->q_scale[slot], at);
#else
    const float scale = record->score_scale;
    at->scale = scale == 0.0f ? 1.0f : fabsf(scale) * ATTNI_LOG2E;
    if (scale <= 0.0f) {
        f8_turn_queries((u32 *)memory->q[slot][this_warpgroup()], scale);
        fence_async_proxy();
        named_barrier_sync(OWN + this_warpgroup(), 128);
    }
#endif
    return true;
}

/*
 * One step of the pipeline: scores of this block, and under their softmax the product of the block before.
 *   first     a new tile begins here, and the last one ends with the product
 *   masked    a row may not see a key of the block
 *   previous  there is a block before: not in the very first step
 */
DEVICE void step(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                 f8_state *at, f8_scores &s, u32 (&pr)[BC / 8], float (&o)[DV / 2], float (&t)[DV / 2],
                 const bool first, const bool masked, const bool previous) {
    const u32 shared = w->shared;
    const int values = at->blocks - 1;
    const u32 k_stage = 8 * (at->blocks % STAGES), v_stage = 8 * (values % STAGES);
    wait_full(AT(k_full) + k_stage, at->blocks, previous ? w->warpgroup : 0);
    if (previous) {
        take_turn(w->warpgroup);
    }
    wgmma_hold(t);
    wgmma_fence();
    issue_scores(s, w, at->tiles, at->blocks);
    if (previous) {
        wait_full(AT(turned_full) + v_stage, values, w->warpgroup);
        wgmma_fence();
        issue_product(t, pr, w, values, at->interval);
        pass_turn(w->warpgroup);
        wgmma_wait_but_one(s);
    } else {
        wgmma_wait_for_all(s);
    }
    if (masked && (at->block >= at->whole_end || at->block < whole_begin_of(at))) {
        mask_scores(s, &p->forward, &memory->tile[at->tiles % RECORDS].facts, this_warpgroup(), at->block);
    }

    if (first) {
        f8_begin_rows(s, Q_SCALES, at);
    }
    f8_sums sums = {};
    u32 early[EARLY]; /* the product still reads pr */
    f8_probabilities(s, early, at, sums, 0, EARLY, masked);
    mbarrier_arrive_after(AT(k_empty) + k_stage, is_chosen_lane(), sums[1]);
    if (previous) {
        wgmma_wait_for_all(t);
        wgmma_hold(s);
        mbarrier_arrive_if(AT(turned_empty) + v_stage, is_chosen_lane());
    }
#pragma unroll
    for (int i = 0; i < EARLY; i++) { /* a 0 that the assembler does not know, or it would write pr at once */
        pr[i] = early[i] ^ (u32)p->zero;
    }
    f8_probabilities(s, pr, at, sums, EARLY, GROUPS, masked);
    float sum[2] = {f8_sum_of(sums, 0), f8_sum_of(sums, 1)};
    if (__any_sync(0xffffffffu, !(sum[0] <= GUARD && sum[1] <= GUARD))) {
        f8_mend(s, Q_SCALES, pr, t, at, sum, first);
    }
    at->sum[0] += sum[0];
    at->sum[1] += sum[1];
    if (first) {
        if (previous) {
            finish_tile(p, memory, at, o, t, at->tiles - 1);
            __syncwarp();
            mbarrier_arrive_if(AT(tile_empty) + 8 * ((at->tiles - 1) % RECORDS), is_chosen_lane());
            mbarrier_arrive_if(AT(q_empty) + 8 * ((at->tiles - 1) % Q_SLOTS), is_chosen_lane());
        }
        at->interval = 0;
#pragma unroll
        for (int i = 0; i < DV / 2; i++) {
            o[i] = 0.0f;
        }
    } else if (++at->interval == INTERVAL) {
        join_sums(o, o, t, at, at->reference);
        at->interval = 0;
    }
    if (at->interval == 0) {
        at->kept_reference[0] = at->reference[0];
        at->kept_reference[1] = at->reference[1];
    }
    at->blocks++;
}

DEVICE void multiply(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int warpgroup) {
    f8_scores s;
    float t[DV / 2], o[DV / 2];
    u32 pr[BC / 8];
    f8_state at;
    matrix_place w;
    at.reference[0] = at.reference[1] = at.kept_reference[0] = at.kept_reference[1] = 0.0f;
    at.sum[0] = at.sum[1] = 0.0f;
    at.interval = at.blocks = at.tiles = 0;
    w.shared = shared;
    w.warpgroup = warpgroup;
    w.q = wgmma_operand(AT(q) + warpgroup * Q_PART_BYTES, 16);
    w.k = wgmma_operand(AT(k), 16);
    w.v = wgmma_operand(AT(turned), 16);
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        t[i] = o[i] = 0.0f;
    }
    if (TURNS && warpgroup == WGS - 1) {
        named_barrier_arrive(TURN, 256);
    }
    if (!open_tile(memory, &w, &at)) {
        return;
    }
    step(p, memory, &w, &at, s, pr, o, t, true, true, false);
#pragma unroll 1
    for (;;) {
#pragma unroll 1
        while (LIMITED && at.block > at.begin && at.block > at.whole_end) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, t, false, true, true);
        }
#pragma unroll 1
        while (at.block > whole_begin_of(&at)) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, t, false, false, true);
        }
#pragma unroll 1
        while (MASK == 2 && at.block > at.begin) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, t, false, true, true);
        }
        at.tiles++;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            at.last_reference[half] = at.reference[half];
            at.last_sum[half] = at.sum[half];
        }
        if (!open_tile(memory, &w, &at)) {
            break;
        }
        step(p, memory, &w, &at, s, pr, o, t, true, true, true);
    }
    const int values = at.blocks - 1;
    mbarrier_wait(AT(turned_full) + 8 * (values % STAGES), values / STAGES & 1);
    wgmma_hold(t);
    wgmma_fence();
    issue_product(t, pr, &w, values, at.interval);
    wgmma_wait_for_all(t);
    finish_tile(p, memory, &at, o, t, at.tiles - 1);
    if ((threadIdx.x & 127) == 0) {
        tma_wait_read(0); /* shared memory must outlive the store */
    }
}

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
    mbarrier_init_fence();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ENTRY(const __grid_constant__ attni_forward_sm90_params p) {
    extern __shared__ __align__(1024) char smem[];
    shared_memory *memory = (shared_memory *)smem;
    const u32 shared = shared_address(smem);
    const int warpgroup = uniform((int)threadIdx.x / 128);
    scheduler scheduled;
    bool any = false;
    if (threadIdx.x == 0) {
        make_barriers(shared);
    } else if (threadIdx.x == 128 * WGS + 32) {
        any = begin_schedule(&p, memory, &scheduled);
    }
    __syncthreads();
    if (warpgroup == WGS) {
        registers_give(PRODUCER_REGISTERS);
        if (threadIdx.x == 128 * WGS) {
            produce(&p, memory, shared);
        } else if (threadIdx.x == 128 * WGS + 32) {
            schedule(&p, memory, shared, &scheduled, any);
        } else if (!TURNED && threadIdx.x >= 128 * WGS + 64) {
            turn_values(memory, shared, uniform((int)threadIdx.x / 32) - 4 * WGS - 2);
        }
    } else {
        registers_take(MATRIX_REGISTERS);
        multiply(&p, memory, shared, warpgroup);
    }
}
