/*
 * The forward of compute capability 9.0: O = softmax(scale Q K^T + mask) V, by wgmma, the copy engine and
 * warpgroups with roles. One block a multiprocessor stays for the whole launch and takes tiles of BR rows.
 *
 *   scheduler   1 thread   which tile is next, and what the others must know of it
 *   producer    1 thread   Q, K and V to shared memory
 *   warpgroups  WGS        64 rows each: products, softmax, O and LSE (SLICED: the same 64, half of O each)
 *
 * The key blocks of all tiles of a block form one stream, last block first, with no break between tiles:
 *
 *   a warpgroup      Q K i+1 | P V i   | softmax i+1 ........... | Q K i+2 | P V i+1 | softmax i+2 ...
 *   the tensor core  Q K i+1 . P V i . (the other warpgroups') . . Q K i+2 . P V i+1 . . . .
 *   the producer     K i+2 into the slot of K i, V i+1 into that of V i-1, once they are released
 *
 * Where block i+1 begins a tile, O of the last tile is finished after softmax i+1, while others multiply.
 *
 * Softmax has no maximum in its loop: a row's reference comes from its first block and moves only when a sum
 * of p says so (mend). Registers and shared memory: params.h, attni_forward_sm90_tiles; up to dim 256 plain variants
 * spill nothing.
 *
 * H200, bf16, 16k tokens, hidden size 2048, 8192 keys, full / causal, TFLOP/s (cuDNN through torch, same
 * run): dim 64 633/593 (465/445), 128 785/788 (618/598), 256 782/774 (668/597).
 * What was tried: docs/schedules/forward_sm90.md.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "hopper_alibi.cuh"
#include "hopper_finish.cuh"
#include "hopper_memory.cuh"
#include "hopper_options.cuh"
#include "hopper_producer.cuh"
#include "hopper_products.cuh"
#include "hopper_softmax.cuh"
#include "hopper_turns.cuh"
#include "ptx_sm90.cuh"
#include "wgmma.cuh"

/* ---------------------------------------------------------------- the matrix warpgroups */

/* Of a thread's rows, as in matrix_state. */
struct row_sums {
    float sum[2], excess[2], reference[2];
};

/* LSE of a tile, of whose last block all but the product is done, and what its o are to be multiplied by. */
DEVICE void finish_sums(const attni_forward_sm90_params *p, shared_memory *memory, const row_sums *rows,
                        int tile, float inverse[2]) {
    finish_rows(&p->forward, &memory->tile[tile % RECORDS], place_in_tile(tile, this_warpgroup()), rows->sum,
                rows->excess, rows->reference, inverse);
}

/* O of a tile. */
DEVICE void finish_tile(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                        matrix_state *at, const float (&o)[DV / 2], const row_sums *rows,
                        const float inverse[2], int tile) {
    const u32 shared = w->shared;
    const tile_record *record = &memory->tile[tile % RECORDS];
    const tile_facts *t = &record->facts;
    const int place = place_in_tile(tile, this_warpgroup()), slot = tile % Q_BARRIERS;
    if (SPLIT && p->forward.value_slices > 1) {
        store_piece(&p->forward, t, place, o, rows->sum, rows->reference, inverse);
    } else if (ADDING && p->forward.accum_mode != ATTNI_ACCUM_NONE) {
        add_to_accumulator(&p->forward, t, place, o, rows->sum, rows->reference, inverse);
        if (!DIRECT) {
            named_barrier_sync(OWN + this_warpgroup(), 128); /* all of it is done with the Q slot */
        }
    } else if (DIRECT) {
        store_direct(&p->forward, t, place, o, inverse);
    } else {
        store_staged(p, t, AT(q) + (slot * WGS + this_warpgroup()) * Q_PART_BYTES, this_warpgroup(), place, o,
                     inverse);
    }
    __syncwarp();
    mbarrier_arrive_if(AT(tile_empty) + 8 * (tile % RECORDS), is_chosen_lane());
    if (DIRECT) {
        return;
    }
    if (at->storing >= 0 && (threadIdx.x & 127) == 0) { /* the store before, after a tile of one block */
        tma_wait_read(1);
        mbarrier_arrive(AT(q_empty) + 8 * at->storing);
    }
    at->storing = slot;
}

/* Of the tile at work. */
DEVICE int place_at_hand(const matrix_state *at) { return place_in_tile(at->tiles, this_warpgroup()); }

/* Passes over blocks: a slot may be released for a block as soon as the block before it in there is gone. */
DEVICE void pass_blocks(const matrix_place *w, matrix_state *at, int passed) {
    const u32 shared = w->shared;
#pragma unroll 1
    for (int block = at->blocks; block < at->blocks + passed; block++) {
        const int stage = block % STAGES, before = (block / STAGES & 1) ^ 1;
        mbarrier_wait(AT(k_empty) + 8 * stage, before);
        mbarrier_arrive_if(AT(k_empty) + 8 * stage, is_chosen_lane());
        if (block > 0) {
            take_turn(w->warpgroup);
            pass_turn(w->warpgroup);
        }
        mbarrier_wait(AT(v_empty) + 8 * stage, before);
        mbarrier_arrive_if(AT(v_empty) + 8 * stage, is_chosen_lane());
    }
    at->blocks += passed;
}

/* Takes the next tile: its Q and facts. False at the end of all. */
DEVICE bool open_tile(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                      matrix_state *at) {
    const u32 shared = w->shared;
    const u32 turn = queries_turn(at->tiles, place_in_tile(at->tiles, w->warpgroup)),
              slot = turn % Q_BARRIERS;
    mbarrier_wait(AT(q_full) + 8 * slot, turn / Q_BARRIERS & 1);
    const int4 view = memory->tile[at->tiles % RECORDS].view[this_warpgroup()];
    at->block = uniform(view.x);
    if (LEAVING) {
        pass_blocks(w, at, uniform(memory->tile[at->tiles % RECORDS].passed[this_warpgroup()]));
    }
    if (at->block < 0) {
        return false;
    }
    at->begin = uniform(view.y);
    if (MASK == 2) {
        at->whole_begin = uniform(view.z);
    }
    at->whole_end = uniform(view.w);
    if (IDLING) {
        const tile_facts *t = &memory->tile[at->tiles % RECORDS].facts;
        at->idle =
            uniform(t->row0 + place_in_tile(at->tiles, w->warpgroup) * part_of(&p->forward) >= t->rows);
    }
#if LINED
    find_lines(memory, place_in_tile(at->tiles, w->warpgroup), at);
#endif
#if UNIT
    if (p->query_factor != 0.0f) {
        weigh_queries((uint4 *)memory->q[slot * PARTS + this_part()], p->query_factor);
        fence_async_proxy();
        named_barrier_sync(OWN + this_part(), 128);
    }
#endif
    if (p->forward.scale <= 0.0f) {
        turn_queries((u32 *)memory->q[APART ? slot : slot * PARTS + this_part()], p->forward.scale);
        fence_async_proxy();
        named_barrier_sync(OWN + this_part(), 128 * SLICES);
    }
    if (PASSING && !LEAVING) {
        pass_blocks(w, at, uniform(memory->tile[at->tiles % RECORDS].passed[this_warpgroup()]));
    }
    return true;
}

/* The next one after it; false at the end of all. */
DEVICE bool next_tile(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                      matrix_state *at) {
    at->tiles++;
    if (Q_PARTS == 2 * PARTS) {
        free_storing_slot(w, at);
    }
    return open_tile(p, memory, w, at);
}

#if BIAS
/* The bias of the block at hand. */
DEVICE void next_bias(u32 (&x)[GROUPS * 2], u32 shared, matrix_state *at) {
    take_bias(x, shared, this_thread(), PASSING ? at->taken++ : at->blocks);
}

DEVICE void begin_with_bias(float (&s)[BC / 2], const attni_forward_sm90_params *p, u32 shared,
                            matrix_state *at) {
    u32 bias[GROUPS * 2];
    next_bias(bias, shared, at);
    begin_scores(s, bias, UNIT && p->query_factor != 0.0f ? 1.0f : p->bias_factor);
}
#endif

/*
 * One step of the pipeline: scores of this block, and under their softmax the product of the block before.
 *   first     a new tile begins here, and the last one ends with the product
 *   masked    a row may not see a key of the block
 *   previous  there is a block before: not in the very first step. Where JOINED that one issues a product, too, of
 *             zeros and of what happens to lie in a slot, and nobody takes it
 */
DEVICE void step(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                 matrix_state *at, float (&s)[BC / 2], u32 (&pr)[BC / 4], float (&o)[DV / 2],
                 const bool first, const bool masked, const bool previous) {
    const u32 shared = w->shared;
    const int values = value_block(at);
    const slots_at_hand slots = find_slots(w, at, values);
    const u32 k_stage = 8 * slots.k, v_stage = 8 * slots.v;
    const bool real = previous && (!JOINED || !first || at->tiles > 0), turn = real || at->blocks > 0;
#if BEGUN
    if (!BEGUN_LATE) {
        begin_with_bias(s, p, shared, at);
    }
#endif
    wait_full(AT(k_full) + k_stage, at->blocks, real ? w->warpgroup : 0);
#if BEGUN
    if (BEGUN_LATE) {
        begin_with_bias(s, p, shared, at);
    }
#endif
    if (turn) {
        take_turn(w->warpgroup);
    }
#if LINED
    const bool line = !masked || is_line(at);
    const u64 slope = slope_operand(shared, at, line);
#else
    const bool line = false;
    const u64 slope = 0;
#endif
    wgmma_hold(o);
    wgmma_fence();
    issue_scores(s, w, &slots, slope);
    const row_sums last = {
        {at->sum[0], at->sum[1]}, {at->excess[0], at->excess[1]}, {at->reference[0], at->reference[1]}};
    float inverse[2];
    if (first && real && ROOMY && !TURNS) { /* under the scores' product */
        finish_sums(p, memory, &last, at->tiles - 1, inverse);
    }
    if (real) {
        wait_full(AT(v_full) + v_stage, values, w->warpgroup);
    }
    if (previous) {
        wgmma_fence();
        issue_product(o, pr, w, slots.v, at->fresh);
    }
    if (turn) {
        pass_turn(w->warpgroup);
    }
    if (!first) {
        free_storing_slot(w, at);
    }
    if (first && real && ROOMY && TURNS) {
        finish_sums(p, memory, &last, at->tiles - 1, inverse);
    }
    score_shape shape = {POLYNOMIAL ? p->cap[2] : w->scale,
                         {0.0f, 0.0f},
                         {0.0f, 0.0f},
                         POLYNOMIAL,
                         p->cap,
                         p->cap[0],
                         p->forward.batch >> 31};
#if LINED
    set_line(memory, place_at_hand(at), at, line, &shape);
    if (!masked) {
        ready_line(at, &shape);
    }
#endif
#if BIAS && !BEGUN
    u32 bias[GROUPS * 2];
    next_bias(bias, shared, at);
#endif
    if (previous) {
        wgmma_wait_but_one(s);
    } else {
        wgmma_wait_for_all(s);
    }
    free_read_slot(w, at);
    if (SOFTCAP && (masked || !POLYNOMIAL)) {
        cap_scores(s, w->scale, w->to_exponent, are_small(s, p->cap_square), &shape);
    }
#if ALIBI
    if (!line) {
        slope_scores(s, memory, place_at_hand(at), at, &shape);
    }
#endif
#if BIAS && !BEGUN
    add_bias(s, bias, p->bias_factor);
#endif
    if (GENERAL) {
        shape_generally(s, &p->forward, &memory->tile[at->tiles % RECORDS].facts, place_at_hand(at),
                        at->block, w->scale);
        shape.scale = 1.0f;
    }
    if (masked && (at->block >= at->whole_end || at->block < whole_begin_of(at))) {
        mask_scores(s, &p->forward, &memory->tile[at->tiles % RECORDS].facts, place_at_hand(at), at->block);
    }

    float factor[2] = {1.0f, 1.0f};
#if SETTLING
    if (first) {
        at->settled = false;
        const bool huge = is_huge(thread_maximum(s, 0, &shape)) || is_huge(thread_maximum(s, 1, &shape));
        if (__any_sync(0xffffffffu, huge)) {
            settle_scores(s, at, &shape);
        }
    }
#endif
    if (first) {
        at->reference[0] = reference_of(quad_max(thread_maximum(s, 0, &shape)));
        at->reference[1] = reference_of(quad_max(thread_maximum(s, 1, &shape)));
        at->sum[0] = at->sum[1] = at->excess[0] = at->excess[1] = 0.0f;
        at->wary = false;
    } else if (EXACT || (WARY && at->wary)) {
        const float bound[2] = {thread_bound(s, 0, &shape), thread_bound(s, 1, &shape)};
        if (__any_sync(0xffffffffu, (bound[0] > at->limit[0]) | (bound[1] > at->limit[1]))) {
            move_references(s, bound, at, &shape, factor);
        }
    }
    if (ALIBI && (masked || !LINED)) { /* else they are ready */
        shape.low[0] = below(&shape, 0, at->reference[0]);
        shape.low[1] = below(&shape, 1, at->reference[1]);
    }
    u32 widest = ~0u;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (previous) {
        /* The product still reads pr: the first exponentials wait in floats. */
        float early[EARLY * 4];
#pragma unroll
        for (int i = 0; i < EARLY; i++) {
            exponents(s, i, early + i * 4, at, &shape, &widest);
            raise(early + i * 4, sum);
        }
        mbarrier_arrive_after(AT(k_empty) + k_stage, is_chosen_lane(),
                              HIDDEN ? (sum[0] + sum[1]) + (sum[2] + sum[3]) : early[3]);
        wgmma_wait_for_all(o);
        wgmma_hold(s);
        mbarrier_arrive_if(AT(v_empty) + v_stage, is_chosen_lane() && real);
#pragma unroll
        for (int i = 0; i < EARLY * 4; i++) {
            asm volatile("" : "+f"(early[i])); /* packed no sooner */
        }
#pragma unroll
        for (int i = 0; i < EARLY * 2; i++) {
            pr[i] = pack_16(early[2 * i], early[2 * i + 1]);
        }
        if (EARLY < GROUPS) {
            probabilities(s, pr, at, sum, &shape, &widest, EARLY, GROUPS);
        }
    } else {
        mbarrier_arrive_if(AT(k_empty) + k_stage, is_chosen_lane());
        probabilities(s, pr, at, sum, &shape, &widest, 0, GROUPS);
    }
#if SETTLING
    if (!first &&
        at->settled) { /* so it was in vain: a branch before the exponentials would cost all tiles a tenth */
        settle_scores(s, at, &shape);
        sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        probabilities(s, pr, at, sum, &shape, &widest, 0, GROUPS);
    }
#endif
    if (POLYNOMIAL && shape.raw &&
        __any_sync(0xffffffffu,
                   widest < __float_as_uint(p->cap_square + p->cap[0]))) { /* beyond the polynomial */
        cap_scores(s, w->scale, w->to_exponent, false, &shape);
        sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        probabilities(s, pr, at, sum, &shape, &widest, 0, GROUPS);
    }
    const bool beyond = !EXACT && !(WARY && at->wary) && fmaxf(sum[0] + sum[1], sum[2] + sum[3]) > GUARD;
    if (!first && __any_sync(0xffffffffu, beyond | (factor[0] != 1.0f) | (factor[1] != 1.0f))) {
        if (!EXACT && __any_sync(0xffffffffu, beyond)) {
#if SETTLING
            if (!at->settled) {
                settle_scores(s, at, &shape);
            }
#endif
            mend(s, pr, at, sum, &shape, factor);
            at->wary = true;
        }
        scale_output(o, factor);
    }
    at->sum[0] += sum[0] + sum[1];
    at->sum[1] += sum[2] + sum[3];
    if (EXACT && first) {
        at->limit[0] = limit_of(at->reference[0], quad_sum(at->sum[0]));
        at->limit[1] = limit_of(at->reference[1], quad_sum(at->sum[1]));
    }
    if (GENERAL && p->forward.dropout_threshold != 0) {
        drop(pr, &p->forward, &memory->tile[at->tiles % RECORDS].facts, place_at_hand(at), at->block);
    }

    if (first && real) {
        if (!ROOMY) {
            finish_sums(p, memory, &last, at->tiles - 1, inverse);
        }
        finish_tile(p, memory, w, at, o, &last, inverse, at->tiles - 1);
    }
    at->fresh = first;
    if (first && !ROOMY) {
#pragma unroll
        for (int i = 0; i < DV / 2; i++) {
            o[i] = 0.0f;
        }
    }
    if (PASSING) {
        at->values = at->blocks;
    }
    at->blocks++;
}

/* A step of a warpgroup that has no rows in the tile: it keeps the others' pace, and leaves them the tensor core. What the
 * next tile's first step makes of this one's P goes nowhere. */
DEVICE void idle_step(const matrix_place *w, matrix_state *at) {
    const u32 shared = w->shared;
    const int values = value_block(at);
    const slots_at_hand slots = find_slots(w, at, values);
    wait_full(AT(k_full) + 8 * slots.k, at->blocks, w->warpgroup);
    take_turn(w->warpgroup);
    wait_full(AT(v_full) + 8 * slots.v, values, w->warpgroup);
    pass_turn(w->warpgroup);
    free_storing_slot(w, at);
    free_read_slot(w, at);
    mbarrier_arrive_if(AT(k_empty) + 8 * slots.k, is_chosen_lane());
    mbarrier_arrive_if(AT(v_empty) + 8 * slots.v, is_chosen_lane());
    if (PASSING) {
        at->values = at->blocks;
    }
    at->blocks++;
}

DEVICE void multiply(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int warpgroup) {
    float s[BC / 2], o[DV / 2];
    u32 pr[BC / 4];
    matrix_state at;
    matrix_place w;
    at.reference[0] = at.reference[1] = at.sum[0] = at.sum[1] = at.limit[0] = at.limit[1] = 0.0f;
    at.excess[0] = at.excess[1] = 0.0f;
    at.wary = at.settled = at.idle = at.fresh = false;
    at.blocks = at.values = at.tiles = at.taken = at.blocks_left = 0;
    at.storing = -1;
    w.shared = shared;
    w.warpgroup = warpgroup;
    w.q = wgmma_operand(AT(q) + (APART || SLICED ? 0 : warpgroup) * Q_PART_BYTES, 16);
    w.k = wgmma_operand(AT(k), 16);
    w.v = wgmma_operand(AT(v) + (SLICED ? warpgroup : 0) * (V_BYTES / SLICES), CHUNK_BYTES);
    const bool weighted = UNIT && p->query_factor != 0.0f; /* Q */
    const float scale = weighted || p->forward.scale == 0.0f ? 1.0f : fabsf(p->forward.scale);
    w.to_exponent = SOFTCAP ? scale / p->forward.softcap * (2.0f * ATTNI_LOG2E) : 0.0f;
    w.scale = (SOFTCAP ? p->forward.softcap : scale) * ATTNI_LOG2E;
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        o[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < BC / 4; i++) {
        pr[i] = 0;
    }
    if (TURNS && warpgroup == WGS - 1) {
        named_barrier_arrive(TURN, 256);
    }
    if (!open_tile(p, memory, &w, &at)) {
        return;
    }
    bool first = true;
#pragma unroll 1
    while (GENERAL) { /* one step for all blocks: it is long */
        step(p, memory, &w, &at, s, pr, o, first, true, true);
        first = at.block == at.begin;
        if (first && !next_tile(p, memory, &w, &at)) {
            break;
        }
        at.block -= first ? 0 : 1;
    }
    if (!JOINED) {
        step(p, memory, &w, &at, s, pr, o, true, true, false);
    }
#pragma unroll 1
    while (!GENERAL) {
        if (JOINED) {
            step(p, memory, &w, &at, s, pr, o, true, true, true);
        }
#pragma unroll 1
        while (IDLING && at.idle && (LINED ? at.blocks_left > 0 : at.block > at.begin)) {
            at.block--;
            at.blocks_left--;
            idle_step(&w, &at);
        }
#if LINED
#pragma unroll 1
        for (; at.blocks_left > 0; at.blocks_left--) { /* which are lines does not go by the mask alone */
            at.block = at.block > at.begin ? at.block - 1 : at.last;
            if (is_line(&at)) {
                step(p, memory, &w, &at, s, pr, o, false, false, true);
            } else {
                step(p, memory, &w, &at, s, pr, o, false, true, true);
            }
        }
#else
#pragma unroll 1
        do { /* a window's blocks at both ends are one step's where JOINED */
#pragma unroll 1
            while (LIMITED && at.block > at.begin &&
                   (at.block > at.whole_end || (WINDOW_JOINED && at.block <= at.whole_begin))) {
                at.block--;
                step(p, memory, &w, &at, s, pr, o, false, true, true);
            }
#pragma unroll 1
            while (at.block > whole_begin_of(&at)) {
                at.block--;
                step(p, memory, &w, &at, s, pr, o, false, false, true);
            }
        } while (WINDOW_JOINED && at.block > at.begin);
#pragma unroll 1
        while (MASK == 2 && !WINDOW_JOINED && at.block > at.begin) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, false, true, true);
        }
#endif
        if (!next_tile(p, memory, &w, &at)) {
            break;
        }
        if (!JOINED) {
            step(p, memory, &w, &at, s, pr, o, true, true, true);
        }
    }
    const int values = value_block(&at);
    mbarrier_wait(AT(v_full) + 8 * (values % STAGES), values / STAGES & 1);
    wgmma_hold(o);
    wgmma_fence();
    issue_product(o, pr, &w, (u32)values % STAGES, at.fresh);
    float inverse[2];
    const row_sums last = {
        {at.sum[0], at.sum[1]}, {at.excess[0], at.excess[1]}, {at.reference[0], at.reference[1]}};
    finish_sums(p, memory, &last, at.tiles - 1, inverse);
    wgmma_wait_for_all(o);
    finish_tile(p, memory, &w, &at, o, &last, inverse, at.tiles - 1);
    if (!DIRECT && (threadIdx.x & 127) == 0) {
        tma_wait_read(0); /* shared memory must outlive the store */
    }
}

/* ---------------------------------------------------------------- the kernel */

DEVICE void make_barriers(u32 shared) {
    for (int i = 0; i < RECORDS; i++) {
        mbarrier_init(AT(tile_full) + 8 * i, 1);
        mbarrier_init(AT(tile_empty) + 8 * i, (BIAS ? 2 : 1) + 4 * WGS);
    }
    for (int i = 0; i < Q_BARRIERS; i++) {
        mbarrier_init(AT(q_full) + 8 * i, 1);
        mbarrier_init(AT(q_empty) + 8 * i, (DIRECT ? 4 : 1) * (APART ? 1 : WGS));
    }
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(k_full) + 8 * i, 1);
        mbarrier_init(AT(k_empty) + 8 * i, 4 * WGS);
        mbarrier_init(AT(v_full) + 8 * i, 1);
        mbarrier_init(AT(v_empty) + 8 * i, 4 * WGS);
    }
#if BIAS
    for (int i = 0; i < WGS * BIAS; i++) {
        mbarrier_init(AT(bias_full) + 8 * i, 1);
        mbarrier_init(AT(bias_empty) + 8 * i, 4);
    }
#endif
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
    if (LENGTHS) {
        wait_for_last(); /* sequences_sm90 */
    }
    if (threadIdx.x == 0) {
        make_barriers(shared);
    } else if (threadIdx.x == 128 * WGS + 32) {
        any = begin_schedule(&p, memory, &scheduled);
    } else if (threadIdx.x == 128 * WGS && !LENGTHS) {
        prefetch_tensor_map(&p.q);
        prefetch_tensor_map(&p.k);
        prefetch_tensor_map(&p.v);
    }
#if LINED
    write_places(memory);
#endif
    __syncthreads();
    if (warpgroup == WGS) {
        registers_give(PRODUCER_REGISTERS);
        if (threadIdx.x == 128 * WGS) {
            produce(&p, memory, shared);
        } else if (threadIdx.x == 128 * WGS + 32) {
            schedule(&p, memory, shared, &scheduled, any);
        }
#if BIAS
        if (threadIdx.x == 128 * WGS + 64) {
            produce_bias(&p, memory, shared);
        }
#endif
    } else {
        registers_take(MATRIX_REGISTERS);
        multiply(&p, memory, shared, warpgroup);
    }
}
