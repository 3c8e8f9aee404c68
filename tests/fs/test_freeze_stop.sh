#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The ways to an end while frozen: each at once, none changes a byte, and the next mount needs no takeover and is exact.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

era() { timeout -k 1 10 "$ERA_CLI" "$@"; }

new_image "$T/disk.img" $((4 * M))
mkdir "$T/mnt"
file=$T/mnt/disk.img
tmpfs=$(stat -f -c %T "$ERAIMGFS_RUN_DIR")

# frozen_with BLOCK...: mounted, these blocks written in the current era, then frozen without a deadline. Sets $frozen (the
# answer), $pid, $bytes (of the database) and a copy of the image.
frozen_with() {
  local block
  mount_image "$T/disk.img" "$T/mnt"
  for block in "$@"; do assert_eq 4096 "$(ops write "$file" $((block * BLOCK)) 4096 $((RANDOM % 256)))" "write"; done
  pid=$(status_of "$T/mnt" pid)
  frozen=$(era freeze --timeout 0 "$T/mnt")
  bytes=$(bytes_at_rest "$T/disk.img")
  cp "$T/disk.img" "$T/copy"
}
# unchanged WHAT
unchanged() {
  assert_eq "$bytes" "$(bytes_at_rest "$T/disk.img")" "database after $1"
  assert_same "$T/copy" "$T/disk.img" "image after $1"
}
# exact_again BLOCKS: at rest and mounted again since says that and no more.
exact_again() {
  assert_eq "$1" "$(since "$frozen" "$T/disk.img")" "since, at rest"
  assert_eq "" "$(since $((frozen + 1)) "$T/disk.img")" "since the era after, at rest"
  mount_image "$T/disk.img" "$T/mnt"
  assert_eq running "$(status_of "$T/mnt" state)" "state"
  assert_same "$T/copy" "$file" "the image, mounted again"
  assert_eq "$1" "$(since "$frozen" "$T/mnt")" "since"
  assert_eq "" "$(since $((frozen + 1)) "$T/mnt")" "since the era after"
  assert_eq true "$(era since "$frozen" --format json "$T/mnt" | jq .exact)" "exact"
  assert_eq 4096 "$(ops write "$file" $((60 * BLOCK)) 4096 1)" "a write"
  assert_eq "60" "$(since $((frozen + 1)) "$T/mnt")" "since, after a write"
  era check "$T/mnt" >"$T/out" || fail "check: $(cat "$T/out")"
  umount_image "$T/mnt"
}

say "SIGTERM with writers that wait: they get EIO, nothing of theirs is written"
frozen_with 1 2
for block in 10 11 12; do start_write "$file" "$block" 66; done
wait_until 10 parked_at_least "$T/mnt" 3 || fail "the writers do not wait"
kill -TERM "$pid"
wait_gone "$pid" 20 || fail "the daemon is there 20 s after SIGTERM"
for block in 10 11 12; do end_write "$block" "EIO|ENOTCONN"; done
! is_mounted "$T/mnt" || fail "still mounted"
unchanged "SIGTERM with writers"
exact_again "1 2"

say "SIGTERM with nobody there"
frozen_with 3
kill -TERM "$pid"
wait_gone "$pid" 20 || fail "the daemon is there 20 s after SIGTERM"
! is_mounted "$T/mnt" || fail "still mounted"
unchanged "SIGTERM"
exact_again 3

say "SIGTERM with a reader that holds the file"
frozen_with 4
exec 8<"$file"
kill -TERM "$pid"
wait_gone "$pid" 20 || fail "the daemon is there 20 s after SIGTERM"
exec 8<&-
unchanged "SIGTERM with a reader"
exact_again 4

say "unmount"
frozen_with 5
umount "$T/mnt"
wait_gone "$pid" 20 || fail "the daemon is there 20 s after its unmount"
unchanged "unmount"
exact_again 5

say "umount -l with a writer that waits: frozen on, thawed by the image's name, then it ends"
frozen_with 6
start_write "$file" 20 66
wait_until 10 parked_at_least "$T/mnt" 1 || fail "the writer does not wait"
umount -l "$T/mnt"
assert_eq frozen "$(status_of "$T/disk.img" state)" "state, detached"
unchanged "umount -l"
assert_eq $((frozen + 1)) "$(era thaw --era "$frozen" "$T/disk.img")" "thaw"
end_write 20 4096
wait_gone "$pid" 20 || fail "the daemon is there 20 s after its last user"
assert_eq "20" "$(since $((frozen + 1)) "$T/disk.img")" "since"
assert_covers "$T/copy" "$T/disk.img" $((frozen + 1)) "$T/disk.img"

say "umount -l with a writer that waits, then SIGTERM"
frozen_with 7
start_write "$file" 21 66
wait_until 10 parked_at_least "$T/mnt" 1 || fail "the writer does not wait"
umount -l "$T/mnt"
kill -TERM "$pid"
wait_gone "$pid" 20 || fail "the daemon is there 20 s after SIGTERM"
end_write 21 "EIO|ENOTCONN"
unchanged "umount -l and SIGTERM"
exact_again 7

say "kill -9 with writers that wait"
frozen_with 8
for block in 22 23; do start_write "$file" "$block" 66; done
wait_until 10 parked_at_least "$T/mnt" 2 || fail "the writers do not wait"
kill -9 "$pid"
wait_gone "$pid" 20 || fail "survives"
for block in 22 23; do end_write "$block" "EIO|ENOTCONN|ECONNABORTED"; done
umount "$T/mnt"
unchanged "kill -9"
exact_again 8

say "kill -9, and the session's file is lost as well: a frozen database does not need it"
frozen_with 9
kill -9 "$pid"
wait_gone "$pid" 20 || fail "survives"
umount "$T/mnt"
find "$ERAIMGFS_RUN_DIR" -type f -delete
unchanged "kill -9"
exact_again 9

say "the end comes with the deadline: a waiting write is done and recorded, or neither"
for ((round = 0; round < 10; round++)); do
  # Without intents, which would count as their whole extents at rest.
  mount_image "$T/disk.img" "$T/mnt" -o intent=off
  pid=$(status_of "$T/mnt" pid)
  frozen=$(era freeze --timeout 1 "$T/mnt")
  cp "$T/disk.img" "$T/copy"
  start_write "$file" 30 $((round + 1))
  # About the deadline, a little earlier or later each time.
  signal=$([ $((round % 2)) = 0 ] && echo TERM || echo KILL)
  sleep "0.9$((RANDOM % 10))"
  [ $((round % 4)) -lt 2 ] || wait_until 10 has_state "$T/mnt" running
  kill "-$signal" "$pid"
  wait_gone "$pid" 20 || fail "the daemon is there 20 s after SIG$signal"
  end_write 30 "4096|EIO|ENOTCONN|ECONNABORTED"
  [ "$signal" = TERM ] || umount "$T/mnt"
  [ "$outcome" != 4096 ] || ! cmp -s "$T/copy" "$T/disk.img" || fail "a write that succeeded is not in the image"
  # With a session file on a tmpfs it is known what was written, without one everything that it may have been.
  [ "$tmpfs" != tmpfs ] || cmp -s "$T/copy" "$T/disk.img" || assert_eq 30 "$(since $((frozen + 1)) "$T/disk.img")" "since, at rest"
  assert_covers "$T/copy" "$T/disk.img" $((frozen + 1)) "$T/disk.img"
  mount_image "$T/disk.img" "$T/mnt"
  assert_covers "$T/copy" "$T/disk.img" $((frozen + 1)) "$T/mnt"
  era check "$T/mnt" >"$T/out" || fail "check: $(cat "$T/out")"
  umount_image "$T/mnt"
done
