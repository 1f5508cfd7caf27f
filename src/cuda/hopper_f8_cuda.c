#include "cuda/hopper_f8_cuda.h"

#include <stdio.h>

#include "cuda/hopper_cuda.h"

/* ---------------------------------------------------------------- what it takes */

static bool is_walkable(const attn_strides *s, int64_t unit) {
    return s->batch % unit == 0 && s->seqlen % unit == 0 && s->heads % unit == 0;
}

/* The copy engine walks no stride below 0 or from 2^40 bytes on. */
static bool is_copied(const attn_strides *s) {
    const int64_t limit = (int64_t)1 << 39;
    return s->batch >= 0 && s->batch < limit && s->seqlen >= 0 && s->seqlen < limit && s->heads >= 0 &&
           s->heads < limit;
}

bool attni_f8_takes_dims(int64_t dim_qk, int64_t dim_v) {
    return dim_qk <= 256 && dim_v <= 256 && (dim_qk <= 64) == (dim_v <= 64);
}

bool attni_f8_may_turn(int64_t dim_qk, int64_t dim_v) { return dim_qk <= 128 && dim_v <= 128; }

/* Why forward_sm90_f8 does not take a problem; null if it does. */
static const char *refusal_of(const attni_cuda *cuda, const attn_problem *p) {
    if (cuda->major != 9) return "its kernel, forward_sm90_f8, is for compute capability 9.0 alone";
    if (!cuda->driver->encode_tensor_map) return "the NVIDIA driver is older than CUDA 12.0";
    if (!attni_f8_takes_dims(p->dim_qk, p->dim_v))
        return "forward_sm90_f8 takes dims that are both up to 64, or both from 65 to 256";
    if (!is_walkable(&p->q, 16) || !is_walkable(&p->k, 16) || !is_walkable(&p->v, 16) ||
        !is_walkable(&p->o, 8))
        return "a stride of q, k, v or o is no multiple of 16 bytes";
    if (!is_copied(&p->q) || !is_copied(&p->k) || !is_copied(&p->v) || !is_copied(&p->o))
        return "a stride of q, k, v or o is negative, or 2^39 elements or more";
    if (p->lengths_q != ATTN_LENGTHS_FULL || p->lengths_k != ATTN_LENGTHS_FULL)
        return "forward_sm90_f8 has no ragged or padded lengths";
    if (p->softcap > 0.0f) return "forward_sm90_f8 has no softcap";
    if (p->has_alibi) return "forward_sm90_f8 has no ALiBi";
    if (p->has_bias) return "forward_sm90_f8 has no bias";
    if (p->has_mask) return "forward_sm90_f8 has no boolean mask";
    if (p->dropout_p > 0.0f) return "forward_sm90_f8 has no dropout";
    return NULL;
}

bool attni_f8_spec(const attni_f8_shape *shape, int shared_limit, attni_kernel_spec *spec,
                   attni_forward_tiles *t) {
    const int e5m2 = shape->dtype == ATTN_F8_E5M2, bf16 = shape->dtype_o == ATTN_BF16;
    attni_forward_sm90_f8_tiles((int)shape->dim_qk, (int)shape->dim_v, shape->turned, shape->exact, t);
    *spec = (attni_kernel_spec){.source = "forward_sm90_f8.cu",
                                .capability = 90,
                                .threads = t->warps * 32 + 128,
                                .shared_bytes = t->shared_bytes};
    snprintf(spec->name, sizeof spec->name, "forward_sm90_f8_%s_%s_d%d_v%d_%dx%d%s%s%s",
             e5m2 ? "e5m2" : "e4m3", bf16 ? "bf16" : "f16", t->d, t->dv, t->br, t->bc,
             shape->mask == 0   ? ""
             : shape->mask == 1 ? "_causal"
                                : "_window",
             shape->turned ? "_turned" : "", t->half ? "_half" : "");
    snprintf(spec->entry, sizeof spec->entry, "%s", spec->name);
    snprintf(
        spec->options, sizeof spec->options,
        "-DE5M2=%d -DBF16=%d -DD=%d -DDV=%d -DWGS=%d -DBC=%d -DSTAGES=%d -DQ_SLOTS=%d -DTURNS=%d -DEARLY=%d "
        "-DINTERVAL=%d -DMASK=%d -DHALF=%d%s",
        e5m2, bf16, t->d, t->dv, t->warps / 4, t->bc, t->stages, t->q_slots, t->turns, t->early, t->interval,
        shape->mask, t->half, shape->turned ? " -DTURNED=1" : "");
    return t->shared_bytes <= shared_limit;
}

/* ---------------------------------------------------------------- run */

/* Queries of all heads of a key head from which on V is turned once for all, and scores are f16: where
 * tiles are few or short, turning their own V, and not scaling Q, is faster
 * (docs/schedules/forward_sm90_f8.md). Without and with a mask. */
enum { TURNED_FROM = 512, HALF_FROM = 1024, TURNED_FROM_MASKED = 4096, HALF_FROM_MASKED = 4096 };

static int64_t queries_of_head(const attn_plan *plan) { return plan->problem.seqlen_q * plan->group; }

/* CUtensorMapDataType and the like, of the driver's binary interface. */
enum { TYPE_U8 = 0, TYPE_F16 = 6, TYPE_BF16 = 9, SWIZZLE_128B = 3, PROMOTION_L2_128B = 2, RANK = 4 };

/* A tensor of extents (dim, seqlen, heads, batch) in boxes of 128 bytes of a row and some rows. */
static attn_status encode(const attni_cuda *cuda, attni_tensor_map *map, const void *base, attn_dtype dtype,
                          const int extents[RANK], const attni_tensor_strides *strides, int rows) {
    const uint64_t size = attni_dtype_size(dtype);
    const int type = size == 1 ? TYPE_U8 : dtype == ATTN_BF16 ? TYPE_BF16 : TYPE_F16;
    const uint64_t sizes[RANK] = {(uint64_t)extents[0], (uint64_t)extents[1], (uint64_t)extents[2],
                                  (uint64_t)extents[3]};
    const uint64_t bytes[RANK - 1] = {(uint64_t)strides->seqlen * size, (uint64_t)strides->heads * size,
                                      (uint64_t)strides->batch * size};
    const uint32_t box[RANK] = {(uint32_t)(128 / size), (uint32_t)rows, 1, 1}, steps[RANK] = {1, 1, 1, 1};
    const attni_cu_result result =
        cuda->driver->encode_tensor_map(map, type, RANK, (attni_cu_pointer)(uintptr_t)base, sizes, bytes, box,
                                        steps, 0, SWIZZLE_128B, PROMOTION_L2_128B, 0);
    return attni_driver_check(cuda->driver, result, "cuTensorMapEncodeTiled");
}

/*
 * Words that blocks of the grid share: a ticket for tiles and, where V is turned, one for blocks of it, how
 * many are turned, and for each the run that has turned it. They come first in the workspace, or lie before
 * it (attni_cuda_take_words). Then a word for each tile, with f16 scores, and V turned.
 */
enum { TILE_TICKET = 0, VALUE_TICKET = 32, VALUE_COUNT = 48, VALUE_WORDS = 64, TICKET_BYTES = 64 };

static size_t rounded(size_t words) { return (words * 4 + 127) / 128 * 128; }

static size_t blocks_of(int64_t heads, int64_t keys) {
    return (size_t)heads * (size_t)((keys + ATTNI_TURN_KEYS - 1) / ATTNI_TURN_KEYS);
}

/* V turned: (key, dim, head, batch). */
static attn_status encode_turned(const attni_cuda *cuda, attn_dtype dtype, const attni_forward_tiles *tiles,
                                 attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    const int extents[RANK] = {(int)p->turned_keys, tiles->dv, f->heads_kv, f->batch};
    const attni_tensor_strides strides = {.seqlen = p->turned_keys,
                                          .heads = p->turned_keys * tiles->dv,
                                          .batch = p->turned_keys * tiles->dv * f->heads_kv};
    return encode(cuda, &p->v, p->turned, dtype, extents, &strides, tiles->dv);
}

static attn_status encode_all(const attni_cuda *cuda, const attn_problem *problem,
                              const attni_forward_tiles *tiles, attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    const int o[RANK] = {f->dim_v, f->seqlen_q, f->heads_q, f->batch};
    ATTNI_TRY(encode(cuda, &p->o, f->o, problem->dtype_o, o, &f->o_stride, 64));
    if (f->seqlen_k == 0) { /* no key is seen, whatever is read: rows of o are there */
        const attni_tensor_strides bytes = {f->o_stride.batch * 2, f->o_stride.seqlen * 2,
                                            f->o_stride.heads * 2};
        ATTNI_TRY(encode(cuda, &p->q, f->o, problem->dtype_q, o, &bytes, 64));
        ATTNI_TRY(encode(cuda, &p->k, f->o, problem->dtype_q, o, &bytes, tiles->bc));
        return encode(cuda, &p->v, f->o, problem->dtype_q, o, &bytes, p->turned ? tiles->dv : tiles->bc);
    }
    const int q[RANK] = {f->dim_qk, f->seqlen_q, f->heads_q, f->batch};
    const int k[RANK] = {f->dim_qk, f->seqlen_k, f->heads_kv, f->batch};
    const int v[RANK] = {f->dim_v, f->seqlen_k, f->heads_kv, f->batch};
    ATTNI_TRY(encode(cuda, &p->q, f->q, problem->dtype_q, q, &f->q_stride, 64));
    ATTNI_TRY(encode(cuda, &p->k, f->k, problem->dtype_q, k, &f->k_stride, tiles->bc));
    ATTNI_TRY(encode(cuda, p->turned ? &p->bias : &p->v, f->v, problem->dtype_q, v, &f->v_stride, tiles->bc));
    return p->turned ? encode_turned(cuda, problem->dtype_q, tiles, p) : ATTN_OK;
}

/* Where V turned lies, and in which order it is turned: that of the tiles. Returns its blocks. */
static size_t place_turned(const attn_plan *plan, const attni_run *run, attni_forward_sm90_params *p) {
    const attni_cuda_plan *made = plan->backend_data;
    const attni_forward_params *f = &p->forward;
    const int64_t pairs = (int64_t)f->batch * f->heads_kv;
    const size_t blocks = blocks_of(pairs, f->seqlen_k);
    unsigned char *at = (unsigned char *)run->workspace + rounded(VALUE_WORDS + blocks);
    if (made->hopper_tiles.half) p->again = (int *)(void *)at;
    p->sampled = !plan->problem.batch_invariant;
    p->turned = at + (made->hopper_tiles.half ? rounded((size_t)p->tiles) : 0);
    p->turned_keys = (f->seqlen_k + ATTNI_TURN_KEYS - 1) / ATTNI_TURN_KEYS * ATTNI_TURN_KEYS;
    p->turn_width = f->head_group / f->group > 1 ? f->head_group / f->group : 1;
    return blocks;
}

/*
 * Bytes of keys and values of the heads whose tiles run side by side where V is turned. The longest tiles of
 * all of them begin first, and each wants all of its head's V: of more heads than this it would not be turned
 * in time.
 */
static long long turned_side_by_side(const attni_cuda *cuda, const attni_forward_params *f) {
    const long long heads = cuda->multiprocessors / 4,
                    bytes = 2LL * f->seqlen_k * (f->dim_qk + f->dim_v) * heads;
    return bytes < cuda->l2_bytes ? (bytes > 0 ? bytes : 1) : cuda->l2_bytes;
}

static attn_status run_f8(const attn_plan *plan, const attni_run *run) {
    const attn_problem *problem = &plan->problem;
    const attni_cuda_plan *made = plan->backend_data;
    const attni_cuda *cuda = plan->context->backend_data;
    attni_forward_sm90_params p = {.forward = attni_cuda_run_params(plan, run)};
    if (run->kind == ATTNI_RUN_ADD)
        return attni_fail(ATTN_UNSUPPORTED, "problem.dtype_q is %s; accumulators take f16 and bf16",
                          attni_dtype_name(problem->dtype_q));
    ATTNI_TRY(attni_cuda_check_bases(made->hopper, run, NULL));
    if (problem->has_scales && p.forward.seqlen_k > 0) {
        p.q_scale = run->tensors.q_scale;
        p.k_scale = run->tensors.k_scale;
        p.v_scale = run->tensors.v_scale;
        p.scale_stride_batch = problem->scale_stride_batch;
        p.scale_stride_head = problem->scale_stride_head;
    }
    const bool turned = made->hopper_tiles.turned != 0;
    p.tiles = (int)attni_forward_schedule(
        &p.forward, &made->hopper_tiles,
        turned ? turned_side_by_side(cuda, &p.forward) : (long long)cuda->l2_bytes, cuda->multiprocessors);
    if (p.tiles == 0) return ATTN_OK;
    const bool tickets = attni_hopper_mask(problem) > 0 && p.tiles > cuda->multiprocessors;
    const size_t values = turned ? place_turned(plan, run, &p) : 0;
    ATTNI_TRY(encode_all(cuda, problem, &made->hopper_tiles, &p));
    if (tickets || turned) {
        attni_cuda_words words;
        ATTNI_TRY(
            attni_cuda_take_words(cuda, run, turned ? VALUE_WORDS + values : 1, (unsigned)values, &words));
        if (tickets) p.ticket = words.at + TILE_TICKET;
        p.turning = words.at + VALUE_TICKET;
        p.turned_count = words.at + VALUE_COUNT;
        p.turned_in = words.at + VALUE_WORDS;
        p.run = words.run;
        p.turned_target = words.counted;
    }
    const int blocks = p.tiles < cuda->multiprocessors ? p.tiles : cuda->multiprocessors;
    const unsigned grid[3] = {(unsigned)blocks, 1, 1};
    return attni_cuda_launch(plan, made->hopper, grid, &p, run->stream);
}

/* ---------------------------------------------------------------- plan */

/* float32 scores are asked for, or the better ones. */
static bool is_exact(const attn_plan *plan) {
    const bool masked = attni_hopper_mask(&plan->problem) != 0;
    return plan->options.exact_reference != 0 ||
           queries_of_head(plan) < (masked ? HALF_FROM_MASKED : HALF_FROM);
}

/* Bytes of V turned, marks and words, or 0 where tiles had better turn it themselves, and beyond the
 * workspace's limit. */
static size_t turned_bytes(const attn_plan *plan, long long tiles) {
    const attn_problem *p = &plan->problem;
    const bool masked = attni_hopper_mask(p) != 0;
    const size_t blocks = blocks_of(p->batch * p->heads_kv, p->seqlen_k),
                 bytes = rounded(VALUE_WORDS + blocks) + (is_exact(plan) ? 0 : rounded((size_t)tiles)) +
                         blocks * ATTNI_TURN_KEYS * (p->dim_v <= 64 ? 64 : 128);
    const uint64_t limit = plan->options.workspace_limit;
    /* of one broadcast head there may be more than an address space has */
    const bool fits = (double)p->batch * (double)p->heads_kv * (double)p->seqlen_k < 0x1p37 &&
                      (limit == 0 || bytes <= limit);
    return attni_f8_may_turn(p->dim_qk, p->dim_v) && blocks > 0 && fits &&
                   queries_of_head(plan) >= (masked ? TURNED_FROM_MASKED : TURNED_FROM)
               ? bytes
               : 0;
}

static void describe(attn_plan *plan, const attni_cuda_plan *made) {
    const attni_cuda *cuda = plan->context->backend_data;
    const attni_forward_tiles *t = &made->hopper_tiles;
    attni_text *text = &plan->description;
    attni_text_add(text, "FlashAttention-2 on CUDA device %d, in Hopper's way, in 8 bits\n",
                   plan->context->ordinal);
    attni_cuda_describe_kernel(text, made->hopper);
    if (t->turned) attni_text_add(text, "V is turned once, for all tiles, by the same launch\n");
    attni_text_add(
        text,
        "tiles: %d queries x %d keys, dims padded to %d and %d; products of P and V are added in float32 "
        "every %d keys; scores are %s\ngrid: %d blocks at most, which take %s\n",
        t->br, t->bc, t->d, t->dv, t->interval * t->bc,
        t->half ? "f16, and float32 where that is too coarse" : "float32", cuda->multiprocessors,
        attni_hopper_mask(&plan->problem) > 0 ? "tickets for their tiles" : "tiles in turn");
    attni_cuda_describe_work(plan);
    attni_text_add(text, "no other kernel takes %s\n", attni_dtype_name(plan->problem.dtype_q));
}

attn_status attni_f8_open(attn_plan *plan, attni_cuda_plan *made) {
    const attn_problem *p = &plan->problem;
    const attni_cuda *cuda = plan->context->backend_data;
    const char *refusal =
        plan->options.isa == ATTN_ISA_SM80 ? "options.isa asks for sm80" : refusal_of(cuda, p);
    if (refusal)
        return attni_fail(ATTN_UNSUPPORTED, "problem.dtype_q is %s: %s", attni_dtype_name(p->dtype_q),
                          refusal);
    attni_f8_shape shape = {p->dtype_q,           p->dtype_o, p->dim_qk,     p->dim_v,
                            attni_hopper_mask(p), false,      is_exact(plan)};
    attni_kernel_spec spec;
    attni_forward_params largest = made->base;
    attni_forward_sm90_f8_tiles((int)p->dim_qk, (int)p->dim_v, 0, 0, &made->hopper_tiles);
    const long long tiles =
        attni_forward_schedule(&largest, &made->hopper_tiles, (long long)cuda->l2_bytes, 0);
    if (tiles < 0)
        return attni_fail(ATTN_UNSUPPORTED,
                          "batch %lld, heads_q %lld and seqlen_q %lld make more than 2^31 - 1 tiles",
                          (long long)p->batch, (long long)p->heads_q, (long long)p->seqlen_q);
    const size_t turned = turned_bytes(plan, tiles);
    shape.turned = turned > 0;
    if (!attni_f8_spec(&shape, cuda->shared_limit, &spec, &made->hopper_tiles))
        return attni_fail(ATTN_UNSUPPORTED,
                          "forward_sm90_f8 needs %d bytes of shared memory; a block has at most %d",
                          spec.shared_bytes, cuda->shared_limit);
    ATTNI_TRY(attni_module_kernel(plan->context, &spec, &made->hopper));
    made->forward = run_f8;
    plan->kernel = "forward_sm90_f8";
    plan->workspace_size = turned > 0 ? turned : shape.mask > 0 ? TICKET_BYTES : 0;
    describe(plan, made);
    return ATTN_OK;
}
