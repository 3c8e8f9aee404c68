#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What one way of access wrote, every other reads: buffered, direct, asynchronous, through loop devices of both kinds.
# Eras end all the while, so that many a write waits for its commit: that is when a cache would be filled behind it.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
operations=${ERAIMGFS_COHERENCE_OPS:-20000}

new_image "$T/disk.img" $((2 * M))
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt" -o block_size=4K
file=$T/mnt/disk.img

check() {
  "$FS_TOOLS/coherence" "$operations" "$@" &
  local checker=$!
  while ! is_gone "$checker"; do era checkpoint "$T/mnt" >/dev/null; done
  wait "$checker"
}
check 1 "$file"
if [ -c /dev/loop-control ]; then
  attach "$file"
  buffered=$LOOP
  attach "$file" --direct-io=on
  check 2 "$file" "$buffered" "$LOOP"
  losetup -d "$buffered"
  losetup -d "$LOOP"
fi
umount_image "$T/mnt"
era check "$T/disk.img" >/dev/null || fail "check: $(era check "$T/disk.img")"
