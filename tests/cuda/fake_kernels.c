/* What the kernels of src/cuda/kernels compute, by plain loops over the parameters that the host filled. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/philox.h"
#define attni_round_up attni_params_round_up
#include "cuda/kernels/params.h"
#undef attni_round_up
#include "fake_libcuda.h"

static double load_16(const void *from, long long at, int bf16) {
    const uint16_t x = ((const uint16_t *)from)[at];
    return (double)(bf16 ? attni_bf16_to_f32(x) : attni_f16_to_f32(x));
}

/* How q, k and v are stored, and what their numbers are times. */
typedef struct input_format {
    enum { INPUT_F16, INPUT_BF16, INPUT_E4M3, INPUT_E5M2 } kind;
    const attni_forward_sm90_params *scales; /* of 8 bits; null: none */
} input_format;

static double load_8(uint8_t x, int e5m2) {
    if (e5m2) return (double)attni_f16_to_f32((uint16_t)(x << 8));
    const int exponent = x >> 3 & 15, fraction = x & 7;
    const double size = (x & 127) == 127 ? (double)NAN
                        : exponent == 0  ? ldexp(fraction, -9)
                                         : ldexp(8 + fraction, exponent - 10);
    return x & 128 ? -size : size;
}

static double load_input(const void *from, long long at, const input_format *format) {
    if (format->kind >= INPUT_E4M3) return load_8(((const uint8_t *)from)[at], format->kind == INPUT_E5M2);
    return load_16(from, at, format->kind == INPUT_BF16);
}

/* The product of q_scale and k_scale, or v_scale. */
static double scale_of(const input_format *format, int b, long long kv, int values) {
    const attni_forward_sm90_params *p = format->scales;
    if (!p || !p->q_scale) return 1;
    const long long at = b * p->scale_stride_batch + kv * p->scale_stride_head;
    return values ? (double)p->v_scale[at] : (double)p->q_scale[at] * (double)p->k_scale[at];
}

static double load_any(const void *from, long long at, int dtype) {
    if (dtype == ATTNI_DTYPE_F32) return (double)((const float *)from)[at];
    return load_16(from, at, dtype == ATTNI_DTYPE_BF16);
}

static void store_16(void *to, long long at, double x, int bf16) {
    ((uint16_t *)to)[at] = bf16 ? attni_f32_to_bf16((float)x) : attni_f32_to_f16((float)x);
}

static long long length_of(int kind, const int *lengths, int b, long long full, long long *begin) {
    *begin = kind == ATTNI_LENGTHS_RAGGED ? lengths[b] : 0;
    long long n = kind == ATTNI_LENGTHS_FULL     ? full
                  : kind == ATTNI_LENGTHS_PADDED ? lengths[b]
                                                 : lengths[b + 1] - lengths[b];
    return n < 0 ? 0 : n > full ? full : n;
}

typedef struct row_state {
    double m, l;
    double *o;
} row_state;

/* One query row over all its keys. */
static void fold(const attni_forward_params *p, const input_format *format, int b, int h, long long i,
                 long long rows, long long q_row0, long long keys, long long k_row0, row_state *state) {
    const long long query_start = p->query_default ? p->key_start + keys - rows : p->query_start;
    const long long position = query_start + i,
                    q_at = b * p->q_stride.batch + h * p->q_stride.heads + (q_row0 + i) * p->q_stride.seqlen;
    state->m = -INFINITY;
    state->l = 0;
    for (int d = 0; d < p->dim_v; d++) state->o[d] = 0;
    for (long long j = 0; j < keys; j++) {
        const long long key = p->key_start + j;
        if (p->window_right >= 0 && key > position + p->window_right) continue;
        if (p->window_left >= 0 && key < position - p->window_left) continue;
        const long long kv = h / p->group;
        const long long k_at =
            b * p->k_stride.batch + kv * p->k_stride.heads + (k_row0 + j) * p->k_stride.seqlen;
        const long long v_at =
            b * p->v_stride.batch + kv * p->v_stride.heads + (k_row0 + j) * p->v_stride.seqlen;
        double s = 0;
        for (int d = 0; d < p->dim_qk; d++)
            s += load_input(p->q, q_at + d, format) * load_input(p->k, k_at + d, format);
        s *= (double)p->scale * scale_of(format, b, kv, 0);
        if (p->softcap > 0) s = (double)p->softcap * tanh(s / (double)p->softcap);
        if (p->alibi) s -= (double)p->alibi[b * p->alibi_stride_batch + h] * fabs((double)(position - key));
        if (p->bias)
            s += load_any(
                p->bias, b * p->bias_stride.batch + h * p->bias_stride.heads + i * p->bias_stride.queries + j,
                p->bias_dtype);
        if (p->mask &&
            !p->mask[b * p->mask_stride.batch + h * p->mask_stride.heads + i * p->mask_stride.queries + j])
            continue;
        if (s == -INFINITY) continue;
        const double top = !(s <= state->m) ? s : state->m, old = exp(state->m - top), now = exp(s - top);
        double keep = 1;
        if (p->dropout_threshold > 0) {
            const long long lane = ((key % 8) + 8) % 8;
            uint32_t c[4] = {(uint32_t)((key - lane) / 8), (uint32_t)position, (uint32_t)(b * p->heads_q + h),
                             (uint32_t)p->dropout_offset};
            attni_philox((uint32_t)p->dropout_seed, (uint32_t)(p->dropout_seed >> 32), c);
            keep = (c[lane / 2] >> (lane % 2 ? 16 : 0) & 0xffff) >= (uint32_t)p->dropout_threshold;
        }
        state->m = top;
        state->l = state->l * old + now;
        const double times = keep * (double)p->dropout_scale * scale_of(format, b, kv, 1);
        for (int d = 0; d < p->dim_v; d++)
            state->o[d] = state->o[d] * old + now * times * load_input(p->v, v_at + d, format);
    }
}

/* O and LSE of a row; a sink is one more logit. */
static void finish(const row_state *state, double sink, void *out, long long at, int dim_v, int bf16,
                   float *lse) {
    const double top = !(state->m <= sink) ? state->m : sink;
    const double total = top == -INFINITY ? 0 : state->l * exp(state->m - top) + exp(sink - top);
    for (int d = 0; d < dim_v; d++)
        store_16(out, at + d, total == 0 ? 0 : state->o[d] * exp(state->m - top) / total, bf16);
    if (lse) *lse = (float)(total == 0 ? -INFINITY : top + log(total));
}

static int is_aligned_16(const attni_forward_params *p) {
    const long long strides[] = {
        p->q_stride.batch,  p->q_stride.seqlen, p->q_stride.heads,  p->k_stride.batch, p->k_stride.seqlen,
        p->k_stride.heads,  p->v_stride.batch,  p->v_stride.seqlen, p->v_stride.heads, p->o_stride.batch,
        p->o_stride.seqlen, p->o_stride.heads,  p->dim_qk,          p->dim_v};
    for (int i = 0; i < 14; i++)
        if (strides[i] % 8 != 0) return 0;
    return ((uintptr_t)p->q | (uintptr_t)p->k | (uintptr_t)p->v | (uintptr_t)p->o) % 16 == 0;
}

/* What the kernel of this name relies on. */
static int is_launch_right(const attni_forward_params *p, int general) {
    if (!p->unaligned && !is_aligned_16(p)) return 0;
    return general || (!p->bias && !p->mask && !p->alibi && p->softcap == 0 && p->dropout_threshold == 0 &&
                       !p->unaligned);
}

/* A row as pieces for gather_sm90: all of it in the last, the others empty. */
static void store_pieces(const attni_forward_params *p, long long row, const row_state *state) {
    for (int i = 0; i < p->value_slices; i++) {
        const long long at = row * p->value_slices + i;
        const int any = i == p->value_slices - 1 && !(state->l == 0);
        p->accum_m[2 * at] = any ? (float)(state->m / log(2.0)) : NAN;
        p->accum_m[2 * at + 1] = any ? (float)state->l : 0;
        for (int d = 0; d < p->dim_v; d++) p->accum_o[at * p->dim_v + d] = any ? (float)state->o[d] : NAN;
    }
}

static void run_forward(const attni_forward_params *p, const input_format *format, int bf16, int split) {
    double *o = malloc((size_t)p->dim_v * sizeof *o);
    for (int b = 0; b < p->batch; b++) {
        long long q_row0, k_row0;
        const long long rows = length_of(p->lengths_q_kind, p->lengths_q, b, p->seqlen_q, &q_row0);
        const long long keys = length_of(p->lengths_k_kind, p->lengths_k, b, p->seqlen_k, &k_row0);
        for (int h = 0; h < p->heads_q; h++)
            for (long long i = 0; i < rows; i++) {
                row_state state = {.o = o};
                fold(p, format, b, h, i, rows, q_row0, keys, k_row0, &state);
                if (split) {
                    store_pieces(p, ((long long)b * p->heads_q + h) * p->seqlen_q_max + i, &state);
                    continue;
                }
                if (p->accum_mode == ATTNI_ACCUM_NONE) {
                    const double sink = p->sinks ? (double)p->sinks[h] : -INFINITY;
                    float *lse = p->lse
                                     ? &p->lse[b * p->lse_stride_batch + h * p->lse_stride_head + q_row0 + i]
                                     : NULL;
                    finish(&state, sink, p->o,
                           b * p->o_stride.batch + h * p->o_stride.heads + (q_row0 + i) * p->o_stride.seqlen,
                           p->dim_v, bf16, lse);
                    continue;
                }
                const long long at = ((long long)b * p->heads_q + h) * p->seqlen_q_max + i;
                const double old = (double)p->accum_m[at], top = old > state.m ? old : state.m;
                if (state.m == -INFINITY) continue;
                p->accum_m[at] = (float)top;
                p->accum_l[at] =
                    (float)((double)p->accum_l[at] * exp(old - top) + state.l * exp(state.m - top));
                for (int d = 0; d < p->dim_v; d++) {
                    float *x = &p->accum_o[at * p->dim_v + d];
                    *x = (float)((double)*x * exp(old - top) + o[d] * exp(state.m - top));
                }
            }
    }
    free(o);
}

static void run_merge(const attni_accum_params *p) {
    for (long long r = 0; r < p->rows; r++) {
        const double m1 = (double)p->m[r], m2 = (double)p->m2[r], top = m1 > m2 ? m1 : m2;
        if (m2 == -INFINITY) continue;
        p->m[r] = (float)top;
        p->l[r] = (float)((double)p->l[r] * exp(m1 - top) + (double)p->l2[r] * exp(m2 - top));
        for (int d = 0; d < p->dim_v; d++) {
            float *x = &p->o[r * p->dim_v + d];
            *x = (float)((double)*x * exp(m1 - top) + (double)p->o2[r * p->dim_v + d] * exp(m2 - top));
        }
    }
}

static void run_finish(const attni_accum_params *p) {
    double *o = malloc((size_t)p->dim_v * sizeof *o);
    for (int b = 0; b < p->batch; b++) {
        long long q_row0;
        const long long rows = length_of(p->lengths_q_kind, p->lengths_q, b, p->seqlen_q, &q_row0);
        for (int h = 0; h < p->heads_q; h++)
            for (long long i = 0; i < rows; i++) {
                const long long r = ((long long)b * p->heads_q + h) * p->seqlen_q_max + i;
                const row_state state = {(double)p->m[r], (double)p->l[r], o};
                for (int d = 0; d < p->dim_v; d++) o[d] = (double)p->o[r * p->dim_v + d];
                finish(&state, p->sinks ? (double)p->sinks[h] : -INFINITY, p->out,
                       b * p->o_stride.batch + h * p->o_stride.heads + (q_row0 + i) * p->o_stride.seqlen,
                       p->dim_v, p->dtype_o == ATTNI_DTYPE_BF16,
                       p->lse ? &p->lse[b * p->lse_stride_batch + h * p->lse_stride_head + q_row0 + i]
                              : NULL);
            }
    }
    free(o);
}

/* Rows in pieces, merged and finished. */
static void run_gather(const attni_accum_params *p) {
    double *o = malloc((size_t)p->dim_v * sizeof *o);
    for (long long r = 0; r < p->rows; r++) {
        const long long i = r % p->seqlen_q_max, h = r / p->seqlen_q_max % p->heads_q;
        const int b = (int)(r / p->seqlen_q_max / p->heads_q);
        long long q_row0;
        if (i >= length_of(p->lengths_q_kind, p->lengths_q, b, p->seqlen_q, &q_row0)) continue;
        row_state state = {-INFINITY, 0, o};
        for (int d = 0; d < p->dim_v; d++) o[d] = 0;
        for (int piece = 0; piece < p->pieces; piece++) {
            const long long at = r * p->pieces + piece;
            const double m = (double)p->m[2 * at] * log(2.0), l = (double)p->m[2 * at + 1];
            if (l == 0) continue;
            const double top = m > state.m ? m : state.m, old = exp(state.m - top), now = exp(m - top);
            state.m = top;
            state.l = state.l * old + l * now;
            for (int d = 0; d < p->dim_v; d++) o[d] = o[d] * old + now * (double)p->o[at * p->dim_v + d];
        }
        finish(&state, p->sinks ? (double)p->sinks[h] : -INFINITY, p->out,
               b * p->o_stride.batch + h * p->o_stride.heads + (q_row0 + i) * p->o_stride.seqlen, p->dim_v,
               p->dtype_o == ATTNI_DTYPE_BF16,
               p->lse ? &p->lse[b * p->lse_stride_batch + h * p->lse_stride_head + q_row0 + i] : NULL);
    }
    free(o);
}

/* The copy engine's view of a tensor must be the parameters' one: the fake encoder keeps what it was told. */
static int is_map_right(const attni_tensor_map *map, const void *base, int dim, int rows, int heads,
                        int batch, const attni_tensor_strides *strides, int pack) {
    const unsigned long long size[2] = {(unsigned long long)rows, (unsigned long long)heads},
                             stride[2] = {(unsigned long long)strides->seqlen * 2,
                                          (unsigned long long)strides->heads * 2};
    const unsigned long long told[] = {(uintptr_t)base,
                                       (unsigned long long)dim,
                                       size[pack > 0],
                                       size[pack == 0],
                                       (unsigned long long)batch,
                                       stride[pack > 0],
                                       stride[pack == 0],
                                       (unsigned long long)strides->batch * 2};
    return memcmp(map->word, told, sizeof told) == 0;
}

/* One map of a sequence, made of the pattern that the host encoded. */
static attni_tensor_map sequence_map(const attni_forward_sm90_params *p, int which, int b) {
    const attni_forward_params *f = &p->forward;
    const attni_tensor_map *patterns[] = {&p->q, &p->k, &p->v, &p->o};
    const attni_tensor_strides *strides[] = {&f->q_stride, &f->k_stride, &f->v_stride, &f->o_stride};
    const int queries = which == 0 || which == 3;
    long long row0;
    const long long rows = queries ? length_of(f->lengths_q_kind, f->lengths_q, b, f->seqlen_q, &row0)
                                   : length_of(f->lengths_k_kind, f->lengths_k, b, f->seqlen_k, &row0);
    attni_tensor_map map = *patterns[which];
    map.word[0] += 2 * (unsigned long long)(b * strides[which]->batch + row0 * strides[which]->seqlen);
    map.word[queries && f->pack ? 3 : 2] = (unsigned long long)(rows > 0 ? rows : 1);
    return map;
}

static int run_sequences(const attni_forward_sm90_params *p) {
    if (!p->maps || !p->order || (uintptr_t)p->maps % 128 != 0) return 0;
    for (int b = 0; b < p->forward.batch; b++) {
        for (int i = 0; i < ATTNI_MAPS; i++) p->maps[b * ATTNI_MAPS + i] = sequence_map(p, i, b);
        p->order[b] = p->forward.batch - 1 - b;
    }
    if (p->ticket) *p->ticket = 0;
    return 1;
}

/* The maps are those of this launch's lengths, and the order has each sequence once. */
static int are_sequences_right(const attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    long long sum = 0;
    if (f->order != p->order) return 0;
    for (int b = 0; b < f->batch; b++) {
        sum += f->order[b];
        for (int i = 0; i < ATTNI_MAPS; i++) {
            const attni_tensor_map map = sequence_map(p, i, b);
            if (memcmp(&map, &p->maps[b * ATTNI_MAPS + i], sizeof map) != 0) return 0;
        }
    }
    return sum == (long long)f->batch * (f->batch - 1) / 2;
}

static int is_bias_right(const attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    const attni_tensor_strides strides = {f->bias_stride.batch, f->bias_stride.queries, f->bias_stride.heads};
    const float factor = f->scale == 0 ? 1.0f : 1.0f / fabsf(f->scale);
    return fabsf(p->bias_factor - factor) <= 1e-6f * factor &&
           is_map_right(&p->bias, f->bias, f->seqlen_k, f->seqlen_q, f->heads_q, f->batch, &strides, 0);
}

/* What the kernel of this name relies on. */
static int is_hopper_variant_right(const attni_forward_sm90_params *p, const char *name) {
    const attni_forward_params *f = &p->forward;
    if (f->value_slices > 1 && (!strstr(name, "_split") || !f->accum_m || !f->accum_o || f->lse || f->sinks))
        return 0;
    const int lengths = f->lengths_q_kind != ATTNI_LENGTHS_FULL || f->lengths_k_kind != ATTNI_LENGTHS_FULL;
    if (strstr(name, "_general")) return p->maps != NULL;
    const int own = f->bias_dtype == (strstr(name, "_bf16_") ? ATTNI_DTYPE_BF16 : ATTNI_DTYPE_F16);
    if ((f->pack > 0) != (strstr(name, "_packed") != NULL) || (f->pack > 0 && f->group != 1)) return 0;
    return lengths == (strstr(name, "_lengths") != NULL) && lengths == (p->maps != NULL) && !f->mask &&
           f->dropout_threshold == 0 && (f->bias != NULL) == (strstr(name, "_bias") != NULL) &&
           (!f->bias || (own && is_bias_right(p))) &&
           (f->alibi != NULL) == (strstr(name, "_alibi") != NULL) &&
           (f->softcap > 0) == (strstr(name, "_softcap") != NULL) &&
           (f->window_left >= 0) == (strstr(name, "_window") != NULL);
}

/* A ragged tensor is one batch, of more rows than there can be. */
static int whole_rows(int kind, int rows) { return kind == ATTNI_LENGTHS_RAGGED ? INT32_MAX : rows; }
static int whole_batch(int kind, int batch) { return kind == ATTNI_LENGTHS_RAGGED ? 1 : batch; }

/* Without keys the copy engine is shown a row of q, of no head that it is asked for. */
static int are_keys_right(const attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    const int rows = whole_rows(f->lengths_k_kind, f->seqlen_k),
              batch = whole_batch(f->lengths_k_kind, f->batch);
    if (f->seqlen_k > 0)
        return is_map_right(&p->k, f->k, f->dim_qk, rows, f->heads_kv, batch, &f->k_stride, 0) &&
               is_map_right(&p->v, f->v, f->dim_v, rows, f->heads_kv, batch, &f->v_stride, 0);
    return is_map_right(&p->k, f->q, f->dim_qk, 1, f->heads_kv, whole_batch(f->lengths_q_kind, f->batch),
                        &f->q_stride, 0) &&
           memcmp(&p->k, &p->v, sizeof p->k) == 0;
}

static int is_hopper_launch_right(const attni_forward_sm90_params *p, const char *name) {
    const attni_forward_params *f = &p->forward;
    const int heads = f->pack ? f->heads_q * f->pack : f->heads_q;
    if (!is_hopper_variant_right(p, name)) return 0;
    if (p->maps && !are_sequences_right(p)) return 0;
    const int rows = whole_rows(f->lengths_q_kind, f->seqlen_q),
              batch = whole_batch(f->lengths_q_kind, f->batch);
    return p->tiles > 0 && (!p->ticket || *p->ticket == 0) && are_keys_right(p) &&
           is_map_right(&p->q, f->q, f->dim_qk, rows, heads, batch, &f->q_stride, f->pack) &&
           (f->accum_mode != ATTNI_ACCUM_NONE ||
            is_map_right(&p->o, f->o, f->dim_v, rows, heads, batch, &f->o_stride, f->pack));
}

/* Packed heads count as those of keys; this undoes it. */
static attni_forward_params unpacked(const attni_forward_params *p) {
    attni_forward_params f = *p;
    if (f.pack) {
        f.heads_q *= f.pack;
        f.group = f.pack;
    }
    return f;
}

/* bf16 or f16 stands in a kernel's name. */
static int run_any_forward(const char *name, const attni_forward_params *p, int general) {
    if (!is_launch_right(p, general)) return 0;
    const int bf16 = strstr(name, "_bf16_") != NULL;
    const input_format format = {bf16 ? INPUT_BF16 : INPUT_F16, NULL};
    run_forward(p, &format, bf16, strstr(name, "_split") && p->value_slices > 1);
    return 1;
}

/* The same of elements of any size, without packed heads. */
static int is_f8_map_right(const attni_tensor_map *map, const void *base, unsigned size, int dim, int rows,
                           int heads, int batch, const attni_tensor_strides *strides) {
    const unsigned long long told[] = {(uintptr_t)base,
                                       (unsigned long long)dim,
                                       (unsigned long long)rows,
                                       (unsigned long long)heads,
                                       (unsigned long long)batch,
                                       (unsigned long long)strides->seqlen * size,
                                       (unsigned long long)strides->heads * size,
                                       (unsigned long long)strides->batch * size};
    return memcmp(map->word, told, sizeof told) == 0;
}

enum { TURNED_MARK = 0x5a };

static size_t turned_bytes(const attni_forward_sm90_params *p, int dv) {
    return (size_t)p->forward.batch * (size_t)p->forward.heads_kv * (size_t)dv * (size_t)p->turned_keys;
}

/*
 * Marks what would be V turned: its order is the device's own. No block may pass for turned before, and the
 * count of them is to reach what the host says.
 */
static int turn_values(const attni_forward_sm90_params *p, int dv) {
    const attni_forward_params *f = &p->forward;
    const size_t blocks = (size_t)f->batch * (size_t)f->heads_kv * (size_t)(p->turned_keys / 128);
    if (p->turned_keys % 128 != 0 || p->turned_keys < f->seqlen_k || *p->turning != 0 || p->run == 0 ||
        *p->turned_count + (unsigned)blocks != p->turned_target || p->turn_width < 1 ||
        (p->ticket && *p->ticket != 0))
        return 0;
    for (size_t i = 0; i < blocks; i++) {
        if (p->turned_in[i] == p->run) return 0;
        p->turned_in[i] = p->run;
    }
    *p->turned_count += (unsigned)blocks;
    memset(p->turned, TURNED_MARK, turned_bytes(p, dv));
    return 1;
}

/* With f16 scores there is a word for each tile. */
static int has_marks(const attni_forward_sm90_params *p) {
    if (!p->again) return 0;
    memset(p->again, 0x5b, (size_t)p->tiles * sizeof *p->again);
    return 1;
}

/* The maps of V as it comes and turned. */
static int is_turned_right(const attni_forward_sm90_params *p, int dv) {
    const attni_forward_params *f = &p->forward;
    const attni_tensor_strides strides = {
        .batch = p->turned_keys * dv * f->heads_kv, .seqlen = p->turned_keys, .heads = p->turned_keys * dv};
    return is_f8_map_right(&p->bias, f->v, 1, f->dim_v, f->seqlen_k, f->heads_kv, f->batch, &f->v_stride) &&
           is_f8_map_right(&p->v, p->turned, 1, (int)p->turned_keys, dv, f->heads_kv, f->batch, &strides);
}

/* q, k and v of 8 bits. Without keys the copy engine is shown rows of o, and nothing of them is used. */
static int run_f8_forward(const char *name, const attni_forward_sm90_params *p) {
    const attni_forward_params *f = &p->forward;
    const input_format format = {strstr(name, "_e5m2_") ? INPUT_E5M2 : INPUT_E4M3, p};
    const int keys = f->seqlen_k > 0, dv = strstr(name, "_v64_") ? 64 : 128;
    if (p->tiles <= 0 || (p->ticket && *p->ticket != 0) ||
        !is_f8_map_right(&p->o, f->o, 2, f->dim_v, f->seqlen_q, f->heads_q, f->batch, &f->o_stride) ||
        (keys &&
         !is_f8_map_right(&p->q, f->q, 1, f->dim_qk, f->seqlen_q, f->heads_q, f->batch, &f->q_stride)) ||
        (keys &&
         !is_f8_map_right(&p->k, f->k, 1, f->dim_qk, f->seqlen_k, f->heads_kv, f->batch, &f->k_stride)) ||
        (keys && !p->turned &&
         !is_f8_map_right(&p->v, f->v, 1, f->dim_v, f->seqlen_k, f->heads_kv, f->batch, &f->v_stride)) ||
        !p->turned != !strstr(name, "_turned") || (keys && p->turned && !is_turned_right(p, dv)) ||
        (p->turned && !turn_values(p, dv)))
        return 0;
    if (strstr(name, "_half") ? !has_marks(p) : p->again != NULL) return 0;
    run_forward(f, &format, strstr(name, "_bf16_") != NULL, 0);
    return 1;
}

int fake_run_kernel(const char *name, const void *params) {
    const attni_forward_params *p = params;
    const size_t length = strlen(name);
    if (strncmp(name, "forward_sm80_", 13) == 0)
        return run_any_forward(name, p, strstr(name, "_general") != NULL);
    if (strncmp(name, "forward_sm90_f8_", 16) == 0) return run_f8_forward(name, params);
    if (strncmp(name, "forward_sm90_", 13) == 0) {
        const attni_forward_sm90_params *hopper = params;
        const attni_forward_params f = unpacked(&hopper->forward);
        return is_hopper_launch_right(hopper, name) && run_any_forward(name, &f, 1);
    }
    if (strcmp(name, "sequences_sm90") == 0) return run_sequences(params);
    if (strncmp(name, "flash1_sm80_", 12) == 0)
        return p->accum_m && p->accum_l && p->accum_o && run_any_forward(name, p, 0);
    if (strncmp(name, "standard_sm80_", 14) == 0) { /* all of it in the last of its kernels */
        if (!p->scores) return 0;
        return strcmp(name + length - 7, "_output") != 0 || run_any_forward(name, p, 0);
    }
    if (strcmp(name, "accum_merge") == 0)
        run_merge(params);
    else if (strcmp(name, "accum_finish") == 0)
        run_finish(params);
    else if (strcmp(name, "gather_sm90") == 0)
        run_gather(params);
    else
        return 0;
    return 1;
}
