/* SPDX-License-Identifier: MIT */
/*
 * Which live instance does a path name?
 *
 * First by name, which touches nothing: a mount that is dead, frozen or another user's cannot be looked at. Then by
 * what the path leads to: any file on the mount, the image by another name of its inode, the metadata. Where several
 * instances have the name (one mounted over another, an image that was moved and replaced), what it leads to decides as
 * well. Where that is one image or one metadata, which several have since one took it over from another, it is the one
 * with the greatest generation: the others are fenced. A mount is never chosen so: each has its own.
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
	struct ctl_instance *found; /* the first; while all are heirs, that with the greatest generation */
	bool all_heirs; /* all that were found match by image or metadata alone, and have one UUID */
	bool is_tied; /* another heir has found's generation */
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

static bool resolve_has_name(const struct resolve *resolve, const char *one, const char *other)
{
	for (unsigned int i = 0; i < 2; i++) {
		const char *name = resolve->names[i];
		if (name != NULL && (strcmp(name, one) == 0 || strcmp(name, other) == 0))
			return true;
	}
	return false;
}

static bool resolve_is_name(const struct resolve *resolve, const struct ctl_instance *instance)
{
	return resolve_has_name(resolve, instance->mountpoint, instance->file) ||
	       resolve_has_name(resolve, instance->image, instance->metadata);
}

/* Of an instance that matches: whether its mount does. */
static bool resolve_is_mount(const struct resolve *resolve, const struct ctl_instance *instance)
{
	return (resolve->by_name && resolve_has_name(resolve, instance->mountpoint, instance->file)) ||
	       (resolve->st != NULL && resolve->st->st_dev == instance->mount_dev);
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
	bool is_mount = resolve_is_mount(resolve, instance);
	if (instance->fenced && !is_mount)
		return 0;
	if (resolve->nr_found++ == 0) {
		*resolve->found = *instance;
		resolve->all_heirs = !is_mount;
		resolve->is_tied = false;
	} else if (is_mount || strcmp(instance->uuid, resolve->found->uuid) != 0) {
		resolve->all_heirs = false;
	} else if (instance->generation == resolve->found->generation) {
		resolve->is_tied = true;
	} else if (instance->generation > resolve->found->generation) {
		*resolve->found = *instance;
		resolve->is_tied = false;
	}
	return 0;
}

/* Number of instances that match, one of them in resolve->found; -errno. */
static int resolve_run(struct resolve *resolve, bool by_name, const struct stat *st)
{
	resolve->by_name = by_name;
	resolve->st = st;
	resolve->nr_found = 0;
	int r = ctl_registry_each(resolve_visit, resolve);
	return r < 0 ? r : (int)resolve->nr_found;
}

static int resolve_failed(const char *target, int error, struct err *err)
{
	return err_set(err, error, "%s: cannot look into the run folder: %s", target, strerror(-error));
}

static int resolve_ambiguous(const char *target, struct err *err)
{
	return err_set_exit(err, ERR_EXIT_USAGE, -ENOTUNIQ,
		"%s: names several live instances: give the mount point or the metadata of one (era-cli list --json)",
		target);
}

/* Several match, and nothing is left to look at. */
static int resolve_by_generation(const struct resolve *resolve, const char *target, struct err *err)
{
	if (resolve->all_heirs && !resolve->is_tied)
		return 1;
	return resolve_ambiguous(target, err);
}

static int resolve_visit_heir(const struct ctl_instance *instance, void *arg)
{
	struct resolve *resolve = arg;
	struct ctl_instance *found = resolve->found;
	if (strcmp(instance->uuid, found->uuid) != 0 || found->image_ino == 0 ||
		instance->image_ino != found->image_ino || instance->image_dev != found->image_dev)
		return 0;
	if (instance->generation > found->generation) {
		*found = *instance;
		resolve->nr_found = 1;
	} else if (instance->generation == found->generation && resolve->nr_found > 0) {
		resolve->nr_found++;
	}
	return 0;
}

/* One matches by its image's or metadata's name: who took them over may know them by another name. */
static int resolve_heir(struct resolve *resolve, const char *target, struct err *err)
{
	resolve->nr_found = 0;
	int r = ctl_registry_each(resolve_visit_heir, resolve);
	if (r < 0)
		return resolve_failed(target, r, err);
	return resolve->nr_found > 1 ? resolve_ambiguous(target, err) : 1;
}

/* Names decided nothing, or too much. */
static int resolve_by_stat(struct resolve *resolve, const char *target, bool by_name, struct err *err)
{
	struct stat st;
	if (stat(target, &st) < 0) {
		if (by_name)
			return resolve_by_generation(resolve, target, err);
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		if (errno == ENOTCONN)
			return err_set(err, -ENOTCONN,
				"%s: its eraimgfs is gone and left a dead mount: umount %s, then mount it again",
				target, target);
		return err_set(err, -errno, "%s: %m", target);
	}
	int r = resolve_run(resolve, by_name, &st);
	if (r < 0)
		return resolve_failed(target, r, err);
	if (r > 1)
		return resolve_by_generation(resolve, target, err);
	/* It leads to none of those that have the name. */
	return r == 0 && by_name ? resolve_ambiguous(target, err) : r;
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
	if (r < 0)
		return resolve_failed(target, r, err);
	if (r != 1)
		r = resolve_by_stat(&resolve, target, r > 1, err);
	return r == 1 && resolve.all_heirs ? resolve_heir(&resolve, target, err) : r;
}
