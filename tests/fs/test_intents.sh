#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Write intents as a user meets them: options, status, what since says before and after a recovery, how few commits there are.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse

new_image "$T/disk.img" $((64 * M))
mkdir "$T/mnt"
file=$T/mnt/disk.img
put() { # BLOCK...
  local block
  for block; do assert_eq 1 "$(ops write "$file" $((block * BLOCK)) 1 65)" "write to block $block"; done
}
# listed FIELD: of the answer on stdin, their block numbers.
listed() { jq -r ".$1[] | [.offset, .length] | @tsv" | blocks_in | paste -sd ' '; }
# in_list BLOCK... : each is in the list on stdin.
in_list() {
  local list block
  list=" $(cat) "
  for block; do [[ $list == *" $block "* ]] || fail "block $block is missing in:$list"; done
}
no_open_intents() { [ "$(status_of "$T/mnt" open_intents)" = 0 ]; }

say "what status says of each option"
while read -r options bytes max; do
  mount_image "$T/disk.img" "$T/mnt" -o "${options:-rw}"
  assert_eq "$bytes" "$(status_of "$T/mnt" intent_bytes)" "intent_bytes with $options"
  assert_eq "$max" "$(status_of "$T/mnt" intent_max_bytes)" "intent_max_bytes with $options"
  if [ "$bytes" != 0 ]; then
    assert_eq "0 0" "$(status_of "$T/mnt" open_intents) $(status_of "$T/mnt" blurred_bytes_max)" "nothing is open at first"
    put 3
    # (One of a single block is of no use any more by now.)
    [ "$bytes" = $BLOCK ] || [ "$(status_of "$T/mnt" open_intents)" -gt 0 ] || fail "nothing is open with $options after a write"
    era status --json "$T/mnt" | jq -e '.blurred_bytes_max == .open_intents * .intent_bytes' >/dev/null ||
      fail "blurred_bytes_max: $(era status --json "$T/mnt")"
  else
    assert_eq null "$(status_of "$T/mnt" open_intents)" "open_intents with $options"
  fi
  umount_image "$T/mnt"
done <<END
defaults $((4 * M)) $((8192 * M))
intent=off 0 null
intent=1M $M $((8192 * M))
intent=1500K $M $((8192 * M))
intent=4K $BLOCK $((8192 * M))
intent=1G $((256 * M)) $((8192 * M))
intent=1M,intent_max=unlimited $M unlimited
intent=1M,intent_max=5M $M $((5 * M))
END

say "bad values: refused, and nothing is touched"
for value in intent=4095 intent=none intent= intent_max=0 intent_max=off intent_max=1T1 intent_max=2M,intent=4M; do
  refused "$T" 2 "option ${value%%=*}: .*see eraimgfs --help" "$ERAIMGFS" "$T/disk.img" "$T/mnt" -o "$value"
done

say "few commits where there were many"
commits_of() { # OPTIONS
  mount_image "$T/disk.img" "$T/mnt" -o "$1"
  dd if=/dev/zero of="$file" bs="$BLOCK" count=$((64 * M / BLOCK)) conv=notrunc oflag=direct status=none
  commits=$(status_of "$T/mnt" commits)
  umount_image "$T/mnt"
}
commits_of intent=off
many=$commits
commits_of defaults
blocks=$((64 * M / BLOCK))
[ "$many" -ge $((blocks / 2)) ] || fail "$many commits for $blocks blocks, one after the other, with intent=off"
[ "$commits" -le $((blocks / 32)) ] || fail "$commits commits for $blocks blocks with intents, $many without"

say "kill -9: feared before the recovery, exact after it"
mount_image "$T/disk.img" "$T/mnt"
point=$(era checkpoint --cursor "$T/mnt")
put 3 4 200 1023
assert_eq true "$(status_of "$T/mnt" exact_after_kill)" "exact_after_kill"
era since "$point" --format json --require-exact "$T/mnt" >"$T/live"
assert_eq "true 3 4 200 1023 " "$(jq -r .exact "$T/live") $(listed extents <"$T/live") $(listed conservative <"$T/live")" "live"
era snapshot -o "$T/snap" "$T/mnt"
era dump "$T/mnt" >"$T/live.xml"
assert_eq "3 4 200 1023" "$(since "${point#*:}" "$T/snap")" "a snapshot of a live instance"
era dump "$T/snap" | cmp - "$T/live.xml" || fail "the dump of a live instance is not that of its snapshot"
kill9_daemon "$T/mnt"
era since "$point" --format json "$T/disk.img" >"$T/dead"
assert_eq false "$(jq .exact "$T/dead")" "exact before the recovery"
listed extents <"$T/dead" | in_list 3 4 200 1023
[ "$(jq '.conservative | length' "$T/dead")" -gt 0 ] || fail "nothing is conservative: $(cat "$T/dead")"
listed extents <"$T/dead" | in_list $(listed conservative <"$T/dead")
refused "$T" 4 "feared" era since "$point" --require-exact "$T/disk.img"
mount_image "$T/disk.img" "$T/mnt"
era since "$point" --format json --require-exact "$T/mnt" >"$T/after"
assert_eq "true 3 4 200 1023 " "$(jq -r .exact "$T/after") $(listed extents <"$T/after") $(listed conservative <"$T/after")" "recovered"

say "without the run folder's file: covered, and said, until a later point is asked for"
point=$(era checkpoint --cursor "$T/mnt")
put 77 500
kill9_daemon "$T/mnt"
find "$ERAIMGFS_RUN_DIR" -type f -delete
mount_image "$T/disk.img" "$T/mnt"
era since "$point" --format json "$T/mnt" >"$T/after"
assert_eq false "$(jq .exact "$T/after")" "exact"
listed extents <"$T/after" | in_list 77 500
expect_fail 4 "feared" era since "$point" --require-exact "$T/mnt"
later=$(era checkpoint --cursor "$T/mnt")
put 9
era since "$later" --format json --require-exact "$T/mnt" >"$T/after"
assert_eq "true 9" "$(jq -r .exact "$T/after") $(listed extents <"$T/after")" "since a later era"
umount_image "$T/mnt"
assert_eq false "$(era since "$point" --format json "$T/disk.img" | jq .exact)" "at rest it is known still"
assert_eq true "$(era since "$later" --format json "$T/disk.img" | jq .exact)" "and what is exact"

say "a power loss blurs no more than intent_max"
mount_image "$T/disk.img" "$T/mnt" -o intent=1M,intent_max=2M
point=$(era checkpoint --cursor "$T/mnt")
put 0 100 200 300 400 500 600 700 800 900
[ "$(status_of "$T/mnt" open_intents)" -le 2 ] || fail "$(status_of "$T/mnt" open_intents) intents are open"
kill9_daemon "$T/mnt"
find "$ERAIMGFS_RUN_DIR" -type f -delete
era since "$point" --format json "$T/disk.img" >"$T/after"
listed extents <"$T/after" | in_list 0 100 200 300 400 500 600 700 800 900
nr=$(listed conservative <"$T/after" | wc -w)
[ "$nr" -gt 0 ] && [ "$nr" -le $((2 * M / BLOCK)) ] || fail "$nr blocks are conservative"

say "intents that nobody needs go by themselves"
mount_image "$T/disk.img" "$T/mnt"
put 42
wait_until 60 no_open_intents || fail "$(status_of "$T/mnt" open_intents) intents are open after a minute"
point=$(status_of "$T/mnt" current_era)
kill9_daemon "$T/mnt"
era since "$point" --require-exact "$T/disk.img" >/dev/null
assert_eq 42 "$(since "$point" "$T/disk.img")" "since, by the database alone"
era check "$T/disk.img" >/dev/null
