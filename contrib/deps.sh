#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what building and testing eraimgfs needs on Debian 12. Run as root, or as a user who may use sudo.
set -euo pipefail

packages=(
  gcc clang libclang-rt-14-dev meson ninja-build pkg-config git            # build, and the sanitizer builds
  libfuse3-dev fuse3 libsqlite3-dev libjansson-dev libexpat1-dev libxxhash-dev uuid-dev scdoc # what eraimgfs is made of
  check valgrind clang-format clang-tidy                                   # unit tests and checks
  sqlite3 e2fsprogs xfsprogs mount util-linux fdisk fio jq libxml2-utils   # real parts that the tests use
  btrfs-progs qemu-guest-agent                                             # freezing and cloning
  thin-provisioning-tools                                                  # dm-era's own tools, as judges
  man-db python3 attr acl procps psmisc strace libaio-dev
  qemu-system-common qemu-utils                                            # the bench: qemu-storage-daemon, qemu-img
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ "${#missing[@]}" -gt 0 ] || { echo "deps: everything is installed"; exit 0; }

sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "deps: run as root to install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
"${sudo[@]}" apt-get update -q
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
