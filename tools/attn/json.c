#include "json.h"

#include <inttypes.h>
#include <math.h>

static void put_text(FILE *file, const char *text) {
    fputc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(file, "\\%c", *c);
        else if (*c == '\n')
            fputs("\\n", file);
        else if (*c < ' ')
            fprintf(file, "\\u%04x", (unsigned)*c);
        else
            fputc(*c, file);
    }
    fputc('"', file);
}

/* Comma, new line and key of the next item. */
static void begin_item(json *out, const char *key) {
    if (out->depth > 0) fprintf(out->file, "%s\n%*s", out->used[out->depth] ? "," : "", 2 * out->depth, "");
    out->used[out->depth] = 1;
    if (key == NULL) return;
    put_text(out->file, key);
    fputs(": ", out->file);
}

void json_open(json *out, const char *key, char bracket) {
    begin_item(out, key);
    fputc(bracket, out->file);
    out->used[++out->depth] = 0;
}

void json_close(json *out, char bracket) {
    const int used = out->used[out->depth--];
    if (used) fprintf(out->file, "\n%*s", 2 * out->depth, "");
    fputc(bracket, out->file);
    if (out->depth == 0) fputc('\n', out->file);
}

void json_text(json *out, const char *key, const char *value) {
    begin_item(out, key);
    if (value == NULL)
        fputs("null", out->file);
    else
        put_text(out->file, value);
}

void json_integer(json *out, const char *key, int64_t value) {
    begin_item(out, key);
    fprintf(out->file, "%" PRId64, value);
}

void json_number(json *out, const char *key, double value) {
    begin_item(out, key);
    if (isfinite(value))
        fprintf(out->file, "%.6g", value);
    else
        fputs("null", out->file);
}

void json_boolean(json *out, const char *key, int value) {
    begin_item(out, key);
    fputs(value ? "true" : "false", out->file);
}
