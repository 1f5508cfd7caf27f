/*
 * Compiles one row of kernels.def with NVRTC, for builds without nvcc:
 *   compile_kernel FOLDER SOURCE NAME OPTIONS SHARED CAPABILITY cubin|ptx OUTPUT
 * Writes OUTPUT.image, and OUTPUT.txt as compile_kernel.cmake does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/nvrtc.h"

enum { ARGUMENTS = 9, HEADERS = 32 };

static char *read_text(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    size_t size = 0, room = 1 << 16;
    char *text = malloc(room);
    for (size_t got; text && (got = fread(text + size, 1, room - size - 1, file)) > 0;) {
        size += got;
        if (size + 1 == room) text = realloc(text, room *= 2);
    }
    fclose(file);
    if (text) text[size] = 0;
    return text;
}

/* The headers that a text includes, and those that they include, each once. */
static int add_headers(const char *folder, const char *text, attni_nvrtc_header *headers, int count) {
    for (const char *at = text; (at = strstr(at, "#include \"")) != NULL;) {
        at += strlen("#include \"");
        const size_t length = strcspn(at, "\"\n");
        int known = 0;
        for (int i = 0; i < count; i++)
            known |= strlen(headers[i].name) == length && strncmp(headers[i].name, at, length) == 0;
        if (known || count == HEADERS) continue;
        char *name = calloc(1, length + 1);
        if (!name) exit(1);
        memcpy(name, at, length);
        const char *header = read_text(folder, name);
        if (!header) {
            fprintf(stderr, "%s/%s cannot be read\n", folder, name);
            exit(1);
        }
        headers[count++] = (attni_nvrtc_header){name, header};
        count = add_headers(folder, header, headers, count);
    }
    return count;
}

static void write_file(const char *output, const char *suffix, const char *bytes, size_t count) {
    char path[1024];
    snprintf(path, sizeof path, "%s.%s", output, suffix);
    FILE *file = fopen(path, "wb");
    const bool done = file && fwrite(bytes, 1, count, file) == count;
    if (!file || fclose(file) != 0 || !done) {
        fprintf(stderr, "%s cannot be written\n", path);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != ARGUMENTS) {
        fprintf(stderr,
                "usage: compile_kernel FOLDER SOURCE NAME OPTIONS SHARED CAPABILITY cubin|ptx OUTPUT\n");
        return 2;
    }
    const char *folder = argv[1], *name = argv[3], *options = argv[4], *shared = argv[5], *output = argv[8];
    const int capability = atoi(argv[6]);
    const bool ptx = strcmp(argv[7], "ptx") == 0;
    attni_nvrtc_header headers[HEADERS];
    char all[1024], about[2048], *image;
    size_t bytes;
    attni_nvrtc_job job = {.name = argv[2],
                           .source = read_text(folder, argv[2]),
                           .headers = headers,
                           .options = all,
                           .major = capability / 10,
                           .minor = capability % 10,
                           .specific = strchr(argv[6], 'a') != NULL, /* 90a */
                           .ptx = ptx};
    if (!job.source) {
        fprintf(stderr, "%s/%s cannot be read\n", folder, argv[2]);
        return 1;
    }
    job.header_count = add_headers(folder, job.source, headers, 0);
    snprintf(all, sizeof all, "--std=c++17 -DENTRY=%s %s", name, options);
    if (attni_nvrtc_compile(&job, &image, &bytes) != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", name, attn_last_error());
        return 1;
    }
    write_file(output, "image", image, bytes);
    snprintf(about, sizeof about, "%s\n%s\n%s of %d; %s bytes of shared memory\nATTNI_IMAGE_%s, %d\n", name,
             options, ptx ? "PTX" : "machine code", capability, shared, ptx ? "PTX" : "CUBIN", capability);
    write_file(output, "txt", about, strlen(about));
    return 0;
}
