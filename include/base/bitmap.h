/* SPDX-License-Identifier: MIT */
/*
 * bitmap - a sparse set of blocks with atomic words.
 *
 * Up to 2^31 - 1 bits, held in chunks of BM_CHUNK_BITS that are allocated when a bit in them is first set: an untouched
 * chunk costs its 8 bytes in a directory of lazily touched, zeroed memory. Chunk c holds the bits
 * [c * BM_CHUNK_BITS, (c + 1) * BM_CHUNK_BITS); bit b of a chunk is bit b % 64 of word b / 64. Metadata rows use the same
 * chunks (eraimgfs-metadata(5)).
 *
 * Any thread may test, set and clear at the same time. All of these are sequentially consistent, over all bitmaps: who sets a
 * bit here and then looks at another there, and who does it the other way round, do not miss each other. bm_new(), bm_free()
 * and bm_or_chunk() are for an owner alone.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#define BM_CHUNK_BITS 4096u
#define BM_CHUNK_WORDS (BM_CHUNK_BITS / 64u)
#define BM_MAX_BITS UINT64_C(2147483647)

struct bm;

/* nr_bits 1..BM_MAX_BITS, all clear. 0, -EINVAL or -ENOMEM. */
int bm_new(uint64_t nr_bits, struct bm **ret_bm);

/* Where the chunks of a bitmap come from, when not from the heap. */
struct bm_store {
	/* BM_CHUNK_WORDS words, all 0, the same memory whenever it is asked for that chunk; or NULL. Any thread. */
	void *(*chunk)(void *arg, uint64_t chunk);
	void *arg;
};

/* bm_new() with chunks that the store keeps; it outlives the bitmap. */
int bm_new_in(uint64_t nr_bits, const struct bm_store *store, struct bm **ret_bm);

/* NULL is fine. No other thread may use it any more. */
void bm_free(struct bm *bm);

uint64_t bm_nr_bits(const struct bm *bm);

/* Chunks that cover nr_bits. */
uint64_t bm_nr_chunks(uint64_t nr_bits);

/* True when every bit of [begin, end) is set; an empty range is. end <= nr_bits. */
bool bm_test_range(const struct bm *bm, uint64_t begin, uint64_t end);

/* Sets [begin, end). 0, or -ENOMEM with part of the range set. */
int bm_set_range(struct bm *bm, uint64_t begin, uint64_t end);

/* Clears [begin, end). */
void bm_clear_range(struct bm *bm, uint64_t begin, uint64_t end);

/* ORs BM_CHUNK_WORDS words into a chunk; bits at nr_bits and beyond are ignored. No other thread may set bits
 * meanwhile: they could be lost. 0 or -ENOMEM. */
int bm_or_chunk(struct bm *bm, uint64_t chunk, const uint64_t *words);

/* Copies a chunk, word by word, each atomically. False, and zeros, when nothing in it was ever set. */
bool bm_copy_chunk(const struct bm *bm, uint64_t chunk, uint64_t *ret_words);

/* The first set bit at or after from. False when there is none. */
bool bm_next_bit(const struct bm *bm, uint64_t from, uint64_t *ret_bit);

/* The first run of set bits at or after from: [*ret_begin, *ret_end). False when there is none. Runs go on over chunk
 * borders; time grows with the chunks that were touched, plus one pass over the directory. While others clear bits, a run may
 * have gone by the time that it is told. */
bool bm_next_run(const struct bm *bm, uint64_t from, uint64_t *ret_begin, uint64_t *ret_end);

/* Sets bits [begin, end) of a chunk's words, which nobody else uses. begin < end <= BM_CHUNK_BITS. */
void bm_words_set(uint64_t *words, uint64_t begin, uint64_t end);

/* True when any, or all, of them are set. */
bool bm_words_any(const uint64_t *words, uint64_t begin, uint64_t end);
bool bm_words_all(const uint64_t *words, uint64_t begin, uint64_t end);

/* Number of set bits. */
uint64_t bm_count(const struct bm *bm);

#endif
