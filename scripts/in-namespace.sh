#!/bin/sh
# Run a command in a network namespace of its own, with loopback and one address that is not loopback: WebRTC needs
# such a one, and no packet leaves the machine. Needs root.
#
#   sh scripts/in-namespace.sh COMMAND [ARGUMENT...]
exec unshare --net sh -c '
    set -e
    ip link set lo up
    ip link add veth0 type veth peer name veth1
    ip addr add 198.51.100.1/24 dev veth0
    ip link set veth0 up
    ip link set veth1 up
    exec "$@"
' sh "$@"
