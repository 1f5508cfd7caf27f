/* A line chart with logarithmic axes, as one SVG file that follows the reader's light or dark setting. */
#ifndef ATTN_TOOL_PLOT_SVG_H
#define ATTN_TOOL_PLOT_SVG_H

#include <stddef.h>

typedef struct plot_series {
    const char *name;
    const double *x, *y;
    size_t count;
    int dashed;
} plot_series;

typedef struct plot {
    const char *title, *note; /* the note stands below: where the numbers are from */
    const char *x_title, *y_title;
    const plot_series *series;
    size_t count; /* at most PLOT_SERIES */
    int x_base;   /* 2: ticks at powers of two; 10: of ten */
    int linear_y; /* from 0 */
} plot;

enum { PLOT_SERIES = 8 };

/* Null, or what could not be written. */
const char *plot_svg_write(const plot *chart, const char *path);

#endif
