#!/usr/bin/env bash
# Everything that this machine can test. usage: test.sh [asan|tsan|fuzz]
# One line a step, a failing step's output below it, and last "N passed, N failed[, N skipped]". A step counts
# as the sum of the closing lines of that form in its output, or as one. Exit status 77 of a step means skipped:
# the last line of its output says why.
set -u
cd "$(dirname "$0")/.." || exit 1
only=${1:-all}
jobs=$(nproc 2> /dev/null || echo 2)
build=build/test
logs=$build/logs
mkdir -p "$logs"
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

passed=0 failed=0 skipped=0
closing='^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$'

# sum LOG WORD: the sum of "N WORD" over the closing lines of a log.
sum() {
    grep -E "$closing" "$1" | grep -oE "[0-9]+ $2" |
        awk '{n += $1} END {print n + 0}'
}

# start NAME COMMAND [ARGUMENT]...: a step beside others, until it is collected. For what keeps one processor busy.
start() {
    local name=$1
    shift
    {
        local started=$SECONDS
        ("$@") > "$logs/$name.log" 2>&1 < /dev/null
        echo "$? $((SECONDS - started))" > "$logs/$name.end"
    } &
    echo $! > "$logs/$name.process"
}

# collect NAME: waits for a step, says how it ended, and gives its status.
collect() {
    local name=$1 log=$logs/$1.log status seconds good bad
    wait "$(cat "$logs/$name.process")"
    read -r status seconds < "$logs/$name.end"
    if [ "$status" = 77 ]; then
        skipped=$((skipped + 1))
        printf 'skip  %-24s %4s s  %s\n' "$name" "$seconds" "$(tail -n 1 "$log")"
        return 77
    fi
    good=$(sum "$log" passed) bad=$(sum "$log" failed)
    skipped=$((skipped + $(sum "$log" skipped)))
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    if [ "$good" = 0 ] && [ "$bad" = 0 ]; then good=1; fi
    passed=$((passed + good)) failed=$((failed + bad))
    if [ "$bad" = 0 ]; then
        printf 'ok    %-24s %4s s  %s passed\n' "$name" "$seconds" "$good"
        return 0
    fi
    printf 'FAIL  %-24s %4s s  %s passed, %s failed; the end of %s:\n' "$name" "$seconds" "$good" "$bad" "$log"
    tail -n 60 "$log" | sed 's/^/      /'
    return 1
}

# step NAME COMMAND [ARGUMENT]...: by itself.
step() {
    start "$@"
    collect "$1"
}

finish() {
    if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
    [ $failed = 0 ]
}

# need TOOL PACKAGE: for a step's beginning; skips it where the tool is absent.
need() {
    if ! command -v "$1" > /dev/null; then
        echo "no $1 here (Debian: apt-get install $2)"
        exit 77
    fi
}

# compile NAME [CMAKE OPTION]...
compile() {
    cmake -S . -B "$build/$1" -Wno-dev --log-level=WARNING "${@:2}" && cmake --build "$build/$1" --parallel "$jobs"
}

compile_gcc() { (need gcc gcc; compile gcc -DATTN_WERROR=ON -DCMAKE_C_COMPILER=gcc); }
compile_clang() { (need clang clang; compile clang -DATTN_WERROR=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++); }
compile_asan() { # instrumented code gets warnings of its own: they are no errors here
    compile asan -DATTN_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1"
}
compile_tsan() { # without OpenMP, whose runtime the sanitizer cannot see into: the tests bring their own threads
    compile tsan -DATTN_SANITIZE=thread -DATTN_OPENMP=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1"
}

# programs NAME [CTEST OPTION]...: the ctest programs of a build. Indented, so that only the closing lines
# taken from ctest's own log count.
programs() {
    (cd "$build/$1" && ctest --no-tests=error --output-on-failure --timeout 600 -j "$jobs" "${@:2}") 2>&1 | sed 's/^/  /'
    local status=${PIPESTATUS[0]}
    grep -E "$closing" "$build/$1/Testing/Temporary/LastTest.log"
    return "$status"
}

command_line() { ATTN=$PWD/$build/$1/bin/attn bash tests/cli/run.sh; }
page() { (need python3 python3; python3 tests/page/page_test.py "$build/$1/bin/attn" "$build/page"); } # screenshots there
old_cpu() {
    (need qemu-x86_64 qemu-user
     [ "$(uname -m)" = x86_64 ] || { echo "this machine is not x86-64"; exit 77; }
     scripts/check_old_cpu.sh "$build/gcc/bin/attn" "$build/old-cpu")
}
# On a 64-bit Arm machine the other steps compile and test what these do.
compile_aarch64() {
    (need aarch64-linux-gnu-gcc "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
     need qemu-aarch64 qemu-user
     [ "$(uname -m)" != aarch64 ] || { echo "this machine is 64-bit Arm itself"; exit 77; }
     echo 'int main(void) { return 0; }' | aarch64-linux-gnu-gcc -x c - -o "$build/aarch64.out" ||
         { echo "aarch64-linux-gnu-gcc cannot link (Debian: apt-get install libc6-dev-arm64-cross)"; exit 77; }
     cmake -S . -B "$build/aarch64" -Wno-dev --log-level=WARNING -DATTN_WERROR=ON \
         -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake &&
         cmake --build "$build/aarch64" --parallel "$jobs" --target attn_tool attn_shared \
             dispatch_test errors_test structs_test)
}
compile_cuda() { compile cuda -DATTN_CUDA=ON -DATTN_CUDA_EMBED=OFF -DATTN_WERROR=ON -DCMAKE_C_COMPILER=gcc; }
cuda_device() { rm -rf "$build/cuda-cache" && XDG_CACHE_HOME=$PWD/$build/cuda-cache "$build/cuda/tests/device_test" 5000; }
cuda_kernels() { (need "${NVCC:-nvcc}" nvidia-cuda-toolkit; scripts/check_cuda_kernels.sh "$build/cuda"); }
fuzz() { FUZZ_SECONDS=$1 scripts/fuzz.sh "$build/fuzz"; }
documents() { (need python3 python3; python3 scripts/check_docs.py); }

asan_steps() {
    step asan-build compile_asan || return
    step asan-programs programs asan -E 'attn_check|bits_(tiles_)?test|gradients_test|backward_test' # minutes there, and no new memory
    start asan-check "$build/asan/bin/attn" check --problems 1000 --seed 200000
    step asan-check-backward "$build/asan/bin/attn" check --op backward --problems 100 --seed 200000
    collect asan-check
}
tsan_programs() { programs tsan -R threads_test; }
tsan_steps() {
    step tsan-build compile_tsan || return
    step tsan-programs tsan_programs
}

scripts/tools.sh

case $only in
asan) asan_steps ;;
tsan) tsan_steps ;;
fuzz) step fuzz fuzz "${FUZZ_SECONDS:-60}" ;;
all)
    start format scripts/format.sh --check
    step documents documents
    step gcc-build compile_gcc
    gcc_built=$?
    collect format
    if [ $gcc_built = 0 ]; then
        step programs programs gcc -E attn_check
        start check "$build/gcc/bin/attn" check --problems 20000 --seed 1
        step check-backward "$build/gcc/bin/attn" check --op backward --problems 5000 --seed 1
        step command-line command_line gcc
        step page page gcc
        step symbols scripts/check_symbols.sh "$build/gcc/lib/libattn.so"
        step bench-structs python3 bench/attn_abi.py "$build/gcc/lib/libattn.so"
        step version scripts/check_version.sh "$build/gcc/bin/attn"
        step package tests/package/run.sh "$build/gcc" "$build/package"
        collect check
        start old-cpu old_cpu
        step demo scripts/demo.sh "$build/gcc/bin/attn"
        collect old-cpu
    fi
    if step aarch64-build compile_aarch64; then
        start aarch64-check scripts/check_aarch64.sh "$build/aarch64" "$build/aarch64-check"
        step aarch64-programs programs aarch64 -R 'dispatch_test|errors_test|structs_test'
        collect aarch64-check
    fi
    if step clang-build compile_clang; then
        start clang-check "$build/clang/bin/attn" check --problems 1000 --seed 300000
        step clang-check-backward "$build/clang/bin/attn" check --op backward --problems 100 --seed 300000
        collect clang-check
    fi
    if step cuda-build compile_cuda; then # every kernel is compiled below, so the build embeds none
        start cuda-command-line command_line cuda
        step cuda-programs programs cuda -R '^(cuda_|no_driver)'
        collect cuda-command-line
        step cuda-device cuda_device
        step check-cuda-kernels cuda_kernels
    fi
    asan_steps
    if step tsan-build compile_tsan; then
        start tsan-programs tsan_programs
        step fuzz fuzz 10
        collect tsan-programs
    else
        step fuzz fuzz 10
    fi
    ;;
*)
    echo "usage: test.sh [asan|tsan|fuzz]"
    exit 2
    ;;
esac
finish
