#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#endif

#include "cpu/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

static int32_t processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return 1;
}

int32_t attni_default_threads(int own_parallel_for) {
    int32_t threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    if (own_parallel_for) threads = processors();
    if (threads < 1) threads = 1;
    return threads < ATTNI_THREADS_LIMIT ? threads : ATTNI_THREADS_LIMIT;
}

void attni_yield(void) {
#if defined(__unix__) || defined(__APPLE__)
    sched_yield();
#endif
}

int32_t attni_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

void attni_default_parallel_for(void *pool, int64_t count, attn_task_fn task, void *args) {
    (void)pool;
#ifdef _OPENMP
    if (count > 1) {
#pragma omp parallel for schedule(static, 1) num_threads((int)count)
        for (int64_t i = 0; i < count; i++) task(args, i);
        return;
    }
#endif
    for (int64_t i = 0; i < count; i++) task(args, i);
}
