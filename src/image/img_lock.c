/* SPDX-License-Identifier: MIT */
/*
 * One image has many names: symlinks, hard links, bind mounts, several nodes of one device, a loop device and the file
 * under it. Two instances on one image would each miss what the other writes, so every name must lead to one lock:
 *
 *   file          flock on its inode
 *   device        O_EXCL, which the kernel keeps at the device (and between a disk and its partitions), and flock
 *   loop device   the same, and then the lock of what it stands on, and so on down to a file or a real device
 *
 * O_EXCL lasts until a close, so a device has a descriptor for that beside the one of its I/O. The flock of a file is on the
 * open file of its I/O: NFS locks only what is open for writing, and under SMB a lock shuts out all other open files, our
 * own too (flock(2)).
 */
#include "img_lock.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define IMG_FUSE_TYPE "fuse.eraimgfs"

/* udev holds a shared flock on a device while it looks at it, a moment after it appears or changes. */
#define IMG_DEVICE_TRIES 40
#define IMG_DEVICE_WAIT_NS (50L * 1000 * 1000)

int img_lock_open(int path_fd, const char *name, bool read_only, bool claim, int *ret_fd, struct err *err)
{
	/* By descriptor, so that what is opened is what was looked at, whoever renames or mounts things meanwhile. */
	char by_fd[64];
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", path_fd);
	int fd = open(by_fd, O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR) | (claim ? O_EXCL : 0));
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	if (errno == EBUSY)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
			"%s: in use: it is mounted, or another program (another eraimgfs?) has claimed the device: "
			"find it with `era-cli list` or `lsblk` and stop it first",
			name);
	if (!read_only && (errno == EACCES || errno == EPERM || errno == EROFS))
		return err_set(err, -errno,
			"%s: cannot be opened for writing: %m: get the right to write to it, or mount it with -o ro",
			name);
	return err_set(err, -errno, "%s: cannot be opened: %m: name an image that can be read", name);
}

int img_lock_check_mount(dev_t dev, const char *name, struct err *err)
{
	char type[64];
	int r = mounts_fs_type(dev, type, sizeof(type));
	/* Not listed: a subvolume of btrfs or a mount of another namespace. A longer name is not ours. */
	if (r == -ENOENT || r == -E2BIG)
		return 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot tell on what kind of mount it is: %s: is /proc mounted?", name,
			strerror(-r));
	if (strcmp(type, IMG_FUSE_TYPE) == 0)
		return err_set(err, -EINVAL,
			"%s: is on a mount of eraimgfs, which tracks it already: name the image itself, or unmount first",
			name);
	return 0;
}

static int img_lock_flock(int fd, const char *name, bool is_device, struct err *err)
{
	int tries = is_device ? IMG_DEVICE_TRIES : 1;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return err_set(
				err, -errno, "%s: cannot be locked: %m: put it on a file system with flock(2)", name);
		if (--tries == 0)
			return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
				"%s: in use: another eraimgfs, or another program, holds its lock: "
				"find it with `era-cli list` or `lslocks` and stop it first",
				name);
		nanosleep(&(struct timespec){ .tv_nsec = IMG_DEVICE_WAIT_NS }, NULL);
	}
	return 0;
}

/* A dev_t as the kernel hands it out in 64 bits (huge_encode_dev() in linux/kdev_t.h). */
static dev_t img_lock_decode_dev(uint64_t dev)
{
	return makedev((unsigned int)(dev & 0xfff00) >> 8, (unsigned int)((dev & 0xff) | ((dev >> 12) & 0xfff00)));
}

/* The path of what a loop device, or the loop device of a partition, stands on. 1 and the path; 0: rdev is neither. */
static int img_lock_loop_path(dev_t rdev, const char *name, char *ret_path, size_t size, struct err *err)
{
	char entry[64], attr[128];
	snprintf(entry, sizeof(entry), "/sys/dev/block/%u:%u", major(rdev), minor(rdev));
	ssize_t len = access(entry, F_OK) == 0 ? 0 : -errno;
	if (len == 0) {
		snprintf(attr, sizeof(attr), "%s/loop/backing_file", entry);
		len = io_read_text(attr, ret_path, size);
		if (len == -ENOENT) {
			snprintf(attr, sizeof(attr), "%s/../loop/backing_file", entry);
			len = io_read_text(attr, ret_path, size);
		}
		if (len == -ENOENT)
			return 0;
	}
	if (len < 0)
		return err_set(err, (int)len, "%s: cannot tell whether it is a loop device: %s: %s: is /sys mounted?",
			name, entry, strerror((int)-len));
	return 1;
}

int img_lock_init(struct img_lock *lock, int path_fd, const char *name, const struct stat *st, struct err *err)
{
	struct img_lock_level *level = &lock->levels[0];
	assert(lock->nr_levels == 0);
	*level = (struct img_lock_level){ .name = strdup(name), .st = *st, .path_fd = path_fd, .fd = -1 };
	lock->nr_levels = 1;
	return level->name != NULL ? 0 : err_set(err, -ENOMEM, "%s: not enough memory", name);
}

/* Follows path to the backing file that info tells of, and makes that the next level. */
static int img_lock_add(
	struct img_lock *lock, const char *label, const char *path, const struct loop_info64 *info, struct err *err)
{
	struct img_lock_level *level = &lock->levels[lock->nr_levels];
	dev_t dev = img_lock_decode_dev(info->lo_device);
	/* Before the file is touched: on a mount of ours it might answer late. */
	int r = img_lock_check_mount(dev, label, err);
	if (r < 0)
		return r;
	CLEANUP_CLOSE int path_fd = open(path, O_PATH | O_CLOEXEC);
	if (path_fd < 0 || fstat(path_fd, &level->st) < 0)
		return err_set(err, -errno,
			"%s: the backing file cannot be reached, so it cannot be locked: %m: "
			"attach the loop device to a file that has a name here",
			label);
	if (level->st.st_dev != dev || level->st.st_ino != info->lo_inode)
		return err_set(err, -ESTALE,
			"%s: that name leads to another file by now, so the backing file cannot be locked: "
			"attach the loop device to a file that has a name here",
			label);
	level->name = strdup(label);
	if (level->name == NULL)
		return err_set(err, -ENOMEM, "%s: not enough memory", label);
	level->path_fd = path_fd;
	level->fd = path_fd = -1;
	lock->nr_levels++;
	return 0;
}

/* Finds what the lowest level, which is locked, stands on, and adds it. 1, or 0 where there is no more. */
static int img_lock_find_below(struct img_lock *lock, struct err *err)
{
	const char *name = lock->levels[0].name;
	const struct img_lock_level *level = &lock->levels[lock->nr_levels - 1];
	char path[PATH_MAX + 2];
	if (!S_ISBLK(level->st.st_mode))
		return 0;
	int r = img_lock_loop_path(level->st.st_rdev, name, path, sizeof(path), err);
	if (r <= 0)
		return r;
	if (lock->nr_levels == 1 + IMG_LOCK_DEPTH)
		return err_set(err, -ELOOP, "%s: stands on more than %d loop devices: name one further down", name,
			IMG_LOCK_DEPTH);
	CLEANUP_FREE char *label = NULL;
	if (asprintf(&label, "%s (backed by %s)", name, path) < 0)
		return err_set(err, -ENOMEM, "%s: not enough memory", name);
	struct loop_info64 info;
	if (ioctl(level->fd, LOOP_GET_STATUS64, &info) < 0)
		return err_set(
			err, -errno, "%s: cannot tell what the loop device stands on: %m: attach it anew", label);
	r = img_lock_add(lock, label, path, &info, err);
	return r < 0 ? r : 1;
}

/* own_fd: what to lock instead of an open file of its own; -1: none. */
static int img_lock_take_level(struct img_lock_level *level, int own_fd, bool read_only, struct err *err)
{
	bool is_device = S_ISBLK(level->st.st_mode);
	int fd = -1, r = 0;
	if (own_fd < 0)
		r = img_lock_open(level->path_fd, level->name, read_only, is_device, &fd, err);
	else if ((fd = fcntl(own_fd, F_DUPFD_CLOEXEC, 0)) < 0)
		r = err_set(err, -errno, "%s: cannot be locked: %m", level->name);
	if (r == 0)
		r = img_lock_flock(fd, level->name, is_device, err);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	level->fd = fd;
	return 0;
}

int img_lock_take(struct img_lock *lock, int io_fd, bool read_only, struct err *err)
{
	int r = 1;
	for (int i = 0; r > 0; i++) {
		struct img_lock_level *level = &lock->levels[i];
		assert(level->fd < 0);
		bool is_file = i == 0 && S_ISREG(level->st.st_mode);
		r = img_lock_take_level(level, is_file ? io_fd : -1, i > 0 || read_only, err);
		if (r == 0)
			r = i + 1 < lock->nr_levels ? 1 : img_lock_find_below(lock, err);
	}
	if (r < 0)
		img_lock_drop(lock);
	return r;
}

const struct stat *img_lock_base(const struct img_lock *lock)
{
	return &lock->levels[lock->nr_levels - 1].st;
}

void img_lock_drop(struct img_lock *lock)
{
	for (int i = lock->nr_levels - 1; i >= 0; i--) {
		struct img_lock_level *level = &lock->levels[i];
		if (level->fd < 0)
			continue;
		/* A close alone leaves the lock with every other descriptor of the open file: the I/O's, or that of a
		 * process that is between fork and exec. */
		flock(level->fd, LOCK_UN);
		close(level->fd);
		level->fd = -1;
	}
}

void img_lock_release(struct img_lock *lock)
{
	img_lock_drop(lock);
	while (lock->nr_levels > 0) {
		struct img_lock_level *level = &lock->levels[--lock->nr_levels];
		close(level->path_fd);
		free(level->name);
	}
}
