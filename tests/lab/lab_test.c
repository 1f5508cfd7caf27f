/*
 * The lab: what its algorithms count is what the closed formulas say, exactly; their results are the oracle's; the
 * traffic of FlashAttention falls as N^2 D^2 / M; and the observer sees all of it.
 */
#include "lab/closed.h"
#include "lab/lab.h"
#include "lab/operations.h"
#include "lab/softmax.h"
#include "lab/warp_split.h"
#include "reference/random.h"
#include "reference/reference.h"
#include "reference/reference_backward.h"
#include "reference/tolerance.h"
#include "test.h"

#include <math.h>

enum { PROBLEMS = 600 };

static void say_counts(const char *what, const lab_counts *c) {
    fprintf(stderr,
            "  %s: read %lld written %lld multiply-adds %lld exponentials %lld logarithms %lld divisions "
            "%lld rescales %lld\n",
            what, (long long)c->read, (long long)c->written, (long long)c->multiply_adds,
            (long long)c->exponentials, (long long)c->logarithms, (long long)c->divisions,
            (long long)c->rescales);
}

static int same_counts(const lab_counts *a, const lab_counts *b) {
    const int same = a->read == b->read && a->written == b->written && a->multiply_adds == b->multiply_adds &&
                     a->exponentials == b->exponentials && a->logarithms == b->logarithms &&
                     a->divisions == b->divisions && a->rescales == b->rescales;
    if (!same) say_counts("one", a), say_counts("other", b);
    return same;
}

/* ---------------------------------------------------------------- results */

static void poison(float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = NAN;
}

typedef struct oracle {
    double *o, *lse, *o_naive, *lse_naive, *o_floor, *lse_floor;
    attni_reference_gradients gradients;
} oracle;

static oracle ask_oracle(const lab_problem *p) {
    attn_problem problem = ATTN_PROBLEM_INIT;
    attn_tensors tensors = ATTN_TENSORS_INIT;
    const size_t o = (size_t)(p->rows * p->dim) * sizeof(double), lse = (size_t)p->rows * sizeof(double);
    oracle truth = {.o = test_memory(o),
                    .lse = test_memory(lse),
                    .o_naive = test_memory(o),
                    .lse_naive = test_memory(lse),
                    .o_floor = test_memory(o),
                    .lse_floor = test_memory(lse)};
    const attni_reference_result result = {.o = truth.o,
                                           .lse = truth.lse,
                                           .o_naive = truth.o_naive,
                                           .lse_naive = truth.lse_naive,
                                           .o_floor = truth.o_floor,
                                           .lse_floor = truth.lse_floor};
    problem.batch = problem.heads_q = problem.heads_kv = 1;
    problem.seqlen_q = p->rows;
    problem.seqlen_k = p->keys;
    problem.dim_qk = problem.dim_v = p->dim;
    problem.dtype_q = problem.dtype_kv = problem.dtype_o = ATTN_F32;
    problem.needs_backward = 1;
    tensors.q = p->q;
    tensors.k = p->k;
    tensors.v = p->v;
    tensors.dout = p->d_o;
    tensors.seqlen_q = p->rows;
    tensors.seqlen_k = p->keys;
    tensors.scale = p->scale;
    NEED(attni_reference_forward(&problem, &tensors, &result) == 0);
    NEED(attni_reference_backward(&problem, &tensors, &truth.gradients) == 0);
    return truth;
}

static void free_oracle(oracle *truth) {
    free(truth->o), free(truth->lse), free(truth->o_naive), free(truth->lse_naive), free(truth->o_floor);
    free(truth->lse_floor);
    attni_reference_gradients_free(&truth->gradients);
}

static attni_tolerance_verdict judge_arrays(const float *got, attni_tolerance_arrays arrays) {
    const int64_t count = arrays.rows * arrays.dim;
    double *out = test_memory((size_t)count * sizeof(double));
    for (int64_t i = 0; i < count; i++) out[i] = got[i];
    arrays.out = out;
    arrays.dtype = ATTN_F32;
    const attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
    free(out);
    return verdict;
}

static attni_tolerance_verdict judge_o(const lab_problem *p, const oracle *truth) {
    const attni_tolerance_arrays arrays = {
        .rows = p->rows, .dim = p->dim, .ref = truth->o, .naive = truth->o_naive, .floor = truth->o_floor};
    return judge_arrays(p->o, arrays);
}

static attni_tolerance_verdict judge_lse(const lab_problem *p, const oracle *truth) {
    const attni_tolerance_arrays arrays = {.rows = p->rows,
                                           .dim = 1,
                                           .ref = truth->lse,
                                           .naive = truth->lse_naive,
                                           .floor = truth->lse_floor,
                                           .is_lse = 1};
    return judge_arrays(p->lse, arrays);
}

static attni_tolerance_verdict judge_gradient(const float *got, int64_t rows, int64_t dim,
                                              const oracle *truth, attni_reference_gradient which) {
    const attni_reference_gradients *g = &truth->gradients;
    const attni_tolerance_arrays arrays = {.rows = rows,
                                           .dim = dim,
                                           .ref = g->truth[which],
                                           .naive = g->naive[which],
                                           .floor = g->floor[which],
                                           .is_gradient = 1};
    return judge_arrays(got, arrays);
}

/* ---------------------------------------------------------------- random problems */

static lab_machine draw_machine(attni_random *random, const lab_problem *p) {
    lab_machine machine = {.rule = (lab_tile_rule)attni_random_range(random, 0, 2)};
    machine.number_bytes = attni_random_chance(random, 50) ? 2 : 4;
    /* From too small for one tile to larger than everything, evenly by size. */
    const double all = (double)(8 * (p->rows + p->keys) * p->dim + p->rows * p->keys) * 4 + 1000;
    const double least = (double)(p->dim * machine.number_bytes);
    machine.fast_bytes = (int64_t)(least * pow(all / least, attni_random_uniform(random)));
    machine.tiles.br = attni_random_range(random, 1, 40);
    machine.tiles.bc = attni_random_range(random, 1, 40);
    return machine;
}

static const char *problem_text(const lab_machine *m, lab_algorithm a, lab_direction d,
                                const lab_problem *p) {
    static char text[200];
    snprintf(text, sizeof text,
             "%s %s, %lld x %lld x %lld, M %lld, %d bytes a number, rule %d, tiles %lld x %lld",
             lab_algorithm_names[a], d == LAB_FORWARD ? "forward" : "backward", (long long)p->rows,
             (long long)p->keys, (long long)p->dim, (long long)m->fast_bytes, m->number_bytes, (int)m->rule,
             (long long)m->tiles.br, (long long)m->tiles.bc);
    return text;
}

/* Runs it with numbers and as loops only; counts are the formulas'. 1, or 0 where M is too small. */
static int run_and_count(lab_machine *machine, lab_algorithm algorithm, lab_direction direction,
                         lab_problem *problem) {
    const char *trouble = lab_run(machine, algorithm, direction, problem);
    if (trouble != NULL) {
        CHECK(machine->rule != LAB_TILES_GIVEN && strstr(trouble, "too small") != NULL, "%s: %s",
              problem_text(machine, algorithm, direction, problem), trouble);
        return 0;
    }
    const lab_machine made = *machine;
    lab_machine formula = made;
    if (formula.tiles.br > problem->rows) formula.tiles.br = problem->rows;
    if (formula.tiles.bc > problem->keys) formula.tiles.bc = problem->keys;
    const int64_t moves = made.counts.rescales / (1 + problem->dim);
    const lab_counts closed = lab_closed(&formula, algorithm, direction, problem, moves);
    CHECK(same_counts(&made.counts, &closed), "%s", problem_text(machine, algorithm, direction, problem));
    const int64_t fast = lab_closed_fast_bytes(&formula, algorithm, direction, problem);
    CHECK(made.fast_peak == fast, "%s: %lld bytes of fast memory, not %lld",
          problem_text(machine, algorithm, direction, problem), (long long)made.fast_peak, (long long)fast);
    CHECK(machine->rule != LAB_TILES_FIT || fast <= machine->fast_bytes, "%s takes %lld",
          problem_text(machine, algorithm, direction, problem), (long long)fast);
    if (algorithm == LAB_LAZY && direction == LAB_FORWARD)
        CHECK(moves >= problem->rows && made.counts.rescales == moves * (1 + problem->dim), "%lld moves",
              (long long)moves);

    lab_problem empty = {
        .rows = problem->rows, .keys = problem->keys, .dim = problem->dim, .scale = problem->scale};
    lab_machine loops = *machine;
    loops.loops_only = 1;
    NEED(lab_run(&loops, algorithm, direction, &empty) == NULL);
    if (algorithm == LAB_LAZY && direction == LAB_FORWARD) {
        const lab_counts rows_only = lab_closed(&formula, algorithm, direction, problem, problem->rows);
        CHECK(same_counts(&loops.counts, &rows_only), "loops of %s",
              problem_text(machine, algorithm, direction, problem));
    } else {
        CHECK(same_counts(&loops.counts, &made.counts), "loops of %s",
              problem_text(machine, algorithm, direction, problem));
    }
    CHECK(loops.fast_peak == made.fast_peak, "loops of %s",
          problem_text(machine, algorithm, direction, problem));
    return 1;
}

static void test_random_problems(void) {
    attni_random random = {20220527};
    int ran = 0, refused = 0;
    for (int n = 0; n < PROBLEMS; n++) {
        lab_problem p;
        NEED(lab_problem_make(&p, attni_random_range(&random, 1, 40), attni_random_range(&random, 1, 48),
                              attni_random_range(&random, 1, 18), attni_random_next(&random)) == 0);
        oracle truth = ask_oracle(&p);
        for (int a = 0; a < LAB_ALGORITHMS; a++) {
            const lab_algorithm algorithm = (lab_algorithm)a;
            lab_machine machine = draw_machine(&random, &p);
            poison(p.o, p.rows * p.dim), poison(p.lse, p.rows), poison(p.m, p.rows), poison(p.l, p.rows);
            poison(p.s, p.rows * p.keys), poison(p.p, p.rows * p.keys), poison(p.delta, p.rows);
            if (!run_and_count(&machine, algorithm, LAB_FORWARD, &p)) {
                refused++;
                continue;
            }
            ran++;
            const attni_tolerance_verdict o = judge_o(&p, &truth);
            CHECK(o.holds, "%s: O is off by %g, %g allowed",
                  problem_text(&machine, algorithm, LAB_FORWARD, &p), o.error, o.allowed);
            if (algorithm == LAB_FLASH1)
                for (int64_t r = 0; r < p.rows; r++) p.lse[r] = p.m[r] + logf(p.l[r]);
            if (algorithm >= LAB_FLASH1) {
                const attni_tolerance_verdict lse = judge_lse(&p, &truth);
                CHECK(lse.holds, "%s: LSE is off by %g, %g allowed",
                      problem_text(&machine, algorithm, LAB_FORWARD, &p), lse.error, lse.allowed);
            }
            if (algorithm == LAB_SIMPLE) continue;

            machine = draw_machine(&random, &p);
            poison(p.d_q, p.rows * p.dim), poison(p.d_k, p.keys * p.dim), poison(p.d_v, p.keys * p.dim);
            poison(p.d_p, p.rows * p.keys), poison(p.d_s, p.rows * p.keys);
            if (!run_and_count(&machine, algorithm, LAB_BACKWARD, &p)) {
                refused++;
                continue;
            }
            ran++;
            const float *gradients[] = {p.d_q, p.d_k, p.d_v};
            for (int i = 0; i < 3; i++) {
                const attni_tolerance_verdict g = judge_gradient(gradients[i], i == 0 ? p.rows : p.keys,
                                                                 p.dim, &truth, (attni_reference_gradient)i);
                CHECK(g.holds, "%s: gradient %d is off by %g, %g allowed",
                      problem_text(&machine, algorithm, LAB_BACKWARD, &p), i, g.error, g.allowed);
            }
        }
        free_oracle(&truth);
        lab_problem_free(&p);
    }
    CHECK(ran >= 9 * 500 * 8 / 10 && refused > 20, "%d runs, %d refused: the draw is lopsided", ran, refused);
}

/* ---------------------------------------------------------------- growth */

/* The slope of log(bytes) over log(x) by least squares. */
static double slope(const double *x, const double *bytes, int count) {
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (int i = 0; i < count; i++) {
        const double u = log(x[i]), v = log(bytes[i]);
        sx += u, sy += v, sxx += u * u, sxy += u * v;
    }
    return (count * sxy - sx * sy) / (count * sxx - sx * sx);
}

static double bytes_of(lab_algorithm algorithm, lab_direction direction, int64_t n, int64_t dim,
                       int64_t fast_bytes) {
    lab_problem p = {.rows = n, .keys = n, .dim = dim};
    lab_machine machine = {.fast_bytes = fast_bytes, .number_bytes = 2, .loops_only = 1};
    NEED(lab_run(&machine, algorithm, direction, &p) == NULL);
    return (double)(machine.counts.read + machine.counts.written);
}

static void test_exponents(void) {
    enum { POINTS = 5 };
    for (int a = LAB_FLASH1; a <= LAB_FLASH2; a++)
        for (int d = 0; d < 2; d++) {
            double by_m[POINTS], by_n[POINTS], by_d[POINTS], m[POINTS], n[POINTS], dim[POINTS];
            for (int i = 0; i < POINTS; i++) {
                m[i] = (double)(4096 << i); /* tiles of 16 to 256, of 16384 */
                by_m[i] = bytes_of((lab_algorithm)a, (lab_direction)d, 16384, 32, (int64_t)m[i]);
                n[i] = (double)(2048 << i);
                by_n[i] = bytes_of((lab_algorithm)a, (lab_direction)d, (int64_t)n[i], 32, 8192);
                dim[i] = (double)(32 << i);
                by_d[i] = bytes_of((lab_algorithm)a, (lab_direction)d, 16384, (int64_t)dim[i], 65536);
            }
            const double em = slope(m, by_m, POINTS), en = slope(n, by_n, POINTS),
                         ed = slope(dim, by_d, POINTS);
            printf("%s %s: bytes ~ N^%.3f D^%.3f M^%.3f\n", lab_algorithm_names[a],
                   d ? "backward" : "forward", en, ed, em);
            CHECK(fabs(em + 1) < 0.05 && fabs(en - 2) < 0.05 && fabs(ed - 2) < 0.05, "exponents %g %g %g", en,
                  ed, em);
        }
    /* Standard attention's do not fall: S and P are moved whatever M is. */
    const double small = bytes_of(LAB_STANDARD, LAB_FORWARD, 4096, 64, 1 << 16),
                 large = bytes_of(LAB_STANDARD, LAB_FORWARD, 4096, 64, 1 << 22);
    CHECK(large > 4.0 * 4096 * 4096 * 2 && large < small, "%g and %g bytes", small, large);
}

/* ---------------------------------------------------------------- softmax */

/* A NaN is the maximum of its row, and the worst of all errors, whatever comes after it. */
static void test_nan(void) {
    float x[3] = {1, NAN, 2}, top = -INFINITY;
    lab_machine machine = {0};
    lab_tile m = {.rows = 1, .cols = 1, .data = &top}, scores = {.rows = 1, .cols = 3, .data = x};
    lab_row_maximum(&machine, &m, &scores);
    CHECK(isnan(top), "the maximum is %g", (double)top);
    CHECK(isnan(test_worse(NAN, 1)) && isnan(test_worse(1, NAN)), "a NaN was lost");
    CHECK(test_worse(1, 2) == 2 && test_worse(2, 1) == 2, "not the larger one");
}

static void test_softmax(void) {
    attni_random random = {7};
    for (int n = 0; n < 200; n++) {
        const int64_t rows = attni_random_range(&random, 1, 9), cols = attni_random_range(&random, 1, 70);
        float *x = test_memory((size_t)(rows * cols) * 4), *y = test_memory((size_t)(rows * cols) * 4),
              *factor = test_memory((size_t)(rows * cols) * 4);
        for (int64_t i = 0; i < rows * cols; i++) x[i] = (float)(30 * attni_random_normal(&random));
        for (int f = 0; f < LAB_SOFTMAX_FORMS; f++) {
            const lab_softmax_form form = (lab_softmax_form)f;
            lab_machine machine = {.number_bytes = attni_random_chance(&random, 50) ? 2 : 4,
                                   .rule = LAB_TILES_FIT};
            machine.fast_bytes = attni_random_range(&random, 8, 2 * cols * machine.number_bytes);
            poison(y, rows * cols), poison(factor, rows * cols);
            const char *trouble = lab_softmax_run(&machine, form, rows, cols, x, y, factor);
            if (trouble != NULL) {
                CHECK(strstr(trouble, "fast memory") != NULL, "%s", trouble);
                continue;
            }
            CHECK(machine.fast_peak <= machine.fast_bytes, "%lld of %lld bytes", (long long)machine.fast_peak,
                  (long long)machine.fast_bytes);
            const lab_counts closed = lab_closed_softmax(&machine, form, rows, cols);
            CHECK(same_counts(&machine.counts, &closed), "%s, %lld x %lld in %lld bytes",
                  lab_softmax_names[form], (long long)rows, (long long)cols, (long long)machine.fast_bytes);
            const int64_t tile = lab_softmax_tile(&machine, form, cols),
                          tiles = lab_softmax_tiles(&machine, form, cols);
            for (int64_t r = 0; r < rows; r++) {
                double top = -INFINITY, sum = 0, worst = 0;
                for (int64_t c = 0; c < cols; c++) top = fmax(top, x[r * cols + c]);
                for (int64_t c = 0; c < cols; c++) sum += exp(x[r * cols + c] - top);
                for (int64_t c = 0; c < cols; c++) {
                    const double got =
                        y[r * cols + c] *
                        (form == LAB_SOFTMAX_STREAMING ? (double)factor[r * tiles + c / tile] : 1.0);
                    const double off = fabs(got - exp(x[r * cols + c] - top) / sum);
                    worst = test_worse(worst, off);
                }
                CHECK(worst < 1e-6, "%s is off by %g", lab_softmax_names[form], worst);
            }
        }
        free(x), free(y), free(factor);
    }
}

/* ---------------------------------------------------------------- warps */

static void test_warps(void) {
    attni_random random = {11};
    for (int n = 0; n < 100; n++) {
        lab_problem p;
        NEED(lab_problem_make(&p, attni_random_range(&random, 1, 40), attni_random_range(&random, 1, 40),
                              attni_random_range(&random, 1, 12), attni_random_next(&random)) == 0);
        oracle truth = ask_oracle(&p);
        for (int s = 0; s < LAB_SPLITS; s++) {
            const lab_split split = (lab_split)s;
            const lab_tiles tiles = {attni_random_range(&random, 1, 24), attni_random_range(&random, 1, 24)};
            const int warps = (int)attni_random_range(&random, 1, 8),
                      bytes = attni_random_chance(&random, 50) ? 2 : 4;
            lab_split_counts counted;
            poison(p.o, p.rows * p.dim), poison(p.lse, p.rows);
            NEED(lab_split_run(split, tiles, warps, bytes, &p, &counted) == NULL);
            const lab_split_counts closed = lab_split_closed(split, tiles, warps, bytes, &p);
            CHECK(memcmp(&counted, &closed, sizeof closed) == 0,
                  "%s, %lld x %lld tiles of %lld x %lld, %d warps", lab_split_names[s], (long long)p.rows,
                  (long long)p.keys, (long long)tiles.br, (long long)tiles.bc, warps);
            CHECK((counted.exchange == 0) == (split == LAB_SPLIT_Q), "%lld bytes exchanged",
                  (long long)counted.exchange);
            const attni_tolerance_verdict o = judge_o(&p, &truth);
            const attni_tolerance_verdict lse = judge_lse(&p, &truth);
            CHECK(o.holds && lse.holds, "%s: O is off by %g, LSE by %g", lab_split_names[s], o.error,
                  lse.error);
        }
        free_oracle(&truth);
        lab_problem_free(&p);
    }
}

/* ---------------------------------------------------------------- the observer */

typedef struct watch {
    int64_t loaded, stored, events, largest_fast;
    int disorder, steps[LAB_STEP_GRADIENT + 1];
} watch;

static void look(void *user, const lab_event *event) {
    watch *w = user;
    if (event->number != w->events) w->disorder++;
    w->events++;
    w->steps[event->step]++;
    if (event->step == LAB_STEP_LOAD) w->loaded += event->bytes;
    if (event->step == LAB_STEP_STORE) w->stored += event->bytes;
    if (event->machine->fast_used > w->largest_fast) w->largest_fast = event->machine->fast_used;
    if (event->step <= LAB_STEP_STORE && (event->tile == NULL || event->array == NULL)) w->disorder++;
    if (w->loaded != event->machine->counts.read || w->stored != event->machine->counts.written)
        w->disorder++;
    /* What arrived is what lies there. */
    if (event->step == LAB_STEP_LOAD)
        for (int64_t r = 0; r < event->tile->rows; r++)
            if (memcmp(event->tile->data + r * event->tile->cols,
                       event->array->data + (event->first_row + r) * event->array->cols + event->first_col,
                       (size_t)event->tile->cols * sizeof(float)) != 0)
                w->disorder++;
    if (event->step == LAB_STEP_SCORES &&
        (lab_find_tile(event->machine, "S") == NULL || event->rows < 1 || event->keys < 1))
        w->disorder++;
    if (event->step == LAB_STEP_PROBABILITIES && lab_find_tile(event->machine, "P") == NULL) w->disorder++;
}

static void test_observer(void) {
    lab_problem p;
    NEED(lab_problem_make(&p, 11, 13, 4, 9) == 0);
    for (int a = 0; a < LAB_ALGORITHMS; a++)
        for (int d = 0; d < (a == LAB_SIMPLE ? 1 : 2); d++) {
            watch w = {0};
            lab_machine machine = {
                .number_bytes = 4, .rule = LAB_TILES_GIVEN, .tiles = {4, 5}, .observe = look, .user = &w};
            CHECK(lab_run(&machine, (lab_algorithm)a, (lab_direction)d, &p) == NULL, "%s",
                  lab_algorithm_names[a]);
            CHECK(w.disorder == 0, "%d events of %s are wrong", w.disorder, lab_algorithm_names[a]);
            CHECK(w.loaded == machine.counts.read && w.stored == machine.counts.written &&
                      w.largest_fast == machine.fast_peak,
                  "%s", lab_algorithm_names[a]);
            if (d == LAB_FORWARD) {
                CHECK(w.steps[LAB_STEP_SCORES] == 9 && w.steps[LAB_STEP_ACCUMULATE] == 9, "%d and %d",
                      w.steps[LAB_STEP_SCORES], w.steps[LAB_STEP_ACCUMULATE]);
                CHECK(w.steps[LAB_STEP_FINISH] == (a == LAB_FLASH1 ? 9 : 3), "%d divisions by %s",
                      w.steps[LAB_STEP_FINISH], lab_algorithm_names[a]);
            }
        }
    lab_problem_free(&p);
}

/* ---------------------------------------------------------------- the maximum */

static void test_overflow(void) {
    lab_problem p;
    lab_machine machine = {.number_bytes = 4, .rule = LAB_TILES_GIVEN, .tiles = {2, 2}};
    NEED(lab_problem_make(&p, 4, 6, 3, 2) == 0);
    for (int64_t i = 0; i < p.rows * p.dim; i++) p.q[i] *= 100;
    for (int a = 0; a < LAB_ALGORITHMS; a++) {
        NEED(lab_run(&machine, (lab_algorithm)a, LAB_FORWARD, &p) == NULL);
        int finite = 0;
        for (int64_t i = 0; i < p.rows * p.dim; i++) finite += isfinite(p.o[i]) != 0;
        CHECK((finite == p.rows * p.dim) == (a != LAB_SIMPLE), "%s: %d of %lld finite",
              lab_algorithm_names[a], finite, (long long)(p.rows * p.dim));
    }
    machine.without_maximum = 1;
    NEED(lab_run(&machine, LAB_STANDARD, LAB_FORWARD, &p) == NULL);
    int finite = 0;
    for (int64_t i = 0; i < p.rows * p.dim; i++) finite += isfinite(p.o[i]) != 0;
    CHECK(finite < p.rows * p.dim, "standard attention without the maximum overflows");
    lab_problem_free(&p);
}

/* ---------------------------------------------------------------- what is refused */

static void test_refusals(void) {
    lab_problem p;
    NEED(lab_problem_make(&p, 8, 8, 16, 1) == 0);
    for (int a = 0; a < LAB_ALGORITHMS; a++)
        for (int d = 0; d < 2; d++) {
            lab_machine paper = {.number_bytes = 2, .fast_bytes = 4 * 16 * 2 - 1};
            lab_tiles tiles;
            if (a == LAB_SIMPLE && d == LAB_BACKWARD) {
                CHECK(strstr(lab_run(&paper, LAB_SIMPLE, LAB_BACKWARD, &p), "backward") != NULL, "refused");
                continue;
            }
            const char *trouble = lab_run(&paper, (lab_algorithm)a, (lab_direction)d, &p);
            CHECK(trouble != NULL && strstr(trouble, "127 bytes") != NULL &&
                      strstr(trouble, "128 bytes") != NULL,
                  "%s", trouble);
            paper.fast_bytes++;
            CHECK(lab_run(&paper, (lab_algorithm)a, (lab_direction)d, &p) == NULL, "%s",
                  lab_algorithm_names[a]);
            lab_machine fit = {.number_bytes = 2, .fast_bytes = 1, .rule = LAB_TILES_FIT};
            while (lab_choose_tiles(&fit, (lab_algorithm)a, (lab_direction)d, &p, &tiles) != NULL)
                fit.fast_bytes++;
            CHECK(tiles.br == 1 && tiles.bc == 1, "%lld x %lld", (long long)tiles.br, (long long)tiles.bc);
            CHECK(lab_run(&fit, (lab_algorithm)a, (lab_direction)d, &p) == NULL &&
                      fit.fast_peak <= fit.fast_bytes,
                  "%lld bytes", (long long)fit.fast_peak);
        }
    lab_problem_free(&p);
}

int main(void) {
    test_random_problems();
    test_exponents();
    test_nan();
    test_softmax();
    test_warps();
    test_observer();
    test_overflow();
    test_refusals();
    return test_report();
}
