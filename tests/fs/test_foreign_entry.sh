#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Root sees the instances of other users, and believes their registry entries only as far as they are theirs: else a user
# could have root ask his own program about root's image.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v fusermount3
become_user
# Both sides look where they do without a test around them.
era() { env -u ERAIMGFS_RUN_DIR -u XDG_RUNTIME_DIR "$ERA_CLI" "$@"; }
run=/tmp/eraimgfs-65534 # where a user without any other place has his run folder
[ ! -e "$run" ] && [ ! -e /run/user/65534 ] || skip "needs: no $run and no /run/user/65534"
cleanup_fn rm -rf "$run"
plain_user() { as_user env -u ERAIMGFS_RUN_DIR -u XDG_RUNTIME_DIR "$@"; }

say "the entry of a real instance is seen"
cd "$USER_DIR"
as_user sh -c 'truncate -s 1M disk.img; mkdir mnt'
plain_user "$ERAIMGFS" disk.img mnt 2>/dev/null
is_mounted "$USER_DIR/mnt"
entry=$(echo "$run"/*.json)
pid=$(jq .pid "$entry")
cleanup_fn sh -c "fusermount3 -u -z '$USER_DIR/mnt' 2>/dev/null || :"
assert_eq "$USER_DIR/mnt" "$(era list --json | jq -r --argjson p "$pid" '.[] | select(.pid == $p) | .mountpoint')" "root's list"
assert_eq running "$(status_of "$USER_DIR/mnt" state)" "root's question"
assert_eq 2 "$(era checkpoint "$USER_DIR/disk.img")" "root's checkpoint"

say "but it is not what goes without saying"
era status >"$T/out" 2>&1 || :
! grep -q "^mountpoint: $USER_DIR/mnt" "$T/out" || fail "root, who named no target, was answered by a user's instance"

say "one that claims root's image, metadata or mount point is not"
truncate -s 1M "$T/root.img"
mkdir "$T/root.mnt"
ERAIMGFS_RUN_DIR=$T/r "$ERAIMGFS" "$T/root.img" "$T/root.mnt" 2>/dev/null
umount "$T/root.mnt"
# shellcheck disable=SC2016 # of the inner shell
wait_until 20 sh -c '[ -z "$(find "$1" -name "*.json")" ]' sh "$T/r"
forge() { # FILTER: the user's own entry, altered so
  jq --arg t "$T" "$1" "$entry" >"$T/forged"
  install -o 65534 -m 0600 "$T/forged" "$entry"
}
cp "$entry" "$T/genuine"
dev=$(stat -c %d "$T/root.img")
ino=$(stat -c %i "$T/root.img")
for forged in '.image = $t + "/root.img"' ".image_dev = $dev | .image_ino = \"$ino\"" '.metadata = $t + "/root.img.era"' \
  '.mountpoint = $t + "/root.mnt" | .file = .mountpoint + "/root.img"' '.file = $t + "/root.img"' ".mount_dev = $dev" '.pid = 1'; do
  forge "$forged"
  assert_eq offline "$(status_of "$T/root.img" state)" "root's image, with $forged"
  assert_eq "" "$(era list --json | jq -r --argjson p "$pid" '.[] | select(.pid == $p) | .mountpoint')" "list, with $forged"
  install -o 65534 -m 0600 "$T/genuine" "$entry"
done

say "nor a socket that is not his"
forge ".socket = \"$T/root.sock\""
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
print("ready", flush=True)
s.accept()' "$T/root.sock" >"$T/ready" &
server=$!
cleanup_fn sh -c "kill -9 $server 2>/dev/null || :"
wait_until 20 test -s "$T/ready"
expect_fail 1 "not that of user 65534" era checkpoint "$USER_DIR/mnt"
install -o 65534 -m 0600 "$T/genuine" "$entry"

plain_user fusermount3 -u mnt
wait_gone "$pid" || fail "the daemon is still there"
