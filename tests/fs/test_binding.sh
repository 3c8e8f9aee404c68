#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The metadata knows its image: changed behind the tracker's back, or of another size, it is refused until told otherwise.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
new_image "$T/disk.img" $M
mkdir "$T/mnt"
daemon() { "$ERAIMGFS" "$T/disk.img" "$T/mnt" "$@"; }

mount_image "$T/disk.img" "$T/mnt"
ops write "$T/mnt/disk.img" 0 10 1 >/dev/null
cursor=$(era checkpoint --cursor "$T/mnt")
umount_image "$T/mnt"

say "changed at rest"
cp -p "$T/disk.img" "$T/copy"
printf x | dd of="$T/disk.img" bs=1 seek=$((9 * BLOCK)) conv=notrunc status=none
refused "$T" 1 "$T/disk.img.*mark-all" daemon
refused "$T" 1 "$T/disk.img.*mark-all" daemon -o ro
expect_fail 5 "disk.img: was changed while it was not mounted.*full backup" era since "$cursor" "$T/disk.img"
assert_eq "0 $M" "$(era since 0 "$T/disk.img" | tr '\t' ' ')" "since 0 is every block, changed or not"
say "check tells"
! era check "$T/disk.img" >"$T/out" 2>&1 || fail "check finds nothing wrong with a changed image"
grep -q "disk.img" "$T/out" || fail "check: $(cat "$T/out")"

say "an older copy of the metadata put back: lacks what was recorded later"
new_image "$T/old.img" $M
mount_image "$T/old.img" "$T/mnt"
umount_image "$T/mnt"
mkdir "$T/backup"
cp -p "$T"/old.img.era* "$T/backup"
mount_image "$T/old.img" "$T/mnt"
old_cursor=$(era checkpoint --cursor "$T/mnt")
ops write "$T/mnt/old.img" 0 10 1 >/dev/null
umount_image "$T/mnt"
assert_eq 0 "$(since "$old_cursor" "$T/old.img")" "the pair as it was left"
for f in "$T"/old.img.era*; do
  case $f in *.witness) ;; *) rm "$f" ;; esac
done
for f in "$T"/backup/*; do
  case $f in *.witness) ;; *) cp -p "$f" "$T" ;; esac
done
expect_fail 5 "old.img.era: lacks commits.*full backup" era since 1 "$T/old.img"
expect_fail 5 "old.img.era: lacks commits.*full backup" era since 1 "$T/old.img.era"
refused "$T" 1 "mark-all" "$ERAIMGFS" "$T/old.img" "$T/mnt"

say "the way on: a new UUID, every block marked, the old cursor refused"
mount_image "$T/disk.img" "$T/mnt" -o bypass=mark-all
[ "$(status_of "$T/mnt" uuid)" != "${cursor%:*}" ] || fail "the same UUID after mark-all"
now=$(status_of "$T/mnt" current_era)
[ "$now" -gt "${cursor#*:}" ] || fail "era $now after mark-all is not above $cursor"
assert_eq 16 "$(since "$now" "$T/mnt" | wc -w)" "since the era of mark-all"
expect_fail 5 "full backup" era since "$cursor" "$T/mnt"
cursor=$(era checkpoint --cursor "$T/mnt")
assert_eq "" "$(since "$cursor" "$T/mnt")" "since the next"
umount_image "$T/mnt"

say "mark-all on a healthy pair changes nothing"
mount_image "$T/disk.img" "$T/mnt" -o bypass=mark-all
assert_eq "${cursor%:*}" "$(status_of "$T/mnt" uuid)" "UUID"
assert_eq "" "$(since "$cursor" "$T/mnt")" "since"
umount_image "$T/mnt"

say "replaced by its copy with the same time: a copy is as good as the image"
cp -p "$T/disk.img" "$T/moved.img"
rm "$T/disk.img"
mv "$T/moved.img" "$T/disk.img"
mount_image "$T/disk.img" "$T/mnt"
umount_image "$T/mnt"

say "touched behind the back of a daemon that was killed"
mount_image "$T/disk.img" "$T/mnt"
ops write "$T/mnt/disk.img" 0 10 2 >/dev/null
kill9_daemon "$T/mnt"
touch -d '+1 hour' "$T/disk.img"
refused "$T" 1 "$T/disk.img.*mark-all" daemon
mount_image "$T/disk.img" "$T/mnt" -o bypass=mark-all
umount_image "$T/mnt"

say "it grew: refused, then accepted; the new blocks and the old last one are reported"
mount_image "$T/disk.img" "$T/mnt"
point=$(era checkpoint --cursor "$T/mnt")
umount_image "$T/mnt"
truncate -s $((M + 3 * BLOCK + 77)) "$T/disk.img"
expect_fail 5 "disk.img: was changed while it was not mounted.*full backup" era since 0 "$T/disk.img"
refused "$T" 1 "$T/disk.img.*resize" daemon
mount_image "$T/disk.img" "$T/mnt" -o resize
assert_eq $((M + 3 * BLOCK + 77)) "$(stat -c %s "$T/mnt/disk.img")" "size"
assert_eq "$((M + 3 * BLOCK + 77)) 20" "$(status_of "$T/mnt" image_size) $(status_of "$T/mnt" nr_blocks)" "status"
answer=" $(since "$point" "$T/mnt") "
for block in 16 17 18 19; do [[ $answer == *" $block "* ]] || fail "new block $block is not in since: $answer"; done
assert_eq 1 "$(ops write "$T/mnt/disk.img" $((M + 3 * BLOCK + 76)) 1 1)" "write to the new end"
umount_image "$T/mnt"
mount_image "$T/disk.img" "$T/mnt" # without the option: it is bound to the new size
umount_image "$T/mnt"

say "it shrank: the tail drops out of every answer"
truncate -s $((10 * BLOCK + 5)) "$T/disk.img"
refused "$T" 1 "$T/disk.img.*resize" daemon
mount_image "$T/disk.img" "$T/mnt" -o resize
assert_eq "$((10 * BLOCK + 5))" "$(era since 0 "$T/mnt" | tail -n 1 | awk '{ print $1 + $2 }')" "end of since 0"
[[ " $(since "$point" "$T/mnt") " == *" 10 "* ]] || fail "the new last block is not in since: $(since "$point" "$T/mnt")"
umount_image "$T/mnt"
say "and grew again, within a block"
truncate -s $((10 * BLOCK + 500)) "$T/disk.img"
mount_image "$T/disk.img" "$T/mnt" -o resize
[[ " $(since "$(status_of "$T/mnt" current_era)" "$T/mnt") " == *" 10 "* ]] || fail "the grown block is not in since"
umount_image "$T/mnt"
era check "$T/disk.img" >/dev/null || fail "check: $(era check "$T/disk.img")"
