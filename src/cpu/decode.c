/*
 * Decode: few queries, so the keys are split. Each piece of keys gives partial (m, l, o) of its rows, and the
 * pieces of a sequence are merged in ascending order: a task that has finished the next in line merges it
 * while it lies in its caches, else leaves it in the workspace for whoever merges the one before. None waits
 * for another.
 *
 * A few large pieces come first and ever smaller ones last, so that tasks that are not equally fast end
 * together. Their sizes follow from the number of keys alone, so that a row's bits do not depend on the
 * number of threads.
 */
#include "cpu/plan_cpu.h"

/* A task's view of a run. */
typedef struct decode_task {
    attni_cpu_loop *loop;
    bool merging; /* it merges the piece that it has just computed */
} decode_task;

/* How far the merging of a part has come: of a batch's heads that are computed together. */
typedef struct decode_part {
    atomic_int merging; /* by some task */
    int64_t merged;     /* pieces; of whom merges */
} decode_part;

/*
 * Keys of a large piece: two of them leave a quarter of a short sequence to be cut smaller, so that two tasks
 * get one each; a long one has many.
 */
static int64_t large_piece(int64_t keys) {
    return keys < 8192 ? attni_max(256, keys * 3 / 8 / 128 * 128) : 1024;
}

/*
 * The keys that a piece takes of those that are left: a large piece, or half of the rest. A piece costs 2 to
 * 3 us beside its keys, of which 64 take 18 us and more (8 heads of dim 128, 16 bits): a short sequence has
 * none so small. With 128 for 64 two tasks ended 17 to 27 us apart instead of 14 to 16.
 */
static int64_t piece_keys(int64_t keys, int64_t left) {
    const int64_t large = large_piece(keys), least = keys < 4096 ? 256 : 64;
    if (left >= large + large * 3 / 8) return large;
    return left < 2 * least ? left : left / 2 / 64 * 64;
}

/* How many large pieces a sequence begins with. */
static int64_t large_pieces(int64_t keys) {
    const int64_t large = large_piece(keys), rest = large * 3 / 8;
    return keys < rest ? 0 : (keys - rest) / large;
}

static int64_t piece_begin(int64_t keys, int64_t piece) {
    const int64_t large = attni_min(piece, large_pieces(keys));
    int64_t begin = large * large_piece(keys);
    for (int64_t i = large; i < piece; i++) begin += piece_keys(keys, keys - begin);
    return begin;
}

/* How many pieces a sequence has; at least one, which says that nothing was seen. */
static int64_t pieces_of(int64_t keys) {
    int64_t pieces = large_pieces(keys), left = keys - pieces * large_piece(keys);
    for (; left > 0; pieces++) left -= piece_keys(keys, left);
    return attni_max(1, pieces);
}

int64_t attni_cpu_decode_largest(int64_t keys) { return attni_max(1, piece_keys(keys, keys)); }

/*
 * Of any number of keys up to keys: at most 5, from 4,096 on at most 9, from 8,192 on pieces of 1,024 and at
 * most 6 after the last of them.
 */
int64_t attni_cpu_decode_pieces(int64_t keys) { return keys / 1024 + 8; }

size_t attni_cpu_decode_notes(int64_t parts, int64_t pieces) {
    return (size_t)parts * (sizeof(decode_part) + (size_t)pieces * sizeof(atomic_uchar));
}

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

static attni_accum accum_at(const attni_cpu_plan *plan, float *base) {
    return (attni_accum){base, base + plan->partial_rows, base + 2 * plan->partial_rows};
}

/* Where a piece waits to be merged; that of piece 0 is what the others are merged into. */
static float *slot_of(const attni_cpu_loop *loop, int64_t sequence, int64_t piece) {
    const attni_cpu_plan *plan = loop->plan;
    return (float *)(void *)(loop->workspace + (size_t)plan->threads * plan->scratch_bytes) +
           (size_t)(sequence * plan->pieces + piece) * plan->partial_floats;
}

static decode_part *part_of(const attni_cpu_loop *loop, int64_t part) {
    const attni_cpu_plan *plan = loop->plan;
    return (decode_part *)(void *)slot_of(loop, plan->sequences, 0) + part;
}

/* Of each piece of a part: whether it is in its slot. */
static atomic_uchar *waiting_of(const attni_cpu_loop *loop, int64_t part) {
    const attni_cpu_plan *plan = loop->plan;
    return (atomic_uchar *)(void *)part_of(loop, plan->parts) + part * plan->pieces;
}

static bool next_piece(void *args, attni_decode_piece *piece) {
    const decode_task *task = args;
    attni_cpu_loop *loop = task->loop;
    const attni_cpu_plan *plan = loop->plan;
    const int64_t heads_kv = loop->job->p->heads_kv, parts = heads_kv / plan->heads; /* of a batch */
    for (;;) {
        const int64_t ticket = atomic_fetch_add_explicit(&loop->ticket, 1, memory_order_relaxed);
        if (ticket >= plan->parts * plan->pieces) return false;
        const int64_t batch = ticket / (plan->pieces * parts), part = ticket % parts;
        const int64_t sequence = batch * heads_kv + part * plan->heads;
        piece->index = ticket / parts % plan->pieces;
        piece->tile = decode_tile(loop->job, sequence);
        piece->tile.heads = plan->heads;
        const int64_t keys = piece->tile.sequence.k_len;
        if (piece->tile.row_end == 0 || piece->index >= pieces_of(keys)) continue;
        piece->key_begin = piece_begin(keys, piece->index);
        piece->key_end = piece->key_begin + piece_keys(keys, keys - piece->key_begin);
        return true;
    }
}

/* A piece that waits in its slot into slot 0, if that is not its own; last: and out of it. */
static void merge_slot(const attni_cpu_loop *loop, int64_t sequence, int64_t piece, bool last) {
    const attni_cpu_plan *plan = loop->plan;
    for (int64_t head = 0; head < plan->heads && (piece > 0 || last); head++) {
        const attni_tile tile = decode_tile(loop->job, sequence + head);
        const attni_accum none = {NULL, NULL, NULL};
        plan->kernel->merge(loop->job, &tile, accum_at(plan, slot_of(loop, sequence + head, 0)),
                            piece == 0 ? none : accum_at(plan, slot_of(loop, sequence + head, piece)), last);
    }
}

static attni_decode_place place_of(void *args, const attni_decode_piece *piece) {
    decode_task *task = args;
    const attni_cpu_loop *loop = task->loop;
    const attni_cpu_plan *plan = loop->plan;
    decode_part *part = part_of(loop, piece->tile.index / plan->heads);
    task->merging = atomic_exchange(&part->merging, 1) == 0;
    if (task->merging && part->merged != piece->index) {
        atomic_store(&part->merging, 0);
        task->merging = false;
    }
    return (attni_decode_place){
        .partial = accum_at(plan, slot_of(loop, piece->tile.index, task->merging ? 0 : piece->index)),
        .stride = plan->pieces * (int64_t)plan->partial_floats,
        .merge = task->merging && piece->index > 0};
}

/*
 * Who finds a part not being merged merges all that follows in order. A piece that comes to wait meanwhile is
 * seen by the one who merges, before or after it lets go, or its own task finds the part free.
 */
static void piece_done(void *args, const attni_decode_piece *piece) {
    const decode_task *task = args;
    const attni_cpu_loop *loop = task->loop;
    const int64_t first = piece->tile.index, number = first / loop->plan->heads;
    const int64_t pieces = pieces_of(piece->tile.sequence.k_len);
    decode_part *part = part_of(loop, number);
    atomic_uchar *waiting = waiting_of(loop, number);
    bool merging = task->merging;
    if (!merging) atomic_store(&waiting[piece->index], 1);
    for (;; merging = false) {
        if (!merging && atomic_exchange(&part->merging, 1) != 0) return;
        int64_t next = part->merged;
        if (merging && ++next == pieces) merge_slot(loop, first, 0, true);
        for (; next < pieces && atomic_load(&waiting[next]) != 0; next++)
            merge_slot(loop, first, next, next + 1 == pieces);
        part->merged = next;
        atomic_store(&part->merging, 0);
        if (next == pieces || atomic_load(&waiting[next]) == 0) return;
    }
}

static void run_task(void *args, int64_t index) {
    attni_cpu_loop *loop = args;
    decode_task task = {loop, false};
    const attni_decode_pieces pieces = {next_piece, place_of, piece_done, &task};
    loop->plan->kernel->decode(loop->job, &pieces,
                               loop->workspace + (size_t)index * loop->plan->scratch_bytes);
}

void attni_cpu_decode(const attn_plan *plan, const attni_job *job, void *workspace) {
    const attn_context_options *o = &plan->context->options;
    attni_cpu_loop loop = {job, plan->backend_data, workspace, 0, NULL};
    for (int64_t part = 0; part < loop.plan->parts; part++) {
        decode_part *p = part_of(&loop, part);
        atomic_uchar *waiting = waiting_of(&loop, part);
        atomic_init(&p->merging, 0);
        p->merged = 0;
        for (int64_t i = 0; i < loop.plan->pieces; i++) atomic_init(&waiting[i], 0);
    }
    o->parallel_for(o->pool, loop.plan->threads, run_task, &loop);
}
