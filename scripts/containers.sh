#!/bin/sh
# Digests of the images that come from elsewhere, in requirements/containers.lock: NAME, or NAME@DIGEST once renewed.
#
#     containers.sh pinned NAME    print NAME as the lock has it
#     containers.sh renew          ask the registry for each digest, and write the lock
#     containers.sh write          put the lock's digests wherever an image is named
set -eu
cd "$(dirname "$0")/.."
lock=requirements/containers.lock

pinned() {
    awk -F@ -v name="$1" '$1 == name { print; found = 1 } END { exit !found }' "$lock" || {
        echo "containers: $lock does not have $1" >&2
        exit 1
    }
}

renew() {
    renewed=$(
        while IFS=@ read -r name _; do
            digest=$(docker buildx imagetools inspect "$name" </dev/null | sed -n 's/^Digest: *//p')
            printf '%s\n' "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}' || {
                echo "containers: the registry has no digest of $name" >&2
                exit 1
            }
            echo "$name@$digest"
        done <"$lock"
    )
    printf '%s\n' "$renewed" >"$lock"
}

write() {
    while IFS= read -r pin; do
        name=$(printf '%s\n' "${pin%@*}" | sed 's/[.]/\\./g')
        sed -E -i "s#([ =])$name(@sha256:[0-9a-f]{64})?\$#\1$pin#" Dockerfile deploy/compose/compose.yaml
    done <"$lock"
}

"$@"
