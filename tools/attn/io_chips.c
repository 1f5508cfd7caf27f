#include "io_chips.h"

#include "bench_peak.h"
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const io_chip_names[IO_CHIPS + 1] = {"a100", "h100", "h200", "cpu", NULL};

/*
 * NVIDIA's white papers and data sheets of the A100 (40 and 80 GB), H100 SXM and H200 SXM, without sparsity. Shared
 * memory gives 128 bytes a cycle and a multiprocessor: times 108 and 1.41 GHz 19 TB/s, times 132 and 1.83 GHz 31.
 * Exponentials: 16 a cycle and a multiprocessor. M is what one multiprocessor has in shared memory and L1 together,
 * as the FlashAttention paper counts it.
 */
static const io_chip gpus[IO_CPU] = {
    [IO_A100] = {"A100", 108, 192 * 1024, 19e12, 1.555e12, 2.039e12, 312e12, 19.5e12, 2.4e12},
    [IO_H100] = {"H100 SXM", 132, 256 * 1024, 31e12, 3.35e12, 3.35e12, 989e12, 67e12, 3.9e12},
    [IO_H200] = {"H200 SXM", 132, 256 * 1024, 31e12, 4.8e12, 4.8e12, 989e12, 67e12, 3.9e12},
};

/* The second-level cache of a core is the fast memory, everything behind it the slow one. */
static io_chip measure_cpu(void) {
    enum { SAMPLES = 5, LEAST = 256 << 20 };
    io_chip chip = {.processors = machine_processors(), .fast_bytes = machine_l2_bytes()};
    char name[MACHINE_NAME_SIZE];
    double reads[SAMPLES], flops[SAMPLES];
    size_t bytes = (size_t)(machine_cache_bytes() > 0 ? machine_cache_bytes() : 0) * 2;
    const size_t most = (size_t)machine_memory_bytes() / 4;
    if (bytes < LEAST) bytes = LEAST;
    if (most > 0 && bytes > most) bytes = most;
    char *memory = malloc(bytes);
    if (memory != NULL) memset(memory, 1, bytes);
    for (int i = 0; i < SAMPLES; i++) {
        flops[i] = bench_peak_gflops(BENCH_PEAK_FMA, chip.processors) * 1e9;
        reads[i] = memory != NULL
                       ? bench_peak_read(memory, bytes, chip.processors, i % bench_peak_read_loops()) * 1e9
                       : 0;
    }
    free(memory);
    chip.flops_32 = chip.flops_16 =
        machine_median(flops, SAMPLES); /* 16 bits are converted: docs/performance.md */
    machine_median(reads, SAMPLES);
    chip.slow_low = reads[0];
    chip.slow_high = reads[SAMPLES - 1];
    snprintf(chip.title, sizeof chip.title, "%s, measured now over %zu MB of memory", machine_name(name),
             bytes >> 20);
    return chip;
}

io_chip io_chip_find(io_chip_name name) { return name == IO_CPU ? measure_cpu() : gpus[name]; }
