#!/usr/bin/env bash
# Calls on a real Kubernetes cluster. "cluster.sh build FOLDER" builds Kubernetes once, in eight minutes of two cores;
# "cluster.sh test FOLDER" starts a cluster of it, after ci/containers.sh has made the image.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=../shared/ci
cluster=$engine/kubernetes
if [ ! -x "$cluster/up.sh" ]; then
    echo "skipped: no cluster can be started here; on one of yours: make test-kubernetes"
    exit
fi
if [ "$1" = build ]; then exec "$cluster/build.sh" "$2"; fi
scratch=$(mktemp -d)
export DOCKER=/usr/bin/docker K8S_RUN=$scratch/kubernetes
runtime=$PWD/$cluster/runc-oom # a kubelet needs it here
trap '"$cluster/down.sh" "$2"; "$engine/engine-down.sh"; rm -rf "$scratch"' EXIT
host=$(DOCKERD_ARGS="--add-runtime runc-oom=$runtime --default-runtime runc-oom" "$engine/engine-up.sh")
eval "$host"
gcc -Os -static -s -o "$scratch/pause" "$cluster/pause.c"
"$DOCKER" build -q -t local/pause:1 -f "$cluster/Dockerfile.pause" "$scratch" >/dev/null
"$DOCKER" build -q -t bot:1 examples/echo >/dev/null
eval "$("$cluster/up.sh" "$2")"
KUBE_PROXY_PID=$(cat "$K8S_RUN/pids/proxy") timeout 900 make test-kubernetes PYTEST=-s
