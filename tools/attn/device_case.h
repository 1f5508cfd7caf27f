/* Random problems on a CUDA device, for `attn check` and the tests. device_open comes first. */
#ifndef ATTN_TOOL_DEVICE_CASE_H
#define ATTN_TOOL_DEVICE_CASE_H

#include "attn/attn.h"
#include "reference/problems.h"

/* Whether a problem's dims are on the short list that is drawn from, so that few variants have to be compiled. */
int device_case_is_bounded(const attn_problem *problem);

/*
 * Runs a plan on copies of a case's buffers on the device and brings the outputs back, to be verified. aligned: q, k,
 * v and o begin at multiples of 16 bytes there; else at the odd elements where the case has them. Statuses are
 * attn_forward's, and ATTN_OUT_OF_MEMORY without a sentence where the device has no room for the copies.
 */
attn_status device_case_run(const attn_plan *plan, attni_problems_case *made, int aligned);

#endif
