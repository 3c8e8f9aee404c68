#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# An ordinary user mounts, asks and unmounts; others do not see it.
. "${0%/*}/lib.sh" || exit 1
requires_fuse
requires command -v fusermount3
become_user
cd "$USER_DIR" || exit

as_user sh -c 'head -c 1048576 /dev/urandom >disk.img; mkdir mnt'
as_user "$ERAIMGFS" disk.img mnt 2>"$T/mount.err" || fail "$(cat "$T/mount.err")"
is_mounted "$USER_DIR/mnt"
assert_eq 4096 "$(as_user "$FS_TOOLS/ops" write mnt/disk.img 0 4096 65)" "write"
assert_eq 1 "$(as_user "$FS_TOOLS/ops" write mnt/disk.img 1048575 1 65)" "write to the last byte"
assert_eq "0 15" "$(as_user "$ERA_CLI" since 1 mnt | blocks_in | paste -sd ' ')" "since"
assert_eq 2 "$(as_user "$ERA_CLI" checkpoint mnt)" "checkpoint"
assert_eq "$USER_DIR/mnt" "$(as_user "$ERA_CLI" list --json | jq -r '.[].mountpoint')" "list"
pid=$(as_user "$ERA_CLI" status --json mnt | jq .pid)
assert_eq 65534 "$(stat -c %u "/proc/$pid")" "the daemon's user"

if [ "$(id -u)" = 0 ]; then
  say "root cannot look into it: allow_other was not asked for"
  [ "$(ops read "$USER_DIR/mnt/disk.img" 0 1)" = EACCES ] || fail "allow_other without being asked for"
fi
as_user fusermount3 -u mnt
wait_gone "$pid" || fail "the daemon is still there"
assert_eq "" "$(as_user "$ERA_CLI" since 2 disk.img)" "since 2, offline"
assert_eq "2 131072" "$(as_user "$ERA_CLI" since 1 --count disk.img | tr '\t' ' ')" "since 1 --count, offline"

say "what the user may not read"
if [ "$(id -u)" = 0 ]; then
  install -m 0600 /dev/null "$T/secret.img"
  truncate -s 1M "$T/secret.img"
  expect_fail 1 "secret.img.*ermission denied" as_user "$ERAIMGFS" "$T/secret.img" mnt -o metadata="$USER_DIR/db"
  [ ! -e "$USER_DIR/db" ] || fail "a refused mount left a database"
  install -m 0644 /dev/null "$T/readable.img"
  truncate -s 1M "$T/readable.img"
  expect_fail 1 "readable.img.*ermission denied" as_user "$ERAIMGFS" "$T/readable.img" mnt -o metadata="$USER_DIR/db"
  as_user "$ERAIMGFS" disk.img mnt
  pid=$(as_user "$ERA_CLI" status --json mnt | jq .pid)
  say "another user's folder, image and run folder"
  expect_fail 1 "." setpriv --reuid=65533 --regid=65533 --clear-groups "$ERA_CLI" checkpoint "$USER_DIR/mnt"
  as_user fusermount3 -u mnt
  wait_gone "$pid"
fi
