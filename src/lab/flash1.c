/*
 * FlashAttention, forward. Dao, Fu, Ermon, Rudra, Re: FlashAttention: Fast and Memory-Efficient Exact Attention with
 * IO-Awareness (2022), algorithm 1. A tile of keys stays in fast memory while all queries pass by, so O, m and l of
 * every query come from slow memory and go back for each tile of keys, O divided each time.
 *
 *     m' = max(m, m~);  l' = e^(m - m') l + e^(m~ - m') l~;  O = (l e^(m - m') O + e^(m~ - m') P~ V) / l'
 *
 * with m~, P~, l~ of this tile of keys alone.
 */
#include "algorithms.h"

void lab_flash1_forward(lab_machine *machine, lab_problem *p) {
    const lab_tiles t = machine->tiles;
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    lab_array *gO = lab_slow(machine, "O", p->o, p->rows, p->dim);
    lab_array *gm = lab_slow_statistic(machine, "m", p->m, p->rows);
    lab_array *gl = lab_slow_statistic(machine, "l", p->l, p->rows);

    lab_tile *K = lab_take(machine, "K", t.bc, p->dim), *V = lab_take(machine, "V", t.bc, p->dim);
    lab_tile *Q = lab_take(machine, "Q", t.br, p->dim), *O = lab_take(machine, "O", t.br, p->dim);
    lab_tile *PV = lab_take(machine, "P V", t.br, p->dim);
    lab_tile *S = lab_take(machine, "S", t.br, t.bc);
    lab_tile *m = lab_take_statistic(machine, "m", t.br), *l = lab_take_statistic(machine, "l", t.br);
    lab_tile *m_here = lab_take_statistic(machine, "m~", t.br),
             *l_here = lab_take_statistic(machine, "l~", t.br);
    lab_tile *m_new = lab_take_statistic(machine, "m'", t.br);
    lab_tile *a = lab_take_statistic(machine, "a", t.br), *b = lab_take_statistic(machine, "b", t.br);

    for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
        const lab_range rows = lab_part(p->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_fill(machine, O, rows.length, p->dim, 0);
        lab_fill(machine, l, rows.length, 1, 0);
        lab_fill(machine, m, rows.length, 1, -INFINITY);
        lab_say(machine, LAB_STEP_CLEAR, "O = 0, l = 0, m = -inf");
        lab_store(machine, O, gO, rows);
        lab_store(machine, m, gm, rows);
        lab_store(machine, l, gl, rows);
    }
    for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
        const lab_range keys = lab_part(p->keys, t.bc, j);
        lab_at(machine, -1, NULL, j, &keys);
        lab_load(machine, K, gK, keys);
        lab_load(machine, V, gV, keys);

        for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
            const lab_range rows = lab_part(p->rows, t.br, i);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, Q, gQ, rows);
            lab_load(machine, O, gO, rows);
            lab_load(machine, m, gm, rows);
            lab_load(machine, l, gl, rows);

            lab_product_nt(machine, S, p->scale, Q, K);
            lab_say(machine, LAB_STEP_SCORES, "S = scale Q K^T");

            lab_fill(machine, m_here, rows.length, 1, -INFINITY);
            lab_row_maximum(machine, m_here, S);
            lab_copy(machine, m_new, m);
            lab_row_maximum(machine, m_new, m_here);
            lab_say(machine, LAB_STEP_MAXIMUM, "m~ = rowmax(S), m' = max(m, m~)");

            lab_exponential(machine, S, m_here);
            lab_say(machine, LAB_STEP_PROBABILITIES, "P~ = exp(S - m~)");

            lab_fill(machine, l_here, rows.length, 1, 0);
            lab_add_row_sum(machine, l_here, S);
            lab_exp_difference(machine, a, m, m_new);
            lab_exp_difference(machine, b, m_here, m_new);
            lab_rescale(machine, l, a); /* l is a l from here on */
            lab_rescale(machine, l_here, b);
            lab_say(machine, LAB_STEP_SUM, "l~ = rowsum(P~), a = exp(m - m'), b = exp(m~ - m')");

            lab_rescale(machine, O, l);
            lab_say(machine, LAB_STEP_RESCALE, "O = l a O");

            lab_fill(machine, PV, rows.length, p->dim, 0);
            lab_add_product(machine, PV, 1, S, V);
            lab_rescale(machine, PV, b);
            lab_add(machine, O, PV);
            lab_say(machine, LAB_STEP_ACCUMULATE, "O = O + b P~ V");

            lab_add(machine, l, l_here);
            lab_divide(machine, O, l);
            lab_copy(machine, m, m_new);
            lab_say(machine, LAB_STEP_FINISH, "l = a l + b l~, O = O / l, m = m'");

            lab_store(machine, O, gO, rows);
            lab_store(machine, m, gm, rows);
            lab_store(machine, l, gl, rows);
        }
    }
}
