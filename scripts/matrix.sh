#!/bin/sh
# Run a target of make, the tests unless TARGET names another, on each Python of $PYTHONS that is installed, $JOBS at once: they wait more than they compute.
set -eu
cd "$(dirname "$0")/.."
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# shellcheck disable=SC2016
# One Python, into a log of its own: printed when it is done, so that those at once do not mix.
one='
python=$(sh scripts/find-python.sh "$2")
if [ -z "$python" ]; then
    echo skipped >"$1/$2.result"
elif make --no-print-directory "${TARGET:-test}" PYTHON="$python" VENV=".venv-$2" >"$1/$2.log" 2>&1; then
    echo passed >"$1/$2.result"
else
    echo failed >"$1/$2.result"
fi
echo "== Python $2: $(cat "$1/$2.result")"
case $(cat "$1/$2.result") in
    failed) cat "$1/$2.log" ;;
    passed) tail -n 5 "$1/$2.log" ;;
esac
'
# shellcheck disable=SC2086
printf '%s\n' $PYTHONS | xargs -P "${JOBS:-1}" -I {} sh -c "$one" sh "$logs" {}
if grep -q failed "$logs"/*.result; then exit 1; fi
grep -q passed "$logs"/*.result || { echo "matrix: none of $PYTHONS is installed"; exit 1; }
