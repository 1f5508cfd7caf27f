#!/usr/bin/env bash
# Formats all sources in place, or with --check says which ones are not formatted. The version is pinned,
# because each lays code out a little differently. Exit status 77: clang-format cannot be had.
set -eu
cd "$(dirname "$0")/.."
version=23.1.5
venv=build/venv
tool=$venv/bin/clang-format

if ! "$tool" --version 2>/dev/null | grep -qF "$version"; then
    mkdir -p build
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "clang-format==$version"; } > build/venv.log 2>&1; then
        echo "clang-format $version cannot be had from PyPI (see build/venv.log)"
        exit 77
    fi
fi

unformatted=0
while read -r file; do
    if [ ! -e "$file" ]; then continue; fi # deleted, not yet committed
    if [ "${1:-}" != --check ]; then
        "$tool" -i "$file"
    elif ! "$tool" --dry-run --Werror "$file" 2> /dev/null; then
        echo "not formatted: $file"
        unformatted=1
    fi
done < <(git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh')
if [ $unformatted = 1 ]; then echo "make format does it"; fi
exit $unformatted
