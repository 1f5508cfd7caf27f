#include "plot_svg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 440, LEFT = 76, RIGHT = 150, TOP = 56, BOTTOM = 84 };

typedef struct axis {
    double low, high; /* in logarithms, or plain if linear */
    int linear;
} axis;

static double place(const axis *a, double value) {
    const double x = a->linear ? value : log10(value);
    return a->high > a->low ? (x - a->low) / (a->high - a->low) : 0.5;
}

static double x_of(const axis *a, double value) { return LEFT + place(a, value) * (WIDTH - LEFT - RIGHT); }
static double y_of(const axis *a, double value) {
    return HEIGHT - BOTTOM - place(a, value) * (HEIGHT - TOP - BOTTOM);
}

static void widen(axis *a, double value) {
    const double x = a->linear ? value : log10(value);
    if (x < a->low) a->low = x;
    if (x > a->high) a->high = x;
}

static void write_text(FILE *file, const char *text) {
    for (; *text != 0; text++) switch (*text) {
        case '&': fputs("&amp;", file); break;
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        default: fputc(*text, file);
        }
}

static void label(FILE *file, double x, double y, const char *class_name, const char *anchor,
                  const char *text) {
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, class_name, anchor);
    write_text(file, text);
    fputs("</text>\n", file);
}

/* "0.5", "16", "1k", "64k", "1M" */
static void number_text(double value, int base, char text[32]) {
    const double kilo = base == 2 ? 1024 : 1000;
    const char *unit = "";
    if (value >= kilo * kilo)
        value /= kilo * kilo, unit = "M";
    else if (value >= kilo)
        value /= kilo, unit = "k";
    snprintf(text, 32, "%.4g%s", value, unit);
}

static void x_tick(FILE *file, const axis *x, double value, int base) {
    char text[32];
    const double at = x_of(x, value);
    fprintf(file, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>\n", at, TOP, HEIGHT - BOTTOM);
    number_text(value, base, text);
    label(file, at, HEIGHT - BOTTOM + 18, "tick", "middle", text);
}

/* Numbers between powers, where there is room for them. */
static const double between[] = {1, 2, 5};

static int divisions_of(const axis *a, int base) { return base == 10 && a->high - a->low < 3 ? 3 : 1; }

static void x_ticks(FILE *file, const axis *x, int base) {
    const double step = log10((double)base);
    for (double power = floor(x->low / step); power * step <= x->high; power += 1)
        for (int i = 0; i < divisions_of(x, base); i++) {
            const double value = pow(base, power) * between[i];
            if (log10(value) >= x->low - 1e-9 && log10(value) <= x->high + 1e-9) x_tick(file, x, value, base);
        }
}

static void y_tick(FILE *file, const axis *y, double value) {
    char text[32];
    const double at = y_of(y, value);
    fprintf(file, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, at, WIDTH - RIGHT);
    number_text(value, 10, text);
    label(file, LEFT - 8, at + 4, "tick", "end", text);
}

static void y_ticks(FILE *file, const axis *y) {
    if (y->linear) {
        const double rough = y->high / 5, ten = pow(10, floor(log10(rough)));
        const double step = rough / ten < 1.5   ? ten
                            : rough / ten < 3.5 ? 2 * ten
                            : rough / ten < 7.5 ? 5 * ten
                                                : 10 * ten;
        for (double value = 0; value <= y->high * 1.0001; value += step) y_tick(file, y, value);
        return;
    }
    for (double power = floor(y->low); power <= y->high; power += 1)
        for (int i = 0; i < divisions_of(y, 10); i++) {
            const double value = pow(10, power) * between[i];
            if (log10(value) >= y->low - 1e-9 && log10(value) <= y->high + 1e-9) y_tick(file, y, value);
        }
}

/* Dashed lines have the last colour, a grey. */
static size_t colour_of(const plot_series *s, size_t index) { return s->dashed ? PLOT_SERIES - 1 : index; }

static void write_series(FILE *file, const plot_series *s, size_t index, const axis *x, const axis *y) {
    index = colour_of(s, index);
    fprintf(file, "<path class=\"line s%zu\"%s d=\"", index, s->dashed ? " stroke-dasharray=\"6 5\"" : "");
    for (size_t i = 0; i < s->count; i++)
        fprintf(file, "%s%.1f %.1f", i == 0 ? "M" : "L", x_of(x, s->x[i]), y_of(y, s->y[i]));
    fputs("\"/>\n", file);
    if (s->dashed) return;
    for (size_t i = 0; i < s->count; i++)
        fprintf(file, "<circle class=\"dot s%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", index,
                x_of(x, s->x[i]), y_of(y, s->y[i]));
}

/* Names stand at the lines' right ends, pushed apart where they would meet. */
static void write_names(FILE *file, const plot *chart, const axis *x, const axis *y) {
    enum { APART = 17 };
    double at[PLOT_SERIES];
    size_t order[PLOT_SERIES];
    for (size_t i = 0; i < chart->count; i++) {
        const plot_series *s = &chart->series[i];
        size_t place_in = i;
        at[i] = y_of(y, s->y[s->count - 1]) + 4;
        for (; place_in > 0 && at[order[place_in - 1]] > at[i]; place_in--)
            order[place_in] = order[place_in - 1];
        order[place_in] = i;
    }
    for (size_t i = 1; i < chart->count; i++)
        if (at[order[i]] < at[order[i - 1]] + APART) at[order[i]] = at[order[i - 1]] + APART;
    for (size_t i = 0; i < chart->count; i++) {
        const plot_series *s = &chart->series[i];
        char class_name[16];
        snprintf(class_name, sizeof class_name, "name n%zu", colour_of(s, i));
        label(file, fmin(x_of(x, s->x[s->count - 1]) + 10, WIDTH - RIGHT + 10), at[i], class_name, "start",
              s->name);
    }
}

static void write_style(FILE *file) {
    static const char *const light[PLOT_SERIES] = {"#b3261e", "#1f6feb", "#1a7f37", "#8250df",
                                                   "#9a6700", "#bf3989", "#0a7ea4", "#57606a"};
    static const char *const dark[PLOT_SERIES] = {"#ff7b72", "#79c0ff", "#56d364", "#d2a8ff",
                                                  "#e3b341", "#f778ba", "#39c5cf", "#8b949e"};
    fputs("<style>\ntext{font-family:system-ui,sans-serif;fill:#24292f}\n.title{font-size:16px;font-weight:"
          "600}\n"
          ".axis,.name{font-size:13px}\n.tick,.note{font-size:12px}\n.tick,.note,.axis{fill:#57606a}\n"
          ".back{fill:#fff}\n.grid{stroke:#d8dee4;fill:none}\n.line{fill:none;stroke-width:2.2}\n",
          file);
    for (int i = 0; i < PLOT_SERIES; i++)
        fprintf(file, ".line.s%d{stroke:%s}.dot.s%d,.n%d{fill:%s}\n", i, light[i], i, i, light[i]);
    fputs("@media(prefers-color-scheme:dark){text{fill:#e6edf3}.tick,.note,.axis{fill:#9aa4af}.back{fill:#"
          "0d1117}"
          ".grid{stroke:#30363d}\n",
          file);
    for (int i = 0; i < PLOT_SERIES; i++)
        fprintf(file, ".line.s%d{stroke:%s}.dot.s%d,.n%d{fill:%s}\n", i, dark[i], i, i, dark[i]);
    fputs("}\n</style>\n", file);
}

static void write_chart(FILE *file, const plot *chart) {
    axis x = {INFINITY, -INFINITY, 0}, y = {INFINITY, -INFINITY, chart->linear_y};
    if (chart->linear_y) widen(&y, 0);
    for (size_t s = 0; s < chart->count; s++)
        for (size_t i = 0; i < chart->series[s].count; i++) {
            widen(&x, chart->series[s].x[i]);
            widen(&y, chart->series[s].y[i]);
        }
    const double margin = 0.06 * (y.high - y.low);
    y.high += margin;
    if (!chart->linear_y) y.low -= margin;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
            WIDTH, HEIGHT);
    write_text(file, chart->title);
    fputs("\">\n", file);
    write_style(file);
    fprintf(file, "<rect class=\"back\" width=\"%d\" height=\"%d\"/>\n", WIDTH, HEIGHT);
    label(file, LEFT, 28, "title", "start", chart->title);
    x_ticks(file, &x, chart->x_base);
    y_ticks(file, &y);
    label(file, LEFT, TOP - 10, "axis", "start", chart->y_title);
    label(file, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - BOTTOM + 40, "axis", "middle", chart->x_title);
    for (size_t s = 0; s < chart->count; s++) write_series(file, &chart->series[s], s, &x, &y);
    write_names(file, chart, &x, &y);
    label(file, LEFT, HEIGHT - 16, "note", "start", chart->note);
    fputs("</svg>\n", file);
}

const char *plot_svg_write(const plot *chart, const char *path) {
    FILE *file = fopen(path, "w");
    if (file == NULL) return strerror(errno);
    write_chart(file, chart);
    const int failed = ferror(file);
    return fclose(file) != 0 || failed ? strerror(errno) : NULL;
}
