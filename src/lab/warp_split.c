#include "warp_split.h"

#include "operations.h"

#include <math.h>
#include <stdlib.h>

const char *const lab_split_names[LAB_SPLITS + 1] = {"sliced K", "split Q", NULL};

enum { PARTIAL = 4 }; /* bytes of a maximum, a sum, a number of a share of O: float32 */

typedef struct block {
    lab_problem *p;
    lab_tiles t;
    int warps;
    int64_t b; /* bytes of a number of Q, K, V */
    lab_split_counts *counts;
    float *P;                     /* scores of a row, then probabilities */
    float *maxima, *sums, *shares; /* in shared memory: warps x BR, and of O warps x BR x D */
    float *m, *l;                 /* of all rows */
} block;

/* ---------------------------------------------------------------- what both do */

static void score(const block *x, int64_t row, lab_range keys, float *S) {
    const lab_problem *p = x->p;
    for (int64_t j = 0; j < keys.length; j++) {
        float sum = 0;
        for (int64_t d = 0; d < p->dim; d++)
            sum += p->q[row * p->dim + d] * p->k[(keys.begin + j) * p->dim + d];
        S[j] = p->scale * sum;
    }
}

static float maximum_of(const float *S, int64_t count, float m) {
    for (int64_t j = 0; j < count; j++) m = fmaxf(m, S[j]);
    return m;
}

/* S becomes exp(S - m); o += P V. Their sum. */
static float weigh(const block *x, lab_range keys, float m, float *S, float *o) {
    const lab_problem *p = x->p;
    float sum = 0;
    for (int64_t j = 0; j < keys.length; j++) {
        S[j] = expf(S[j] - m);
        sum += S[j];
        for (int64_t d = 0; d < p->dim; d++) o[d] += S[j] * p->v[(keys.begin + j) * p->dim + d];
    }
    return sum;
}

static void fill_shared(block *x, int64_t rows) { x->counts->filled += rows * x->p->dim * x->b; }
static void read_operand(block *x, int64_t rows) { x->counts->operands += rows * x->p->dim * x->b; }
static void exchange(block *x, int64_t numbers) { x->counts->exchange += numbers * PARTIAL; }
static void barrier(block *x) { x->counts->barriers++; }

/* Before K and V are overwritten, and when they have come. */
static void load_keys(block *x, lab_range keys) {
    barrier(x);
    fill_shared(x, 2 * keys.length);
    barrier(x);
}

/* ---------------------------------------------------------------- sliced K */

static lab_range slice_of(const block *x, lab_range keys, int warp) {
    const int64_t size = lab_parts(keys.length, x->warps);
    lab_range slice = {size * warp, 0};
    if (slice.begin < keys.length) slice = lab_part(keys.length, size, warp);
    slice.begin += keys.begin;
    return slice;
}

/* A row's parts of all warps, folded into its m, l and O as FlashAttention does. */
static void fold_row(block *x, int64_t row, int64_t r) {
    const lab_problem *p = x->p;
    float top = -INFINITY, sum = 0;
    for (int w = 0; w < x->warps; w++) {
        top = fmaxf(top, x->maxima[w * x->t.br + r]);
        sum += x->sums[w * x->t.br + r];
    }
    exchange(x, x->warps * (2 + p->dim));
    const float m = fmaxf(x->m[row], top);
    const float kept = expf(x->m[row] - m) * x->l[row], fresh = expf(top - m);
    x->m[row] = m;
    x->l[row] = kept + fresh * sum;
    for (int64_t d = 0; d < p->dim; d++) {
        float share = 0;
        for (int w = 0; w < x->warps; w++) share += x->shares[(w * x->t.br + r) * p->dim + d];
        float *o = &p->o[row * p->dim + d];
        *o = (kept * *o + fresh * share) / x->l[row];
    }
}

static void sliced_step(block *x, lab_range rows, lab_range keys) {
    const lab_problem *p = x->p;
    fill_shared(x, rows.length);
    for (int w = 0; w < x->warps; w++) { /* S of the warp's keys, and its maxima into shared memory */
        const lab_range slice = slice_of(x, keys, w);
        read_operand(x, rows.length);
        read_operand(x, slice.length);
        for (int64_t r = 0; r < rows.length; r++) {
            score(x, rows.begin + r, slice, x->P);
            x->maxima[w * x->t.br + r] = maximum_of(x->P, slice.length, -INFINITY);
        }
        exchange(x, rows.length);
    }
    barrier(x);
    for (int w = 0; w < x->warps;
         w++) { /* every warp takes the maximum of all, so that shares can be added */
        const lab_range slice = slice_of(x, keys, w);
        read_operand(x, slice.length);
        exchange(x, rows.length * x->warps);
        for (int64_t r = 0; r < rows.length; r++) {
            float top = -INFINITY, *share = x->shares + (w * x->t.br + r) * p->dim;
            for (int other = 0; other < x->warps; other++) top = fmaxf(top, x->maxima[other * x->t.br + r]);
            for (int64_t d = 0; d < p->dim; d++) share[d] = 0;
            score(x, rows.begin + r, slice, x->P); /* on a processor S is still in registers */
            x->sums[w * x->t.br + r] = weigh(x, slice, top, x->P, share);
        }
        exchange(x, rows.length * (1 + p->dim));
    }
    barrier(x);
    for (int64_t r = 0; r < rows.length; r++) fold_row(x, rows.begin + r, r);
    x->counts->steps++;
}

static void sliced_k(block *x) {
    const lab_problem *p = x->p;
    for (int64_t j = 0; j < lab_parts(p->keys, x->t.bc); j++) {
        const lab_range keys = lab_part(p->keys, x->t.bc, j);
        load_keys(x, keys);
        for (int64_t i = 0; i < lab_parts(p->rows, x->t.br); i++)
            sliced_step(x, lab_part(p->rows, x->t.br, i), keys);
    }
}

/* ---------------------------------------------------------------- split Q */

static void split_step(block *x, lab_range rows, lab_range keys) {
    const lab_problem *p = x->p;
    const int64_t size = lab_parts(x->t.br, x->warps);
    for (int w = 0; w < x->warps; w++) {
        read_operand(x, 2 * keys.length); /* all of K and V, whatever rows the warp has */
        for (int64_t r = size * w; r < size * (w + 1) && r < rows.length; r++) {
            const int64_t row = rows.begin + r;
            float *o = p->o + row * p->dim;
            score(x, row, keys, x->P);
            const float m = maximum_of(x->P, keys.length, x->m[row]), a = expf(x->m[row] - m);
            for (int64_t d = 0; d < p->dim; d++) o[d] *= a;
            x->l[row] = a * x->l[row] + weigh(x, keys, m, x->P, o);
            x->m[row] = m;
        }
    }
    x->counts->steps++;
}

static void split_q(block *x) {
    const lab_problem *p = x->p;
    for (int64_t i = 0; i < lab_parts(p->rows, x->t.br); i++) {
        const lab_range rows = lab_part(p->rows, x->t.br, i);
        fill_shared(x, rows.length); /* comes with the first K and V, and stays in registers */
        read_operand(x, rows.length);
        for (int64_t j = 0; j < lab_parts(p->keys, x->t.bc); j++) {
            const lab_range keys = lab_part(p->keys, x->t.bc, j);
            load_keys(x, keys);
            split_step(x, rows, keys);
        }
        for (int64_t n = rows.begin * p->dim; n < (rows.begin + rows.length) * p->dim; n++)
            p->o[n] /= x->l[n / p->dim];
    }
}

/* ---------------------------------------------------------------- the whole */

const char *lab_split_run(lab_split split, lab_tiles tiles, int warps, int number_bytes, lab_problem *problem,
                          lab_split_counts *counts) {
    const size_t br = (size_t)tiles.br, w = (size_t)warps, rows = (size_t)problem->rows,
                 dim = (size_t)problem->dim;
    const size_t row = (size_t)tiles.bc, parts = w * br;
    float *memory = calloc(row + parts * (2 + dim) + 2 * rows, sizeof(float));
    const lab_split_counts none = {0};
    *counts = none;
    if (memory == NULL) return "memory ran out";
    block x = {problem, tiles, warps, number_bytes, counts, .P = memory};
    x.maxima = x.P + row;
    x.sums = x.maxima + parts;
    x.shares = x.sums + parts;
    x.m = x.shares + parts * dim;
    x.l = x.m + rows;
    for (size_t r = 0; r < rows; r++) x.m[r] = -INFINITY;
    for (size_t n = 0; n < rows * dim; n++) problem->o[n] = 0;
    if (split == LAB_SLICED_K)
        sliced_k(&x);
    else
        split_q(&x);
    for (size_t r = 0; r < rows; r++) problem->lse[r] = x.m[r] + logf(x.l[r]);
    free(memory);
    return NULL;
}

lab_split_counts lab_split_closed(lab_split split, lab_tiles t, int warps, int number_bytes,
                                  const lab_problem *p) {
    const int64_t Tr = lab_parts(p->rows, t.br), Tc = lab_parts(p->keys, t.bc), W = warps;
    const int64_t Sq = p->rows, Sk = p->keys, row = p->dim * number_bytes;
    const lab_split_counts sliced = {
        .filled = (2 * Sk + Tc * Sq) * row,             /* K and V once, Q for each column of tiles */
        .operands = (W * Tc * Sq + 2 * Tr * Sk) * row,  /* Q by every warp; a warp's slice of K and of V */
        .exchange = Tc * Sq * PARTIAL * (W + W * W + W * (1 + p->dim) + W * (2 + p->dim)),
        .barriers = 2 * Tc + 2 * Tr * Tc,
        .steps = Tr * Tc,
    };
    const lab_split_counts whole = {
        .filled = (Sq + 2 * Tr * Sk) * row,
        .operands = (Sq + 2 * W * Tr * Sk) * row, /* K and V by every warp */
        .barriers = 2 * Tr * Tc,
        .steps = Tr * Tc,
    };
    return split == LAB_SLICED_K ? sliced : whole;
}

int64_t lab_split_registers(lab_split split, lab_tiles tiles, int warps, int64_t dim) {
    return (split == LAB_SLICED_K ? tiles.br : lab_parts(tiles.br, warps)) * dim;
}
