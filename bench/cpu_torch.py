#!/usr/bin/env python3
"""Times the CPU's forward and backward beside torch's scaled_dot_product_attention, by turns in one process.

usage: bench/cpu_torch.py LIBATTN.SO [--op forward,backward] [--dtype f32|bf16] [--threads 1,2] [--shapes FILE]
                          [--shape B,Hq,Hkv,S,S,D[,causal]] [--rounds 5] [--layout bshd|bhsd] [--unfused] [--isa amx]
                          [--csv FILE]

torch's tensors are contiguous (B, H, S, D), libattn's packed (B, S, H, D), or with --layout bhsd like torch's. --unfused:
also the gradient of matmul, softmax, matmul. Results are compared with torch's before anything is timed. Medians, and the
best of all rounds; a causal mask counts as half the work, a backward as 2.5 forwards.
"""
import argparse
import csv
import ctypes
import math
import os
import statistics
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

from attn_abi import BF16, CAUSAL, CPU, F32, ISAS, Library, Strides, make_options, make_problem, make_tensors

DTYPES = {"f32": (F32, torch.float32, 2e-5), "bf16": (BF16, torch.bfloat16, 1.2e-2)}  # how far apart at most


class Processor(Library):
    def __init__(self, path, isa):
        super().__init__(path, CPU)
        self.isa = ISAS[isa]

    def calls(self, shape, dtype, threads, q, k, v, dout):
        """Forward, backward, their outputs (o, dq, dk, dv), and the kernels' names."""
        batch, heads_q, heads_kv, rows, keys, dim, causal = shape
        strides = {name: Strides(*(x.stride(i) for i in range(3))) for names, x in (("q o dout dq", q), ("k v dk dv", k))
                   for name in names.split()}
        problem = make_problem(batch=batch, heads_q=heads_q, heads_kv=heads_kv, seqlen_q=rows, seqlen_k=keys,
                               dim_qk=dim, dim_v=dim, dtype_q=dtype, dtype_kv=dtype, dtype_o=dtype,
                               mask=CAUSAL if causal else 0, needs_backward=1, **strides)
        status, plan = self.plan_status(problem, make_options(threads=threads, isa=self.isa))
        self.must(status)
        out = [torch.full_like(x, math.nan) for x in (q, q, k, v)]
        lse = torch.empty(batch, heads_q, rows)
        tensors = make_tensors(lse=lse.data_ptr(),
                               **{name: x.data_ptr() for name, x in zip("q k v dout o dq dk dv".split(),
                                                                        (q, k, v, dout, *out))})
        kept = (tensors, lse, q, k, v, dout, out)
        address = ctypes.byref(tensors)
        forward = lambda: self.must(self.c.attn_forward(plan, address, None)) or kept
        backward = lambda: self.must(self.c.attn_backward(plan, address, None)) or kept
        return forward, backward, out, (self.c.attn_plan_kernel(plan).decode(),
                                        self.c.attn_plan_backward_kernel(plan).decode())


def unfused(q, k, v, causal):
    scores = torch.matmul(q, k.transpose(2, 3)) * (1 / math.sqrt(q.shape[-1]))
    if causal:
        hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def apart(x, expected):
    return ((x.float() - expected.transpose(1, 2).float()).norm() / expected.float().norm()).item()


def seconds(call, least):
    """Of one call, over as many as fill `least`; whatever threads the others left spinning (17 ms, with libgomp) sleep by then."""
    time.sleep(0.06)
    call()
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        passed = time.perf_counter() - start
        if passed > least:
            return passed / count


def bench_shape(library, options, op, shape, threads):
    number, dtype, allowed = DTYPES[options.dtype]
    batch, heads_q, heads_kv, rows, keys, dim, causal = shape
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    q, k, v, dout = (torch.randn(batch, n, h, dim).to(dtype) for n, h in
                     ((rows, heads_q), (keys, heads_kv), (keys, heads_kv), (rows, heads_q)))
    if options.layout == "bhsd":
        q, k, v, dout = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, dout))
    forward, backward, out, kernels = library.calls(shape, number, threads, q, k, v, dout)
    needs = op == "backward"
    tq, tk, tv, tdout = (x.transpose(1, 2).contiguous().requires_grad_(needs) for x in (q, k, v, dout))
    gqa = {"enable_gqa": True} if heads_q != heads_kv else {}
    forward()
    peers = {}
    if needs:
        backward()
        o = scaled_dot_product_attention(tq, tk, tv, is_causal=causal, **gqa)
        grad = lambda y: torch.autograd.grad(y, (tq, tk, tv), tdout, retain_graph=True)
        expected, ours = [o.detach(), *grad(o)], backward
        peers["sdpa"] = lambda: grad(o)
        if options.unfused and not gqa:
            plain = unfused(tq, tk, tv, causal)
            peers["unfused"] = lambda: grad(plain)
    else:
        expected, ours = [scaled_dot_product_attention(tq, tk, tv, is_causal=causal, **gqa)], forward
        peers["sdpa"] = lambda: scaled_dot_product_attention(tq, tk, tv, is_causal=causal, **gqa)
    for name, x, y in zip(("o", "dq", "dk", "dv"), out, expected):
        if not apart(x, y) < allowed:
            sys.exit(f"{op} {shape}: {name} differs from torch by {apart(x, y):.2e} of its norm")
    times = {name: [] for name in ("libattn", *peers)}
    for _ in range(options.rounds):
        times["libattn"].append(seconds(ours, options.least))
        for name, call in peers.items():
            times[name].append(seconds(call, options.least))
    work = 4 * batch * heads_q * rows * keys * dim * (0.5 if causal else 1) * (2.5 if needs else 1)
    row = {"op": op, "dtype": options.dtype, "kernel": kernels[needs], "batch": batch, "heads_q": heads_q,
           "heads_kv": heads_kv, "seqlen": rows, "dim": dim, "causal": int(causal), "layout": options.layout,
           "threads": threads}
    ms = {name: statistics.median(t) * 1e3 for name, t in times.items()}
    row["libattn_gflops"] = f"{work / ms['libattn'] * 1e-6:.1f}"
    row["libattn_best_gflops"] = f"{work / min(times['libattn']) * 1e-9:.1f}"
    row["sdpa_best_gflops"] = f"{work / min(times['sdpa']) * 1e-9:.1f}"
    for name in ("sdpa", "unfused"):
        row[f"{name}_gflops"] = f"{work / ms[name] * 1e-6:.1f}" if name in ms else ""
        row[f"{name}_ratio"] = f"{ms[name] / ms['libattn']:.2f}" if name in ms else ""
    return row


def read_shape(text):
    words = text.replace("causal", ",causal").replace(" ", "").strip(",").split(",")
    numbers = [int(w) for w in words if w and w != "causal"]
    return (*numbers[:6], "causal" in words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--op", default="forward,backward")
    parser.add_argument("--dtype", default="f32", choices=DTYPES)
    parser.add_argument("--isa", default="auto", choices=ISAS)
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--shapes", action="append", default=[])
    parser.add_argument("--shape", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.02, help="seconds that a round's calls fill")
    parser.add_argument("--layout", default="bshd", choices=("bshd", "bhsd"))
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--csv")
    options = parser.parse_args()
    shapes = [read_shape(line) for line in options.shape]
    for path in options.shapes:
        with open(path, encoding="utf-8") as file:
            shapes += [read_shape(line.split("#")[0]) for line in file if line.split("#")[0].strip()]
    library = Processor(options.library, options.isa)
    print(library.c.attn_context_describe(library.context).decode().splitlines()[0], "torch", torch.__version__)
    rows, file, writer = [], None, None
    for op in options.op.split(","):
        for threads in (int(n) for n in options.threads.split(",")):
            for shape in shapes:
                row = bench_shape(library, options, op, shape, threads)
                rows.append(row)
                print(" ".join(str(x) for x in row.values()), flush=True)
                if options.csv:
                    if writer is None:
                        file = open(options.csv, "w", newline="", encoding="utf-8")
                        file.write(f"# torch {torch.__version__}: bench/cpu_torch.py {' '.join(sys.argv[1:])}\n")
                        writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
                        writer.writeheader()
                    writer.writerow(row)
                    file.flush()
    ratios = [float(r["sdpa_ratio"]) for r in rows]
    print(f"sdpa / libattn: geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, least "
          f"{min(ratios):.2f}, of {len(ratios)}")


if __name__ == "__main__":
    main()
