/* SPDX-License-Identifier: MIT */
#include "flush.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Between two looks at whether the instance was frozen meanwhile. */
#define FLUSH_LOOK_MS 500

int flush_probe(const struct target *target, struct err *err)
{
	json_t *reply = NULL;
	int r = target_call(target, json_pack("{s:s}", "request", "status"), TARGET_REPLY_S, &reply, err);
	if (r < 0)
		return r;
	const char *state = ctl_string(reply, "state");
	const char *failure = ctl_string(reply, "failure");
	if (state != NULL && strcmp(state, "frozen") == 0)
		r = err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
			"%s: is frozen: thaw it first (era-cli thaw), or wait for the end of the freeze", target->name);
	else if (state != NULL && (strcmp(state, "freezing") == 0 || strcmp(state, "thawing") == 0))
		r = err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY, "%s: is %s: try again", target->name, state);
	else if (state != NULL && strcmp(state, "fenced") == 0)
		r = err_set_exit(err, ERR_EXIT_REFUSED, -ESTALE,
			"%s: is fenced: %s: unmount it and name the instance that took over", target->name,
			failure != NULL ? failure : "another instance has its metadata");
	json_decref(reply);
	return r;
}

/* 0 or an errno, as a process can return it. */
static int flush_now(const struct ctl_instance *instance)
{
	struct stat st;
	int fd = open(instance->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	/* Root may not look into a user's mount: every open of ours is direct, so there is nothing to flush then. Detached, the
	 * path shows what lies below the mount, or a dead one. */
	if (fd < 0)
		return errno == EACCES || errno == ENOENT || errno == ENOTDIR || errno == ENOTCONN ? 0 : errno;
	if (fstat(fd, &st) < 0)
		return errno;
	return st.st_dev != instance->mount_dev || fsync(fd) == 0 ? 0 : errno;
}

/* The child, which may live longer than we do: it keeps nobody's pipe or lock. */
__attribute__((noreturn)) static void flush_main(const struct ctl_instance *instance)
{
	close_range(0, ~0U, 0);
	_exit(flush_now(instance));
}

int flush_mounted(const struct target *target, struct err *err)
{
	pid_t pid = fork();
	if (pid == 0)
		flush_main(&target->instance);
	CLEANUP_CLOSE int watch = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	if (watch < 0)
		return err_set(err, -errno, "%s: cannot start a process that flushes %s: %m", target->name,
			target->instance.file);
	struct pollfd ended = { .fd = watch, .events = POLLIN };
	while (poll(&ended, 1, FLUSH_LOOK_MS) <= 0) {
		int r = flush_probe(target, err);
		if (r < 0)
			return r; /* the child ends with the freeze */
	}
	int status;
	if (waitpid(pid, &status, 0) < 0)
		return err_set(err, -errno, "%s: cannot flush %s: %m", target->name, target->instance.file);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	int r = WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
	return err_set(err, r, "%s: cannot flush %s: %s", target->name, target->instance.file, strerror(-r));
}
