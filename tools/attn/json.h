/* Writes JSON, indented, with the commas in their places. */
#ifndef ATTN_TOOL_JSON_H
#define ATTN_TOOL_JSON_H

#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH = 8 };

typedef struct json {
    FILE *file;
    int depth;
    int used[JSON_DEPTH]; /* whether a level has an item already */
} json;

/* key is null inside an array and at the top. Not finite numbers become null. */
void json_open(json *out, const char *key, char bracket); /* '{' or '[' */
void json_close(json *out, char bracket);                 /* '}' or ']' */
void json_text(json *out, const char *key, const char *value); /* null becomes null */
void json_integer(json *out, const char *key, int64_t value);
void json_number(json *out, const char *key, double value);
void json_boolean(json *out, const char *key, int value);

#endif
