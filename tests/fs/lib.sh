# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by the tests of the mounted file system. Each test has a folder ($T) and a run folder of its own, so that tests
# may run side by side. A test ends at the first thing that is not as it should be; what it set up (mounts, loop devices,
# daemons) is taken down on every way out. Exit 0: passed; 77: skipped, with the reason; anything else: failed.
set -Eeuo pipefail
: "${ERAIMGFS:?the daemon}" "${ERA_CLI:?the client}" "${FS_TOOLS:?the folder with the compiled helpers of the tests}"
unset ERAIMGFS_TARGET

T=$(mktemp -d "${TMPDIR:-/tmp}/eraimgfs-test.XXXXXX")
# The run folder belongs on a tmpfs, as /run is on a whole system: session files live there.
if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] && [ -w /dev/shm ]; then
  ERAIMGFS_RUN_DIR=$(mktemp -d /dev/shm/eraimgfs-test.XXXXXX)
else
  ERAIMGFS_RUN_DIR=$T/run
  mkdir -m 0700 "$ERAIMGFS_RUN_DIR"
fi
export ERAIMGFS_RUN_DIR
# Daemons have no terminal: reports of the sanitizers go to files, and sweep() looks at them.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$T/sanitizer"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1:log_path=$T/sanitizer"
# Who ends with files still open has detached its mount, and does not let libfuse unmount what may be another's by then:
# the session's name of the mount point is never freed.
echo leak:fuse_session_mount >"$T/lsan.supp"
export LSAN_OPTIONS="${LSAN_OPTIONS:+$LSAN_OPTIONS:}suppressions=$T/lsan.supp:print_suppressions=0"
export TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS:}log_path=$T/sanitizer"

# shellcheck disable=SC2034 # for the tests
M=$((1024 * 1024))
BLOCK=65536 # the default block size

cleanups=()
# cleanup_fn CMD ARGS...: run it on the way out, last first.
cleanup_fn() { cleanups+=("$(printf '%q ' "$@")"); }

# Mount points, loop devices and daemons of this test: all are below $T or in its run folder.
sweep() {
  local dev back pid exe f i status=0
  [ -z "${gate_client:-}" ] || kill -9 "$gate_client"
  for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do eval "${cleanups[i]}"; done
  # First what may hold a mount, then the mounts, then the daemons that are left.
  awk -v t="$T/" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r f; do
    umount "$f" 2>/dev/null || umount -l "$f" 2>/dev/null || fusermount3 -u -z "$f" 2>/dev/null
  done
  if [ "$(id -u)" = 0 ]; then
    losetup -l -n -O NAME,BACK-FILE 2>/dev/null | while read -r dev back; do
      case $back in "$T"/*) losetup -d "$dev" ;; esac
    done
  fi
  for f in "$ERAIMGFS_RUN_DIR"/*.json; do
    [ -e "$f" ] || continue
    pid=$(jq -r .pid "$f")
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null)
    [ "${exe##*/}" = eraimgfs ] || continue
    wait_gone "$pid" 10 || { kill -9 "$pid"; wait_gone "$pid" 10; }
  done
  for f in "$T"/sanitizer.*; do
    [ -s "$f" ] || continue
    echo "FAIL: a sanitizer reported:"
    cat "$f"
    status=1
  done
  rm -rf --one-file-system "$T" "$ERAIMGFS_RUN_DIR"
  return "$status"
}
on_exit() {
  local status=$?
  trap - EXIT ERR
  trap '' INT TERM
  set +e
  sweep || [ "$status" != 0 ] || status=1
  exit "$status"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'echo "FAIL: ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR

skip() {
  echo "SKIP: $*"
  exit 77
}
fail() {
  echo "FAIL: $* (line ${BASH_LINENO[*]:0:3})" >&2
  exit 1
}
# say WHAT: names the part of the test that follows, in its log.
say() { echo "- $*"; }

# requires CMD ARGS...: what the test cannot do without.
requires() { "$@" >/dev/null 2>&1 || skip "needs: $*"; }
requires_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
requires_fuse() { [ -c /dev/fuse ] || skip "needs /dev/fuse"; }
requires_loop() {
  requires_root
  [ -c /dev/loop-control ] || skip "needs loop devices"
}

# assert_eq EXPECTED ACTUAL WHAT
assert_eq() { [ "$1" = "$2" ] || fail "$3: expected '$1', got '$2'"; }
# assert_same FILE FILE WHAT
assert_same() { cmp -s "$1" "$2" || fail "$3: $(cmp "$1" "$2" 2>&1 || :)"; }

# expect_fail CODE PATTERN CMD...: exits with CODE, prints nothing but one line on stderr, which has PATTERN (grep -E).
expect_fail() {
  local code=$1 pattern=$2 status=0
  shift 2
  "$@" >"$T/.out" 2>"$T/.err" </dev/null || status=$?
  [ "$status" = "$code" ] || fail "exit $status, not $code: $* ($(cat "$T/.err"))"
  [ ! -s "$T/.out" ] || fail "printed an answer beside its failure: $*: $(head -c 200 "$T/.out")"
  [ "$(wc -l <"$T/.err")" = 1 ] || fail "not one line on stderr: $*: $(cat "$T/.err")"
  grep -qE -e "$pattern" "$T/.err" || fail "stderr has no '$pattern': $*: $(cat "$T/.err")"
  cat "$T/.err"
}

# fingerprint FOLDER: all that a refused call must leave as it was. Lock files, SQLite's -shm and an empty -wal hold nothing.
fingerprint() {
  local of_interest=(! -name '.*' ! -name '*-shm' ! -name '*.lock' ! \( -name '*-wal' -size 0 \))
  find "$1" -xdev -mindepth 1 "${of_interest[@]}" \( -type d -printf '%P %y %m %U\n' -o -printf '%P %y %s %m %U %T@ %l\n' \) | sort
  find "$1" -xdev -type f "${of_interest[@]}" -size -1048576k -exec sha256sum {} + | sort
}
# refused FOLDER CODE PATTERN CMD...: fails so, and leaves no trace in FOLDER.
refused() {
  local folder=$1 before after
  shift
  before=$(fingerprint "$folder")
  expect_fail "$@"
  after=$(fingerprint "$folder")
  [ "$before" = "$after" ] || fail "a refused call left traces: ${*:3}: $(diff <(echo "$before") <(echo "$after") || :)"
}

# wait_until SECONDS CMD...: until it succeeds.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.02
  done
}
is_gone() { [ ! -e "/proc/$1" ] || [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" = Z ]; }
# wait_gone PID [SECONDS]
wait_gone() { wait_until "${2:-20}" is_gone "$1"; }

era() { "$ERA_CLI" "$@"; }
ops() { "$FS_TOOLS/ops" "$@"; }
# status_of TARGET FIELD
status_of() { era status --json "$1" | jq -r --arg f "$2" '.[$f]'; }
is_mounted() { awk -v m="$1" '$5 == m { found = 1 } END { exit !found }' /proc/self/mountinfo; }

# new_image FILE SIZE: no two blocks alike.
new_image() { head -c "$(($2))" /dev/urandom >"$1"; }

# mount_image IMAGE MOUNTPOINT [OPTION...]
mount_image() {
  local image=$1 mountpoint=$2
  shift 2
  "$ERAIMGFS" "$image" "$mountpoint" "$@" 2>"$T/mount.err" || fail "mount $image $mountpoint $*: $(cat "$T/mount.err")"
  is_mounted "$mountpoint" || fail "$mountpoint: the command returned before it was mounted"
}
# umount_image MOUNTPOINT: and waits until the daemon has stopped.
umount_image() {
  local pid
  pid=$(status_of "$1" pid)
  umount "$1"
  wait_gone "$pid" || fail "the daemon is there 20 s after its unmount"
}
# kill9_daemon MOUNTPOINT: the daemon dies, the dead mount is taken away.
kill9_daemon() {
  local pid
  pid=$(status_of "$1" pid)
  kill -9 "$pid"
  wait_gone "$pid"
  umount "$1"
}

# close_gate TARGET: a client closes the gate of its writers and says nothing more; open_gate: that client dies. The gate
# opens by itself some seconds later.
close_gate() {
  local reply
  [ -p "$T/gate" ] || mkfifo "$T/gate"
  python3 -c '
import signal, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"{\"request\": \"gate\"}\n")
print(s.makefile().readline(), end="", flush=True)
signal.pause()' "$(era list --json | jq -r --arg m "$1" '.[] | select(.mountpoint == $m) | .socket')" >"$T/gate" &
  gate_client=$!
  read -r reply <"$T/gate"
  [ "$(jq .ok <<<"$reply")" = true ] || fail "gate: $reply"
}
open_gate() {
  kill -9 "$gate_client"
  wait "$gate_client" 2>/dev/null || :
  gate_client=
}
# parked_at_least TARGET N: so many requests wait in it.
parked_at_least() { [ "$(status_of "$1" parked_requests)" -ge "$2" ]; }

# control MOUNTPOINT JSON...: these requests on one connection to the control socket; the answers, a line each.
control() {
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
replies = s.makefile()
for request in sys.argv[2:]:
    s.sendall(request.encode() + b"\n")
    print(replies.readline(), end="", flush=True)' "$(era list --json | jq -r --arg m "$1" '.[] | select(.mountpoint == $m) | .socket')" "${@:2}"
}
# has_state TARGET STATE
has_state() { [ "$(status_of "$1" state)" = "$2" ]; }
# bytes_at_rest IMAGE: hashes of the database and of its witness while nobody has it; all is in them, and nothing in a -wal.
bytes_at_rest() {
  [ ! -s "$1.era-wal" ] || fail "$1.era-wal has $(stat -c %s "$1.era-wal") bytes"
  sha256sum <"$1.era"
  sha256sum <"$1.era.witness"
}
# start_write FILE BLOCK BYTE: 4 KiB at the start of a block, in the background; its pid in $writer.
start_write() {
  "$FS_TOOLS/ops" write "$1" $(($2 * BLOCK)) 4096 "$3" >"$T/write.$2" &
  # shellcheck disable=SC2034 # for the tests
  writer=$!
}
# end_write BLOCK EXPECTED [SECONDS]: of the one writer of this block; what it printed in $outcome.
end_write() {
  wait_until "${3:-20}" test -s "$T/write.$1" || fail "the write to block $1 still waits"
  outcome=$(cat "$T/write.$1")
  [[ $outcome =~ ^($2)$ ]] || fail "the write to block $1: $outcome, not $2"
  rm "$T/write.$1"
}

# attach FILE [LOSETUP OPTION...]: a loop device, its name in $LOOP; it goes when the test ends.
attach() {
  local file=$1
  shift
  LOOP=$(losetup -f --show "$@" "$file")
  cleanup_fn detach "$LOOP" "$file"
}
# detach LOOP FILE: if it is still FILE's.
detach() {
  [ "$(losetup -n -O BACK-FILE "$1" 2>/dev/null)" != "$2" ] || losetup -d "$1"
}

# blocks_in [BLOCK SIZE]: block numbers of the extents on stdin, one a line.
blocks_in() { awk -v b="${1:-$BLOCK}" '{ for (i = int($1 / b); i * b < $1 + $2; i++) print i }'; }
# since POINT TARGET [BLOCK SIZE]: the block numbers, on one line.
since() {
  era since "$1" "$2" >"$T/.since"
  blocks_in "${3:-$BLOCK}" <"$T/.since" | paste -sd ' '
}
# changed_blocks FILE FILE [BLOCK SIZE]: the blocks that differ, one a line.
changed_blocks() {
  { cmp -l "$1" "$2" || [ $? = 1 ]; } | awk -v b="${3:-$BLOCK}" '{ n = int(($1 - 1) / b) } n != last || NR == 1 { print n } { last = n }'
}
# assert_covers OLD NEW POINT TARGET [BLOCK SIZE]: every block that differs is in `since POINT`.
assert_covers() {
  local missing
  era since "$3" "$4" >"$T/.since"
  missing=$(comm -23 <(changed_blocks "$1" "$2" "${5:-$BLOCK}" | sort) <(blocks_in "${5:-$BLOCK}" <"$T/.since" | sort -u))
  [ -z "$missing" ] || fail "changed, but not in since $3: blocks $(echo "$missing" | sort -n | paste -sd ' ')"
}
# apply_extents FROM TO: copies the extents on stdin (offset, length) from one file to the other.
apply_extents() {
  local offset length
  while read -r offset length; do
    dd if="$1" of="$2" bs=1M iflag=skip_bytes,count_bytes oflag=seek_bytes skip="$offset" count="$length" seek="$offset" \
      conv=notrunc status=none
  done
}

# As an ordinary user: `as_user CMD...`, after become_user. Root becomes nobody; anybody else is ordinary already.
become_user() {
  AS_USER=()
  if [ "$(id -u)" = 0 ]; then
    requires command -v setpriv
    # Where udev does not run, the device has the kernel's mode; 0666 is what every distribution gives it.
    [ "$(stat -c %a /dev/fuse)" = 666 ] || chmod 0666 /dev/fuse
    AS_USER=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 0711 "$T"
    chown -R 65534:65534 "$ERAIMGFS_RUN_DIR"
    mkdir "$T/bin"
    install -m 0755 "$ERAIMGFS" "$ERA_CLI" "$FS_TOOLS"/ops "$T/bin/" # the build folder may be closed to others
    ERAIMGFS=$T/bin/eraimgfs ERA_CLI=$T/bin/era-cli FS_TOOLS=$T/bin
    install -d -o 65534 -g 65534 "$T/user"
  else
    mkdir "$T/user"
  fi
  # shellcheck disable=SC2034 # for the tests
  USER_DIR=$T/user
}
as_user() { "${AS_USER[@]}" "$@"; }
