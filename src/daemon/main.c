/* SPDX-License-Identifier: MIT */
/*
 * eraimgfs - the daemon.
 *
 *     parse, look at the mount point, fork       (parent: waits for the child's word, and exits as it says)
 *     fs_start(), see instance.c
 *     tell the parent, let go of the terminal; wait for a signal or the unmount
 *     fs_stop()
 *
 * fork() comes before the first thread and before SQLite, which forbids to carry a connection over it.
 */
#include "fs.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

/* Lets go of the terminal and of the folder we were started in. */
static int main_detach(int ready_fd, struct err *err)
{
	if (ready_fd < 0)
		return 0;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0 || setsid() < 0 || chdir("/") < 0) {
		int r = err_set(err, -errno, "cannot go to the background: %m");
		if (null_fd >= 0)
			close(null_fd);
		return r;
	}
	/* Its byte is the parent's leave to exit: whoever started us may use the mount. A parent that is gone does not
	 * matter. */
	ssize_t told = write(ready_fd, "", 1);
	(void)told;
	close(ready_fd);
	log_to_syslog();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null_fd, fd);
	close(null_fd);
	return 0;
}

/* The daemon. ready_fd: where to say that it serves, -1 in the foreground. */
static int main_run(struct fs *fs, int ready_fd)
{
	struct err err = ERR_INIT;
	struct err stop_err = ERR_INIT;
	int r = fs_start(fs, &err);
	if (r == 0)
		r = main_detach(ready_fd, &err);
	/* Where the kernel still has the mount, it is detached, and its path may be another's by now. */
	if (r == 0)
		fs->mounted = fs_signals_wait(fs);
	enum err_exit status = r < 0 ? err.exit : ERR_EXIT_DONE;
	if (fs_stop(fs, &stop_err) < 0) {
		log_write(LOG_ERR, "%s", stop_err.text);
		status = r < 0 ? status : ERR_EXIT_FAILED;
	}
	if (r < 0)
		log_write(LOG_ERR, "%s", err.text);
	return (int)status;
}

/* The parent: exits when the child serves, and as the child does when it ends before. */
static int main_await(pid_t child, int ready_fd)
{
	char ready;
	ssize_t n;
	do {
		n = read(ready_fd, &ready, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return ERR_EXIT_DONE;
	int status;
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return ERR_EXIT_FAILED;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return WEXITSTATUS(status); /* it has said why */
	if (WIFSIGNALED(status))
		log_write(LOG_ERR, "the daemon was killed before it served (signal %d, %s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		log_write(LOG_ERR, "the daemon was stopped before it served");
	return ERR_EXIT_FAILED;
}

static int main_background(struct fs *fs)
{
	int fds[2];
	pid_t child = -1;
	if (pipe2(fds, O_CLOEXEC) == 0)
		child = fork();
	if (child < 0) {
		log_write(LOG_ERR, "cannot go to the background: %m: -f stays in the foreground");
		return ERR_EXIT_FAILED;
	}
	close(fds[child == 0 ? 0 : 1]);
	return child == 0 ? main_run(fs, fds[1]) : main_await(child, fds[0]);
}

int main(int argc, char **argv)
{
	static const char name[] = "eraimgfs";
	struct fs fs = { .times.lock = PTHREAD_MUTEX_INITIALIZER, .registry_lock = PTHREAD_MUTEX_INITIALIZER };
	struct err err = ERR_INIT;
	int status = ERR_EXIT_DONE;

	io_fill_standard();
	log_init(name, false);
	int r = fs_options_parse(argc, argv, &fs.options, &err);
	bool is_done = r < 0 || fs.options.help || fs.options.version || fs.options.fake;
	if (r == 0 && fs.options.help)
		r = fputs(fs_options_help(), stdout) < 0 ? -EIO : 0;
	else if (r == 0 && fs.options.version)
		printf("eraimgfs %s\n", ERAIMGFS_VERSION);
	if (!is_done) {
		log_init(name, fs.options.debug);
		r = fs_mount_check(&fs.options, &fs.is_dir, &err);
		if (r == 0)
			r = fs_options_resolve(&fs.options, &err);
		if (r == 0)
			r = fs_mount_check_metadata(&fs.options, fs.is_dir, &err);
	}
	if (r < 0) {
		log_write(LOG_ERR, "%s", err.text);
		status = err.exit;
	} else if (!is_done) {
		status = fs.options.foreground ? main_run(&fs, -1) : main_background(&fs);
	} else if (fflush(stdout) != 0) {
		status = ERR_EXIT_FAILED;
	}
	fs_options_release(&fs.options);
	return status;
}
