/* SPDX-License-Identifier: MIT */
/* Metadata visited whole, built from rows, and snapshots. */
#include "../../src/meta/meta_private.h"
#include "meta_fixture.h"

#include "meta/copy.h"

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>

#define MAX_ERAS 8

/* All that a visit told. */
struct told {
	uint64_t nr_blocks;
	uint64_t next; /* block */
	uint64_t era; /* of the writeset; 0: none yet */
	bool in_array;
	uint8_t *bits[MAX_ERAS];
	uint64_t *eras;
	unsigned int nr_writesets;
	unsigned int fail_at;
	unsigned int nr_calls;
};

static int told_call(struct told *told)
{
	return ++told->nr_calls == told->fail_at ? -EPIPE : 0;
}

static int on_writeset(uint64_t era, void *arg)
{
	struct told *told = arg;
	ck_assert(!told->in_array && era > told->era && era < MAX_ERAS);
	if (told->era)
		ck_assert_uint_eq(told->next, told->nr_blocks);
	told->era = era;
	told->next = 0;
	told->nr_writesets++;
	told->bits[era] = calloc(1, told->nr_blocks);
	return told_call(told);
}

static int on_bits(uint64_t first, unsigned int nr, const uint64_t *words, void *arg)
{
	struct told *told = arg;
	ck_assert_uint_eq(first, told->next);
	told->next += nr;
	ck_assert_uint_le(told->next, told->nr_blocks);
	for (unsigned int i = 0; i < nr; i++)
		told->bits[told->era][first + i] = words[i / 64] >> i % 64 & 1;
	return told_call(told);
}

static int on_eras(uint64_t first, unsigned int nr, const uint64_t *eras, void *arg)
{
	struct told *told = arg;
	if (!told->in_array && told->era)
		ck_assert_uint_eq(told->next, told->nr_blocks);
	if (!told->in_array)
		told->next = 0;
	told->in_array = true;
	ck_assert_uint_eq(first, told->next);
	told->next += nr;
	ck_assert_uint_le(told->next, told->nr_blocks);
	memcpy(&told->eras[first], eras, nr * sizeof(*eras));
	return told_call(told);
}

static const struct meta_visitor visitor = { on_writeset, on_bits, on_eras };

static void told_clear(struct told *told)
{
	for (unsigned int i = 0; i < MAX_ERAS; i++)
		free(told->bits[i]);
	free(told->eras);
}

static struct told told_of(const char *path, bool logical)
{
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(meta_reader_open_any(path, &reader, &err) == 0, "%s", err.text);
	struct told told = { .nr_blocks = meta_reader_super(reader)->nr_blocks };
	told.eras = calloc(told.nr_blocks, sizeof(*told.eras));
	ck_assert_msg(meta_reader_visit(reader, logical, &visitor, &told, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(told.next, told.nr_blocks);
	ck_assert(told.in_array);
	meta_reader_close(reader);
	return told;
}

/* A history in path, and each block's eras in a model: bit e of written[b]. */
static void make_history(const char *path, uint64_t nr_blocks, uint64_t seed, uint32_t *written, uint64_t *ret_digested)
{
	fixture_create(path, nr_blocks);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 6; era++) {
		ck_assert_uint_eq(fixture_next_era(meta), era);
		fixture_begin(meta);
		unsigned int nr = era == 4 ? 0 : 1 + (unsigned int)(fixture_random(&seed) % 40);
		for (unsigned int i = 0; i < nr; i++) {
			uint64_t block = i == 0 ? nr_blocks - 1 : fixture_random(&seed) % nr_blocks;
			ck_assert_int_eq(fixture_mark(meta, era, block), 0);
			written[block] |= 1u << era;
		}
		fixture_commit(meta);
	}
	*ret_digested = 1 + seed % 4; /* eras below are in the array */
	fixture_digest(meta, *ret_digested, 3);
	meta_close(meta);
}

static void check_told(const struct told *told, const uint32_t *written, uint64_t digested, bool logical)
{
	for (uint64_t block = 0; block < told->nr_blocks; block++) {
		uint32_t mask = logical ? UINT32_MAX : (1u << digested) - 1;
		uint32_t eras = written[block] & mask;
		uint64_t newest = eras ? 31u - (unsigned int)__builtin_clz(eras) : 0;
		ck_assert_msg(told->eras[block] == newest, "block %llu: era %llu, not %llu", (unsigned long long)block,
			(unsigned long long)told->eras[block], (unsigned long long)newest);
		for (uint64_t era = digested; era < MAX_ERAS && !logical; era++)
			ck_assert((told->bits[era] && told->bits[era][block]) == (written[block] >> era & 1));
	}
}

/* The same rows, by the builder. */
static void build(const char *path, const struct told *told, enum meta_state state)
{
	struct meta_super super = fixture_super(told->nr_blocks);
	struct meta_build *build = NULL;
	struct err err = ERR_INIT;
	super.current_era = super.durable_era = 6;
	super.state = state;
	super.image_mtime_ns = 77;
	ck_assert_msg(meta_build_begin(path, &super, &build, &err) == 0, "%s", err.text);
	uint64_t eras[BM_CHUNK_BITS];
	for (uint64_t chunk = 0; chunk < bm_nr_chunks(told->nr_blocks); chunk++) {
		memset(eras, 0, sizeof(eras));
		for (uint64_t b = chunk * BM_CHUNK_BITS; b < told->nr_blocks && b < (chunk + 1) * BM_CHUNK_BITS; b++)
			eras[b % BM_CHUNK_BITS] = told->eras[b];
		ck_assert_msg(meta_build_eras(build, chunk, eras, &err) == 0, "%s", err.text);
	}
	for (uint64_t block = 0; block < told->nr_blocks; block++) {
		for (uint64_t era = 1; era < MAX_ERAS; era++) {
			uint64_t words[BM_CHUNK_WORDS] = { 0 };
			if (!told->bits[era] || !told->bits[era][block])
				continue;
			words[block % BM_CHUNK_BITS / 64] = UINT64_C(1) << block % 64;
			ck_assert_msg(
				meta_build_bits(build, era, block / BM_CHUNK_BITS, words, &err) == 0, "%s", err.text);
		}
	}
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_msg(meta_build_finish(build, &err) == 0, "%s", err.text);
}

static void check_sound(const char *path)
{
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(meta_reader_open_any(path, &reader, &err) == 0, "%s", err.text);
	ck_assert_int_eq(meta_reader_check(reader, fixture_print_finding, NULL, &err), 0);
	meta_reader_close(reader);
	ck_assert_int_eq(fixture_size(path, "-wal"), -1);
	ck_assert_int_eq(fixture_size(path, "-shm"), -1);
}

static void expect_no_leftovers(void)
{
	DIR *dir = opendir(fixture_dir);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		ck_assert_msg(!strstr(entry->d_name, ".new-"), "%s was left", entry->d_name);
	closedir(dir);
}

START_TEST(test_geometries)
{
	static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 4095, 4096, 4097, 8192, 8200, 20000 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (uint64_t seed = 1; seed <= 8; seed++) {
			const char *path = fixture_path("g.era");
			const char *copy = fixture_path("g.copy");
			uint32_t *written = calloc(sizes[i], sizeof(*written));
			uint64_t digested;
			make_history(path, sizes[i], seed * 7919, written, &digested);
			for (int logical = 0; logical < 2; logical++) {
				struct told told = told_of(path, logical);
				check_told(&told, written, digested, logical);
				build(copy, &told, META_SNAPSHOT);
				check_sound(copy);
				struct told again = told_of(copy, logical);
				check_told(&again, written, digested, logical);
				ck_assert_uint_eq(told.nr_writesets, again.nr_writesets);
				told_clear(&told);
				told_clear(&again);
				fixture_remove(copy);
			}
			fixture_remove(path);
			free(written);
		}
	}
	expect_no_leftovers();
}
END_TEST

START_TEST(test_floor)
{
	const char *path = fixture_path("floor.era");
	fixture_create(path, 5000);
	struct meta *meta = fixture_open(path);
	for (int i = 0; i < 4; i++)
		fixture_next_era(meta);
	fixture_begin(meta);
	meta_pending(meta)->floor_era = 3;
	ck_assert_int_eq(fixture_mark(meta, 1, 4999), 0);
	ck_assert_int_eq(fixture_mark(meta, 4, 7), 0);
	fixture_commit(meta);
	meta_close(meta);
	struct told told = told_of(path, false);
	for (uint64_t b = 0; b < 5000; b++)
		ck_assert_uint_eq(told.eras[b], 3);
	told_clear(&told);
	told = told_of(path, true);
	for (uint64_t b = 0; b < 5000; b++)
		ck_assert_uint_eq(told.eras[b], b == 7 ? 4 : 3);
	told_clear(&told);
}
END_TEST

/* The error of each callback comes back, whichever it is. */
START_TEST(test_visitor_fails)
{
	const char *path = fixture_path("fails.era");
	uint32_t *written = calloc(9000, sizeof(*written));
	uint64_t digested;
	make_history(path, 9000, 5, written, &digested);
	free(written);
	struct told all = told_of(path, false);
	for (unsigned int at = 1; at <= all.nr_calls; at++) {
		struct told told = { .nr_blocks = 9000, .fail_at = at, .eras = calloc(9000, sizeof(uint64_t)) };
		struct meta_reader *reader = fixture_reader(path);
		struct err err = ERR_INIT;
		ck_assert_int_eq(meta_reader_visit(reader, false, &visitor, &told, &err), -EPIPE);
		ck_assert_uint_eq(told.nr_calls, at);
		ck_assert_str_ne(err.text, "");
		meta_reader_close(reader);
		told_clear(&told);
	}
	told_clear(&all);
}
END_TEST

/* Rows taken away from under their counts: both kinds of visit find it. */
START_TEST(test_damage)
{
	static const char *const deeds[] = { "DELETE FROM writeset_chunk WHERE era = 6",
		"DELETE FROM writeset WHERE era = 6", "DELETE FROM era_chunk WHERE chunk = 0",
		"UPDATE writeset_chunk SET bits = zeroblob(512) WHERE era = 6",
		"UPDATE era_chunk SET newest = newest + 1", "INSERT INTO writeset VALUES(2, 0, 0, 0, 0)" };
	for (size_t i = 0; i < sizeof(deeds) / sizeof(deeds[0]); i++) {
		for (int logical = 0; logical < 2; logical++) {
			const char *path = fixture_path("damage.era");
			fixture_create(path, 9000);
			struct meta *meta = fixture_open(path);
			for (uint64_t era = 1; era <= 6; era++) {
				fixture_next_era(meta);
				fixture_begin(meta);
				ck_assert_int_eq(fixture_mark(meta, era, era), 0);
				fixture_commit(meta);
			}
			fixture_digest(meta, 3, 1);
			meta_close(meta);
			sqlite3 *sql;
			ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
			ck_assert_msg(
				sqlite3_exec(sql, deeds[i], NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(sql));
			ck_assert_int_gt(sqlite3_changes(sql), 0);
			sqlite3_close(sql);
			struct told told = { .nr_blocks = 9000, .eras = calloc(9000, sizeof(uint64_t)) };
			struct meta_reader *reader = fixture_reader(path);
			struct err err = ERR_INIT;
			int r = meta_reader_visit(reader, logical, &visitor, &told, &err);
			ck_assert_msg(r == -EUCLEAN, "%s, logical %d: %d", deeds[i], logical, r);
			meta_reader_close(reader);
			told_clear(&told);
			fixture_remove(path);
		}
	}
}
END_TEST

START_TEST(test_build_refused)
{
	const char *path = fixture_path("build.era");
	struct meta_super super = fixture_super(100);
	struct meta_build *build = NULL;
	struct err err = ERR_INIT;

	fixture_create(path, 1);
	ck_assert_int_eq(meta_build_begin(path, &super, &build, &err), -EEXIST);
	fixture_remove(path);

	/* What another database left there would be read as this one's. */
	char wal[256];
	snprintf(wal, sizeof(wal), "%s-wal", path);
	FILE *file = fopen(wal, "w");
	fputs("left", file);
	fclose(file);
	ck_assert_int_eq(meta_build_begin(path, &super, &build, &err), -ENOTEMPTY);
	ck_assert_int_eq(unlink(wal), 0);

	super.block_size = 4097;
	ck_assert_int_eq(meta_build_begin(path, &super, &build, &err), -EINVAL);

	/* Made by somebody else meanwhile: his stays. */
	super = fixture_super(100);
	ck_assert_int_eq(meta_build_begin(path, &super, &build, &err), 0);
	fixture_create(path, 1);
	ck_assert_int_eq(meta_build_finish(build, &err), -EEXIST);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_uint_eq(meta_reader_super(reader)->nr_blocks, 1);
	meta_reader_close(reader);
	fixture_remove(path);

	ck_assert_int_eq(meta_build_begin(path, &super, &build, &err), 0);
	meta_build_abandon(build);
	meta_build_abandon(NULL);
	ck_assert_int_eq(access(path, F_OK), -1);
	expect_no_leftovers();
}
END_TEST

static void expect_only_for_reading(const char *path)
{
	struct meta *meta = NULL;
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	ck_assert_int_eq(meta_open(path, &meta, &err), -EPERM);
	ck_assert_msg(strstr(err.text, "snapshot") && strstr(err.text, path), "%s", err.text);
	ck_assert_int_eq(meta_reader_open(path, &reader, &err), -EPERM);
	ck_assert_int_eq(meta_reader_open_any(path, &reader, &err), 0);
	ck_assert_int_eq(meta_reader_super(reader)->state, META_SNAPSHOT);
	meta_reader_close(reader);
}

START_TEST(test_snapshot)
{
	const char *path = fixture_path("live.era");
	const char *copy = fixture_path("copy.era");
	struct err err = ERR_INIT;
	fixture_create(path, 9000);
	struct meta *meta = fixture_open(path);
	fixture_next_era(meta);
	fixture_begin(meta);
	ck_assert_int_eq(fixture_mark(meta, 1, 8999), 0);
	ck_assert_int_eq(meta_label_set(meta, "monday", 1), 0);
	fixture_commit(meta);

	/* Of the instant when the reader began, while it is written to; all is in the -wal. */
	struct meta_reader *reader = fixture_reader(path);
	fixture_next_era(meta);
	fixture_begin(meta);
	ck_assert_int_eq(fixture_mark(meta, 2, 5), 0);
	fixture_commit(meta);
	ck_assert_msg(meta_reader_snapshot(reader, copy, &err) == 0, "%s", err.text);
	meta_reader_close(reader);
	check_sound(copy);
	expect_only_for_reading(copy);

	ck_assert_int_eq(meta_reader_open_any(copy, &reader, &err), 0);
	const struct meta_super *super = meta_reader_super(reader);
	ck_assert_uint_eq(super->current_era, 1);
	ck_assert_int_eq(memcmp(super->uuid, meta_super(meta)->uuid, sizeof(super->uuid)), 0);
	struct bm *blocks = fixture_since(reader, 1);
	ck_assert_uint_eq(bm_count(blocks), 1);
	ck_assert(bm_test_range(blocks, 8999, 9000));
	bm_free(blocks);
	uint64_t era;
	ck_assert_int_eq(meta_reader_label(reader, "monday", &era, &err), 0);
	ck_assert_int_eq(meta_reader_snapshot(reader, fixture_path("again.era"), &err), -EPERM);
	meta_reader_close(reader);

	/* A newer one takes its place. */
	reader = fixture_reader(path);
	ck_assert_msg(meta_reader_snapshot(reader, copy, &err) == 0, "%s", err.text);
	/* Nothing else is replaced: not metadata, not another file. */
	ck_assert_int_eq(meta_reader_snapshot(reader, path, &err), -EEXIST);
	const char *other = fixture_path("other");
	ck_assert_int_eq(close(creat(other, 0600)), 0);
	ck_assert_int_eq(meta_reader_snapshot(reader, other, &err), -EEXIST);
	fixture_create(fixture_path("other.era"), 3);
	ck_assert_int_eq(meta_reader_snapshot(reader, fixture_path("other.era"), &err), -EEXIST);
	ck_assert_int_eq(meta_reader_snapshot(reader, fixture_path("no/such"), &err), -ENOENT);
	meta_reader_close(reader);
	ck_assert_int_eq(meta_reader_open_any(copy, &reader, &err), 0);
	ck_assert_uint_eq(meta_reader_super(reader)->current_era, 2);
	meta_reader_close(reader);

	/* In the place of the metadata themselves it is refused as well: nothing goes on from it. */
	meta_close(meta);
	fixture_remove(path);
	fixture_copy(copy, path);
	expect_only_for_reading(path);
	expect_no_leftovers();
}
END_TEST

/* A copy of damaged metadata would be found out too late. */
START_TEST(test_snapshot_of_damaged)
{
	const char *path = fixture_path("bad.era");
	struct err err = ERR_INIT;
	fixture_create(path, 9000);
	struct meta *meta = fixture_open(path);
	fixture_next_era(meta);
	fixture_begin(meta);
	ck_assert_int_eq(fixture_mark(meta, 1, 8999), 0);
	fixture_commit(meta);
	meta_close(meta);
	sqlite3 *sql;
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(sql, "DELETE FROM writeset_chunk", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_int_eq(meta_reader_snapshot(reader, fixture_path("bad.copy"), &err), -EUCLEAN);
	meta_reader_close(reader);
	ck_assert_int_eq(access(fixture_path("bad.copy"), F_OK), -1);
	expect_no_leftovers();
}
END_TEST

FIXTURE_MAIN("meta_copy", test_geometries, test_floor, test_visitor_fails, test_damage, test_build_refused,
	test_snapshot, test_snapshot_of_damaged)
