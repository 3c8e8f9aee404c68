#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The ways to an end: SIGTERM idle and busy, unmount, kill -9; nothing is lost, everything starts again.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

new_image "$T/disk.img" $M
new_image "$T/large.img" $((32 * M))
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

say "mounted at once after umount(8), which returns while the daemon still stops"
for i in 1 2 3 4 5 6 7 8 9 10; do
  mount_image "$T/large.img" "$T/mnt" -o control="$T/socket"
  head -c $((24 * M)) /dev/zero | tr '\0' "\\$((100 + i))" | dd of="$T/mnt/large.img" bs=1M conv=notrunc status=none
  umount "$T/mnt"
done
mount_image "$T/large.img" "$T/mnt" -o control="$T/socket"
umount_image "$T/mnt"

say "a program that we do not know holds the image: waited for; the control socket answers, and says so"
# ask: what the control socket says.
ask() {
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"{\"request\": \"status\"}\n")
print(s.makefile().readline(), end="")' "$T/socket"
}
exec 7<"$T/disk.img"
flock 7
"$ERAIMGFS" "$T/disk.img" "$T/mnt" -o control="$T/socket" 7<&- &
pid=$!
wait_until 20 test -S "$T/socket"
reply=$(ask)
assert_eq false "$(jq .ok <<<"$reply")" "an answer while it starts: $reply"
grep -q "is starting" <<<"$reply" || fail "$reply"
! is_mounted "$T/mnt" || fail "mounted a locked image"
exec 7<&-
wait "$pid" || fail "exit $? after the lock was free"
is_mounted "$T/mnt"
assert_eq true "$(ask | jq .ok)" "an answer when it serves"
umount_image "$T/mnt"

say "a signal ends the wait"
before=$(status_of "$T/disk.img" current_era)
exec 7<"$T/disk.img"
flock 7
"$ERAIMGFS" -f "$T/disk.img" "$T/mnt" -o control="$T/socket" 7<&- 2>"$T/foreground.err" &
pid=$!
wait_until 20 test -S "$T/socket"
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
exec 7<&-
assert_eq 3 "$status" "exit after SIGTERM: $(cat "$T/foreground.err")"
assert_eq "$before" "$(status_of "$T/disk.img" current_era)" "era"
[ ! -e "$T/socket" ] || fail "left its socket"

say "ten stops and starts: eras only go up, nothing piles up"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  before=$(status_of "$T/disk.img" current_era)
  mount_image "$T/disk.img" "$T/mnt"
  [ "$(status_of "$T/mnt" current_era)" -ge "$before" ] || fail "an era went back"
  umount_image "$T/mnt"
done
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"
