/* Colours and a progress bar, both only where a person looks at a terminal. */
#ifndef ATTN_TOOL_TERMINAL_H
#define ATTN_TOOL_TERMINAL_H

#include <stdio.h>

/* For --color: AUTO is what the functions below say; ALWAYS and NEVER hold whatever the stream is. */
typedef enum terminal_colour { TERMINAL_AUTO, TERMINAL_ALWAYS, TERMINAL_NEVER } terminal_colour;
extern const char *const terminal_colour_names[]; /* ended by null */
void terminal_set_colour(terminal_colour colour);

/* The width of the terminal behind a stream, in columns; 80 if it is none. */
int terminal_columns(FILE *stream);

/* Escape sequences for a stream, or "" if it is no terminal, NO_COLOR is set or TERM is dumb. */
const char *terminal_bold(FILE *stream);
const char *terminal_dim(FILE *stream);
const char *terminal_green(FILE *stream);
const char *terminal_red(FILE *stream);
const char *terminal_cyan(FILE *stream);
const char *terminal_plain(FILE *stream);

/* Draws or redraws the bar on stderr: part of whole done, at work on label. Silent if stderr is no terminal. */
void terminal_progress(double part, double whole, const char *label);

/* Takes the bar away, before other text is printed. */
void terminal_progress_clear(void);

/* Bytes as "12.3 MB" (decimal units) into text, which is returned. */
enum { TERMINAL_BYTES_SIZE = 32 };
const char *terminal_bytes(double bytes, char text[TERMINAL_BYTES_SIZE]);

#endif
