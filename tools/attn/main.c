/* The command `attn`: finds the subcommand and hands it its arguments. */
#include "terminal.h"
#include "tool.h"

#include <attn/attn.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct tool_command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
} tool_command;

static const tool_command commands[] = {
    {"run", attn_tool_run, "attention over .npy files: Q, K, V in, O and LSE out"},
    {"check", attn_tool_check, "every kernel of this machine against the oracle"},
    {"bench", attn_tool_bench, "time shapes, beside the machine's peak measured in the same run"},
    {"info", attn_tool_info, "what the machine has and which kernel each dtype gets"},
    {"io", attn_tool_io, "what attention moves between slow and fast memory, counted"},
    {"split", attn_tool_split, "how warps share a tile, and what that costs in shared memory"},
    {"plot", attn_tool_plot, "results in CSV files as a picture"},
    {"trace", attn_tool_trace, "attention on a toy, tile by tile, in the terminal or as an animated page"},
    {"precompile", attn_tool_precompile, "CUDA kernels into the disk cache"},
};
#define COMMAND_NAMES "run, check, bench, info, io, split, plot, trace, precompile"
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static int complain(int status, const char *command, const char *format, va_list arguments) {
    terminal_progress_clear();
    fprintf(stderr, "attn%s%s: ", command[0] != 0 ? " " : "", command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    return status;
}

int tool_usage_error(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int status = complain(TOOL_USAGE, command, format, arguments);
    va_end(arguments);
    return status;
}

int tool_failure(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int status = complain(TOOL_FAILED, command, format, arguments);
    va_end(arguments);
    return status;
}

#if !ATTNI_HAVE_CUDA
int attn_tool_precompile(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        printf("usage: attn precompile [OPTION]...\n\n"
               "Compiles CUDA kernels into the disk cache. Not here:\n" TOOL_NO_CUDA "\n"
               "  --help                      this text\n");
        return TOOL_OK;
    }
    return tool_usage_error(argv[0], TOOL_NO_CUDA);
}
#endif

static void print_help(void) {
    printf("%sattn%s: exact softmax attention, O = softmax(scale * Q K^T + mask) V\n\n"
           "usage: attn COMMAND [OPTION]...\n\n%sCommands%s\n",
           terminal_bold(stdout), terminal_plain(stdout), terminal_bold(stdout), terminal_plain(stdout));
    for (int i = 0; i < COMMAND_COUNT; i++) printf("  %-10s  %s\n", commands[i].name, commands[i].help);
    printf("\n  --help      this text; attn COMMAND --help gives a command's options\n"
           "  --version   the version\n\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage.\n");
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) return tool_usage_error("", "no command given; one of " COMMAND_NAMES " (see attn --help)");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return TOOL_OK;
    }
    if (strcmp(name, "--version") == 0) {
        const int version = (int)attn_version();
        printf("attn %d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);
        return TOOL_OK;
    }
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].main(argc - 1, argv + 1);
    return tool_usage_error("", "unknown %s '%s'; one of " COMMAND_NAMES " (see attn --help)",
                            name[0] == '-' ? "option" : "command", name);
}

int main(int argc, char **argv) {
    const int status = dispatch(argc, argv);
    /* A full disk behind a redirected stdout must not look like success. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return tool_failure("", "cannot write to standard output: %s", strerror(errno));
    return status;
}
