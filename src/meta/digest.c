/* SPDX-License-Identifier: MIT */
/* Folding archived writesets into the era array, some rows at a time. */
#include "meta_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

int digest_array_get(struct meta *meta, uint64_t index, unsigned int nr, struct array *ret_row)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_ARRAY_GET);
	bind_u64(stmt, 1, index);
	int r = db_step(&meta->db, stmt);
	if (r < 0)
		return r;
	if (r == 0) {
		*ret_row = (struct array){ .index = index };
		memset(meta->db.eras, 0, sizeof(meta->db.eras));
		return 0;
	}

	const char *flaw = rows_array_load(stmt, ret_row);
	if (!flaw)
		flaw = rows_array_eras(stmt, ret_row, nr, meta->db.eras);
	sqlite3_reset(stmt);
	return flaw ? -EUCLEAN : 0;
}

int digest_array_put(struct meta *meta, struct array *row, unsigned int nr)
{
	if (row->newest) /* of the row as it was read */
		tally_drop(&meta->pending.array, row->sum);

	size_t len = array_encode(meta->db.eras, nr, meta->db.blob, &row->newest);
	if (row->newest == 0) {
		sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_ARRAY_DELETE);
		bind_u64(stmt, 1, row->index);
		return db_run(&meta->db, stmt);
	}
	int r = rows_array_put(&meta->db, row, meta->db.blob, len);
	tally_add(&meta->pending.array, row->sum);
	return r;
}

static int fold(struct meta *meta, const struct chunk *chunk)
{
	unsigned int nr = chunk_blocks(meta->row_blocks, chunk->index);
	struct array row;
	int r = digest_array_get(meta, chunk->index, nr, &row);
	if (r < 0)
		return r;

	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		for (uint64_t bits = chunk->words[i]; bits; bits &= bits - 1) {
			uint64_t *era = &meta->db.eras[i * 64 + (unsigned int)__builtin_ctzll(bits)];
			if (*era < chunk->era)
				*era = chunk->era;
		}
	}
	return digest_array_put(meta, &row, nr);
}

static int lowest(struct meta *meta, uint64_t below, struct writeset *ret_set)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_WRITESET_BELOW);
	bind_u64(stmt, 1, below);
	int r = db_step(&meta->db, stmt);
	if (r == 1) {
		r = rows_writeset_load(stmt, ret_set) ? -EUCLEAN : 1;
		sqlite3_reset(stmt);
	}
	return r;
}

static int take_chunk(struct meta *meta, struct writeset *set)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_CHUNK_FIRST);
	bind_u64(stmt, 1, set->era);
	int r = db_step(&meta->db, stmt);
	if (r < 0)
		return r;

	struct chunk chunk;
	bool sound = r == 1 && !rows_chunk_load(stmt, &chunk);
	sqlite3_reset(stmt);
	if (!sound)
		return -EUCLEAN; /* also where the writeset counts a row that is not there */
	r = fold(meta, &chunk);
	return r < 0 ? r : writeset_drop_chunk(meta, set, &chunk);
}

int meta_digest(struct meta *meta, uint64_t below, unsigned int max_chunks, bool *ret_more)
{
	assert(meta_in_transaction(meta));
	*ret_more = false;

	struct writeset set;
	int r = lowest(meta, below, &set);
	if (r <= 0)
		return r;
	for (unsigned int i = 0; i < max_chunks && set.chunks.count > 0; i++) {
		r = take_chunk(meta, &set);
		if (r < 0)
			return r;
	}
	if (set.chunks.count == 0 && set.chunks.sum != 0)
		return -EUCLEAN;
	r = writeset_put(meta, &set);
	if (r < 0)
		return r;

	r = lowest(meta, below, &set);
	*ret_more = r == 1;
	return r < 0 ? r : 0;
}
