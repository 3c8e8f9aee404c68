#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What one instance cannot see of another: its run folder, and, once it was killed, whether the last write was its own.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

era() { timeout -k 1 30 "$ERA_CLI" "$@"; }

new_image "$T/disk.img" 8*M
mkdir "$T/mnt" "$T/other"
mount_image "$T/disk.img" "$T/mnt"
start_write "$T/mnt/disk.img" 3 65
end_write 3 4096
other_run=$(mktemp -d "$T/run.XXXXXX")
elsewhere() { ERAIMGFS_RUN_DIR=$other_run timeout -k 1 30 "$@"; }

say "a frozen owner whose run folder is not shared is known by its process"
frozen=$(era freeze --timeout 0 "$T/mnt")
refused "$T" 3 "frozen by another eraimgfs" elsewhere "$ERAIMGFS" "$T/disk.img" "$T/other"
assert_eq "$((frozen + 1))" "$(era thaw --era "$frozen" "$T/mnt")" "thaw"
cursor=$(status_of "$T/mnt" uuid):$((frozen + 2))
frozen=$(era freeze --timeout 0 "$T/mnt")
assert_eq "$cursor" "$(era thaw --cursor --era "$frozen" "$T/mnt")" "thaw --cursor"

say "with takeover it is taken all the same"
frozen=$(era freeze --timeout 0 "$T/mnt")
elsewhere "$ERAIMGFS" "$T/disk.img" "$T/other" -o takeover 2>"$T/.err" || fail "$(cat "$T/.err")"
grep -q "took over from process" "$T/.err" || fail "not told: $(cat "$T/.err")"
expect_fail 3 "generation" era thaw --era "$frozen" "$T/mnt"
pid=$(elsewhere "$ERA_CLI" status --json "$T/other" | jq -r .pid)
umount_image "$T/mnt"
umount "$T/other"
wait_gone "$pid" || fail "it has not stopped"

say "killed, and written to by somebody else: no answer at rest, as no mount"
mount_image "$T/disk.img" "$T/mnt" -o intent=off # else its intents count as their whole extents
point=$(era checkpoint --cursor "$T/mnt")
start_write "$T/mnt/disk.img" 7 66
end_write 7 4096
kill9_daemon "$T/mnt"
assert_eq 7 "$(since "$point" "$T/disk.img")" "since, with nobody's write after its own"
touch -d "$(date -d '+1 minute')" "$T/disk.img"
expect_fail 5 "after the last recorded change" era since "$point" "$T/disk.img"
expect_fail 1 "was modified" "$ERAIMGFS" "$T/disk.img" "$T/mnt"
