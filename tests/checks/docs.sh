#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# docs.sh ERAIMGFS ERA-CLI DOC-FOLDER: each option that --help prints stands in the man page, and the other way round.
set -euo pipefail
eraimgfs=$1 era_cli=$2 doc=$3
status=0
complain() {
  echo "docs: $*"
  status=1
}

# The words that a help defines: the first column of its indented lines. "-o, --output FILE" gives -o and --output,
# "metadata=PATH" gives metadata.
help_words() {
  sed -n 's/^ \{2,6\}\([^ ].*\)/\1/p' | sed 's/   *.*//' | grep -oE '(^|, )-{0,2}[A-Za-z][A-Za-z_-]*' | sed 's/^, //' | sort -u
}
# The same for a page: the first words of the lines that define, in the sections on options and commands, but for the
# options that mount(8) has for every file system.
page_words() {
  awk '/^# / { on = /OPTIONS|COMMANDS/ } on && /^\*/' "$1" | grep -oE '^\*-{0,2}[A-Za-z][A-Za-z_-]*(\*, \*-{1,2}[A-Za-z-]*)?' |
    grep -oE '[A-Za-z_-]+' | grep -vxE 'rw|auto|x-' | sort -u
}
# compare PAGE HELP
compare() {
  local page=$1 word
  while read -r word; do
    grep -qE -e "\*$word([=*, ]|\$)" "$page" || complain "${page##*/} lacks $word, which --help has"
  done < <(help_words <<<"$2")
  while read -r word; do
    grep -qE -e "(^|[ ,])$word([=, ]|\$)" <<<"$2" || complain "--help lacks $word, which ${page##*/} has"
  done < <(page_words "$page")
}

for page in "$doc"/eraimgfs.8.scd "$doc"/era-cli.8.scd; do
  [ -f "$page" ] || complain "$page is missing"
done
[ "$status" = 0 ] || exit "$status"

compare "$doc/eraimgfs.8.scd" "$("$eraimgfs" --help)"
help=$("$era_cli" --help)
for command in $(sed -n 's/^  \([a-z]*\)   *.*/\1/p' <<<"$help"); do
  help+=$'\n'$("$era_cli" "$command" --help)
done
compare "$doc/era-cli.8.scd" "$help"
exit "$status"
