/* SPDX-License-Identifier: MIT */
/*
 * The mount point: is it fit, mount, unmount. What is mounted where comes from base/mounts.h, which asks no
 * file system anything: the daemon never touches its own mount, and a dead one does not answer.
 */
#include "fs.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define FUSERMOUNT "fusermount3"

static int mount_check_kind(const char *path, bool *ret_is_dir, struct err *err)
{
	struct stat st;
	if (stat(path, &st) < 0 && errno == ENOTCONN)
		return err_set(
			err, -ENOTCONN, "%s: a dead mount whose daemon is gone is still there: umount %s", path, path);
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %m: the mount point must exist and be reachable", path);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: the mount point must be a directory or a regular file", path);
	*ret_is_dir = S_ISDIR(st.st_mode);
	return 0;
}

/* What fusermount3 asks of the mount point of an ordinary user. */
static int mount_check_right(const char *path, struct err *err)
{
	struct stat st;
	if (getuid() == 0)
		return 0;
	if (access(path, W_OK) < 0)
		return err_set(err, -errno, "%s: %m: mount on a directory or file that you may write to", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0 && st.st_uid != getuid())
		return err_set(err, -EPERM,
			"%s: is shared by all users (sticky): make a directory in it, and mount on that", path);
	return 0;
}

/* libfuse and fusermount3 open it, too late for us. */
static int mount_check_device(struct err *err)
{
	CLEANUP_CLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_set(
			err, -errno, "/dev/fuse: %m: load the kernel's module fuse, or have its mode set to 0666");
	return 0;
}

int fs_mount_check(struct fs_options *options, bool *ret_is_dir, struct err *err)
{
	CLEANUP_FREE char *path = NULL;
	int r = io_absolute(options->mountpoint, &path);
	if (r < 0)
		return err_set(err, r, "%s: %s: the mount point must exist and be reachable", options->mountpoint,
			strerror(-r));
	r = mount_check_kind(path, ret_is_dir, err);
	if (r < 0)
		return r;
	char *resolved = realpath(path, NULL);
	if (resolved == NULL)
		return err_set(err, -errno, "%s: %m: the mount point must exist and be reachable", path);
	free(options->mountpoint);
	options->mountpoint = resolved;
	dev_t dev;
	if (mounts_find(resolved, 0, &dev))
		return err_set(err, -EBUSY,
			"%s: busy, something is mounted there: umount it, or choose another mount point", resolved);
	r = mount_check_right(resolved, err);
	return r == 0 ? mount_check_device(err) : r;
}

int fs_mount_check_metadata(const struct fs_options *options, bool is_dir, struct err *err)
{
	size_t len = strlen(options->mountpoint);
	bool is_same = strcmp(options->metadata, options->mountpoint) == 0;
	bool is_below = is_dir && strncmp(options->metadata, options->mountpoint, len) == 0 &&
			(options->metadata[len] == '/' || len == 1);
	if (!is_same && !is_below)
		return 0;
	return err_set(err, -EINVAL,
		"%s: the mount at %s would hide the metadata: put them elsewhere with -o metadata=PATH",
		options->metadata, options->mountpoint);
}

/* --- the options of the mount --- */

/* Adds an option, in the form that fuse_opt_parse() splits again. */
static int add_option(char **options, const char *name, const char *value)
{
	CLEANUP_FREE char *option = NULL;
	if (asprintf(&option, "%s%s", name, value) < 0)
		return -ENOMEM;
	return fuse_opt_add_opt_escaped(options, option) == 0 ? 0 : -ENOMEM;
}

/* ret_list is malloc'ed, also when this fails. */
static int mount_options(const struct fs_options *options, char **ret_list)
{
	char max_read[16];
	snprintf(max_read, sizeof(max_read), "%u", FS_IO_MAX);
	/* An open door without a doorkeeper would let every user write. */
	bool check = options->default_permissions || options->allow_other || options->allow_root;

	*ret_list = NULL;
	int r = add_option(ret_list, "fsname=", options->fsname);
	if (r == 0)
		r = add_option(ret_list, "subtype=", options->subtype != NULL ? options->subtype : "eraimgfs");
	if (r == 0)
		r = add_option(ret_list, "max_read=", max_read);
	if (r == 0 && options->allow_other)
		r = add_option(ret_list, "allow_other", "");
	if (r == 0 && options->allow_root)
		r = add_option(ret_list, "allow_root", "");
	if (r == 0 && check)
		r = add_option(ret_list, "default_permissions", "");
	if (r == 0 && options->flags != NULL && fuse_opt_add_opt(ret_list, options->flags) < 0)
		r = -ENOMEM;
	return r;
}

/* --- what libfuse and fusermount3 say on standard error --- */

struct capture {
	int stderr_fd; /* the real one, -1: nothing is captured */
	int text_fd;
};

static struct capture capture_begin(void)
{
	struct capture capture = { .stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), .text_fd = -1 };
	if (capture.stderr_fd >= 0)
		capture.text_fd = memfd_create("stderr", MFD_CLOEXEC);
	if (capture.text_fd >= 0)
		dup2(capture.text_fd, STDERR_FILENO);
	return capture;
}

/* Puts the real one back. ret_text: what was said, in one line, without the speakers' names. */
static void capture_end(struct capture *capture, char *ret_text, size_t size)
{
	static const char *const speakers[] = { "fusermount3: ", "fuse: " };
	char text[512] = "";
	if (capture->text_fd >= 0) {
		dup2(capture->stderr_fd, STDERR_FILENO);
		if (pread(capture->text_fd, text, sizeof(text) - 1, 0) < 0)
			text[0] = '\0';
		close(capture->text_fd);
	}
	if (capture->stderr_fd >= 0)
		close(capture->stderr_fd);
	ret_text[0] = '\0';
	char *rest = text;
	for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
		for (size_t i = 0; i < sizeof(speakers) / sizeof(speakers[0]); i++) {
			if (strncmp(line, speakers[i], strlen(speakers[i])) == 0)
				line += strlen(speakers[i]);
		}
		size_t len = strlen(ret_text);
		if (line[0] != '\0')
			snprintf(ret_text + len, size - len, "%s%s", len > 0 ? "; " : "", line);
	}
}

/* --- mount --- */

/* -d shows requests as debug lines; all else that libfuse says is a trouble. */
static __attribute__((format(printf, 2, 0))) void mount_log(enum fuse_log_level level, const char *format, va_list args)
{
	char text[512];
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_write((int)level, "%s", text);
}

static int mount_session(struct fs *fs, char *list)
{
	char *argv[] = { "eraimgfs", "-o", list, fs->options.debug ? "-d" : NULL, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(fs->options.debug ? 4 : 3, argv);
	fs->session = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
	fuse_opt_free_args(&args);
	if (fs->session == NULL || fuse_session_mount(fs->session, fs->options.mountpoint) != 0)
		return -EIO;
	fs->mounted = true;
	return 0;
}

int fs_mount(struct fs *fs, struct err *err)
{
	const char *mountpoint = fs->options.mountpoint;
	CLEANUP_FREE char *list = NULL;
	int r = mount_options(&fs->options, &list);
	if (r < 0)
		return err_set(err, r, "not enough memory");

	char said[600];
	struct capture capture = capture_begin();
	r = mount_session(fs, list);
	capture_end(&capture, said, sizeof(said));
	if (r < 0)
		return err_set(err, r, "%s: cannot mount: %s", mountpoint,
			said[0] != '\0' ? said
					: "is " FUSERMOUNT " of the package fuse3 installed, and /dev/fuse there?");
	if (said[0] != '\0')
		log_write(LOG_WARNING, "%s: %s", mountpoint, said);
	fuse_set_log_func(mount_log);

	dev_t dev;
	if (!mounts_find(mountpoint, 0, &dev))
		return err_set(err, -EIO, "%s: not found in /proc/self/mountinfo after it was mounted", mountpoint);
	atomic_store(&fs->mount_dev, dev);
	return 0;
}

/* --- unmount --- */

bool fs_mount_is_attached(const struct fs *fs)
{
	dev_t found;
	return mounts_find(NULL, (dev_t)atomic_load(&fs->mount_dev), &found);
}

/* fusermount3 is set-uid root, and unmounts what the user mounted. 0 or -errno. */
static int unmount_as_user(const char *mountpoint, bool lazy)
{
	char *argv[] = { FUSERMOUNT, "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : (char *)mountpoint,
		lazy ? (char *)mountpoint : NULL, NULL };
	pid_t pid;
	int status;
	int r = -posix_spawnp(&pid, FUSERMOUNT, NULL, NULL, argv, environ);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	/* It does not tell why. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static int unmount(const char *mountpoint, bool lazy)
{
	if (geteuid() != 0)
		return unmount_as_user(mountpoint, lazy);
	return umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0 ? 0 : -errno;
}

void fs_mount_leave(const struct fs *fs)
{
	const char *mountpoint = fs->options.mountpoint;
	dev_t on_top;
	if (!fs_mount_is_attached(fs)) {
		log_write(LOG_WARNING, "%s: detached before, and still in use: waiting for its last user", mountpoint);
		return;
	}
	if (!mounts_find(mountpoint, 0, &on_top) || on_top != atomic_load(&fs->mount_dev)) {
		log_write(LOG_ERR, "%s: something else is mounted over it: umount that first", mountpoint);
		return;
	}
	int r = unmount(mountpoint, false);
	if (r == 0)
		return;
	if (r == -EBUSY)
		log_write(LOG_WARNING, "%s: in use: detaching it, and waiting for its last user", mountpoint);
	else
		log_write(LOG_WARNING, "%s: cannot unmount: %s: detaching it", mountpoint, strerror(-r));
	r = unmount(mountpoint, true);
	if (r < 0)
		log_write(LOG_ERR, "%s: cannot detach: %s: umount it", mountpoint, strerror(-r));
}
