# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by test_fsfreeze_ext4.sh and test_fsfreeze_xfs.sh: a file system of $kind at $dir on the image
# that is mounted at $target, as $file, frozen in every way.
# shellcheck disable=SC2154

case_checkpoint_clone() {
  local before point
  say "checkpoint --fsfreeze --clone: the copy is the file system at one instant"
  before=$(progress)
  point=$(era checkpoint --fsfreeze "$dir" --clone "$T/store/clone" "$target")
  assert_eq "$(status_of "$target" current_era)" "$point" "checkpoint"
  writer_goes_on
  assert_guard_thawed "$dir"
  cp --reflink=auto "$T/store/clone" "$T/store/old"
  check_copy "$kind" "$T/store/clone" "$before" "$(progress)"

  say "and the old copy with the blocks of since is the next one"
  era checkpoint --fsfreeze "$dir" --clone "$T/store/clone" "$target" >"$T/out"
  era since "$point" "$target" >"$T/extents" # while the writer goes on: too much, never too little
  apply_extents "$T/store/clone" "$T/store/old" <"$T/extents"
  assert_same "$T/store/clone" "$T/store/old" "the old copy with what changed"
}

case_freeze_copy() {
  local archived
  say "freeze --fsfreeze --clone, copy, thaw --era"
  archived=$(era freeze --fsfreeze "$dir" --clone "$T/store/clone" "$target")
  has_state "$target" frozen || fail "state: $(status_of "$target" state)"
  assert_fs_frozen "$dir"
  tree_of "$dir" >"$T/frozen.tree"
  cp --sparse=always "$file" "$T/store/copy"
  assert_eq "$((archived + 1))" "$(era thaw --era "$archived" "$target")" "thaw"
  writer_goes_on
  assert_guard_thawed "$dir"
  assert_same "$T/store/copy" "$T/store/clone" "clone and copy"
  check_copy "$kind" "$T/store/copy" "$T/frozen.tree"
  rm "$T/store/copy" "$T/store/clone" "$T/store/old"
}

case_plain() {
  local point
  say "fsfreeze, checkpoint, thaw by hand"
  fsfreeze -f "$dir"
  point=$(era checkpoint "$target")
  assert_fs_frozen "$dir"
  tree_of "$dir" >"$T/frozen.tree"
  cp --sparse=always "$file" "$T/store/copy"
  assert_eq "" "$(since "$point" "$target")" "nothing is written while it is frozen"
  fsfreeze -u "$dir"
  writer_goes_on
  check_copy "$kind" "$T/store/copy" "$T/frozen.tree"
  rm "$T/store/copy"
}

case_deadline() {
  local archived
  say "nobody thaws: the deadline does, then the guard"
  archived=$(era freeze --timeout 2 --fsfreeze "$dir" "$target")
  writer_goes_on
  assert_guard_thawed "$dir"
  assert_eq 1 "$(status_of "$target" auto_thaws)" "auto_thaws"
  expect_fail 1 "not frozen" era thaw --era "$archived" "$target"
}

# Starts era-cli ($client), which is stopped as it flushes (and watches the process that does): the file system is frozen then, and the gate still open.
start_in_the_middle() { # ARG...
  rm -f "$T/strace"
  strace -D -q -o "$T/strace" -e trace=pidfd_open -e inject=pidfd_open:signal=STOP:when=1 "$ERA_CLI" "$@" >"$T/out" 2>"$T/.err" &
  client=$!
  wait_until 20 grep -qs "stopped by SIGSTOP" "$T/strace" || fail "it is not stopped: $(cat "$T/out" "$T/.err")"
  assert_fs_frozen "$dir"
}

case_killed_client() {
  local was i pid signal
  say "era-cli killed while the file system is frozen"
  was=$(status_of "$target" current_era)
  for command in checkpoint freeze; do
    for signal in KILL TERM; do
      start_in_the_middle "$command" --fsfreeze "$dir" "$target"
      kill -s "$signal" "$client"
      kill -CONT "$client" 2>/dev/null || :
      wait "$client" 2>/dev/null || :
      writer_goes_on
      assert_guard_thawed "$dir"
      assert_eq "running $was" "$(status_of "$target" state) $(status_of "$target" current_era)" "after $command"
      [ ! -s "$T/out" ] || fail "$command: printed: $(cat "$T/out")"
    done
  done

  say "or at any moment"
  for i in 0 1 2 3 4 6 8; do
    era freeze --timeout 1 --fsfreeze "$dir" "$target" >"$T/out" 2>&1 &
    pid=$!
    sleep "0.0$i"
    kill -9 "$pid" 2>/dev/null || :
    wait "$pid" 2>/dev/null || :
    wait_until 20 has_no_guard "$dir" || fail "kill $i: a guard is left"
    wait_until 20 has_state "$target" running || fail "kill $i: $(status_of "$target" state)"
    assert_fs_thawed "$dir"
  done
  writer_goes_on
}

case_killed_guard() {
  say "the guard killed while era-cli goes on: era-cli thaws"
  start_in_the_middle checkpoint --fsfreeze "$dir" "$target"
  kill -9 "$(holders_of "$dir" era-cli-fsguard)"
  kill -CONT "$client"
  wait "$client" || : # whether it ends the era or gives up
  writer_goes_on
  assert_fs_thawed "$dir"
}

case_killed_daemon() {
  say "the daemon killed while all is frozen: the guard thaws, the image is as it was frozen"
  era freeze --timeout 0 --fsfreeze "$dir" "$target" >"$T/out"
  tree_of "$dir" >"$T/frozen.tree"
  kill -9 "$(status_of "$target" pid)"
  assert_guard_thawed "$dir"
  stop_writer
  umount "$dir"
  losetup -d "${LOOPS[a]}"
  wait_until 20 umount "$target" 2>/dev/null || fail "umount of the dead mount"
  cp --reflink=auto "$T/store/a.img" "$T/store/copy"
  check_copy "$kind" "$T/store/copy" "$T/frozen.tree"
  rm "$T/store/copy"
  attach_fs a
  start_writer "$dir"
  has_state "$target" running
}
