/*
 * Dropout's random bits: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy
 * as 1, 2, 3", SC 2011, section 3). The key is the seed; the counter is (key position / 8, query
 * position, batch * heads_q + head, offset), each modulo 2^32; the 128 bits are eight 16-bit numbers, one
 * for each of eight neighbouring keys. An element is kept where its number >= threshold.
 */
#ifndef ATTNI_PHILOX_H
#define ATTNI_PHILOX_H

#include <stdint.h>

#define ATTNI_PHILOX_M0 0xD2511F53u
#define ATTNI_PHILOX_M1 0xCD9E8D57u
#define ATTNI_PHILOX_W0 0x9E3779B9u
#define ATTNI_PHILOX_W1 0xBB67AE85u

static inline void attni_philox(uint32_t key0, uint32_t key1, uint32_t counter[4]) {
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)ATTNI_PHILOX_M0 * counter[0];
        const uint64_t b = (uint64_t)ATTNI_PHILOX_M1 * counter[2];
        const uint32_t c1 = counter[1], c3 = counter[3];
        counter[0] = (uint32_t)(b >> 32) ^ c1 ^ key0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ c3 ^ key1;
        counter[3] = (uint32_t)a;
        key0 += ATTNI_PHILOX_W0;
        key1 += ATTNI_PHILOX_W1;
    }
}

/* Of 65536 numbers, those below are dropped: round(p * 65536). */
static inline uint32_t attni_dropout_threshold(float p) { return (uint32_t)((double)p * 65536.0 + 0.5); }

#endif
