/* SPDX-License-Identifier: MIT */
/* Where a database lives. Only stat() here: to open and close the file would drop SQLite's locks on it. */
#include "meta_private.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *place_name(const char *base, const char *suffix)
{
	char *name;
	return asprintf(&name, "%s%s", base, suffix) < 0 ? NULL : name;
}

int64_t place_size(const char *base, const char *suffix)
{
	CLEANUP_FREE char *name = place_name(base, suffix);
	if (!name)
		return -ENOMEM;
	struct stat st;
	if (stat(name, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	return st.st_size;
}

int place_find(const char *path, char **ret_real, struct err *err)
{
	struct stat st;
	if (stat(path, &st) < 0) {
		int code = -errno;
		return err_set(err, code, "%s: cannot open the database: %s", path, strerror(-code));
	}
	/* SQLite would delete the -wal of an empty file. */
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return err_set(
			err, -EMEDIUMTYPE, "%s: is not an eraimgfs database: name another with -o metadata=PATH", path);
	/* The -wal goes by the database's name: opened by another one, what stands in it would be missed. */
	if (st.st_nlink > 1)
		return err_set(err, -EMLINK, "%s: has %lu hard links, and a database must have one: remove the others",
			path, (unsigned long)st.st_nlink);

	*ret_real = realpath(path, NULL);
	if (!*ret_real) {
		int code = -errno;
		return err_set(err, code, "%s: cannot resolve the path: %s", path, strerror(-code));
	}
	return 0;
}

bool place_type_is_refused(const char *fs_type)
{
	/* They keep no locks, or no shared mappings, that hold between machines: two writers could not see each other. */
	static const char *const refused[] = { "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "coda",
		"ocfs2", "gfs2", "lustre", "orangefs", "beegfs", "gpfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph",
		"fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.davfs", "fuse.eraimgfs" };

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		if (strcmp(fs_type, refused[i]) == 0)
			return true;
	}
	return false;
}

int place_check_home(const char *path, struct err *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	const char *folder = dirname(copy);

	struct stat st;
	if (stat(folder, &st) < 0) {
		int code = -errno;
		return err_set(err, code, "%s: cannot use the folder: %s: name another with -o metadata=PATH", folder,
			strerror(-code));
	}

	char type[64];
	int r = mounts_fs_type(st.st_dev, type, sizeof(type));
	if (r == -ENOENT) /* btrfs: its st_dev stands in no mount */
		return 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot find out its file system: %s", folder, strerror(-r));
	if (place_type_is_refused(type))
		return err_set(err, -ENOTSUP,
			"%s: a database cannot live on %s: name a place on a local file system with -o metadata=PATH",
			folder, type);
	return 0;
}
