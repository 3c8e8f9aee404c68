/* SPDX-License-Identifier: MIT */
/* Rows and their checksums: eraimgfs-metadata(5), CHECKSUMS. */
#include "meta_private.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

static const char wrong_value[] = "a value of the wrong type, size or range";
static const char wrong_sum[] = "wrong checksum";
static const char wrong_encoding[] = "eras in no valid encoding";
static const char wrong_newest[] = "newest is not the newest of its eras";

uint64_t rows_sum(const char *tag, const uint64_t *keys, unsigned int nr_keys, const void *content, size_t len)
{
	uint64_t head[1 + 4];
	assert(strlen(tag) == sizeof(head[0]) && nr_keys < sizeof(head) / sizeof(head[0]));

	memcpy(&head[0], tag, sizeof(head[0]));
	for (unsigned int i = 0; i < nr_keys; i++)
		head[1 + i] = htole64(keys[i]);
	return XXH3_64bits_withSeed(content, len, XXH3_64bits(head, (1 + nr_keys) * sizeof(head[0])));
}

/* An INTEGER that is no checksum is never negative. */
static bool column_u64(sqlite3_stmt *stmt, int column, uint64_t *ret_value)
{
	*ret_value = (uint64_t)sqlite3_column_int64(stmt, column);
	return sqlite3_column_type(stmt, column) == SQLITE_INTEGER && *ret_value <= INT64_MAX;
}

static bool column_sum(sqlite3_stmt *stmt, int column, uint64_t *ret_sum)
{
	*ret_sum = (uint64_t)sqlite3_column_int64(stmt, column);
	return sqlite3_column_type(stmt, column) == SQLITE_INTEGER;
}

static uint64_t writeset_sum(const struct writeset *row)
{
	uint64_t keys[] = { row->era, row->extent, row->chunks.count, row->chunks.sum };
	return rows_sum("ERAwset_", keys, 4, "", 0);
}

const char *rows_writeset_load(sqlite3_stmt *stmt, struct writeset *ret_row)
{
	if (!column_u64(stmt, 0, &ret_row->era) || !column_u64(stmt, 1, &ret_row->extent) ||
		!column_u64(stmt, 2, &ret_row->chunks.count) || !column_sum(stmt, 3, &ret_row->chunks.sum) ||
		!column_sum(stmt, 4, &ret_row->sum) || !extent_is_valid(ret_row->extent))
		return wrong_value;
	return ret_row->sum == writeset_sum(ret_row) ? NULL : wrong_sum;
}

int rows_writeset_put(struct db *db, struct writeset *row)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_WRITESET_PUT);
	row->sum = writeset_sum(row);
	bind_u64(stmt, 1, row->era);
	bind_u64(stmt, 2, row->extent);
	bind_u64(stmt, 3, row->chunks.count);
	bind_u64(stmt, 4, row->chunks.sum);
	bind_u64(stmt, 5, row->sum);
	return db_run(db, stmt);
}

static uint64_t chunk_sum(const struct chunk *row, const uint64_t *le_words)
{
	uint64_t keys[] = { row->era, row->extent, row->index };
	return rows_sum("ERAwchnk", keys, 3, le_words, CHUNK_BYTES);
}

const char *rows_chunk_load(sqlite3_stmt *stmt, struct chunk *ret_row)
{
	if (!column_u64(stmt, 0, &ret_row->era) || !column_u64(stmt, 1, &ret_row->extent) ||
		!column_u64(stmt, 2, &ret_row->index) || !column_sum(stmt, 4, &ret_row->sum) ||
		sqlite3_column_type(stmt, 3) != SQLITE_BLOB || !extent_is_valid(ret_row->extent))
		return wrong_value;
	const void *bits = sqlite3_column_blob(stmt, 3);
	if (!bits || sqlite3_column_bytes(stmt, 3) != CHUNK_BYTES)
		return wrong_value;

	memcpy(ret_row->words, bits, CHUNK_BYTES);
	if (ret_row->sum != chunk_sum(ret_row, ret_row->words))
		return wrong_sum;
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		ret_row->words[i] = le64toh(ret_row->words[i]);
	return NULL;
}

int rows_chunk_put(struct db *db, struct chunk *row)
{
	uint64_t le_words[BM_CHUNK_WORDS];
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		le_words[i] = htole64(row->words[i]);
	row->sum = chunk_sum(row, le_words);

	sqlite3_stmt *stmt = db_stmt(db, SQL_CHUNK_PUT);
	bind_u64(stmt, 1, row->era);
	bind_u64(stmt, 2, row->extent);
	bind_u64(stmt, 3, row->index);
	bind_blob(stmt, 4, le_words, sizeof(le_words));
	bind_u64(stmt, 5, row->sum);
	return db_run(db, stmt);
}

/* The eras go in by their own checksum, so that a row can be proven without reading them: `since` skips most. */
static uint64_t array_sum(const struct array *row)
{
	uint64_t keys[] = { row->index, row->newest, row->eras_sum };
	return rows_sum("ERAarray", keys, 3, "", 0);
}

const char *rows_array_load(sqlite3_stmt *stmt, struct array *ret_row)
{
	if (!column_u64(stmt, 0, &ret_row->index) || !column_u64(stmt, 1, &ret_row->newest) ||
		!column_sum(stmt, 2, &ret_row->eras_sum) || !column_sum(stmt, 3, &ret_row->sum))
		return wrong_value;
	return ret_row->sum == array_sum(ret_row) ? NULL : wrong_sum;
}

int rows_array_put(struct db *db, struct array *row, const void *blob, size_t len)
{
	row->eras_sum = XXH3_64bits(blob, len);
	row->sum = array_sum(row);

	sqlite3_stmt *stmt = db_stmt(db, SQL_ARRAY_PUT);
	bind_u64(stmt, 1, row->index);
	bind_u64(stmt, 2, row->newest);
	bind_u64(stmt, 3, row->eras_sum);
	bind_u64(stmt, 4, row->sum);
	bind_blob(stmt, 5, blob, len);
	return db_run(db, stmt);
}

static const char *array_blob(sqlite3_stmt *stmt, const struct array *row, const uint8_t **ret_blob, size_t *ret_len)
{
	*ret_blob = sqlite3_column_blob(stmt, 4);
	*ret_len = (size_t)sqlite3_column_bytes(stmt, 4);
	if (!*ret_blob || sqlite3_column_type(stmt, 4) != SQLITE_BLOB)
		return wrong_value;
	return XXH3_64bits(*ret_blob, *ret_len) == row->eras_sum ? NULL : wrong_sum;
}

const char *rows_array_eras(sqlite3_stmt *stmt, const struct array *row, unsigned int nr, uint64_t *ret_eras)
{
	const uint8_t *blob;
	size_t len;
	uint64_t newest;
	const char *flaw = array_blob(stmt, row, &blob, &len);
	if (flaw)
		return flaw;
	if (!array_decode(blob, len, nr, ret_eras, &newest))
		return wrong_encoding;
	return newest == row->newest && newest ? NULL : wrong_newest;
}

const char *rows_array_since(
	sqlite3_stmt *stmt, const struct array *row, unsigned int nr, uint64_t era, uint64_t ret_words[BM_CHUNK_WORDS])
{
	const uint8_t *blob;
	size_t len;
	const char *flaw = array_blob(stmt, row, &blob, &len);
	if (flaw)
		return flaw;
	if (!array_since(blob, len, nr, era, ret_words))
		return wrong_encoding;
	return chunk_is_empty(ret_words) ? wrong_newest : NULL; /* the newest at least must be there */
}

const char *rows_array_check(sqlite3_stmt *stmt, const struct array *row, unsigned int nr)
{
	const uint8_t *blob;
	size_t len;
	uint64_t newest[BM_CHUNK_WORDS], newer[BM_CHUNK_WORDS];
	const char *flaw = array_blob(stmt, row, &blob, &len);
	if (flaw)
		return flaw;
	if (!array_since(blob, len, nr, row->newest, newest) || !array_since(blob, len, nr, row->newest + 1, newer))
		return wrong_encoding;
	return chunk_is_empty(newest) || !chunk_is_empty(newer) ? wrong_newest : NULL;
}

static uint64_t label_sum(const struct label *row)
{
	return rows_sum("ERAlabel", &row->era, 1, row->name, strlen(row->name));
}

const char *rows_label_load(sqlite3_stmt *stmt, struct label *ret_row)
{
	const char *name = (const char *)sqlite3_column_text(stmt, 0);
	if (!name || !meta_label_is_valid(name) || strlen(name) != (size_t)sqlite3_column_bytes(stmt, 0) ||
		!column_u64(stmt, 1, &ret_row->era) || !column_sum(stmt, 2, &ret_row->sum))
		return wrong_value;
	strcpy(ret_row->name, name);
	return ret_row->sum == label_sum(ret_row) ? NULL : wrong_sum;
}

int rows_label_put(struct db *db, struct label *row)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_LABEL_PUT);
	row->sum = label_sum(row);
	sqlite3_bind_text(stmt, 1, row->name, -1, SQLITE_TRANSIENT);
	bind_u64(stmt, 2, row->era);
	bind_u64(stmt, 3, row->sum);
	return db_run(db, stmt);
}

bool extent_is_valid(uint64_t extent)
{
	uint64_t blocks = extent & ~EXTENT_FEARED;
	return blocks <= META_EXTENT_MAX && (blocks > 0 || extent == 0);
}

uint64_t extent_bits(uint64_t nr_blocks, uint64_t extent)
{
	return (nr_blocks - 1) / extent_blocks(extent) + 1;
}

unsigned int chunk_blocks(uint64_t nr_blocks, uint64_t index)
{
	uint64_t nr_whole = nr_blocks / BM_CHUNK_BITS;
	if (index < nr_whole)
		return BM_CHUNK_BITS;
	return index == nr_whole ? (unsigned int)(nr_blocks % BM_CHUNK_BITS) : 0;
}

bool chunk_trim(uint64_t *words, unsigned int nr_bits)
{
	uint64_t over = 0;
	for (unsigned int i = nr_bits / 64; i < BM_CHUNK_WORDS; i++) {
		uint64_t keep = i == nr_bits / 64 ? (UINT64_C(1) << nr_bits % 64) - 1 : 0;
		over |= words[i] & ~keep;
		words[i] &= keep;
	}
	return over != 0;
}

bool chunk_is_empty(const uint64_t *words)
{
	uint64_t any = 0;
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		any |= words[i];
	return any == 0;
}

uint64_t chunk_count(const uint64_t *words)
{
	uint64_t count = 0;
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		count += (uint64_t)__builtin_popcountll(words[i]);
	return count;
}
