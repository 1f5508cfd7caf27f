/* Facts of the machine, its clock, and an allocator that counts. */
#ifndef ATTN_TOOL_MACHINE_H
#define ATTN_TOOL_MACHINE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

double machine_seconds(void);
void machine_sleep(double seconds);

int machine_processors(void);       /* that this process may use */
int64_t machine_cache_bytes(void);  /* the last-level cache; 0: unknown */
int64_t machine_l2_bytes(void);     /* a processor's second-level cache; 0: unknown */
int64_t machine_memory_bytes(void); /* memory that is free to take; 0: unknown */

/* The processor's name into text, which is returned. */
enum { MACHINE_NAME_SIZE = 128 };
const char *machine_name(char text[MACHINE_NAME_SIZE]);

/*
 * Memory of pages of 2 MB, where the system has them, or of the smallest ones; free() returns it. NULL if there is none.
 */
void *machine_pages(size_t bytes, int small);

/* The alloc and free callbacks of a context; user is a machine_memory, which starts as zeros. */
typedef struct machine_memory {
    atomic_size_t live, peak;
} machine_memory;

void *machine_alloc(void *user, size_t bytes);
void machine_free(void *user, void *pointer);

/* Middle of values (their mean where there are two), which are sorted on the way. */
double machine_median(double *values, size_t count);

#endif
