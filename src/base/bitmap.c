/* SPDX-License-Identifier: MIT */
/*
 * A directory of pointers to chunks. A pointer goes from NULL to its chunk once and stays until bm_free(), so that a
 * reader needs no lock: it sees no chunk (all clear) or the one there is. Who loses the race to publish a chunk frees his
 * own and uses the winner's. (A store gives both the same.)
 */
#include "base/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct bm_chunk {
	_Atomic uint64_t words[BM_CHUNK_WORDS];
};

struct bm {
	uint64_t nr_bits;
	struct bm_store store; /* chunk is NULL: the heap */
	_Atomic(struct bm_chunk *) chunks[];
};

int bm_new(uint64_t nr_bits, struct bm **ret_bm)
{
	if (nr_bits == 0 || nr_bits > BM_MAX_BITS)
		return -EINVAL;
	/* The largest directory is 4 MiB: calloc() takes that from mmap(2), where untouched pages cost nothing. */
	struct bm *bm = calloc(1, sizeof(*bm) + bm_nr_chunks(nr_bits) * sizeof(bm->chunks[0]));
	if (bm == NULL)
		return -ENOMEM;
	bm->nr_bits = nr_bits;
	*ret_bm = bm;
	return 0;
}

int bm_new_in(uint64_t nr_bits, const struct bm_store *store, struct bm **ret_bm)
{
	int r = bm_new(nr_bits, ret_bm);
	if (r == 0)
		(*ret_bm)->store = *store;
	return r;
}

void bm_free(struct bm *bm)
{
	if (bm == NULL)
		return;
	for (uint64_t i = 0; bm->store.chunk == NULL && i < bm_nr_chunks(bm->nr_bits); i++)
		free(atomic_load_explicit(&bm->chunks[i], memory_order_acquire));
	free(bm);
}

uint64_t bm_nr_bits(const struct bm *bm)
{
	return bm->nr_bits;
}

uint64_t bm_nr_chunks(uint64_t nr_bits)
{
	return nr_bits / BM_CHUNK_BITS + (nr_bits % BM_CHUNK_BITS != 0);
}

static struct bm_chunk *bm_chunk(const struct bm *bm, uint64_t chunk)
{
	return atomic_load(&bm->chunks[chunk]);
}

static struct bm_chunk *bm_make_chunk(struct bm *bm, uint64_t chunk)
{
	struct bm_chunk *present = bm_chunk(bm, chunk);
	if (present != NULL)
		return present;
	struct bm_chunk *fresh =
		bm->store.chunk != NULL ? bm->store.chunk(bm->store.arg, chunk) : calloc(1, sizeof(*fresh));
	if (fresh == NULL)
		return NULL;
	if (atomic_compare_exchange_strong(&bm->chunks[chunk], &present, fresh))
		return fresh;
	if (bm->store.chunk == NULL)
		free(fresh);
	return present;
}

static uint64_t bm_word(const struct bm_chunk *chunk, uint64_t word)
{
	return atomic_load(&chunk->words[word]);
}

/* The bits of the word that holds bit begin which lie in [begin, end). */
static uint64_t bm_mask(uint64_t begin, uint64_t end)
{
	uint64_t left = end - begin;
	uint64_t room = 64 - begin % 64;
	uint64_t nr = left < room ? left : room;
	return (UINT64_MAX >> (64 - nr)) << begin % 64;
}

bool bm_test_range(const struct bm *bm, uint64_t begin, uint64_t end)
{
	assert(end <= bm->nr_bits);
	while (begin < end) {
		const struct bm_chunk *chunk = bm_chunk(bm, begin / BM_CHUNK_BITS);
		if (chunk == NULL)
			return false;
		uint64_t mask = bm_mask(begin, end);
		if ((bm_word(chunk, begin % BM_CHUNK_BITS / 64) & mask) != mask)
			return false;
		begin = (begin | 63) + 1;
	}
	return true;
}

int bm_set_range(struct bm *bm, uint64_t begin, uint64_t end)
{
	assert(end <= bm->nr_bits);
	while (begin < end) {
		struct bm_chunk *chunk = bm_make_chunk(bm, begin / BM_CHUNK_BITS);
		if (chunk == NULL)
			return -ENOMEM;
		atomic_fetch_or(&chunk->words[begin % BM_CHUNK_BITS / 64], bm_mask(begin, end));
		begin = (begin | 63) + 1;
	}
	return 0;
}

void bm_clear_range(struct bm *bm, uint64_t begin, uint64_t end)
{
	assert(end <= bm->nr_bits);
	while (begin < end) {
		struct bm_chunk *chunk = bm_chunk(bm, begin / BM_CHUNK_BITS);
		if (chunk != NULL)
			atomic_fetch_and(&chunk->words[begin % BM_CHUNK_BITS / 64], ~bm_mask(begin, end));
		begin = (begin | 63) + 1;
	}
}

/* No atomic OR, and no test whether there is a bit in it: those would be most of what it costs to gather an answer. */
static void bm_or_word(struct bm_chunk *chunk, uint64_t word, uint64_t bits)
{
	bits |= atomic_load_explicit(&chunk->words[word], memory_order_relaxed);
	atomic_store_explicit(&chunk->words[word], bits, memory_order_release);
}

int bm_or_chunk(struct bm *bm, uint64_t chunk, const uint64_t *words)
{
	assert(chunk < bm_nr_chunks(bm->nr_bits));
	uint64_t left = bm->nr_bits - chunk * BM_CHUNK_BITS;
	uint64_t nr_whole = left < BM_CHUNK_BITS ? left / 64 : BM_CHUNK_WORDS;
	uint64_t last = nr_whole < BM_CHUNK_WORDS ? words[nr_whole] & ((UINT64_C(1) << left % 64) - 1) : 0;

	uint64_t any = last;
	for (uint64_t i = 0; i < nr_whole; i++)
		any |= words[i];
	if (any == 0)
		return 0;
	struct bm_chunk *target = bm_make_chunk(bm, chunk);
	if (target == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr_whole; i++)
		bm_or_word(target, i, words[i]);
	if (last != 0)
		bm_or_word(target, nr_whole, last);
	return 0;
}

bool bm_copy_chunk(const struct bm *bm, uint64_t chunk, uint64_t *ret_words)
{
	assert(chunk < bm_nr_chunks(bm->nr_bits));
	const struct bm_chunk *source = bm_chunk(bm, chunk);
	if (source == NULL) {
		memset(ret_words, 0, BM_CHUNK_WORDS * sizeof(*ret_words));
		return false;
	}
	for (uint64_t i = 0; i < BM_CHUNK_WORDS; i++)
		ret_words[i] = bm_word(source, i);
	return true;
}

/* The first bit at or after from that is set (wanted) or clear (!wanted); nr_bits when there is none. */
static uint64_t bm_find(const struct bm *bm, uint64_t from, bool wanted)
{
	while (from < bm->nr_bits) {
		const struct bm_chunk *chunk = bm_chunk(bm, from / BM_CHUNK_BITS);
		if (chunk == NULL && !wanted)
			return from;
		if (chunk == NULL) {
			from = (from | (BM_CHUNK_BITS - 1)) + 1;
			continue;
		}
		uint64_t word = bm_word(chunk, from % BM_CHUNK_BITS / 64);
		uint64_t hits = (wanted ? word : ~word) & bm_mask(from, bm->nr_bits);
		if (hits != 0)
			return (from & ~UINT64_C(63)) + (uint64_t)__builtin_ctzll(hits);
		from = (from | 63) + 1;
	}
	return bm->nr_bits;
}

bool bm_next_bit(const struct bm *bm, uint64_t from, uint64_t *ret_bit)
{
	*ret_bit = bm_find(bm, from, true);
	return *ret_bit < bm->nr_bits;
}

bool bm_next_run(const struct bm *bm, uint64_t from, uint64_t *ret_begin, uint64_t *ret_end)
{
	uint64_t begin = bm_find(bm, from, true);
	if (begin >= bm->nr_bits)
		return false;
	*ret_begin = begin;
	*ret_end = bm_find(bm, begin + 1, false);
	return true;
}

void bm_words_set(uint64_t *words, uint64_t begin, uint64_t end)
{
	for (; begin < end; begin = (begin | 63) + 1)
		words[begin / 64] |= bm_mask(begin, end);
}

bool bm_words_any(const uint64_t *words, uint64_t begin, uint64_t end)
{
	for (; begin < end; begin = (begin | 63) + 1)
		if (words[begin / 64] & bm_mask(begin, end))
			return true;
	return false;
}

bool bm_words_all(const uint64_t *words, uint64_t begin, uint64_t end)
{
	for (; begin < end; begin = (begin | 63) + 1)
		if (~words[begin / 64] & bm_mask(begin, end))
			return false;
	return true;
}

uint64_t bm_count(const struct bm *bm)
{
	uint64_t count = 0;
	for (uint64_t i = 0; i < bm_nr_chunks(bm->nr_bits); i++) {
		const struct bm_chunk *chunk = bm_chunk(bm, i);
		for (uint64_t word = 0; chunk != NULL && word < BM_CHUNK_WORDS; word++)
			count += (uint64_t)__builtin_popcountll(bm_word(chunk, word));
	}
	return count;
}
