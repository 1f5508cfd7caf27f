#!/usr/bin/env python3
"""The command `attn`, from outside: python3 cli_test.py path/to/attn

Needs nothing but Python 3. Answers are compared with attention in plain Python on tiny shapes.
Ends with "N passed, N failed"; the exit status is 1 if one failed.
"""

import csv
import json
import math
import os
import pathlib
import pty
import random
import re
import struct
import subprocess
import sys
import tempfile

ATTN = ""
FOLDER = pathlib.Path(".")

# ---------------------------------------------------------------- the command


def attn(*arguments, env=None):
    """Runs it; gives status, stdout, stderr."""
    surroundings = {k: v for k, v in os.environ.items() if k not in ("ATTN_ISA", "NO_COLOR")}
    surroundings.update(env or {})
    done = subprocess.run([ATTN, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env=surroundings, check=False)
    return done.returncode, done.stdout, done.stderr


def succeeds(*arguments, env=None):
    status, out, err = attn(*arguments, env=env)
    assert status == 0, f"exit status {status}: {err}"
    assert err == "", f"stderr: {err}"
    return out


def refuses(status, *arguments, says=(), env=None):
    """Fails with this status and one line on stderr that has these words."""
    got, _, err = attn(*arguments, env=env)
    assert got == status, f"exit status {got}, not {status}: {err!r}"
    assert err.count("\n") == 1 and err.endswith("\n") and err.startswith("attn"), f"not one line: {err!r}"
    for word in says:
        assert word in err, f"{word!r} is not in {err!r}"


# ---------------------------------------------------------------- arrays


class Array:
    """Numbers in C order, with a shape and a .npy element type."""

    def __init__(self, shape, values, descr="<f4"):
        self.shape, self.values, self.descr = tuple(shape), list(values), descr
        assert len(self.values) == math.prod(shape)

    def at(self, *index):
        flat = 0
        for size, i in zip(self.shape, index):
            assert 0 <= i < size
            flat = flat * size + i
        return self.values[flat]


def bf16_bits(x):
    """Rounded to nearest, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def bf16_value(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


CODES = {"<f4": "f", "<f2": "e", "<u2": "H", "|u1": "B", "|b1": "?", "<i4": "i", "<f8": "d"}


def header(text, version=1):
    raw = text.encode()
    fixed = 10 if version == 1 else 12
    raw += b" " * (-(fixed + len(raw) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(raw)) + raw


def literal(descr, shape, order="False"):
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {tuple(shape)!r}, }}"


def raw_file(name, data):
    path = FOLDER / name
    path.write_bytes(data)
    return path


def save(name, array, version=1):
    body = struct.pack(f"<{len(array.values)}{CODES[array.descr]}", *array.values)
    return raw_file(name, header(literal(array.descr, array.shape), version) + body)


def load(path):
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length = struct.unpack("<H", data[8:10])[0]
    assert (10 + length) % 64 == 0
    fields = eval(data[10:10 + length], {"__builtins__": {}})  # what the tool wrote
    assert fields["fortran_order"] is False
    count = math.prod(fields["shape"])
    code = CODES[fields["descr"]]
    body = data[10 + length:]
    assert len(body) == count * struct.calcsize(code)
    return Array(fields["shape"], struct.unpack(f"<{count}{code}", body), fields["descr"])


def normal(rng, *shape):
    values = [struct.unpack("<f", struct.pack("<f", rng.gauss(0, 1)))[0] for _ in range(math.prod(shape))]
    return Array(shape, values)


def swap(a):
    """(batch, x, y, dim) as (batch, y, x, dim)."""
    b, x, y, d = a.shape
    return Array((b, y, x, d),
                 [a.at(i, j, k, n) for i in range(b) for k in range(y) for j in range(x) for n in range(d)], a.descr)


# ---------------------------------------------------------------- attention


def attention(q, k, v, scale=None, causal=False, window=(-1, -1), query_start=None, key_start=0, softcap=0.0,
              alibi=None, bias=None, mask=None, sinks=None, lengths_k=None, round_to=lambda x: x):
    """Attention as its definition says, over (batch, seqlen, heads, dim); gives O and LSE."""
    batch, rows, heads, dim = q.shape
    group = heads // k.shape[2]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    o, lse = {}, []
    for b in range(batch):
        keys = k.shape[1] if lengths_k is None else lengths_k[b]
        start = key_start + keys - rows if query_start is None else query_start
        for h in range(heads):
            for i in range(rows):
                scores = []
                for j in range(keys):
                    s = scale * sum(q.at(b, i, h, d) * k.at(b, j, h // group, d) for d in range(dim))
                    if softcap:
                        s = softcap * math.tanh(s / softcap)
                    distance = start + i - key_start - j
                    if alibi:
                        s -= alibi[h] * abs(distance)
                    if bias:
                        s += bias(b, h, i, j)
                    seen = not (causal and distance < 0) and not (mask and not mask(b, h, i, j))
                    seen = seen and not (window[0] >= 0 and distance > window[0])
                    seen = seen and not (window[1] >= 0 and -distance > window[1])
                    scores.append(s if seen else -math.inf)
                top = max(scores + ([sinks[h]] if sinks else []), default=-math.inf)
                weights = [math.exp(s - top) if s > -math.inf else 0.0 for s in scores]
                total = sum(weights) + (math.exp(sinks[h] - top) if sinks else 0.0)
                lse.append(top + math.log(total) if total > 0 else -math.inf)
                for d in range(v.shape[3]):
                    x = sum(w * v.at(b, j, h // group, d) for j, w in enumerate(weights))
                    o[b, i, h, d] = round_to(x / total if total > 0 else 0.0)
    order = [(b, i, h, d) for b in range(batch) for i in range(rows) for h in range(heads)
             for d in range(v.shape[3])]
    return Array((batch, rows, heads, v.shape[3]), [o[x] for x in order]), Array((batch, heads, rows), lse)


def near(got, expected, tolerance):
    assert got.shape == expected.shape, f"shape {got.shape}, not {expected.shape}"
    for index, (a, b) in enumerate(zip(got.values, expected.values)):
        assert a == b or abs(a - b) <= tolerance, f"element {index} is {a}, not {b}"


class Case:
    """Random Q, K and V in files, and the run over them."""

    def __init__(self, seed=1, batch=2, rows=5, keys=7, heads=4, heads_kv=2, dim=8, dim_v=6):
        rng = random.Random(seed)
        self.rng = rng
        self.q, self.k, self.v = (normal(rng, batch, rows, heads, dim), normal(rng, batch, keys, heads_kv, dim),
                                  normal(rng, batch, keys, heads_kv, dim_v))
        self.files = self.write(self.q, self.k, self.v)

    @staticmethod
    def write(q, k, v):
        paths = [save("q.npy", q), save("k.npy", k), save("v.npy", v)]
        return [x for pair in zip(("--q", "--k", "--v"), paths) for x in pair]

    def run(self, *options, files=None):
        o, lse = FOLDER / "o.npy", FOLDER / "lse.npy"
        out = succeeds("run", *(files or self.files), "--o", o, "--lse", lse, "--repeat", 1, *options)
        return load(o), load(lse), out

    def check(self, *options, tolerance=2e-6, **meaning):
        o, lse, _ = self.run(*options)
        expected_o, expected_lse = attention(self.q, self.k, self.v, **meaning)
        near(o, expected_o, tolerance)
        near(lse, expected_lse, 2e-6)


# ---------------------------------------------------------------- help and usage

COMMANDS = ("run", "check", "bench", "info", "io", "split", "plot", "trace")


def test_help():
    out = succeeds("--help")
    for command in COMMANDS:
        assert re.search(rf"^ +{command} ", out, re.M), f"{command} is not in the help"
        help_text = succeeds(command, "--help")
        assert help_text.startswith(f"usage: attn {command}"), help_text
        assert "--help" in help_text
        assert all(len(line) <= 110 for line in help_text.splitlines())
        assert succeeds(command, "-h") == help_text


def test_help_names_every_option_of_run():
    text = succeeds("run", "--help")
    for name in ("q k v o lse layout bf16 causal causal-top-left window softcap scale alibi bias mask sinks dropout"
                 " seed offset lengths-q lengths-k cu-seqlens-q cu-seqlens-k query-start key-start isa threads"
                 " compare tolerance repeat").split():
        assert f"--{name} " in text, name


def test_version():
    assert re.fullmatch(r"attn \d+\.\d+\.\d+\n", succeeds("--version"))


def test_usage():
    refuses(2, says=["command", "run, check, bench, info"])
    refuses(2, "frobnicate", says=["frobnicate", "run, check, bench, info"])
    refuses(2, "--frobnicate", says=["--frobnicate"])
    for command in COMMANDS:
        refuses(2, command, "--frobnicate", says=[f"attn {command}:", "--frobnicate"])
    for command in ("run", "info", "io", "split"):
        refuses(2, command, "surplus", says=["surplus"])


def test_usage_names_flag_value_and_allowed():
    refuses(2, "run", says=["--q"])
    refuses(2, "run", "--q", says=["--q", "value"])
    refuses(2, "run", "--q", "--k", "x", says=["--q", "value"])
    refuses(2, "run", "--layout", "sbhd", says=["--layout", "sbhd", "bshd", "bhsd"])
    refuses(2, "run", "--layout=sbhd", says=["--layout", "sbhd", "bshd", "bhsd"])
    refuses(2, "run", "--isa", "mmx", says=["--isa", "mmx", "avx2", "portable"])
    refuses(2, "run", "--threads", "-1", says=["--threads", "-1", "0 to"])
    refuses(2, "run", "--threads", "2x", says=["--threads", "2x"])
    refuses(2, "run", "--threads", "99999999999999999999", says=["--threads", "99999999999999999999"])
    refuses(2, "run", "--seed", "-1", says=["--seed", "-1"])
    refuses(2, "run", "--scale", "wide", says=["--scale", "wide"])
    refuses(2, "run", "--scale", "inf", says=["--scale", "inf", "finite"])
    refuses(2, "run", "--causal=1", says=["--causal", "no value"])
    files = ("--q", "q", "--k", "k", "--v", "v")
    refuses(2, "run", *files, "--scale", "1e300", says=["--scale", "1e+300"])
    refuses(2, "run", *files, "--window", "3", says=["--window", "3", "LEFT,RIGHT"])
    refuses(2, "run", *files, "--window", "3,-2", says=["--window", "3,-2"])
    refuses(2, "run", *files, "--dropout", "1", says=["--dropout", "1"])
    refuses(2, "run", *files, "--softcap", "-1", says=["--softcap", "-1"])
    refuses(2, "run", *files, "--tolerance", "1", says=["--tolerance", "--compare"])
    refuses(2, "run", *files, "--compare", "x", "--tolerance", "-1", says=["--tolerance", "-1"])
    refuses(2, "run", *files, "--lengths-k", "a", "--cu-seqlens-k", "b", says=["--lengths-k", "--cu-seqlens-k"])
    refuses(2, "run", *files, "--causal-top-left", "--query-start", "1", says=["--causal-top-left"])


def test_cuda_is_refused_by_a_build_without_it():
    if "CUDA back end yes" in succeeds("info"):
        return
    refuses(2, "bench", "--device", "cuda", says=["cuda", "ATTN_CUDA=ON"])
    refuses(2, "check", "--device", "cuda", says=["cuda", "ATTN_CUDA=ON"])
    refuses(2, "precompile", says=["ATTN_CUDA=ON"])


def test_algorithms_for_measuring_are_refused_on_a_cpu():
    refuses(1, "bench", "--shape", "1,1,1,8,8,64", "--algorithm", "standard", says=["options.algorithm", "FLASH2"])


def test_no_escapes_in_a_pipe():
    for arguments in (("--help",), ("info",), ("run", "--help")):
        assert "\033" not in succeeds(*arguments)
    status, out, err = attn("bench", "--shape", "1,1,1,16,16,8", "--seconds", "0")
    assert status == 0 and "\033" not in out + err and "\r" not in out + err and err == ""


def on_a_terminal(*arguments, env):
    """What it prints on a terminal, and its status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(env)
        os.execv(ATTN, [ATTN, *arguments])
    out = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so at the end
            break
        if not piece:
            break
        out += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


def test_colours_and_progress_on_a_terminal():
    status, out = on_a_terminal("--help", env={"TERM": "xterm", "NO_COLOR": ""})
    assert status == 0 and "\033[1m" in out
    status, out = on_a_terminal("--help", env={"TERM": "xterm", "NO_COLOR": "1"})
    assert status == 0 and "\033" not in out
    status, out = on_a_terminal("--help", env={"TERM": "dumb", "NO_COLOR": ""})
    assert status == 0 and "\033" not in out
    bench = ("bench", "--shape", "1,1,1,16,16,8", "--seconds", "0")
    status, out = on_a_terminal(*bench, env={"TERM": "xterm", "NO_COLOR": ""})
    assert status == 0 and re.search(r"\r\[[#.]+\] +\d+%", out), out


# ---------------------------------------------------------------- run


def test_run_plain():
    case = Case()
    o, lse, out = case.run()
    expected_o, expected_lse = attention(case.q, case.k, case.v)
    near(o, expected_o, 2e-6)
    near(lse, expected_lse, 2e-6)
    for word in ("queries", "kernel", "time", "GFLOP/s", "extra memory", "score matrix"):
        assert word in out, f"{word} is not in {out}"


def test_run_without_outputs():
    case = Case()
    assert "kernel" in succeeds("run", *case.files)


def test_run_mask_options():
    Case(2).check("--causal", causal=True)
    Case(3).check("--causal-top-left", causal=True, query_start=0)
    Case(4, rows=9, keys=5).check("--causal", causal=True)  # rows that see nothing
    Case(5, rows=8, keys=8).check("--window", "2,1", window=(2, 1))
    Case(6, rows=8, keys=8).check("--window=-1,0", window=(-1, 0))
    Case(7).check("--causal", "--query-start", "3", "--key-start", "1", causal=True, query_start=3, key_start=1)


def test_run_score_options():
    Case(8).check("--scale", "0.3", scale=0.3)
    Case(9).check("--scale=-0.5", scale=-0.5)
    Case(10).check("--softcap", "1.5", softcap=1.5)
    case = Case(11)
    case.check("--sinks", save("s.npy", Array((4,), [0.5, -1, 2, 0])), sinks=[0.5, -1, 2, 0])
    case.check("--alibi", save("a.npy", Array((4,), [0.5, 0.25, 0.125, 1])), alibi=[0.5, 0.25, 0.125, 1])


def test_run_bias_and_mask_broadcast():
    case = Case(12)
    full = normal(case.rng, 2, 4, 5, 7)
    case.check("--bias", save("b.npy", full), bias=full.at)
    flat = normal(case.rng, 5, 7)
    case.check("--bias", save("b.npy", flat), bias=lambda b, h, i, j: flat.at(i, j))
    heads = normal(case.rng, 4, 1, 7)
    case.check("--bias", save("b.npy", heads), bias=lambda b, h, i, j: heads.at(h, 0, j))
    seen = Array((2, 1, 1, 7), [case.rng.random() < 0.6 for _ in range(14)], "|b1")
    case.check("--mask", save("m.npy", seen), mask=lambda b, h, i, j: seen.at(b, 0, 0, j))
    numbers = Array((5, 7), [case.rng.randrange(3) for _ in range(35)], "|u1")
    case.check("--mask", save("m.npy", numbers), mask=lambda b, h, i, j: numbers.at(i, j))
    refuses(1, "run", *case.files, "--bias", save("b.npy", normal(case.rng, 3, 7)), says=["--bias", "(3, 7)", "(2, 4, 5, 7)"])
    refuses(1, "run", *case.files, "--mask", save("m.npy", flat), says=["--mask", "float32", "bool"])


def test_run_dropout_repeats():
    case = Case(13)
    one, _, _ = case.run("--dropout", "0.5", "--seed", "7", "--threads", "1")
    same, _, _ = case.run("--dropout", "0.5", "--seed", "7", "--threads", "2")
    other, _, _ = case.run("--dropout", "0.5", "--seed", "8")
    moved, _, _ = case.run("--dropout", "0.5", "--seed", "7", "--offset", "1")
    assert one.values == same.values
    assert one.values != other.values and one.values != moved.values


def test_run_layouts():
    case = Case(14)
    expected, expected_lse = attention(case.q, case.k, case.v, causal=True)
    files = case.write(swap(case.q), swap(case.k), swap(case.v))
    o, lse, _ = case.run("--layout", "bhsd", "--causal", files=files)
    near(o, swap(expected), 2e-6)
    near(lse, expected_lse, 2e-6)


def test_run_three_dimensions():
    case = Case(15, batch=1)
    expected, expected_lse = attention(case.q, case.k, case.v)
    files = case.write(*(Array(x.shape[1:], x.values) for x in (case.q, case.k, case.v)))
    o, lse, _ = case.run(files=files)
    near(o, Array(expected.shape[1:], expected.values), 2e-6)
    near(lse, Array(expected_lse.shape[1:], expected_lse.values), 2e-6)


def test_run_keys_shared_by_a_batch():
    case = Case(16)
    k, v = (Array((1, *x.shape[1:]), x.values[: len(x.values) // 2]) for x in (case.k, case.v))
    case.files = case.write(case.q, k, v)
    case.k, case.v = (Array((2, *x.shape[1:]), x.values * 2) for x in (k, v))
    case.check()


def test_run_padded():
    case = Case(17)
    lengths = save("lengths.npy", Array((2,), [4, 7], "<i4"))
    case.check("--lengths-k", lengths, lengths_k=[4, 7])
    case.check("--lengths-k", lengths, "--causal", lengths_k=[4, 7], causal=True)
    rows = save("rows.npy", Array((2,), [0, 5], "<i4"))
    o, lse, _ = case.run("--lengths-q", rows)
    expected, _ = attention(case.q, case.k, case.v)
    half = len(o.values) // 2
    near(Array((half,), o.values[half:]), Array((half,), expected.values[half:]), 2e-6)
    assert not any(o.values[:half]) and set(lse.values[: len(lse.values) // 2]) == {-math.inf}
    refuses(1, "run", *case.files, "--lengths-k", save("x.npy", Array((2,), [4, 8], "<i4")), says=["8", "0 to", "7"])
    refuses(1, "run", *case.files, "--lengths-k", save("x.npy", Array((2,), [-1, 7], "<i4")), says=["-1"])
    refuses(1, "run", *case.files, "--lengths-k", save("x.npy", Array((3,), [1, 2, 3], "<i4")), says=["3", "2"])


def test_run_ragged():
    case = Case(18, batch=1, rows=6, keys=9)
    pieces_q, pieces_k = [0, 2, 2, 6], [0, 4, 5, 9]
    files = case.write(*(Array(x.shape[1:], x.values) for x in (case.q, case.k, case.v)))
    files += ["--cu-seqlens-q", save("cq.npy", Array((4,), pieces_q, "<i4")),
              "--cu-seqlens-k", save("ck.npy", Array((4,), pieces_k, "<i4"))]
    o, lse, _ = case.run("--causal", files=files)
    assert o.shape == (6, 4, 6) and lse.shape == (4, 6)

    def cut(x, begin, end):
        step = math.prod(x.shape[2:])
        return Array((1, end - begin, *x.shape[2:]), x.values[begin * step:end * step])

    for begin, end, first, last in zip(pieces_q, pieces_q[1:], pieces_k, pieces_k[1:]):
        expected, expected_lse = attention(cut(case.q, begin, end), cut(case.k, first, last), cut(case.v, first, last),
                                           causal=True)
        for i in range(end - begin):
            for h in range(4):
                near(Array((6,), [o.at(begin + i, h, d) for d in range(6)]),
                     Array((6,), [expected.at(0, i, h, d) for d in range(6)]), 2e-6)
                near(Array((1,), [lse.at(h, begin + i)]), Array((1,), [expected_lse.at(0, h, i)]), 2e-6)
    for wrong in ([1, 2, 6], [0, 4, 2], [0, 7], []):
        files[7] = save("cq.npy", Array((len(wrong),), wrong, "<i4"))
        refuses(1, "run", *files, says=["--cu-seqlens-q"])


def test_run_f16_and_bf16():
    case = Case(19)
    half = [Array(x.shape, [struct.unpack("<e", struct.pack("<e", y))[0] for y in x.values], "<f2")
            for x in (case.q, case.k, case.v)]
    o, lse, out = case.run("--causal", files=case.write(*half))
    expected, expected_lse = attention(*half, causal=True)
    assert o.descr == "<f2" and "f16" in out
    near(o, expected, 3e-3)
    near(lse, expected_lse, 3e-3)

    bits = [Array(x.shape, [bf16_bits(y) for y in x.values], "<u2") for x in (case.q, case.k, case.v)]
    values = [Array(x.shape, [bf16_value(y) for y in x.values]) for x in bits]
    files = case.write(*bits)
    expected, expected_lse = attention(*values, causal=True)
    refuses(1, "run", *files, says=["--bf16"])
    o, lse, out = case.run("--bf16", "--causal", files=files)
    assert o.descr == "<u2" and "bf16" in out
    near(Array(o.shape, [bf16_value(x) for x in o.values]), expected, 3e-2)
    near(lse, expected_lse, 3e-2)
    o, _, _ = case.run("--bf16", "--causal", "--dtype-o", "f32", files=files)
    assert o.descr == "<f4"
    near(o, expected, 2e-2)

    mixed = case.write(values[0], bits[1], bits[2])  # f32 queries over a bf16 cache
    o, _, _ = case.run("--bf16", "--causal", files=mixed)
    assert o.descr == "<f4"
    near(o, expected, 2e-2)
    refuses(1, "run", *case.write(values[0], bits[1], values[2]), "--bf16", says=["uint16", "float32"])


def test_run_empty():
    Case(20, rows=0).check("--causal", causal=True)
    Case(21, keys=0).check("--causal", causal=True)
    Case(22, batch=0).check("--causal", causal=True)


def test_run_isa_and_threads():
    case = Case(23)
    _, _, out = case.run("--isa", "portable", "--threads", "1")
    assert "portable" in out
    case.check("--isa", "portable")
    listed = json.loads(succeeds("info", "--json", "--kernels"))["kernels"]
    listed = [k for k in listed if k["device"] == "cpu"]
    for isa in {k["isa"] for k in listed}:
        runs_here = any(k["isa"] == isa and k["op"] == "forward" and k["refusal"] is None for k in listed)
        some_here = any(k["isa"] == isa and k["refusal"] is None for k in listed)
        if runs_here:
            case.check("--isa", isa)
        elif not some_here:
            refuses(1, "run", *case.files, "--isa", isa, says=[isa])


def test_run_shapes_must_agree():
    case = Case(24)
    rng = case.rng

    def wrong(q=case.q, k=case.k, v=case.v, says=()):
        refuses(1, "run", *case.write(q, k, v), says=says)

    wrong(k=normal(rng, 2, 7, 2, 9), says=["dim", "8", "9"])
    wrong(v=normal(rng, 2, 6, 2, 6), says=["7", "6"])
    wrong(v=normal(rng, 2, 7, 1, 6), says=["heads"])
    wrong(k=normal(rng, 3, 7, 2, 8), says=["batch"])
    wrong(k=normal(rng, 3, 7, 2, 8), v=normal(rng, 3, 7, 2, 6), says=["batch", "2", "3"])
    wrong(k=normal(rng, 2, 7, 3, 8), v=normal(rng, 2, 7, 3, 6), says=["heads_q", "4", "3"])
    wrong(q=normal(rng, 5, 8), says=["(5, 8)", "(batch, seqlen, heads, dim)"])
    case.write(case.q, case.k, case.v)
    refuses(1, "run", *case.files, "--sinks", save("s.npy", Array((3,), [1, 2, 3])), says=["--sinks", "(3,)", "(4,)"])
    refuses(1, "run", *case.files, "--alibi", save("s.npy", Array((3,), [1, 2, 3])), says=["--alibi", "(3,)", "(2, 4)"])


def test_compare():
    case = Case(25)
    expected, _ = attention(case.q, case.k, case.v)
    path = save("expected.npy", expected)
    _, _, out = case.run("--compare", path, "--tolerance", "1e-5")
    assert re.search(r"largest \S+, relative norm \S+", out), out
    expected.values[3] += 0.5
    save("expected.npy", expected)
    case.run("--compare", path)  # no tolerance: only said
    refuses(1, "run", *case.files, "--compare", path, "--tolerance", "0.4", says=["0.5", "0.4"])
    case.run("--compare", path, "--tolerance", "0.6")
    expected.values[3] = math.nan
    save("expected.npy", expected)
    refuses(1, "run", *case.files, "--compare", path, says=["NaN"])
    save("expected.npy", case.q)
    refuses(1, "run", *case.files, "--compare", path, says=["(2, 5, 4, 8)", "(2, 5, 4, 6)"])
    refuses(1, "run", *case.files, "--compare", FOLDER / "nothing", says=["--compare", "nothing"])


def test_files_that_cannot_be_opened():
    case = Case(26)
    missing = FOLDER / "missing.npy"
    refuses(1, "run", "--q", missing, *case.files[2:], says=["--q", "missing.npy", "No such file"])
    refuses(1, "run", "--q", FOLDER, *case.files[2:], says=["--q", "file"])
    refuses(1, "run", *case.files, "--o", FOLDER / "no" / "o.npy", says=["--o", "No such file"])
    if os.path.exists("/dev/full"):
        refuses(1, "run", *case.files, "--o", "/dev/full", says=["--o", "No space"])


# ---------------------------------------------------------------- .npy


def test_npy_versions():
    case = Case(27)
    expected, _ = attention(case.q, case.k, case.v)
    save("q.npy", case.q, 2)
    save("k.npy", case.k, 3)
    o, _, _ = case.run()
    near(o, expected, 2e-6)


def test_npy_header_forms():
    case = Case(28, batch=1)
    expected, _ = attention(case.q, case.k, case.v)
    body = struct.pack(f"<{len(case.q.values)}f", *case.q.values)
    for text in ('{"shape":(1,5,4,8),"fortran_order":False,"descr":"<f4"}',  # other quotes and order, no blanks
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 5L, 4L, 8L)}",  # Python 2
                 "{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 1 , 5 , 4 , 8 , ) , }"):
        raw = text.encode() + b"\n"  # and no padding, so that the elements are not aligned
        raw_file("q.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + body)
        near(case.run()[0], expected, 2e-6)


def test_npy_refusals():
    case = Case(29)
    good = header(literal("<f4", (2, 5, 4, 8))) + bytes(2 * 5 * 4 * 8 * 4)
    bodies = {
        "": ["no .npy"],
        "hello, world": ["no .npy"],
        b"\x93NUMPY": ["cut off"],
        b"\x93NUMPY\x01\x00": ["cut off"],
        b"\x93NUMPY\x04\x00" + good[8:]: ["version", "4"],
        good[:60]: ["cut off", "header"],
        good[:-1]: ["cut off", "1280", "1279"],
        good + b"x": ["too long", "1281"],
        header(literal("<f8", (2, 5, 4, 8))) + bytes(2560): ["<f8", "<f4"],
        header(literal(">f4", (2, 5, 4, 8))) + bytes(1280): [">f4", "little-endian"],
        header(literal("<i8", (2, 5, 4, 8))) + bytes(2560): ["<i8"],
        header(literal("<c8", (2, 5, 4, 8))) + bytes(2560): ["<c8"],
        header(literal("<i4", (2, 5, 4, 8))) + bytes(1280): ["int32", "float32"],
        header(literal("<f4", (2, 5, 4, 8), "True")) + bytes(1280): ["Fortran"],
        header(literal("<f4", (2, 5, 4, 8), "Maybe")) + bytes(1280): ["fortran_order"],
        header(literal("<f4", (1 << 40, 1 << 40))): ["larger"],
        header(literal("<f4", (1 << 62, 1))): ["larger"],
        header(literal("<f4", (1 << 70,))): ["2^63"],
        header(literal("<f4", (1 << 33, 2))): ["cut off"],
        header(literal("<f4", (1,) * 9)) + bytes(4): ["8"],
        header(literal("<f4", (2, -1))): ["shape"],
        header("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }") + bytes(4): ["structured"],
        header("{'descr': '<f4', 'fortran_order': False}"): ["lacks 'shape'"],
        header("{'fortran_order': False, 'shape': ()}"): ["lacks 'descr'"],
        header("{'descr': '<f4', 'shape': ()}"): ["lacks 'fortran_order'"],
        header("{'descr': '<f4', 'fortran_order': False, 'shape': 3}"): ["tuple"],
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (3"): ["shape"],
        header("{'colour': 'red'}"): ["colour"],
        header("{} and more"): ["goes on"],
        header("[]"): ["dictionary"],
        header("{'descr': '<f4\x01'}"): ["descr"],
        header("{" * 500): ["dictionary"],
        header("\x00" * 64): ["dictionary"],
    }
    for body, words in bodies.items():
        raw_file("q.npy", body.encode() if isinstance(body, str) else body)
        refuses(1, "run", *case.files, says=["--q", "q.npy", *words])


def test_npy_random_damage():
    """Whatever becomes of a file: an exit status of ours, at most one line on stderr, never a signal."""
    case = Case(30, batch=1, rows=2, heads=2, heads_kv=2, dim=2)
    rng = random.Random(30)
    good = (FOLDER / "q.npy").read_bytes()
    for _ in range(60):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            body[rng.randrange(6, 90)] = rng.choice(b"(){}[],:'\"<>|0123456789abfiu \n\x00\xff")
        if rng.random() < 0.2:
            del body[rng.randrange(len(body)):]
        raw_file("q.npy", bytes(body))
        status, _, err = attn("run", *case.files, "--repeat", 1)
        assert status in (0, 1) and err.count("\n") == status, f"exit status {status}, {err!r}, {bytes(body)!r}"


# ---------------------------------------------------------------- bench

KEYS = ("op device kernel algorithm dtype batch heads_q heads_kv seqlen_q seqlen_k dim_qk dim_v causal threads ms_median"
        " ms_min gflops gbps peak_gflops fraction_of_peak extra_bytes").split()


def bench(*arguments):
    path, table = FOLDER / "bench.json", FOLDER / "bench.csv"
    succeeds("bench", "--seconds", "0", "--repeat", "2", "--json", path, "--csv", table, *arguments)
    report = json.loads(path.read_text())
    with open(table, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert set(report) == {"machine", "rows"} and report["machine"]["cpu"] and report["machine"]["processors"] >= 1
    assert len(lines) == len(report["rows"])
    for row, line in zip(report["rows"], lines):
        assert list(row)[:len(KEYS)] == KEYS and list(line)[:len(KEYS)] == KEYS
        for key in KEYS:
            assert line[key] == (str(row[key]).lower() if isinstance(row[key], bool) else line[key])
            if isinstance(row[key], (int, float)) and not isinstance(row[key], bool):
                assert float(line[key]) == row[key]
        assert row["device"] == "cpu" and row["kernel"] and 0 < row["ms_min"] <= row["ms_median"]
        assert row["peak_gflops"] > 0 and row["extra_bytes"] > 0
    return report["rows"]


def test_bench_forward():
    rows = bench("--shape", "1,4,2,64,64,32", "--shape=2,2,2,48,80,16,8", "--threads", "1,2", "--causal")
    assert [(r["batch"], r["threads"], r["dim_v"]) for r in rows] == [(1, 1, 32), (1, 2, 32), (2, 1, 8), (2, 2, 8)]
    for r in rows:
        assert r["op"] == "forward" and r["causal"] is True and r["dtype"] == "f32"
        assert math.isclose(r["fraction_of_peak"], r["gflops"] / r["peak_gflops"], rel_tol=1e-3)
    seen = 64 * 65 // 2  # scores of a head below the diagonal
    assert math.isclose(rows[0]["gflops"] * rows[0]["ms_median"] * 1e6, 2 * 4 * seen * 64, rel_tol=1e-3)


def test_bench_backward():
    forward, = bench("--shape", "1,2,1,64,64,32", "--threads", "1")
    row, = bench("--op", "backward", "--shape", "1,2,1,64,64,32", "--threads", "1")
    assert row["op"] == "backward" and row["kernel"].startswith("backward_")
    work = lambda row: float(row["gflops"]) * float(row["ms_median"])
    assert abs(work(row) / work(forward) - 2.5) < 0.01


def test_check_backward():
    out = succeeds("check", "--op", "backward", "--problems", "5", "--isa", "portable")
    assert "backward_portable" in out and "forward_portable" not in out
    assert "backward_portable" in succeeds("check", "--kernel", "backward_portable", "--problems", "2")


def test_bench_decode():
    (row,) = bench("--op", "decode", "--dtype", "f32", "--dtype-kv", "bf16", "--shape", "1,4,2,1,8192,64", "--threads", "1")
    assert row["op"] == "decode" and row["dtype_kv"] == "bf16" and row["caches"] >= 2 and row["peak_kind"] == "read"
    assert math.isclose(row["gbps"] * row["ms_median"] * 1e6, 2 * 2 * 8192 * 64 * 2, rel_tol=1e-3)
    assert math.isclose(row["fraction_of_peak"], row["gbps"] / row["peak_gbps"], rel_tol=1e-3)


def test_bench_shape_files():
    path = raw_file("shapes.txt", b"# a comment\n\n  1,2,2,16,16,8   causal # another\n1,2,1,8,16,8,4\n")
    rows = bench("--shapes", path, "--threads", "1")
    assert [(r["causal"], r["dim_v"]) for r in rows] == [(True, 8), (False, 4)]
    assert bench(path, "--threads", "1", "--dtype", "bf16")[0]["dtype"] == "bf16"
    raw_file("shapes.txt", b"1,2,2,16,16,8\n1,2,2,16\n")
    refuses(2, "bench", path, says=["shapes.txt:2", "1,2,2,16", "B,Hq,Hkv,Sq,Sk,D"])


def test_bench_usage():
    refuses(2, "bench", says=["--shape"])
    refuses(1, "bench", FOLDER / "nothing.txt", says=["nothing.txt", "No such file"])
    for shape in ("1", "1,2,3,4,5,6,7,8", "1,2,2,16,16,0", "1,2,2,16,16,-8", "1,2,2,16,16,x", "1,2,2,16,16,8 sideways", ""):
        refuses(2, "bench", "--shape", shape, says=["--shape", "B,Hq,Hkv,Sq,Sk,D"])
    refuses(1, "bench", "--shape", "1,3,2,16,16,8", says=["1,3,2,16,16,8", "heads_q"])
    refuses(2, "bench", "--shape", "1,2,2,16,16,8", "--op", "decode", says=["Sq", "16"])
    refuses(2, "bench", "--op", "sideways", says=["--op", "sideways", "forward"])
    refuses(2, "bench", "--dtype", "f8", says=["--dtype", "f8", "bf16"])
    refuses(2, "bench", "--threads", "1,,2", says=["--threads", "1,,2"])
    refuses(2, "bench", "--repeat", "0", says=["--repeat", "0"])
    refuses(1, "bench", "--shape", "1,2,2,16,16,8", "--json", FOLDER / "no" / "x.json", says=["--json", "No such file"])


# ---------------------------------------------------------------- info and check


def test_info():
    out = succeeds("info")
    for word in ("Machine", "Kernels", "forward_portable", "bf16"):
        assert word in out, word
    report = json.loads(succeeds("info", "--json"))
    embedded = {"embedded"} if report["library"]["cuda"] else set()
    assert set(report) == {"machine", "library", "kernels", "choices"} | embedded
    names = {k["name"] for k in report["kernels"]}
    for choice in report["choices"]:
        assert choice["kernel"] in names and choice["plan"] and choice["refusal"] is None
    kernels = succeeds("info", "--kernels")
    assert all(name in kernels for name in names)


def test_isa_of_the_environment():
    case = Case(31)
    assert "portable" in succeeds("run", *case.files, env={"ATTN_ISA": "portable"})
    refuses(1, "run", *case.files, env={"ATTN_ISA": "mmx"}, says=["ATTN_ISA", "mmx"])


def test_check():
    out = succeeds("check", "--problems", "40", "--seed", "5")
    assert re.search(r"^[1-9]\d* passed, 0 failed$", out.strip().splitlines()[-1]), out
    refuses(2, "check", "--problems", "many", says=["--problems", "many"])


def main(names):
    """Runs what is called test_ among the names of a module."""
    global ATTN, FOLDER
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} path/to/attn [NAME]...")
    ATTN = os.path.abspath(sys.argv[1])
    tests = [(name, test) for name, test in names.items() if name.startswith("test_")]
    if len(sys.argv) > 2:
        tests = [(name, test) for name, test in tests if any(word in name for word in sys.argv[2:])]
    failed = 0
    for name, test in tests:
        with tempfile.TemporaryDirectory() as folder:
            FOLDER = pathlib.Path(folder)
            try:
                test()
            except Exception as error:  # noqa: BLE001, a test may fail in any way
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(globals())
