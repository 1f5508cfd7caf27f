/*
 * A task of decode: piece after piece of keys, each for several heads together (decode_body.h), until none is
 * left. Compiled once per instruction set.
 *
 * The first block of a piece is prefetched under the last one of the piece before, and the queries of a
 * sequence are converted once for the pieces that follow each other. Without that a piece cost 6 to 10 us.
 */
#ifndef ATTNI_DECODE_TASK_H
#define ATTNI_DECODE_TASK_H

#include "cpu/decode_body.h"
#include "cpu/decode_merge.h"

/* q of a head's rows, as score_keys wants it. */
static void load_queries(const attni_job *job, const attni_tile *tile, const decode_scratch *w,
                         decode_head *h) {
    const attn_problem *p = job->p;
    float floats[ATTNI_DIM_LIMIT + DECODE_STEP];
    memset(floats, 0, (size_t)(p->dim_qk + DECODE_STEP) * sizeof(float));
    memset(h->q, 0, (size_t)(w->slots * attni_round_up(p->dim_qk, DECODE_STEP)) * sizeof(float));
    for (int64_t row = 0; row < h->rows; row++) {
        simd_pack_floats(p->dtype_q, attni_q_row(job, tile, h->row_begin + row), floats, p->dim_qk);
        for (int64_t d = 0; d < p->dim_qk; d += DECODE_STEP) {
            vf x[2] = {vf_load(floats + d), vf_load(floats + d + SIMD_LANES)};
            float *to = h->q + d * w->slots + row * DECODE_STEP;
            simd_out_of_order(p->dtype_kv, x);
            vf_store(to, x[0]);
            vf_store(to + SIMD_LANES, x[1]);
        }
    }
}

/* The scratch for a sequence's heads, and their queries. */
static void bind_heads(const attni_job *job, const attni_tile *tile, decode_scratch *w, char *scratch) {
    decode_carve(w, scratch, tile->heads, tile->row_end, job->p->dim_qk, job->p->dim_v);
    memset(w->s, 0, 2 * ATTNI_DECODE_ROWS * DECODE_KEYS * sizeof(float));
    attni_tile one = *tile;
    for (int64_t i = 0; i < w->count; i++) {
        one.head_kv = tile->head_kv + w->heads[i].head;
        load_queries(job, &one, w, &w->heads[i]);
        memset(w->heads[i].o, 0, (size_t)(w->slots * w->ld_o) * sizeof(float));
    }
}

/* The heads' states before the first key of w->seen (o is zero already), and where its keys lie. */
static void begin_piece(const attni_job *job, const attni_tile *tile, decode_scratch *w) {
    const attn_problem *p = job->p;
    const int64_t size = p->dtype_kv == ATTN_F32 ? 4 : 2;
    w->k = panel_of(attni_k_row(job, tile, w->seen.begin), p->k.seqlen * size, p->k.heads * size, tile->heads,
                    p->dim_qk * size);
    w->v = panel_of(attni_v_row(job, tile, w->seen.begin), p->v.seqlen * size, p->v.heads * size, tile->heads,
                    p->dim_v * size);
    w->asked = false;
    for (int64_t i = 0; i < w->count; i++) {
        decode_head *h = &w->heads[i];
        memset(h->l, 0, sizeof h->l);
        for (int64_t row = 0; row < h->rows; row++) set_reference(w, h, row, -INFINITY);
    }
}

/* exp(x), mostly of what rounding a maximum left. */
static double exp_of_rest(double x) { return fabs(x) < 1e-4 ? 1 + x + x * x / 2 : exp(x); }

/*
 * A head's rows into their place, in natural units: m rounds to float, l and o take the difference. Leaves o
 * zero, for the next piece, while it is in the caches.
 */
static void finish_head(const attni_job *job, const decode_scratch *w, const decode_head *h,
                        const attni_decode_place *place) {
    const int64_t dim_v = job->p->dim_v;
    float *m_at = place->partial.m + h->head * place->stride,
          *l_at = place->partial.l + h->head * place->stride,
          *o_at = place->partial.o + h->head * place->stride;
    for (int64_t row = 0; row < h->rows; row++) {
        const int64_t at = h->row_begin + row;
        const float sum = vf_sum(vf_load(h->l + row * SIMD_LANES));
        const double m = (double)h->m[row] * w->units.to_natural;
        const float rounded = (float)m, rest = sum == 0 ? 1 : (float)exp_of_rest(m - rounded);
        const vf factor = vf_set1(rest * job->dropout_scale);
        merge_weights weights = {1, 1, false, true};
        if (place->merge) {
            weights = merge_sums(&m_at[at], &l_at[at], rounded, sum * rest);
        } else {
            m_at[at] = rounded;
            l_at[at] = sum * rest;
        }
        float *o = h->o + row * w->ld_o, *to = o_at + at * dim_v;
        for (int64_t d = 0; d < w->ld_o; d += DECODE_STEP) {
            vf x[2] = {vf_load(o + d), vf_load(o + d + SIMD_LANES)};
            vf_store(o + d, vf_zero());
            vf_store(o + d + SIMD_LANES, vf_zero());
            simd_in_order(job->p->dtype_kv, x);
            for (int64_t i = 0; i < 2 && d + i * SIMD_LANES < dim_v && !weights.nothing; i++) {
                float *here = to + d + i * SIMD_LANES;
                const int64_t n = attni_min(SIMD_LANES, dim_v - d - i * SIMD_LANES);
                const vf more = vf_mul(vf_mul(x[i], factor), vf_set1(weights.more));
                simd_store_part(
                    ATTN_F32, here,
                    weights.empty
                        ? more
                        : vf_add(vf_mul(simd_load_part(ATTN_F32, here, n), vf_set1(weights.old)), more),
                    n);
            }
        }
    }
}

static void decode_task(const attni_job *job, const attni_decode_pieces *pieces, void *scratch) {
    const attn_problem *p = job->p;
    attni_decode_piece now;
    decode_scratch w;
    w.units = score_units_of(job);
    w.pieces = pieces;
    w.down = false;
    bool near = false; /* the first block has been prefetched */
    int64_t bound = -1;
    w.more = pieces->next(pieces->args, &w.next);
    if (w.more) see_keys(job, &w.next, &w.seen_next);
    while (w.more) {
        now = w.next;
        w.seen = w.seen_next;
        const int64_t keys = w.seen.end - w.seen.begin;
        if (now.tile.index != bound) bind_heads(job, &now.tile, &w, scratch);
        bound = now.tile.index;
        begin_piece(job, &now.tile, &w);
        for (int64_t head = 0; keys > 0 && !near && head < now.tile.heads; head++) {
            prefetch_first(&w.k, head, keys);
            prefetch_first(&w.v, head, keys);
        }
        if (keys > 0) {
            if (p->dtype_kv == ATTN_F32)
                decode_f32(job, &now.tile, &w, w.seen.begin, keys);
            else if (p->dtype_kv == ATTN_F16)
                decode_f16(job, &now.tile, &w, w.seen.begin, keys);
            else
                decode_bf16(job, &now.tile, &w, w.seen.begin, keys);
        }
        if (!w.asked) look_ahead(job, &w);
        near = keys > 0 && w.k.after != NULL;
        const attni_decode_place place = pieces->place(pieces->args, &now);
        for (int64_t i = 0; i < w.count; i++) finish_head(job, &w, &w.heads[i], &place);
        pieces->done(pieces->args, &now);
    }
}

#endif
