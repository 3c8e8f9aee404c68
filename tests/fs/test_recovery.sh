#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill -9 at random instants under load: after each, every block that differs is in the answer.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v fio

new_image "$T/disk.img" $((32 * M))
mkdir "$T/mnt"
file=$T/mnt/disk.img
rounds=${ERAIMGFS_KILLS:-7}

mount_image "$T/disk.img" "$T/mnt"
for ((round = 1; round <= rounds; round++)); do
  point=$(era checkpoint --cursor "$T/mnt")
  cp "$file" "$T/copy"
  pid=$(status_of "$T/mnt" pid)
  # The daemon dies after a number of writes that is different each time; fio ends with the errors that this gives it.
  { fio --name=load --filename="$file" --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --size=32m \
    --number_ios=$((RANDOM % 2000 + 1)) --randseed=$((RANDOM + 1)) --output=/dev/null 2>/dev/null || :; } &
  load=$!
  if [ $((round % 3)) = 0 ]; then
    wait "$load" # all of it was answered
  else
    # In the midst: as soon as the image differs from the copy.
    wait_until 20 sh -c "! cmp -s '$T/disk.img' '$T/copy'" || fail "nothing was written"
  fi
  kill -9 "$pid"
  wait_gone "$pid"
  wait "$load" || :
  umount "$T/mnt"
  cp "$T/disk.img" "$T/after"
  # At rest, before anything was recovered; then recovered and live. The load was tracked by nobody but the dead daemon.
  assert_covers "$T/copy" "$T/after" "$point" "$T/disk.img"
  mount_image "$T/disk.img" "$T/mnt"
  assert_same "$T/after" "$file" "the image after recovery"
  assert_covers "$T/copy" "$T/after" "$point" "$T/mnt"
  if [ "$(stat -f -c %T "$ERAIMGFS_RUN_DIR")" = tmpfs ]; then
    # Exact: at most the writes in flight at the kill (16) are in the answer without a difference.
    answer=$(since "$point" "$T/mnt" | wc -w)
    changed=$(changed_blocks "$T/copy" "$T/after" | wc -l)
    [ "$answer" -le $((changed + 16)) ] || fail "round $round: $answer blocks in the answer, $changed changed: not exact"
    assert_eq true "$(era since "$point" --format json "$T/mnt" | jq .exact)" "exact"
  fi
  era check "$T/mnt" >/dev/null || fail "check: $(era check "$T/mnt")"
done
umount_image "$T/mnt"

say "without a session file (another boot, or no tmpfs) the answer may be larger, never smaller"
mount_image "$T/disk.img" "$T/mnt"
point=$(era checkpoint "$T/mnt")
cp "$file" "$T/copy"
for block in 1 77 300 511; do ops write "$file" $((block * BLOCK + 5)) 100 $((RANDOM % 256)) >/dev/null; done
kill9_daemon "$T/mnt"
find "$ERAIMGFS_RUN_DIR" -type f -delete
mount_image "$T/disk.img" "$T/mnt"
assert_covers "$T/copy" "$T/disk.img" "$point" "$T/mnt"
umount_image "$T/mnt"

say "writes, kill -9, nothing else: since is what was written; before a recovery intents count as their whole extents"
for options in intent=off intent=256K; do
  mount_image "$T/disk.img" "$T/mnt" -o "$options"
  point=$(status_of "$T/mnt" current_era)
  for block in 3 4 200 511; do ops write "$file" $((block * BLOCK)) 1 1 >/dev/null; done
  kill9_daemon "$T/mnt"
  answer=$(era since "$point" --format json "$T/disk.img")
  if [ "$options" = intent=off ]; then
    assert_eq "3 4 200 511" "$(since "$point" "$T/disk.img")" "since, before recovery"
    assert_eq true "$(jq .exact <<<"$answer")" "exact"
  else
    assert_eq false "$(jq .exact <<<"$answer")" "exact"
    expect_fail 4 "feared" era since "$point" --require-exact "$T/disk.img"
    for block in 3 4 200 511; do
      since "$point" "$T/disk.img" | grep -qw "$block" || fail "block $block is missing before the recovery"
    done
  fi
  [ "$options" = intent=256K ] || { mount_image "$T/disk.img" "$T/mnt" && umount_image "$T/mnt"; }
done
mount_image "$T/disk.img" "$T/mnt"
assert_eq "3 4 200 511" "$(since "$point" "$T/mnt")" "since, after recovery"
assert_eq "" "$(since "$(status_of "$T/mnt" current_era)" "$T/mnt")" "the new era is empty"
kill9_daemon "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"
assert_eq "3 4 200 511" "$(since "$point" "$T/mnt")" "since, after a second kill"
umount_image "$T/mnt"
