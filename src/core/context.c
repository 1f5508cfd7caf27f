#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* madvise */
#endif

/* Contexts: a device, its allocator and threads, and the pool that workspaces come from and go back to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/internal.h"
#include "cpu/parallel.h"

void attni_text_add(attni_text *text, const char *format, ...) {
    const size_t room = sizeof text->data - text->length;
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(text->data + text->length, room, format, arguments);
    va_end(arguments);
    if (written > 0) text->length += (size_t)written < room ? (size_t)written : room - 1;
}

/* Large blocks ask for huge pages: panels and tiles then miss no address translation. */
static void *default_alloc(void *user, size_t bytes) {
    (void)user;
    const size_t huge = (size_t)2 << 20, alignment = bytes >= huge ? huge : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void *pointer = rounded < bytes ? NULL : aligned_alloc(alignment, rounded);
#if defined(__linux__)
    if (pointer != NULL && bytes >= huge)
        (void)madvise(pointer, rounded, MADV_HUGEPAGE); /* a hint: may fail */
#endif
    return pointer;
}

static void default_free(void *user, void *pointer) {
    (void)user;
    free(pointer);
}

void *attni_alloc(attn_context *context, size_t bytes) {
    void *pointer = context->options.alloc(context->options.alloc_user, bytes);
    if (pointer == NULL) attni_fail(ATTN_OUT_OF_MEMORY, "the allocator returned null for %zu bytes", bytes);
    return pointer;
}

void attni_free(attn_context *context, void *pointer) {
    if (pointer != NULL) context->options.free(context->options.alloc_user, pointer);
}

void attni_log(const attn_context *context, const char *format, ...) {
    if (context->options.log == NULL) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    context->options.log(context->options.log_user, line);
}

static attn_status find_backend(attn_device device, const attni_backend **backend) {
    if (device == ATTN_DEVICE_CPU) {
        *backend = attni_cpu_backend();
        return ATTN_OK;
    }
    if (device == ATTN_DEVICE_CUDA) {
#if ATTNI_HAVE_CUDA
        *backend = attni_cuda_backend();
        return ATTN_OK;
#else
        return attni_fail(ATTN_UNSUPPORTED,
                          "device is ATTN_DEVICE_CUDA; this build has the CPU back end only");
#endif
    }
    return attni_fail(ATTN_INVALID_ARGUMENT,
                      "device is %d; allowed is ATTN_DEVICE_CPU (0) or ATTN_DEVICE_CUDA (1)", (int)device);
}

attn_status attn_context_create(attn_device device, int32_t ordinal, const attn_context_options *given,
                                attn_context **context) {
    if (context == NULL)
        return attni_fail(ATTN_INVALID_ARGUMENT, "context is null; it must point to where the context goes");
    *context = NULL;
    attn_context_options options = ATTN_CONTEXT_OPTIONS_INIT;
    if (given != NULL) ATTNI_TRY(attni_struct_copy(&options, given, sizeof options, "context options"));
    if (options.threads < 0 || options.threads > ATTNI_THREADS_LIMIT)
        return attni_fail(ATTN_INVALID_ARGUMENT, "options.threads is %d; allowed is 0 (all processors) to %d",
                          options.threads, ATTNI_THREADS_LIMIT);
    if (options.reserved != 0)
        return attni_fail(ATTN_INVALID_ARGUMENT, "options.reserved is %d; it must be 0", options.reserved);
    if ((options.alloc == NULL) != (options.free == NULL))
        return attni_fail(ATTN_INVALID_ARGUMENT,
                          "options.%s is null and the other is not; give both or neither",
                          options.alloc == NULL ? "alloc" : "free");
    const attni_backend *backend = NULL;
    ATTNI_TRY(find_backend(device, &backend));
    if (ordinal < 0 || (device == ATTN_DEVICE_CPU && ordinal != 0))
        return attni_fail(ATTN_INVALID_ARGUMENT, "ordinal is %d; allowed is %s", ordinal,
                          device == ATTN_DEVICE_CPU ? "0 for the CPU" : "0 and above");
    if (options.alloc == NULL) {
        options.alloc = default_alloc;
        options.free = default_free;
    }
    if (options.threads == 0) options.threads = attni_default_threads(options.parallel_for != NULL);
    if (options.parallel_for == NULL) options.parallel_for = attni_default_parallel_for;

    attn_context *c = options.alloc(options.alloc_user, sizeof *c);
    if (c == NULL)
        return attni_fail(ATTN_OUT_OF_MEMORY, "the allocator returned null for a context of %zu bytes",
                          sizeof *c);
    memset(c, 0, sizeof *c);
    c->backend = backend;
    c->ordinal = ordinal;
    c->options = options;
    atomic_flag_clear(&c->pool_lock);
    const attn_status status = backend->context_open(c);
    if (status != ATTN_OK) {
        options.free(options.alloc_user, c);
        return status;
    }
    *context = c;
    return ATTN_OK;
}

static void free_block(attn_context *context, attni_block *block) {
    context->backend->workspace_free(context, block->memory);
    attni_free(context, block);
}

void attn_context_destroy(attn_context *context) {
    if (context == NULL) return;
    while (context->pool != NULL) {
        attni_block *block = context->pool;
        context->pool = block->next;
        free_block(context, block);
    }
    context->backend->context_close(context);
    attni_free(context, context);
}

const char *attn_context_describe(const attn_context *context) {
    return context == NULL ? "" : context->description.data;
}

static void lock(attn_context *context) {
    while (atomic_flag_test_and_set_explicit(&context->pool_lock, memory_order_acquire)) {
    }
}

static void unlock(attn_context *context) {
    atomic_flag_clear_explicit(&context->pool_lock, memory_order_release);
}

static void *order_of(const attn_context *context, void *stream) {
    return context->backend->order_of == NULL ? stream : context->backend->order_of(stream);
}

/* A new block, of memory that no run has used. */
static attn_status make_block(attn_context *context, size_t bytes, attni_block **made) {
    attni_block *block = attni_alloc(context, sizeof *block);
    if (block == NULL) return ATTN_OUT_OF_MEMORY;
    memset(block, 0, sizeof *block);
    block->bytes = bytes;
    block->memory = context->backend->workspace_alloc(context, bytes);
    if (block->memory == NULL) {
        attni_free(context, block);
        return ATTN_OUT_OF_MEMORY;
    }
    *made = block;
    return ATTN_OK;
}

/*
 * Where nothing fits one block that is too small goes, so that plans of growing sizes leave no trail of them: there
 * are never more blocks than there were runs at once. Queued work may still need its block, whoever has it.
 */
attn_status attni_pool_take(attn_context *context, size_t bytes, void *stream, attni_block **taken) {
    const void *order = order_of(context, stream);
    attni_block *found = NULL, **smaller = NULL, *replaced = NULL;
    lock(context);
    for (attni_block **link = &context->pool; *link != NULL; link = &(*link)->next) {
        attni_block *block = *link;
        if (block->bytes < bytes && !context->backend->queues) smaller = link;
        if (block->bytes < bytes || (block->used && block->order != order)) continue;
        *link = block->next;
        found = block;
        break;
    }
    if (found == NULL && smaller != NULL) {
        replaced = *smaller;
        *smaller = replaced->next;
    }
    unlock(context);
    if (found == NULL) {
        const attn_status status = make_block(context, bytes, &found);
        if (status != ATTN_OK) {
            if (replaced != NULL) attni_pool_put_back(context, replaced);
            return status;
        }
        if (replaced != NULL) free_block(context, replaced);
    }
    found->next = NULL;
    *taken = found;
    return ATTN_OK;
}

void attni_pool_give(attn_context *context, attni_block *block, void *stream) {
    block->order = order_of(context, stream);
    block->used = true;
    attni_pool_put_back(context, block);
}

void attni_pool_put_back(attn_context *context, attni_block *block) {
    lock(context);
    block->next = context->pool;
    context->pool = block;
    unlock(context);
}

int32_t attn_has_feature(attn_feature feature) {
    switch (feature) {
    case ATTN_FEATURE_CPU: return 1;
#if ATTNI_HAVE_CUDA
    case ATTN_FEATURE_CUDA: return 1;
#else
    case ATTN_FEATURE_CUDA: return 0;
#endif
    case ATTN_FEATURE_OPENMP: return attni_has_openmp();
    }
    return 0;
}
