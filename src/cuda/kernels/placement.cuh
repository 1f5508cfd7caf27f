/*
 * Which tile a block of a forward works on, where it lies in the tensors, and who sees whom. Included by a
 * kernel after its BR, BC and WARP_ROWS.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_PLACEMENT_CUH
#define ATTNI_PLACEMENT_CUH

#include "params.h"
#include "ptx.cuh"

#define SEEN_ALL (1 << 30)
#ifndef ANY_LENGTHS
#define ANY_LENGTHS 1 /* 0: a variant for full lengths alone */
#endif

#ifndef SPLIT
#define SPLIT 0 /* 1: a tile's keys are cut in pieces, each of them a tile of its own */
#endif

#ifndef TILE_QUERIES
#define TILE_QUERIES(p) BR
#endif

/* A tile of rows. Rows and keys count from the start of the sequence. */
struct tile_facts {
    int row0, rows, keys;       /* first row; the sequence's lengths */
    int first_key, last_key;    /* row i sees keys i + first_key to i + last_key, both clamped to +-2^30 */
    int distance;               /* position of row 0 minus position of key 0 */
    int batch, head;
    int slice; /* of V; SPLIT: which piece of the keys, and above 16 bits how many there are */
    int block_begin, block_end; /* of the key loop, at least one block */
    i64 q_row0, k_row0;         /* where the sequence begins in a ragged tensor */
    i64 query_start, key_start;
};

DEVICE i64 clamp_seen(i64 x) { return x < -SEEN_ALL ? -SEEN_ALL : x > SEEN_ALL ? SEEN_ALL : x; }

DEVICE int length_of(int kind, const int *lengths, int batch, int full, i64 *begin) {
    if (!ANY_LENGTHS) {
        *begin = 0;
        return full;
    }
    *begin = kind == ATTNI_LENGTHS_RAGGED ? lengths[batch] : 0;
    int n = kind == ATTNI_LENGTHS_FULL     ? full
            : kind == ATTNI_LENGTHS_PADDED ? lengths[batch]
                                           : lengths[batch + 1] - lengths[batch];
    return max(0, min(n, full));
}

DEVICE int divide(int n, const attni_divisor *by) {
    return (int)((__umulhi((u32)n, by->multiplier) + (u32)n) >> by->shift);
}

/* SPLIT: leaves a tile one of its pieces, of as many blocks each but the last; 0 if there is no such one. */
DEVICE int take_piece(tile_facts *t, int pieces) {
    const int blocks = t->block_end - t->block_begin, each = (blocks + pieces - 1) / pieces,
              first = t->slice * each;
    t->block_end = t->block_begin + min(blocks, first + each);
    t->block_begin += first;
    t->slice |= (blocks + each - 1) / each << 16;
    return first < blocks;
}

/* Where a tile of attni_forward_schedule's order lies; 0 if it has no rows, or no such piece. */
DEVICE int place_tile(const attni_forward_params *p, int tile, tile_facts *t) {
    int inner = divide(tile, &p->by_slices);
    t->slice = tile - inner * p->value_slices;
    const int pairs = p->batch * p->heads_q;
    int row_tile, pair;
    if (inner >= p->late_begin) {
        row_tile = divide(inner - p->late_begin, &p->by_pairs);
        pair = inner - p->late_begin - row_tile * pairs;
        row_tile += p->row_tiles - p->late_rows;
    } else {
        int first = divide(inner, &p->by_group) * p->head_group,
            rest = inner - first * (p->row_tiles - p->late_rows);
        bool last = first + p->head_group > pairs;
        row_tile = last ? divide(rest, &p->by_last_width) : divide(rest, &p->by_width);
        pair = first + rest - row_tile * (last ? pairs - first : p->head_group);
    }
    if (p->descending) {
        row_tile = p->row_tiles - 1 - row_tile;
    }
    t->row0 = row_tile * TILE_QUERIES(p);
    t->batch = divide(pair, &p->by_heads);
    t->head = pair - t->batch * p->heads_q;
    if (ANY_LENGTHS && p->order) {
        t->batch = p->order[t->batch];
    }
    t->rows = length_of(p->lengths_q_kind, p->lengths_q, t->batch, p->seqlen_q, &t->q_row0);
    t->keys = length_of(p->lengths_k_kind, p->lengths_k, t->batch, p->seqlen_k, &t->k_row0);

    t->key_start = p->key_start;
    t->query_start = p->query_default ? p->key_start + t->keys - t->rows : p->query_start;
    i64 distance = t->query_start - t->key_start;
    t->distance = (int)clamp_seen(distance);
    t->last_key = p->window_right < 0 ? SEEN_ALL : (int)clamp_seen(distance + p->window_right);
    t->first_key = p->window_left < 0 ? -SEEN_ALL : (int)clamp_seen(distance - p->window_left);
    int last_row = min(t->row0 + TILE_QUERIES(p), t->rows) - 1;
    int end = min(t->keys, last_row + t->last_key + 1);
    t->block_begin = max(0, t->row0 + t->first_key) / BC;
    t->block_end = max(t->block_begin + 1, (max(0, end) + BC - 1) / BC);
    return t->row0 < t->rows && (!SPLIT || take_piece(t, p->value_slices));
}

/* A warp's view of a tile: the key blocks that any of its rows sees, and those that all of them see whole. */
struct warp_view {
    int row_index; /* of the thread's first row */
    int seen_begin, seen_end, whole_begin, whole_end;
};

DEVICE warp_view view_tile(const tile_facts *t) {
    int first = t->row0 + (int)(threadIdx.x / 32) * WARP_ROWS, last = min(first + WARP_ROWS, t->rows) - 1;
    warp_view v;
    v.row_index = first + (int)(threadIdx.x & 31) / 4;
    v.seen_begin = max(0, first + t->first_key) / BC;
    v.seen_end = first >= t->rows ? 0 : (max(0, min(t->keys, last + t->last_key + 1)) + BC - 1) / BC;
    v.whole_begin = (max(0, last + t->first_key) + BC - 1) / BC;
    v.whole_end = first >= t->rows ? 0 : max(0, min(t->keys, first + t->last_key + 1)) / BC;
    return v;
}

#endif
