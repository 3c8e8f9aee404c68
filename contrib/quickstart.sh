#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# From a fresh checkout to an incremental backup: installs, builds, tracks a disk image with an ext4 file system on it,
# and proves that `era-cli since` names every block that changed. Takes a minute or two. It works in a temporary folder
# and takes everything down again, however it ends; only the packages and the build folder (build-quickstart) stay.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
  echo "quickstart: run me as root: the tour attaches a loop device and mounts ext4 on it" >&2
  echo "quickstart: (eraimgfs itself needs no root; this tour does)" >&2
  exit 1
fi
[ -c /dev/fuse ] || { echo "quickstart: there is no /dev/fuse here: load the kernel module fuse" >&2; exit 1; }
[ -c /dev/loop-control ] || { echo "quickstart: there are no loop devices here: load the kernel module loop" >&2; exit 1; }

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build-quickstart
work=$(mktemp -d "${TMPDIR:-/tmp}/eraimgfs-quickstart.XXXXXX")
loop=

clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  set +e
  cd /
  ! mountpoint -q "$work/files" || umount "$work/files" || umount -l "$work/files"
  [ -z "$loop" ] || losetup -d "$loop"
  # The loop device lets go of the mounted file a moment later.
  for _ in {1..100}; do
    mountpoint -q "$work/mnt" || break
    umount "$work/mnt" 2>/dev/null && break
    sleep 0.1
  done
  ! mountpoint -q "$work/mnt" || umount -l "$work/mnt"
  rm -rf --one-file-system "$work"
  [ "$status" = 0 ] || echo "quickstart: stopped with status $status; everything was taken down again" >&2
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

nr=0
step() {
  nr=$((nr + 1))
  printf '\n%d. %s\n' "$nr" "$*"
}
# Shows the command, then runs it.
run() {
  printf '   $ %s\n' "$*"
  "$@" 2>&1 | sed 's/^/     /'
}

step "Install what it needs and build it"
run "$top/contrib/deps.sh"
[ -f "$build/build.ninja" ] || run meson setup "$build" "$top" -Dtests=disabled >"$work/build.log" || { cat "$work/build.log"; exit 1; }
run ninja -C "$build" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
echo "   built: $build/src/daemon/eraimgfs and $build/src/cli/era-cli"
PATH=$build/src/daemon:$build/src/cli:$PATH
cd "$work"

step "Make a disk image of 256 MiB"
run truncate -s 256M disk.img

step "Mount it with eraimgfs: mnt/disk.img is the image, every write to it is recorded"
run mkdir mnt files
run eraimgfs disk.img mnt
echo "   \$ era-cli status mnt"
era-cli status mnt | grep -E '^(state|image_size|block_size|nr_blocks|current_era|metadata):' | sed 's/^/     /'

step "Use it as a disk: a loop device on the mounted file, ext4 on it, real files in it"
loop=$(losetup -f --show --direct-io=on mnt/disk.img)
echo "   \$ losetup -f --show --direct-io=on mnt/disk.img"
echo "     $loop"
run mkfs.ext4 -q "$loop"
run mount "$loop" files
# /usr/share/doc where there is one; some containers are installed without it.
find /usr/share/doc /usr/include -xdev -type f -size -100k 2>/dev/null | sort | sed -n 1,3000p >list
echo "   \$ tar -c (3000 files of /usr/share/doc and /usr/include) | tar -x -C files"
tar -C / -cf - -T list 2>/dev/null | tar -C files -xf -
run sync -f files
run df -h --output=used,ipcent,target files

step "A full backup: end the era first, then copy. What is written from here on belongs to the new era"
point=$(era-cli checkpoint --cursor --label backup-1 mnt)
echo "   \$ era-cli checkpoint --cursor --label backup-1 mnt"
echo "     $point"
run cp --sparse=always mnt/disk.img backup.img

step "A day's work: delete some files, rewrite some, add some"
find files -type f | sort >list
echo "   (every tenth file is removed, every fifteenth gets a new line, one is added)"
awk 'NR % 10 == 0' list | xargs -d '\n' rm
awk 'NR % 15 == 1' list | while read -r file; do echo "changed" >>"$file"; done
run cp "$top/LICENSE" files/added
run umount files
run sync mnt/disk.img

step "What changed since the backup? (offset and length in bytes)"
era-cli since "$point" mnt >extents
echo "   \$ era-cli since $point mnt"
sed -n '1,8s/^/     /p' extents
echo "     ... $(wc -l <extents) extents"
run era-cli since backup-1 --count mnt
echo "     (blocks and bytes, of $((256 * 16)) blocks of 64 KiB)"

step "The proof: compare the backup with the image, block by block"
{ cmp -l backup.img mnt/disk.img || [ $? = 1 ]; } | awk '{ print int(($1 - 1) / 65536) }' | uniq >differ
awk '{ for (b = int($1 / 65536); b * 65536 < $1 + $2; b++) print b }' extents >answer
missing=$(comm -23 <(sort differ) <(sort answer) | wc -l)
echo "   blocks that differ:                         $(wc -l <differ)"
echo "   blocks in the answer:                       $(wc -l <answer)"
echo "   blocks that differ and are not in it:       $missing"
[ "$missing" = 0 ] || { echo "quickstart: a changed block is missing from the answer" >&2; exit 1; }

step "The incremental backup: copy just these extents into the backup"
cat <<'END'
   $ while read -r offset length; do
       dd if=mnt/disk.img of=backup.img bs=1M conv=notrunc iflag=skip_bytes,count_bytes \
         oflag=seek_bytes skip=$offset seek=$offset count=$length
     done <extents
END
while read -r offset length; do
  dd if=mnt/disk.img of=backup.img bs=1M conv=notrunc iflag=skip_bytes,count_bytes oflag=seek_bytes \
    skip="$offset" seek="$offset" count="$length" status=none
done <extents
run cmp backup.img mnt/disk.img
echo "   the backup equals the image, byte for byte"
run e2fsck -fn backup.img

step "Stop: the metadata stays in disk.img.era, and answers also while nothing is mounted"
pid=$(era-cli status mnt | sed -n 's/^pid: //p')
losetup -d "$loop"
loop=
# The loop device lets go of the file a moment later; and the daemon finishes its metadata after umount has returned.
for _ in {1..100}; do ! umount mnt 2>/dev/null || break; sleep 0.1; done
echo "   \$ umount mnt"
timeout 60 tail --pid="$pid" -s 0.1 -f /dev/null
run era-cli since backup-1 --count disk.img

printf '\nDone. Next: README.md, man eraimgfs, man era-cli.\n'
