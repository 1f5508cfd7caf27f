/* NVIDIA's profiler ncu, run on this command itself, and what it says. */
#ifndef ATTN_TOOL_NCU_H
#define ATTN_TOOL_NCU_H

#include <stddef.h>

/* Null, or why nothing can be profiled here: no CUDA device, no ncu. */
const char *ncu_refusal(void);

/*
 * Profiles `attn ARGUMENTS...` (ended by null): count launches of the library's kernels after the first skip ones, metrics
 * as ncu's --metrics takes them. The text that ncu wrote, to be freed, or null and a sentence in trouble.
 */
enum { NCU_TROUBLE_SIZE = 400 };
char *ncu_profile(const char *metrics, int skip, int count, const char *const *arguments,
                  char trouble[NCU_TROUBLE_SIZE]);

/* A whole file as such a text; null: cannot be read. */
char *ncu_read(const char *path);

/*
 * The sum of a metric over the launches, in a text of ncu --csv, of kernels whose names begin with prefix; in base
 * units. launches: how many had it.
 */
double ncu_sum(const char *text, const char *prefix, const char *metric, int *launches);

/* The first kernel's name that begins with prefix, without its parameters, into name; 0 if there is none. */
enum { NCU_KERNEL_SIZE = 128 };
int ncu_kernel(const char *text, const char *prefix, char name[NCU_KERNEL_SIZE]);

#endif
