/* SPDX-License-Identifier: MIT */
#include "guard.h"

#include "instances.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define GUARD_SUFFIX ".era"

struct guard {
	char *path; /* absolute */
	bool exists;
	struct stat st; /* when it exists */
};

static bool guard_is_inode(const struct guard *guard, uint64_t dev, uint64_t ino)
{
	return guard->exists && guard->st.st_dev == dev && guard->st.st_ino == ino;
}

/* The name counts as well: what does not exist yet (a -wal) must not be made. */
static bool guard_is(const struct guard *guard, const char *path)
{
	struct stat st;
	if (strcmp(path, guard->path) == 0)
		return true;
	if (!guard->exists || stat(path, &st) < 0)
		return false;
	/* A device by another node of it. */
	if (S_ISBLK(st.st_mode) && S_ISBLK(guard->st.st_mode) && st.st_rdev == guard->st.st_rdev)
		return true;
	return guard_is_inode(guard, st.st_dev, st.st_ino);
}

/* 1, 0 or -ENOMEM. */
static int guard_is_database(const struct guard *guard, const char *database)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", ".witness", ".lock" };
	CLEANUP_FREE char *resolved = realpath(database, NULL);
	bool found = false;
	for (size_t i = 0; !found && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		CLEANUP_FREE char *path = NULL;
		if (asprintf(&path, "%s%s", resolved != NULL ? resolved : database, suffixes[i]) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		found = guard_is(guard, path);
	}
	return found;
}

static int guard_is_instance(const struct guard *guard, const struct ctl_instance *instance)
{
	/* Mounted over itself the image is seen by its inode alone: its path leads to the instance, which may hang. */
	if (guard_is_inode(guard, instance->image_dev, instance->image_ino) ||
		strcmp(guard->path, instance->image) == 0 ||
		(guard->exists && guard->st.st_dev == instance->mount_dev) ||
		(strcmp(instance->image, instance->mountpoint) != 0 && guard_is(guard, instance->image)))
		return 1;
	return guard_is_database(guard, instance->metadata);
}

static int guard_is_target(const struct guard *guard, const struct target *target)
{
	if (target->live)
		return guard_is_instance(guard, &target->instance);
	if (target->image != NULL && guard_is(guard, target->image))
		return 1;
	/* The database alone was named: its image is beside it, as a rule. */
	size_t len = strlen(target->database), suffix_len = strlen(GUARD_SUFFIX);
	if (target->image == NULL && len > suffix_len &&
		strcmp(target->database + len - suffix_len, GUARD_SUFFIX) == 0) {
		CLEANUP_FREE char *image = strndup(target->database, len - suffix_len);
		if (image == NULL)
			return -ENOMEM;
		if (guard_is(guard, image))
			return 1;
	}
	return guard_is_database(guard, target->database);
}

static int guard_is_any(const struct guard *guard, const struct target *target, struct err *err)
{
	struct instances instances;
	int r = instances_load(&instances, err);
	if (r < 0)
		return r;
	r = target != NULL ? guard_is_target(guard, target) : 0;
	for (size_t i = 0; r == 0 && i < instances.nr; i++)
		r = guard_is_instance(guard, &instances.items[i]);
	instances_clear(&instances);
	return r < 0 ? err_set(err, r, "out of memory") : r;
}

int guard_output(const char *file, const char *option, const struct target *target, struct err *err)
{
	if (file == NULL || strcmp(file, "-") == 0)
		return 0;
	struct guard guard = { .path = realpath(file, NULL) };
	guard.exists = guard.path != NULL && stat(guard.path, &guard.st) == 0;
	/* In a folder that cannot be looked at nothing is replaced either: who opens it says why. */
	if (guard.path == NULL && io_absolute(file, &guard.path) < 0)
		return 0;
	int r = guard_is_any(&guard, target, err);
	free(guard.path);
	if (r <= 0)
		return r;
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
		"%s: is an image, or belongs to its metadata: %s: name another", file, option);
}
