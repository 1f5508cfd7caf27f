#!/usr/bin/env python3
"""The commands of the lab, `attn io`, `attn split` and `attn plot`, from outside: python3 cli_lab_test.py path/to/attn

The formulas are written down here once more, from the papers, so that the command's counters and formulas cannot be
wrong together.
"""

import csv
import math
import pathlib
import random
import re
import shlex
import subprocess
import xml.etree.ElementTree

import cli
from cli import refuses, succeeds

ALGORITHMS = ("standard", "flash1", "flash2", "lazy")


def ceil(a, b):
    return -(-a // b)


def rows_of(*arguments):
    path = cli.FOLDER / "io.csv"
    out = succeeds("io", "--csv", path, *arguments)
    with open(path, newline="", encoding="utf-8") as file:
        rows = {(row["algorithm"], row["pass"]): {k: v if k in ("algorithm", "pass", "dtype") else int(v)
                                                  for k, v in row.items()} for row in csv.DictReader(file)}
    return out, rows


# ---------------------------------------------------------------- io


def forward_bytes(algorithm, n, k, d, m_bytes, b):
    """Read and written by a head, with the paper's tiles."""
    block = ceil(m_bytes, 4 * d * b)
    other = min(block, d)
    if algorithm == "flash1":
        steps = ceil(k, min(block, k))
        return b * (2 * k * d + steps * 2 * n * d) + 8 * n * steps, (1 + steps) * (b * n * d + 8 * n)
    tiles = ceil(n, min(block, n))
    if algorithm == "standard":
        # Rows of S fit, or are read twice.
        passes = 1 if m_bytes // (k * b + 16) > 0 else 2
        return b * (n * d + 2 * tiles * k * d + (passes + 1) * n * k), b * (2 * n * k + n * d)
    assert other > 0
    return b * (n * d + 2 * tiles * k * d), b * n * d + 4 * n


def test_io_bytes():
    rng = random.Random(6)
    for _ in range(25):
        n, k, d = rng.randrange(1, 300), rng.randrange(1, 300), rng.choice((1, 8, 33, 64))
        dtype, b = rng.choice((("f32", 4), ("f16", 2), ("bf16", 2)))
        heads = rng.randrange(1, 4), rng.randrange(1, 4)
        memory = rng.randrange(4 * d * b, 40 * d * b + 4 * k * b)
        out, rows = rows_of("--shape", f"{heads[0]},{heads[1]},{n},{k},{d}", "--memory", memory, "--dtype", dtype)
        assert len(rows) == 2 * len(ALGORITHMS)
        for (algorithm, direction), row in rows.items():
            assert row["read_bytes"] == row["formula_read_bytes"], row
            assert row["written_bytes"] == row["formula_written_bytes"], row
            assert str(row["read_bytes"] + row["written_bytes"]) in out
            if direction == "forward":
                read, written = forward_bytes(algorithm, n, k, d, memory, b)
                assert row["read_bytes"] == read * heads[0] * heads[1], (algorithm, n, k, d, memory, b)
                assert row["written_bytes"] == written * heads[0] * heads[1], (algorithm, n, k, d, memory, b)
                assert row["multiply_adds"] == 2 * n * k * d * heads[0] * heads[1]


def test_io_numbers():
    out, rows = rows_of("--shape", "1,1,70,90,16", "--memory", "3000", "--dtype", "f32", "--numbers")
    difference = float(re.search(r"in double: (\S+)", out).group(1))
    assert 0 < difference < 1e-5
    moves = rows["lazy", "forward"]["rescales"] // 17
    assert 70 <= moves < 2 * 70 and rows["lazy", "forward"]["rescales"] == 17 * moves
    tiles = ceil(90, min(ceil(3000, 4 * 16 * 4), 16))
    assert rows["flash2", "forward"]["rescales"] == tiles * 70 * 17


def test_io_rules_and_chips():
    _, rows = rows_of("--memory", "20000", "--rule", "fit", "--shape", "1,1,500,500,64", "--pass", "forward")
    assert all(row["held_bytes"] <= 20000 for row in rows.values()) and set(d for _, d in rows) == {"forward"}
    _, rows = rows_of("--tiles", "3,7", "--shape", "1,1,50,60,8")
    assert all((row["br"], row["bc"]) == (3, 7) for row in rows.values())
    for chip, title in (("a100", "A100"), ("h100", "H100"), ("h200", "H200")):
        assert title in succeeds("io", "--chip", chip)
    assert "measured now" in succeeds("io", "--chip", "cpu", "--dtype", "f32", "--memory", "1000000")


def test_io_halves_with_memory():
    """FlashAttention's traffic falls as 1 / M."""
    totals = []
    for memory in (16384, 32768, 65536):
        _, rows = rows_of("--memory", memory, "--shape", "1,1,16384,16384,64", "--pass", "forward")
        totals.append(rows["flash1", "forward"]["read_bytes"] + rows["flash1", "forward"]["written_bytes"])
    for more, less in zip(totals, totals[1:]):
        assert math.isclose(more / less, 2, rel_tol=0.02), totals


def test_io_published():
    out = succeeds("io", "--published")
    for figure in ("66.6", "75.2", "40.3", "4.4", "41.7", "7.3", "824.6", "962.1", "40.27 GB", "62.03", "70.04",
                   "3.27", "2.77", "10.90"):
        assert figure in out, figure
    row = next(line for line in out.splitlines() if line.startswith("FlashAttention   "))
    assert row.split() == ["FlashAttention", "75.2", "962.5", "4.4", "4.38", "7.3", "2.8"], row


def test_io_curve():
    path = cli.FOLDER / "curve.svg"
    out = succeeds("io", "--curve", "--svg", path)
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d+ ", line)]
    assert [row[0] for row in rows] == ["16", "32", "64", "128", "256", "512", "1024"]
    flash1 = [float(row[4]) for row in rows]
    assert all(more > less for more, less in zip(flash1, flash1[1:]))
    # At 512 the tiles exceed an A100's 192 KB, and time no longer falls with traffic: as published.
    assert [row[3] for row in rows] == ["yes"] * 5 + ["no"] * 2
    assert [row[6] for row in rows][4:] == ["memory", "products", "products"]
    n, tensor = 1024, 64 * 16 * 1024 * 64 * 2
    assert math.isclose(flash1[4], (15 * tensor + 64 * 16 * n * 4 * (8 + 10)) * 1e-9, rel_tol=1e-3)
    root = xml.etree.ElementTree.parse(path).getroot()
    lines = [e for e in root.iter() if e.get("class", "").startswith("line ")]
    assert len(lines) == 3 and all(e.get("d").count("L") == 6 for e in lines)
    refuses(1, "io", "--curve", "--svg", cli.FOLDER / "no" / "x.svg", says=["--svg", "No such file"])
    refuses(2, "io", "--svg", path, says=["--svg", "--curve"])


def test_io_softmax():
    out = succeeds("io", "--softmax", "--memory", "1024", "--shape", "3,5,7,1000,1", "--dtype", "f32")
    rows = {line[:12].strip(): line[13:].split() for line in out.splitlines()[3:]}
    n, tile = 3 * 5 * 7 * 1000, (1024 - 16) // 4
    tiles = 3 * 5 * 7 * ceil(1000, tile)
    assert "does not hold a row" in out
    for form, expected in (("three passes", 16 * n), ("two passes", 12 * n), ("streaming", 8 * n + 12 * tiles)):
        assert rows[form][:4] == [str(tile), str(ceil(1000, tile)), str(expected), str(expected)], rows
    refuses(2, "io", "--softmax", "--memory", "17", says=["17 bytes", "too small", "18 bytes"])


def test_documented_output():
    """What docs/lab.md shows is what the commands say."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\n\$ attn ((?:io|split)\b[^\n]*)\n(.*?)^```$", text, re.M | re.S)
    assert len(shown) >= 4, "docs/lab.md shows too little"
    for command, expected in shown:
        assert succeeds(*command.split()) == expected, f"attn {command} says something else now"


HEADER = '"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'


def test_io_profile():
    path = cli.FOLDER / "ncu.csv"
    text = "==PROF== Connected\nB Hq\n"
    kernels = (("standard_sm80_bf16_d64_scores", 1, 2000), ("standard_sm80_bf16_d64_softmax", 20, 3),
               ("standard_sm80_bf16_d64_output", 300, 4), ("flash1_sm80_bf16_d64", 55, 66),
               ("flash1_sm80_bf16_d64", 57, 64), ("forward_sm90_bf16_d64_v64_192x128", 7, 8))
    for number, (kernel, read, written) in enumerate(kernels):
        text += HEADER
        for metric, value in (("dram__bytes_read.sum", read), ("dram__bytes_write.sum", written),
                              ("gpu__time_duration.sum", 1)):
            text += f'"{number}","1","{kernel}","a ""section""","{metric}","byte","{value * 1000000:,}"\n'
    path.write_text(text + "==PROF== Disconnected\n")
    out = succeeds("io", "--profile", path)
    rows = {line.split()[0]: line for line in out.splitlines() if re.match(r"(standard|flash\d) +\d+ x", line)}
    assert re.search(r" 0\.321 +2\.007 ", rows["standard"]), rows
    assert re.search(r" 0\.056 +0\.065 ", rows["flash1"]), rows  # the mean of two
    assert re.match(r"flash2 +192 x 128 .* 0\.007 +0\.008 .* forward_sm90_bf16_d64_v64_192x128$", rows["flash2"]), rows
    path.write_text(HEADER)
    assert "no kernel forward_sm" in succeeds("io", "--profile", path)
    path.write_text(text)
    # What flash1's kernel asks for: K, V; Q in 4 passes; O in float32 between them, m, l; O and LSE.
    n, d = 1024, 64
    kernel = 1024 * (2 * (2 * n * d + 4 * n * d + n * d) + 6 * 4 * (n * d + 2 * n) + 4 * n)
    assert f" {kernel * 1e-9:.3f} " in rows["flash1"], (rows, kernel)
    refuses(1, "io", "--profile", cli.FOLDER / "nothing", says=["--profile", "No such file"])


def test_io_measure_says_what_is_missing():
    got, out, err = cli.attn("io", "--measure")
    if "CUDA back end yes" not in succeeds("info"):
        assert got == 2 and "ATTN_CUDA=ON" in err, err
    elif got != 0:
        assert got == 1 and err.startswith("attn io: ") and err.count("\n") == 1, err
    else:
        assert "flash2" in out


def test_io_usage():
    refuses(2, "io", "--memory", "100", says=["100 bytes", "too small for one tile", "512 bytes"])
    refuses(2, "io", "--memory", "200", "--rule", "fit", says=["200 bytes", "too small for one tile"])
    refuses(2, "io", "--memory", "0", says=["--memory", "'0'", "from 1"])
    for shape in ("1,2,3,4", "1,2,3,4,5,6", "0,1,1,1,1", "1,1,9999999,1,1", "1,1,8,8,5000", "x"):
        refuses(2, "io", "--shape", shape, says=["--shape", shape, "B,H,Sq,Sk,D"])
    refuses(2, "io", "--tiles", "3", says=["--tiles", "BR,BC"])
    refuses(2, "io", "--tiles", "1,1", "--shape", "1,1,100000,100000,8", says=["tiles", "walked through"])
    refuses(2, "io", "--numbers", "--shape", "1,1,4096,4096,64", says=["--numbers"])
    refuses(2, "io", "--chip", "b200", says=["--chip", "b200", "h200"])
    refuses(2, "io", "--measure", "--profile", "x", says=["--measure", "--profile"])
    refuses(2, "io", "--save", "x", says=["--save", "--measure"])
    refuses(2, "io", "--profile", "x", "--dtype", "f32", says=["--dtype", "f16"])
    refuses(2, "io", "--profile", "x", "--shape", "1,1,8,8,32", says=["--shape", "32", "64 and 128"])
    refuses(1, "io", "--csv", cli.FOLDER / "no" / "x", says=["--csv", "No such file"])


# ---------------------------------------------------------------- plot


def test_plot():
    source, picture = cli.FOLDER / "a.csv", cli.FOLDER / "a.svg"
    source.write_text('# a comment\nn,ms,what,"a, b"\n4,2.5,"x, ""y""",1\n2,1,"x, ""y""",1\n2,3,z,2\n8,5,z,1\n')
    columns = ("--x", "n", "--y", "ms", "--by", "what")
    succeeds("plot", source, *columns, "--svg", picture, "--title", "A <B> & C", "--roof", "4,1")
    root = xml.etree.ElementTree.parse(picture).getroot()
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {"A <B> & C", 'x, "y"', "z", "roof", "n", "ms", str(source)} <= set(texts), texts
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == 4
    # Points stand in the order of x, from left to right and on the page.
    for line in (e for e in root.iter() if e.get("class", "").startswith("line")):
        places = [tuple(map(float, place.split())) for place in re.split("[ML]", line.get("d"))[1:]]
        assert places == sorted(places) and all(0 < x < 720 and 0 < y < 440 for x, y in places), places
    succeeds("plot", source, *columns, "--svg", picture, "--where", "a, b=2", "--linear")
    assert picture.read_text().count("<circle") == 1
    refuses(2, "plot", source, says=["--x"])
    refuses(2, "plot", *columns, "--svg", picture, says=["no CSV"])
    refuses(2, "plot", source, *columns, "--svg", picture, "--where", "n", says=["--where", "COLUMN=VALUE"])
    refuses(2, "plot", source, *columns, "--svg", picture, "--roof", "4", says=["--roof", "PEAK,RATE"])
    refuses(1, "plot", source, *columns, "--svg", picture, "--where", "m=1", says=["a.csv", "no column", "m"])
    refuses(1, "plot", source, *columns, "--svg", picture, "--where", "n=1", says=["no row"])
    refuses(1, "plot", cli.FOLDER / "b.csv", *columns, "--svg", picture, says=["b.csv", "No such file"])
    refuses(1, "plot", source, *columns, "--svg", cli.FOLDER / "no" / "x", says=["--svg", "No such file"])
    source.write_text("n,ms,what\n1,-1,x\n")
    refuses(1, "plot", source, *columns, "--svg", picture, says=["a.csv", "-1", "numbers above 0"])
    source.write_text("n,ms,what\n1,1\n")
    refuses(1, "plot", source, *columns, "--svg", picture, says=["a.csv", "as many cells"])
    source.write_text("n,ms,what\n" + "".join(f"1,1,{i}\n" for i in range(9)))
    refuses(1, "plot", source, *columns, "--svg", picture, says=["a.csv", "more than 8"])


def test_pictures():
    """Those of docs/images are what the commands beside them draw."""
    root = pathlib.Path(__file__).parents[2]
    (cli.FOLDER / "bench").symlink_to(root / "bench")
    (cli.FOLDER / "docs" / "images").mkdir(parents=True)
    text = (root / "docs" / "images" / "README.md").read_text(encoding="utf-8")
    commands = re.search(r"```\n(.*?)```", text, re.S).group(1).replace("\\\n", " ").split("\n")
    for command in filter(None, commands):
        subprocess.run([cli.ATTN, *shlex.split(command)[1:]], cwd=cli.FOLDER, check=True, capture_output=True)
    made = sorted((cli.FOLDER / "docs" / "images").glob("*.svg"))
    assert len(made) >= 5
    for picture in made:
        assert picture.read_text() == (root / "docs" / "images" / picture.name).read_text(), picture.name


# ---------------------------------------------------------------- split


def split_rows(out):
    return {line[:8].strip(): line[8:].split() for line in out.splitlines() if line.startswith(("sliced K", "split Q"))}


def test_split():
    out = succeeds("split", "--shape", "1,1,64,96,16", "--tiles", "32,32", "--warps", "2")
    rows = split_rows(out)
    assert rows["sliced K"][:3] == rows["split Q"][:3] == ["32", "x", "32"]
    # Barriers: two for each tile of K and V, two for each step that exchanges.
    assert rows["sliced K"][8:10] == ["18", "6"] and rows["split Q"][8:10] == ["12", "6"]
    assert rows["sliced K"][10] == "512" and rows["split Q"][10] == "256"
    rows = split_rows(succeeds("split"))
    steps, warps, br, d = 64 * 4, 4, 16, 64
    exchange = 1024 * steps * br * 4 * (warps + warps * warps + warps * (1 + d) + warps * (2 + d))
    assert math.isclose(float(rows["sliced K"][5]), exchange * 1e-9, abs_tol=0.006), (rows, exchange)
    assert float(rows["split Q"][5]) == 0


def test_split_measures_or_says_why_not():
    out = succeeds("split", "--measure", "--shape", "1,1,128,128,64")
    assert "skipped: " in out or "forward_sm" in out


def test_split_usage():
    refuses(2, "split", "--shape", "1,2", says=["--shape", "B,H,Sq,Sk,D"])
    refuses(2, "split", "--tiles", "1,2,3", says=["--tiles", "BR,BC"])
    refuses(2, "split", "--warps", "0", says=["--warps", "'0'"])
    refuses(2, "split", "--chip", "cpu", says=["--chip", "cpu", "a100"])


if __name__ == "__main__":
    cli.main(globals())
