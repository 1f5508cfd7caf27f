/*
 * Standard attention, forward: three passes, each of which reads what the one before it wrote to slow memory.
 * FlashAttention (2022), algorithm 0.
 *
 *     S = scale Q K^T   |   P = softmax(S), row by row   |   O = P V
 */
#include "algorithms.h"
#include "softmax.h"
#include "tiles.h"

static void scores(lab_machine *machine, const lab_problem *p, const lab_array *gQ, const lab_array *gK,
                   lab_array *gS) {
    const lab_tiles t = machine->tiles;
    lab_tile *Q = lab_take(machine, "Q", t.br, p->dim), *K = lab_take(machine, "K", t.bc, p->dim);
    lab_tile *S = lab_take(machine, "S", t.br, t.bc);
    for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
        const lab_range rows = lab_part(p->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_load(machine, Q, gQ, rows);
        for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
            const lab_range keys = lab_part(p->keys, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, K, gK, keys);
            lab_product_nt(machine, S, p->scale, Q, K);
            lab_say(machine, LAB_STEP_SCORES, "S = scale Q K^T");
            lab_store_block(machine, S, gS, rows, keys);
        }
    }
    lab_give_back_all(machine);
}

static void product(lab_machine *machine, const lab_problem *p, const lab_array *gP, const lab_array *gV,
                    lab_array *gO) {
    const lab_tiles t = machine->tiles;
    lab_tile *O = lab_take(machine, "O", t.br, p->dim), *V = lab_take(machine, "V", t.bc, p->dim);
    lab_tile *P = lab_take(machine, "P", t.br, t.bc);
    for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
        const lab_range rows = lab_part(p->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_fill(machine, O, rows.length, p->dim, 0);
        lab_say(machine, LAB_STEP_CLEAR, "O = 0");
        for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
            const lab_range keys = lab_part(p->keys, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load_block(machine, P, gP, rows, keys);
            lab_load(machine, V, gV, keys);
            lab_add_product(machine, O, 1, P, V);
            lab_say(machine, LAB_STEP_ACCUMULATE, "O = O + P V");
        }
        lab_at(machine, i, &rows, -1, NULL);
        lab_store(machine, O, gO, rows);
    }
    lab_give_back_all(machine);
}

void lab_standard_forward(lab_machine *machine, lab_problem *p) {
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    lab_array *gS = lab_slow(machine, "S", p->s, p->rows, p->keys);
    lab_array *gP = lab_slow(machine, "P", p->p, p->rows, p->keys);
    lab_array *gO = lab_slow(machine, "O", p->o, p->rows, p->dim);

    scores(machine, p, gQ, gK, gS);
    const lab_strip strip = lab_choose_strip(machine, p->rows, p->keys, 1);
    if (strip.cols == p->keys)
        lab_softmax_whole_rows(machine, gS, gP, strip.rows);
    else
        lab_softmax_two_passes(machine, gS, gP, strip.cols);
    product(machine, p, gP, gV, gO);
}
