#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# ext4 on a tracked image, with a writer on it: frozen together with the image, its copies are whole; and whoever dies in the
# middle, it is thawed.
. "${0%/*}/lib.sh" || exit 1
. "${0%/*}/fsfreeze.sh"
. "${0%/*}/fsfreeze_cases.sh"
requires_fuse
requires_loop
requires command -v fsfreeze mkfs.ext4 mkfs.xfs python3 strace

kind=ext4
new_store xfs 2048*M -m reflink=1
new_fs a "$kind" 128*M
dir=$T/fs-a target=$T/a file=$T/a/a.img
start_writer "$dir"

case_checkpoint_clone
case_freeze_copy
case_plain
case_deadline
case_killed_client
case_killed_guard
case_killed_daemon
