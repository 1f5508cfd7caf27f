/*
 * Forward: tiles of query rows over tasks (the split of FlashAttention-2). A task stays with a sequence (batch and
 * kv head) while it has tiles, because it keeps the converted K and V, or all that help with a sequence share them. It begins with the sequences of its own part, the same
 * in every run of a plan, so that its processor's caches may still hold them; then it takes what others have
 * not touched yet, and when nothing is untouched it helps.
 */
#include "cpu/plan_cpu.h"

/* The next tile of a sequence; later rows first, which under a causal mask are the longest. */
static bool take_tile(const attni_cpu_loop *loop, int64_t sequence, attni_tile *tile) {
    const attni_cpu_plan *plan = loop->plan;
    const attn_problem *p = loop->job->p;
    for (;;) {
        const int64_t taken = atomic_fetch_add_explicit(&loop->next[sequence], 1, memory_order_relaxed);
        if (taken >= plan->pieces) return false;
        tile->index = sequence;
        tile->sequence = attni_sequence_of(p, &loop->job->t, sequence / p->heads_kv);
        tile->head_kv = sequence % p->heads_kv;
        tile->heads = 1;
        tile->row_begin = (plan->pieces - 1 - taken) * plan->piece_size;
        tile->row_end =
            attni_min(tile->row_begin + plan->piece_size, loop->job->group * tile->sequence.q_len);
        if (tile->row_begin < tile->row_end) return true;
    }
}

/* Where the converted blocks of a sequence are, for a kernel that has them outside of its scratch. */
static void give_slots(const attni_cpu_loop *loop, attni_kept *kept, int64_t sequence, int64_t task) {
    const attni_cpu_plan *plan = loop->plan;
    if (plan->block_bytes == 0) return;
    const int64_t first = (plan->shared ? sequence : task) * plan->slots;
    kept->blocks = loop->workspace + plan->blocks_offset + (size_t)first * plan->block_bytes;
    kept->tags = (atomic_llong *)(void *)(loop->workspace + plan->tags_offset) + first;
    if (!plan->shared && kept->index != sequence)
        for (int64_t i = 0; i < plan->slots; i++) atomic_init(&kept->tags[i], ATTNI_SLOT_EMPTY);
    kept->index = sequence;
}

static void forward_task(void *args, int64_t index) {
    attni_cpu_loop *loop = args;
    const attni_cpu_plan *plan = loop->plan;
    char *scratch = loop->workspace + (size_t)index * plan->scratch_bytes;
    attni_kept *kept = (attni_kept *)(void *)scratch;
    *kept = (attni_kept){.index = -1, .slots = plan->slots};
    const int64_t own = index * plan->sequences / plan->threads;
    for (int helps = 0; helps < 2; helps++)
        for (int64_t i = 0; i < plan->sequences; i++) {
            const int64_t sequence = (own + i) % plan->sequences;
            if (!helps && atomic_load_explicit(&loop->next[sequence], memory_order_relaxed) > 0) continue;
            attni_tile tile;
            while (take_tile(loop, sequence, &tile)) {
                give_slots(loop, kept, sequence, index);
                plan->kernel->forward(loop->job, &tile, scratch);
            }
        }
}

void attni_cpu_forward(const attn_plan *plan, const attni_job *job, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    const attni_cpu_plan *c = plan->backend_data;
    char *base = workspace;
    attni_cpu_loop loop = {job, c, base, 0, (atomic_llong *)(void *)(base + c->next_offset)};
    atomic_llong *tags = (atomic_llong *)(void *)(base + c->tags_offset);
    for (int64_t i = 0; i < c->sequences; i++) atomic_init(&loop.next[i], 0);
    for (int64_t i = 0; c->shared && i < c->sequences * c->slots; i++) atomic_init(&tags[i], ATTNI_SLOT_EMPTY);
    o->parallel_for(o->pool, c->threads, forward_task, &loop);
}
