# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by the tests against other people's tools, after the library of the mounted tests.
. "${0%/*}/../fs/lib.sh" || exit 1
golden=${0%/*}/golden

requires command -v xmllint
for tool in era_dump era_restore era_check era_invalidate; do
  command -v $tool >/dev/null || PATH=$PATH:/usr/sbin
  requires command -v $tool
done
# They open with O_DIRECT, which a tmpfs may not know.
D=$T
if [ "$(stat -f -c %T "$T")" = tmpfs ]; then
  D=$(mktemp -d /var/tmp/eraimgfs-test.XXXXXX)
  cleanup_fn rm -rf "$D"
fi
dd if=/dev/zero of="$D/direct" bs=4096 count=1 oflag=direct status=none 2>/dev/null || skip "needs O_DIRECT in $D"

# as_xml: stdin as canonical XML; tools and versions differ in spaces.
as_xml() { xmllint --c14n - | tr -d '\n' | sed 's/> *</></g'; }
# no_uuid: a dump without it; era_restore does not keep it.
no_uuid() { sed '1s/ uuid="[^"]*"/ uuid=""/'; }
# metadata FILE: room for the kernel's metadata.
metadata() { rm -f "$1" && truncate -s "${2:-4M}" "$1"; }
# tool_since N FILE, our_since N TARGET: the same question, the answers as XML.
tool_since() { era_invalidate --written-since "$1" "$2" | as_xml; }
our_since() { era since "$1" --format xml "$2" | as_xml; }
# restore XML DATABASE [OPTION...]
restore() { era restore -i "$1" -o "$2" "${@:3}" 2>"$T/restore.err" || fail "restore $1: $(cat "$T/restore.err")"; }
