#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Mount points that are refused.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
new_image "$T/disk.img" $M
new_image "$T/second.img" $M
mkdir "$T/mnt"
daemon() { "$ERAIMGFS" "$@"; }

refused "$T" 1 "$T/missing.*[Nn]o such file" daemon "$T/disk.img" "$T/missing"
mkfifo "$T/fifo"
refused "$T" 1 "$T/fifo" daemon "$T/disk.img" "$T/fifo"

say "the dead mount of a killed daemon: the error names the way on"
mount_image "$T/disk.img" "$T/mnt"
pid=$(status_of "$T/mnt" pid)
kill -9 "$pid"
wait_gone "$pid"
expect_fail 1 "umount $T/mnt" daemon "$T/disk.img" "$T/mnt"
say "queries by the name of the dead mount, or by the image, do not hang and do not lie"
assert_eq "" "$(since 1 "$T/disk.img")" "since by the image"
expect_fail 1 "$T/mnt" era checkpoint "$T/mnt"
umount "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"

say "a mount point that is in use"
expect_fail 1 "$T/mnt.*busy" daemon "$T/second.img" "$T/mnt"
[ ! -e "$T/second.img.era" ] || fail "a refused mount left a database"
umount_image "$T/mnt"
(
  cd "$T/mnt" || exit
  mount_image "$T/disk.img" "$T/mnt" # somebody's working folder is no obstacle
)
umount_image "$T/mnt"

say "what a start cannot do is found before it has an effect: no database, no era, no new UUID"
mkdir "$T/stop" "$T/sockets"
: >"$T/sockets/file"
long=$T/sockets/$(printf 'x%.0s' {1..108})
bad_name=$T/$'not-utf-8-\xff'
mkdir "$bad_name"
cp "$T/second.img" "$bad_name/third.img"
mount_image "$T/disk.img" "$T/mnt" -o control="$T/sockets/live"
# Each for an image without metadata, and for one whose metadata bypass=mark-all would begin anew.
new_image "$T/changed.img" $M
mount_image "$T/changed.img" "$T/stop"
umount_image "$T/stop"
new_image "$T/changed.img" $M
expect_fail 1 "mark-all" daemon "$T/changed.img" "$T/stop"
for image in "$T/second.img" "$T/changed.img"; do
  bypass=
  [ "$image" = "$T/second.img" ] || bypass=,bypass=mark-all
  refused "$T" 1 "$T/sockets/file.*not a socket" daemon "$image" "$T/stop" -o "control=$T/sockets/file$bypass"
  refused "$T" 1 "$long" daemon "$image" "$T/stop" -o "control=$long$bypass"
  refused "$T" 1 "$T/sockets/live.*another" daemon "$image" "$T/stop" -o "control=$T/sockets/live$bypass"
  refused "$T" 1 "not UTF-8" daemon "$image" "$bad_name" -o "threads=1$bypass"
  say "no /dev/fuse"
  mkdir -p "$T/nodev"
  # shellcheck disable=SC2016 # for the inner shell
  refused "$T" 1 "/dev/fuse" unshare -m sh -c 'mount -t tmpfs -o nodev none "$1" && mknod "$1/fuse" c 10 229 &&
    mount --bind "$1/fuse" /dev/fuse && shift && exec "$@"' - "$T/nodev" \
    "$ERAIMGFS" "$image" "$T/stop" -o "threads=1$bypass"
done
refused "$T" 1 "not UTF-8" daemon "$bad_name/third.img" "$T/stop"
umount_image "$T/mnt"
mount_image "$T/changed.img" "$T/stop" -o bypass=mark-all
umount_image "$T/stop"
! is_mounted "$T/mnt" || fail "mounted"
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"

say "a mount point that an ordinary user may not write to"
become_user
cp "$T/second.img" "$USER_DIR/disk.img"
chown 65534:65534 "$USER_DIR/disk.img"
mkdir "$T/sticky"
chmod 1777 "$T/sticky"
refused "$T" 1 "$T/mnt.*ermission denied" as_user "$ERAIMGFS" "$USER_DIR/disk.img" "$T/mnt"
refused "$T" 1 "$T/sticky.*sticky" as_user "$ERAIMGFS" "$USER_DIR/disk.img" "$T/sticky"
