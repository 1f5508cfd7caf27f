/*
 * Dropout's random bits on the device: the same Philox4x32-10 numbers as src/core/philox.h gives.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_PHILOX_CUH
#define ATTNI_PHILOX_CUH

#include "ptx.cuh"

struct philox_numbers {
    u32 word[4]; /* eight 16-bit numbers, low half first */
};

DEVICE philox_numbers philox(u64 seed, u32 key_block, u32 query, u32 batch_head, u32 offset) {
    u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
    u32 c0 = key_block, c1 = query, c2 = batch_head, c3 = offset;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 a = __umulhi(0xD2511F53u, c0), b = __umulhi(0xCD9E8D57u, c2);
        u32 a_low = 0xD2511F53u * c0, b_low = 0xCD9E8D57u * c2;
        c0 = b ^ c1 ^ key0;
        c1 = b_low;
        c2 = a ^ c3 ^ key1;
        c3 = a_low;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    philox_numbers r = {{c0, c1, c2, c3}};
    return r;
}

/* Whether the two keys from position `key` on are kept: bits 0 and 1. */
DEVICE u32 dropout_keep_2(u64 seed, u64 offset, i64 key, i64 query, u32 batch_head, u32 threshold) {
    philox_numbers r = philox(seed, (u32)(key >> 3), (u32)query, batch_head, (u32)offset);
    u32 place = (u32)key & 7;
    u32 word = place < 4 ? (place < 2 ? r.word[0] : r.word[1]) : (place < 6 ? r.word[2] : r.word[3]);
    u32 first = place & 1 ? word >> 16 : word & 0xffff, second = word >> 16;
    if (place & 1) { /* an odd key_start: the second key is the next word's, or the next call's */
        if (place == 7) {
            r = philox(seed, (u32)((key + 1) >> 3), (u32)query, batch_head, (u32)offset);
        }
        second = (place == 7   ? r.word[0]
                  : place == 1 ? r.word[1]
                  : place == 3 ? r.word[2]
                               : r.word[3]) &
                 0xffff;
    }
    return (first >= threshold) | (second >= threshold) << 1;
}

#endif
