#!/usr/bin/env bash
# Runs a build for 64-bit Arm (cmake/aarch64-linux-gnu.cmake) under emulation: every tier against the oracle on a
# processor that has all of them, and on one without FEAT_BF16, to prove that none of its instructions strays into
# an older tier. First shows that the emulator does refuse them. usage: check_aarch64.sh BUILD SCRATCH
set -eu
build=$1
scratch=$2
problems=${PROBLEMS:-240}
compiler=${AARCH64_CC:-aarch64-linux-gnu-gcc}
mkdir -p "$scratch"
ulimit -c 0 # the programs that must die leave no core

emulate() { qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$1" "${@:2}"; }

# lives MODEL FLAG: whether a program of one bf16 multiplication survives on the model.
lives() {
    cat > "$scratch/one.c" << 'END'
#include <arm_neon.h>
int main(int argc, char **argv) {
    (void)argv;
    const bfloat16x8_t x = vreinterpretq_bf16_u16(vdupq_n_u16((uint16_t)(argc - 1)));
    return (int)vgetq_lane_f32(vbfmmlaq_f32(vdupq_n_f32(0), x, x), 0);
}
END
    "$compiler" -O1 -march=armv8.2-a+bf16 "$scratch/one.c" -o "$scratch/one"
    (emulate "$1" "$scratch/one") > /dev/null 2>&1
}
if lives cortex-a57; then
    echo "the emulated cortex-a57 runs bfmmla: this test would prove nothing"
    exit 77
fi
if ! lives max; then
    echo "this emulator's best model has no bfmmla: $(qemu-aarch64 --version | head -n 1)"
    exit 77
fi

# check MODEL PROBLEMS KERNEL...: those kernels, each forced, are compared with the oracle there.
check() {
    local log=$scratch/$1.log kernel
    emulate "$1" "$build/bin/attn" check --problems "$2" --seed 400000 > "$log"
    echo "$1:"
    cat "$log"
    for kernel in "${@:3}"; do
        if ! grep -Eq "^$kernel +[1-9]" "$log"; then
            echo "$kernel computed no problem on an emulated $1"
            exit 1
        fi
    done
}
check max "$problems" forward_neon decode_neon forward_neon_bf16
check cortex-a57 $((problems / 4)) forward_neon decode_neon

echo "max, backward:"
emulate max "$build/bin/attn" check --op backward --isa neon --problems $((problems / 8)) --seed 400000

refusal=$(ATTN_ISA=neon_bf16 emulate cortex-a57 "$build/bin/attn" info | sed -n 's/^ *forward bf16: //p')
if [[ "$refusal" == forward_* || "$refusal" != *neon_bf16* ]]; then
    echo "ATTN_ISA=neon_bf16 on an emulated cortex-a57 gives '$refusal'"
    exit 1
fi
echo "cortex-a57 refuses neon_bf16: $refusal"
