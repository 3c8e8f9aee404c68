#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checkpoints of one and of several images, labels, list, status and check.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

for name in a b c; do
  new_image "$T/$name.img" $M
  mkdir "$T/$name"
  mount_image "$T/$name.img" "$T/$name"
done

say "list"
assert_eq "a b c" "$(era list --json | jq -r '.[].mountpoint' | xargs -n1 basename | sort | paste -sd ' ')" "list --json"
assert_eq 3 "$(era list | wc -l)" "list"
expect_usage() {
  local status=0
  "$@" >"$T/.out" 2>"$T/.err" || status=$?
  assert_eq 2 "$status" "exit of $*"
  [ ! -s "$T/.out" ] || fail "printed an answer beside a usage error: $*"
  [ -s "$T/.err" ] || fail "a usage error without a word: $*"
}
expect_usage era status
grep -q "$T/b" "$T/.err" || fail "no target named, and the live instances are not listed: $(cat "$T/.err")"

say "status"
era status "$T/a" >"$T/status"
grep -qE '^state: *running$' "$T/status" || fail "$(cat "$T/status")"
era status --json "$T/a" | jq -e '.current_era == 1 and .block_size == 65536 and .image_size == 1048576 and .nr_blocks == 16' >/dev/null ||
  fail "$(era status --json "$T/a")"
assert_eq 4096 "$(ops write "$T/a/a.img" $((BLOCK * 4)) 4096 65)" "write"

say "several at once"
era checkpoint "$T/a" "$T/b" "$T/c" >"$T/out"
assert_eq "$(printf '%s\t2\n' "$T/a" "$T/b" "$T/c")" "$(cat "$T/out")" "checkpoint of three"
era checkpoint --cursor "$T/b" "$T/a" >"$T/out"
assert_eq "$(printf '%s\t%s:3\n' "$T/b" "$(status_of "$T/b" uuid)" "$T/a" "$(status_of "$T/a" uuid)")" "$(cat "$T/out")" "with cursors"
expect_fail 1 "$T/none" era checkpoint "$T/a" "$T/none" "$T/b"
umount_image "$T/c"
expect_fail 1 "$T/c" era checkpoint "$T/a" "$T/c.img"
assert_eq 4096 "$(ops write "$T/a/a.img" $((BLOCK * 7)) 4096 65)" "the gate is open after a partial failure"

say "two clients, the images in opposite order: both come to an end"
for _ in 1 2 3 4 5; do
  era checkpoint "$T/a" "$T/b" >"$T/out1" &
  first=$!
  era checkpoint "$T/b" "$T/a" >"$T/out2" &
  second=$!
  wait "$first" || fail "checkpoint a b: exit $?"
  wait "$second" || fail "checkpoint b a: exit $?"
  assert_eq 2 "$(wc -l <"$T/out1")" "lines"
done

say "labels"
now=$(era checkpoint --label one "$T/a")
assert_eq "$now" "$(era label list "$T/a" | awk -F '\t' '$1 == "one" { print $2 }')" "label list"
era checkpoint "$T/a" >/dev/null
era label add two "$T/a" >/dev/null
era label add early --era 1 "$T/a" >/dev/null
assert_eq "4 7" "$(since early "$T/a")" "since early"
assert_eq "" "$(since two "$T/a")" "since two"
assert_eq $((now + 1)) "$(era label list "$T/a" | awk -F '\t' '$1 == "two" { print $2 }')" "a label without --era names the current one"
era label add two --era 1 "$T/a" >/dev/null # moves it
assert_eq "4 7" "$(since two "$T/a")" "since two, moved"
era label rm two "$T/a"
expect_fail 5 "two" era since two "$T/a"
expect_fail 5 "two" era label rm two "$T/a"
! grep "full backup" "$T/.err" || fail "label rm of an unknown label asks for a backup"
expect_fail 5 "99" era label add late --era 99 "$T/a"
for bad in 1one -x 'a b' '' 'a:b' "$(printf 'x%.0s' {1..65})"; do expect_usage era label add -- "$bad" "$T/a"; done
assert_eq "early one" "$(era label list "$T/a" | cut -f 1 | paste -sd ' ')" "labels"

say "a mount that is gone from its place, but not from who holds it"
exec 9<"$T/b/b.img"
pid=$(status_of "$T/b" pid)
umount -l "$T/b"
now=$(status_of "$T/b.img" current_era)
assert_eq $((now + 1)) "$(era checkpoint "$T/b.img")" "checkpoint of a detached mount"
exec 9<&-
wait_gone "$pid" || fail "the daemon is there 20 s after its last user"

say "check, live and at rest"
era check "$T/a" >"$T/out" || fail "check found: $(cat "$T/out")"
umount_image "$T/a"
era check "$T/a.img" >"$T/out" || fail "check found: $(cat "$T/out")"
era status "$T/a.img" >/dev/null
assert_eq offline "$(status_of "$T/a.img" state)" "state"
assert_eq "4 7" "$(since early "$T/a.img")" "since a label, at rest"
assert_eq "[]" "$(era list --json | jq -c .)" "list of nothing"

say "usage"
for call in "" "nonsense" "since" "since 1 2 3" "since 1 --format pdf $T/a.img" "checkpoint --nonsense" "label" "label nonsense" "status a b c"; do
  # shellcheck disable=SC2086 # the words of the call
  expect_usage "$ERA_CLI" $call
done
"$ERA_CLI" -V | grep -qE '^era-cli .*[0-9]+\.[0-9]+' || fail "-V"
"$ERA_CLI" --help >"$T/help"
assert_eq "" "$(grep -E '.{81}' "$T/help" || :)" "help wider than 80 columns"
for command in status list checkpoint since label check; do
  "$ERA_CLI" "$command" --help >"$T/help" || fail "$command --help"
  grep -q "$command" "$T/help"
  assert_eq "" "$(grep -E '.{81}' "$T/help" || :)" "help of $command wider than 80 columns"
done
