/* attn_attention: one call on a shared CPU context, with the plans of the last problems kept. */
#include <string.h>

#include "core/internal.h"
#include "cpu/parallel.h"

#define CACHED_PLANS 16

/* A plan is used by its callers and by the cache; whoever leaves last destroys it. */
typedef struct cached_plan {
    attn_problem problem; /* as given, with zeros between the fields: compared byte by byte */
    attn_plan *plan;
    int64_t users;
    uint64_t last_use;
    bool evicted;
} cached_plan;

static struct {
    atomic_flag lock;
    attn_context *context;
    cached_plan *plans[CACHED_PLANS];
    uint64_t clock;
} cache = {.lock = ATOMIC_FLAG_INIT};

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&cache.lock, memory_order_acquire))
        attni_yield(); /* whoever has it may be making a plan */
}

static void unlock(void) { atomic_flag_clear_explicit(&cache.lock, memory_order_release); }

static void destroy(cached_plan *entry) {
    attn_context *context = entry->plan->context;
    attn_plan_destroy(entry->plan);
    attni_free(context, entry);
}

static cached_plan *find(const attn_problem *problem) {
    for (int i = 0; i < CACHED_PLANS; i++) {
        cached_plan *entry = cache.plans[i];
        if (entry == NULL || memcmp(&entry->problem, problem, sizeof *problem) != 0) continue;
        entry->users++;
        entry->last_use = ++cache.clock;
        return entry;
    }
    return NULL;
}

/* Puts a new entry in the place of the one unused for longest. */
static void insert(cached_plan *entry) {
    int place = 0;
    for (int i = 0; i < CACHED_PLANS; i++) {
        if (cache.plans[i] == NULL) {
            place = i;
            break;
        }
        if (cache.plans[i]->last_use < cache.plans[place]->last_use) place = i;
    }
    cached_plan *old = cache.plans[place];
    if (old != NULL) {
        old->evicted = true;
        if (old->users == 0) destroy(old);
    }
    entry->users = 1;
    entry->last_use = ++cache.clock;
    cache.plans[place] = entry;
}

static attn_status take(const attn_problem *problem, cached_plan **taken) {
    *taken = find(problem);
    if (*taken != NULL) return ATTN_OK;
    if (cache.context == NULL) ATTNI_TRY(attn_context_create(ATTN_DEVICE_CPU, 0, NULL, &cache.context));
    attn_plan *plan;
    ATTNI_TRY(attn_plan_create(cache.context, problem, NULL, &plan));
    cached_plan *entry = attni_alloc(cache.context, sizeof *entry);
    if (entry == NULL) {
        attn_plan_destroy(plan);
        return ATTN_OUT_OF_MEMORY;
    }
    memset(entry, 0, sizeof *entry);
    memcpy(&entry->problem, problem, sizeof *problem);
    entry->plan = plan;
    insert(entry);
    *taken = entry;
    return ATTN_OK;
}

/* Zeros between the fields, where a caller's memory may hold anything. */
static void clear_gaps(attn_problem *problem) {
    static const struct {
        size_t begin, end;
    } gaps[] = {
        {offsetof(attn_problem, dtype_o) + sizeof problem->dtype_o, offsetof(attn_problem, q)},
        {offsetof(attn_problem, mask) + sizeof problem->mask, offsetof(attn_problem, window_left)},
        {offsetof(attn_problem, dtype_bias) + sizeof problem->dtype_bias, offsetof(attn_problem, bias)},
    };
    for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++)
        memset((char *)problem + gaps[i].begin, 0, gaps[i].end - gaps[i].begin);
}

attn_status attn_attention(const attn_problem *problem, const attn_tensors *tensors) {
    if (problem == NULL) return attni_fail(ATTN_INVALID_ARGUMENT, "problem is null");
    attn_problem copy;
    ATTNI_TRY(attni_struct_copy(&copy, problem, sizeof copy, "problem"));
    clear_gaps(&copy);
    cached_plan *entry;
    lock();
    attn_status status = take(&copy, &entry);
    unlock();
    if (status != ATTN_OK) return status;
    status = attn_forward(entry->plan, tensors, NULL);
    lock();
    entry->users--;
    if (entry->evicted && entry->users == 0) destroy(entry);
    unlock();
    return status;
}
