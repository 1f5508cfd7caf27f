/*
 * The forward of compute capability 9.0: O = softmax(scale Q K^T + mask) V, by wgmma, the copy engine and
 * warpgroups with roles. One block a multiprocessor stays for the whole launch and takes tiles of BR rows.
 *
 *   scheduler   1 thread   which tile is next, and what the others must know of it
 *   producer    1 thread   Q, K and V to shared memory
 *   warpgroups  WGS        64 rows each: products, softmax, O and LSE
 *
 * The key blocks of all tiles of a block form one stream, last block first, with no break between tiles:
 *
 *   a warpgroup      Q K i+1 | P V i   | softmax i+1 ........... | Q K i+2 | P V i+1 | softmax i+2 ...
 *   the tensor core  Q K i+1 . P V i . (the other warpgroups') . . Q K i+2 . P V i+1 . . . .
 *   the producer     K i+2 into the slot of K i, V i+1 into that of V i-1, once they are released
 *
 * Where block i+1 begins a tile, O of the last tile is finished after softmax i+1, while others multiply.
 *
 * Softmax has no maximum in its loop: a row's reference comes from 32 keys and moves only when a sum of p
 * says so (mend). Registers and shared memory: params.h, attni_forward_sm90_tiles; nothing is spilled.
 *
 * H200, bf16, 16k tokens, hidden size 2048, 8192 keys, full / causal, TFLOP/s (cuDNN through torch, same
 * run): dim 64 600/550 (446/428), 128 714/697 (612/534), 256 793/674 (699/627).
 * What was tried: docs/schedules/forward_sm90.md.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#include "params.h"
#include "ptx.cuh"
#include "ptx_sm90.cuh"
#include "softmax.cuh"

#define BR (64 * WGS)
#define WIDTH_S BC
#define WIDTH_O DV
#define WARP_ROWS 16
#ifndef VARLEN
#define VARLEN 0
#endif
#define ANY_LENGTHS VARLEN
#include "placement.cuh"
#include "wgmma.cuh"

#define THREADS (128 * WGS + 128)
#define CHUNKS(dim) (((dim) + 63) / 64)
#define GROUPS (BC / 8)    /* column groups of 8 of a score tile */
#define RECORDS ATTNI_SM90_RECORDS
#define LIMITED (MASK > 0) /* keys after a row's own are hidden */
#ifndef SOFTCAP
#define SOFTCAP 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#define SHAPED (SOFTCAP || ALIBI) /* scores become powers of two before the softmax, not in it */
/* A warpgroup may have to pass over a tile's first blocks, which lie after all its rows. */
#define PASSING (LIMITED && BC < BR)
static_assert(!PASSING || (BR - 64 + BC - 1) / BC < STAGES,
              "a V is released a step later than its K is taken");

/* Thresholds of the running reference, as powers of two: see mend(). */
#if BF16
#define HEADROOM 32.0f
#define GUARD 0x1p48f
#define MOST_SHIFTED 0x1p94f
#else
#define HEADROOM 0.0f
#define GUARD 0x1p14f
#define MOST_SHIFTED 0.0f
#endif
#define LOWEST (-3.402823466e38f) /* the reference of a row that has seen nothing */

/* Registers of the roles: launched with 65536 / THREADS, rounded down to a multiple of 8. */
#if WGS == 2
#define PRODUCER_REGISTERS 24
#define MATRIX_REGISTERS 240
#elif WGS == 3
#define PRODUCER_REGISTERS 32
#define MATRIX_REGISTERS 160
#else
#define PRODUCER_REGISTERS 32
#define MATRIX_REGISTERS 112
#endif

/* ---------------------------------------------------------------- shared memory and barriers */

/* What the producer says of a tile beside its coordinates. */
struct tile_record {
    tile_facts facts;
    i64 lse;         /* of the tile's first row, in elements */
    int reserved[2];
    int4 view
        [WGS]; /* of each warpgroup: its first block (-1: no more tiles), the tile's last one, and the blocks
                        [z, w) that all its rows see whole */
    int passed[4]; /* of each warpgroup: blocks before its first, which lie after all its rows */
};
static_assert(sizeof(tile_record) == ATTNI_SM90_RECORD_BYTES(WGS), "params.h knows the size of a record");

struct shared_memory {
    u16 q[Q_SLOTS][WGS][CHUNKS(D)][64 * 64]; /* a tile's rows; where there are two slots, later its O */
    u16 k[STAGES][CHUNKS(D)][BC * 64];
    u16 v[STAGES][CHUNKS(DV)][BC * 64];
    tile_record tile[RECORDS];
    /* mbarriers              arrived at by                          waited for by */
    u64 tile_full[RECORDS]; /* the scheduler                         the producer */
    u64 tile_empty[RECORDS]; /* the producer, tiles later             the scheduler */
    u64 q_full[Q_SLOTS]; /* the copy engine                         the warpgroups */
    u64 q_empty[Q_SLOTS]; /* each warpgroup, once its part is free   the producer */
    u64 k_full[STAGES]; /* the copy engine                         the warpgroups */
    u64 k_empty[STAGES]; /* each warp, after its scores             the producer */
    u64 v_full[STAGES]; /* the copy engine                         the warpgroups */
    u64 v_empty[STAGES]; /* each warp, after its product            the producer */
};

/* Named barriers. 0 is __syncthreads'. */
enum named_barrier {
    TURN = 1, /* + warpgroup: the one before it lets it issue (256 threads: both of them) */
    OWN = TURN + WGS, /* + warpgroup: its 128 threads among themselves */
};

/* A field's shared address. (NVRTC has no offsetof.) */
#define OFFSET(field) ((u32)(u64)(&((shared_memory *)0)->field))
#define AT(field) (shared + OFFSET(field))
#define Q_PART_BYTES (CHUNKS(D) * 64 * 64 * 2)
#define O_CHUNK_BYTES (64 * 64 * 2)
#define K_BYTES (CHUNKS(D) * BC * 64 * 2)
#define V_BYTES (CHUNKS(DV) * BC * 64 * 2)
#define CHUNK_BYTES (BC * 64 * 2)

/* ---------------------------------------------------------------- the producer: one thread, that copies */

/* How far the producer is. K of a block goes before V of the block before it, across tiles. */
struct producer {
    int blocks; /* whose K is under way */
    int row, head, batch; /* of the K that is next */
    int due_row, due_head, due_batch; /* of the V that is due; row -1: none */
};

/* A block of K or of V into a slot. */
DEVICE void load_block(const attni_tensor_map *map, u32 to, u32 barrier, int chunks, int row, int head,
                       int batch) {
    mbarrier_arrive_expect(barrier, (u32)chunks * CHUNK_BYTES);
#pragma unroll
    for (int i = 0; i < chunks; i++) {
        tma_load(to + (u32)i * CHUNK_BYTES, map, barrier, i * 64, row, head, batch, ATTNI_EVICT_LAST);
    }
}

DEVICE void load_due_values(const attni_forward_sm90_params *p, u32 shared, const producer *at) {
    if (at->due_row >= 0) {
        const u32 block = at->blocks - 1, stage = block % STAGES;
        mbarrier_sleep(AT(v_empty) + 8 * stage, (block / STAGES & 1) ^ 1);
        load_block(&p->v[0], AT(v) + stage * V_BYTES, AT(v_full) + 8 * stage, CHUNKS(DV), at->due_row,
                   at->due_head, at->due_batch);
    }
}

DEVICE void load_keys(const attni_forward_sm90_params *p, u32 shared, producer *at) {
    const u32 stage = (u32)at->blocks % STAGES;
    mbarrier_sleep(AT(k_empty) + 8 * stage, ((u32)at->blocks / STAGES & 1) ^ 1);
    load_block(&p->k[0], AT(k) + stage * K_BYTES, AT(k_full) + 8 * stage, CHUNKS(D), at->row, at->head,
               at->batch);
    load_due_values(p, shared, at);
    at->due_row = at->row;
    at->due_head = at->head;
    at->due_batch = at->batch;
    at->row -= BC;
    at->blocks++;
}

DEVICE void load_queries(const attni_forward_sm90_params *p, const tile_facts *t, u32 to, u32 barrier) {
    mbarrier_arrive_expect(barrier, WGS * Q_PART_BYTES);
#pragma unroll 1
    for (int i = 0; i < WGS; i++) {
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS(D); chunk++) {
            tma_load(to + i * Q_PART_BYTES + chunk * 64 * 64 * 2, &p->q, barrier, chunk * 64,
                     t->row0 + i * 64, t->head, t->batch, ATTNI_EVICT_FIRST);
        }
    }
}

DEVICE void produce(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared) {
    producer at = {0, 0, 0, 0, -1, 0, 0};
#pragma unroll 1
    for (u32 count = 0;; count++) {
        const tile_record *r = &memory->tile[count % RECORDS];
        const u32 slot = count % Q_SLOTS;
        mbarrier_sleep(AT(tile_full) + 8 * (count % RECORDS), count / RECORDS & 1);
        mbarrier_sleep(AT(q_empty) + 8 * slot, (count / Q_SLOTS & 1) ^ 1);
        if (count >= 3) { /* for one whose Q slot was free before this one's, whatever Q_SLOTS */
            mbarrier_arrive(AT(tile_empty) + 8 * ((count - 3) % RECORDS));
        }
        if (r->view[0].x < 0) {
            mbarrier_arrive(AT(q_full) + 8 * slot);
            load_due_values(p, shared, &at);
            return;
        }
        const tile_facts *t = &r->facts;
        load_queries(p, t, AT(q) + slot * WGS * Q_PART_BYTES, AT(q_full) + 8 * slot);
        const int last = t->block_begin * BC;
        at.row = (t->block_end - 1) * BC;
        at.head = divide(t->head, &p->forward.by_gqa);
        at.batch = t->batch;
#pragma unroll 1
        while (at.row >= last) {
            load_keys(p, shared, &at);
        }
    }
}

/* ---------------------------------------------------------------- the scheduler: one thread, a tile ahead */

/* The next tile: a ticket, or the next of those dealt to this block, to and fro so that each block gets as many
 * long ones. */
DEVICE int next_tile(const attni_forward_sm90_params *p, int round) {
    const int grid = gridDim.x, block = blockIdx.x;
    return p->ticket ? (int)atomicAdd(p->ticket, 1) : round * grid + (round & 1 ? grid - 1 - block : block);
}

/* What a warpgroup must know of a tile. Rows beyond the sequence count like others: no warpgroup then passes over
 * more blocks than the slots of V allow. */
DEVICE void view_record(tile_record *r, int warpgroup) {
    const tile_facts *t = &r->facts;
    const int first = t->row0 + warpgroup * 64, last = first + 63, begin = t->block_begin, end = t->block_end;
    int4 view;
    view.x = end - 1;
    if (PASSING) {
        view.x = max(begin, min(end, (max(0, last + t->last_key + 1) + BC - 1) / BC) - 1);
        r->passed[warpgroup] = end - 1 - view.x;
    }
    view.y = begin;
    view.z = MASK == 2 ? max(begin, (max(0, last + t->first_key) + BC - 1) / BC) : begin;
    view.w = max(0, LIMITED ? min(t->keys, first + t->last_key + 1) : t->keys) / BC;
    r->view[warpgroup] = view;
}

/* Writes the record of each tile that has rows, and one that says that there are no more. */
DEVICE void schedule(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared) {
    int round = 0, tile = next_tile(p, round++);
#pragma unroll 1
    for (u32 count = 0;; count++) {
        tile_record *r = &memory->tile[count % RECORDS];
        mbarrier_sleep(AT(tile_empty) + 8 * (count % RECORDS), (count / RECORDS & 1) ^ 1);
#pragma unroll 1
        while (tile < p->tiles && !place_tile(&p->forward, tile, &r->facts)) {
            tile = next_tile(p, round++);
        }
        const bool any = tile < p->tiles;
        if (any) {
            tile = next_tile(p, round++); /* a ticket is asked for early */
            const tile_facts *t = &r->facts;
            r->lse = t->batch * p->forward.lse_stride_batch + t->head * p->forward.lse_stride_head +
                     t->q_row0 + t->row0;
        }
#pragma unroll 1
        for (int i = 0; i < WGS; i++) {
            if (any) {
                view_record(r, i);
            } else {
                r->view[i].x = -1;
            }
        }
        mbarrier_arrive(AT(tile_full) + 8 * (count % RECORDS));
        if (!any) {
            break;
        }
    }
    if (p->ticket && tile == p->tiles + (int)gridDim.x - 1) {
        *p->ticket = 0; /* the launch's last ticket */
    }
}

/* ---------------------------------------------------------------- a warpgroup's state */

/* What a thread of a matrix warpgroup holds. Rows: row and row + 8 of the tile. */
struct matrix_state {
    float reference[2]; /* of the rows: p = 2^(scale s - reference) */
    float sum[2]; /* this thread's shares of the rows' sums of p */
    int blocks; /* whose K has been taken */
    int values; /* the block whose V is taken next, where PASSING */
    int tiles; /* whose Q has been taken */
    int storing; /* the Q slot that O is leaving from; -1 */
    float slope; /* of ALiBi, in powers of two */
    int block, begin; /* of the tile at hand: the block at work, and its first */
    int whole_begin, whole_end; /* blocks that all rows of the warpgroup see whole */
};

/* The thread and its warpgroup, read anew: what is made of them in a tile's epilogue is then not kept in registers
 * through the hot loop. */
DEVICE int this_thread(void) {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

DEVICE int this_warpgroup(void) { return this_thread() / 128; }

/* A value that all lanes of a warp have, in a uniform register: REDUX leaves it there, a shuffle would not, and
 * descriptors made of it then cost no moves. */
DEVICE int uniform(int x) { return (int)__reduce_or_sync(0xffffffffu, (u32)x); }

/* The tile's row of this thread's first row. */
DEVICE int thread_row(int warpgroup) {
    const int thread = this_thread();
    return warpgroup * 64 + (thread & 127) / 32 * 16 + (thread & 31) / 4;
}

/* ---------------------------------------------------------------- mask */

/* Hidden scores become -inf. */
DEVICE void mask_scores(float (&s)[BC / 2], const tile_facts *t, int warpgroup, int block) {
    const int row = t->row0 + thread_row(warpgroup), key = block * BC + (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = row + half * 8;
        const int last = (LIMITED ? min(own + t->last_key, t->keys - 1) : t->keys - 1) - key;
        const int first = MASK == 2 ? own + t->first_key - key : -SEEN_ALL;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[i * 4 + half * 2 + e];
                const int column = i * 8 + e;
                *x = column <= last && (MASK < 2 || column >= first) ? *x : -ATTNI_INF;
            }
        }
    }
}

/* ---------------------------------------------------------------- score options */

/* Scaled scores with softcap and ALiBi, in powers of two. */
DEVICE void shape_scores(float (&s)[BC / 2], const attni_forward_params *p, const tile_facts *t,
                         int warpgroup, int block, float scale, float slope) {
    const int distance =
        t->row0 + thread_row(warpgroup) + t->distance - block * BC - (int)(threadIdx.x & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float apart = (float)(distance + half * 8); /* exact below 2^24 */
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[i * 4 + half * 2 + e];
                if (SOFTCAP) {
                    *x = softcap_score(*x * fabsf(p->scale), p->softcap) * ATTNI_LOG2E;
                } else {
                    *x *= scale;
                }
                if (ALIBI) {
                    *x = fmaf(-slope, fabsf(apart - (float)(i * 8 + e)), *x);
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- softmax */

/* The largest score of a row over its first `groups` column groups. */
DEVICE float row_maximum(const float (&s)[BC / 2], int half, int groups) {
    float x = s[half * 2], y = s[half * 2 + 1];
#pragma unroll
    for (int i = 1; i < groups; i++) {
        x = fmaxf(x, s[i * 4 + half * 2]);
        y = fmaxf(y, s[i * 4 + half * 2 + 1]);
    }
    return quad_max(fmaxf(x, y));
}

/* A reference for a row with this largest score (scaled). bf16 takes whole numbers, so that mend() is exact. */
DEVICE float reference_of(float top) {
    return BF16 ? ceilf(fmaxf(top, LOWEST)) + HEADROOM : fmaxf(top, LOWEST);
}

/* A group's four exponentials into e, and into the sums: two for each row. */
DEVICE void exponentials(const float *s, float *e, const matrix_state *at, float (&sum)[4], float scale) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        e[j] = exp2_fast(fmaf(s[j], scale, -at->reference[j / 2]));
        sum[j] += e[j];
    }
}

/* p of the column groups [from, to), packed as a left operand. */
DEVICE void probabilities(const float (&s)[BC / 2], u32 (&p)[BC / 4], const matrix_state *at, float (&sum)[4],
                          float scale, int from, int to) {
#pragma unroll
    for (int i = from; i < to; i++) {
        float e[4];
        exponentials(s + i * 4, e, at, sum, scale);
        p[2 * i] = pack_16(e[0], e[1]);
        p[2 * i + 1] = pack_16(e[2], e[3]);
    }
}

DEVICE void scale_output(float (&o)[DV / 2], float first, float second) {
#pragma unroll
    for (int i = 0; i < DV / 8; i++) {
        o[i * 4] *= first;
        o[i * 4 + 1] *= first;
        o[i * 4 + 2] *= second;
        o[i * 4 + 3] *= second;
    }
}

/*
 * Moves the references of rows whose p grew too large. p is computed without looking for a maximum; a thread's
 * sum of a block's p bounds them, and if any row of the warp has a sum beyond GUARD, the warp comes here.
 * bf16 has the exponents to wait long: p, sums and o then shrink by a power of two, exactly. Where that is
 * not so, or p has overflowed, the row takes its maximum and computes p again.
 */
DEVICE void mend(const float (&s)[BC / 2], u32 (&p)[BC / 4], float (&o)[DV / 2], matrix_state *at,
                 float (&sum)[4], float scale, bool fresh) {
    float factor[2] = {1.0f, 1.0f};
    bool again[2] = {false, false};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float top = quad_max(sum[half * 2] + sum[half * 2 + 1]);
        if (top > GUARD) {
            if (BF16 && top < MOST_SHIFTED) {
                const int shift = (__float_as_int(top) >> 23) - 127 + (int)HEADROOM;
                factor[half] = __int_as_float((127 - shift) << 23);
                at->reference[half] += (float)shift;
            } else {
                again[half] = true;
            }
        }
    }
    if (__any_sync(0xffffffffu, again[0] || again[1])) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float top = row_maximum(s, half, GROUPS) * scale, old = at->reference[half];
            if (again[half]) {
                at->reference[half] = reference_of(top);
                factor[half] = exp2_fast(old - at->reference[half]);
            }
        }
        sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        probabilities(s, p, at, sum, scale, 0, GROUPS);
    } else {
        const u32 first = pack_16(factor[0], factor[0]), second = pack_16(factor[1], factor[1]);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            p[2 * i] = multiply_16(p[2 * i], first);
            p[2 * i + 1] = multiply_16(p[2 * i + 1], second);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum[j] *= factor[j / 2];
        }
    }
    if (!fresh) {
        at->sum[0] *= factor[0];
        at->sum[1] *= factor[1];
        scale_output(o, factor[0], factor[1]);
    }
}

/* ---------------------------------------------------------------- finish */

/* LSE of a thread's rows, and what their o are multiplied by. */
DEVICE void finish_rows(const attni_forward_params *p, const tile_record *record, int warpgroup,
                        const float sum[2], const float reference[2], float inverse[2]) {
    const tile_facts *t = &record->facts;
    const int row = thread_row(warpgroup), rows = t->rows - t->row0;
    const float sink = p->sinks ? p->sinks[t->head] * ATTNI_LOG2E : -ATTNI_INF;
    float *lse = p->lse + record->lse + row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = quad_sum(sum[half]), top = reference[half], weight = 1.0f;
        if (sink != -ATTNI_INF) { /* a sink of -inf is none */
            top = fmaxf(top, sink);
            weight = reference[half] == top ? 1.0f : exp2_fast(reference[half] - top);
            total = total * weight + exp2_fast(sink - top);
        }
        inverse[half] = total == 0.0f ? 0.0f : __fdividef(weight * p->dropout_scale, total);
        if (p->lse && (threadIdx.x & 3) == 0 && row + half * 8 < rows) {
            lse[half * 8] = total == 0.0f ? -ATTNI_INF
                            : top == sink
                                ? p->sinks[t->head] + logf(total)
                                : fmaf(top - HEADROOM, ATTNI_LN2, logf(total * exp2_fast(HEADROOM)));
        }
    }
}

/* O through the warpgroup's own part of its Q slot, by the copy engine, which clips it to the tensor. */
DEVICE void store_staged(const attni_forward_sm90_params *p, const tile_facts *t, u32 stage, int warpgroup,
                         const float (&o)[DV / 2], const float inverse[2]) {
    const int thread = this_thread(), lane = thread & 31, row = (thread & 127) / 32 * 16 + (lane & 15);
#pragma unroll
    for (int i = 0; i < DV / 16; i++) {
        const int chunk = 2 * i + (lane >> 4); /* of 16 bytes */
        stmatrix_x4(stage + i / 4 * O_CHUNK_BYTES + row * 128 + (((chunk & 7) ^ (row & 7)) << 4),
                    pack_16(o[8 * i] * inverse[0], o[8 * i + 1] * inverse[0]),
                    pack_16(o[8 * i + 2] * inverse[1], o[8 * i + 3] * inverse[1]),
                    pack_16(o[8 * i + 4] * inverse[0], o[8 * i + 5] * inverse[0]),
                    pack_16(o[8 * i + 6] * inverse[1], o[8 * i + 7] * inverse[1]));
    }
    fence_async_proxy();
    named_barrier_sync(OWN + warpgroup, 128);
    if ((threadIdx.x & 127) == 0) {
#pragma unroll
        for (int i = 0; i < CHUNKS(DV); i++) {
            tma_store(&p->o, stage + i * O_CHUNK_BYTES, i * 64, t->row0 + warpgroup * 64, t->head, t->batch);
        }
        tma_commit();
    }
}

/* O from registers: for a single Q slot, which the next tile's Q wants, and for rows that a box cannot clip. */
DEVICE void store_direct(const attni_forward_params *p, const tile_facts *t, int warpgroup,
                         const float (&o)[DV / 2], const float inverse[2]) {
    const int row = t->row0 + thread_row(warpgroup), quad_lane = threadIdx.x & 3;
    u16 *base = (u16 *)p->o + t->batch * p->o_stride.batch + t->head * p->o_stride.heads +
                t->q_row0 * p->o_stride.seqlen;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u16 *to = base + (row + half * 8) * p->o_stride.seqlen;
#pragma unroll
        for (int n = 0; n < DV / 8; n += 4) {
            u32 x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = pack_16(o[(n + i) * 4 + half * 2] * inverse[half],
                               o[(n + i) * 4 + half * 2 + 1] * inverse[half]);
            }
            const uint4 piece = gather_quad(x);
            const int column = (n + quad_lane) * 8;
            if (row + half * 8 < t->rows && column < p->dim_v) {
                *(uint4 *)(to + column) = piece;
            }
        }
    }
}

/* ---------------------------------------------------------------- the matrix warpgroups */

/* A scale of 0 or below works on the bits of Q (this warpgroup's part), so that everything after may take it as
 * positive. What is not finite gives NaN with a scale of 0. */
DEVICE void turn_queries(u32 *part, float scale) {
    for (u32 i = threadIdx.x & 127; i < Q_PART_BYTES / 4; i += 128) {
        const u32 exponents = BF16 ? 0x7f807f80u : 0x7c007c00u, x = part[i];
        const u32 odd = ((x & exponents & 0xffff0000u) == (exponents & 0xffff0000u) ? 0x7fff0000u : 0u) |
                        ((x & exponents & 0xffffu) == (exponents & 0xffffu) ? 0x7fffu : 0u);
        part[i] = scale < 0.0f ? x ^ 0x80008000u : odd;
    }
}

/* Where a thread works; all of it constant. */
struct matrix_place {
    u32 shared;
    int warpgroup;
    u32 q, k, v; /* descriptors' low words, of stage 0 */
    float scale; /* of scores in the softmax */
    float score_scale; /* of raw scores to powers of two */
};

/* One lane of the warp. An election takes no register; a kept predicate, where there are registers, no time. */
DEVICE bool is_chosen_lane(void) { return DV > 192 || WGS > 2 ? elect_lane() : (threadIdx.x & 31) == 0; }

DEVICE int whole_begin_of(const matrix_state *at) { return MASK == 2 ? at->whole_begin : at->begin; }

/* The block whose V is taken next: the one before, of which P is. */
DEVICE int value_block(const matrix_state *at) { return PASSING ? at->values : at->blocks - 1; }

/* The turn to issue products goes round the warpgroups, so that one multiplies while another is at softmax. */
DEVICE void take_turn(int warpgroup) {
    if (TURNS) {
        named_barrier_sync(TURN + warpgroup, 256);
    }
}

DEVICE void pass_turn(int warpgroup) {
    if (TURNS) {
        named_barrier_arrive(TURN + (warpgroup + 1 == WGS ? 0 : warpgroup + 1), 256);
    }
}

/* With turns only warpgroup 0 need look whether a tile is there: the others come after it. */
DEVICE void wait_full(u32 barrier, int block, int warpgroup) {
    if (!TURNS || PASSING || warpgroup == 0) {
        mbarrier_wait(barrier, block / STAGES & 1);
    }
}

/* S = Q K^T of a block. */
DEVICE void issue_scores(float (&s)[BC / 2], const matrix_place *w, int tile, int block) {
    const u32 q = w->q + tile % Q_SLOTS * (WGS * Q_PART_BYTES >> 4),
              k = w->k + block % STAGES * (K_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        wgmma_shared(s, wgmma_descriptor(q + i / 4 * (O_CHUNK_BYTES >> 4) + i % 4 * 2),
                     wgmma_descriptor(k + i / 4 * (CHUNK_BYTES >> 4) + i % 4 * 2), i > 0);
    }
    wgmma_commit();
}

/* O += P V of a block. */
DEVICE void issue_product(float (&o)[DV / 2], const u32 (&p)[BC / 4], const matrix_place *w, int block) {
    const u32 v = w->v + block % STAGES * (V_BYTES >> 4);
#pragma unroll
    for (int i = 0; i < BC / 16; i++) {
        wgmma_registers(o, p + 4 * i, wgmma_descriptor(v + i * (16 * 128 >> 4)));
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

/* O and LSE of the tile before this one. */
DEVICE void finish_tile(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                        matrix_state *at, const float (&o)[DV / 2], const float sum[2],
                        const float reference[2], int tile) {
    const u32 shared = w->shared;
    const tile_record *record = &memory->tile[tile % RECORDS];
    const tile_facts *t = &record->facts;
    float inverse[2];
    finish_rows(&p->forward, record, this_warpgroup(), sum, reference, inverse);
    if (DIRECT) {
        store_direct(&p->forward, t, this_warpgroup(), o, inverse);
        return;
    }
    const int slot = tile % Q_SLOTS;
    store_staged(p, t, AT(q) + (slot * WGS + this_warpgroup()) * Q_PART_BYTES, this_warpgroup(), o, inverse);
    if (at->storing >= 0 && (threadIdx.x & 127) == 0) { /* the store before, after a tile of one block */
        tma_wait_read(1);
        mbarrier_arrive(AT(q_empty) + 8 * at->storing);
    }
    at->storing = slot;
}

/* Takes the next tile: its Q and facts. False at the end of all. */
DEVICE bool open_tile(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                      matrix_state *at) {
    const u32 shared = w->shared;
    const int slot = at->tiles % Q_SLOTS;
    mbarrier_wait(AT(q_full) + 8 * slot, at->tiles / Q_SLOTS & 1);
    const int4 view = memory->tile[at->tiles % RECORDS].view[this_warpgroup()];
    at->block = uniform(view.x);
    if (at->block < 0) {
        return false;
    }
    at->begin = uniform(view.y);
    if (MASK == 2) {
        at->whole_begin = uniform(view.z);
    }
    at->whole_end = uniform(view.w);
    if (ALIBI) {
        const tile_facts *t = &memory->tile[at->tiles % RECORDS].facts;
        at->slope = p->forward.alibi[t->batch * p->forward.alibi_stride_batch + t->head] * ATTNI_LOG2E;
    }
    if (p->forward.scale <= 0.0f) {
        turn_queries((u32 *)memory->q[slot][this_warpgroup()], p->forward.scale);
        fence_async_proxy();
        named_barrier_sync(OWN + this_warpgroup(), 128);
    }
    if (PASSING) {
        const int passed = uniform(memory->tile[at->tiles % RECORDS].passed[this_warpgroup()]);
#pragma unroll 1
        for (int block = at->blocks; block < at->blocks + passed; block++) {
            const int stage = block % STAGES, parity = block / STAGES & 1;
            mbarrier_wait(AT(k_full) + 8 * stage, parity);
            mbarrier_arrive_if(AT(k_empty) + 8 * stage, is_chosen_lane());
            if (block > 0) {
                take_turn(w->warpgroup);
                pass_turn(w->warpgroup);
            }
            mbarrier_wait(AT(v_full) + 8 * stage, parity);
            mbarrier_arrive_if(AT(v_empty) + 8 * stage, is_chosen_lane());
        }
        at->blocks += passed;
    }
    return true;
}

/*
 * One step of the pipeline: scores of this block, and under their softmax the product of the block before.
 *   first     a new tile begins here, and the last one ends with the product
 *   masked    a row may not see a key of the block
 *   previous  there is a block before: not in the very first step
 */
DEVICE void step(const attni_forward_sm90_params *p, shared_memory *memory, const matrix_place *w,
                 matrix_state *at, float (&s)[BC / 2], u32 (&pr)[BC / 4], float (&o)[DV / 2],
                 const bool first, const bool masked, const bool previous) {
    const u32 shared = w->shared;
    const int values = value_block(at);
    const u32 k_stage = 8 * (at->blocks % STAGES), v_stage = 8 * (values % STAGES);
    const bool turn = previous || at->blocks > 0;
    wait_full(AT(k_full) + k_stage, at->blocks, previous ? w->warpgroup : 0);
    if (turn) {
        take_turn(w->warpgroup);
    }
    wgmma_hold(o);
    wgmma_fence();
    issue_scores(s, w, at->tiles, at->blocks);
    if (previous) {
        wait_full(AT(v_full) + v_stage, values, w->warpgroup);
        wgmma_fence();
        issue_product(o, pr, w, values);
    }
    if (turn) {
        pass_turn(w->warpgroup);
    }
    if (!first) {
        free_storing_slot(w, at);
    }
    if (previous) {
        wgmma_wait_but_one(s);
    } else {
        wgmma_wait_for_all(s);
    }
    if (DIRECT) {
        mbarrier_arrive_if(AT(q_empty) + 8 * (at->tiles % Q_SLOTS),
                           is_chosen_lane() && at->block == at->begin);
    }
    if (SHAPED) {
        shape_scores(s, &p->forward, &memory->tile[at->tiles % RECORDS].facts, this_warpgroup(), at->block,
                     w->score_scale, at->slope);
    }
    if (masked && (at->block >= at->whole_end || at->block < whole_begin_of(at))) {
        mask_scores(s, &memory->tile[at->tiles % RECORDS].facts, this_warpgroup(), at->block);
    }

    const float old_reference[2] = {at->reference[0], at->reference[1]},
                old_sum[2] = {at->sum[0], at->sum[1]};
    if (first) { /* a reference from 32 keys; mend() finds a better one if it must */
        at->reference[0] = reference_of(row_maximum(s, 0, 4) * w->scale);
        at->reference[1] = reference_of(row_maximum(s, 1, 4) * w->scale);
        at->sum[0] = at->sum[1] = 0.0f;
    }
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (previous) {
        /* The product still reads pr: the first exponentials wait in floats. */
        float early[EARLY * 4];
#pragma unroll
        for (int i = 0; i < EARLY; i++) {
            exponentials(s + i * 4, early + i * 4, at, sum, w->scale);
        }
        mbarrier_arrive_after(AT(k_empty) + k_stage, is_chosen_lane(), early[3]);
        wgmma_wait_for_all(o);
        wgmma_hold(s);
        mbarrier_arrive_if(AT(v_empty) + v_stage, is_chosen_lane());
#pragma unroll
        for (int i = 0; i < EARLY * 4; i++) {
            asm volatile("" : "+f"(early[i])); /* packed no sooner */
        }
#pragma unroll
        for (int i = 0; i < EARLY * 2; i++) {
            pr[i] = pack_16(early[2 * i], early[2 * i + 1]);
        }
        probabilities(s, pr, at, sum, w->scale, EARLY, GROUPS);
    } else {
        mbarrier_arrive_if(AT(k_empty) + k_stage, is_chosen_lane());
        probabilities(s, pr, at, sum, w->scale, 0, GROUPS);
    }
    if (__any_sync(0xffffffffu, fmaxf(sum[0] + sum[1], sum[2] + sum[3]) > GUARD)) {
        mend(s, pr, o, at, sum, w->scale, first);
    }
    at->sum[0] += sum[0] + sum[1];
    at->sum[1] += sum[2] + sum[3];

    if (first) {
        if (previous) {
            finish_tile(p, memory, w, at, o, old_sum, old_reference, at->tiles - 1);
        }
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

DEVICE void multiply(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, int warpgroup) {
    float s[BC / 2], o[DV / 2];
    u32 pr[BC / 4];
    matrix_state at;
    matrix_place w;
    at.reference[0] = at.reference[1] = at.sum[0] = at.sum[1] = 0.0f;
    at.blocks = at.values = at.tiles = 0;
    at.storing = -1;
    w.shared = shared;
    w.warpgroup = warpgroup;
    w.q = wgmma_operand(AT(q) + warpgroup * Q_PART_BYTES, 16);
    w.k = wgmma_operand(AT(k), 16);
    w.v = wgmma_operand(AT(v), CHUNK_BYTES);
    w.score_scale = p->forward.scale == 0.0f ? 1.0f : fabsf(p->forward.scale) * ATTNI_LOG2E;
    w.scale = SHAPED ? 1.0f : w.score_scale;
#pragma unroll
    for (int i = 0; i < DV / 2; i++) {
        o[i] = 0.0f;
    }
    if (TURNS && warpgroup == WGS - 1) {
        named_barrier_arrive(TURN, 256);
    }
    if (!open_tile(p, memory, &w, &at)) {
        return;
    }
    step(p, memory, &w, &at, s, pr, o, true, true, false);
#pragma unroll 1
    for (;;) {
#pragma unroll 1
        while (LIMITED && at.block > at.begin && at.block > at.whole_end) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, false, true, true);
        }
#pragma unroll 1
        while (at.block > whole_begin_of(&at)) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, false, false, true);
        }
#pragma unroll 1
        while (MASK == 2 && at.block > at.begin) {
            at.block--;
            step(p, memory, &w, &at, s, pr, o, false, true, true);
        }
        at.tiles++;
        if (Q_SLOTS == 2) {
            free_storing_slot(&w, &at);
        }
        if (!open_tile(p, memory, &w, &at)) {
            break;
        }
        step(p, memory, &w, &at, s, pr, o, true, true, true);
    }
    const int values = value_block(&at);
    mbarrier_wait(AT(v_full) + 8 * (values % STAGES), values / STAGES & 1);
    wgmma_hold(o);
    wgmma_fence();
    issue_product(o, pr, &w, values);
    wgmma_wait_for_all(o);
    finish_tile(p, memory, &w, &at, o, at.sum, at.reference, at.tiles - 1);
    if (!DIRECT && (threadIdx.x & 127) == 0) {
        tma_wait_read(0); /* shared memory must outlive the store */
    }
}

/* ---------------------------------------------------------------- the kernel */

DEVICE void make_barriers(u32 shared) {
    for (int i = 0; i < RECORDS; i++) {
        mbarrier_init(AT(tile_full) + 8 * i, 1);
        mbarrier_init(AT(tile_empty) + 8 * i, 1);
    }
    for (int i = 0; i < Q_SLOTS; i++) {
        mbarrier_init(AT(q_full) + 8 * i, 1);
        mbarrier_init(AT(q_empty) + 8 * i, DIRECT ? 4 * WGS : WGS);
    }
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(k_full) + 8 * i, 1);
        mbarrier_init(AT(k_empty) + 8 * i, 4 * WGS);
        mbarrier_init(AT(v_full) + 8 * i, 1);
        mbarrier_init(AT(v_empty) + 8 * i, 4 * WGS);
    }
    mbarrier_init_fence();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ENTRY(const __grid_constant__ attni_forward_sm90_params p) {
    extern __shared__ __align__(1024) char smem[];
    shared_memory *memory = (shared_memory *)smem;
    const u32 shared = shared_address(smem);
    const int warpgroup = uniform((int)threadIdx.x / 128);
    if (threadIdx.x == 0) {
        make_barriers(shared);
    }
    __syncthreads();
    if (warpgroup == WGS) {
        registers_give(PRODUCER_REGISTERS);
        if (threadIdx.x == 128 * WGS) {
            produce(&p, memory, shared);
        } else if (threadIdx.x == 128 * WGS + 32) {
            schedule(&p, memory, shared);
        }
    } else {
        registers_take(MATRIX_REGISTERS);
        multiply(&p, memory, shared, warpgroup);
    }
}
