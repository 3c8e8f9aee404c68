#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One image and one database have one daemon, by whatever name it is called. Exit 3, nothing changed.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
mkdir "$T/mnt" "$T/second" "$T/bind"
new_image "$T/disk.img" $M
new_image "$T/other.img" $M
ln -s disk.img "$T/symlink.img"
ln "$T/disk.img" "$T/hard.img"
mkdir "$T/link"
ln -s .. "$T/link/up"
mount_image "$T/disk.img" "$T/mnt"
mount --bind "$T" "$T/bind"

second() { "$ERAIMGFS" "$1" "$T/second" -o metadata="$T/db2"; }
for name in "$T/disk.img" "$T/symlink.img" "$T/hard.img" "$T/bind/disk.img" "$T/link/up/disk.img"; do
  say "$name"
  refused "$T/second" 3 "\.img.*in use" second "$name"
  refused "$T/second" 3 "\.img.*in use" "$ERAIMGFS" "$name" "$T/second"
  [ ! -e "$T/db2" ] || fail "a refused mount left a database"
done
umount "$T/bind"

say "the database, by its names"
ln -s disk.img.era "$T/db-symlink"
expect_fail 3 "disk.img.era" "$ERAIMGFS" "$T/other.img" "$T/second" -o metadata="$T/disk.img.era"
expect_fail 3 "disk.img.era|db-symlink" "$ERAIMGFS" "$T/other.img" "$T/second" -o metadata="$T/db-symlink"
expect_fail 3 "disk.img.era" "$ERAIMGFS" "$T/other.img" "$T/second" -o metadata="$T/disk.img.era",bypass=mark-all
assert_eq running "$(status_of "$T/mnt" state)" "the first daemon"

if [ -c /dev/loop-control ]; then
  say "a loop device on the file"
  attach "$T/disk.img"
  expect_fail 3 "$LOOP" second "$LOOP"
  detach "$LOOP" "$T/disk.img"
  umount_image "$T/mnt"

  say "the file behind a loop device, and the same device by another node"
  attach "$T/disk.img"
  mount_image "$LOOP" "$T/mnt" -o metadata="$T/db"
  expect_fail 3 "$T/disk.img" "$ERAIMGFS" "$T/disk.img" "$T/second"
  expect_fail 3 "$T/hard.img" "$ERAIMGFS" "$T/hard.img" "$T/second" -o metadata="$T/db2"
  mknod "$T/node" b $((0x$(stat -c %t "$LOOP"))) $((0x$(stat -c %T "$LOOP")))
  expect_fail 3 "$T/node" second "$T/node"
  first=$LOOP
  attach "$T/disk.img"
  expect_fail 3 "$LOOP" second "$LOOP"
  detach "$LOOP" "$T/disk.img"
  umount_image "$T/mnt"
  detach "$first" "$T/disk.img"

  say "a loop device on our own mount"
  mount_image "$T/disk.img" "$T/mnt"
  attach "$T/mnt/disk.img"
  expect_fail 1 "$LOOP" second "$LOOP"
  detach "$LOOP" "$T/mnt/disk.img"
fi
umount_image "$T/mnt"
[ ! -e "$T/db2" ] || fail "a refused mount left a database"

say "after the end, everything is free"
mount_image "$T/hard.img" "$T/mnt" -o metadata="$T/disk.img.era"
umount_image "$T/mnt"
