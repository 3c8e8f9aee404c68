/* SPDX-License-Identifier: MIT */
#include "fsdir.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#define FSDIR_PATIENCE_MS 2000
#define FSDIR_NAP_MS 50

struct fsdir_mount {
	const char *path; /* whose mount it is */
	size_t len; /* of the mount point found so far */
	dev_t dev;
	bool is_here; /* the mount point is path itself */
	bool is_fuse;
};

/* Does mount point lie on the way to path? */
static bool fsdir_leads_to(const char *mount_point, size_t len, const char *path)
{
	if (len == 1)
		return true;
	return strncmp(mount_point, path, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static int fsdir_visit(const struct mounts_entry *entry, void *arg)
{
	struct fsdir_mount *mount = arg;
	size_t len = strlen(entry->path);
	if (len < mount->len || !fsdir_leads_to(entry->path, len, mount->path))
		return 0;
	mount->len = len;
	mount->dev = entry->dev;
	mount->is_here = strcmp(entry->path, mount->path) == 0;
	mount->is_fuse = strncmp(entry->type, "fuse", 4) == 0 && strcmp(entry->type, "fusectl") != 0;
	return 0;
}

/* The mount that holds path (absolute, no symlinks), without a touch of it. */
static int fsdir_find_mount(const char *path, struct fsdir_mount *ret_mount)
{
	*ret_mount = (struct fsdir_mount){ .path = path };
	return mounts_each(fsdir_visit, ret_mount);
}

/* path is a mount point of what can be frozen? *ret_dev: its device. */
static int fsdir_check_mount(const char *name, const char *path, dev_t *ret_dev, struct err *err)
{
	struct fsdir_mount mount;
	int r = fsdir_find_mount(path, &mount);
	if (r < 0)
		return err_set(err, r, "%s: cannot tell what is mounted there: %s", name, strerror(-r));
	if (mount.is_here && mount.is_fuse)
		return err_set(err, -EOPNOTSUPP,
			"%s: is a FUSE file system, which the kernel cannot freeze: name where the file system on the image is mounted",
			name);
	if (!mount.is_here)
		return err_set(err, -EINVAL,
			"%s: no file system is mounted there: name the mount point of the one to freeze", name);
	*ret_dev = mount.dev;
	return 0;
}

int fsdir_open(const char *name, struct fsdir *ret_dir, struct err *err)
{
	struct fsdir dir = { .name = name, .fd = -1 };
	struct fsdir_mount mount;
	char *path;
	int r = io_absolute(name, &path);
	if (r < 0)
		return err_set(err, r, "%s: %s", name, strerror(-r));
	/* By its name first: to open a FUSE file system that is dead or stopped may hang. */
	if (fsdir_find_mount(path, &mount) == 0 && mount.is_here && mount.is_fuse)
		r = fsdir_check_mount(name, path, &dir.mount_dev, err);
	free(path);
	if (r < 0)
		return r;
	dir.fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	path = dir.fd >= 0 && fstat(dir.fd, &st) == 0 ? realpath(name, NULL) : NULL;
	if (path == NULL) {
		r = err_set(err, -errno, "%s: %m", name);
	} else {
		dir.dev = st.st_dev;
		r = fsdir_check_mount(name, path, &dir.mount_dev, err);
	}
	free(path);
	if (r < 0) {
		fsdir_close(&dir);
		return r;
	}
	*ret_dir = dir;
	return 0;
}

void fsdir_close(struct fsdir *dir)
{
	if (dir->fd >= 0)
		close(dir->fd);
	dir->fd = -1;
}

bool fsdir_is_same(const struct fsdir *dir, const struct fsdir *other)
{
	return dir->dev == other->dev || dir->mount_dev == other->mount_dev;
}

bool fsdir_holds(const struct fsdir *dir, const char *path)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *folder = slash > path ? strndup(path, (size_t)(slash - path)) : strdup("/");
	CLEANUP_FREE char *resolved = folder != NULL ? realpath(folder, NULL) : NULL;
	struct stat st;
	if (resolved == NULL || stat(resolved, &st) < 0)
		return false;
	struct fsdir_mount mount;
	return st.st_dev == dir->dev ||
	       (fsdir_find_mount(resolved, &mount) == 0 && mount.len > 0 && mount.dev == dir->mount_dev);
}

int fsdir_check_instance(const struct fsdir *dir, const struct ctl_instance *instance, struct err *err)
{
	const char *what = NULL;
	if (instance->image_dev == dir->dev || fsdir_holds(dir, instance->image))
		what = instance->image;
	else if (fsdir_holds(dir, instance->metadata))
		what = instance->metadata;
	else if (fsdir_holds(dir, instance->socket))
		what = instance->socket;
	if (what == NULL)
		return 0;
	return err_set(err, -EDEADLK,
		"%s: holds %s, which eraimgfs must be able to write to: name the file system on the image, not the one that the image is on",
		dir->name, what);
}

int fsdir_freeze(const struct fsdir *dir)
{
	const struct timespec nap = { .tv_nsec = FSDIR_NAP_MS * 1000000L };
	/* The guard of a freeze that has just been thawed is a moment late. */
	for (int naps = 0; ioctl(dir->fd, FIFREEZE, 0) < 0; naps++) {
		if (errno != EBUSY || naps == FSDIR_PATIENCE_MS / FSDIR_NAP_MS)
			return -errno;
		nanosleep(&nap, NULL);
	}
	return 0;
}

int fsdir_thaw(const struct fsdir *dir)
{
	return ioctl(dir->fd, FITHAW, 0) == 0 ? 0 : -errno;
}

int fsdir_explain_freeze(const struct fsdir *dir, int code, struct err *err)
{
	if (code == -EBUSY)
		return err_set(err, code,
			"%s: is frozen already, by somebody else, and is left so: try again when it is thawed (fsfreeze -u)",
			dir->name);
	if (code == -EPERM)
		return err_set(err, code, "%s: cannot be frozen by this user: run era-cli as root", dir->name);
	if (code == -EOPNOTSUPP || code == -ENOTTY)
		return err_set(err, code,
			"%s: is a file system that cannot be frozen: leave out --fsfreeze, or stop what writes to it",
			dir->name);
	return err_set(err, code, "%s: cannot be frozen: %s", dir->name, strerror(-code));
}

int fsdir_explain_thaw(const struct fsdir *dir, int code, struct err *err)
{
	/* Then it may have been written to before the gate was closed. */
	if (code == -EINVAL)
		return err_set(err, code,
			"%s: was thawed by somebody else meanwhile: its files may not be at one point in time: try again",
			dir->name);
	return err_set(
		err, code, "%s: cannot be thawed: %s: thaw it yourself (fsfreeze -u)", dir->name, strerror(-code));
}
