/*
 * forward_sm90_f8: what a matrix warpgroup does with its tiles, with float32 scores or (SCORES_HALF) f16 ones. A kernel of
 * f16 scores includes it twice, each time in a namespace of its own.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#undef EARLY_GROUPS
#if HALF && !SCORES_HALF
#define EARLY_GROUPS 4
#else
#define EARLY_GROUPS EARLY
#endif

/* What a thread of a matrix warpgroup holds. Rows: row and row + 8 of the tile. */
struct f8_state {
    float reference[2]; /* of the rows: p = 2^(scale s - reference), with raw scores s */
#if SCORES_HALF
    u32 factor[2], minus[2]; /* scale and -reference in pairs of f16 */
#else
    float scale[2]; /* the tile's, or less: f8_limit_scale() */
#endif
    float last_reference[2], last_sum[2]; /* of the tile before, until it is finished */
    float sum[2]; /* this thread's shares of the rows' sums of p */
    float kept_reference[2]; /* of what o has */
    int interval; /* blocks in t */
    int blocks; /* whose K has been taken */
    int tiles; /* whose Q has been taken */
    int block, begin; /* of the tile at hand: the block at work, and its first */
    int whole_begin, whole_end; /* blocks that all rows of the warpgroup see whole */
};

#if SCORES_HALF
#include "hopper_f8_half.cuh"
#else
#include "hopper_f8_float.cuh"
#endif

/* What an interval's products have summed joins o, whose reference may be an older one. */
DEVICE void join_sums(float (&to)[DV / 2], const float (&o)[DV / 2], const float (&t)[DV / 2],
                      const f8_state *at, const float reference[2]) {
    const float factor[2] = {exp2_fast(at->kept_reference[0] - reference[0]),
                             exp2_fast(at->kept_reference[1] - reference[1])};
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        to[i] = fmaf(o[i], factor[i / 2 & 1], t[i]);
    }
}

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

/* A tile has had its last scores. */
DEVICE void close_tile(shared_memory *memory, f8_state *at) {
#if !SCORES_HALF
    memory->powers[this_thread()] = f8_powers(at, f8_scale_of(memory->tile[at->tiles % RECORDS].score_scale));
#endif
#pragma unroll
    for (int half = 0; half < 2; half++) {
        at->last_reference[half] = at->reference[half];
        at->last_sum[half] = at->sum[half];
    }
    at->tiles++;
}

/* O and LSE of the tile before this one. */
DEVICE void finish_tile(const attni_forward_sm90_params *p, shared_memory *memory, const f8_state *at,
                        const float (&o)[DV / 2], float (&t)[DV / 2], int tile) {
    const tile_record *record = &memory->tile[tile % RECORDS];
    const int warpgroup = this_warpgroup();
    const float excess[2] = {0.0f, 0.0f};
    float inverse[2], reference[2];
#if SCORES_HALF
    for (int half = 0; half < 2; half++) {
        reference[half] = f8_true_reference(
            at->last_reference[half], memory->q_scale[tile % Q_SLOTS][thread_row(warpgroup) + half * 8]);
    }
    mark_tile(p, memory, &memory->tile[tile % RECORDS], memory->q_scale[tile % Q_SLOTS], at->last_reference);
#else
    const u32 powers = memory->powers[this_thread()];
    reference[0] = f8_true_reference(at->last_reference[0], (short)powers);
    reference[1] = f8_true_reference(at->last_reference[1], (short)(powers >> 16));
#endif
    finish_rows(&p->forward, record, warpgroup, at->last_sum, excess, reference, inverse);
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
#if SCORES_HALF
    scale_rows(memory->q[slot][this_warpgroup()][0], memory->q_scale[slot] + 64 * this_warpgroup(),
               record->score_scale);
    fence_async_proxy();
    named_barrier_sync(OWN + this_warpgroup(), 128);
    f8_take_scales(memory->q_scale[slot], at);
#else
    const float scale = record->score_scale;
    at->scale[0] = at->scale[1] = f8_scale_of(scale);
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
        f8_begin_rows(s, at);
    }
    f8_sums sums = {};
    u32 early[EARLY_GROUPS]; /* the product still reads pr */
    f8_probabilities(s, early, at, sums, 0, EARLY_GROUPS, masked);
    mbarrier_arrive_after(AT(k_empty) + k_stage, is_chosen_lane(), sums[1]);
    if (previous) {
        wgmma_wait_for_all(t);
        wgmma_hold(s);
        mbarrier_arrive_if(AT(turned_empty) + v_stage, is_chosen_lane());
    }
#pragma unroll
    for (int i = 0; i < EARLY_GROUPS;
         i++) { /* a 0 that the assembler does not know, or it would write pr at once */
        pr[i] = early[i] ^ (u32)p->zero;
    }
    f8_probabilities(s, pr, at, sums, EARLY_GROUPS, GROUPS, masked);
    float sum[2] = {f8_sum_of(sums, 0), f8_sum_of(sums, 1)};
    if (__any_sync(0xffffffffu, !(sum[0] <= GUARD && sum[1] <= GUARD))) {
        f8_mend(s, pr, t, at, sum, first);
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

/* A warpgroup's tiles up to a record that says that there are no more. Slots and records go on from what was counted. */
DEVICE void multiply(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int warpgroup,
                     int *tiles, int *blocks) {
    f8_scores s;
    float t[DV / 2], o[DV / 2];
    u32 pr[BC / 8];
    f8_state at;
    matrix_place w;
    at.reference[0] = at.reference[1] = at.kept_reference[0] = at.kept_reference[1] = 0.0f;
    at.sum[0] = at.sum[1] = 0.0f;
    at.interval = 0;
    at.blocks = *blocks;
    at.tiles = *tiles;
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
        close_tile(memory, &at);
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
    *tiles = at.tiles + 1; /* a record said that there are no more */
    *blocks = at.blocks;
}
