#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Includes point one way, packages have one user each, every source names its licence and is formatted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
status=0
complain() {
  echo "layers: $*"
  status=1
}

# What a layer may include besides itself.
declare -A knows=(
  [base]="" [image]="base" [meta]="base" [core]="base image meta" [format]="base" [control]="base"
  [daemon]="base image core control format" [cli]="base meta format control"
)
for layer in "${!knows[@]}"; do
  allowed=" $layer ${knows[$layer]} "
  while IFS=: read -r file line include; do
    other=$(sed 's/.*"\(.*\)\/.*/\1/' <<<"$include")
    [[ $allowed == *" $other "* ]] || complain "$file:$line: $layer may not include $other"
  done < <(grep -rnE '^#include "[^"]*/' "src/$layer" "include/$layer" 2>/dev/null || :)
done
for folder in src/* include/*; do
  [ -n "${knows[${folder#*/}]+known}" ] || complain "$folder: no such layer"
done

# sole_user HEADER FOLDER
sole_user() {
  local found
  found=$(grep -rnE "^#include <$1" src include | grep -v "^$2/" || :)
  [ -z "$found" ] || complain "only $2 may include <$1>: $found"
  grep -rqE "^#include <$1" "$2" || complain "$2 does not include <$1>: is this check out of date?"
}
sole_user 'sqlite3\.h>' src/meta
sole_user '(linux/)?fuse' src/daemon
sole_user 'expat\.h>' src/format

while read -r file; do
  head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || complain "$file: no SPDX line"
done < <(find src include tests contrib -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -name meson.build)

mapfile -t sources < <(find src include tests -name '*.[ch]')
clang-format --dry-run -Werror "${sources[@]}" || complain "run clang-format -i on these"
exit "$status"
