/* Arithmetic on tiles: plain loops behind their counts. */
#include "operations.h"

#include <assert.h>
#include <math.h>

/* ---------------------------------------------------------------- products */

/* C = scale A B^T */
void lab_product_nt(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a, const lab_tile *b) {
    const int64_t rows = a->rows, cols = b->rows, depth = a->cols;
    assert(b->cols == depth && rows * cols <= c->capacity);
    c->name = c->first_name;
    c->rows = rows;
    c->cols = cols;
    machine->counts.multiply_adds += rows * cols * depth;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < cols; n++) {
            float sum = 0;
            for (int64_t k = 0; k < depth; k++) sum += a->data[r * depth + k] * b->data[n * depth + k];
            c->data[r * cols + n] = scale * sum;
        }
}

/* C += scale A B */
void lab_add_product(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a, const lab_tile *b) {
    const int64_t rows = a->rows, cols = b->cols, depth = a->cols;
    assert(b->rows == depth && c->rows == rows && c->cols == cols);
    machine->counts.multiply_adds += rows * cols * depth;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < depth; k++) {
            const float factor = scale * a->data[r * depth + k];
            for (int64_t n = 0; n < cols; n++) c->data[r * cols + n] += factor * b->data[k * cols + n];
        }
}

/* C += scale A^T B */
void lab_add_product_tn(lab_machine *machine, lab_tile *c, float scale, const lab_tile *a,
                        const lab_tile *b) {
    const int64_t rows = a->cols, cols = b->cols, depth = a->rows;
    assert(b->rows == depth && c->rows == rows && c->cols == cols);
    machine->counts.multiply_adds += rows * cols * depth;
    if (machine->loops_only) return;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t r = 0; r < rows; r++) {
            const float factor = scale * a->data[k * rows + r];
            for (int64_t n = 0; n < cols; n++) c->data[r * cols + n] += factor * b->data[k * cols + n];
        }
}

/* ---------------------------------------------------------------- elements */

void lab_fill(lab_machine *machine, lab_tile *x, int64_t rows, int64_t cols, float value) {
    assert(rows * cols <= x->capacity);
    x->name = x->first_name;
    x->rows = rows;
    x->cols = cols;
    if (machine->loops_only) return;
    for (int64_t i = 0; i < rows * cols; i++) x->data[i] = value;
}

void lab_copy(lab_machine *machine, lab_tile *to, const lab_tile *from) {
    assert(from->rows * from->cols <= to->capacity);
    to->rows = from->rows;
    to->cols = from->cols;
    if (machine->loops_only) return;
    for (int64_t i = 0; i < from->rows * from->cols; i++) to->data[i] = from->data[i];
}

void lab_add(lab_machine *machine, lab_tile *to, const lab_tile *x) {
    assert(to->rows == x->rows && to->cols == x->cols);
    if (machine->loops_only) return;
    for (int64_t i = 0; i < x->rows * x->cols; i++) to->data[i] += x->data[i];
}

void lab_row_maximum(lab_machine *machine, lab_tile *m, const lab_tile *x) {
    assert(m->rows == x->rows);
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t n = 0; n < x->cols; n++) {
            const float value = x->data[r * x->cols + n];
            if (!(value <= m->data[r]) && !isnan(m->data[r])) m->data[r] = value; /* NaN is kept */
        }
}

void lab_add_row_sum(lab_machine *machine, lab_tile *l, const lab_tile *x) {
    assert(l->rows == x->rows);
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++) {
        float sum = 0;
        for (int64_t n = 0; n < x->cols; n++) sum += x->data[r * x->cols + n];
        l->data[r] += sum;
    }
}

void lab_exponential(lab_machine *machine, lab_tile *x, const lab_tile *m) {
    assert(m == NULL || m->rows == x->rows);
    x->name = "P";
    machine->counts.exponentials += x->rows * x->cols;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t n = 0; n < x->cols; n++) {
            float *value = &x->data[r * x->cols + n];
            *value = expf(m != NULL ? *value - m->data[r] : *value);
        }
}

/* a = exp(m - reference): what a sum that was taken against m is worth against reference */
void lab_exp_difference(lab_machine *machine, lab_tile *a, const lab_tile *m, const lab_tile *reference) {
    assert(m->rows == reference->rows && m->rows <= a->capacity);
    a->rows = m->rows;
    a->cols = 1;
    machine->counts.exponentials += m->rows;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < m->rows; r++) a->data[r] = expf(m->data[r] - reference->data[r]);
}

void lab_rescale(lab_machine *machine, lab_tile *x, const lab_tile *a) {
    assert(x->rows == a->rows);
    machine->counts.rescales += x->rows * x->cols;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t n = 0; n < x->cols; n++) x->data[r * x->cols + n] *= a->data[r];
}

void lab_divide(lab_machine *machine, lab_tile *x, const lab_tile *l) {
    assert(x->rows == l->rows);
    machine->counts.divisions += x->rows * x->cols;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t n = 0; n < x->cols; n++) x->data[r * x->cols + n] /= l->data[r];
}

void lab_log_sum(lab_machine *machine, lab_tile *lse, const lab_tile *m, const lab_tile *l) {
    assert(m->rows == l->rows && m->rows <= lse->capacity);
    lse->rows = m->rows;
    lse->cols = 1;
    machine->counts.logarithms += m->rows;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < m->rows; r++) lse->data[r] = m->data[r] + logf(l->data[r]);
}

/* ---------------------------------------------------------------- the backward */

void lab_add_row_dot(lab_machine *machine, lab_tile *d, const lab_tile *x, const lab_tile *y) {
    assert(x->rows == y->rows && x->cols == y->cols && d->rows == x->rows);
    machine->counts.multiply_adds += x->rows * x->cols;
    if (machine->loops_only) return;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t n = 0; n < x->cols; n++)
            d->data[r] += x->data[r * x->cols + n] * y->data[r * x->cols + n];
}

void lab_row_dot(lab_machine *machine, lab_tile *d, const lab_tile *x, const lab_tile *y) {
    lab_fill(machine, d, x->rows, 1, 0);
    lab_add_row_dot(machine, d, x, y);
}

/* dP becomes dS = P * (dP - D). */
void lab_score_gradient(lab_machine *machine, lab_tile *dp, const lab_tile *p, const lab_tile *d) {
    assert(dp->rows == p->rows && dp->cols == p->cols && d->rows == p->rows);
    dp->name = "dS";
    if (machine->loops_only) return;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t n = 0; n < p->cols; n++) {
            float *value = &dp->data[r * p->cols + n];
            *value = p->data[r * p->cols + n] * (*value - d->data[r]);
        }
}

/* Zeros into a whole array, tile by tile. */
void lab_clear_gradient(lab_machine *machine, lab_tile *tile, lab_array *array, int64_t rows) {
    for (int64_t i = 0; i < lab_parts(array->rows, rows); i++) {
        const lab_range range = lab_part(array->rows, rows, i);
        lab_at(machine, i, &range, -1, NULL);
        lab_fill(machine, tile, range.length, array->cols, 0);
        lab_store(machine, tile, array, range);
    }
}

/* ---------------------------------------------------------------- a reference that seldom moves */

/* m_new, where it exceeds m by no more than the limit, is put back to m. */
void lab_hold_back(lab_machine *machine, lab_tile *m_new, const lab_tile *m, float limit) {
    assert(m_new->rows == m->rows);
    if (machine->loops_only) return;
    for (int64_t r = 0; r < m->rows; r++)
        if (m_new->data[r] - m->data[r] <= limit) m_new->data[r] = m->data[r];
}

/* The rows that moved. Loops alone see no numbers: they move at the first tile of keys only, the least there can be. */
static int has_moved(const lab_machine *machine, const lab_tile *m, const lab_tile *m_new, int64_t row) {
    return machine->loops_only ? machine->event.j == 0 : m->data[row] != m_new->data[row];
}

void lab_move(lab_machine *machine, lab_tile *l, lab_tile *O, lab_tile *m, const lab_tile *m_new) {
    for (int64_t r = 0; r < m->rows; r++) {
        if (!has_moved(machine, m, m_new, r)) continue;
        machine->counts.exponentials++;
        machine->counts.rescales += 1 + O->cols;
        if (machine->loops_only) continue;
        const float a = expf(m->data[r] - m_new->data[r]);
        l->data[r] *= a;
        for (int64_t n = 0; n < O->cols; n++) O->data[r * O->cols + n] *= a;
        m->data[r] = m_new->data[r];
    }
}
