#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# 2^24 blocks through dump and restore, in memory that has nothing to do with their number: eras alone are 128 MiB.
. "${0%/*}/../fs/lib.sh" || exit 1

limit_kib=49152
bounded() { (
  ulimit -v $limit_kib
  exec "$ERA_CLI" "$@"
); }
# Sanitizers map more than there is.
bounded --version >/dev/null 2>&1 || skip "needs an era-cli that runs in $limit_kib KiB"

nr=$((1 << 24))
{
  echo "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"$nr\" current_era=\"4\">"
  echo "<writeset era=\"3\" nr_bits=\"$nr\"><marked block_begin=\"1\" len=\"$((nr - 2))\"/></writeset>"
  echo "<era_array><era block=\"0\" era=\"1\"/><era block=\"9000000\" era=\"2\"/></era_array></superblock>"
} >"$T/in.xml"

say "restore of a run of all blocks"
bounded restore -i "$T/in.xml" -o "$T/db" 2>/dev/null
say "dump, every block written out, into restore"
bounded dump "$T/db" | bounded restore -i - -o "$T/db2" 2>/dev/null
say "the same with the writeset folded in"
bounded dump --logical "$T/db2" | bounded restore -i - -o "$T/db3" 2>/dev/null
for db in db db2 db3; do
  bounded check "$T/$db"
  assert_eq "$((nr - 1))	$(((nr - 1) * 4096))" "$(era since 1 --count "$T/$db")" "$db since 1"
  assert_eq "$((nr - 2))	$(((nr - 2) * 4096))" "$(era since 2 --count "$T/$db")" "$db since 2"
  assert_eq "0	0" "$(era since 4 --count "$T/$db")" "$db since 4"
done

say "it does notice: a reader that takes all in at once does not fit"
! (ulimit -v $limit_kib && exec python3 -c 'bytearray(8 << 24)') 2>/dev/null || fail "the limit limits nothing"
