#!/usr/bin/env bash
# Installs a build into an empty prefix and builds a program against it, by pkg-config and by find_package,
# with the shared and with the static library. usage: run.sh BUILD_FOLDER SCRATCH_FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
rm -rf "$2"
mkdir -p "$2"
scratch=$(cd "$2" && pwd)
prefix=$scratch/prefix
compiler=${CC:-cc}

cmake --install "$build" --prefix "$prefix" > "$scratch/install.log"
for file in include/attn/attn.h bin/attn; do
    [ -e "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done
"$prefix/bin/attn" --version

cmake -S "$here" -B "$scratch/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler" > "$scratch/cmake.log"
cmake --build "$scratch/cmake" >> "$scratch/cmake.log"
"$scratch/cmake/with_shared"
"$scratch/cmake/with_static"
echo "find_package: both libraries work"

if command -v "${CXX:-c++}" > /dev/null; then
    cmake -S "$here" -B "$scratch/cmake_cxx" -DCMAKE_PREFIX_PATH="$prefix" -DLANGUAGE=CXX > "$scratch/cmake_cxx.log"
    cmake --build "$scratch/cmake_cxx" >> "$scratch/cmake_cxx.log"
    "$scratch/cmake_cxx/with_shared"
    "$scratch/cmake_cxx/with_static"
    echo "find_package: both libraries work in C++ without C"
fi

if ! command -v pkg-config > "$scratch/pkg-config.log"; then
    echo "pkg-config is absent: attn.pc was not tried"
    exit 0
fi
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name attn.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir attn)
read -ra cflags <<< "$(pkg-config --cflags attn)"
read -ra libs <<< "$(pkg-config --libs attn)"
read -ra static_libs <<< "$(pkg-config --static --libs-only-other attn) $(pkg-config --static --libs-only-l attn | sed 's/-lattn//')"

"$compiler" "${cflags[@]}" "$here/consumer.c" -o "$scratch/pc_shared" "${libs[@]}"
LD_LIBRARY_PATH=$libdir "$scratch/pc_shared"
"$compiler" "${cflags[@]}" "$here/consumer.c" -o "$scratch/pc_static" "$libdir/libattn.a" "${static_libs[@]}"
"$scratch/pc_static"
echo "pkg-config: both libraries work"
