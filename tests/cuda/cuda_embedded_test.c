/* What is embedded in the library: rows of kernels.def beside what plans ask for. */
#define _DEFAULT_SOURCE
#include "cuda_host.h"

#include "cuda/embedded.h"
#include "cuda/forward_cuda.h"
#include "cuda/hopper_cuda.h"
#include "cuda/hopper_f8_cuda.h"

/* Every row of kernels.def is what some plan asks for, to the letter: else it would be embedded in vain. */
static int is_asked_for(const attni_embedded_image *image) {
    static const int limits[] = {232448, 166912, 101376}; /* shared memory a block, by architecture */
    char dtype[8] = "";
    int dim_qk = 0, dim_v = 0;
    if (strcmp(image->name, "accum_merge") == 0 || strcmp(image->name, "sequences_sm90") == 0 ||
        strcmp(image->name, attni_hopper_gather_spec().name) == 0)
        return image->options[0] == 0;
    if (sscanf(image->name, "standard_sm80_%7[a-z0-9]_d%d", dtype, &dim_qk) == 2 ||
        sscanf(image->name, "flash1_sm80_%7[a-z0-9]_d%d", dtype, &dim_qk) == 2) {
        char options[64];
        snprintf(options, sizeof options, "-DBF16=%d -DD=%d", strcmp(dtype, "bf16") == 0, dim_qk);
        return strcmp(image->options, options) == 0;
    }
    char inputs[8] = "";
    if (sscanf(image->name, "forward_sm90_f8_%7[a-z0-9]_%7[a-z0-9]_d%d_v%d", inputs, dtype, &dim_qk,
               &dim_v) == 4) {
        const attni_f8_shape shape = {strcmp(inputs, "e4m3") == 0 ? ATTN_F8_E4M3 : ATTN_F8_E5M2,
                                      strcmp(dtype, "bf16") == 0 ? ATTN_BF16 : ATTN_F16,
                                      dim_qk,
                                      dim_v,
                                      strstr(image->name, "_causal") != NULL,
                                      strstr(image->name, "_turned") != NULL,
                                      strstr(image->name, "_half") == NULL};
        attni_kernel_spec spec;
        attni_forward_tiles tiles;
        return attni_f8_spec(&shape, limits[0], &spec, &tiles) && strcmp(spec.name, image->name) == 0 &&
               strcmp(spec.options, image->options) == 0;
    }
    if (sscanf(image->name, "forward_sm90_%7[a-z0-9]_d%d_v%d", dtype, &dim_qk, &dim_v) == 3) {
        for (int64_t seqlen = 512; seqlen <= 4096; seqlen *= 8) {
            const attni_hopper_shape shape = {.dtype = strcmp(dtype, "bf16") == 0 ? ATTN_BF16 : ATTN_F16,
                                              .dim_qk = dim_qk,
                                              .dim_v = dim_v,
                                              .seqlen_q = seqlen,
                                              .mask = strstr(image->name, "_causal") != NULL};
            attni_kernel_spec spec;
            attni_forward_tiles tiles;
            if (attni_hopper_spec(&shape, limits[0], &spec, &tiles) && strcmp(spec.name, image->name) == 0 &&
                strcmp(spec.options, image->options) == 0)
                return 1;
        }
        return 0;
    }
    if (sscanf(image->name, "forward_sm80_%7[a-z0-9]_d%d_v%d", dtype, &dim_qk, &dim_v) != 3) return 0;
    for (int i = 0; i < 3; i++) {
        attni_kernel_spec spec;
        attni_forward_tiles tiles;
        if (attni_cuda_forward_spec(strcmp(dtype, "bf16") == 0 ? ATTN_BF16 : ATTN_F16, dim_qk, dim_v,
                                    strstr(image->name, "_general") != NULL, limits[i], &spec,
                                    &tiles) == ATTN_OK &&
            strcmp(spec.name, image->name) == 0 && strcmp(spec.options, image->options) == 0)
            return 1;
    }
    return 0;
}

static void embedded(void) {
    for (int i = 0; i < attni_embedded_image_count; i++) {
        const attni_embedded_image *image = &attni_embedded_images[i];
        CHECK(is_asked_for(image), "%s with %s: no plan asks for it", image->name, image->options);
    }
    printf("%d embedded images\n", attni_embedded_image_count);
    CHECK(attni_embedded_source_count > 0, "no sources are embedded");
}

int main(int argc, char **argv) {
    static const host_scenario scenarios[] = {{"embedded", embedded}};
    return host_main(argc, argv, scenarios, sizeof scenarios / sizeof scenarios[0]);
}
