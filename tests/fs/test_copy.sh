#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# dump, restore and snapshot beside a live instance; and what a mount makes of what they made.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

new_image "$T/disk.img" $((40 * BLOCK - 100))
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"
put() { ops write "$T/mnt/disk.img" $(($1 * BLOCK)) 1 65 >/dev/null; }
put 1
era checkpoint "$T/mnt" >/dev/null
put 2
put 39

say "a snapshot of a running instance is of its instant, and whole"
era snapshot -o "$T/snap" "$T/mnt"
era dump -o "$T/before.xml" "$T/mnt"
put 7
assert_eq "2 39" "$(since 2 "$T/snap")" "since 2 of the snapshot"
assert_eq "2 7 39" "$(since 2 "$T/mnt")" "since 2 of the instance"
era dump "$T/snap" | cmp - "$T/before.xml" || fail "the dump of the snapshot is not that of its instant"
[ ! -e "$T/snap-wal" ] && [ ! -e "$T/snap-shm" ] || fail "the snapshot is not one file"
era check "$T/snap"
assert_eq "$(status_of "$T/mnt" uuid)" "$(status_of "$T/snap" uuid)" "the UUID, for cursors"

say "the files of a live instance are no place for either"
for f in disk.img.era disk.img.era-wal disk.img.era.witness disk.img mnt/disk.img; do
  expect_fail 2 "-o names" era dump -o "$T/$f" "$T/mnt"
  expect_fail 2 "-o names" era snapshot -o "$T/$f" "$T/mnt"
  expect_fail 2 "-o names" era restore -i "$T/before.xml" -o "$T/$f"
done
expect_fail 3 "is mounted" era restore -i "$T/before.xml" -o "$T/new.era" --image "$T/disk.img"

say "frozen: they write nothing"
n=$(era freeze --timeout 0 "$T/mnt")
bytes_at_rest "$T/disk.img" >"$T/frozen"
era snapshot -o "$T/snap" "$T/mnt"
era dump -o "$T/frozen.xml" "$T/mnt"
bytes_at_rest "$T/disk.img" | cmp - "$T/frozen" || fail "a frozen database was written to"
era thaw --era "$n" "$T/mnt" >/dev/null
put 9
assert_eq "2 7 39" "$(since 2 "$T/snap")" "since 2 of the frozen instant"

say "many at once, while eras end"
for _ in 1 2 3 4 5 6 7 8; do
  era dump --logical "$T/mnt" >"$T/d.xml"
  xmllint --noout "$T/d.xml"
  put 11
  era snapshot -o "$T/snap2" "$T/mnt"
  era checkpoint "$T/mnt" >/dev/null
done
era check "$T/snap2"
umount_image "$T/mnt"

say "no image goes on with a snapshot: not for writing, not for reading, not by force, and not in place of its metadata"
for options in "metadata=$T/snap" "ro,metadata=$T/snap" "bypass=mark-all,metadata=$T/snap"; do
  before=$(sha256sum "$T/snap" "$T/disk.img" "$T/disk.img.era")
  expect_fail 1 "is a snapshot" "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o "$options"
  assert_eq "$before" "$(sha256sum "$T/snap" "$T/disk.img" "$T/disk.img.era")" "what a refused mount leaves"
done
mkdir "$T/kept"
mv "$T"/disk.img.era* "$T/kept"
cp "$T/snap" "$T/disk.img.era"
expect_fail 1 "is a snapshot" "$ERAIMGFS" "$T/disk.img" "$T/mnt"
expect_fail 1 "is a snapshot" era since 2 "$T/disk.img"
rm "$T"/disk.img.era*

say "restored with the image, the metadata go on"
era dump -o "$T/last.xml" "$T/kept/disk.img.era"
era restore -i "$T/last.xml" -o "$T/disk.img.era" --image "$T/disk.img" 2>"$T/err"
grep -q "new UUID" "$T/err" || fail "$(cat "$T/err")"
[ "$(status_of "$T/disk.img" uuid)" != "$(status_of "$T/kept/disk.img.era" uuid)" ] || fail "the old cursors are valid"
old=$(status_of "$T/kept/disk.img.era" current_era)
for n in $(seq 0 "$old"); do
  assert_eq "$(since "$n" "$T/kept/disk.img.era")" "$(since "$n" "$T/disk.img")" "since $n"
done
cp "$T/disk.img" "$T/copy"
mount_image "$T/disk.img" "$T/mnt"
[ "$(status_of "$T/mnt" current_era)" -gt "$old" ] || fail "eras went back"
put 20
assert_eq "20" "$(since $((old + 1)) "$T/mnt")" "what was written since"
assert_covers "$T/copy" "$T/disk.img" $((old + 1)) "$T/mnt"
umount_image "$T/mnt"

say "an image that was written to after its restore is refused"
rm "$T"/disk.img.era*
era restore -i "$T/last.xml" -o "$T/disk.img.era" --image "$T/disk.img" 2>/dev/null
printf x | dd of="$T/disk.img" bs=1 seek=5 conv=notrunc status=none
touch -d '1 minute ago' "$T/disk.img"
expect_fail 1 "was modified" "$ERAIMGFS" "$T/disk.img" "$T/mnt"

say "what an older dump does not know is known from the witness"
rm "$T"/disk.img.era
cp "$T/kept/disk.img.era.witness" "$T/"
expect_fail 1 "had reached era" era restore -i "$T/before.xml" -o "$T/disk.img.era" --image "$T/disk.img"
era restore -i "$T/before.xml" -o "$T/disk.img.era" 2>/dev/null
assert_eq "2 39" "$(since 2 "$T/disk.img.era")" "as a snapshot it tells of its own instant"
