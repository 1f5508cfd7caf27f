#include "device_case.h"

#include "device.h"

#include <stdint.h>

int device_case_is_bounded(const attn_problem *p) {
    static const int64_t pairs[][2] = {{32, 32},   {64, 64},   {64, 32},   {96, 96},
                                       {128, 128}, {192, 128}, {256, 256}, {576, 512}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if ((p->dim_qk + 31) / 32 * 32 == pairs[i][0] && (p->dim_v + 31) / 32 * 32 == pairs[i][1]) return 1;
    return 0;
}

typedef struct device_case {
    unsigned char *memory[ATTNI_PROBLEMS_BUFFERS];
    size_t shift[ATTNI_PROBLEMS_BUFFERS]; /* where a buffer begins in its memory */
    attn_tensors tensors;
} device_case;

/* 1, or 0 if the device has no room. */
static int copy_in(device_case *copy, const attni_problems_case *made, int aligned) {
    const void *at[ATTNI_PROBLEMS_BUFFERS] = {NULL};
    for (int i = 0; i < ATTNI_PROBLEMS_BUFFERS; i++) {
        const attni_problems_buffer *buffer = &made->buffers[i];
        if (!buffer->bytes) continue;
        copy->memory[i] = device_alloc(buffer->bytes + 32);
        if (!copy->memory[i]) return 0;
        copy->shift[i] = aligned ? (16 - buffer->offset % 16) % 16 : 0;
        device_copy_in(copy->memory[i] + copy->shift[i], buffer->memory, buffer->bytes);
        at[i] = copy->memory[i] + copy->shift[i] + buffer->offset;
    }
    copy->tensors = made->tensors;
    copy->tensors.q = at[ATTNI_PROBLEMS_Q];
    copy->tensors.k = at[ATTNI_PROBLEMS_K];
    copy->tensors.v = at[ATTNI_PROBLEMS_V];
    copy->tensors.o = (void *)(uintptr_t)at[ATTNI_PROBLEMS_O];
    copy->tensors.lse = (float *)(uintptr_t)at[ATTNI_PROBLEMS_LSE];
    copy->tensors.lengths_q = at[ATTNI_PROBLEMS_LENGTHS_Q];
    copy->tensors.lengths_k = at[ATTNI_PROBLEMS_LENGTHS_K];
    copy->tensors.bias = at[ATTNI_PROBLEMS_BIAS];
    copy->tensors.mask = at[ATTNI_PROBLEMS_MASK];
    copy->tensors.alibi_slopes = at[ATTNI_PROBLEMS_SLOPES];
    copy->tensors.sinks = at[ATTNI_PROBLEMS_SINKS];
    copy->tensors.q_scale = at[ATTNI_PROBLEMS_Q_SCALE];
    copy->tensors.k_scale = at[ATTNI_PROBLEMS_K_SCALE];
    copy->tensors.v_scale = at[ATTNI_PROBLEMS_V_SCALE];
    return 1;
}

static void copy_out(const device_case *copy, attni_problems_case *made) {
    static const int outputs[] = {ATTNI_PROBLEMS_O, ATTNI_PROBLEMS_LSE};
    for (int i = 0; i < 2; i++) {
        attni_problems_buffer *buffer = &made->buffers[outputs[i]];
        if (buffer->bytes)
            device_copy_out(buffer->memory, copy->memory[outputs[i]] + copy->shift[outputs[i]],
                            buffer->bytes);
    }
}

attn_status device_case_run(const attn_plan *plan, attni_problems_case *made, int aligned) {
    device_case copy = {{NULL}, {0}, ATTN_TENSORS_INIT};
    attn_status status = ATTN_OUT_OF_MEMORY;
    made->on_gpu = 1;
    if (copy_in(&copy, made, aligned)) {
        status = attn_forward(plan, &copy.tensors, NULL);
        device_wait();
        copy_out(&copy, made);
    }
    for (int i = 0; i < ATTNI_PROBLEMS_BUFFERS; i++) device_free(copy.memory[i]);
    return status;
}
