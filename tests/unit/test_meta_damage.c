/* SPDX-License-Identifier: MIT */
/* No damage leads to a smaller answer. */
#include "meta_fixture.h"

#include <fcntl.h>
#include <sqlite3.h>

#define ERAS 7
#define NR_BLOCKS (3 * BM_CHUNK_BITS + 100)

static struct bm *truth[ERAS + 2];

static void must(sqlite3 *sql, const char *text)
{
	char *why = NULL;
	ck_assert_msg(sqlite3_exec(sql, text, NULL, NULL, &why) == SQLITE_OK, "%s: %s", text, why);
}

/* A sound database of one file: digested eras, archived ones, a current one, labels. */
static const char *build(const char *name)
{
	const char *path = fixture_path(name);
	fixture_create(path, NR_BLOCKS);
	struct meta *meta = fixture_open(path);
	uint64_t random = 99;
	for (uint64_t era = 1; era <= ERAS; era++) {
		fixture_next_era(meta);
		fixture_begin(meta);
		for (unsigned int i = 0; i < 40; i++)
			ck_assert_int_eq(fixture_mark(meta, era, fixture_random(&random) % NR_BLOCKS), 0);
		ck_assert_int_eq(fixture_mark(meta, era, NR_BLOCKS - era), 0);
		fixture_commit(meta);
	}
	fixture_digest(meta, ERAS - 2, 3);
	fixture_begin(meta);
	ck_assert_int_eq(meta_label_set(meta, "weekly", 3), 0);
	ck_assert_int_eq(meta_label_set(meta, "daily", 6), 0);
	fixture_commit(meta);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	meta_close(meta);

	fixture_check_sound(path);
	struct meta_reader *reader = fixture_reader(path);
	for (uint64_t era = 0; era < ERAS + 2; era++)
		truth[era] = fixture_since(reader, era);
	meta_reader_close(reader);
	return path;
}

static void forget_truth(void)
{
	for (uint64_t era = 0; era < ERAS + 2; era++)
		bm_free(truth[era]);
}

static void count_finding(const char *text, void *arg)
{
	ck_assert_uint_gt(strlen(text), 0);
	++*(int *)arg;
}

/* 1: the answer is the true one; 0: there is none; it is never another. */
static int answers(const char *path, const char *what)
{
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	int sound = 1;
	int r = meta_reader_open(path, &reader, &err);
	if (r < 0) {
		ck_assert_msg(strstr(err.text, path), "%s: %s", what, err.text);
		return 0;
	}
	for (uint64_t era = 0; era < ERAS + 2; era++) {
		struct bm *blocks = NULL;
		r = meta_reader_since(reader, era, &blocks, NULL, &err);
		sound = sound && r == 0;
		ck_assert_msg(r < 0 || fixture_same(blocks, truth[era]), "%s: another answer since %d", what, (int)era);
		bm_free(blocks);
	}
	meta_reader_close(reader);
	return sound;
}

/* All of it is looked at by these two. */
static void expect_found(const char *path, const char *what)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader = NULL;
	answers(path, what);

	int r = meta_reader_open(path, &reader, &err);
	if (r == 0) {
		int findings = 0;
		r = meta_reader_check(reader, count_finding, &findings, &err);
		ck_assert_msg(r > 0 && findings == r, "%s: check found nothing", what);
		meta_reader_close(reader);
	} else {
		ck_assert_msg(r == -EUCLEAN, "%s: %s", what, err.text);
	}

	struct meta *meta = NULL;
	err = ERR_INIT;
	r = meta_open(path, &meta, &err);
	ck_assert_msg(r == -EUCLEAN, "%s: opened (%d %s)", what, r, err.text);
	ck_assert_msg(strstr(err.text, "damaged (") && strstr(err.text, "bypass=mark-all"), "%s", err.text);
}

static const struct {
	const char *table;
	const char *key;
} tables[] = { { "superblock", "id" }, { "writeset", "era, extent" }, { "writeset_chunk", "era, extent, chunk" },
	{ "era_chunk", "chunk" }, { "label", "name" } };

static int64_t number(sqlite3 *sql, const char *text)
{
	sqlite3_stmt *stmt;
	ck_assert_msg(sqlite3_prepare_v2(sql, text, -1, &stmt, NULL) == SQLITE_OK, "%s", text);
	ck_assert_int_eq(sqlite3_step(stmt), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return value;
}

/* Runs one change on a fresh copy and expects it found. False when the change is impossible (a key that exists). */
static bool damage(const char *sound, const char *change)
{
	const char *path = fixture_path("damaged.era");
	sqlite3 *sql;
	fixture_remove(path);
	fixture_copy(sound, path);
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	must(sql, "PRAGMA ignore_check_constraints=1; PRAGMA synchronous=off");
	int rc = sqlite3_exec(sql, change, NULL, NULL, NULL);
	ck_assert_msg(rc == SQLITE_OK || rc == SQLITE_CONSTRAINT, "%s: %s", change, sqlite3_errmsg(sql));
	int changes = sqlite3_changes(sql);
	sqlite3_close(sql);
	if (rc == SQLITE_OK) {
		ck_assert_msg(changes > 0, "%s: changed nothing", change);
		expect_found(path, change);
	}
	return rc == SQLITE_OK;
}

static unsigned int damage_column(const char *sound, size_t table, const char *column, int64_t row)
{
	static const char *const changes[] = { "%1$s + 1", "%1$s - 1", "-1 - %1$s", "%1$s + 4096", "'7'", "%1$s || 'x'",
		"zeroblob(length(%1$s))", "substr(%1$s, 2)", "CAST(substr(%1$s, 1, length(%1$s) - 1) || x'ff' AS BLOB)",
		"NULL" };
	unsigned int done = 0;
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		char value[256];
		char change[1024];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(value, sizeof(value), changes[i], column);
#pragma GCC diagnostic pop
		/* Only what changes the value and what a STRICT table takes. */
		snprintf(change, sizeof(change),
			"UPDATE %s SET %s = %s WHERE (%s) = (SELECT %s FROM %s LIMIT 1 OFFSET %lld) AND %s IS NOT %s",
			tables[table].table, column, value, tables[table].key, tables[table].key, tables[table].table,
			(long long)row, column, value);
		const char *path = fixture_path("try.era");
		sqlite3 *sql;
		fixture_remove(path);
		fixture_copy(sound, path);
		ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
		must(sql, "PRAGMA ignore_check_constraints=1");
		int rc = sqlite3_exec(sql, change, NULL, NULL, NULL);
		int changed = sqlite3_changes(sql);
		sqlite3_close(sql);
		if (rc == SQLITE_OK && changed > 0) {
			expect_found(path, change);
			done++;
		}
	}
	return done;
}

START_TEST(test_each_column)
{
	const char *sound = build("columns.era");
	unsigned int columns = 0;
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		char text[256];
		sqlite3 *sql;
		sqlite3_stmt *stmt;
		ck_assert_int_eq(sqlite3_open_v2(sound, &sql, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
		snprintf(text, sizeof(text), "SELECT count(*) FROM %s", tables[t].table);
		int64_t rows = number(sql, text);
		ck_assert_int_gt(rows, 0);
		snprintf(text, sizeof(text), "SELECT name FROM pragma_table_info('%s')", tables[t].table);
		ck_assert_int_eq(sqlite3_prepare_v2(sql, text, -1, &stmt, NULL), SQLITE_OK);
		while (sqlite3_step(stmt) == SQLITE_ROW) {
			const char *column = (const char *)sqlite3_column_text(stmt, 0);
			for (int64_t row = 0; row < rows && row < 3; row++)
				ck_assert_msg(damage_column(sound, t, column, row) > 0, "%s", column);
			columns++;
		}
		sqlite3_finalize(stmt);
		sqlite3_close(sql);
	}
	ck_assert_uint_eq(columns, 25 + 5 + 5 + 5 + 3);
	forget_truth();
}
END_TEST

START_TEST(test_each_row)
{
	const char *sound = build("rows.era");
	char change[512];
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (int64_t row = 0; row < 4; row++) {
			if (t == 0 && row > 0) /* there is one superblock */
				break;
			if (t == 4 && row > 1) /* and two labels */
				break;
			if (t == 1 && row > 2)
				break;
			snprintf(change, sizeof(change),
				"DELETE FROM %s WHERE (%s) = (SELECT %s FROM %s LIMIT 1 OFFSET %lld)", tables[t].table,
				tables[t].key, tables[t].key, tables[t].table, (long long)row);
			ck_assert(damage(sound, change));
		}
		snprintf(change, sizeof(change), "DELETE FROM %s", tables[t].table);
		ck_assert(damage(sound, change));
	}
	static const char *const more[] = {
		/* A writeset with all its chunks. */
		"DELETE FROM writeset WHERE era = 6; DELETE FROM writeset_chunk WHERE era = 6",
		/* Rows that are sound in themselves, under another key. */
		"UPDATE writeset SET era = 3 WHERE era = 6; UPDATE writeset_chunk SET era = 3 WHERE era = 6",
		"UPDATE writeset_chunk SET chunk = 9 WHERE chunk = 3",
		("INSERT INTO superblock SELECT 2, uuid, nonce, boot_id, block_size, image_size, nr_blocks, current_era, "
		 "durable_era, floor_era, generation, commit_counter, state, owner_pid, owner_start, committed_at_ns, "
		 "image_is_device, image_mtime_ns, nr_writesets, writeset_checksum, nr_array_chunks, array_checksum, "
		 "nr_labels, label_checksum, checksum FROM superblock"),
		("UPDATE writeset_chunk SET chunk = chunk + 100 WHERE era = 7 AND chunk < 2; "
		 "UPDATE writeset_chunk SET chunk = 101 - chunk WHERE chunk >= 100"),
		("UPDATE era_chunk SET chunk = chunk + 100 WHERE chunk < 2; "
		 "UPDATE era_chunk SET chunk = 101 - chunk WHERE chunk >= 100"),
		("UPDATE label SET name = 'x' WHERE name = 'daily'; UPDATE label SET name = 'daily' WHERE name = 'weekly'; "
		 "UPDATE label SET name = 'weekly' WHERE name = 'x'"),
		"INSERT INTO writeset VALUES(4, 0, 0, 0, 0)",
		"INSERT INTO writeset_chunk VALUES(2, 0, 0, zeroblob(512), 0)",
		"INSERT INTO era_chunk VALUES(2000, 1, 0, 0, x'000100000000000000')",
		"INSERT INTO label VALUES('other', 1, 0)",
	};
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		ck_assert_msg(damage(sound, more[i]), "%s", more[i]);
	forget_truth();
}
END_TEST

/* Rows of yesterday: each is sound, and it is not the one that was written last. */
START_TEST(test_old_rows)
{
	static const char *const takes[] = {
		"REPLACE INTO writeset_chunk SELECT * FROM old.writeset_chunk WHERE era = 7 AND chunk = 0",
		"REPLACE INTO writeset SELECT * FROM old.writeset WHERE era = 7",
		("REPLACE INTO writeset_chunk SELECT * FROM old.writeset_chunk WHERE era = 7 AND chunk = 0; "
		 "REPLACE INTO writeset SELECT * FROM old.writeset WHERE era = 7"),
		"REPLACE INTO era_chunk SELECT * FROM old.era_chunk WHERE chunk = 1",
		"REPLACE INTO label SELECT * FROM old.label",
		"REPLACE INTO superblock SELECT * FROM old.superblock",
	};
	const char *old = build("old.era");
	const char *now = fixture_path("now.era");
	forget_truth();
	fixture_copy(old, now);
	struct meta *meta = fixture_open(now);
	fixture_begin(meta);
	for (uint64_t block = 0; block < 4096; block += 7)
		ck_assert_int_eq(fixture_mark(meta, 7, block), 0);
	ck_assert_int_eq(meta_label_set(meta, "daily", 7), 0);
	fixture_commit(meta);
	fixture_digest(meta, 7, 100);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	meta_close(meta);
	struct meta_reader *reader = fixture_reader(now);
	for (uint64_t era = 0; era < ERAS + 2; era++)
		truth[era] = fixture_since(reader, era);
	meta_reader_close(reader);

	for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++) {
		char change[1024];
		snprintf(change, sizeof(change), "ATTACH '%s' AS old; %s", old, takes[i]);
		ck_assert(damage(now, change));
	}
	forget_truth();
}
END_TEST

static size_t read_all(const char *path, uint8_t **ret_bytes)
{
	int64_t size = fixture_size(path, "");
	uint8_t *bytes = malloc((size_t)size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, bytes, (size_t)size), size);
	close(fd);
	*ret_bytes = bytes;
	return (size_t)size;
}

static void write_all(const char *path, const uint8_t *bytes, size_t len)
{
	fixture_remove(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static int opens(const char *path)
{
	struct meta *meta = NULL;
	struct err err = ERR_INIT;
	int r = meta_open(path, &meta, &err);
	ck_assert_msg(r == 0 || strstr(err.text, path), "%s", err.text);
	meta_close(meta);
	return r;
}

START_TEST(test_flips)
{
	const char *sound = build("flips.era");
	const char *path = fixture_path("flip.era");
	uint8_t *bytes;
	size_t len = read_all(sound, &bytes);
	uint64_t random = 20240607;
	unsigned int silent = 0;
	unsigned int refused = 0;
	for (unsigned int i = 0; i < 1200; i++) {
		/* The header and page 1 hold what all else hangs on: half of the flips go there and to the pages' heads. */
		uint64_t any = fixture_random(&random);
		size_t at = i % 4 == 0   ? any % 100
			    : i % 4 == 1 ? any % (len / 4096) * 4096 + any / 4096 % 64
					 : any % len;
		uint8_t flip = (uint8_t)(1u << fixture_random(&random) % 8);
		if (i % 3 == 0)
			flip = (uint8_t)(fixture_random(&random) % 255 + 1);
		bytes[at] ^= flip;
		write_all(path, bytes, len);
		bytes[at] ^= flip;

		char what[64];
		snprintf(what, sizeof(what), "byte %zu ^ %02x", at, flip);
		int same = answers(path, what);
		silent += same;
		if (opens(path) < 0)
			refused++;
		else
			ck_assert_msg(answers(path, what), "%s: opened, and then no answer", what);
	}
	free(bytes);
	/* Both kinds are met, or the test looks at nothing. */
	ck_assert_uint_gt(refused, 200);
	ck_assert_uint_gt(silent, 20);
	forget_truth();
}
END_TEST

START_TEST(test_truncated)
{
	const char *sound = build("whole.era");
	const char *path = fixture_path("cut.era");
	uint8_t *bytes;
	size_t len = read_all(sound, &bytes);
	for (size_t cut = 0; cut < len; cut += cut % 4096 ? 4096 - cut % 4096 : 517) {
		char what[64];
		snprintf(what, sizeof(what), "cut at %zu", cut);
		write_all(path, bytes, cut);
		answers(path, what);
		int r = opens(path);
		ck_assert_msg(r == -EUCLEAN || r == -EMEDIUMTYPE, "%s: %d", what, r);
	}

	/* Pages in the wrong place, and zeroed ones. */
	for (size_t page = 0; page < len / 4096; page++) {
		uint8_t kept[4096];
		char what[64];
		memcpy(kept, bytes + page * 4096, 4096);
		memcpy(bytes + page * 4096, bytes + (page + 1) % (len / 4096) * 4096, 4096);
		write_all(path, bytes, len);
		snprintf(what, sizeof(what), "page %zu copied over", page);
		answers(path, what);
		if (opens(path) == 0) /* a free page */
			ck_assert_msg(answers(path, what), "%s: opened, and then no answer", what);
		memset(bytes + page * 4096, 0, 4096);
		write_all(path, bytes, len);
		snprintf(what, sizeof(what), "page %zu zeroed", page);
		answers(path, what);
		memcpy(bytes + page * 4096, kept, 4096);
	}
	free(bytes);
	forget_truth();
}
END_TEST

START_TEST(test_aside)
{
	const char *path = build("aside.era");
	sqlite3 *sql;
	struct meta *meta = fixture_open(path);
	fixture_next_era(meta);
	meta_close(meta);
	ck_assert_int_gt(fixture_size(path, "-wal"), 0);
	ck_assert_uint_eq(meta_salvage_era(path), ERAS + 1);

	char *aside;
	struct err err = ERR_INIT;
	ck_assert_int_eq(meta_set_aside(path, &aside, &err), 0);
	char want[300];
	snprintf(want, sizeof(want), "%s.damaged-1", path);
	ck_assert_str_eq(aside, want);
	ck_assert_int_gt(fixture_size(aside, "-wal"), 0);
	ck_assert_int_eq(fixture_size(path, ""), -1);
	ck_assert_int_eq(fixture_size(path, "-wal"), -1);
	ck_assert_int_eq(fixture_size(path, "-shm"), -1);
	fixture_check_sound(aside); /* it only moved */
	free(aside);
	ck_assert_int_eq(meta_set_aside(path, &aside, &err), -ENOENT);

	/* The name is free now, and the next one gets the next number. */
	fixture_create(path, 10);
	ck_assert_uint_eq(meta_salvage_era(path), 0);
	ck_assert_int_eq(meta_set_aside(path, &aside, &err), 0);
	snprintf(want, sizeof(want), "%s.damaged-2", path);
	ck_assert_str_eq(aside, want);
	free(aside);
	forget_truth();

	/* What can be read counts, whatever its checksum; what cannot be an era does not. */
	path = build("salvage.era");
	ck_assert_uint_eq(meta_salvage_era(path), ERAS);
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	must(sql, "UPDATE writeset SET era = 100 WHERE era = 7");
	ck_assert_uint_eq(meta_salvage_era(path), 100);
	must(sql, "UPDATE label SET era = 9223372036854775807");
	ck_assert_uint_eq(meta_salvage_era(path), 100);
	must(sql, "DROP TABLE superblock; UPDATE label SET era = 500");
	ck_assert_uint_eq(meta_salvage_era(path), 500);
	sqlite3_close(sql);
	uint8_t text[5000];
	memset(text, 'x', sizeof(text));
	write_all(path, text, sizeof(text));
	ck_assert_uint_eq(meta_salvage_era(path), 0);
	ck_assert_uint_eq(meta_salvage_era(fixture_path("none.era")), 0);
	forget_truth();
}
END_TEST

static void find_orphan(const char *text, void *arg)
{
	bool *found = arg;
	long long era;
	ck_assert_msg(sscanf(text, "chunks of writeset %lld: have no writeset", &era) == 1, "%s", text);
	ck_assert(era >= -1 && era <= 10 && !found[era + 1]);
	found[era + 1] = true;
}

/* Each writeset that is not there is found by its chunks: below, between, above those that are; once each. */
START_TEST(test_orphans)
{
	const char *path = build("orphans.era"); /* with writesets 5, 6 and 7 */
	bool found[12] = { false };
	sqlite3 *sql;
	forget_truth();
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	must(sql,
		"INSERT INTO writeset_chunk(era, extent, chunk, bits, checksum) SELECT e.value, 0, c.value, zeroblob(512), 0 "
		"FROM json_each('[-1, 0, 4, 8, 10]') e, json_each('[0, 1, 9]') c");
	sqlite3_close(sql);
	struct meta_reader *reader = fixture_reader(path);
	struct err err = ERR_INIT;
	ck_assert_int_eq(meta_reader_check(reader, find_orphan, found, &err), 5);
	meta_reader_close(reader);
}
END_TEST

FIXTURE_MAIN("meta_damage", test_each_column, test_each_row, test_old_rows, test_flips, test_truncated, test_aside,
	test_orphans)
