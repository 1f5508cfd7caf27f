/* A part of attn info, in builds with CUDA. */
#ifndef ATTN_TOOL_INFO_KERNELS_H
#define ATTN_TOOL_INFO_KERNELS_H

#include "json.h"

/* Lines on stdout: name, bytes, registers, spills and shared memory of each kernel in the library. */
void info_print_embedded(void);

/* The same as "embedded", an array in an open object. */
void info_write_embedded(json *out);

#endif
