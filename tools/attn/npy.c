/*
 * A .npy file is
 *   6 bytes magic, 1 byte major, 1 byte minor, 2 (version 1) or 4 (2, 3) bytes header length, little-endian,
 *   the header, a Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, padded with
 *   blanks, then the elements.
 */
#define _POSIX_C_SOURCE 200809L
#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct type_row {
    char kind;
    size_t size;
    const char *name;
} type_row;

static const type_row types[] = {
    [NPY_F4] = {'f', 4, "float32"}, [NPY_F2] = {'f', 2, "float16"}, [NPY_U2] = {'u', 2, "uint16"},
    [NPY_U1] = {'u', 1, "uint8"},   [NPY_BOOL] = {'b', 1, "bool"},  [NPY_I4] = {'i', 4, "int32"},
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

size_t npy_element_size(npy_type type) { return types[type].size; }
const char *npy_type_name(npy_type type) { return types[type].name; }

static int fail(char *message, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

static int fail(char *message, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, NPY_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    return 0;
}

/* ---------------------------------------------------------------- header */

/* What is left of the header. Every step checks its end. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_blanks(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

static int take(cursor *c, char symbol) {
    skip_blanks(c);
    if (c->at == c->end || *c->at != symbol) return 0;
    c->at++;
    return 1;
}

static int take_word(cursor *c, const char *word) {
    const size_t length = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return 0;
    c->at += length;
    return 1;
}

/* A quoted string without escapes. */
static int take_string(cursor *c, char *text, size_t size) {
    skip_blanks(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) return 0;
    const char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote) {
        /* Only what may be shown in a message and is part of a key or of a type we know how to name. */
        if (*c->at < ' ' || *c->at > '~' || *c->at == '\\' || length + 1 >= size) return 0;
        text[length++] = *c->at++;
    }
    text[length] = 0;
    return take(c, quote);
}

static int take_dimension(cursor *c, int64_t *value) {
    int64_t number = 0;
    skip_blanks(c);
    const char *start = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        const int digit = *c->at - '0';
        if (number > (INT64_MAX - digit) / 10) return 0;
        number = number * 10 + digit;
    }
    if (c->at == start) return 0;
    if (c->at < c->end && *c->at == 'L') c->at++; /* Python 2 wrote long integers so */
    *value = number;
    return 1;
}

static int take_shape(cursor *c, npy_array *array, char *message) {
    if (!take(c, '(')) return fail(message, "the header's shape is no tuple");
    array->dims = 0;
    while (!take(c, ')')) {
        if (array->dims == NPY_MAX_DIMS)
            return fail(message, "more than %d dimensions; allowed are up to %d", NPY_MAX_DIMS, NPY_MAX_DIMS);
        if (!take_dimension(c, &array->shape[array->dims]))
            return fail(message, "the header's shape has a dimension that is no integer from 0 to 2^63 - 1");
        array->dims++;
        if (!take(c, ',')) {
            if (!take(c, ')')) return fail(message, "the header's shape does not end");
            break;
        }
    }
    return 1;
}

static int find_type(const char *descr, npy_type *type, char *message) {
    char *end;
    const char order = descr[0], kind = order != 0 ? descr[1] : 0;
    const long size = kind != 0 ? strtol(descr + 2, &end, 10) : 0;
    for (int i = 0; kind != 0 && *end == 0 && i < TYPE_COUNT; i++) {
        if (types[i].kind != kind || types[i].size != (size_t)size) continue;
        if (order == '>' && size > 1)
            return fail(message, "the element type is '%s', big-endian; allowed is little-endian", descr);
        if (order != '<' && order != '|' && order != '=' && order != '>') break;
        *type = (npy_type)i;
        return 1;
    }
    return fail(message,
                "the element type is '%s'; allowed are '<f4', '<f2', '<u2' (bfloat16), '|u1', '|b1', '<i4'",
                descr);
}

static int parse_header(cursor c, npy_array *array, char *message) {
    int has_descr = 0, has_order = 0, has_shape = 0;
    if (!take(&c, '{')) return fail(message, "the header is no Python dictionary");
    while (!take(&c, '}')) {
        char key[24], descr[24];
        if (!take_string(&c, key, sizeof key) || !take(&c, ':'))
            return fail(message, "the header is no dictionary of 'descr', 'fortran_order' and 'shape'");
        if (strcmp(key, "descr") == 0) {
            if (!take_string(&c, descr, sizeof descr))
                return fail(
                    message,
                    "the header's 'descr' is no plain element type (structured arrays cannot be read)");
            if (!find_type(descr, &array->type, message)) return 0;
            has_descr = 1;
        } else if (strcmp(key, "fortran_order") == 0) {
            if (take_word(&c, "True"))
                return fail(message, "the array is in Fortran order; save numpy.ascontiguousarray of it");
            if (!take_word(&c, "False"))
                return fail(message, "the header's 'fortran_order' is neither True nor False");
            has_order = 1;
        } else if (strcmp(key, "shape") == 0) {
            if (!take_shape(&c, array, message)) return 0;
            has_shape = 1;
        } else {
            return fail(message,
                        "the header has the key '%s'; allowed are 'descr', 'fortran_order' and 'shape'", key);
        }
        if (!take(&c, ',')) {
            if (!take(&c, '}')) return fail(message, "the header's dictionary does not end");
            break;
        }
    }
    skip_blanks(&c);
    if (c.at != c.end) return fail(message, "the header goes on after its dictionary");
    if (!has_descr || !has_order || !has_shape)
        return fail(message, "the header lacks '%s'",
                    !has_descr   ? "descr"
                    : !has_order ? "fortran_order"
                                 : "shape");
    return 1;
}

/* ---------------------------------------------------------------- whole files */

/* The product of shape, or 0 with a sentence if the array's bytes exceed size_t. */
static int count_elements(npy_array *array, char *message) {
    const size_t limit = SIZE_MAX / npy_element_size(array->type);
    int empty = 0;
    for (int i = 0; i < array->dims; i++) empty |= array->shape[i] == 0;
    array->count = empty ? 0 : 1;
    for (int i = 0; i < array->dims && !empty; i++) {
        if ((uint64_t)array->shape[i] > limit / array->count) {
            char text[NPY_SHAPE_TEXT_SIZE];
            return fail(message, "the shape %s is larger than memory can be", npy_shape_text(array, text));
        }
        array->count *= (size_t)array->shape[i];
    }
    return 1;
}

int npy_parse(const uint8_t *bytes, size_t size, npy_array *array, char message[NPY_MESSAGE_SIZE]) {
    static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    memset(array, 0, sizeof *array);
    if (size < sizeof magic || memcmp(bytes, magic, sizeof magic) != 0)
        return fail(message, "no .npy file (its first bytes are not \\x93NUMPY)");
    if (size < 10) return fail(message, "the file is cut off within its first 10 bytes");
    const unsigned major = bytes[6];
    if (major < 1 || major > 3)
        return fail(message, "the format's version is %u; allowed are 1, 2 and 3", major);
    const size_t start = major == 1 ? 10 : 12;
    if (size < start) return fail(message, "the file is cut off within its first 12 bytes");
    uint64_t length = bytes[8] | (uint64_t)bytes[9] << 8;
    if (major > 1) length |= (uint64_t)bytes[10] << 16 | (uint64_t)bytes[11] << 24;
    if (length > size - start)
        return fail(message, "the file is cut off within its header (%" PRIu64 " bytes, %zu are there)",
                    length, size - start);

    const cursor header = {(const char *)bytes + start, (const char *)bytes + start + length};
    if (!parse_header(header, array, message) || !count_elements(array, message)) return 0;
    array->offset = start + (size_t)length;
    const size_t expected = array->count * npy_element_size(array->type), present = size - array->offset;
    if (present != expected) {
        char text[NPY_SHAPE_TEXT_SIZE];
        return fail(message, "the file is %s: %s %s takes %zu bytes, %zu are there",
                    present < expected ? "cut off" : "too long", npy_shape_text(array, text),
                    npy_type_name(array->type), expected, present);
    }
    return 1;
}

static void *read_all(const char *path, size_t *size, char *message) {
    struct stat facts;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail(message, "cannot open: %s", strerror(errno));
        return NULL;
    }
    uint8_t *block = NULL;
    if (fstat(fileno(file), &facts) != 0 || !S_ISREG(facts.st_mode)) {
        fail(message, "no regular file");
    } else {
        *size = (size_t)facts.st_size;
        block = *size <= SIZE_MAX - 64 ? aligned_alloc(64, (*size / 64 + 1) * 64) : NULL;
        if (block == NULL) {
            fail(message, "no memory for its %zu bytes", *size);
        } else if (fread(block, 1, *size, file) != *size) {
            fail(message, "cannot read: %s", ferror(file) ? strerror(errno) : "it became shorter");
            free(block);
            block = NULL;
        }
    }
    fclose(file);
    return block;
}

int npy_load(const char *path, npy_array *array, char message[NPY_MESSAGE_SIZE]) {
    size_t size = 0;
    memset(array, 0, sizeof *array);
    uint8_t *block = read_all(path, &size, message);
    if (block == NULL) return 0;
    if (!npy_parse(block, size, array, message)) {
        free(block);
        return 0;
    }
    /* NumPy aligns the elements to 64 bytes; other writers need not. */
    array->block = block;
    array->data = block + array->offset;
    if (array->offset % 64 != 0) {
        memmove(block, array->data, size - array->offset);
        array->data = block;
    }
    return 1;
}

int npy_save(const char *path, npy_type type, int dims, const int64_t *shape, const void *data,
             char message[NPY_MESSAGE_SIZE]) {
    npy_array array = {.type = type, .dims = dims};
    char header[128 + NPY_SHAPE_TEXT_SIZE], text[NPY_SHAPE_TEXT_SIZE];
    for (int i = 0; i < dims; i++) array.shape[i] = shape[i];
    if (!count_elements(&array, message)) return 0;

    const size_t element = npy_element_size(type);
    const int used = snprintf(
        header + 10, sizeof header - 10, "{'descr': '%c%c%zu', 'fortran_order': False, 'shape': %s, }",
        element > 1 ? '<' : '|', types[type].kind, element, npy_shape_text(&array, text));
    /* Blanks up to a multiple of 64, the last byte a newline. */
    const size_t total = (10 + (size_t)used + 1 + 63) / 64 * 64;
    memset(header + 10 + used, ' ', total - 10 - (size_t)used);
    header[total - 1] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)((total - 10) & 255);
    header[9] = (char)((total - 10) >> 8);

    FILE *file = fopen(path, "wb");
    if (file == NULL) return fail(message, "cannot open: %s", strerror(errno));
    int good =
        fwrite(header, 1, total, file) == total && fwrite(data, element, array.count, file) == array.count;
    if (!good) fail(message, "cannot write: %s", strerror(errno));
    if (fclose(file) != 0 && good) good = fail(message, "cannot write: %s", strerror(errno));
    return good;
}

void npy_free(npy_array *array) {
    free(array->block);
    array->block = array->data = NULL;
}

const char *npy_shape_text(const npy_array *array, char text[NPY_SHAPE_TEXT_SIZE]) {
    size_t used = (size_t)snprintf(text, NPY_SHAPE_TEXT_SIZE, "(");
    for (int i = 0; i < array->dims; i++)
        used += (size_t)snprintf(text + used, NPY_SHAPE_TEXT_SIZE - used, "%s%" PRId64, i > 0 ? ", " : "",
                                 array->shape[i]);
    snprintf(text + used, NPY_SHAPE_TEXT_SIZE - used, array->dims == 1 ? ",)" : ")");
    return text;
}
