#!/usr/bin/env python3
"""The command `attn`, from outside: its help, usage, bench, info and check. python3 cli_test.py path/to/attn [NAME]...

Ends with "N passed, N failed"; the exit status is 1 if one failed.
"""

import csv
import json
import math
import re

import cli
from cli import Case, attn, on_a_terminal, raw_file, refuses, succeeds

# ---------------------------------------------------------------- help and usage

COMMANDS = ("run", "check", "bench", "info", "io", "split", "plot", "trace")


def test_help():
    out = succeeds("--help")
    for command in (*COMMANDS, "precompile"):
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
    refuses(2, "run", *files, "--o", "x.npy", "--lse", "x.npy", says=["--o", "--lse", "x.npy"])
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


# ---------------------------------------------------------------- bench

KEYS = ("op device kernel algorithm dtype batch heads_q heads_kv seqlen_q seqlen_k dim_qk dim_v causal threads ms_median"
        " ms_min gflops gbps peak_gflops fraction_of_peak extra_bytes").split()


def bench(*arguments):
    path, table = cli.FOLDER / "bench.json", cli.FOLDER / "bench.csv"
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


def agrees(fraction, of_medians):
    """The fraction is the median of slices' ratios; on a busy machine their peaks move by that much."""
    return 1 / 4 < fraction / of_medians < 4


def test_bench_forward():
    rows = bench("--shape", "1,4,2,64,64,32", "--shape=2,2,2,48,80,16,8", "--threads", "1,2", "--causal")
    assert [(r["batch"], r["threads"], r["dim_v"]) for r in rows] == [(1, 1, 32), (1, 2, 32), (2, 1, 8), (2, 2, 8)]
    for r in rows:
        assert r["op"] == "forward" and r["causal"] is True and r["dtype"] == "f32"
        assert agrees(r["fraction_of_peak"], r["gflops"] / r["peak_gflops"])
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


def test_check_of_nothing():
    """A tier that is not here is no success."""
    kernels = [words for words in map(str.split, succeeds("info", "--kernels").splitlines()) if words[1:2] == ["cpu"]]
    tiers = {words[2] for words in kernels}
    here = {words[2] for words in kernels if words[-1] == "yes"}
    assert "portable" in here
    for tier in tiers - here:
        refuses(1, "check", "--isa", tier, "--problems", "2", says=["nothing was checked"])
    refuses(2, "check", "--kernel", "forward_sse9", says=["forward_sse9", "attn info --kernels"])
    if "avx512_bf16" in tiers:
        refuses(2, "check", "--op", "backward", "--isa", "avx512_bf16", says=["avx512_bf16", "backward"])


def test_bench_decode():
    (row,) = bench("--op", "decode", "--dtype", "f32", "--dtype-kv", "bf16", "--shape", "1,4,2,1,8192,64", "--threads", "1")
    assert row["op"] == "decode" and row["dtype_kv"] == "bf16" and row["caches"] >= 2 and row["peak_kind"] == "read"
    assert math.isclose(row["gbps"] * row["ms_median"] * 1e6, 2 * 2 * 8192 * 64 * 2, rel_tol=1e-3)
    assert agrees(row["fraction_of_peak"], row["gbps"] / row["peak_gbps"])


def test_bench_shape_files():
    path = raw_file("shapes.txt", b"# a comment\n\n  1,2,2,16,16,8   causal # another\n1,2,1,8,16,8,4\n")
    rows = bench("--shapes", path, "--threads", "1")
    assert [(r["causal"], r["dim_v"]) for r in rows] == [(True, 8), (False, 4)]
    assert bench(path, "--threads", "1", "--dtype", "bf16")[0]["dtype"] == "bf16"
    raw_file("shapes.txt", b"1,2,2,16,16,8\n1,2,2,16\n")
    refuses(2, "bench", path, says=["shapes.txt:2", "1,2,2,16", "B,Hq,Hkv,Sq,Sk,D"])


def test_bench_usage():
    refuses(2, "bench", says=["--shape"])
    refuses(1, "bench", cli.FOLDER / "nothing.txt", says=["nothing.txt", "No such file"])
    for shape in ("1", "1,2,3,4,5,6,7,8", "1,2,2,16,16,0", "1,2,2,16,16,-8", "1,2,2,16,16,x", "1,2,2,16,16,8 sideways", ""):
        refuses(2, "bench", "--shape", shape, says=["--shape", "B,Hq,Hkv,Sq,Sk,D"])
    refuses(1, "bench", "--shape", "1,3,2,16,16,8", says=["1,3,2,16,16,8", "heads_q"])
    refuses(2, "bench", "--shape", "1,2,2,16,16,8", "--op", "decode", says=["Sq", "16"])
    refuses(2, "bench", "--op", "sideways", says=["--op", "sideways", "forward"])
    refuses(2, "bench", "--dtype", "f8", says=["--dtype", "f8", "bf16"])
    refuses(2, "bench", "--threads", "1,,2", says=["--threads", "1,,2"])
    refuses(2, "bench", "--repeat", "0", says=["--repeat", "0"])
    refuses(1, "bench", "--shape", "1,2,2,16,16,8", "--json", cli.FOLDER / "no" / "x.json", says=["--json", "No such file"])


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


if __name__ == "__main__":
    cli.main(globals())
