/*
 * Rows of accumulators on their way to O and LSE. Included by accum_merge.cu and gather_sm90.cu.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_ACCUM_ROWS_CUH
#define ATTNI_ACCUM_ROWS_CUH

#include "params.h"

#define BF16 1
#include "ptx.cuh"

#define INFINITE __int_as_float(0x7f800000)
#define LOG2E 1.4426950408889634f

/* e^(m - top), 1 where they are equal, infinite ones included. */
DEVICE float weight_of(float m, float top) { return m == top ? 1.0f : exp2_fast((m - top) * LOG2E); }

DEVICE u16 round_16(float x, int dtype) {
    u16 r;
    if (dtype == ATTNI_DTYPE_BF16) {
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    } else {
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    }
    return r;
}

/* A row of batch, head and query: where it goes, if the sequence has it. */
struct row_place {
    int head;
    i64 lse, out;
    bool any;
};

DEVICE row_place place_row(const attni_accum_params *p, i64 row) {
    i64 pair;
    int query, batch;
    if (p->rows <= 0x7fffffff) { /* a division of 64 bits is a hundred instructions */
        pair = (u32)row / (u32)p->seqlen_q_max;
        query = (int)((u32)row - (u32)pair * (u32)p->seqlen_q_max);
        batch = (int)((u32)pair / (u32)p->heads_q);
    } else {
        pair = row / p->seqlen_q_max;
        query = (int)(row - pair * p->seqlen_q_max);
        batch = (int)(pair / p->heads_q);
    }
    const i64 begin = p->lengths_q_kind == ATTNI_LENGTHS_RAGGED ? p->lengths_q[batch] : 0;
    const int length = p->lengths_q_kind == ATTNI_LENGTHS_FULL     ? p->seqlen_q
                       : p->lengths_q_kind == ATTNI_LENGTHS_PADDED ? p->lengths_q[batch]
                                                                   : p->lengths_q[batch + 1] - (int)begin;
    row_place r;
    r.head = (int)(pair - (i64)batch * p->heads_q);
    r.lse = batch * p->lse_stride_batch + r.head * p->lse_stride_head + begin + query;
    r.out = batch * p->o_stride.batch + r.head * p->o_stride.heads + (begin + query) * p->o_stride.seqlen;
    r.any = query < length;
    return r;
}

#endif
