#include "closed.h"

#include "operations.h"
#include "tiles.h"

/* The letters of the formulas. Tr, Tc: tiles of rows and of keys; b: bytes of a number; s: of a statistic. */
typedef struct letters {
    int64_t Sq, Sk, D, Tr, Tc, b, s;
    int64_t Uc; /* tiles of keys where they are outer in standard attention: dV, dK */
    int64_t pieces; /* that a row of S is worked on in by standard attention's softmax */
} letters;

static letters name(const lab_machine *machine, const lab_problem *p, int matrices) {
    const lab_strip strip = lab_choose_strip(machine, p->rows, p->keys, matrices);
    const letters x = {p->rows,
                       p->keys,
                       p->dim,
                       lab_parts(p->rows, machine->tiles.br),
                       lab_parts(p->keys, machine->tiles.bc),
                       machine->number_bytes,
                       LAB_STATISTIC_BYTES,
                       lab_parts(p->keys, lab_turn_tiles(machine, p->rows, p->keys).bc),
                       lab_parts(p->keys, strip.cols)};
    return x;
}

/* ---------------------------------------------------------------- forward */

static lab_counts standard_forward(letters x) {
    const int64_t passes = x.pieces > 1 ? 2 : 1; /* over S, by the softmax */
    const lab_counts c = {
        /* Q, K for each row of tiles  |  S  |  P, V for each row of tiles */
        .read =
            x.b * (x.Sq * x.D + x.Tr * x.Sk * x.D + passes * x.Sq * x.Sk + x.Sq * x.Sk + x.Tr * x.Sk * x.D),
        .written = x.b * (2 * x.Sq * x.Sk + x.Sq * x.D), /* S, P, O */
        .multiply_adds = 2 * x.Sq * x.Sk * x.D,
        .exponentials = passes * x.Sq * x.Sk + (passes - 1) * x.Sq * x.pieces,
        .divisions = x.Sq * x.Sk,
        .rescales = (passes - 1) * x.Sq * x.pieces,
    };
    return c;
}

static lab_counts simple_forward(letters x) {
    const lab_counts c = {
        .read = x.b * (x.Sq * x.D + 2 * x.Tr * x.Sk * x.D), /* Q once, K and V for each row of tiles */
        .written = x.b * x.Sq * x.D,
        .multiply_adds = 2 * x.Sq * x.Sk * x.D,
        .exponentials = x.Sq * x.Sk,
        .divisions = x.Sq * x.D,
    };
    return c;
}

static lab_counts flash1_forward(letters x) {
    const lab_counts c = {
        /* K and V once; Q, O, m, l for each column of tiles */
        .read = x.b * (2 * x.Sk * x.D + 2 * x.Tc * x.Sq * x.D) + 2 * x.s * x.Tc * x.Sq,
        .written =
            (1 + x.Tc) * (x.b * x.Sq * x.D + 2 * x.s * x.Sq), /* O, m, l: their beginning, and each time */
        .multiply_adds = 2 * x.Sq * x.Sk * x.D,
        .exponentials = x.Sq * x.Sk + 2 * x.Tc * x.Sq,
        .divisions = x.Tc * x.Sq * x.D,
        .rescales = x.Tc * x.Sq * (2 + 2 * x.D), /* l, l~, O, P~ V */
    };
    return c;
}

static lab_counts flash2_forward(letters x) {
    lab_counts c = simple_forward(x);
    c.written += x.s * x.Sq; /* LSE */
    c.exponentials += x.Tc * x.Sq;
    c.rescales = x.Tc * x.Sq * (1 + x.D); /* l, O */
    c.logarithms = x.Sq;
    return c;
}

static lab_counts lazy_forward(letters x, int64_t moves) {
    lab_counts c = flash2_forward(x);
    c.exponentials = x.Sq * x.Sk + moves;
    c.rescales = moves * (1 + x.D);
    return c;
}

/* ---------------------------------------------------------------- backward */

static lab_counts standard_backward(letters x) {
    const int64_t passes = x.pieces > 1 ? 2 : 1; /* over P and dP */
    const lab_counts c = {
        /* P; P and dP; dS twice  |  dO and Q for each column, K, V for each row of tiles; dO once */
        .read = x.b *
                ((3 + 2 * passes) * x.Sq * x.Sk + 2 * x.Uc * x.Sq * x.D + 2 * x.Tr * x.Sk * x.D + x.Sq * x.D),
        .written = x.b * (2 * x.Sq * x.Sk + x.Sq * x.D + 2 * x.Sk * x.D), /* dP, dS; dQ; dK, dV */
        .multiply_adds = 4 * x.Sq * x.Sk * x.D + x.Sq * x.Sk,
    };
    return c;
}

static lab_counts flash1_backward(letters x) {
    const lab_counts c = {
        /* K, V once; Q, O, dO, dQ, m, l for each column of tiles */
        .read = x.b * (2 * x.Sk * x.D + 4 * x.Tc * x.Sq * x.D) + 2 * x.s * x.Tc * x.Sq,
        .written = x.b * ((1 + x.Tc) * x.Sq * x.D + 2 * x.Sk * x.D), /* dQ; dK, dV */
        .multiply_adds = 5 * x.Sq * x.Sk * x.D + x.Tc * x.Sq * x.D,
        .exponentials = x.Sq * x.Sk,
        .divisions = x.Sq * x.Sk,
    };
    return c;
}

static lab_counts flash2_backward(letters x) {
    const lab_counts c = {
        /* O, dO for D  |  K, V once; Q, dO, dQ, LSE, D for each column of tiles */
        .read = x.b * (2 * x.Sq * x.D + 2 * x.Sk * x.D + 3 * x.Tc * x.Sq * x.D) + 2 * x.s * x.Tc * x.Sq,
        .written = x.s * x.Sq + x.b * ((1 + x.Tc) * x.Sq * x.D + 2 * x.Sk * x.D), /* D; dQ; dK, dV */
        .multiply_adds = 5 * x.Sq * x.Sk * x.D + x.Sq * x.D,
        .exponentials = x.Sq * x.Sk,
    };
    return c;
}

lab_counts lab_closed(const lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                      const lab_problem *problem, int64_t moves) {
    const letters x = name(machine, problem, direction == LAB_FORWARD ? 1 : 2);
    const lab_counts none = {0};
    switch (algorithm) {
    case LAB_STANDARD: return direction == LAB_FORWARD ? standard_forward(x) : standard_backward(x);
    case LAB_SIMPLE: return direction == LAB_FORWARD ? simple_forward(x) : none;
    case LAB_FLASH1: return direction == LAB_FORWARD ? flash1_forward(x) : flash1_backward(x);
    case LAB_FLASH2: return direction == LAB_FORWARD ? flash2_forward(x) : flash2_backward(x);
    case LAB_LAZY: return direction == LAB_FORWARD ? lazy_forward(x, moves) : flash2_backward(x);
    case LAB_ALGORITHMS: break;
    }
    return none;
}

/* ---------------------------------------------------------------- fast memory */

int64_t lab_closed_fast_bytes(const lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                              const lab_problem *p) {
    const lab_held held = lab_what_is_held(algorithm, direction);
    const int64_t tiles = lab_held_bytes(&held, machine->tiles, p->dim, machine->number_bytes);
    if (algorithm != LAB_STANDARD) return tiles;
    /* m and l beside whole rows of S, m' and a too beside pieces; D beside P and dP */
    const int matrices = direction == LAB_FORWARD ? 1 : 2;
    const lab_strip strip = lab_choose_strip(machine, p->rows, p->keys, matrices);
    const int statistics = direction == LAB_BACKWARD ? 1 : strip.cols == p->keys ? 2 : 4;
    const int64_t strips =
        strip.rows * (matrices * strip.cols * machine->number_bytes + statistics * LAB_STATISTIC_BYTES);
    return tiles > strips ? tiles : strips;
}

/* ---------------------------------------------------------------- softmax */

lab_counts lab_closed_softmax(const lab_machine *machine, lab_softmax_form form, int64_t rows, int64_t cols) {
    const int64_t b = machine->number_bytes, s = LAB_STATISTIC_BYTES, n = rows * cols;
    const int64_t t = rows * lab_softmax_tiles(machine, form, cols); /* tiles in all */
    const lab_counts counts[LAB_SOFTMAX_FORMS] = {
        [LAB_SOFTMAX_WHOLE] = {.read = b * n, .written = b * n, .exponentials = n, .divisions = n},
        [LAB_SOFTMAX_THREE_PASSES] = {.read = 3 * b * n,
                                      .written = b * n,
                                      .exponentials = 2 * n,
                                      .divisions = n},
        [LAB_SOFTMAX_TWO_PASSES] =
            {.read = 2 * b * n, .written = b * n, .exponentials = 2 * n + t, .divisions = n, .rescales = t},
        [LAB_SOFTMAX_STREAMING] = {.read = b * n + s * t,
                                   .written = b * n + 2 * s * t,
                                   .exponentials = n + 2 * t,
                                   .divisions = t,
                                   .rescales = t},
    };
    return counts[form];
}
