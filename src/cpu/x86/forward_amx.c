/*
 * forward_amx: both products on AMX's tiles, the softmax on AVX-512, both at once. Queries are columns of
 * tiles, as they are lanes in forward_body.h, so that masks and options are shared:
 *
 *     S^T[key][query]  = K  Q^T      A: 16 keys x 32 dims of K       B: 32 dims x 16 queries, dims in pairs
 *     O^T[dim][query] += V^T P^T     A: 16 dims x 32 keys of V^T     B: 32 keys x 16 queries, keys in pairs
 *
 * P^T leaves the softmax in the second product's order. O is divided by the sum of P as it was rounded.
 *
 *     registers    2 x 2 tiles of S^T or O^T, 2 of A, 2 of B: 4 products for 4 loads; to 64 dims S^T takes 2 tiles, 2 of A
 *                  and 4 of B, which stay while the block's keys go by: 4 products for 2 loads
 *     L1           what a step of 4 products touches, and Q^T of a sub of 32 rows
 *     L2           K and V^T of a block of 256 keys, S^T and P^T of two units, O^T and Q^T of up to 512 rows:
 *                  0.6 MB at dim 128
 *
 * A unit is a sub against a block. A unit's softmax takes about as long as its products at dim 128, and twice
 * as long at 64, so three units are in flight:
 *
 *     tiles        S(1) | S(2)      O += P(0) | S(3)      O += P(1) | ...
 *     vectors           |      P(1)           |      P(2)           | ...
 *
 * The core's window is far shorter than a unit, so the loops of the products take a vector of the softmax
 * (softmax_amx.h) between two of the tiles' instructions. Beside a busy hardware thread that makes the products
 * themselves faster, too (TILE_PAUSE).
 *
 * References are speculative: P is computed with the ones that rows have, and only if a unit's P of a row add up to more
 * than OUTGROWN is the maximum searched, the reference moved and the unit's P computed again. A row moves by what it
 * sees itself, so its bits do not depend on its neighbours. O's factor is applied when the unit's P is.
 *
 * Measured, and what limits it: docs/schedules/forward_cpu.md. What did not help, on 16 threads of a Xeon whose other hardware
 * threads were busy, 2,048 keys, dims 64 and 128 (differences below 5% are noise there):
 *   - the softmax between steps of 4 products, not between single instructions: 11% less at dim 128, 13% at
 *     64;
 *   - units of 512 keys: the same;
 *   - subs of 64 rows, each tile of K and V^T brought to L1 for twice the rows: the same;
 *   - one tile of sums at a time, A and B both streamed: 10 to 15% less;
 *   - a row of ones in V^T, which gives the sum of rounded P, in place of adding it by vectors: the same at dim 128,
 *     3 to 6% less at 64; adding it by vdpbf16ps 3 to 7% less;
 *   - huge pages for the workspace, for K and V, or for both: the same;
 *   - units of 64 and 128 keys, whose S^T and P^T stay in L1: 3 to 5% less at dim 64, 15 to 25% at 128. The second product
 *     then reads and writes O^T so much more often;
 *   - A's next tiles prefetched from L2 to L1, S^T's rows for writing: the same. Yet with A always the same two KB (wrong) an
 *     idle core takes 18 to 25% less: what streams through L1 costs by the line, not by the wait;
 *   - S^T in chunks of 64 or 128 keys, so that it stays in L1: 0 to 3% less (with S^T always the same 8 KB,
 *     wrong, 2 to 7% more): P^T then comes from L2 for every 32 dims;
 *   - kept blocks prefetched from L3 to L2: 1 to 3% less;
 *   - a row's first reference from the block's first 32 keys, not from all 256: 0 to 2% more, but the errors of
 *     peaked rows' O grow by 9%, as fewer rows have a P of 1;
 *   - an exponential of degree 4: 2% less time, but the LSE of a row of few keys is off by up to 3e-6, outside its tolerance.
 */
#include "cpu/x86/simd_avx512_bf16.h"

#define FORWARD_NV 2
#define FORWARD_TILE_ROWS 512
#define FORWARD_KEYS 256

#include "cpu/kernels.h"
#include "cpu/x86/finish_amx.h"
#include "cpu/x86/panels_amx.h"
#include "cpu/x86/softmax_amx.h"
#include "cpu/x86/tiles_amx.h"

ATTNI_ASSERT_ROW(forward_amx);

#define AHEAD_ROWS 128
#define FLUSH_DENORMALS 0x8040u /* in MXCSR: results, and operands */

/* A sub against keys [key, key + count) of a block, counted from its first key; multiples of STEP_KEYS. */
typedef struct amx_unit {
    int64_t sub, block, key, count; /* block: its first key; count 0: no unit */
    float *s, *p,
        *factor;   /* S^T and P^T of `key`; what O^T is to be multiplied by before P is added, if moved */
    bool first, last, moved; /* first and last of its sub */
} amx_unit;

/* Rows that will be needed soon, brought to L2 between the products' steps. */
typedef struct amx_ahead {
    struct {
        const char *at;
        int64_t bytes;
        bool written;
    } rows[AHEAD_ROWS];
    int64_t count, next, rows_a_step;
    int64_t key, key_end, keys_a_unit; /* of the next block */
} amx_ahead;

/* A tile, and where its walk over blocks and subs is. */
typedef struct amx_walk {
    const attni_job *job;
    const attni_tile *tile;
    amx_scratch w;
    amx_ahead ahead;
    int64_t subs, block, sub; /* the next unit's */
    int64_t taken;            /* the block in hand; -1: none */
    int buffers;              /* which of the two a unit takes next */
    uint32_t environment;     /* the caller's MXCSR */
    bool begun[FORWARD_SUBS], done[FORWARD_SUBS];
} amx_walk;

/* What the products' loops do between their tiles' instructions. */
typedef struct amx_host {
    softmax_state guest;
    amx_ahead *ahead;
    int64_t pairs; /* of the guest's, with each two products */
} amx_host;

/* A unit's products, in twos: as many as the columns of a tile of A meet. */
static int64_t score_twos(const amx_walk *walk, const amx_unit *u) {
    return u->count / 16 * walk->w.shape.qk_steps;
}
static int64_t value_twos(const amx_walk *walk, const amx_unit *u) {
    return u->count / STEP_KEYS * walk->w.shape.v_tiles;
}

/* ---------------------------------------------------------------- look ahead */

static void ahead_row(amx_ahead *a, const void *row, int64_t dim, attn_dtype dtype, bool written) {
    if (a->count == AHEAD_ROWS) return;
    a->rows[a->count].at = row;
    a->rows[a->count].written = written;
    a->rows[a->count++].bytes = dim * (int64_t)attni_dtype_size(dtype);
}

/* Spreads the block at key (count keys), if it is not kept yet, over the units of the block before. */
static void ahead_block(amx_walk *walk, int64_t key, int64_t count) {
    const bool needed = count > 0 && !block_is_here(&walk->w, key / FORWARD_KEYS);
    walk->ahead.key = key;
    walk->ahead.key_end = needed ? key + count : key;
    walk->ahead.keys_a_unit = attni_ceil_div(FORWARD_KEYS, walk->subs);
}

/* What a unit's steps fetch: a part of the next block, the next sub's queries, the rows of O to write. */
static void ahead_unit(amx_walk *walk, const amx_unit *u) {
    const attni_job *job = walk->job;
    const attn_problem *p = job->p;
    amx_ahead *a = &walk->ahead;
    const int64_t row = walk->tile->row_begin + u->sub * FORWARD_SUB_ROWS;
    const int64_t left = walk->tile->row_end - row;
    a->count = a->next = 0;
    if (u->first)
        for (int64_t i = FORWARD_SUB_ROWS; i < attni_min(left, 2 * FORWARD_SUB_ROWS); i++)
            ahead_row(a, attni_q_row(job, walk->tile, row + i), p->dim_qk, p->dtype_q, false);
    if (u->last && job->kind == ATTNI_RUN_FORWARD)
        for (int64_t i = 0; i < attni_min(left, FORWARD_SUB_ROWS); i++)
            ahead_row(a, attni_o_row(job, walk->tile, row + i), p->dim_v, p->dtype_o, true);
    for (const int64_t stop = attni_min(a->key + a->keys_a_unit, a->key_end); a->key < stop; a->key++) {
        ahead_row(a, attni_k_row(job, walk->tile, a->key), p->dim_qk, p->dtype_kv, false);
        ahead_row(a, attni_v_row(job, walk->tile, a->key), p->dim_v, p->dtype_kv, false);
    }
    a->rows_a_step = attni_ceil_div(2 * a->count, score_twos(walk, u) + value_twos(walk, u));
}

SIMD_INLINE void ahead_step(amx_ahead *a) {
    for (const int64_t stop = attni_min(a->next + a->rows_a_step, a->count); a->next < stop; a->next++)
        for (int64_t i = 0; i < a->rows[a->next].bytes; i += 64) {
            const char *at = a->rows[a->next].at + i;
            if (a->rows[a->next].written)
                simd_prefetch_write(at);
            else
                simd_prefetch_far(at);
        }
}

/* ---------------------------------------------------------------- products */

#define BEGIN_SUMS(t, at)                                                                                    \
    do {                                                                                                     \
        if (zero)                                                                                            \
            TILE_ZERO(t);                                                                                    \
        else                                                                                                 \
            TILE_LOAD(t, at, ROW_BYTES);                                                                     \
    } while (0)

/*
 * A block of C, one or two tiles high and two wide, (+)= A B, with the softmax and the prefetches between; known: see
 * softmax_some.
 */
SIMD_INLINE void multiply_block(const int high, const int known, float *c, const char *a, const float *b,
                                int64_t steps, const bool zero, softmax_state *guest, int64_t pairs,
                                amx_ahead *ahead) {
    float *lower = c + 16 * FORWARD_SUB_ROWS;
    exp2_chains exp2;
    BEGIN_SUMS(0, c);
    BEGIN_SUMS(1, c + 16);
    if (high > 1) {
        BEGIN_SUMS(2, lower);
        BEGIN_SUMS(3, lower + 16);
    }
    for (int64_t j = 0; j < steps; j++, a += high * TILE_BYTES, b += 16 * FORWARD_SUB_ROWS) {
        TILE_STREAM(4, a, 64);
        TILE_LOAD(6, b, ROW_BYTES);
        TILE_LOAD(7, b + 16, ROW_BYTES);
        if (high > 1) TILE_STREAM(5, a + TILE_BYTES, 64);
        softmax_some(guest, &exp2, 0, known, pairs);
        TILE_DOT(0, 4, 6);
        softmax_some(guest, &exp2, 1, known, pairs);
        TILE_DOT(1, 4, 7);
        if (high > 1) {
            softmax_some(guest, &exp2, 2, known, pairs);
            TILE_DOT(2, 5, 6);
            softmax_some(guest, &exp2, 3, known, pairs);
            TILE_DOT(3, 5, 7);
        }
        ahead_step(ahead);
    }
    TILE_STORE(0, c, ROW_BYTES);
    TILE_STORE(1, c + 16, ROW_BYTES);
    if (high > 1) {
        TILE_STORE(2, lower, ROW_BYTES);
        TILE_STORE(3, lower + 16, ROW_BYTES);
    }
}

/* C = A B of `tiles` tiles of A's rows, in pairs as tile_at has them, over one or two steps: B stays in registers. */
SIMD_INLINE void multiply_few(const int steps, const int known, float *c, const char *a, const float *b,
                              int64_t tiles, softmax_state *guest, int64_t pairs, amx_ahead *ahead) {
    const float *later = b + 16 * FORWARD_SUB_ROWS;
    exp2_chains exp2;
    TILE_LOAD(4, b, ROW_BYTES);
    TILE_LOAD(5, b + 16, ROW_BYTES);
    if (steps > 1) {
        TILE_LOAD(6, later, ROW_BYTES);
        TILE_LOAD(7, later + 16, ROW_BYTES);
    }
    for (int64_t r = 0; r < tiles; r++, c += 16 * FORWARD_SUB_ROWS) {
        const char *from = a + r / 2 * 2 * steps * TILE_BYTES + r % 2 * TILE_BYTES;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_STREAM(2, from, 64);
        if (steps > 1) TILE_STREAM(3, from + 2 * TILE_BYTES, 64);
        softmax_some(guest, &exp2, 0, known, pairs);
        TILE_DOT(0, 2, 4);
        softmax_some(guest, &exp2, 1, known, pairs);
        TILE_DOT(1, 2, 5);
        if (steps > 1) {
            softmax_some(guest, &exp2, 2, known, pairs);
            TILE_DOT(0, 3, 6);
            softmax_some(guest, &exp2, 3, known, pairs);
            TILE_DOT(1, 3, 7);
        }
        TILE_STORE(0, c, ROW_BYTES);
        TILE_STORE(1, c + 16, ROW_BYTES);
        ahead_step(ahead);
    }
}

/* An operand A: its tiles, and of them the row tiles and steps along the summed axis that a unit takes. */
typedef struct amx_operand {
    const char *tiles;
    int64_t row_tiles, steps;
    int64_t row_begin, row_end, step_begin, step_end;
} amx_operand;

/* What softmax_some may know of the guest during so many twos. */
static int known_pairs(const amx_host *host, const softmax_state *guest, int64_t twos) {
    return host->pairs <= 2 && guest->pairs >= host->pairs * twos ? (int)host->pairs : 0;
}

/* C (+)= A B; c and b are the first row's and step's. */
static void multiply(float *c, const amx_operand *a, const float *b, bool zero, amx_host *host) {
    softmax_state guest;
    softmax_enter(&guest, &host->guest);
    const int64_t steps = a->step_end - a->step_begin, pairs = host->pairs;
    for (int64_t r = a->row_begin; r < a->row_end; r += 2, c += 32 * FORWARD_SUB_ROWS) {
        const char *from = a->tiles + tile_at(a->row_tiles, a->steps, r, a->step_begin);
        if (r + 1 == a->row_end) {
            multiply_block(1, 0, c, from, b, steps, zero, &guest, pairs, host->ahead);
            continue;
        }
        switch (known_pairs(host, &guest, 2 * steps)) {
        case 1: multiply_block(2, 1, c, from, b, steps, zero, &guest, pairs, host->ahead); break;
        case 2: multiply_block(2, 2, c, from, b, steps, zero, &guest, pairs, host->ahead); break;
        default: multiply_block(2, 0, c, from, b, steps, zero, &guest, pairs, host->ahead); break;
        }
    }
    softmax_leave(&host->guest, &guest);
}

/* C = A B where A has two steps or one. */
static void multiply_short(float *c, const amx_operand *a, const float *b, amx_host *host) {
    softmax_state guest;
    softmax_enter(&guest, &host->guest);
    const int64_t pairs = host->pairs;
    const char *from = a->tiles + tile_at(a->row_tiles, a->steps, a->row_begin, 0);
    /* eight tiles at a time: what is left of the guest changes what is known of it */
    for (int64_t r = a->row_begin; r < a->row_end;
         r += 8, c += 8 * 16 * FORWARD_SUB_ROWS, from += 8 * a->steps * TILE_BYTES) {
        const int64_t tiles = attni_min(8, a->row_end - r);
        if (a->steps == 1)
            multiply_few(1, 0, c, from, b, tiles, &guest, pairs, host->ahead);
        else
            switch (known_pairs(host, &guest, 2 * tiles)) {
            case 1: multiply_few(2, 1, c, from, b, tiles, &guest, pairs, host->ahead); break;
            case 2: multiply_few(2, 2, c, from, b, tiles, &guest, pairs, host->ahead); break;
            default: multiply_few(2, 0, c, from, b, tiles, &guest, pairs, host->ahead); break;
            }
    }
    softmax_leave(&host->guest, &guest);
}

/* S^T = K Q^T of a unit. */
static void multiply_scores(const amx_walk *walk, const amx_unit *u, amx_host *host) {
    const int64_t steps = walk->w.shape.qk_steps;
    const amx_operand k = {.tiles = slot_panels(&walk->w, u->block / FORWARD_KEYS),
                           .row_tiles = FORWARD_KEYS / 16,
                           .row_begin = u->key / 16,
                           .row_end = (u->key + u->count) / 16,
                           .steps = steps,
                           .step_end = steps};
    const float *q = walk->w.q + u->sub * FORWARD_SUB_ROWS * 16 * steps;
    if (steps <= 2)
        multiply_short(u->s, &k, q, host);
    else
        multiply(u->s, &k, q, true, host);
}

/* O^T += V^T P^T of a unit, after O^T has been multiplied by the unit's factors. */
static void multiply_values(const amx_walk *walk, const amx_unit *u, amx_host *host) {
    const int64_t tiles = walk->w.shape.v_tiles;
    float *o = walk->w.o + u->sub * FORWARD_SUB_ROWS * 16 * tiles;
    if (u->moved && !u->first)
        for (int64_t d = 0; d < 16 * tiles; d++)
            for (int64_t v = 0; v < FORWARD_SUB_ROWS; v += SIMD_LANES) {
                float *at = o + d * FORWARD_SUB_ROWS + v;
                vf_store(at, vf_mul(vf_load(at), vf_load(u->factor + v)));
            }
    const amx_operand v = {.tiles =
                               slot_panels(&walk->w, u->block / FORWARD_KEYS) + slot_k_bytes(&walk->w.shape),
                           .row_tiles = tiles,
                           .row_end = tiles,
                           .steps = FORWARD_KEYS / STEP_KEYS,
                           .step_begin = u->key / STEP_KEYS,
                           .step_end = (u->key + u->count) / STEP_KEYS};
    multiply(o, &v, u->p, u->first, host);
}

/* ---------------------------------------------------------------- softmax */

static score_block block_of(const amx_unit *u, float *s) {
    return (score_block){s, u->block + u->key, u->count, u->sub * FORWARD_SUB_ROWS, FORWARD_NV};
}

/* The softmax of a unit from its first pair on, with the references that its rows have now; 0 where a row has
 * seen nothing. */
static void softmax_begin(const amx_walk *walk, const amx_unit *u, softmax_state *e) {
    e->s = u->s;
    e->p = u->p;
    e->pairs = u->count / 2;
    e->scale = vf_set1(walk->w.rows.units.to_log2);
    vmask far = 0;
    for (int v = 0; v < FORWARD_NV; v++) {
        const vf m = vf_load(walk->w.rows.m + u->sub * FORWARD_SUB_ROWS + v * SIMD_LANES);
        e->reference[v] = vf_select(vf_equal(m, vf_set1(-INFINITY)), vf_zero(), m);
        e->offset[v] = vf_mul(e->reference[v], e->scale);
        e->sum[v] = e->rounded[v] = vf_zero();
        far |= vf_greater(vf_abs(e->offset[v]), vf_set1(SOFTMAX_NEAR));
    }
    if (vmask_any(far)) softmax_far(e);
}

/* Moves the references of lanes that `outgrown` names to their maxima in this unit, where higher. */
static bool move_references(const amx_walk *walk, amx_unit *u, const vmask outgrown[FORWARD_NV]) {
    const tile_rows *r = &walk->w.rows;
    vf top[FORWARD_NV][4];
    for (int v = 0; v < FORWARD_NV; v++)
        for (int i = 0; i < 4; i++) top[v][i] = vf_set1(-INFINITY);
    for (int64_t j = 0; j < u->count; j += 4) {
        SIMD_UNROLL
        for (int i = 0; i < 4; i++) {
            const float *s = u->s + (j + i) * FORWARD_SUB_ROWS;
            top[0][i] = vf_max(top[0][i], vf_load(s));
            top[1][i] = vf_max(top[1][i], vf_load(s + SIMD_LANES));
        }
    }
    bool any = false;
    for (int v = 0; v < FORWARD_NV; v++) {
        float *m = r->m + u->sub * FORWARD_SUB_ROWS + v * SIMD_LANES;
        const vf old = vf_load(m);
        const vf highest = vf_max(vf_max(top[v][0], top[v][1]), vf_max(top[v][2], top[v][3]));
        const vmask grown = outgrown[v] & vf_greater(highest, old);
        if (!vmask_any(grown)) continue;
        /* from -inf the factor is 0, and l = o = 0 */
        const vf factor = vf_exp2(vf_sub(old, highest), vf_set1(r->units.to_log2));
        vf_store(u->factor + v * SIMD_LANES, vf_select(grown, factor, vf_set1(1.0f)));
        vf_store(m, vf_select(grown, highest, old));
        any = u->moved = true;
    }
    return any;
}

/* Raw products become scores; a sub of which no row has seen anything gets its first references. */
static void prepare_unit(const amx_walk *walk, amx_unit *u) {
    const attni_job *job = walk->job;
    const tile_rows *r = &walk->w.rows;
    const score_block block = block_of(u, u->s);
    const int options = (job->options & ATTNI_SCORE_OPTIONS) != 0;
    if (options) score_options(job, walk->tile, r, &block);
    if (score_needs_mask(r, &block)) score_mask_edges(r, &block);
    vmask unseen[FORWARD_NV];
    bool none = true;
    for (int v = 0; v < FORWARD_NV; v++) {
        unseen[v] = vf_equal(vf_load(r->m + block.first + v * SIMD_LANES), vf_set1(-INFINITY));
        none = none && unseen[v] == (vmask)0xffff;
        vf_store(u->factor + v * SIMD_LANES, vf_set1(1.0f));
    }
    u->moved = false;
    if (none) move_references(walk, u, unseen);
}

/* What the products left of a unit's softmax; all of it again, if a row has outgrown its reference. */
static void finish_softmax(const amx_walk *walk, amx_unit *u, softmax_state *e) {
    const tile_rows *r = &walk->w.rows;
    const int64_t first = u->sub * FORWARD_SUB_ROWS;
    softmax_rest(e);
    vmask outgrown[FORWARD_NV], any = 0;
    for (int v = 0; v < FORWARD_NV; v++) {
        const vf m = vf_load(r->m + first + v * SIMD_LANES);
        outgrown[v] = softmax_outgrown(e->sum[v]) | vf_equal(m, vf_set1(-INFINITY));
        any |= outgrown[v];
    }
    if (vmask_any(any) && move_references(walk, u, outgrown)) {
        softmax_begin(walk, u, e);
        softmax_rest(e);
    }
    for (int v = 0; v < FORWARD_NV; v++) {
        const vf factor = vf_load(u->factor + v * SIMD_LANES);
        float *l = r->l + first + v * SIMD_LANES, *l_rounded = r->l_rounded + first + v * SIMD_LANES;
        vf_store(l, vf_fma(vf_load(l), factor, e->sum[v]));
        vf_store(l_rounded, vf_fma(vf_load(l_rounded), factor, e->rounded[v]));
    }
    if (walk->job->options & ATTNI_DROPOUT) {
        const score_block block = block_of(u, u->p);
        score_dropout(walk->job, walk->tile, r, &block);
    }
}

/* ---------------------------------------------------------------- finish */

/* Columns become rows again, and leave in the caller's floating-point environment. */
static void finish_sub(const amx_walk *walk, int64_t sub) {
    const attni_job *job = walk->job;
    const tile_rows *r = &walk->w.rows;
    const int64_t begin = walk->tile->row_begin, first = sub * FORWARD_SUB_ROWS,
                  dims = 16 * walk->w.shape.v_tiles, ld = walk->w.shape.ld_staging;
    const int64_t count = attni_min(FORWARD_SUB_ROWS, walk->tile->row_end - begin - first);
    const float *o = walk->w.o + first * dims;
    const uint32_t flushing = _mm_getcsr();
    _mm_setcsr(walk->environment);
    for (int64_t v = 0; v < count; v += SIMD_LANES) {
        for (int64_t d = 0; d < dims; d += SIMD_LANES)
            simd_transpose(o + d * FORWARD_SUB_ROWS + v, FORWARD_SUB_ROWS, walk->w.staging + d, ld);
        float lse[SIMD_LANES];
        row_lse(r, first + v, lse);
        const int64_t rows = attni_min(SIMD_LANES, count - v);
        for (int64_t lane = 0; lane < rows; lane++) {
            const int64_t row = first + v + lane;
            float *out = walk->w.staging + lane * ld;
            const float l = r->l[row], rounded = r->l_rounded[row];
            if (job->kind == ATTNI_RUN_FORWARD && !job->p->has_sinks)
                store_row(job, walk->tile, begin + row, l, rounded, lse[lane], out);
            else /* o * l / rounded, so that the division by l divides by what was summed */
                emit_row(job, walk->tile, begin + row, (double)r->m[row] * r->units.to_natural, l,
                         job->dropout_scale * (rounded == 0 ? 1.0f : l / rounded), out);
        }
    }
    _mm_setcsr(flushing);
}

/* ---------------------------------------------------------------- the tile */

/* The next unit: blocks outside, subs inside. */
static bool next_unit(amx_walk *walk, amx_unit *u) {
    const tile_rows *r = &walk->w.rows;
    for (; walk->block < r->end_all; walk->block += FORWARD_KEYS, walk->sub = 0) {
        while (walk->sub < walk->subs) {
            const int64_t sub = walk->sub++, begin = attni_max(0, r->sub_begin[sub] - walk->block),
                          end = attni_min(FORWARD_KEYS, r->sub_end[sub] - walk->block);
            if (begin >= end) continue;
            *u = (amx_unit){.sub = sub, .block = walk->block, .key = begin / STEP_KEYS * STEP_KEYS};
            u->count = attni_round_up(end, STEP_KEYS) - u->key;
            u->first = !walk->begun[sub];
            u->last = r->sub_end[sub] <= walk->block + FORWARD_KEYS;
            walk->begun[sub] = true;
            return true;
        }
    }
    return false;
}

/* Whether the unit's block has to be converted into a slot whose V a unit in flight still needs. */
static bool must_wait(const amx_walk *walk, const amx_unit *next, const amx_unit *now,
                      const amx_unit *before) {
    const amx_scratch *w = &walk->w;
    const int64_t block = next->block / FORWARD_KEYS, slot = slot_of(w, block);
    return !block_is_here(w, block) &&
           (slot == slot_of(w, now->block / FORWARD_KEYS) ||
            (before->count > 0 && slot == slot_of(w, before->block / FORWARD_KEYS)));
}

/* Makes ready what the unit's products read. */
static void open_unit(amx_walk *walk, amx_unit *u) {
    const int64_t left = walk->w.rows.end_all - u->block;
    if (walk->taken != u->block) {
        take_block(walk->job, walk->tile, &walk->w, u->block);
        ahead_block(walk, u->block + FORWARD_KEYS, attni_min(FORWARD_KEYS, left - FORWARD_KEYS));
        walk->taken = u->block;
    }
    if (u->first) load_queries(walk->job, walk->tile, &walk->w, u->sub);
    u->s = walk->w.s[walk->buffers];
    u->p = walk->w.p[walk->buffers];
    u->factor = walk->w.factor[walk->buffers];
    walk->buffers ^= 1;
    ahead_unit(walk, u);
}

static void finish_values(amx_walk *walk, const amx_unit *u, amx_host *host) {
    multiply_values(walk, u, host);
    if (!u->last) return;
    finish_sub(walk, u->sub);
    walk->done[u->sub] = true;
}

static void run_units(amx_walk *walk) {
    amx_host host = {.guest = {.pairs = 0}, .ahead = &walk->ahead};
    amx_unit before = {.count = 0}, now, next;
    if (!next_unit(walk, &now)) return;
    open_unit(walk, &now);
    multiply_scores(walk, &now, &host);
    for (;;) {
        const bool more = next_unit(walk, &next), hosts = more && !must_wait(walk, &next, &now, &before);
        if (hosts) open_unit(walk, &next);
        prepare_unit(walk, &now);
        softmax_begin(walk, &now, &host.guest);
        const int64_t twos = (hosts ? score_twos(walk, &next) : 0) + value_twos(walk, &before);
        host.pairs = attni_ceil_div(host.guest.pairs, attni_max(1, twos));
        if (hosts) multiply_scores(walk, &next, &host);
        if (before.count > 0) finish_values(walk, &before, &host);
        finish_softmax(walk, &now, &host.guest);
        before = now;
        if (!hosts) { /* what is in flight has to end first */
            finish_values(walk, &before, &host);
            before.count = 0;
            if (!more) return;
            open_unit(walk, &next);
            multiply_scores(walk, &next, &host);
        }
        now = next;
    }
}

void attni_forward_amx(const attni_job *job, const attni_tile *tile, void *scratch) {
    const int64_t rows = tile->row_end - tile->row_begin;
    amx_walk walk;
    walk.job = job;
    walk.tile = tile;
    amx_carve(&walk.w, scratch, rows, job->p->dim_qk, job->p->dim_v);
    walk.subs = attni_ceil_div(rows, FORWARD_SUB_ROWS);
    tile_rows_fill(job, tile, &walk.w.rows, walk.subs * FORWARD_SUB_ROWS);
    for (int64_t i = 0; i < walk.subs; i++) walk.begun[i] = walk.done[i] = false;
    walk.block = walk.w.rows.begin_all / FORWARD_KEYS * FORWARD_KEYS;
    walk.sub = 0;
    walk.taken = -1;
    walk.buffers = 0;

    walk.environment = _mm_getcsr();
    _mm_setcsr(walk.environment | FLUSH_DENORMALS); /* a vscalefps with a denormal result takes 200 cycles */
    TILE_BEGIN();
    run_units(&walk);
    TILE_END();
    for (int64_t sub = 0; sub < walk.subs; sub++) { /* those that see nothing */
        const int64_t floats = FORWARD_SUB_ROWS * 16 * walk.w.shape.v_tiles;
        if (walk.done[sub]) continue;
        memset(walk.w.o + sub * floats, 0, (size_t)floats * sizeof(float));
        finish_sub(&walk, sub);
    }
    _mm_setcsr(walk.environment);
}

size_t attni_forward_amx_scratch(int64_t rows, int64_t slots, int64_t dim_qk, int64_t dim_v) {
    amx_scratch w;
    (void)slots;
    return amx_carve(&w, NULL, rows, dim_qk, dim_v);
}

size_t attni_forward_amx_block(int64_t dim_qk, int64_t dim_v) {
    const amx_shape f = shape_of(dim_qk, dim_v);
    return (size_t)slot_bytes(&f);
}
