#!/usr/bin/env bash
# Puts the optional tools of the tests on a Debian-like machine, when run as root; elsewhere, or with
# ATTN_NO_INSTALL=1, changes nothing, and the steps that miss a tool are skipped by name.
set -u
packages=()
want() { command -v "$1" > /dev/null || packages+=("${@:2}"); }
want clang clang libclang-rt-dev
want qemu-x86_64 qemu-user
if [ "$(uname -m)" = x86_64 ]; then want aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross; fi
want pkg-config pkg-config
[ -n "${CHROMIUM:-}" ] || command -v google-chrome > /dev/null || want chromium chromium # the page of attn trace
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || [ -n "${ATTN_NO_INSTALL:-}" ] || ! command -v apt-get > /dev/null; then exit 0; fi

echo "installing ${packages[*]} (ATTN_NO_INSTALL=1 forbids it)"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq < /dev/null
for package in "${packages[@]}"; do # one by one: what cannot be had must not cost the others
    if [ "$package" = libclang-rt-dev ]; then # libFuzzer; its name carries clang's version
        package=libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev
    fi
    apt-get install -y -qq --no-install-recommends "$package" < /dev/null > /dev/null 2>&1 ||
        echo "cannot install $package"
done
