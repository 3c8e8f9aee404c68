/* SPDX-License-Identifier: MIT */
/* img_lock - who else uses this image? Private to the image layer. */
#ifndef IMAGE_IMG_LOCK_H
#define IMAGE_IMG_LOCK_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/stat.h>

/* Loop devices may stand on loop devices. A higher tower is refused. */
#define IMG_LOCK_DEPTH 8

/* The locks are the open files: closing them drops the locks. */
struct img_lock {
	int nr_fds;
	int fds[IMG_LOCK_DEPTH]; /* what the loop devices below the image stand on, uppermost first */
};

/* Opens what path_fd (O_PATH) names, an image by its kind (regular file or block device), for reading and, unless
 * read_only, writing; a block device O_EXCL. name is what errors call it. */
int img_lock_open(int path_fd, const char *name, const struct stat *st, bool read_only, int *ret_fd, struct err *err);

/* Refuses (-EINVAL) an object of the mount with this st_dev where that is a mount of eraimgfs. */
int img_lock_check_mount(dev_t dev, const char *name, struct err *err);

/* Locks the image that fd is open on, and, where that is a loop device (or a partition of one), everything that it stands
 * on. The first lock belongs to fd and goes with it, also after a failure. */
int img_lock_take(struct img_lock *lock, int fd, const char *name, const struct stat *st, struct err *err);

/* Drops what img_lock_take() took below the image; a lock that is all zeros is fine. */
void img_lock_drop(struct img_lock *lock);

#endif
