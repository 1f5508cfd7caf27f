/*
 * A small table-driven parser of command lines: every option is a row, rows make the help.
 *
 *   const flag_row rows[] = {
 *       flag_section("Tensors"),
 *       flag_text("--q", &options.q, "FILE", "queries"),
 *       flag_integer("--threads", &options.threads, 0, 4096, "N", "threads; 0: all"),
 *   };
 *   const flag_command command = {"run", "--q FILE [OPTION]...", "what it does", rows, FLAG_COUNT(rows), NULL};
 *   const int status = flags_parse(&command, argc, argv);
 *   if (status != FLAGS_GO) return status;
 *
 * Both `--flag value` and `--flag=value` are understood. The last of a flag given twice wins, except
 * for lists, which grow. A flag that is not given leaves its variable as it is.
 */
#ifndef ATTN_TOOL_FLAGS_H
#define ATTN_TOOL_FLAGS_H

#include <stddef.h>
#include <stdint.h>

typedef enum flag_type {
    FLAG_SECTION,  /* no option: a heading of the help */
    FLAG_SWITCH,   /* int, set to 1 */
    FLAG_INTEGER,  /* int64_t, from minimum to maximum */
    FLAG_UNSIGNED, /* uint64_t */
    FLAG_NUMBER,   /* double, finite */
    FLAG_TEXT,     /* const char * */
    FLAG_CHOICE,   /* int, an index into choices */
    FLAG_LIST,     /* flag_list */
    FLAG_LATER     /* an option of a later version, refused by name */
} flag_type;

enum { FLAG_LIST_LIMIT = 64 };

typedef struct flag_list {
    const char *items[FLAG_LIST_LIMIT];
    size_t count;
} flag_list;

typedef struct flag_row {
    const char *name; /* "--threads" */
    flag_type type;
    void *value;
    const char *argument; /* the help's word for the value */
    const char *help;
    int64_t minimum, maximum;
    const char *const *choices; /* ended by null */
} flag_row;

typedef struct flag_command {
    const char *name;
    const char *usage;   /* what follows "attn NAME" */
    const char *summary; /* some sentences above the options */
    const flag_row *rows;
    size_t count;
    flag_list *arguments; /* where arguments without a flag go; null: there may be none */
} flag_command;

#define FLAG_COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

flag_row flag_section(const char *title);
flag_row flag_switch(const char *name, int *value, const char *help);
flag_row flag_integer(const char *name, int64_t *value, int64_t minimum, int64_t maximum,
                      const char *argument, const char *help);
flag_row flag_unsigned(const char *name, uint64_t *value, const char *argument, const char *help);
flag_row flag_number(const char *name, double *value, const char *argument, const char *help);
flag_row flag_text(const char *name, const char **value, const char *argument, const char *help);
flag_row flag_choice(const char *name, int *value, const char *const *choices, const char *help);
flag_row flag_many(const char *name, flag_list *value, const char *argument, const char *help);
flag_row flag_later(const char *name, const char *help);

/* FLAGS_GO, or an exit status: TOOL_OK after --help, TOOL_USAGE after a complaint on stderr. argv[0] is not read. */
enum { FLAGS_GO = -1 };
int flags_parse(const flag_command *command, int argc, char **argv);

/* One integer, the whole text, within bounds: 1, else 0. */
int flags_parse_integer(const char *text, int64_t minimum, int64_t maximum, int64_t *value);

/* Integers with commas between them, each within bounds; their number, or 0 if the text is anything else. */
size_t flags_parse_integers(const char *text, int64_t minimum, int64_t maximum, int64_t *values,
                            size_t limit);

#endif
