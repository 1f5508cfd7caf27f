#!/usr/bin/env bash
# The tests of the command line. usage: ATTN=path/to/attn run.sh
set -eu
if ! command -v python3 > /dev/null; then
    echo "no python3 here (Debian: apt-get install python3)"
    exit 77
fi
status=0
for tests in cli_test.py cli_run_test.py cli_lab_test.py trace_test.py; do
    python3 "$(dirname "$0")/$tests" "${ATTN:?the path of the command}" || status=1
done
exit $status
