/* The CPU's part of attni_backend for accumulators. */
#ifndef ATTNI_ACCUM_CPU_H
#define ATTNI_ACCUM_CPU_H

#include "core/internal.h"

attn_status attni_cpu_accum_begin(const attn_plan *plan, void *accum, void *stream);
attn_status attni_cpu_accum_check(const attn_plan *plan, const void *accum);
attn_status attni_cpu_accum_merge(const attn_plan *plan, attni_accum a, attni_accum b, void *stream);

#endif
