# Builds for 64-bit Arm Linux on another machine, with Debian's packages gcc-aarch64-linux-gnu and
# libc6-dev-arm64-cross; ctest runs the tests under qemu-user:
#   cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
#   cmake --build build/aarch64 --parallel && (cd build/aarch64 && ctest)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(attn_cross_cxx aarch64-linux-gnu-g++) # only a test of the header is C++
if(attn_cross_cxx)
    set(CMAKE_CXX_COMPILER ${attn_cross_cxx})
else()
    set(CMAKE_CXX_COMPILER "") # not the host's
endif()

# Where Debian keeps libraries for other architectures; headers and libraries come from nowhere else.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(attn_qemu qemu-aarch64)
if(attn_qemu)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${attn_qemu} -L /usr/aarch64-linux-gnu)
endif()
