#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Two file systems on two images, frozen together with them: one point, for a writer that uses both by turns.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
requires_fuse
requires_loop
requires command -v fsfreeze mkfs.ext4 mkfs.xfs python3

new_store xfs 1024*M -m reflink=1
new_fs a ext4 64*M
new_fs b xfs 320*M
start_writer "$T/fs-a" "$T/fs-b"
step=()

say "freeze"
before=$(progress)
era freeze --fsfreeze "$T/fs-a" --fsfreeze "$T/fs-b" "$T/b" "$T/a" >"$T/out"
assert_eq "$(printf '%s\t1\n' "$T/b" "$T/a")" "$(cat "$T/out")" "freeze of two"
for name in a b; do
  has_state "$T/$name" frozen || fail "$name: $(status_of "$T/$name" state)"
  assert_fs_frozen "$T/fs-$name"
  tree_of "$T/fs-$name" >"$T/$name.tree"
  cp --sparse=always "$T/$name/$name.img" "$T/store/$name.copy"
done
assert_eq "$(printf '%s\t2\n' "$T/a" "$T/b")" "$(era thaw "$T/a" "$T/b")" "thaw of two"
writer_goes_on
for name in a b; do
  assert_guard_thawed "$T/fs-$name"
  check_copy "${KINDS[$name]}" "$T/store/$name.copy" "$T/$name.tree"
  check_copy "${KINDS[$name]}" "$T/store/$name.copy" "$before" "$(progress)"
  step+=("$STEP")
done
say "the writer had done step ${step[0]} in one and ${step[1]} in the other"
[ $((step[0] - step[1])) = 0 ] || [ $((step[0] - step[1])) = 1 ] || fail "these are two points"

say "one of two is thawed by itself: the guard waits for the other, and thaws both"
era freeze --timeout 2 --fsfreeze "$T/fs-a" --fsfreeze "$T/fs-b" "$T/a" "$T/b" >"$T/out"
era thaw "$T/a" >/dev/null
assert_fs_frozen "$T/fs-a"
writer_goes_on
for name in a b; do assert_guard_thawed "$T/fs-$name"; done
assert_eq "0 1" "$(status_of "$T/a" auto_thaws) $(status_of "$T/b" auto_thaws)" "auto_thaws of a and b"

say "checkpoint"
era checkpoint --fsfreeze "$T/fs-b" --fsfreeze "$T/fs-a" "$T/a" "$T/b" >"$T/out"
assert_eq "$(printf '%s\t4\n' "$T/a" "$T/b")" "$(cat "$T/out")" "checkpoint of two"
writer_goes_on
for name in a b; do assert_guard_thawed "$T/fs-$name"; done

say "one of them cannot be frozen: the other is thawed, no era ends"
fsfreeze -f "$T/fs-b"
expect_fail 1 "$T/fs-b.*frozen already" era checkpoint --fsfreeze "$T/fs-a" --fsfreeze "$T/fs-b" "$T/a" "$T/b"
assert_guard_thawed "$T/fs-a"
assert_fs_frozen "$T/fs-b"
fsfreeze -u "$T/fs-b"
writer_goes_on
assert_eq "4 4" "$(status_of "$T/a" current_era) $(status_of "$T/b" current_era)" "eras"
