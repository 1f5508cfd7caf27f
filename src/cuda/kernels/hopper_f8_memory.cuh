/*
 * forward_sm90_f8: the shared memory of a block. Q and K lie in rows of 128 dims, or twice that; V as it comes unless it comes turned,
 * and with a row for each dim, since wgmma takes 8-bit operands only where the summed axis runs along memory.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_HOPPER_F8_MEMORY_CUH
#define ATTNI_HOPPER_F8_MEMORY_CUH

typedef unsigned char u8;

#define TURNERS 2 /* warps that turn V */
#define TURNED_BYTES (DV * BC)

struct shared_memory {
    u8 q[Q_SLOTS][WGS][CHUNKS(D)][64 * 128]; /* a tile's rows */
    u8 k[STAGES][CHUNKS(D)][BC * 128];
#if !TURNED
    u8 v[STAGES][BC * 128];           /* as the copy engine brings it */
#endif
    u8 turned[STAGES][TURNED_BYTES];  /* of each dim BC keys: hopper_f8_turn.cuh says in which order */
#if TURNED
    u8 turn_from[BC * 128], turn_to[TURNED_BYTES]; /* a block of V, for all */
#endif
    u16 o[WGS][(DV + 63) / 64][64 * 64]; /* on its way out */
    u32 powers[128 * WGS]; /* of each thread's rows of the tile before, for LSE: hopper_f8_float.cuh */
#if HALF
    float q_scale[Q_SLOTS][BR]; /* of the rows */
    int last_marked; /* tile of the first pass; params.h, again, has the one before */
#endif
#if TURNED
    int turn_block; /* the turners' next, or -1 */
    int tile_at_hand, round; /* the scheduler's, whose registers are few */
    int unused;
#endif
    tile_record tile[RECORDS];
    /* mbarriers               arrived at by                          waited for by */
    u64 tile_full[RECORDS];   /* the scheduler                         the producer, the turners */
    u64 tile_empty[RECORDS];  /* the producer, tiles later; each warp  the scheduler */
    u64 q_full[Q_SLOTS];      /* the copy engine                       the warpgroups */
    u64 q_empty
        [Q_SLOTS];     /* each warp, once O is on its way         the producer, who gives the record back */
#if HALF
    u64 pass_done;            /* each warp, its last tile finished     all others */
#endif
    u64 k_full[STAGES];       /* the copy engine                       the warpgroups */
    u64 k_empty[STAGES];      /* each warp, after its scores           the producer */
#if !TURNED
    u64 v_full[STAGES];       /* the copy engine                       the turners */
    u64 v_empty[STAGES];      /* each turner                           the producer */
#else
    u64 turn_full;            /* the copy engine                       the turners */
#endif
    u64 turned_full[STAGES];  /* each turner, or the copy engine       the warpgroups */
    u64 turned_empty[STAGES]; /* each warp, after its product          the turners, or the producer */
};

#endif
