#!/usr/bin/env python3
"""Times the CUDA forward beside torch's back ends, in one run, through the library's C interface.

usage: bench/cuda_forward.py LIBATTN.SO [--csv FILE] [--papers | --profile] [--isa sm80] [--dims 64,128] [--seqlens 512,1024]

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

from attn_abi import (ALGORITHMS, BF16, CAUSAL, CUDA, ISAS, UNSUPPORTED, Library, make_options, make_problem,
                      make_tensors)


class Device(Library):
    def __init__(self, path, isa="auto"):
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        super().__init__(path, CUDA)
        self.isa = ISAS[isa]

    def plan(self, batch, heads, seqlen, dim, causal, algorithm="auto"):
        """A packed self-attention in bf16; None where the library has no such algorithm."""
        problem = make_problem(batch=batch, heads_q=heads, heads_kv=heads, seqlen_q=seqlen, seqlen_k=seqlen,
                               dim_qk=dim, dim_v=dim, dtype_q=BF16, dtype_kv=BF16, dtype_o=BF16,
                               mask=CAUSAL if causal else 0)
        options = make_options(algorithm=ALGORITHMS[algorithm], isa=self.isa)
        status, plan = self.plan_status(problem, options)
        if status == UNSUPPORTED:
            return None
        self.must(status)
        return plan

    def run(self, plan, q, k, v, o, lse):
        tensors = make_tensors(q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), o=o.data_ptr(), lse=lse.data_ptr())
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
    parser.add_argument("--isa", choices=ISAS, default="auto")
    parser.add_argument("--dims", type=numbers)
    parser.add_argument("--seqlens", type=numbers)
    options = parser.parse_args()
    library = Device(options.library, options.isa)
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
