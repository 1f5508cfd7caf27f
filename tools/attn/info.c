/* attn info: what the machine has, the kernels, and which of them each dtype gets. */
#include "attn/attn.h"
#include "flags.h"
#include "info_kernels.h"
#include "json.h"
#include "machine.h"
#include "terminal.h"
#include "tool.h"
#include "work.h"

#include <stdio.h>
#include <string.h>

typedef struct choice {
    const char *op;
    attn_dtype dtype, dtype_kv;
} choice;

static const choice choices[] = {
    {"forward", ATTN_F32, ATTN_F32}, {"forward", ATTN_F16, ATTN_F16},  {"forward", ATTN_BF16, ATTN_BF16},
    {"forward", ATTN_F32, ATTN_F16}, {"forward", ATTN_F32, ATTN_BF16}, {"decode", ATTN_F32, ATTN_F32},
    {"decode", ATTN_F16, ATTN_F16},  {"decode", ATTN_BF16, ATTN_BF16}, {"decode", ATTN_F32, ATTN_F16},
    {"decode", ATTN_F32, ATTN_BF16},
};
enum { CHOICE_COUNT = sizeof choices / sizeof choices[0] };

/* A plan for a common shape; null, with the library's sentence, where there is none. */
static attn_plan *plan_for(attn_context *context, const choice *c) {
    attn_problem p = ATTN_PROBLEM_INIT;
    attn_plan *plan = NULL;
    p.heads_q = 32;
    p.heads_kv = 8;
    p.seqlen_q = strcmp(c->op, "decode") == 0 ? 1 : 4096;
    p.seqlen_k = 4096;
    p.dim_qk = p.dim_v = 128;
    p.dtype_q = p.dtype_o = c->dtype;
    p.dtype_kv = c->dtype_kv;
    return attn_plan_create(context, &p, NULL, &plan) == ATTN_OK ? plan : NULL;
}

static const char *isa_name(const attn_kernel_info *kernel) {
    const int count = ATTN_ISA_SM90 + 1;
    return (int)kernel->isa >= 0 && (int)kernel->isa < count ? work_isa_names[kernel->isa] : "?";
}

static const char *device_name(attn_device device) { return device == ATTN_DEVICE_CPU ? "cpu" : "cuda"; }

static const char *or_empty(const char *text) { return text != NULL ? text : ""; }

/* ---------------------------------------------------------------- text */

static void print_indented(const char *text) {
    while (*text != 0) {
        const size_t length = strcspn(text, "\n");
        printf("  %.*s\n", (int)length, text);
        text += length;
        if (*text == '\n') text++;
    }
}

static void heading(const char *title) {
    printf("\n%s%s%s\n", terminal_bold(stdout), title, terminal_plain(stdout));
}

static void print_kernels(void) {
    printf("  %-28s %-6s %-13s %-9s %-34s %s\n", "kernel", "device", "isa", "op", "dtypes",
           "on this machine");
    for (int32_t i = 0; i < attn_kernel_count(); i++) {
        attn_kernel_info k = ATTN_KERNEL_INFO_INIT;
        if (attn_kernel_get(i, &k) != ATTN_OK) continue;
        printf("  %-28s %-6s %-13s %-9s %-34s %s%s%s\n", or_empty(k.name), device_name(k.device),
               isa_name(&k), or_empty(k.op), or_empty(k.dtypes),
               k.refusal == NULL ? terminal_green(stdout) : terminal_red(stdout),
               k.refusal == NULL ? "yes" : k.refusal, terminal_plain(stdout));
    }
#if ATTNI_HAVE_CUDA
    printf("\n");
    info_print_embedded();
#endif
}

static const char *dtypes_text(const choice *c, char text[16]) {
    snprintf(text, 16, c->dtype == c->dtype_kv ? "%s" : "%s/%s", work_dtype_name(c->dtype),
             work_dtype_name(c->dtype_kv));
    return text;
}

static void print_choices(attn_context *context) {
    char dtypes[16];
    for (int i = 0; i < CHOICE_COUNT; i++) {
        attn_plan *plan = plan_for(context, &choices[i]);
        printf("\n  %s%s %s%s: %s\n", terminal_bold(stdout), choices[i].op, dtypes_text(&choices[i], dtypes),
               terminal_plain(stdout), plan != NULL ? attn_plan_kernel(plan) : attn_last_error());
        if (plan != NULL) {
            for (const char *line = attn_plan_describe(plan); *line != 0;) {
                const size_t length = strcspn(line, "\n");
                printf("      %.*s\n", (int)length, line);
                line += length + (line[length] == '\n');
            }
        }
        attn_plan_destroy(plan);
    }
}

static void print_cuda_device(void) {
    attn_context *cuda;
    if (attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &cuda) == ATTN_OK) {
        print_indented(attn_context_describe(cuda));
        attn_context_destroy(cuda);
    } else {
        printf("  no CUDA device: %s\n", attn_last_error());
    }
}

static void print_all(attn_context *context) {
    char bytes[TERMINAL_BYTES_SIZE];
    const int version = (int)attn_version();
    printf("%sMachine%s\n", terminal_bold(stdout), terminal_plain(stdout));
    printf("  %d processors to use, last-level cache %s\n", machine_processors(),
           terminal_bytes((double)machine_cache_bytes(), bytes));
    print_indented(attn_context_describe(context));
    if (attn_has_feature(ATTN_FEATURE_CUDA)) print_cuda_device();
    heading("Library");
    printf("  version %d.%d.%d, OpenMP %s, CUDA back end %s\n", version / 10000, version / 100 % 100,
           version % 100, attn_has_feature(ATTN_FEATURE_OPENMP) ? "yes" : "no",
           attn_has_feature(ATTN_FEATURE_CUDA) ? "yes" : "no");
    heading("Kernels");
    print_kernels();
    heading("Which kernel runs, of Q and O / of K and V (32 heads over 8, 4096 keys, dim 128)");
    print_choices(context);
}

/* ---------------------------------------------------------------- JSON */

static void write_kernels(json *out) {
    json_open(out, "kernels", '[');
    for (int32_t i = 0; i < attn_kernel_count(); i++) {
        attn_kernel_info k = ATTN_KERNEL_INFO_INIT;
        if (attn_kernel_get(i, &k) != ATTN_OK) continue;
        json_open(out, NULL, '{');
        json_text(out, "name", k.name);
        json_text(out, "device", device_name(k.device));
        json_text(out, "isa", isa_name(&k));
        json_text(out, "op", k.op);
        json_text(out, "dtypes", k.dtypes);
        json_text(out, "refusal", k.refusal);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void write_choices(json *out, attn_context *context) {
    json_open(out, "choices", '[');
    for (int i = 0; i < CHOICE_COUNT; i++) {
        attn_plan *plan = plan_for(context, &choices[i]);
        json_open(out, NULL, '{');
        json_text(out, "op", choices[i].op);
        json_text(out, "dtype", work_dtype_name(choices[i].dtype));
        json_text(out, "dtype_kv", work_dtype_name(choices[i].dtype_kv));
        json_text(out, "kernel", plan != NULL ? attn_plan_kernel(plan) : NULL);
        json_text(out, "plan", plan != NULL ? attn_plan_describe(plan) : NULL);
        json_text(out, "refusal", plan != NULL ? NULL : attn_last_error());
        json_close(out, '}');
        attn_plan_destroy(plan);
    }
    json_close(out, ']');
}

static void write_all(attn_context *context, int kernels_only) {
    char name[MACHINE_NAME_SIZE];
    json out = {.file = stdout};
    json_open(&out, NULL, '{');
    if (!kernels_only) {
        json_open(&out, "machine", '{');
        json_text(&out, "cpu", machine_name(name));
        json_integer(&out, "processors", machine_processors());
        json_integer(&out, "last_level_cache_bytes", machine_cache_bytes());
        json_text(&out, "device", attn_context_describe(context));
        json_close(&out, '}');
        json_open(&out, "library", '{');
        json_integer(&out, "version", attn_version());
        json_boolean(&out, "openmp", attn_has_feature(ATTN_FEATURE_OPENMP) != 0);
        json_boolean(&out, "cuda", attn_has_feature(ATTN_FEATURE_CUDA) != 0);
        json_close(&out, '}');
    }
    write_kernels(&out);
#if ATTNI_HAVE_CUDA
    info_write_embedded(&out);
#endif
    if (!kernels_only) write_choices(&out, context);
    json_close(&out, '}');
}

/* ---------------------------------------------------------------- the command */

int attn_tool_info(int argc, char **argv) {
    int kernels = 0, as_json = 0;
    const flag_row rows[] = {
        flag_section("Options"),
        flag_switch("--kernels", &kernels, "only the list of kernels"),
        flag_switch("--json", &as_json, "as JSON"),
    };
    const flag_command command = {
        "info",
        "[OPTION]...",
        "Prints what the machine has, every kernel and why it cannot run here, and which kernel\n"
        "each dtype gets and why not a better one. ATTN_ISA in the environment is heeded.",
        rows,
        FLAG_COUNT(rows),
        NULL};
    const int status = flags_parse(&command, argc, argv);
    if (status != FLAGS_GO) return status;
    attn_context *context = NULL;
    if (attn_context_create(ATTN_DEVICE_CPU, 0, NULL, &context) != ATTN_OK)
        return tool_failure("info", "cannot open the CPU: %s", attn_last_error());
    if (as_json)
        write_all(context, kernels);
    else if (kernels)
        print_kernels();
    else
        print_all(context);
    attn_context_destroy(context);
    return TOOL_OK;
}
