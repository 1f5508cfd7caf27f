/* Random numbers from a seed, the same on every machine: splitmix64 (Steele and others, OOPSLA 2014). */
#ifndef ATTNI_REFERENCE_RANDOM_H
#define ATTNI_REFERENCE_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attni_random {
    uint64_t state;
} attni_random;

uint64_t attni_random_next(attni_random *random);
int64_t attni_random_range(attni_random *random, int64_t low, int64_t high); /* both included */
int attni_random_chance(attni_random *random, int percent);
double attni_random_uniform(attni_random *random); /* [0, 1) */
double attni_random_normal(attni_random *random);  /* about normal, within 6 */

#ifdef __cplusplus
}
#endif

#endif
