/*
 * What the files of the command `attn` share: its commands, its exit statuses, its ways to complain.
 */
#ifndef ATTN_TOOL_H
#define ATTN_TOOL_H

enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 };

/* The commands. argv[0] is the command's own name ("run"), its flags follow. Each returns an exit status. */
int attn_tool_run(int argc, char **argv);
int attn_tool_check(int argc, char **argv);
int attn_tool_bench(int argc, char **argv);
int attn_tool_info(int argc, char **argv);
int attn_tool_trace(int argc, char **argv);
int attn_tool_precompile(int argc, char **argv);
int attn_tool_io(int argc, char **argv);
int attn_tool_split(int argc, char **argv);
int attn_tool_plot(int argc, char **argv);

#if defined(__GNUC__)
#define TOOL_PRINTF(format_index) __attribute__((format(printf, format_index, (format_index) + 1)))
#else
#define TOOL_PRINTF(format_index)
#endif

/* Prints "attn COMMAND: sentence" on stderr and returns TOOL_USAGE or TOOL_FAILED. */
int tool_usage_error(const char *command, const char *format, ...) TOOL_PRINTF(2);
int tool_failure(const char *command, const char *format, ...) TOOL_PRINTF(2);

/* Said where something needs the CUDA back end and the build has none. */
#define TOOL_NO_CUDA "this build has the CPU back end only; one made with -DATTN_CUDA=ON has both"

#endif
