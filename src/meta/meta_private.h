/* SPDX-License-Identifier: MIT */
/*
 * What the files of the metadata layer share. The format is eraimgfs-metadata(5): rows are read and written by the
 * functions below and nowhere else, so that no row is used unchecked and none is written without its checksum.
 *
 * A tally is what the owner of some rows knows about all of them: how many there are, and the XOR of their checksums. A
 * row that is lost, added or old changes it. Writesets, array and labels are tallied in the superblock, chunks in their
 * writeset.
 */
#ifndef META_PRIVATE_H
#define META_PRIVATE_H

#include "meta/meta.h"

#include <sqlite3.h>
#include <stddef.h>
#include <sys/stat.h>

#define APPLICATION_ID 0x45524149 /* "ERAI" */
#define SCHEMA_VERSION 2
#define PAGE_SIZE 4096
#define ERA_MAX ((uint64_t)INT64_MAX)
#define CHUNK_BYTES (BM_CHUNK_WORDS * 8)
#define ARRAY_BLOB_MAX (9 + 8 * BM_CHUNK_BITS)
#define BUSY_MS 1000
#define META_SYNC_UNKNOWN (-1)

struct tally {
	uint64_t count;
	uint64_t sum;
};

static inline void tally_add(struct tally *tally, uint64_t sum)
{
	tally->count++;
	tally->sum ^= sum;
}

static inline void tally_drop(struct tally *tally, uint64_t sum)
{
	tally->count--;
	tally->sum ^= sum;
}

static inline bool tally_equal(const struct tally *a, const struct tally *b)
{
	return a->count == b->count && a->sum == b->sum;
}

/* --- db.c: connections and statements --- */

enum sql {
	SQL_BEGIN_READ,
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_SUPER_GET,
	SQL_SUPER_PUT,
	SQL_SUPER_SET,
	SQL_WRITESET_GET,
	SQL_WRITESET_BELOW,
	SQL_WRITESET_ALL,
	SQL_WRITESET_PUT,
	SQL_WRITESET_DELETE,
	SQL_WRITESET_CLEAR,
	SQL_INTENT_SETS,
	SQL_INTENT_CHUNKS_DELETE,
	SQL_CHUNK_GET,
	SQL_CHUNK_FIRST,
	SQL_CHUNK_OF,
	SQL_CHUNK_RANGE,
	SQL_CHUNK_FROM,
	SQL_CHUNK_ORPHAN,
	SQL_CHUNK_PUT,
	SQL_CHUNK_DELETE,
	SQL_CHUNK_CLEAR,
	SQL_ARRAY_GET,
	SQL_ARRAY_SINCE,
	SQL_ARRAY_FROM,
	SQL_ARRAY_PUT,
	SQL_ARRAY_DELETE,
	SQL_ARRAY_CLEAR,
	SQL_LABEL_GET,
	SQL_LABEL_ALL,
	SQL_LABEL_PUT,
	SQL_LABEL_DELETE,
	SQL_LABEL_CLEAR,
	SQL_SCHEMA,
	SQL_QUICK_CHECK,
	NR_SQL,
};

struct db {
	sqlite3 *sql;
	sqlite3_stmt *stmt[NR_SQL]; /* prepared at first use, kept until db_close() */
	uint64_t eras[BM_CHUNK_BITS]; /* of the array chunk that was read last */
	uint8_t blob[ARRAY_BLOB_MAX];
};

enum db_mode {
	DB_WRITE,
	DB_READ,
	DB_IMMUTABLE, /* without locks and -shm: only for a file that nobody changes and whose -wal is empty */
};

/* Opens an existing file, sets what costs no I/O. path is absolute. 0 or -errno; db_close() after both. */
int db_open(struct db *db, const char *path, enum db_mode mode);
void db_close(struct db *db);

/* The connection's last error as -errno. */
int db_error(const struct db *db);

/* Fills err with the connection's last error: "PATH: cannot be WHAT: ...", or that it is damaged or not ours. */
int db_err_set(const struct db *db, struct err *err, int code, const char *path, const char *what);

/* A statement reset and without bindings, or NULL (db_step() then gives the error). */
sqlite3_stmt *db_stmt(struct db *db, enum sql id);

/* 1 a row, 0 done, -errno; reset unless a row came. */
int db_step(struct db *db, sqlite3_stmt *stmt);

/* db_step() for a statement of one row at most whose row is not wanted: 0 or -errno. */
int db_run(struct db *db, sqlite3_stmt *stmt);

/* Runs SQL text without rows. */
int db_exec(struct db *db, const char *text);

/* One integer out of a PRAGMA or SELECT. 0, -ENOENT when it has no row, -errno. */
int db_number(struct db *db, const char *text, int64_t *ret_value);

void bind_u64(sqlite3_stmt *stmt, int index, uint64_t value);
void bind_blob(sqlite3_stmt *stmt, int index, const void *blob, size_t len); /* valid until the next step */

/* --- place.c: where a database lives --- */

/* path resolved to what carries -wal and -shm, after checks that need no open(): -ENOENT, -EMEDIUMTYPE, -EMLINK. */
int place_find(const char *path, char **ret_real, struct err *err);

/* Refuses network file systems and our own mounts. path names a file, which need not exist. */
int place_check_home(const char *path, struct err *err);
bool place_type_is_refused(const char *fs_type);

/* base with a suffix, malloc'ed, or NULL. */
char *place_name(const char *base, const char *suffix);

/* Size of base + suffix, 0 when there is none, -errno. */
int64_t place_size(const char *base, const char *suffix);

/* --- fresh.c: a new file, whole or not at all. Paths are absolute --- */

/* An empty file beside path that it is built in; the name is malloc'ed. */
int fresh_begin(const char *path, char **ret_temporary);

/* Gives temporary, whose content is durable, the name path; with replace also where that is taken. */
int fresh_finish(const char *temporary, const char *path, bool replace, struct err *err);

/* Removes temporary, where it still has that name, and all that goes by it. Frees the name. NULL is fine. */
void fresh_drop(char *temporary);

/* Refuses what would be taken for a part of a new database at path: -ENOTEMPTY. Changes nothing. */
int fresh_check_beside(const char *path, struct err *err);

/* The empty database in the file temporary: create.c. db_close() is due. */
int create_empty(struct db *db, const char *temporary, const struct meta_super *super);
int create_check(const char *path, const struct meta_super *super, struct err *err);

/* --- schema.c --- */

int schema_create(struct db *db);

/* That the file is a database of ours, of this version, with our schema and nothing else in it. */
int schema_check(struct db *db, const char *path, struct err *err);

/* --- super.c --- */

/* The superblock's row: what callers see, and the tallies. */
struct root {
	struct meta_super super;
	struct tally writesets;
	struct tally array;
	struct tally labels;
};

/* NULL when the invariants of the superblock hold, else the one that does not. */
const char *super_flaw(const struct meta_super *super);

/* 0; -EUCLEAN with *ret_flaw (or NULL for SQLite's own finding); -errno. */
int super_get(struct db *db, struct root *ret_root, const char **ret_flaw);
int super_put(struct db *db, enum sql id, const struct root *root);

/* --- rows.c: a row's columns and checksum. rows_*_load() return NULL, or what is wrong with the row --- */

struct writeset {
	uint64_t era;
	uint64_t
		extent; /* 0: of blocks; else of intents, blocks a bit; with EXTENT_FEARED, of what intents have left */
	struct tally chunks;
	uint64_t sum;
};

struct chunk {
	uint64_t era;
	uint64_t extent; /* as in struct writeset */
	uint64_t index;
	uint64_t words[BM_CHUNK_WORDS];
	uint64_t sum;
};

struct array {
	uint64_t index;
	uint64_t newest; /* the greatest era in it */
	uint64_t eras_sum;
	uint64_t sum;
};

struct label {
	char name[META_LABEL_MAX + 1];
	uint64_t era;
	uint64_t sum;
};

/* XXH3 over content, seeded with XXH3 over an eight-byte tag and keys. */
uint64_t rows_sum(const char *tag, const uint64_t *keys, unsigned int nr_keys, const void *content, size_t len);

const char *rows_writeset_load(sqlite3_stmt *stmt, struct writeset *ret_row);
const char *rows_chunk_load(sqlite3_stmt *stmt, struct chunk *ret_row);
const char *rows_array_load(sqlite3_stmt *stmt, struct array *ret_row);
/* Of a row that was loaded, with its eras in the next column: all of them; the blocks whose era is `era` or later, where
 * era <= row->newest (what else newest may be is not looked at); that eras and newest are sound. */
const char *rows_array_eras(sqlite3_stmt *stmt, const struct array *row, unsigned int nr, uint64_t *ret_eras);
const char *rows_array_since(
	sqlite3_stmt *stmt, const struct array *row, unsigned int nr, uint64_t era, uint64_t ret_words[BM_CHUNK_WORDS]);
const char *rows_array_check(sqlite3_stmt *stmt, const struct array *row, unsigned int nr);
const char *rows_label_load(sqlite3_stmt *stmt, struct label *ret_row);

/* They compute and set row->sum. */
int rows_writeset_put(struct db *db, struct writeset *row);
int rows_chunk_put(struct db *db, struct chunk *row);
int rows_array_put(struct db *db, struct array *row, const void *blob, size_t len);
int rows_label_put(struct db *db, struct label *row);

/* Added to an extent: nobody will make marks of these any more, they stay as they are. */
#define EXTENT_FEARED UINT64_C(65536)

/* Blocks that a bit of such a set stands for. */
static inline uint64_t extent_blocks(uint64_t extent)
{
	return extent == 0 ? 1 : extent & (EXTENT_FEARED - 1);
}

bool extent_is_valid(uint64_t extent);

/* Bits of a whole writeset of that extent, in a database of nr_blocks. */
uint64_t extent_bits(uint64_t nr_blocks, uint64_t extent);

/* Blocks in a chunk of a database of nr_blocks; 0 beyond the last. (Of extent_bits(): bits in a chunk of intents.) */
unsigned int chunk_blocks(uint64_t nr_blocks, uint64_t index);

/* Clears bits at nr_bits and beyond; true when there were any. */
bool chunk_trim(uint64_t *words, unsigned int nr_bits);
bool chunk_is_empty(const uint64_t *words);
uint64_t chunk_count(const uint64_t *words);

/* --- array.c: the encoding of an array chunk --- */

/* Bytes used of blob; *ret_newest is the greatest era, 0 when no block has one. */
size_t array_encode(const uint64_t *eras, unsigned int nr, uint8_t blob[ARRAY_BLOB_MAX], uint64_t *ret_newest);

/* False for what array_encode() cannot have made of nr blocks. */
bool array_decode(const uint8_t *blob, size_t len, unsigned int nr, uint64_t *ret_eras, uint64_t *ret_newest);

/* The blocks whose era is `era` or later, as words; blocks that are not there are clear. False as above, but for eras that
 * are too great: such a block is reported. */
bool array_since(const uint8_t *blob, size_t len, unsigned int nr, uint64_t era, uint64_t ret_words[BM_CHUNK_WORDS]);

/* --- the writing connection --- */

struct meta {
	struct db db;
	char *path; /* as the caller wrote it */
	struct root root; /* as committed */
	struct root pending;
	int sync; /* enum meta_sync, or META_SYNC_UNKNOWN */
	uint64_t row_blocks; /* nr_blocks that the rows fit; 0: there are no rows */
	uint64_t newest_era; /* greatest era that the open transaction gave to a row */
	unsigned int wal_frames;
};

bool meta_in_transaction(const struct meta *meta);

/* writeset.c. find: 1 found, 0 none (row empty), -errno. put: removes a writeset without chunks, else writes it. */
int writeset_find(struct meta *meta, uint64_t era, uint64_t extent, struct writeset *ret_row);
int writeset_put(struct meta *meta, struct writeset *row);
int writeset_drop_chunk(struct meta *meta, struct writeset *row, const struct chunk *chunk);
int writeset_put_chunk(struct meta *meta, struct writeset *row, struct chunk *chunk);

/* digest.c. Array chunk index with its eras in db.eras (all zero where there is no row; then row->sum is not counted). */
int digest_array_get(struct meta *meta, uint64_t index, unsigned int nr, struct array *ret_row);
int digest_array_put(struct meta *meta, struct array *row, unsigned int nr); /* removes a row without eras */

/* --- reader.c --- */

struct meta_reader {
	struct db db;
	char *path; /* as the caller wrote it */
	char *real;
	struct root root;
	bool in_place; /* read without locks: `seen` proves that nobody wrote meanwhile */
	uint64_t settled_from; /* intents of this era and later do not count */
	struct stat seen;
};

/* "PATH: is a snapshot ...". Returns -EPERM. */
int reader_refuse_snapshot(const char *path, struct err *err);

/* Read in place there is no snapshot: an answer counts only if nobody wrote until it was whole. */
int reader_check_still(const struct meta_reader *reader, struct err *err);

/* The end of a loop over rows, which must have been all rows. */
int reader_end_of(const struct meta_reader *reader, sqlite3_stmt *stmt, int r, const struct tally *is,
	const struct tally *want, const char *what, struct err *err);

/* Visits the chunks of writesets and of intents that count, of era from and later, by era, extent and chunk. */
typedef int reader_visit_chunk(const struct chunk *chunk, void *arg);
int reader_each_chunk(struct meta_reader *reader, uint64_t from, reader_visit_chunk *visit, void *arg, struct err *err);

/* Sets in blocks what the intents in chunk stand for. 0 or -ENOMEM. */
int reader_expand(const struct chunk *chunk, struct bm *blocks);

/* --- verify.c --- */

typedef void verify_finding(const char *text, void *arg);

/* All invariants, in the snapshot of the connection. The number of findings (it ends after max), or -errno. */
int verify_all(struct db *db, unsigned int max, verify_finding *finding, void *arg, struct root *ret_root);

/* "PATH: damaged (WHAT): the way on". Returns -EUCLEAN. */
int verify_err_set(struct err *err, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
