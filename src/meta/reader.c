/* SPDX-License-Identifier: MIT */
/*
 * A snapshot for reading.
 *
 * `since` takes nothing on trust that could make its answer smaller: it visits every writeset and every array row, sums
 * what proves that none is missing, and compares with the superblock. There is no index, as a damaged one would hide rows;
 * of a row without news only the few columns are read that its checksum needs.
 */
#include "meta_private.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int connect_to(struct meta_reader *reader, enum db_mode mode, struct err *err)
{
	struct db *db = &reader->db;
	const char *path = reader->path;
	const char *flaw = NULL;

	int r = db_open(db, reader->real, mode);
	if (r == 0)
		r = db_exec(db, "PRAGMA query_only=1");
	/* The first read fixes the snapshot; it is the one that proves whose database this is. */
	if (r == 0)
		r = db_run(db, db_stmt(db, SQL_BEGIN_READ));
	if (r < 0)
		return db_err_set(db, err, r, path, "read");
	r = schema_check(db, path, err);
	if (r < 0)
		return r;
	r = super_get(db, &reader->root, &flaw);
	if (r < 0)
		return flaw ? verify_err_set(err, path, "%s", flaw) : db_err_set(db, err, r, path, "read");
	return 0;
}

/*
 * A database without a -wal, or with an empty one, is complete alone: it was stopped in order, or is on its own on some
 * medium. It is read as it lies there, without locks, so that looking at it changes nothing (a plain read-only open makes
 * a -wal and a -shm beside it). What makes up for the locks is reader_check_still().
 */
static int connect_in_place(struct meta_reader *reader, struct err *err)
{
	if (stat(reader->real, &reader->seen) < 0) {
		int code = -errno;
		return err_set(err, code, "%s: cannot be read: %s", reader->path, strerror(-code));
	}
	reader->in_place = true;
	return connect_to(reader, DB_IMMUTABLE, err);
}

/* That the open failed only because SQLite may not make the -shm that it needs to read a -wal. */
static bool lacks_folder(const struct meta_reader *reader)
{
	int code = reader->db.sql ? sqlite3_errcode(reader->db.sql) & 0xff : SQLITE_OK;
	if (code != SQLITE_CANTOPEN && code != SQLITE_READONLY)
		return false;
	CLEANUP_FREE char *copy = strdup(reader->real);
	return copy && faccessat(AT_FDCWD, dirname(copy), W_OK, AT_EACCESS) < 0;
}

static int connect_with_wal(struct meta_reader *reader, struct err *err)
{
	int r = connect_to(reader, DB_READ, err);
	if (r < 0 && lacks_folder(reader))
		return err_set(err, -EACCES,
			"%s: cannot be read: its -wal has content, and its folder cannot be written: "
			"read it as its owner, or copy both to another folder",
			reader->path);
	return r;
}

int meta_reader_open_any(const char *path, struct meta_reader **ret_reader, struct err *err)
{
	struct meta_reader *reader = calloc(1, sizeof(*reader));
	if (!reader || !(reader->path = strdup(path))) {
		free(reader);
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	reader->settled_from = UINT64_MAX;

	int r = place_find(path, &reader->real, err);
	if (r == 0)
		r = place_size(reader->real, "-wal") == 0 ? connect_in_place(reader, err)
							  : connect_with_wal(reader, err);
	if (r < 0) {
		meta_reader_close(reader);
		return r;
	}
	*ret_reader = reader;
	return 0;
}

int reader_refuse_snapshot(const char *path, struct err *err)
{
	return err_set(err, -EPERM,
		"%s: is a snapshot, which lacks what was written since: name the image's own metadata with -o metadata=PATH, "
		"or move it away and mount to begin new ones with a full backup",
		path);
}

int meta_reader_open(const char *path, struct meta_reader **ret_reader, struct err *err)
{
	struct meta_reader *reader;
	int r = meta_reader_open_any(path, &reader, err);
	if (r < 0)
		return r;
	if (reader->root.super.state == META_SNAPSHOT) {
		meta_reader_close(reader);
		return reader_refuse_snapshot(path, err);
	}
	*ret_reader = reader;
	return 0;
}

void meta_reader_close(struct meta_reader *reader)
{
	if (!reader)
		return;
	db_close(&reader->db);
	free(reader->real);
	free(reader->path);
	free(reader);
}

const struct meta_super *meta_reader_super(const struct meta_reader *reader)
{
	return &reader->root.super;
}

int reader_check_still(const struct meta_reader *reader, struct err *err)
{
	if (!reader->in_place)
		return 0;
	struct stat now;
	if (stat(reader->real, &now) == 0 && now.st_ino == reader->seen.st_ino && now.st_size == reader->seen.st_size &&
		now.st_mtim.tv_sec == reader->seen.st_mtim.tv_sec &&
		now.st_mtim.tv_nsec == reader->seen.st_mtim.tv_nsec && place_size(reader->real, "-wal") == 0)
		return 0;
	return err_set(err, -EAGAIN, "%s: was written while it was read: try again", reader->path);
}

static int read_failed(const struct meta_reader *reader, struct err *err, int code)
{
	return db_err_set(&reader->db, err, code, reader->path, "read");
}

int reader_end_of(const struct meta_reader *reader, sqlite3_stmt *stmt, int r, const struct tally *is,
	const struct tally *want, const char *what, struct err *err)
{
	if (r < 0)
		read_failed(reader, err, r);
	else if (r == 0 && !tally_equal(is, want))
		r = verify_err_set(err, reader->path, "%s: a row is missing, or not the one that was written", what);
	sqlite3_reset(stmt);
	return r;
}

static int each_of_writeset(
	struct meta_reader *reader, const struct writeset *set, reader_visit_chunk *visit, void *arg, struct err *err)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_CHUNK_OF);
	bind_u64(stmt, 1, set->era);
	bind_u64(stmt, 2, set->extent);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1) {
		struct chunk chunk = { 0 };
		const char *flaw = rows_chunk_load(stmt, &chunk);
		if (!flaw && chunk_blocks(extent_bits(reader->root.super.nr_blocks, chunk.extent), chunk.index) == 0)
			flaw = "beyond the end of the image";
		if (flaw)
			verify_err_set(err, reader->path, "writeset %llu, chunk %llu: %s", (unsigned long long)set->era,
				(unsigned long long)chunk.index, flaw);
		r = flaw ? -EUCLEAN : visit(&chunk, arg);
		if (!flaw && r < 0)
			err_set(err, r, "%s: %s", reader->path, strerror(-r));
		if (r < 0) {
			sqlite3_reset(stmt);
			return r;
		}
		tally_add(&tally, chunk.sum);
	}
	return reader_end_of(reader, stmt, r, &tally, &set->chunks, "writeset", err);
}

int reader_each_chunk(struct meta_reader *reader, uint64_t from, reader_visit_chunk *visit, void *arg, struct err *err)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_WRITESET_ALL);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1) {
		struct writeset set = { 0 };
		const char *flaw = rows_writeset_load(stmt, &set);
		if (flaw)
			r = verify_err_set(err, reader->path, "writeset %llu: %s", (unsigned long long)set.era, flaw);
		else
			r = set.era >= from && !(set.extent > 0 && set.extent < EXTENT_FEARED &&
						       set.era >= reader->settled_from)
				    ? each_of_writeset(reader, &set, visit, arg, err)
				    : 0;
		if (r < 0) {
			sqlite3_reset(stmt);
			return r;
		}
		tally_add(&tally, set.sum);
	}
	return reader_end_of(reader, stmt, r, &tally, &reader->root.writesets, "writesets", err);
}

void meta_reader_trust(struct meta_reader *reader, uint64_t settled_from)
{
	reader->settled_from = settled_from;
}

int reader_expand(const struct chunk *chunk, struct bm *blocks)
{
	uint64_t first = chunk->index * BM_CHUNK_BITS;
	uint64_t nr = extent_blocks(chunk->extent);
	int r = 0;

	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		for (uint64_t bits = chunk->words[i]; r == 0 && bits; bits &= bits - 1) {
			uint64_t begin = (first + i * 64 + (unsigned int)__builtin_ctzll(bits)) * nr;
			uint64_t end = begin + nr;
			if (begin < bm_nr_bits(blocks))
				r = bm_set_range(blocks, begin, end < bm_nr_bits(blocks) ? end : bm_nr_bits(blocks));
		}
	}
	return r;
}

struct gathered {
	struct bm *blocks;
	struct bm *feared; /* NULL: none yet */
};

static int gather_chunk(const struct chunk *chunk, void *arg)
{
	struct gathered *gathered = arg;

	if (chunk->extent == 0)
		return bm_or_chunk(gathered->blocks, chunk->index, chunk->words);
	int r = gathered->feared ? 0 : bm_new(bm_nr_bits(gathered->blocks), &gathered->feared);
	return r < 0 ? r : reader_expand(chunk, gathered->feared);
}

static const char *or_array(struct meta_reader *reader, sqlite3_stmt *stmt, uint64_t era, struct bm *blocks,
	struct array *ret_row, int *ret_r)
{
	uint64_t words[BM_CHUNK_WORDS];
	const char *flaw = rows_array_load(stmt, ret_row);
	if (flaw || ret_row->newest < era)
		return flaw;
	unsigned int nr = chunk_blocks(reader->root.super.nr_blocks, ret_row->index);
	flaw = rows_array_since(stmt, ret_row, nr, era, words);
	if (!flaw)
		*ret_r = bm_or_chunk(blocks, ret_row->index, words);
	return flaw;
}

static int since_array(struct meta_reader *reader, uint64_t era, struct bm *blocks, struct err *err)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_ARRAY_SINCE);
	bind_u64(stmt, 1, era);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1) {
		struct array row = { 0 };
		r = 0;
		const char *flaw = or_array(reader, stmt, era, blocks, &row, &r);
		if (flaw)
			r = verify_err_set(
				err, reader->path, "era array, chunk %llu: %s", (unsigned long long)row.index, flaw);
		else if (r < 0)
			err_set(err, r, "%s: %s", reader->path, strerror(-r));
		if (r < 0) {
			sqlite3_reset(stmt);
			return r;
		}
		tally_add(&tally, row.sum);
	}
	return reader_end_of(reader, stmt, r, &tally, &reader->root.array, "era array", err);
}

/* Moves what is feared and not known to where the caller wants it. */
static int since_feared(struct gathered *gathered, struct bm **ret_feared)
{
	uint64_t words[BM_CHUNK_WORDS], known[BM_CHUNK_WORDS];
	uint64_t nr_blocks = bm_nr_bits(gathered->blocks);
	struct bm *target = NULL;
	int r = 0;

	for (uint64_t chunk = 0; gathered->feared && r == 0 && chunk < bm_nr_chunks(nr_blocks); chunk++) {
		if (!bm_copy_chunk(gathered->feared, chunk, words))
			continue;
		bm_copy_chunk(gathered->blocks, chunk, known);
		for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
			words[i] &= ~known[i];
		if (ret_feared && !target && !chunk_is_empty(words))
			r = bm_new(nr_blocks, &target);
		if (r == 0 && !chunk_is_empty(words))
			r = bm_or_chunk(ret_feared ? target : gathered->blocks, chunk, words);
	}
	bm_free(gathered->feared);
	gathered->feared = target;
	return r;
}

int meta_reader_since(
	struct meta_reader *reader, uint64_t era, struct bm **ret_blocks, struct bm **ret_feared, struct err *err)
{
	struct gathered gathered = { 0 };
	int r = bm_new(reader->root.super.nr_blocks, &gathered.blocks);
	if (r < 0)
		return err_set(err, r, "%s: %s", reader->path, strerror(-r));

	r = reader_each_chunk(reader, era, gather_chunk, &gathered, err);
	if (r == 0)
		r = since_array(reader, era, gathered.blocks, err);
	if (r == 0) {
		r = since_feared(&gathered, ret_feared);
		if (r < 0)
			err_set(err, r, "%s: %s", reader->path, strerror(-r));
	}
	if (r == 0)
		r = reader_check_still(reader, err);
	if (r < 0) {
		bm_free(gathered.blocks);
		bm_free(gathered.feared);
		return r;
	}
	*ret_blocks = gathered.blocks;
	if (ret_feared)
		*ret_feared = gathered.feared;
	return 0;
}

struct counting {
	struct meta_stats stats;
	uint64_t current_era;
	uint64_t last_era;
	uint64_t last_feared_era;
};

static int count_chunk(const struct chunk *chunk, void *arg)
{
	struct counting *c = arg;
	if (chunk->extent > 0) {
		c->stats.feared_eras += chunk->era != c->last_feared_era;
		c->last_feared_era = chunk->era;
		return 0;
	}
	if (chunk->era == c->current_era) {
		c->stats.current_blocks += chunk_count(chunk->words);
		return 0;
	}
	c->stats.undigested_blocks += chunk_count(chunk->words);
	c->stats.archived_eras += chunk->era != c->last_era; /* eras come in order */
	c->last_era = chunk->era;
	return 0;
}

int meta_reader_stats(struct meta_reader *reader, struct meta_stats *ret_stats, struct err *err)
{
	struct counting c = { .current_era = reader->root.super.current_era };
	int r = reader_each_chunk(reader, 0, count_chunk, &c, err);
	if (r == 0)
		r = reader_check_still(reader, err);
	if (r < 0)
		return r;
	*ret_stats = c.stats;
	ret_stats->labels = reader->root.labels.count;
	return 0;
}

int meta_reader_labels(
	struct meta_reader *reader, int (*visit)(const char *name, uint64_t era, void *arg), void *arg, struct err *err)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_LABEL_ALL);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1) {
		struct label row = { 0 };
		const char *flaw = rows_label_load(stmt, &row);
		r = flaw ? verify_err_set(err, reader->path, "label \"%s\": %s", row.name, flaw)
			 : visit(row.name, row.era, arg);
		if (r != 0) {
			sqlite3_reset(stmt);
			return r;
		}
		tally_add(&tally, row.sum);
	}
	r = reader_end_of(reader, stmt, r, &tally, &reader->root.labels, "labels", err);
	return r < 0 ? r : reader_check_still(reader, err);
}

int meta_reader_label(struct meta_reader *reader, const char *name, uint64_t *ret_era, struct err *err)
{
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_LABEL_GET);
	sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	int r = db_step(&reader->db, stmt);
	if (r < 0)
		return read_failed(reader, err, r);
	if (r == 0)
		return -ENOENT;

	struct label row = { 0 };
	const char *flaw = rows_label_load(stmt, &row);
	sqlite3_reset(stmt);
	if (flaw)
		return verify_err_set(err, reader->path, "label \"%s\": %s", name, flaw);
	r = reader_check_still(reader, err);
	if (r == 0)
		*ret_era = row.era;
	return r;
}

int meta_reader_check(
	struct meta_reader *reader, void (*finding)(const char *text, void *arg), void *arg, struct err *err)
{
	struct root root;
	int found = verify_all(&reader->db, INT_MAX, finding, arg, &root);
	if (found < 0)
		return read_failed(reader, err, found);
	int r = reader_check_still(reader, err);
	return r < 0 ? r : found;
}
