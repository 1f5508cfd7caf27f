/*
 * One function an instruction of sm_90 and sm_90a, each named with its section of the PTX ISA; wgmma, whose
 * operands are many, is in wgmma.cuh. Shared memory and barriers are given by 32-bit shared addresses.
 *
 * Copyright (c) 2026 the libattn authors. MIT license, see LICENSE.
 */
#ifndef ATTNI_PTX_SM90_CUH
#define ATTNI_PTX_SM90_CUH

#include "params.h"
#include "ptx.cuh"

/* ---------------------------------------------------------------- mbarrier, 9.7.13.15 */

/* A phase ends when `arrivals` threads have arrived and all bytes that they announced are there. */
DEVICE void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/* Initialised barriers become visible to the copy engine. */
DEVICE void mbarrier_init_fence(void) { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives, and announces bytes that copies will bring. */
DEVICE void mbarrier_arrive_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Arrives if the condition holds, by a predicate: a branch would cut the code that is scheduled as one. */
DEVICE void mbarrier_arrive_if(u32 barrier, bool condition) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}" ::"r"(
            barrier),
        "r"((int)condition)
        : "memory");
}

/*
 * The same, once `after` has been computed: the predicate also asks that it be not one odd NaN, which is
 * always true and which the assembler cannot know. So neither this nor the wgmma wait that follows it in
 * program order is moved above the arithmetic that `after` comes from.
 */
DEVICE void mbarrier_arrive_after(u32 barrier, bool condition, u32 after) {
    asm volatile("{\n.reg .pred p, q;\nsetp.ne.b32 q, %2, 0x7f812345;\nsetp.ne.and.b32 p, %1, 0, q;\n"
                 "@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}" ::"r"(barrier),
                 "r"((int)condition), "r"(after)
                 : "memory");
}

DEVICE void mbarrier_arrive_after(u32 barrier, bool condition, float after) {
    mbarrier_arrive_after(barrier, condition, __float_as_uint(after));
}

/* Waits for the end of the phase of this parity (0 for a new barrier's first). */
DEVICE void mbarrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\n"
        "bra AGAIN;\nDONE:\n}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

/* The same for a thread that has nothing else to do: sleeps up to 10 ms at a time. */
DEVICE void mbarrier_sleep(u32 barrier, u32 parity) {
    asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1, 0x989680;\n"
                 "@p bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* ---------------------------------------------------------------- named barriers, 9.7.13.1 */

DEVICE void named_barrier_sync(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

DEVICE void named_barrier_arrive(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/* 9.7.13.15 griddepcontrol: a kernel may begin before the one before it in the stream ends. What that one wrote is
 * there after the wait; both do nothing in an ordinary launch. */
DEVICE void launch_next(void) { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

DEVICE void wait_for_last(void) { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/* ---------------------------------------------------------------- the copy engine, 9.7.9.27 */

#define ATTNI_EVICT_FIRST 0x12F0000000000000ull /* createpolicy.fractional, whole, as a constant */
#define ATTNI_EVICT_LAST 0x14F0000000000000ull

/* 9.7.9.16 prefetch.tensormap: a map is read before it is wanted. */
DEVICE void prefetch_tensor_map(const attni_tensor_map *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* One box of a tensor (dim, row, head, batch) to shared memory; elements outside the tensor become zeros. */
DEVICE void tma_load(u32 to, const attni_tensor_map *map, u32 barrier, int dim, int row, int head, int batch,
                     u64 policy) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
                 " [%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(to),
                 "l"(map), "r"(dim), "r"(row), "r"(head), "r"(batch), "r"(barrier), "l"(policy)
                 : "memory");
}

/* A box on its way to L2. */
DEVICE void tma_prefetch(const attni_tensor_map *map, int dim, int row, int head, int batch) {
    asm volatile("cp.async.bulk.prefetch.tensor.4d.L2.global [%0, {%1, %2, %3, %4}];" ::"l"(map), "r"(dim),
                 "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

/* One box back; elements outside the tensor are left out. */
DEVICE void tma_store(const attni_tensor_map *map, u32 from, int dim, int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(map),
        "r"(dim), "r"(row), "r"(head), "r"(batch), "r"(from)
        : "memory");
}

DEVICE void tma_commit(void) { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/*
 * 9.7.9.28 tensormap.replace, of a map in global memory: where its tensor begins, and its rows,
 * which are the second or the third dimension. Afterwards
 * tensor_map_release by the thread that did it, and tensor_map_acquire by one that uses the map (9.7.13.4).
 */
DEVICE void tensor_map_set(attni_tensor_map *map, const void *base, int rows, bool rows_third) {
    const u64 at = __cvta_generic_to_global(map), to = __cvta_generic_to_global(base);
    asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;" ::"l"(at), "l"(to)
                 : "memory");
    if (rows_third) {
        asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 2, %1;" ::"l"(at), "r"(rows)
                     : "memory");
    } else {
        asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 1, %1;" ::"l"(at), "r"(rows)
                     : "memory");
    }
}

DEVICE void tensor_map_release(void) {
    asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
}

DEVICE void tensor_map_acquire(const attni_tensor_map *map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}

/* At most `pending` of this thread's groups of stores still read shared memory. */
#define tma_wait_read(pending) asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory")

/* Or have yet to be written. */
#define tma_wait(pending) asm volatile("cp.async.bulk.wait_group %0;" ::"n"(pending) : "memory")

/* 9.7.13.4 fence.proxy: what this thread wrote to shared memory, wgmma and the copy engine may read. */
DEVICE void fence_async_proxy(void) { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---------------------------------------------------------------- others */

/* The copy engine reads what others have written to global memory, once this thread has seen that they
 * did. */
DEVICE void fence_async_proxy_global(void) { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/* 9.7.9.8 ld and st between blocks: what was written before the one is there after the other has read it. */
DEVICE u32 load_acquire(const u32 *at) {
    u32 r;
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(r) : "l"(at) : "memory");
    return r;
}

/* A word, and one more in a count: whoever has read either with load_acquire() knows what was before. */
DEVICE void tell(u32 *at, u32 x, u32 *count) {
    asm volatile(
        "fence.acq_rel.gpu;\nst.relaxed.gpu.global.b32 [%0], %1;\nred.relaxed.gpu.global.add.u32 [%2], 1;" ::
            "l"(at),
        "r"(x), "l"(count)
        : "memory");
}

/* 9.7.9.8 ld */
DEVICE u32 load_shared(u32 address) {
    u32 r;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(address) : "memory");
    return r;
}

/* 9.7.19.5 setmaxnreg: a warpgroup gives registers away, or takes them. */
#define registers_give(count) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count))
#define registers_take(count) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count))

/* 9.7.14.6 elect.sync: true in one lane of a converged warp. */
DEVICE bool elect_lane(void) {
    u32 chosen;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(chosen));
    return chosen != 0;
}

/* 9.7.3 rcp.approx.ftz: 1 / x, within 1 ulp. */
DEVICE float reciprocal_fast(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* 9.7.3 lg2.approx.ftz: to 2^-22, of itself beyond [1/2, 2]. */
DEVICE float log2_fast(float x) {
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* 9.7.9.8 bmsk: the low `count` bits, 0 to 32. */
DEVICE u32 low_bits(int count) {
    u32 r;
    asm("bmsk.clamp.b32 %0, 0, %1;" : "=r"(r) : "r"(count));
    return r;
}

/* 9.7.4 mul: two pairs of 16-bit elements. */
DEVICE u32 multiply_16(u32 a, u32 b) {
    u32 r;
#if BF16
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
#else
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
#endif
    return r;
}

/* 9.7.15.5.16 stmatrix: four 8x8 matrices, as ldmatrix_x4 reads them. */
DEVICE void stmatrix_x4(u32 address, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
}

#endif
