/* SPDX-License-Identifier: MIT */
/*
 * All that a snapshot holds, a chunk at a time.
 *
 * Rows that are not there are zeros: the visitor sees each chunk. As `since` does, a visit takes nothing on trust that could
 * make it tell less: every row that the superblock counts must come by.
 */
#include "meta_private.h"

#include "meta/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the intents of one era stand for: few, as only a power loss leaves any. */
struct feared {
	uint64_t era;
	struct bm *blocks;
};

/* A writeset that is folded in as the array goes by. */
struct folded {
	struct writeset set;
	struct tally seen;
};

struct visit {
	struct meta_reader *reader;
	const struct meta_visitor *visitor;
	void *arg;
	struct err *err;
	uint64_t nr_chunks;
	uint64_t era; /* of the writeset that is visited; 0: none yet */
	uint64_t next; /* its next chunk */

	struct feared *feared; /* ascending by era */
	size_t nr_feared;
	size_t feared_seen; /* of those, below v->era */

	struct folded *folded; /* NULL: writesets are visited, not folded */
	size_t nr_folded;
};

static int feared_add(const struct chunk *chunk, void *arg)
{
	struct visit *v = arg;

	if (chunk->extent == 0)
		return 0;
	struct feared *last = v->nr_feared > 0 ? &v->feared[v->nr_feared - 1] : NULL;
	if (!last || last->era != chunk->era) {
		struct feared *list = reallocarray(v->feared, v->nr_feared + 1, sizeof(*list));
		if (!list)
			return -ENOMEM;
		v->feared = list;
		last = &list[v->nr_feared];
		int r = bm_new(v->reader->root.super.nr_blocks, &last->blocks);
		if (r < 0)
			return r;
		last->era = chunk->era;
		v->nr_feared++;
	}
	return reader_expand(chunk, last->blocks);
}

static void feared_free(struct visit *v)
{
	for (size_t i = 0; i < v->nr_feared; i++)
		bm_free(v->feared[i].blocks);
	free(v->feared);
}

/* What the intents of v->era add to a chunk. */
static void feared_or(const struct visit *v, uint64_t index, uint64_t *words)
{
	uint64_t more[BM_CHUNK_WORDS];

	for (size_t i = v->feared_seen; i < v->nr_feared && v->feared[i].era == v->era; i++) {
		bm_copy_chunk(v->feared[i].blocks, index, more);
		for (unsigned int j = 0; j < BM_CHUNK_WORDS; j++)
			words[j] |= more[j];
	}
}

static int visit_bits(struct visit *v, uint64_t index, uint64_t *words)
{
	feared_or(v, index, words);
	v->next = index + 1;
	return v->visitor->bits(
		index * BM_CHUNK_BITS, chunk_blocks(v->reader->root.super.nr_blocks, index), words, v->arg);
}

/* Chunks up to index, which have no row. */
static int visit_gap(struct visit *v, uint64_t index)
{
	int r = 0;

	while (r == 0 && v->next < index) {
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		r = visit_bits(v, v->next, words);
	}
	return r;
}

/* The writeset that is visited is over, the one of era begins. */
static int visit_begin(struct visit *v, uint64_t era)
{
	int r = v->era ? visit_gap(v, v->nr_chunks) : 0;

	while (v->feared_seen < v->nr_feared && v->feared[v->feared_seen].era < era)
		v->feared_seen++;
	v->era = era;
	v->next = 0;
	return r == 0 ? v->visitor->writeset(era, v->arg) : r;
}

/* Eras below `below`, above the one that is visited, that have intents and no writeset. */
static int visit_feared(struct visit *v, uint64_t below)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < v->nr_feared; i++)
		if (v->feared[i].era > v->era && v->feared[i].era < below)
			r = visit_begin(v, v->feared[i].era);
	return r;
}

static int visit_chunk(const struct chunk *chunk, void *arg)
{
	struct visit *v = arg;
	uint64_t words[BM_CHUNK_WORDS];
	int r = 0;

	if (chunk->extent > 0)
		return 0;
	if (chunk->era != v->era) {
		r = visit_feared(v, chunk->era);
		if (r == 0)
			r = visit_begin(v, chunk->era);
	}
	if (r == 0)
		r = visit_gap(v, chunk->index);
	memcpy(words, chunk->words, sizeof(words));
	return r == 0 ? visit_bits(v, chunk->index, words) : r;
}

static int visit_writesets(struct visit *v)
{
	int r = reader_each_chunk(v->reader, 0, visit_chunk, v, v->err);
	if (r == 0)
		r = visit_feared(v, UINT64_MAX);
	if (r != 0 || !v->era)
		return r;
	return visit_gap(v, v->nr_chunks);
}

/* The writesets, for fold_chunk(): few, as they are digested. */
static int load_folded(struct visit *v)
{
	struct meta_reader *reader = v->reader;
	struct tally tally = { 0 };
	/* One more, so that there is something to allocate; a count that does not fit the rows is found below. */
	uint64_t most = reader->root.writesets.count;
	v->folded = most < SIZE_MAX / sizeof(*v->folded) ? calloc(most + 1, sizeof(*v->folded)) : NULL;
	if (!v->folded)
		return err_set(v->err, -ENOMEM, "%s: out of memory", reader->path);

	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_WRITESET_ALL);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1 && tally.count < most) {
		struct writeset *set = &v->folded[v->nr_folded].set;
		const char *flaw = rows_writeset_load(stmt, set);
		if (flaw) {
			r = verify_err_set(
				v->err, reader->path, "writeset %llu: %s", (unsigned long long)set->era, flaw);
			sqlite3_reset(stmt);
			return r;
		}
		tally_add(&tally, set->sum);
		v->nr_folded += set->extent == 0; /* intents are in v->feared */
	}
	if (r == 1) { /* a row too many */
		tally.count++;
		r = 0;
	}
	return reader_end_of(reader, stmt, r, &tally, &reader->root.writesets, "writesets", v->err);
}

static void fold_words(uint64_t *eras, uint64_t era, const uint64_t *words)
{
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		for (uint64_t bits = words[i]; bits; bits &= bits - 1) {
			uint64_t *known = &eras[i * 64 + (unsigned int)__builtin_ctzll(bits)];
			if (*known < era)
				*known = era;
		}
	}
}

/* What one writeset knows of the chunk whose eras stand in db.eras. */
static int fold_chunk(struct visit *v, struct folded *folded, uint64_t index)
{
	struct db *db = &v->reader->db;
	struct chunk chunk;
	sqlite3_stmt *stmt = db_stmt(db, SQL_CHUNK_GET);
	bind_u64(stmt, 1, folded->set.era);
	bind_u64(stmt, 2, 0);
	bind_u64(stmt, 3, index);
	int r = db_step(db, stmt);
	if (r == 0)
		return 0;
	const char *flaw = r == 1 ? rows_chunk_load(stmt, &chunk) : NULL;
	if (r < 0)
		return db_err_set(db, v->err, r, v->reader->path, "read");
	sqlite3_reset(stmt);
	if (flaw)
		return verify_err_set(v->err, v->reader->path, "writeset %llu, chunk %llu: %s",
			(unsigned long long)folded->set.era, (unsigned long long)index, flaw);
	tally_add(&folded->seen, chunk.sum);
	fold_words(db->eras, folded->set.era, chunk.words);
	return 0;
}

/* db.eras has what the array knows of the chunk. */
static int visit_eras(struct visit *v, uint64_t index)
{
	const struct meta_super *super = &v->reader->root.super;
	uint64_t *eras = v->reader->db.eras;
	unsigned int nr = chunk_blocks(super->nr_blocks, index);

	for (size_t i = 0; i < v->nr_folded; i++) {
		int r = fold_chunk(v, &v->folded[i], index);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; v->folded && i < v->nr_feared; i++) {
		uint64_t words[BM_CHUNK_WORDS];
		if (bm_copy_chunk(v->feared[i].blocks, index, words))
			fold_words(eras, v->feared[i].era, words);
	}
	/* Every block counts as written in it. */
	for (unsigned int i = 0; i < nr; i++)
		eras[i] = eras[i] < super->floor_era ? super->floor_era : eras[i];
	return v->visitor->eras(index * BM_CHUNK_BITS, nr, eras, v->arg);
}

static int visit_array_gap(struct visit *v, uint64_t index)
{
	int r = 0;
	for (; r == 0 && v->next < index; v->next++) {
		memset(v->reader->db.eras, 0, sizeof(v->reader->db.eras));
		r = visit_eras(v, v->next);
	}
	return r;
}

static int visit_array_row(struct visit *v, sqlite3_stmt *stmt, struct tally *tally)
{
	struct meta_reader *reader = v->reader;
	struct array row = { 0 };
	const char *flaw = rows_array_load(stmt, &row);
	unsigned int nr = chunk_blocks(reader->root.super.nr_blocks, row.index);
	if (!flaw && nr == 0)
		flaw = "beyond the end of the image";
	int r = flaw ? 0 : visit_array_gap(v, row.index);
	if (!flaw && r == 0)
		flaw = rows_array_eras(stmt, &row, nr, reader->db.eras);
	if (flaw)
		return verify_err_set(
			v->err, reader->path, "era array, chunk %llu: %s", (unsigned long long)row.index, flaw);
	if (r != 0)
		return r;
	tally_add(tally, row.sum);
	v->next = row.index + 1;
	return visit_eras(v, row.index);
}

static int visit_array(struct visit *v)
{
	struct meta_reader *reader = v->reader;
	struct tally tally = { 0 };
	v->next = 0;
	sqlite3_stmt *stmt = db_stmt(&reader->db, SQL_ARRAY_SINCE);
	bind_u64(stmt, 1, 0);
	int r;
	while ((r = db_step(&reader->db, stmt)) == 1) {
		r = visit_array_row(v, stmt, &tally);
		if (r != 0) {
			sqlite3_reset(stmt);
			return r;
		}
	}
	r = reader_end_of(reader, stmt, r, &tally, &reader->root.array, "era array", v->err);
	if (r == 0)
		r = visit_array_gap(v, v->nr_chunks);
	for (size_t i = 0; r == 0 && i < v->nr_folded; i++) {
		if (!tally_equal(&v->folded[i].seen, &v->folded[i].set.chunks))
			r = verify_err_set(v->err, reader->path,
				"writeset %llu: a row is missing, or not the one that was written",
				(unsigned long long)v->folded[i].set.era);
	}
	return r;
}

int meta_reader_visit(
	struct meta_reader *reader, bool logical, const struct meta_visitor *visitor, void *arg, struct err *err)
{
	struct err own = ERR_INIT;
	struct visit v = { .reader = reader,
		.visitor = visitor,
		.arg = arg,
		.err = err ? err : &own,
		.nr_chunks = bm_nr_chunks(reader->root.super.nr_blocks) };

	v.err->code = 0;
	int r = reader_each_chunk(reader, 0, feared_add, &v, v.err);
	if (r == 0)
		r = logical ? load_folded(&v) : visit_writesets(&v);
	if (r == 0)
		r = visit_array(&v);
	free(v.folded);
	feared_free(&v);
	if (r == 0)
		return reader_check_still(reader, err);
	/* A visitor's. */
	if (r < 0 && v.err->code == 0)
		err_set(err, r, "%s: %s", reader->path, strerror(-r));
	return r;
}
