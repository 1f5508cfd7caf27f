#!/usr/bin/env python3
"""`attn trace`, from outside: python3 trace_test.py path/to/attn [NAME]...

Its numbers are compared with attention in plain Python, and those of its page with those of the terminal. The page in
a browser is tests/page/page_test.py. Ends with "N passed, N failed".
"""

import json
import math
import pathlib
import random
import re
import struct

import cli
from cli import Array, near, normal, refuses, save, succeeds

TOY_Q = [[1, 0], [0, 1], [1, 1], [1, -1]]
TOY_K = [[1, 0], [0, 2], [2, 1], [-1, 1], [2, -1], [-1, 2]]
TOY_V = [[1, 0], [0, 1], [1, 1], [2, 0], [0, 2], [1, -1]]
CHAPTERS = {"2": "simple", "3": "flash2"}  # the terminal's part, the page's run

# ---------------------------------------------------------------- what the terminal shows


def part(text, number):
    """The lines under the heading "number. ..." up to the next one."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{number}. "))
    end = next((i for i in range(start + 1, len(lines)) if re.match(r"\d\. |Slow memory", lines[i])), len(lines))
    return lines[start + 1:end]


def tiles(lines):
    """The tiles and divisions of a part, in order: ("A[0,1]", {query: [score..., m, l, O...]}), ("O / l", {query: O})."""
    found = []
    for line in lines:
        title = re.match(r"  (A\[\d+,\d+\])", line)
        if title:
            found.append((title.group(1), {}))
        row = re.match(r"  q(\d+).*\|   +(\S.*)$", line)
        if row and "done" not in line:
            found[-1][1][int(row.group(1))] = row.group(2).split()
        division = re.match(r" +q(\d+): O / l +(.*)$", line)
        if division:
            if found[-1][0] != "O / l":
                found.append(("O / l", {}))
            found[-1][1][int(division.group(1))] = division.group(2).split()
    return found


def shown(x):
    """A float32 as the terminal and the page's table show it."""
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    if abs(x) < 0.005:
        return "0.00"
    if abs(x) < 9999.5:
        return f"{x:.{2 if abs(x) < 9.995 else 1 if abs(x) < 99.95 else 0}f}"
    mantissa, exponent = f"{x:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def numbers(words):
    return [float(word) for word in words]


# ---------------------------------------------------------------- attention, tile by tile


def expected(q, k, v, scale, tile, maximum):
    """What tiles() should give, as numbers, and O. In double."""
    found, out = [], []
    for i in range(0, len(q), tile[0]):
        rows = range(i, min(i + tile[0], len(q)))
        state = {r: (-math.inf, 0.0, [0.0] * len(v[0])) for r in rows}
        for j in range(0, len(k), tile[1]):
            block = {}
            for r in rows:
                m, l, o = state[r]
                keys = range(j, min(j + tile[1], len(k)))
                scores = [scale * sum(a * b for a, b in zip(q[r], k[c])) for c in keys]
                top = max([m, *scores]) if maximum else 0.0
                a = math.exp(m - top)
                weights = [math.exp(s - top) for s in scores]
                l = a * l + sum(weights)
                o = [a * x + sum(w * v[c][d] for w, c in zip(weights, keys)) for d, x in enumerate(o)]
                state[r] = (top, l, o)
                block[r] = [*scores, *([top] if maximum else []), l, *o]
            found.append((f"A[{i // tile[0]},{j // tile[1]}]", block))
        found.append(("O / l", {r: [x / state[r][1] for x in state[r][2]] for r in rows}))
        out += [found[-1][1][r] for r in rows]
    return found, out


def close(got, want, digits=3):
    """Shown with 3 digits or two decimals."""
    return abs(got - want) <= max(0.0051, abs(want) * 10.0 ** -(digits - 1))


def agree(got, want, maximum):
    assert [name for name, _ in got] == [name for name, _ in want], (got, want)
    for (name, a), (_, b) in zip(got, want):
        assert a.keys() == b.keys(), (name, a, b)
        for row in b:
            words = a[row] if maximum or name == "O / l" else [w for w in a[row] if w != "-"]
            assert len(words) == len(b[row]), (name, row, words, b[row])
            assert all(close(x, y) for x, y in zip(numbers(words), b[row])), (name, row, words, b[row])


# ---------------------------------------------------------------- the terminal


def test_help():
    text = succeeds("trace", "--help")
    assert text.startswith("usage: attn trace") and all(len(line) <= 110 for line in text.splitlines())
    for name in "q k v scale tile part html color".split():
        assert f"--{name} " in text, name
    assert re.search(r"^ +trace ", succeeds("--help"), re.M)


def test_toy():
    text = succeeds("trace")
    for number, maximum in (("2", False), ("3", True)):
        agree(tiles(part(text, number)), expected(TOY_Q, TOY_K, TOY_V, 1, (2, 2), maximum)[0], maximum)
    standard = [line.split() for line in part(text, "1") if re.match(r"  q\d ", line)]
    scores = [[sum(a * b for a, b in zip(q, k)) for k in TOY_K] for q in TOY_Q]
    _, out = expected(TOY_Q, TOY_K, TOY_V, 1, (2, 2), True)
    for r in range(4):
        weights = [math.exp(s) for s in scores[r]]
        want = [*scores[r], *(w / sum(weights) for w in weights)]
        assert all(close(x, y) for x, y in zip(numbers(standard[r][1:]), want)), (standard[r], want)
        assert all(close(x, y) for x, y in zip(numbers(standard[4 + r][1:]), out[r])), (standard[4 + r], out[r])


def test_tile_in_brackets():
    """The same numbers stand in the whole A between brackets as in the tile beside it."""
    for number in CHAPTERS:
        lines = [x for x in part(succeeds("trace"), number) if "[" in x and "|" in x]
        assert len(lines) == 12
        for line in lines:
            inside, right = re.search(r"\[(.*)\]", line).group(1).split(), line.split("|")[1].split()
            assert inside == right[:2], line


def test_overflow():
    found = tiles(part(succeeds("trace", "--part", "overflow"), "4"))
    assert [name for name, _ in found] == ["A[1,0]", "A[1,1]", "A[1,2]", "O / l"] * 2
    assert all(set(words) == {"nan"} for words in found[3][1].values()), found[3]
    assert any("inf" in words for words in found[1][1].values()), found[1]
    want = expected([[40 * x for x in row] for row in TOY_Q], TOY_K, TOY_V, 1, (2, 2), True)[0][4:]
    agree(found[4:], want, True)


def test_explanations():
    text = "\n".join(part(succeeds("trace"), "3"))
    assert "A[0,1]  m grew: l and O of q0 times 0.37" in text and "A[0,2]  no maximum grew" in text
    assert "inf in float32" in succeeds("trace", "--part", "overflow")
    assert "NaN" in succeeds("trace", "--part", "overflow")


def matrix(array):
    rows, dim = array.shape[-2:]
    return [array.values[r * dim:(r + 1) * dim] for r in range(rows)]


def given(rng, rows, keys, dim, descr="<f4"):
    arrays = [normal(rng, n, dim) for n in (rows, keys, keys)]
    if descr == "<f2":
        arrays = [Array(a.shape, struct.unpack(f"<{len(a.values)}e", struct.pack(f"<{len(a.values)}e", *a.values)), descr)
                  for a in arrays]
    files = [w for name, a in zip("qkv", arrays) for w in (f"--{name}", save(f"{name}.npy", a))]
    return [matrix(a) for a in arrays], files


def test_files():
    rng = random.Random(cli.ATTN)  # fresh ones for each build
    for rows, keys, dim, tile, descr in ((5, 5, 2, (2, 2), "<f4"), (3, 5, 1, (2, 4), "<f2"), (1, 1, 3, (4, 4), "<f4")):
        arrays, files = given(rng, rows, keys, dim, descr)
        text = succeeds("trace", *files, "--tile", f"{tile[0]},{tile[1]}")
        agree(tiles(part(text, "3")), expected(*arrays, 1 / math.sqrt(dim), tile, True)[0], True)
        text = succeeds("trace", *files, "--tile", f"{tile[0]},{tile[1]}", "--scale", "-0.5")
        agree(tiles(part(text, "3")), expected(*arrays, -0.5, tile, True)[0], True)


def test_same_as_run():
    """The same files through the library."""
    arrays, files = given(random.Random(7), 4, 6, 2)
    for name, rows in zip("qkv", arrays):
        save(f"{name}.npy", Array((1, len(rows), 1, 2), [x for row in rows for x in row]))
    succeeds("run", *files, "--o", cli.FOLDER / "o.npy", "--repeat", 1)
    o = cli.load(cli.FOLDER / "o.npy")
    blocks = [block for name, block in tiles(part(succeeds("trace", *files), "3")) if name == "O / l"]
    found = [words for block in blocks for words in block.values()]
    near(Array((8,), [float(w) for words in found for w in words]), Array((8,), o.values), 0.0051)


def test_fits_80_columns():
    text = succeeds("trace")
    assert max(map(len, text.split("\n"))) <= 80
    assert not re.search(r"[ \t]$", text, re.M) and "\033" not in text


def test_colours():
    always = succeeds("trace", "--color", "always")
    assert "\033[36m" in always and re.sub(r"\033\[\d+m", "", always) == succeeds("trace")
    assert "\033" in succeeds("trace", "--color=always", env={"NO_COLOR": "1"})  # what is asked for by name
    status, text = cli.on_a_terminal("trace", env={"TERM": "xterm", "NO_COLOR": ""})
    assert status == 0 and "\033[36m" in text
    for arguments, no_color in ((["--color", "never"], ""), ([], "1")):
        status, text = cli.on_a_terminal("trace", *arguments, env={"TERM": "xterm", "NO_COLOR": no_color})
        assert status == 0 and "\033" not in text


def test_refusals():
    rng = random.Random(3)
    _, files = given(rng, 4, 40, 2)
    refuses(1, "trace", *files, says=["40 keys", "columns", "80", "--html"])
    refuses(1, "trace", *files, "--html", cli.FOLDER / "x.html", says=["--html", "40 keys", "16"])
    assert not (cli.FOLDER / "x.html").exists()
    _, files = given(rng, 65, 4, 2)
    refuses(1, "trace", *files, says=["--q", "(65, 2)", "64"])
    _, files = given(rng, 4, 6, 2)
    refuses(2, "trace", *files[:2], says=["--q, --k and --v"])
    refuses(1, "trace", "--q", "nowhere.npy", *files[2:], says=["--q nowhere.npy", "No such file"])
    for tile in ("2", "0,2", "2,2,2", "2,x", "2,65", ""):
        refuses(2, "trace", "--tile", tile, says=["--tile", "QUERIES,KEYS"])
    refuses(2, "trace", "--color", "sometimes", says=["--color", "auto", "always", "never"])
    refuses(2, "trace", "--part", "middle", says=["--part", "overflow"])
    refuses(2, "trace", "surplus", says=["surplus"])
    refuses(1, "trace", "--html", cli.FOLDER / "no" / "x.html", says=["--html", "No such file"])
    save("v.npy", normal(rng, 6, 3))
    refuses(1, "trace", *files, says=["2, 2 and 3"])
    save("v.npy", normal(rng, 5, 2))
    refuses(1, "trace", *files, says=["K has 6", "V has 5"])
    save("v.npy", normal(rng, 2, 6, 2, 1))
    refuses(1, "trace", *files, says=["--v", "(2, 6, 2, 1)"])
    save("v.npy", Array((6, 2), [1] * 12, "<i4"))
    refuses(1, "trace", *files, says=["--v", "int32", "float32"])
    _, files = given(rng, 16, 16, 8)
    refuses(1, "trace", *files, "--tile", "1,1", "--html", cli.FOLDER / "x.html", says=["bytes", "300000"])


def test_documented_output():
    """What docs/lab.md shows is what the command says; "..." stands for lines left out."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")
    shown_blocks = re.findall(r"^```\n\$ attn (trace\b[^\n]*)\n(.*?)^```$", text, re.M | re.S)
    assert len(shown_blocks) == 2
    for command, block in shown_blocks:
        out = succeeds(*command.split())
        for piece in filter(None, re.split(r"^\.\.\.\n", block, flags=re.M)):
            assert piece in out, f"attn {command} does not say\n{piece}"
            out = out[out.index(piece) + len(piece):]


# ---------------------------------------------------------------- the page's file


def page(*arguments):
    path = cli.FOLDER / "trace.html"
    text = succeeds("trace", *arguments, "--html", path)
    assert str(path) in text
    source = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="trace">(.*?)</script>', source, re.S).group(1)
    return text, source, json.loads(found)


def number(x):
    return float(x) if isinstance(x, str) else x


def states(run):
    """After each event: the event, the tiles of fast memory by name (rows, cols, numbers), and the same by place."""
    slots = {}
    for event in run["events"]:
        for place, name, rows, cols, data in event["x"]:
            assert len(data) == rows * cols
            slots[place] = (name, rows, cols, [number(x) for x in data])
        yield event, {name: rest for name, *rest in slots.values() if name}, {p: s for p, s in slots.items() if s[0]}


def shown_tiles(run):
    """The same as tiles(), from the page's JSON."""
    found, scores = [], None
    for event, held, _ in states(run):
        if event["s"] == "scores":
            scores = held["S"]
        if event["s"] not in ("accumulate", "finish"):
            continue
        end, block = event["s"] == "finish", {}
        first, rows = event["r"]
        dim = held["O"][1]
        for r in range(rows):
            out = held["O"][2][r * dim:(r + 1) * dim]
            m = shown(held["m"][2][r]) if "m" in held else "-"
            row = scores[2][r * scores[1]:(r + 1) * scores[1]]
            words = out if end else [*row, held["l"][2][r], *out]
            words = [shown(x) for x in words]
            if not end:
                words.insert(len(row), m)
            block[first + r] = words
        found.append(("O / l" if end else f"A[{event['i']},{event['j']}]", block))
    return found


def test_page_has_the_terminals_numbers():
    text, _, runs = page()
    for number_of, name in CHAPTERS.items():
        assert shown_tiles(runs[name]) == tiles(part(text, number_of)), name
    large = tiles(part(text, "4"))
    assert shown_tiles(runs["large_simple"])[4:] == large[:4] and shown_tiles(runs["large_flash2"])[4:] == large[4:]
    standard = [line.split() for line in part(text, "1") if re.match(r"  q\d ", line)]
    o = [shown(number(x)) for x in runs["standard"]["O"]]
    assert [w for line in standard[4:] for w in line[1:]] == o
    for name, word in (("standard", "standard"), ("flash2", "FlashAttention-2")):
        read, wrote = re.search(rf"{word} +read +(\d+) B, wrote +(\d+) B", text).groups()
        assert (int(read), int(wrote)) == (runs[name]["read"], runs[name]["written"])


def test_page_of_files():
    _, files = given(random.Random(11), 5, 5, 2)
    text, _, runs = page(*files)
    for number_of, name in CHAPTERS.items():
        assert shown_tiles(runs[name]) == tiles(part(text, number_of)), name


def test_page_counts_bytes():
    _, _, runs = page()
    for run in runs.values():
        read = written = 0
        for event in run["events"]:
            read += event["b"] if event["s"] == "load" else 0
            written += event["b"] if event["s"] == "store" else 0
            assert (event["rd"], event["wr"]) == (read, written)
        assert (read, written) == (run["read"], run["written"])


def test_page_alone():
    """Small, and with nothing in it that a browser would fetch."""
    _, source, _ = page()
    assert len(source.encode()) < 300_000
    asking = r"""https?://|url\((?!data:)|@import|<link(?![^>]*href="data:)|src=|fetch\(|XMLHttp|WebSocket|import\("""
    assert not re.search(asking, source), re.search(asking, source)


def test_page_larger_than_the_terminal():
    _, files = given(random.Random(5), 8, 16, 8)
    path = cli.FOLDER / "trace.html"
    out = succeeds("trace", *files, "--tile", "4,4", "--html", path)
    assert out.count("\n") == 1 and path.stat().st_size < 300_000


def test_file_names_in_the_page():
    _, files = given(random.Random(5), 4, 6, 2)
    path = cli.FOLDER / "<!--<script>.npy"
    pathlib.Path(files[1]).rename(path)
    _, source, runs = page("--q", path, *files[2:])
    assert runs["flash2"]["input"] == str(path) and str(path) not in source


if __name__ == "__main__":
    cli.main(globals())
