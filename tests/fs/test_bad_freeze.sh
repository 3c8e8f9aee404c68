#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Freezes and thaws that cannot be, and clients that die over them: a distinct error each, and the gate is never left closed.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v python3

era() { timeout -k 1 30 "$ERA_CLI" "$@"; }

for name in a b; do
  new_image "$T/$name.img" $M
  mkdir "$T/$name"
  mount_image "$T/$name.img" "$T/$name"
done
mkdir "$T/ro"
# goes_on NAME: it runs, and a write gets through.
goes_on() {
  assert_eq running "$(status_of "$T/$1" state)" "state of $1"
  start_write "$T/$1/$1.img" 9 66
  end_write 9 4096
}
# expect_usage PATTERN CMD...
expect_usage() {
  expect_fail 2 "$@"
  goes_on a
}

say "words that are no timeout and no era"
for bad in -1 x "" 1.5 0x 1e3 " " 18446744073709551616 9999999999999999999999; do
  expect_usage "'$bad' is no timeout" era freeze --timeout "$bad" "$T/a"
  expect_usage "'$bad'" era thaw --era "$bad" "$T/a"
done
expect_usage "'31622401' is no timeout" era freeze --timeout 31622401 "$T/a" # a year and a second
expect_usage "era" era thaw --era 0 "$T/a"
expect_usage "one TARGET" era thaw --era 1 "$T/a" "$T/b"
expect_usage "nonsense" era freeze --nonsense "$T/a"
expect_usage "nonsense" era thaw --nonsense "$T/a"
expect_usage "timeout" era freeze "$T/a" --timeout
expect_usage "clone" era freeze --clone "$T/clone" "$T/a" "$T/b"
expect_usage "takeover.*ro" "$ERAIMGFS" "$T/a.img" "$T/ro" -o takeover,ro
for bad in '"freeze", "timeout": "x"' '"freeze", "timeout": -1' '"freeze", "timeout": 1.5' '"freeze", "timeout": 31622401' \
  '"thaw", "era": "x"' '"thaw", "era": 0' '"thaw", "era": -1' '"thaw", "era": []'; do
  assert_eq "false 2" "$(control "$T/a" "{\"request\": $bad}" | jq -r '"\(.ok) \(.exit)"')" "request $bad"
  # Also where it comes with the gate closed.
  assert_eq false "$(control "$T/a" '{"request": "gate"}' "{\"request\": $bad}" | tail -n 1 | jq .ok)" "gate, then $bad"
  goes_on a
done

say "nothing to thaw, nothing to freeze"
expect_fail 1 "$T/a: is not frozen" era thaw "$T/a"
expect_fail 1 "$T/a: is not frozen.*answered 1 no longer holds" era thaw --era 1 "$T/a"
expect_fail 1 "$T/none" era freeze "$T/none"
expect_fail 1 "$T/none" era freeze "$T/a" "$T/none"
goes_on a
umount_image "$T/b"
expect_fail 1 "$T/b.img: is not mounted" era freeze "$T/b.img"
expect_fail 1 "$T/b.img: is not mounted" era freeze "$T/a" "$T/b.img"
expect_fail 1 "$T/b.img: is not mounted" era thaw "$T/b.img"
expect_fail 1 "$T/b.img.era: is not mounted" era freeze "$T/b.img.era"
goes_on a
mount_image "$T/b.img" "$T/ro" -o ro
expect_fail 1 "read-only" era freeze "$T/ro"
expect_fail 1 "read-only" era freeze "$T/a" "$T/ro"
expect_fail 1 "read-only" era thaw "$T/ro"
goes_on a
umount_image "$T/ro"
mount_image "$T/b.img" "$T/b"

say "twice"
frozen=$(era freeze --timeout 0 "$T/a")
expect_fail 3 "$T/a.*is frozen" era freeze "$T/a"
expect_fail 3 "$T/a.*is frozen" era freeze --timeout 1 "$T/a" # is not this one's deadline
expect_fail 3 "another freeze.*answered $frozen.*answered $((frozen + 5)) no longer holds" era thaw --era $((frozen + 5)) "$T/a"
assert_eq "frozen null" "$(status_of "$T/a" state) $(status_of "$T/a" thaw_in_s)" "state and deadline"
say "thaw of two, one of which runs: the other is thawed, and it is an error"
expect_fail 1 "$T/b.*not frozen" era thaw "$T/a" "$T/b"
goes_on a

say "an answer that cannot be told: nothing stays frozen"
expect_full() {
  local status=0
  "$@" >/dev/full 2>"$T/.err" || status=$?
  assert_eq 1 "$status" "exit of $* with a full disk"
  [ -s "$T/.err" ] || fail "without a word: $*"
}
expect_full era freeze --timeout 0 "$T/a"
goes_on a
expect_full era freeze --timeout 0 "$T/a" "$T/b"
goes_on a
goes_on b

# The gates are closed in the order of the UUIDs: who holds the second one's gate keeps a client waiting with the first one's.
first=a second=b
[[ $(status_of "$T/a" uuid) < $(status_of "$T/b" uuid) ]] || first=b second=a
for signal in KILL TERM INT; do
  say "SIG$signal while it has closed a gate"
  before=$(status_of "$T/$first" current_era)
  close_gate "$T/$second"
  # SIGINT is ignored by what a shell starts in the background.
  python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$ERA_CLI" freeze "$T/a" "$T/b" >"$T/out" 2>"$T/err" &
  client=$!
  start_write "$T/$first/$first.img" 4 67
  # It may have come before the gate was closed: then one more.
  until parked_at_least "$T/$first" 1; do
    ! is_gone "$client" || fail "the client did not wait: $(cat "$T/err")"
    [ ! -s "$T/write.4" ] || start_write "$T/$first/$first.img" 4 67
  done
  kill "-$signal" "$client"
  wait "$client" 2>/dev/null || :
  end_write 4 4096
  open_gate
  goes_on "$first"
  goes_on "$second"
  assert_eq "" "$(cat "$T/out")" "the answer of a client that was killed"
  assert_eq "$before" "$(status_of "$T/$first" current_era)" "no era has ended"
done

say "a reader keeps the -wal from being emptied: the freeze fails, and says so"
mkfifo "$T/reader"
python3 -c '
import signal, sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
print("ready", flush=True)
signal.pause()' "$T/a.img.era" >"$T/reader" &
reader=$!
stop_reader() {
  [ -z "$reader" ] || kill -9 "$reader"
  wait "$reader" 2>/dev/null || :
  reader=
}
cleanup_fn stop_reader
read -r _ <"$T/reader"
goes_on a # a frame that the reader does not see
era checkpoint "$T/a" >/dev/null
expect_fail 1 "$T/a: .*reader" era freeze "$T/a"
goes_on a
expect_fail 1 "$T/a: .*reader" era freeze "$T/b" "$T/a"
goes_on a
goes_on b
# The same where the reader comes after the preparations.
reply=$(control "$T/a" '{"request": "gate"}' '{"request": "freeze"}' | tail -n 1)
assert_eq "false 1" "$(jq -r '"\(.ok) \(.exit)"' <<<"$reply")" "freeze beside a reader: $reply"
grep -q reader <<<"$reply" || fail "freeze beside a reader: $reply"
goes_on a
say "SIGKILL while it prepares"
"$ERA_CLI" freeze "$T/a" >"$T/out" 2>"$T/err" &
client=$!
goes_on a
! is_gone "$client" || fail "the client did not wait: $(cat "$T/err")"
kill -9 "$client"
wait "$client" 2>/dev/null || :
goes_on a
assert_eq "" "$(cat "$T/out")" "the answer of a client that was killed"
# What it had asked for still waits for the reader; nothing is held by it.
stop_reader
frozen=$(era freeze "$T/a")
assert_eq $((frozen + 1)) "$(era thaw --era "$frozen" "$T/a")" "thaw"
goes_on a

say "a client that is gone after its freeze: the deadline thaws"
control "$T/a" '{"request": "gate"}' '{"request": "freeze", "timeout": 1}' >"$T/out"
frozen=$(tail -n 1 "$T/out" | jq .era)
start_write "$T/a/a.img" 5 66
end_write 5 4096
wait_until 10 has_state "$T/a" running || fail "state: $(status_of "$T/a" state)"
expect_fail 1 "answered $frozen no longer holds" era thaw --era "$frozen" "$T/a"
goes_on a
umount_image "$T/a"
umount_image "$T/b"
