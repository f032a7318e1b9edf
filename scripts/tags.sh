#!/bin/sh
# The tags of one image, one a line: tags.sh IMAGE VERSION NEWEST PYTHON DEFAULT_PYTHON TARGET
# VERSION, and latest when it is the newest, with the target (slim has no name of its own), and -pyX.Y; the default Python
# without it too. A registry takes small letters only.
set -eu
image=$(printf %s "$1" | tr '[:upper:]' '[:lower:]') version=$2 newest=$3 python=$4 default=$5 target=$6
case $target in
    slim) variant= ;;
    slim-*) variant=-${target#slim-} ;;
    *) variant=-$target ;;
esac
if [ "$version" = "$newest" ]; then names="$version latest"; else names=$version; fi
for name in $names; do
    echo "$image:$name$variant-py$python"
    if [ "$python" = "$default" ]; then echo "$image:$name$variant"; fi
done
