/* Errors end the program with a sentence. */
#ifndef ATTN_EXAMPLE_FAIL_H
#define ATTN_EXAMPLE_FAIL_H

#include <stddef.h>
#include <stdint.h>

_Noreturn void fail(const char *format, ...);

/* count elements of so many bytes, all zero, to be freed. */
void *need_memory(int64_t count, size_t size);

#endif
