#!/usr/bin/env bash
# The image in real containers: with the machine's Docker engine, or a private one and a stand-in for the Python base image.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=../shared/ci
if [ -x "$engine/engine-up.sh" ] && host=$("$engine/engine-up.sh"); then
    eval "$host"
    trap '"$engine/engine-down.sh"' EXIT
    export DOCKER=/usr/bin/docker
    for python in 3.12 3.11; do
        prefix=$("$(sh scripts/find-python.sh "$python")" -c 'import sys; print(sys.base_prefix)')
        BASE_HOST_CA=1 "$engine/make-base.sh" "local/python:$python-ca" trixie "$prefix" >/dev/null
        printf 'FROM local/python:%s-ca\nENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n' "$python" |
            "$DOCKER" build -q -t "local/python:$python" - >/dev/null
    done
    make test-image DOCKER="$DOCKER" BASE_IMAGE=local/python:3.12 OLD_BASE_IMAGE=local/python:3.11
    .venv/bin/python -m benchmarks.image --rounds 1
elif docker info >/dev/null 2>&1; then
    make test-image
else
    echo "skipped: no Docker engine runs or can be started here"
fi
