/* SPDX-License-Identifier: MIT */
/* Builds metadata of large images, the same in every run. */
#include "scale.h"

#include "base/num.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void scale_must(int r, const struct err *err, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, err && err->text[0] ? err->text : strerror(-r));
	_exit(1);
}

void scale_close(struct meta *meta)
{
	scale_must(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), NULL, "write-back");
	meta_close(meta);
}

/* xorshift64*: the same numbers in every run. */
static uint64_t next_random(struct bench *bench)
{
	bench->random ^= bench->random >> 12;
	bench->random ^= bench->random << 25;
	bench->random ^= bench->random >> 27;
	return bench->random * UINT64_C(2685821657736338717);
}

static void set_trailing_clear(uint64_t *words, uint64_t nr_bits)
{
	for (uint64_t bit = nr_bits; bit < BM_CHUNK_BITS; bit++)
		words[bit / 64] &= ~(UINT64_C(1) << bit % 64);
}

static bool fill(struct bench *bench, uint64_t chunk, uint64_t *words)
{
	uint64_t nr_chunks = bm_nr_chunks(bench->shape.nr_blocks);
	uint64_t stride = nr_chunks / 4096 > 0 ? nr_chunks / 4096 : 1;
	unsigned int nr_bits = bench->shape.pattern == SOME ? 41 : 3;

	memset(words, bench->shape.pattern == WHOLE ? 0xff : 0, BM_CHUNK_BITS / 8);
	switch (bench->shape.pattern) {
	case SPARSE:
		if (chunk % stride)
			return false;
		/* fall through */
	case SOME:
		for (unsigned int i = 0; i < nr_bits; i++) {
			uint64_t bit = next_random(bench) % BM_CHUNK_BITS;
			words[bit / 64] |= UINT64_C(1) << bit % 64;
		}
		break;
	case DENSE:
		for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
			words[i] = next_random(bench) | next_random(bench);
		break;
	case WHOLE:
		break;
	}
	if (chunk == nr_chunks - 1)
		set_trailing_clear(words, bench->shape.nr_blocks - chunk * BM_CHUNK_BITS);
	return true;
}

static void commit(struct meta *meta)
{
	scale_must(meta_commit(meta), NULL, "commit");
	if (meta_wal_frames(meta) > 10000)
		scale_must(meta_wal_checkpoint(meta, META_WAL_PASSIVE), NULL, "write-back");
}

static void build_era(struct bench *bench, struct meta *meta, struct report *report)
{
	uint64_t nr_chunks = bm_nr_chunks(bench->shape.nr_blocks);
	uint64_t words[BM_CHUNK_WORDS];

	scale_must(meta_begin(meta, META_LAZY), NULL, "begin");
	uint64_t era = ++meta_pending(meta)->current_era;
	meta_pending(meta)->durable_era = era;
	for (uint64_t chunk = 0; era <= bench->shape.nr_eras && chunk < nr_chunks; chunk++) {
		if (fill(bench, chunk, words)) {
			scale_must(meta_writeset_or(meta, era, chunk, words), NULL, "mark");
			report->rows++;
		}
		if (chunk % 1000 == 999) {
			commit(meta);
			scale_must(meta_begin(meta, META_LAZY), NULL, "begin");
		}
	}
	commit(meta);
}

void scale_build(struct bench *bench, struct report *report)
{
	struct err err = ERR_INIT;
	struct meta *meta;
	struct meta_super super = {
		.block_size = 65536,
		.image_size = bench->shape.nr_blocks * 65536,
		.nr_blocks = bench->shape.nr_blocks,
	};
	num_uuid_new(super.uuid);
	scale_must(meta_create(bench->db, &super, &err), &err, "create");
	scale_must(meta_open(bench->db, &meta, &err), &err, "open");
	for (uint64_t era = 0; era <= bench->shape.nr_eras; era++)
		build_era(bench, meta, report);
	scale_close(meta);
}
