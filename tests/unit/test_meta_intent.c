/* SPDX-License-Identifier: MIT */
/* Write intents in the database: against a naive model, and each row of theirs damaged. */
#include "../../src/meta/meta_private.h"
#include "meta_fixture.h"

#include "meta/copy.h"

#include <sqlite3.h>

#define MAX_ERAS 10
#define MAX_BLOCKS 20000

static const uint64_t extents[] = { 1, 3, 64, META_EXTENT_MAX };
#define NR_EXTENTS (sizeof(extents) / sizeof(extents[0]))

/* What the database should know: bit e of a block or extent is era e. */
struct model {
	uint64_t nr_blocks;
	uint64_t newest;
	uint16_t written[MAX_BLOCKS];
	uint16_t intents[NR_EXTENTS][MAX_BLOCKS];
	uint16_t left[MAX_BLOCKS]; /* by intents of a session that failed: nobody is trusted to know better */
};

static uint16_t eras_of(uint64_t from, uint64_t to)
{
	return (uint16_t)((1u << to) - (1u << from));
}

/* Eras of [from, to) in which an intent names the block. */
static uint16_t feared_in(const struct model *m, uint64_t block, uint64_t from, uint64_t to)
{
	uint16_t eras = 0;
	for (size_t i = 0; i < NR_EXTENTS; i++)
		eras |= m->intents[i][block / extents[i]];
	return from < to ? eras & eras_of(from, to) : 0;
}

static void one_bit(uint64_t bit, uint64_t words[BM_CHUNK_WORDS])
{
	memset(words, 0, BM_CHUNK_WORDS * sizeof(*words));
	words[bit % BM_CHUNK_BITS / 64] = UINT64_C(1) << bit % 64;
}

static int intent_or(struct meta *meta, uint64_t era, uint64_t extent, uint64_t at)
{
	uint64_t words[BM_CHUNK_WORDS];
	one_bit(at, words);
	return meta_intent_or(meta, era, extent, at / BM_CHUNK_BITS, words);
}

static int intent_clear(struct meta *meta, uint64_t era, uint64_t extent, uint64_t at)
{
	uint64_t words[BM_CHUNK_WORDS];
	one_bit(at, words);
	return meta_intent_clear(meta, era, extent, at / BM_CHUNK_BITS, words);
}

/* Each answer of a reader that trusts the instance from settled_from on, with and without ret_feared. */
static void check_since(const char *path, const struct model *m, uint64_t settled_from)
{
	struct meta_reader *reader = fixture_reader(path);
	struct err err = ERR_INIT;
	uint64_t counts = settled_from < MAX_ERAS ? settled_from : MAX_ERAS; /* intents below do */
	meta_reader_trust(reader, settled_from);
	for (uint64_t era = 1; era <= m->newest; era++) {
		struct bm *blocks = NULL, *feared = NULL, *all = fixture_since(reader, era);
		uint64_t nr_feared = 0;
		ck_assert_msg(meta_reader_since(reader, era, &blocks, &feared, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(bm_nr_bits(blocks), m->nr_blocks);
		for (uint64_t b = 0; b < m->nr_blocks; b++) {
			bool is_exact = m->written[b] & eras_of(era, MAX_ERAS);
			bool is_left = m->left[b] & eras_of(era, MAX_ERAS);
			bool is_feared = (feared_in(m, b, era, counts) || is_left) && !is_exact;
			nr_feared += is_feared;
			ck_assert_msg(bm_test_range(blocks, b, b + 1) == is_exact &&
					      (feared && bm_test_range(feared, b, b + 1)) == is_feared &&
					      bm_test_range(all, b, b + 1) == (is_exact || is_feared),
				"block %llu since %llu, settled from %llu", (unsigned long long)b,
				(unsigned long long)era, (unsigned long long)settled_from);
		}
		ck_assert((feared != NULL) == (nr_feared > 0));
		ck_assert(!feared || bm_nr_bits(feared) == m->nr_blocks);
		bm_free(blocks);
		bm_free(feared);
		bm_free(all);
	}
	meta_reader_close(reader);
}

/* --- visits --- */

struct told {
	const struct model *model;
	uint64_t digested; /* eras below are in the array alone */
	bool logical;
	uint64_t era;
	uint16_t seen; /* eras */
	uint64_t nr_array;
};

static int on_writeset(uint64_t era, void *arg)
{
	struct told *t = arg;
	ck_assert_uint_gt(era, t->era);
	ck_assert(!t->logical);
	t->era = era;
	t->seen |= (uint16_t)(1u << era);
	return 0;
}

static int on_bits(uint64_t first, unsigned int nr, const uint64_t *words, void *arg)
{
	struct told *t = arg;
	for (unsigned int i = 0; i < nr; i++) {
		uint16_t eras = feared_in(t->model, first + i, 1, MAX_ERAS) | t->model->left[first + i];
		eras |= t->era >= t->digested ? t->model->written[first + i] : 0;
		ck_assert_msg((words[i / 64] >> i % 64 & 1) == (eras >> t->era & 1), "block %llu of era %llu",
			(unsigned long long)first + i, (unsigned long long)t->era);
	}
	return 0;
}

static int on_eras(uint64_t first, unsigned int nr, const uint64_t *eras, void *arg)
{
	struct told *t = arg;
	for (unsigned int i = 0; i < nr; i++) {
		uint16_t all = t->model->written[first + i];
		if (t->logical)
			all |= feared_in(t->model, first + i, 1, MAX_ERAS) | t->model->left[first + i];
		else
			all &= eras_of(0, t->digested);
		ck_assert_uint_eq(eras[i], all ? 31u - (unsigned int)__builtin_clz(all) : 0);
	}
	t->nr_array += nr;
	return 0;
}

/* Not logical: also eras that have intents and no writeset come by, and no others. */
static void check_visits(const char *path, const struct model *m, uint64_t digested)
{
	static const struct meta_visitor visitor = { on_writeset, on_bits, on_eras };
	uint16_t want = 0;
	for (uint64_t b = 0; b < m->nr_blocks; b++)
		want |= feared_in(m, b, 1, MAX_ERAS) | (m->written[b] & eras_of(digested, MAX_ERAS));
	for (int logical = 0; logical < 2; logical++) {
		struct told told = { .model = m, .digested = digested, .logical = logical };
		struct meta_reader *reader = fixture_reader(path);
		struct err err = ERR_INIT;
		ck_assert_msg(meta_reader_visit(reader, logical, &visitor, &told, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(told.nr_array, m->nr_blocks);
		ck_assert_uint_eq(told.seen, logical ? 0 : want);
		meta_reader_close(reader);
	}
}

/* --- the random history --- */

static void random_change(struct meta *meta, struct model *m, uint64_t *random)
{
	uint64_t block = fixture_random(random) % m->nr_blocks;
	size_t i = fixture_random(random) % NR_EXTENTS;
	uint64_t era = 1 + fixture_random(random) % m->newest;
	uint64_t at = block / extents[i];
	switch (fixture_random(random) % 8) {
	case 0:
	case 1:
	case 2: /* writesets get bits as they are current */
		ck_assert_int_eq(fixture_mark(meta, m->newest, block), 0);
		m->written[block] |= (uint16_t)(1u << m->newest);
		break;
	case 3:
	case 4:
	case 5:
		ck_assert_int_eq(intent_or(meta, era, extents[i], at), 0);
		m->intents[i][at] |= (uint16_t)(1u << era);
		break;
	case 6: /* there or not */
		ck_assert_int_eq(intent_clear(meta, era, extents[i], at), 0);
		m->intents[i][at] &= (uint16_t) ~(1u << era);
		break;
	default: {
		uint64_t to = fixture_random(random) % 4 == 0 ? era + 1 : era; /* mostly an empty range */
		ck_assert_int_eq(meta_intent_drop(meta, era, to), 0);
		for (uint64_t b = 0; b < m->nr_blocks; b++)
			for (i = 0; i < NR_EXTENTS; i++)
				m->intents[i][b] &= (uint16_t)~eras_of(era, to);
	}
	}
}

static void resize(struct meta *meta, struct model *m, uint64_t nr_blocks)
{
	fixture_begin(meta);
	ck_assert_int_eq(meta_resize(meta, nr_blocks * 4096), 0);
	fixture_commit(meta);
	for (uint64_t b = nr_blocks; b < m->nr_blocks; b++)
		m->written[b] = 0;
	for (size_t i = 0; i < NR_EXTENTS; i++)
		for (uint64_t at = (nr_blocks - 1) / extents[i] + 1; at < MAX_BLOCKS; at++)
			m->intents[i][at] = 0;
	m->nr_blocks = nr_blocks;
}

static void check_all(const char *path, const struct model *m, uint64_t digested)
{
	fixture_check_sound(path);
	check_since(path, m, UINT64_MAX);
	check_since(path, m, m->newest / 2 + 1); /* earlier eras still count */
	check_since(path, m, 1);
	check_visits(path, m, digested);
}

START_TEST(test_model)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 4095, 4097, 13000 };
	static struct model m;
	const char *path = fixture_path("model.era");
	uint64_t random = 4711 + (uint64_t)_i;
	memset(&m, 0, sizeof(m));
	m.nr_blocks = sizes[_i];
	fixture_create(path, m.nr_blocks);
	struct meta *meta = fixture_open(path);
	while (m.newest < MAX_ERAS - 2) {
		m.newest = fixture_next_era(meta);
		fixture_begin(meta);
		for (unsigned int i = 0; i < 30; i++)
			random_change(meta, &m, &random);
		fixture_commit(meta);
	}
	check_all(path, &m, 1);

	/* The digest takes writesets, and never an intent. */
	fixture_digest(meta, 5, 2);
	check_all(path, &m, 5);

	/* Within an extent, within a chunk, and by more; what a shrink has cut off does not come back. */
	uint64_t small = m.nr_blocks - m.nr_blocks / 3;
	const uint64_t steps[] = { m.nr_blocks + 1, m.nr_blocks, small, small + 2, small - (small > 1),
		m.nr_blocks + 300 };
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		resize(meta, &m, steps[i]);
		check_all(path, &m, 5);
	}

	/* Opened and verified, it is the same. */
	meta_close(meta);
	meta = fixture_open(path);
	fixture_begin(meta);
	ck_assert_int_eq(meta_intent_drop(meta, 0, UINT64_MAX), 0);
	fixture_commit(meta);
	memset(m.intents, 0, sizeof(m.intents));
	check_all(path, &m, 5);
	meta_close(meta);
	fixture_remove(path);
}
END_TEST

/* Marks and intents of failed eras in the new one: all that an intent may stand for counts there, and no intent is among
 * what the new session takes for its own. */
START_TEST(test_copy)
{
	static struct model m;
	const char *path = fixture_path("copy.era");
	memset(&m, 0, sizeof(m));
	m.nr_blocks = 4096 * 3 + 7;
	fixture_create(path, m.nr_blocks);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 5; era++) {
		m.newest = fixture_next_era(meta);
		fixture_begin(meta);
		if (era == 5)
			break;
		ck_assert_int_eq(fixture_mark(meta, era, era * 100), 0);
		m.written[era * 100] |= (uint16_t)(1u << era);
		for (size_t i = 0; i < NR_EXTENTS; i++) {
			uint64_t at = (m.nr_blocks - 1) / extents[i] - (era - 1) * 3 / (extents[i] / 64 + 1);
			ck_assert_int_eq(intent_or(meta, era, extents[i], at), 0);
			m.intents[i][at] |= (uint16_t)(1u << era);
		}
		fixture_commit(meta);
	}
	ck_assert_int_eq(meta_writeset_copy(meta, 3, 5), 0);
	fixture_commit(meta);
	for (uint64_t b = 0; b < m.nr_blocks; b++) {
		if (m.written[b] & eras_of(3, 5))
			m.written[b] |= 1u << 5;
		if (feared_in(&m, b, 3, 5))
			m.left[b] |= 1u << 5;
	}
	meta_close(meta);
	check_all(path, &m, 1);
}
END_TEST

/* A snapshot is of what was settled: intents that were trusted are not in it, others are. */
START_TEST(test_snapshot)
{
	static struct model m;
	const char *path = fixture_path("live.era"), *copy = fixture_path("snapshot.era");
	memset(&m, 0, sizeof(m));
	m.nr_blocks = 500;
	fixture_create(path, m.nr_blocks);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 4; era++) {
		m.newest = fixture_next_era(meta);
		fixture_begin(meta);
		ck_assert_int_eq(fixture_mark(meta, era, era), 0);
		ck_assert_int_eq(intent_or(meta, era, 64, era), 0);
		ck_assert_int_eq(intent_or(meta, era, 3, 100 + era), 0);
		m.written[era] = m.intents[2][era] = m.intents[1][100 + era] = (uint16_t)(1u << era);
		fixture_commit(meta);
	}
	struct meta_reader *reader = fixture_reader(path);
	struct err err = ERR_INIT;
	meta_reader_trust(reader, 3);
	ck_assert_msg(meta_reader_snapshot(reader, copy, &err) == 0, "%s", err.text);
	meta_reader_close(reader);
	check_all(path, &m, 1); /* untouched */

	ck_assert_int_eq(meta_reader_open_any(copy, &reader, &err), 0);
	ck_assert_int_eq(meta_reader_check(reader, fixture_print_finding, NULL, &err), 0);
	for (uint64_t era = 1; era <= 4; era++) {
		struct bm *blocks, *feared;
		ck_assert_int_eq(meta_reader_since(reader, era, &blocks, &feared, &err), 0);
		ck_assert((feared != NULL) == (era < 3));
		for (uint64_t b = 0; b < m.nr_blocks; b++) {
			ck_assert_int_eq(bm_test_range(blocks, b, b + 1), b >= era && b <= 4);
			if (feared)
				ck_assert_int_eq(bm_test_range(feared, b, b + 1),
					feared_in(&m, b, era, 3) && !(b >= era && b <= 4));
		}
		bm_free(blocks);
		bm_free(feared);
	}
	struct meta_stats stats;
	ck_assert_int_eq(meta_reader_stats(reader, &stats, &err), 0);
	ck_assert_uint_eq(stats.feared_eras, 2);
	meta_reader_close(reader);
	meta_close(meta);
}
END_TEST

START_TEST(test_stats)
{
	const char *path = fixture_path("stats.era");
	struct meta_stats stats;
	struct err err = ERR_INIT;
	fixture_create(path, 5000);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 4; era++)
		fixture_next_era(meta);
	fixture_begin(meta);
	for (uint64_t era = 1; era <= 4; era += 1 + (era == 1)) {
		ck_assert_int_eq(intent_or(meta, era, 1, 4999), 0);
		ck_assert_int_eq(intent_or(meta, era, 4096, 0), 0);
	}
	ck_assert_int_eq(fixture_mark(meta, 3, 1), 0);
	fixture_commit(meta);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_int_eq(meta_reader_stats(reader, &stats, &err), 0);
	ck_assert_uint_eq(stats.feared_eras, 3);
	ck_assert_uint_eq(stats.archived_eras, 1);
	ck_assert_uint_eq(stats.undigested_blocks, 1);
	ck_assert_uint_eq(stats.current_blocks, 0);
	meta_reader_trust(reader, 3);
	ck_assert_int_eq(meta_reader_stats(reader, &stats, &err), 0);
	ck_assert_uint_eq(stats.feared_eras, 1);
	meta_reader_close(reader);
	meta_close(meta);
}
END_TEST

/* The most blocks there can be: the last extent is partial, whatever its size. */
START_TEST(test_greatest)
{
	const char *path = fixture_path("greatest.era");
	struct err err = ERR_INIT;
	fixture_create(path, BM_MAX_BITS);
	struct meta *meta = fixture_open(path);
	fixture_next_era(meta);
	for (size_t i = 0; i < NR_EXTENTS; i++) {
		uint64_t extent = extents[i], last = (BM_MAX_BITS - 1) / extent;
		struct bm *blocks, *feared;
		uint64_t begin, end;
		fixture_begin(meta);
		ck_assert_int_eq(intent_or(meta, 1, extent, last), 0);
		fixture_commit(meta);
		fixture_check_sound(path);
		struct meta_reader *reader = fixture_reader(path);
		ck_assert_msg(meta_reader_since(reader, 1, &blocks, &feared, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(bm_count(blocks), 0);
		ck_assert(bm_next_run(feared, 0, &begin, &end));
		ck_assert_uint_eq(begin, last * extent);
		ck_assert_uint_eq(end, BM_MAX_BITS);
		bm_free(blocks);
		bm_free(feared);
		meta_reader_close(reader);
		fixture_begin(meta);
		ck_assert_int_eq(intent_clear(meta, 1, extent, last), 0);
		fixture_commit(meta);
	}
	struct meta_reader *reader = fixture_reader(path);
	struct bm *blocks = fixture_since(reader, 1);
	ck_assert_uint_eq(bm_count(blocks), 0); /* cleared without a trace */
	bm_free(blocks);
	meta_reader_close(reader);
	fixture_check_sound(path);
	meta_close(meta);
}
END_TEST

/* --- damage --- */

static void count_finding(const char *text, void *arg)
{
	ck_assert_uint_gt(strlen(text), 0);
	++*(int *)arg;
}

static void change(const char *path, const char *sql_text)
{
	sqlite3 *sql;
	char *why = NULL;
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	ck_assert_msg(sqlite3_exec(sql, sql_text, NULL, NULL, &why) == SQLITE_OK, "%s: %s", sql_text, why);
	ck_assert_msg(sqlite3_changes(sql) > 0, "%s: changed nothing", sql_text);
	sqlite3_close(sql);
}

/* No answer but the true one, found by a check, and refused by an instance. */
static void expect_refused(const char *path, const struct bm *truth, const char *what)
{
	struct meta_reader *reader = NULL;
	struct meta *meta = NULL;
	struct err err = ERR_INIT;
	if (meta_reader_open(path, &reader, &err) == 0) {
		struct bm *blocks = NULL;
		int findings = 0;
		if (meta_reader_since(reader, 1, &blocks, NULL, &err) == 0)
			ck_assert_msg(fixture_same(blocks, truth), "%s: another answer", what);
		bm_free(blocks);
		int r = meta_reader_check(reader, count_finding, &findings, &err);
		ck_assert_msg(r > 0 && r == findings, "%s: check found nothing", what);
		meta_reader_close(reader);
	}
	err = ERR_INIT;
	int r = meta_open(path, &meta, &err);
	ck_assert_msg(r == -EUCLEAN && strstr(err.text, "bypass=mark-all"), "%s: %d %s", what, r, err.text);
}

/* Two eras with a writeset and intents of two sizes, of 5000 blocks. */
static void build(const char *path)
{
	fixture_create(path, 5000);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 2; era++) {
		fixture_next_era(meta);
		fixture_begin(meta);
		ck_assert_int_eq(fixture_mark(meta, era, era), 0);
		for (uint64_t extent = 1; extent <= 64; extent += 63) {
			ck_assert_int_eq(intent_or(meta, era, extent, 10 * era), 0);
			ck_assert_int_eq(intent_or(meta, era, extent, 4999 / extent), 0);
		}
		fixture_commit(meta);
	}
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	meta_close(meta);
	fixture_check_sound(path);
}

static const char *const damages[] = {
	/* Relabelled: intents as blocks, blocks as intents, another size of extent, another era. */
	("UPDATE writeset SET extent = 0 WHERE era = 2 AND extent = 0; "
	 "DELETE FROM writeset_chunk WHERE era = 2 AND extent = 0; DELETE FROM writeset WHERE era = 2 AND extent = 0; "
	 "UPDATE writeset SET extent = 0 WHERE era = 2 AND extent = 64; "
	 "UPDATE writeset_chunk SET extent = 0 WHERE era = 2 AND extent = 64"),
	("UPDATE writeset SET extent = 32 WHERE era = 2 AND extent = 0; "
	 "UPDATE writeset_chunk SET extent = 32 WHERE era = 2 AND extent = 0"),
	("UPDATE writeset SET extent = 63 WHERE era = 2 AND extent = 64; "
	 "UPDATE writeset_chunk SET extent = 63 WHERE era = 2 AND extent = 64"),
	("UPDATE writeset SET era = 3 WHERE era = 2 AND extent = 64; "
	 "UPDATE writeset_chunk SET era = 3 WHERE era = 2 AND extent = 64"),
	"UPDATE writeset_chunk SET extent = 65 WHERE era = 1 AND extent = 64",
	"UPDATE writeset SET extent = 65 WHERE era = 1 AND extent = 64",
	"UPDATE writeset SET extent = -1 WHERE era = 1 AND extent = 64",
	"UPDATE writeset SET extent = 4097 WHERE era = 1 AND extent = 64",
	/* Exchanged. */
	("UPDATE writeset_chunk SET extent = 99 WHERE era = 1 AND extent = 64; "
	 "UPDATE writeset_chunk SET extent = 64 WHERE era = 1 AND extent = 1 AND chunk = 0; "
	 "UPDATE writeset_chunk SET extent = 1 WHERE era = 1 AND extent = 99"),
	/* Missing: a chunk, a set, all of an era, all. */
	"DELETE FROM writeset_chunk WHERE era = 2 AND extent = 64",
	"DELETE FROM writeset_chunk WHERE era = 2 AND extent = 1 AND chunk = 1",
	"DELETE FROM writeset WHERE era = 2 AND extent = 64",
	("DELETE FROM writeset_chunk WHERE era = 2 AND extent = 64; "
	 "DELETE FROM writeset WHERE era = 2 AND extent = 64"),
	"DELETE FROM writeset_chunk WHERE extent > 0; DELETE FROM writeset WHERE extent > 0",
	/* Damaged. */
	"UPDATE writeset_chunk SET bits = zeroblob(512) WHERE era = 2 AND extent = 64",
	"UPDATE writeset_chunk SET bits = zeroblob(511) WHERE era = 2 AND extent = 64",
	"UPDATE writeset_chunk SET checksum = checksum + 1 WHERE era = 2 AND extent = 64",
	"UPDATE writeset_chunk SET chunk = chunk + 1 WHERE era = 2 AND extent = 64",
	"UPDATE writeset SET nr_chunks = nr_chunks - 1 WHERE era = 2 AND extent = 1",
	"UPDATE writeset SET chunk_checksum = 0 WHERE era = 2 AND extent = 1",
	"UPDATE writeset SET checksum = 0 WHERE era = 2 AND extent = 64",
	/* Too many. */
	"INSERT INTO writeset_chunk SELECT era, 7, chunk, bits, checksum FROM writeset_chunk WHERE era = 2 AND extent = 64",
	"INSERT INTO writeset SELECT era, 7, nr_chunks, chunk_checksum, checksum FROM writeset WHERE era = 2 AND extent = 64",
};

START_TEST(test_damage)
{
	const char *sound = fixture_path("sound.era"), *path = fixture_path("damaged.era");
	build(sound);
	struct meta_reader *reader = fixture_reader(sound);
	struct bm *truth = fixture_since(reader, 1);
	meta_reader_close(reader);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		fixture_remove(path);
		fixture_copy(sound, path);
		change(path, damages[i]);
		expect_refused(path, truth, damages[i]);
	}
	bm_free(truth);
}
END_TEST

static void find_text(const char *text, void *arg)
{
	*(unsigned int *)arg += strstr(text, "beyond the end") != NULL;
}

/* Rows whose checksums all hold, and whose content cannot be: written by this very code under an image that is larger. */
START_TEST(test_beyond_the_end)
{
	const char *path = fixture_path("beyond.era");
	struct err err = ERR_INIT;
	struct meta *meta = NULL;
	unsigned int found = 0;
	fixture_create(path, 65);
	meta = fixture_open(path);
	fixture_next_era(meta);
	fixture_begin(meta);
	meta->row_blocks = 129; /* two extents are right, the third is not */
	ck_assert_int_eq(intent_or(meta, 1, 64, 2), 0);
	meta->row_blocks = 65;
	fixture_commit(meta);
	meta_close(meta);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_int_eq(meta_reader_check(reader, find_text, &found, &err), 1);
	ck_assert_uint_eq(found, 1);
	meta_reader_close(reader);
	ck_assert_int_eq(meta_open(path, &meta, &err), -EUCLEAN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("meta_intent");
	TCase *tcase = tcase_create("meta_intent");
	tcase_set_timeout(tcase, 240);
	tcase_add_unchecked_fixture(tcase, fixture_setup, fixture_teardown);
	tcase_add_loop_test(tcase, test_model, 0, 7);
	tcase_add_test(tcase, test_copy);
	tcase_add_test(tcase, test_snapshot);
	tcase_add_test(tcase, test_stats);
	tcase_add_test(tcase, test_greatest);
	tcase_add_test(tcase, test_damage);
	tcase_add_test(tcase, test_beyond_the_end);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
