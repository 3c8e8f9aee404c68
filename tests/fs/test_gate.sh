#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The gate that a client of the control socket holds closed: any request but the checkpoint opens it, and is an error.
. "${0%/*}/lib.sh" || exit 1
requires_root
requires_fuse
requires command -v python3

new_image "$T/a.img" $M
mkdir "$T/a"
mount_image "$T/a.img" "$T/a"
socket=$(era list --json | jq -r '.[].socket')

# A client that sends the lines of one pipe and prints the answers into another.
mkfifo "$T/requests" "$T/replies"
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
replies = s.makefile()
for line in sys.stdin:
    s.sendall(line.encode())
    print(replies.readline(), end="", flush=True)' "$socket" <"$T/requests" >"$T/replies" &
gate_client=$! # sweep() ends it
exec 5>"$T/requests" 6<"$T/replies"
ask() { # JSON: its answer in $reply
  echo "$1" >&5
  read -r -t 60 reply <&6 || fail "no answer to $1"
}

for request in query status gate label-add label-remove nonsense; do
  say "gate, then $request"
  was=$(status_of "$T/a" current_era)
  ask '{"request": "gate"}'
  assert_eq true "$(jq .ok <<<"$reply")" "gate"
  ops write "$T/a/a.img" $((BLOCK * 3)) 4096 66 >"$T/out" &
  writer=$!
  wait_until 10 parked_at_least "$T/a" 1 || fail "the gate is not closed"
  ask "{\"request\": \"$request\", \"name\": \"x\"}"
  assert_eq false "$(jq .ok <<<"$reply")" "$request with the gate closed: $reply"
  grep -q gate <<<"$reply" || fail "the answer does not speak of the gate: $reply"
  wait_gone "$writer" 60 || fail "the write still waits"
  wait "$writer" || fail "the write failed"
  assert_eq 4096 "$(cat "$T/out")" "write"
  assert_eq "$was" "$(status_of "$T/a" current_era)" "no era was begun"
  assert_eq "" "$(era label list "$T/a")" "labels"
  # The same connection goes on as any other.
  ask '{"request": "query"}'
  assert_eq true "$(jq .ok <<<"$reply")" "query"
  ask '{"request": "checkpoint"}'
  assert_eq $((was + 1)) "$(jq .era <<<"$reply")" "checkpoint"
done

say "gate, then checkpoint"
ask '{"request": "gate"}'
ask '{"request": "checkpoint"}'
assert_eq $((was + 2)) "$(jq .era <<<"$reply")" "checkpoint"
assert_eq 4096 "$(ops write "$T/a/a.img" 0 4096 67)" "write"
exec 5>&- 6<&-
wait "$gate_client" || fail "the client"
gate_client=
umount_image "$T/a"
