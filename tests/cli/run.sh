#!/usr/bin/env bash
# The tests of the command line. usage: ATTN=path/to/attn run.sh
set -eu
if ! command -v python3 > /dev/null; then
    echo "no python3 here (Debian: apt-get install python3)"
    exit 77
fi
exec python3 "$(dirname "$0")/cli_test.py" "${ATTN:?the path of the command}"
