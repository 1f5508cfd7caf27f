/* The CUDA back end when things fail, and its disk cache. cuda_failures_test SCENARIO. */
#define _DEFAULT_SOURCE
#include "cuda_host.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/cache.h"
#include "cuda/cuda_context.h"
#include "device.h"

/* ---------------------------------------------------------------- failures */

static void errors(void) {
    attn_context *context = open_device(0, NULL);
    attn_problem p = small_problem();
    _Alignas(16) uint16_t tensor[4 * 64 + 8] = {0};
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.o = tensor;
    attn_plan *plan;
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    fake_stick(700); /* the caller's kernel wrote where it must not */
    CHECK(attn_forward(plan, &t, NULL) == ATTN_DEVICE_ERROR && says("CUDA_ERROR_ILLEGAL_ADDRESS") &&
              says("earlier work"),
          "%s", attn_last_error());
    p.dim_qk = 128;
    CHECK(make_plan(context, &p) == ATTN_DEVICE_ERROR, "%s", attn_last_error());
    fake_stick(0);
    CHECK(attn_forward(plan, &t, NULL) == ATTN_OK, "%s", attn_last_error());
    CHECK(make_plan(context, &p) == ATTN_OK, "%s", attn_last_error());
    fake_fail("cuLaunchKernel", 0, 701);
    CHECK(attn_forward(plan, &t, NULL) == ATTN_DEVICE_ERROR && says("forward_sm90_bf16_d64_v64_256x64"), "%s",
          attn_last_error());
    CHECK(fake_current() == NULL, "our context stayed current after an error");

    p.dim_qk = 64;
    p.dtype_q = p.dtype_kv = p.dtype_o = ATTN_F16;
    fake_fail("cuModuleLoadData", 0, 209); /* no image for this GPU: the next one, if this one was embedded */
    CHECK(make_plan(context, &p) == ATTN_OK || says("209"), "%s", attn_last_error());
    CHECK(make_plan(context, &p) == ATTN_OK, "%s", attn_last_error());

    t.q = tensor + 1;
    CHECK(attn_forward(plan, &t, NULL) == ATTN_INVALID_ARGUMENT && says("tensors.q") && says("16 bytes"),
          "%s", attn_last_error());
    attn_plan_destroy(plan);

    p = small_problem();
    p.dtype_q = p.dtype_kv = p.dtype_o = ATTN_F32;
    CHECK(make_plan(context, &p) == ATTN_UNSUPPORTED && says("f32"), "%s", attn_last_error());
    p.dtype_q = ATTN_BF16;
    CHECK(make_plan(context, &p) != ATTN_OK, "mixed dtypes were taken");
    p = small_problem();
    p.dim_qk = 1024;
    p.dim_v = 1024;
    const attn_status large = make_plan(context, &p);
    CHECK(large == ATTN_OK || (large == ATTN_UNSUPPORTED && says("shared memory")), "%s", attn_last_error());
    p = small_problem();
    p.batch = INT64_C(1) << 30;
    p.heads_q = p.heads_kv = 4;
    CHECK(make_plan(context, &p) == ATTN_UNSUPPORTED && says("heads_q"), "%s", attn_last_error());
    p.heads_q = p.heads_kv = 1;
    p.batch = INT64_C(1) << 24;
    p.seqlen_q = INT64_C(1) << 20;
    CHECK(make_plan(context, &p) == ATTN_UNSUPPORTED && says("tiles"), "%s", attn_last_error());
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.isa = ATTN_ISA_AVX2;
    p = small_problem();
    p.heads_q = p.heads_kv = 32; /* scores of 2^64 bytes, which size_t takes for none */
    p.seqlen_q = p.seqlen_k = INT64_C(1) << 29;
    options.isa = ATTN_ISA_AUTO;
    options.algorithm = ATTN_ALGORITHM_STANDARD;
    CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_UNSUPPORTED && says("STANDARD stores"), "%s",
          attn_last_error());
    options.isa = ATTN_ISA_AVX2;
    options.algorithm = ATTN_ALGORITHM_AUTO;
    p = small_problem();
    CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_UNSUPPORTED && says("isa"), "%s",
          attn_last_error());
    for (int sm90 = 0; sm90 < 2; sm90++) {
        options.isa = sm90 ? ATTN_ISA_SM90 : ATTN_ISA_SM80;
        NEED(attn_plan_create(context, &p, &options, &plan) == ATTN_OK);
        CHECK(strcmp(attn_plan_kernel(plan), sm90 ? "forward_sm90" : "forward_sm80") == 0, "%s",
              attn_plan_kernel(plan));
        attn_plan_destroy(plan);
    }
    p.dim_qk = p.dim_v = 100; /* no multiple of 8: the general variant, whatever the bases */
    CHECK(attn_plan_create(context, &p, &options, &plan) == ATTN_UNSUPPORTED && says("sm90") &&
              says("16 bytes"),
          "%s", attn_last_error());
    NEED(attn_plan_create(context, &p, NULL, &plan) == ATTN_OK);
    CHECK(strcmp(attn_plan_kernel(plan), "forward_sm80_general") == 0, "%s", attn_plan_kernel(plan));
    CHECK(strstr(attn_plan_describe(plan), "16 bytes"), "%s", attn_plan_describe(plan));
    attn_plan_destroy(plan);
    attn_context_destroy(context);
}

/* Each driver call that a plan makes fails once; nothing leaks, and the next try succeeds. */
static void memory(void) {
    static const char *const calls[] = {"cuModuleLoadData",
                                        "cuModuleGetFunction",
                                        "cuFuncGetAttribute",
                                        "cuFuncSetAttribute",
                                        "cuOccupancyMaxActiveBlocksPerMultiprocessor",
                                        "cuCtxPushCurrent_v2",
                                        "cuCtxGetCurrent"};
    attn_problem p = small_problem();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        attn_context *context = open_device(0, NULL);
        fake_fail(calls[i], 0, 2);
        CHECK(make_plan(context, &p) == ATTN_OUT_OF_MEMORY, "%s: %s", calls[i], attn_last_error());
        CHECK(fake_current() == NULL, "%s: our context stayed current", calls[i]);
        CHECK(make_plan(context, &p) == ATTN_OK, "%s, and then: %s", calls[i], attn_last_error());
        attn_context_destroy(context);
        CHECK(fake_modules() == 0 && fake_retains() == 0, "%s: %d modules left", calls[i], fake_modules());
    }
    attn_context *context = open_device(0, NULL);
    fake_limit(1000);
    CHECK(context->backend->workspace_alloc(context, 4096) == NULL && says("4096 bytes") &&
              says("OUT_OF_MEMORY"),
          "%s", attn_last_error());
    fake_limit(8192 + ATTNI_CUDA_KEPT);
    void *workspace = context->backend->workspace_alloc(context, 4096);
    CHECK(workspace != NULL && fake_memory() == 4096 + ATTNI_CUDA_KEPT, "%zu bytes", fake_memory());
    context->backend->workspace_free(context, workspace);
    CHECK(fake_memory() == 0, "%zu bytes left", fake_memory());
    attn_context_destroy(context);
}
/* ---------------------------------------------------------------- disk cache */

static void corrupt_entries(long offset, int byte) {
    char command[700];
    snprintf(command, sizeof command,
             "for f in '%s'/libattn/*.kernel; do printf '\\%03o' | dd of=\"$f\" bs=1 seek=%ld conv=notrunc "
             "2>/dev/null; done",
             getenv("XDG_CACHE_HOME"), (unsigned)byte, offset);
    NEED(system(command) == 0);
}

static void cache(void) {
    remove_cache();
    attn_context *context = open_device(0, NULL);
    CHECK(strstr(plan_rare(context), "compiled by NVRTC"), "%s", plan_rare(context));
    const int entries = count_entries();
    CHECK(entries >= 1, "%d entries", entries);
    CHECK(strstr(plan_rare(context), "compiled by NVRTC"),
          "a second plan loaded again"); /* the same module, still */
    attn_context_destroy(context);

    context = open_device(0, NULL);
    CHECK(strstr(plan_rare(context), "disk cache"), "%s", plan_rare(context));
    attn_context_destroy(context);

    /* The header, the key, the image, the length: each is compiled again and mended. */
    const long offsets[] = {3, 20, 60, 330};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        corrupt_entries(offsets[i], 1);
        log_lines[0] = 0;
        context = open_device(0, NULL);
        CHECK(strstr(plan_rare(context), "compiled by NVRTC"), "offset %ld: %s", offsets[i],
              plan_rare(context));
        CHECK(strstr(log_lines, "compiling again"), "offset %ld: log '%s'", offsets[i], log_lines);
        attn_context_destroy(context);
        context = open_device(0, NULL);
        CHECK(strstr(plan_rare(context), "disk cache"), "offset %ld: %s", offsets[i], plan_rare(context));
        attn_context_destroy(context);
    }
    char command[700];
    snprintf(command, sizeof command,
             "for f in '%s'/libattn/*.kernel; do head -c 100 \"$f\" >\"$f.cut\"; mv \"$f.cut\" \"$f\"; done",
             getenv("XDG_CACHE_HOME"));
    NEED(system(command) == 0);
    context = open_device(0, NULL);
    CHECK(strstr(plan_rare(context), "compiled by NVRTC"), "cut short: %s", plan_rare(context));
    attn_context_destroy(context);

    /* A whole entry that the driver does not take. */
    context = open_device(0, NULL);
    fake_fail("cuModuleLoadData", 0, 200);
    CHECK(strstr(plan_rare(context), "compiled by NVRTC"), "refused by the driver: %s", plan_rare(context));
    attn_context_destroy(context);
    CHECK(count_entries() == entries, "%d entries became %d", entries, count_entries());

    /* Entries of a newer compiler, as a computer with a newer driver leaves them on a shared disk: the older ones do. */
    snprintf(command, sizeof command,
             "for f in '%s'/libattn/*-13007.kernel; do cp \"$f\" \"${f%%-*}-14000.kernel\"; done",
             getenv("XDG_CACHE_HOME"));
    NEED(system(command) == 0 && count_entries() == 2 * entries);
    context = open_device(0, NULL);
    fake_fail("cuModuleLoadData", 0, 200);
    CHECK(strstr(plan_rare(context), "disk cache"), "newer than the driver: %s", plan_rare(context));
    attn_context_destroy(context);

    size_t bytes;
    bool corrupt;
    char reason[200];
    CHECK(attni_cache_newest("nothing", 99999) == 0, "found nothing");
    CHECK(attni_cache_read("nothing", 1, &bytes, &corrupt) == NULL && !corrupt, "found nothing");
    CHECK(attni_cache_write("a key", 12001, "old", 3, reason, sizeof reason), "%s", reason);
    CHECK(attni_cache_write("a key", 12009, "new", 3, reason, sizeof reason), "%s", reason);
    CHECK(attni_cache_newest("a key", 99999) == 12009 && attni_cache_newest("a key", 12009) == 12001 &&
              attni_cache_newest("a key", 12001) == 0,
          "versions in another order");
    char *image = attni_cache_read("a key", 12009, &bytes, &corrupt);
    CHECK(image && bytes == 3 && strcmp(image, "new") == 0, "the newest compiler's entry");
    free(image);
    image = attni_cache_read("a key", 12001, &bytes, &corrupt);
    CHECK(image && strcmp(image, "old") == 0, "the entry of a compiler");
    free(image);
    remove_cache();
}

static void full_disk(void) {
    remove_cache();
    attn_context *context = open_device(0, NULL);
    const char *const places[] = {"/dev/null/nowhere", "/proc/nowhere", "relative"};
    setenv("HOME", "/dev/null", 1);
    for (size_t i = 0; i < 3; i++) {
        setenv("XDG_CACHE_HOME", places[i], 1);
        log_lines[0] = 0;
        CHECK(strstr(plan_rare(context), "compiled by NVRTC"), "%s: %s", places[i], plan_rare(context));
        CHECK(strstr(log_lines, "not kept in the disk cache"), "%s: log '%s'", places[i], log_lines);
        attn_context_destroy(context);
        context = open_device(0, NULL);
    }
    char reason[200];
    if (access("/dev/full", W_OK) == 0)
        CHECK(!attni_cache_write("key", 1, "image", 5, reason, sizeof reason), "written nowhere");
    attn_context_destroy(context);
}

/* Several processes want the same kernel at once; each gets it, and one whole entry is left. */
static void processes(void) {
    remove_cache();
    enum { PROCESSES = 8 };
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        NEED(children[i] >= 0);
        if (children[i] > 0) continue;
        int wrong = 0;
        for (int again = 0; again < 20; again++) {
            attn_context *context = open_device(0, NULL);
            wrong += plan_rare(context)[0] == 0;
            attn_context_destroy(context);
        }
        _exit(wrong != 0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = -1;
        waitpid(children[i], &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %d ended with %d", i, status);
    }
    attn_context *context = open_device(0, NULL);
    CHECK(strstr(plan_rare(context), "disk cache"), "%s", plan_rare(context));
    attn_context_destroy(context);
    char command[600];
    snprintf(command, sizeof command, "! ls '%s'/libattn | grep -q unfinished", getenv("XDG_CACHE_HOME"));
    CHECK(system(command) == 0, "unfinished entries are left");
    remove_cache();
}

/* Threads of a process share a context: a variant is compiled once, and plans and runs are each their own. */
static void *make_and_run(void *argument) {
    attn_context *context = argument;
    attn_problem p = rare_problem();
    uint16_t *tensor = test_memory(4 * 224 * 2);
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = t.k = t.v = t.o = tensor;
    long wrong = 0;
    for (int again = 0; again < 50; again++) {
        attn_plan *plan;
        memset(tensor, 0, 4 * 224 * 2);
        p.heads_q = p.heads_kv = again % 3 + 1;
        p.seqlen_q = p.seqlen_k = 4 / (again % 3 + 1);
        if (attn_plan_create(context, &p, NULL, &plan) != ATTN_OK) {
            wrong++;
            continue;
        }
        wrong += attn_forward(plan, &t, NULL) != ATTN_OK || fake_current() != NULL;
        attn_plan_destroy(plan);
    }
    free(tensor);
    return (void *)wrong;
}

static void threads(void) {
    remove_cache();
    enum { THREADS = 8 };
    attn_context *context = open_device(0, NULL);
    pthread_t workers[THREADS];
    for (int i = 0; i < THREADS; i++) NEED(pthread_create(&workers[i], NULL, make_and_run, context) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong = NULL;
        pthread_join(workers[i], &wrong);
        CHECK(wrong == NULL, "thread %d: %ld plans or runs went wrong", i, (long)wrong);
    }
    const char *line = strstr(log_lines, "_general: compiled by NVRTC");
    CHECK(line && !strstr(line + 1, "_general: compiled by NVRTC"), "not compiled once: %s", log_lines);
    attn_context_destroy(context);
    CHECK(fake_modules() == 0, "%d modules are left", fake_modules());
    remove_cache();
}
/* ---------------------------------------------------------------- compiler and device */

static void compile_error(void) {
    remove_cache();
    attn_context *context = open_device(0, NULL);
    const attn_problem p = rare_problem();
    setenv("FAKE_NVRTC", "fail", 1);
    CHECK(make_plan(context, &p) == ATTN_COMPILE_ERROR && says("forward_sm80.cu(3): error") &&
              says("NVRTC 13.7"),
          "%s", attn_last_error());
    setenv("FAKE_NVRTC", "", 1);
    CHECK(make_plan(context, &p) == ATTN_OK, "%s", attn_last_error());

    /* forward_sm80 has one variant for every mask, forward_sm90 has not: the plan does with what there is. */
    attn_problem other = small_problem();
    attn_plan *plan;
    attn_plan_options slow = ATTN_PLAN_OPTIONS_INIT;
    slow.isa = ATTN_ISA_SM80;
    other.softcap = 3.0f;
    NEED(attn_plan_create(context, &other, &slow, &plan) == ATTN_OK);
    attn_plan_destroy(plan);
    other.mask = ATTN_MASK_CAUSAL;
    setenv("FAKE_NVRTC", "fail", 1);
    NEED(attn_plan_create(context, &other, NULL, &plan) == ATTN_OK);
    CHECK(strncmp(attn_plan_kernel(plan), "forward_sm80", 12) == 0 &&
              strstr(attn_plan_describe(plan), "could not compile"),
          "%s: %s", attn_plan_kernel(plan), attn_plan_describe(plan));
    attn_plan_destroy(plan);
    setenv("FAKE_NVRTC", "", 1);
    attn_context_destroy(context);
    remove_cache();
}

static void no_nvrtc(void) {
    remove_cache();
    setenv("ATTN_NVRTC", "/nowhere/libnvrtc.so", 1);
    attn_context *context = open_device(0, NULL);
    const attn_problem p = rare_problem();
    CHECK(make_plan(context, &p) == ATTN_COMPILE_ERROR && says("/nowhere/libnvrtc.so"), "%s",
          attn_last_error());
    CHECK(make_plan(context, &p) == ATTN_COMPILE_ERROR && says("/nowhere/libnvrtc.so"), "%s",
          attn_last_error());
    CHECK(fake_current() == NULL && fake_modules() == 0, "%d modules", fake_modules());
    attn_context_destroy(context);
}

static void no_device(void) {
    setenv("FAKE_CUINIT", "100", 1);
    attn_context *context;
    for (int again = 0; again < 2; again++)
        CHECK(attn_context_create(ATTN_DEVICE_CUDA, 0, NULL, &context) == ATTN_NO_DEVICE &&
                  says("finds no GPU"),
              "%s", attn_last_error());
}

static void old_gpu(void) {
    attn_context *context = open_device(1, NULL);
    const attn_problem p = small_problem();
    CHECK(make_plan(context, &p) == ATTN_UNSUPPORTED && says("7.5") && says("8.0"), "%s", attn_last_error());
    attn_context_destroy(context);
    CHECK(fake_retains() == 0, "%d retains", fake_retains());
}
/* A kernel that never ends fails its test by name. */
static void watch(void) {
    static const char *const waits[] = {"cuCtxSynchronize", "cuMemcpyDtoH_v2", "cuMemFree_v2"};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        int ends[2], status = -1;
        char said[300] = "";
        NEED(pipe(ends) == 0);
        const pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], STDERR_FILENO);
            NEED(device_open(0) == NULL);
            char *memory = device_alloc(4);
            device_watch(1, "forward_sm90: problem %d", 7);
            device_wait(); /* that it ends leaves no alarm behind */
            if (i == 0) sleep(2);
            fake_hang(waits[i]);
            device_wait();
            device_copy_out(said, memory, 4);
            device_free(memory);
            _exit(0);
        }
        close(ends[1]);
        NEED(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(read(ends[0], said, sizeof said - 1) > 0 && strstr(said, "forward_sm90: problem 7") &&
                  strstr(said, "in 1 s"),
              "%s: '%s'", waits[i], said);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s: status %x", waits[i], (unsigned)status);
        close(ends[0]);
    }
}

int main(int argc, char **argv) {
    static const host_scenario scenarios[] = {
        {"errors", errors},
        {"memory", memory},
        {"cache", cache},
        {"full_disk", full_disk},
        {"processes", processes},
        {"threads", threads},
        {"compile_error", compile_error},
        {"no_nvrtc", no_nvrtc},
        {"no_device", no_device},
        {"old_gpu", old_gpu},
        {"watch", watch},
    };
    return host_main(argc, argv, scenarios, sizeof scenarios / sizeof scenarios[0]);
}
