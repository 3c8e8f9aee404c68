#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Our dump is metadata to dm-era's tools: era_restore takes it, era_check finds nothing, era_invalidate says what since says.
. "${0%/*}/tools.sh" || exit 1
requires_root
requires_fuse

# judge TARGET WHAT: at every threshold.
judge() {
  local form n now
  era status --json "$1" >"$T/status"
  now=$(jq .current_era "$T/status")
  for form in "" --logical; do
    # shellcheck disable=SC2086 # none is no argument
    era dump $form -o "$T/our.xml" "$1"
    metadata "$D/meta" 16M
    era_restore -i "$T/our.xml" -o "$D/meta" >/dev/null || fail "$2: era_restore"
    era_check "$D/meta" >/dev/null || fail "$2: era_check"
    for n in $(seq 0 "$now"); do
      assert_eq "$(our_since "$n" "$1")" "$(tool_since "$n" "$D/meta")" "$2 $form since $n"
    done
    # Threshold 0 apart, which both answer with every block, each answer was worth a question.
    [ "$(our_since 1 "$1")" != "<blocks></blocks>" ] || fail "$2: nothing was written"
    # What comes back is what went in; the tools keep no UUID. All writesets are archived ones to them, so that the
    # current one is told as well.
    era_dump "$D/meta" >"$T/their.xml"
    no_uuid <"$T/our.xml" | cmp - "$T/their.xml" || fail "$2 $form: era_dump"
    rm -f "$T/db"
    restore "$T/their.xml" "$T/db"
    era dump "$T/db" | no_uuid | cmp - "$T/their.xml" || fail "$2 $form: dump of what era_dump said"
  done
}

for geometry in "4096 1" "4096 $((63 * 4096))" "4096 $((64 * 4096))" "4096 $((65 * 4096 - 9))" "65536 $((5000 * 65536 + 1))"; do
  read -r block bytes <<<"$geometry"
  say "$bytes bytes in blocks of $block"
  nr=$(((bytes + block - 1) / block))
  rm -rf "$T"/disk.img* "$T/mnt"
  truncate -s "$bytes" "$T/disk.img"
  mkdir "$T/mnt"
  mount_image "$T/disk.img" "$T/mnt" -o block_size="$block"
  RANDOM=$nr
  for e in 1 2 3 4; do
    for i in 0 1 2 3 4 5; do
      at=$((i == 0 ? nr - 1 : RANDOM * 32768 + RANDOM))
      ops write "$T/mnt/disk.img" $((at % nr * block)) 1 65 >/dev/null
    done
    [ "$e" = 4 ] || era checkpoint "$T/mnt" >/dev/null
  done
  judge "$T/mnt" "running"
  n=$(era freeze --timeout 0 "$T/mnt")
  judge "$T/mnt" "frozen"
  era snapshot -o "$T/snap" "$T/mnt"
  era thaw --era "$n" "$T/mnt" >/dev/null
  judge "$T/snap" "snapshot"
  umount_image "$T/mnt"
  judge "$T/disk.img" "at rest"
done

say "all changed: every block counts at least as written in the era of bypass=mark-all"
printf x >>"$T/disk.img"
mount_image "$T/disk.img" "$T/mnt" -o bypass=mark-all
era checkpoint "$T/mnt" >/dev/null
ops write "$T/mnt/disk.img" 0 1 65 >/dev/null
judge "$T/mnt" "marked"
umount_image "$T/mnt"

say "<marked>, as newer tools write it, is what <bit> says"
{
  echo '<superblock uuid="" block_size="8" nr_blocks="200" current_era="3"><writeset era="2" nr_bits="200">'
  for run in "0 1" "60 10" "127 2" "130 64" "199 1"; do
    read -r begin len <<<"$run"
    echo "<marked block_begin=\"$begin\" len=\"$len\"/>"
  done
  echo '</writeset><era_array></era_array></superblock>'
} >"$T/marked.xml"
rm -f "$T/db"
restore "$T/marked.xml" "$T/db"
assert_eq "0 60 61 62 63 64 65 66 67 68 69 127 128 $(seq -s ' ' 130 193) 199" "$(since 2 "$T/db" 4096)" "runs across words"
judge "$T/db" "marked runs"
