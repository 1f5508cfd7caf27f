/* The default parallel_for: OpenMP's threads where the build has them, else a plain loop. */
#ifndef ATTNI_PARALLEL_H
#define ATTNI_PARALLEL_H

#include "attn/attn.h"

#define ATTNI_THREADS_LIMIT 4096

/* How many tasks to cut work into when nobody said: processors that this process may use. */
int32_t attni_default_threads(int own_parallel_for);

int32_t attni_has_openmp(void);
void attni_yield(void); /* lets another thread run, in a loop that waits for it */
void attni_default_parallel_for(void *pool, int64_t count, attn_task_fn task, void *args);

#endif
