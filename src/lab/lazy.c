/*
 * FlashAttention-2 with lazy rescaling. m is a reference and need not be the maximum: any m gives the same O / l. So it
 * moves only where a score exceeds it by LAB_LAZY_LIMIT, and until then P may be as large as 256. l and O of a row
 * are rescaled only when its reference moves, which is mostly once: at the first tile of keys.
 */
#include "algorithms.h"

void lab_lazy_forward(lab_machine *machine, lab_problem *p) {
    const lab_tiles t = machine->tiles;
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    lab_array *gO = lab_slow(machine, "O", p->o, p->rows, p->dim);
    lab_array *gLSE = lab_slow_statistic(machine, "LSE", p->lse, p->rows);

    lab_tile *Q = lab_take(machine, "Q", t.br, p->dim), *O = lab_take(machine, "O", t.br, p->dim);
    lab_tile *K = lab_take(machine, "K", t.bc, p->dim), *V = lab_take(machine, "V", t.bc, p->dim);
    lab_tile *S = lab_take(machine, "S", t.br, t.bc);
    lab_tile *m = lab_take_statistic(machine, "m", t.br), *l = lab_take_statistic(machine, "l", t.br);
    lab_tile *m_new = lab_take_statistic(machine, "m'", t.br);
    lab_tile *LSE = lab_take_statistic(machine, "LSE", t.br);

    for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
        const lab_range rows = lab_part(p->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_load(machine, Q, gQ, rows);
        lab_fill(machine, O, rows.length, p->dim, 0);
        lab_fill(machine, l, rows.length, 1, 0);
        lab_fill(machine, m, rows.length, 1, -INFINITY);
        lab_say(machine, LAB_STEP_CLEAR, "O = 0, l = 0, m = -inf");

        for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
            const lab_range keys = lab_part(p->keys, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, K, gK, keys);
            lab_load(machine, V, gV, keys);

            lab_product_nt(machine, S, p->scale, Q, K);
            lab_say(machine, LAB_STEP_SCORES, "S = scale Q K^T");

            lab_copy(machine, m_new, m);
            lab_row_maximum(machine, m_new, S);
            lab_hold_back(machine, m_new, m, LAB_LAZY_LIMIT);
            lab_say(machine, LAB_STEP_MAXIMUM, "m' = rowmax(S) where that is above m + limit, else m");

            lab_exponential(machine, S, m_new);
            lab_say(machine, LAB_STEP_PROBABILITIES, "P = exp(S - m')");

            lab_move(machine, l, O, m, m_new);
            lab_say(machine, LAB_STEP_RESCALE, "where m moved: a = exp(m - m'), l = a l, O = a O, m = m'");

            lab_add_row_sum(machine, l, S);
            lab_say(machine, LAB_STEP_SUM, "l = l + rowsum(P)");

            lab_add_product(machine, O, 1, S, V);
            lab_say(machine, LAB_STEP_ACCUMULATE, "O = O + P V");
        }
        lab_at(machine, i, &rows, -1, NULL);
        lab_divide(machine, O, l);
        lab_log_sum(machine, LSE, m, l);
        lab_say(machine, LAB_STEP_FINISH, "O = O / l, LSE = m + log(l)");
        lab_store(machine, O, gO, rows);
        lab_store(machine, LSE, gLSE, rows);
    }
}
