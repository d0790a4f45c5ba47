#!/usr/bin/env bash
# `make image-test`: build both images without Docker, look into them, run them. About five minutes,
# most of it the first time. BASE_IMAGE, PYTHON and WORK are those of build.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=(buildah unshare nsenter setpriv)
[ -n "${BASE_IMAGE:-}" ] || tools+=(debootstrap)
missing=()
for tool in "${tools[@]}"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
    echo "image-test needs ${missing[*]}; on Debian: apt-get install buildah debootstrap util-linux" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "image-test needs root, for chroot and namespaces: sudo make image-test" >&2
    exit 1
fi
export WORK=${WORK:-$PWD/.turnpoint/image}
deploy/image/build.sh
exec "${PYTHON:-python3}" -m deploy.image.smoke "$WORK"
