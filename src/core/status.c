#include "status.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(_MSC_VER)
#define ATTNI_THREAD_LOCAL __declspec(thread)
#else
#define ATTNI_THREAD_LOCAL _Thread_local
#endif

static ATTNI_THREAD_LOCAL char last_error[1024];

attn_status attni_fail(attn_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *attn_last_error(void) { return last_error; }

const char *attn_status_name(attn_status status) {
    switch (status) {
    case ATTN_OK: return "ATTN_OK";
    case ATTN_INVALID_ARGUMENT: return "ATTN_INVALID_ARGUMENT";
    case ATTN_UNSUPPORTED: return "ATTN_UNSUPPORTED";
    case ATTN_OUT_OF_MEMORY: return "ATTN_OUT_OF_MEMORY";
    case ATTN_WORKSPACE_TOO_SMALL: return "ATTN_WORKSPACE_TOO_SMALL";
    case ATTN_NO_DEVICE: return "ATTN_NO_DEVICE";
    case ATTN_DEVICE_ERROR: return "ATTN_DEVICE_ERROR";
    case ATTN_COMPILE_ERROR: return "ATTN_COMPILE_ERROR";
    }
    return "unknown status";
}

int32_t attn_version(void) { return ATTN_VERSION; }
