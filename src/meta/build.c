/* SPDX-License-Identifier: MIT */
/* A database out of rows that come from elsewhere, through the ordinary writing connection on a temporary file. */
#include "meta_private.h"

#include "base/io.h"
#include "meta/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Rows that one transaction takes: what keeps the -wal, and SQLite's memory, small. */
#define BUILD_ROWS 2048

struct meta_build {
	struct meta *meta; /* in a transaction */
	char *path; /* absolute */
	char *temporary;
	unsigned int nr_rows; /* of the transaction */
	enum meta_state state; /* that it ends with */
};

static int build_failed(const struct meta_build *build, int code, struct err *err)
{
	if (!build->meta)
		return err_set(err, code, "%s: cannot be created: %s", build->path, strerror(-code));
	return db_err_set(&build->meta->db, err, code, build->path, "created");
}

static int make_empty(struct meta_build *build, const struct meta_super *super, struct err *err)
{
	struct db *db = calloc(1, sizeof(*db));
	int r = db ? fresh_begin(build->path, &build->temporary) : -ENOMEM;
	if (r < 0)
		err_set(err, r, "%s: cannot be created: %s", build->path, strerror(-r));
	if (r == 0) {
		r = create_empty(db, build->temporary, super);
		if (r < 0)
			db_err_set(db, err, r, build->path, "created");
	}
	if (db)
		db_close(db);
	free(db);
	return r;
}

int meta_build_begin(const char *path, const struct meta_super *super, struct meta_build **ret_build, struct err *err)
{
	int r = create_check(path, super, err);
	if (r < 0)
		return r;
	struct meta_build *build = calloc(1, sizeof(*build));
	if (!build)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	build->state = super->state;
	r = io_absolute(path, &build->path);
	if (r < 0)
		err_set(err, r, "%s: cannot resolve the path: %s", path, strerror(-r));
	if (r == 0)
		r = fresh_check_beside(build->path, err);
	if (r == 0)
		r = make_empty(build, super, err);
	if (r == 0)
		r = meta_open(build->temporary, &build->meta, err);
	if (r == 0) {
		r = meta_begin(build->meta, META_LAZY);
		if (r < 0)
			build_failed(build, r, err);
	}
	if (r < 0) {
		meta_build_abandon(build);
		return r;
	}
	*ret_build = build;
	return 0;
}

/* A row is in. Nobody relies on the commits before the last: they guard nothing. */
static int row_done(struct meta_build *build)
{
	if (++build->nr_rows < BUILD_ROWS)
		return 0;
	build->nr_rows = 0;
	int r = meta_commit(build->meta);
	if (r == 0)
		r = meta_wal_checkpoint(build->meta, META_WAL_TRUNCATE);
	return r < 0 ? r : meta_begin(build->meta, META_LAZY);
}

int meta_build_bits(struct meta_build *build, uint64_t era, uint64_t chunk, const uint64_t *words, struct err *err)
{
	int r = meta_writeset_or(build->meta, era, chunk, words);
	if (r == 0)
		r = row_done(build);
	return r < 0 ? build_failed(build, r, err) : 0;
}

int meta_build_eras(struct meta_build *build, uint64_t chunk, const uint64_t *eras, struct err *err)
{
	struct meta *meta = build->meta;
	unsigned int nr = chunk_blocks(meta->row_blocks, chunk);
	struct array row;
	int r = digest_array_get(meta, chunk, nr, &row);
	if (r == 0) {
		memcpy(meta->db.eras, eras, nr * sizeof(eras[0]));
		r = digest_array_put(meta, &row, nr);
	}
	if (r == 0 && row.newest > meta->newest_era)
		meta->newest_era = row.newest;
	if (r == 0)
		r = row_done(build);
	return r < 0 ? build_failed(build, r, err) : 0;
}

static int finish(struct meta_build *build, struct err *err)
{
	int r = meta_commit(build->meta);
	if (r == 0)
		r = meta_begin(build->meta, META_FULL);
	if (r == 0) {
		meta_pending(build->meta)->state = build->state;
		r = meta_commit(build->meta);
	}
	/* fsyncs the file: a crash after it was given its name finds it whole, and needs no -wal. */
	if (r == 0)
		r = meta_wal_checkpoint(build->meta, META_WAL_TRUNCATE);
	if (r < 0)
		return build_failed(build, r, err);
	meta_close(build->meta);
	build->meta = NULL;
	r = fresh_check_beside(build->path, err);
	return r < 0 ? r : fresh_finish(build->temporary, build->path, false, err);
}

int meta_build_finish(struct meta_build *build, struct err *err)
{
	int r = finish(build, err);
	meta_build_abandon(build);
	return r;
}

void meta_build_abandon(struct meta_build *build)
{
	if (!build)
		return;
	meta_close(build->meta);
	fresh_drop(build->temporary);
	free(build->path);
	free(build);
}
