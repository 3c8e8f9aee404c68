/* SPDX-License-Identifier: MIT */
/* Connections and statements. SQLite's result codes become -errno here. */
#include "meta_private.h"

#include "base/plant.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUPER_COLUMNS                                                                                                  \
	"uuid, nonce, boot_id, block_size, image_size, nr_blocks, current_era, durable_era, floor_era, generation, "   \
	"commit_counter, state, owner_pid, owner_start, committed_at_ns, image_is_device, image_mtime_ns, "            \
	"nr_writesets, writeset_checksum, nr_array_chunks, array_checksum, nr_labels, label_checksum, checksum"
#define WRITESET_COLUMNS "era, extent, nr_chunks, chunk_checksum, checksum"
#define CHUNK_COLUMNS "era, extent, chunk, bits, checksum"
#define ARRAY_COLUMNS "chunk, newest, eras_checksum, checksum"
#define LABEL_COLUMNS "name, era, checksum"

/* Rows are always selected with the columns in the order in which rows_*_load() takes them. */
static const char *const sql_text[NR_SQL] = {
	[SQL_BEGIN_READ] = "BEGIN",
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_SUPER_GET] = "SELECT " SUPER_COLUMNS ", id FROM superblock",
	[SQL_SUPER_PUT] = "INSERT INTO superblock(id, " SUPER_COLUMNS ") VALUES(1, "
			  "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "
			  "?21, ?22, ?23, ?24)",
	[SQL_SUPER_SET] = "UPDATE superblock SET (" SUPER_COLUMNS ") = ("
			  "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "
			  "?21, ?22, ?23, ?24) WHERE id = 1",
	[SQL_WRITESET_GET] = "SELECT " WRITESET_COLUMNS " FROM writeset WHERE era = ?1 AND extent = ?2",
	[SQL_WRITESET_BELOW] = "SELECT " WRITESET_COLUMNS " FROM writeset WHERE era < ?1 AND extent = 0 "
			       "ORDER BY era LIMIT 1",
	[SQL_WRITESET_ALL] = "SELECT " WRITESET_COLUMNS " FROM writeset ORDER BY era, extent",
	[SQL_WRITESET_PUT] = "REPLACE INTO writeset(" WRITESET_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5)",
	[SQL_WRITESET_DELETE] = "DELETE FROM writeset WHERE era = ?1 AND extent = ?2",
	[SQL_WRITESET_CLEAR] = "DELETE FROM writeset",
	[SQL_INTENT_SETS] = "SELECT " WRITESET_COLUMNS " FROM writeset WHERE era >= ?1 AND era < ?2 "
			    "AND extent > 0 AND extent < 65536" /* EXTENT_FEARED */,
	[SQL_INTENT_CHUNKS_DELETE] = "DELETE FROM writeset_chunk WHERE era = ?1 AND extent = ?2",
	[SQL_CHUNK_GET] = "SELECT " CHUNK_COLUMNS " FROM writeset_chunk WHERE era = ?1 AND extent = ?2 AND chunk = ?3",
	[SQL_CHUNK_FIRST] = "SELECT " CHUNK_COLUMNS " FROM writeset_chunk WHERE era = ?1 AND extent = 0 "
			    "ORDER BY chunk LIMIT 1",
	[SQL_CHUNK_OF] = "SELECT " CHUNK_COLUMNS " FROM writeset_chunk WHERE era = ?1 AND extent = ?2 ORDER BY chunk",
	[SQL_CHUNK_RANGE] = "SELECT " CHUNK_COLUMNS " FROM writeset_chunk WHERE era >= ?1 AND era < ?2",
	[SQL_CHUNK_FROM] = "SELECT " CHUNK_COLUMNS " FROM writeset_chunk WHERE era = ?1 AND extent = ?2 "
			   "AND chunk >= ?3",
	/* From set to set by the key: few rows are read. */
	[SQL_CHUNK_ORPHAN] =
		"WITH RECURSIVE sets(era, extent) AS (SELECT * FROM (SELECT era, extent FROM writeset_chunk "
		"ORDER BY era, extent LIMIT 1) UNION ALL SELECT "
		"(SELECT c.era FROM writeset_chunk c WHERE (c.era, c.extent) > (sets.era, sets.extent) "
		"ORDER BY c.era, c.extent LIMIT 1), "
		"(SELECT c.extent FROM writeset_chunk c WHERE (c.era, c.extent) > (sets.era, sets.extent) "
		"ORDER BY c.era, c.extent LIMIT 1) FROM sets WHERE sets.era IS NOT NULL) "
		"SELECT era FROM sets WHERE era IS NOT NULL AND NOT EXISTS "
		"(SELECT 1 FROM writeset w WHERE w.era = sets.era AND w.extent = sets.extent)",
	[SQL_CHUNK_PUT] = "REPLACE INTO writeset_chunk(" CHUNK_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5)",
	[SQL_CHUNK_DELETE] = "DELETE FROM writeset_chunk WHERE era = ?1 AND extent = ?2 AND chunk = ?3",
	[SQL_CHUNK_CLEAR] = "DELETE FROM writeset_chunk",
	[SQL_ARRAY_GET] = "SELECT " ARRAY_COLUMNS ", eras FROM era_chunk WHERE chunk = ?1",
	/* SQLite does not read what the CASE leaves out, which lies on pages of its own. */
	[SQL_ARRAY_SINCE] = "SELECT " ARRAY_COLUMNS ", CASE WHEN newest >= ?1 THEN eras END FROM era_chunk "
			    "ORDER BY chunk",
	[SQL_ARRAY_FROM] = "SELECT " ARRAY_COLUMNS " FROM era_chunk WHERE chunk >= ?1",
	[SQL_ARRAY_PUT] = "REPLACE INTO era_chunk(" ARRAY_COLUMNS ", eras) VALUES(?1, ?2, ?3, ?4, ?5)",
	[SQL_ARRAY_DELETE] = "DELETE FROM era_chunk WHERE chunk = ?1",
	[SQL_ARRAY_CLEAR] = "DELETE FROM era_chunk",
	[SQL_LABEL_GET] = "SELECT " LABEL_COLUMNS " FROM label WHERE name = ?1",
	[SQL_LABEL_ALL] = "SELECT " LABEL_COLUMNS " FROM label ORDER BY name",
	[SQL_LABEL_PUT] = "REPLACE INTO label(" LABEL_COLUMNS ") VALUES(?1, ?2, ?3)",
	[SQL_LABEL_DELETE] = "DELETE FROM label WHERE name = ?1",
	[SQL_LABEL_CLEAR] = "DELETE FROM label",
	[SQL_SCHEMA] = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name",
	[SQL_QUICK_CHECK] = "PRAGMA quick_check",
};

/* An absolute path as a URI: what has a meaning there, and all that is not plain, is percent-encoded. */
static char *uri_of(const char *path, const char *query)
{
	char *uri = malloc(3 * strlen(path) + strlen(query) + sizeof("file:"));
	if (!uri)
		return NULL;

	char *at = stpcpy(uri, "file:");
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;
		bool plain =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("/-_.", c);
		at += plain ? sprintf(at, "%c", c) : sprintf(at, "%%%02X", c);
	}
	strcpy(at, query);
	return uri;
}

static int configure(struct db *db)
{
	/* Closing must never checkpoint, nor delete a -wal: it may be what another instance left, or a frozen one's. */
	static const struct {
		int option;
		int value;
	} config[] = {
		{ SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !PLANTED(CLOSE_KEEPS_NOTHING) },
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
		{ SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
	};

	for (size_t i = 0; i < sizeof(config) / sizeof(config[0]); i++) {
		int now = -1;
		if (sqlite3_db_config(db->sql, config[i].option, config[i].value, &now) || now != config[i].value)
			return -ENOTSUP;
	}
	sqlite3_busy_timeout(db->sql, BUSY_MS);
	return db_exec(db, "PRAGMA cell_size_check=1; PRAGMA temp_store=memory");
}

int db_open(struct db *db, const char *path, enum db_mode mode)
{
	static const char *const query[] = {
		[DB_WRITE] = "?mode=rw", [DB_READ] = "?mode=ro", [DB_IMMUTABLE] = "?mode=ro&immutable=1"
	};
	char *uri = uri_of(path, query[mode]);
	if (!uri)
		return -ENOMEM;

	/* One thread at a time is the contract of meta.h. */
	int flags = SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE |
		    (mode == DB_WRITE ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
	int rc = sqlite3_open_v2(uri, &db->sql, flags, NULL);
	free(uri);
	if (rc)
		return db_error(db);
	sqlite3_extended_result_codes(db->sql, 1);
	return configure(db);
}

void db_close(struct db *db)
{
	for (unsigned int i = 0; i < NR_SQL; i++)
		sqlite3_finalize(db->stmt[i]);
	int rc = sqlite3_close(db->sql);
	assert(rc == SQLITE_OK); /* or a statement leaked */
	(void)rc;
	*db = (struct db){ 0 };
}

/*
 * A write that found no room, of the disk, of a quota or of a file size limit: like SQLITE_FULL it ends a transaction
 * that was not committed, as the commit frame was not written whole. (-shm grows by a different code.)
 */
static bool no_room(int code, int system_errno)
{
	return code == SQLITE_IOERR_WRITE &&
	       (system_errno == ENOSPC || system_errno == EDQUOT || system_errno == EFBIG);
}

int db_error(const struct db *db)
{
	if (!db->sql)
		return -ENOMEM;

	int code = sqlite3_extended_errcode(db->sql);
	int system_errno = sqlite3_system_errno(db->sql);
	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_CORRUPT:
		return -EUCLEAN;
	case SQLITE_NOTADB:
		return -EMEDIUMTYPE;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CANTOPEN:
		return system_errno ? -system_errno : -EIO;
	default:
		if (code == SQLITE_IOERR_NOMEM)
			return -ENOMEM;
		return no_room(code, system_errno) ? -ENOSPC : -EIO;
	}
}

int db_err_set(const struct db *db, struct err *err, int code, const char *path, const char *what)
{
	const char *why = db->sql ? sqlite3_errmsg(db->sql) : "out of memory";

	switch (code) {
	case -EUCLEAN:
		return verify_err_set(err, path, "%s", why);
	case -EMEDIUMTYPE:
		return err_set(err, code, "%s: is not an eraimgfs database: name another with -o metadata=PATH", path);
	case -ENOSPC:
		return err_set(err, code, "%s: cannot be %s: no space left: make room, then try again", path, what);
	case -EBUSY:
		return err_set(err, code, "%s: cannot be %s: another program has it locked: end it, then try again",
			path, what);
	default:
		return err_set(err, code, "%s: cannot be %s: %s (%s): see to the file, its folder and the disk", path,
			what, strerror(-code), why);
	}
}

sqlite3_stmt *db_stmt(struct db *db, enum sql id)
{
	sqlite3_stmt **stmt = &db->stmt[id];
	if (!*stmt) {
		sqlite3_prepare_v3(db->sql, sql_text[id], -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL);
		return *stmt;
	}
	sqlite3_reset(*stmt);
	sqlite3_clear_bindings(*stmt);
	return *stmt;
}

int db_step(struct db *db, sqlite3_stmt *stmt)
{
	if (!stmt)
		return db_error(db);

	int rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		return 1;
	int r = rc == SQLITE_DONE ? 0 : db_error(db);
	sqlite3_reset(stmt);
	return r;
}

int db_run(struct db *db, sqlite3_stmt *stmt)
{
	int r = db_step(db, stmt);
	if (r > 0)
		sqlite3_reset(stmt);
	return r < 0 ? r : 0;
}

int db_exec(struct db *db, const char *text)
{
	return sqlite3_exec(db->sql, text, NULL, NULL, NULL) ? db_error(db) : 0;
}

int db_number(struct db *db, const char *text, int64_t *ret_value)
{
	sqlite3_stmt *stmt = NULL;
	sqlite3_prepare_v2(db->sql, text, -1, &stmt, NULL);
	int r = db_step(db, stmt);
	if (r == 1)
		*ret_value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

void bind_u64(sqlite3_stmt *stmt, int index, uint64_t value)
{
	sqlite3_bind_int64(stmt, index, (sqlite3_int64)value);
}

void bind_blob(sqlite3_stmt *stmt, int index, const void *blob, size_t len)
{
	sqlite3_bind_blob64(stmt, index, blob, len, SQLITE_STATIC);
}
