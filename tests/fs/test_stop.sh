#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The ways to an end: SIGTERM idle and busy, unmount, kill -9; nothing is lost, everything starts again.
. "${0%/*}/lib.sh"
requires_root
requires_fuse

new_image "$T/disk.img" $M
mkdir "$T/mnt"
file=$T/mnt/disk.img

say "SIGTERM, idle"
mount_image "$T/disk.img" "$T/mnt"
pid=$(status_of "$T/mnt" pid)
assert_eq 100 "$(ops write "$file" 0 100 65)" "write"
kill -TERM "$pid"
wait_gone "$pid" || fail "the daemon is there 20 s after SIGTERM"
! is_mounted "$T/mnt" || fail "still mounted after SIGTERM"
assert_eq "0" "$(since 1 "$T/disk.img")" "since"

say "SIGTERM, busy: detached, serves until the last release"
mount_image "$T/disk.img" "$T/mnt"
pid=$(status_of "$T/mnt" pid)
era_now=$(status_of "$T/mnt" current_era)
exec 8<>"$file"
kill -TERM "$pid"
wait_until 20 sh -c "! grep -q ' $T/mnt ' /proc/self/mountinfo" || fail "not detached after SIGTERM"
[ -e "/proc/$pid" ] || fail "the daemon left while a file was open"
printf 'late' >&8
refused "$T/mnt" 3 "disk.img" "$ERAIMGFS" "$T/disk.img" "$T/mnt"
exec 8>&-
wait_gone "$pid" || fail "the daemon is there 20 s after the last release"
assert_eq late "$(head -c 4 "$T/disk.img")" "the late write"
assert_eq "0" "$(since "$era_now" "$T/disk.img")" "the late write is recorded"

say "SIGINT in the foreground"
"$ERAIMGFS" -f "$T/disk.img" "$T/mnt" 2>"$T/foreground.err" &
pid=$!
wait_until 20 is_mounted "$T/mnt"
wait_until 20 test -e "$file"
kill -INT "$pid"
wait "$pid" || fail "exit $? after SIGINT: $(cat "$T/foreground.err")"
! is_mounted "$T/mnt" || fail "still mounted after SIGINT"

say "unmount while a loop device is on the file: busy, nothing breaks"
if [ -c /dev/loop-control ]; then
  mount_image "$T/disk.img" "$T/mnt"
  attach "$file"
  ! umount "$T/mnt" 2>/dev/null || fail "unmounted under a loop device"
  assert_eq running "$(status_of "$T/mnt" state)" "state"
  pid=$(status_of "$T/mnt" pid)
  losetup -d "$LOOP"
  wait_until 20 umount "$T/mnt"
  wait_gone "$pid"
fi

say "kill -9 and mount again"
mount_image "$T/disk.img" "$T/mnt"
era_now=$(status_of "$T/mnt" current_era)
assert_eq 5 "$(ops write "$file" $((5 * BLOCK + 7)) 5 65)" "write"
kill9_daemon "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"
[ "$(status_of "$T/mnt" current_era)" -gt "$era_now" ] || fail "recovery did not start a new era"
assert_eq "5" "$(since "$era_now" "$T/mnt")" "since"
umount_image "$T/mnt"

say "ten stops and starts: eras only go up, nothing piles up"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  before=$(status_of "$T/disk.img" current_era)
  mount_image "$T/disk.img" "$T/mnt"
  [ "$(status_of "$T/mnt" current_era)" -ge "$before" ] || fail "an era went back"
  umount_image "$T/mnt"
done
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"
