#!/bin/sh
# prometheus and promtool from Debian's package into .turnpoint/tools, without root; nothing where
# they are on PATH already. Where that cannot be done it says so and succeeds: the tests that need
# them skip, and `make stack-test` refuses.
cd "$(dirname "$0")/.." || exit 1
[ -x .turnpoint/tools/usr/bin/promtool ] && exit 0
command -v promtool >/dev/null && command -v prometheus >/dev/null && exit 0
mkdir -p .turnpoint/tools && cd .turnpoint/tools &&
  { apt-get download prometheus || { apt-get update -qq && apt-get download prometheus; }; } >/dev/null 2>&1 &&
  dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb ||
  echo "promtool and prometheus are not here and Debian's package cannot be had: the tests of the alerts are skipped"
