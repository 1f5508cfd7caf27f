#!/usr/bin/env bash
# Runs the command on emulated processors without the newer instructions, to prove that none strays into an
# older tier. First shows that the emulator does refuse them. usage: check_old_cpu.sh ATTN_COMMAND SCRATCH
set -eu
attn=$1
scratch=$2
problems=${PROBLEMS:-40}
mkdir -p "$scratch"
ulimit -c 0 # the programs that must die leave no core

emulate() { qemu-x86_64 -cpu "$1" "${@:2}"; }

# must_die MODEL FLAG EXPRESSION: a program of one such instruction does not survive there.
must_die() {
    printf '#include <immintrin.h>\nint main(int argc, char **argv) { (void)argv; return %s; }\n' "$3" > "$scratch/one.c"
    "${CC:-cc}" -O1 "$2" "$scratch/one.c" -o "$scratch/one"
    if (emulate "$1" "$scratch/one") > /dev/null 2>&1; then
        echo "the emulated $1 runs $2 code: this test would prove nothing"
        exit 77
    fi
}
must_die Haswell -mavx512f '_mm512_reduce_add_epi32(_mm512_set1_epi32(argc - 1))'
must_die Conroe -mavx2 '_mm256_extract_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(argc - 1), _mm256_set1_epi32(argc)), 3)'
must_die Conroe -msse4.1 '_mm_extract_epi32(_mm_mullo_epi32(_mm_set1_epi32(argc - 1), _mm_set1_epi32(argc)), 3)'

# the kernel that f32 gets on a model, or the sentence that says why none
chosen() { emulate "$1" "$attn" info | sed -n 's/^ *forward f32: //p'; }

# tier MODEL ISA NEWER: the model gets the tier, is refused the newer one by name, and the tier is right.
tier() {
    local kernel refusal
    kernel=$(chosen "$1")
    if [ "$kernel" != "forward_$2" ]; then
        echo "an emulated $1 gets '$kernel', not forward_$2"
        exit 1
    fi
    refusal=$(ATTN_ISA=$3 chosen "$1")
    if [[ "$refusal" == forward_* || "$refusal" != *"$3"* ]]; then
        echo "ATTN_ISA=$3 on an emulated $1 gives '$refusal'"
        exit 1
    fi
    echo "$1, $2 ($3 is refused: $refusal):"
    emulate "$1" "$attn" check --problems "$problems" --seed 500000
    emulate "$1" "$attn" check --op backward --problems $((problems / 4)) --seed 500000
}
tier Haswell avx2 avx512
tier Conroe portable avx2
