#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds test_crash with each planted bug (include/base/plant.h) that a power loss can show, and tells at which state each was
# caught. The exit status is 0 only when all were.
#
#   tests/crash/planted.sh [BUG]...     default: all of them
#   ERAIMGFS_BUILD=DIR    where to build (default: build-crash in the current folder)
#   ERAIMGFS_SEED=N       of the states (default: 1)
set -Eeuo pipefail

states=1000
seed=${ERAIMGFS_SEED:-1}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${ERAIMGFS_BUILD:-$PWD/build-crash}
[ $# -gt 0 ] || set -- lazy-marks lazy-switch data-first reply-early show-early early-publish mark-first stale-plane no-drain \
  retry-fsync freeze-no-flush recover-no-flush witness-first no-dirsync

mkdir -p "$build"
missed=0
for bug; do
  log=$build/$bug.log
  again=()
  [ ! -f "$build/planted/build.ninja" ] || again=(--reconfigure)
  if ! { meson setup "${again[@]}" "$build/planted" "$top" -Dtests=enabled -Dplant="$bug" &&
    ninja -C "$build/planted" tests/crash/test_crash; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log"
    printf '%-18s does not build: see %s\n' "$bug" "$log"
    missed=$((missed + 1))
    continue
  fi
  status=0
  (cd "$build" && planted/tests/crash/test_crash --states $states --seed "$seed") >"$log" 2>&1 </dev/null || status=$?
  rm -f "$build"/crash-*.case "$build"/crash-*.log
  caught=$(sed -n 's/^FAILED: state \([0-9]*\) of seed [0-9]*: \(.*\)/state \1: \2/p' "$log" | head -n 1)
  if [ "$status" = 1 ] && [ -n "$caught" ]; then
    looked=$(sed -n 's/^FAILED: \([0-9]*\) states,.*/\1/p' "$log")
    printf '%-18s caught after %s states, at %s\n' "$bug" "$looked" "$caught"
  else
    printf '%-18s MISSED in %d states of seed %s: see %s\n' "$bug" $states "$seed" "$log"
    missed=$((missed + 1))
  fi
done
[ $missed = 0 ]
