#define _DEFAULT_SOURCE /* struct winsize */
#define _DARWIN_C_SOURCE
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int progress_drawn;
static terminal_colour chosen = TERMINAL_AUTO;

static int is_terminal(FILE *stream) {
    const char *term = getenv("TERM");
    return term != NULL && strcmp(term, "dumb") != 0 && isatty(fileno(stream));
}

const char *const terminal_colour_names[] = {"auto", "always", "never", NULL};

void terminal_set_colour(terminal_colour colour) { chosen = colour; }

static const char *escape(FILE *stream, const char *sequence) {
    if (chosen != TERMINAL_AUTO) return chosen == TERMINAL_ALWAYS ? sequence : "";
    const char *no_colour = getenv("NO_COLOR");
    if (no_colour != NULL && no_colour[0] != 0) return "";
    return is_terminal(stream) ? sequence : "";
}

const char *terminal_bold(FILE *stream) { return escape(stream, "\033[1m"); }
const char *terminal_dim(FILE *stream) { return escape(stream, "\033[2m"); }
const char *terminal_green(FILE *stream) { return escape(stream, "\033[32m"); }
const char *terminal_red(FILE *stream) { return escape(stream, "\033[31m"); }
const char *terminal_cyan(FILE *stream) { return escape(stream, "\033[36m"); }
const char *terminal_plain(FILE *stream) { return escape(stream, "\033[0m"); }

int terminal_columns(FILE *stream) {
    struct winsize size;
    const int known = isatty(fileno(stream)) && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0;
    return known && size.ws_col > 0 ? size.ws_col : 80;
}

void terminal_progress(double part, double whole, const char *label) {
    enum { WIDTH = 24 };
    if (!is_terminal(stderr)) return;
    const double share = whole > 0 ? part / whole : 0;
    const int filled = share >= 1 ? WIDTH : share <= 0 ? 0 : (int)(share * WIDTH);
    char bar[WIDTH + 1];
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)filled);
    bar[WIDTH] = 0;
    fprintf(stderr, "\r[%s] %3.0f%%  %.48s\033[K", bar, share * 100, label);
    fflush(stderr);
    progress_drawn = 1;
}

void terminal_progress_clear(void) {
    if (!progress_drawn) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress_drawn = 0;
}

const char *terminal_bytes(double bytes, char text[TERMINAL_BYTES_SIZE]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int unit = 0;
    while (bytes >= 999.5 && unit < 5) bytes /= 1000, unit++;
    snprintf(text, TERMINAL_BYTES_SIZE, unit > 0 && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes,
             units[unit]);
    return text;
}
