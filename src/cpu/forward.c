/*
 * Forward: tiles of query rows over tasks (the split of FlashAttention-2). A task begins with the sequences
 * (batch and kv head) of its own part, the same in every run of a plan, so that its processor's caches may
 * still hold them, and stays with one while it has tiles, because it keeps the converted K and V; then it
 * takes sequences that nobody has touched yet, and when there is none it helps where most tiles are left.
 * Where tasks share what is converted, a helper chooses anew for each tile, and a sequence's last tiles are
 * smaller: processors differ in speed, and all wait for the last task.
 */
#include "cpu/plan_cpu.h"

/*
 * Rows of piece number `piece` from row 0 on: where they taper, four of a quarter of the size and two of half
 * of it come first.
 */
static void piece_rows(const attni_cpu_plan *plan, int64_t piece, attni_tile *tile) {
    const int64_t multiple = plan->kernel->sub_rows, whole = plan->piece_size;
    const int64_t half = attni_round_up(attni_ceil_div(whole, 2), multiple),
                  quarter = attni_round_up(attni_ceil_div(whole, 4), multiple);
    int64_t begin = piece * whole, size = whole;
    if (plan->tapers) {
        size = piece < 4 ? quarter : piece < 6 ? half : whole;
        begin = attni_min(piece, 4) * quarter + attni_max(0, attni_min(piece, 6) - 4) * half +
                attni_max(0, piece - 6) * whole;
    }
    tile->row_begin = begin;
    tile->row_end = begin + size;
}

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
        piece_rows(plan, plan->pieces - 1 - taken, tile);
        tile->row_end = attni_min(tile->row_end, loop->job->group * tile->sequence.q_len);
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

/* The sequence from `own` on, in a ring, of which most tiles are left; -1: none. */
static int64_t sequence_to_help(const attni_cpu_loop *loop, int64_t own) {
    const attni_cpu_plan *plan = loop->plan;
    int64_t best = -1, least = plan->pieces;
    for (int64_t i = 0; i < plan->sequences; i++) {
        const int64_t sequence = (own + i) % plan->sequences,
                      taken = atomic_load_explicit(&loop->next[sequence], memory_order_relaxed);
        if (taken >= least) continue;
        least = taken;
        best = sequence;
    }
    return best;
}

static void forward_task(void *args, int64_t index) {
    attni_cpu_loop *loop = args;
    const attni_cpu_plan *plan = loop->plan;
    char *scratch = loop->workspace + (size_t)index * plan->scratch_bytes;
    attni_kept *kept = (attni_kept *)(void *)scratch;
    *kept = (attni_kept){.index = -1, .slots = plan->slots};
    const int64_t own = index * plan->sequences / plan->threads;
    attni_tile tile;
    for (int64_t i = 0; i < plan->sequences; i++) {
        const int64_t sequence = (own + i) % plan->sequences;
        if (i > 0 && atomic_load_explicit(&loop->next[sequence], memory_order_relaxed) > 0) continue;
        while (take_tile(loop, sequence, &tile)) {
            give_slots(loop, kept, sequence, index);
            plan->kernel->forward(loop->job, &tile, scratch);
        }
    }
    for (int64_t sequence; (sequence = sequence_to_help(loop, own)) >= 0;)
        while (take_tile(loop, sequence, &tile)) {
            give_slots(loop, kept, sequence, index);
            plan->kernel->forward(loop->job, &tile, scratch);
            if (plan->shared) break;
        }
}

void attni_cpu_forward(const attn_plan *plan, const attni_job *job, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    const attni_cpu_plan *c = plan->backend_data;
    char *base = workspace;
    attni_cpu_loop loop = {job, c, base, 0, (atomic_llong *)(void *)(base + c->next_offset)};
    atomic_llong *tags = (atomic_llong *)(void *)(base + c->tags_offset);
    for (int64_t i = 0; i < c->sequences; i++) atomic_init(&loop.next[i], 0);
    for (int64_t i = 0; c->shared && i < c->sequences * c->slots; i++)
        atomic_init(&tags[i], ATTNI_SLOT_EMPTY);
    o->parallel_for(o->pool, c->threads, forward_task, &loop);
}
