/*
 * Standard attention, backward, from P as the forward stored it: every product reads and writes whole matrices.
 * FlashAttention (2022), algorithm 3.
 *
 *     dV = P^T dO   |   dP = dO V^T   |   dS = P * (dP - rowsum(P * dP))   |   dQ = scale dS K   |   dK = scale dS^T Q
 */
#include "algorithms.h"
#include "tiles.h"

/* out = scale A^T B for A rows x keys: dV and dK. A row of tiles of A passes by one tile of out. */
static void product_tn(lab_machine *machine, float scale, const lab_array *gA, const lab_array *gB,
                       lab_array *gOut, const char *text) {
    const lab_tiles t = lab_turn_tiles(machine, gA->rows, gA->cols);
    lab_tile *out = lab_take(machine, gOut->name, t.bc, gOut->cols),
             *B = lab_take(machine, gB->name, t.br, gB->cols);
    lab_tile *A = lab_take(machine, gA->name, t.br, t.bc);
    for (int64_t j = 0; j < lab_parts(gOut->rows, t.bc); j++) {
        const lab_range keys = lab_part(gOut->rows, t.bc, j);
        lab_at(machine, -1, NULL, j, &keys);
        lab_fill(machine, out, keys.length, gOut->cols, 0);
        for (int64_t i = 0; i < lab_parts(gA->rows, t.br); i++) {
            const lab_range rows = lab_part(gA->rows, t.br, i);
            lab_at(machine, i, &rows, j, &keys);
            lab_load_block(machine, A, gA, rows, keys);
            lab_load(machine, B, gB, rows);
            lab_add_product_tn(machine, out, scale, A, B);
            lab_say(machine, LAB_STEP_GRADIENT, text);
        }
        lab_at(machine, -1, NULL, j, &keys);
        lab_store(machine, out, gOut, keys);
    }
    lab_give_back_all(machine);
}

/* dP = dO V^T */
static void probability_gradient(lab_machine *machine, const lab_array *gdO, const lab_array *gV,
                                 lab_array *gdP) {
    const lab_tiles t = machine->tiles;
    lab_tile *dO = lab_take(machine, "dO", t.br, gdO->cols), *V = lab_take(machine, "V", t.bc, gV->cols);
    lab_tile *dP = lab_take(machine, "dP", t.br, t.bc);
    for (int64_t i = 0; i < lab_parts(gdO->rows, t.br); i++) {
        const lab_range rows = lab_part(gdO->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_load(machine, dO, gdO, rows);
        for (int64_t j = 0; j < lab_parts(gV->rows, t.bc); j++) {
            const lab_range keys = lab_part(gV->rows, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, V, gV, keys);
            lab_product_nt(machine, dP, 1, dO, V);
            lab_say(machine, LAB_STEP_GRADIENT, "dP = dO V^T");
            lab_store_block(machine, dP, gdP, rows, keys);
        }
    }
    lab_give_back_all(machine);
}

/* dS = P * (dP - D), D = rowsum(P * dP). Rows that do not fit are read twice: for D, and for dS. */
static void score_gradient(lab_machine *machine, const lab_array *gP, const lab_array *gdP, lab_array *gdS) {
    const lab_strip strip = lab_choose_strip(machine, gP->rows, gP->cols, 2);
    lab_tile *P = lab_take(machine, "P", strip.rows, strip.cols);
    lab_tile *dP = lab_take(machine, "dP", strip.rows, strip.cols);
    lab_tile *D = lab_take_statistic(machine, "D", strip.rows);
    const int64_t pieces = lab_parts(gP->cols, strip.cols);
    for (int64_t i = 0; i < lab_parts(gP->rows, strip.rows); i++) {
        const lab_range rows = lab_part(gP->rows, strip.rows, i);
        lab_fill(machine, D, rows.length, 1, 0);
        for (int64_t j = 0; j < pieces; j++) {
            const lab_range keys = lab_part(gP->cols, strip.cols, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load_block(machine, P, gP, rows, keys);
            lab_load_block(machine, dP, gdP, rows, keys);
            lab_add_row_dot(machine, D, P, dP);
            lab_say(machine, LAB_STEP_GRADIENT, "D = rowsum(P * dP)");
        }
        for (int64_t j = 0; j < pieces; j++) {
            const lab_range keys = lab_part(gP->cols, strip.cols, j);
            lab_at(machine, i, &rows, j, &keys);
            if (pieces > 1) {
                lab_load_block(machine, P, gP, rows, keys);
                lab_load_block(machine, dP, gdP, rows, keys);
            }
            lab_score_gradient(machine, dP, P, D);
            lab_say(machine, LAB_STEP_GRADIENT, "dS = P * (dP - D)");
            lab_store_block(machine, dP, gdS, rows, keys);
        }
    }
    lab_give_back_all(machine);
}

/* dQ = scale dS K */
static void query_gradient(lab_machine *machine, float scale, const lab_array *gdS, const lab_array *gK,
                           lab_array *gdQ) {
    const lab_tiles t = machine->tiles;
    lab_tile *dQ = lab_take(machine, "dQ", t.br, gdQ->cols), *K = lab_take(machine, "K", t.bc, gK->cols);
    lab_tile *dS = lab_take(machine, "dS", t.br, t.bc);
    for (int64_t i = 0; i < lab_parts(gdQ->rows, t.br); i++) {
        const lab_range rows = lab_part(gdQ->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_fill(machine, dQ, rows.length, gdQ->cols, 0);
        for (int64_t j = 0; j < lab_parts(gK->rows, t.bc); j++) {
            const lab_range keys = lab_part(gK->rows, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load_block(machine, dS, gdS, rows, keys);
            lab_load(machine, K, gK, keys);
            lab_add_product(machine, dQ, scale, dS, K);
            lab_say(machine, LAB_STEP_GRADIENT, "dQ = dQ + scale dS K");
        }
        lab_at(machine, i, &rows, -1, NULL);
        lab_store(machine, dQ, gdQ, rows);
    }
    lab_give_back_all(machine);
}

void lab_standard_backward(lab_machine *machine, lab_problem *p) {
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    const lab_array *gP = lab_slow(machine, "P", p->p, p->rows, p->keys);
    const lab_array *gdO = lab_slow(machine, "dO", p->d_o, p->rows, p->dim);
    lab_array *gdP = lab_slow(machine, "dP", p->d_p, p->rows, p->keys);
    lab_array *gdS = lab_slow(machine, "dS", p->d_s, p->rows, p->keys);
    lab_array *gdQ = lab_slow(machine, "dQ", p->d_q, p->rows, p->dim);
    lab_array *gdK = lab_slow(machine, "dK", p->d_k, p->keys, p->dim);
    lab_array *gdV = lab_slow(machine, "dV", p->d_v, p->keys, p->dim);

    product_tn(machine, 1, gP, gdO, gdV, "dV = dV + P^T dO");
    probability_gradient(machine, gdO, gV, gdP);
    score_gradient(machine, gP, gdP, gdS);
    query_gradient(machine, p->scale, gdS, gK, gdQ);
    product_tn(machine, p->scale, gdS, gQ, gdK, "dK = dK + scale dS^T Q");
}
