/*
 * Tiles of 16-bit elements in shared memory, and the ways in and out.
 *
 * A tile of W columns (a multiple of 32) has rows of 2 * W bytes without padding; its 16-byte chunks
 * trade places within a row, so that the 8 rows of an ldmatrix matrix, and 8 neighbouring chunks of a
 * copy, lie in 8 different bank groups:
 *
 *   W % 64 == 0:  chunk c of row r lies at c ^ (r % 8)              rows begin at the same bank
 *   W % 64 == 32: chunk c of row r lies at c ^ (r / 2 % 4)          every second row does
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_TILES_CUH
#define ATTNI_TILES_CUH

#include "ptx.cuh"

/* The low chunk bits that move, and a row's contribution to them. */
#define SWIZZLE_BITS(width) ((width) % 64 == 0 ? 3 : 2)

DEVICE u32 swizzle_row(u32 width, u32 row) { return width % 64 == 0 ? row & 7 : row >> 1 & 3; }

/* Byte offset of a chunk of 8 elements. */
DEVICE u32 tile_offset(u32 width, u32 row, u32 chunk) {
    return row * width * 2 + ((chunk ^ swizzle_row(width, row)) << 4);
}

/*
 * ldmatrix reads pairs of chunks, and pair i of a row, of which a lane's own address picks one chunk,
 * lies at (address of pair 0 ^ low bits of i) + the high bits: one exclusive-or, the rest an immediate.
 */
DEVICE u32 pair_address(u32 width, u32 address, u32 pair) {
    u32 low = (1u << (SWIZZLE_BITS(width) - 1)) - 1;
    return (address ^ (pair & low) << 5) + (pair & ~low) * 32;
}

/*
 * Whole tiles are copied in even passes: a thread keeps its chunk, and its row modulo 8, so that all it
 * needs is one pointer and one shared address. So many rows a pass, 0 where the threads do not suffice;
 * threads beyond them sit out.
 */
#define TILE_PASS_ROWS(width, threads) ((threads) / ((width) / 8) / 8 * 8)

/* Where this thread begins in a tile, in elements. */
DEVICE i64 copy_origin(u32 width, i64 stride) {
    return (i64)(threadIdx.x / (width / 8)) * stride + threadIdx.x % (width / 8) * 8;
}

/* Bytes that this thread's chunk has inside dim columns (a multiple of 8): 16 or 0. */
DEVICE u32 copy_bytes(u32 width, int dim) { return (int)(threadIdx.x % (width / 8) * 8) < dim ? 16 : 0; }

/* And where in shared memory, in bytes from the tile's. */
DEVICE u32 copy_target(u32 width) {
    return tile_offset(width, threadIdx.x / (width / 8), threadIdx.x % (width / 8));
}

/*
 * All threads copy a tile whose rows are all there, `stride` elements apart. own is the thread's first
 * element (copy_origin), to its first address (copy_target), bytes its share of a row's chunk (copy_bytes).
 * Addresses are multiples of 16.
 */
DEVICE void tile_copy_whole(u32 to, const u16 *own, i64 stride, int rows, u32 width, u32 bytes, int threads) {
    const int step = TILE_PASS_ROWS(width, threads);
    if (step > 0 && (threads % (step * (int)width / 8) == 0 || threadIdx.x < (u32)step * width / 8)) {
#pragma unroll
        for (int i = 0; i < rows; i += step) {
            if (rows % step == 0 || i + (int)(threadIdx.x / (width / 8)) < rows) {
                cp_async_16(to + (u32)i * width * 2, own, bytes);
            }
            own += step * stride;
        }
    }
}

/*
 * The same for any tile, from its first element: rows from `valid` on and columns from `dim` on (a multiple
 * of 8) become zeros and are not read.
 */
DEVICE void tile_copy_part(u32 to, const u16 *from, i64 stride, int rows, u32 width, int valid, int dim,
                           int threads) {
    const u32 chunks = width / 8;
#pragma unroll 1
    for (u32 index = threadIdx.x; index < (u32)rows * chunks; index += (u32)threads) {
        u32 row = index / chunks, chunk = index % chunks;
        bool inside = (int)row < valid && (int)chunk * 8 < dim;
        cp_async_16(to + tile_offset(width, row, chunk), inside ? from + row * stride + chunk * 8 : from,
                    inside ? 16 : 0);
    }
}

/* The same, element by element, for any address and any dim. */
DEVICE void tile_copy_slow(char *to, const u16 *from, i64 stride, int rows, u32 width, int valid, int dim,
                           int threads) {
#pragma unroll 1
    for (u32 index = threadIdx.x; index < (u32)rows * width; index += (u32)threads) {
        u32 row = index / width, column = index % width;
        u16 x = (int)row < valid && (int)column < dim ? from[row * stride + column] : (u16)0;
        *(u16 *)(to + tile_offset(width, row, column / 8) + column % 8 * 2) = x;
    }
}

#endif
