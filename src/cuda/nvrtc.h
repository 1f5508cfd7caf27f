/* NVIDIA's run-time compiler, loaded with dlopen when the first kernel must be compiled. */
#ifndef ATTNI_NVRTC_H
#define ATTNI_NVRTC_H

#include <stdbool.h>

#include "core/status.h"

/* A header that a source may include, under the name that the #include says. */
typedef struct attni_nvrtc_header {
    const char *name, *text;
} attni_nvrtc_header;

typedef struct attni_nvrtc_job {
    const char *name; /* of the source, for the compiler's messages */
    const char *source;
    const attni_nvrtc_header *headers;
    int header_count;
    const char *options; /* separated by single spaces; the architecture is not among them */
    int major, minor;    /* compute capability */
    bool specific;       /* sm_90a, not sm_90 */
    bool ptx;            /* PTX of this capability, not machine code */
} attni_nvrtc_job;

/* Which compiler there is: major * 1000 + minor. ATTN_COMPILE_ERROR, with a sentence, where there is none. */
attn_status attni_nvrtc_version(int *version);

/* Where it was found; "" before the first call and where there is none. */
const char *attni_nvrtc_path(void);

/*
 * Compiles to a cubin for the job's architecture, or to PTX where this compiler is older than the
 * architecture. *image is ended by a zero byte that *bytes counts, and is for free().
 */
attn_status attni_nvrtc_compile(const attni_nvrtc_job *job, char **image, size_t *bytes);

#endif
