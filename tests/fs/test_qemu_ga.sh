#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The real QEMU guest agent with our hook, on one file system on a tracked image: what is copied between its freeze and its
# thaw is that file system; a failed checkpoint fails the freeze; and why the hook must not freeze the image.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
requires_fuse
requires_loop
requires command -v qemu-ga fsfreeze mkfs.ext4 python3
hook=$(cd "${0%/*}/../../contrib/qemu-ga/fsfreeze-hook.d" && pwd)/eraimgfs
mkdir "$T/bin"
ln -s "$(realpath "$ERA_CLI")" "$T/bin/era-cli"
printf '#!/bin/sh\nprintf "%%s\\n" "$*" >>%q\n' "$T/syslog" >"$T/bin/logger" # the machine's log is none of our business
chmod +x "$T/bin/logger"
export PATH=$T/bin:$PATH ERAIMGFS_QEMU_GA_CONF=$T/qemu-ga.conf

# start_agent HOOK; ask JSON: the answer in $reply. Never guest-fsfreeze-freeze: that freezes all of the machine.
start_agent() {
  rm -f "$T/ga.sock"
  mkdir -p "$T/ga"
  qemu-ga -m unix-listen -p "$T/ga.sock" -t "$T/ga" -f "$T/ga/pid" -l "$T/ga/log" "-F$1" </dev/null >"$T/ga/err" 2>&1 &
  agent=$!
  cleanup_fn stop_agent
  is_listening() { [ -S "$T/ga.sock" ]; }
  wait_until 20 is_listening || fail "qemu-ga: $(cat "$T/ga/err" "$T/ga/log")"
}
stop_agent() {
  [ -n "${agent:-}" ] || return 0
  thaw_by_force
  kill "$agent" 2>/dev/null || :
  wait_gone "$agent" 20 || kill -9 "$agent"
  wait "$agent" 2>/dev/null || :
  agent=
}
ask() {
  reply=$(python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
print(s.makefile().readline(), end="")' "$T/ga.sock" "$1") || fail "qemu-ga did not answer $1"
}
freeze_list() { ask "{\"execute\": \"guest-fsfreeze-freeze-list\", \"arguments\": {\"mountpoints\": [\"$T/fs-a\"]}}"; }
thaw() { ask '{"execute": "guest-fsfreeze-thaw"}'; }
assert_reply() { assert_eq "$1" "$(jq -c "${3:-.return}" <<<"$reply")" "$2: $reply"; }
labels() { era label list "$T/a" | cut -f 1 | grep '^qemu-ga-'; }

new_store xfs 512*M -m reflink=1
new_fs a ext4 64*M
start_writer "$T/fs-a"

say "a full copy, between freeze and thaw"
echo "# all that is tracked here

$T/a" >"$T/qemu-ga.conf"
start_agent "$hook"
freeze_list
assert_reply 1 "freeze"
assert_fs_frozen "$T/fs-a"
first=$(labels)
[[ $first =~ ^qemu-ga-[0-9]{8}T[0-9]{6}Z$ ]] || fail "the label: '$first'"
assert_eq 2 "$(status_of "$T/a" current_era)" "the era began at the freeze"
tree_of "$T/fs-a" >"$T/frozen.tree"
cp --sparse=always "$T/a/a.img" "$T/store/backup"
thaw
assert_reply 1 "thaw"
writer_goes_on
check_copy ext4 "$T/store/backup" "$T/frozen.tree"
assert_eq 2 "$(status_of "$T/a" current_era)" "the thaw ends no era"

say "the next one adds the blocks of since to it"
tomorrow() { [ "$(date -u +%Y%m%dT%H%M%SZ)" != "${first#qemu-ga-}" ]; } # a label tells the second
wait_until 5 tomorrow
freeze_list
assert_reply 1 "freeze"
tree_of "$T/fs-a" >"$T/frozen.tree"
era since "$first" "$T/a" >"$T/extents"
[ -s "$T/extents" ] || fail "nothing changed"
apply_extents "$T/a/a.img" "$T/store/backup" <"$T/extents"
assert_same "$T/a/a.img" "$T/store/backup" "backup and image"
thaw
writer_goes_on
check_copy ext4 "$T/store/backup" "$T/frozen.tree"
assert_eq 2 "$(labels | wc -l)" "labels"

say "without a configuration all live instances are meant, but for those that are read-only"
rm "$T/qemu-ga.conf"
new_image "$T/b.img" $M
cp "$T/b.img" "$T/ro.img"
mkdir "$T/b" "$T/ro"
mount_image "$T/b.img" "$T/b"
mount_image "$T/ro.img" "$T/ro"
umount_image "$T/ro"
mount_image "$T/ro.img" "$T/ro" -o ro
was="$(status_of "$T/a" current_era) $(status_of "$T/b" current_era)"
env -u ERAIMGFS_TARGETS "$hook" freeze 2>"$T/.err" || fail "$(cat "$T/.err")"
assert_eq "3 1" "$was" "eras before"
assert_eq "4 2" "$(status_of "$T/a" current_era) $(status_of "$T/b" current_era)" "eras after"
ERAIMGFS_TARGETS=$T/b "$hook" freeze 2>"$T/.err" || fail "$(cat "$T/.err")"
assert_eq "4 3" "$(status_of "$T/a" current_era) $(status_of "$T/b" current_era)" "eras after one was named"
"$hook" thaw
assert_eq "4 3" "$(status_of "$T/a" current_era) $(status_of "$T/b" current_era)" "eras after a thaw"
umount_image "$T/ro"
umount_image "$T/b"
expect_fail 2 "Usage" "$hook" nonsense

say "a checkpoint that fails: so does the freeze, and says why"
echo "$T/b" >"$T/qemu-ga.conf"
: >"$T/syslog"
freeze_list
assert_reply '"GenericError"' "freeze" .error.class
grep -q "$T/b" "$T/syslog" || fail "syslog: $(cat "$T/syslog")"
assert_fs_thawed "$T/fs-a"
writer_goes_on
ERAIMGFS_RUN_DIR=$T/nobody ERAIMGFS_QEMU_GA_CONF=$T/none "$hook" freeze 2>"$T/.err" ||
  fail "no instance is no error: $(cat "$T/.err")"
stop_agent

say "a hook that freezes the image: the agent waits in its own flush, until the deadline thaws"
cat >"$T/bad-hook" <<END
#!/bin/sh
[ "\$1" != freeze ] || exec "$ERA_CLI" freeze --timeout 3 "$T/a" >"$T/bad-hook.out" 2>&1
END
chmod +x "$T/bad-hook"
start_agent "$T/bad-hook"
assert_eq 0 "$(status_of "$T/a" auto_thaws)" "auto_thaws before"
freeze_list & # answered after the deadline at the earliest
asker=$!
wait_until 20 has_state "$T/a" frozen
wait_until 20 parked_at_least "$T/a" 1 || fail "nothing waits"
is_gone "$asker" && fail "qemu-ga froze a file system that cannot be flushed"
wait "$asker"
assert_eq "running 1" "$(status_of "$T/a" state) $(status_of "$T/a" auto_thaws)" "after the deadline"
assert_fs_frozen "$T/fs-a"
thaw
assert_reply 1 "thaw"
assert_fs_thawed "$T/fs-a"
writer_goes_on
expect_fail 1 "not frozen" era thaw --era "$(cat "$T/bad-hook.out")" "$T/a"
stop_agent
e=$(progress)
fsfreeze -f "$T/fs-a"
cp --sparse=always "$T/a/a.img" "$T/store/backup"
fsfreeze -u "$T/fs-a"
check_copy ext4 "$T/store/backup" "$e" "$(progress)"
