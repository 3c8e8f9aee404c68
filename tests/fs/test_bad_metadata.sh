#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Databases that are refused: foreign, damaged, of another image, of a newer version; folders that cannot hold one.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
mkdir "$T/mnt" "$T/db"
new_image "$T/disk.img" $M
db=$T/db/meta
daemon() { "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o "metadata=$db$1"; }
fresh() {
  rm -f "$T"/db/*
  mount_image "$T/disk.img" "$T/mnt" -o metadata="$db"
  ops write "$T/mnt/disk.img" $((3 * BLOCK)) 4096 65 >/dev/null
  umount_image "$T/mnt"
}

say "no database at all"
echo "a letter to a friend" >"$db"
refused "$T" 1 "$db" daemon ""
refused "$T" 1 "$db" era since 1 "$db"
head -c 100000 /dev/urandom >"$db"
refused "$T" 1 "$db" daemon ""
rm "$db"
sqlite3 "$db" 'CREATE TABLE friends (name); INSERT INTO friends VALUES (1)'
refused "$T" 1 "$db" daemon ""
refused "$T" 1 "$db" era check "$db"
rm "$db"
mkdir "$db"
refused "$T" 1 "$db" daemon ""
rmdir "$db"
: >"$db"
refused "$T" 1 "$db" daemon ""

say "a database of a newer version"
fresh
version=$(sqlite3 "$db" 'PRAGMA user_version')
sqlite3 "$db" "PRAGMA user_version = $((version + 1))"
rm -f "$db-wal" "$db-shm"
refused "$T" 1 "$db.*version" daemon ""
refused "$T" 1 "$db.*version" era since 1 "$db"

say "the database of another image"
fresh
new_image "$T/other.img" $((2 * M))
refused "$T" 1 "$T/other.img.*(resize|mark-all)" "$ERAIMGFS" "$T/other.img" "$T/mnt" -o metadata="$db"
new_image "$T/other.img" $M
refused "$T" 1 "$T/other.img.*mark-all" "$ERAIMGFS" "$T/other.img" "$T/mnt" -o metadata="$db"

say "damage, anywhere in it: refused, or the answer is as it was; never a smaller one"
fresh
size=$(stat -c %s "$db")
cp "$db" "$T/whole"
for ((offset = 16; offset < size; offset += 397)); do
  cp "$T/whole" "$db"
  rm -f "$db-wal" "$db-shm"
  byte=$(od -An -tu1 -j "$offset" -N 1 "$db" | tr -d ' ')
  ops write "$db" "$offset" 1 $((byte ^ 0x41)) >/dev/null
  if era since 1 "$db" >"$T/out" 2>"$T/err"; then
    grep -qxF "$(printf '%d\t%d' $((3 * BLOCK)) $BLOCK)" "$T/out" || [ "$(blocks_in <"$T/out" | grep -cx 3)" = 1 ] ||
      fail "byte $offset flipped: block 3 is not in the answer"
  fi
done
cp "$T/whole" "$db"
rm -f "$db-wal" "$db-shm"
for part in $((size / 2)) 4096 100; do
  head -c "$part" "$T/whole" >"$db"
  refused "$T" 1 "$db.*mark-all|$db" daemon ""
done

say "a damaged one, and the way on: all blocks, a new UUID, the old file kept"
cp "$T/whole" "$db"
uuid=$(status_of "$db" uuid)
now=$(status_of "$db" current_era)
dd if=/dev/urandom of="$db" bs=4096 seek=1 count=3 conv=notrunc status=none
refused "$T" 1 "$db.*mark-all" daemon ""
mount_image "$T/disk.img" "$T/mnt" -o metadata="$db",bypass=mark-all
[ "$(status_of "$T/mnt" uuid)" != "$uuid" ] || fail "the same UUID after mark-all"
assert_eq 16 "$(since "$(status_of "$T/mnt" current_era)" "$T/mnt" | wc -w)" "since the current era, after mark-all"
expect_fail 5 "full backup" era since "$uuid:$now" "$T/mnt"
compgen -G "$db.damaged-*" >/dev/null || fail "the damaged database was not kept: $(ls "$T/db")"
umount_image "$T/mnt"

say "a folder that is missing, read-only, or full"
refused "$T" 1 "$T/no/such" "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o metadata="$T/no/such/db"
mkdir "$T/ro"
mount -t tmpfs -o ro none "$T/ro"
refused "$T" 1 "$T/ro/db" "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o metadata="$T/ro/db"
mkdir "$T/full"
mount -t tmpfs -o size=4k none "$T/full"
expect_fail 1 "$T/full/db" "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o metadata="$T/full/db"
assert_eq "" "$(ls -A "$T/full")" "left in the full folder"
! is_mounted "$T/mnt" || fail "mounted"
