#define _GNU_SOURCE /* execvp, readlink */
#include "ncu.h"

#include "device.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------- text */

typedef struct text {
    char *data;
    size_t length, room;
} text;

static int grow(text *t, size_t more) {
    if (t->length + more + 1 <= t->room) return 1;
    const size_t room = 2 * t->room + more + 4096;
    char *data = realloc(t->data, room);
    if (data == NULL) return 0;
    t->data = data;
    t->room = room;
    return 1;
}

/* Everything that a stream has, ended by 0; null if memory ran out. */
static char *read_all(FILE *file) {
    text t = {NULL, 0, 0};
    size_t got;
    do {
        if (!grow(&t, 4096)) {
            free(t.data);
            return NULL;
        }
        got = fread(t.data + t.length, 1, 4096, file);
        t.length += got;
        t.data[t.length] = 0;
    } while (got > 0);
    return t.data;
}

char *ncu_read(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return NULL;
    char *all = read_all(file);
    if (ferror(file)) {
        free(all);
        all = NULL;
    }
    fclose(file);
    return all;
}

/* ---------------------------------------------------------------- running it */

static int is_in_path(const char *program) {
    const char *folders = getenv("PATH");
    while (folders != NULL && *folders != 0) {
        char path[4096];
        const size_t length = strcspn(folders, ":");
        snprintf(path, sizeof path, "%.*s/%s", (int)length, folders, program);
        if (access(path, X_OK) == 0) return 1;
        folders += length + (folders[length] == ':');
    }
    return 0;
}

const char *ncu_refusal(void) {
    const char *refusal = device_open(0);
    if (refusal != NULL) return refusal;
    device_close();
    return is_in_path("ncu") ? NULL : "there is no ncu (NVIDIA Nsight Compute) in PATH";
}

/* The last line of ncu's that says why, else the text's last line. */
static void explain(const char *all, char trouble[NCU_TROUBLE_SIZE]) {
    const char *found = NULL, *last = "it wrote nothing";
    for (const char *line = all; line != NULL && *line != 0;) {
        const size_t length = strcspn(line, "\n");
        if (length > 0) last = line;
        if (strncmp(line, "==ERROR==", 9) == 0) found = line;
        line += length + (line[length] == '\n');
    }
    const char *line = found != NULL ? found : last;
    snprintf(trouble, NCU_TROUBLE_SIZE, "ncu: %.*s",
             (int)(strcspn(line, "\n") < 300 ? strcspn(line, "\n") : 300), line);
}

/* Both streams of a program, or null; *status: as of wait. */
static char *run(char *const *arguments, int *status) {
    int ends[2];
    if (pipe(ends) != 0) return NULL;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(arguments[0], arguments);
        _exit(127);
    }
    close(ends[1]);
    FILE *file = child > 0 ? fdopen(ends[0], "r") : NULL;
    char *all = file != NULL ? read_all(file) : NULL;
    if (file != NULL)
        fclose(file);
    else
        close(ends[0]);
    if (child > 0)
        while (waitpid(child, status, 0) < 0 && errno == EINTR) {
        }
    return all;
}

char *ncu_profile(const char *metrics, int skip, int count, const char *const *arguments,
                  char trouble[NCU_TROUBLE_SIZE]) {
    enum { OWN = 16, LIMIT = 64 };
    char self[4096], skip_text[16], count_text[16];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) {
        snprintf(trouble, NCU_TROUBLE_SIZE, "the path of this command is not known");
        return NULL;
    }
    self[length] = 0;
    snprintf(skip_text, sizeof skip_text, "%d", skip);
    snprintf(count_text, sizeof count_text, "%d", count);
    const char *all_arguments[LIMIT] = {"ncu",
                                        "--csv",
                                        "--print-units",
                                        "base",
                                        "--clock-control",
                                        "none",
                                        "--metrics",
                                        metrics,
                                        "-k",
                                        "regex:^(standard|flash1|forward)_sm",
                                        "-s",
                                        skip_text,
                                        "-c",
                                        count_text,
                                        self};
    int used = OWN - 1;
    for (; *arguments != NULL && used < LIMIT - 1; arguments++) all_arguments[used++] = *arguments;
    int status = 0;
    fflush(stdout);
    char *all = run((char *const *)(uintptr_t)all_arguments, &status);
    if (all == NULL) {
        snprintf(trouble, NCU_TROUBLE_SIZE, "ncu could not be started: %s", strerror(errno));
    } else if (status != 0) {
        explain(all, trouble);
        free(all);
        all = NULL;
    }
    return all;
}

/* ---------------------------------------------------------------- reading it */

enum { FIELDS = 32, FIELD_SIZE = 256 };

typedef char row[FIELDS][FIELD_SIZE];

/* The quoted fields of a line; their number. */
static int split(const char *line, size_t length, row fields) {
    int count = 0;
    for (size_t i = 0; i < length && count < FIELDS;) {
        size_t used = 0;
        if (line[i] != '"') return 0;
        for (i++; i < length && !(line[i] == '"' && line[i + 1] != '"'); i++) {
            if (line[i] == '"') i++; /* a quote within, written twice */
            if (used < FIELD_SIZE - 1) fields[count][used++] = line[i];
        }
        fields[count++][used] = 0;
        i += 2; /* the quote and the comma */
    }
    return count;
}

static int column_of(row fields, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(fields[i], name) == 0) return i;
    return -1;
}

/* A number that may have commas between its digits. */
static double value_of(const char *field) {
    char digits[FIELD_SIZE];
    size_t used = 0;
    for (; *field != 0; field++)
        if (*field != ',') digits[used++] = *field;
    digits[used] = 0;
    return strtod(digits, NULL);
}

double ncu_sum(const char *all, const char *prefix, const char *metric, int *launches) {
    static row fields;
    int kernel = -1, name = -1, value = -1;
    double sum = 0;
    *launches = 0;
    for (const char *line = all; *line != 0;) {
        const size_t length = strcspn(line, "\r\n");
        const int count = line[0] == '"' ? split(line, length, fields) : 0;
        if (count > 0 && strcmp(fields[0], "ID") == 0) {
            kernel = column_of(fields, count, "Kernel Name");
            name = column_of(fields, count, "Metric Name");
            value = column_of(fields, count, "Metric Value");
        } else if (kernel >= 0 && name >= 0 && value >= 0 && count > kernel && count > name &&
                   count > value && strncmp(fields[kernel], prefix, strlen(prefix)) == 0 &&
                   strcmp(fields[name], metric) == 0) {
            sum += value_of(fields[value]);
            ++*launches;
        }
        line += length;
        line += strspn(line, "\r\n");
    }
    return sum;
}

int ncu_kernel(const char *all, const char *prefix, char name[NCU_KERNEL_SIZE]) {
    for (const char *at = all; (at = strchr(at, '"')) != NULL; at++) {
        if (strncmp(at + 1, prefix, strlen(prefix)) != 0) continue;
        snprintf(name, NCU_KERNEL_SIZE, "%.*s", (int)strcspn(at + 1, "\"("), at + 1);
        return 1;
    }
    return 0;
}
