#!/bin/sh
# The tags of one image, one a line: tags.sh IMAGE VERSION PYTHON DEFAULT_PYTHON TARGET
# VERSION and latest, with the target (slim has no name of its own), and -pyX.Y; the default Python without it too.
set -eu
image=$1 version=$2 python=$3 default=$4 target=$5
case $target in
    slim) variant= ;;
    slim-*) variant=-${target#slim-} ;;
    *) variant=-$target ;;
esac
for name in "$version" latest; do
    echo "$image:$name$variant-py$python"
    if [ "$python" = "$default" ]; then echo "$image:$name$variant"; fi
done
