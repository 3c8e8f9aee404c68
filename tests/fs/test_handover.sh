#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The handover from one instance to another, step by step as in the kernel's "dm era: commit metadata in postsuspend after
# worker stops", and in the other order of their deaths; copies of frozen metadata; everybody who must be turned away.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v fio
requires command -v python3

era() { timeout -k 1 10 "$ERA_CLI" "$@"; }

# In blocks of 4 KiB. Content is written to the head only; the rest, four million blocks, is what the digest works at.
SIZE=16G HEAD=$((64 * M))
mkdir "$T/a" "$T/b" "$T/c" "$T/bind"
image=$T/disk.img
a=$T/a/disk.img b=$T/b/disk.img
# put FILE BLOCK: 4 KiB of new content.
stamp=0 # never twice the same in a block: what is written is seen in the image
put() {
  stamp=$((stamp % 255 + 1))
  assert_eq 4096 "$(ops write "$1" $(($2 * 4096)) 4096 "$stamp")" "write to $1"
}
copy_head() { head -c "$HEAD" "$1" >"$2"; }
# blocks_since POINT TARGET: in the head, on one line.
blocks_since() {
  era since "$1" "$2" >"$T/.since"
  awk -v head="$HEAD" '$1 < head' "$T/.since" | blocks_in 4096 | paste -sd ' '
}
answer() { era since "$1" "$2" >"$T/.answer" && sha256sum <"$T/.answer"; }
# Database and -wal as they are, whoever has them.
live_bytes() {
  sha256sum <"$image.era"
  [ ! -e "$image.era-wal" ] || sha256sum <"$image.era-wal"
}
is_digested() { [ "$(status_of "$1" archived_eras)" = 0 ]; }
checked() { era check "$1" >"$T/out" || fail "check $1: $(cat "$T/out")"; }

# a_frozen_with_backlog: steps 1 to 4. A is frozen without a deadline, era $frozen has ended, the waiting writers of blocks 100
# and 101 are there, $copy_1 is its head at the start of era $point_1, and $bytes are those of the database.
a_frozen_with_backlog() {
  local i lock steps
  say " 1: another table is made ready"
  rm -rf "$image" "$image".era*
  truncate -s "$SIZE" "$image"
  mount_image "$image" "$T/a" -o block_size=4K
  pid_a=$(status_of "$T/a" pid)
  for i in 1 2 3 4 5 6; do put "$a" $((i * 1000)); done
  point_1=$(era checkpoint --label one "$T/a")
  copy_head "$image" "$T/copy_1"

  say " 2: suspend, while the worker has a big backlog"
  for i in 1 2 3 4 5 6 7 8; do
    put "$a" $((i * 10 + i))
    era checkpoint "$T/a" >/dev/null
  done
  put "$a" 77
  # Gate and freeze on one connection: nothing is prepared, so the backlog is still there. A digest that was quicker than
  # the image's fsync gets another one.
  for i in 1 2 3 4 5; do
    fio --name=scatter --filename="$a" --offset=1g --size=15g --rw=randwrite --bs=4k --ioengine=libaio --iodepth=64 --direct=1 \
      --number_ios=3000 --randrepeat=0 --output=/dev/null
    sync -f "$image"
    control "$T/a" '{"request": "checkpoint"}' '{"request": "gate"}' '{"request": "freeze", "timeout": 0}' >"$T/replies"
    [ "$(jq -r .ok "$T/replies" | paste -sd ' ')" = "true true true" ] || fail "freeze: $(cat "$T/replies")"
    frozen=$(jq -r 'select(.era) | .era' "$T/replies" | tail -n 1)
    bytes=$(bytes_at_rest "$image")
    [ "$(status_of "$T/a" archived_eras)" = 0 ] || break
    era thaw --era "$frozen" "$T/a" >/dev/null
  done
  assert_eq frozen "$(status_of "$T/a" state)" "no backlog in five tries: state"
  answer=$(answer one "$T/a")
  start_write "$a" 100 66
  start_write "$a" 101 66
  wait_until 10 parked_at_least "$T/a" 2 || fail "the writers do not wait"

  say " 3: the metadata are committed, and nothing of the worker's follows"
  steps=$(status_of "$T/a" digest_steps)
  # Until the thread that watches the frozen instance has looked about, which it does once a second.
  waiting_since=$SECONDS
  wait_until 10 two_seconds_have_passed
  assert_eq "$steps" "$(status_of "$T/a" digest_steps)" "steps of the digest while frozen"
  assert_eq "$bytes" "$(bytes_at_rest "$image")" "database"

  say " 4: nothing is cached, nothing is open, nothing is locked"
  ! find "/proc/$pid_a/fd" -lname "$image.era*" | grep . || fail "the frozen instance has its metadata open"
  # The session's file is all that it has locked.
  for lock in "$image" "$image.era" "$image.era.lock"; do
    [ ! -e "$lock" ] || ! grep -E ":$(stat -c %i "$lock") [0-9]+ (EOF|[0-9]+)$" /proc/locks || fail "$lock is locked"
  done
}
two_seconds_have_passed() { [ "$SECONDS" -ge $((waiting_since + 2)) ]; }

# b_takes_over: steps 5 to 9.
b_takes_over() {
  say " 5: the new table loads the same metadata"
  # Without intents it writes nothing of its own accord, and is exact at rest after a kill too.
  mount_image "$image" "$T/b" -o takeover,intent=off
  pid_b=$(status_of "$T/b" pid)

  say " 6: and works from exactly what was committed"
  assert_eq "$answer" "$(answer one "$T/b")" "the answer"
  assert_eq "" "$(since $((frozen + 1)) "$T/b")" "since what the freeze ended"
  [ "$(status_of "$T/b" current_era)" -gt "$frozen" ] || fail "the era went back"

  say " 7: resume"
  assert_eq running "$(status_of "$T/b" state)" "state"
  point_2=$(era checkpoint "$T/b")
  copy_head "$image" "$T/copy_2"

  say " 8: it writes, ends eras, digests"
  local i
  for i in 1 2 3; do
    put "$b" $((i * 2000))
    put "$b" $((i * 2000 + 1))
    era checkpoint "$T/b" >/dev/null
  done
  put "$b" 100
  wait_until 20 is_digested "$T/b" || fail "the backlog is not worked off"

  say " 9: resume of the first fails, and its writers have failed"
  for i in 100 101; do end_write "$i" EIO 10; done
  assert_eq fenced "$(status_of "$T/a" state)" "state"
  expect_fail 3 "generation $(status_of "$T/b" generation)" era thaw --era "$frozen" "$T/a"
  expect_fail 3 "generation $(status_of "$T/b" generation)" era thaw "$T/a"
  expect_fail 3 "fenced" era checkpoint "$T/a"
  expect_fail 3 "fenced" era freeze "$T/a"
  expect_fail 3 "fenced" era label add x "$T/a"
  expect_fail 3 "fenced" era since "$point_1" "$T/a" # its current era is of the past
  assert_eq EIO "$(ops write "$a" 0 4096 1)" "a write to the first"
  assert_same <(head -c "$HEAD" "$a") <(head -c "$HEAD" "$image") "reads of the first go on"
  assert_eq "$pid_b" "$(status_of "$image" pid)" "the image's name leads to"
  assert_eq "$pid_b" "$(status_of "$image.era" pid)" "the metadata's name leads to"
  assert_eq "$pid_a" "$(status_of "$T/a" pid)" "the first mount's name leads to"
}
# answers_are_right TARGET: what changed since either point, and no more.
answers_are_right() {
  local second="100 2000 2001 4000 4001 6000 6001"
  local first="11 22 33 44 55 66 77 88 $second"
  copy_head "$image" "$T/copy_3"
  assert_eq "$first" "$(changed_blocks "$T/copy_1" "$T/copy_3" 4096 | paste -sd ' ')" "changes"
  assert_eq "$first" "$(blocks_since "$point_1" "$1")" "since, $1"
  assert_eq "$second" "$(changed_blocks "$T/copy_2" "$T/copy_3" 4096 | paste -sd ' ')" "changes"
  assert_eq "$second" "$(blocks_since "$point_2" "$1")" "since, $1"
}
end_of_a() { # umount|kill
  if [ "$1" = umount ]; then
    umount "$T/a"
  else
    kill -9 "$pid_a"
  fi
  wait_gone "$pid_a" || fail "the first instance is there 20 s after its $1"
  [ "$1" = umount ] || umount "$T/a"
}
# mounted_anew: all is there in a third instance, which needs no takeover.
mounted_anew() {
  answers_are_right "$image"
  mount_image "$image" "$T/c"
  answers_are_right "$T/c"
  checked "$T/c"
  assert_same "$T/copy_3" <(head -c "$HEAD" "$T/c/disk.img") "image"
  umount_image "$T/c"
  checked "$image"
  answers_are_right "$image"
}

for way in umount kill; do
  say "the kernel's order; the first ends by $way"
  a_frozen_with_backlog
  b_takes_over
  say "10: the first is destroyed"
  before=$(live_bytes)
  end_of_a "$way"
  assert_eq "$before" "$(live_bytes)" "database and -wal when the first has gone"
  say "11: the second's answers are right"
  answers_are_right "$T/b"
  checked "$T/b"
  umount_image "$T/b"
  mounted_anew
done

for way in umount kill; do
  say "the other order; the second ends by $way"
  a_frozen_with_backlog
  b_takes_over
  say "10: the second is destroyed"
  if [ "$way" = umount ]; then
    umount_image "$T/b"
  else
    kill9_daemon "$T/b"
    [ -s "$image.era-wal" ] || fail "it left nothing in its -wal: this proves nothing"
  fi
  before=$(live_bytes)
  # The first is all that lives, and knows nothing of what came after it.
  expect_fail 3 "fenced" era since "$point_1" "$T/a"
  answers_are_right "$image"
  answers_are_right "$image.era"
  checked "$image"
  say "11: the first, thawed and destroyed, changes nothing"
  expect_fail 3 "generation" era thaw "$T/a"
  assert_eq EIO "$(ops write "$a" 0 4096 1)" "a write to the first"
  end_of_a "$way"
  assert_eq "$before" "$(live_bytes)" "database and -wal when the first has gone"
  mounted_anew
done

say "the second comes and goes between two looks of the first: its thaw is refused all the same"
for _ in 1 2 3; do
  mount_image "$image" "$T/a"
  pid_a=$(status_of "$T/a" pid)
  frozen=$(era freeze --timeout 0 "$T/a")
  mount_image "$image" "$T/b" -o takeover,intent=off
  umount_image "$T/b"
  expect_fail 3 "generation" era thaw --era "$frozen" "$T/a"
  assert_eq fenced "$(status_of "$T/a" state)" "state"
  end_of_a kill
done

say "a copy of what is frozen"
rm "$image" "$image".era*
new_image "$image" $((16 * M))
mount_image "$image" "$T/a" -o block_size=4K
point=$(era checkpoint "$T/a")
put "$a" 7
frozen=$(era freeze "$T/a")
mkdir "$T/other"
cp -p "$image" "$image.era" "$T/other/"
assert_eq $((frozen + 1)) "$(era thaw --era "$frozen" "$T/a")" "thaw"
cp --sparse=always "$image" "$T/copy_1"
mount_image "$T/other/disk.img" "$T/b"
put "$a" 8
put "$b" 9
assert_eq "7 8" "$(since "$point" "$T/a" 4096)" "the original's answer"
assert_eq "8" "$(since $((frozen + 1)) "$T/a" 4096)" "the original's answer"
assert_eq "7 9" "$(since "$point" "$T/b" 4096)" "the copy's answer"
assert_eq "9" "$(since $((frozen + 1)) "$T/b" 4096)" "the copy's answer"
assert_eq "7 8" "$(since "$point" "$image" 4096)" "the answer by the original's image"
assert_eq "7 9" "$(since "$point" "$T/other/disk.img" 4096)" "the answer by the copy's image"
checked "$T/a"
checked "$T/b"
umount_image "$T/b"
umount_image "$T/a"
checked "$image"
checked "$T/other/disk.img"
