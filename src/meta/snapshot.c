/* SPDX-License-Identifier: MIT */
/*
 * A copy of what a reader sees, as a file for readers alone.
 *
 * SQLite's backup takes the pages of the reader's own snapshot, so the source is held up by nothing but that. Then the copy
 * is verified, and marked: metadata that an image went on without must never be its own again.
 */
#include "meta_private.h"

#include "base/io.h"
#include "meta/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int copy_pages(struct meta_reader *reader, const char *temporary, const char *path, struct err *err)
{
	struct db *db = calloc(1, sizeof(*db));
	if (!db)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	int r = db_open(db, temporary, DB_WRITE);
	if (r == 0) {
		sqlite3_backup *backup = sqlite3_backup_init(db->sql, "main", reader->db.sql, "main");
		if (backup)
			sqlite3_backup_step(backup, -1);
		/* What went wrong stays with the new connection, also where reading did. */
		if (!backup || sqlite3_backup_finish(backup))
			r = db_error(db);
	}
	if (r < 0)
		db_err_set(db, err, r, r == -EUCLEAN ? reader->path : path, "created");
	db_close(db);
	free(db);
	return r < 0 ? r : reader_check_still(reader, err);
}

/* settled_from: whose intents those are has recorded all that they stand for. */
static int mark(const char *temporary, const char *path, uint64_t settled_from, struct err *err)
{
	struct meta *meta;
	int r = meta_open(temporary, &meta, err); /* verifies it */
	if (r < 0)
		return r;
	r = meta_begin(meta, META_FULL);
	if (r == 0)
		r = meta_intent_drop(meta, settled_from, UINT64_MAX);
	if (r == 0) {
		meta_pending(meta)->state = META_SNAPSHOT;
		r = meta_commit(meta);
	}
	/* fsyncs the file, with all pages that were copied: a crash after it was given its name finds it whole, and it
	 * needs no -wal. */
	if (r == 0)
		r = meta_wal_checkpoint(meta, META_WAL_TRUNCATE);
	if (r < 0)
		db_err_set(&meta->db, err, r, path, "created");
	meta_close(meta);
	return r;
}

/* The name is free, or has an older snapshot. *ret_replace tells which. */
static int check_name(const char *path, bool *ret_replace, struct err *err)
{
	struct meta_reader *reader = NULL;
	struct err why;
	struct stat st;

	*ret_replace = false;
	int r = place_check_home(path, err);
	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s: cannot be looked at: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode) && meta_reader_open_any(path, &reader, &why) == 0)
		*ret_replace = meta_reader_super(reader)->state == META_SNAPSHOT;
	meta_reader_close(reader);
	if (*ret_replace)
		return 0;
	return err_set(err, -EEXIST,
		"%s: exists, and is no snapshot that a newer one could take the place of: name another", path);
}

static int write_snapshot(struct meta_reader *reader, const char *path, struct err *err)
{
	char *temporary = NULL;
	bool replace;

	int r = check_name(path, &replace, err);
	if (r == 0)
		r = fresh_check_beside(path, err);
	if (r < 0)
		return r;
	r = fresh_begin(path, &temporary);
	if (r < 0)
		return err_set(err, r, "%s: cannot be created: %s", path, strerror(-r));
	r = copy_pages(reader, temporary, path, err);
	if (r == 0)
		r = mark(temporary, path, reader->settled_from, err);
	if (r == 0)
		r = fresh_finish(temporary, path, replace, err);
	fresh_drop(temporary);
	return r;
}

int meta_reader_snapshot(struct meta_reader *reader, const char *path, struct err *err)
{
	char *absolute = NULL;
	/* One that is copied again would pass for a newer one. */
	if (reader->root.super.state == META_SNAPSHOT)
		return err_set(err, -EPERM, "%s: is a snapshot itself: copy the file", reader->path);
	int r = io_absolute(path, &absolute);
	if (r < 0)
		return err_set(err, r, "%s: cannot resolve the path: %s", path, strerror(-r));
	r = write_snapshot(reader, absolute, err);
	free(absolute);
	return r;
}
