#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# While frozen: the database's bytes stand still, reads and queries go on, writers wait and lose nothing, nothing hangs.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v fio
requires command -v python3

# No command may wait for a frozen image. (A freeze itself may have a backlog and a reader to wait for.)
era() { timeout -k 1 10 "$ERA_CLI" "$@"; }

new_image "$T/a.img" $((16 * M))
new_image "$T/b.img" $M
mkdir "$T/a" "$T/b" "$T/no-instances"
mount_image "$T/a.img" "$T/a" -o threads=2
mount_image "$T/b.img" "$T/b"
file=$T/a/a.img
# start CMD ARGS...: in the background, its pid added to $writers.
writers=()
start() {
  "$@" &
  writers+=($!)
}
end_writers() {
  local pid
  for pid in "${writers[@]}"; do
    wait_until 30 is_gone "$pid" || fail "a writer still waits"
    wait "$pid" || fail "a writer ended with $?"
  done
  writers=()
}

say "freeze answers the era that has ended"
first_era=$(era checkpoint --label before "$T/a")
for block in 3 200; do assert_eq 4096 "$(ops write "$file" $((block * BLOCK)) 4096 65)" "write"; done
assert_eq "$first_era" "$(era freeze "$T/a")" "freeze"
bytes=$(bytes_at_rest "$T/a.img")
cp "$T/a.img" "$T/frozen"
now=$((first_era + 1))
assert_eq frozen "$(status_of "$T/a" state)" "state"
assert_eq "$first_era" "$(status_of "$T/a" frozen_era)" "frozen_era"
assert_eq "$now" "$(status_of "$T/a" current_era)" "current_era"
left=$(status_of "$T/a" thaw_in_s)
[[ $left -gt 0 && $left -le 60 ]] || fail "thaw_in_s: $left"

say "32 asynchronous writers wait; fsync and a change of times do not"
start fio --name=load --filename="$file" --offset=8m --size=8m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=32 --direct=1 \
  --number_ios=512 --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --randseed=7 --output="$T/fio.out"
wait_until 10 parked_at_least "$T/a" 32 || fail "$(status_of "$T/a" parked_requests) requests wait"
timeout 10 sync "$file" || fail "fsync waits"
timeout 10 touch "$file" || fail "touch waits"

say "writers of all other kinds wait"
# From here on the kernel lets neither fsync nor touch through: the inode's lock is with the first write(2) that waits.
start dd if=/dev/zero of="$file" bs=4k count=4 seek=$((5 * BLOCK / 4096)) conv=notrunc oflag=sync status=none
start dd if=/dev/zero of="$file" bs=4k count=4 seek=$((6 * BLOCK / 4096)) conv=notrunc oflag=direct status=none
start sh -c "head -c 8192 /dev/zero | dd of='$file' bs=8k seek=$((7 * BLOCK / 8192)) conv=notrunc status=none"
wait_until 10 parked_at_least "$T/a" 35 || fail "$(status_of "$T/a" parked_requests) requests wait"

say "queries by mount, image and database, live; and without the instance"
for target in "$T/a" "$file" "$T/a.img" "$T/a.img.era"; do
  assert_eq frozen "$(status_of "$target" state)" "status $target"
  assert_eq "3 200" "$(since "$first_era" "$target")" "since $target"
  assert_eq "3 200" "$(since before "$target")" "since a label, $target"
  assert_eq "" "$(since "$now" "$target")" "since the current era, $target"
  era check "$target" >"$T/out" || fail "check $target: $(cat "$T/out")"
  assert_eq before "$(era label list "$target" | cut -f 1)" "label list $target"
done
for target in "$T/a.img" "$T/a.img.era"; do
  assert_eq offline "$(ERAIMGFS_RUN_DIR=$T/no-instances status_of "$target" state)" "status $target, offline"
  assert_eq "3 200" "$(ERAIMGFS_RUN_DIR=$T/no-instances since "$first_era" "$target")" "since $target, offline"
  ERAIMGFS_RUN_DIR=$T/no-instances era check "$target" >"$T/out" || fail "check $target, offline: $(cat "$T/out")"
done
era status "$T/a" | grep -qx "state: frozen" || fail "status: $(era status "$T/a")"
era list | grep -qF "$T/a" || fail "list: $(era list)"
expect_fail 5 "full backup" era since $((now + 1)) "$T/a"

say "what would change something is refused"
expect_fail 3 "$T/a.*frozen" era checkpoint "$T/a"
expect_fail 3 "$T/a.*frozen" era checkpoint "$T/b" "$T/a"
expect_fail 3 "$T/a.*frozen" era freeze "$T/a"
expect_fail 3 "$T/a.*frozen" era freeze "$T/b" "$T/a"
expect_fail 3 "$T/a.*frozen" era label add late "$T/a"
expect_fail 3 "$T/a.*frozen" era label rm before "$T/a"
assert_eq running "$(status_of "$T/b" state)" "the other image"
assert_eq 4096 "$(ops write "$T/b/b.img" 0 4096 65)" "a write to the other image"

say "reads and all that writes nothing go on"
for i in 0 1 2 3 4 5 6 7; do
  timeout 10 dd if="$file" of=/dev/null bs=64k count=4 skip=$((i * 4)) iflag=direct status=none || fail "a direct read waits"
done
timeout 10 cmp "$file" "$T/frozen" || fail "a buffered read waits, or differs"
for i in 1 3 5 7; do timeout 10 "$FS_TOOLS/ops" read "$file" $((i * M)) 4096 >/dev/null || fail "open, read, close wait"; done
timeout 10 stat "$file" >/dev/null || fail "stat waits"
timeout 10 ls -l "$T/a" >/dev/null || fail "ls waits"
timeout 10 df "$T/a" >/dev/null || fail "df waits"
timeout 10 sync -f "$T" || fail "sync -f of another file system waits"

say "a waiting writer can be interrupted and killed"
start_write "$file" 20 66
victim=$writer
"$FS_TOOLS/ops" write-interruptible "$file" $((21 * BLOCK)) 4096 66 >"$T/interrupted" &
interrupted=$!
dd if=/dev/zero of="$file" bs=4k count=1 seek=$((22 * BLOCK / 4096)) conv=notrunc oflag=direct status=none &
direct=$!
# A shell starts what is in the background with SIGINT ignored: python puts the default back.
python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$FS_TOOLS/ops" write "$file" $((23 * BLOCK)) 4096 66 >"$T/out" &
terminal=$!
wait_until 10 parked_at_least "$T/a" 39 || fail "$(status_of "$T/a" parked_requests) requests wait"
kill -KILL "$victim" "$direct"
kill -INT "$terminal"
kill -USR1 "$interrupted"
for pid in "$victim" "$direct" "$terminal" "$interrupted"; do
  wait_gone "$pid" 10 || fail "a waiting writer survives its signal: $(grep State "/proc/$pid/status")"
  wait "$pid" 2>/dev/null || :
done
assert_eq EINTR "$(cat "$T/interrupted")" "interrupted write"

say "all that, and no byte of image or database has changed"
assert_eq frozen "$(status_of "$T/a" state)" "state"
parked_at_least "$T/a" 35 || fail "the writers did not wait all the time: $(status_of "$T/a" parked_requests)"
for pid in "${writers[@]}"; do ! is_gone "$pid" || fail "a writer did not wait"; done
assert_same "$T/frozen" "$T/a.img" "image"
assert_eq "$bytes" "$(bytes_at_rest "$T/a.img")" "database"

say "thaw: all writers go on, and what they wrote is in the new era"
assert_eq "$now" "$(era thaw --era "$first_era" "$T/a")" "thaw"
end_writers
assert_eq 0 "$(status_of "$T/a" parked_requests)" "requests that wait"
assert_eq null "$(status_of "$T/a" frozen_era)" "frozen_era"
cp "$T/a.img" "$T/after"
assert_covers "$T/frozen" "$T/after" "$now" "$T/a"
answer=" $(since "$now" "$T/a") "
for block in 5 6 7; do [[ $answer = *" $block "* ]] || fail "block $block is not in since $now: $answer"; done
for block in 3 20 21 22 23 200; do
  # fio has the upper half.
  [ "$block" -ge 128 ] || [[ $answer != *" $block "* ]] || fail "block $block is in since $now: $answer"
  [ "$block" -ge 128 ] || assert_same <(dd if="$T/frozen" bs=4k count=1 skip=$((block * 16)) status=none) \
    <(dd if="$T/after" bs=4k count=1 skip=$((block * 16)) status=none) "block $block"
done
for block in 5 6; do
  assert_same <(head -c 16384 /dev/zero) <(dd if="$T/after" bs=16k count=1 skip=$((block * 4)) status=none) "block $block"
done
assert_eq 0 "$(status_of "$T/a" auto_thaws)" "auto_thaws"

say "the deadline thaws"
frozen=$(era freeze --timeout 2 "$T/a")
start_write "$file" 30 67
start dd if=/dev/zero of="$file" bs=4k count=1 seek=$((31 * BLOCK / 4096)) conv=notrunc oflag=direct status=none
end_write 30 4096
end_writers
wait_until 10 has_state "$T/a" running || fail "state: $(status_of "$T/a" state)"
assert_eq 1 "$(status_of "$T/a" auto_thaws)" "auto_thaws"
grep -q "$frozen" <<<"$(status_of "$T/a" auto_thaw_reason)" || fail "auto_thaw_reason: $(status_of "$T/a" auto_thaw_reason)"
assert_eq "30 31" "$(since $((frozen + 1)) "$T/a")" "since the era of the thaw"
expect_fail 1 "no longer holds" era thaw --era "$frozen" "$T/a"
expect_fail 1 "not frozen" era thaw "$T/a"
say "another client's freeze is not thawed by the first"
other=$(era freeze --timeout 0 "$T/a")
[ "$other" -gt "$frozen" ] || fail "the second freeze answered $other, the first $frozen"
assert_eq null "$(status_of "$T/a" thaw_in_s)" "thaw_in_s without a deadline"
expect_fail 3 "another freeze.*no longer holds" era thaw --era "$frozen" "$T/a"
assert_eq frozen "$(status_of "$T/a" state)" "state"
assert_eq $((other + 1)) "$(era thaw --era "$other" "$T/a")" "thaw"

say "freeze while another client holds the gate"
close_gate "$T/a"
era freeze "$T/a" >"$T/out" &
freezer=$!
open_gate
wait "$freezer" || fail "freeze after the gate's client died: exit $?"
era thaw --era "$(cat "$T/out")" "$T/a" >/dev/null
close_gate "$T/a" # who opens it after some seconds by its silence
era freeze "$T/a" >"$T/out" || fail "freeze behind a silent client: exit $?"
open_gate
era thaw --era "$(cat "$T/out")" "$T/a" >/dev/null

say "two images, two clients, in opposite order"
for _ in 1 2 3 4 5; do
  era freeze "$T/a" "$T/b" >"$T/out1" 2>"$T/err1" &
  one=$!
  era freeze "$T/b" "$T/a" >"$T/out2" 2>"$T/err2" &
  two=$!
  codes=
  for pid in "$one" "$two"; do
    status=0
    wait "$pid" || status=$?
    codes="$codes $status"
  done
  case $codes in
    " 0 3") assert_eq "2 0" "$(wc -l <"$T/out1") $(wc -l <"$T/out2")" "lines" ;;
    " 3 0") assert_eq "0 2" "$(wc -l <"$T/out1") $(wc -l <"$T/out2")" "lines" ;;
    *) fail "exits$codes: $(cat "$T/err1" "$T/err2")" ;;
  esac
  assert_eq "frozen frozen" "$(status_of "$T/a" state) $(status_of "$T/b" state)" "states"
  era thaw "$T/b" "$T/a" >"$T/out" || fail "thaw: exit $?"
  assert_eq 2 "$(wc -l <"$T/out")" "lines"
done
for _ in 1 2 3 4 5; do
  era freeze "$T/a" "$T/b" >"$T/out1" 2>"$T/err1" &
  one=$!
  era checkpoint "$T/b" "$T/a" >"$T/out2" 2>"$T/err2" &
  two=$!
  wait "$one" || fail "freeze beside a checkpoint: exit $?: $(cat "$T/err1")"
  status=0
  wait "$two" || status=$?
  [ "$status" = 0 ] || [ "$status" = 3 ] || fail "checkpoint beside a freeze: exit $status: $(cat "$T/err2")"
  [ "$status" = 0 ] || [ ! -s "$T/out2" ] || fail "a refused checkpoint printed $(cat "$T/out2")"
  era thaw "$T/a" "$T/b" >/dev/null || fail "thaw: exit $?"
done

say "a checkpoint that asked before the freeze came does not wait for the thaw, behind a writer that does"
# It asks in the order of the UUIDs, and waits for the second one's answer. Has it not asked the first one yet, it is refused.
first=a second=b
[[ $(status_of "$T/a" uuid) < $(status_of "$T/b" uuid) ]] || first=b second=a
pid=$(status_of "$T/$second" pid)
cleanup_fn eval "kill -CONT $pid 2>/dev/null || :"
kill -STOP "$pid"
"$ERA_CLI" checkpoint "$T/a" "$T/b" >"$T/out" 2>"$T/err" &
client=$!
wait_until 10 grep -qE "poll|unix" "/proc/$client/wchan" || fail "the client does not wait"
frozen=$(era freeze --timeout 30 "$T/$first")
start_write "$T/$first/$first.img" 1 66
wait_until 10 parked_at_least "$T/$first" 1 || fail "the write does not wait"
kill -CONT "$pid"
wait_until 10 is_gone "$client" || fail "the client hangs: $(grep State "/proc/$client/status")"
status=0
wait "$client" || status=$?
assert_eq 3 "$status" "exit"
assert_eq "" "$(cat "$T/out")" "printed"
era thaw --era "$frozen" "$T/$first" >/dev/null
end_write 1 4096

say "an image that was changed behind a frozen instance: no answer that lacks the change, no thaw"
frozen=$(era freeze --timeout 0 "$T/a")
dd if=/dev/urandom of="$T/a.img" bs=4k count=1 seek=$((40 * BLOCK / 4096)) conv=notrunc status=none
expect_fail 1 "$T/a.*changed while it was frozen" era thaw --era "$frozen" "$T/a"
expect_fail 5 "full backup" era since "$first_era" "$T/a"
umount_image "$T/a"
umount_image "$T/b"
expect_fail 5 "full backup" era since "$first_era" "$T/a.img"
