#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A whole system: ext4 on a loop device on the mounted image, an incremental backup of it, and its restore.
. "${0%/*}/lib.sh" || exit 1
requires_fuse
requires_loop
requires command -v mkfs.ext4

truncate -s $((192 * M)) "$T/disk.img"
mkdir "$T/mnt" "$T/fs"
mount_image "$T/disk.img" "$T/mnt"
file=$T/mnt/disk.img
for kind in off on; do
  say "loop device with direct-io=$kind"
  attach "$file" --direct-io=$kind
  mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$LOOP"
  mount "$LOOP" "$T/fs"
  mkdir "$T/fs/data"
  find /usr/lib/x86_64-linux-gnu /usr/share/doc -xdev -type f -size -200k 2>/dev/null | sort | sed -n 1,1500p >"$T/list"
  tar -C / -cf - -T "$T/list" 2>/dev/null | tar -C "$T/fs/data" -xf -
  sync -f "$T/fs"

  point=$(era checkpoint --cursor "$T/mnt")
  cp "$file" "$T/backup"

  # A day's work: delete, rewrite in the middle, append, add, trim.
  find "$T/fs/data" -type f | sort | awk 'NR % 5 == 0' | xargs rm
  find "$T/fs/data" -type f | sort | awk 'NR % 7 == 0' | while read -r f; do
    printf 'changed' | dd of="$f" bs=1 seek=3 conv=notrunc status=none
  done
  cp -r /etc "$T/fs/etc" 2>/dev/null || :
  fstrim "$T/fs" || echo "  (no discard here)"
  sync -f "$T/fs"
  second=$(era checkpoint --cursor "$T/mnt")
  cp "$file" "$T/second"
  assert_covers "$T/backup" "$T/second" "$point" "$T/mnt"
  find "$T/fs/data" -type f | sort | sed -n 1,20p | xargs rm
  umount "$T/fs"
  losetup -d "$LOOP"

  say "every block that differs is in the answer; the answer is not simply everything"
  assert_eq ok "$(ops fsync "$file")" "fsync"
  assert_covers "$T/backup" "$T/disk.img" "$point" "$T/mnt"
  assert_covers "$T/second" "$T/disk.img" "$second" "$T/mnt"
  blocks=$(era since "$second" --count "$T/mnt" | cut -f 1)
  [ "$blocks" -lt 1000 ] || fail "$blocks of 3072 blocks for twenty removed files"
  say "the old copy and the changed extents are the new image"
  era since "$point" "$T/mnt" | apply_extents "$T/disk.img" "$T/backup"
  assert_same "$T/backup" "$T/disk.img" "restored"
  e2fsck -fn "$T/backup" >"$T/fsck" 2>&1 || fail "$(cat "$T/fsck")"
done
umount_image "$T/mnt"
e2fsck -fn "$T/disk.img" >/dev/null 2>&1 || fail "e2fsck of the image"
