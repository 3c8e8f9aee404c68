/* SPDX-License-Identifier: MIT */
/* The schema as text, and the proof that a file has it and nothing else: eraimgfs-metadata(5). */
#include "meta_private.h"

#include <errno.h>
#include <string.h>

struct table {
	const char *name;
	const char *sql; /* as SQLite keeps it in sqlite_schema, letter by letter */
};

static const struct table tables[] = {
	/* by name, as SQL_SCHEMA lists them */
	{ "era_chunk", "CREATE TABLE era_chunk("
		       "chunk INTEGER PRIMARY KEY, newest INTEGER NOT NULL, eras_checksum INTEGER NOT NULL, "
		       "checksum INTEGER NOT NULL, eras BLOB NOT NULL) STRICT" },
	{ "label", "CREATE TABLE label("
		   "name TEXT PRIMARY KEY, era INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID" },
	{ "superblock", "CREATE TABLE superblock("
			"id INTEGER PRIMARY KEY CHECK(id = 1), "
			"uuid BLOB NOT NULL, nonce BLOB NOT NULL, boot_id BLOB NOT NULL, "
			"block_size INTEGER NOT NULL, image_size INTEGER NOT NULL, nr_blocks INTEGER NOT NULL, "
			"current_era INTEGER NOT NULL, durable_era INTEGER NOT NULL, floor_era INTEGER NOT NULL, "
			"generation INTEGER NOT NULL, commit_counter INTEGER NOT NULL, state INTEGER NOT NULL, "
			"owner_pid INTEGER NOT NULL, owner_start INTEGER NOT NULL, committed_at_ns INTEGER NOT NULL, "
			"image_is_device INTEGER NOT NULL, image_mtime_ns INTEGER NOT NULL, "
			"nr_writesets INTEGER NOT NULL, writeset_checksum INTEGER NOT NULL, "
			"nr_array_chunks INTEGER NOT NULL, array_checksum INTEGER NOT NULL, "
			"nr_labels INTEGER NOT NULL, label_checksum INTEGER NOT NULL, "
			"checksum INTEGER NOT NULL) STRICT" },
	{ "writeset", "CREATE TABLE writeset("
		      "era INTEGER NOT NULL, extent INTEGER NOT NULL, nr_chunks INTEGER NOT NULL, "
		      "chunk_checksum INTEGER NOT NULL, checksum INTEGER NOT NULL, "
		      "PRIMARY KEY(era, extent)) STRICT, WITHOUT ROWID" },
	{ "writeset_chunk", "CREATE TABLE writeset_chunk("
			    "era INTEGER NOT NULL, extent INTEGER NOT NULL, chunk INTEGER NOT NULL, "
			    "bits BLOB NOT NULL, checksum INTEGER NOT NULL, "
			    "PRIMARY KEY(era, extent, chunk)) STRICT, WITHOUT ROWID" },
};
#define NR_TABLES (sizeof(tables) / sizeof(tables[0]))

#define TEXT_OF(number) #number
#define PRAGMA_TEXT(name, number) "PRAGMA " name "=" TEXT_OF(number)

int schema_create(struct db *db)
{
	int r = db_exec(db, PRAGMA_TEXT("application_id", APPLICATION_ID));
	if (r == 0)
		r = db_exec(db, PRAGMA_TEXT("user_version", SCHEMA_VERSION));
	for (size_t i = 0; r == 0 && i < NR_TABLES; i++)
		r = db_exec(db, tables[i].sql);
	return r;
}

/* Both numbers stand in the file's first 100 bytes: nothing of the schema is read for them. */
static int check_header(struct db *db, const char *path, struct err *err)
{
	int64_t id;
	int64_t version;
	int r = db_number(db, "PRAGMA application_id", &id);
	if (r == 0)
		r = db_number(db, "PRAGMA user_version", &version);
	if (r < 0)
		return db_err_set(db, err, r, path, "read");

	if (id != APPLICATION_ID)
		return db_err_set(db, err, -EMEDIUMTYPE, path, "read");
	if (version > SCHEMA_VERSION)
		return err_set(err, -EPROTONOSUPPORT,
			"%s: was written by a newer eraimgfs (schema version %lld, this one knows %d): upgrade", path,
			(long long)version, SCHEMA_VERSION);
	if (version < SCHEMA_VERSION)
		return verify_err_set(err, path, "schema version %lld, which is of no eraimgfs that was released",
			(long long)version);
	return 0;
}

static bool column_is(sqlite3_stmt *stmt, int column, const char *text)
{
	const char *is = (const char *)sqlite3_column_text(stmt, column);
	return is && strcmp(is, text) == 0;
}

static bool row_is(sqlite3_stmt *stmt, const struct table *table)
{
	return column_is(stmt, 0, "table") && column_is(stmt, 1, table->name) && column_is(stmt, 2, table->name) &&
	       column_is(stmt, 3, table->sql);
}

int schema_check(struct db *db, const char *path, struct err *err)
{
	int r = check_header(db, path, err);
	if (r < 0)
		return r;

	size_t found = 0;
	bool same = true;
	sqlite3_stmt *stmt = db_stmt(db, SQL_SCHEMA);
	while ((r = db_step(db, stmt)) == 1) {
		same = same && found < NR_TABLES && row_is(stmt, &tables[found]);
		found++;
	}
	if (r < 0)
		return db_err_set(db, err, r, path, "read");
	if (!same || found != NR_TABLES)
		return verify_err_set(err, path, "its schema is not that of version %d", SCHEMA_VERSION);
	return 0;
}
