/* Chips whose fast and slow memory `attn io` and `attn split` reckon with. */
#ifndef ATTN_TOOL_IO_CHIPS_H
#define ATTN_TOOL_IO_CHIPS_H

#include <stdint.h>

typedef enum io_chip_name { IO_A100, IO_H100, IO_H200, IO_CPU, IO_CHIPS } io_chip_name;

extern const char *const io_chip_names[IO_CHIPS + 1]; /* "a100" and so on, ended by null */

/* Rates a second; 0: not known. Processors are multiprocessors, or the cores that this process may use. */
typedef struct io_chip {
    char title[160];
    int processors;
    int64_t fast_bytes;        /* of one processor: M */
    double fast_rate;          /* bytes, all processors */
    double slow_low, slow_high; /* bytes: what models of the chip, or samples, have */
    double flops_16, flops_32; /* of products of 16-bit and of 32-bit numbers */
    double exponentials;
} io_chip;

/* IO_CPU measures this machine: some 0.3 s. */
io_chip io_chip_find(io_chip_name name);

#endif
