#define _GNU_SOURCE
#include "cuda/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "libattn kernel 1\n"
enum { MAGIC_BYTES = sizeof MAGIC - 1, HEADER_BYTES = MAGIC_BYTES + 3 * 8, LARGEST_ENTRY = 64 << 20 };

/* FNV-1a over words of 8 bytes, with the finishing steps of MurmurHash3, so that few bytes spread too. */
uint64_t attni_cache_hash(uint64_t seed, const void *memory, size_t bytes) {
    const unsigned char *at = memory;
    uint64_t hash = seed ^ UINT64_C(0xcbf29ce484222325) ^ bytes;
    while (bytes > 0) {
        const size_t step = bytes < 8 ? bytes : 8;
        uint64_t word = 0;
        memcpy(&word, at, step);
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
        at += step;
        bytes -= step;
    }
    hash = (hash ^ (hash >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ (hash >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ (hash >> 33);
}

void attni_cache_folder(char *folder, size_t bytes) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache && cache[0] == '/') /* the XDG specification ignores relative ones */
        length = snprintf(folder, bytes, "%s/libattn", cache);
    else if (home && home[0] == '/')
        length = snprintf(folder, bytes, "%s/.cache/libattn", home);
    if (length < 0 || (size_t)length >= bytes) folder[0] = 0;
}

/* The part of an entry's name that says the key. */
static void name_key(const char *key, char name[33]) {
    const size_t length = strlen(key);
    const uint64_t first = attni_cache_hash(0, key, length), second = attni_cache_hash(first, key, length);
    snprintf(name, 33, "%016llx%016llx", (unsigned long long)first, (unsigned long long)second);
}

int attni_cache_newest(const char *key, int before) {
    char folder[PATH_MAX], name[33];
    attni_cache_folder(folder, sizeof folder);
    if (!folder[0]) return 0;
    name_key(key, name);
    DIR *entries = opendir(folder);
    int newest = 0;
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        if (strncmp(entry->d_name, name, 32) != 0 || entry->d_name[32] != '-') continue;
        char *end;
        const long version = strtol(entry->d_name + 33, &end, 10);
        if (strcmp(end, ".kernel") == 0 && version > newest && version < before) newest = (int)version;
    }
    if (entries) closedir(entries);
    return newest;
}

/* False where the environment names no folder. */
static bool entry_path(const char *key, int compiler, char *path, size_t bytes) {
    char folder[PATH_MAX], name[33];
    attni_cache_folder(folder, sizeof folder);
    if (!folder[0]) return false;
    name_key(key, name);
    const int written = snprintf(path, bytes, "%s/%s-%d.kernel", folder, name, compiler);
    return written > 0 && (size_t)written < bytes;
}

/* The whole of a regular file that this user or root wrote, followed by a zero byte. */
static char *read_file(const char *path, size_t *bytes, bool *there) {
    *there = false;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    *there = true;
    struct stat info;
    char *memory = NULL;
    if (fstat(file, &info) == 0 && S_ISREG(info.st_mode) && (info.st_uid == geteuid() || info.st_uid == 0) &&
        info.st_size >= HEADER_BYTES && info.st_size <= LARGEST_ENTRY)
        memory = malloc((size_t)info.st_size + 1);
    size_t have = 0;
    while (memory && have < (size_t)info.st_size) {
        const ssize_t got = read(file, memory + have, (size_t)info.st_size - have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            free(memory);
            memory = NULL;
            break;
        }
        have += (size_t)got;
    }
    close(file);
    if (memory) memory[have] = 0;
    *bytes = have;
    return memory;
}

char *attni_cache_read(const char *key, int compiler, size_t *bytes, bool *corrupt) {
    char path[PATH_MAX];
    size_t size = 0;
    bool there = false;
    *corrupt = false;
    if (!entry_path(key, compiler, path, sizeof path)) return NULL;
    char *memory = read_file(path, &size, &there);
    *corrupt = there;
    if (!memory) return NULL;
    uint64_t header[3]; /* key bytes, image bytes, checksum */
    memcpy(header, memory + MAGIC_BYTES, sizeof header);
    const size_t key_bytes = strlen(key), room = size - HEADER_BYTES;
    const bool good = memcmp(memory, MAGIC, MAGIC_BYTES) == 0 && header[0] == key_bytes &&
                      key_bytes <= room && header[1] == room - key_bytes &&
                      memcmp(memory + HEADER_BYTES, key, key_bytes) == 0 &&
                      attni_cache_hash(0, memory + HEADER_BYTES + key_bytes, (size_t)header[1]) == header[2];
    if (!good) {
        free(memory);
        return NULL;
    }
    *corrupt = false;
    *bytes = (size_t)header[1];
    memmove(memory, memory + HEADER_BYTES + key_bytes, *bytes + 1);
    return memory;
}

/* Makes a folder and those above it; mode 0700 as the XDG specification asks. */
static bool make_folder(char *folder) {
    if (mkdir(folder, 0700) == 0 || errno == EEXIST) return true;
    if (errno != ENOENT) return false;
    char *slash = strrchr(folder, '/');
    if (!slash || slash == folder) return false;
    *slash = 0;
    const bool above = make_folder(folder);
    *slash = '/';
    return above && (mkdir(folder, 0700) == 0 || errno == EEXIST);
}

static bool write_all(int file, const void *memory, size_t bytes) {
    const char *at = memory;
    while (bytes > 0) {
        const ssize_t written = write(file, at, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        at += written;
        bytes -= (size_t)written;
    }
    return true;
}

bool attni_cache_write(const char *key, int compiler, const char *image, size_t bytes, char *reason,
                       size_t reason_bytes) {
    char folder[PATH_MAX], path[PATH_MAX], unfinished[PATH_MAX];
    attni_cache_folder(folder, sizeof folder);
    int length = 0;
    if (!folder[0] || !entry_path(key, compiler, path, sizeof path) ||
        (length = snprintf(unfinished, sizeof unfinished, "%s/unfinished.XXXXXX", folder)) < 0 ||
        (size_t)length >= sizeof unfinished) {
        snprintf(reason, reason_bytes, "neither XDG_CACHE_HOME nor HOME names a folder for it");
        return false;
    }
    int file = -1;
    if (!make_folder(folder) || (file = mkostemp(unfinished, O_CLOEXEC)) < 0) {
        snprintf(reason, reason_bytes, "%s: %s", folder, strerror(errno));
        return false;
    }
    const size_t key_bytes = strlen(key);
    const uint64_t header[3] = {key_bytes, bytes, attni_cache_hash(0, image, bytes)};
    bool done = write_all(file, MAGIC, MAGIC_BYTES) && write_all(file, header, sizeof header) &&
                write_all(file, key, key_bytes) && write_all(file, image, bytes);
    int error = errno;
    if (close(file) != 0 && done) { /* network file systems report a full disk here */
        done = false;
        error = errno;
    }
    if (done && rename(unfinished, path) != 0) {
        done = false;
        error = errno;
    }
    if (!done) {
        unlink(unfinished);
        snprintf(reason, reason_bytes, "%s: %s", path, strerror(error));
    }
    return done;
}
