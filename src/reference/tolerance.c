#include "tolerance.h"

#include <string.h>

#include "reference.h"
#include "rounding.h"

/* NaN must be NaN, and an infinite truth the same. Beside a finite one NaN alone is wrong whatever is allowed. */
static int same_kind(double out, double ref) {
    if (isnan(ref)) return isnan(out);
    return isinf(ref) ? out == ref : !isnan(out);
}

/* An overflow counts as the least number that overflows; where the truth does too it is right. */
static double error_of(double out, double ref, attn_dtype dtype) {
    if (out == attni_reference_round(ref, dtype)) return isinf(out) ? 0.0 : fabs(out - ref);
    return fabs((isinf(out) ? copysign(attni_reference_overflow(dtype), out) : out) - ref);
}

/* What a row's elements share, and what the norm adds up. */
typedef struct row_sums {
    double naive,
        round; /* the largest error of naive, and of rounding a number as large as the row's largest */
    double naive_squares, squares, floor_squares, cut_squares; /* of errors, and of what is granted */
} row_sums;

/* Nobody owes an unwritten element, and NaN and inf are compared by same_kind alone. */
static int is_number(const attni_tolerance_arrays *arrays, int64_t at) {
    return arrays->ref[at] != ATTNI_REFERENCE_UNWRITTEN && isfinite(arrays->ref[at]);
}

static double naive_error(const attni_tolerance_arrays *arrays, int64_t at) {
    return isfinite(arrays->naive[at]) ? fabs(arrays->naive[at] - arrays->ref[at]) : 0.0;
}

/* Returns the first element of the row that is of another kind than the truth; -1: none is. */
static int64_t add_up(const attni_tolerance_arrays *arrays, int64_t row, row_sums *sums) {
    memset(sums, 0, sizeof *sums);
    for (int64_t at = row * arrays->dim; at < (row + 1) * arrays->dim; ++at) {
        double ref = arrays->ref[at];
        if (ref == ATTNI_REFERENCE_UNWRITTEN) continue;
        if (!same_kind(arrays->out[at], ref)) return at;
        if (!isfinite(ref)) continue;
        double naive = naive_error(arrays, at), off = error_of(arrays->out[at], ref, arrays->dtype);
        sums->naive = fmax(sums->naive, naive);
        sums->round = fmax(sums->round, attni_reference_half_step(ref, arrays->dtype));
        sums->naive_squares += naive * naive;
        sums->squares += off * off;
        sums->floor_squares += arrays->floor[at] * arrays->floor[at];
        if (arrays->cut) sums->cut_squares += arrays->cut[at] * arrays->cut[at];
    }
    return -1;
}

static void judge(attni_tolerance_verdict *verdict, int64_t at, double error, double allowed) {
    double ratio = error == 0.0 ? 0.0 : error / allowed;
    if (!(error <= allowed)) verdict->holds = 0;
    if (ratio <= verdict->ratio) return;
    verdict->ratio = ratio;
    verdict->worst = at;
    verdict->error = error;
    verdict->allowed = allowed;
}

/* LSE is one number a row: the largest error of naive's, in floors. */
static double most_floors(const attni_tolerance_arrays *arrays) {
    double most = 0.0;
    for (int64_t at = 0; at < arrays->rows * arrays->dim; ++at) {
        if (is_number(arrays, at)) most = fmax(most, naive_error(arrays, at) / arrays->floor[at]);
    }
    return most;
}

/* What takes the place of a row's largest errors where all rows share them. */
static row_sums most_of(const attni_tolerance_arrays *arrays) {
    row_sums most = {0}, sums;
    for (int64_t row = 0; row < arrays->rows; ++row) {
        add_up(arrays, row, &sums);
        most.naive = fmax(most.naive, sums.naive);
        most.round = fmax(most.round, sums.round);
    }
    return most;
}

attni_tolerance_verdict attni_tolerance_judge(const attni_tolerance_arrays *arrays) {
    attni_tolerance_verdict verdict = {1, 0.0, -1, 0.0, 0.0};
    double times = arrays->is_gradient ? 3.0 : 1.0;
    const row_sums shared = arrays->on_gpu ? most_of(arrays) : (row_sums){0};
    double floors = arrays->is_lse ? most_floors(arrays) : 0.0;
    double round_most = 0.0, naive_squares = 0.0, squares = 0.0;
    double worst_row = 0.0, all_rows = 0.0, cut_squares = 0.0;

    for (int64_t row = 0; row < arrays->rows; ++row) {
        row_sums sums;
        int64_t other = add_up(arrays, row, &sums);
        if (other >= 0) {
            verdict = (attni_tolerance_verdict){0, (double)INFINITY, other, (double)INFINITY, 0.0};
            return verdict;
        }
        for (int64_t at = row * arrays->dim; at < (row + 1) * arrays->dim; ++at) {
            if (!is_number(arrays, at)) continue;
            const row_sums *most = arrays->on_gpu ? &shared : &sums;
            double naive = arrays->is_lse && !arrays->on_gpu ? floors * arrays->floor[at] : most->naive;
            judge(&verdict, at, error_of(arrays->out[at], arrays->ref[at], arrays->dtype),
                  times * (2.0 * naive + 2.0 * most->round + arrays->floor[at]) +
                      (arrays->cut ? arrays->cut[at] : 0.0));
        }
        round_most = fmax(round_most, sums.round);
        naive_squares += sums.naive_squares;
        squares += sums.squares;
        cut_squares += sums.cut_squares;
        worst_row = fmax(worst_row, sums.floor_squares);
        all_rows += sums.floor_squares;
    }

    /* One rounding of the output, for a norm of few elements whose naive answer was right by luck. */
    judge(&verdict, -1, sqrt(squares),
          times * (1.5 * sqrt(naive_squares) + sqrt(arrays->is_f8 ? all_rows : worst_row) + round_most) +
              sqrt(cut_squares));
    return verdict;
}
