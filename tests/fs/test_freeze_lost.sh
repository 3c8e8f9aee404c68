#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Whoever asked for a freeze is gone before the answer, and there is no deadline: the instance thaws by itself.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v python3

era() { timeout -k 1 30 "$ERA_CLI" "$@"; }

new_image "$T/disk.img" $M
mkdir "$T/mnt"
mount_image "$T/disk.img" "$T/mnt"
file=$T/mnt/disk.img
mkfifo "$T/reader"

# A snapshot of the database that is older than the last commit: a freeze waits for its end.
start_reader() {
  python3 -c '
import signal, sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
print("ready", flush=True)
signal.pause()' "$T/disk.img.era" >"$T/reader" &
  reader=$!
  read -r _ <"$T/reader"
  assert_eq 4096 "$(ops write "$file" $((2 * BLOCK)) 4096 65)" "a write that the reader does not see"
  era checkpoint "$T/mnt" >/dev/null
}
stop_reader() {
  [ -z "${reader:-}" ] || kill -9 "$reader"
  wait "$reader" 2>/dev/null || :
  reader=
}
cleanup_fn stop_reader
# ask_and_leave REQUEST [peek]: the answer is not waited for; or only until it is there, and not read.
ask_and_leave() {
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
if sys.argv[3] == "peek":
    s.recv(1, socket.MSG_PEEK)' "$(era list --json | jq -r --arg m "$T/mnt" '.[] | select(.mountpoint == $m) | .socket')" "$1" "${2:-}"
}
has_ended_era() { [ "$(status_of "$T/mnt" current_era)" -gt "$1" ]; }

for round in {1..3}; do
  say "gone while the freeze waits for a reader ($round)"
  start_reader
  before=$(status_of "$T/mnt" current_era)
  ask_and_leave '{"request": "freeze", "timeout": 0}'
  assert_eq "$before running" "$(status_of "$T/mnt" current_era) $(status_of "$T/mnt" state)" "era and state, beside a reader"
  stop_reader
  wait_until 20 has_ended_era "$before" || fail "no freeze came"
  wait_until 20 has_state "$T/mnt" running || fail "nobody knows of the freeze, and it is $(status_of "$T/mnt" state)"
  start_write "$file" 4 67
  end_write 4 4096
  assert_eq "4" "$(since $((before + 1)) "$T/mnt")" "since"
done

say "gone with the answer unread"
before=$(status_of "$T/mnt" current_era)
ask_and_leave '{"request": "freeze", "timeout": 0}' peek
assert_eq $((before + 1)) "$(status_of "$T/mnt" current_era)" "the era after it"
wait_until 20 has_state "$T/mnt" running || fail "nobody knows of the freeze, and it is $(status_of "$T/mnt" state)"

say "asked for by one who stays, it stays frozen"
frozen=$(era freeze --timeout 0 "$T/mnt")
assert_eq frozen "$(status_of "$T/mnt" state)" "state"
assert_eq $((frozen + 1)) "$(era thaw --era "$frozen" "$T/mnt")" "thaw"
umount_image "$T/mnt"
era check "$T/disk.img" >"$T/out" || fail "check: $(cat "$T/out")"
