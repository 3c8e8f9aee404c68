#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Handovers at random moments beside a model, see handover_rounds.py. ERAIMGFS_ROUNDS=1000 for a long run; ERAIMGFS_SEED
# repeats one.
# A disk's fsync would be most of a round, and kill -9 leaves the same behind without it.
[ "$(stat -f -c %T /dev/shm)" != tmpfs ] || export TMPDIR=/dev/shm
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v python3
# Without session files on a tmpfs answers are not exact.
[ "$(stat -f -c %T "$ERAIMGFS_RUN_DIR")" = tmpfs ] || skip "needs a tmpfs for the run folder"

rounds=${ERAIMGFS_ROUNDS:-100}
seed=${ERAIMGFS_SEED:-$RANDOM$RANDOM}
say "$rounds rounds, seed $seed"
mkdir "$T/rounds"
python3 "${0%/*}/handover_rounds.py" "$T/rounds" "$rounds" "$seed"

# Whoever was killed last has left its files for the next to clear away.
mkdir "$T/last"
mount_image "$T/rounds/disk.img" "$T/last"
umount_image "$T/last"
[ -z "$(ls "$ERAIMGFS_RUN_DIR")" ] || fail "left in the run folder: $(ls "$ERAIMGFS_RUN_DIR")"
