#!/usr/bin/env bash
# Build both targets without Docker: buildah, chroot isolation, packages from a folder of wheels.
#
#   deploy/image/build.sh [TARGET...]              default: service trainer
#
# BASE_IMAGE   the base, e.g. python:3.11.14-slim-bookworm; unset: a Debian bookworm made by debootstrap
# PYTHON       whose pip fetches the wheels, with its own configuration; default: python3
# WORK         where all of it is kept; default: .turnpoint/image
#
# The builds are offline: what the Dockerfile needs is in its context, its base and the wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
WORK=$(mkdir -p "${WORK:-.turnpoint/image}" && cd "${WORK:-.turnpoint/image}" && pwd)
MADE_BASE=localhost/turnpoint-base:bookworm
TORCH=$(sed -n 's/^ARG TORCH=//p' Dockerfile)

buildah() { command buildah --root "$WORK/storage" --runroot "$WORK/run" "$@"; }

make_base() {
    buildah inspect --type image "$MADE_BASE" >/dev/null 2>&1 && return
    echo "base: debootstrap" >&2
    rm -rf "$WORK/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
        "$WORK/base" >"$WORK/debootstrap.log"
    rm -rf "$WORK"/base/var/cache/apt/* "$WORK"/base/var/lib/apt/lists/* "$WORK/base/usr/share/doc" \
        "$WORK/base/usr/share/man" "$WORK/base/usr/share/locale"
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$WORK/base" / >/dev/null
    buildah commit --quiet --rm "$container" "$MADE_BASE" >/dev/null
    rm -rf "$WORK/base"
}

# Wheels for the Python of the base, by the caller's pip: its index, its cache, its proxy.
fetch_wheels() {
    mkdir -p "$WORK/wheels"
    for target in service trainer; do "$PYTHON" deploy/image/needs.py "$target"; done >"$WORK/needs.txt"
    # What only an older patch release than the caller's may need.
    sed -n 's/ *;.*//p' constraints.txt >>"$WORK/needs.txt"
    "$PYTHON" -m pip download --quiet --quiet --disable-pip-version-check --only-binary=:all: \
        --python-version 3.11 -c constraints.txt -d "$WORK/wheels" "$TORCH" hatchling -r "$WORK/needs.txt"
    printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$WORK/pip.conf"
}

if [ -z "${BASE_IMAGE:-}" ]; then
    make_base
    BASE_IMAGE=$MADE_BASE
fi
fetch_wheels
[ $# -gt 0 ] || set -- service trainer
for target in "$@"; do
    echo "build: $target" >&2
    buildah build --isolation chroot --layers --format docker --target "$target" \
        --build-arg "BASE_IMAGE=$BASE_IMAGE" --secret "id=pip,src=$WORK/pip.conf" \
        --volume "$WORK/wheels:/wheels:ro" --tag "localhost/turnpoint-$target:test" . >"$WORK/$target.log" 2>&1 ||
        { tail -40 "$WORK/$target.log" >&2; exit 1; }
done
