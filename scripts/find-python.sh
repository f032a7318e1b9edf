#!/bin/sh
# Print the path of Python $1 (3.12), from PATH or from pyenv; nothing when it is not installed.
if command -v "python$1" >/dev/null && "python$1" -c '' 2>/dev/null; then
    command -v "python$1"
    exit
fi
for candidate in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if [ -x "$candidate" ]; then
        echo "$candidate"
        exit
    fi
done
