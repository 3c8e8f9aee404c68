/* SPDX-License-Identifier: MIT */
/* What is left to do with a database that cannot be used. */
#include "meta_private.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int move(const char *from, const char *to, const char *suffix, bool may_lack)
{
	CLEANUP_FREE char *old = place_name(from, suffix);
	CLEANUP_FREE char *new = place_name(to, suffix);
	if (!old || !new)
		return -ENOMEM;
	if (renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EINVAL || errno == ENOSYS) /* the file system knows no such rename; the caller chose a free name */
		return rename(old, new) < 0 ? -errno : 0;
	return may_lack && errno == ENOENT ? 0 : -errno;
}

static bool name_is_free(const char *name)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		CLEANUP_FREE char *file = place_name(name, suffixes[i]);
		struct stat st;
		if (!file || lstat(file, &st) == 0 || errno != ENOENT)
			return false;
	}
	return true;
}

static char *free_name(const char *path)
{
	for (unsigned int n = 1; n < 10000; n++) {
		char suffix[32];
		snprintf(suffix, sizeof(suffix), ".damaged-%u", n);
		char *name = place_name(path, suffix);
		if (!name || name_is_free(name))
			return name;
		free(name);
	}
	return NULL;
}

int meta_set_aside(const char *path, char **ret_path, struct err *err)
{
	CLEANUP_FREE char *real = realpath(path, NULL);
	if (!real) {
		int code = -errno;
		return err_set(err, code, "%s: cannot be moved aside: %s", path, strerror(-code));
	}
	char *aside = free_name(real);
	if (!aside)
		return err_set(
			err, -EEXIST, "%s: cannot be moved aside: no free name: remove its .damaged files", path);

	/* The database goes first and for good: a crash in between must not leave it without its -wal, where it could
	 * pass for a sound, older one. An orphaned -wal is refused by name when a new database is made. */
	int r = move(real, aside, "", false);
	if (r == 0)
		r = io_sync_parent(real);
	if (r == 0)
		r = move(real, aside, "-wal", true);
	if (r == 0)
		r = move(real, aside, "-shm", true);
	/* Else a power loss could bring the -wal back beside the new database. */
	if (r == 0)
		r = io_sync_parent(real);
	if (r < 0) {
		err_set(err, r, "%s: cannot be moved aside to %s: %s", path, aside, strerror(-r));
		free(aside);
		return r;
	}
	*ret_path = aside;
	return 0;
}

uint64_t meta_salvage_era(const char *path)
{
	static const char *const queries[] = {
		"SELECT current_era FROM superblock WHERE current_era BETWEEN 1 AND ?1",
		"SELECT durable_era FROM superblock WHERE durable_era BETWEEN 1 AND ?1",
		"SELECT floor_era FROM superblock WHERE floor_era BETWEEN 1 AND ?1",
		"SELECT era FROM writeset WHERE era BETWEEN 1 AND ?1",
		"SELECT era FROM writeset_chunk WHERE era BETWEEN 1 AND ?1",
		"SELECT newest FROM era_chunk WHERE newest BETWEEN 1 AND ?1",
		"SELECT era FROM label WHERE era BETWEEN 1 AND ?1",
	};
	/* No image was ever that old: such a value is damage, and one era more must still be possible. */
	const uint64_t plausible = ERA_MAX / 2;
	uint64_t greatest = 0;

	CLEANUP_FREE char *real = realpath(path, NULL);
	struct db *db = calloc(1, sizeof(*db));
	if (db && real && db_open(db, real, DB_READ) == 0) {
		for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
			sqlite3_stmt *stmt = NULL;
			sqlite3_prepare_v2(db->sql, queries[i], -1, &stmt, NULL);
			bind_u64(stmt, 1, plausible);
			/* Row by row, not by max(): those before the damage count. */
			while (db_step(db, stmt) == 1) {
				uint64_t era = (uint64_t)sqlite3_column_int64(stmt, 0);
				if (era > greatest)
					greatest = era;
			}
			sqlite3_finalize(stmt);
		}
	}
	if (db)
		db_close(db);
	free(db);
	return greatest;
}
