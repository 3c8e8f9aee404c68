/* SPDX-License-Identifier: MIT */
/*
 * Writesets: the blocks that were written in one era, by chunks; and the write intents of an era, which are kept the same way:
 * a set whose bits stand for an extent of blocks each, any of which may have been written.
 */
#include "meta_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

int writeset_find(struct meta *meta, uint64_t era, uint64_t extent, struct writeset *ret_row)
{
	*ret_row = (struct writeset){ .era = era, .extent = extent };
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_WRITESET_GET);
	bind_u64(stmt, 1, era);
	bind_u64(stmt, 2, extent);
	int r = db_step(&meta->db, stmt);
	if (r == 1) {
		r = rows_writeset_load(stmt, ret_row) ? -EUCLEAN : 1;
		sqlite3_reset(stmt);
	}
	return r;
}

int writeset_put(struct meta *meta, struct writeset *row)
{
	struct tally *all = &meta->pending.writesets;
	struct writeset old;
	int r = writeset_find(meta, row->era, row->extent, &old);
	if (r < 0)
		return r;
	if (r == 1)
		tally_drop(all, old.sum);

	if (row->chunks.count == 0) {
		sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_WRITESET_DELETE);
		bind_u64(stmt, 1, row->era);
		bind_u64(stmt, 2, row->extent);
		return db_run(&meta->db, stmt);
	}
	r = rows_writeset_put(&meta->db, row);
	tally_add(all, row->sum);
	if (row->era > meta->newest_era)
		meta->newest_era = row->era;
	return r;
}

int writeset_drop_chunk(struct meta *meta, struct writeset *row, const struct chunk *chunk)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_CHUNK_DELETE);
	bind_u64(stmt, 1, chunk->era);
	bind_u64(stmt, 2, chunk->extent);
	bind_u64(stmt, 3, chunk->index);
	tally_drop(&row->chunks, chunk->sum);
	return db_run(&meta->db, stmt);
}

int writeset_put_chunk(struct meta *meta, struct writeset *row, struct chunk *chunk)
{
	int r = rows_chunk_put(&meta->db, chunk);
	tally_add(&row->chunks, chunk->sum);
	return r;
}

static int find_chunk(struct meta *meta, uint64_t era, uint64_t extent, uint64_t index, struct chunk *ret_chunk)
{
	*ret_chunk = (struct chunk){ .era = era, .extent = extent, .index = index };
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_CHUNK_GET);
	bind_u64(stmt, 1, era);
	bind_u64(stmt, 2, extent);
	bind_u64(stmt, 3, index);
	int r = db_step(&meta->db, stmt);
	if (r == 1) {
		r = rows_chunk_load(stmt, ret_chunk) ? -EUCLEAN : 1;
		sqlite3_reset(stmt);
	}
	return r;
}

static bool words_fit(const struct meta *meta, uint64_t extent, uint64_t index, const uint64_t *words)
{
	uint64_t copy[BM_CHUNK_WORDS];
	memcpy(copy, words, sizeof(copy));
	return !chunk_trim(copy, chunk_blocks(extent_bits(meta->row_blocks, extent), index));
}

static int set_or(struct meta *meta, uint64_t era, uint64_t extent, uint64_t chunk, const uint64_t *words)
{
	assert(meta_in_transaction(meta));
	if (meta->row_blocks == 0) /* after meta_forget() */
		meta->row_blocks = meta->pending.super.nr_blocks;
	assert(era >= 1 && era <= ERA_MAX);
	assert(words_fit(meta, extent, chunk, words));

	struct chunk row;
	int r = find_chunk(meta, era, extent, chunk, &row);
	if (r < 0)
		return r;
	bool found = r == 1;

	uint64_t new_bits = 0;
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		new_bits |= words[i] & ~row.words[i];
		row.words[i] |= words[i];
	}
	if (!new_bits)
		return 0;

	struct writeset set;
	r = writeset_find(meta, era, extent, &set);
	if (r < 0)
		return r;
	if (found)
		tally_drop(&set.chunks, row.sum);
	r = writeset_put_chunk(meta, &set, &row);
	return r < 0 ? r : writeset_put(meta, &set);
}

int meta_writeset_or(struct meta *meta, uint64_t era, uint64_t chunk, const uint64_t *words)
{
	return set_or(meta, era, 0, chunk, words);
}

int meta_intent_or(struct meta *meta, uint64_t era, uint64_t extent, uint64_t chunk, const uint64_t *words)
{
	assert(extent >= 1 && extent <= META_EXTENT_MAX);
	return set_or(meta, era, extent, chunk, words);
}

int meta_intent_clear(struct meta *meta, uint64_t era, uint64_t extent, uint64_t chunk, const uint64_t *words)
{
	assert(meta_in_transaction(meta) && extent >= 1 && extent <= META_EXTENT_MAX);
	struct writeset set;
	struct chunk row;
	int r = find_chunk(meta, era, extent, chunk, &row);
	if (r == 1)
		r = writeset_find(meta, era, extent, &set);
	if (r <= 0)
		return r;

	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		row.words[i] &= ~words[i];
	if (chunk_is_empty(row.words)) {
		r = writeset_drop_chunk(meta, &set, &row);
	} else {
		tally_drop(&set.chunks, row.sum);
		r = writeset_put_chunk(meta, &set, &row);
	}
	return r < 0 ? r : writeset_put(meta, &set);
}

int meta_intent_drop(struct meta *meta, uint64_t from, uint64_t to)
{
	assert(meta_in_transaction(meta));
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_INTENT_SETS);
	bind_u64(stmt, 1, from < ERA_MAX ? from : ERA_MAX);
	bind_u64(stmt, 2, to < ERA_MAX ? to : ERA_MAX);

	/* SQLite keeps a statement's place by key where the row that it stands on is removed. */
	int r;
	while ((r = db_step(&meta->db, stmt)) == 1) {
		struct writeset set;
		if (rows_writeset_load(stmt, &set)) {
			r = -EUCLEAN;
			break;
		}
		sqlite3_stmt *chunks = db_stmt(&meta->db, SQL_INTENT_CHUNKS_DELETE);
		bind_u64(chunks, 1, set.era);
		bind_u64(chunks, 2, set.extent);
		r = db_run(&meta->db, chunks);
		set.chunks = (struct tally){ 0 };
		if (r == 0)
			r = writeset_put(meta, &set);
		if (r < 0)
			break;
	}
	sqlite3_reset(stmt);
	return r;
}

int meta_writeset_copy(struct meta *meta, uint64_t from, uint64_t to)
{
	assert(meta_in_transaction(meta));
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_CHUNK_RANGE);
	bind_u64(stmt, 1, from);
	bind_u64(stmt, 2, to);

	/* The rows that are written are none of those that are visited. */
	int r;
	while ((r = db_step(&meta->db, stmt)) == 1) {
		struct chunk chunk;
		r = rows_chunk_load(stmt, &chunk) ? -EUCLEAN : 0;
		if (r == 0)
			r = set_or(meta, to, chunk.extent > 0 ? chunk.extent | EXTENT_FEARED : 0, chunk.index,
				chunk.words);
		if (r < 0)
			break;
	}
	sqlite3_reset(stmt);
	return r;
}

int meta_forget(struct meta *meta)
{
	static const enum sql clear[] = { SQL_WRITESET_CLEAR, SQL_CHUNK_CLEAR, SQL_ARRAY_CLEAR, SQL_LABEL_CLEAR };

	assert(meta_in_transaction(meta));
	for (size_t i = 0; i < sizeof(clear) / sizeof(clear[0]); i++) {
		int r = db_run(&meta->db, db_stmt(&meta->db, clear[i]));
		if (r < 0)
			return r;
	}
	meta->pending.writesets = meta->pending.array = meta->pending.labels = (struct tally){ 0 };
	meta->row_blocks = 0;
	meta->newest_era = 0;
	return 0;
}
