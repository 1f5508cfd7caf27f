/*
 * Who sees whom. Causal masks, windows and lengths are all one thing: the interval [begin, end) of key
 * indices that a query row may see. Tiles, skipping and per-element masks follow from it.
 */
#ifndef ATTNI_MASK_H
#define ATTNI_MASK_H

#include "core/internal.h"

/* One sequence of the batch: where its rows begin in the tensors, and its lengths and positions. */
typedef struct attni_sequence {
    int64_t batch;            /* of bias, mask, slopes and dropout */
    int64_t q_begin, q_len;
    int64_t k_begin, k_len;
    int64_t q_batch, k_batch;
    int64_t query_start, key_start;
} attni_sequence;

static inline int64_t attni_length_of(attn_lengths kind, const int32_t *lengths, int64_t batch, int64_t full,
                                      int64_t limit, int64_t *begin) {
    int64_t length = full;
    *begin = 0;
    if (kind == ATTN_LENGTHS_PADDED) length = lengths[batch];
    if (kind == ATTN_LENGTHS_RAGGED) {
        *begin = lengths[batch];
        length = (int64_t)lengths[batch + 1] - lengths[batch];
    }
    return attni_max(0, attni_min(length, limit));
}

static inline attni_sequence attni_sequence_of(const attn_problem *p, const attn_tensors *t, int64_t batch) {
    attni_sequence s;
    s.batch = batch;
    s.q_len = attni_length_of(p->lengths_q, t->lengths_q, batch, t->seqlen_q, p->seqlen_q, &s.q_begin);
    s.k_len = attni_length_of(p->lengths_k, t->lengths_k, batch, t->seqlen_k, p->seqlen_k, &s.k_begin);
    s.q_batch = p->lengths_q == ATTN_LENGTHS_RAGGED ? 0 : batch;
    s.k_batch = p->lengths_k == ATTN_LENGTHS_RAGGED ? 0 : batch;
    s.key_start = t->key_start;
    s.query_start = t->query_start;
    if (s.query_start == ATTN_POSITION_DEFAULT) s.query_start = s.key_start + s.k_len - s.q_len;
    return s;
}

/* The keys [*begin, *end) that a query at this position sees; *begin <= *end. */
static inline void attni_visible(const attn_problem *p, const attni_sequence *s, int64_t query_position,
                                 int64_t *begin, int64_t *end) {
    const int64_t here = query_position - s->key_start; /* the query's own position as a key index */
    int64_t from = 0, to = s->k_len;
    if (p->mask == ATTN_MASK_CAUSAL) to = attni_min(to, here + 1);
    if (p->window_right != ATTN_WINDOW_UNLIMITED) to = attni_min(to, here + p->window_right + 1);
    if (p->window_left != ATTN_WINDOW_UNLIMITED) from = attni_max(from, here - p->window_left);
    *begin = attni_min(from, s->k_len);
    *end = attni_max(*begin, to);
}

#endif
