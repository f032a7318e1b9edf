#!/bin/sh
# Copy the locks of a folder into requirements. They were resolved elsewhere, by code that nobody here has read: anything
# but pins, hashes and digests is refused.
#
#     take-locks.sh FOLDER
set -eu
from=$(realpath "$1")
cd "$(dirname "$0")/.."
hash='sha256:[0-9a-f]{64}'
name='[A-Za-z0-9][A-Za-z0-9._-]*'
pin="$name(\[$name(,$name)*\])?==[A-Za-z0-9.+!]+( ; [A-Za-z0-9_.' <>=!()]+)?( \\\\)?"
for lock in requirements/*.lock; do
    lines="$pin|    --hash=$hash( \\\\)?"
    if [ "$lock" = requirements/containers.lock ]; then lines="[a-z0-9][a-z0-9./-]*:$name@$hash"; fi
    file=$from/${lock##*/}
    if [ -L "$file" ] || ! [ -s "$file" ] || grep -aEvxn "$lines" "$file"; then
        echo "take-locks: ${lock##*/} is missing, or has more than pins and hashes: see above" >&2
        exit 1
    fi
    cp "$file" "$lock"
done
