/* Random numbers from a seed: splitmix64 (Steele, Lea and Flood 2014). */
#ifndef ATTN_EXAMPLE_DICE_H
#define ATTN_EXAMPLE_DICE_H

#include <math.h>
#include <stdint.h>

typedef struct dice {
    uint64_t state;
} dice;

static inline uint64_t dice_bits(dice *d) {
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, 1). */
static inline double dice_uniform(dice *d) { return (double)(dice_bits(d) >> 11) * 0x1p-53; }

/* In [0, count). */
static inline int64_t dice_below(dice *d, int64_t count) {
    return (int64_t)(dice_uniform(d) * (double)count);
}

/* Mean 0, deviation 1 (Box and Muller 1958). */
static inline double dice_normal(dice *d) {
    const double radius = sqrt(-2 * log(1 - dice_uniform(d)));
    return radius * cos(6.283185307179586 * dice_uniform(d));
}

#endif
