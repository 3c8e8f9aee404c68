/* SPDX-License-Identifier: MIT */
/*
 * lockfile - DATABASE.lock, held for the life of the instance that writes DATABASE.
 *
 * A file of its own, because any close() of the database file would drop SQLite's locks. It is an open file description
 * lock (fcntl F_OFD_SETLK), so that others can look at it (F_OFD_GETLK) without taking it. The file goes when its owner
 * stops; so who has locked it must see that its name is still there, and else try again.
 */
#include "core_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int lockfile_path(const char *database, char ret_path[PATH_MAX])
{
	return snprintf(ret_path, PATH_MAX, "%s.lock", database) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int lockfile_take(const char *database, int *ret_fd, struct err *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat opened, named;
	char path[PATH_MAX];

	if (lockfile_path(database, path) < 0)
		return err_set(err, -ENAMETOOLONG, "%s: the name is too long for its lock file", database);
	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_set(err, -errno,
				"%s: the lock file of the metadata cannot be made: %s: name a place that can be written with -o metadata=PATH",
				path, strerror(errno));
		if (fcntl(fd, F_OFD_SETLK, &whole) < 0) {
			close(fd);
			return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
				"%s: these metadata are in use by another eraimgfs: see era-cli list", database);
		}
		if (fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && opened.st_ino == named.st_ino &&
			opened.st_dev == named.st_dev) {
			*ret_fd = fd;
			return 0;
		}
		close(fd);
	}
}

void lockfile_drop(const char *database, int fd)
{
	char path[PATH_MAX];

	if (fd < 0)
		return;
	if (lockfile_path(database, path) == 0)
		unlink(path);
	close(fd);
}
