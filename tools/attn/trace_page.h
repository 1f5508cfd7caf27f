/* The page of `attn trace --html`: tools/attn/trace_page.html with the recorded runs in it as JSON. */
#ifndef ATTN_TOOL_TRACE_PAGE_H
#define ATTN_TOOL_TRACE_PAGE_H

#include "trace_record.h"

enum {
    TRACE_PAGE_LIMIT = 300000, /* bytes of a page */
    TRACE_PAGE_TOKENS = 16,    /* queries or keys that it has room to draw */
    TRACE_PAGE_DIM = 8,
    TRACE_MESSAGE_SIZE = 256
};

/* A run by a name that the page's chapters know it by. */
typedef struct trace_named {
    const char *name;
    const trace_run *run;
} trace_named;

/* Writes the page. 1, or 0 with one sentence in message. */
int trace_page_write(const char *path, const trace_named *runs, int count, char message[TRACE_MESSAGE_SIZE]);

/* The page's source, made by the build (embed_text.cmake): ended by a zero. */
extern const unsigned char trace_page_source[];

#endif
