#include "loss_curve.h"
#include "fail.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static FILE *open_file(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) fail("%s: %s", path, strerror(errno));
    return file;
}

static void close_file(FILE *file, const char *path) {
    const int failed = ferror(file);
    if (fclose(file) != 0 || failed) fail("%s: cannot be written", path);
}

void loss_curve_csv(const char *path, int64_t steps, int count, const loss_curve *curves) {
    FILE *file = open_file(path);
    fputs("step", file);
    for (int i = 0; i < count; i++) fprintf(file, ",%s", curves[i].label);
    fputc('\n', file);
    for (int64_t step = 0; step < steps; step++) {
        fprintf(file, "%lld", (long long)step);
        for (int i = 0; i < count; i++) fprintf(file, ",%.8f", curves[i].losses[step]);
        fputc('\n', file);
    }
    close_file(file, path);
}

/* ---------------------------------------------------------------- picture */

enum {
    WIDTH = 720,
    LEFT = 64,
    RIGHT = 24,
    TOP = 52,
    LOSS_HEIGHT = 260,
    GAP = 44,
    DIFFERENCE_HEIGHT = 110,
    FOOT = 70
};

/* A panel's vertical axis: low stands at bottom, high at top, in pixels. */
typedef struct panel {
    double low, high, top, bottom;
    int64_t steps;
} panel;

static double x_of(const panel *p, double step) {
    return LEFT + step / (double)(p->steps > 1 ? p->steps - 1 : 1) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const panel *p, double value) {
    const double part = p->high > p->low ? (value - p->low) / (p->high - p->low) : 0.5;
    return p->bottom - fmin(fmax(part, 0), 1) * (p->bottom - p->top);
}

static void text(FILE *file, double x, double y, const char *class_name, const char *anchor,
                 const char *words) {
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class_name,
            anchor, words);
}

static void horizontal(FILE *file, const panel *p, double value, const char *label) {
    fprintf(file, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y_of(p, value), WIDTH - RIGHT);
    text(file, LEFT - 8, y_of(p, value) + 4, "tick", "end", label);
}

/* 1, 2 or 5 times a power of ten, at most parts of which reach up to span. */
static double tick_distance(double span, int parts) {
    static const double factors[] = {1, 2, 5, 10};
    const double least = span / parts, ten = pow(10, floor(log10(least)));
    int i = 0;
    while (i < 3 && factors[i] * ten < least) i++;
    return factors[i] * ten;
}

static void steps_axis(FILE *file, const panel *p, int with_labels) {
    const double distance = fmax(1, tick_distance((double)p->steps, 8));
    for (double step = 0; step < (double)p->steps; step += distance) {
        char label[32];
        snprintf(label, sizeof label, "%.0f", step);
        fprintf(file, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>\n", x_of(p, step), p->top, p->bottom);
        if (with_labels) text(file, x_of(p, step), p->bottom + 18, "tick", "middle", label);
    }
}

static void begin_line(FILE *file, int index) { fprintf(file, "<path class=\"line s%d\" d=\"", index); }

static void point(FILE *file, const panel *p, int64_t step, double value) {
    fprintf(file, "%s%.1f %.1f", step == 0 ? "M" : "L", x_of(p, (double)step), y_of(p, value));
}

static void draw_losses(FILE *file, const panel *p, int count, const loss_curve *curves) {
    const double distance = tick_distance(p->high - p->low, 6);
    steps_axis(file, p, count < 2);
    for (double value = ceil(p->low / distance) * distance; value <= p->high; value += distance) {
        char label[32];
        snprintf(label, sizeof label, "%g", value);
        horizontal(file, p, value, label);
    }
    for (int i = 0; i < count; i++) {
        begin_line(file, i);
        for (int64_t step = 0; step < p->steps; step++) point(file, p, step, curves[i].losses[step]);
        fputs("\"/>\n", file);
        const double y = p->top + 18 + 20 * i;
        fprintf(file, "<path class=\"line s%d\" d=\"M%d %.1fh28\"/>\n", i, WIDTH - RIGHT - 190, y - 4);
        text(file, WIDTH - RIGHT - 154, y, "name", "start", curves[i].label);
    }
}

/* Losses no further apart than this are drawn as if they were so far: equal ones have no logarithm. */
static const double LEAST_DIFFERENCE = 1e-9;

static double log_difference(const loss_curve *a, const loss_curve *b, int64_t step) {
    return log10(fmax(fabs(a->losses[step] - b->losses[step]), LEAST_DIFFERENCE));
}

static void draw_differences(FILE *file, const panel *p, int count, const loss_curve *curves) {
    steps_axis(file, p, 1);
    for (double power = p->low; power <= p->high; power += 2) {
        char label[32];
        snprintf(label, sizeof label, "1e%.0f", power);
        horizontal(file, p, power, label);
    }
    for (int i = 1; i < count; i++) {
        begin_line(file, i);
        for (int64_t step = 0; step < p->steps; step++)
            point(file, p, step, log_difference(curves, &curves[i], step));
        fputs("\"/>\n", file);
    }
}

static panel loss_panel(int64_t steps, int count, const loss_curve *curves) {
    panel p = {INFINITY, -INFINITY, TOP, TOP + LOSS_HEIGHT, steps};
    for (int i = 0; i < count; i++)
        for (int64_t step = 0; step < steps; step++) {
            p.low = fmin(p.low, curves[i].losses[step]);
            p.high = fmax(p.high, curves[i].losses[step]);
        }
    p.low = floor(p.low * 2) / 2;
    p.high = ceil(p.high * 2) / 2;
    return p;
}

static panel difference_panel(int64_t steps, int count, const loss_curve *curves) {
    const double top = TOP + LOSS_HEIGHT + GAP;
    panel p = {log10(LEAST_DIFFERENCE), log10(LEAST_DIFFERENCE) + 2, top, top + DIFFERENCE_HEIGHT, steps};
    for (int i = 1; i < count; i++)
        for (int64_t step = 0; step < steps; step++)
            p.high = fmax(p.high, ceil(log_difference(curves, &curves[i], step)));
    return p;
}

/* The first line is broad and light, so that it is seen below those that cover it. */
static const char STYLE[] =
    "<style>\n"
    "text{font-family:system-ui,sans-serif;fill:#24292f}\n"
    ".title{font-size:16px;font-weight:600}.axis,.name{font-size:13px}.tick,.note{font-size:12px}\n"
    ".tick,.note,.axis{fill:#57606a}.back{fill:#fff}.grid{stroke:#d8dee4;fill:none}\n"
    ".line{fill:none;stroke-width:1.2;stroke-linejoin:round}\n"
    ".s0{stroke:#f0a58f;stroke-width:5}.s1{stroke:#0b4fb3}.s2{stroke:#1a7f37}\n"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.tick,.note,.axis{fill:#9aa4af}.back{fill:#0d1117}"
    ".grid{stroke:#30363d}\n"
    ".s0{stroke:#a8503a}.s1{stroke:#a5d1ff}.s2{stroke:#56d364}}\n"
    "</style>\n";

void loss_curve_svg(const char *path, int64_t steps, int count, const loss_curve *curves, const char *title,
                    const char *note) {
    const panel losses = loss_panel(steps, count, curves),
                differences = difference_panel(steps, count, curves);
    const double bottom = count > 1 ? differences.bottom : losses.bottom;
    FILE *file = open_file(path);
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" role=\"img\" "
            "aria-label=\"%s\">\n%s"
            "<rect class=\"back\" width=\"%d\" height=\"%.0f\"/>\n",
            WIDTH, bottom + FOOT, title, STYLE, WIDTH, bottom + FOOT);
    text(file, LEFT, 26, "title", "start", title);
    text(file, LEFT, TOP - 8, "axis", "start", "loss: nats a character, on each step's batch");
    draw_losses(file, &losses, count, curves);
    if (count > 1) {
        char words[96];
        snprintf(words, sizeof words, "distance from the loss of %s", curves[0].label);
        text(file, LEFT, differences.top - 8, "axis", "start", words);
        draw_differences(file, &differences, count, curves);
    }
    text(file, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 36, "axis", "middle", "step");
    text(file, LEFT, bottom + 58, "note", "start", note);
    fputs("</svg>\n", file);
    close_file(file, path);
}
