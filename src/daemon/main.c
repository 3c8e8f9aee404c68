/* SPDX-License-Identifier: MIT */
/*
 * eraimgfs - the daemon.
 *
 *     parse, look at the mount point, fork            (parent: waits for the child's word, and exits as it says)
 *     lock, open, recover            era_open()
 *     control socket                 ctl_server_start()
 *     mount                          fs_mount()
 *     registry entry                 ctl_registry_write()
 *     workers                        fs_loop_start()
 *     tell the parent, let go of the terminal; wait for a signal or the unmount
 *
 * and the same backwards: each stage joins its threads before what they use goes away. fork() comes before the first
 * thread and before SQLite, which forbids to carry a connection over it.
 */
#include "fs.h"

#include "base/log.h"
#include "base/num.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

static void main_notice(const char *text, void *arg)
{
	log_write(LOG_NOTICE, "%s", text);
}

static int main_open(struct fs *fs, struct err *err)
{
	const struct fs_options *options = &fs->options;
	int r = run_own_dir(fs->run_dir, err);
	if (r < 0)
		return r;
	const struct era_config config = {
		.image_path = options->image,
		.metadata_path = options->metadata,
		.run_dir = fs->run_dir,
		.read_only = options->read_only,
		.create = !options->no_create,
		.mark_all = options->mark_all,
		.resize = options->resize,
		.block_size = options->block_size,
		.nr_completers = options->threads,
		.notice = main_notice,
	};
	r = era_open(&config, &fs->era, err);
	if (r < 0)
		return r;
	fs->image = era_image(fs->era);
	r = -pthread_key_create(&fs->read_buffers, free);
	fs->have_read_buffers = r == 0;
	return r == 0 ? 0 : err_set(err, r, "cannot start: %s", strerror(-r));
}

/* A path into one of the entry's members. */
static int describe_path(char ret_path[PATH_MAX], const char *folder, const char *name, struct err *err)
{
	int len = snprintf(ret_path, PATH_MAX, "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
	return len < PATH_MAX ? 0 : err_set(err, -ENAMETOOLONG, "%s: the path is too long", folder);
}

/* Fills the registry entry, all but the mount's device. */
static int main_describe(struct fs *fs, struct err *err)
{
	const struct fs_options *options = &fs->options;
	struct ctl_instance *instance = &fs->instance;
	struct era_status status;
	struct stat st;
	era_get_status(fs->era, &status);
	num_uuid_format(status.uuid, instance->uuid);
	num_hex_format(era_nonce(fs->era), 16, instance->nonce);
	instance->pid = getpid();
	instance->read_only = options->read_only;
	int r = run_process_start(instance->pid, &instance->pid_start);
	if (r == 0)
		r = img_stat(fs->image, &st);
	if (r < 0)
		return err_set(err, r, "%s: cannot describe this instance: %s", options->image, strerror(-r));
	instance->image_dev = st.st_dev;
	instance->image_ino = st.st_ino;

	char socket_name[sizeof(instance->nonce) + sizeof(".sock")];
	snprintf(socket_name, sizeof(socket_name), "%s.sock", instance->nonce);
	r = describe_path(instance->image, options->image, "", err);
	if (r == 0)
		r = describe_path(instance->metadata, options->metadata, "", err);
	if (r == 0)
		r = describe_path(instance->mountpoint, options->mountpoint, "", err);
	if (r == 0)
		r = describe_path(instance->file, options->mountpoint, fs->is_dir ? options->image_name : "", err);
	if (r == 0 && options->control != NULL)
		r = describe_path(instance->socket, options->control, "", err);
	else if (r == 0)
		r = describe_path(instance->socket, fs->run_dir, socket_name, err);
	return r;
}

static int main_start(struct fs *fs, struct err *err)
{
	int r = fs_signals_block(err);
	if (r == 0)
		r = main_open(fs, err);
	if (r == 0)
		r = main_describe(fs, err);
	if (r < 0)
		return r;
	struct ctl_handler handler = fs_control_handler(fs);
	r = ctl_server_start(fs->instance.socket, &handler, &fs->server, err);
	if (r == 0)
		r = fs_mount(fs, err);
	if (r < 0)
		return r;
	fs->instance.mount_dev = atomic_load(&fs->mount_dev);
	r = ctl_registry_write(fs->run_dir, &fs->instance, err);
	fs->registered = r == 0;
	if (r == 0)
		r = fs_loop_start(fs, fs->options.threads, &fs->loop, err);
	return r;
}

/* Takes back whatever main_start() did. 0, or -errno with err when the end was not in order. */
static int main_stop(struct fs *fs, struct err *err)
{
	int r = fs_loop_stop(fs->loop);
	if (r < 0)
		err_set(err, r, "%s: stopped by an error of /dev/fuse: %s", fs->options.mountpoint, strerror(-r));
	if (fs->registered)
		ctl_registry_remove(fs->run_dir, fs->instance.nonce);
	ctl_server_stop(fs->server);
	/* Completes all requests that wait: their replies need the session. */
	struct err close_err = ERR_INIT;
	int closed = era_close(fs->era, &close_err);
	if (closed < 0) {
		r = closed;
		*err = close_err;
	}
	if (fs->session != NULL) {
		if (fs->mounted)
			fuse_session_unmount(fs->session);
		fuse_session_destroy(fs->session);
	}
	if (fs->have_read_buffers)
		pthread_key_delete(fs->read_buffers);
	pthread_mutex_destroy(&fs->times.lock);
	return r;
}

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
	if (null_fd > STDERR_FILENO)
		close(null_fd);
	return 0;
}

/* The daemon. ready_fd: where to say that it serves, -1 in the foreground. */
static int main_run(struct fs *fs, int ready_fd)
{
	struct err err = ERR_INIT;
	struct err stop_err = ERR_INIT;
	int r = main_start(fs, &err);
	if (r == 0)
		r = main_detach(ready_fd, &err);
	/* Where the kernel still has the mount, it is detached, and its path may be another's by now. */
	if (r == 0)
		fs->mounted = fs_signals_wait(fs);
	enum err_exit status = r < 0 ? err.exit : ERR_EXIT_DONE;
	if (main_stop(fs, &stop_err) < 0) {
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
	struct fs fs = { .times.lock = PTHREAD_MUTEX_INITIALIZER };
	struct err err = ERR_INIT;
	int status = ERR_EXIT_DONE;

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
