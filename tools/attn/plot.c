/*
 * attn plot: a line chart of a CSV file with one line for each value of a column, such as the results of attn bench and
 * those in bench/results. Lines of the file that begin with # are comments.
 */
#include "flags.h"
#include "plot_svg.h"
#include "tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 40, CELL = 160, LINE = 4096, POINTS = 64 };

typedef struct settings {
    flag_list files, where;
    const char *x, *y, *by, *svg, *title, *note, *x_title, *y_title, *roof;
    int base, linear;
} settings;

typedef char cells[COLUMNS][CELL];

typedef struct line_of_points {
    char name[CELL];
    double x[POINTS], y[POINTS];
    size_t count;
} line_of_points;

typedef struct chart_data {
    line_of_points lines[PLOT_SERIES];
    size_t count;
} chart_data;

/* ---------------------------------------------------------------- the file */

/* Cells of a line, quotes taken off; their number. */
static int split(const char *line, cells out) {
    int count = 0;
    while (count < COLUMNS) {
        size_t used = 0;
        const int quoted = *line == '"';
        line += quoted;
        for (; *line != 0 && *line != '\n' && *line != '\r' && (quoted || *line != ','); line++) {
            if (quoted && *line == '"' && *++line != '"') break;
            if (used < CELL - 1) out[count][used++] = *line;
        }
        out[count++][used] = 0;
        if (*line != ',') break;
        line++;
    }
    return count;
}

static int find(cells header, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(header[i], name) == 0) return i;
    return -1;
}

/* "COLUMN=VALUE" holds for a row; -1: there is no such column. */
static int holds(cells header, cells row, int count, const char *condition) {
    char name[CELL];
    const size_t length = strcspn(condition, "=");
    snprintf(name, sizeof name, "%.*s", (int)length, condition);
    const int column = find(header, count, name);
    return column < 0 ? -1 : strcmp(row[column], condition + length + 1) == 0;
}

static line_of_points *line_for(chart_data *data, const char *name) {
    for (size_t i = 0; i < data->count; i++)
        if (strcmp(data->lines[i].name, name) == 0) return &data->lines[i];
    if (data->count == PLOT_SERIES) return NULL;
    line_of_points *made = &data->lines[data->count++];
    snprintf(made->name, sizeof made->name, "%s", name);
    made->count = 0;
    return made;
}

/* Keeps a line's points in the order of x. */
static int add_point(line_of_points *line, double x, double y) {
    if (line->count == POINTS) return 0;
    size_t at = line->count++;
    for (; at > 0 && line->x[at - 1] > x; at--) {
        line->x[at] = line->x[at - 1];
        line->y[at] = line->y[at - 1];
    }
    line->x[at] = x;
    line->y[at] = y;
    return 1;
}

static int add_row(const settings *s, const char *path, cells header, cells row, int count,
                   chart_data *data) {
    const int x = find(header, count, s->x), y = find(header, count, s->y), by = find(header, count, s->by);
    const char *missing = x < 0 ? s->x : y < 0 ? s->y : by < 0 ? s->by : NULL;
    for (size_t i = 0; i < s->where.count; i++) {
        const int answer = holds(header, row, count, s->where.items[i]);
        if (answer < 0) missing = s->where.items[i];
        if (answer == 0) return TOOL_OK;
    }
    if (missing != NULL) return tool_failure("plot", "%s has no column %s", path, missing);
    char *x_end, *y_end;
    const double x_value = strtod(row[x], &x_end), y_value = strtod(row[y], &y_end);
    if (*x_end != 0 || *y_end != 0 || !(x_value > 0) || !(y_value > 0) || !isfinite(x_value) ||
        !isfinite(y_value))
        return tool_failure("plot", "%s: '%s' and '%s' are not two numbers above 0", path, row[x], row[y]);
    char name[CELL]; /* a line called "false" would say nothing */
    const int boolean = strcmp(row[by], "true") == 0 || strcmp(row[by], "false") == 0;
    snprintf(name, sizeof name, "%s%s%.100s", boolean ? s->by : "", boolean ? ": " : "", row[by]);
    line_of_points *line = line_for(data, name);
    if (line == NULL)
        return tool_failure("plot", "%s: column %s has more than %d values; --where can choose", path, s->by,
                            PLOT_SERIES);
    if (!add_point(line, x_value, y_value))
        return tool_failure("plot", "%s: %s has more than %d points; --where can choose", path, line->name,
                            POINTS);
    return TOOL_OK;
}

static int read_file(const settings *s, const char *path, chart_data *data) {
    static cells header, row;
    char line[LINE];
    int columns = 0, status = TOOL_OK;
    FILE *file = fopen(path, "r");
    if (file == NULL) return tool_failure("plot", "%s: cannot open: %s", path, strerror(errno));
    while (status == TOOL_OK && fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#' || line[0] == '\n') continue;
        if (columns == 0) {
            columns = split(line, header);
            continue;
        }
        if (split(line, row) != columns)
            status = tool_failure("plot", "%s: a row has not as many cells as the header has names", path);
        else
            status = add_row(s, path, header, row, columns, data);
    }
    if (status == TOOL_OK && ferror(file))
        status = tool_failure("plot", "%s: cannot read: %s", path, strerror(errno));
    fclose(file);
    return status;
}

/* ---------------------------------------------------------------- the picture */

/* "989e12,4.8e12" as a roof over the data's range: y = min(peak, rate * x), in the units of x and y. */
static int make_roof(const settings *s, const chart_data *data, double x[3], double y[3]) {
    double peak, rate, low = INFINITY, high = 0;
    char *end;
    peak = strtod(s->roof, &end);
    if (*end != ',') return 0;
    rate = strtod(end + 1, &end);
    if (*end != 0 || !(peak > 0) || !(rate > 0)) return 0;
    for (size_t i = 0; i < data->count; i++)
        for (size_t n = 0; n < data->lines[i].count; n++) {
            low = fmin(low, data->lines[i].x[n]);
            high = fmax(high, data->lines[i].x[n]);
        }
    x[0] = fmin(low, peak / rate) / 2, x[1] = peak / rate, x[2] = fmax(high, peak / rate) * 2;
    y[0] = rate * x[0], y[1] = y[2] = peak;
    return 1;
}

static int draw(const settings *s, const chart_data *data, const char *command) {
    plot_series series[PLOT_SERIES];
    double roof_x[3], roof_y[3];
    size_t count = data->count;
    for (size_t i = 0; i < count; i++)
        series[i] =
            (plot_series){data->lines[i].name, data->lines[i].x, data->lines[i].y, data->lines[i].count, 0};
    if (s->roof != NULL) {
        if (count == PLOT_SERIES)
            return tool_failure("plot", "--roof needs one of the %d lines", PLOT_SERIES);
        if (!make_roof(s, data, roof_x, roof_y))
            return tool_usage_error("plot", "--roof is '%s'; allowed is PEAK,RATE, as in 606,4.8", s->roof);
        series[count++] = (plot_series){"roof", roof_x, roof_y, 3, 1};
    }
    const plot chart = {.title = s->title != NULL ? s->title : s->y,
                        .note = s->note != NULL ? s->note : command,
                        .x_title = s->x_title != NULL ? s->x_title : s->x,
                        .y_title = s->y_title != NULL ? s->y_title : s->y,
                        .series = series,
                        .count = count,
                        .x_base = s->base == 0 ? 2 : 10,
                        .linear_y = s->linear};
    const char *trouble = plot_svg_write(&chart, s->svg);
    return trouble != NULL ? tool_failure("plot", "--svg %s: %s", s->svg, trouble) : TOOL_OK;
}

/* ---------------------------------------------------------------- the command */

static const char *const base_names[] = {"2", "10", NULL};

static int parse(int argc, char **argv, settings *s) {
    const flag_row rows[] = {
        flag_section("Data"),
        flag_text("--x", &s->x, "COLUMN", "along the bottom, numbers above 0"),
        flag_text("--y", &s->y, "COLUMN", "upwards, numbers above 0"),
        flag_text("--by", &s->by, "COLUMN", "a line for each of its values"),
        flag_many("--where", &s->where, "COLUMN=VALUE", "only rows that have it; may be given again"),
        flag_section("Picture"),
        flag_text("--svg", &s->svg, "FILE", "where it goes"),
        flag_text("--title", &s->title, "TEXT", "above it"),
        flag_text("--x-title", &s->x_title, "TEXT", "below; default: the column"),
        flag_text("--y-title", &s->y_title, "TEXT", "above the axis; default: the column"),
        flag_text("--note", &s->note, "TEXT", "below it; default: the file"),
        flag_choice("--base", &s->base, base_names, "of the ticks of x; default 2"),
        flag_switch("--linear", &s->linear, "y from 0, not logarithmic"),
        flag_text("--roof", &s->roof, "PEAK,RATE", "a roofline: y at most PEAK, and at most RATE times x"),
    };
    const flag_command command = {
        "plot",
        "--x COLUMN --y COLUMN --by COLUMN --svg FILE [OPTION]... CSV...",
        "Draws columns of CSV files, as attn bench writes them and bench/results has them, as one SVG\n"
        "with a line for each value of a column. It follows the reader's light or dark setting.",
        rows,
        FLAG_COUNT(rows),
        &s->files};
    const int status = flags_parse(&command, argc, argv);
    if (status != FLAGS_GO) return status;
    const char *missing = s->x == NULL     ? "--x"
                          : s->y == NULL   ? "--y"
                          : s->by == NULL  ? "--by"
                          : s->svg == NULL ? "--svg"
                                           : NULL;
    if (missing != NULL) return tool_usage_error("plot", "%s is missing (see attn plot --help)", missing);
    if (s->files.count == 0) return tool_usage_error("plot", "no CSV file is given");
    for (size_t i = 0; i < s->where.count; i++)
        if (strchr(s->where.items[i], '=') == NULL)
            return tool_usage_error("plot", "--where is '%s'; allowed is COLUMN=VALUE", s->where.items[i]);
    return FLAGS_GO;
}

int attn_tool_plot(int argc, char **argv) {
    static chart_data data;
    settings s = {.base = 0};
    int status = parse(argc, argv, &s);
    if (status != FLAGS_GO) return status;
    status = TOOL_OK;
    for (size_t i = 0; status == TOOL_OK && i < s.files.count; i++)
        status = read_file(&s, s.files.items[i], &data);
    if (status == TOOL_OK && data.count == 0) status = tool_failure("plot", "no row is left to draw");
    return status == TOOL_OK ? draw(&s, &data, s.files.items[0]) : status;
}
