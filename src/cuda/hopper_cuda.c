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
    if (dim_qk > 256 || dim_v > 256) return dim_qk > 256 && dim_qk <= 576 && dim_v > 256 && dim_v <= 512;
    const int d = attni_forward_sm90_width((int)dim_qk), dv = attni_forward_sm90_width((int)dim_v);
    return d == dv || (d == 192 && dv == 128);
}

const char *attni_hopper_refusal(const attni_cuda *cuda, const attn_problem *p) {
    if (cuda->major != 9) return "it is for compute capability 9.0 alone";
    if (!cuda->driver->encode_tensor_map) return "the NVIDIA driver is older than CUDA 12.0";
    if (!attni_hopper_takes_dims(p->dim_qk, p->dim_v))
        return "it takes dims that both round up to 64, 96, 128, 192 or 256, 192 with 128, and above 256 up "
               "to 576 with 512";
    if (!attni_cuda_is_aligned(p)) return "a dim or stride of q, k, v or o is no multiple of 16 bytes";
    if (!is_copied(&p->q) || !is_copied(&p->k) || !is_copied(&p->v) || !is_copied(&p->o))
        return "a stride of q, k, v or o is negative, or 2^40 bytes or more";
    return NULL;
}

/* A bias that the copy engine brings. */
static bool is_bias_copied(const attn_problem *p) {
    const int64_t strides[] = {p->bias.batch, p->bias.heads, p->bias.queries};
    for (int i = 0; i < 3; i++)
        if (strides[i] < 0 || strides[i] >= (int64_t)1 << 39 || strides[i] % 8 != 0) return false;
    return p->dtype_bias == p->dtype_q;
}

/* As in attni_hopper_shape. */
int attni_hopper_mask(const attn_problem *p) {
    const bool limited = p->mask == ATTN_MASK_CAUSAL || p->window_right != ATTN_WINDOW_UNLIMITED;
    return p->window_left != ATTN_WINDOW_UNLIMITED ? 2 : limited ? 1 : 0;
}

/* Whether a problem goes to the variant that looks at run time which options there are. The others, of one
 * option each, are those that were worth their compiling. */
static bool is_general(const attn_problem *p) {
    const int d = attni_forward_sm90_width((int)p->dim_qk);
    const int options = (p->softcap > 0.0f) + (p->has_alibi != 0) + (p->has_bias != 0);
    if (p->has_mask || p->dropout_p > 0.0f || options > 1) return true;
    if (p->has_bias) return !is_bias_copied(p) || attni_hopper_mask(p) == 2 || d > 256;
    return options > 0 && d != 64 && d != 128; /* there they would spill */
}

/* Whether tiles of a whole group's heads are fewer, by a quarter and more: a few queries leave most rows of a
 * tile of one head empty. */
static bool is_packed(const attn_problem *p, const attni_hopper_shape *shape) {
    const int64_t group = p->heads_kv > 0 ? p->heads_q / p->heads_kv : 0;
    if (group < 2 || group > 64 || shape->mask == 2 || shape->alibi || shape->bias) return false;
    attni_forward_tiles t;
    attni_kernel_spec spec;
    (void)attni_hopper_spec(shape, 0, &spec, &t);
    const int64_t rows = t.br / 64 * (64 / group);
    const int64_t apart = (p->seqlen_q + t.br - 1) / t.br * group, together = (p->seqlen_q + rows - 1) / rows;
    return 4 * together <= 3 * apart;
}

/* Rows of one warpgroup and many keys. */
static bool is_few(const attn_problem *p, const attni_hopper_shape *shape) {
    enum { ROWS = 64, KEYS = 1024 }; /* of fewer keys it is no matter, and another variant may be embedded */
    return !shape->alibi && !shape->bias && !shape->general && p->seqlen_k >= KEYS &&
           p->seqlen_q * (shape->packed ? p->heads_q / p->heads_kv : 1) <= ROWS;
}

/* Keys that a row sees at most. */
static int64_t window_of(const attn_problem *p) {
    const int64_t right = p->mask == ATTN_MASK_CAUSAL ? 0 : p->window_right, most = (int64_t)1 << 40;
    if (p->window_left == ATTN_WINDOW_UNLIMITED || right == ATTN_WINDOW_UNLIMITED) return INT64_MAX;
    return attni_min(p->window_left, most) + attni_min(right, most) + 1;
}

enum { NARROW = 3072 }; /* measured at 2048 and 4096 */

attni_hopper_shape attni_hopper_shape_of(const attn_problem *p) {
    attni_hopper_shape s = {
        .dtype = p->dtype_q, .dim_qk = p->dim_qk, .dim_v = p->dim_v, .seqlen_q = p->seqlen_q};
    s.general = is_general(p);
    s.softcap = !s.general && p->softcap > 0.0f;
    s.alibi = !s.general && p->has_alibi;
    s.bias = !s.general && p->has_bias;
    s.lengths = s.general || p->lengths_q != ATTN_LENGTHS_FULL || p->lengths_k != ATTN_LENGTHS_FULL;
    s.mask = s.general ? 2 : attni_hopper_mask(p);
    s.narrow = !s.general && !s.softcap && !s.alibi && window_of(p) <= NARROW;
    s.packed = is_packed(p, &s);
    s.few = is_few(p, &s);
    return s;
}

bool attni_hopper_spec(const attni_hopper_shape *shape, int shared_limit, attni_kernel_spec *spec,
                       attni_forward_tiles *t) {
    const int bf16 = shape->dtype == ATTN_BF16;
    const int shaped = shape->general   ? ATTNI_SM90_GENERAL
                       : shape->bias    ? ATTNI_SM90_BIAS
                       : shape->softcap ? ATTNI_SM90_SOFTCAP
                       : shape->alibi   ? ATTNI_SM90_ALIBI
                                        : ATTNI_SM90_PLAIN;
    const int rows =
        shape->bias && !bf16 ? 0 : (int)shape->seqlen_q; /* in f16 the tile for many would spill */
    attni_forward_sm90_tiles((int)shape->dim_qk, (int)shape->dim_v, shape->mask,
                             shape->narrow && !shape->split, shaped, rows, t);
    if (shape->split) attni_forward_sm90_split(t, shape->few);
    *spec = (attni_kernel_spec){.source = "forward_sm90.cu",
                                .capability = 90,
                                .threads = t->warps * 32 + 128,
                                .shared_bytes = t->shared_bytes};
    const char *mask = shape->general     ? "_general"
                       : shape->mask == 2 ? "_window"
                       : shape->mask == 1 ? "_causal"
                                          : "";
    snprintf(spec->name, sizeof spec->name, "forward_sm90_%s_d%d_v%d_%dx%d%s%s%s%s%s%s%s%s",
             bf16 ? "bf16" : "f16", t->d, t->dv, t->br, t->bc, mask, shape->softcap ? "_softcap" : "",
             shape->alibi ? "_alibi" : "", shape->bias ? "_bias" : "",
             shape->lengths && !shape->general ? "_lengths" : "", shape->packed ? "_packed" : "",
             shape->exact ? "_exact" : "", shape->split ? "_split" : "");
    char bias[16] = "", parts[20] = "";
    const bool sliced = t->dv > 256;
    if (t->q_parts != t->q_slots * t->br / 64) snprintf(parts, sizeof parts, " -DQ_PARTS=%d", t->q_parts);
    if (shape->bias) snprintf(bias, sizeof bias, " -DBIAS=%d", t->bias_slots);
    snprintf(spec->entry, sizeof spec->entry, "%s", spec->name);
    snprintf(spec->options, sizeof spec->options,
             "-DBF16=%d -DD=%d -DDV=%d -DWGS=%d -DBC=%d -DSTAGES=%d -DQ_SLOTS=%d -DDIRECT=%d -DTURNS=%d "
             "-DEARLY=%d -DMASK=%d -DSOFTCAP=%d -DALIBI=%d%s%s%s%s%s%s%s%s",
             bf16, t->d, sliced ? t->dv / 2 : t->dv, t->warps / 4, t->bc, t->stages, t->q_slots, t->direct,
             t->turns, t->early, shape->mask, shape->softcap, shape->alibi, parts, bias,
             shape->general ? " -DGENERAL=1" : "", shape->lengths ? " -DLENGTHS=1" : "",
             shape->packed ? " -DPACKED=1" : "", shape->exact ? " -DEXACT=1" : "",
             sliced ? " -DSLICED=1" : "", shape->split ? " -DSPLIT=1" : "");
    return t->shared_bytes <= shared_limit;
}

/* ---------------------------------------------------------------- keys in pieces */

/* How long tiles take, each so long by itself, of K and V of mb in all. The unit is the time of 128 keys at dim 128 on one
 * multiprocessor, about 1.2 us, in which 5.2 MB come from memory. */
static double time_tiles(double tiles, double each, double mb, int multiprocessors) {
    const double rounds = floor(tiles / multiprocessors), rest = tiles - rounds * multiprocessors;
    const double copied = mb / 5.2 / tiles; /* of a tile's keys */
    return rounds * fmax(each, copied * multiprocessors) + (rest > 0 ? fmax(each, copied * rest) : 0);
}

/*
 * Pieces for a run of so many queries and keys. A tile costs one unit beside its blocks; gather_sm90 3, and what it reads,
 * which was written first, as much as 2 MB take. Pieces come in numbers that fill 1 to 4 rounds; they are to save a tenth.
 * Of a window a tile sees no more than its own keys.
 */
static int count_pieces(const attni_cuda *cuda, const attn_problem *p, const attni_forward_tiles *t,
                        bool packed, int64_t seqlen_q, int64_t seqlen_k, int most) {
    const int64_t group = packed ? p->heads_q / p->heads_kv : 1;
    const int64_t queries = packed ? t->br / 64 * (64 / group) : t->br;
    const int64_t tiles = (seqlen_q + queries - 1) / queries * p->batch * (p->heads_q / group);
    const int64_t right = p->mask == ATTN_MASK_CAUSAL ? 0 : p->window_right;
    const int m = cuda->multiprocessors;
    int64_t keys = seqlen_k, best = 1;
    if (p->window_left != ATTN_WINDOW_UNLIMITED && right != ATTN_WINDOW_UNLIMITED &&
        p->window_left < seqlen_k && right < seqlen_k)
        keys = attni_min(keys, p->window_left + right + queries);
    const int64_t blocks = (keys + t->bc - 1) / t->bc;
    if (tiles == 0 || blocks < 2) return 1;
    const double unit = t->bc / 128.0 * (t->d + t->dv) / 256.0, /* of a block */
        mb = 2e-6 * (double)(p->batch * p->heads_kv * keys) * (double)(p->dim_qk + p->dim_v),
                 gathered = (double)(p->batch * p->heads_q * seqlen_q) * (double)(p->dim_v + 2) * 4e-6;
    double least = 0.9 * time_tiles((double)tiles, (double)blocks * unit + 1, mb, m);
    for (int64_t rounds = 1; rounds <= 4; rounds++) {
        const int64_t wanted = attni_min(attni_min(rounds * m / tiles, blocks), most);
        if (wanted < 2) continue;
        const int64_t each = (blocks + wanted - 1) / wanted, pieces = (blocks + each - 1) / each;
        const double cost = time_tiles((double)(tiles * pieces), (double)each * unit + 1, mb, m) + 3 +
                            gathered / 2 * (double)pieces;
        if (cost < least) {
            least = cost;
            best = pieces;
        }
    }
    return (int)best;
}

int attni_hopper_most_pieces(const attni_cuda *cuda, const attn_problem *p, const attni_hopper_shape *shape,
                             const attni_forward_tiles *tiles) {
    enum { MOST = 32767 }; /* a tile's record has 16 bits for it */
    if (p->batch_invariant || shape->alibi || shape->bias || shape->general) return 1;
    return count_pieces(cuda, p, tiles, shape->packed, p->seqlen_q, p->seqlen_k, MOST);
}

/* ---------------------------------------------------------------- launch */

/* CUtensorMapDataType and the like, of the driver's binary interface. A box has 128 bytes of a row; asked to bring 256 of
 * it into L2, a decoding step read 4 to 10% slower. */
enum { TYPE_F16 = 6, TYPE_BF16 = 9, SWIZZLE_128B = 3, PROMOTION_L2_128B = 2, RANK = 4, COLUMNS = 64 };

/* A tensor of queries: (dim, row, head, batch), or where heads are packed (dim, head, row, batch); of keys the
 * former. */
static attn_status encode(const attni_cuda *cuda, attni_tensor_map *map, const void *base, bool bf16, int dim,
                          int rows, int heads, int batch, const attni_tensor_strides *strides, int box_rows,
                          int pack) {
    const uint64_t row[2] = {(uint64_t)rows, (uint64_t)strides->seqlen * 2},
                   head[2] = {(uint64_t)heads, (uint64_t)strides->heads * 2};
    const uint64_t sizes[RANK] = {(uint64_t)dim, pack ? head[0] : row[0], pack ? row[0] : head[0],
                                  (uint64_t)batch};
    const uint64_t bytes[RANK - 1] = {pack ? head[1] : row[1], pack ? row[1] : head[1],
                                      (uint64_t)strides->batch * 2};
    const uint32_t box[RANK] = {COLUMNS, (uint32_t)(pack ? pack : box_rows), (uint32_t)(pack ? box_rows : 1),
                                1},
                   steps[RANK] = {1, 1, 1, 1};
    const attni_cu_result result = cuda->driver->encode_tensor_map(
        map, bf16 ? TYPE_BF16 : TYPE_F16, RANK, (attni_cu_pointer)(uintptr_t)base, sizes, bytes, box, steps,
        0, SWIZZLE_128B, PROMOTION_L2_128B, 0);
    return attni_driver_check(cuda->driver, result, "cuTensorMapEncodeTiled");
}

/*
 * The workspace: a ticket, under lengths that only the device knows the maps of each sequence and their order, and
 * where keys are split the pieces: for each row and piece m and l, then o. A caller's begins at a multiple of 64 bytes,
 * and maps at one of 128.
 */
enum { TICKET_BYTES = 64, MAPS_ALIGNMENT = 128, PAIR_BYTES = 8 };

static size_t bytes_before_pieces(const attn_problem *p) {
    const attni_hopper_shape shape = attni_hopper_shape_of(p);
    if (shape.lengths)
        return TICKET_BYTES + MAPS_ALIGNMENT +
               (size_t)p->batch * (ATTNI_MAPS * sizeof(attni_tensor_map) + sizeof(int));
    return shape.mask > 0 ? TICKET_BYTES : 0;
}

/* To whole float4 of them. */
static size_t pair_bytes(const attn_problem *p, int pieces) {
    const size_t count = (size_t)(p->batch * p->heads_q * p->seqlen_q) * (size_t)pieces;
    return (count + 1) / 2 * (2 * PAIR_BYTES);
}

size_t attni_hopper_workspace(const attn_problem *p, int pieces, size_t *pieces_at) {
    const size_t before = bytes_before_pieces(p);
    *pieces_at = (before + 15) / 16 * 16;
    if (pieces <= 1) return before;
    return *pieces_at + pair_bytes(p, pieces) * (1 + (size_t)p->dim_v * sizeof(float) / PAIR_BYTES);
}

/* This run's number of pieces. Of several m, l and o have a place of their own; O and LSE are gather_sm90's. */
static int place_pieces(const attn_plan *plan, const attni_run *run, attni_forward_params *f) {
    const attn_problem *p = &plan->problem;
    const attni_cuda_plan *made = plan->backend_data;
    if (!made->gather || run->kind == ATTNI_RUN_ADD) return 1;
    const int pieces = count_pieces(plan->context->backend_data, p, &made->hopper_tiles, made->hopper_packed,
                                    f->seqlen_q, f->seqlen_k, made->pieces);
    if (pieces == 1) return 1;
    char *begin = (char *)run->workspace + made->pieces_at;
    f->accum_m = (float *)(void *)begin;
    f->accum_o = (float *)(void *)(begin + pair_bytes(p, pieces));
    f->lse = NULL;
    f->sinks = NULL;
    return pieces;
}

/* Queues gather_sm90. */
static attn_status gather_pieces(const attn_plan *plan, const attni_run *run, const attni_forward_params *f,
                                 int pieces) {
    const attni_cuda_plan *made = plan->backend_data;
    const attn_problem *p = &plan->problem;
    const attni_forward_params all = attni_cuda_run_params(plan, run);
    attni_accum_params a = {.m = f->accum_m,
                            .o = f->accum_o,
                            .out = all.o,
                            .lse = all.lse,
                            .sinks = all.sinks,
                            .lengths_q = all.lengths_q,
                            .o_stride = all.o_stride,
                            .lse_stride_batch = all.lse_stride_batch,
                            .lse_stride_head = all.lse_stride_head,
                            .rows = plan->rows,
                            .batch = all.batch,
                            .heads_q = all.heads_q,
                            .seqlen_q = all.seqlen_q,
                            .seqlen_q_max = all.seqlen_q_max,
                            .dim_v = all.dim_v,
                            .lengths_q_kind = all.lengths_q_kind,
                            .dtype_o = (int)p->dtype_o,
                            .pieces = pieces,
                            .share = attni_accum_share(pieces, plan->rows)};
    const unsigned grid[3] = {(unsigned)attni_accum_grid(plan->rows * a.share), 1, 1};
    return attni_cuda_launch_early(plan, made->gather, grid, &a, run->stream);
}

attni_kernel_spec attni_hopper_sequences_spec(void) {
    return (attni_kernel_spec){.source = "sequences_sm90.cu",
                               .name = "sequences_sm90",
                               .entry = "sequences_sm90",
                               .capability = 90,
                               .threads = ATTNI_SEQUENCES_THREADS};
}

attni_kernel_spec attni_hopper_gather_spec(void) {
    return (attni_kernel_spec){.source = "gather_sm90.cu",
                               .name = "gather_sm90",
                               .entry = "gather_sm90",
                               .capability = 90,
                               .threads = ATTNI_ACCUM_THREADS};
}

/* A ticket of zero: launches leave it at zero. */
static attn_status take_ticket(const attni_cuda *cuda, const attni_run *run, unsigned **ticket) {
    attni_cuda_words words;
    ATTNI_TRY(attni_cuda_take_words(cuda, run, 1, 0, &words));
    *ticket = words.at;
    return ATTN_OK;
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

/* How many rows and batches a tensor has. Only the device knows how many rows a ragged one has: none is asked for that
 * is not there. */
typedef struct {
    int rows, batch;
} extent;

static extent extent_of(int kind, int rows, int batch) {
    return kind == ATTNI_LENGTHS_RAGGED ? (extent){INT32_MAX, 1} : (extent){rows, batch};
}

/* The tensors as the copy engine knows them; ragged and padded ones are patterns for sequences_sm90 too. */
static attn_status encode_tensors(const attni_cuda *cuda, attni_forward_sm90_params *p, bool bf16, int keys) {
    const attni_forward_params *f = &p->forward;
    const int pack = f->pack, heads = pack ? f->heads_q * pack : f->heads_q,
              rows = pack ? f->part_queries : 64;
    const extent q = extent_of(f->lengths_q_kind, f->seqlen_q, f->batch),
                 k = extent_of(f->lengths_k_kind, f->seqlen_k, f->batch);
    ATTNI_TRY(encode(cuda, &p->q, f->q, bf16, f->dim_qk, q.rows, heads, q.batch, &f->q_stride, rows, pack));
    if (f->seqlen_k > 0) {
        ATTNI_TRY(
            encode(cuda, &p->k, f->k, bf16, f->dim_qk, k.rows, f->heads_kv, k.batch, &f->k_stride, keys, 0));
        ATTNI_TRY(
            encode(cuda, &p->v, f->v, bf16, f->dim_v, k.rows, f->heads_kv, k.batch, &f->v_stride, keys, 0));
    } else { /* the kernel asks for heads that are not there, and gets zeros */
        ATTNI_TRY(encode(cuda, &p->k, f->q, bf16, f->dim_qk, 1, f->heads_kv, q.batch, &f->q_stride, keys, 0));
        p->v = p->k;
    }
    if (!f->o) return ATTN_OK; /* an accumulator's run */
    return encode(cuda, &p->o, f->o, bf16, f->dim_v, q.rows, heads, q.batch, &f->o_stride, rows, pack);
}

/* The bias as the copy engine knows it, and what makes it one of raw scores. */
static attn_status encode_bias(const attni_cuda *cuda, attni_forward_sm90_params *p, bool bf16) {
    const attni_forward_params *f = &p->forward;
    const attni_tensor_strides strides = {f->bias_stride.batch, f->bias_stride.queries, f->bias_stride.heads};
    int power;
    p->bias_factor = f->scale == 0.0f ? 1.0f : 1.0f / fabsf(f->scale); /* the kernel takes 1 for 0 too */
    p->query_factor = fabsf(frexpf(f->scale, &power)) == 0.5f && power <= 1 ? fabsf(f->scale) : 0.0f;
    return encode(cuda, &p->bias, f->bias, bf16, f->seqlen_k, f->seqlen_q, f->heads_q, f->batch, &strides, 64,
                  0);
}

bool attni_hopper_takes_run(const attn_plan *plan, const attni_run *run) {
    const attni_cuda_plan *made = plan->backend_data;
    if (!made->hopper || (run->kind == ATTNI_RUN_ADD && made->hopper_tiles.dv <= 256)) return false;
    if (made->hopper_tiles.bias_slots == 0) return true;
    const float scale = fabsf(run->tensors.scale);
    return run->tensors.seqlen_k > 0 && (uintptr_t)run->tensors.bias % 16 == 0 &&
           (scale == 0.0f || (scale > 0x1p-20f && scale < 0x1p20f));
}

/* From here on a tile is of a group of heads, as if there were heads_kv of them. Its br are queries. */
static attni_forward_tiles pack_heads(attni_forward_params *f, const attni_forward_tiles *tiles) {
    attni_forward_tiles packed = *tiles;
    f->pack = f->group;
    f->part_queries = 64 / f->pack;
    f->pack_inverse = 65536 / f->pack + 1;
    f->heads_q = f->heads_kv;
    f->group = 1;
    packed.br = tiles->br / 64 * f->part_queries;
    return packed;
}

/*
 * A softcap as a polynomial: tanh x is x (1 + third x^2 + fifth x^4) to within 1.4e-7 for |x| up to 0.27 (minimax, the first
 * term held at 1, so that what is far below the cap is exact), and x is a raw number times the scale over the cap. With the
 * square completed that is fifth x ((x^2 + h)^2 + 1 / fifth - h^2), where h = third / (2 fifth).
 */
static void fill_cap(attni_forward_sm90_params *p) {
    static const double third = -3.3319254e-01, fifth = 1.2767748e-01, most = 0.27;
    const double scale = fabs((double)p->forward.scale), over_cap = scale / (double)p->forward.softcap,
                 square = 1.0 / (over_cap * over_cap);
    p->cap[2] = (float)(scale * 1.4426950408889634 * fifth * pow(over_cap, 4.0)); /* to powers of two */
    if (!(p->cap[2] > 1e-37f && p->cap[2] < 1e37f && square > 1e-17 && square < 1e17)) { /* never so */
        p->cap[0] = p->cap[1] = p->cap[2] = 0.0f;
        p->cap_square = -INFINITY;
        return;
    }
    p->cap[0] = (float)(square * third / (2.0 * fifth));
    p->cap[1] =
        (float)(scale * 1.4426950408889634 / (double)p->cap[2] - (double)p->cap[0] * (double)p->cap[0]);
    p->cap_square = (float)(most * most * square);
}

/*
 * Bytes of keys and values of the heads that run side by side: half of L2; for short sequences of dims around 128 a
 * quarter, or tiles of one length would ask for all keys at once (H200: 4% at 512 rows); at dim 256, which has the
 * fewest heads, more of it for long ones, or the last group's heads are too few for all blocks (3 to 7%).
 */
static long long cache_bytes(const attni_cuda *cuda, const attni_forward_tiles *tiles, int seqlen_q) {
    int quarters = 2;
    if (tiles->d > 192) quarters = seqlen_q <= 1024 ? 2 : seqlen_q <= 2048 ? 3 : 4;
    if (tiles->d <= 128 && tiles->br == 128 && seqlen_q <= 512) quarters = 1;
    return (long long)cuda->l2_bytes / 4 * quarters;
}

attn_status attni_hopper_launch(const attn_plan *plan, const attni_run *run) {
    const attni_cuda *cuda = plan->context->backend_data;
    const attni_cuda_plan *made = plan->backend_data;
    const bool bf16 = plan->problem.dtype_q == ATTN_BF16;
    attni_forward_sm90_params p = {.forward = attni_cuda_run_params(plan, run)};
    attni_forward_tiles tiles =
        made->hopper_packed ? pack_heads(&p.forward, &made->hopper_tiles) : made->hopper_tiles;
    tiles.value_slices = place_pieces(plan, run, &p.forward);
    p.tiles = (int)attni_forward_schedule(&p.forward, &tiles, cache_bytes(cuda, &tiles, p.forward.seqlen_q),
                                          cuda->multiprocessors);
    if (p.tiles == 0) return ATTN_OK;
    if (p.forward.softcap > 0.0f) fill_cap(&p);
    const bool tickets =
        run->workspace && p.tiles > cuda->multiprocessors && (!made->gather || made->pieces_at > 0);
    if (tickets) p.ticket = run->workspace;
    if (made->sequences) place_maps(&p, run->workspace);
    ATTNI_TRY(encode_tensors(cuda, &p, bf16, made->hopper_tiles.bc));
    if (tiles.bias_slots > 0) ATTNI_TRY(encode_bias(cuda, &p, bf16));
    if (made->sequences)
        ATTNI_TRY(map_sequences(plan, made->sequences, run, &p));
    else if (tickets)
        ATTNI_TRY(take_ticket(cuda, run, &p.ticket));
    const int blocks = p.tiles < cuda->multiprocessors ? p.tiles : cuda->multiprocessors;
    const unsigned grid[3] = {(unsigned)blocks, 1, 1};
    if (made->sequences)
        ATTNI_TRY(attni_cuda_launch_early(plan, made->hopper, grid, &p, run->stream));
    else
        ATTNI_TRY(attni_cuda_launch(plan, made->hopper, grid, &p, run->stream));
    return tiles.value_slices > 1 ? gather_pieces(plan, run, &p.forward, tiles.value_slices) : ATTN_OK;
}
