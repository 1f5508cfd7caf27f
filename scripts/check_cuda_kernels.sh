#!/usr/bin/env bash
# Compiles every row of src/cuda/kernels.def, and a sample of the variants that a program would compose, for sm_80 and
# sm_90a. Fails on a spill, on a row over its register budget, and on shared memory that neither architecture has; a row
# whose tiles are made for the larger shared memory of sm_90 is not compiled for sm_80.
# Needs nvcc, and for the sample BUILD/bin/attn of a build with CUDA.
#
# usage: scripts/check_cuda_kernels.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/.."
attn=${1:-build}/bin/attn
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nvcc=${NVCC:-nvcc}
if ! command -v "$nvcc" >/dev/null; then
    echo "no nvcc here"
    exit 77
fi

# Lines: name, source, capability, options, threads, registers (0: 255), shared bytes, separated by bars.
python3 - >"$work/rows" <<'PYTHON'
import re
text = re.sub(r"/\*.*?\*/", "", open("src/cuda/kernels.def").read(), flags=re.S)
for row in re.findall(r"ATTNI_CUDA_KERNEL\(([^)]*)\)", text):
    print("|".join(re.sub(r"\s+", " ", field).strip().strip('"') for field in row.split(",")))
PYTHON
if "$attn" precompile --list --capability 80 >/dev/null 2>&1; then
    # One dtype for each architecture: they compile to the same code but for the instructions' type.
    for pair in 80:bf16 90:f16 90:f8_e4m3; do
        "$attn" precompile --list --capability "${pair%:*}" --dtype "${pair#*:}" --dims 32,96,64,320,256 --dims-v 32,96,256,160,256 |
            awk -F'|' -v OFS='|' -v only="${pair%:*}" '{ print $1, $2, $3, $4, $5, 0, $6, only }'
    done >>"$work/rows"
else
    echo "check_cuda_kernels: no composed variants, there is no $attn with 'precompile'"
fi

check() { # ARCH NAME SOURCE OPTIONS THREADS REGISTERS SHARED
    local log limit=166912 budget=$6
    [ "$1" = sm_90a ] && limit=232448
    if [ "$1" = sm_80 ] && [ "$7" -gt "$limit" ]; then
        printf 'skip   %-7s %-40s its %s bytes of shared memory are for sm_90\n' "$1" "$2" "$7"
        return
    fi
    [ "$budget" -eq 0 ] && budget=$((65536 / $5 < 255 ? 65536 / $5 : 255))
    # shellcheck disable=SC2086 # options are several words
    if ! log=$("$nvcc" -cubin -std=c++17 -arch="$1" -Xptxas -v -DENTRY="$2" $4 -o /dev/null "src/cuda/kernels/$3" 2>&1); then
        printf 'FAILED %-7s %-40s does not compile\n%s\n' "$1" "$2" "$log"
        return
    fi
    # A source may make several kernels of a row: the most registers, and all spills.
    local registers spilled
    registers=$(sed -n 's/.*Used \([0-9]*\) registers.*/\1/p' <<<"$log" | sort -n | tail -n 1)
    spilled=$(grep -o '[0-9]* bytes spill' <<<"$log" | awk '{ n += $1 } END { print NR ? n : 1 }')
    local word=ok
    { [ "${registers:-999}" -gt "$budget" ] || [ "$spilled" -gt 0 ] || [ "$7" -gt "$limit" ]; } && word=FAILED
    printf '%-6s %-7s %-40s %3s of %3s registers, %s bytes spilled, %6s of %s bytes shared\n' \
        "$word" "$1" "$2" "$registers" "$budget" "$spilled" "$7" "$limit"
}
export -f check
export nvcc

while IFS='|' read -r name source capability options threads registers shared only; do
    for arch in sm_80 sm_90a; do
        [ -n "${only:-}" ] && [ "${arch//[!0-9]/}" != "$only" ] && continue
        [ "${arch//[!0-9]/}" -ge "$capability" ] || continue
        printf '%s\0' "$arch" "$name" "$source" "$options" "$threads" "$registers" "$shared"
    done
done <"$work/rows" | xargs -0 -n 7 -P "${JOBS:-$(nproc)}" bash -c 'check "$@"' check | tee "$work/table"

failed=$(grep -c '^FAILED' "$work/table" || true)
echo "$(grep -c '^ok' "$work/table" || true) passed, $failed failed"
[ "$failed" -eq 0 ] && [ -s "$work/table" ]
