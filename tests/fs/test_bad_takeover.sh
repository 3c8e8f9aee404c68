#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Who must be turned away from an image or from metadata that somebody lives with, frozen or not: nothing is changed by it,
# nothing hangs, and the owner goes on.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

era() { timeout -k 1 10 "$ERA_CLI" "$@"; }
second() { timeout -k 1 60 "$ERAIMGFS" "$1" "$T/second" "${@:2}"; }

mkdir "$T/files" "$T/mnt" "$T/second" "$T/bind"
image=$T/files/disk.img
file=$T/mnt/disk.img
new_image "$image" $M
new_image "$T/files/same-size.img" $M
new_image "$T/files/larger.img" $((2 * M))
ln -s disk.img "$T/files/symlink.img"
ln "$image" "$T/files/hard.img"
ln -s disk.img.era "$T/files/symlink.era"
mount --bind "$T/files" "$T/bind"
say "other metadata that know the image as well"
mount_image "$image" "$T/mnt" -o metadata="$T/files/other.era"
umount_image "$T/mnt"

mount_image "$image" "$T/mnt"
# frozen and goes_on: around what is tried. The frozen instance has a write that waits.
frozen() {
  now=$(era freeze --timeout 0 "$T/mnt")
  start_write "$file" 3 66
  wait_until 10 parked_at_least "$T/mnt" 1 || fail "the write does not wait"
}
goes_on() {
  assert_eq frozen "$(status_of "$T/mnt" state)" "state"
  assert_eq $((now + 1)) "$(era thaw --era "$now" "$T/mnt")" "thaw"
  end_write 3 4096
  assert_eq 3 "$(since $((now + 1)) "$T/mnt")" "since"
}

say "takeover from an owner that runs"
expect_fail 3 "disk.img.*in use" second "$image" -o takeover
expect_fail 3 "disk.img.*in use" second "$image" -o takeover,bypass=mark-all
assert_eq 4096 "$(ops write "$file" 0 4096 65)" "a write of the owner"

say "a second instance on a frozen image or metadata, by other names"
frozen
for name in disk.img symlink.img hard.img; do
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$image.era"
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$T/files/symlink.era"
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$T/files/other.era"
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$T/files/other.era",bypass=mark-all
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$T/files/other.era",takeover
  refused "$T/files" 3 "frozen by another" second "$T/bind/$name" -o metadata="$T/bind/disk.img.era"
  refused "$T/files" 3 "frozen by another" second "$T/bind/$name" -o metadata="$T/files/other.era"
  refused "$T/files" 3 "frozen by another" second "$T/files/$name" -o metadata="$image.era",ro
done
ln "$image.era" "$T/files/hard.era" # SQLite is not safe with two names of one file: no takeover by the second one either
refused "$T/files" 1 "hard.era.*links" second "$image" -o metadata="$T/files/hard.era"
refused "$T/files" 1 "hard.era.*links" second "$image" -o metadata="$T/files/hard.era",takeover
rm "$T/files/hard.era"
refused "$T/files" 3 "frozen by another" second "$T/files/same-size.img" -o metadata="$image.era"
refused "$T/files" 3 "frozen by another" second "$T/files/same-size.img" -o metadata="$image.era",bypass=mark-all
goes_on

if [ -c /dev/loop-control ]; then
  say "by a loop device"
  attach "$image"
  frozen
  refused "$T/files" 3 "frozen by another|in use" second "$LOOP" -o metadata="$image.era"
  refused "$T/files" 3 "frozen by another|in use" second "$LOOP" -o metadata="$T/files/other.era"
    goes_on
  detach "$LOOP" "$image"
fi

say "takeover with another image"
frozen
refused "$T/files" 1 "same-size.img.*bypass=mark-all" second "$T/files/same-size.img" -o metadata="$image.era",takeover
refused "$T/files" 1 "larger.img.*size" second "$T/files/larger.img" -o metadata="$image.era",takeover
refused "$T/files" 1 "block size" second "$image" -o takeover,block_size=4K
goes_on

say "with metadata that would be created: none are left behind"
frozen
refused "$T/files" 3 "frozen by another" second "$image" -o metadata="$T/files/new.era"
refused "$T/files" 3 "frozen by another" second "$image" -o metadata="$T/files/new.era",takeover
goes_on
umount_image "$T/mnt"

say "takeover of what nobody has is any mount"
mount_image "$image" "$T/mnt" -o takeover
assert_eq "0 3" "$(since 1 "$T/mnt")" "since"
umount_image "$T/mnt"

say "mounted over its own image: the name shows the mount, which nobody can take over"
before=$(status_of "$image" generation)
mount_image "$image" "$image"
now=$(era freeze --timeout 0 "$image")
start_write "$image" 5 66
wait_until 10 parked_at_least "$image" 1 || fail "the write does not wait"
expect_fail 1 "disk.img" second "$image" -o takeover
expect_fail 1 "disk.img" second "$image" -o takeover,metadata="$image.era",bypass=mark-all
assert_eq frozen "$(status_of "$image" state)" "state"
say "by its other name it can be"
expect_fail 3 "frozen by another" second "$T/files/hard.img" -o metadata="$image.era"
mount_image "$T/files/hard.img" "$T/second" -o metadata="$image.era",takeover
end_write 5 EIO
assert_eq $((before + 1)) "$(status_of "$T/second" generation)" "generation"
expect_fail 3 "generation $((before + 1))" era thaw "$image"
umount_image "$T/second"
umount_image "$image"
era check "$image" >"$T/out" || fail "check: $(cat "$T/out")"
