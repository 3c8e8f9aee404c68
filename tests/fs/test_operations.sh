#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each operation of a file: what it answers, what it changes, what it marks.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

size=$((20 * BLOCK + 1234)) # 21 blocks, the last one partial
new_image "$T/disk.img" $size
cp "$T/disk.img" "$T/model"
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"
file=$T/mnt/disk.img
point=$(era checkpoint "$T/mnt")

# marks BLOCKS: exactly these were marked since the last call, the content is the model's.
marks() {
  assert_eq "$1" "$(since "$point" "$T/mnt")" "blocks marked"
  assert_same "$T/model" "$file" "content"
  point=$(era checkpoint "$T/mnt")
}
# both EXPECTED COMMAND FILE ARGS...: the same answer from the mounted file and from the model.
both() {
  local expected=$1 command=$2
  shift 2
  assert_eq "$expected" "$(ops "$command" "$T/model" "$@")" "$command $* on a plain file"
  assert_eq "$expected" "$(ops "$command" "$file" "$@")" "$command $*"
}

say "writes of odd sizes at odd offsets"
both 1 write 0 1 1
marks "0"
both 3 write $((BLOCK - 1)) 3 2
marks "0 1"
both $((3 * BLOCK)) write $((2 * BLOCK)) $((3 * BLOCK)) 3
marks "2 3 4"
both $((BLOCK + 1)) write $((5 * BLOCK)) $((BLOCK + 1)) 4
marks "5 6"
both 777 write $((19 * BLOCK + 65000)) 777 5
marks "19 20"
both 4096 write-direct $((7 * BLOCK + 4096)) 4096 6
marks "7"

say "the end: the last byte, across it, beyond it"
both 1 write $((size - 1)) 1 7
marks "20"
assert_eq 10 "$(ops write "$file" $((size - 10)) 100 8)" "write across the end is short"
assert_eq 10 "$(ops write "$T/model" $((size - 10)) 10 8)" "model"
marks "20"
assert_eq EFBIG "$(ops write "$file" $size 1 9)" "write at the end"
assert_eq EFBIG "$(ops write "$file" $((size + M)) 1 9)" "write beyond the end"
assert_eq EFBIG "$(ops append "$file" 0 1 9)" "append"
marks ""
both 0 read $size 100
both 10 read $((size - 10)) 100
both 0 read $((size + M)) 1

say "the size cannot be changed through the mount"
for new in 0 1 $((size - 1)) $((size + 1)) $((2 * size)); do
  assert_eq EPERM "$(ops truncate "$file" $new)" "truncate to $new"
  assert_eq EPERM "$(ops ftruncate "$file" $new)" "ftruncate to $new"
done
assert_eq EPERM "$(ops open-trunc "$file")" "O_TRUNC"
both ok truncate $size
both ok ftruncate $size
assert_eq $size "$(stat -c %s "$file")" "size"
marks ""

say "fallocate"
both ok fallocate 1 0 $BLOCK # KEEP_SIZE: allocates what is allocated
assert_same "$T/model" "$file" "content"
point=$(era checkpoint "$T/mnt")
both ok fallocate 3 $((3 * BLOCK + 100)) $BLOCK # PUNCH_HOLE | KEEP_SIZE
marks "3 4"
both ok fallocate 0x11 $((8 * BLOCK)) $((2 * BLOCK)) # ZERO_RANGE | KEEP_SIZE
marks "8 9"
both ok fallocate 0x10 $((10 * BLOCK)) 1
marks "10"
assert_eq ok "$(ops fallocate "$file" 3 $((19 * BLOCK)) $((10 * BLOCK)))" "punch across the end"
assert_eq ok "$(ops fallocate "$T/model" 3 $((19 * BLOCK)) $((10 * BLOCK)))" "model"
marks "19 20"
case $(ops fallocate "$file" 0 $((size - 1)) 2) in EFBIG | EPERM | EOPNOTSUPP) ;; *) fail "fallocate may grow the file" ;; esac
assert_eq EOPNOTSUPP "$(ops fallocate "$file" 8 0 $BLOCK)" "collapse"
assert_eq EOPNOTSUPP "$(ops fallocate "$file" 0x20 0 $BLOCK)" "insert"
assert_eq $size "$(stat -c %s "$file")" "size"
marks ""

say "copy_file_range inside the mount, into it, out of it"
ops copy "$T/model" 0 "$T/model" $((11 * BLOCK + 5)) $((BLOCK + 10)) >/dev/null
n=$(ops copy "$file" 0 "$file" $((11 * BLOCK + 5)) $((BLOCK + 10)))
assert_eq $((BLOCK + 10)) "$n" "copied"
marks "11 12"
case $(ops copy "$T/disk.img" 0 "$file" 0 4096) in EXDEV | EBUSY | 4096) ;; *) fail "copy into the mount" ;; esac
since "$point" "$T/mnt" >/dev/null
dd if="$file" of="$T/model" bs=1M status=none # whatever came of it
point=$(era checkpoint "$T/mnt")

say "holes"
both "$(ops seek "$T/disk.img" data 0)" seek data 0
for offset in 0 $((3 * BLOCK + 4096)) $((8 * BLOCK)) $((19 * BLOCK)); do
  assert_eq "$(ops seek "$T/disk.img" data "$offset")" "$(ops seek "$file" data "$offset")" "SEEK_DATA $offset"
  assert_eq "$(ops seek "$T/disk.img" hole "$offset")" "$(ops seek "$file" hole "$offset")" "SEEK_HOLE $offset"
done
assert_eq ENXIO "$(ops seek "$file" data $size)" "SEEK_DATA at the end"
marks ""

say "what marks nothing: times, statfs, access, reading, fsync"
assert_eq ok "$(ops utimens "$file")" "utimens"
stat -f "$file" >/dev/null
[ -r "$file" ] && [ -w "$file" ]
assert_eq ok "$(ops fsync "$file")" "fsync"
cat "$file" >/dev/null
marks ""

say "the folder has one file and takes no other"
assert_eq disk.img "$(ls -A "$T/mnt")" "ls"
assert_eq ENOENT "$(ops read "$T/mnt/other" 0 1)" "unknown name"
assert_eq ENOENT "$(ops read "$T/mnt/disk.img2" 0 1)" "unknown name"
[ "$(ops create "$T/mnt/new")" != ok ] || fail "created a file"
! mkdir "$T/mnt/sub" 2>/dev/null || fail "created a folder"
! rm "$file" 2>/dev/null || fail "removed the image"
! mv "$file" "$T/mnt/b" 2>/dev/null || fail "renamed the image"
! ln -s x "$T/mnt/link" 2>/dev/null || fail "made a symlink"
assert_eq disk.img "$(ls -A "$T/mnt")" "ls"

say "mappings"
assert_eq 33 "$(ops map-private "$file" $((13 * BLOCK)) 33)" "private mapping"
marks ""
case $(ops map-shared "$file" $((14 * BLOCK + 1)) 34) in
  34)
    ops map-shared "$T/model" $((14 * BLOCK + 1)) 34 >/dev/null
    marks "14"
    ;;
  ENODEV) marks "" ;;
  *) fail "shared mapping" ;;
esac

umount_image "$T/mnt"
assert_same "$T/model" "$T/disk.img" "the image beneath"
