#include "tolerance.h"

#include "reference.h"
#include "rounding.h"

static int same_kind(double out, double wanted) {
    if (isnan(wanted)) return isnan(out);
    return isinf(wanted) ? out == wanted : isfinite(out);
}

attni_tolerance_verdict attni_tolerance_judge(const attni_tolerance_arrays *arrays) {
    attni_tolerance_verdict verdict = {1, 0.0, -1, 0.0, 0.0};
    double times = arrays->is_gradient ? 3.0 : 1.0;
    double naive_most = 0.0, round_most = 0.0, naive_squares = 0.0, squares = 0.0;
    double worst_row = 0.0, all_rows = 0.0, cut_squares = 0.0;

    for (int64_t row = 0; row < arrays->rows; ++row) {
        double row_squares = 0.0;
        for (int64_t at = row * arrays->dim; at < (row + 1) * arrays->dim; ++at) {
            double ref = arrays->ref[at];
            if (ref == ATTNI_REFERENCE_UNWRITTEN) continue;
            double rounded = attni_reference_round(ref, arrays->dtype);
            if (!same_kind(arrays->out[at], rounded)) {
                verdict = (attni_tolerance_verdict){0, (double)INFINITY, at, (double)INFINITY, 0.0};
                return verdict;
            }
            if (!isfinite(rounded)) continue;
            double naive = isfinite(arrays->naive[at]) ? fabs(arrays->naive[at] - ref) : 0.0;
            double off = arrays->out[at] - ref;
            naive_most = fmax(naive_most, naive);
            round_most = fmax(round_most, fabs(rounded - ref));
            naive_squares += naive * naive;
            squares += off * off;
            row_squares += arrays->floor[at] * arrays->floor[at];
            if (arrays->cut) cut_squares += arrays->cut[at] * arrays->cut[at];
        }
        worst_row = fmax(worst_row, row_squares);
        all_rows += row_squares;
    }

    for (int64_t at = 0; at < arrays->rows * arrays->dim; ++at) {
        double ref = arrays->ref[at];
        if (ref == ATTNI_REFERENCE_UNWRITTEN || !isfinite(attni_reference_round(ref, arrays->dtype)))
            continue;
        double error = fabs(arrays->out[at] - ref);
        double allowed = times * (2.0 * naive_most + 2.0 * round_most + arrays->floor[at]) +
                         (arrays->cut ? arrays->cut[at] : 0.0);
        double ratio = error == 0.0 ? 0.0 : error / allowed;
        if (!(error <= allowed)) verdict.holds = 0;
        if (!(ratio <= verdict.ratio)) {
            verdict.ratio = ratio;
            verdict.worst = at;
            verdict.error = error;
            verdict.allowed = allowed;
        }
    }

    /* One rounding of the output, for a norm of few elements whose naive answer was right by luck. */
    double allowed =
        times * (1.5 * sqrt(naive_squares) + sqrt(arrays->is_f8 ? all_rows : worst_row) + round_most) +
        sqrt(cut_squares);
    double ratio = squares == 0.0 ? 0.0 : sqrt(squares) / allowed;
    if (!(sqrt(squares) <= allowed)) verdict.holds = 0;
    if (!(ratio <= verdict.ratio)) {
        verdict.ratio = ratio;
        verdict.worst = -1;
        verdict.error = sqrt(squares);
        verdict.allowed = allowed;
    }
    return verdict;
}
