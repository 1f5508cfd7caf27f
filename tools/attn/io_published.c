/*
 * Two published measurements of one problem, GPT-2 medium's attention, beside the lab's counts: the table in
 * figure 2 of the FlashAttention paper (A100), and what ncu read on an H200 for torch. What is said about why they differ is
 * arithmetic on these figures; where it is a guess the text says so.
 */
#include "io.h"
#include "terminal.h"
#include "tool.h"

#include <stdio.h>

typedef struct shape {
    double batch, heads, rows, keys, dim;
} shape;

static const shape gpt2 = {64, 16, 1024, 1024, 64};

typedef struct counted {
    double bytes, multiply_adds, exponentials;
} counted;

static const char *count_both(lab_algorithm algorithm, int64_t fast_bytes, counted *result) {
    const io_problem problem = {.batch = 64,
                                .heads = 16,
                                .rows = 1024,
                                .keys = 1024,
                                .dim = 64,
                                .number_bytes = 2,
                                .fast_bytes = fast_bytes};
    const counted zero = {0, 0, 0};
    *result = zero;
    for (int d = 0; d < 2; d++) {
        io_counts counts;
        const char *trouble = io_count(&problem, algorithm, (lab_direction)d, &counts);
        if (trouble != NULL) return trouble;
        result->bytes += io_bytes(&counts);
        result->multiply_adds += (double)counts.head.multiply_adds * counts.heads;
        result->exponentials += (double)counts.head.exponentials * counts.heads;
    }
    return NULL;
}

static void heading(const char *text) {
    printf("%s%s%s\n", terminal_bold(stdout), text, terminal_plain(stdout));
}

/* ---------------------------------------------------------------- the paper's table */

static void print_flops(void) {
    const double scores = gpt2.batch * gpt2.heads * gpt2.rows * gpt2.keys; /* S has so many elements */
    const double product = 2 * gpt2.dim; /* of an element, in one product */
    heading("GFLOP: 66.6 and 75.2 published");
    printf("S has B H N^2 = %.4g elements. A product takes 2 D = %.0f operations for each: %.0f with the\n"
           "2 + 4 products of standard attention, %.0f with 2 + 5, where the backward computes S again.\n"
           "That makes %.1f and %.1f GFLOP.\n",
           scores, product, 6 * product, 7 * product, 6 * product * scores * 1e-9,
           7 * product * scores * 1e-9);
    printf("66.6 and 75.2 are %.2f and %.2f an element. Their difference, one product, is 8 = 2 D / 16,\n"
           "and 6 x 8 + 14 = 62 and 7 x 8 + 14 = 70 give %.1f and %.1f GFLOP. So the figures agree with\n"
           "this: the products of one head where there are 16, and 14 operations an element of all heads\n"
           "for the softmax and its gradient. That is a reading, not a record. Asked about it, the paper's\n"
           "author wrote that the figures may be off by a factor and have some of the softmax in them, and\n"
           "that the products make 825 and 963 (github.com/Dao-AILab/flash-attention/issues/741).\n\n",
           66.6e9 / scores, 75.2e9 / scores, 62 * scores * 1e-9, 70 * scores * 1e-9);
}

static void print_bytes(const counted *standard, const counted *flash1) {
    const double square = 2 * gpt2.batch * gpt2.heads * gpt2.rows * gpt2.keys; /* bytes of S in 16 bits */
    const double tensor = 2 * gpt2.batch * gpt2.heads * gpt2.rows * gpt2.dim; /* bytes of Q */
    const double framework = 18 * square + 12 * tensor;
    heading("GB: 40.3 and 4.4 published");
    printf("standard: S in 16 bits is %.3f GB, Q %.4f. The algorithm moves matrices of S's size 11 times:\n"
           "  S out | in, P out | P in                                               forward      4\n"
           "  P in | dP out | P in, dP in, dS out | dS in | dS in                    backward     7\n"
           "which is %.2f GB, and %.2f as counted, with what the tiles read again of Q, K, V. A framework\n"
           "with a mask and dropout, each operation a kernel, moves 18 (dropout's own mask is a half):\n"
           "  S out | mask: in, out | softmax: in, out | dropout: in, out, 1/2 | in  forward      8.5\n"
           "  in | dP out | dropout: in, 1/2, out | softmax: in, in, out | in | in   backward     9.5\n"
           "18 x %.3f, and 12 x %.4f for the tensors of each product, are %.2f GB, as published.\n",
           square * 1e-9, tensor * 1e-9, 11 * square * 1e-9, standard->bytes * 1e-9, square * 1e-9,
           tensor * 1e-9, framework * 1e-9);
    printf("FlashAttention: %.2f GB as counted, with the paper's tiles for 192 KB, as published:\n"
           "32 x %.4f for Q, K, V, O and gradients in 3 passes of 384 keys, and %.3f for m and l.\n\n",
           flash1->bytes * 1e-9, tensor * 1e-9, (flash1->bytes - 32 * tensor) * 1e-9);
}

static void print_milliseconds(const io_chip *chip, const counted *flash1) {
    const double flops = 2 * flash1->multiply_adds;
    heading("ms: 41.7 and 7.3 published");
    printf("40.3 GB in 41.7 ms are %.2f TB/s, %.2f of the 40 GB model's %.3f: standard attention waits\n"
           "for memory. FlashAttention's 4.4 GB take %.1f ms at best, and its products (%.0f GFLOP) %.1f ms\n"
           "at %.0f TFLOP/s. 7.3 ms are %.0f TFLOP/s, bound by neither alone. With a causal mask, which\n"
           "skips half of the products, it would be %.0f; the table does not say.\n\n",
           40.3 / 41.7, 40.3e9 / 41.7e-3 / chip->slow_low, chip->slow_low * 1e-12,
           4.4e9 / chip->slow_low * 1e3, flops * 1e-9, flops / chip->flops_16 * 1e3, chip->flops_16 * 1e-12,
           flops / 7.3e-3 * 1e-12, flops / 2 / 7.3e-3 * 1e-12);
}

static int print_paper(void) {
    const io_chip chip = io_chip_find(IO_A100);
    counted standard, flash1, flash2;
    const char *trouble = count_both(LAB_STANDARD, chip.fast_bytes, &standard);
    if (trouble == NULL) trouble = count_both(LAB_FLASH1, chip.fast_bytes, &flash1);
    if (trouble == NULL) trouble = count_both(LAB_FLASH2, chip.fast_bytes, &flash2);
    if (trouble != NULL) return tool_failure("io", "%s", trouble);
    heading("FlashAttention paper, figure 2: GPT-2 medium (batch 64, 16 heads, 1024 tokens, dim 64),\n"
            "forward and backward, A100");
    printf("%-18s %22s %20s %24s\n", "", "GFLOP", "GB", "ms");
    printf("%-18s %11s %10s %10s %9s %11s %12s\n", "", "published", "counted", "published", "counted",
           "published", "memory alone");
    printf("%-18s %11.1f %10.1f %10.1f %9.2f %11.1f %12.1f\n", "standard", 66.6,
           2e-9 * standard.multiply_adds, 40.3, standard.bytes * 1e-9, 41.7,
           standard.bytes / chip.slow_low * 1e3);
    printf("%-18s %11.1f %10.1f %10.1f %9.2f %11.1f %12.1f\n", "FlashAttention", 75.2,
           2e-9 * flash1.multiply_adds, 4.4, flash1.bytes * 1e-9, 7.3, flash1.bytes / chip.slow_low * 1e3);
    printf("%-18s %11s %10.1f %10s %9.2f %11s %12.1f\n\n", "FlashAttention-2", "",
           2e-9 * flash2.multiply_adds, "", flash2.bytes * 1e-9, "", flash2.bytes / chip.slow_low * 1e3);
    print_flops();
    print_bytes(&standard, &flash1);
    print_milliseconds(&chip, &flash1);
    return TOOL_OK;
}

/* ---------------------------------------------------------------- ncu on an H200 */

static int print_h200(void) {
    const io_chip chip = io_chip_find(IO_H200);
    const double square = 2 * gpt2.batch * gpt2.heads * gpt2.rows * gpt2.keys;
    const double tensor = 2 * gpt2.batch * gpt2.heads * gpt2.rows * gpt2.dim;
    counted standard, flash2;
    const char *trouble = count_both(LAB_STANDARD, chip.fast_bytes, &standard);
    if (trouble == NULL) trouble = count_both(LAB_FLASH2, chip.fast_bytes, &flash2);
    if (trouble != NULL) return tool_failure("io", "%s", trouble);
    heading("torch 2.11 on an H200, read by ncu: the same problem, forward and backward");
    printf("%-18s %8s %8s %14s %8s %14s\n", "", "ncu, GB", "counted", "tensors once", "ms", "memory alone");
    printf("%-18s %8.2f %8.2f %14.2f %8.2f %14.2f\n", "standard", 40.1, standard.bytes * 1e-9,
           (11 * square + 12 * tensor) * 1e-9, 10.9, 40.1e9 / chip.slow_high * 1e3);
    printf("%-18s %8.2f %8.2f %14.2f %8.2f %14.2f\n", "FlashAttention-2", 3.27, flash2.bytes * 1e-9,
           12 * tensor * 1e-9, 4.10, 3.27e9 / chip.slow_high * 1e3);
    printf("%-18s %8.2f %8s %14.2f %8.2f %14.2f\n\n", "cuDNN", 2.77, "", 12 * tensor * 1e-9, 2.55,
           2.77e9 / chip.slow_high * 1e3);
    printf("standard: (40.1 - %.2f) / %.3f = %.1f times a matrix of S's size, where the algorithm needs 11.\n"
           "The scale as a kernel of its own makes 4 more, forward and backward; what the rest is these\n"
           "figures cannot tell. At %.2f of %.1f TB/s it waits for memory.\n",
           12 * tensor * 1e-9, square * 1e-9, (40.1e9 - 12 * tensor) / square, 40.1 / 10.9,
           chip.slow_high * 1e-12);
    printf(
        "FlashAttention-2: every tensor once is %.2f GB. Its backward reads O and dO beforehand for D,\n"
        "and sums dQ in float32: zeros out, sums out and in, 16 bits out. That makes 19 x %.4f = %.2f\n"
        "GB; the lab counts dQ in 16 bits, and other tiles. ncu's %.2f are %.1f x %.4f more: presumably\n"
        "what is read again where the second-level cache of 50 MB, which the lab does not have, no longer\n"
        "held it. cuDNN's are %.1f x %.4f more than 19. Both take longer than their memory, by %.1f and\n"
        "%.1f ms: the products take %.2f ms at %.0f TFLOP/s, and the exponentials %.2f.\n",
        12 * tensor * 1e-9, tensor * 1e-9, 19 * tensor * 1e-9, 3.27, 3.27e9 / tensor - 19, tensor * 1e-9,
        2.77e9 / tensor - 19, tensor * 1e-9, 4.10 - 3.27e12 / chip.slow_high, 2.55 - 2.77e12 / chip.slow_high,
        2 * flash2.multiply_adds / chip.flops_16 * 1e3, chip.flops_16 * 1e-12,
        flash2.exponentials / chip.exponentials * 1e3);
    return TOOL_OK;
}

int io_print_published(void) {
    const int status = print_paper();
    return status == TOOL_OK ? print_h200() : status;
}
