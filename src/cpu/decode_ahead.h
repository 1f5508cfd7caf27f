/*
 * What decode prefetches while it computes a block of keys: the next block's K and V, in the order of memory, to L2;
 * what the next loop reads, to L1. Compiled once per instruction set.
 */
#ifndef ATTNI_DECODE_AHEAD_H
#define ATTNI_DECODE_AHEAD_H

#include "cpu/kernel.h"

/* K or V of the task's heads: base of the first key and head, bytes from key to key and head to head. */
typedef struct decode_panel {
    const char *base;
    int64_t key_stride, head_stride, bytes; /* bytes of one row */
} decode_panel;

/*
 * What is prefetched beside bytes of K or V: so many lines of K and as many of V, at every so manieth turn of a loop.
 */
#define AHEAD_LINES(bytes) ((bytes) < 128 ? 1 : (int)(bytes) / 128)
#define AHEAD_TURNS(bytes) ((bytes) < 128 ? 128 / (int)(bytes) : 1)

/*
 * The next block's lines of K and V in the order of memory: segments without a gap, as long as the strides allow. With
 * (batch, seqlen, heads, dim) packed the block is one segment, with (batch, heads, seqlen, dim) each head is one.
 */
typedef struct decode_ahead {
    const decode_panel *k, *v;
    const char *k_line, *v_line;
    int64_t lines; /* left in this segment */
    int64_t key, segment, segments, segments_a_key, segment_lines;
} decode_ahead;

/* Some of them, for one loop. */
typedef struct ahead_run {
    const char *k, *v;
} ahead_run;

/* Begins segment a->segment; after the last one there are no lines. */
static void ahead_segment(decode_ahead *a) {
    if (a->segment >= a->segments) return;
    const int64_t key = a->key + a->segment / a->segments_a_key, head = a->segment % a->segments_a_key;
    a->k_line = a->k->base + key * a->k->key_stride + head * a->k->head_stride;
    a->v_line = a->v->base + key * a->v->key_stride + head * a->v->head_stride;
    a->lines = a->segment_lines;
}

/* Plans keys [key, key_end). */
static void ahead_begin(decode_ahead *a, const decode_panel *k, const decode_panel *v, int64_t key,
                        int64_t key_end, int64_t heads) {
    const int64_t keys = attni_max(0, key_end - key);
    const bool heads_touch = k->head_stride == k->bytes && v->head_stride == v->bytes;
    const int64_t together = heads_touch ? heads : 1;
    const bool keys_touch = k->key_stride == together * k->bytes && v->key_stride == together * v->bytes;
    *a = (decode_ahead){.k = k, .v = v, .k_line = k->base, .v_line = v->base, .key = key};
    a->segments_a_key = heads / together;
    a->segments = keys > 0 ? a->segments_a_key * (keys_touch ? 1 : keys) : 0;
    a->segment_lines = attni_ceil_div((keys_touch ? keys : 1) * together * attni_max(k->bytes, v->bytes), 64);
    ahead_segment(a);
}

/* Prefetches count lines of each at once, from segment to segment. */
static void ahead_now(decode_ahead *a, int64_t count) {
    for (; count > 0 && a->lines > 0; count--) {
        simd_prefetch_far(a->k_line);
        simd_prefetch_far(a->v_line);
        a->k_line += 64;
        a->v_line += 64;
        if (--a->lines == 0) {
            a->segment++;
            ahead_segment(a);
        }
    }
}

/*
 * The next count lines. Where a segment ends they are prefetched at once, and the loop asks for lines after them, which
 * is harmless: they come next, or nothing does.
 */
SIMD_INLINE ahead_run ahead_take(decode_ahead *a, int64_t count) {
    if (a->lines <= count) {
        ahead_now(a, count);
        return (ahead_run){a->k_line, a->v_line};
    }
    const ahead_run run = {a->k_line, a->v_line};
    a->k_line += 64 * count;
    a->v_line += 64 * count;
    a->lines -= count;
    return run;
}

/* Lines of K and as many of V. A few at a time and often: the core has few buffers for lines in flight. */
SIMD_INLINE void prefetch_lines(ahead_run *run, const int count) {
    SIMD_UNROLL
    for (int i = 0; i < count; i++) {
        simd_prefetch_far(run->k + i * 64);
        simd_prefetch_far(run->v + i * 64);
    }
    run->k += count * 64;
    run->v += count * 64;
}

/* What the next loop reads, from L2 to L1: rows of K while values are summed, of V while scores are. */
typedef struct decode_near {
    const char *base;
    int64_t key_stride;
} decode_near;

SIMD_INLINE decode_near near_of(const decode_panel *panel, int64_t head, int64_t key) {
    return (decode_near){panel->base + head * panel->head_stride + key * panel->key_stride,
                         panel->key_stride};
}

/* The lines of some rows that begin in their bytes [at, at + bytes). */
SIMD_INLINE void prefetch_near(const char *line, int64_t stride, const int rows, int64_t at,
                               const int64_t bytes) {
    if (bytes < 64 && at % 64 != 0) return;
    SIMD_UNROLL
    for (int i = 0; i < rows; i++) {
        for (int64_t more = 0; more < bytes; more += 64) simd_prefetch_near(line + i * stride + at + more);
    }
}

#endif
