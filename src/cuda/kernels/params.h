/*
 * The contract between the host (the C files of src/cuda) and the device kernels of this folder: one plain
 * struct a kernel family, passed by value as the kernel's only argument, and the launch geometry.
 * Compiled by C11 hosts and by NVRTC alike, so it includes nothing and uses plain C types only:
 * long long is int64_t in every place. Strides and dims count elements.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_CUDA_PARAMS_H
#define ATTNI_CUDA_PARAMS_H

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define ATTNI_GEOMETRY static __host__ __device__ inline
#else
#define ATTNI_GEOMETRY static inline
#endif

/* attn_dtype and attn_lengths as numbers: the host asserts that they agree. */
#define ATTNI_DTYPE_F32 0
#define ATTNI_DTYPE_F16 1
#define ATTNI_DTYPE_BF16 2
#define ATTNI_LENGTHS_FULL 0
#define ATTNI_LENGTHS_PADDED 1
#define ATTNI_LENGTHS_RAGGED 2

/* What a forward does with an accumulator's m, l, o (float32; rows (batch, heads_q, seqlen_q_max)). */
#define ATTNI_ACCUM_NONE 0  /* writes O and LSE */
#define ATTNI_ACCUM_WRITE 1 /* writes m, l, o of these keys alone: a partial for accum_merge */
#define ATTNI_ACCUM_ADD 2   /* reads, merges, writes; only where value_slices is 1 */

/* A window's side that hides nothing. The host clamps other sides to at most 2^40. */
#define ATTNI_UNLIMITED (-1LL)

typedef struct attni_tensor_strides {
    long long batch; /* the host puts 0 for a ragged tensor */
    long long seqlen;
    long long heads;
} attni_tensor_strides;

typedef struct attni_mask_strides {
    long long batch;
    long long heads;
    long long queries;
} attni_mask_strides;

/* A CUtensorMap: cuTensorMapEncodeTiled fills it, the copy engine reads it. */
typedef struct attni_tensor_map {
    unsigned long long word[16];
} __attribute__((aligned(64))) attni_tensor_map;

typedef struct attni_divisor {
    unsigned divisor, multiplier, shift;
} attni_divisor;

/* One forward over dense K and V. 8-byte members first, so host and device agree without padding. */
typedef struct attni_forward_params {
    const void *q, *k, *v;
    void *o;
    float *lse;                          /* may be null */
    const int *lengths_q, *lengths_k;    /* as attn_tensors; null under ATTNI_LENGTHS_FULL */
    const void *bias;                    /* null: none. GENERAL kernels only */
    const unsigned char *mask;           /* null: none. GENERAL kernels only */
    const float *alibi;                  /* null: none. GENERAL kernels only */
    const float *sinks;                  /* null: none */
    float *accum_m, *accum_l, *accum_o;  /* arrays of an accumulator, by accum_mode; flash1: its state */
    void *scores; /* standard: S and P, 16 bits each, rows padded to multiples of 8 */
    const int *order; /* null: sequences as they come; forward_sm90: the longest first */

    attni_tensor_strides q_stride, k_stride, v_stride, o_stride;
    attni_mask_strides bias_stride, mask_stride;
    long long alibi_stride_batch;
    long long lse_stride_batch, lse_stride_head; /* packed: heads_q * seqlen_q_max, seqlen_q_max;
                                                    ragged queries: 0, total_q */

    long long query_start; /* ignored where query_default is 1 */
    long long key_start; /* 0 by default */
    long long window_left; /* ATTNI_UNLIMITED or >= 0 */
    long long window_right; /* causal: 0 */

    unsigned long long dropout_seed, dropout_offset;

    int batch, heads_q, heads_kv;
    int group; /* heads_q / heads_kv */
    int dim_qk, dim_v; /* true dims, at most the kernel's padded D and (slices times) DV */
    int seqlen_q; /* this run's, under ATTNI_LENGTHS_FULL; else the plan's largest */
    int seqlen_k;
    int seqlen_q_max; /* the problem's: the row pitch of an accumulator */
    int lengths_q_kind, lengths_k_kind;
    int query_default; /* 1: query_start = key_start + seqlen_k - seqlen_q of each sequence */

    float scale; /* any finite number, natural units */
    float softcap; /* 0: none. GENERAL kernels only */
    float dropout_scale; /* 1 / (1 - p); 1: none */
    int dropout_threshold; /* an element is dropped where its 16 bits are below; 0: none. GENERAL only */
    int bias_dtype; /* ATTNI_DTYPE_ */
    int unaligned; /* 1: a base, stride or dim of q, k, v, o is no multiple of 16 bytes. GENERAL only */
    int accum_mode; /* ATTNI_ACCUM_ */

    /* The order of the grid, all of it filled by attni_forward_schedule. */
    int row_tiles; /* ceil(seqlen_q / BR) */
    int head_group; /* (batch, head) pairs that run side by side */
    int descending; /* 1: last row tiles first (causal: the longest) */
    int late_rows; /* with descending: the first row tiles of all pairs, left to the end */
    int late_begin; /* the first of them, without slices */
    int value_slices; /* ceil(dim_v / DV) */
    int pack; /* forward_sm90, PACKED: query heads of a tile; heads_q is then heads_kv and group 1. Else 0 */
    int part_queries; /* with pack: queries in 64 rows, 64 / pack */
    int pack_inverse; /* with pack: row / pack is row * pack_inverse >> 16 for rows below 64 */
    attni_divisor by_slices, by_group, by_width, by_last_width, by_pairs, by_heads, by_gqa;
} attni_forward_params;

/*
 * forward_sm90: the same, and the tensors as the copy engine knows them, (dim, row, head, batch) in boxes of 64
 * columns and 64 rows (q, o) or a block of keys (k, v). PACKED: q and o as (dim, head, row, batch), in boxes of
 * 64 columns, pack heads and part_queries rows.
 *
 * LENGTHS variants: sequences_sm90 goes before. It fills order, clears the ticket, and makes four maps of
 * each sequence, in this order, with the sequence's own begin and rows: what lies beyond its rows is then outside, read as zeros
 * and never written. Copies within a sequence go by q, k, v and o, which are the whole tensors' (of ragged ones rows without end).
 */
typedef struct attni_forward_sm90_params {
    attni_tensor_map q, k, v, o;
    /* BIAS: (key, row, head, batch), in boxes of 64 keys and 64 rows. f8, TURNED: V as it came */
    attni_tensor_map bias;
    attni_forward_params forward;
    attni_tensor_map *maps; /* null under full lengths */
    int *order; /* forward.order, to be filled */
    unsigned *ticket; /* null: tiles are dealt out beforehand; else a zero, left as zero */
    int tiles; /* of attni_forward_schedule */
    /* SOFTCAP: a raw number s whose square is at most cap_square, or -infinity, is in powers of two
     * cap[2] s ((s^2 + cap[0])^2 + cap[1]) after it. */
    float cap_square, cap[3];
    float bias_factor; /* BIAS: what makes a bias one of raw scores, 1 / |scale|, or 1 for a scale of 0 */
    float query_factor; /* BIAS: 0, or |scale|, a power of two, which Q may take (UNIT) */
    int zero; /* f8: 0, which the assembler must not know */
    const float *q_scale, *k_scale, *v_scale; /* f8: of each (batch, kv head); null: 1 */
    long long scale_stride_batch, scale_stride_head;
    unsigned char *turned; /* TURNED: V turned, (batch, kv head, DV, turned_keys) bytes; v maps it */
    long long turned_keys; /* seqlen_k rounded up to whole blocks */
    int *
        again; /* HALF: of a tile that f16 scores are too coarse for, the one before it that its block met; not cleared */
    unsigned *turning; /* TURNED: a ticket for blocks of V, a zero, left as zero */
    unsigned *turned_in; /* of each block of V, (batch, kv head, block): the run that has turned it */
    unsigned run; /* this one; no word of turned_in has it yet */
    unsigned *turned_count, turned_target; /* a count of such blocks; what it is once all are turned */
    int sampled; /* HALF: 1: tiles with large scores are left to the second pass */
    int turn_width; /* heads of V whose blocks are turned side by side */
} attni_forward_sm90_params;

#define ATTNI_TURN_KEYS 128 /* forward_sm90_f8: of a block of V that is turned */

#define ATTNI_SEQUENCES_THREADS 128
#define ATTNI_MAPS 4 /* of a sequence */

/* Of one-dimensional sequences_sm90: a thread a map. */
ATTNI_GEOMETRY long long attni_sequences_grid(long long batch) {
    return (batch * ATTNI_MAPS + ATTNI_SEQUENCES_THREADS - 1) / ATTNI_SEQUENCES_THREADS;
}

/*
 * The lab's kernels take attni_forward_params with these limits: f16 or bf16, dim_qk = dim_v = D of 64 or
 * 128 (their only constants are ENTRY's prefix, BF16 and D), no mask but causal (window_right 0), full
 * lengths, aligned tensors, no other option. row_tiles, head_group and the divisors are not read.
 *
 * standard_sm80.cu: ENTRY_scores, ENTRY_softmax, ENTRY_output, one after another, with `scores` of
 * batch * heads_q * seqlen_q * round_up(seqlen_k, 8) elements. S is f16 whatever the dtype (a |score| beyond
 * 65504 overflows), P of the tensors' dtype in its place.
 * flash1_sm80.cu: ENTRY, with accum_m and accum_l of batch * heads_q * seqlen_q floats, accum_o of dim_v
 * times as many; nothing need be initialised.
 */
#define ATTNI_STANDARD_TILE 128
#define ATTNI_STANDARD_THREADS 256
#define ATTNI_FLASH1_THREADS 128

/* The tiles of the first product, or two steps of the second; the scores on their way out take no more. */
ATTNI_GEOMETRY int attni_standard_shared(int d) {
    int scores = 2 * ATTNI_STANDARD_TILE * d * 2, output = 2 * 64 * (ATTNI_STANDARD_TILE + d) * 2;
    return scores > output ? scores : output;
}

ATTNI_GEOMETRY int attni_flash1_keys(int d) { return d <= 64 ? 256 : 128; }

/* K and V of a key block, two Q tiles, the four warps' shares of O and of the rows' maxima (two) and sums. */
ATTNI_GEOMETRY int attni_flash1_shared(int d) {
    return 2 * attni_flash1_keys(d) * d * 2 + 2 * 16 * d * 2 + 4 * 16 * d * 4 + 3 * 4 * 16 * 4;
}

/* Kernel 0 scores, 1 softmax, 2 output; flash1 has one block a (batch, head). */
ATTNI_GEOMETRY void attni_standard_grid(const attni_forward_params *p, int kernel, unsigned grid[3]) {
    unsigned rows = (unsigned)((p->seqlen_q + ATTNI_STANDARD_TILE - 1) / ATTNI_STANDARD_TILE);
    unsigned columns = (unsigned)((p->seqlen_k + ATTNI_STANDARD_TILE - 1) / ATTNI_STANDARD_TILE);
    unsigned pairs = (unsigned)(p->batch * p->heads_q);
    grid[0] = kernel == 0 ? columns * rows : kernel == 1 ? (unsigned)((p->seqlen_q + 7) / 8) : rows;
    grid[1] = pairs; /* at most 65535 */
    grid[2] = 1;
}

/* begin, merge and finish of accumulators: entries accum_begin, accum_merge, accum_finish. And gather_sm90, which is for
 * the pieces of forward_sm90's SPLIT. */
typedef struct attni_accum_params {
    float *m, *l, *o; /* of the accumulator */
    const float *m2, *l2, *o2; /* merge: of the other */
    void *out; /* finish: O */
    float *lse; /* finish: may be null */
    const float *sinks; /* finish: may be null */
    const int *lengths_q; /* finish: as in attni_forward_params */
    attni_tensor_strides o_stride; /* finish */
    long long lse_stride_batch, lse_stride_head;
    long long rows; /* batch * heads_q * seqlen_q_max */
    int batch, heads_q, seqlen_q, seqlen_q_max, dim_v, lengths_q_kind;
    int dtype_o; /* ATTNI_DTYPE_ */
    int pieces; /* gather: m has pairs (m in powers of two, l), o the same rows, of (row, piece) */
    int share; /* gather: warps that share a row, 1 or ATTNI_ACCUM_THREADS / 32 */
    int reserved;
} attni_accum_params;

/* One warp a row. */
#define ATTNI_ACCUM_THREADS 256
ATTNI_GEOMETRY long long attni_accum_grid(long long rows) {
    return (rows + ATTNI_ACCUM_THREADS / 32 - 1) / (ATTNI_ACCUM_THREADS / 32);
}

/* A row's reads take turns in a warp: many pieces of few rows go to all warps of a block, if all blocks run at once. */
ATTNI_GEOMETRY int attni_accum_share(int pieces, long long rows) {
    return pieces > 4 && rows <= 384 ? ATTNI_ACCUM_THREADS / 32 : 1;
}
#define ATTNI_ACCUM_MOST_DIM 512 /* of gather_sm90 */

/*
 * The constants that shape a forward_sm80 kernel, each given by -D:
 *   ENTRY    the kernel's symbol
 *   BF16     1: bf16, 0: f16 (q, k, v, o)
 *   D, DV    padded head dims, multiples of 32 (16 elements beyond dim are zeros); DV at most 256: a
 *            larger dim_v is cut into value_slices blocks that compute the same scores
 *   BR, BC   rows and keys of a tile
 *   WARPS    warps of a block, BR / 16 or BR / 32
 *   STAGES   K and V slots of shared memory, 1 or 2
 *   BLOCKS   blocks meant to share a multiprocessor (bounds the registers)
 *   GENERAL  1: softcap, bias, boolean mask, ALiBi, dropout, unaligned tensors; 0: none of them, faster.
 * Everything else is a value at run time: causal and windows, positions, lengths, GQA, scale, sinks,
 * accumulators, strides.
 */
typedef struct attni_forward_tiles {
    int d, dv; /* padded */
    int br, bc; /* rows and keys of a tile */
    int warps;
    int stages;
    int blocks; /* blocks a multiprocessor */
    int value_slices;
    int shared_bytes; /* dynamic shared memory of a block */
    int q_slots; /* forward_sm90: Q tiles in shared memory */
    int q_parts; /* forward_sm90: the same, counted in 64 rows */
    int direct; /* forward_sm90: O goes from registers to memory, not through its Q slot */
    int turns; /* forward_sm90: warpgroups take turns at issuing products */
    int bias_slots; /* forward_sm90: blocks of a bias in shared memory, for each warpgroup */
    int alibi; /* forward_sm90: it has ALiBi */
    int early; /* forward_sm90: column groups of 8 whose exponentials come before the wait for P V */
    int turned; /* forward_sm90_f8: V is turned once */
    int half; /* forward_sm90_f8: scores are f16 */
    int interval; /* forward_sm90_f8: blocks whose P V are added up before they join float32 sums */
} attni_forward_tiles;

ATTNI_GEOMETRY int attni_round_up(int x, int to) { return (x + to - 1) / to * to; }

/* Q, then STAGES slots of K and as many of V. */
ATTNI_GEOMETRY int attni_forward_shared(const attni_forward_tiles *t) {
    return t->br * t->d * 2 + t->stages * t->bc * (t->d + t->dv) * 2;
}

/*
 * The constants that shape a forward_sm90 kernel, beside ENTRY, BF16, D, DV (the widths below) and BC:
 *   WGS      matrix warpgroups, of 64 rows each
 *   STAGES   slots of K, and of V
 *   Q_SLOTS  slots of Q
 *   Q_PARTS  left out where it is WGS times that; else slots of 64 rows of Q, that come and go one by one
 *   DIRECT   1: O goes from registers to memory, not through its Q slot
 *   TURNS    1: warpgroups take turns at issuing products
 *   EARLY    column groups of 8 whose exponentials come before the wait for the product P V
 *   MASK     0: a row sees all keys; 1: none after a last one (causal, right window); 2: nor before a first one
 *   SOFTCAP, ALIBI   1: the problem has it
 * and left out where they are 0:
 *   BIAS     a bias of the tensors' type, alone: how many blocks of it a warpgroup has in shared memory
 *   GENERAL  1: any options, looked for at run time; with MASK 2 and LENGTHS 1
 *   LENGTHS  1: ragged or padded lengths, of queries or keys
 *   PACKED   1: a warpgroup's 64 rows are part_queries queries of pack heads, the heads of a query together
 *   EXACT    1: options.exact_reference
 *   SLICED   1: the warpgroups have the same 64 rows, and DV columns of V each
 *   SPLIT    1, with DIRECT: for few rows. A tile's keys are cut in value_slices pieces, each a tile of its own; of more
 *            than one m, l and o go to accum_m (pairs of m, in powers of two, and l) and accum_o, (row, piece), and
 *            gather_sm90 comes after
 */

/* forward_sm90: facts of the tiles under way, kept in shared memory. */
#define ATTNI_SM90_RECORDS 4
#define ATTNI_SM90_RECORD_BYTES(warpgroups) (112 + 16 * (warpgroups))
#define ATTNI_SM90_ALIBI_BYTES 272
#define ATTNI_SM90_PLACES(keys) ((keys) / 8 * 48 + 80)

/* Q slots, then STAGES slots of K and as many of V, and bias, all in chunks of 64 columns; records and barriers. */
ATTNI_GEOMETRY int attni_forward_sm90_shared(const attni_forward_tiles *t) {
    int chunks = (t->d + 63) / 64, chunks_v = (t->dv + 63) / 64;
    int q_barriers = t->q_parts == t->q_slots * (t->br / 64) ? t->q_slots : t->q_parts;
    return (t->q_parts * 64 * chunks + t->stages * t->bc * (chunks + chunks_v)) * 64 * 2 +
           t->bias_slots * t->br * ((t->bc + 63) / 64) * 64 * 2 +
           (t->alibi ? ATTNI_SM90_PLACES(t->bc) + 128 + ATTNI_SM90_RECORDS * ATTNI_SM90_ALIBI_BYTES : 0) +
           ATTNI_SM90_RECORDS * ATTNI_SM90_RECORD_BYTES(t->warps / 4) +
           (2 * ATTNI_SM90_RECORDS + 2 * q_barriers + 4 * t->stages + 2 * t->bias_slots * (t->br / 64)) * 8;
}

/* The widths that forward_sm90 is compiled for; narrower dims are padded with zeros by the copy engine. Beyond 256
 * it is 576 of Q and K with 512 of V. */
ATTNI_GEOMETRY int attni_forward_sm90_width(int dim) {
    return dim <= 64 ? 64 : dim <= 96 ? 96 : dim <= 128 ? 128 : dim <= 192 ? 192 : dim <= 256 ? 256 : 576;
}

/*
 * Tiles of forward_sm90 for true dims up to 256, or both above. mask: as MASK; narrow: it is a window, so narrow that a
 * tile's ends count; shaped: what happens to scores, which takes registers. The sizes of plain ones were measured:
 * docs/schedules/forward_sm90.md.
 */
#define ATTNI_SM90_PLAIN 0
#define ATTNI_SM90_SOFTCAP 1
#define ATTNI_SM90_BIAS 2
#define ATTNI_SM90_GENERAL 3
#define ATTNI_SM90_ALIBI 4

ATTNI_GEOMETRY void attni_forward_sm90_tiles(int dim_qk, int dim_v, int mask, int narrow, int shaped,
                                             int seqlen_q, attni_forward_tiles *t) {
    const int limited = mask > 0; /* tiles differ in length */
    int widest, warpgroups = 2;
    t->d = attni_forward_sm90_width(dim_qk);
    t->dv = attni_forward_sm90_width(dim_v);
    widest = t->d > t->dv ? t->d : t->dv;
    t->bc = 128;
    t->stages = 2;
    t->q_slots = 1;
    t->turns = 0;
    t->early = 4;
    t->bias_slots = 0;
    if (widest <= 64 && shaped == ATTNI_SM90_GENERAL) {
        t->q_slots = 2;
    } else if (widest <= 64) {
        int few = shaped != ATTNI_SM90_SOFTCAP &&
                  (narrow ||
                   seqlen_q < (limited ? 4096 : 2048)); /* rows: more warpgroups on a smaller tile of keys */
        warpgroups = few ? 4 : 3;
        t->bc = few ? 64 : 128;
        t->stages = !few ? 2 : mask == 2 ? 8 : 4;
        t->q_slots = few && mask < 2 ? 3 : 2;
        t->turns = !(few && limited);
        t->early = shaped == ATTNI_SM90_BIAS || (shaped != ATTNI_SM90_SOFTCAP && (few || limited)) ? 2 : 4;
    } else if (widest == 128 && narrow) {
        warpgroups = 3;
        t->bc = 64;
        t->stages = 4;
        t->q_slots = 2;
    } else if (widest <= 128) {
        t->q_slots = 3;
        t->turns = shaped != ATTNI_SM90_GENERAL;
        t->early = shaped == ATTNI_SM90_SOFTCAP ? 5 : shaped == ATTNI_SM90_BIAS ? 2 : 6;
    } else if (widest <= 192) {
        t->bc = t->dv <= 128 ? 128 : 96;
        t->turns = !limited;
        t->early = limited ? 6 : t->dv <= 128 ? 4 : 8;
    } else {
        t->bc = 64;
        t->early = 6;
    }
    if (shaped == ATTNI_SM90_BIAS) {
        t->bias_slots = widest <= 64 ? 2 : 1;
        t->q_slots = widest <= 128 ? 2 : 1;
        t->bc = widest > 128 ? 64 : t->bc;
    }
    if (shaped == ATTNI_SM90_GENERAL) { /* the time that it takes to compile goes with the keys of a block */
        t->bc = 64;
        t->early = 2;
    }
    t->alibi = shaped == ATTNI_SM90_ALIBI;
    t->br = 64 * warpgroups;
    t->warps = 4 * warpgroups;
    t->q_parts = t->q_slots * warpgroups;
    if (t->d == t->dv && (widest > 192 || (widest > 128 && limited)) && shaped != ATTNI_SM90_BIAS) {
        t->q_parts = 3; /* one warpgroup's next Q arrives while the last one is read */
    }
    if (widest > 256) { /* O of 64 rows takes the registers of two warpgroups */
        t->dv = 512;
        t->br = 64;
        t->bc = 32;
        t->early = 2;
        t->q_parts = 1;
    }
    t->direct = t->q_slots == 1 || (t->dv + 63) / 64 > (t->d + 63) / 64;
    t->blocks = 1;
    t->value_slices = 1;
    t->shared_bytes = attni_forward_sm90_shared(t);
}

/*
 * The same for SPLIT. With few rows, all of one warpgroup, memory is the limit: what Q leaves of shared memory is for small
 * blocks of K and V, so that as much as there is place for is on its way, and there is nobody to take turns with.
 */
ATTNI_GEOMETRY void attni_forward_sm90_split(attni_forward_tiles *t, int few) {
    const int most = 232448, widest = t->d > t->dv ? t->d : t->dv;
    t->direct = 1;
    if (widest <= 64 || (few && widest <= 256)) {
        t->br = 128;
        t->warps = 8;
        t->q_slots = 1;
        t->q_parts = 2;
        t->bc = widest <= 64 ? 128 : widest <= 192 ? 64 : 32;
        t->early = t->bc == 32 ? 2 : 4;
        t->turns = 0;
        for (t->stages = 2; t->stages < 6; t->stages++) {
            attni_forward_tiles deeper = *t;
            deeper.stages++;
            if (attni_forward_sm90_shared(&deeper) > most) {
                break;
            }
        }
    }
    t->shared_bytes = attni_forward_sm90_shared(t);
}

/*
 * The constants of forward_sm90_f8: those of forward_sm90 but SOFTCAP, ALIBI and DIRECT (and BF16 is of O), with
 *   E5M2      1: q, k and v are e5m2, 0: e4m3
 *   INTERVAL  blocks of keys whose products P V the tensor core adds up in its short accumulator
 *   HALF      1, with TURNED: scores are f16; 0: float32
 *   TURNED    1: the launch turns V once, into memory; 0: each tile turns what it reads
 *
 * EARLY counts groups whose p are packed before the wait. Shared memory: Q slots of 128 bytes a row, STAGES slots of K,
 * of V and of V turned (TURNED: one of V, and one more turned), O on its way out, records and barriers.
 */
ATTNI_GEOMETRY int attni_forward_sm90_f8_shared(const attni_forward_tiles *t) {
    const int row = (t->d + 127) / 128 * 128;
    return t->q_slots * t->br * row + t->stages * t->bc * (t->turned ? row + t->dv : row + 128 + t->dv) +
           t->br * t->dv * 2 + ATTNI_SM90_RECORDS * ATTNI_SM90_RECORD_BYTES(t->br / 64) + t->br * 8 +
           (t->half ? t->q_slots * t->br * 4 + 24 : 0) + (t->turned ? t->bc * (128 + t->dv) + 32 : 0) +
           (2 * ATTNI_SM90_RECORDS + 2 * t->q_slots + (t->turned ? 4 : 6) * t->stages) * 8;
}

/* Tiles for true dims up to 256, measured: docs/schedules/forward_sm90_f8.md. exact: float32 scores. */
ATTNI_GEOMETRY void attni_forward_sm90_f8_tiles(int dim_qk, int dim_v, int turned, int exact,
                                                attni_forward_tiles *t) {
    t->d = (dim_qk + 63) / 64 * 64;
    t->dv = dim_v <= 64 ? 64 : 128;
    t->br = 128;
    t->bc = 128;
    t->warps = 8;
    t->stages = turned ? 4 : 2;
    t->q_slots = t->d <= 128 && !turned ? 3 : 2;
    t->turns = 0;
    t->half = turned && !exact;
    t->early = t->half ? 8 : turned ? 4 : 2;
    t->interval = 4;
    t->turned = turned;
    t->direct = 0;
    t->blocks = 1;
    t->value_slices = (dim_v + 127) / 128;
    t->shared_bytes = attni_forward_sm90_f8_shared(t);
}

/*
 * Tiles of forward_sm80 for true dims on a device that gives a block at most shared_limit bytes.
 * Returns 1, or 0 where no tile fits (the caller says so with both numbers).
 */
ATTNI_GEOMETRY int attni_forward_sm80_tiles(int dim_qk, int dim_v, int general, int shared_limit,
                                            attni_forward_tiles *t) {
    int widest;
    t->d = attni_round_up(dim_qk, 32);
    t->value_slices = (dim_v + 255) / 256;
    t->dv = attni_round_up((dim_v + t->value_slices - 1) / t->value_slices, 32);
    widest = t->d > t->dv ? t->d : t->dv;
    t->br = widest <= 256 ? 128 : 64;
    t->bc = widest <= 256 ? 64 : 32;
    t->stages = 2;
    /* 32 rows a warp halve what it reads of K and V, while its O fits in registers. */
    t->warps = widest <= 64 || (widest <= 128 && !general) ? t->br / 32 : t->br / 16;
    t->blocks = t->warps == 4 && widest <= 128 ? 2 : 1;
    for (;;) {
        t->shared_bytes = attni_forward_shared(t);
        if (t->shared_bytes * t->blocks <= shared_limit) {
            return 1;
        }
        if (t->bc > 32) {
            t->bc = 32;
        } else if (t->blocks > 1) {
            t->blocks = 1;
        } else if (t->stages > 1) {
            t->stages = 1;
        } else if (t->br > 32) {
            t->warps = t->warps > 2 ? t->warps / 2 : t->warps;
            t->br /= 2;
        } else {
            return 0;
        }
    }
}

/* Division of n < 2^31 by a number known beforehand: (high half of n * multiplier + n) >> shift. */
ATTNI_GEOMETRY attni_divisor attni_divisor_of(int divisor) {
    attni_divisor d;
    d.divisor = (unsigned)divisor;
    for (d.shift = 0; (1ULL << d.shift) < d.divisor; d.shift++) {
    }
    d.multiplier = (unsigned)((1ULL << 32) * ((1ULL << d.shift) - d.divisor) / d.divisor + 1);
    return d;
}

/*
 * Fills the order of the grid from the rest of *p: call it last, for every run whose lengths differ.
 * Returns the blocks of the one-dimensional grid: 0 where there is nothing to do, -1 beyond 2^31 - 1.
 *
 * Tiles go group by group of head_group (batch, head) pairs, within a group row tile by row tile, and the
 * pairs of a row tile lie together. Under a causal mask or a right window the longest tiles of a group come
 * first, and the groups are of one size, of which K and V are about cache_bytes (30 MB of a Hopper's L2): a
 * small last group would leave its long tiles to the end (at dim 256 and 1k to 8k keys, 7 to 13% of the time).
 * `blocks` that run side by side, 0 where that is not known, take up to two rounds of the shortest tiles of all groups
 * last, an eighth of the row tiles at most, so that they end together (1% from 2k keys on; a quarter costs that at 512,
 * where keys then come from memory again).
 */
ATTNI_GEOMETRY long long attni_forward_schedule(attni_forward_params *p, const attni_forward_tiles *t,
                                                long long cache_bytes, int blocks) {
    long long pairs = (long long)p->batch * p->heads_q, tiles, fit = 1;
    p->row_tiles = (p->seqlen_q + t->br - 1) / t->br;
    p->value_slices = t->value_slices;
    p->descending = p->window_right != ATTNI_UNLIMITED;
    if (p->descending) {
        long long heads = pairs / p->group, groups; /* of keys */
        double bytes = 2.0 * p->seqlen_k * (p->dim_qk + p->dim_v) * (double)heads;
        groups = (long long)(bytes / (double)cache_bytes + 0.5);
        groups = groups < 1 ? 1 : groups > heads ? heads : groups;
        fit = groups > 0 ? (heads + groups - 1) / groups * p->group : 1;
    }
    p->head_group = (int)fit;
    p->late_rows = 0;
    if (p->descending && pairs > 0) {
        long long late = 2LL * blocks / pairs, most = p->row_tiles / 8;
        p->late_rows = (int)(late < most ? late : most);
    }
    p->late_begin = (int)(pairs * (p->row_tiles - p->late_rows));
    tiles = pairs * p->row_tiles * p->value_slices;
    if (tiles > 2147483647) {
        return -1;
    }
    if (tiles == 0) {
        return 0;
    }
    p->by_slices = attni_divisor_of(p->value_slices);
    p->by_group = attni_divisor_of((p->row_tiles - p->late_rows) * p->head_group);
    p->by_width = attni_divisor_of(p->head_group);
    p->by_last_width = attni_divisor_of(pairs % p->head_group ? (int)(pairs % p->head_group) : p->head_group);
    p->by_pairs = attni_divisor_of((int)pairs);
    p->by_heads = attni_divisor_of(p->heads_q);
    p->by_gqa = attni_divisor_of(p->group);
    return tiles;
}

#endif
