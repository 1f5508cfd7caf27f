/* A CUDA device, the CUDA context that work on it happens in, and the kernels loaded there. */
#ifndef ATTNI_CUDA_CONTEXT_H
#define ATTNI_CUDA_CONTEXT_H

#include "core/internal.h"
#include "cuda/driver.h"

typedef struct attni_modules attni_modules; /* module.c */

/* attn_context.backend_data */
typedef struct attni_cuda {
    const attni_driver *driver;
    attni_cu_device device;
    attni_cu_context context;
    bool retained; /* context is the device's primary one, which stays alive until we release it */
    int major, minor;
    int multiprocessors;
    int l2_bytes;
    int shared_limit; /* bytes a block may ask for */
    attni_modules *modules;
} attni_cuda;

/*
 * Between enter and leave our CUDA context is current on this thread; leave puts the caller's back.
 * Nothing is pushed where it is current already. *pushed is for leave.
 */
attn_status attni_cuda_enter(const attni_cuda *cuda, bool *pushed);
void attni_cuda_leave(const attni_cuda *cuda, bool pushed);

/* As enter and leave, for calls that a stream capture going on in this thread would otherwise forbid
 * (loading a module, allocating), though they have nothing to do with it. */
typedef struct attni_cuda_scope {
    bool pushed;
    int capture_mode;
} attni_cuda_scope;

attn_status attni_cuda_enter_relaxed(const attni_cuda *cuda, attni_cuda_scope *scope);
void attni_cuda_leave_relaxed(const attni_cuda *cuda, attni_cuda_scope scope);

/* The back end's functions of these names. */
attn_status attni_cuda_context_open(attn_context *context);
void attni_cuda_context_close(attn_context *context);

/* Bytes before a workspace of the pool, which no plan's workspace covers: what a launch finds and leaves there, the
 * next one in the block's stream finds. */
enum { ATTNI_CUDA_KEPT = 64 * 4 + 4096 * 4 };

/* Words on the device that a launch shares with those before it in its stream. */
typedef struct attni_cuda_words {
    unsigned *at;
    unsigned run;     /* the how manieth to use them: they were zeros before the first */
    unsigned counted; /* what all of these have announced together */
} attni_cuda_words;

/*
 * So many words for a run, which announces a number: those before its workspace if there are as many, which
 * are cleared once. That saves the 2 us or so of a memset. Work that is captured runs at another time, and
 * has the workspace's first ones, cleared by itself, as have runs in a workspace of the caller's.
 */
attn_status attni_cuda_take_words(const attni_cuda *cuda, const attni_run *run, size_t words,
                                  unsigned announced, attni_cuda_words *taken);

void *attni_cuda_workspace_alloc(attn_context *context, size_t bytes);
void attni_cuda_workspace_free(attn_context *context, void *pointer);

#endif
