#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# contrib/libvirt/eraimgfs-backup with a virsh that freezes file systems of this machine: two disks, ext4 and xfs, and a
# writer that uses both by turns.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
requires_fuse
requires_loop
requires command -v fsfreeze mkfs.ext4 mkfs.xfs python3 flock
backup=$(cd "${0%/*}/../../contrib/libvirt" && pwd)/eraimgfs-backup

mkdir "$T/bin" "$T/backup"
ln -s "$(realpath "$ERA_CLI")" "$T/bin/era-cli"
export VM=$T PATH=$T/bin:$PATH
cat >"$T/bin/virsh" <<'END'
#!/bin/bash
[ "${!#}" = guest ] || { echo "error: failed to get domain '${!#}'" >&2; exit 1; }
echo "$1" >>"$VM/virsh.log"
[ ! -e "$VM/fail-$1" ] || { echo "error: Guest agent is not responding" >&2; exit 1; }
case $1 in
  domblklist)
    printf ' Type   Device   Target   Source\n---------------------------------------\n'
    printf ' file   disk     vda      %s\n file   disk     vdb      %s\n' "$VM/a/a.img" "$VM/b/b.img"
    printf ' file   cdrom    sda      -\n'
    [ ! -e "$VM/untracked.img" ] || printf ' file   disk     vdc      %s\n' "$VM/untracked.img"
    ;;
  domfsfreeze) fsfreeze -f "$VM/fs-a" && fsfreeze -f "$VM/fs-b" && echo "Froze 2 filesystem(s)" ;;
  domfsthaw) # keeps what the guest's trees were
    [ -z "${TREES:-}" ] || bash -c "$TREES"
    thawed=0
    ! fsfreeze -u "$VM/fs-b" || thawed=$((thawed + 1))
    ! fsfreeze -u "$VM/fs-a" || thawed=$((thawed + 1))
    echo "Thawed $thawed filesystem(s)" # as the agent of Linux: no error
    ;;
esac
END
chmod +x "$T/bin/virsh"
export -f tree_of
# shellcheck disable=SC2016 # for virsh
export TREES='tree_of $VM/fs-a >$VM/a.tree; tree_of $VM/fs-b >$VM/b.tree'

new_store xfs 1024*M -m reflink=1
new_fs a ext4 64*M
new_fs b xfs 320*M
start_writer "$T/fs-a" "$T/fs-b"

in_backup() { find "$T/backup" -mindepth 1 -printf '%f\n' | sort | paste -sd ' '; }
check_backup() {
  local step=() before=$1
  assert_eq "domblklist domfsfreeze domfsthaw" "$(paste -sd ' ' "$T/virsh.log")" "calls of virsh"
  assert_eq "$(printf 'vda\t%s\nvdb\t%s' "$(cat "$T/backup/vda.point")" "$(cat "$T/backup/vdb.point")")" "$(cat "$T/out")" "output"
  assert_eq "vda.img vda.point vdb.img vdb.point" "$(in_backup)" "files"
  cp --sparse=always "$T/backup/vda.img" "$T/store/a.copy"
  cp --sparse=always "$T/backup/vdb.img" "$T/store/b.copy"
  for name in a b; do
    check_copy "${KINDS[$name]}" "$T/store/$name.copy" "$T/$name.tree"
    check_copy "${KINDS[$name]}" "$T/store/$name.copy" "$before" "$(progress)"
    step+=("$STEP")
  done
  [ $((step[0] - step[1])) = 0 ] || [ $((step[0] - step[1])) = 1 ] || fail "vda is of step ${step[0]}, vdb of ${step[1]}"
}

nr=0
for round in full incremental full; do
  say "$round"
  : >"$T/virsh.log"
  # A point of other metadata is not known, and says so.
  [ "$round $((nr += 1))" != "full 3" ] || sed -i s/..../0000/ "$T"/backup/vd?.point
  before=$(progress)
  "$backup" guest "$T/backup" >"$T/out" 2>"$T/.err" || fail "$(cat "$T/.err")"
  writer_goes_on
  assert_eq "$([ $round = full ] && echo 2 || echo 0)" "$(grep -c 'full copy' "$T/.err" || :)" "full copies: $(cat "$T/.err")"
  check_backup "$before"
done

# refused_backup CODE PATTERN ARG...: fails, prints no point, changes no backup, leaves nothing frozen.
state_of_backup() { find "$T/backup" -mindepth 1 -printf '%f %i %s %C@\n' | sort; }
refused_backup() {
  local status=0 code=$1 pattern=$2 before
  shift 2
  before=$(state_of_backup)
  "$backup" "$@" >"$T/out" 2>"$T/.err" || status=$?
  assert_eq "$code" "$status" "exit of $* ($(cat "$T/.err"))"
  grep -qE -e "$pattern" "$T/.err" || fail "stderr has no '$pattern': $(cat "$T/.err")"
  [ ! -s "$T/out" ] || fail "printed: $(cat "$T/out")"
  assert_eq "$before" "$(state_of_backup)" "the backup after $*"
  assert_fs_thawed "$T/fs-a"
  assert_fs_thawed "$T/fs-b"
  writer_goes_on
}
unset TREES
say "refused"
refused_backup 2 Usage guest
refused_backup 1 "failed to get domain" nobody "$T/backup"
refused_backup 1 "is not a folder" guest "$T/none"
refused_backup 1 "no disk vdx" guest "$T/backup" vda vdx
touch "$T/untracked.img"
refused_backup 1 "vdc of guest .* is not mounted by eraimgfs" guest "$T/backup"
say "an agent that does not answer, at the freeze"
touch "$T/fail-domfsfreeze"
refused_backup 1 "not responding" guest "$T/backup" vda vdb
rm "$T/fail-domfsfreeze"
say "somebody else thawed meanwhile: the copy is not taken for a whole one"
rm "$T/bin/era-cli"
cat >"$T/bin/era-cli" <<END
#!/bin/sh
# The second checkpoint is the one with the guest frozen.
[ "\$1" != checkpoint ] || echo >>"$T/checkpoints"
[ "\$1" != since ] || [ \$(wc -l <"$T/checkpoints") != 2 ] || fsfreeze -u "$T/fs-b"
exec "$ERA_CLI" "\$@"
END
chmod +x "$T/bin/era-cli"
: >"$T/checkpoints"
status=0
"$backup" guest "$T/backup" vda vdb >"$T/out" 2>"$T/backup.err" || status=$?
assert_fs_thawed "$T/fs-a"
assert_eq 1 "$status" "exit: $(cat "$T/backup.err")"
grep -q "the old backup stays" "$T/backup.err" || fail "$(cat "$T/backup.err")"
[ ! -s "$T/out" ] || fail "printed: $(cat "$T/out")"
assert_eq "vda.img vda.point vdb.img vdb.point" "$(in_backup)" "files"
writer_goes_on
