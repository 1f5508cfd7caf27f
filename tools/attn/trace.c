/* attn trace: attention on a small input step by step, the standard way beside the tiles. */
#include "flags.h"
#include "npy.h"
#include "reference/rounding.h"
#include "terminal.h"
#include "tool.h"
#include "trace_page.h"
#include "trace_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- inputs */

/*
 * The toy: all scores are whole numbers. The maximum of q1 comes first, that of q3 last, the others between.
 *
 *            k0  k1  k2  k3  k4  k5
 *       q0    1   0   2  -1   2  -1
 *       q1    0   2   1   1  -1   2
 *       q2    1   2   3   0   1   1
 *       q3    1  -2   1  -2   3  -3
 */
enum { TOY_ROWS = 4, TOY_KEYS = 6, TOY_DIM = 2 };
static const float toy_q[] = {1, 0, 0, 1, 1, 1, 1, -1};
static const float toy_k[] = {1, 0, 0, 2, 2, 1, -1, 1, 2, -1, -1, 2};
static const float toy_v[] = {1, 0, 0, 1, 1, 1, 2, 0, 0, 2, 1, -1};

/* Q times this: scores up to 120, and exp overflows float32 from 88.8 on. q0 and q1 stay below that. */
enum { LARGE = 40 };

enum { SIDE_LIMIT = 64 }; /* of Q, K and V: this is for looking at numbers */

typedef struct settings {
    const char *files[3], *html;
    const char *tile;
    double scale;
    int part, colour;
} settings;

typedef struct inputs {
    trace_input given, large;
    lab_tiles tiles;
    float *matrices[3], *large_q;
} inputs;

static const char *const options[3] = {"--q", "--k", "--v"};

/* One matrix, of 2 dimensions or of 4 with one sequence and one head in it. */
static int load_matrix(const char *option, const char *path, float **values, int64_t *rows, int64_t *dim) {
    char message[NPY_MESSAGE_SIZE], shape[NPY_SHAPE_TEXT_SIZE];
    npy_array array;
    if (!npy_load(path, &array, message)) {
        npy_free(&array);
        return tool_failure("trace", "%s %s: %s", option, path, message);
    }
    int status = TOOL_FAILED;
    const int flat = array.dims == 2;
    const int one = array.dims == 4 && array.shape[0] == 1 && (array.shape[1] == 1 || array.shape[2] == 1);
    if (array.type != NPY_F4 && array.type != NPY_F2)
        tool_failure("trace", "%s %s: the elements are %s; float32 and float16 are taken", option, path,
                     npy_type_name(array.type));
    else if (!flat && !one)
        tool_failure(
            "trace",
            "%s %s: the shape is %s; taken is (rows, dim), or 4 dimensions with one sequence and one head",
            option, path, npy_shape_text(&array, shape));
    else {
        *rows = flat ? array.shape[0] : array.shape[1] * array.shape[2];
        *dim = array.shape[array.dims - 1];
        if (*rows < 1 || *dim < 1 || *rows > SIDE_LIMIT || *dim > SIDE_LIMIT)
            tool_failure(
                "trace",
                "%s %s: the shape is %s; this is for small matrices, 1 to %d rows of 1 to %d numbers", option,
                path, npy_shape_text(&array, shape), SIDE_LIMIT, SIDE_LIMIT);
        else if ((*values = malloc(array.count * sizeof **values)) == NULL)
            tool_failure("trace", "memory ran out");
        else
            status = TOOL_OK;
    }
    for (size_t n = 0; status == TOOL_OK && n < array.count; n++)
        (*values)[n] =
            (float)attni_reference_load(array.data, array.type == NPY_F4 ? ATTN_F32 : ATTN_F16, (int64_t)n);
    npy_free(&array);
    return status;
}

static int load_files(const settings *s, inputs *in) {
    int64_t rows[3], dim[3];
    for (int n = 0; n < 3; n++) {
        const int status = load_matrix(options[n], s->files[n], &in->matrices[n], &rows[n], &dim[n]);
        if (status != TOOL_OK) return status;
    }
    if (dim[1] != dim[0] || dim[2] != dim[0])
        return tool_failure(
            "trace", "the dims of Q, K and V are %" PRId64 ", %" PRId64 " and %" PRId64 "; here they are one",
            dim[0], dim[1], dim[2]);
    if (rows[1] != rows[2])
        return tool_failure("trace", "K has %" PRId64 " rows and V has %" PRId64 "; allowed is as many",
                            rows[1], rows[2]);
    const trace_input given = {
        s->files[0],     rows[0],         rows[1],        dim[0], (float)(1 / sqrt((double)dim[0])),
        in->matrices[0], in->matrices[1], in->matrices[2]};
    in->given = given;
    return TOOL_OK;
}

static int make_inputs(const settings *s, inputs *in) {
    static const trace_input toy = {"built in", TOY_ROWS, TOY_KEYS, TOY_DIM, 1, toy_q, toy_k, toy_v};
    int64_t tile[2] = {2, 2};
    if (s->tile != NULL && flags_parse_integers(s->tile, 1, SIDE_LIMIT, tile, 2) != 2)
        return tool_usage_error("trace", "--tile is '%s'; allowed is QUERIES,KEYS, each 1 to %d", s->tile,
                                SIDE_LIMIT);
    in->tiles.br = tile[0];
    in->tiles.bc = tile[1];
    in->given = in->large = toy;
    const int given = (s->files[0] != NULL) + (s->files[1] != NULL) + (s->files[2] != NULL);
    if (given != 0 && given != 3) return tool_usage_error("trace", "--q, --k and --v go together");
    const int status = given == 3 ? load_files(s, in) : TOOL_OK;
    if (status != TOOL_OK) return status;
    if (!isnan(s->scale)) in->given.scale = (float)s->scale;
    in->large.name = "built in, Q times 40";
    in->large_q = malloc(sizeof toy_q);
    if (in->large_q == NULL) return tool_failure("trace", "memory ran out");
    for (size_t n = 0; n < sizeof toy_q / sizeof *toy_q; n++) in->large_q[n] = LARGE * toy_q[n];
    in->large.q = in->large_q;
    return TOOL_OK;
}

static lab_tiles within(lab_tiles tiles, const trace_input *in) {
    const lab_tiles least = {tiles.br < in->rows ? tiles.br : in->rows,
                             tiles.bc < in->keys ? tiles.bc : in->keys};
    return least;
}

/* ---------------------------------------------------------------- runs */

enum { STANDARD, STANDARD_SIMPLE, SIMPLE, FLASH1, FLASH2, LARGE_SIMPLE, LARGE_FLASH2, RUNS };

static const struct {
    const char *name;
    lab_algorithm algorithm;
    int without_maximum, large;
} kinds[RUNS] = {
    [STANDARD] = {"standard", LAB_STANDARD, 0, 0},
    [STANDARD_SIMPLE] = {"standard_simple", LAB_STANDARD, 1, 0},
    [SIMPLE] = {"simple", LAB_SIMPLE, 1, 0},
    [FLASH1] = {"flash1", LAB_FLASH1, 0, 0},
    [FLASH2] = {"flash2", LAB_FLASH2, 0, 0},
    [LARGE_SIMPLE] = {"large_simple", LAB_SIMPLE, 1, 1},
    [LARGE_FLASH2] = {"large_flash2", LAB_FLASH2, 0, 1},
};

static int record_all(const inputs *in, trace_run *runs) {
    static const lab_tiles toy_tiles = {2, 2};
    for (int r = 0; r < RUNS; r++) {
        const trace_input *input = kinds[r].large ? &in->large : &in->given;
        const lab_tiles tiles = kinds[r].large ? toy_tiles : within(in->tiles, input);
        const char *message =
            trace_record(&runs[r], kinds[r].algorithm, kinds[r].without_maximum, input, tiles);
        if (message != NULL) return tool_failure("trace", "%s: %s", kinds[r].name, message);
    }
    return TOOL_OK;
}

/* ---------------------------------------------------------------- parts */

enum { PART_ALL, PART_STANDARD, PART_SIMPLE, PART_MAXIMUM, PART_OVERFLOW };
static const char *const part_names[] = {"all", "standard", "simple", "maximum", "overflow", NULL};

static void print_overflow(const trace_run *simple, const trace_run *flash2) {
    trace_text_heading("4. Why the maximum matters");
    printf("  The toy with Q times %d: scores up to 120, and exp(x) is inf from x = 88.8 on.\n"
           "  q0 and q1 stay below that; here are q2 and q3. First without the maximum:\n",
           LARGE);
    trace_text_steps(simple, 1);
    printf("\n  The same scores with the maximum: exp(A - m) is never above 1.\n");
    trace_text_steps(flash2, 1);
}

static void print_parts(const settings *s, const inputs *in, const trace_run *runs) {
    trace_text_inputs(&in->given, runs[FLASH2].tiles);
    if (s->part == PART_ALL || s->part == PART_STANDARD) trace_text_standard(&runs[STANDARD]);
    if (s->part == PART_ALL || s->part == PART_SIMPLE) {
        trace_text_heading("2. Tile by tile, without the maximum");
        printf("  l, the running denominator (D), and O are plain sums. A is never stored.\n");
        trace_text_steps(&runs[SIMPLE], 0);
    }
    if (s->part == PART_ALL || s->part == PART_MAXIMUM) {
        trace_text_heading("3. Tile by tile, with the maximum: FlashAttention-2");
        printf("  m is the largest score so far. When it grows, l and O are taken to the new m\n"
               "  by the factor exp(old m - new m), and go on.\n");
        trace_text_steps(&runs[FLASH2], 0);
    }
    if (s->part == PART_ALL || s->part == PART_OVERFLOW)
        print_overflow(&runs[LARGE_SIMPLE], &runs[LARGE_FLASH2]);
    if (s->part == PART_ALL) trace_text_summary(&runs[STANDARD], &runs[FLASH2]);
}

static int show(const settings *s, const inputs *in, const trace_run *runs) {
    char message[TRACE_MESSAGE_SIZE];
    const int64_t width = trace_text_width(&in->given, runs[FLASH2].tiles);
    const int columns = terminal_columns(stdout), fits = width <= columns;
    if (!fits && s->html == NULL)
        return tool_failure("trace",
                            "%" PRId64 " keys at dim %" PRId64 " in tiles of %" PRId64 " keys need %" PRId64
                            " columns, and there are %d; --html FILE has room for more",
                            in->given.keys, in->given.dim, runs[FLASH2].tiles.bc, width, columns);
    if (fits) print_parts(s, in, runs);
    if (s->html == NULL) return TOOL_OK;
    trace_named named[RUNS];
    for (int r = 0; r < RUNS; r++) named[r].name = kinds[r].name, named[r].run = &runs[r];
    if (!trace_page_write(s->html, named, RUNS, message))
        return tool_failure("trace", "--html %s: %s", s->html, message);
    printf("%s%s is written: open it in a browser.\n", fits ? "\n" : "", s->html);
    return TOOL_OK;
}

/* ---------------------------------------------------------------- the command */

static int parse(int argc, char **argv, settings *s) {
    const flag_row rows[] = {
        flag_section("Input"),
        flag_text("--q", &s->files[0], "FILE", "queries, .npy (rows, dim); default: a built-in toy"),
        flag_text("--k", &s->files[1], "FILE", "keys"),
        flag_text("--v", &s->files[2], "FILE", "values, of the same dim"),
        flag_number("--scale", &s->scale, "X", "default 1 for the toy, 1/sqrt(dim) for files"),
        flag_text("--tile", &s->tile, "QUERIES,KEYS", "default 2,2"),
        flag_section("Output"),
        flag_choice("--part", &s->part, part_names, "default all"),
        flag_text("--html", &s->html, "FILE", "also write a page that animates it, for a browser"),
        flag_choice("--color", &s->colour, terminal_colour_names,
                    "default auto: on a terminal, without NO_COLOR"),
    };
    const flag_command command = {
        "trace",
        "[OPTION]...",
        "Shows attention on a small input step by step: the standard way with the whole matrix\n"
        "of scores, beside the tiles with their running statistics m and l.",
        rows,
        FLAG_COUNT(rows),
        NULL};
    const int status = flags_parse(&command, argc, argv);
    terminal_set_colour((terminal_colour)s->colour);
    return status;
}

int attn_tool_trace(int argc, char **argv) {
    settings s = {.scale = NAN};
    int status = parse(argc, argv, &s);
    if (status != FLAGS_GO) return status;
    inputs in = {.large_q = NULL};
    trace_run runs[RUNS] = {{.input = NULL}};
    status = make_inputs(&s, &in);
    if (status == TOOL_OK) status = record_all(&in, runs);
    if (status == TOOL_OK) status = show(&s, &in, runs);
    for (int r = 0; r < RUNS; r++) trace_run_free(&runs[r]);
    for (int n = 0; n < 3; n++) free(in.matrices[n]);
    free(in.large_q);
    return status;
}
