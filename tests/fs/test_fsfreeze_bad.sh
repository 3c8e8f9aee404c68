#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What --fsfreeze refuses: each with its reason, with no era ended and nothing left frozen.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
requires_fuse
requires_loop
requires command -v fsfreeze mkfs.ext4 mkfs.xfs python3

new_store xfs 512*M
new_fs a ext4 32*M
start_writer "$T/fs-a"
touch "$T/file"
mkdir "$T/fs-a/folder" "$T/again"
mount --bind "$T/fs-a" "$T/again"

# bad CODE PATTERN ARG...: checkpoint and freeze refuse that.
bad() {
  local code=$1 pattern=$2 command
  shift 2
  for command in checkpoint freeze; do
    expect_fail "$code" "$pattern" era "$command" "$@" "$T/a"
    assert_eq "running 1" "$(status_of "$T/a" state) $(status_of "$T/a" current_era)" "after $command $*"
    wait_until 20 has_no_guard "$T/fs-a" || fail "a guard is left after $command $*"
  done
}

say "no file system is mounted there"
bad 1 "$T/fs-a/folder: no file system is mounted there" --fsfreeze "$T/fs-a/folder"
bad 1 "$T/none: No such file" --fsfreeze "$T/none"
bad 1 "$T/file: Not a directory" --fsfreeze "$T/file"
bad 1 "" --fsfreeze ""
say "one that cannot be frozen"
bad 1 "$T/a: is a FUSE file system" --fsfreeze "$T/a"
bad 1 "/proc: .*cannot be frozen" --fsfreeze /proc
say "one that is needed meanwhile"
bad 1 "$T/store: holds .*a.img" --fsfreeze "$T/store"
bad 1 "$T/store: holds .*a.img" --fsfreeze "$T/fs-a" --fsfreeze "$T/store"
say "the same twice"
bad 2 "same file system" --fsfreeze "$T/fs-a" --fsfreeze "$T/fs-a"
bad 2 "same file system" --fsfreeze "$T/fs-a" --fsfreeze "$T/again"
assert_fs_thawed "$T/fs-a"
writer_goes_on

say "its metadata on a file system of their own"
mkdir "$T/meta" "$T/b"
truncate -s $((32 * M)) "$T/meta.disk"
attach "$T/meta.disk"
mkfs.ext4 -q "$LOOP"
mount "$LOOP" "$T/meta"
new_image "$T/b.img" $M
mount_image "$T/b.img" "$T/b" -o metadata="$T/meta/b.era"
expect_fail 1 "$T/meta: holds $T/meta/b.era" era checkpoint --fsfreeze "$T/meta" "$T/b"
assert_fs_thawed "$T/meta"
umount_image "$T/b"

say "frozen by somebody else: refused, and left so"
fsfreeze -f "$T/fs-a"
bad 1 "$T/fs-a: is frozen already" --fsfreeze "$T/fs-a"
assert_fs_frozen "$T/fs-a"
fsfreeze -u "$T/fs-a"
writer_goes_on

say "a frozen instance"
era freeze --fsfreeze "$T/fs-a" "$T/a" >/dev/null
expect_fail 3 "frozen" era checkpoint --fsfreeze "$T/fs-a" "$T/a"
expect_fail 3 "frozen" era freeze "$T/a"
assert_fs_frozen "$T/fs-a"
era thaw "$T/a" >/dev/null
writer_goes_on
assert_guard_thawed "$T/fs-a"

say "an ordinary user"
become_user
as_user cp "$T/b.img" "$USER_DIR/user.img"
as_user mkdir "$USER_DIR/mnt"
as_user "$ERAIMGFS" "$USER_DIR/user.img" "$USER_DIR/mnt"
expect_fail 1 "$T/fs-a: .*run era-cli as root" as_user "$ERA_CLI" checkpoint --fsfreeze "$T/fs-a" "$USER_DIR/mnt"
assert_fs_thawed "$T/fs-a"
writer_goes_on
umount "$T/again"
