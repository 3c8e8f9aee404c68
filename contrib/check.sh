#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds eraimgfs in several ways and runs all its tests. The last line is "N passed, N failed, N skipped"; the exit status
# is 0 only when nothing failed.
#
#   contrib/check.sh [PHASE]...    all of: plain address thread memory planted
#   ERAIMGFS_BUILD=DIR   where to build (default: build-check in the current folder)
#   CI=true              warnings are errors, and a test that was skipped counts as failed
set -Eeuo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${ERAIMGFS_BUILD:-$PWD/build-check}
jobs=$(nproc)
[ "$jobs" -le 8 ] || jobs=8
ci=${CI:-false}

passed=0 failed=0 skipped=0
lines=() # one for each test that failed or was skipped

note() { # NAME REASON
  lines+=("$1")
  echo "   $1"
}
pass() { passed=$((passed + 1)); }
fail() { # WHAT
  failed=$((failed + 1))
  note "FAILED  $1"
}
skip() { # WHAT REASON
  if [ "$ci" = true ]; then
    fail "$1: skipped, and in CI nothing may be: $2"
  else
    skipped=$((skipped + 1))
    note "SKIPPED $1: $2"
  fi
}

# build_as NAME COMPILER OPTION...: configures and builds in a folder of that name: all, or $targets. Fails when it does not
# build.
targets=()
build_as() {
  local name=$1 compiler=$2 again=() log=$build/$1.log
  shift 2
  [ ! -f "$build/$name/build.ninja" ] || again=(--reconfigure)
  if ! { CC=$compiler meson setup "${again[@]}" "$build/$name" "$top" -Dtests=enabled -Dwerror="$ci" "$@" >"$log" 2>&1 &&
    ninja -C "$build/$name" -j "$jobs" "${targets[@]}" >>"$log" 2>&1; } </dev/null; then
    tail -n 40 "$log"
    fail "$name: does not build ($compiler $*)"
    return 1
  fi
  grep 'warning:' "$log" || :
}

# run_tests NAME BUILD ARG...: `meson test ARG...` in that build; each test is counted under NAME.
run_tests() {
  local name=$1 folder=$build/$2 log result test reason
  shift 2
  rm -f "$folder/meson-logs/$name"*.json
  meson test -C "$folder" --logbase "$name" --num-processes "$jobs" --no-rebuild --print-errorlogs "$@" || :
  log=$(find "$folder/meson-logs" -name "$name*.json" -size +0) # a wrapper adds its name to the log's
  if [ -z "$log" ]; then
    fail "$name: no test ran"
    return 0
  fi
  while IFS=$'\t' read -r result test reason; do
    case $result in
      OK | EXPECTEDFAIL) pass ;;
      SKIP) skip "$name: $test" "${reason:-no reason given}" ;;
      *) fail "$name: $test ($result)" ;;
    esac
  done < <(jq -r '[.result, .name, ((.stdout // "") | [scan("SKIP: (.*)")] | flatten | last // "")] | @tsv' "$log")
}

plain() {
  build_as plain gcc || return 0
  run_tests plain plain
}

# clang's build: a second opinion on warnings, and memory errors and undefined behaviour found at run time.
address() {
  build_as address clang -Db_sanitize=address,undefined -Db_lundef=false || return 0
  local -x ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1
  run_tests address-unit address --timeout-multiplier 4 --suite unit
  run_tests address-fs address --timeout-multiplier 4 "${address_tests[@]}"
}

thread() {
  build_as thread gcc -Db_sanitize=thread || return 0
  TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 ERAIMGFS_COHERENCE_OPS=4000 ERAIMGFS_KILLS=3 \
    run_tests thread thread --timeout-multiplier 4 "${thread_tests[@]}"
}

memory() {
  build_as plain gcc || return 0
  CK_FORK=no CK_TIMEOUT_MULTIPLIER=20 run_tests memory plain --timeout-multiplier 20 \
    --wrapper 'valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --suppressions='"$top/tests/checks/valgrind.supp" "${memory_tests[@]}"
}

# Named bugs, compiled in (include/base/plant.h): the test that is there to catch one must fail.
planted() {
  local plant test log targets args
  while read -r plant test; do
    # A plant changes every file: only what its test needs is built.
    args=()
    case $test in
      crash-*) targets=(tests/crash/test_crash) args=(--test-args '--states 1000 --seed 1') ;;
      fs-*) targets=(src/daemon/eraimgfs src/cli/era-cli tests/fs/ops tests/fs/coherence) ;;
      *) targets=("tests/unit/test_$test") ;;
    esac
    build_as planted gcc -Dplant="$plant" || continue
    log=$build/planted.$plant.log
    if meson test -C "$build/planted" --no-rebuild "${args[@]}" "$test" >"$log" 2>&1 </dev/null; then
      fail "planted: $test passes with the bug '$plant' compiled in"
    elif grep -qE '^Fail: +1 *$' "$log"; then
      echo "   $test caught $plant"
      pass
    else
      fail "planted: $test with '$plant' neither passed nor failed: see $log"
    fi
  done <<'END'
early-publish era_regress
mark-first era_fault
stale-plane era_fault
no-drain era_regress
show-early era_fault
retry-fsync era_fault
lazy-marks crash-states
lazy-switch crash-states
data-first crash-states
reply-early crash-states
freeze-no-flush crash-states
recover-no-flush crash-states
witness-first crash-states
no-dirsync crash-states
witness-ignored era_regress
commit-before-join era_freeze
join-requeued era_freeze
late-commit era_freeze
checkpoint-unverified era_freeze
close-keeps-nothing era_handover
read-before-lock era_handover
fenced-checkpoint era_handover
one-look era_intents
collect-first era_intents
settle-unarmed era_intents
drop-without-marks era_intents
partial-whole era_intents
trust-frozen era_intents_regress
cached-open fs-coherence
END
}

# What the slower builds run.
address_tests=(fs-mount fs-stop fs-operations fs-since fs-checkpoint fs-bad_image fs-locks fs-binding fs-reads_go_on)
thread_tests=(bitmap ctl_server era_race era_race-intents era_intents_regress era_regress era_interleave era_freeze era_freeze_fail era_handover fs-checkpoint
  fs-stop fs-reads_go_on fs-coherence)
memory_tests=(num err fmt options meta_create era_open)

"$top/contrib/deps.sh"
mkdir -p "$build"
[ $# -gt 0 ] || set -- plain address thread memory planted
for phase; do
  echo "== $phase (after $SECONDS s)"
  before=$((passed + failed + skipped))
  "$phase" </dev/null
  [ $((passed + failed + skipped)) -gt "$before" ] || fail "$phase: nothing was counted"
done

echo "== after $SECONDS s"
printf '%s\n' "${lines[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
