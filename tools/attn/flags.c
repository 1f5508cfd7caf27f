#include "flags.h"

#include "terminal.h"
#include "tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- rows */

static flag_row make(const char *name, flag_type type, void *value, const char *argument, const char *help) {
    const flag_row row = {name, type, value, argument, help, 0, 0, NULL};
    return row;
}

flag_row flag_section(const char *title) { return make(title, FLAG_SECTION, NULL, "", ""); }

flag_row flag_switch(const char *name, int *value, const char *help) {
    return make(name, FLAG_SWITCH, value, "", help);
}

flag_row flag_integer(const char *name, int64_t *value, int64_t minimum, int64_t maximum,
                      const char *argument, const char *help) {
    flag_row row = make(name, FLAG_INTEGER, value, argument, help);
    row.minimum = minimum;
    row.maximum = maximum;
    return row;
}

flag_row flag_unsigned(const char *name, uint64_t *value, const char *argument, const char *help) {
    return make(name, FLAG_UNSIGNED, value, argument, help);
}

flag_row flag_number(const char *name, double *value, const char *argument, const char *help) {
    return make(name, FLAG_NUMBER, value, argument, help);
}

flag_row flag_text(const char *name, const char **value, const char *argument, const char *help) {
    return make(name, FLAG_TEXT, (void *)value, argument, help);
}

flag_row flag_choice(const char *name, int *value, const char *const *choices, const char *help) {
    flag_row row = make(name, FLAG_CHOICE, value, "", help);
    row.choices = choices;
    return row;
}

flag_row flag_many(const char *name, flag_list *value, const char *argument, const char *help) {
    return make(name, FLAG_LIST, value, argument, help);
}

flag_row flag_later(const char *name, const char *help) { return make(name, FLAG_LATER, NULL, "", help); }

/* ---------------------------------------------------------------- help */

static void join_choices(const flag_row *row, const char *separator, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; row->choices[i] != NULL && used < size; i++) {
        const int wrote = snprintf(text + used, size - used, "%s%s", i > 0 ? separator : "", row->choices[i]);
        used += (size_t)wrote;
    }
}

static void print_row(const flag_row *row) {
    enum { COLUMN = 30 };
    char left[192], choices[128] = "";
    if (row->type == FLAG_CHOICE) join_choices(row, "|", choices, sizeof choices);
    const char *argument = row->type == FLAG_CHOICE ? choices : row->argument;
    snprintf(left, sizeof left, "%s%s%s", row->name, argument[0] != 0 ? " " : "", argument);
    /* A left side that is too long for its column gets a line of its own. */
    if (strlen(left) > COLUMN - 4)
        printf("  %s\n%*s%s\n", left, COLUMN, "", row->help);
    else
        printf("  %-*s%s\n", COLUMN - 2, left, row->help);
}

static void print_help(const flag_command *command) {
    printf("usage: attn %s %s\n\n%s\n", command->name, command->usage, command->summary);
    for (size_t i = 0; i < command->count; i++) {
        const flag_row *row = &command->rows[i];
        if (row->type == FLAG_SECTION)
            printf("\n%s%s%s\n", terminal_bold(stdout), row->name, terminal_plain(stdout));
        else if (row->type != FLAG_LATER)
            print_row(row);
    }
    const flag_row help = make("--help", FLAG_SWITCH, NULL, "", "this text");
    print_row(&help);
}

/* ---------------------------------------------------------------- values */

int flags_parse_integer(const char *text, int64_t minimum, int64_t maximum, int64_t *value) {
    char *end;
    /* strtoll would skip leading blanks, which a mistyped list may have. */
    if (text[0] != '-' && (text[0] < '0' || text[0] > '9')) return 0;
    errno = 0;
    const long long parsed = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || parsed < minimum || parsed > maximum) return 0;
    *value = parsed;
    return 1;
}

size_t flags_parse_integers(const char *text, int64_t minimum, int64_t maximum, int64_t *values,
                            size_t limit) {
    size_t count = 0;
    for (;;) {
        char item[32];
        const size_t length = strcspn(text, ",");
        if (count == limit || length >= sizeof item) return 0;
        memcpy(item, text, length);
        item[length] = 0;
        if (!flags_parse_integer(item, minimum, maximum, &values[count])) return 0;
        count++;
        if (text[length] == 0) return count;
        text += length + 1;
    }
}

static int parse_unsigned(const char *text, uint64_t *value) {
    char *end;
    if (text[0] < '0' || text[0] > '9') return 0;
    errno = 0;
    const unsigned long long parsed = strtoull(text, &end, 10);
    if (errno != 0 || *end != 0) return 0;
    *value = parsed;
    return 1;
}

static int parse_number(const char *text, double *value) {
    char *end;
    const double parsed = strtod(text, &end);
    if (end == text || *end != 0 || !isfinite(parsed)) return 0;
    *value = parsed;
    return 1;
}

static int find_choice(const flag_row *row, const char *text) {
    for (int i = 0; row->choices[i] != NULL; i++)
        if (strcmp(text, row->choices[i]) == 0) return i;
    return -1;
}

static int take_value(const flag_command *command, const flag_row *row, const char *text) {
    switch (row->type) {
    case FLAG_INTEGER:
        if (flags_parse_integer(text, row->minimum, row->maximum, (int64_t *)row->value)) return FLAGS_GO;
        if (row->maximum == INT64_MAX && row->minimum == INT64_MIN)
            return tool_usage_error(command->name, "%s is '%s'; allowed is an integer", row->name, text);
        if (row->maximum == INT64_MAX)
            return tool_usage_error(command->name, "%s is '%s'; allowed is an integer from %lld up",
                                    row->name, text, (long long)row->minimum);
        return tool_usage_error(command->name, "%s is '%s'; allowed is an integer from %lld to %lld",
                                row->name, text, (long long)row->minimum, (long long)row->maximum);
    case FLAG_UNSIGNED:
        if (parse_unsigned(text, (uint64_t *)row->value)) return FLAGS_GO;
        return tool_usage_error(command->name, "%s is '%s'; allowed is an integer from 0 to %llu", row->name,
                                text, (unsigned long long)UINT64_MAX);
    case FLAG_NUMBER:
        if (parse_number(text, (double *)row->value)) return FLAGS_GO;
        return tool_usage_error(command->name, "%s is '%s'; allowed is a finite number", row->name, text);
    case FLAG_TEXT:
        if (text[0] == 0)
            return tool_usage_error(command->name, "%s is empty; allowed is %s", row->name, row->argument);
        *(const char **)row->value = text;
        return FLAGS_GO;
    case FLAG_CHOICE: {
        char allowed[128];
        const int choice = find_choice(row, text);
        join_choices(row, ", ", allowed, sizeof allowed);
        if (choice < 0)
            return tool_usage_error(command->name, "%s is '%s'; allowed is one of %s", row->name, text,
                                    allowed);
        *(int *)row->value = choice;
        return FLAGS_GO;
    }
    case FLAG_LIST: {
        flag_list *list = row->value;
        if (list->count == FLAG_LIST_LIMIT)
            return tool_usage_error(command->name, "%s is given more than %d times", row->name,
                                    FLAG_LIST_LIMIT);
        list->items[list->count++] = text;
        return FLAGS_GO;
    }
    case FLAG_SECTION:
    case FLAG_SWITCH:
    case FLAG_LATER: break;
    }
    return FLAGS_GO;
}

/* ---------------------------------------------------------------- the line */

static const flag_row *find(const flag_command *command, const char *text, size_t length) {
    for (size_t i = 0; i < command->count; i++) {
        const flag_row *row = &command->rows[i];
        if (row->type != FLAG_SECTION && strlen(row->name) == length && memcmp(row->name, text, length) == 0)
            return row;
    }
    return NULL;
}

int flags_parse(const flag_command *command, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            print_help(command);
            return TOOL_OK;
        }
        if (text[0] != '-' && command->arguments != NULL && command->arguments->count < FLAG_LIST_LIMIT) {
            command->arguments->items[command->arguments->count++] = text;
            continue;
        }
        if (strncmp(text, "--", 2) != 0)
            return tool_usage_error(command->name, "unexpected argument '%s' (see attn %s --help)", text,
                                    command->name);
        const size_t length = strcspn(text, "=");
        const char *value = text[length] == '=' ? text + length + 1 : NULL;
        const flag_row *row = find(command, text, length);
        if (row == NULL)
            return tool_usage_error(command->name, "unknown option %.*s (see attn %s --help)", (int)length,
                                    text, command->name);
        if (row->type == FLAG_LATER)
            return tool_usage_error(command->name, "%s: not in this version (%s)", row->name, row->help);
        if (row->type == FLAG_SWITCH) {
            if (value != NULL)
                return tool_usage_error(command->name, "%s is '%s'; it takes no value", row->name, value);
            *(int *)row->value = 1;
            continue;
        }
        if (value == NULL) {
            /* A forgotten value must not swallow the next option. */
            if (i + 1 == argc || strncmp(argv[i + 1], "--", 2) == 0)
                return tool_usage_error(command->name, "%s needs a value", row->name);
            value = argv[++i];
        }
        const int status = take_value(command, row, value);
        if (status != FLAGS_GO) return status;
    }
    return FLAGS_GO;
}
