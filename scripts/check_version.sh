#!/usr/bin/env bash
# Header, command and changelog tell one version. usage: check_version.sh ATTN_COMMAND
set -eu
cd "$(dirname "$0")/.."
part() { sed -n "s/^#define ATTN_VERSION_$1 //p" include/attn/attn.h; }
version=$(part MAJOR).$(part MINOR).$(part PATCH)

told=$("$1" --version)
if [ "$told" != "attn $version" ]; then
    echo "the header says $version, attn --version says '$told'"
    exit 1
fi
if ! grep -q "^## \[$version\]" CHANGELOG.md; then
    echo "the header says $version, CHANGELOG.md has no heading '## [$version]'"
    exit 1
fi
