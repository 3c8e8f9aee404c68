#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# While writers wait in a closed gate, reads are served; then the writers complete and nothing is lost.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v fio

new_image "$T/disk.img" $((16 * M))
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt" -o threads=2
file=$T/mnt/disk.img
point=$(era checkpoint "$T/mnt")
cp "$file" "$T/copy"
say "32 asynchronous writers wait, reads do not"
close_gate "$T/mnt"
fio --name=load --filename="$file" --rw=randwrite --bs=4k --ioengine=libaio --iodepth=32 --direct=1 --size=16m \
  --number_ios=512 --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed=7 --output="$T/fio.out" &
load=$!
wait_until 4 parked_at_least "$T/mnt" 32 || fail "$(status_of "$T/mnt" parked_requests) writers parked"
for i in 0 1 2 3 4 5 6 7; do
  timeout 4 dd if="$file" of=/dev/null bs=4k count=64 skip=$((i * 64)) iflag=direct status=none || fail "a read waits for the gate"
done
timeout 4 head -c 1M "$file" >/dev/null || fail "a buffered read waits for the gate"
timeout 4 "$FS_TOOLS/ops" fsync "$file" >/dev/null || fail "fsync waits for the gate"
timeout 4 stat "$file" >/dev/null || fail "stat waits for the gate"
parked_at_least "$T/mnt" 32 || fail "the gate opened before the reads were done: they prove nothing"
assert_same "$T/copy" "$T/disk.img" "a write got past the closed gate"
open_gate
wait "$load" || fail "fio: $(cat "$T/fio.out")"
assert_eq 0 "$(status_of "$T/mnt" parked_requests)" "still parked"
cp "$T/disk.img" "$T/after"
assert_covers "$T/copy" "$T/after" "$point" "$T/mnt"

say "a waiting write answers a signal with EINTR, and wrote nothing"
close_gate "$T/mnt"
"$FS_TOOLS/ops" write-interruptible "$file" 0 4096 65 >"$T/interrupted" &
writer=$!
wait_until 4 parked_at_least "$T/mnt" 1 || fail "the write does not wait"
kill -USR1 "$writer"
wait "$writer"
assert_eq EINTR "$(cat "$T/interrupted")" "interrupted write"
say "a waiting writer can be killed"
"$FS_TOOLS/ops" write "$file" 0 4096 65 >"$T/killed" &
writer=$!
wait_until 4 parked_at_least "$T/mnt" 1 || fail "the write does not wait"
kill -9 "$writer"
wait_gone "$writer" 4 || fail "a waiting writer survives SIGKILL"
wait "$writer" 2>/dev/null || :
open_gate
assert_same "$T/after" "$T/disk.img" "an interrupted write was written"

say "a client that says nothing does not hold the gate for ever"
close_gate "$T/mnt"
"$FS_TOOLS/ops" write "$file" 4096 4096 65 >"$T/waited" &
writer=$!
wait_until 20 is_gone "$writer" || fail "a silent client holds the gate"
assert_eq 4096 "$(cat "$T/waited")" "the write that waited"
open_gate
assert_eq 4096 "$("$FS_TOOLS/ops" write "$file" 0 4096 66)" "write"
umount_image "$T/mnt"
