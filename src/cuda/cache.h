/*
 * Compiled kernels on disk, under XDG_CACHE_HOME/libattn or ~/.cache/libattn. A cache helps and never
 * hurts: what cannot be read is compiled again, what cannot be written is not kept.
 *
 * An entry is one file, written under another name and renamed, so that processes see it whole or not at
 * all. Its name is a hash of its key (source, options, architecture) and the compiler's version:
 * "0123456789abcdef0123456789abcdef-13000.kernel". The key stands inside too, and is compared:
 *
 *   "libattn kernel 1\n"  uint64 key bytes  uint64 image bytes  uint64 checksum of the image
 *   key                   image
 */
#ifndef ATTNI_CACHE_H
#define ATTNI_CACHE_H

#include <stdbool.h>

#include "core/status.h"

/* A well-mixed hash of memory; seed 0 begins, an earlier hash goes on. */
uint64_t attni_cache_hash(uint64_t seed, const void *memory, size_t bytes);

/* The folder, which need not exist yet; "" where the environment names none. */
void attni_cache_folder(char *folder, size_t bytes);

/*
 * The version of the newest compiler before `before` that stored an image for a key; 0: none did. Finding it out
 * this way spares loading the compiler, which takes longer than all the rest.
 */
int attni_cache_newest(const char *key, int before);

/*
 * The image stored for a key by a compiler of this version, for free(), followed by a zero byte; null if there
 * is none that is whole. *corrupt says that there was a file, but not a good one.
 */
char *attni_cache_read(const char *key, int compiler, size_t *bytes, bool *corrupt);

/* Stores an image. False, with the reason, where that is impossible: a full disk, a read-only folder. */
bool attni_cache_write(const char *key, int compiler, const char *image, size_t bytes, char *reason,
                       size_t reason_bytes);

#endif
