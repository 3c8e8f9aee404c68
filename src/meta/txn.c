/* SPDX-License-Identifier: MIT */
/* The one transaction of the writing connection. */
#include "meta_private.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

bool meta_in_transaction(const struct meta *meta)
{
	return !sqlite3_get_autocommit(meta->db.sql);
}

static int set_sync(struct meta *meta, enum meta_sync sync)
{
	if (meta->sync == (int)sync)
		return 0;
	int64_t value = -1;
	meta->sync = META_SYNC_UNKNOWN;
	int r = db_exec(&meta->db, sync == META_FULL ? "PRAGMA synchronous=full" : "PRAGMA synchronous=normal");
	if (r == 0)
		r = db_number(&meta->db, "PRAGMA synchronous", &value);
	if (r < 0)
		return r;
	if (value != (sync == META_FULL ? 2 : 1))
		return -ENOTSUP;
	meta->sync = (int)sync;
	return 0;
}

int meta_begin(struct meta *meta, enum meta_sync sync)
{
	assert(!meta_in_transaction(meta));
	int r = set_sync(meta, sync);
	if (r == 0)
		r = db_run(&meta->db, db_stmt(&meta->db, SQL_BEGIN));
	if (r < 0)
		return r;
	meta->pending = meta->root;
	meta->row_blocks = meta->root.super.nr_blocks;
	meta->newest_era = 0;
	return 0;
}

struct meta_super *meta_pending(struct meta *meta)
{
	assert(meta_in_transaction(meta));
	return &meta->pending.super;
}

static uint64_t wall_clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int meta_commit(struct meta *meta)
{
	struct root *pending = &meta->pending;
	assert(meta_in_transaction(meta));
	/* What the next open would refuse as damaged is never written. */
	assert(!super_flaw(&pending->super));
	assert(meta->newest_era <= pending->super.current_era);
	assert(meta->row_blocks == 0 || meta->row_blocks == pending->super.nr_blocks);

	pending->super.commit_counter = meta->root.super.commit_counter + 1;
	pending->super.committed_at_ns = wall_clock_ns();
	int r = super_put(&meta->db, SQL_SUPER_SET, pending);
	/* META_FULL: fsyncs the -wal, so that a power loss after we returned leaves the commit there. META_LAZY: a power
	 * loss may take back this commit and those after it, never one out of the middle. */
	if (r == 0)
		r = db_run(&meta->db, db_stmt(&meta->db, SQL_COMMIT));
	if (r == 0)
		meta->root = *pending;
	else
		meta_rollback(meta); /* a failed COMMIT may leave the transaction open */
	return r;
}

void meta_rollback(struct meta *meta)
{
	/* Some errors roll back by themselves. */
	if (meta_in_transaction(meta))
		db_run(&meta->db, db_stmt(&meta->db, SQL_ROLLBACK));
}
