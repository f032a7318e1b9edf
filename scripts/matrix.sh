#!/bin/sh
# Run the test suite on each Python of $PYTHONS that is installed.
set -eu
cd "$(dirname "$0")/.."

failed="" skipped="" passed=""
for version in $PYTHONS; do
    python=$(sh scripts/find-python.sh "$version")
    if [ -z "$python" ]; then
        skipped="$skipped $version"
        continue
    fi
    echo "== Python $version"
    if make --no-print-directory test PYTHON="$python" VENV=".venv-$version"; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done
echo "matrix: passed:${passed:- none}; failed:${failed:- none}; not installed:${skipped:- none}"
[ -z "$failed" ] && [ -n "$passed" ]
