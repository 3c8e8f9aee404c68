#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Images that are refused: one line that names the thing and the way on, and nothing changed.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
mkdir "$T/mnt" "$T/folder" "$T/mnt2"
daemon() { "$ERAIMGFS" "$@"; }

refused "$T" 1 "$T/missing.img.*[Nn]o such file" daemon "$T/missing.img" "$T/mnt"
refused "$T" 1 "$T/no/folder.img" daemon "$T/no/folder.img" "$T/mnt"
refused "$T" 1 "$T/folder.*directory" daemon "$T/folder" "$T/mnt"
: >"$T/empty.img"
refused "$T" 1 "$T/empty.img.*empty" daemon "$T/empty.img" "$T/mnt"
mkfifo "$T/fifo"
refused "$T" 1 "$T/fifo" daemon "$T/fifo" "$T/mnt"
refused "$T" 1 "/dev/null" daemon /dev/null "$T/mnt" -o metadata="$T/db"

say "an image on our own mount"
new_image "$T/disk.img" $M
mount_image "$T/disk.img" "$T/mnt2"
expect_fail 1 "$T/mnt2/disk.img" daemon "$T/mnt2/disk.img" "$T/mnt" -o metadata="$T/db"
[ ! -e "$T/db" ] || fail "a refused mount left a database"
new_image "$T/new.img" $M
expect_fail 1 "$T/mnt2/db" daemon "$T/new.img" "$T/mnt" -o metadata="$T/mnt2/db"
umount_image "$T/mnt2"
rm "$T"/disk.img.era*

say "block sizes"
for size in 0 4095 4097 6144 2G 1025M; do
  refused "$T" 2 "block_size" daemon "$T/disk.img" "$T/mnt" -o block_size=$size
done
for size in x -1 4KB 4.5K 99999999999999999999 ''; do
  refused "$T" 2 "block_size" daemon "$T/disk.img" "$T/mnt" -o block_size=$size
done
if truncate -s 9T "$T/huge.img" 2>/dev/null; then
  refused "$T" 1 "$T/huge.img.*block" daemon "$T/huge.img" "$T/mnt" -o block_size=4K
  say "more than 2^31 blocks by a hair, and just fitting"
  truncate -s $((2147483647 * 4096 + 1)) "$T/huge.img"
  refused "$T" 1 "$T/huge.img.*block" daemon "$T/huge.img" "$T/mnt" -o block_size=4K
  truncate -s $((2147483647 * 4096)) "$T/huge.img"
  mount_image "$T/huge.img" "$T/mnt" -o block_size=4K
  assert_eq 1 "$(ops write "$T/mnt/huge.img" $((2147483647 * 4096 - 1)) 1 65)" "write to the last byte"
  assert_eq 2147483646 "$(since 1 "$T/mnt" 4096)" "since"
  umount_image "$T/mnt"
  rm "$T"/huge.img*
else
  echo "  (no file of 9 TiB here: left out)"
fi

say "another block size on existing metadata"
mount_image "$T/disk.img" "$T/mnt" -o block_size=8K
umount_image "$T/mnt"
refused "$T" 1 "disk.img.era.*8192|8192.*disk.img.era|8K" daemon "$T/disk.img" "$T/mnt" -o block_size=64K
mount_image "$T/disk.img" "$T/mnt" -o block_size=8192
umount_image "$T/mnt"
mount_image "$T/disk.img" "$T/mnt" # without a word: what the metadata has
assert_eq 8192 "$(status_of "$T/mnt" block_size)" "block size"
umount_image "$T/mnt"

say "nocreate"
refused "$T" 1 "$T/new.img.era" daemon "$T/new.img" "$T/mnt" -o nocreate

say "unknown and unfit options, wrong words"
for option in nonsense=1 threads=0 threads=x intent=maybe intent_max=-1 bypass=maybe metadata= ; do
  refused "$T" 2 "${option%%=*}" daemon "$T/new.img" "$T/mnt" -o "$option"
done
refused "$T" 2 "." daemon
refused "$T" 2 "." daemon "$T/new.img"
refused "$T" 2 "." daemon "$T/new.img" "$T/mnt" more
refused "$T" 2 "." daemon --nonsense "$T/new.img" "$T/mnt"
! is_mounted "$T/mnt" || fail "mounted"
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"
