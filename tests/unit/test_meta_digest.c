/* SPDX-License-Identifier: MIT */
/* The encoding of the era array, and digestion in steps. */
#include "../../src/meta/meta_private.h"
#include "meta_fixture.h"

static uint64_t eras[BM_CHUNK_BITS];
static uint64_t back[BM_CHUNK_BITS];
static uint8_t blob[ARRAY_BLOB_MAX];

/* array_since() against the eras themselves; with no byte behind the blob. */
static void since_trip(unsigned int nr, size_t len, uint64_t era)
{
	uint64_t words[BM_CHUNK_WORDS];
	uint64_t want[BM_CHUNK_WORDS] = { 0 };
	uint8_t *exact = malloc(len);
	memcpy(exact, blob, len);
	for (unsigned int i = 0; i < nr; i++)
		want[i / 64] |= (uint64_t)(eras[i] && eras[i] >= era) << i % 64;
	memset(words, 0xa5, sizeof(words));
	ck_assert(array_since(exact, len, nr, era, words));
	ck_assert_mem_eq(words, want, sizeof(want));
	ck_assert(!array_since(exact, len - 1, nr, era, words));
	free(exact);
}

static void since_trips(unsigned int nr, size_t len, uint64_t newest)
{
	/* Around what each width can hold, counted from the base, and around what there is. */
	static const uint64_t values[] = { 0, 1, 2, UINT8_MAX - 1, UINT8_MAX, UINT8_MAX + 1, UINT8_MAX + 2,
		UINT16_MAX - 1, UINT16_MAX, UINT16_MAX + 1, UINT16_MAX + 2, UINT32_MAX, UINT32_MAX + 1ull,
		UINT32_MAX + 2ull };
	uint64_t base;
	memcpy(&base, &blob[1], sizeof(base));
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		since_trip(nr, len, base + values[i]);
	const uint64_t around[] = { 0, 1, base ? base - 1 : 0, eras[nr / 2], newest, newest + 1, ERA_MAX, ERA_MAX + 1 };
	for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++)
		since_trip(nr, len, around[i]);
}

static void round_trip(unsigned int nr, unsigned int width)
{
	uint64_t newest;
	uint64_t want = 0;
	uint64_t decoded;
	for (unsigned int i = 0; i < nr; i++)
		want = eras[i] > want ? eras[i] : want;

	size_t len = array_encode(eras, nr, blob, &newest);
	ck_assert_uint_eq(newest, want);
	ck_assert_uint_eq(blob[0], width);
	ck_assert_uint_eq(len, 9 + (size_t)width * nr);
	ck_assert(array_decode(blob, len, nr, back, &decoded));
	ck_assert_uint_eq(decoded, want);
	ck_assert_mem_eq(eras, back, nr * sizeof(eras[0]));
	since_trips(nr, len, want);

	/* Another number of bytes is no encoding. */
	ck_assert(!array_decode(blob, len - 1, nr, back, &decoded));
	if (width)
		ck_assert(!array_decode(blob, len, nr + 1, back, &decoded));
}

START_TEST(test_array_widths)
{
	static const struct {
		uint64_t span; /* newest - oldest */
		unsigned int width;
	} cases[] = { { 1, 1 }, { 254, 1 }, { 255, 2 }, { 65534, 2 }, { 65535, 4 }, { UINT32_MAX - 1ull, 4 },
		{ UINT32_MAX, 8 }, { ERA_MAX - 1, 8 } };
	static const unsigned int numbers[] = { 2, 3, 63, 64, 65, 4095, 4096 };

	for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
		unsigned int nr = numbers[n];
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			uint64_t bases[] = { 1, 1000, ERA_MAX - cases[i].span };
			for (unsigned int b = 0; b < 3; b++) {
				if (bases[b] > ERA_MAX - cases[i].span)
					continue;
				memset(eras, 0, sizeof(eras));
				eras[nr - 1] = bases[b];
				eras[0] = bases[b] + cases[i].span;
				round_trip(nr, cases[i].width);
			}
		}
	}
}
END_TEST

START_TEST(test_array_uniform)
{
	for (unsigned int nr = 1; nr <= BM_CHUNK_BITS; nr += 91) {
		static const uint64_t values[] = { 0, 1, 77, ERA_MAX };
		for (unsigned int v = 0; v < 4; v++) {
			for (unsigned int i = 0; i < nr; i++)
				eras[i] = values[v];
			round_trip(nr, 0);
			eras[nr / 2] = 0;
			round_trip(nr, nr == 1 || !values[v] ? 0 : 1);
		}
	}
}
END_TEST

START_TEST(test_array_random)
{
	uint64_t random = 7;
	for (unsigned int pass = 0; pass < 2000; pass++) {
		unsigned int nr = 1 + (unsigned int)(fixture_random(&random) % BM_CHUNK_BITS);
		unsigned int shift = (unsigned int)(fixture_random(&random) % 63) + 1;
		uint64_t base = fixture_random(&random) >> 1 >> fixture_random(&random) % 63;
		for (unsigned int i = 0; i < nr; i++) {
			uint64_t era = base + (fixture_random(&random) >> shift);
			eras[i] = fixture_random(&random) % 4 == 0 ? 0 : era > ERA_MAX ? ERA_MAX : era;
		}
		uint64_t newest;
		array_encode(eras, nr, blob, &newest);
		round_trip(nr, blob[0]);
	}
}
END_TEST

START_TEST(test_array_bad)
{
	static const struct {
		uint8_t width;
		uint64_t base;
		uint64_t value;
		bool good;
	} cases[] = { { 0, 0, 0, true }, { 0, ERA_MAX, 0, true }, { 0, ERA_MAX + 1, 0, false }, { 3, 1, 0, false },
		{ 16, 1, 0, false }, { 1, 0, 1, false }, { 1, ERA_MAX, 1, true }, { 1, ERA_MAX, 2, false },
		{ 8, 1, ERA_MAX, true }, { 8, 1, ERA_MAX + 1, false }, { 8, 1, UINT64_MAX, false } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t newest;
		memset(blob, 0, sizeof(blob));
		blob[0] = cases[i].width;
		memcpy(&blob[1], &cases[i].base, 8);
		memcpy(&blob[9], &cases[i].value, 8);
		ck_assert_msg(array_decode(blob, 9 + cases[i].width, 1, back, &newest) == cases[i].good, "case %zu", i);
	}
	uint64_t newest;
	ck_assert(!array_decode(blob, 0, 1, back, &newest));
	ck_assert(!array_decode(blob, 8, 1, back, &newest));
}
END_TEST

/* The lowest era first, max_chunks rows a step, and *ret_more until nothing below is left. */
START_TEST(test_steps)
{
	const char *path = fixture_path("steps.era");
	fixture_create(path, 10 * BM_CHUNK_BITS);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 3; era++) {
		fixture_next_era(meta);
		fixture_begin(meta);
		for (uint64_t chunk = 0; chunk < 5; chunk++)
			ck_assert_int_eq(fixture_mark(meta, era, chunk * BM_CHUNK_BITS + era), 0);
		fixture_commit(meta);
	}

	static const struct {
		uint64_t below;
		unsigned int max;
		bool more;
		uint64_t archived, undigested, current;
	} steps[] = { { 1, 9, false, 2, 10, 5 }, { 3, 0, true, 2, 10, 5 }, { 3, 2, true, 2, 8, 5 },
		{ 3, 3, true, 1, 5, 5 }, { 3, 4, true, 1, 1, 5 }, { 2, 4, false, 1, 1, 5 }, { 3, 4, false, 0, 0, 5 },
		{ 3, 4, false, 0, 0, 5 }, { 4, 5, false, 0, 0, 0 } };
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		bool more = !steps[i].more;
		fixture_begin(meta);
		ck_assert_int_eq(meta_digest(meta, steps[i].below, steps[i].max, &more), 0);
		fixture_commit(meta);
		ck_assert_msg(more == steps[i].more, "step %zu", i);

		struct meta_stats stats;
		struct meta_reader *reader = fixture_reader(path);
		ck_assert_int_eq(meta_reader_stats(reader, &stats, NULL), 0);
		ck_assert_uint_eq(stats.archived_eras, steps[i].archived);
		ck_assert_uint_eq(stats.undigested_blocks, steps[i].undigested);
		ck_assert_uint_eq(stats.current_blocks, steps[i].current);
		for (uint64_t since = 0; since <= 4; since++) {
			struct bm *blocks = fixture_since(reader, since);
			ck_assert_uint_eq(bm_count(blocks), since < 2 ? 15 : since < 4 ? 5 * (4 - since) : 0);
			bm_free(blocks);
		}
		meta_reader_close(reader);
	}
	meta_close(meta);
	fixture_check_sound(path);
}
END_TEST

/* A row with its right checksums whose newest is not that of its eras, as only a fault of the writer makes it: `since` may
 * not see it, so that it must be found when the database is opened. */
START_TEST(test_newest_lies)
{
	static const struct {
		uint64_t newest;
		int since_4, since_3, since_2; /* what the answer is, or how many blocks are in it */
	} cases[] = { { 3, 0, 2, 5 }, { 4, -EUCLEAN, 2, 5 }, { 2, 0, 0, 5 } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char name[32];
		snprintf(name, sizeof(name), "lies-%zu.era", i);
		const char *path = fixture_path(name);
		fixture_create(path, 100);
		struct meta *meta = fixture_open(path);
		while (fixture_next_era(meta) < 5)
			;
		fixture_begin(meta);
		struct array row = { .newest = cases[i].newest };
		memset(eras, 0, sizeof(eras));
		eras[1] = eras[2] = eras[3] = 2;
		eras[0] = eras[99] = 3;
		uint64_t newest;
		size_t len = array_encode(eras, 100, blob, &newest);
		ck_assert_int_eq(rows_array_put(&meta->db, &row, blob, len), 0);
		tally_add(&meta->pending.array, row.sum);
		fixture_commit(meta);
		meta_close(meta);

		struct meta_reader *reader = fixture_reader(path);
		const int want[] = { cases[i].since_4, cases[i].since_3, cases[i].since_2 };
		for (unsigned int n = 0; n < 3; n++) {
			struct bm *blocks = NULL;
			struct err err = ERR_INIT;
			int r = meta_reader_since(reader, 4 - n, &blocks, NULL, &err);
			ck_assert_int_eq(r < 0 ? r : (int)bm_count(blocks), want[n]);
			bm_free(blocks);
		}
		struct err err = ERR_INIT;
		ck_assert_int_eq(meta_reader_check(reader, fixture_print_finding, NULL, &err), newest != row.newest);
		meta_reader_close(reader);
		ck_assert_int_eq(meta_open(path, &meta, &err), newest != row.newest ? -EUCLEAN : 0);
		if (newest == row.newest)
			meta_close(meta);
	}
}
END_TEST

FIXTURE_MAIN("meta_digest", test_array_widths, test_array_uniform, test_array_random, test_array_bad, test_steps,
	test_newest_lies)
