/* forward_sm90 with keys in pieces, against the same problem with batch_invariant, whose keys stay whole. */
#include "device_tensors.h"

enum { KINDS = 9 };

/* Few rows over many keys: each kind another variant, or another way for pieces to be cut short. */
static attn_problem split_problem(int kind) {
    static const int dims[KINDS][2] = {{128, 128}, {64, 64},   {256, 256}, {128, 128}, {64, 64},
                                       {128, 128}, {192, 128}, {576, 512}, {96, 96}};
    attn_problem p = ATTN_PROBLEM_INIT;
    p.batch = kind % 3 + 1;
    p.heads_kv = kind == 7 ? 1 : 2;
    p.heads_q = p.heads_kv * (kind % 4 == 3 ? 1 : 4);
    p.seqlen_q = kind == 3 ? 150 : kind == 4 ? 21 : kind == 7 ? 3 : 1;
    p.seqlen_k = 5000 + 13 * kind;
    p.dim_qk = dims[kind][0];
    p.dim_v = dims[kind][1];
    if (kind >= 3) p.mask = ATTN_MASK_CAUSAL;
    if (kind == 4 || kind == 5) p.lengths_k = ATTN_LENGTHS_PADDED;
    if (kind == 6) p.window_left = 3000;
    if (kind == 1) p.softcap = 30;
    p.has_sinks = kind % 2;
    return p;
}

/* NaN in keys and values beyond a padded length, which nobody may see. */
static void spoil_padding(const on_device *d, const attn_problem *p, const int32_t *lengths) {
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t row = p->heads_kv * p->dim_qk * 2, row_v = p->heads_kv * p->dim_v * 2,
                      from = b * p->seqlen_k + lengths[b], rows = p->seqlen_k - lengths[b];
        if (rows == 0) continue;
        device_fill((char *)d->k + from * row, 0xff, (size_t)(rows * row));
        device_fill((char *)d->v + from * row_v, 0xff, (size_t)(rows * row_v));
    }
}

void device_split_keys(attn_context *context, int kinds) {
    const int32_t lengths[3] = {5000, 129, 2600};
    const float sinks[8] = {0.5f, -1.0f, 9.0f, -INFINITY, 3.0f, 0.0f, 1.0f, 2.0f};
    int split = 0;
    void *on_lengths = device_alloc(sizeof lengths), *on_sinks = device_alloc(sizeof sinks);
    device_copy_in(on_lengths, lengths, sizeof lengths);
    device_copy_in(on_sinks, sinks, sizeof sinks);
    for (int kind = 0; kind < kinds && kind < KINDS; kind++) {
        attni_random random = {(uint64_t)kind + 1};
        const attn_dtype dtype = kind % 2 ? ATTN_F16 : ATTN_BF16;
        attn_problem p = split_problem(kind);
        packed made = packed_make(&p, dtype, &random);
        on_device d = copy_packed(&made);
        if (p.lengths_k == ATTN_LENGTHS_PADDED) {
            d.tensors.lengths_k = on_lengths;
            spoil_padding(&d, &p, lengths);
        }
        if (p.has_sinks) d.tensors.sinks = on_sinks;
        void *o = test_memory((size_t)made.o_count * 2);
        float *lse = test_memory((size_t)made.rows * 4);
        attn_plan *plan;
        made.problem.batch_invariant = 1;
        NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
        CHECK(!strstr(attn_plan_describe(plan), "keys are split"), "%s", attn_plan_describe(plan));
        run_packed(plan, &made, &d, made.o, made.lse);
        attn_plan_destroy(plan);
        made.problem.batch_invariant = 0;
        NEED(attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK);
        if (strcmp(attn_plan_kernel(plan), "forward_sm90") == 0) { /* another device's kernels do not split */
            split++;
            CHECK(strstr(attn_plan_describe(plan), "keys are split") != NULL, "%s", attn_plan_describe(plan));
        }
        run_packed(plan, &made, &d, o, lse);
        compare_packed(&made, dtype, o, lse, "pieces", kind);
        repeat_packed(plan, &made, &d, o, "pieces", kind);
        attn_plan_destroy(plan);
        free(o);
        free(lse);
        free_packed(&d);
        packed_free(&made);
    }
    device_free(on_lengths);
    device_free(on_sinks);
    printf("%d kinds of problems with keys in pieces\n", split);
}
