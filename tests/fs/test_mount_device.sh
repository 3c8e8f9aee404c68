#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The image is a block device.
. "${0%/*}/lib.sh" || exit 1
requires_fuse
requires_loop

new_image "$T/disk.img" $((4 * M))
cp "$T/disk.img" "$T/reference"
attach "$T/disk.img"
mkdir "$T/mnt"

mount_image "$LOOP" "$T/mnt" -o "metadata=$T/db"
file=$T/mnt/${LOOP##*/}
assert_eq $((4 * M)) "$(stat -c %s "$file")" "size"
assert_same "$T/reference" "$file" "content"
assert_eq 5000 "$(ops write "$file" $((BLOCK * 2 - 100)) 5000 65)" "write"
assert_eq EFBIG "$(ops write "$file" $((4 * M)) 1 65)" "write at the end"
assert_eq "1 2" "$(since 1 "$T/mnt")" "since"
umount_image "$T/mnt"
assert_covers "$T/reference" "$LOOP" 1 "$T/db"
assert_eq "1 2" "$(since 1 "$T/db")" "since, offline"

say "another daemon on the device, or on the file behind it, is refused"
mkdir "$T/second"
mount_image "$LOOP" "$T/mnt" -o "metadata=$T/db"
expect_fail 3 "$LOOP" "$ERAIMGFS" "$LOOP" "$T/second" -o "metadata=$T/db2"
expect_fail 3 "$T/disk.img" "$ERAIMGFS" "$T/disk.img" "$T/second" -o "metadata=$T/db2"
[ ! -e "$T/db2" ] || fail "a refused mount left a database"
umount_image "$T/mnt"

say "the device grew: refused, and accepted with -o resize"
truncate -s $((5 * M)) "$T/disk.img"
losetup -c "$LOOP"
refused "$T" 1 "resize" "$ERAIMGFS" "$LOOP" "$T/mnt" -o "metadata=$T/db"
mount_image "$LOOP" "$T/mnt" -o "metadata=$T/db,resize"
assert_eq $((5 * M)) "$(stat -c %s "$file")" "size"
umount_image "$T/mnt"
