/* SPDX-License-Identifier: MIT */
/*
 * Which live instance does a path name?
 *
 * First by name, which touches nothing: a mount that is dead, frozen or another user's cannot be looked at. Then by
 * what the path leads to: any file on the mount, the image by another name of its inode, the metadata. Where several
 * instances have the name (one mounted over another, an image that was moved and replaced), what it leads to decides as
 * well.
 */
#include "base/cleanup.h"
#include "base/io.h"
#include "control/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct resolve {
	/* The target in up to two forms; NULL where there is none. */
	const char *names[2];
	bool by_name; /* look at names */
	const struct stat *st; /* look at what it leads to; NULL: do not */
	unsigned int nr_found;
	struct ctl_instance *found; /* the first */
};

/* target as an absolute path without "." and empty components, by its letters alone. NULL where ".." or memory forbid.
 * */
static char *resolve_lexical(const char *target)
{
	CLEANUP_FREE char *cwd = target[0] == '/' ? strdup("") : getcwd(NULL, 0);
	CLEANUP_FREE char *rest = strdup(target);
	char *path = cwd != NULL ? malloc(strlen(cwd) + strlen(target) + 2) : NULL;
	if (path == NULL || rest == NULL) {
		free(path);
		return NULL;
	}
	char *end = stpcpy(path, strcmp(cwd, "/") == 0 ? "" : cwd);
	char *state = NULL;
	for (char *part = strtok_r(rest, "/", &state); part != NULL; part = strtok_r(NULL, "/", &state)) {
		if (strcmp(part, "..") == 0) {
			free(path);
			return NULL;
		}
		if (strcmp(part, ".") != 0)
			end += sprintf(end, "/%s", part);
	}
	if (end == path)
		strcpy(path, "/");
	return path;
}

static bool resolve_is_name(const struct resolve *resolve, const struct ctl_instance *instance)
{
	for (unsigned int i = 0; i < 2; i++) {
		const char *name = resolve->names[i];
		if (name != NULL &&
			(strcmp(name, instance->mountpoint) == 0 || strcmp(name, instance->file) == 0 ||
				strcmp(name, instance->image) == 0 || strcmp(name, instance->metadata) == 0))
			return true;
	}
	return false;
}

static bool resolve_leads_to(const struct stat *st, const struct ctl_instance *instance)
{
	if (st->st_dev == instance->mount_dev ||
		(st->st_dev == instance->image_dev && st->st_ino == instance->image_ino))
		return true;
	/* Another node of the same device. */
	struct stat other;
	if (S_ISBLK(st->st_mode))
		return stat(instance->image, &other) == 0 && S_ISBLK(other.st_mode) && other.st_rdev == st->st_rdev;
	return stat(instance->metadata, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static int resolve_visit(const struct ctl_instance *instance, void *arg)
{
	struct resolve *resolve = arg;
	if (resolve->by_name && !resolve_is_name(resolve, instance))
		return 0;
	if (resolve->st != NULL && !resolve_leads_to(resolve->st, instance))
		return 0;
	if (resolve->nr_found++ == 0)
		*resolve->found = *instance;
	return 0;
}

/* Number of instances that match, the first of them in resolve->found; -errno. */
static int resolve_run(struct resolve *resolve, bool by_name, const struct stat *st)
{
	resolve->by_name = by_name;
	resolve->st = st;
	resolve->nr_found = 0;
	int r = ctl_registry_each(resolve_visit, resolve);
	return r < 0 ? r : (int)resolve->nr_found;
}

static int resolve_ambiguous(const char *target, struct err *err)
{
	return err_set_exit(err, ERR_EXIT_USAGE, -ENOTUNIQ,
		"%s: names several live instances: give the path of one's metadata (era-cli list --json)", target);
}

/* Names decided nothing, or too much. */
static int resolve_by_stat(struct resolve *resolve, const char *target, bool by_name, struct err *err)
{
	struct stat st;
	if (stat(target, &st) < 0) {
		if (by_name)
			return resolve_ambiguous(target, err);
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		if (errno == ENOTCONN)
			return err_set(err, -ENOTCONN,
				"%s: its eraimgfs is gone and left a dead mount: umount %s, then mount it again",
				target, target);
		return err_set(err, -errno, "%s: %m", target);
	}
	int r = resolve_run(resolve, by_name, &st);
	return r > 1 || (r == 0 && by_name) ? resolve_ambiguous(target, err) : r;
}

int ctl_resolve(const char *target, struct ctl_instance *ret_instance, struct err *err)
{
	if (target[0] == '\0')
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "an empty path is no TARGET");
	CLEANUP_FREE char *lexical = resolve_lexical(target);
	struct resolve resolve = { .names = { lexical }, .found = ret_instance };
	int r = resolve_run(&resolve, true, NULL);
	CLEANUP_FREE char *absolute = NULL;
	/* Symlinks on the way: this looks at the folders, and so comes second. */
	if (r == 0 && io_absolute(target, &absolute) == 0) {
		resolve.names[1] = absolute;
		r = resolve_run(&resolve, true, NULL);
	}
	if (r >= 0 && r != 1)
		r = resolve_by_stat(&resolve, target, r > 1, err);
	else if (r < 0)
		err_set(err, r, "%s: cannot look into the run folder: %s", target, strerror(-r));
	return r;
}
