/* SPDX-License-Identifier: MIT */
/* All invariants of eraimgfs-metadata(5), in one snapshot. */
#include "meta_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct verify {
	struct db *db;
	unsigned int max;
	verify_finding *finding;
	void *arg;

	struct root root;
	unsigned int found;
};

int verify_err_set(struct err *err, const char *path, const char *format, ...)
{
	char what[512];
	va_list args;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return err_set(err, -EUCLEAN,
		"%s: damaged (%s): restore it from a backup, or mount with -o bypass=mark-all to go on with a full backup",
		path, what);
}

static void __attribute__((format(printf, 2, 3))) find(struct verify *v, const char *format, ...)
{
	if (v->found == v->max)
		return;
	char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	v->found++;
	v->finding(text, v->arg);
}

/* The end of a loop over rows: damage that SQLite met is a finding, what kept us from looking is an error. */
static int end_of(struct verify *v, sqlite3_stmt *stmt, int r, const char *where)
{
	sqlite3_reset(stmt);
	if (r != -EUCLEAN && r != -EMEDIUMTYPE)
		return r < 0 ? r : 0;
	find(v, "%s: %s", where, sqlite3_errmsg(v->db->sql));
	return 0;
}

static void compare(struct verify *v, const char *what, const struct tally *is, const struct tally *want)
{
	if (is->count != want->count)
		find(v, "%s: there are %llu, and there should be %llu", what, (unsigned long long)is->count,
			(unsigned long long)want->count);
	else if (is->sum != want->sum)
		find(v, "%s: a row is not the one that was written", what);
}

static int verify_quick(struct verify *v)
{
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_QUICK_CHECK);
	int r = 0;
	while (v->found < v->max && (r = db_step(v->db, stmt)) == 1) {
		const char *text = (const char *)sqlite3_column_text(stmt, 0);
		if (!text || strcmp(text, "ok") != 0)
			find(v, "quick_check: %s", text ? text : "out of memory");
	}
	return end_of(v, stmt, r, "quick_check");
}

/* "writeset", or "intents of" an era. */
static const char *set_kind(uint64_t extent)
{
	return extent == 0 ? "writeset" : "intents of era";
}

static void verify_chunk(struct verify *v, struct chunk *chunk, const char *flaw, struct tally *tally)
{
	const char *kind = set_kind(chunk->extent);
	unsigned long long era = chunk->era;
	unsigned long long index = chunk->index;

	if (flaw) {
		find(v, "%s %llu, chunk %llu: %s", kind, era, index, flaw);
		return;
	}
	uint64_t nr_bits = extent_bits(v->root.super.nr_blocks, chunk->extent);
	if (chunk_trim(chunk->words, chunk_blocks(nr_bits, chunk->index)))
		find(v, "%s %llu, chunk %llu: blocks beyond the end of the image", kind, era, index);
	tally_add(tally, chunk->sum);
}

static int verify_chunks(struct verify *v, const struct writeset *set)
{
	char what[64];
	snprintf(what, sizeof(what), "chunks of %s %llu", set_kind(set->extent), (unsigned long long)set->era);

	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_CHUNK_OF);
	bind_u64(stmt, 1, set->era);
	bind_u64(stmt, 2, set->extent);
	int r;
	while ((r = db_step(v->db, stmt)) == 1) {
		struct chunk chunk = { 0 };
		const char *flaw = rows_chunk_load(stmt, &chunk);
		verify_chunk(v, &chunk, flaw, &tally);
	}
	r = end_of(v, stmt, r, what);
	compare(v, what, &tally, &set->chunks);
	return r;
}

static int verify_writesets(struct verify *v)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_WRITESET_ALL);
	int r;
	while ((r = db_step(v->db, stmt)) == 1) {
		struct writeset set = { 0 };
		const char *flaw = rows_writeset_load(stmt, &set);
		unsigned long long era = set.era;
		if (flaw) {
			find(v, "%s %llu: %s", set_kind(set.extent), era, flaw);
			continue;
		}
		tally_add(&tally, set.sum);
		if (set.era == 0 || set.era > v->root.super.current_era)
			find(v, "%s %llu: its era has not begun (current era is %llu)", set_kind(set.extent), era,
				(unsigned long long)v->root.super.current_era);
		r = verify_chunks(v, &set);
		if (r < 0)
			break;
	}
	r = end_of(v, stmt, r, "writesets");
	compare(v, "writesets", &tally, &v->root.writesets);
	return r;
}

static int verify_orphans(struct verify *v)
{
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_CHUNK_ORPHAN);
	int r;
	while ((r = db_step(v->db, stmt)) == 1)
		find(v, "chunks of writeset %lld: have no writeset", (long long)sqlite3_column_int64(stmt, 0));
	return end_of(v, stmt, r, "chunks without writeset");
}

static int verify_array(struct verify *v)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_ARRAY_SINCE);
	bind_u64(stmt, 1, 0);
	int r;
	while ((r = db_step(v->db, stmt)) == 1) {
		struct array row = { 0 };
		const char *flaw = rows_array_load(stmt, &row);
		unsigned int nr = chunk_blocks(v->root.super.nr_blocks, row.index);
		if (!flaw && nr == 0)
			flaw = "beyond the end of the image";
		if (!flaw && row.newest > v->root.super.current_era)
			flaw = "an era that has not begun";
		if (!flaw)
			flaw = rows_array_check(stmt, &row, nr);
		if (flaw)
			find(v, "era array, chunk %llu: %s", (unsigned long long)row.index, flaw);
		tally_add(&tally, row.sum);
	}
	r = end_of(v, stmt, r, "era array");
	compare(v, "era array", &tally, &v->root.array);
	return r;
}

static int verify_labels(struct verify *v)
{
	struct tally tally = { 0 };
	sqlite3_stmt *stmt = db_stmt(v->db, SQL_LABEL_ALL);
	int r;
	while ((r = db_step(v->db, stmt)) == 1) {
		struct label row = { 0 };
		const char *flaw = rows_label_load(stmt, &row);
		if (!flaw && row.era > v->root.super.current_era)
			flaw = "an era that has not begun";
		if (flaw)
			find(v, "label \"%s\": %s", row.name, flaw);
		tally_add(&tally, row.sum);
	}
	r = end_of(v, stmt, r, "labels");
	compare(v, "labels", &tally, &v->root.labels);
	return r;
}

static int verify_super(struct verify *v)
{
	const char *flaw;
	int r = super_get(v->db, &v->root, &flaw);
	if (r == -EUCLEAN || r == -EMEDIUMTYPE) {
		find(v, "%s", flaw ? flaw : sqlite3_errmsg(v->db->sql));
		return 0;
	}
	return r;
}

int verify_all(struct db *db, unsigned int max, verify_finding *finding, void *arg, struct root *ret_root)
{
	static int (*const of_rows[])(
		struct verify *) = { verify_writesets, verify_orphans, verify_array, verify_labels };
	struct verify v = { .db = db, .max = max, .finding = finding, .arg = arg };

	int r = verify_quick(&v);
	unsigned int before = v.found;
	if (r == 0 && v.found < max)
		r = verify_super(&v);
	/* Without a superblock there is nothing to compare rows with. */
	if (r == 0 && v.found == before) {
		for (size_t i = 0; r == 0 && v.found < max && i < sizeof(of_rows) / sizeof(of_rows[0]); i++)
			r = of_rows[i](&v);
	}
	if (r < 0)
		return r;
	*ret_root = v.root;
	return (int)v.found;
}
