/* SPDX-License-Identifier: MIT */
/* img_lock - who else uses this image? Private to the image layer. */
#ifndef IMAGE_IMG_LOCK_H
#define IMAGE_IMG_LOCK_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/stat.h>

/* Loop devices may stand on loop devices. A higher tower is refused. */
#define IMG_LOCK_DEPTH 8

/* The image, or what a loop device stands on. */
struct img_lock_level {
	char *name; /* what errors call it */
	struct stat st; /* kind and identity, as when it was found */
	int path_fd; /* O_PATH: leads to it whatever its name leads to by now */
	int fd; /* holds the lock; -1: not locked */
};

/* All that the image stands on stays known while the locks are dropped. All zeros: nothing. */
struct img_lock {
	int nr_levels;
	struct img_lock_level levels[1 + IMG_LOCK_DEPTH]; /* the image, uppermost, and what is below it */
};

/* Opens what path_fd (O_PATH) names for reading and, unless read_only, writing; a block device O_EXCL where claim says so. name
 * is what errors call it. -EBUSY has exit ERR_EXIT_REFUSED. */
int img_lock_open(int path_fd, const char *name, bool read_only, bool claim, int *ret_fd, struct err *err);

/* Refuses (-EINVAL) an object of the mount with this st_dev where that is a mount of eraimgfs. */
int img_lock_check_mount(dev_t dev, const char *name, struct err *err);

/* Makes the image the first level of an empty lock; path_fd (O_PATH) is the lock's in any case. Nothing is locked yet. */
int img_lock_init(struct img_lock *lock, int path_fd, const char *name, const struct stat *st, struct err *err);

/*
 * Locks the image and, where it is a loop device (or a partition of one), all that it stands on, which the first call
 * finds. io_fd is what a regular file does its I/O with; a device has a descriptor of its own for the lock. Only when
 * nothing is locked. On error nothing is.
 */
int img_lock_take(struct img_lock *lock, int io_fd, bool read_only, struct err *err);

/* What the image stands on at the very bottom, after a first img_lock_take(). */
const struct stat *img_lock_base(const struct img_lock *lock);

/* Drops the locks, if there are any. */
void img_lock_drop(struct img_lock *lock);

/* Drops the locks and forgets the levels. */
void img_lock_release(struct img_lock *lock);

#endif
