/* Losses of runs over steps, as a table and as a picture. */
#ifndef ATTN_EXAMPLE_LOSS_CURVE_H
#define ATTN_EXAMPLE_LOSS_CURVE_H

#include <stdint.h>

typedef struct loss_curve {
    const char *label;
    const double *losses; /* (steps) */
} loss_curve;

/* "step,label,label": one line a step. Ends the program when the file cannot be written. */
void loss_curve_csv(const char *path, int64_t steps, int count, const loss_curve *curves);

/*
 * An SVG: the losses over each other and, where there are several, below them how far each is from the first.
 * title and note stand above and below. Follows the reader's light or dark setting.
 */
void loss_curve_svg(const char *path, int64_t steps, int count, const loss_curve *curves, const char *title,
                    const char *note);

#endif
