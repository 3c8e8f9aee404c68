#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `era-cli since`: which blocks, in each format, live and at rest, and the points that it knows.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

size=$((33 * BLOCK + 5000)) # 34 blocks, the last one partial
new_image "$T/disk.img" $size
cp "$T/disk.img" "$T/copy0"
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt" -o intent=off # which writes nothing of its own accord
file=$T/mnt/disk.img
put() { assert_eq "$2" "$(ops write "$file" "$1" "$2" 65)" "write $2 at $1"; }

say "nothing written"
assert_eq "" "$(since 1 "$T/mnt")" "since 1"
assert_eq "0 $size" "$(era since 0 "$T/mnt" | tr '\t' ' ')" "since 0 is every block, clamped to the image"
assert_eq "0 0" "$(era since 1 --count "$T/mnt" | tr '\t' ' ')" "count"

say "eras of their own"
put 0 1
put $((5 * BLOCK)) $((3 * BLOCK))
assert_eq 2 "$(era checkpoint "$T/mnt")" "checkpoint"
cp "$file" "$T/copy2"
put $((6 * BLOCK + 9)) 1
put $((size - 1)) 1
assert_eq 3 "$(era checkpoint "$T/mnt")" "checkpoint"
cp "$file" "$T/copy3"
put $((31 * BLOCK - 1)) 2
answers() {
  assert_eq "0 5 6 7 30 31 33" "$(since 1 "$1")" "since 1 of $1"
  assert_eq "6 30 31 33" "$(since 2 "$1")" "since 2 of $1"
  assert_eq "30 31" "$(since 3 "$1")" "since 3 of $1"
  assert_eq 34 "$(since 0 "$1" | wc -w)" "since 0 of $1"
}
for target in "$T/mnt" "$file" "$T/disk.img" "$T/disk.img.era"; do answers "$target"; done
(cd "$T/mnt" && ERAIMGFS_TARGET='' era since 3 disk.img >/dev/null && ERAIMGFS_TARGET=$T/mnt era since 3 >/dev/null)
assert_eq "30 31" "$(cd / && era since 3 | blocks_in | paste -sd ' ')" "the only live instance needs no name"

say "formats"
assert_eq "$(printf '%d\t%d\n' 0 $BLOCK $((5 * BLOCK)) $((3 * BLOCK)) $((30 * BLOCK)) $((2 * BLOCK)) $((33 * BLOCK)) 5000)" \
  "$(era since 1 "$T/mnt")" "text: ascending, merged, clamped"
assert_eq "$(era since 1 "$T/mnt")" "$(era since 1 --format text "$T/mnt")" "--format text"
assert_eq "7 $((6 * BLOCK + 5000))" "$(era since 1 --count "$T/mnt" | tr '\t' ' ')" "--count"
era since 1 --format json "$T/mnt" >"$T/json"
assert_eq "$(era since 1 "$T/mnt")" "$(jq -r '.extents[] | [.offset, .length] | @tsv' "$T/json")" "json extents"
assert_eq "$BLOCK $size 1 3 true 7 $((6 * BLOCK + 5000)) []" \
  "$(jq -r '"\(.block_size) \(.image_size) \(.since) \(.current_era) \(.exact) \(.blocks) \(.bytes) \(.conservative)"' "$T/json")" "json"
assert_eq "$(status_of "$T/mnt" uuid)" "$(jq -r .uuid "$T/json")" "json uuid"
era since 1 --format xml "$T/mnt" >"$T/xml"
assert_eq '<blocks>
  <block block="0"/>
  <range begin="5" end="8"/>
  <range begin="30" end="32"/>
  <block block="33"/>
</blocks>' "$(cat "$T/xml")" "xml"
xmllint --noout "$T/xml"
era since 1 --format rbd "$T/mnt" >"$T/rbd"
assert_eq "$(era since 1 "$T/mnt")" "$(jq -r '.[] | select(.exists == "true") | [.offset, .length] | @tsv' "$T/rbd")" "rbd"
era since 3 --format rbd -o "$T/rbd" "$T/mnt"
assert_eq "[{\"offset\":$((30 * BLOCK)),\"length\":$((2 * BLOCK)),\"exists\":\"true\"}]" "$(jq -c . "$T/rbd")" "rbd, -o"
assert_eq "[]" "$(cd "$T" && put 0 0 && era checkpoint mnt >/dev/null && era since 4 --format rbd mnt | jq -c .)" "rbd, empty"
assert_eq "" "$(era since 4 --require-exact "$T/mnt")" "--require-exact"

say "-o replaces the file, or leaves it"
echo old >"$T/out"
expect_fail 5 "era 99" era since 99 -o "$T/out" "$T/mnt"
assert_eq old "$(cat "$T/out")" "-o of a failed answer"
era since 3 -o "$T/out" "$T/mnt"
assert_eq "$(era since 3 "$T/mnt")" "$(cat "$T/out")" "-o"
expect_fail 1 "$T/no/out" era since 3 -o "$T/no/out" "$T/mnt"
expect_fail 1 "ull" era since 0 -o /dev/full "$T/mnt"
! era since 0 "$T/mnt" >/dev/full 2>"$T/err" || fail "an answer that could not be written whole gave 0"

say "-o names the file for the list, never the image or what goes with it"
ln -s disk.img "$T/link"
ln "$T/disk.img" "$T/hard"
for f in disk.img disk.img.era disk.img.era-wal disk.img.era-shm disk.img.era.witness disk.img.era.lock link hard mnt/disk.img; do
  refused "$T" 2 "-o names the file" era since 3 -o "$T/$f" "$T/mnt"
done
rm "$T/link" "$T/hard"

say "cursor and label"
cursor=$(era checkpoint --cursor --label nightly "$T/mnt")
assert_eq "$(status_of "$T/mnt" uuid):5" "$cursor" "cursor"
put $((9 * BLOCK)) 1
for point in 5 "$cursor" nightly; do
  assert_eq "9" "$(since "$point" "$T/mnt")" "since $point"
  assert_eq "9" "$(since "$point" "$T/disk.img")" "since $point by the image"
done

say "at rest: the same answers"
era since 1 --format json "$T/mnt" | jq 'del(.current_era)' >"$T/live"
umount_image "$T/mnt"
era since 1 --format json "$T/disk.img" | jq 'del(.current_era)' >"$T/rest"
assert_same "$T/live" "$T/rest" "live and at rest"
assert_eq "9" "$(since nightly "$T/disk.img.era")" "label at rest"
assert_covers "$T/copy0" "$T/disk.img" 1 "$T/disk.img"
assert_covers "$T/copy2" "$T/disk.img" 2 "$T/disk.img"
assert_covers "$T/copy3" "$T/disk.img" 3 "$T/disk.img"

say "boundaries: the current era is valid, the one after it is not"
now=$(status_of "$T/disk.img" current_era)
era since "$now" "$T/disk.img" >/dev/null
expect_fail 5 "full backup" era since $((now + 1)) "$T/disk.img"
assert_eq 34 "$(since 0 "$T/disk.img" | wc -w)" "since 0"

say "other block sizes, one block, and an image smaller than a block"
for geometry in "4096 8192" "4096 4097" "65536 1" "1073741824 1048577" "12288 40000"; do
  read -r block bytes <<<"$geometry"
  new_image "$T/g.img" "$bytes"
  rm -f "$T"/g.img.era*
  mount_image "$T/g.img" "$T/mnt" -o block_size="$block"
  last=$(((bytes - 1) / block))
  assert_eq 1 "$(ops write "$T/mnt/g.img" $((bytes - 1)) 1 65)" "write"
  assert_eq "$last" "$(since 1 "$T/mnt" "$block")" "since with blocks of $block"
  assert_eq "$((last * block)) $((bytes - last * block))" "$(era since 1 "$T/mnt" | tr '\t' ' ')" "clamped"
  umount_image "$T/mnt"
done
