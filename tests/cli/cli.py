"""What the tests of the command line share: the command, .npy files, attention in plain Python on tiny shapes, and the
runner, main. Needs nothing but Python 3."""

import math
import os
import pathlib
import pty
import random
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


# ---------------------------------------------------------------- the tests of a module


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
