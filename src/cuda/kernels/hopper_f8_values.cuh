/*
 * forward_sm90_f8: the warps that turn V. Either each tile's, block by block, as the producer brings it, or
 * (TURNED) all of V once for all tiles: into the workspace, for each (batch, kv head) DV rows of keys, padded
 * by zeros to whole blocks, from where the copy engine brings it to whoever wants it.
 *
 * TURNED: blocks of V are drawn by ticket by the turners of whichever blocks of the grid run, in the order in
 * which tiles want them. Each is turned in shared memory, stored, and told by a word; producers wait for the
 * word of each block before its copy, until they see that all are turned. Nobody can wait for ever: a turner
 * waits for its own copies alone, a ticket that was drawn is turned by who drew it, who runs, and as long as
 * a producer waits for a block that nobody has drawn, the turners beside it draw on until somebody has. That
 * holds however few blocks of the grid run at once.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_VALUES_CUH
#define ATTNI_HOPPER_F8_VALUES_CUH

#include "hopper_memory.cuh"
#define TURN_DEPTH (TURNED ? 2 : 4)
#include "hopper_f8_turn.cuh"

#if TURNED
/* Where the n-th block of V lies, in the order in which tiles want them: of some heads side by side the
 * last one, then the one before. */
struct value_place {
    int pair, block; /* (batch, kv head) as one number */
};

DEVICE value_place place_values(const attni_forward_sm90_params *p, u32 n) {
    const u32 pairs = (u32)(p->forward.batch * p->forward.heads_kv), width = (u32)p->turn_width,
              blocks = (u32)p->turned_keys / BC, first = n / (width * blocks) * width,
              here = min(width, pairs - first), rest = n - first * blocks, down = rest / here;
    return {(int)(first + rest - down * here), (int)(blocks - 1 - down)};
}

DEVICE u32 value_blocks(const attni_forward_sm90_params *p) {
    return (u32)(p->forward.batch * p->forward.heads_kv) * ((u32)p->turned_keys / BC);
}

/* The n-th block on its way; or there is none. */
DEVICE void load_values(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, u32 n) {
    if (n >= value_blocks(p)) {
        memory->turn_block = -1;
        return;
    }
    const value_place at = place_values(p, n);
    const int batch = at.pair / p->forward.heads_kv;
    memory->turn_block = (int)n;
    mbarrier_arrive_expect(AT(turn_full), V_BYTES);
    tma_load(AT(turn_from), &p->bias, AT(turn_full), 0, at.block * BC, at.pair - batch * p->forward.heads_kv,
             batch, ATTNI_EVICT_FIRST);
}

/* A first ticket, and a block that one of the grid will soon turn, as a rule, into L2. */
DEVICE u32 begin_values(const attni_forward_sm90_params *p) {
    const u32 n = atomicAdd(p->turning, 1);
    prefetch_tensor_map(&p->v);
    if (blockIdx.x < value_blocks(p)) {
        const value_place at = place_values(p, blockIdx.x);
        const int batch = at.pair / p->forward.heads_kv;
        tma_prefetch(&p->bias, 0, at.block * BC, at.pair - batch * p->forward.heads_kv, batch);
    }
    return n;
}

/* A block is turned: into memory, and the word that says so. */
DEVICE void store_values(const attni_forward_sm90_params *p, u32 shared, u32 n) {
    const value_place at = place_values(p, n);
    const int batch = at.pair / p->forward.heads_kv;
    tma_store(&p->v, AT(turn_to), at.block * BC, 0, at.pair - batch * p->forward.heads_kv, batch);
    tma_commit();
}

/*
 * Until all blocks of V have been taken. While a block's store is under way the next one's copy is. What the
 * copy engine has written is told after its end, by a release; who reads it by the copy engine, too, has a
 * proxy fence in between.
 */
DEVICE void turn_values(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int turner,
                        u32 next) {
    const bool first = threadIdx.x == 128 * WGS + 64;
    u32 parity = 0;
    if (first) {
        load_values(p, memory, shared, next);
    }
#pragma unroll 1
    for (;; parity ^= 1) {
        named_barrier_sync(TURNING, 32 * TURNERS);
        if (*(volatile int *)&memory->turn_block < 0) {
            break;
        }
        const u32 block = next;
        if (first) {
            next = atomicAdd(p->turning, 1);
        }
        mbarrier_sleep(AT(turn_full), parity);
        turn_block(AT(turn_from), AT(turn_to), (u32)turner, TURNERS);
        fence_async_proxy();
        named_barrier_sync(TURNING, 32 * TURNERS);
        if (first) {
            store_values(p, shared, block);
            load_values(p, memory, shared, next);
            tma_wait(0);
            fence_async_proxy_global();
            const value_place at = place_values(p, block);
            tell(p->turned_in + at.pair * ((u32)p->turned_keys / BC) + at.block, p->run, p->turned_count);
        }
    }
    if (first && next == value_blocks(p) + gridDim.x - 1) {
        *p->turning = 0; /* the launch's last ticket */
    }
}

/* Whether all of V is turned. */
DEVICE bool all_turned(const attni_forward_sm90_params *p) {
    return load_acquire(p->turned_count) == p->turned_target;
}

/* A block of V turned may be read. */
DEVICE void wait_for_values(const attni_forward_sm90_params *p, int row, int head, int batch) {
    if (row < p->forward.seqlen_k) {
        const u32 *word =
            p->turned_in + (batch * p->forward.heads_kv + head) * (int)((u32)p->turned_keys / BC) + row / BC;
        while (load_acquire(word) != p->run) {
        }
        fence_async_proxy_global();
    }
}
#else
/* A turner's life: all blocks of all tiles, in the order of their copies. */
DEVICE void turn_values(const attni_forward_sm90_params *, shared_memory *memory, u32 shared, int turner,
                        u32) {
    u32 block = 0;
#pragma unroll 1
    for (u32 count = 0;; count++) {
        const tile_record *r = &memory->tile[count % RECORDS];
        mbarrier_sleep(AT(tile_full) + 8 * (count % RECORDS), count / RECORDS & 1);
        if (r->view[0].x < 0) {
            return;
        }
        const u32 end = block + (u32)(r->facts.block_end - r->facts.block_begin);
#pragma unroll 1
        for (; block < end; block++) {
            const u32 stage = block % STAGES, parity = block / STAGES & 1;
            mbarrier_sleep(AT(v_full) + 8 * stage, parity);
            mbarrier_sleep(AT(turned_empty) + 8 * stage, parity ^ 1);
            turn_block(AT(v) + stage * V_BYTES, AT(turned) + stage * TURNED_BYTES, (u32)turner, TURNERS);
            fence_async_proxy();
            __syncwarp();
            if ((threadIdx.x & 31) == 0) {
                mbarrier_arrive(AT(turned_full) + 8 * stage);
                mbarrier_arrive(AT(v_empty) + 8 * stage);
            }
        }
    }
}

#endif

#endif
