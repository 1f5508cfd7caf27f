/*
 * Backward: which chunk of rows meets which chunk of keys, when, and on which task. A sequence (batch and kv head)
 * has n chunks, whichever of rows and keys has more, and n steps. In step t the chunk i of keys meets the chunk
 * (i + t) mod n of rows:
 *
 *               rows 0   1   2   3        number: the step
 *      keys 0        0   1   2   3
 *           1        3   0   1   2        in a step no two pairs share a row or a column, so all of its pairs may
 *           2        2   3   0   1        run at once, each adding to dK and dV of its keys and dQ of its rows;
 *           3        1   2   3   0        no locks, no copies of dQ to be added up at the end
 *
 * Chunks have a fixed size, and each chunk's additions come in the order of the steps. So the bits do not depend on
 * who computes a pair, and there are two ways to share work, chosen by the number of tasks: a sequence is one task's
 * from the first step to the last (no waiting at all), or, where sequences are few, the tasks take pairs by ticket, step
 * after step of several sequences at once, and a pair waits until the pairs of the step before that share its rows or
 * its keys are done. Tickets are in the order of the steps, so whoever waits does so for a pair that is being
 * computed, and where there are several pairs for each task that is rare.
 *
 * dbias is added to in place. Where it is summed over batches or heads, sequences run one after another.
 */
#include <math.h>
#include <string.h>

#include "cpu/parallel.h"
#include "cpu/plan_cpu.h"

/*
 * Into how many parts the kernel's chunks of so many rows or keys are cut. With few kv heads, tasks are likely to
 * share a sequence, and want many chunks; with many heads, large ones: every pair of chunks converts its rows and keys
 * anew. Small chunks are those of a kernel that keeps what it converted; they are halved where a sequence would
 * have one or two, since cores that run at unlike speeds need something to share. Not by the batch or by threads, which bits must
 * not depend on.
 */
static int64_t chunk_parts(const attn_problem *p, int64_t rows, int64_t largest) {
    if (largest <= 512) return attni_max(rows, p->seqlen_k) < 1024 ? 2 : 1;
    return p->heads_kv < 4 ? 4 : p->heads_kv < 16 ? 2 : 1;
}

/* Whole subs, steps and tiles of every kernel. */
#define CHUNK_MULTIPLE 192

typedef struct backward_loop {
    const attni_job *job;
    const attni_cpu_plan *plan;
    char *workspace;
    float *arrays; /* dq, dk and dv of the sequences in flight */
    float *delta;  /* of all rows of all sequences */
    int64_t first, count, chunks; /* sequences in flight; the most chunks of one */
    atomic_llong ticket;
    atomic_llong *done; /* of each chunk of keys of each sequence in flight: its steps */
} backward_loop;

static size_t sequence_floats(const attni_cpu_plan *c) { return c->dq_floats + c->dk_floats + c->dv_floats; }

/* ---------------------------------------------------------------- plan */

/* Whether different sequences add to the same elements of dbias. */
static bool shares_bias(const attn_problem *p) {
    return p->has_bias && ((p->bias.batch == 0 && p->batch > 1) || (p->bias.heads == 0 && p->heads_kv > 1));
}

size_t attni_cpu_backward_cut(const attn_plan *plan, attni_cpu_plan *c) {
    const attn_problem *p = &plan->problem;
    const attni_cpu_kernel *k = c->backward;
    const int64_t rows = plan->group * p->seqlen_q, sequences = p->batch * p->heads_kv;
    const int64_t threads = plan->options.threads;
    c->chunk_rows = attni_min(k->tile_rows / chunk_parts(p, rows, k->tile_rows),
                              attni_round_up(attni_max(1, rows), CHUNK_MULTIPLE));
    c->chunk_keys = attni_min(k->block_keys / chunk_parts(p, rows, k->block_keys),
                              attni_round_up(attni_max(1, p->seqlen_k), CHUNK_MULTIPLE));
    const int64_t row_chunks = attni_ceil_div(rows, c->chunk_rows),
                  key_chunks = attni_ceil_div(p->seqlen_k, c->chunk_keys);
    c->chunks = attni_max(1, attni_max(row_chunks, key_chunks));
    /* many tasks do not run equally fast: none should have a large part of the work to itself */
    c->whole = threads == 1 ||
               (!shares_bias(p) && (sequences >= 4 * threads || (sequences % threads == 0 && threads <= 4)));
    const int64_t pairs = attni_max(1, attni_min(row_chunks, key_chunks));
    c->in_flight = c->whole ? threads : shares_bias(p) ? 1 : attni_ceil_div(4 * threads, pairs);
    c->in_flight = attni_max(1, attni_min(c->in_flight, sequences));
    const int64_t dim_qk = attni_round_up(p->dim_qk, ATTNI_BACKWARD_ALIGN),
                  dim_v = attni_round_up(p->dim_v, ATTNI_BACKWARD_ALIGN);
    /* far beyond any memory, and far below overflow */
    const double most = 1e17,
                 wanted = (double)c->in_flight *
                              ((double)(rows + c->chunk_rows) * (double)dim_qk +
                               (double)(p->seqlen_k + c->chunk_keys) * (double)(dim_qk + dim_v)) +
                          (double)sequences * (double)rows + (double)threads * 1e8;
    if (!(wanted < most)) return 0;
    const int64_t all_rows = attni_round_up(rows, c->chunk_rows),
                  all_keys = attni_round_up(p->seqlen_k, c->chunk_keys);
    c->dq_floats = (size_t)(all_rows * dim_qk);
    c->dk_floats = (size_t)(all_keys * dim_qk);
    c->dv_floats = (size_t)(all_keys * dim_v);
    const size_t scratch = k->scratch_bytes(c->chunk_rows, c->chunk_keys, p->dim_qk, p->dim_v);
    c->backward_scratch_bytes =
        (scratch + 4095) / 4096 * 4096 + 64; /* tasks apart, and not on the same cache sets */
    if (k->panel_bytes != NULL) { /* whole KB */
        c->row_panel_bytes = k->panel_bytes(c->chunk_rows, 0, p->dim_qk, p->dim_v);
        c->key_panel_bytes = k->panel_bytes(0, c->chunk_keys, p->dim_qk, p->dim_v);
    }
    const size_t floats = (size_t)c->in_flight * sequence_floats(c) + (size_t)(sequences * rows);
    const size_t panels = (size_t)c->chunks * (c->row_panel_bytes + c->key_panel_bytes);
    c->panels_offset = (size_t)threads * c->backward_scratch_bytes + (floats * sizeof(float) + 63) / 64 * 64;
    c->done_offset = c->panels_offset + (size_t)c->in_flight * panels;
    return c->done_offset + (size_t)(c->in_flight * c->chunks) * sizeof(atomic_llong);
}

/* ---------------------------------------------------------------- pairs */

static int64_t chunks_of(const attni_cpu_plan *c, const attni_job *job, const attni_sequence *s) {
    return attni_max(attni_ceil_div(job->group * s->q_len, c->chunk_rows),
                     attni_ceil_div(s->k_len, c->chunk_keys));
}

/* Pair i of a step of a sequence, the slot-th in flight. */
static void run_pair(const backward_loop *loop, int64_t sequence, int64_t slot, int64_t step, int64_t i,
                     char *scratch) {
    const attni_cpu_plan *c = loop->plan;
    const attni_job *job = loop->job;
    const attn_problem *p = job->p;
    attni_chunk chunk;
    attni_tile *tile = &chunk.tile;
    tile->index = sequence;
    tile->sequence = attni_sequence_of(p, &job->t, sequence / p->heads_kv);
    tile->head_kv = sequence % p->heads_kv;
    tile->heads = 1;
    const int64_t n = chunks_of(c, job, &tile->sequence), rows = job->group * tile->sequence.q_len;
    if (step >= n || i >= n) return;
    tile->row_begin = attni_min((i + step) % n * c->chunk_rows, rows);
    tile->row_end = attni_min(tile->row_begin + c->chunk_rows, rows);
    chunk.key_begin = attni_min(i * c->chunk_keys, tile->sequence.k_len);
    chunk.key_end = attni_min(chunk.key_begin + c->chunk_keys, tile->sequence.k_len);
    chunk.most_rows = c->chunk_rows;
    chunk.most_keys = c->chunk_keys;
    chunk.first = step == 0;
    chunk.last = step == n - 1;
    chunk.dq = loop->arrays + (size_t)slot * sequence_floats(c);
    chunk.dk = chunk.dq + c->dq_floats;
    chunk.dv = chunk.dk + c->dk_floats;
    chunk.delta = loop->delta + sequence * job->group * p->seqlen_q;
    chunk.row_panels = loop->workspace + c->panels_offset +
                       (size_t)(slot * c->chunks) * (c->row_panel_bytes + c->key_panel_bytes);
    chunk.key_panels =
        chunk.row_panels + (size_t)c->chunks * c->row_panel_bytes + (size_t)i * c->key_panel_bytes;
    chunk.row_panels += (size_t)((i + step) % n) * c->row_panel_bytes;
    c->backward->backward(job, &chunk, scratch);
}

static void sequence_task(void *args, int64_t index) {
    backward_loop *loop = args;
    const attni_cpu_plan *c = loop->plan;
    char *scratch = loop->workspace + (size_t)index * c->backward_scratch_bytes;
    int64_t mine;
    while ((mine = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed)) < loop->count)
        for (int64_t step = 0; step < loop->chunks; step++)
            for (int64_t i = 0; i < loop->chunks; i++) run_pair(loop, mine, index, step, i, scratch);
}

static void wait_for(atomic_llong *done, int64_t steps) {
    while (atomic_load_explicit(done, memory_order_acquire) < steps) attni_yield();
}

static void pair_task(void *args, int64_t index) {
    backward_loop *loop = args;
    const attni_cpu_plan *c = loop->plan;
    const int64_t n = loop->chunks, pairs = loop->count * n;
    char *scratch = loop->workspace + (size_t)index * c->backward_scratch_bytes;
    int64_t mine;
    while ((mine = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed)) < n * pairs) {
        const int64_t step = mine / pairs, slot = mine % pairs / n, i = mine % n;
        const int64_t sequence = loop->first + slot;
        atomic_llong *done = loop->done + slot * n;
        const attni_sequence s =
            attni_sequence_of(loop->job->p, &loop->job->t, sequence / loop->job->p->heads_kv);
        const int64_t own = chunks_of(c, loop->job, &s); /* of this sequence, which may have fewer */
        if (step >= own || i >= own) continue;
        wait_for(&done[i], step);
        wait_for(&done[(i + 1) % own], step);
        run_pair(loop, sequence, slot, step, i, scratch);
        atomic_store_explicit(&done[i], step + 1, memory_order_release);
    }
}

/* ---------------------------------------------------------------- sinks */

/* dsinks = - sum of exp(sink - LSE) D over a head's rows, batch after batch. */
static void sink_gradients(const backward_loop *loop) {
    const attni_job *job = loop->job;
    const attn_problem *p = job->p;
    for (int64_t head = 0; head < p->heads_q; head++) {
        double sum = 0;
        for (int64_t batch = 0; batch < p->batch; batch++) {
            const attni_sequence s = attni_sequence_of(p, &job->t, batch);
            const float *delta =
                loop->delta + (batch * p->heads_kv + head / job->group) * job->group * p->seqlen_q;
            for (int64_t query = 0; query < s.q_len; query++) {
                const double lse = job->t.lse[attni_lse_index(job, &s, head, query)],
                             sink = job->t.sinks[head];
                const double weight = sink == -INFINITY ? (isnan(lse) ? lse : 0) : exp(sink - lse);
                sum -= weight * delta[query * job->group + head % job->group];
            }
        }
        job->t.dsinks[head] = (float)sum;
    }
}

/* ---------------------------------------------------------------- run */

void attni_cpu_backward(const attn_plan *plan, const attni_job *given, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    const attni_cpu_plan *c = plan->backend_data;
    const attn_problem *p = given->p;
    const int64_t threads = plan->options.threads, sequences = p->batch * p->heads_kv;
    attni_job job = *given;
    if (!p->has_bias) job.t.dbias = NULL;
    if (job.t.dbias != NULL) memset(job.t.dbias, 0, (size_t)attni_bias_shape_of(p).count * sizeof(float));
    backward_loop loop = {.job = &job, .plan = c, .workspace = workspace};
    loop.arrays = (float *)(void *)(loop.workspace + (size_t)threads * c->backward_scratch_bytes);
    loop.delta = loop.arrays + (size_t)c->in_flight * sequence_floats(c);
    loop.done = (atomic_llong *)(void *)(loop.workspace + c->done_offset);
    for (int64_t batch = 0; batch < p->batch; batch++) {
        const attni_sequence s = attni_sequence_of(p, &job.t, batch);
        loop.chunks = attni_max(loop.chunks, chunks_of(c, &job, &s));
    }
    if (c->whole) {
        loop.count = sequences;
        o->parallel_for(o->pool, attni_min(threads, attni_max(1, sequences)), sequence_task, &loop);
    }
    for (loop.first = 0; !c->whole && loop.first < sequences; loop.first += c->in_flight) {
        loop.count = attni_min(c->in_flight, sequences - loop.first);
        for (int64_t i = 0; i < loop.count * loop.chunks; i++) atomic_init(&loop.done[i], 0);
        atomic_store(&loop.ticket, 0);
        o->parallel_for(o->pool, threads, pair_task, &loop);
    }
    if (p->has_sinks && job.t.dsinks != NULL) sink_gradients(&loop);
}
