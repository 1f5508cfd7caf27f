#include "random.h"

uint64_t attni_random_next(attni_random *random) {
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

int64_t attni_random_range(attni_random *random, int64_t low, int64_t high) {
    return low + (int64_t)(attni_random_next(random) % (uint64_t)(high - low + 1));
}

int attni_random_chance(attni_random *random, int percent) {
    return attni_random_range(random, 0, 99) < percent;
}

double attni_random_uniform(attni_random *random) {
    return (double)(attni_random_next(random) >> 11) * 0x1p-53;
}

double attni_random_normal(attni_random *random) {
    double sum = -6.0; /* twelve uniforms have variance 1 */
    for (int i = 0; i < 3; ++i) {
        uint64_t bits = attni_random_next(random); /* four of 16 bits each */
        for (int part = 0; part < 4; ++part) sum += ((double)(bits >> 16 * part & 0xffffu) + 0.5) * 0x1p-16;
    }
    return sum;
}
