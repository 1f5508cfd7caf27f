/*
 * Random problems for tests and for `attn check`: every option composed at random from one seed, with
 * buffers laid out to catch what a kernel must not touch. A case owns its buffers:
 *   - inputs begin at odd elements, in packed, padded, permuted, broadcast or reversed layouts, and end
 *     where their memory ends, so that an address sanitizer sees an over-read. What no sequence reaches
 *     (rows beyond a length, gaps of strides) is NaN;
 *   - outputs are NaN between red zones; everything outside the rows that the run owes must stay as it was.
 */
#ifndef ATTNI_REFERENCE_PROBLEMS_H
#define ATTNI_REFERENCE_PROBLEMS_H

#include "attn/attn.h"
#include "random.h"
#include "reference.h"
#include "reference_backward.h"
#include "tolerance.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The buffers of a case; one with bytes == 0 is not there, and its tensors pointer is null. */
typedef enum attni_problems_which {
    ATTNI_PROBLEMS_Q,
    ATTNI_PROBLEMS_K,
    ATTNI_PROBLEMS_V,
    ATTNI_PROBLEMS_O,
    ATTNI_PROBLEMS_LSE,
    ATTNI_PROBLEMS_LENGTHS_Q,
    ATTNI_PROBLEMS_LENGTHS_K,
    ATTNI_PROBLEMS_BIAS,
    ATTNI_PROBLEMS_MASK,
    ATTNI_PROBLEMS_SLOPES,
    ATTNI_PROBLEMS_SINKS,
    ATTNI_PROBLEMS_Q_SCALE,
    ATTNI_PROBLEMS_K_SCALE,
    ATTNI_PROBLEMS_V_SCALE,
    ATTNI_PROBLEMS_DOUT,
    ATTNI_PROBLEMS_DLSE,
    ATTNI_PROBLEMS_DQ, /* from here on in the order of attni_reference_gradient */
    ATTNI_PROBLEMS_DK,
    ATTNI_PROBLEMS_DV,
    ATTNI_PROBLEMS_DBIAS,
    ATTNI_PROBLEMS_DSINKS,
    ATTNI_PROBLEMS_BUFFERS
} attni_problems_which;

/* Memory on the host, and where in it the tensor's pointer stands. */
typedef struct attni_problems_buffer {
    unsigned char *memory;
    size_t bytes;
    size_t offset;
} attni_problems_buffer;

typedef struct attni_problems_case {
    uint64_t seed;
    attn_problem problem;
    attn_tensors tensors; /* pointers into the buffers: a device runs a copy with pointers of its own */
    attni_problems_buffer buffers[ATTNI_PROBLEMS_BUFFERS];
    attni_reference_result truth; /* made by the first verify */
    int on_gpu;                   /* its runs are a GPU's: tolerance.h */
    attni_reference_gradients gradients; /* made by the first verify of gradients */
    char text[512];               /* the problem in words, its seed first */
} attni_problems_case;

typedef struct attni_problems_limits {
    int64_t work; /* about the most batch * heads * Sq * Sk * (D + Dv) of a usual problem */
    int pieces; /* only what can be cut along the keys by moving pointers: FULL keys, explicit positions */
    int device; /* what a GPU takes: dims that few variants cover, one 16-bit dtype, most of it aligned */
    int longer; /* percent of problems with some hundred rows and keys, of few dims: a backward's chunks */
    int f8; /* with device: q, k and v of 8 bits, and what a kernel takes of them */
} attni_problems_limits;

#define ATTNI_PROBLEMS_LIMITS_INIT {300000, 0, 0, 0, 0}

/* Draws the case of a seed; limits may be null. 0, or -1 when memory ran out. */
int attni_problems_make(attni_problems_case *made, uint64_t seed, const attni_problems_limits *limits);
void attni_problems_free(attni_problems_case *made);

/* Fills O and LSE with NaN between red zones again, before each run. */
void attni_problems_poison(attni_problems_case *made);

/*
 * Whether the outputs that a run left are the oracle's, within tolerance, and nothing else was written.
 * ratio: the worst error / tolerance, of O and LSE. On failure message holds one sentence.
 */
int attni_problems_verify(attni_problems_case *made, double *ratio, char *message, size_t bytes);

/*
 * A problem for attn_backward, limits null being {150000, 0, 0, 8}: o and lse hold the oracle's answer, rounded,
 * dout and (for half of the seeds) dlse random numbers; gradients are poisoned outputs, some of them null.
 */
int attni_problems_make_backward(attni_problems_case *made, uint64_t seed,
                                 const attni_problems_limits *limits);
void attni_problems_poison_gradients(attni_problems_case *made);
int attni_problems_verify_gradients(attni_problems_case *made, double *ratio, char *message, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
