/* device_test: many short tiles on the Hopper kernels, and what forward_sm90_f8 has of its own. */
#include <math.h>
#include <string.h>

#include "device_tensors.h"

/*
 * Many tiles of one block of keys, which are over soon: each batch has the same numbers, and must have the same bits.
 * Not under racecheck: what 31 lanes have read is ordered by their warp's convergence before the arrival of the one
 * lane that speaks for them, and no instruction tells the tool so (__syncwarp leaves none).
 */
void device_short_tiles(attn_context *context, int rounds) {
    for (int kind = 0; kind < 8; kind++) {
        const int dim = kind < 4 ? 128 : kind < 6 ? 192 : 256;
        packed made =
            make_packed(96, 16, 128, dim > 128 ? 60 : 100, dim, 0, kind < 2 ? ATTN_F8_E4M3 : ATTN_BF16);
        attn_problem *p = &made.problem;
        const size_t size = attni_reference_size(p->dtype_q), q = (size_t)made.q_count / 96 * size,
                     k = (size_t)made.k_count / 96 * size, o = (size_t)made.o_count / 96 * 2,
                     lse = (size_t)made.rows / 96 * 4;
        attn_plan *plan;
        int different = 0;
        if (kind % 2) p->mask = ATTN_MASK_NONE;
        for (size_t b = 1; b < 96; b++) {
            memcpy((char *)made.q + b * q, made.q, q);
            memcpy((char *)made.k + b * k, made.k, k);
            memcpy((char *)made.v + b * k, made.v, k);
        }
        on_device d = copy_packed(&made);
        if (attn_plan_create(context, p, NULL, &plan) == ATTN_OK) {
            for (int round = 0; round < rounds; round++) {
                device_fill(d.o, 0xff, 96 * o);
                device_fill(d.lse, 0xff, 96 * lse);
                NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
                device_copy_out(made.o, d.o, 96 * o);
                device_copy_out(made.lse, d.lse, 96 * lse);
                for (size_t b = 1; b < 96; b++)
                    different += memcmp((char *)made.o + b * o, made.o, o) != 0 ||
                                 memcmp((char *)made.lse + b * lse, made.lse, lse) != 0;
                for (int64_t i = 0; i < made.rows; i++) different += isnan(made.lse[i]) != 0;
            }
            CHECK(different == 0, "%s: %d batches of short tiles differ", attn_plan_kernel(plan), different);
            attn_plan_destroy(plan);
        }
        free_packed(&d);
        packed_free(&made);
    }
}

/* V turned beforehand, in a workspace, or by tiles, below a limit of the workspace: the same bits. */
void device_turned_values(attn_context *context) {
    static const struct {
        attn_dtype dtype;
        int64_t heads_q, heads_kv, seqlen_q, seqlen_k, dim_qk, dim_v;
        attn_mask mask;
    } kinds[] = {
        {ATTN_F8_E4M3, 4, 1, 2100, 3001, 128, 128, ATTN_MASK_CAUSAL},
        {ATTN_F8_E4M3, 24, 2, 700, 1500, 128, 112, ATTN_MASK_CAUSAL},
        {ATTN_F8_E4M3, 4, 1, 1030, 700, 80, 112, ATTN_MASK_NONE},
        {ATTN_F8_E5M2, 6, 2, 1500, 257, 64, 32, ATTN_MASK_NONE},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        attn_problem p = ATTN_PROBLEM_INIT;
        attni_random random = {i};
        p.batch = 3;
        p.heads_q = kinds[i].heads_q;
        p.heads_kv = kinds[i].heads_kv;
        p.seqlen_q = kinds[i].seqlen_q;
        p.seqlen_k = kinds[i].seqlen_k;
        p.dim_qk = kinds[i].dim_qk;
        p.dim_v = kinds[i].dim_v;
        p.mask = kinds[i].mask;
        packed made = packed_make(&p, kinds[i].dtype, &random);
        on_device d = copy_packed(&made);
        const size_t bytes = (size_t)made.o_count * 2;
        void *o[2] = {test_memory(bytes), test_memory(bytes)};
        attn_status status = ATTN_OK;
        for (int limited = 0; limited < 2 && status == ATTN_OK; limited++) {
            attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
            attn_plan *plan;
            options.workspace_limit = limited ? 64 : 0;
            status = attn_plan_create(context, &made.problem, &options, &plan);
            if (status != ATTN_OK) break; /* not Hopper, or strides that it does not take */
            CHECK((attn_plan_workspace_size(plan) > 64) == !limited, "kind %zu: %zu bytes of workspace", i,
                  attn_plan_workspace_size(plan));
            device_fill(d.o, 0xff, bytes);
            NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
            device_copy_out(o[limited], d.o, bytes);
            attn_plan_destroy(plan);
        }
        CHECK(status != ATTN_OK || memcmp(o[0], o[1], bytes) == 0, "kind %zu: V turned beforehand differs",
              i);
        free(o[0]);
        free(o[1]);
        free_packed(&d);
        packed_free(&made);
    }
}
