/*
 * Drives a fuzz target where there is no libFuzzer: first every file of the corpus as it is, a plain
 * regression test; then random mutations of them.
 *
 *   fuzz_npy [-runs=N] [-seconds=N] [-seed=N] FILE_OR_FOLDER...
 *
 * A run that aborts or faults leaves its input in the file crash-input. (Under AddressSanitizer set
 * ASAN_OPTIONS=abort_on_error=1, so that it aborts.)
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_LIMIT = 4096, CORPUS_LIMIT = 1024 };

typedef struct input {
    uint8_t bytes[INPUT_LIMIT];
    size_t size;
} input;

static input *corpus[CORPUS_LIMIT];
static size_t corpus_count;
static input current;
static uint64_t random_state = 1;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t limit) { return (size_t)(next_random() % limit); }

/* ---------------------------------------------------------------- crashes */

static void keep_input(int number) {
    static const char said[] = "the input is in crash-input\n";
    const int file = open("crash-input", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file >= 0 && write(file, current.bytes, current.size) == (ssize_t)current.size && close(file) == 0 &&
        write(STDERR_FILENO, said, sizeof said - 1) < 0)
        _exit(3);
    signal(number, SIG_DFL);
    raise(number);
}

static void run_current(void) { LLVMFuzzerTestOneInput(current.bytes, current.size); }

/* ---------------------------------------------------------------- corpus */

static void add_input(const input *one) {
    if (corpus_count == CORPUS_LIMIT) return;
    corpus[corpus_count] = malloc(sizeof *one);
    if (corpus[corpus_count] != NULL) *corpus[corpus_count++] = *one;
}

static int add_file(const char *path) {
    static input one;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 0;
    }
    one.size = fread(one.bytes, 1, INPUT_LIMIT, file);
    fclose(file);
    add_input(&one);
    return 1;
}

static int add_path(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL) return add_file(path);
    int good = 1;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        good &= add_file(name);
    }
    closedir(folder);
    return good;
}

/* ---------------------------------------------------------------- mutations */

static void insert(size_t at, size_t count) {
    if (current.size + count > INPUT_LIMIT) return;
    memmove(current.bytes + at + count, current.bytes + at, current.size - at);
    for (size_t i = 0; i < count; i++) current.bytes[at + i] = (uint8_t)next_random();
    current.size += count;
}

static void remove_bytes(size_t at, size_t count) {
    if (at + count > current.size) count = current.size - at;
    memmove(current.bytes + at, current.bytes + at + count, current.size - at - count);
    current.size -= count;
}

static void mutate_once(void) {
    static const uint8_t telling[] = {0,   1,   0x7f, 0x80, 0xff, '0', '9', '(', ')',
                                      '{', '}', '\'', ',',  ':',  '<', '>', '\n'};
    const size_t at = current.size > 0 ? below(current.size) : 0;
    if (current.size == 0) {
        insert(0, 1 + below(32));
        return;
    }
    switch (below(8)) {
    case 0: current.bytes[at] ^= (uint8_t)(1u << below(8)); break;
    case 1: current.bytes[at] = (uint8_t)next_random(); break;
    case 2: current.bytes[at] = telling[below(sizeof telling)]; break;
    case 3: insert(at, 1 + below(8)); break;
    case 4: remove_bytes(at, 1 + below(8)); break;
    case 5: current.size = at; break;
    case 6: current.bytes[at] = current.bytes[below(current.size)]; break;
    default: { /* a piece of another input */
        const input *other = corpus[below(corpus_count)];
        if (other->size == 0) break;
        const size_t from = below(other->size);
        size_t count = 1 + below(other->size - from);
        if (count > current.size - at) count = current.size - at;
        memcpy(current.bytes + at, other->bytes + from, count);
    }
    }
}

/* ---------------------------------------------------------------- main */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
    static const input empty;
    unsigned long long runs = 20000, seconds = 0, done = 0, seed = 1;
    for (int i = 1; i < argc; i++) {
        if (sscanf(argv[i], "-runs=%llu", &runs) == 1 || sscanf(argv[i], "-seed=%llu", &seed) == 1) continue;
        if (sscanf(argv[i], "-seconds=%llu", &seconds) == 1) continue;
        if (argv[i][0] == '-') {
            fprintf(stderr, "%s: unknown option %s; allowed are -runs=N, -seconds=N, -seed=N\n", argv[0],
                    argv[i]);
            return 2;
        }
        if (!add_path(argv[i])) return 1;
    }
    signal(SIGABRT, keep_input);
    signal(SIGSEGV, keep_input);
    random_state = seed;
    add_input(&empty);
    for (size_t i = 0; i < corpus_count; i++) {
        current = *corpus[i];
        run_current();
    }
    const double start = now();
    /* With -seconds the time alone decides. */
    for (; seconds > 0 ? now() - start < (double)seconds : done < runs; done++) {
        current = *corpus[below(corpus_count)];
        for (size_t i = 1 + below(6); i > 0; i--) mutate_once();
        run_current();
    }
    printf("%zu inputs of the corpus, %llu mutations, seed %llu: no crash\n", corpus_count, done, seed);
    for (size_t i = 0; i < corpus_count; i++) free(corpus[i]);
    return 0;
}
