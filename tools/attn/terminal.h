/* Colours and a progress bar, both only where a person looks at a terminal. */
#ifndef ATTN_TOOL_TERMINAL_H
#define ATTN_TOOL_TERMINAL_H

#include <stdio.h>

/* Escape sequences for a stream, or "" if it is no terminal, NO_COLOR is set or TERM is dumb. */
const char *terminal_bold(FILE *stream);
const char *terminal_dim(FILE *stream);
const char *terminal_green(FILE *stream);
const char *terminal_red(FILE *stream);
const char *terminal_plain(FILE *stream);

/* Draws or redraws the bar on stderr: part of whole done, at work on label. Silent if stderr is no terminal. */
void terminal_progress(double part, double whole, const char *label);

/* Takes the bar away, before other text is printed. */
void terminal_progress_clear(void);

/* Bytes as "12.3 MB" (decimal units) into text, which is returned. */
enum { TERMINAL_BYTES_SIZE = 32 };
const char *terminal_bytes(double bytes, char text[TERMINAL_BYTES_SIZE]);

#endif
