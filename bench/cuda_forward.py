#!/usr/bin/env python3
"""Times the CUDA forward beside torch's back ends, in one run, through the library's C interface.

usage: bench/cuda_forward.py LIBATTN.SO [--csv FILE] [--papers | --profile] [--dims 64,128] [--seqlens 512,1024]

Without an option: 16k tokens a call, hidden size 2048, bf16, beside torch's flash back end (FlashAttention-2's
kernels) and cuDNN. --papers: the three algorithms of the papers at 64 x 16 heads, beside torch's unfused attention.
--profile: one forward at batch 64, heads 16, sequence 1024, dim 64, for a profiler to look at.
Checked against torch before it is timed. Each time is a median; causal counts half the flop.
"""
import argparse
import csv
import ctypes
import math
import sys

import torch
import triton
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

DEFAULT = -(2**63)  # ATTN_STRIDE_PACKED, ATTN_LENGTH_DEFAULT, ATTN_POSITION_DEFAULT, ATTN_WINDOW_UNLIMITED
CUDA, BF16, CAUSAL, UNSUPPORTED = 1, 2, 1, 2
ALGORITHMS = {"auto": 0, "standard": 1, "flash1": 2, "flash2": 3}
I64, I32, U64, F32, POINTER, SIZE = (ctypes.c_int64, ctypes.c_int32, ctypes.c_uint64, ctypes.c_float,
                                     ctypes.c_void_p, ctypes.c_size_t)


def fields(kind, names):
    return [(name, kind) for name in names.split()]


class Strides(ctypes.Structure):
    _fields_ = fields(I64, "a b c")


class Problem(ctypes.Structure):
    """attn_problem of include/attn/attn.h."""
    _fields_ = (fields(SIZE, "struct_size")
                + fields(I64, "batch heads_q heads_kv seqlen_q seqlen_k dim_qk dim_v")
                + fields(I32, "dtype_q dtype_kv dtype_o") + fields(Strides, "q k v o")
                + fields(I32, "lengths_q lengths_k mask") + fields(I64, "window_left window_right")
                + fields(F32, "softcap dropout_p") + fields(I32, "has_alibi has_sinks has_bias has_mask dtype_bias")
                + fields(Strides, "bias mask_strides") + fields(I64, "alibi_stride_batch")
                + fields(I32, "needs_backward deterministic batch_invariant reserved"))


class PlanOptions(ctypes.Structure):
    _fields_ = fields(SIZE, "struct_size") + fields(I32, "algorithm isa threads reserved") + fields(U64, "limit")


class Tensors(ctypes.Structure):
    _fields_ = (fields(SIZE, "struct_size")
                + fields(POINTER, "q k v o lse lengths_q lengths_k bias mask alibi_slopes sinks")
                + fields(I64, "seqlen_q seqlen_k total_q query_start key_start") + fields(U64, "seed offset")
                + fields(F32, "scale") + fields(I32, "reserved"))


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        for name in ("attn_last_error", "attn_plan_describe", "attn_context_describe", "attn_plan_kernel"):
            getattr(self.c, name).restype = ctypes.c_char_p
            getattr(self.c, name).argtypes = [POINTER] if name != "attn_last_error" else []
        self.c.attn_forward.argtypes = [POINTER] * 3
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        self.context = POINTER()
        self.must(self.c.attn_context_create(CUDA, 0, None, ctypes.byref(self.context)))

    def must(self, status):
        if status:
            sys.exit(f"status {status}: {self.c.attn_last_error().decode()}")

    def plan(self, batch, heads, seqlen, dim, causal, algorithm="auto"):
        """A packed self-attention in bf16; None where the library has no such algorithm."""
        packed = Strides(DEFAULT, DEFAULT, DEFAULT)
        problem = Problem(struct_size=ctypes.sizeof(Problem), batch=batch, heads_q=heads, heads_kv=heads,
                          seqlen_q=seqlen, seqlen_k=seqlen, dim_qk=dim, dim_v=dim, dtype_q=BF16, dtype_kv=BF16,
                          dtype_o=BF16, q=packed, k=packed, v=packed, o=packed, mask=CAUSAL if causal else 0,
                          window_left=DEFAULT, window_right=DEFAULT, bias=packed, mask_strides=packed)
        options = PlanOptions(struct_size=ctypes.sizeof(PlanOptions), algorithm=ALGORITHMS[algorithm])
        plan = POINTER()
        status = self.c.attn_plan_create(self.context, ctypes.byref(problem), ctypes.byref(options), ctypes.byref(plan))
        if status == UNSUPPORTED:
            return None
        self.must(status)
        return plan

    def run(self, plan, q, k, v, o, lse):
        tensors = Tensors(struct_size=ctypes.sizeof(Tensors), q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(),
                          o=o.data_ptr(), lse=lse.data_ptr(), seqlen_q=DEFAULT, seqlen_k=DEFAULT,
                          query_start=DEFAULT, key_start=DEFAULT, scale=math.inf)
        address = ctypes.byref(tensors)

        def call():
            self.must(self.c.attn_forward(plan, address, None))
        return call


def make_inputs(batch, heads, seqlen, dim):
    torch.manual_seed(1)
    return [torch.randn(batch, seqlen, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3)]


def torch_call(backend, q, k, v, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))

    def call():
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal)
    return call


def unfused_call(q, k, v, causal):
    """What a program without a fused kernel does."""
    q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    hidden = torch.ones(q.shape[2], k.shape[2], device="cuda", dtype=torch.bool).triu(1) if causal else None

    def call():
        scores = torch.matmul(q, k.transpose(2, 3)) * scale
        if causal:
            scores = scores.masked_fill(hidden, -math.inf)
        return torch.matmul(torch.softmax(scores, dim=-1), v)
    return call


def median_ms(call, repetitions=100):
    return triton.testing.do_bench(call, warmup=25, rep=repetitions, return_mode="median")


def check(o, expected, what):
    apart = (o.float() - expected.transpose(1, 2).float()).norm() / expected.float().norm()
    if not apart < 6e-3:  # two right answers in bf16 differ by 2e-3 or so
        sys.exit(f"{what}: differs from torch by {apart:.2e} of its norm")


def flop(batch, heads, seqlen, dim, causal):
    return 4 * batch * heads * seqlen * seqlen * dim * (0.5 if causal else 1)


def bench_forward(library, dims, seqlens):
    rows, ratios = [], []
    print(f"{'dim':>4} {'seqlen':>6} {'causal':>6} {'attn':>7} {'flash':>7} {'cudnn':>7}  TFLOP/s  attn/flash attn/cudnn")
    for dim in dims:
        for seqlen in seqlens:
            for causal in (False, True):
                batch, heads = max(1, 16384 // seqlen), 2048 // dim
                q, k, v = make_inputs(batch, heads, seqlen, dim)
                o, lse = torch.full_like(q, math.nan), torch.empty(batch, heads, seqlen, device="cuda")
                ours = library.run(library.plan(batch, heads, seqlen, dim, causal), q, k, v, o, lse)
                flash = torch_call(SDPBackend.FLASH_ATTENTION, q, k, v, causal)
                cudnn = torch_call(SDPBackend.CUDNN_ATTENTION, q, k, v, causal)
                ours()
                check(o, flash(), f"dim {dim} seqlen {seqlen} causal {causal}")
                # Ours and flash twice in turn, and the better of each: clocks drift within a run.
                times = [(median_ms(ours), median_ms(flash)) for _ in range(2)]
                ms, flash_ms = min(t[0] for t in times), min(t[1] for t in times)
                cudnn_ms = median_ms(cudnn, 50)
                rate = flop(batch, heads, seqlen, dim, causal) * 1e-9
                rows.append({"dim": dim, "seqlen": seqlen, "batch": batch, "heads": heads, "causal": int(causal),
                             "attn_ms": f"{ms:.4f}", "flash_ms": f"{flash_ms:.4f}", "cudnn_ms": f"{cudnn_ms:.4f}",
                             "attn_tflops": f"{rate / ms:.1f}", "flash_tflops": f"{rate / flash_ms:.1f}",
                             "cudnn_tflops": f"{rate / cudnn_ms:.1f}", "ratio": f"{flash_ms / ms:.3f}"})
                ratios.append(flash_ms / ms)
                print(f"{dim:>4} {seqlen:>6} {'yes' if causal else 'no':>6} {rate / ms:>7.1f} {rate / flash_ms:>7.1f} "
                      f"{rate / cudnn_ms:>7.1f}           {flash_ms / ms:.3f}      {cudnn_ms / ms:.3f}", flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"attn/flash: geometric mean {mean:.3f}, least {min(ratios):.3f}, below 1 in {sum(r < 1 for r in ratios)} "
          f"of {len(ratios)} cells")
    return rows


def bench_papers(library, dims, seqlens):
    rows = []
    print(f"{'dim':>4} {'seqlen':>6} {'causal':>6} {'standard':>9} {'flash1':>9} {'flash2':>9} {'unfused':>9}  ms")
    for dim in dims:
        for seqlen in seqlens:
            for causal in (False, True):
                batch, heads = 64, 16
                q, k, v = make_inputs(batch, heads, seqlen, dim)
                o, lse = torch.full_like(q, math.nan), torch.empty(batch, heads, seqlen, device="cuda")
                row = {"dim": dim, "seqlen": seqlen, "batch": batch, "heads": heads, "causal": int(causal)}
                expected = torch_call(SDPBackend.FLASH_ATTENTION, q, k, v, causal)()
                for name in ("standard", "flash1", "flash2"):
                    plan = library.plan(batch, heads, seqlen, dim, causal, name)
                    if plan is None:
                        row[name] = ""
                        continue
                    call = library.run(plan, q, k, v, o.fill_(math.nan), lse)
                    call()
                    check(o, expected, f"{name} dim {dim} seqlen {seqlen} causal {causal}")
                    row[name] = f"{median_ms(call):.3f}"
                    library.c.attn_plan_destroy(plan)
                try:
                    row["unfused"] = f"{median_ms(unfused_call(q, k, v, causal), 50):.3f}"
                except torch.cuda.OutOfMemoryError:
                    row["unfused"] = ""
                rows.append(row)
                print(f"{dim:>4} {seqlen:>6} {'yes' if causal else 'no':>6} "
                      + " ".join(f"{row[n] or '-':>9}" for n in ("standard", "flash1", "flash2", "unfused")), flush=True)
                torch.cuda.empty_cache()
    return rows


def profile(library):
    q, k, v = make_inputs(64, 16, 1024, 64)
    o, lse = torch.empty_like(q), torch.empty(64, 16, 1024, device="cuda")
    call = library.run(library.plan(64, 16, 1024, 64, False), q, k, v, o, lse)
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    once = 4 * q.numel() * 2 + lse.numel() * 4
    print(f"every tensor once: {once} bytes")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--csv")
    parser.add_argument("--papers", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--dims", type=numbers)
    parser.add_argument("--seqlens", type=numbers)
    options = parser.parse_args()
    library = Library(options.library)
    if options.profile:
        return profile(library)
    if options.papers:
        rows = bench_papers(library, options.dims or [64, 128], options.seqlens or [1024, 2048, 4096])
    else:
        rows = bench_forward(library, options.dims or [64, 128, 256],
                             options.seqlens or [512, 1024, 2048, 4096, 8192, 16384])
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            file.write(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}: {' '.join(sys.argv)}\n")
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return None


if __name__ == "__main__":
    main()
