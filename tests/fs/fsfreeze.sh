# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by the tests that freeze a file system on a tracked image, after lib.sh: a store for images, a file system with
# a writer on it, and what its copies are compared with.

# new_store KIND SIZE [MKFS OPTION...]: a file system of its own for images, on $T/store, by a loop device.
new_store() {
  local kind=$1 size=$2
  shift 2
  truncate -s "$((size))" "$T/store.disk"
  attach "$T/store.disk"
  "mkfs.$kind" -q "$@" "$LOOP"
  mkdir "$T/store"
  mount "$LOOP" "$T/store"
}

# new_fs NAME KIND SIZE: $T/store/NAME.img, mounted at $T/NAME, and a file system on a loop device on it at $T/fs-NAME. The
# loop device is in ${LOOPS[NAME]}. attach_fs NAME: again, after the file system, its loop device and the mount were taken down.
# shellcheck disable=SC2034 # for the tests
declare -A LOOPS KINDS
new_fs() {
  KINDS[$1]=$2
  truncate -s "$(($3))" "$T/store/$1.img"
  mkdir "$T/$1" "$T/fs-$1"
  mount_image "$T/store/$1.img" "$T/$1"
  attach "$T/$1/$1.img" --direct-io=on
  LOOPS[$1]=$LOOP
  "mkfs.$2" -q "$LOOP"
  mount -o noatime "$LOOP" "$T/fs-$1"
}
attach_fs() {
  mount_image "$T/store/$1.img" "$T/$1"
  attach "$T/$1/$1.img" --direct-io=on
  LOOPS[$1]=$LOOP
  mount -o noatime "$LOOP" "$T/fs-$1"
}
# On the way out, before anything that could wait for a thaw: the eras first, as what FITHAW writes may wait in the gate.
thaw_by_force() {
  local name
  for name in "${!KINDS[@]}"; do timeout 20 "$ERA_CLI" thaw "$T/$name" >/dev/null 2>&1 || :; done
  for name in "${!KINDS[@]}"; do
    ! is_mounted "$T/fs-$name" || timeout 20 fsfreeze -u "$T/fs-$name" 2>/dev/null || :
  done
}

# The writer makes file I as a temporary one, and renames it to I % 100 in folder I % 7, in each DIR by turns; its files tell
# what it had done at any instant, see check_history. The number that is done last is in $T/done.
start_writer() { # DIR...
  echo 0 >"$T/done"
  python3 -c '
import os, sys
done, dirs, i = sys.argv[1], sys.argv[2:], 0
for d in dirs:
    for f in range(7):
        os.makedirs(f"{d}/{f}", exist_ok=True)
        for old in os.listdir(f"{d}/{f}"):
            os.unlink(f"{d}/{f}/{old}")
progress = os.open(done, os.O_WRONLY)
while True:
    i += 1
    for d in dirs:
        name = f"{d}/{i % 7}/{i % 100}"
        with open(name + ".tmp", "wb", buffering=0) as f:
            f.write(b"%d\n" % i + bytes([i % 256]) * (i % 9000))
        os.rename(name + ".tmp", name)
    os.pwrite(progress, b"%d\n" % i, 0)' "$T/done" "$@" 2>"$T/writer.err" &
  writer=$!
  cleanup_fn stop_writer
  cleanup_fn thaw_by_force
  writer_goes_on
}
stop_writer() {
  [ -n "${writer:-}" ] || return 0
  kill -9 "$writer" 2>/dev/null || :
  wait "$writer" 2>/dev/null || :
  writer=
}
progress() { head -n 1 "$T/done"; }
has_passed() { [ "$(progress)" -gt "$1" ]; }
# Fails when the writer has died of an error, or still waits.
writer_goes_on() {
  local now
  now=$(progress)
  wait_until 30 has_passed $((now + 20)) || fail "the writer is held up at $(progress): $(cat "$T/writer.err")"
}

# check_history DIR FIRST LAST: its files are as they were after the writer had done N steps of its work, or was in the next
# one, and FIRST <= N <= LAST. N is in $STEP.
check_history() {
  STEP=$(python3 -c '
import os, sys
folder, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found, begun = {}, []
for d in range(7):
    for name in os.listdir(f"{folder}/{d}"):
        with open(f"{folder}/{d}/{name}", "rb") as f:
            data = f.read()
        if name.endswith(".tmp"):
            begun.append((d, int(name[:-4])))
            continue
        i = int(data.split(b"\n")[0])
        assert data == b"%d\n" % i + bytes([i % 256]) * (i % 9000), f"{d}/{name} is not whole"
        found[d, int(name)] = i
step = max(found.values())
assert first <= step <= last, f"the copy is of step {step}, not of one in {first}..{last}"
# 700 names come round: each holds the last step that made it.
expected = {(i % 7, i % 100): i for i in range(max(1, step - 699), step + 1)}
assert found == expected, f"not as after step {step}: {sorted(set(found.items()) ^ set(expected.items()))}"
assert begun in ([], [((step + 1) % 7, (step + 1) % 100)]), f"begun: {begun} after step {step}"
print(step)' "$@") || fail "$1 was at no time like that"
}

# tree_of DIR: all names, attributes and contents.
tree_of() {
  (
    cd "$1" || exit
    find . -xdev -printf '%p %y %m %U %G %n %s %T@ %l\n' | sort
    find . -xdev -type f -print0 | sort -z | xargs -0r sha256sum
  )
}

# check_copy KIND FILE TREE: a copy of an image that was frozen with the file system on it: clean, or as clean as this kind
# can be, and with that tree. With FIRST and LAST instead of TREE: see check_history.
check_copy() {
  local kind=$1 file=$2 options=ro
  mkdir -p "$T/copy"
  if [ "$kind" = ext4 ]; then
    ! dumpe2fs -h "$file" 2>/dev/null | grep -q needs_recovery || fail "$file: the journal needs recovery"
    e2fsck -fn "$file" >"$T/fsck" 2>&1 || fail "$file: $(cat "$T/fsck")"
  else
    options=ro,norecovery,nouuid # a frozen xfs leaves its log dirty by design
  fi
  attach "$file"
  mount -o "$options" "$LOOP" "$T/copy"
  if [ $# = 4 ]; then
    check_history "$T/copy" "$3" "$4"
  else
    tree_of "$T/copy" >"$T/copy.tree"
    assert_same "$3" "$T/copy.tree" "$file: the tree"
  fi
  umount "$T/copy"
  if [ "$kind" = xfs ]; then
    mount -o nouuid "$LOOP" "$T/copy"
    umount "$T/copy"
    xfs_repair -n "$LOOP" >"$T/fsck" 2>&1 || fail "$file: $(cat "$T/fsck")"
  fi
  detach "$LOOP" "$file"
}

# FIFREEZE of what is frozen is EBUSY, and changes nothing. Only for what should be frozen.
assert_fs_frozen() {
  local status=0
  timeout 20 fsfreeze -f "$1" 2>"$T/.err" || status=$?
  { [ "$status" = 1 ] && grep -q 'busy' "$T/.err"; } || fail "$1: is not frozen: $status $(cat "$T/.err")"
}
# FITHAW of what is not frozen is EINVAL.
assert_fs_thawed() {
  ! fsfreeze -u "$1" 2>"$T/.err" || fail "$1: was frozen still"
  grep -q 'Invalid argument' "$T/.err" || fail "$1: $(cat "$T/.err")"
}
# holders_of DIR NAME: processes of that name (a pattern of pgrep) that have DIR open, a pid a line.
holders_of() {
  local pid
  for pid in $(pgrep "$2"); do
    [ -z "$(find "/proc/$pid/fd" -lname "$1" 2>/dev/null)" ] || echo "$pid"
  done
  return 0
}
# A guard has the name of era-cli at first.
has_no_guard() { [ -z "$(holders_of "$1" ^era-cli)" ]; }
# Thawed by the guard, and not by us.
assert_guard_thawed() {
  wait_until 30 has_no_guard "$1" || fail "$1: its guard is there still"
  assert_fs_thawed "$1"
}
