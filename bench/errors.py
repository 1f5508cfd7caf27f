#!/usr/bin/env python3
"""Error of the CPU's forward against float64, by dtype and number of keys, beside a plain float32 program.

usage: bench/errors.py path/to/attn [CSV]     needs NumPy

Standard normal inputs rounded to the dtype, 256 queries, 2 heads, dim 64; O in float32, so that its own rounding to 16
bits, the same for all, does not hide the rest. The error is the norm of O's difference over the norm of O. The plain
program normalises P and rounds it to the dtype, as naive.c of the oracle does.
"""

import csv
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROWS, HEADS, DIM = 256, 2, 64
KEYS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def bf16(x):  # nearest even
    u = x.astype(np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


STORE = {"f32": lambda x: x.astype(np.float32), "f16": lambda x: x.astype(np.float16), "bf16": bf16}
VALUE = {"f32": lambda x: x, "f16": lambda x: x.astype(np.float32),
         "bf16": lambda u: (u.astype(np.uint32) << 16).view(np.float32)}


def attention(q, k, v, real, p_dtype):
    q, k, v = (x.astype(real).transpose(0, 2, 1, 3) for x in (q, k, v))
    s = q @ k.transpose(0, 1, 3, 2) * real(1 / np.sqrt(DIM))
    p = np.exp(s - s.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    if p_dtype != "f32":
        p = VALUE[p_dtype](STORE[p_dtype](p))
    return (p @ v).transpose(0, 2, 1, 3)


def run(attn, folder, dtype, isa):
    command = [attn, "run", "--dtype-o", "f32", "--warmup", "0", "--repeat", "1", "--isa", isa]
    for name in ("q", "k", "v", "o"):
        command += [f"--{name}", folder / f"{name}.npy"]
    command += ["--bf16"] if dtype == "bf16" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return np.load(folder / "o.npy") if done.returncode == 0 else None  # a tier that this machine lacks


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    attn = sys.argv[1]
    out = csv.writer(open(sys.argv[2], "w", newline="", encoding="utf-8") if len(sys.argv) == 3 else sys.stdout)
    out.writerow(("what", "dtype", "keys", "error"))
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for keys in KEYS:
            shapes = {"q": ROWS, "k": keys, "v": keys}
            x = {key: rng.standard_normal((1, rows, HEADS, DIM)) for key, rows in shapes.items()}
            for dtype in ("f32", "f16", "bf16"):
                arrays = {key: STORE[dtype](a) for key, a in x.items()}
                for key, a in arrays.items():
                    np.save(folder / f"{key}.npy", a)
                exact = [VALUE[dtype](a) for a in arrays.values()]
                truth = attention(*exact, np.float64, "f32")
                answers = {"plain": attention(*exact, np.float32, dtype), "libattn": run(attn, folder, dtype, "auto")}
                if dtype == "bf16":
                    answers["vdpbf16ps"] = run(attn, folder, dtype, "avx512_bf16")
                for what, o in answers.items():
                    if o is not None:
                        error = np.linalg.norm(o - truth) / np.linalg.norm(truth)
                        out.writerow((f"{what} {dtype}", dtype, keys, f"{error:.3e}"))


if __name__ == "__main__":
    main()
