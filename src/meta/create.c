/* SPDX-License-Identifier: MIT */
/* A new database, whole or not at all. */
#include "meta_private.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What stands beside path although there is no path would be taken for the new database's. */
static int clear_leftovers(const char *path, struct err *err)
{
	static const char *const suffixes[] = { "-wal", "-journal", "-shm" };

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		bool content = strcmp(suffixes[i], "-shm") != 0;
		int64_t size = place_size(path, suffixes[i]);
		if (content && size > 0)
			return err_set(err, -ENOTEMPTY, "%s%s: belongs to a database that is gone: move it away", path,
				suffixes[i]);
		CLEANUP_FREE char *name = place_name(path, suffixes[i]);
		if (size < 0 || !name || (unlink(name) < 0 && errno != ENOENT)) {
			int code = size < 0 ? (int)size : name ? -errno : -ENOMEM;
			return err_set(err, code, "%s%s: cannot be removed: %s", path, suffixes[i], strerror(-code));
		}
	}
	return 0;
}

static int fill(struct db *db, const struct meta_super *super)
{
	struct root root = {
		.super = {
			.block_size = super->block_size,
			.image_size = super->image_size,
			.nr_blocks = super->nr_blocks,
			.current_era = super->current_era,
			.durable_era = super->durable_era,
			.floor_era = super->floor_era,
			.image_is_device = super->image_is_device,
			.image_mtime_ns = super->image_mtime_ns,
			.state = META_CLEAN,
		},
	};
	memcpy(root.super.uuid, super->uuid, sizeof(root.super.uuid));

	_Static_assert(PAGE_SIZE == 4096, "the text below says so");
	int r = db_exec(db,
		"PRAGMA page_size=4096; PRAGMA encoding='UTF-8'; PRAGMA journal_mode=wal; PRAGMA synchronous=full; "
		"PRAGMA wal_autocheckpoint=0; BEGIN IMMEDIATE");
	if (r == 0)
		r = schema_create(db);
	if (r == 0)
		r = super_put(db, SQL_SUPER_PUT, &root);
	if (r == 0)
		r = db_exec(db, "COMMIT");
	if (r < 0)
		return r;

	/* With synchronous=FULL this fsyncs the file: a crash after it was given its name finds it whole. */
	int busy_log = -1;
	int done = -1;
	if (sqlite3_wal_checkpoint_v2(db->sql, NULL, SQLITE_CHECKPOINT_TRUNCATE, &busy_log, &done))
		return db_error(db);
	return busy_log == 0 && done == 0 ? 0 : -EIO;
}

int create_empty(struct db *db, const char *temporary, const struct meta_super *super)
{
	int r = db_open(db, temporary, DB_WRITE);
	return r < 0 ? r : fill(db, super);
}

static int build(const char *path, const struct meta_super *super, struct err *err)
{
	char *temporary = NULL;
	struct db *db = calloc(1, sizeof(*db));
	int r = db ? fresh_begin(path, &temporary) : -ENOMEM;
	if (r < 0) {
		err_set(err, r, "%s: cannot be created: %s", path, strerror(-r));
		goto out;
	}

	r = create_empty(db, temporary, super);
	if (r < 0) {
		db_err_set(db, err, r, path, "created");
		goto out;
	}
	db_close(db);

	r = clear_leftovers(path, err);
	if (r < 0)
		goto out;
	r = fresh_finish(temporary, path, false, err);
out:
	if (db)
		db_close(db);
	free(db);
	fresh_drop(temporary);
	return r;
}

int create_check(const char *path, const struct meta_super *super, struct err *err)
{
	const char *flaw = super_flaw(&(struct meta_super){
		.block_size = super->block_size, .image_size = super->image_size, .nr_blocks = super->nr_blocks });
	if (flaw)
		return err_set(err, -EINVAL, "%s: cannot be created: %s", path, flaw);

	int r = place_check_home(path, err);
	if (r < 0)
		return r;

	struct stat st;
	if (lstat(path, &st) == 0)
		return err_set(err, -EEXIST, "%s: exists already", path);
	if (errno != ENOENT) {
		int code = -errno;
		return err_set(err, code, "%s: cannot be created: %s", path, strerror(-code));
	}
	return 0;
}

int meta_create(const char *path, const struct meta_super *super, struct err *err)
{
	int r = create_check(path, super, err);
	if (r < 0)
		return r;
	CLEANUP_FREE char *absolute = NULL;
	r = io_absolute(path, &absolute);
	if (r < 0)
		return err_set(err, r, "%s: cannot resolve the path: %s", path, strerror(-r));
	return build(absolute, super, err);
}
