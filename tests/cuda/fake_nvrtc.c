/*
 * A libnvrtc.so for tests: "compiles" by writing the options down. FAKE_NVRTC=fail makes every compilation fail.
 * FAKE_NVRTC_LOG names a file that gets a line for each compilation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define LOG "forward_sm80.cu(3): error: the test asked for it\n1 error detected"

typedef struct fake_program {
    char image[4096];
} fake_program;

int nvrtcVersion(int *major, int *minor);
const char *nvrtcGetErrorString(int result);
int nvrtcCreateProgram(fake_program **program, const char *source, const char *name, int headers,
                       const char *const *texts, const char *const *names);
int nvrtcDestroyProgram(fake_program **program);
int nvrtcCompileProgram(fake_program *program, int count, const char *const *options);
int nvrtcGetCUBINSize(fake_program *program, size_t *bytes);
int nvrtcGetCUBIN(fake_program *program, char *image);
int nvrtcGetPTXSize(fake_program *program, size_t *bytes);
int nvrtcGetPTX(fake_program *program, char *image);
int nvrtcGetProgramLogSize(fake_program *program, size_t *bytes);
int nvrtcGetProgramLog(fake_program *program, char *text);
int nvrtcGetNumSupportedArchs(int *count);
int nvrtcGetSupportedArchs(int *numbers);

EXPORT int nvrtcVersion(int *major, int *minor) {
    *major = 13;
    *minor = 7;
    return 0;
}
EXPORT const char *nvrtcGetErrorString(int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_FAKE";
}
EXPORT int nvrtcCreateProgram(fake_program **program, const char *source, const char *name, int headers,
                              const char *const *texts, const char *const *names) {
    if (!source || !name || headers < 1 || !texts[0] || !names[0]) return 3;
    *program = calloc(1, sizeof **program);
    return 0;
}
EXPORT int nvrtcDestroyProgram(fake_program **program) {
    free(*program);
    *program = NULL;
    return 0;
}
EXPORT int nvrtcCompileProgram(fake_program *program, int count, const char *const *options) {
    const char *mode = getenv("FAKE_NVRTC"), *log = getenv("FAKE_NVRTC_LOG");
    if (mode && strcmp(mode, "fail") == 0) return 6;
    strcpy(program->image, "FAKE");
    for (int i = 0; i < count; i++) {
        strcat(program->image, " ");
        strcat(program->image, options[i]);
    }
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", program->image);
        fclose(file);
    }
    return 0;
}
EXPORT int nvrtcGetCUBINSize(fake_program *program, size_t *bytes) {
    *bytes = strlen(program->image);
    return 0;
}
EXPORT int nvrtcGetCUBIN(fake_program *program, char *image) {
    memcpy(image, program->image, strlen(program->image));
    return 0;
}
EXPORT int nvrtcGetPTXSize(fake_program *program, size_t *bytes) { return nvrtcGetCUBINSize(program, bytes); }
EXPORT int nvrtcGetPTX(fake_program *program, char *image) { return nvrtcGetCUBIN(program, image); }
EXPORT int nvrtcGetProgramLogSize(fake_program *program, size_t *bytes) {
    (void)program;
    *bytes = sizeof LOG;
    return 0;
}
EXPORT int nvrtcGetProgramLog(fake_program *program, char *text) {
    (void)program;
    memcpy(text, LOG, sizeof LOG);
    return 0;
}
EXPORT int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return 0;
}
EXPORT int nvrtcGetSupportedArchs(int *numbers) {
    numbers[0] = 80;
    numbers[1] = 90;
    return 0;
}
