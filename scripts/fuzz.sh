#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS from its committed corpus, under the address and undefined-behaviour
# sanitizers: with clang's libFuzzer, or, where that is absent, with the mutations of tests/fuzz/fuzz_main.c.
# usage: fuzz.sh BUILD_FOLDER
set -eu
cd "$(dirname "$0")/.."
root=$PWD
seconds=${FUZZ_SECONDS:-60}
mkdir -p "$1/found"
build=$(cd "$1" && pwd)
export ASAN_OPTIONS=abort_on_error=1

target='#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return data == NULL && size > 0; }'
if clang -fsanitize=fuzzer -x c - -o "$build/probe" <<< "$target" 2> /dev/null; then
    engine=libFuzzer
    options=(-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DATTN_FUZZ=ON)
else
    engine=fuzz_main.c
    options=()
fi
cmake -S . -B "$build" -Wno-dev --log-level=WARNING "${options[@]}" -DATTN_OPENMP=OFF \
    -DATTN_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1"
cmake --build "$build" --target fuzz_targets --parallel "$(nproc 2> /dev/null || echo 2)"

count=0
for target in "$build"/bin/fuzz_*; do
    name=$(basename "$target")
    corpus=$root/tests/fuzz/corpus/${name#fuzz_}
    mkdir -p "$build/found/$name" # what is found goes there, never into the committed corpus
    cd "$build/found/$name"
    echo "$name, $seconds seconds, $engine"
    if [ $engine = libFuzzer ]; then
        "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
            -artifact_prefix="$build/found/$name-" . "$corpus"
    else
        "$target" -seconds="$seconds" "$corpus"
    fi
    count=$((count + 1))
done
echo "$count passed, 0 failed"
