#define _POSIX_C_SOURCE 200809L
#include "bench_shapes.h"

#include "flags.h"
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char blanks[] = " \t\r\n";

static int bad(const char *origin, const char *text) {
    return tool_usage_error("bench",
                            "%s is '%s'; allowed is B,Hq,Hkv,Sq,Sk,D[,Dv], each from 1 up, then 'causal' or"
                            " 'decode' or both",
                            origin, text);
}

int bench_shapes_add(bench_shapes *shapes, const char *origin, const char *text) {
    bench_shape shape = {0};
    int64_t numbers[7];
    char copy[256], *rest = copy;
    if (strlen(text) >= sizeof copy) return bad(origin, text);
    strcpy(copy, text);
    const char *first = strtok_r(rest, blanks, &rest);
    const size_t count = first != NULL ? flags_parse_integers(first, 1, INT32_MAX, numbers, 7) : 0;
    if (count < 6) return bad(origin, text);
    for (const char *word; (word = strtok_r(NULL, blanks, &rest)) != NULL;) {
        if (strcmp(word, "causal") == 0)
            shape.causal = 1;
        else if (strcmp(word, "decode") == 0)
            shape.decode = 1;
        else
            return bad(origin, text);
    }
    shape.batch = numbers[0];
    shape.heads_q = numbers[1];
    shape.heads_kv = numbers[2];
    shape.seqlen_q = numbers[3];
    shape.seqlen_k = numbers[4];
    shape.dim_qk = numbers[5];
    shape.dim_v = count == 7 ? numbers[6] : numbers[5];

    bench_shape *items = realloc(shapes->items, (shapes->count + 1) * sizeof *items);
    if (items == NULL) return tool_failure("bench", "no memory for %zu shapes", shapes->count + 1);
    shapes->items = items;
    shapes->items[shapes->count++] = shape;
    return TOOL_OK;
}

int bench_shapes_add_file(bench_shapes *shapes, const char *path) {
    char line[1024], origin[512];
    int status = TOOL_OK;
    FILE *file = fopen(path, "r");
    if (file == NULL) return tool_failure("bench", "%s: cannot open: %s", path, strerror(errno));
    for (int number = 1; status == TOOL_OK && fgets(line, sizeof line, file) != NULL; number++) {
        line[strcspn(line, "#")] = 0;
        size_t length = strlen(line);
        while (length > 0 && strchr(blanks, line[length - 1]) != NULL) line[--length] = 0;
        if (length == 0) continue;
        snprintf(origin, sizeof origin, "%s:%d", path, number);
        status = bench_shapes_add(shapes, origin, line + strspn(line, blanks));
    }
    if (status == TOOL_OK && ferror(file))
        status = tool_failure("bench", "%s: cannot read: %s", path, strerror(errno));
    fclose(file);
    return status;
}

void bench_shapes_free(bench_shapes *shapes) {
    free(shapes->items);
    shapes->items = NULL;
    shapes->count = 0;
}

const char *bench_shape_text(const bench_shape *s, char text[BENCH_SHAPE_TEXT_SIZE]) {
    int used = snprintf(text, BENCH_SHAPE_TEXT_SIZE, "%lld,%lld,%lld,%lld,%lld,%lld", (long long)s->batch,
                        (long long)s->heads_q, (long long)s->heads_kv, (long long)s->seqlen_q,
                        (long long)s->seqlen_k, (long long)s->dim_qk);
    if (s->dim_v != s->dim_qk)
        used += snprintf(text + used, BENCH_SHAPE_TEXT_SIZE - (size_t)used, ",%lld", (long long)s->dim_v);
    snprintf(text + used, BENCH_SHAPE_TEXT_SIZE - (size_t)used, "%s", s->causal ? " causal" : "");
    return text;
}
