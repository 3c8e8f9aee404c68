#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Mounted by mount(8): by type, by a line of fstab, and as the helper mount.fuse.eraimgfs.
# In a mount namespace of its own, where the daemon appears to be installed.
if [ "${1:-}" != inside ] && [ "$(id -u)" = 0 ]; then exec unshare -m --propagation private "$0" inside; fi
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires test -x /sbin/mount.fuse

new_image "$T/disk.img" $M
mkdir "$T/mnt" "$T/sbin"
cp "$ERAIMGFS" "$T/sbin/eraimgfs"
ln -s eraimgfs "$T/sbin/mount.fuse.eraimgfs"
# mount(8) passes no PATH on, and the shell's default begins with this folder.
mkdir -p /usr/local/sbin
mount --bind "$T/sbin" /usr/local/sbin

say "by type"
mount -t fuse.eraimgfs "$T/disk.img" "$T/mnt" -o "metadata=$T/db,allow_other"
assert_eq fuse.eraimgfs "$(findmnt -n -o FSTYPE "$T/mnt")" "type"
assert_eq 4096 "$(ops write "$T/mnt/disk.img" 0 4096 67)" "write"
umount_image "$T/mnt"
mount -t fuse.eraimgfs -r "$T/disk.img" "$T/mnt" -o "metadata=$T/db"
assert_eq EROFS "$(ops write "$T/mnt/disk.img" 0 4096 67)" "write to a mount with -r"
umount_image "$T/mnt"
status=0
mount -t fuse.eraimgfs "$T/none.img" "$T/mnt" 2>"$T/err" || status=$?
[ "$status" != 0 ] || fail "mounted an image that is missing"
grep -q "$T/none.img" "$T/err" || fail "the reason did not reach mount(8): $(cat "$T/err")"

say "by a line of fstab"
echo "$T/disk.img $T/mnt fuse.eraimgfs noauto,nofail,x-systemd.automount,_netdev,metadata=$T/db 0 0" >"$T/fstab"
mount -T "$T/fstab" "$T/mnt"
assert_eq 67 "$(od -An -tu1 -N 1 "$T/mnt/disk.img" | tr -d ' ')" "content"
assert_eq "$T/db" "$(status_of "$T/mnt" metadata)" "metadata"
umount "$T/mnt"
wait_until 20 sh -c "[ -z \"\$(ls '$ERAIMGFS_RUN_DIR')\" ]" || fail "still running"

say "as mount(8) calls a helper"
"$T/sbin/mount.fuse.eraimgfs" "$T/disk.img" "$T/mnt" -o "rw,noatime,metadata=$T/db" -t fuse.eraimgfs
assert_eq running "$(status_of "$T/mnt" state)" "state"
umount_image "$T/mnt"
assert_eq 0 "$(since 1 "$T/db")" "since"
