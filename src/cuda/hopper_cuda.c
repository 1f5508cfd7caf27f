#include "cuda/hopper_cuda.h"

#include <math.h>
#include <stdio.h>

/* ---------------------------------------------------------------- what it takes */

/* The copy engine walks no stride below 0 or from 2^40 bytes on. */
static bool is_copied(const attn_strides *s) {
    const int64_t limit = (int64_t)1 << 39;
    return s->batch >= 0 && s->batch < limit && s->seqlen >= 0 && s->seqlen < limit && s->heads >= 0 &&
           s->heads < limit;
}

/* The pairs of padded dims that were checked on a device; the source takes others. */
bool attni_hopper_takes_dims(int64_t dim_qk, int64_t dim_v) {
    if (dim_qk > 256 || dim_v > 256) return false;
    const int d = attni_forward_sm90_width((int)dim_qk), dv = attni_forward_sm90_width((int)dim_v);
    return d == dv || (d == 192 && dv == 128);
}

const char *attni_hopper_refusal(const attni_cuda *cuda, const attn_problem *p) {
    if (cuda->major != 9) return "it is for compute capability 9.0 alone";
    if (!cuda->driver->encode_tensor_map) return "the NVIDIA driver is older than CUDA 12.0";
    if (!attni_hopper_takes_dims(p->dim_qk, p->dim_v))
        return "it takes dims that both round up to 64, 96, 128, 192 or 256, and 192 with 128";
    if (!attni_cuda_is_aligned(p)) return "a dim or stride of q, k, v or o is no multiple of 16 bytes";
    if (!is_copied(&p->q) || !is_copied(&p->k) || !is_copied(&p->v) || !is_copied(&p->o))
        return "a stride of q, k, v or o is negative, or 2^40 bytes or more";
    const int d = attni_forward_sm90_width((int)p->dim_qk);
    const bool shaped = p->window_left != ATTN_WINDOW_UNLIMITED || p->softcap > 0.0f || p->has_alibi;
    if (shaped && d != 64 && d != 128)
        return "it has left windows, softcap and ALiBi for dims up to 64 and from 97 to 128 alone";
    if (p->has_bias) return "it has no bias";
    if (p->has_mask) return "it has no boolean mask";
    if (p->dropout_p > 0.0f) return "it has no dropout";
    return NULL;
}

attni_hopper_shape attni_hopper_shape_of(const attn_problem *p) {
    attni_hopper_shape s = {
        .dtype = p->dtype_q, .dim_qk = p->dim_qk, .dim_v = p->dim_v, .seqlen_q = p->seqlen_q};
    s.softcap = p->softcap > 0.0f;
    s.alibi = p->has_alibi != 0;
    s.lengths = p->lengths_q != ATTN_LENGTHS_FULL || p->lengths_k != ATTN_LENGTHS_FULL;
    const bool limited = p->mask == ATTN_MASK_CAUSAL || p->window_right != ATTN_WINDOW_UNLIMITED;
    s.mask = p->window_left != ATTN_WINDOW_UNLIMITED ? 2 : limited ? 1 : 0;
    return s;
}

bool attni_hopper_spec(const attni_hopper_shape *shape, int shared_limit, attni_kernel_spec *spec,
                       attni_forward_tiles *t) {
    const int bf16 = shape->dtype == ATTN_BF16;
    attni_forward_sm90_tiles((int)shape->dim_qk, (int)shape->dim_v, shape->mask > 0,
                             shape->softcap || shape->alibi, (int)shape->seqlen_q, t);
    *spec = (attni_kernel_spec){.source = "forward_sm90.cu",
                                .capability = 90,
                                .threads = t->warps * 32 + 128,
                                .shared_bytes = t->shared_bytes};
    snprintf(spec->name, sizeof spec->name, "forward_sm90_%s_d%d_v%d_%dx%d%s%s%s%s%s", bf16 ? "bf16" : "f16",
             t->d, t->dv, t->br, t->bc,
             shape->mask == 0   ? ""
             : shape->mask == 1 ? "_causal"
                                : "_window",
             shape->softcap ? "_softcap" : "", shape->alibi ? "_alibi" : "", shape->lengths ? "_lengths" : "",
             shape->exact ? "_exact" : "");
    snprintf(spec->entry, sizeof spec->entry, "%s", spec->name);
    snprintf(spec->options, sizeof spec->options,
             "-DBF16=%d -DD=%d -DDV=%d -DWGS=%d -DBC=%d -DSTAGES=%d -DQ_SLOTS=%d -DDIRECT=%d -DTURNS=%d "
             "-DEARLY=%d -DMASK=%d -DSOFTCAP=%d -DALIBI=%d%s%s",
             bf16, t->d, t->dv, t->warps / 4, t->bc, t->stages, t->q_slots, t->direct, t->turns, t->early,
             shape->mask, shape->softcap, shape->alibi, shape->lengths ? " -DLENGTHS=1" : "",
             shape->exact ? " -DEXACT=1" : "");
    return t->shared_bytes <= shared_limit;
}

/* ---------------------------------------------------------------- launch */

/* CUtensorMapDataType and the like, of the driver's binary interface. */
enum { TYPE_F16 = 6, TYPE_BF16 = 9, SWIZZLE_128B = 3, PROMOTION_L2_256B = 3, RANK = 4, COLUMNS = 64 };

/* A tensor (dim, seqlen, heads, batch) in boxes of 64 columns and some rows. */
static attn_status encode(const attni_cuda *cuda, attni_tensor_map *map, const void *base, bool bf16,
                          const int extents[RANK], const attni_tensor_strides *strides, int rows) {
    const uint64_t sizes[RANK] = {(uint64_t)extents[0], (uint64_t)extents[1], (uint64_t)extents[2],
                                  (uint64_t)extents[3]};
    const uint64_t bytes[RANK - 1] = {(uint64_t)strides->seqlen * 2, (uint64_t)strides->heads * 2,
                                      (uint64_t)strides->batch * 2};
    const uint32_t box[RANK] = {COLUMNS, (uint32_t)rows, 1, 1}, steps[RANK] = {1, 1, 1, 1};
    const attni_cu_result result = cuda->driver->encode_tensor_map(
        map, bf16 ? TYPE_BF16 : TYPE_F16, RANK, (attni_cu_pointer)(uintptr_t)base, sizes, bytes, box, steps,
        0, SWIZZLE_128B, PROMOTION_L2_256B, 0);
    return attni_driver_check(cuda->driver, result, "cuTensorMapEncodeTiled");
}

/*
 * The workspace: a ticket, and under lengths that only the device knows the maps of each sequence and their
 * order. A caller's begins at a multiple of 64 bytes, and maps at one of 128.
 */
enum { TICKET_BYTES = 64, MAPS_ALIGNMENT = 128 };

size_t attni_hopper_workspace(const attn_problem *p) {
    const attni_hopper_shape shape = attni_hopper_shape_of(p);
    if (shape.lengths)
        return TICKET_BYTES + MAPS_ALIGNMENT +
               (size_t)p->batch * (ATTNI_MAPS * sizeof(attni_tensor_map) + sizeof(int));
    return shape.mask > 0 ? TICKET_BYTES : 0;
}

attni_kernel_spec attni_hopper_sequences_spec(void) {
    return (attni_kernel_spec){.source = "sequences_sm90.cu",
                               .name = "sequences_sm90",
                               .entry = "sequences_sm90",
                               .capability = 90,
                               .threads = ATTNI_SEQUENCES_THREADS};
}

/* Zero, in the run's workspace. */
static attn_status clear_ticket(const attni_cuda *cuda, unsigned *ticket, void *stream) {
    bool pushed;
    ATTNI_TRY(attni_cuda_enter(cuda, &pushed));
    const attni_cu_result result = cuda->driver->set_words((attni_cu_pointer)(uintptr_t)ticket, 0, 1, stream);
    attni_cuda_leave(cuda, pushed);
    return attni_driver_check(cuda->driver, result, "cuMemsetD32Async of a ticket");
}

static void place_maps(attni_forward_sm90_params *p, void *workspace) {
    const uintptr_t after = (uintptr_t)workspace + TICKET_BYTES;
    p->maps = (attni_tensor_map *)((after + MAPS_ALIGNMENT - 1) / MAPS_ALIGNMENT * MAPS_ALIGNMENT);
    p->order = (int *)(p->maps + (size_t)p->forward.batch * ATTNI_MAPS);
    p->forward.order = p->order;
}

/* Queues sequences_sm90, which clears the ticket too. */
static attn_status map_sequences(const attn_plan *plan, const attni_kernel *kernel, const attni_run *run,
                                 attni_forward_sm90_params *p) {
    const unsigned grid[3] = {(unsigned)attni_sequences_grid(p->forward.batch), 1, 1};
    return attni_cuda_launch(plan, kernel, grid, p, run->stream);
}

/* The tensors as the copy engine knows them; of ragged and padded ones a pattern for sequences_sm90. */
static attn_status encode_tensors(const attni_cuda *cuda, attni_forward_sm90_params *p, bool bf16, int keys) {
    const attni_forward_params *f = &p->forward;
    const int batch = p->maps ? 1 : f->batch;
    const int q[RANK] = {f->dim_qk, f->seqlen_q, f->heads_q, batch};
    const int k[RANK] = {f->dim_qk, f->seqlen_k, f->heads_kv, batch};
    const int v[RANK] = {f->dim_v, f->seqlen_k, f->heads_kv, batch};
    const int o[RANK] = {f->dim_v, f->seqlen_q, f->heads_q, batch};
    ATTNI_TRY(encode(cuda, &p->q, f->q, bf16, q, &f->q_stride, 64));
    ATTNI_TRY(encode(cuda, &p->k, f->k, bf16, k, &f->k_stride, keys));
    ATTNI_TRY(encode(cuda, &p->v, f->v, bf16, v, &f->v_stride, keys));
    return encode(cuda, &p->o, f->o, bf16, o, &f->o_stride, 64);
}

/*
 * A softcap as a polynomial: tanh x is x (1 + tanh_terms[0] x^2 + ..) to 1.5e-8 of itself for |x| up to 0.5 (minimax,
 * the first term held at 1), and x is a raw number times the scale over the cap.
 */
static void fill_cap(attni_forward_sm90_params *p) {
    static const double tanh_terms[] = {-3.333314389e-01, 1.332587886e-01, -5.304548619e-02, 1.724147235e-02};
    const double over_cap = fabs((double)p->forward.scale) / (double)p->forward.softcap;
    double factor = fabs((double)p->forward.scale) * 1.4426950408889634; /* to powers of two */
    p->cap_square = (float)(0.25 / (over_cap * over_cap));
    p->cap[0] = (float)factor;
    for (int i = 1; i < 5; i++) {
        factor *= over_cap * over_cap;
        p->cap[i] = (float)(factor * tanh_terms[i - 1]);
    }
    if (!(factor < 1e30 && p->cap_square > 0.0f)) p->cap_square = -1.0f;
}

attn_status attni_hopper_launch(const attn_plan *plan, const attni_run *run) {
    const attni_cuda *cuda = plan->context->backend_data;
    const attni_cuda_plan *made = plan->backend_data;
    const bool bf16 = plan->problem.dtype_q == ATTN_BF16;
    attni_forward_sm90_params p = {.forward = attni_cuda_run_params(plan, run)};
    p.tiles = (int)attni_forward_schedule(&p.forward, &made->hopper_tiles, (long long)cuda->l2_bytes / 2);
    if (p.tiles == 0) return ATTN_OK;
    if (p.forward.softcap > 0.0f) fill_cap(&p);
    const bool tickets = run->workspace && p.tiles > cuda->multiprocessors;
    if (tickets) p.ticket = run->workspace;
    if (made->sequences) place_maps(&p, run->workspace);
    ATTNI_TRY(encode_tensors(cuda, &p, bf16, made->hopper_tiles.bc));
    if (made->sequences)
        ATTNI_TRY(map_sequences(plan, made->sequences, run, &p));
    else if (tickets)
        ATTNI_TRY(clear_ticket(cuda, p.ticket, run->stream));
    const int blocks = p.tiles < cuda->multiprocessors ? p.tiles : cuda->multiprocessors;
    const unsigned grid[3] = {(unsigned)blocks, 1, 1};
    return attni_cuda_launch(plan, made->hopper, grid, &p, run->stream);
}
