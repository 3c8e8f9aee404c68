#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Points and targets that are not known: the exit code tells a script what to do, and nothing is printed.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
for name in a b; do
  new_image "$T/$name.img" $M
  mkdir "$T/$name"
  mount_image "$T/$name.img" "$T/$name"
  ops write "$T/$name/$name.img" 0 1 1 >/dev/null
done
other=$(status_of "$T/b" uuid)
umount_image "$T/b"

for target in "$T/a" "$T/a.img" "$T/b.img"; do
  say "$target"
  for point in -1 +1 99999999999999999999 18446744073709551616 1.5 0x1 1e3 "" " 1" "1 " "1:2" ":5" "$other:" "$other:-1" "$other:99999999999999999999" "not-a-uuid:1" "$(printf 'x%.0s' {1..65})"; do
    expect_fail 2 "." era since -- "$point" "$target"
  done
  expect_fail 2 "." era since -1 "$target"
  for point in 9 18446744073709551615 unknown a.label "$(printf '%s' "$other" | tr '0-9a-f' '1-9a-f0'):1"; do
    expect_fail 5 "full backup" era since "$point" "$target"
    expect_fail 5 "full backup" era since "$point" --count "$target"
    expect_fail 5 "full backup" era since "$point" --format json "$target"
  done
done
expect_fail 5 "full backup" era since "$other:1" "$T/a"
assert_eq "0" "$(since "$other:1" "$T/b.img")" "its own cursor"

say "targets"
expect_fail 1 "$T/none" era since 1 "$T/none"
expect_fail 1 "$T/none" era status "$T/none"
expect_fail 1 "/dev/null" era since 1 /dev/null
expect_fail 1 "$T" era since 1 "$T"
expect_fail 1 "b.img" era checkpoint "$T/b.img"
expect_fail 1 "b.img" era label add x "$T/b.img"
umount_image "$T/a"
expect_fail 2 "." era status
expect_fail 2 "." era since 1
expect_fail 1 "$T/none" env ERAIMGFS_TARGET="$T/none" "$ERA_CLI" since 1
assert_eq "0" "$(ERAIMGFS_TARGET=$T/b.img era since 1 | blocks_in)" "ERAIMGFS_TARGET"

say "an output that cannot be written"
expect_fail 1 "/dev/full" era since 0 -o /dev/full "$T/a.img"
expect_fail 1 "$T/no/file" era since 0 -o "$T/no/file" "$T/a.img"

say "queries at rest leave the database alone, also where nothing can be written"
mkdir "$T/keep" "$T/ro"
cp "$T/a.img.era" "$T/keep/db"
before=$(fingerprint "$T/keep")
mount --bind "$T/keep" "$T/ro"
mount -o remount,bind,ro "$T/ro"
assert_eq "0" "$(since 1 "$T/ro/db")" "since, on a read-only file system"
era check "$T/ro/db" >/dev/null
umount "$T/ro"
assert_eq "$before" "$(fingerprint "$T/keep")" "the folder of the database"
