/* attn info --kernels: the CUDA kernels that the library carries, and what the assembler said of each. */
#include "info_kernels.h"

#include <stdio.h>

#include "cuda/embedded.h"

void info_print_embedded(void) {
    size_t whole = 0;
    for (int i = 0; i < attni_embedded_image_count; i++) {
        const attni_embedded_image *image = &attni_embedded_images[i];
        const size_t bytes = (size_t)(image->end - image->begin);
        printf("  %-40s %7zu bytes  %s\n", image->name, bytes, image->resources);
        whole += bytes;
    }
    printf("  %d embedded, %zu bytes; others are compiled by NVRTC when a plan first needs them\n",
           attni_embedded_image_count, whole);
}

void info_write_embedded(json *out) {
    json_open(out, "embedded", '[');
    for (int i = 0; i < attni_embedded_image_count; i++) {
        const attni_embedded_image *image = &attni_embedded_images[i];
        json_open(out, NULL, '{');
        json_text(out, "name", image->name);
        json_text(out, "options", image->options);
        json_integer(out, "bytes", image->end - image->begin);
        json_text(out, "resources", image->resources);
        json_close(out, '}');
    }
    json_close(out, ']');
}
