/*
 * The .npy reader over any bytes: it must say yes or no, never read outside of them, and what it says
 * yes to must add up.
 */
#include "npy.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* A block of exactly this size, so that a sanitizer sees one byte too far. */
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    npy_array array;
    char message[NPY_MESSAGE_SIZE] = "", text[NPY_SHAPE_TEXT_SIZE];
    if (bytes == NULL) return 0;
    if (size > 0) memcpy(bytes, data, size);
    if (npy_parse(bytes, size, &array, message)) {
        demand(array.dims >= 0 && array.dims <= NPY_MAX_DIMS);
        demand(array.offset + array.count * npy_element_size(array.type) == size);
        size_t count = 1;
        for (int i = 0; i < array.dims; i++) {
            demand(array.shape[i] >= 0);
            count *= (size_t)array.shape[i];
        }
        demand(count == array.count);
        demand(strlen(npy_type_name(array.type)) > 0);
        demand(npy_shape_text(&array, text)[0] == '(');
    } else {
        demand(message[0] != 0 && strlen(message) < NPY_MESSAGE_SIZE && strchr(message, '\n') == NULL);
    }
    free(bytes);
    return 0;
}
