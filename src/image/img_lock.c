/* SPDX-License-Identifier: MIT */
/*
 * One image has many names: symlinks, hard links, bind mounts, several nodes of one device, a loop device and the file
 * under it. Two instances on one image would each miss what the other writes, so every name must lead to one lock:
 *
 *   file          flock on its inode
 *   device        O_EXCL, which the kernel keeps at the device (and between a disk and its partitions), and flock
 *   loop device   the same, and then the lock of what it stands on, and so on down to a file or a real device
 */
#include "img_lock.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
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

int img_lock_open(int path_fd, const char *name, const struct stat *st, bool read_only, int *ret_fd, struct err *err)
{
	/* By descriptor, so that what is opened is what was looked at, whoever renames things meanwhile. */
	char by_fd[64];
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", path_fd);
	int flags = O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR) | (S_ISBLK(st->st_mode) ? O_EXCL : 0);
	int fd = open(by_fd, flags);
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

/* One step down from the device that fd is open on: opens and locks what it stands on. 1, or 0 where there is none. */
static int img_lock_backing(int fd, const char *name, struct stat *st, int *ret_fd, struct err *err)
{
	char path[PATH_MAX + 2];
	int r = img_lock_loop_path(st->st_rdev, name, path, sizeof(path), err);
	if (r <= 0)
		return r;
	CLEANUP_FREE char *label = NULL;
	if (asprintf(&label, "%s (backed by %s)", name, path) < 0)
		return err_set(err, -ENOMEM, "%s: not enough memory", name);
	struct loop_info64 info;
	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return err_set(
			err, -errno, "%s: cannot tell what the loop device stands on: %m: attach it anew", label);
	dev_t dev = img_lock_decode_dev(info.lo_device);
	/* Before the file is touched: on a mount of ours it might answer late. */
	r = img_lock_check_mount(dev, label, err);
	if (r < 0)
		return r;

	CLEANUP_CLOSE int path_fd = open(path, O_PATH | O_CLOEXEC);
	if (path_fd < 0 || fstat(path_fd, st) < 0)
		return err_set(err, -errno,
			"%s: the backing file cannot be reached, so it cannot be locked: %m: "
			"attach the loop device to a file that has a name here",
			label);
	if (st->st_dev != dev || st->st_ino != info.lo_inode)
		return err_set(err, -ESTALE,
			"%s: that name leads to another file by now, so the backing file cannot be locked: "
			"attach the loop device to a file that has a name here",
			label);
	int backing_fd;
	r = img_lock_open(path_fd, label, st, true, &backing_fd, err);
	if (r < 0)
		return r;
	r = img_lock_flock(backing_fd, label, S_ISBLK(st->st_mode), err);
	if (r < 0) {
		close(backing_fd);
		return r;
	}
	*ret_fd = backing_fd;
	return 1;
}

int img_lock_take(struct img_lock *lock, int fd, const char *name, const struct stat *st, struct err *err)
{
	*lock = (struct img_lock){ 0 };
	int r = img_lock_flock(fd, name, S_ISBLK(st->st_mode), err);
	if (r < 0)
		return r;
	struct stat below = *st;
	while (S_ISBLK(below.st_mode)) {
		int backing_fd;
		r = img_lock_backing(fd, name, &below, &backing_fd, err);
		if (r <= 0)
			break;
		if (lock->nr_fds == IMG_LOCK_DEPTH) {
			close(backing_fd);
			r = err_set(err, -ELOOP, "%s: stands on more than %d loop devices: name one further down", name,
				IMG_LOCK_DEPTH);
			break;
		}
		lock->fds[lock->nr_fds++] = backing_fd;
		fd = backing_fd;
	}
	if (r >= 0)
		return 0;
	img_lock_drop(lock);
	return r;
}

void img_lock_drop(struct img_lock *lock)
{
	while (lock->nr_fds > 0)
		close(lock->fds[--lock->nr_fds]);
}
