#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The backup that the README shows, as it stands there: a full one, then incremental ones under a writer.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
readme=${0%/*}/../../README.md
bin=$T/bin
mkdir "$bin" "$T/backup"
ln -s "$ERA_CLI" "$bin/era-cli"
PATH=$bin:$PATH

# part FIRST LAST: the indented lines of the README from the one that is FIRST to the one before LAST.
part() { awk -v first="    $1" -v last="$2" 'index($0, first) == 1 { on = 1 } index($0, last) == 1 { on = 0 } on' "$readme" | sed "s/^    //; s#/backup#$T/backup#g"; }
part "# full" "    # incremental" >"$T/full"
part "# incremental" "- The order" >"$T/incremental"
grep -q cp "$T/full" && grep -q dd "$T/incremental" || fail "the README's backup was not found"

cd "$T"
new_image disk.img 8*M
truncate -s 8388609 disk.img # its last block is one byte long
mount_image "$T/disk.img" "$T/disk.img"
bash "$T/full" || fail "full backup"
assert_same disk.img backup/disk.img "the full copy"
for n in 1 2 3; do
  say "night $n"
  assert_eq 5000 "$(ops write disk.img $((n * 1234567)) 5000 $((64 + n)))" "write"
  assert_eq 1 "$(ops write disk.img 8388608 1 $((64 + n)))" "write to the last byte"
  cmp -s disk.img backup/disk.img && fail "nothing changed"
  bash "$T/incremental" || fail "incremental backup"
  assert_same disk.img backup/disk.img "the copy after night $n"
  [ "$(era since 0 --count disk.img)" != "$(awk '{ n++; b += $2 } END { print n "\t" b }' backup/extents)" ] || fail "all was copied"
done
umount_image "$T/disk.img"
