/* One sentence an error, one text per thread (attn_last_error). */
#ifndef ATTNI_STATUS_H
#define ATTNI_STATUS_H

#include "attn/attn.h"

#if defined(__GNUC__)
#define ATTNI_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define ATTNI_PRINTF(text, first)
#endif

/* Writes this thread's sentence and returns status, so that a caller can return it. */
attn_status attni_fail(attn_status status, const char *format, ...) ATTNI_PRINTF(2, 3);

/* Returns from the caller when an expression's status is not ATTN_OK. */
#define ATTNI_TRY(expression)                                                                                \
    do {                                                                                                     \
        const attn_status attni_status_ = (expression);                                                      \
        if (attni_status_ != ATTN_OK) return attni_status_;                                                  \
    } while (0)

#endif
