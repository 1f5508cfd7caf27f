#define _GNU_SOURCE /* sched_getaffinity */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif

double machine_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void machine_sleep(double seconds) {
    const struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

int machine_processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

/* A line of Linux's description of cache number index, in text; 0 if there is none. */
static int read_cache(int index, const char *what, char text[32]) {
    char path[80];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, what);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    const int found = fgets(text, 32, file) != NULL;
    fclose(file);
    return found;
}

static int64_t cache_size(int index) {
    char text[32], unit = 0;
    long long size = 0;
    if (!read_cache(index, "size", text) || sscanf(text, "%lld%c", &size, &unit) != 2) return 0;
    return size * (unit == 'K' ? 1024 : unit == 'M' ? 1 << 20 : 1);
}

int64_t machine_cache_bytes(void) {
    /* The kernel's view first: the C library's is empty on some processors and in some containers. */
    for (int index = 9; index >= 0; index--)
        if (cache_size(index) > 0) return cache_size(index);
#if defined(_SC_LEVEL3_CACHE_SIZE)
    const long level3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (level3 > 0) return level3;
#endif
    return 0;
}

int64_t machine_l2_bytes(void) {
    char level[32], type[32];
    for (int index = 0; index < 10; index++)
        if (read_cache(index, "level", level) && read_cache(index, "type", type) && level[0] == '2' &&
            strncmp(type, "Instruction", 11) != 0)
            return cache_size(index);
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long level2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (level2 > 0) return level2;
#endif
    return 0;
}

int64_t machine_memory_bytes(void) {
    long long kilobytes = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %lld", &kilobytes) == 1) break;
    fclose(file);
    return kilobytes * 1024;
}

const char *machine_name(char text[MACHINE_NAME_SIZE]) {
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    strcpy(text, "unknown processor");
    if (file == NULL) return text;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || value == NULL) continue;
        snprintf(text, MACHINE_NAME_SIZE, "%.120s", value + 1 + strspn(value + 1, " "));
        text[strcspn(text, "\n")] = 0;
        break;
    }
    fclose(file);
    return text;
}

/* ---------------------------------------------------------------- memory */

/* A block's size lies in the 64 bytes before it, so that free knows what to subtract. */
void *machine_pages(size_t bytes, int small) {
    const size_t page = (size_t)2 << 20;
    if (bytes > SIZE_MAX - page) return NULL;
    const size_t whole = (bytes + page - 1) / page * page;
    void *memory = aligned_alloc(page, whole);
#if defined(__linux__) /* what is only advice may fail */
    if (memory != NULL) madvise(memory, whole, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
#else
    (void)small;
#endif
    return memory;
}

void *machine_alloc(void *user, size_t bytes) {
    machine_memory *memory = user;
    if (bytes > SIZE_MAX - 128) return NULL;
    char *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (block == NULL) return NULL;
    memcpy(block, &bytes, sizeof bytes);
    const size_t live = atomic_fetch_add(&memory->live, bytes) + bytes;
    size_t peak = atomic_load(&memory->peak);
    while (live > peak && !atomic_compare_exchange_weak(&memory->peak, &peak, live)) {
    }
    return block + 64;
}

void machine_free(void *user, void *pointer) {
    machine_memory *memory = user;
    char *block = (char *)pointer - 64;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    atomic_fetch_sub(&memory->live, bytes);
    free(block);
}

/* ---------------------------------------------------------------- statistics */

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double machine_median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
    return count == 0 ? 0 : 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}
