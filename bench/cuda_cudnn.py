#!/usr/bin/env python3
"""Times the CUDA forward beside cuDNN (through torch) as single launches in random order, through the C interface.

usage: bench/cuda_cudnn.py LIBATTN.SO [--suites plain,f16,f8,options,data,lengths,decode] [--dims 64,128]
                           [--seqlens 512,8192] [--csv FILE]

plain    bf16, 16k tokens, hidden size 2048: the library beside cuDNN
f16      the same in f16, with the library's bf16 beside both
f8       e4m3, a scale for each tensor (o in bf16), with both in bf16; and the queries of `data`; and `raw`: normal numbers
         cast to e4m3 as they are, without scales, which draw less power
options  bf16 with one option each, beside plain
data     8192 keys: queries times 1, 3, 10 and 40, keys that grow by 1 and 8 nats a 128; bf16, bf16 with exact
         references, f16
lengths  ragged beside plain, few queries of grouped heads, dims of 576 and 512
decode   few queries over many keys, beside cuDNN and torch's flash back end; TB/s of K and V. As a model's layers run:
         graphs of 2 to 16 calls, each with its own keys and values, 256 MB and more together

What is compared is a group: its launches take turns in random order, 256 MB are written before each, and medians are
kept. Power and clocks move by 5% within a run, so only ratios within a group are to be relied on. LSE is written. Work
counts what rows see. Every result is checked: `error` is the norm of the difference over the norm, in 512 rows of one
head, to float64 on the same numbers. Variants that are not embedded are compiled first, one process a processor.
"""
import argparse
import collections
import csv
import ctypes
import functools
import math
import multiprocessing
import os
import random
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attn_abi import (BF16, CAUSAL, CUDA, DEFAULT, F16, F8_E4M3, RAGGED, Library, Strides, make_execution, make_options,
                      make_problem, make_tensors)

DTYPES = {"bf16": (BF16, torch.bfloat16), "f16": (F16, torch.float16), "e4m3": (F8_E4M3, torch.float8_e4m3fn)}
Shape = collections.namedtuple("Shape", "batch heads_q heads_kv rows keys dim dim_v causal")
# what: "cudnn", or a name of ours. given: fields of the problem. lengths: of ragged sequences, instead of the batch.
Case = collections.namedtuple("Case", "what shape dtype given exact lengths", defaults=("bf16", {}, 0, ()))
Group = collections.namedtuple("Group", "suite data cases")
LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
KINDS = ["x1", "x3", "x10", "x40", "ramp1", "ramp8"]
ROWS_CHECKED = 512

# ---------------------------------------------------------------- what is measured


def tokens(dim, seqlen, causal, dim_v=None):
    """16k tokens of hidden size 2048."""
    heads = 2048 // dim
    return Shape(max(1, 16384 // seqlen), heads, heads, seqlen, seqlen, dim, dim_v or dim, causal)


def plain_shapes():
    for dim, dim_v in ((64, 64), (128, 128), (256, 256), (96, 96), (192, 192), (192, 128)):
        for seqlen in LENGTHS if dim == dim_v and dim in (64, 128, 256) else (2048, 8192):
            for causal in (0, 1):
                yield tokens(dim, seqlen, causal, dim_v)


def plain_suite():
    return [Group("plain", "x1", [Case("cudnn", s), Case("attn", s)]) for s in plain_shapes()]


def f16_suite():
    return [Group("f16", "x1", [Case("attn bf16", s), Case("attn", s, "f16"), Case("cudnn", s, "f16")])
            for s in plain_shapes()]


def f8_cases(shape, scaled=True):
    scales = {"has_scales": 1} if scaled else {}
    return [Case("cudnn", shape), Case("attn bf16", shape), Case("attn e4m3", shape, "e4m3", scales),
            Case("exact", shape, "e4m3", scales, exact=1)]


def f8_suite():
    return ([Group("f8", "x1", f8_cases(s)) for s in plain_shapes()
             if s.dim == 128 or (s.dim in (64, 256) and s.keys in (2048, 8192))]
            + [Group("f8", "raw", f8_cases(s, False)) for s in plain_shapes() if s.dim == s.dim_v == 128]
            + [Group("f8", kind, f8_cases(tokens(128, 8192, causal))) for causal in (0, 1) for kind in KINDS[1:4]])


def options_suite():
    for dim in (64, 128, 256):
        for seqlen in (1024, 2048, 4096, 8192):
            for causal in (0, 1):
                s = tokens(dim, seqlen, causal)
                cases = [Case("plain", s)]
                if dim < 256:
                    cases += [Case(f"softcap {cap}", s, given={"softcap": float(cap)}) for cap in (50, 20)]
                    cases += [Case("ALiBi", s, given={"has_alibi": 1})]
                cases += [Case("bias", s, given={"has_bias": 1, "dtype_bias": BF16, "bias": Strides(0, 0, s.keys)})]
                if causal and seqlen == 8192 and dim < 256:
                    cases += [Case(f"window {n}", s, given={"window_left": n - 1}) for n in (4096, 2048, 1024, 512)]
                if causal:
                    cases += [Case("4 heads to 1", s._replace(heads_kv=s.heads_q // 4))]
                if seqlen == 4096 and not causal:
                    cases += [Case("boolean mask", s, given={"has_mask": 1, "mask_strides": Strides(0, 0, s.keys)}),
                              Case("dropout", s, given={"dropout_p": 0.1})]
                yield Group("options", "x1", cases)


def data_suite():
    for dtype in ("bf16", "f16"):
        for dim in (64, 128):
            for causal in (0, 1):
                for kind in KINDS:
                    s = tokens(dim, 8192, causal)
                    exact = [Case("exact", s, exact=1)] if dtype == "bf16" else []
                    yield Group("data", kind, [Case("cudnn", s, dtype), Case("attn", s, dtype)] + exact)


def spread(count, least, most):
    """Lengths from the least to the most, in an order that is none."""
    return tuple(least + (most - least) * (i * 5 % count) // (count - 1) for i in range(count))


def lengths_suite():
    for dim in (64, 128):
        for causal in (0, 1):
            for batch, seqlen, least, most in ((8, 2048, 400, 3900), (32, 512, 64, 1024)):
                s = tokens(dim, seqlen, causal)
                yield Group("lengths", "x1", [Case(f"plain {batch} x {seqlen}", s),
                                              Case(f"ragged {batch} x {seqlen}", s, lengths=(seqlen,) * batch),
                                              Case(f"ragged {batch} of {least} to {most}", s,
                                                   lengths=spread(batch, least, most))])
        heads = 2048 // dim
        few = Shape(16, heads, heads // 4, 64, 4096, dim, dim, 0)
        yield Group("lengths", "x1", [Case("64 queries, 1 head to 1", few._replace(heads_kv=heads))]
                    + [Case(f"{n} queries, 4 heads to 1", few._replace(rows=n)) for n in (64, 16, 1)])
    for causal in (0, 1):
        yield Group("lengths", "x1", [Case("576/512", Shape(2, 16, 16, 2048, 2048, 576, 512, causal))])


def decode_suite():
    for dtype, dim, heads_q, heads_kv, rows, keys, batches in (
            ("bf16", 128, 32, 8, 1, 32768, (1, 4, 16)), ("bf16", 128, 32, 8, 1, 8192, (1, 4, 16, 64)),
            ("bf16", 128, 32, 8, 1, 2048, (1, 16)), ("f16", 128, 32, 8, 1, 32768, (1,)),
            ("bf16", 128, 32, 32, 1, 8192, (1, 4)), ("bf16", 64, 64, 8, 1, 8192, (1, 16)),
            ("bf16", 256, 16, 4, 1, 8192, (1, 16)), ("bf16", 128, 32, 8, 64, 32768, (1,)),
            ("bf16", 128, 32, 8, 512, 32768, (1,))):
        for batch in batches:
            s = Shape(batch, heads_q, heads_kv, rows, keys, dim, dim, 0)
            yield Group("decode", "x1", [Case(what, s, dtype) for what in ("cudnn", "flash", "attn")])
    for batch in (1, 16):
        yield Group("decode", "x1", [Case("attn", Shape(batch, 64, 1, 1, 8192, 576, 512, 0))])


SUITES = {"plain": plain_suite, "f16": f16_suite, "f8": f8_suite, "options": options_suite, "data": data_suite,
          "lengths": lengths_suite, "decode": decode_suite}
PEERS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}

# ---------------------------------------------------------------- problems and their numbers


def problem_of(case):
    s = case.shape
    dtype = DTYPES[case.dtype][0]
    ragged = {"lengths_q": RAGGED, "lengths_k": RAGGED} if case.lengths else {}
    longest = max(case.lengths, default=0)
    return make_problem(batch=len(case.lengths) or s.batch, heads_q=s.heads_q, heads_kv=s.heads_kv,
                        seqlen_q=longest or s.rows, seqlen_k=longest or s.keys, dim_qk=s.dim, dim_v=s.dim_v,
                        dtype_q=dtype, dtype_kv=dtype, dtype_o=BF16 if case.dtype == "e4m3" else dtype,
                        mask=CAUSAL if s.causal else 0, **ragged, **case.given)


def seen(rows, keys, causal, left):
    """Pairs of a row and a key that it sees."""
    if not causal:
        return rows * keys
    return sum(min(keys - rows + i + 1, left + 1) for i in range(rows))


def tflop(case):
    s = case.shape
    left = case.given.get("window_left", s.keys + max(case.lengths, default=0))
    pairs = (sum(seen(n, n, s.causal, left) for n in case.lengths) if case.lengths
             else s.batch * seen(s.rows, s.keys, s.causal, left))
    return 2e-12 * s.heads_q * pairs * (s.dim + s.dim_v)


def terabytes(case):
    """Of K and V."""
    s = case.shape
    return 2e-12 * s.batch * s.heads_kv * s.keys * (s.dim + s.dim_v)


class Numbers:
    """The tensors of a group's cases; those of one shape and dtype are the same."""

    def __init__(self, data):
        self.data = data
        self.made = {}

    def inputs(self, case):
        s = case.shape
        batch, rows, keys = (1, sum(case.lengths), sum(case.lengths)) if case.lengths else (s.batch, s.rows, s.keys)
        key = (batch, rows, keys, s, case.dtype)
        if key not in self.made:
            torch.manual_seed(1)
            q, k, v = (torch.randn(*size, device="cuda", dtype=torch.float32) for size in
                       ((batch, rows, s.heads_q, s.dim), (batch, keys, s.heads_kv, s.dim),
                        (batch, keys, s.heads_kv, s.dim_v)))
            if self.data.startswith("ramp"):
                q[..., 0] = math.sqrt(s.dim)
                k[..., 0] = (torch.arange(keys, 0, -1, device="cuda") / 128 * float(self.data[4:]))[None, :, None]
            elif self.data != "raw":
                q *= float(self.data[1:])
            # e4m3: a scale for each tensor, which makes its largest size 448
            scaled = case.dtype == "e4m3" and self.data != "raw"
            scales = [x.abs().max().reshape(1) / 448 if scaled else None for x in (q, k, v)]
            self.made[key] = [(x if scale is None else x / scale).to(DTYPES[case.dtype][1])
                              for x, scale in zip((q, k, v), scales)], scales
        return self.made[key]

    @functools.cached_property
    def slopes(self):
        return torch.rand(64, device="cuda") * 0.1

    @functools.cache
    def bias(self, rows, keys):
        return torch.randn(rows, keys, device="cuda", dtype=torch.bfloat16)

    @functools.cache
    def mask(self, rows, keys):
        return (torch.rand(rows, keys, device="cuda") < 0.7).to(torch.uint8)


def reference(case, numbers):
    """In float64, the last rows of the last sequence's first head; None under dropout."""
    s, given = case.shape, case.given
    if "dropout_p" in given:
        return None
    count = case.lengths[-1] if case.lengths else s.keys
    rows = min(ROWS_CHECKED, case.lengths[-1] if case.lengths else s.rows)
    q, k, v = (x[-1, -n:, 0].float().double() * (1 if scale is None else scale.double())
               for x, scale, n in zip(*numbers.inputs(case), (rows, count, count)))
    scores = q @ k.T / math.sqrt(s.dim)
    away = torch.arange(count - rows, count, device="cuda")[:, None] - torch.arange(count, device="cuda")
    if "softcap" in given:
        scores = given["softcap"] * torch.tanh(scores / given["softcap"])
    if "has_alibi" in given:
        scores -= numbers.slopes[0].double() * away.abs()
    if "has_bias" in given:
        scores += numbers.bias(s.rows, s.keys)[-rows:].double()
    if "has_mask" in given:
        scores.masked_fill_(numbers.mask(s.rows, s.keys)[-rows:] == 0, -math.inf)
    if s.causal:
        scores.masked_fill_((away < 0) | (away > given.get("window_left", count)), -math.inf)
    return scores.softmax(-1) @ v


# ---------------------------------------------------------------- calls


def torch_call(case, numbers):
    """A call, and what gives its O, (batch, row, head, dim)."""
    q, k, v = (x.transpose(1, 2) for x in numbers.inputs(case)[0])
    grouped, causal, made = case.shape.heads_q != case.shape.heads_kv, bool(case.shape.causal), []

    def call():
        with sdpa_kernel(PEERS[case.what]):
            made[:] = [scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)]
    return call, lambda: made[0].transpose(1, 2)


def attn_call(library, case, numbers, stream=None):
    s = case.shape
    (q, k, v), scales = numbers.inputs(case)
    o = torch.full((*q.shape[:3], s.dim_v), math.nan, device="cuda",
                   dtype=torch.bfloat16 if case.dtype == "e4m3" else q.dtype)
    lse = torch.full((q.shape[0], s.heads_q, q.shape[1]), math.nan, device="cuda")
    status, plan = library.plan_status(problem_of(case), make_options(exact_reference=case.exact))
    library.must(status)
    starts = torch.tensor([sum(case.lengths[:i]) for i in range(len(case.lengths) + 1)], device="cuda",
                          dtype=torch.int32)
    optional = {"has_alibi": ("alibi_slopes", lambda: numbers.slopes),
                "has_bias": ("bias", lambda: numbers.bias(s.rows, s.keys)),
                "has_mask": ("mask", lambda: numbers.mask(s.rows, s.keys))}
    given = {field: make() for name, (field, make) in optional.items() if name in case.given}
    if case.lengths:
        given |= {"lengths_q": starts, "lengths_k": starts}
    if "has_scales" in case.given:
        given |= dict(zip(("q_scale", "k_scale", "v_scale"), scales))
    pointers = {name: x.data_ptr() for name, x in {**given, "q": q, "k": k, "v": v, "o": o, "lse": lse}.items()}
    tensors = make_tensors(**pointers, total_q=q.shape[1] if case.lengths else DEFAULT)
    execution = make_execution(stream=stream)
    addresses = ctypes.byref(tensors), ctypes.byref(execution)

    def call(kept=(given, q, k, v, o, lse, tensors, execution)):
        library.must(library.c.attn_forward(plan, *addresses))
    return call, lambda: o


def checked_error(case, numbers, o):
    expected = reference(case, numbers)
    if not torch.isfinite(o).all():
        sys.exit(f"{case}: O is not finite everywhere")
    if expected is None:
        return math.nan
    error = float((o[-1, -expected.shape[0]:, 0].double() - expected).norm() / expected.norm())
    if not error < (0.15 if case.dtype == "e4m3" else 8e-3):
        sys.exit(f"{case}: differs from float64 by {error:.2e} of its norm")
    return error


def timed(call, flush):
    flush.zero_()
    events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    events[0].record()
    call()
    events[1].record()
    return events


def medians_us(calls, flush):
    """Of single launches in random order; as many as take 60 ms, from 7 to 30."""
    first = [timed(call, flush) for call in calls]
    torch.cuda.synchronize()
    launches = max(7, min(30, int(60 / max(a.elapsed_time(b) for a, b in first))))
    events = [[] for _ in calls]
    for _ in range(launches):
        for i in random.sample(range(len(calls)), len(calls)):
            events[i].append(timed(calls[i], flush))
    torch.cuda.synchronize()
    return [1e3 * statistics.median(a.elapsed_time(b) for a, b in row) for row in events]


def refuses(call, case):
    """A peer may, by an exception."""
    try:
        call()
    except RuntimeError as refusal:
        print(f"{case.what} refuses: {str(refusal).splitlines()[0]}")
        return True
    return False


def single_launches(library, group, flush):
    """Cases that run, their errors and times."""
    numbers, cases, calls, errors = Numbers(group.data), [], [], []
    for case in group.cases:
        call, output = torch_call(case, numbers) if case.what in PEERS else attn_call(library, case, numbers)
        if not refuses(call, case):
            cases.append(case)
            calls.append(call)
            errors.append(checked_error(case, numbers, output()))
    return cases, errors, medians_us(calls, flush)


def layers(library, group):
    """The same of a graph of calls, one after another, each with its own numbers."""
    count = max(2, min(16, math.ceil(256 / (1e6 * terabytes(group.cases[0])))))
    sets = [Numbers(group.data) for _ in range(count)]
    stream, cases, errors, graphs = torch.cuda.Stream(), [], [], []
    with torch.cuda.stream(stream):
        for case in group.cases:
            pairs = [torch_call(case, n) if case.what in PEERS else attn_call(library, case, n, stream.cuda_stream)
                     for n in sets]
            if refuses(pairs[0][0], case):
                continue
            errors.append(checked_error(case, sets[0], pairs[0][1]()))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for call, _ in pairs:
                    call()
            cases.append(case)
            graphs.append((graph.replay, pairs))
        nothing = torch.empty(1, device="cuda")
        times = medians_us([replay for replay, _ in graphs], nothing)
    return cases, errors, [us / count for us in times]


def measure(library, group, flush):
    cases, errors, times = layers(library, group) if group.suite == "decode" else single_launches(library, group, flush)
    rates = [tflop(case) / us * 1e6 for case, us in zip(cases, times)]
    peer = next((rate for case, rate in zip(cases, rates) if case.what == "cudnn"), None)
    for case, us, rate, error in zip(cases, times, rates, errors):
        s = case.shape
        yield {"suite": group.suite, "data": group.data, "what": case.what, "dtype": case.dtype, "dim_qk": s.dim,
               "dim_v": s.dim_v, "batch": len(case.lengths) or s.batch, "heads_q": s.heads_q, "heads_kv": s.heads_kv,
               "seqlen_q": s.rows, "seqlen_k": s.keys, "causal": s.causal, "us": f"{us:.2f}", "tflops": f"{rate:.1f}",
               "tbs": f"{terabytes(case) / us * 1e6:.3f}", "over_first": f"{rate / rates[0]:.3f}",
               "over_cudnn": f"{rate / peer:.3f}" if peer else "", "error": f"{error:.2e}"}


# ---------------------------------------------------------------- tables


def rate_of(r):
    return f"{float(r['tbs']):.2f} TB/s" if r["suite"] == "decode" else f"{float(r['tflops']):.0f}"


def print_group(rows, seconds):
    first = rows[0]
    print(f"{first['suite']:<8}{first['data']:<6}{first['dim_qk']:>4}/{first['dim_v']:<4}{first['seqlen_k']:>6} "
          f"{'causal' if first['causal'] else 'full':<7}"
          + " | ".join(f"{r['what']} {rate_of(r)} ({r['over_cudnn'] or r['over_first']})" for r in rows)
          + f" [{seconds:.0f} s]", flush=True)


def print_table(rows, suite):
    """Ratios, to cuDNN where it is there and else to the group's first; with data, also the errors' ratio to its."""
    columns = "data" if suite == "data" else "seqlen_k"
    names, cells = [], {}
    peers = {(r["dtype"], r["dim_qk"], r["causal"], r["data"]): r for r in rows if r["what"] == "cudnn"}
    for r in rows:
        if r["what"] in ("cudnn", "plain") or (suite == "f16" and r["dtype"] == "bf16"):
            continue
        mask = "causal" if r["causal"] else "full"
        text = f"{float(r['over_cudnn'] or r['over_first']):.2f}"
        if suite == "f16":
            text = f"{float(r['over_first']):.2f}, {text}"
        if suite == "data":
            peer = peers[r["dtype"], r["dim_qk"], r["causal"], r["data"]]
            text += f", {float(r['error']) / float(peer['error']):.2f}"
        name = f"{r['dtype']} {r['what']} {r['dim_qk']}/{r['dim_v']} {mask}"
        name += f" {r['data']}" if columns != "data" and r["data"] != "x1" else ""
        names += [r[columns]] if r[columns] not in names else []
        cells.setdefault(name, {})[r[columns]] = text
    names = names if columns == "data" else sorted(names)
    print(f"\n| {suite} | " + " | ".join(map(str, names)) + " |\n|" + "---|" * (len(names) + 1))
    for name, row in cells.items():
        print(f"| {name} | " + " | ".join(row.get(column, "") for column in names) + " |")


def print_decode(rows):
    """TB/s of K and V."""
    shapes = {}
    for r in rows:
        name = (f"{r['dtype']} {r['batch']} x {r['seqlen_q']} x {r['seqlen_k']}, heads {r['heads_q']}/{r['heads_kv']}, "
                f"dim {r['dim_qk']}/{r['dim_v']}")
        shapes.setdefault(name, {})[r["what"]] = f"{float(r['us']):.0f} us, {r['tbs']}"
    print("\n| decode | cudnn | flash | attn |\n|---|---|---|---|")
    for name, cells in shapes.items():
        print(f"| {name} | " + " | ".join(cells.get(what, "") for what in ("cudnn", "flash", "attn")) + " |")


# ---------------------------------------------------------------- the program


def compile_share(path, cases):
    """Into the disk cache. What fails here fails again, and is said, where it is wanted."""
    try:
        library = Library(path, CUDA)
    except SystemExit:
        return
    for case in cases:
        library.plan_status(problem_of(case), make_options(exact_reference=case.exact))


def compile_all(path, groups):
    """A share for each processor, before this process meets CUDA. Other lengths mostly need the same variants: they
    come later, and find them."""
    cases = {(c.what, c.shape, c.dtype, c.exact): c for g in groups for c in g.cases if c.what not in PEERS}
    ordered = sorted(cases.values(), key=lambda c: (c.shape.keys, c.shape.rows))
    forks, count = multiprocessing.get_context("fork"), os.cpu_count()
    shares = [forks.Process(target=compile_share, args=(path, ordered[i::count])) for i in range(count)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()


def integers(text):
    return [int(word) for word in text.split(",")]


def suites(text):
    names = text.split(",")
    for name in names:
        if name not in SUITES:
            raise argparse.ArgumentTypeError(f"no suite is called '{name}'; there are {', '.join(SUITES)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--suites", type=suites, default=["plain"])
    parser.add_argument("--dims", type=integers, help="dims of queries and keys, of those that a suite has")
    parser.add_argument("--seqlens", type=integers, help="numbers of keys, of those that a suite has")
    parser.add_argument("--csv")
    options = parser.parse_args()
    groups = [g for name in options.suites for g in SUITES[name]()
              if (not options.dims or g.cases[0].shape.dim in options.dims)
              and (not options.seqlens or g.cases[0].shape.keys in options.seqlens)]
    if not groups:
        parser.error("no suite has such dims and lengths")
    begin = time.monotonic()
    compile_all(options.library, groups)
    torch.zeros(1, device="cuda")  # before the library: its context is torch's
    library = Library(options.library, CUDA)
    flush = torch.empty(64 << 20, dtype=torch.int32, device="cuda")
    rows = []
    with open(options.csv or os.devnull, "w", newline="") as file:
        file.write(f"# {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}: "
                   f"bench/cuda_cudnn.py --suites {','.join(options.suites)}\n")
        writer = None
        for group in groups:
            made = list(measure(library, group, flush))
            writer = writer or csv.DictWriter(file, made[0].keys(), lineterminator="\n")
            writer.writeheader() if not rows else None
            writer.writerows(made)
            file.flush()
            rows += made
            print_group(made, time.monotonic() - begin)
    for suite in options.suites:
        mine = [r for r in rows if r["suite"] == suite]
        if suite == "decode":
            print_decode(mine)
        else:
            print_table(mine, suite)


if __name__ == "__main__":
    main()
