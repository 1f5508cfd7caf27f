#include "lab.h"

#include "reference/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void draw(attni_random *random, float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = (float)attni_random_normal(random);
}

int lab_problem_make(lab_problem *p, int64_t rows, int64_t keys, int64_t dim, uint64_t seed) {
    memset(p, 0, sizeof *p);
    p->rows = rows;
    p->keys = keys;
    p->dim = dim;
    p->scale = (float)(1 / sqrt((double)dim));
    const struct {
        float **data;
        int64_t count;
    } arrays[] = {
        {&p->q, rows * dim},    {&p->k, keys * dim},    {&p->v, keys * dim},
        {&p->d_o, rows * dim}, /* inputs */
        {&p->o, rows * dim},    {&p->d_q, rows * dim},  {&p->d_k, keys * dim},
        {&p->d_v, keys * dim},  {&p->s, rows * keys},   {&p->p, rows * keys},
        {&p->d_p, rows * keys}, {&p->d_s, rows * keys}, {&p->m, rows},
        {&p->l, rows},          {&p->lse, rows},        {&p->delta, rows},
    };
    attni_random random = {seed};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        float *data = malloc((size_t)arrays[i].count * sizeof(float));
        *arrays[i].data = data;
        if (data == NULL) {
            lab_problem_free(p);
            return -1;
        }
        if (i < 4)
            draw(&random, data, arrays[i].count);
        else
            for (int64_t n = 0; n < arrays[i].count; n++) data[n] = NAN;
    }
    return 0;
}

void lab_problem_free(lab_problem *p) {
    float *const all[] = {p->q, p->k,   p->v,   p->o,   p->m,   p->l,   p->lse, p->s,
                          p->p, p->d_o, p->d_q, p->d_k, p->d_v, p->d_p, p->d_s, p->delta};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    memset(p, 0, sizeof *p);
}
