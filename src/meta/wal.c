/* SPDX-License-Identifier: MIT */
/* The write-ahead log: back into the database file. */
#include "meta_private.h"

#include "base/plant.h"

#include <assert.h>
#include <errno.h>

int meta_wal_checkpoint(struct meta *meta, enum meta_wal mode)
{
	int log = -1;
	int done = -1;

	assert(!meta_in_transaction(meta));
	/* With synchronous NORMAL or FULL this fsyncs the -wal before the database is written (a crash in between finds
	 * the commits in the -wal), and the database before the -wal is reset (a crash then finds them there). */
	if (mode == META_WAL_TRY)
		sqlite3_busy_timeout(meta->db.sql, 0);
	int rc = sqlite3_wal_checkpoint_v2(meta->db.sql, "main",
		mode == META_WAL_PASSIVE ? SQLITE_CHECKPOINT_PASSIVE : SQLITE_CHECKPOINT_TRUNCATE, &log, &done);
	if (mode == META_WAL_TRY)
		sqlite3_busy_timeout(meta->db.sql, BUSY_MS);
	if (PLANTED(CHECKPOINT_UNVERIFIED))
		return 0;
	if (mode == META_WAL_PASSIVE)
		return rc && (rc & 0xff) != SQLITE_BUSY ? db_error(&meta->db) : 0;

	/* SQLITE_BUSY after the time of sqlite3_busy_timeout(): a snapshot needs what is there. */
	if (rc)
		return db_error(&meta->db);
	if (log != 0 || done != 0)
		return -EBUSY;
	meta->wal_frames = 0;
	return 0;
}

unsigned int meta_wal_frames(const struct meta *meta)
{
	return meta->wal_frames;
}
