/* device_test: many short tiles on the Hopper kernels, and what forward_sm90_f8 has of its own. */
#include <math.h>
#include <string.h>

#include "device_case.h"
#include "device_tensors.h"
#include "reference/reference.h"

/*
 * Many tiles of one block of keys, which are over soon: each batch has the same numbers, and must have the same bits.
 * Not under racecheck: what 31 lanes have read is ordered by their warp's convergence before the arrival of the one
 * lane that speaks for them, and no instruction tells the tool so (__syncwarp leaves none).
 */
void device_short_tiles(attn_context *context, int rounds) {
    static const struct {
        attn_dtype dtype;
        int64_t batch, heads, seqlen_q, seqlen_k, dim;
        attn_mask mask;
    } kinds[] = {
        {ATTN_F8_E4M3, 96, 16, 128, 100, 128, ATTN_MASK_CAUSAL},
        {ATTN_F8_E4M3, 96, 16, 128, 100, 128, ATTN_MASK_NONE},
        {ATTN_F8_E4M3, 48, 4, 1030, 100, 128, ATTN_MASK_NONE},
        {ATTN_F8_E4M3, 24, 2, 4100, 100, 64, ATTN_MASK_CAUSAL},
        {ATTN_BF16, 96, 16, 128, 100, 128, ATTN_MASK_CAUSAL},
        {ATTN_BF16, 96, 16, 128, 100, 128, ATTN_MASK_NONE},
        {ATTN_BF16, 96, 16, 128, 60, 192, ATTN_MASK_CAUSAL},
        {ATTN_BF16, 96, 16, 128, 60, 192, ATTN_MASK_NONE},
        {ATTN_BF16, 96, 16, 128, 60, 256, ATTN_MASK_CAUSAL},
        {ATTN_BF16, 96, 16, 128, 60, 256, ATTN_MASK_NONE},
    };
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        const size_t batch = (size_t)kinds[kind].batch;
        packed made = make_packed(kinds[kind].batch, kinds[kind].heads, kinds[kind].seqlen_q,
                                  kinds[kind].seqlen_k, kinds[kind].dim, 0, kinds[kind].dtype);
        attn_problem *p = &made.problem;
        const size_t size = attni_reference_size(p->dtype_q), q = (size_t)made.q_count / batch * size,
                     k = (size_t)made.k_count / batch * size, o = (size_t)made.o_count / batch * 2,
                     lse = (size_t)made.rows / batch * 4;
        attn_plan *plan;
        int different = 0;
        p->mask = kinds[kind].mask;
        for (size_t b = 1; b < batch; b++) {
            memcpy((char *)made.q + b * q, made.q, q);
            memcpy((char *)made.k + b * k, made.k, k);
            memcpy((char *)made.v + b * k, made.v, k);
        }
        on_device d = copy_packed(&made);
        if (attn_plan_create(context, p, NULL, &plan) == ATTN_OK) {
            for (int round = 0; round < rounds; round++) {
                device_fill(d.o, 0xff, batch * o);
                device_fill(d.lse, 0xff, batch * lse);
                NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
                device_copy_out(made.o, d.o, batch * o);
                device_copy_out(made.lse, d.lse, batch * lse);
                for (size_t b = 1; b < batch; b++)
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

/* V turned once, into a workspace, or by tiles, below a limit of the workspace: the same bits where scores
 * are float32 in both. */
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
            options.exact_reference = 1;
            status = attn_plan_create(context, &made.problem, &options, &plan);
            if (status != ATTN_OK) break; /* not Hopper, or strides that it does not take */
            CHECK((attn_plan_workspace_size(plan) > 64) == !limited, "kind %zu: %zu bytes of workspace", i,
                  attn_plan_workspace_size(plan));
            device_fill(d.o, 0xff, bytes);
            NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
            device_copy_out(o[limited], d.o, bytes);
            attn_plan_destroy(plan);
        }
        CHECK(status != ATTN_OK || memcmp(o[0], o[1], bytes) == 0, "kind %zu: V turned once differs", i);
        free(o[0]);
        free(o[1]);
        free_packed(&d);
        packed_free(&made);
    }
}

/*
 * Blocks of the grid wait for V that others turn. Here most multiprocessors are another kernel's for a while,
 * so that few of them run at once, and the others begin when these have ended: the same bits as alone, and an
 * end.
 */
void device_f8_crowded(attn_context *context, int rounds) {
    packed large = make_packed(1, 1, 128, 65536, 128, 0, ATTN_BF16),
           made = make_packed(1, 8, 2100, 2100, 128, 0, ATTN_F8_E4M3);
    enum { CROWD = 110 }; /* tiles of a row of blocks each, which take about a millisecond */
    attn_problem crowd = large.problem;
    const size_t bytes = (size_t)made.o_count * 2;
    char *alone = test_memory(bytes), *crowded = test_memory(bytes);
    void *streams[2] = {NULL, NULL}, *symbol = device_symbol("cuStreamCreate");
    int (*create)(void **stream, unsigned flags), different = 0;
    attn_plan *plans[2];
    memcpy(&create, &symbol, sizeof symbol);
    NEED(create(&streams[0], 1) == 0 && create(&streams[1], 1) == 0);
    crowd.mask = made.problem.mask = ATTN_MASK_NONE;
    crowd.heads_q = crowd.heads_kv = CROWD;
    crowd.q = crowd.k = crowd.v = (attn_strides){.batch = 0, .seqlen = 128, .heads = 0};
    crowd.batch_invariant = 1; /* keys stay whole */
    on_device d = copy_packed(&made), e = copy_packed(&large);
    void *o = device_alloc((size_t)CROWD * 128 * 128 * 2);
    NEED(o != NULL);
    e.tensors.o = o;
    e.tensors.lse = NULL;
    if (attn_plan_create(context, &made.problem, NULL, &plans[0]) == ATTN_OK) {
        NEED(attn_plan_create(context, &crowd, NULL, &plans[1]) == ATTN_OK);
        for (int round = 0; round <= rounds; round++) {
            attn_execution execution = ATTN_EXECUTION_INIT;
            device_fill(d.o, 0xff, bytes);
            device_wait();
            execution.stream = streams[1];
            if (round > 0) NEED(attn_forward(plans[1], &e.tensors, &execution) == ATTN_OK);
            execution.stream = streams[0];
            NEED(attn_forward(plans[0], &d.tensors, &execution) == ATTN_OK);
            device_wait();
            device_copy_out(round > 0 ? crowded : alone, d.o, bytes);
            different += round > 0 && memcmp(alone, crowded, bytes) != 0;
        }
        CHECK(different == 0, "%d runs beside another kernel differ", different);
        attn_plan_destroy(plans[0]);
        attn_plan_destroy(plans[1]);
    }
    device_free(o);
    free(alone);
    free(crowded);
    free_packed(&d);
    free_packed(&e);
    packed_free(&made);
    packed_free(&large);
}

/* ---------------------------------------------------------------- what f16 scores find hard */

/* Queries that are made 32 times as large, so that f16 scores are too coarse for them: every other tile's of 128 rows, or, of many
 * queries, all of one head. */
static int is_large(const attn_problem *p, int64_t row, int64_t head) {
    return p->seqlen_q > 4000 ? head == 2 : row / 128 % 2 != 0;
}

static void enlarge_queries(packed *made) {
    const attn_problem *p = &made->problem;
    const int e5m2 = p->dtype_q == ATTN_F8_E5M2, step = e5m2 ? 5 << 2 : 5 << 3, most = e5m2 ? 0x7b : 0x7e;
    unsigned char *q = made->q;
    for (int64_t at = 0; at < made->q_count; at++) {
        const int64_t row = at / p->dim_qk / p->heads_q % p->seqlen_q, head = at / p->dim_qk % p->heads_q;
        const int larger = (q[at] & 0x7f) + step;
        if (is_large(p, row, head)) q[at] = (unsigned char)((q[at] & 0x80) | (larger < most ? larger : most));
    }
}

static packed make_turned(attn_dtype dtype, attn_mask mask, int64_t queries, uint64_t seed) {
    attn_problem p = ATTN_PROBLEM_INIT;
    attni_random random = {seed};
    p.batch = 2;
    p.heads_q = 4;
    p.heads_kv = 1;
    p.seqlen_q = queries;
    p.seqlen_k = queries + 50;
    p.dim_qk = p.dim_v = 128;
    p.mask = mask;
    return packed_make(&p, dtype, &random);
}

/* Just their tiles must have the bits that float32 scores give, also after a run where there are none. */
void device_f8_marked_tiles(attn_context *context, int kinds) {
    for (int kind = 0; kind < kinds; kind++) {
        packed made =
            make_turned(kind & 2 ? ATTN_F8_E5M2 : ATTN_F8_E4M3, kind & 1 ? ATTN_MASK_CAUSAL : ATTN_MASK_NONE,
                        kind < 4 ? 1250 : 4500, (uint64_t)kind + 40);
        const attn_problem *p = &made.problem;
        attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
        attn_plan *plan[2];
        const size_t bytes = (size_t)made.o_count * 2, row = (size_t)p->dim_v * 2;
        char *o[2] = {test_memory(bytes), test_memory(bytes)};
        attn_status status = ATTN_OK;
        for (int exact = 0; exact < 2 && status == ATTN_OK; exact++) {
            options.exact_reference = exact;
            status = attn_plan_create(context, &made.problem, &options, &plan[exact]);
        }
        if (status == ATTN_OK) { /* else not Hopper */
            on_device d = copy_packed(&made);
            NEED(attn_forward(plan[0], &d.tensors, NULL) == ATTN_OK);
            enlarge_queries(&made);
            device_copy_in(d.q, made.q, (size_t)made.q_count);
            for (int exact = 0; exact < 2; exact++) {
                device_fill(d.o, 0xff, bytes);
                NEED(attn_forward(plan[exact], &d.tensors, NULL) == ATTN_OK);
                device_copy_out(o[exact], d.o, bytes);
                attn_plan_destroy(plan[exact]);
            }
            int64_t marked = 0, other = 0, rows = 0;
            for (int64_t i = 0; i < made.rows; i++) {
                const int differs = memcmp(o[0] + (size_t)i * row, o[1] + (size_t)i * row, row) != 0;
                const int large = is_large(p, i / p->heads_q % p->seqlen_q, i % p->heads_q);
                marked += large && differs;
                other += !large && differs;
                rows += !large;
            }
            CHECK(marked == 0, "kind %d: %lld rows with large scores are not those of float32 scores", kind,
                  (long long)marked);
            CHECK(other > rows / 2, "kind %d: of %lld other rows only %lld have f16 scores", kind,
                  (long long)rows, (long long)other);
            free_packed(&d);
        }
        free(o[0]);
        free(o[1]);
        packed_free(&made);
    }
}

/* The same bits in every run, in whatever order tiles are marked. */
void device_f8_repeats(attn_context *context, int times) {
    packed made = make_turned(ATTN_F8_E4M3, ATTN_MASK_CAUSAL, 1800, 50);
    const size_t bytes = (size_t)made.o_count * 2, lse_bytes = (size_t)made.rows * 4;
    char *again = test_memory(bytes + lse_bytes), *first = test_memory(bytes + lse_bytes);
    attn_plan *plan;
    int different = 0;
    enlarge_queries(&made);
    on_device d = copy_packed(&made);
    if (attn_plan_create(context, &made.problem, NULL, &plan) == ATTN_OK) {
        for (int i = 0; i < times; i++) {
            device_fill(d.o, 0xff, bytes);
            device_fill(d.lse, 0xff, lse_bytes);
            NEED(attn_forward(plan, &d.tensors, NULL) == ATTN_OK);
            device_copy_out(i == 0 ? first : again, d.o, bytes);
            device_copy_out((i == 0 ? first : again) + bytes, d.lse, lse_bytes);
            different += i > 0 && memcmp(first, again, bytes + lse_bytes) != 0;
        }
        CHECK(different == 0, "f8 with marked tiles: %d of %d runs gave other bits", different, times);
        attn_plan_destroy(plan);
    }
    free(first);
    free(again);
    free_packed(&d);
    packed_free(&made);
}

/*
 * FAR: logits of 1e9. A row of q has one number alone, whose products the tensor core keeps whole. Of a sum it cuts off
 * what is below 2^-13 of the largest product: with either kind of scores two logits that differ by less are one, which
 * for logits so large is another answer than the oracle's.
 */
enum { AS_DRAWN, LARGEST, ZERO_ROWS, ONE_HUGE, TINY, FAR, KINDS };

/* The bits of a number of q (row: of a query) or of k. */
static unsigned char extreme_of(int kind, int is_q, int64_t row, int64_t dim, attn_dtype dtype,
                                unsigned char drawn) {
    const unsigned char most = dtype == ATTN_F8_E4M3 ? 0x7e : 0x7b;
    switch (kind) {
    case LARGEST: return (unsigned char)(most | (is_q || row % 3 ? 0 : 0x80)); /* each third key's are -448 */
    case ZERO_ROWS: return is_q && row % 2 ? 0 : drawn;
    case ONE_HUGE: return !is_q ? drawn : dim == row % 5 ? most : (unsigned char)((drawn & 0x80) | 1);
    case TINY: return (unsigned char)(drawn & 0x83);
    case FAR: return is_q && dim != row % 5 ? 0 : drawn;
    default: return drawn;
    }
}

static void make_extreme(attni_problems_case *made, int kind) {
    const attn_problem *p = &made->problem;
    for (int is_q = 0; is_q < 2; is_q++) {
        const int64_t heads = is_q ? p->heads_q : p->heads_kv, rows = is_q ? p->seqlen_q : p->seqlen_k;
        const attn_strides strides = attni_reference_strides(is_q ? p->q : p->k, rows, heads, p->dim_qk);
        unsigned char *all = (unsigned char *)(is_q ? made->tensors.q : made->tensors.k);
        for (int64_t b = 0; b < p->batch; b++)
            for (int64_t s = 0; s < rows; s++)
                for (int64_t h = 0; h < heads; h++)
                    for (int64_t d = 0; d < p->dim_qk; d++) {
                        unsigned char *x =
                            all + b * strides.batch + s * strides.seqlen + h * strides.heads + d;
                        *x = extreme_of(kind, is_q, s, d, p->dtype_q, *x);
                    }
    }
    /* scores of some units, but FAR: 1e6, which f16 has not */
    const double most = p->dtype_q == ATTN_F8_E4M3 ? 448 : 57344,
                 least = p->dtype_q == ATTN_F8_E4M3 ? 0x1p-9 : 0x1p-16;
    if (kind == LARGEST) made->tensors.scale = (float)(2.0 / (most * most * (double)p->dim_qk));
    if (kind == TINY) made->tensors.scale = (float)(1.0 / (least * least * (double)p->dim_qk));
    if (kind == FAR) made->tensors.scale = 1e5f;
}

/* Random problems with q and k at the ends of their range, scores in f16 and in float32; the oracle judges. */
void device_f8_extremes(attn_context *context, int problems, uint64_t first) {
    const attni_problems_limits limits = {300000, 0, 1, 0, 1};
    double worst[KINDS][2] = {0};
    int run[KINDS] = {0};
    for (uint64_t seed = first; seed < first + 200 * (uint64_t)problems; seed++) {
        const int kind = (int)(seed % KINDS);
        attni_problems_case made;
        if (run[kind] >= problems) continue;
        NEED(attni_problems_make(&made, 77000 + seed, &limits) == 0);
        const int in_f16 = made.problem.seqlen_q >= 4096 / 5 && made.problem.dim_qk <= 128; /* V is turned */
        for (int exact = 0; exact < 2 && in_f16; exact++) {
            attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
            attn_plan *plan;
            char sentence[1024];
            double ratio = 0;
            if (exact == 0) make_extreme(&made, kind);
            options.exact_reference = exact;
            if (attn_plan_create(context, &made.problem, &options, &plan) != ATTN_OK) break;
            attni_problems_poison(&made);
            CHECK(device_case_run(plan, &made, 1) == ATTN_OK, "%s: %s", made.text, attn_last_error());
            CHECK(attni_problems_verify(&made, &ratio, sentence, sizeof sentence), "extreme %d, exact %d: %s",
                  kind, exact, sentence);
            if (!(ratio <= worst[kind][exact])) worst[kind][exact] = ratio;
            attn_plan_destroy(plan);
            run[kind] += exact;
        }
        attni_problems_free(&made);
    }
    for (int kind = 0; kind < KINDS; kind++)
        printf("extremes %d: %d problems, worst error/tolerance %.3f, with float32 scores %.3f\n", kind,
               run[kind], worst[kind][0], worst[kind][1]);
}
