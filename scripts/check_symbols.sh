#!/usr/bin/env bash
# Compares what a shared library exports with the committed list. usage: check_symbols.sh LIBRARY [--update]
set -eu
cd "$(dirname "$0")/.."
list=include/attn/symbols.txt
exported=$(nm --dynamic --defined-only --format=posix "$1" | awk '{print $1}' | LC_ALL=C sort)

if [ "${2:-}" = --update ]; then
    printf '%s\n' "$exported" > "$list"
fi
if foreign=$(printf '%s\n' "$exported" | grep -v '^attn_'); then
    echo "$1 exports names that do not begin with attn_:"
    echo "$foreign"
    exit 1
fi
if ! diff -u "$list" - <<< "$exported"; then
    echo "$1 does not export exactly what $list lists; after an intended change: scripts/check_symbols.sh $1 --update"
    exit 1
fi
