/*
 * Memory, streams and clocks of a CUDA device, for commands and tests that bring their own tensors. Everything
 * happens in the device's primary context, which device_open makes current on the calling thread.
 */
#ifndef ATTN_TOOL_DEVICE_H
#define ATTN_TOOL_DEVICE_H

#include <stddef.h>

/* Null, or a sentence that says why there is no such device. */
const char *device_open(int ordinal);
void device_close(void);

/* The functions below end the program with a sentence on stderr if the driver reports an error; device_alloc
 * gives null where memory is short. device_copy_* wait for the null stream. */
void *device_alloc(size_t bytes);
void device_free(void *memory);
void device_copy_in(void *to, const void *from, size_t bytes);
void device_copy_out(void *to, const void *from, size_t bytes);
void device_fill(void *memory, unsigned char value, size_t bytes);
void device_wait(void);
size_t device_free_bytes(void);

/* From now on a wait for the device of more than so many seconds ends the program with these words on stderr and exit
 * status 1: a kernel whose blocks wait for one another would never end. 0 seconds: it may take any time. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void device_watch(unsigned seconds, const char *format, ...);

/* Microseconds of the device between two calls around work queued on the null stream; device_stop waits for it. */
void device_start(void);
double device_stop(void);

/* A symbol of the driver that this file does not wrap; null where the driver has none. */
void *device_symbol(const char *name);

#endif
