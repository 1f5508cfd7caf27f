/*
 * FlashAttention, backward: S and P are computed again from Q, K and the statistics m, l. FlashAttention (2022),
 * algorithm 4. dK and dV of a tile of keys stay in fast memory; dQ comes and goes.
 *
 *     P = exp(S - m) / l;  dV += P^T dO;  dP = dO V^T;  D = rowsum(dO * O);  dS = P * (dP - D)
 *     dQ += scale dS K;  dK += scale dS^T Q
 */
#include "algorithms.h"

void lab_flash1_backward(lab_machine *machine, lab_problem *p) {
    const lab_tiles t = machine->tiles;
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    const lab_array *gO = lab_slow(machine, "O", p->o, p->rows, p->dim);
    const lab_array *gdO = lab_slow(machine, "dO", p->d_o, p->rows, p->dim);
    const lab_array *gm = lab_slow_statistic(machine, "m", p->m, p->rows);
    const lab_array *gl = lab_slow_statistic(machine, "l", p->l, p->rows);
    lab_array *gdQ = lab_slow(machine, "dQ", p->d_q, p->rows, p->dim);
    lab_array *gdK = lab_slow(machine, "dK", p->d_k, p->keys, p->dim);
    lab_array *gdV = lab_slow(machine, "dV", p->d_v, p->keys, p->dim);

    lab_tile *K = lab_take(machine, "K", t.bc, p->dim), *V = lab_take(machine, "V", t.bc, p->dim);
    lab_tile *dK = lab_take(machine, "dK", t.bc, p->dim), *dV = lab_take(machine, "dV", t.bc, p->dim);
    lab_tile *Q = lab_take(machine, "Q", t.br, p->dim), *O = lab_take(machine, "O", t.br, p->dim);
    lab_tile *dO = lab_take(machine, "dO", t.br, p->dim), *dQ = lab_take(machine, "dQ", t.br, p->dim);
    lab_tile *S = lab_take(machine, "S", t.br, t.bc), *dS = lab_take(machine, "dP", t.br, t.bc);
    lab_tile *m = lab_take_statistic(machine, "m", t.br), *l = lab_take_statistic(machine, "l", t.br);
    lab_tile *D = lab_take_statistic(machine, "D", t.br);

    lab_clear_gradient(machine, dQ, gdQ, t.br);
    for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
        const lab_range keys = lab_part(p->keys, t.bc, j);
        lab_at(machine, -1, NULL, j, &keys);
        lab_load(machine, K, gK, keys);
        lab_load(machine, V, gV, keys);
        lab_fill(machine, dK, keys.length, p->dim, 0);
        lab_fill(machine, dV, keys.length, p->dim, 0);
        lab_say(machine, LAB_STEP_CLEAR, "dK = 0, dV = 0");

        for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
            const lab_range rows = lab_part(p->rows, t.br, i);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, Q, gQ, rows);
            lab_load(machine, O, gO, rows);
            lab_load(machine, dO, gdO, rows);
            lab_load(machine, dQ, gdQ, rows);
            lab_load(machine, m, gm, rows);
            lab_load(machine, l, gl, rows);

            lab_product_nt(machine, S, p->scale, Q, K);
            lab_say(machine, LAB_STEP_SCORES, "S = scale Q K^T");
            lab_exponential(machine, S, m);
            lab_divide(machine, S, l);
            lab_say(machine, LAB_STEP_PROBABILITIES, "P = exp(S - m) / l");
            lab_add_product_tn(machine, dV, 1, S, dO);
            lab_say(machine, LAB_STEP_GRADIENT, "dV = dV + P^T dO");
            lab_product_nt(machine, dS, 1, dO, V);
            lab_say(machine, LAB_STEP_GRADIENT, "dP = dO V^T");
            lab_row_dot(machine, D, dO, O);
            lab_score_gradient(machine, dS, S, D);
            lab_say(machine, LAB_STEP_GRADIENT, "D = rowsum(dO * O), dS = P * (dP - D)");
            lab_add_product(machine, dQ, p->scale, dS, K);
            lab_say(machine, LAB_STEP_GRADIENT, "dQ = dQ + scale dS K");
            lab_store(machine, dQ, gdQ, rows);
            lab_add_product_tn(machine, dK, p->scale, dS, Q);
            lab_say(machine, LAB_STEP_GRADIENT, "dK = dK + scale dS^T Q");
        }
        lab_at(machine, -1, NULL, j, &keys);
        lab_store(machine, dK, gdK, keys);
        lab_store(machine, dV, gdV, keys);
    }
}
