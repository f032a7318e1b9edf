#!/bin/sh
# Run the test suite on each Python of $PYTHONS that is installed: on PATH, or by pyenv.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    if command -v "python$1" >/dev/null && "python$1" -c '' 2>/dev/null; then
        command -v "python$1"
        return
    fi
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}

failed="" skipped="" passed=""
for version in $PYTHONS; do
    python=$(find_python "$version")
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
