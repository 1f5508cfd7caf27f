/*
 * forward_sm90: the two threads that feed the matrix warpgroups. The scheduler says which tile is next and what
 * the others must know of it; the producer has the copy engine bring Q, K and V.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_PRODUCER_CUH
#define ATTNI_HOPPER_PRODUCER_CUH

#include "hopper_memory.cuh"
#if F8
#include "hopper_f8_values.cuh"
#endif
#if F8 && HALF
#include "hopper_f8_passes.cuh"
#endif
#include "ptx_sm90.cuh"
#include "softmax.cuh"

#define PIECE_SHIFT(i) ((i) == 0 ? 0 : (i) == 1 ? 11 : 14) /* ALIBI */
DEVICE float power_of_two(int n) { return __int_as_float((127 + n) << 23); }

/* ---------------------------------------------------------------- the producer: one thread, that copies */

/*
 * Where a copy finds rows: in the map of a whole tensor or, if it may not pass the end of its sequence (cut), in that sequence's
 * own map, which sequences_sm90 made. To look at such a one anew takes about as long as a copy does.
 */
struct mapped_rows {
    const attni_tensor_map *map;
    int row, plane; /* coordinates */
};

/* which: 0 Q, 1 K, 2 V, 3 O. first: the sequence's first row in a ragged tensor. */
DEVICE mapped_rows map_rows(const attni_forward_sm90_params *p, int which, int batch, int first, int row,
                            bool cut) {
    mapped_rows m = {&p->q + which, row, batch};
    if (LENGTHS && cut) {
        m.map = p->maps + (i64)batch * ATTNI_MAPS + which;
        m.plane = 0;
    } else if (LENGTHS) {
        const int kind = which == 0 || which == 3 ? p->forward.lengths_q_kind : p->forward.lengths_k_kind;
        m.row += first;
        m.plane = kind == ATTNI_LENGTHS_RAGGED ? 0 : batch;
    }
    return m;
}

/* Queries of a warpgroup. */
DEVICE int part_of(const attni_forward_params *p) { return PACKED ? p->part_queries : 64; }

/* How far the producer is. K of a block goes before V of the block before it, across tiles. */
struct producer {
    int blocks; /* whose K is under way */
    int row, head, batch; /* of the K that is next */
    int due_row, due_head, due_batch; /* of the V that is due; row -1: none; batch ~b: in b's own map */
    int slice, due_slice; /* F8: which dims of V */
    int keys, first; /* LENGTHS: of the sequence; its first key in a ragged tensor */
    bool turned; /* F8, TURNED: all of V is */
};

/* Keys and values that one tile alone reads need no place in L2. */
DEVICE u64 keep_keys(const attni_forward_params *p) {
    return SPLIT && PRODUCER_REGISTERS > 24 && p->row_tiles == 1 && p->group == 1 ? ATTNI_EVICT_FIRST
                                                                                  : ATTNI_EVICT_LAST;
}

/* A block of K or of V into a slot. */
DEVICE void load_block(const attni_forward_params *p, const mapped_rows *m, u32 to, u32 barrier, int chunks,
                       int head) {
    mbarrier_arrive_expect(barrier, (u32)chunks * CHUNK_BYTES);
#pragma unroll
    for (int i = 0; i < chunks; i++) {
        tma_load(to + (u32)i * CHUNK_BYTES, m->map, barrier, i * CHUNK_COLUMNS, m->row, head, m->plane,
                 keep_keys(p));
    }
}

/* Whether the block of K that is next needs its sequence's own map. Hidden scores are replaced, so that it does no harm to
 * read the next sequence's keys, but behind the last one there may be no memory; and a softcap looks at all scores. */
DEVICE bool is_key_block_cut(const attni_forward_params *p, const producer *at) {
    if (!LENGTHS || at->row + BC <= at->keys) {
        return false;
    }
    return SOFTCAP || GENERAL || p->lengths_k_kind != ATTNI_LENGTHS_RAGGED ||
           at->first + at->row + BC > p->lengths_k[p->batch];
}

#if F8
/* One box: of V (dim, key, head, batch), or turned (key, dim, head, batch). */
DEVICE void load_due_values(const attni_forward_sm90_params *p, u32 shared, const producer *at) {
    if (at->due_row >= 0) {
        const u32 block = at->blocks - 1, stage = block % STAGES, parity = (block / STAGES & 1) ^ 1;
#if TURNED
        if (!at->turned) {
            wait_for_values(p, at->due_row, at->due_head, at->due_batch);
        }
        mbarrier_sleep(AT(turned_empty) + 8 * stage, parity);
        mbarrier_arrive_expect(AT(turned_full) + 8 * stage, TURNED_BYTES);
        tma_load(AT(turned) + stage * TURNED_BYTES, &p->v, AT(turned_full) + 8 * stage, at->due_row, 0,
                 at->due_head, at->due_batch, ATTNI_EVICT_LAST);
#else
        mbarrier_sleep(AT(v_empty) + 8 * stage, parity);
        mbarrier_arrive_expect(AT(v_full) + 8 * stage, V_BYTES);
        tma_load(AT(v) + stage * V_BYTES, &p->v, AT(v_full) + 8 * stage, at->due_slice * DV, at->due_row,
                 at->due_head, at->due_batch, ATTNI_EVICT_LAST);
#endif
    }
}
#else
DEVICE void load_due_values(const attni_forward_sm90_params *p, u32 shared, const producer *at) {
    if (at->due_row >= 0) {
        const u32 block = at->blocks - 1, stage = block % STAGES;
        mapped_rows m = {&p->q + 2, at->due_row, at->due_batch};
        if (LENGTHS && at->due_batch < 0) {
            m = map_rows(p, 2, ~at->due_batch, 0, at->due_row, true);
            tensor_map_acquire(m.map);
        }
        mbarrier_sleep(AT(v_empty) + 8 * stage, (block / STAGES & 1) ^ 1);
        load_block(&p->forward, &m, AT(v) + stage * V_BYTES, AT(v_full) + 8 * stage, SLICES * CHUNKS(DV),
                   at->due_head);
    }
}
#endif

DEVICE void load_keys(const attni_forward_sm90_params *p, u32 shared, producer *at) {
    const u32 stage = (u32)at->blocks % STAGES;
    const bool cut = is_key_block_cut(&p->forward, at);
    const mapped_rows m = map_rows(p, 1, at->batch, at->first, at->row, cut);
    if (cut) {
        tensor_map_acquire(m.map);
    }
    mbarrier_sleep(AT(k_empty) + 8 * stage, ((u32)at->blocks / STAGES & 1) ^ 1);
    load_block(&p->forward, &m, AT(k) + stage * K_BYTES, AT(k_full) + 8 * stage, CHUNKS(D), at->head);
    load_due_values(p, shared, at);
    at->due_row = at->row;
    at->due_head = at->head;
    at->due_batch = at->batch;
    at->due_slice = at->slice;
    if (LENGTHS && at->row + BC > at->keys) {
        at->due_batch = ~at->batch;
    } else if (LENGTHS) {
        const mapped_rows due = map_rows(p, 2, at->batch, at->first, at->row, false);
        at->due_row = due.row;
        at->due_batch = due.plane;
    }
    at->row -= BC;
    at->blocks++;
}

/* Where Q comes APART: which place of a tile is the i-th to get it. Under a mask the last one needs it first. The same
 * the other way round. */
DEVICE int apart_order(int i) { return PASSING ? WGS - 1 - i : i; }

/* Q takes its slots in turn: the how manieth a tile's is, or APART that of a place. */
DEVICE u32 queries_turn(u32 tile, int place) { return APART ? tile * WGS + apart_order(place) : tile; }

DEVICE void wait_queries_empty(u32 shared, u32 turn) {
    mbarrier_sleep(AT(q_empty) + 8 * (turn % Q_BARRIERS), (turn / Q_BARRIERS & 1) ^ 1);
}

#define PLACE_BYTES(p) (PACKED ? CHUNKS(D) * (p)->part_queries * (p)->pack * 64 * 2 : Q_PART_BYTES)

/* The 64 rows of a place of a tile. */
DEVICE void load_place(const attni_forward_sm90_params *p, const tile_facts *t, u32 to, u32 barrier,
                       int place) {
    const int row = t->row0 + place * part_of(&p->forward), pack = p->forward.pack;
    const bool cut = LENGTHS && row + part_of(&p->forward) > t->rows;
    const mapped_rows m = map_rows(p, 0, t->batch, (int)t->q_row0, row, cut);
    if (cut) {
        tensor_map_acquire(m.map);
    }
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS(D); chunk++) {
        tma_load(to + chunk * 64 * 64 * 2, m.map, barrier, chunk * CHUNK_COLUMNS,
                 PACKED ? t->head * pack : m.row, PACKED ? m.row : t->head, m.plane, ATTNI_EVICT_FIRST);
    }
}

/* Q of a tile, once its slot is free. */
DEVICE void load_queries(const attni_forward_sm90_params *p, const tile_facts *t, u32 shared, u32 tile) {
    const u32 slot = tile % Q_BARRIERS, barrier = AT(q_full) + 8 * slot;
    wait_queries_empty(shared, tile);
    mbarrier_arrive_expect(barrier, PARTS * PLACE_BYTES(&p->forward));
#pragma unroll 1
    for (int i = 0; i < PARTS; i++) {
        load_place(p, t, AT(q) + (slot * PARTS + i) * Q_PART_BYTES, barrier, place_in_tile(tile, i));
    }
}

/* APART: of its places the `from`th to before the `end`th in order, each once its slot is free. */
DEVICE void load_apart(const attni_forward_sm90_params *p, const tile_facts *t, u32 shared, u32 tile,
                       int from, int end) {
#pragma unroll 1
    for (int i = from; i < end; i++) {
        const u32 turn = tile * WGS + i, slot = turn % Q_BARRIERS, barrier = AT(q_full) + 8 * slot;
        wait_queries_empty(shared, turn);
        mbarrier_arrive_expect(barrier, PLACE_BYTES(&p->forward));
        load_place(p, t, AT(q) + slot * Q_PART_BYTES, barrier, apart_order(i));
    }
}

DEVICE void produce(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared) {
    producer at = {0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, false};
#if F8 && HALF
    bool first_pass = true;
#endif
#pragma unroll 1
    for (u32 count = 0;; count++) {
        const tile_record *r = &memory->tile[count % RECORDS];
        mbarrier_sleep(AT(tile_full) + 8 * (count % RECORDS), count / RECORDS & 1);
        if (r->view[0].x < 0) {
            if (SPLIT) { /* gather_sm90; sooner its blocks would be in the way of this one's copies */
                launch_next();
            }
            load_due_values(p, shared, &at);
            for (u32 i = 0; i < (APART ? WGS : 1); i++) {
                const u32 turn = APART ? count * WGS + i : count;
                wait_queries_empty(shared, turn);
                mbarrier_arrive(AT(q_full) + 8 * (turn % Q_BARRIERS));
            }
#if F8 && HALF
            if (begin_second_pass(memory, shared, first_pass)) {
                first_pass = false;
                at.due_row = -1;
                if (count >= 3) {
                    mbarrier_arrive(AT(tile_empty) + 8 * ((count - 3) % RECORDS));
                }
                continue;
            }
#endif
            return;
        }
        const tile_facts *t = &r->facts;
#if TURNED
        if (!at.turned && all_turned(p)) {
            at.turned = true;
            fence_async_proxy_global();
        }
#endif
        const int last = t->block_begin * BC;
        at.row = (ROTATED ? r->view[0].x : t->block_end - 1) * BC;
        at.head = divide(t->head, &p->forward.by_gqa);
        if (t->keys == 0) {
            at.head = p->forward.heads_kv; /* outside: zeros */
        }
        at.batch = t->batch;
        at.slice = t->slice;
        if (LENGTHS) {
            at.keys = t->keys;
            at.first = (int)t->k_row0;
        }
        if (APART) { /* those that have slots beside the last tile's */
            load_apart(p, t, shared, count, 0, Q_PARTS - WGS);
        }
        if (Q_PARTS < 2 * PARTS) { /* while the last tile's Q is still read: its last V, too, is due here */
            load_keys(p, shared, &at);
        }
        if (!APART) {
            load_queries(p, t, shared, count);
        }
        if (count >= 3) { /* paces the scheduler: now the next tile's record */
            mbarrier_arrive(AT(tile_empty) + 8 * ((count - 3) % RECORDS));
        }
        if (APART) {
            load_apart(p, t, shared, count, Q_PARTS - WGS, WGS);
        }
#pragma unroll 1
        for (int left = t->block_end - t->block_begin; ROTATED && left > 0; left--) {
            load_keys(p, shared, &at);
            at.row = at.row >= last ? at.row : (t->block_end - 1) * BC;
        }
#pragma unroll 1
        while (!ROTATED && at.row >= last) {
            load_keys(p, shared, &at);
        }
    }
}

#if BIAS
/* The bias has a thread of its own, so that its slots keep nobody waiting but for bias. A warpgroup gets the
 * blocks that it works on. */
DEVICE void produce_bias(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared) {
    int blocks[WGS] = {0};
#pragma unroll 1
    for (u32 count = 0;; count++) {
        const tile_record *r = &memory->tile[count % RECORDS];
        mbarrier_sleep(AT(tile_full) + 8 * (count % RECORDS), count / RECORDS & 1);
        if (r->view[0].x < 0) {
            return;
        }
        const tile_facts *t = &r->facts;
#pragma unroll 1
        for (int block = t->block_end - 1; block >= t->block_begin; block--) {
#pragma unroll
            for (int i = 0; i < WGS; i++) {
                if (block > r->view[i].x) {
                    continue;
                }
                const int slot = blocks[i] % BIAS;
                const u32 full = AT(bias_full[i]) + 8 * slot;
                mbarrier_sleep(AT(bias_empty[i]) + 8 * slot, (blocks[i] / BIAS & 1) ^ 1);
                mbarrier_arrive_expect(full, CHUNKS(BC) * 64 * 64 * 2);
#pragma unroll
                for (int chunk = 0; chunk < CHUNKS(BC); chunk++) {
                    tma_load(AT(bias[i]) + (slot * CHUNKS(BC) + chunk) * 64 * 64 * 2, &p->bias, full,
                             block * BC + chunk * 64, t->row0 + place_in_tile(count, i) * 64, t->head,
                             t->batch, ATTNI_EVICT_LAST);
                }
                blocks[i]++;
            }
        }
        mbarrier_arrive(AT(tile_empty) + 8 * (count % RECORDS));
    }
}
#endif

/* ---------------------------------------------------------------- the scheduler: one thread, a tile ahead */

/* A block's tile after its first, which is its own number: by ticket, or the next of those dealt to it, to and fro so
 * that each block gets as many long ones. */
DEVICE int next_tile(const attni_forward_sm90_params *p, int round) {
    const int grid = gridDim.x, block = blockIdx.x;
    return p->ticket ? grid + (int)atomicAdd(p->ticket, 1)
                     : round * grid + (round & 1 ? grid - 1 - block : block);
}

/* What a warpgroup must know of a tile. Rows beyond the sequence count like others: no warpgroup then passes over
 * more blocks than the slots of V allow. */
DEVICE void view_record(tile_record *r, int warpgroup, int place, int part) {
    const tile_facts *t = &r->facts;
    const int first = t->row0 + place * part, last = first + part - 1, begin = t->block_begin,
              end = t->block_end;
    int4 view;
    view.x = end - 1;
    if (PASSING) {
        view.x = max(begin, min(end, (max(0, last + t->last_key + 1) + BC - 1) / BC) - 1);
        r->passed[warpgroup] = end - 1 - view.x;
    }
    if (ROTATED) {
        view.x = max(begin, min(end - 1, (t->row0 + BR - 1 + t->distance) / BC));
    }
    view.y = LEAVING ? min(view.x, max(begin, max(0, first + t->first_key) / BC)) : begin;
    view.z = MASK == 2 ? max(begin, (max(0, last + t->first_key) + BC - 1) / BC) : begin;
    view.w = max(0, LIMITED ? min(t->keys, first + t->last_key + 1) : t->keys) / BC;
    r->view[warpgroup] = view;
}

/* The numbers that a tile's f8 elements stand for are these times as large; without scales, 1. */
DEVICE void scale_record(const attni_forward_sm90_params *p, tile_record *r) {
    const i64 at = r->facts.batch * p->scale_stride_batch +
                   divide(r->facts.head, &p->forward.by_gqa) * p->scale_stride_head;
    const float both = p->q_scale ? p->q_scale[at] * p->k_scale[at] : 1.0f;
    r->score_scale = p->forward.scale * both;
    r->value_scale = p->v_scale ? p->v_scale[at] : 1.0f;
}

#if ALIBI
/* A slope of ALiBi as raw numbers a key, in pieces: their sum is exact. f16 reaches down to 2^-24, so a piece is kept
 * as many times as large as PIECE_SHIFT says. The product takes each piece twice. */
DEVICE void write_slope(const attni_forward_params *p, const tile_facts *t, alibi_record *r) {
    const float slope = p->alibi[t->batch * p->alibi_stride_batch + t->head],
                scale = p->scale == 0.0f ? 1.0f : fabsf(p->scale);
    float rest = slope / scale * 0.5f;
    u32 piece[3];
    r->slope = slope * ATTNI_LOG2E;
    r->lined = fabsf(rest) < (BF16 ? 0x1p100f : 0x1p15f);
#pragma unroll
    for (int i = 0; i < 3; i++) {
        piece[i] = pack_16(rest * power_of_two(PIECE_SHIFT(i)), 0.0f);
        const float back = BF16 ? __uint_as_float(piece[i] << 16) : f16_to_float((u16)piece[i]);
        rest -= back * power_of_two(-PIECE_SHIFT(i));
    }
    uint4 row = make_uint4(piece[0] | piece[1] << 16, piece[2], 0, 0);
    for (int i = 0; i < 16; i++) {
        ((uint4 *)r->pieces)[i] = row;
        if (i == 7) {
            row.x ^= 0x80008000u;
            row.y ^= 0x8000u;
        }
    }
    fence_async_proxy();
}
#endif

/* Where the scheduler is. */
struct scheduler {
    int tile, round; /* the tile at hand, and the next one's round */
};

/* The record of a tile that is placed, or of there being no more. */
DEVICE void fill_record(const attni_forward_sm90_params *p, shared_memory *memory, int tile, u32 count,
                        bool any) {
    tile_record *r = &memory->tile[count % RECORDS];
    if (any) {
        const tile_facts *t = &r->facts;
#if ALIBI
        write_slope(&p->forward, t, &memory->alibi[count % RECORDS]);
#endif
        r->lse = t->batch * p->forward.lse_stride_batch + t->head * p->forward.lse_stride_head + t->q_row0 +
                 t->row0;
        if (F8) {
            scale_record(p, r);
            r->number = tile;
            r->marked = 0;
        }
    }
#pragma unroll 1
    for (int i = 0; i < WGS; i++) {
        if (any) {
            view_record(r, i, place_in_tile(count, i), part_of(&p->forward));
        } else {
            r->view[i].x = -1;
            if (LEAVING) {
                r->passed[i] = 0;
            }
        }
        if (LEAVING && count > 0) {
            const tile_record *last = &memory->tile[(count - 1) % RECORDS];
            r->passed[i] += last->view[i].y - last->facts.block_begin;
        }
    }
}

/* The record of the tile at hand or, if it has no rows, of the next that has; or of there being no more: false. */
DEVICE bool write_record(const attni_forward_sm90_params *p, shared_memory *memory, scheduler *at,
                         u32 count) {
#pragma unroll 1
    while (at->tile < p->tiles && !place_tile(&p->forward, at->tile, &memory->tile[count % RECORDS].facts)) {
        at->tile = next_tile(p, at->round++);
    }
    const bool any = at->tile < p->tiles;
    fill_record(p, memory, at->tile, count, any);
    return any;
}

/* A block's first record, before there are barriers: what it reads comes from afar. */
DEVICE bool begin_schedule(const attni_forward_sm90_params *p, shared_memory *memory, scheduler *at) {
    at->tile = blockIdx.x;
    at->round = 1;
    return write_record(p, memory, at, 0);
}

/* The others. A ticket is drawn no sooner than its record is wanted: tiles that a block holds and has not begun are
 * what others lack at the end. Returns how many records there were. */
DEVICE u32 schedule(const attni_forward_sm90_params *p, shared_memory *memory, u32 shared, scheduler *at,
                    bool any) {
    u32 count = 1;
    mbarrier_arrive(AT(tile_full));
#pragma unroll 1
    for (; any; count++) {
        mbarrier_sleep(AT(tile_empty) + 8 * (count % RECORDS), (count / RECORDS & 1) ^ 1);
        at->tile = next_tile(p, at->round++);
        any = write_record(p, memory, at, count);
        mbarrier_arrive(AT(tile_full) + 8 * (count % RECORDS));
    }
    if (p->ticket && at->tile == p->tiles + (int)gridDim.x - 1) {
        *p->ticket = 0; /* the launch's last ticket */
    }
    return count;
}

#endif
