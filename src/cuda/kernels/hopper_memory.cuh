/*
 * forward_sm90: its constants (params.h lists those given by -D), the shared memory of a block, and who
 * waits for whom in it.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_MEMORY_CUH
#define ATTNI_HOPPER_MEMORY_CUH

#include "params.h"
#include "ptx.cuh"

#ifndef SLICED
#define SLICED 0
#endif
/* A tile's rows in parts of 64. SLICED: there is one, its warpgroups have the same rows, and DV columns of V each. */
#define PARTS (SLICED ? 1 : WGS)
#define SLICES (WGS / PARTS)
#define ADDING SLICED /* a run may add to an accumulator: at other dims that is forward_sm80's */
#define BR (64 * PARTS)
#define WIDTH_S BC
#ifndef WIDTH_O
#define WIDTH_O DV
#endif
#define WARP_ROWS 16
#ifndef LENGTHS
#define LENGTHS 0
#endif
#define ANY_LENGTHS LENGTHS
#ifndef PACKED
#define PACKED 0
#endif
#if PACKED
#define TILE_QUERIES(p) (PARTS * (p)->part_queries)
#endif
#include "placement.cuh"
#include "wgmma.cuh"

#ifndef F8
#define F8 0 /* 1: forward_sm90_f8, whose q, k and v have 8 bits */
#endif
#ifndef TURNED
#define TURNED 0
#endif
#define THREADS (128 * WGS + 128)
#define CHUNK_COLUMNS (F8 ? 128 : 64) /* of 128 bytes */
#define CHUNKS(dim) (((dim) + CHUNK_COLUMNS - 1) / CHUNK_COLUMNS)
#ifndef Q_PARTS
#define Q_PARTS (Q_SLOTS * PARTS)
#endif
/* 1: each warpgroup's 64 rows of Q come and go alone, in a ring of slots; 0: a tile's together. */
#define APART (Q_PARTS % PARTS != 0)
#define Q_BARRIERS (APART ? Q_PARTS : Q_PARTS / PARTS)
#define GROUPS (BC / 8)    /* column groups of 8 of a score tile */
#define RECORDS ATTNI_SM90_RECORDS
#define LIMITED (MASK > 0) /* keys after a row's own are hidden */
#ifndef SOFTCAP
#define SOFTCAP 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#ifndef EXACT
#define EXACT 0
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef GENERAL
#define GENERAL 0
#endif
/* ALiBi joins the scores in their product, where it is a line; maxima that are to be exact see it added. */
#define LINED (ALIBI && !EXACT && !SOFTCAP)
/* Without a mask a tile's first block is then that of its last row: the others' scores are lower, and a reference that was
 * made far from a row would move with each block on the way to it. From the first block of all it goes on at the last. */
#define ROTATED (LINED && MASK == 0)
/* A softcap is a polynomial within the exponentials; beside other options scores are capped before. */
#define POLYNOMIAL (SOFTCAP && !ALIBI && !EXACT)
/* A bias: scores begin as it, or it is added to them: hopper_bias.cuh. UNIT: where registers allow, a scale that is a power of
 * two may be Q's, so that the bias needs no factor. */
#define BEGUN (BIAS && (WGS > 2 || BC < 128))
#define BEGUN_LATE (TURNS && !LIMITED) /* after the wait for K: 1% of the time. Else before: 1 to 2% */
#define UNIT (BEGUN && WGS > 2 && BF16 && !LIMITED)
#ifndef AHEAD
#define AHEAD 1 /* column groups whose exponents are made before the last ones' exponentials */
#endif
#define ROOMY ((WGS == 2 && !SLICED) || (WGS == 4 && MASK == 0 && !EXACT)) /* registers to spare */
#define NARROW (BC == 64 && D <= 128) /* of a window: small blocks of keys */
/* The very first step is one like the others that begin a tile, and a window's blocks at both ends are one step's: a
 * quarter to a third less to compile. Elsewhere registers are too few, or it costs 1 to 2% of the time. */
#define JOINED                                                                                               \
    (GENERAL || (WGS == 2 && D <= 192 && (MASK == 2 || ALIBI)) || (MASK == 2 && (SOFTCAP || NARROW)))
#define WINDOW_JOINED (MASK == 2 && ((WGS == 2 && D != 256) || SOFTCAP || NARROW))
#define SETTLING (BIAS && BF16) /* biases may be huge: settle_scores */
/* A warpgroup may have to pass over a tile's first blocks, which lie after all its rows. */
#define PASSING (LIMITED && BC < BR)
/* Of a window's it leaves a tile, too, before the last ones, which lie before all that its rows see. */
#define LEAVING (MASK == 2 && NARROW && PASSING && !BIAS && !GENERAL && !SPLIT)
#define IDLING ((LENGTHS || SPLIT) && !GENERAL && !BIAS && !SLICED) /* many tiles are cut, or of few rows */
/* Which 64 rows of a tile a warpgroup takes. Where PASSING those of the last rows have the most blocks, so warpgroups
 * change places from tile to tile; with turns that costs 1% and gains nothing. */
DEVICE int place_in_tile(u32 tile, int warpgroup) {
    return SLICED ? 0 : PASSING && !LEAVING && !TURNS && (tile & 1) ? WGS - 1 - warpgroup : warpgroup;
}
/* LEAVING: of a tile's last blocks and the next one's first together no more. */
static_assert(!PASSING || (BR - 64 + BC - 1) / BC < STAGES,
              "a V is released a step later than its K is taken");

/*
 * Thresholds of the running reference, as powers of two. p of a row's first maximum is 2^-HEADROOM, and the reference
 * moves (mend) where a thread's sum of p of a block passes GUARD, by a shift up to MOST_SHIFTED. Where maxima come
 * first (EXACT; in f16, whose exponents allow no long wait, from a tile's first move on: WARY) p may be 2^ROOM.
 */
#define WARY (!BF16 && !EXACT && !SOFTCAP && !ALIBI && !BIAS && !(SLICED && GENERAL))
#define SHIFTING (BF16 && !EXACT && !SOFTCAP && !ALIBI) /* the others' registers are taken */
#if F8
#define HEADROOM (-3.0f)
#define GUARD 448.0f
#define MOST_SHIFTED GUARD
#define ROOM 8.0f
#elif EXACT
#define HEADROOM 0.0f
#define GUARD ATTNI_INF
#define MOST_SHIFTED GUARD
#define ROOM 8.0f
#elif BF16
#define HEADROOM 0.0f
#define GUARD (SHIFTING ? 0x1p40f : 0x1p80f) /* others than SHIFTING compute p again: seldom */
#define MOST_SHIFTED (SHIFTING ? 0x1p126f : GUARD)
#define ROOM 8.0f
#else
#define HEADROOM 9.0f /* with more of it errors grow: p of scores like the others are then below 2^-14 */
#define GUARD 0x1p14f
#define MOST_SHIFTED GUARD
#define ROOM                                                                                                 \
    12.0f /* with the 15 that f16 allows, keys that grow by 8 nats a block are at the limit every second one */
#define NEAR (-5.0f)
#endif
#ifndef NEAR
#define NEAR                                                                                                 \
    ROOM /* where a row of a warp moves, those whose p may pass 2^NEAR do too: O is multiplied once */
#endif
#define LOWEST (-3.402823466e38f) /* the reference of a row that has seen nothing */

/* The wait for P V comes after all EARLY groups' exponentials, and not as soon as the assembler likes, after four of
 * them: 2 to 8% of the time where two warpgroups share the tensor core. */
#define HIDDEN                                                                                               \
    (WGS == 2 && !SLICED && (!SOFTCAP || POLYNOMIAL) && !GENERAL &&                                          \
     !(D > 192 && (MASK == 2 || (BF16 && MASK == 1))))

/* Registers of the roles: launched with 65536 / THREADS, rounded down to a multiple of 8. */
#if F8 && !TURNED
#define PRODUCER_REGISTERS 40 /* its warps turn V */
#define MATRIX_REGISTERS 232
#elif WGS == 2 && SPLIT && !SLICED && BC / 4 * 3 + DV / 2 <= 152
#define PRODUCER_REGISTERS 40 /* S, P and O are small, and it has more to choose */
#define MATRIX_REGISTERS 232
#elif WGS == 2 && LENGTHS && !SPLIT && !SLICED && BC / 4 * 3 + DV / 2 <= 160
#define PRODUCER_REGISTERS 40 /* it has maps to choose */
#define MATRIX_REGISTERS 232
#elif WGS == 2
#define PRODUCER_REGISTERS 24
#define MATRIX_REGISTERS 240
#elif WGS == 3
#define PRODUCER_REGISTERS 32
#define MATRIX_REGISTERS 160
#else
#define PRODUCER_REGISTERS 32
#define MATRIX_REGISTERS 112
#endif

/* ---------------------------------------------------------------- shared memory and barriers */

/* What the producer says of a tile beside its coordinates. */
struct tile_record {
    tile_facts facts;
    i64 lse; /* of the tile's first row, in elements */
    float score_scale, value_scale; /* F8: what raw scores and P V are multiplied by */
    int4 view
        [WGS]; /* of each warpgroup: its first block (-1: no more tiles), the tile's last one, and the blocks
                        [z, w) that all its rows see whole */
    union {
        int passed[4]; /* of each warpgroup: blocks before its first, which lie after all its rows */
        struct {
            int number; /* F8: of the tile */
            unsigned marked; /* HALF: it is to be made again */
        };
    };
};
static_assert(sizeof(tile_record) == ATTNI_SM90_RECORD_BYTES(WGS), "params.h knows the size of a record");

#if ALIBI
/* Of a tile's ALiBi. As a left operand: 8 rows of 16 bytes, all alike, that serve as all its rows. */
struct alibi_record {
    u16 pieces[2][8][8]; /* of the slope, and of it negative */
    float slope; /* in powers of two */
    int lined; /* the pieces hold it: blocks may be lines */
    int unused[2];
};
static_assert(sizeof(alibi_record) == ATTNI_SM90_ALIBI_BYTES, "params.h knows its size");
#endif

#if F8
#include "hopper_f8_memory.cuh"
#else
struct shared_memory {
    u16 q[Q_PARTS][CHUNKS(D)][64 * 64]; /* a warpgroup's rows of a tile; if not DIRECT, later its O */
    u16 k[STAGES][CHUNKS(D)][BC * 64];
    u16 v[STAGES][SLICES * CHUNKS(DV)][BC * 64];
#if BIAS
    u16 bias[WGS][BIAS][CHUNKS(BC)][64 * 64];
#endif
#if ALIBI
    u16 places[ATTNI_SM90_PLACES(BC) / 2]; /* of a block's keys, as a right operand: hopper_alibi.cuh */
    u16 no_slope[8][8]; /* zeros, for blocks that are no lines */
    alibi_record alibi[RECORDS];
#endif
    tile_record tile[RECORDS];
    /* mbarriers              arrived at by                          waited for by */
    u64 tile_full[RECORDS]; /* the scheduler                         the producer, and that of bias */
    u64 tile_empty[RECORDS]; /* these, tiles later; each warp, with O  the scheduler */
    u64 q_full[Q_BARRIERS]; /* the copy engine                         the warpgroups */
    u64 q_empty[Q_BARRIERS]; /* each warpgroup, once its part is free   the producer */
    u64 k_full[STAGES]; /* the copy engine                         the warpgroups */
    u64 k_empty[STAGES]; /* each warp, after its scores             the producer */
    u64 v_full[STAGES]; /* the copy engine                         the warpgroups */
    u64 v_empty[STAGES]; /* each warp, after its product            the producer */
#if BIAS
    u64 bias_full[WGS][BIAS]; /* the copy engine                     the warpgroup */
    u64 bias_empty[WGS][BIAS]; /* each of its warps, once read        the one that brings the bias */
#endif
};
#endif

/* Named barriers. 0 is __syncthreads'. */
enum named_barrier {
    TURN = 1, /* + warpgroup: the one before it lets it issue (256 threads: both of them) */
    OWN = TURN + WGS, /* + warpgroup: its 128 threads among themselves */
    TURNING = OWN + WGS, /* the warps that turn V */
};

/* A field's shared address. (NVRTC has no offsetof.) */
#define OFFSET(field) ((u32)(u64)(&((shared_memory *)0)->field))
#define AT(field) (shared + OFFSET(field))
#define Q_PART_BYTES (CHUNKS(D) * 64 * 64 * 2)
#define O_CHUNK_BYTES (64 * 64 * 2)
#define K_BYTES (CHUNKS(D) * BC * 64 * 2)
#define V_BYTES (SLICES * CHUNKS(DV) * BC * 64 * 2)
#define CHUNK_BYTES (BC * 64 * 2)

#endif
