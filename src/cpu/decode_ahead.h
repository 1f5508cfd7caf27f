/*
 * The order in which decode reads a block, and what it prefetches meanwhile. Compiled once per instruction
 * set.
 *
 * A block's quarters are read as four streams: lane j of its scores is key j / 4 of quarter j % 4,
 *
 *     lane    0 1  2  3   4 5  6  7   8 9 10 11   12 13 14 15
 *     key     0 4  8 12   1 5  9 13   2 6 10 14    3  7 11 15
 *
 * so that four keys that are computed together are in pages of their own. A core's fill buffers hold 16
 * lines, a third of what the memory's latency asks for; the rest is up to its prefetcher, which runs up to 20
 * lines ahead within a page, and so needs several pages at once. Their addresses are translated at once too,
 * which takes 400 ns where the page tables have to come from memory, while no prefetch retires. A row of the
 * next block is asked for (to L2) while a row of this one is read, so that no more than a block lies waiting
 * there: of lines that wait longer some are gone again.
 */
#ifndef ATTNI_DECODE_AHEAD_H
#define ATTNI_DECODE_AHEAD_H

#include <string.h>

#include "cpu/kernel.h"

#define DECODE_KEYS 16
#define DECODE_RUN (DECODE_KEYS / 4) /* of a block that a stream has */

/* K or V of the task's heads: base of the first key and head, bytes from key to key and head to head. */
typedef struct decode_panel {
    const char *base,
        *after; /* after: of the keys that follow the last block, those of another piece; or null */
    int64_t key_stride, head_stride, bytes; /* bytes of one row */
    int64_t far_head, far_stride;           /* in the order of prefetching: head to head, a stream's rows */
    bool stretch;                           /* the heads of a key lie side by side */
} decode_panel;

static decode_panel panel_of(const char *base, int64_t key_stride, int64_t head_stride, int64_t heads,
                             int64_t bytes) {
    decode_panel p = {base,  NULL,        key_stride, head_stride,
                      bytes, head_stride, key_stride, heads * head_stride == key_stride};
    /* a stream's rows are one stretch then, to be gone through in order */
    if (p.stretch) {
        p.far_head = head_stride * DECODE_RUN;
        p.far_stride = head_stride;
    }
    return p;
}

/* What is prefetched while a head is read: the next piece of the stretch, or the head that is read then. */
SIMD_INLINE int64_t far_turn(const decode_panel *panel, int64_t head, int64_t heads, bool down) {
    return panel->stretch && !down ? head : heads - 1 - head;
}

static inline int64_t lane_key(int64_t lane) { return lane % 4 * DECODE_RUN + lane / 4; }

/* A row of a block's scores from the order of keys to that of lanes, and back. */
static void lanes_of_keys(float *s) {
    float keys[DECODE_KEYS];
    memcpy(keys, s, sizeof keys);
    for (int i = 0; i < DECODE_KEYS; i++) s[i] = keys[lane_key(i)];
}

static void keys_of_lanes(float *s) {
    float lanes[DECODE_KEYS];
    memcpy(lanes, s, sizeof lanes);
    for (int i = 0; i < DECODE_KEYS; i++) s[lane_key(i)] = lanes[i];
}

/*
 * A head's rows of K (or V) in a block, and what is prefetched meanwhile: near, to L1, the rows of V (or K)
 * that the loop after this one reads; far, to L2, as many rows of the next block.
 */
typedef struct decode_block {
    const char *rows, *near, *far;
    int64_t stride, near_stride, far_stride; /* from a stream's row to the next */
    int64_t step, near_step; /* from stream to stream */
} decode_block;

/* A block with fewer rows: they are copied to last, and zeros after them. */
static void copy_block(const decode_panel *panel, int64_t rows, char *last, decode_block *b) {
    for (int64_t i = 0; i < DECODE_KEYS; i++) {
        if (i < rows)
            memcpy(last + i * panel->bytes, b->rows + i * panel->key_stride, (size_t)panel->bytes);
        else
            memset(last + i * panel->bytes, 0, (size_t)panel->bytes);
    }
    b->rows = last;
    b->stride = panel->bytes;
    b->step = DECODE_RUN * panel->bytes;
}

/* The rows of a head, and of the one that comes next; turn: which of the next block are prefetched. */
SIMD_INLINE decode_block block_of(const decode_panel *panel, int64_t head, int64_t turn, int64_t key,
                                  int64_t keys, const decode_panel *next, int64_t next_head, int64_t next_key,
                                  char *last) {
    const int64_t ahead = key + DECODE_KEYS;
    decode_block b = {
        .rows = panel->base + head * panel->head_stride + key * panel->key_stride,
        .near = next->base + next_head * next->head_stride + next_key * next->key_stride,
        .far = panel->base + turn * panel->far_head + ahead * panel->key_stride,
        .stride = panel->key_stride,
        .near_stride = next->key_stride,
        .far_stride = panel->far_stride,
        .step = DECODE_RUN * panel->key_stride,
        .near_step = DECODE_RUN * next->key_stride,
    };
    if (next_key >= keys) b.near = next->after != NULL ? next->after + next_head * next->head_stride : b.rows;
    if (ahead >= keys) b.far = panel->after != NULL ? panel->after + turn * panel->far_head : b.rows;
    if (ahead > keys) copy_block(panel, keys - key, last, &b);
    return b;
}

/* The rows of lanes that follow each other within four: their first, and bytes from one to the next. */
typedef struct decode_rows {
    const char *row, *near, *far;
    int64_t step, near_step;
} decode_rows;

SIMD_INLINE decode_rows rows_at(const decode_block *b, int lane) {
    const int64_t stream = lane % 4, row = lane / 4;
    return (decode_rows){.row = b->rows + stream * b->step + row * b->stride,
                         .near = b->near + stream * b->near_step + row * b->near_stride,
                         .far = b->far + stream * b->step + row * b->far_stride,
                         .step = b->step,
                         .near_step = b->near_step};
}

/* Further by so many bytes of each row. */
SIMD_INLINE void rows_move(decode_rows *r, int64_t bytes) {
    r->row += bytes;
    r->near += bytes;
    r->far += bytes;
}

/* The lines of row i that begin in its bytes [at, at + bytes), to which r points. */
SIMD_INLINE void prefetch_row(const decode_rows *r, const int i, int64_t at, const int64_t bytes) {
    if (bytes < 64 && at % 64 != 0) return;
    SIMD_UNROLL
    for (int64_t more = 0; more < bytes; more += 64) {
        simd_prefetch_far(r->far + i * r->step + more);
        simd_prefetch_near(r->near + i * r->near_step + more);
    }
}

/* A head's first block, of so many keys. */
static void prefetch_first(const decode_panel *panel, int64_t head, int64_t keys) {
    const char *row = panel->base + head * panel->head_stride;
    for (int64_t key = 0; key < attni_min(keys, DECODE_KEYS); key++, row += panel->key_stride)
        for (int64_t at = 0; at < panel->bytes; at += 64) simd_prefetch_far(row + at);
}

#endif
