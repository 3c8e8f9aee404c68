/* SPDX-License-Identifier: MIT */
/*
 * run - the run folders, where live instances leave their registry entries, control sockets and session files.
 *
 * root: /run/eraimgfs. A user: $XDG_RUNTIME_DIR/eraimgfs, else /run/user/UID/eraimgfs where /run/user/UID exists, else
 * /tmp/eraimgfs-UID. $ERAIMGFS_RUN_DIR, if set, replaces all of them (tests, containers).
 */
#ifndef BASE_RUN_H
#define BASE_RUN_H

#include "base/err.h"

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

/* The caller's own folder, created with mode 0700 if need be. Refused (-EPERM) where it is not a real directory that
 * belongs to the effective user and that no other may write to: another user could plant a socket there. */
int run_own_dir(char ret_path[PATH_MAX], struct err *err);

/* Calls visit for each existing run folder that the caller may look into: its own; for root also those of all users
 * (each must belong to the user that its name says). Stops at the first non-zero return and gives it back.
 * Others' folders that fail the check are passed over; where its own fails it, -EPERM. */
int run_each_dir(int (*visit)(const char *path, void *arg), void *arg);

/* The kernel's id of this boot, 16 bytes (/proc/sys/kernel/random/boot_id). 0 or -errno. */
int run_boot_id(unsigned char ret_id[16]);

/* Start time of a process, in clock ticks after boot (/proc/PID/stat, field 22): with the pid, who a process is. 0, -ENOENT
 * when there is no such process (a zombie is none), -errno. */
int run_process_start(pid_t pid, uint64_t *ret_start);

#endif
