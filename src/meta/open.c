/* SPDX-License-Identifier: MIT */
/* The writing connection: open, verify, close. */
#include "meta_private.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int on_wal_commit(void *arg, sqlite3 *sql, const char *name, int frames)
{
	struct meta *meta = arg;
	meta->wal_frames = (unsigned int)frames;
	return SQLITE_OK;
}

/* Each is read back: journal_mode for one fails without an error. */
static int set_pragmas(struct meta *meta, struct err *err)
{
	static const struct {
		const char *set;
		const char *get;
		int64_t value;
	} pragmas[] = {
		{ "PRAGMA wal_autocheckpoint=0", "PRAGMA wal_autocheckpoint", 0 },
		{ "PRAGMA journal_mode=wal", "SELECT journal_mode = 'wal' FROM pragma_journal_mode", 1 },
		{ "PRAGMA synchronous=full", "PRAGMA synchronous", 2 },
		{ "PRAGMA journal_size_limit=4194304", "PRAGMA journal_size_limit", 4194304 },
		{ "PRAGMA locking_mode=normal", "SELECT locking_mode = 'normal' FROM pragma_locking_mode", 1 },
		{ "PRAGMA cell_size_check=1", "PRAGMA cell_size_check", 1 },
		{ "PRAGMA trusted_schema=0", "PRAGMA trusted_schema", 0 },
		{ "PRAGMA temp_store=memory", "PRAGMA temp_store", 2 },
	};

	for (size_t i = 0; i < sizeof(pragmas) / sizeof(pragmas[0]); i++) {
		int64_t value = -1;
		int r = db_exec(&meta->db, pragmas[i].set);
		if (r == 0)
			r = db_number(&meta->db, pragmas[i].get, &value);
		if (r < 0)
			return db_err_set(&meta->db, err, r, meta->path, "opened");
		if (value != pragmas[i].value)
			return err_set(err, -ENOTSUP, "%s: cannot be opened: SQLite did not take \"%s\"", meta->path,
				pragmas[i].set);
	}

	sqlite3_wal_hook(meta->db.sql, on_wal_commit, meta); /* after wal_autocheckpoint, which takes the hook away */
	meta->sync = META_FULL;
	return 0;
}

static void first_finding(const char *text, void *arg)
{
	char *first = arg;
	snprintf(first, 256, "%s", text);
}

static int verify(struct meta *meta, struct err *err)
{
	char finding[256];

	/* One read transaction: schema and rows are those of one snapshot. */
	int r = db_run(&meta->db, db_stmt(&meta->db, SQL_BEGIN_READ));
	if (r < 0)
		return db_err_set(&meta->db, err, r, meta->path, "read");
	r = verify_all(&meta->db, 1, first_finding, finding, &meta->root);
	if (r > 0)
		verify_err_set(err, meta->path, "%s", finding);
	else if (r < 0)
		db_err_set(&meta->db, err, r, meta->path, "read");
	meta_rollback(meta);
	return r > 0 ? -EUCLEAN : r;
}

static int start(struct meta *meta, const char *real, struct err *err)
{
	int r = db_open(&meta->db, real, DB_WRITE);
	if (r < 0)
		return db_err_set(&meta->db, err, r, meta->path, "opened");
	/* SQLite opens a file that it may not write for reading, silently. */
	if (sqlite3_db_readonly(meta->db.sql, "main"))
		return err_set(err, -EROFS, "%s: cannot be written: make it writable, or mount with -o ro", meta->path);

	r = schema_check(&meta->db, meta->path, err);
	if (r == 0)
		r = set_pragmas(meta, err);
	if (r == 0)
		r = verify(meta, err);
	if (r < 0)
		return r;
	if (meta->root.super.state == META_SNAPSHOT)
		return reader_refuse_snapshot(meta->path, err);

	meta->row_blocks = meta->root.super.nr_blocks;
	/* Until the first commit tells: what was left there, valid or not. */
	int64_t wal = place_size(real, "-wal");
	meta->wal_frames = wal > 0 ? (unsigned int)(wal / (PAGE_SIZE + 24)) : 0;
	return 0;
}

int meta_open(const char *path, struct meta **ret_meta, struct err *err)
{
	CLEANUP_FREE char *real = NULL;
	int r = place_find(path, &real, err);
	if (r == 0)
		r = place_check_home(real, err);
	if (r < 0)
		return r;

	struct meta *meta = calloc(1, sizeof(*meta));
	if (meta)
		meta->path = strdup(path);
	if (!meta || !meta->path)
		r = err_set(err, -ENOMEM, "%s: out of memory", path);
	else
		r = start(meta, real, err);
	if (r < 0) {
		meta_close(meta);
		return r;
	}
	*ret_meta = meta;
	return 0;
}

void meta_close(struct meta *meta)
{
	if (!meta)
		return;
	db_close(&meta->db); /* rolls back */
	free(meta->path);
	free(meta);
}

const struct meta_super *meta_super(const struct meta *meta)
{
	return &meta->root.super;
}
