/* SPDX-License-Identifier: MIT */
#include "base/run.h"

#include "base/io.h"
#include "base/num.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_OVERRIDE "ERAIMGFS_RUN_DIR"

static bool run_is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Where the caller's own folder is, whether it exists or not. */
static int run_own_path(char ret_path[PATH_MAX])
{
	const char *override = getenv(RUN_OVERRIDE);
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	unsigned int uid = geteuid();
	char user_dir[64];
	snprintf(user_dir, sizeof(user_dir), "/run/user/%u", uid);

	int len;
	if (override != NULL && override[0] != '\0')
		len = snprintf(ret_path, PATH_MAX, "%s", override);
	else if (uid == 0)
		len = snprintf(ret_path, PATH_MAX, "/run/eraimgfs");
	else if (xdg != NULL && xdg[0] == '/')
		len = snprintf(ret_path, PATH_MAX, "%s/eraimgfs", xdg);
	else if (run_is_dir(user_dir))
		len = snprintf(ret_path, PATH_MAX, "%s/eraimgfs", user_dir);
	else
		len = snprintf(ret_path, PATH_MAX, "/tmp/eraimgfs-%u", uid);
	return len < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* 0 when path itself (no symlink) is a directory of uid that nobody else may write to. */
static int run_check_dir(const char *path, uid_t uid, struct err *err)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return err_set(err, -errno, "%s: %m", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -EPERM,
			"%s: not a directory, so it cannot be the run folder: remove it, or set " RUN_OVERRIDE, path);
	if (st.st_uid != uid)
		return err_set(err, -EPERM,
			"%s: belongs to user %u instead of user %u, who could plant a socket there: remove it, or set " RUN_OVERRIDE,
			path, (unsigned int)st.st_uid, (unsigned int)uid);
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return err_set(
			err, -EPERM, "%s: others may write to it and could plant a socket there: chmod 0700 it", path);
	return 0;
}

int run_own_dir(char ret_path[PATH_MAX], struct err *err)
{
	int r = run_own_path(ret_path);
	if (r < 0)
		return err_set(err, r, "run folder: its name is too long: see " RUN_OVERRIDE " and XDG_RUNTIME_DIR");
	if (mkdir(ret_path, 0700) < 0 && errno != EEXIST)
		return err_set(
			err, -errno, "%s: cannot make the run folder: %m: make it, or set " RUN_OVERRIDE, ret_path);
	return run_check_dir(ret_path, geteuid(), err);
}

/* The user that "PREFIX" UID "SUFFIX" names. */
static bool run_path_uid(const char *path, const char *prefix, const char *suffix, uid_t *ret_uid)
{
	size_t len = strlen(path), prefix_len = strlen(prefix), suffix_len = strlen(suffix);
	char digits[16];
	if (len <= prefix_len + suffix_len || len - prefix_len - suffix_len >= sizeof(digits))
		return false;
	snprintf(digits, sizeof(digits), "%.*s", (int)(len - prefix_len - suffix_len), path + prefix_len);
	uint64_t uid;
	if (num_parse_u64(digits, &uid) < 0 || uid > UINT32_MAX)
		return false;
	*ret_uid = (uid_t)uid;
	return true;
}

/* Visits what matches PREFIX UID SUFFIX and belongs to UID. A folder that does not is somebody's trap: passed over. */
static int run_each_user_dir(
	const char *prefix, const char *suffix, int (*visit)(const char *path, void *arg), void *arg)
{
	char pattern[64];
	snprintf(pattern, sizeof(pattern), "%s*%s", prefix, suffix);
	glob_t found;
	int r = glob(pattern, 0, NULL, &found);
	if (r == GLOB_NOMATCH)
		return 0;
	if (r != 0)
		return r == GLOB_NOSPACE ? -ENOMEM : -EIO;
	for (size_t i = 0; r == 0 && i < found.gl_pathc; i++) {
		uid_t uid;
		if (run_path_uid(found.gl_pathv[i], prefix, suffix, &uid) &&
			run_check_dir(found.gl_pathv[i], uid, NULL) == 0)
			r = visit(found.gl_pathv[i], arg);
	}
	globfree(&found);
	return r;
}

int run_each_dir(int (*visit)(const char *path, void *arg), void *arg)
{
	char own[PATH_MAX];
	int r = run_own_path(own);
	if (r == 0)
		r = run_check_dir(own, geteuid(), NULL);
	if (r == 0)
		r = visit(own, arg);
	else if (r == -ENOENT)
		r = 0;
	const char *override = getenv(RUN_OVERRIDE);
	if (r != 0 || geteuid() != 0 || (override != NULL && override[0] != '\0'))
		return r;
	r = run_each_user_dir("/run/user/", "/eraimgfs", visit, arg);
	if (r == 0)
		r = run_each_user_dir("/tmp/eraimgfs-", "", visit, arg);
	return r;
}

int run_boot_id(unsigned char ret_id[16])
{
	char text[64];
	ssize_t len = io_read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text));
	if (len < 0)
		return (int)len;
	return num_uuid_parse(text, ret_id);
}

int run_process_start(pid_t pid, uint64_t *ret_start)
{
	char path[64], stat[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	ssize_t len = io_read_text(path, stat, sizeof(stat));
	if (len < 0)
		return len == -ESRCH ? -ENOENT : (int)len;
	/* Field 2, the name, is in brackets and may hold anything. State is field 3, the start time field 22. */
	const char *rest = strrchr(stat, ')');
	char state;
	uint64_t start;
	if (rest == NULL ||
		sscanf(rest + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
			&state, &start) != 2)
		return -EIO;
	/* A zombie runs no more, whether its parent has looked or not. */
	if (state == 'Z' || state == 'X')
		return -ENOENT;
	*ret_start = start;
	return 0;
}
