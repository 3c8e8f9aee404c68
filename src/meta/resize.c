/* SPDX-License-Identifier: MIT */
/* Another image size: rows keep to the blocks that there are. */
#include "meta_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static int trim_chunk(struct meta *meta, struct writeset *set, struct chunk *chunk, unsigned int nr)
{
	chunk_trim(chunk->words, nr);
	if (chunk_is_empty(chunk->words))
		return writeset_drop_chunk(meta, set, chunk);
	tally_drop(&set->chunks, chunk->sum);
	return writeset_put_chunk(meta, set, chunk);
}

static int trim_writeset(struct meta *meta, struct writeset *set, uint64_t nr_blocks)
{
	uint64_t nr_bits = extent_bits(nr_blocks, set->extent);
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_CHUNK_FROM);
	bind_u64(stmt, 1, set->era);
	bind_u64(stmt, 2, set->extent);
	bind_u64(stmt, 3, nr_bits / BM_CHUNK_BITS);

	/* SQLite keeps a statement's place by key where the row that it stands on is replaced or removed. */
	int r;
	while ((r = db_step(&meta->db, stmt)) == 1) {
		struct chunk chunk;
		r = rows_chunk_load(stmt, &chunk) ? -EUCLEAN
						  : trim_chunk(meta, set, &chunk, chunk_blocks(nr_bits, chunk.index));
		if (r < 0)
			break;
	}
	sqlite3_reset(stmt);
	return r < 0 ? r : writeset_put(meta, set);
}

static int trim_writesets(struct meta *meta, uint64_t nr_blocks)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_WRITESET_ALL);
	int r;
	while ((r = db_step(&meta->db, stmt)) == 1) {
		struct writeset set;
		r = rows_writeset_load(stmt, &set) ? -EUCLEAN : trim_writeset(meta, &set, nr_blocks);
		if (r < 0)
			break;
	}
	sqlite3_reset(stmt);
	return r;
}

static int drop_arrays(struct meta *meta, uint64_t from)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_ARRAY_FROM);
	bind_u64(stmt, 1, from);

	int r;
	while ((r = db_step(&meta->db, stmt)) == 1) {
		struct array row;
		if (rows_array_load(stmt, &row)) {
			r = -EUCLEAN;
			break;
		}
		tally_drop(&meta->pending.array, row.sum);
		sqlite3_stmt *delete = db_stmt(&meta->db, SQL_ARRAY_DELETE);
		bind_u64(delete, 1, row.index);
		r = db_run(&meta->db, delete);
		if (r < 0)
			break;
	}
	sqlite3_reset(stmt);
	return r;
}

/* The array chunk that the smaller size ends in has as many eras as it has blocks: another number now. */
static int refit_array(struct meta *meta, uint64_t old_blocks, uint64_t new_blocks)
{
	uint64_t index = (old_blocks < new_blocks ? old_blocks : new_blocks) / BM_CHUNK_BITS;
	unsigned int old_nr = chunk_blocks(old_blocks, index);
	struct array row;
	int r = digest_array_get(meta, index, old_nr, &row);
	if (r < 0 || row.newest == 0)
		return r;
	memset(&meta->db.eras[old_nr], 0, (BM_CHUNK_BITS - old_nr) * sizeof(meta->db.eras[0]));
	return digest_array_put(meta, &row, chunk_blocks(new_blocks, index));
}

int meta_resize(struct meta *meta, uint64_t image_size)
{
	struct meta_super *super = meta_pending(meta);
	uint64_t old_blocks = meta->row_blocks;
	uint64_t new_blocks = image_size / super->block_size + (image_size % super->block_size != 0);
	assert(old_blocks == super->nr_blocks);
	if (image_size == 0 || new_blocks > BM_MAX_BITS)
		return -EINVAL;

	int r = 0;
	if (new_blocks < old_blocks)
		r = trim_writesets(meta, new_blocks);
	if (r == 0 && new_blocks != old_blocks)
		r = refit_array(meta, old_blocks, new_blocks);
	if (r == 0 && new_blocks < old_blocks)
		r = drop_arrays(meta, new_blocks / BM_CHUNK_BITS + 1);
	if (r < 0)
		return r;

	super->image_size = image_size;
	super->nr_blocks = new_blocks;
	meta->row_blocks = new_blocks;
	return 0;
}
