#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What the kernel recorded: era_dump, our restore, and our answers are era_invalidate's.
. "${0%/*}/tools.sh" || exit 1

# with_blocks: a dump but for the writesets in which no block is set.
with_blocks() {
  awk '/<writeset / { held = ""; holds = 1; any = 0 }
    holds { held = held $0 "\n"; any = any || /"true"/ }
    !holds { print }
    /<\/writeset>/ { if (any) printf "%s", held; holds = 0 }'
}

say "dumps of kernel metadata: restored, the logical dump is era_dump's, byte by byte"
for name in g1-8-removed c1 w1 c1-aftercrash; do
  for form in dump logical; do
    gunzip -c "$golden/$name.$form.xml.gz" >"$T/in.xml"
    rm -f "$T/db"
    restore "$T/in.xml" "$T/db"
    era check "$T/db"
    era dump --logical "$T/db" | no_uuid >"$T/out.xml"
    gunzip -c "$golden/$name.logical.xml.gz" | cmp - "$T/out.xml" || fail "$name.$form"
    # A writeset without blocks is no row of ours: era_dump writes it out, we do not.
    era dump "$T/db" | no_uuid >"$T/out.xml"
    with_blocks <"$T/in.xml" | cmp - "$T/out.xml" || fail "$name.$form: dump"
  done
done
for name in r r2 r3; do
  gunzip -c "$golden/$name-after.logical.xml.gz" >"$T/in.xml"
  rm -f "$T/db"
  restore "$T/in.xml" "$T/db"
  era dump --logical "$T/db" | no_uuid | cmp - "$T/in.xml" || fail "$name"
done

say "since: what era_invalidate said of the same metadata"
gunzip -c "$golden/g1-8-removed.dump.xml.gz" >"$T/in.xml"
rm -f "$T/db"
restore "$T/in.xml" "$T/db"
now=$(status_of "$T/db" current_era)
for n in $(seq 0 "$now"); do
  assert_eq "$(as_xml <"$golden/g1-8-removed.since$n.xml")" "$(our_since "$n" "$T/db")" "g1-8-removed since $n"
done
assert_eq "<blocks></blocks>" "$(as_xml <"$golden/g1-8-removed.since$((now + 1)).xml")" "an era that has not begun, by the tool"
expect_fail 5 "has not begun" era since $((now + 1)) "$T/db"

say "metadata devices: era_dump into our restore"
for name in g1-6-snap-held c1-crash; do
  gunzip -c "$golden/$name.meta.img.gz" >"$D/meta"
  era_dump "$D/meta" >"$T/in.xml"
  rm -f "$T/db"
  era restore -i - -o "$T/db" <"$T/in.xml" 2>/dev/null
  for n in $(seq 0 "$(status_of "$T/db" current_era)"); do
    assert_eq "$(tool_since "$n" "$D/meta")" "$(our_since "$n" "$T/db")" "$name since $n"
  done
done

say "era_dump leaves the current writeset out: what was written in it before a power cut is missing from its XML"
assert_eq 2 "$(status_of "$T/db" current_era)" "c1-crash"
assert_eq "<blocks></blocks>" "$(our_since 2 "$T/db")" "blocks 7, 9 and 20 were written"
gunzip -c "$golden/c1.dump.xml.gz" >"$T/in.xml"
rm -f "$T/db"
restore "$T/in.xml" "$T/db"
assert_eq '<blocks><block block="7"></block><block block="9"></block><block block="11"></block><block block="20"></block></blocks>' \
  "$(our_since 2 "$T/db")" "they are there once the kernel has recovered, and 11, which was written then"

say "XML by hand: both take it, to the same answers, or both refuse it"
for f in "$golden"/xml/*.xml; do
  rm -f "$T/db"
  metadata "$D/meta"
  case ${f##*/} in
  accepted-*)
    era_restore -i "$f" -o "$D/meta" >/dev/null
    restore "$f" "$T/db"
    for n in 0 1 2 3 4; do
      assert_eq "$(tool_since "$n" "$D/meta")" "$(our_since "$n" "$T/db")" "${f##*/} since $n"
    done
    ;;
  refused-*)
    ! era_restore -i "$f" -o "$D/meta" >/dev/null 2>&1 || fail "era_restore took ${f##*/}"
    refused "$T" 1 "${f##*/}: line" era restore -i "$f" -o "$T/db"
    ;;
  esac
done

say "an era that has not begun: era_check lets it pass, restore does not"
cat >"$T/in.xml" <<'XML'
<superblock uuid="" block_size="128" nr_blocks="16" current_era="4">
  <writeset era="9" nr_bits="16">
    <bit block="2" value="true"/>
  </writeset>
  <era_array>
  </era_array>
</superblock>
XML
metadata "$D/meta"
era_restore -i "$T/in.xml" -o "$D/meta" >/dev/null
era_check "$D/meta" >/dev/null
refused "$T" 1 "era is '9'" era restore -i "$T/in.xml" -o "$T/db"
