#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A device, frozen: it has no mtime that would tell of what others do to it.
. "${0%/*}/lib.sh" || exit 1
requires_fuse
requires_loop

era() { timeout -k 1 30 "$ERA_CLI" "$@"; }
second() { timeout -k 1 60 "$ERAIMGFS" "$LOOP" "$T/second" "$@"; }

mkdir "$T/mnt" "$T/second"
new_image "$T/disk.img" $((4 * M))
attach "$T/disk.img"
file=$T/mnt/${LOOP##*/}
mount_image "$LOOP" "$T/mnt" -o "metadata=$T/a.era"
# freeze_it: with a write that waits. thaw_it: and all goes on.
freeze_it() {
  frozen=$(era freeze --timeout 0 "$T/mnt")
  start_write "$file" 3 66
  wait_until 10 parked_at_least "$T/mnt" 1 || fail "the write does not wait"
}
thaw_it() {
  assert_eq frozen "$(status_of "$T/mnt" state)" "state"
  assert_eq $((frozen + 1)) "$(era thaw --era "$frozen" "$T/mnt")" "thaw"
  end_write 3 4096
  assert_eq 3 "$(since $((frozen + 1)) "$T/mnt")" "since"
}

say "a copy of the metadata is no way in: its changes would go unseen"
freeze_it
cp "$T/a.era" "$T/b.era"
for options in takeover takeover,bypass=mark-all bypass=mark-all ro; do
  expect_fail 3 "frozen by another" second -o "metadata=$T/b.era,$options"
done
expect_fail 3 "frozen by another" second -o "metadata=$T/b.era"
expect_fail 3 "frozen by another" second -o "metadata=$T/new.era,takeover"
thaw_it

say "smaller while frozen: no thaw and no answer; as large as it was: both"
freeze_it
truncate -s $((2 * M)) "$T/disk.img"
losetup -c "$LOOP"
expect_fail 1 "cannot be thawed: the image was changed" era thaw --era "$frozen" "$T/mnt"
expect_fail 5 "changed while it was frozen" era since 1 "$T/mnt"
assert_eq frozen "$(status_of "$T/mnt" state)" "state"
parked_at_least "$T/mnt" 1 || fail "the write was let through"
truncate -s $((4 * M)) "$T/disk.img"
losetup -c "$LOOP"
assert_eq 3 "$(since 1 "$T/mnt")" "since"
thaw_it

say "larger while frozen"
freeze_it
truncate -s $((5 * M)) "$T/disk.img"
losetup -c "$LOOP"
expect_fail 1 "cannot be thawed: the image was changed" era thaw "$T/mnt"
expect_fail 5 "changed while it was frozen" era since 1 "$T/mnt"
truncate -s $((4 * M)) "$T/disk.img"
losetup -c "$LOOP"
thaw_it

say "its own metadata are the way in"
freeze_it
mount_image "$LOOP" "$T/second" -o "metadata=$T/a.era,takeover"
end_write 3 EIO
assert_eq 4096 "$(ops write "$T/second/${LOOP##*/}" $((9 * BLOCK)) 4096 67)" "a write of the successor"
expect_fail 3 "took over" era thaw --era "$frozen" "$T/mnt"
assert_eq 9 "$(since $((frozen + 1)) "$T/second")" "since"
umount_image "$T/mnt"
umount_image "$T/second"
