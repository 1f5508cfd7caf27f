/*
 * attn io: what attention moves between slow and fast memory. The lab's algorithms are walked through on a fast memory
 * of M bytes and count themselves; closed formulas stand beside, and must agree; a roofline says what time that is.
 */
#include "io.h"

#include "flags.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum io_pass { PASS_FORWARD, PASS_BACKWARD, PASS_BOTH } io_pass;

static const char *const pass_names[] = {"forward", "backward", "both", NULL};
static const char *const rule_names[] = {"paper", "fit", NULL};

typedef struct settings {
    const char *shape, *tiles, *csv, *svg, *profile, *save_profile;
    int pass, dtype, chip, rule;
    int64_t memory;
    int curve, softmax, published, measure, numbers;
    io_problem problem;
} settings;

/* ---------------------------------------------------------------- flags */

static int read_shape(settings *s) {
    enum { SIDES = 5 };
    int64_t n[SIDES];
    const int shaped = flags_parse_integers(s->shape, 1, 1 << 24, n, SIDES) == SIDES &&
                       n[0] * n[1] <= 1 << 24 && n[2] <= 1 << 20 && n[3] <= 1 << 20 && n[4] <= 4096;
    if (!shaped)
        return tool_usage_error(
            "io",
            "--shape is '%s'; allowed is B,H,Sq,Sk,D, as in 64,16,1024,1024,64, with B times H "
            "up to 2^24, Sq and Sk up to 2^20, D up to 4096",
            s->shape);
    s->problem.batch = n[0];
    s->problem.heads = n[1];
    s->problem.rows = n[2];
    s->problem.keys = n[3];
    s->problem.dim = n[4];
    return TOOL_OK;
}

static int read_tiles(settings *s) {
    int64_t n[2];
    s->problem.rule = s->rule == 0 ? LAB_TILES_PAPER : LAB_TILES_FIT;
    if (s->tiles == NULL) return TOOL_OK;
    if (flags_parse_integers(s->tiles, 1, 1 << 20, n, 2) != 2)
        return tool_usage_error("io", "--tiles is '%s'; allowed is BR,BC, as in 64,256", s->tiles);
    s->problem.rule = LAB_TILES_GIVEN;
    s->problem.tiles.br = n[0];
    s->problem.tiles.bc = n[1];
    return TOOL_OK;
}

static int check_usage(settings *s) {
    if (read_shape(s) != TOOL_OK || read_tiles(s) != TOOL_OK) return TOOL_USAGE;
    s->problem.number_bytes = (int)work_dtype_size((attn_dtype)s->dtype);
    s->problem.numbers = s->numbers;
    if (s->numbers &&
        (double)s->problem.rows * (double)s->problem.keys * (double)s->problem.dim > (double)(1 << 27))
        return tool_usage_error("io",
                                "--numbers: the lab's plain loops are for up to 2^27 products of a head, as "
                                "1024 x 1024 x 128; without it only the loops are walked through");
    if (s->svg != NULL && !s->curve) return tool_usage_error("io", "--svg is the picture of --curve");
    if (s->save_profile != NULL && !s->measure) return tool_usage_error("io", "--save is for --measure");
    if (s->measure && s->profile != NULL)
        return tool_usage_error("io", "--measure makes a profile and --profile reads one; give one of them");
    return TOOL_OK;
}

static int parse(int argc, char **argv, settings *s) {
    const flag_row rows[] = {
        flag_section("Problem"),
        flag_text("--shape", &s->shape, "SHAPE", "B,H,Sq,Sk,D; default 64,16,1024,1024,64, GPT-2 medium"),
        flag_choice("--pass", &s->pass, pass_names, "default both"),
        flag_choice("--dtype", &s->dtype, work_dtype_names, "of all but the statistics; default f16"),
        flag_section("Machine"),
        flag_choice("--chip", &s->chip, io_chip_names, "M and rates; cpu: its L2, measured; default a100"),
        flag_integer("--memory", &s->memory, 1, (int64_t)1 << 40, "BYTES",
                     "M: fast memory; default the chip's"),
        flag_choice("--rule", &s->rule, rule_names,
                    "tiles from M: the paper's (default), or what really fits"),
        flag_text("--tiles", &s->tiles, "BR,BC", "tiles as given, whatever M is"),
        flag_section("What to show"),
        flag_switch("--numbers", &s->numbers, "runs the arithmetic too, on random data"),
        flag_switch("--curve", &s->curve, "traffic against the block size"),
        flag_text("--svg", &s->svg, "FILE", "the curve as a picture"),
        flag_switch("--softmax", &s->softmax, "softmax alone, of B x H x Sq rows of Sk numbers"),
        flag_switch("--published", &s->published,
                    "the published tables beside our counts, and why they differ"),
        flag_switch("--measure", &s->measure, "device memory of the CUDA kernels by ncu, beside the counts"),
        flag_text("--save", &s->save_profile, "FILE", "what ncu said"),
        flag_text("--profile", &s->profile, "FILE", "as --measure, from what ncu said before"),
        flag_text("--csv", &s->csv, "FILE", "the table's rows"),
    };
    const flag_command command = {
        "io",
        "[OPTION]...",
        "Counts what standard attention, FlashAttention and FlashAttention-2 move between slow memory and a\n"
        "fast memory of M bytes, by walking through the algorithms of the lab (src/lab), beside closed\n"
        "formulas that must agree exactly, and the time that each chip needs for it at best. docs/lab.md\n"
        "explains every table.",
        rows,
        FLAG_COUNT(rows),
        NULL};
    const int status = flags_parse(&command, argc, argv);
    return status == FLAGS_GO && check_usage(s) != TOOL_OK ? TOOL_USAGE : status;
}

/* ---------------------------------------------------------------- the table */

static const lab_algorithm shown[] = {LAB_STANDARD, LAB_FLASH1, LAB_FLASH2, LAB_LAZY};
enum { SHOWN = sizeof shown / sizeof shown[0] };

typedef struct table {
    io_counts counts[SHOWN][2];
} table;

static int has_pass(const settings *s, int direction) { return s->pass == PASS_BOTH || s->pass == direction; }

static int count_all(const settings *s, table *t) {
    for (int a = 0; a < SHOWN; a++)
        for (int d = 0; d < 2; d++) {
            if (!has_pass(s, d)) continue;
            const char *trouble = io_count(&s->problem, shown[a], (lab_direction)d, &t->counts[a][d]);
            if (trouble != NULL) return tool_failure("io", "%s", trouble);
            if (!io_counts_agree(&t->counts[a][d]))
                return tool_failure("io", "%s %s: the counters and the formulas disagree",
                                    lab_algorithm_names[shown[a]], pass_names[d]);
        }
    return TOOL_OK;
}

static void print_traffic(const settings *s, const table *t) {
    printf("\n%sSlow memory, bytes%s\n", terminal_bold(stdout), terminal_plain(stdout));
    printf("%-9s %-8s %11s %9s %10s %10s %16s  %s\n", "algorithm", "pass", "BR x BC", "held", "read",
           "written", "counted", "formula");
    for (int a = 0; a < SHOWN; a++)
        for (int d = 0; d < 2; d++) {
            if (!has_pass(s, d)) continue;
            const io_counts *c = &t->counts[a][d];
            char tiles[48], held[TERMINAL_BYTES_SIZE], read[TERMINAL_BYTES_SIZE],
                written[TERMINAL_BYTES_SIZE];
            const double closed = (double)(c->closed.read + c->closed.written) * c->heads;
            snprintf(tiles, sizeof tiles, "%lld x %lld", (long long)c->tiles.br, (long long)c->tiles.bc);
            printf("%-9s %-8s %11s %9s %10s %10s %16.0f  %.0f\n", lab_algorithm_names[shown[a]],
                   pass_names[d], tiles, terminal_bytes((double)c->held, held),
                   terminal_bytes((double)c->head.read * c->heads, read),
                   terminal_bytes((double)c->head.written * c->heads, written), io_bytes(c), closed);
        }
}

typedef struct sums {
    double bytes, multiply_adds, exponentials, divisions, rescales;
} sums;

static sums add_up(const settings *s, const table *t, int a) {
    sums all = {0};
    for (int d = 0; d < 2; d++) {
        if (!has_pass(s, d)) continue;
        const io_counts *c = &t->counts[a][d];
        all.bytes += io_bytes(c);
        all.multiply_adds += (double)c->head.multiply_adds * c->heads;
        all.exponentials += (double)c->head.exponentials * c->heads;
        all.divisions += (double)c->head.divisions * c->heads;
        all.rescales += (double)c->head.rescales * c->heads;
    }
    return all;
}

static void print_time(double seconds) {
    if (seconds > 0)
        printf(" %9.3g", seconds * 1e3);
    else
        printf(" %9s", "-");
}

static void print_work(const settings *s, const table *t, const io_chip *chip) {
    const double flops = s->problem.number_bytes == 2 ? chip->flops_16 : chip->flops_32;
    printf("\n%sWork, 10^9 operations, and milliseconds at best%s\n", terminal_bold(stdout),
           terminal_plain(stdout));
    printf("%-9s %9s %8s %9s %9s %9s %9s %9s %9s %9s\n", "algorithm", "mult-adds", "exps", "divisions",
           "rescales", "memory", "fast mem", "products", "exps", "bound by");
    for (int a = 0; a < SHOWN; a++) {
        const sums w = add_up(s, t, a);
        const double memory = chip->slow_high > 0 ? w.bytes / chip->slow_high : 0;
        const double products = flops > 0 ? 2 * w.multiply_adds / flops : 0;
        const double exponentials = chip->exponentials > 0 ? w.exponentials / chip->exponentials : 0;
        printf("%-9s %9.4g %8.3g %9.3g %9.3g", lab_algorithm_names[shown[a]], w.multiply_adds * 1e-9,
               w.exponentials * 1e-9, w.divisions * 1e-9, w.rescales * 1e-9);
        print_time(memory);
        print_time(chip->fast_rate > 0 ? w.bytes / chip->fast_rate : 0);
        print_time(products);
        print_time(exponentials);
        printf(" %9s\n", memory >= products && memory >= exponentials ? "memory"
                         : products >= exponentials                   ? "products"
                                                                      : "exps");
    }
    printf("memory: these bytes at %.3g TB/s; fast mem: the same bytes at fast memory's rate; products: two\n"
           "operations a multiply-add, at %.3g TFLOP/s.",
           chip->slow_high * 1e-12, flops * 1e-12);
    if (chip->slow_low < chip->slow_high)
        printf(" At %.3g TB/s memory takes %.2f times as long.", chip->slow_low * 1e-12,
               chip->slow_high / chip->slow_low);
    putchar('\n');
}

static void print_head(const settings *s, const io_chip *chip) {
    char text[IO_PROBLEM_TEXT_SIZE];
    printf("%s, %s, %s\n", io_problem_text(&s->problem, text), work_dtype_name((attn_dtype)s->dtype),
           s->pass == PASS_BOTH ? "forward and backward" : pass_names[s->pass]);
    printf("%s: %d processors, M = %lld bytes of fast memory each", chip->title, chip->processors,
           (long long)s->problem.fast_bytes);
    if (chip->fast_rate > 0) printf(", %.3g TB/s together", chip->fast_rate * 1e-12);
    switch (s->problem.rule) {
    case LAB_TILES_PAPER: printf("\ntiles: the paper's, ceil(M / 4D) and at most D\n"); break;
    case LAB_TILES_FIT: printf("\ntiles: the largest for which all that is held fits into M\n"); break;
    case LAB_TILES_GIVEN: printf("\ntiles: as given\n"); break;
    }
    if (!s->numbers) printf("the loops of the lab, without their arithmetic; rescales of lazy: at least\n");
}

static int write_csv(const settings *s, const table *t) {
    FILE *file = fopen(s->csv, "w");
    if (file == NULL) return tool_failure("io", "--csv %s: %s", s->csv, strerror(errno));
    const io_problem *p = &s->problem;
    fprintf(file,
            "algorithm,pass,batch,heads,seqlen_q,seqlen_k,dim,dtype,fast_bytes,br,bc,held_bytes,read_bytes,"
            "written_bytes,formula_read_bytes,formula_written_bytes,multiply_adds,exponentials,logarithms,"
            "divisions,rescales\n");
    for (int a = 0; a < SHOWN; a++)
        for (int d = 0; d < 2; d++) {
            if (!has_pass(s, d)) continue;
            const io_counts *c = &t->counts[a][d];
            fprintf(file, "%s,%s,%lld,%lld,%lld,%lld,%lld,%s,%lld,%lld,%lld,%lld",
                    lab_algorithm_names[shown[a]], pass_names[d], (long long)p->batch, (long long)p->heads,
                    (long long)p->rows, (long long)p->keys, (long long)p->dim,
                    work_dtype_name((attn_dtype)s->dtype), (long long)p->fast_bytes, (long long)c->tiles.br,
                    (long long)c->tiles.bc, (long long)c->held);
            const int64_t values[] = {c->head.read,       c->head.written,       c->closed.read,
                                      c->closed.written,  c->head.multiply_adds, c->head.exponentials,
                                      c->head.logarithms, c->head.divisions,     c->head.rescales};
            for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
                fprintf(file, ",%.0f", (double)values[i] * c->heads);
            fputc('\n', file);
        }
    const int failed = ferror(file);
    if (fclose(file) != 0 || failed) return tool_failure("io", "--csv %s: %s", s->csv, strerror(errno));
    return TOOL_OK;
}

static int print_table(const settings *s, const io_chip *chip) {
    table t;
    if (count_all(s, &t) != TOOL_OK) return TOOL_FAILED;
    print_head(s, chip);
    print_traffic(s, &t);
    print_work(s, &t, chip);
    if (s->numbers) {
        double worst = 0;
        for (int a = 0; a < SHOWN; a++)
            for (int d = 0; d < 2; d++)
                if (has_pass(s, d) && !(t.counts[a][d].largest_difference <= worst) && !isnan(worst))
                    worst = t.counts[a][d].largest_difference;
        printf("largest difference of O from the definition in double: %.2g\n", worst);
    }
    return s->csv != NULL ? write_csv(s, &t) : TOOL_OK;
}

/* ---------------------------------------------------------------- the command */

static int show(settings *s, const char *command) {
    if (s->published) return io_print_published();
    if (s->measure || s->profile != NULL)
        return io_print_measured(&s->problem, s->dtype, s->profile, s->save_profile);
    const io_chip chip = io_chip_find((io_chip_name)s->chip);
    s->problem.fast_bytes = s->memory > 0 ? s->memory : chip.fast_bytes;
    if (s->problem.fast_bytes == 0)
        return tool_failure("io", "the size of this processor's L2 is not known; give --memory");
    if (s->softmax) return io_print_softmax(&s->problem, &chip);
    if (s->curve) return io_print_curve(&s->problem, &chip, s->svg, command);
    const char *refusal = io_problem_refusal(&s->problem);
    if (refusal != NULL) return tool_usage_error("io", "%s", refusal);
    return print_table(s, &chip);
}

int attn_tool_io(int argc, char **argv) {
    settings s = {.shape = "64,16,1024,1024,64", .pass = PASS_BOTH, .dtype = ATTN_F16};
    char command[256] = "attn";
    const int status = parse(argc, argv, &s);
    if (status != FLAGS_GO) return status;
    for (int i = 0; i < argc; i++) {
        const size_t used = strlen(command);
        snprintf(command + used, sizeof command - used, " %s", argv[i]);
    }
    return show(&s, command);
}
