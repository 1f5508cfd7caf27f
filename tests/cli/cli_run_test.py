#!/usr/bin/env python3
"""`attn run` and its .npy files, from outside: python3 cli_run_test.py path/to/attn [NAME]...

Answers are compared with attention in plain Python on tiny shapes. Ends with "N passed, N failed".
"""

import json
import math
import os
import random
import re
import struct

import cli
from cli import (Array, Case, attention, attn, bf16_bits, bf16_value, header, literal, near, normal, raw_file, refuses,
                 save, succeeds, swap)

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
    refuses(1, "run", *case.files, "--compare", cli.FOLDER / "nothing", says=["--compare", "nothing"])


def test_files_that_cannot_be_opened():
    case = Case(26)
    missing = cli.FOLDER / "missing.npy"
    refuses(1, "run", "--q", missing, *case.files[2:], says=["--q", "missing.npy", "No such file"])
    refuses(1, "run", "--q", cli.FOLDER, *case.files[2:], says=["--q", "file"])
    refuses(1, "run", *case.files, "--o", cli.FOLDER / "no" / "o.npy", says=["--o", "No such file"])
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
    good = (cli.FOLDER / "q.npy").read_bytes()
    for _ in range(60):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            body[rng.randrange(6, 90)] = rng.choice(b"(){}[],:'\"<>|0123456789abfiu \n\x00\xff")
        if rng.random() < 0.2:
            del body[rng.randrange(len(body)):]
        raw_file("q.npy", bytes(body))
        status, _, err = attn("run", *case.files, "--repeat", 1)
        assert status in (0, 1) and err.count("\n") == status, f"exit status {status}, {err!r}, {bytes(body)!r}"


if __name__ == "__main__":
    cli.main(globals())
