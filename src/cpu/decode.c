/*
 * Decode: few queries, so the keys are split. Each chunk of keys gives partial (m, l, o) of its rows; then
 * the chunks of a sequence are merged in ascending order. Chunks are of a fixed size, so that a row's bits do
 * not depend on the number of threads.
 */
#include "cpu/plan_cpu.h"

#define MERGE_FLOATS 65536 /* that are worth a task: 10 to 20 us */

static attni_tile decode_tile(const attni_job *job, int64_t sequence) {
    attni_tile tile;
    tile.index = sequence;
    tile.sequence = attni_sequence_of(job->p, &job->t, sequence / job->p->heads_kv);
    tile.head_kv = sequence % job->p->heads_kv;
    tile.heads = 1;
    tile.row_begin = 0;
    tile.row_end = job->group * tile.sequence.q_len;
    return tile;
}

static attni_accum partial_of(const attni_cpu_loop *loop, int64_t sequence, int64_t piece) {
    const attni_cpu_plan *plan = loop->plan;
    float *base = (float *)(void *)(loop->workspace + (size_t)plan->threads * plan->scratch_bytes) +
                  (size_t)(sequence * plan->pieces + piece) * plan->partial_floats;
    return (attni_accum){base, base + plan->partial_rows, base + 2 * plan->partial_rows};
}

/* How many chunks a sequence of k_len keys has; at least one, which says that nothing was seen. */
static int64_t pieces_of(const attni_cpu_plan *plan, const attni_tile *tile) {
    return attni_max(1, attni_ceil_div(tile->sequence.k_len, plan->piece_size));
}

static void chunk_task(void *args, int64_t index) {
    attni_cpu_loop *loop = args;
    const attni_cpu_plan *plan = loop->plan;
    char *scratch = loop->workspace + (size_t)index * plan->scratch_bytes;
    const int64_t parts = loop->job->p->heads_kv / plan->heads,
                  total = plan->sequences / plan->heads * plan->pieces;
    for (;;) {
        const int64_t ticket = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed);
        if (ticket >= total) return;
        const int64_t batch = ticket / (plan->pieces * parts), piece = ticket / parts % plan->pieces,
                      part = ticket % parts;
        const int64_t sequence = batch * loop->job->p->heads_kv + part * plan->heads;
        attni_tile tile = decode_tile(loop->job, sequence);
        tile.heads = plan->heads;
        if (tile.row_end == 0 || piece >= pieces_of(plan, &tile)) continue;
        const int64_t begin = piece * plan->piece_size,
                      end = attni_min(begin + plan->piece_size, tile.sequence.k_len);
        plan->kernel->decode(loop->job, &tile, begin, end, partial_of(loop, sequence, piece),
                             plan->pieces * (int64_t)plan->partial_floats, scratch);
    }
}

static void merge_task(void *args, int64_t index) {
    (void)index;
    attni_cpu_loop *loop = args;
    const attni_cpu_plan *plan = loop->plan;
    for (;;) {
        const int64_t sequence = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed);
        if (sequence >= plan->sequences) return;
        const attni_tile tile = decode_tile(loop->job, sequence);
        plan->kernel->merge(loop->job, &tile, partial_of(loop, sequence, 0), (int64_t)plan->partial_floats,
                            pieces_of(plan, &tile));
    }
}

/* A few partial rows are merged sooner than other threads have begun. */
static int64_t merge_tasks(const attni_cpu_plan *plan) {
    const int64_t floats = plan->sequences * plan->pieces * (int64_t)plan->partial_floats;
    return attni_max(1, attni_min(plan->threads, floats / MERGE_FLOATS));
}

void attni_cpu_decode(const attn_plan *plan, const attni_job *job, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    attni_cpu_loop loop = {job, plan->backend_data, workspace, 0, NULL};
    o->parallel_for(o->pool, loop.plan->threads, chunk_task, &loop);
    atomic_store(&loop.ticket, 0);
    o->parallel_for(o->pool, merge_tasks(loop.plan), merge_task, &loop);
}
