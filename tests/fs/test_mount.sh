#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The forms of a mount: in a folder, on a file, over the image itself.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

new_image "$T/disk.img" $M
cp "$T/disk.img" "$T/reference"

say "in a folder: one file with the image's name"
mkdir "$T/folder"
mount_image "$T/disk.img" "$T/folder"
grep -q "$T/disk.img.era" "$T/mount.err" || fail "the new database was not announced: $(cat "$T/mount.err")"
assert_eq disk.img "$(ls "$T/folder")" "files in the mount"
assert_eq $M "$(stat -c %s "$T/folder/disk.img")" "size"
assert_same "$T/disk.img" "$T/folder/disk.img" "content"
assert_eq fuse.eraimgfs "$(findmnt -n -o FSTYPE "$T/folder")" "type"
assert_eq running "$(status_of "$T/folder" state)" "state"
assert_eq 4096 "$(ops write "$T/folder/disk.img" 0 4096 65)" "write"
umount_image "$T/folder"
assert_eq offline "$(status_of "$T/disk.img" state)" "state after unmount"
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"

say "started with a pipe for its messages, it lets go of it"
text=$(timeout 20 "$ERAIMGFS" "$T/disk.img" "$T/folder" 2>&1) || fail "holds its standard error: $text"
umount_image "$T/folder"

say "started with standard descriptors closed: nothing else takes their place"
cp --preserve=timestamps "$T/disk.img" "$T/reference"
# files_of PID: the image, the locks and the database that it holds.
files_of() { find "/proc/$1/fd" -lname "$T/*" -printf '%l\n' | sort; }
mount_image "$T/disk.img" "$T/folder" -o metadata="$T/closed"
files=$(files_of "$(status_of "$T/folder" pid)")
umount_image "$T/folder"
without() { # DESCRIPTOR...: a subshell, so that our own stay
  (
    for fd in "$@"; do eval "exec $fd>&-"; done
    exec "$ERAIMGFS" "$T/disk.img" "$T/folder" -o metadata="$T/closed"
  )
}
for closed in 0 1 2 "0 1" "0 1 2"; do
  rm -f "$T"/closed*
  # shellcheck disable=SC2086 # one word a descriptor
  without $closed 2>/dev/null || fail "exit $? with $closed closed"
  pid=$(status_of "$T/folder" pid)
  assert_eq "$files" "$(files_of "$pid")" "files that are held, with $closed closed at the start"
  for fd in 0 1 2; do assert_eq /dev/null "$(readlink "/proc/$pid/fd/$fd")" "descriptor $fd"; done
  umount_image "$T/folder"
  assert_same "$T/reference" "$T/disk.img" "the image, with $closed closed at the start"
done

say "names with control characters: a message is one line"
name=$T/$'new\nline\e[31m.img'
cp "$T/reference" "$name"
mount_image "$name" "$T/folder"
assert_eq 1 "$(wc -l <"$T/mount.err")" "lines of the notice"
assert_eq 0 "$(grep -c '[[:cntrl:]]' "$T/mount.err" || :)" "control characters in the notice"
umount_image "$T/folder"

say "on a file: it becomes the image"
touch "$T/file"
mount_image "$T/disk.img" "$T/file"
[ ! -s "$T/mount.err" ] || fail "existing database, but: $(cat "$T/mount.err")"
assert_eq "$(stat -c %s "$T/disk.img")" "$(stat -c %s "$T/file")" "size"
assert_same "$T/disk.img" "$T/file" "content"
umount_image "$T/file"

say "over itself"
mount_image "$T/disk.img" "$T/disk.img"
is_mounted "$T/disk.img"
assert_eq 4096 "$(ops write "$T/disk.img" $((BLOCK * 3)) 4096 66)" "write"
assert_eq "3" "$(since "$(status_of "$T/disk.img" current_era)" "$T/disk.img")" "since by the path that is both"
umount_image "$T/disk.img"
assert_eq 66 "$(od -An -tu1 -j $((BLOCK * 3)) -N 1 "$T/disk.img" | tr -d ' ')" "the write is in the image beneath"

say "in the foreground: ends with the mount, status 0"
"$ERAIMGFS" -f "$T/disk.img" "$T/folder" 2>"$T/foreground.err" &
pid=$!
wait_until 20 is_mounted "$T/folder"
wait_until 20 test -e "$T/folder/disk.img"
umount "$T/folder"
wait "$pid" || fail "exit $? of the foreground daemon: $(cat "$T/foreground.err")"

say "by options"
mkdir "$T/other"
mount_image "$T/disk.img" "$T/folder" -o "metadata=$T/other/db,block_size=4K,control=$T/other/socket,threads=3,fsname=name"
[ -S "$T/other/socket" ] || fail "no control socket where it was asked for"
assert_eq 4096 "$(status_of "$T/folder" block_size)" "block size"
assert_eq name "$(findmnt -n -o SOURCE "$T/folder")" "fsname"
umount_image "$T/folder"
[ ! -e "$T/other/socket" ] || fail "the control socket is left"

say "read-only"
before=$(fingerprint "$T/other")$(sha256sum "$T/disk.img")
mount_image "$T/disk.img" "$T/folder" -o ro,metadata="$T/other/db"
assert_same "$T/disk.img" "$T/folder/disk.img" "content"
assert_eq EROFS "$(ops write "$T/folder/disk.img" 0 1 1)" "write"
expect_fail 1 "read-only" era checkpoint "$T/folder"
umount_image "$T/folder"
assert_eq "$before" "$(fingerprint "$T/other")$(sha256sum "$T/disk.img")" "a read-only mount changed something"

say "-V, -h"
"$ERAIMGFS" -V | grep -qE '^eraimgfs [0-9]+\.' || fail "$("$ERAIMGFS" -V)"
assert_eq "$("$ERAIMGFS" -V)" "$("$ERAIMGFS" --version)" "--version"
"$ERAIMGFS" -h >"$T/help"
assert_eq "$(cat "$T/help")" "$("$ERAIMGFS" --help)" "--help"
grep -q block_size "$T/help"
assert_eq "" "$(grep -E '.{81}' "$T/help" || :)" "help wider than 80 columns"
