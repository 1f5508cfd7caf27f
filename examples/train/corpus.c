#include "corpus.h"
#include "fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *read_file(const char *path, int64_t *count) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s: %s", path, strerror(errno));
    if (fseek(file, 0, SEEK_END) != 0) fail("%s: %s", path, strerror(errno));
    const long bytes = ftell(file);
    if (bytes < 0) fail("%s: %s", path, strerror(errno));
    rewind(file);
    uint8_t *text = need_memory(bytes, 1);
    if (fread(text, 1, (size_t)bytes, file) != (size_t)bytes) fail("%s: cannot be read", path);
    fclose(file);
    *count = bytes;
    return text;
}

corpus corpus_read(const char *path, int64_t context) {
    corpus text = {0};
    text.ids = read_file(path, &text.count);
    text.trained = text.count - text.count / 10;
    if (text.count / 10 <= context) fail("%s: a tenth of it is no longer than a sequence", path);

    int occurs[256] = {0};
    for (int64_t i = 0; i < text.count; i++) occurs[text.ids[i]] = 1;
    for (int c = 0; c < 256; c++) {
        text.id[c] = occurs[c] ? text.vocabulary : -1;
        if (occurs[c]) text.character[text.vocabulary++] = (uint8_t)c;
    }
    for (int64_t i = 0; i < text.count; i++) text.ids[i] = (uint8_t)text.id[text.ids[i]];
    return text;
}

void corpus_destroy(corpus *text) { free(text->ids); }

static void sequence_at(const corpus *text, int64_t at, int64_t context, uint8_t *ids, uint8_t *targets) {
    memcpy(ids, text->ids + at, (size_t)context);
    memcpy(targets, text->ids + at + 1, (size_t)context);
}

void corpus_batch(const corpus *text, dice *d, int64_t batch, int64_t context, uint8_t *ids,
                  uint8_t *targets) {
    for (int64_t b = 0; b < batch; b++)
        sequence_at(text, dice_below(d, text->trained - context), context, ids + b * context,
                    targets + b * context);
}

int corpus_held_out(const corpus *text, int64_t index, int64_t context, uint8_t *ids, uint8_t *targets) {
    const int64_t at = text->trained + index * context;
    if (at + context >= text->count) return 0;
    sequence_at(text, at, context, ids, targets);
    return 1;
}
