/*
 * Arrays in NumPy's .npy format, versions 1, 2 and 3: little-endian, C order, the element types below.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
#ifndef ATTN_TOOL_NPY_H
#define ATTN_TOOL_NPY_H

#include <stddef.h>
#include <stdint.h>

typedef enum npy_type { NPY_F4, NPY_F2, NPY_U2, NPY_U1, NPY_BOOL, NPY_I4 } npy_type;

enum { NPY_MAX_DIMS = 8, NPY_MESSAGE_SIZE = 256 };

typedef struct npy_array {
    npy_type type;
    int dims;
    int64_t shape[NPY_MAX_DIMS];
    size_t count;  /* elements; the product of shape, 1 without dimensions */
    size_t offset; /* of the first element from the start of the file */
    void *data;    /* after npy_load: 64-byte aligned; ended by npy_free */
    void *block;
} npy_array;

/* Element size in bytes, and the name that messages use ("float32"). */
size_t npy_element_size(npy_type type);
const char *npy_type_name(npy_type type);

/*
 * Understands a whole file that lies in memory. A pure function: reads only bytes[0, size), keeps
 * nothing, sets everything of *array but data and block. 1, or 0 with one sentence in message.
 */
int npy_parse(const uint8_t *bytes, size_t size, npy_array *array, char message[NPY_MESSAGE_SIZE]);

/* Reads a file. 1, or 0 with one sentence in message. Either way npy_free is allowed. */
int npy_load(const char *path, npy_array *array, char message[NPY_MESSAGE_SIZE]);

/* Writes a version 1 file of packed elements. 1, or 0 with one sentence in message. */
int npy_save(const char *path, npy_type type, int dims, const int64_t *shape, const void *data,
             char message[NPY_MESSAGE_SIZE]);

void npy_free(npy_array *array);

/* The shape as "(2, 3)" into text, which is returned. */
enum { NPY_SHAPE_TEXT_SIZE = 24 * NPY_MAX_DIMS };
const char *npy_shape_text(const npy_array *array, char text[NPY_SHAPE_TEXT_SIZE]);

#endif
