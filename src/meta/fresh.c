/* SPDX-License-Identifier: MIT */
/* A new file, whole or not at all: built under a temporary name beside its own. */
#include "meta_private.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fresh_begin(const char *path, char **ret_temporary)
{
	char *name = place_name(path, ".new-XXXXXX");
	if (!name)
		return -ENOMEM;
	int fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0600) < 0) {
		int code = -errno;
		if (fd >= 0) {
			close(fd);
			unlink(name);
		}
		free(name);
		return code;
	}
	close(fd);
	*ret_temporary = name;
	return 0;
}

static int give_name(const char *from, const char *to, bool replace)
{
	if (replace)
		return rename(from, to) < 0 ? -errno : 0;
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* The file system knows no such rename. */
	if (link(from, to) < 0)
		return -errno;
	return unlink(from) < 0 ? -errno : 0;
}

int fresh_finish(const char *temporary, const char *path, bool replace, struct err *err)
{
	int r = give_name(temporary, path, replace);
	if (r == -EEXIST)
		return err_set(err, r, "%s: exists already", path);
	if (r < 0)
		return err_set(err, r, "%s: cannot be created: %s", path, strerror(-r));

	/* Else a power loss could take the name back after the caller began to rely on it. */
	r = PLANTED(NO_DIRSYNC) ? 0 : io_sync_parent(path);
	if (r == 0)
		return 0;
	if (!replace)
		unlink(path);
	return err_set(err, r, "%s: cannot be created: fsync of its folder: %s", path, strerror(-r));
}

void fresh_drop(char *temporary)
{
	static const char *const suffixes[] = { "-wal", "-shm", "-journal", "" };

	for (size_t i = 0; temporary && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		CLEANUP_FREE char *file = place_name(temporary, suffixes[i]);
		if (file)
			unlink(file);
	}
	free(temporary);
}

int fresh_check_beside(const char *path, struct err *err)
{
	static const char *const suffixes[] = { "-wal", "-journal" };

	/* Left where they are: without the lock of path they may be those of an instance that begins just now. */
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		int64_t size = place_size(path, suffixes[i]);
		if (size < 0)
			return err_set(err, (int)size, "%s%s: cannot be looked at: %s", path, suffixes[i],
				strerror((int)-size));
		if (size > 0)
			return err_set(err, -ENOTEMPTY,
				"%s%s: belongs to another database: move it away, or name another file", path,
				suffixes[i]);
	}
	return 0;
}
