/*
 * The simple exposition: FlashAttention-2 with no maximum. O and the running denominator l are plain sums, and
 * nothing has ever to be rescaled; but exp(S) overflows float32 from S = 89 on.
 */
#include "algorithms.h"

void lab_simple_forward(lab_machine *machine, lab_problem *p) {
    const lab_tiles t = machine->tiles;
    const lab_array *gQ = lab_slow(machine, "Q", p->q, p->rows, p->dim);
    const lab_array *gK = lab_slow(machine, "K", p->k, p->keys, p->dim);
    const lab_array *gV = lab_slow(machine, "V", p->v, p->keys, p->dim);
    lab_array *gO = lab_slow(machine, "O", p->o, p->rows, p->dim);

    lab_tile *Q = lab_take(machine, "Q", t.br, p->dim), *O = lab_take(machine, "O", t.br, p->dim);
    lab_tile *K = lab_take(machine, "K", t.bc, p->dim), *V = lab_take(machine, "V", t.bc, p->dim);
    lab_tile *S = lab_take(machine, "S", t.br, t.bc);
    lab_tile *l = lab_take_statistic(machine, "l", t.br);

    for (int64_t i = 0; i < lab_parts(p->rows, t.br); i++) {
        const lab_range rows = lab_part(p->rows, t.br, i);
        lab_at(machine, i, &rows, -1, NULL);
        lab_load(machine, Q, gQ, rows);
        lab_fill(machine, O, rows.length, p->dim, 0);
        lab_fill(machine, l, rows.length, 1, 0);
        lab_say(machine, LAB_STEP_CLEAR, "O = 0, l = 0");

        for (int64_t j = 0; j < lab_parts(p->keys, t.bc); j++) {
            const lab_range keys = lab_part(p->keys, t.bc, j);
            lab_at(machine, i, &rows, j, &keys);
            lab_load(machine, K, gK, keys);
            lab_load(machine, V, gV, keys);

            lab_product_nt(machine, S, p->scale, Q, K);
            lab_say(machine, LAB_STEP_SCORES, "S = scale Q K^T");

            lab_exponential(machine, S, NULL);
            lab_say(machine, LAB_STEP_PROBABILITIES, "P = exp(S)");

            lab_add_row_sum(machine, l, S);
            lab_say(machine, LAB_STEP_SUM, "l = l + rowsum(P)");

            lab_add_product(machine, O, 1, S, V);
            lab_say(machine, LAB_STEP_ACCUMULATE, "O = O + P V");
        }
        lab_at(machine, i, &rows, -1, NULL);
        lab_divide(machine, O, l);
        lab_say(machine, LAB_STEP_FINISH, "O = O / l");
        lab_store(machine, O, gO, rows);
    }
}
