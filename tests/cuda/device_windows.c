/* Windows of forward_sm90, whose warpgroups pass over blocks at both ends of a tile, against forward_sm80. */
#include "device_tensors.h"

enum { KINDS = 10 };

typedef struct window_kind {
    attn_dtype dtype;
    int dim, left, right; /* right: -1 for causal */
    int seqlen_q, seqlen_k, query_start; /* -1: the default */
    int exact, padded;
} window_kind;

/* Tiles at both ends of the keys, windows of one key and of less than a block, rows that see nothing, and enough tiles for
 * several on a multiprocessor. */
static const window_kind kinds_of[KINDS] = {
    {ATTN_BF16, 128, 511, -1, 3000, 3000, -1, 0, 0}, {ATTN_F16, 64, 100, -1, 3000, 3000, -1, 0, 0},
    {ATTN_F16, 128, 0, -1, 2000, 2000, -1, 0, 0},    {ATTN_BF16, 64, 37, 45, 1500, 2000, 10, 0, 0},
    {ATTN_BF16, 128, 300, -1, 2000, 2100, -1, 0, 1}, {ATTN_BF16, 128, 63, 64, 2500, 2500, -1, 1, 0},
    {ATTN_BF16, 256, 300, -1, 2000, 2000, -1, 0, 0}, {ATTN_BF16, 192, 200, -1, 2000, 2000, -1, 0, 0},
    {ATTN_BF16, 128, 900, -1, 2500, 700, 0, 0, 0},   {ATTN_BF16, 64, 700, 5, 3000, 900, 100, 0, 1}};

static packed make_window(const window_kind *kind) {
    attn_problem p = ATTN_PROBLEM_INIT;
    attni_random random = {(uint64_t)kind->dim + (uint64_t)kind->left};
    p.batch = 2;
    p.heads_q = 16;
    p.heads_kv = 4;
    p.seqlen_q = kind->seqlen_q;
    p.seqlen_k = kind->seqlen_k;
    p.dim_qk = p.dim_v = kind->dim;
    p.mask = kind->right < 0 ? ATTN_MASK_CAUSAL : ATTN_MASK_NONE;
    p.window_left = kind->left;
    if (kind->right >= 0) p.window_right = kind->right;
    if (kind->padded) p.lengths_k = ATTN_LENGTHS_PADDED;
    p.batch_invariant = 1; /* keys stay whole */
    return packed_make(&p, kind->dtype, &random);
}

static void one_window(attn_context *context, int number, const void *lengths) {
    const window_kind *kind = &kinds_of[number];
    packed made = make_window(kind);
    on_device d = copy_packed(&made);
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    void *o = test_memory((size_t)made.o_count * 2);
    float *lse = test_memory((size_t)made.rows * 4);
    attn_plan *plan;
    if (kind->padded) d.tensors.lengths_k = lengths;
    if (kind->query_start >= 0) d.tensors.query_start = kind->query_start;
    options.isa = ATTN_ISA_SM80;
    NEED(attn_plan_create(context, &made.problem, &options, &plan) == ATTN_OK);
    run_packed(plan, &made, &d, made.o, made.lse);
    attn_plan_destroy(plan);
    options.isa = ATTN_ISA_AUTO;
    options.exact_reference = kind->exact;
    NEED(attn_plan_create(context, &made.problem, &options, &plan) == ATTN_OK);
    run_packed(plan, &made, &d, o, lse);
    compare_packed(&made, kind->dtype, o, lse, "window", number);
    repeat_packed(plan, &made, &d, o, "window", number);
    attn_plan_destroy(plan);
    free(o);
    free(lse);
    free_packed(&d);
    packed_free(&made);
}

void device_windows(attn_context *context) {
    const int32_t lengths[2] = {650, 333};
    void *on_lengths = device_alloc(sizeof lengths);
    device_copy_in(on_lengths, lengths, sizeof lengths);
    for (int i = 0; i < KINDS; i++) one_window(context, i, on_lengths);
    device_free(on_lengths);
    printf("%d kinds of windows\n", KINDS);
}
