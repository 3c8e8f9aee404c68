/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/bitmap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 8191, 8192, 8193, 20000 };
#define NR_SIZES (int)(sizeof(sizes) / sizeof(sizes[0]))

/* xorshift: the same run each time. */
static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static struct bm *new_bm(uint64_t nr_bits)
{
	struct bm *bm;
	ck_assert_int_eq(bm_new(nr_bits, &bm), 0);
	ck_assert_uint_eq(bm_nr_bits(bm), nr_bits);
	return bm;
}

static bool naive_test(const bool *bits, uint64_t begin, uint64_t end)
{
	for (uint64_t i = begin; i < end; i++)
		if (!bits[i])
			return false;
	return true;
}

/* libcheck writes a line a check: what looks at each bit counts, and is checked once. */
static void compare_runs(const struct bm *bm, const bool *bits, uint64_t nr_bits)
{
	uint64_t from = 0, begin, end, i = 0, wrong = 0;
	while (bm_next_run(bm, from, &begin, &end)) {
		ck_assert_uint_le(from, begin);
		ck_assert_uint_lt(begin, end);
		ck_assert_uint_le(end, nr_bits);
		for (; i < begin; i++)
			wrong += bits[i];
		for (; i < end; i++)
			wrong += !bits[i];
		wrong += end < nr_bits && bits[end];
		from = end;
	}
	for (; i < nr_bits; i++)
		wrong += bits[i];
	ck_assert_uint_eq(wrong, 0);
}

static void compare(const struct bm *bm, const bool *bits, uint64_t nr_bits, uint64_t *seed)
{
	uint64_t count = 0, wrong = 0;
	for (uint64_t i = 0; i < nr_bits; i++) {
		wrong += bm_test_range(bm, i, i + 1) != bits[i];
		count += bits[i];
	}
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(bm_count(bm), count);
	compare_runs(bm, bits, nr_bits);
	for (int i = 0; i < 200; i++) {
		uint64_t begin = random_next(seed) % (nr_bits + 1);
		uint64_t end = begin + random_next(seed) % (nr_bits + 1 - begin);
		wrong += bm_test_range(bm, begin, end) != naive_test(bits, begin, end);
	}
	ck_assert_uint_eq(wrong, 0);
	for (uint64_t chunk = 0; chunk < bm_nr_chunks(nr_bits); chunk++) {
		uint64_t words[BM_CHUNK_WORDS];
		bool touched = bm_copy_chunk(bm, chunk, words);
		for (uint64_t b = 0; b < BM_CHUNK_BITS; b++) {
			uint64_t bit = chunk * BM_CHUNK_BITS + b;
			bool expected = bit < nr_bits && bits[bit];
			wrong += (words[b / 64] >> b % 64 & 1) != expected;
			wrong += expected && !touched;
		}
	}
	ck_assert_uint_eq(wrong, 0);
}

START_TEST(agrees_with_a_plain_array)
{
	uint64_t nr_bits = sizes[_i], seed = 88172645463325252u + (uint64_t)_i;
	struct bm *bm = new_bm(nr_bits);
	bool *bits = calloc(nr_bits, sizeof(*bits));
	ck_assert_ptr_nonnull(bits);
	compare(bm, bits, nr_bits, &seed);
	for (int round = 0; round < 40; round++) {
		uint64_t begin = random_next(&seed) % (nr_bits + 1);
		uint64_t most = round % 4 == 0 ? nr_bits - begin : (nr_bits - begin) / 16;
		uint64_t end = begin + random_next(&seed) % (most + 1);
		ck_assert_int_eq(bm_set_range(bm, begin, end), 0);
		memset(bits + begin, 1, end - begin);
		compare(bm, bits, nr_bits, &seed);
	}
	ck_assert_int_eq(bm_set_range(bm, 0, nr_bits), 0);
	ck_assert(bm_test_range(bm, 0, nr_bits));
	ck_assert_uint_eq(bm_count(bm), nr_bits);
	free(bits);
	bm_free(bm);
}
END_TEST

/* Each range about a word and a chunk border, alone in its map. */
START_TEST(borders)
{
	static const uint64_t near[] = { 0, 1, 62, 63, 64, 65, 127, 128, 129, 4031, 4032, 4094, 4095, 4096, 4097, 4160,
		8191, 8192, 8193, 12287, 12288 };
	const size_t nr = sizeof(near) / sizeof(near[0]);
	for (size_t i = 0; i < nr; i++) {
		for (size_t j = i + 1; j < nr; j++) {
			struct bm *bm = new_bm(12288);
			uint64_t begin, end;
			ck_assert_int_eq(bm_set_range(bm, near[i], near[j]), 0);
			ck_assert_uint_eq(bm_count(bm), near[j] - near[i]);
			ck_assert(bm_test_range(bm, near[i], near[j]));
			ck_assert(near[i] == 0 || !bm_test_range(bm, near[i] - 1, near[j]));
			ck_assert(near[j] == 12288 || !bm_test_range(bm, near[i], near[j] + 1));
			ck_assert(bm_next_run(bm, 0, &begin, &end));
			ck_assert_uint_eq(begin, near[i]);
			ck_assert_uint_eq(end, near[j]);
			ck_assert(!bm_next_run(bm, end, &begin, &end));
			/* From inside a run, the run begins where one looks. */
			ck_assert(bm_next_run(bm, near[j] - 1, &begin, &end));
			ck_assert_uint_eq(begin, near[j] - 1);
			ck_assert_uint_eq(end, near[j]);
			bm_free(bm);
		}
	}
}
END_TEST

START_TEST(bad_sizes)
{
	struct bm *bm = NULL;
	ck_assert_int_eq(bm_new(0, &bm), -EINVAL);
	ck_assert_int_eq(bm_new(BM_MAX_BITS + 1, &bm), -EINVAL);
	ck_assert_int_eq(bm_new(UINT64_MAX, &bm), -EINVAL);
	ck_assert_ptr_null(bm);
	bm_free(NULL);
	ck_assert_uint_eq(bm_nr_chunks(1), 1);
	ck_assert_uint_eq(bm_nr_chunks(4096), 1);
	ck_assert_uint_eq(bm_nr_chunks(4097), 2);
	ck_assert_uint_eq(bm_nr_chunks(BM_MAX_BITS), 524288);
}
END_TEST

START_TEST(empty_ranges)
{
	struct bm *bm = new_bm(100);
	uint64_t begin, end;
	ck_assert(bm_test_range(bm, 0, 0));
	ck_assert(bm_test_range(bm, 100, 100));
	ck_assert_int_eq(bm_set_range(bm, 50, 50), 0);
	ck_assert_int_eq(bm_set_range(bm, 100, 100), 0);
	ck_assert_uint_eq(bm_count(bm), 0);
	ck_assert(!bm_next_run(bm, 100, &begin, &end));
	ck_assert(!bm_next_run(bm, UINT64_MAX, &begin, &end));
	bm_free(bm);
}
END_TEST

START_TEST(sparse_at_the_limit)
{
	struct bm *bm = new_bm(BM_MAX_BITS);
	uint64_t begin, end, words[BM_CHUNK_WORDS];
	ck_assert(!bm_next_run(bm, 0, &begin, &end));
	ck_assert_int_eq(bm_set_range(bm, BM_MAX_BITS - 1, BM_MAX_BITS), 0);
	ck_assert_int_eq(bm_set_range(bm, 1000000000, 1000010000), 0);
	ck_assert_uint_eq(bm_count(bm), 10001);
	ck_assert(bm_next_run(bm, 0, &begin, &end));
	ck_assert_uint_eq(begin, 1000000000);
	ck_assert_uint_eq(end, 1000010000);
	ck_assert(bm_next_run(bm, end, &begin, &end));
	ck_assert_uint_eq(begin, BM_MAX_BITS - 1);
	ck_assert_uint_eq(end, BM_MAX_BITS);
	ck_assert(!bm_next_run(bm, end, &begin, &end));
	ck_assert(!bm_copy_chunk(bm, 3, words));
	ck_assert(bm_copy_chunk(bm, bm_nr_chunks(BM_MAX_BITS) - 1, words));
	ck_assert_uint_eq(words[BM_CHUNK_WORDS - 1], UINT64_C(1) << 62);
	bm_free(bm);
}
END_TEST

START_TEST(or_chunk)
{
	struct bm *bm = new_bm(4096 + 70);
	uint64_t words[BM_CHUNK_WORDS] = { 0 }, back[BM_CHUNK_WORDS];
	/* Nothing to set touches nothing. */
	ck_assert_int_eq(bm_or_chunk(bm, 0, words), 0);
	ck_assert(!bm_copy_chunk(bm, 0, back));

	words[0] = 0x5;
	words[63] = UINT64_C(1) << 63;
	ck_assert_int_eq(bm_or_chunk(bm, 0, words), 0);
	words[0] = 0x2;
	ck_assert_int_eq(bm_or_chunk(bm, 0, words), 0);
	ck_assert(bm_copy_chunk(bm, 0, back));
	ck_assert_uint_eq(back[0], 0x7);
	ck_assert_uint_eq(back[63], UINT64_C(1) << 63);
	ck_assert_uint_eq(bm_count(bm), 4);

	memset(words, 0xff, sizeof(words));
	ck_assert_int_eq(bm_or_chunk(bm, 1, words), 0);
	ck_assert_uint_eq(bm_count(bm), 4 + 70);
	ck_assert(bm_copy_chunk(bm, 1, back));
	ck_assert_uint_eq(back[0], UINT64_MAX);
	ck_assert_uint_eq(back[1], 0x3f);
	for (size_t i = 2; i < BM_CHUNK_WORDS; i++)
		ck_assert_uint_eq(back[i], 0);
	bm_free(bm);
}
END_TEST

#define NR_THREADS 4
#define SHARED_BITS (64u * BM_CHUNK_BITS)

struct setter {
	struct bm *bm;
	uint64_t first;
	uint64_t *payload; /* a plain word a bit, written before the bit is set */
	atomic_int *setters_left;
};

/* Sets each NR_THREADS-th bit, so that all threads meet in each word and race for each chunk. */
static void *setter_run(void *arg)
{
	struct setter *setter = arg;
	for (uint64_t bit = setter->first; bit < SHARED_BITS; bit += NR_THREADS) {
		setter->payload[bit] = bit + 1;
		if (bm_set_range(setter->bm, bit, bit + 1) < 0)
			abort();
	}
	atomic_fetch_sub(setter->setters_left, 1);
	return NULL;
}

/* Who sees a bit sees what was written before it was set: the plain words are the proof, and TSan's prey. */
START_TEST(seen_from_several_threads)
{
	struct bm *bm = new_bm(SHARED_BITS);
	uint64_t *payload = calloc(SHARED_BITS, sizeof(*payload));
	ck_assert_ptr_nonnull(payload);
	atomic_int setters_left = NR_THREADS;
	struct setter setters[NR_THREADS];
	pthread_t threads[NR_THREADS];
	for (uint64_t i = 0; i < NR_THREADS; i++) {
		setters[i] = (struct setter){ bm, i, payload, &setters_left };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, setter_run, &setters[i]), 0);
	}
	uint64_t seen, wrong = 0;
	bool is_last;
	do {
		is_last = atomic_load(&setters_left) == 0;
		seen = 0;
		uint64_t begin, end = 0;
		while (bm_next_run(bm, end, &begin, &end)) {
			for (uint64_t bit = begin; bit < end; bit++)
				wrong += payload[bit] != bit + 1;
			seen += end - begin;
		}
	} while (!is_last);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(seen, SHARED_BITS);
	ck_assert(bm_test_range(bm, 0, SHARED_BITS));
	ck_assert_uint_eq(bm_count(bm), SHARED_BITS);
	free(payload);
	bm_free(bm);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("bitmap");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, agrees_with_a_plain_array, 0, NR_SIZES);
	tcase_add_test(tcase, borders);
	tcase_add_test(tcase, bad_sizes);
	tcase_add_test(tcase, empty_ranges);
	tcase_add_test(tcase, sparse_at_the_limit);
	tcase_add_test(tcase, or_chunk);
	tcase_add_test(tcase, seen_from_several_threads);
	return testdir_main("bitmap", tcase);
}
