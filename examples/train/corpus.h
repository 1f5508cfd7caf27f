/* A text as numbers: every character that occurs in it is a class. Its last tenth is held out of training. */
#ifndef ATTN_EXAMPLE_CORPUS_H
#define ATTN_EXAMPLE_CORPUS_H

#include <stdint.h>

#include "dice.h"

typedef struct corpus {
    int64_t count; /* characters */
    int64_t trained; /* the first so many are trained on */
    uint8_t *ids; /* (count) */
    int vocabulary;
    uint8_t character[256]; /* of an id */
    int id[256]; /* of a character; -1: does not occur */
} corpus;

/* Ends the program when the file cannot be read, or is shorter than one sequence in its smaller part. */
corpus corpus_read(const char *path, int64_t context);
void corpus_destroy(corpus *text);

/* batch sequences from random places of the trained part, and the characters after theirs. */
void corpus_batch(const corpus *text, dice *d, int64_t batch, int64_t context, uint8_t *ids,
                  uint8_t *targets);

/* Sequence index of the held-out part, which lie end to end. 0: there is none. */
int corpus_held_out(const corpus *text, int64_t index, int64_t context, uint8_t *ids, uint8_t *targets);

#endif
