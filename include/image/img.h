/* SPDX-License-Identifier: MIT */
/*
 * img - the backing image: a regular file or a block device.
 *
 * A small vtable, so that a test can stack a faulty image on a real one. All calls but img_close may come from any thread
 * at the same time. Offsets and lengths are bytes. Nothing here knows of blocks or eras.
 */
#ifndef IMAGE_IMG_H
#define IMAGE_IMG_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

struct img;

/* What each operation of an image must do. img_* below check arguments and call these. */
struct img_ops {
	/* Bytes read, short only at the end of the image; -errno. */
	ssize_t (*pread)(struct img *img, void *buf, size_t len, uint64_t offset);
	/* Bytes written, short only when an error came after some; -errno when nothing was written. */
	ssize_t (*pwrite)(struct img *img, const void *buf, size_t len, uint64_t offset);
	/* mode as in fallocate(2). 0 or -errno; -EOPNOTSUPP where the file system cannot. */
	int (*fallocate)(struct img *img, int mode, uint64_t offset, uint64_t len);
	/* Copies within the image; ranges do not overlap. Bytes copied or -errno. */
	ssize_t (*copy)(struct img *img, uint64_t from, uint64_t to, size_t len);
	/* SEEK_DATA or SEEK_HOLE. Offset or -errno (-ENXIO: no data from there on). */
	int64_t (*seek)(struct img *img, uint64_t offset, int whence);
	/* fsync. 0 or -errno. After an error the caller must not retry and take a 0 for clean: the kernel marks the
	 * pages clean when it reports the error. */
	int (*flush)(struct img *img);
	/* Drops clean cached pages, so that the next read comes from the device. 0 or -errno. */
	int (*drop_cache)(struct img *img);
	int (*set_mtime)(struct img *img, struct timespec mtime);
	int (*stat)(struct img *img, struct stat *ret_stat);
	int (*statvfs)(struct img *img, struct statvfs *ret_stat);
	int (*measure)(struct img *img, uint64_t *ret_size_bytes);
	/* FICLONE of the whole image into fd. 0 or -errno. */
	int (*clone)(struct img *img, int fd);
	/* See img_unlock() and img_relock(). */
	void (*unlock)(struct img *img);
	int (*relock)(struct img *img, struct err *err);
	void (*close)(struct img *img);
};

/* An implementation embeds this as its first member and fills it in. */
struct img {
	const struct img_ops *ops;
	uint64_t size_bytes; /* fixed while open; a device's by BLKGETSIZE64 */
	bool is_device;
	bool read_only;
	bool has_foreign_clock; /* its mtimes are of another clock than this machine's (a network file system, FUSE) */
	/* What it stands on, beneath all loop devices: a file's st_dev and st_ino, or 0 and a device's st_rdev. The same for
	 * every name of one image. */
	uint64_t base_dev, base_ino;
};

/*
 * Opens and locks path for the life of the img.
 *
 * Refused, each with its reason and way on in err, and nothing changed: missing, a directory or another kind of file,
 * unreadable or (unless read_only) unwritable, empty, on a mount of eraimgfs (also through a loop device), in use by
 * another instance. The lock is flock(2) LOCK_EX on the image's own inode (symlinks, hard links and bind mounts meet
 * there); a block device is opened O_EXCL as well, which meets at the device whatever node names it; a loop device's
 * backing file (LOOP_GET_STATUS64, /sys/dev/block/MAJ:MIN/loop/backing_file, or ../loop for a partition) is locked too,
 * and an image that some loop device backs meets it there. A lock that is taken gives exit ERR_EXIT_REFUSED, -EBUSY.
 */
int img_open(const char *path, bool read_only, struct img **ret_img, struct err *err);

/* Drops the locks. NULL is fine. */
void img_close(struct img *img);

/* Drops the locks, of the image and of all that it stands on, and keeps it open: another may lock, open and change it.
 * Nothing that changes the image may be under way: a device stays claimed until that is done. This and img_relock() are for one
 * thread at a time, in turns. */
void img_unlock(struct img *img);

/* Takes the locks again, by the open image and not by its name. 0; -EBUSY with exit ERR_EXIT_REFUSED when another has one;
 * -errno. After an error none is held. */
int img_relock(struct img *img, struct err *err);

/* The size that it has now, which somebody else may have changed. 0 or -errno. */
int img_measure(struct img *img, uint64_t *ret_size_bytes);

/* Makes fd, an empty file that is open for writing on the image's own file system, a clone of the image that shares its blocks
 * (FICLONE, ioctl_ficlonerange(2)). -EOPNOTSUPP, -EXDEV, -EINVAL: the file system or the image cannot; -errno. */
int img_clone(struct img *img, int fd);

/* Reads at most what lies inside the image; 0 at or beyond its end. */
ssize_t img_pread(struct img *img, void *buf, size_t len, uint64_t offset);

/* Writes at most what lies inside the image. -EFBIG at or beyond its end. -EROFS when read only. */
ssize_t img_pwrite(struct img *img, const void *buf, size_t len, uint64_t offset);

int img_fallocate(struct img *img, int mode, uint64_t offset, uint64_t len);
ssize_t img_copy(struct img *img, uint64_t from, uint64_t to, size_t len);

/* SEEK_DATA / SEEK_HOLE; where the backing cannot tell (a device), all is data. -ENXIO at or beyond the end. */
int64_t img_seek(struct img *img, uint64_t offset, int whence);

int img_flush(struct img *img);
int img_drop_cache(struct img *img);
int img_set_mtime(struct img *img, struct timespec mtime);
int img_stat(struct img *img, struct stat *ret_stat);
int img_statvfs(struct img *img, struct statvfs *ret_stat);

#endif
