/* SPDX-License-Identifier: MIT */
/* Labels: eras with a name. */
#include "meta_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_more(char c)
{
	return is_letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-';
}

bool meta_label_is_valid(const char *name)
{
	if (!is_letter(name[0]))
		return false;
	size_t len = 1;
	while (len <= META_LABEL_MAX && is_more(name[len]))
		len++;
	return len <= META_LABEL_MAX && name[len] == '\0';
}

/* Takes the row that is there out of the tally. 1, or 0 where there is none. */
static int forget(struct meta *meta, const char *name)
{
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_LABEL_GET);
	sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	int r = db_step(&meta->db, stmt);
	if (r <= 0)
		return r;

	struct label row;
	bool sound = !rows_label_load(stmt, &row);
	sqlite3_reset(stmt);
	if (!sound)
		return -EUCLEAN;
	tally_drop(&meta->pending.labels, row.sum);
	return 1;
}

int meta_label_set(struct meta *meta, const char *name, uint64_t era)
{
	assert(meta_in_transaction(meta));
	assert(meta_label_is_valid(name) && era <= ERA_MAX);

	int r = forget(meta, name);
	if (r < 0)
		return r;
	struct label row = { .era = era };
	strcpy(row.name, name);
	r = rows_label_put(&meta->db, &row);
	tally_add(&meta->pending.labels, row.sum);
	if (era > meta->newest_era)
		meta->newest_era = era;
	return r;
}

int meta_label_remove(struct meta *meta, const char *name)
{
	assert(meta_in_transaction(meta));
	int r = forget(meta, name);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	sqlite3_stmt *stmt = db_stmt(&meta->db, SQL_LABEL_DELETE);
	sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	return db_run(&meta->db, stmt);
}
