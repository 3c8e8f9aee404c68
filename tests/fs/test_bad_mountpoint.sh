#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Mount points that are refused.
. "${0%/*}/lib.sh"
requires_root
requires_fuse
new_image "$T/disk.img" $M
new_image "$T/second.img" $M
mkdir "$T/mnt"
daemon() { "$ERAIMGFS" "$@"; }

refused "$T" 1 "$T/missing.*[Nn]o such file" daemon "$T/disk.img" "$T/missing"
mkfifo "$T/fifo"
refused "$T" 1 "$T/fifo" daemon "$T/disk.img" "$T/fifo"

say "the dead mount of a killed daemon: the error names the way on"
mount_image "$T/disk.img" "$T/mnt"
pid=$(status_of "$T/mnt" pid)
kill -9 "$pid"
wait_gone "$pid"
expect_fail 1 "umount $T/mnt" daemon "$T/disk.img" "$T/mnt"
say "queries by the name of the dead mount, or by the image, do not hang and do not lie"
assert_eq "" "$(since 1 "$T/disk.img")" "since by the image"
expect_fail 1 "$T/mnt" era checkpoint "$T/mnt"
umount "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"

say "a mount point that is in use"
expect_fail 1 "$T/mnt.*busy" daemon "$T/second.img" "$T/mnt"
[ ! -e "$T/second.img.era" ] || fail "a refused mount left a database"
umount_image "$T/mnt"
(
  cd "$T/mnt" || exit
  mount_image "$T/disk.img" "$T/mnt" # somebody's working folder is no obstacle
)
umount_image "$T/mnt"
! is_mounted "$T/mnt" || fail "mounted"
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"
