#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# checkpoint --clone and freeze --clone, on xfs and btrfs: the copy is the image at the very point where the era ends,
# FILE is replaced whole or not at all; and what cannot be cloned is refused before the era ends.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
requires_fuse
requires_loop
requires command -v mkfs.ext4 mkfs.xfs mkfs.btrfs python3

# The pass I writes block after block with I, in order: at any instant the image is I in front and I - 1 behind.
start_painter() { # FILE BLOCKS
  python3 -c '
import os, sys
fd, blocks, i = os.open(sys.argv[1], os.O_WRONLY), int(sys.argv[2]), 0
while True:
    i += 1
    for b in range(blocks):
        os.pwrite(fd, b"%015d\n" % i * 4096, b * 65536)' "$@" &
  painter=$!
  cleanup_fn stop_painter
  was_painted() { [ "$(head -c 15 "$1" | tr -d '\0')" != "" ]; }
  wait_until 20 was_painted "$1"
}
stop_painter() {
  [ -n "${painter:-}" ] || return 0
  timeout 20 "$ERA_CLI" thaw "$T/mnt" >/dev/null 2>&1 || :
  kill -9 "$painter" 2>/dev/null || :
  wait "$painter" 2>/dev/null || :
  painter=
}
# check_painted FILE: it is of one instant.
check_painted() {
  python3 -c '
import sys
data = open(sys.argv[1], "rb").read()
lines = [data[at:at + 16] for at in range(0, len(data), 16)]
number = lambda line: int(line) if line.strip(b"\0") else 0
passes = [number(line) for line in lines]
front, behind = passes[0], passes[-1]
at = passes.index(behind)
assert behind in (front, front - 1), f"pass {front} in front, {behind} behind"
assert passes == [front] * at + [behind] * (len(passes) - at), "not of one instant"
assert at % 4096 == 0, "half a write"' "$1" || fail "$1"
}
no_temporaries() { assert_eq "" "$(find "$1" -name '.era-cli*')" "temporary files in $1"; }

mkdir "$T/mnt"
for kind in xfs btrfs; do
  say "$kind"
  options=()
  [ "$kind" = btrfs ] || options=(-m reflink=1)
  new_store $kind 512*M "${options[@]}"
  store=$T/store image=$T/store/a.img
  truncate -s $((4 * M)) "$image"
  mkdir "$store/folder"
  mount_image "$image" "$T/mnt"
  start_painter "$T/mnt/a.img" 64
  old=
  for round in 1 2 3 4 5; do
    # FILE that is new, and one that exists; held open, the old one stays what it is.
    [ "$round" = 1 ] || exec 8<"$store/clone"
    point=$(era checkpoint --clone "$store/clone" "$T/mnt")
    assert_eq $((round + 1)) "$point" "checkpoint"
    assert_eq $((4 * M)) "$(stat -c %s "$store/clone")" "size of the clone"
    check_painted "$store/clone"
    [ "$round" = 1 ] || assert_same /dev/fd/8 "$T/old" "the file that was replaced"
    if [ -n "$old" ]; then # what the last clone lacks is in since
      assert_covers "$T/old" "$store/clone" "$old" "$T/mnt"
    fi
    cp "$store/clone" "$T/old"
    old=$point
  done
  exec 8<&-

  say "$kind: freeze, and what becomes of the old FILE"
  chmod 0640 "$store/clone"
  archived=$(era freeze --clone "$store/clone" "$T/mnt")
  cp "$T/mnt/a.img" "$T/copy"
  assert_eq $((archived + 1)) "$(era thaw --era "$archived" "$T/mnt")" "thaw"
  assert_same "$T/copy" "$store/clone" "freeze: clone, and copy made while frozen"
  check_painted "$store/clone"
  assert_eq 640 "$(stat -c %a "$store/clone")" "mode of a FILE that is replaced"
  ln -s folder/target "$store/link"
  echo old >"$store/folder/target"
  era checkpoint --clone "$store/link" "$T/mnt" >"$T/out"
  [ -L "$store/link" ] || fail "the symlink was replaced, not its target"
  check_painted "$store/folder/target"
  no_temporaries "$store"

  say "$kind: refused"
  now=$(status_of "$T/mnt" current_era)
  fds=$(find "/proc/$(status_of "$T/mnt" pid)/fd" | wc -l)
  # bad CODE PATTERN FILE [ARG...]: both commands; FILE stays as it was, no era ends, the gate is open.
  bad() {
    local code=$1 pattern=$2 file=$3 command before
    shift 3
    for command in checkpoint freeze; do
      before=$(stat -c '%i %s %Z' "$file" 2>/dev/null || echo none)
      [ -z "${is_painted:-}" ] || before=
      expect_fail "$code" "$pattern" era "$command" --clone "$file" "$@" "$T/mnt"
      [ -z "$before" ] || assert_eq "$before" "$(stat -c '%i %s %Z' "$file" 2>/dev/null || echo none)" "$file after $command"
      assert_eq "running $now" "$(status_of "$T/mnt" state) $(status_of "$T/mnt" current_era)" "after $command"
      assert_eq 1 "$(ops write "$T/mnt/a.img" 0 1 48)" "a write after $command"
      no_temporaries "$store"
    done
  }
  echo old >"$T/elsewhere"
  bad 1 "cannot be cloned.*freeze and copy" "$T/elsewhere"
  bad 1 "cannot be cloned.*freeze and copy" "$T/not-there"
  is_painted=yes bad 2 "$T/mnt/a.img" "$T/mnt/a.img"
  is_painted=yes bad 2 "$image" "$image"
  ln "$image" "$store/other-name"
  is_painted=yes bad 2 "other-name" "$store/other-name"
  rm "$store/other-name"
  for file in "$image.era" "$image.era-wal" "$image.era.lock" "$image.era.witness"; do
    is_painted=yes bad 2 "${file##*/}" "$file"
  done
  bad 2 "mounted image itself" "$T/mnt/new"
  bad 2 "not a regular file" "$store/folder"
  mkfifo "$T/pipe.$kind"
  bad 2 "not a regular file" "$T/pipe.$kind"
  bad 1 "No such file" "$store/none/clone"
  is_painted=yes bad 2 "exactly one TARGET" -
  expect_fail 2 "exactly one TARGET" era checkpoint --clone "$store/clone" "$T/mnt" "$T/mnt"
  expect_fail 2 "label" era checkpoint --clone "$store/clone" --label "a b" "$T/mnt"
  no_temporaries "$store"
  assert_eq "$now" "$(status_of "$T/mnt" current_era)" "current era"
  same_fds() { [ "$(find "/proc/$(status_of "$T/mnt" pid)/fd" | wc -l)" -le "$fds" ]; }
  wait_until 20 same_fds || fail "descriptors of refused clones are left in the daemon"

  say "$kind: nobody is there to clone"
  stop_painter
  cp "$store/clone" "$T/old"
  kill9_daemon "$T/mnt"
  expect_fail 1 "" era checkpoint --clone "$store/clone" "$image"
  assert_same "$T/old" "$store/clone" "the old clone"
  no_temporaries "$store"
  umount "$store"
  detach "$LOOP" "$T/store.disk"
  rm "$T/store.disk"
  rmdir "$store"
done

say "ext4 has no reflinks"
new_store ext4 64*M
truncate -s $M "$T/store/a.img"
mount_image "$T/store/a.img" "$T/mnt"
store=$T/store now=1
bad 1 "cannot be cloned.*xfs, btrfs.*freeze and copy" "$T/store/clone"
umount_image "$T/mnt"

say "nor has a device"
truncate -s $M "$T/device.img"
attach "$T/device.img"
mount_image "$LOOP" "$T/mnt" -o metadata="$T/device.era"
expect_fail 1 "cannot be cloned" era checkpoint --clone "$T/store/clone" "$T/mnt"
assert_eq "running 1" "$(status_of "$T/mnt" state) $(status_of "$T/mnt" current_era)" "after a device was not cloned"
no_temporaries "$store"
umount_image "$T/mnt"
