#!/bin/sh
# Is there a wheel of every package that the image locks, for every Python and platform that it is published for?
set -eu
cd "$(dirname "$0")/.."
uv=${1:-uv}
for lock in bootstrap launcher full client; do
    for python in 3.11 3.12 3.13 3.14; do
        for platform in aarch64 x86_64; do
            # docopt has none, and is Python alone: the image builds it with what build.lock has.
            "$uv" pip install --quiet --dry-run --no-deps --target /nonexistent --require-hashes --only-binary :all: \
                --no-binary docopt --python-version "$python" --python-platform "$platform-manylinux_2_28" \
                -r "requirements/$lock.lock" || {
                echo "wheels: $lock.lock on Python $python, $platform: see above"
                exit 1
            }
        done
    done
done
echo "wheels: every package of bootstrap, launcher, full and client, on Python 3.11 to 3.14, aarch64 and x86_64"
