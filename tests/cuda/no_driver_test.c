/* Without a GPU the library loads, and says so; with one it opens it. */
#include "test.h"

int main(void) {
    attn_context *context = (attn_context *)&test_passed;
    const attn_status status = attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context);
    if (status == ATTN_OK) {
        printf("%s", attn_context_describe(context));
        CHECK(context != NULL, "an open device without a context");
        attn_context_destroy(context);
    } else {
        CHECK(status == ATTN_NO_DEVICE, "%s: %s", attn_status_name(status), attn_last_error());
        CHECK(context == NULL, "a context without a device");
        CHECK(strlen(attn_last_error()) > 20, "the sentence is '%s'", attn_last_error());
        printf("%s\n", attn_last_error());
        for (int again = 0; again < 2; again++)
            CHECK(attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context) == ATTN_NO_DEVICE,
                  "the second answer differs");
    }
    CHECK(attn_has_feature(ATTN_FEATURE_CUDA) == 1, "the build has the CUDA back end");
    int rows = 0;
    for (int32_t i = 0; i < attn_kernel_count(); i++) {
        attn_kernel_info info = ATTN_KERNEL_INFO_INIT;
        NEED(attn_kernel_get(i, &info) == ATTN_OK);
        if (info.device != ATTN_DEVICE_CUDA) continue;
        rows++;
        CHECK((info.refusal == NULL) == (status == ATTN_OK), "%s: refusal '%s'", info.name,
              info.refusal ? info.refusal : "");
    }
    CHECK(rows > 0, "no CUDA kernel is listed");
    return test_report();
}
