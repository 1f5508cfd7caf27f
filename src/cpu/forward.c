/* Forward: tiles of query rows over tasks (the split of FlashAttention-2), each taken by ticket. */
#include "cpu/plan_cpu.h"

static void forward_task(void *args, int64_t index) {
    attni_cpu_loop *loop = args;
    const attni_cpu_plan *plan = loop->plan;
    const attni_job *job = loop->job;
    const attn_problem *p = job->p;
    char *scratch = loop->workspace + (size_t)index * plan->scratch_bytes;
    /* Where later rows see more keys, the longest tiles go first, so that the last ones are short. */
    const bool rising = p->mask == ATTN_MASK_CAUSAL || p->window_right != ATTN_WINDOW_UNLIMITED;
    const int64_t total = plan->sequences * plan->pieces;
    for (;;) {
        const int64_t ticket = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed);
        if (ticket >= total) return;
        const int64_t sequence = rising ? ticket % plan->sequences : ticket / plan->pieces;
        const int64_t piece = rising ? plan->pieces - 1 - ticket / plan->sequences : ticket % plan->pieces;
        attni_tile tile;
        tile.sequence = attni_sequence_of(p, &job->t, sequence / p->heads_kv);
        tile.head_kv = sequence % p->heads_kv;
        tile.row_begin = piece * plan->piece_size;
        tile.row_end = attni_min(tile.row_begin + plan->piece_size, job->group * tile.sequence.q_len);
        if (tile.row_begin < tile.row_end) plan->kernel->forward(job, &tile, scratch);
    }
}

void attni_cpu_forward(const attn_plan *plan, const attni_job *job, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    attni_cpu_loop loop = {job, plan->backend_data, workspace, 0};
    o->parallel_for(o->pool, loop.plan->threads, forward_task, &loop);
}
