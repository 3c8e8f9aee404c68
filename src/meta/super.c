/* SPDX-License-Identifier: MIT */
/* The superblock: struct <-> row, checksum, invariants. */
#include "meta_private.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define ID_BYTES 16
#define NR_IDS 3
#define NR_NUMBERS 20
#define MIN_BLOCK_SIZE UINT64_C(4096)
#define MAX_BLOCK_SIZE (UINT64_C(1) << 30)

/* The row in the order of its columns, id and checksum left out. Its bytes, little-endian, are what is summed. */
struct flat {
	uint8_t ids[NR_IDS][ID_BYTES];
	uint64_t numbers[NR_NUMBERS];
};

static void flatten(const struct root *root, struct flat *ret_flat)
{
	const struct meta_super *s = &root->super;

	memcpy(ret_flat->ids[0], s->uuid, ID_BYTES);
	memcpy(ret_flat->ids[1], s->nonce, ID_BYTES);
	memcpy(ret_flat->ids[2], s->boot_id, ID_BYTES);
	const uint64_t numbers[NR_NUMBERS] = { s->block_size, s->image_size, s->nr_blocks, s->current_era,
		s->durable_era, s->floor_era, s->generation, s->commit_counter, s->state, s->owner_pid, s->owner_start,
		s->committed_at_ns, s->image_is_device, (uint64_t)s->image_mtime_ns, root->writesets.count,
		root->writesets.sum, root->array.count, root->array.sum, root->labels.count, root->labels.sum };
	memcpy(ret_flat->numbers, numbers, sizeof(numbers));
}

static void unflatten(const struct flat *flat, struct root *ret_root)
{
	const uint64_t *n = flat->numbers;

	*ret_root = (struct root){
		.super = { .block_size = n[0],
			.image_size = n[1],
			.nr_blocks = n[2],
			.current_era = n[3],
			.durable_era = n[4],
			.floor_era = n[5],
			.generation = n[6],
			.commit_counter = n[7],
			.state = (enum meta_state)n[8],
			.owner_pid = n[9],
			.owner_start = n[10],
			.committed_at_ns = n[11],
			.image_is_device = n[12] != 0,
			.image_mtime_ns = (int64_t)n[13] },
		.writesets = { n[14], n[15] },
		.array = { n[16], n[17] },
		.labels = { n[18], n[19] },
	};
	memcpy(ret_root->super.uuid, flat->ids[0], ID_BYTES);
	memcpy(ret_root->super.nonce, flat->ids[1], ID_BYTES);
	memcpy(ret_root->super.boot_id, flat->ids[2], ID_BYTES);
}

static uint64_t flat_sum(const struct flat *flat)
{
	struct flat le = *flat;
	for (unsigned int i = 0; i < NR_NUMBERS; i++)
		le.numbers[i] = htole64(le.numbers[i]);
	return rows_sum("ERAsuper", NULL, 0, &le, sizeof(le));
}

const char *super_flaw(const struct meta_super *super)
{
	if (super->block_size < MIN_BLOCK_SIZE || super->block_size > MAX_BLOCK_SIZE ||
		super->block_size % MIN_BLOCK_SIZE)
		return "the block size is not a multiple of 4 KiB from 4 KiB to 1 GiB";
	if (super->image_size == 0 || super->image_size > INT64_MAX)
		return "the image size is out of range";
	if (super->nr_blocks != (super->image_size + super->block_size - 1) / super->block_size)
		return "the number of blocks is not that of the image size";
	if (super->nr_blocks > BM_MAX_BITS)
		return "there are more than 2^31 - 1 blocks";
	if (super->current_era > ERA_MAX)
		return "the current era is out of range";
	if (super->durable_era > super->current_era)
		return "the durable era is above the current one";
	if (super->floor_era > super->current_era)
		return "the floor era is above the current one";
	if (super->state > META_SNAPSHOT)
		return "there is no such state";
	return NULL;
}

static bool load(sqlite3_stmt *stmt, struct flat *ret_flat, uint64_t *ret_sum)
{
	for (int i = 0; i < NR_IDS; i++) {
		const void *id = sqlite3_column_blob(stmt, i);
		if (sqlite3_column_type(stmt, i) != SQLITE_BLOB || sqlite3_column_bytes(stmt, i) != ID_BYTES)
			return false;
		memcpy(ret_flat->ids[i], id, ID_BYTES);
	}
	for (int i = 0; i < NR_NUMBERS; i++)
		ret_flat->numbers[i] = (uint64_t)sqlite3_column_int64(stmt, NR_IDS + i);
	*ret_sum = (uint64_t)sqlite3_column_int64(stmt, NR_IDS + NR_NUMBERS);
	return sqlite3_column_int64(stmt, NR_IDS + NR_NUMBERS + 1) == 1;
}

int super_get(struct db *db, struct root *ret_root, const char **ret_flaw)
{
	*ret_flaw = NULL;
	sqlite3_stmt *stmt = db_stmt(db, SQL_SUPER_GET);
	int r = db_step(db, stmt);
	if (r < 0)
		return r;
	if (r == 0) {
		*ret_flaw = "there is no superblock";
		return -EUCLEAN;
	}

	struct flat flat;
	uint64_t sum;
	bool loaded = load(stmt, &flat, &sum);
	r = db_step(db, stmt);
	if (r < 0)
		return r;
	if (r > 0) {
		sqlite3_reset(stmt);
		*ret_flaw = "there is more than one superblock";
		return -EUCLEAN;
	}

	if (!loaded)
		*ret_flaw = "the superblock holds a value of the wrong type or size";
	else if (sum != flat_sum(&flat))
		*ret_flaw = "the superblock has a wrong checksum";
	else
		unflatten(&flat, ret_root);
	if (!*ret_flaw)
		*ret_flaw = super_flaw(&ret_root->super);
	return *ret_flaw ? -EUCLEAN : 0;
}

int super_put(struct db *db, enum sql id, const struct root *root)
{
	struct flat flat;
	flatten(root, &flat);

	sqlite3_stmt *stmt = db_stmt(db, id);
	for (int i = 0; i < NR_IDS; i++)
		sqlite3_bind_blob(stmt, 1 + i, flat.ids[i], ID_BYTES, SQLITE_TRANSIENT);
	for (int i = 0; i < NR_NUMBERS; i++)
		bind_u64(stmt, 1 + NR_IDS + i, flat.numbers[i]);
	bind_u64(stmt, 1 + NR_IDS + NR_NUMBERS, flat_sum(&flat));
	return db_run(db, stmt);
}
