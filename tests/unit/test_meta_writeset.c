/* SPDX-License-Identifier: MIT */
/* Random histories against a naive model: the last era of each block. */
#include "meta_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#define MAX_BLOCKS 100000

struct world {
	const char *path;
	struct meta *meta;
	uint64_t random;
	uint64_t nr_blocks;
	uint64_t era[MAX_BLOCKS];
	uint64_t era_undo[MAX_BLOCKS];
};

static uint64_t below(struct world *w, uint64_t limit)
{
	return fixture_random(&w->random) % limit;
}

static void check_chunk(struct world *w, const struct bm *blocks, uint64_t since, uint64_t chunk)
{
	uint64_t want[BM_CHUNK_WORDS] = { 0 };
	uint64_t is[BM_CHUNK_WORDS];
	for (unsigned int i = 0; i < BM_CHUNK_BITS; i++) {
		uint64_t block = chunk * BM_CHUNK_BITS + i;
		if (block < w->nr_blocks && w->era[block] && w->era[block] >= since)
			want[i / 64] |= UINT64_C(1) << i % 64;
	}
	bm_copy_chunk(blocks, chunk, is);
	ck_assert_msg(memcmp(is, want, sizeof(is)) == 0, "chunk %llu since %llu", (unsigned long long)chunk,
		(unsigned long long)since);
}

static void check_since(struct world *w, uint64_t from)
{
	struct meta_reader *reader = fixture_reader(w->path);
	uint64_t current = meta_reader_super(reader)->current_era;
	for (uint64_t since = from; since <= current + 1; since++) {
		struct bm *blocks = fixture_since(reader, since);
		ck_assert_uint_eq(bm_nr_bits(blocks), w->nr_blocks);
		for (uint64_t chunk = 0; chunk < bm_nr_chunks(w->nr_blocks); chunk++)
			check_chunk(w, blocks, since, chunk);
		bm_free(blocks);
	}
	meta_reader_close(reader);
}

static void do_mark(struct world *w)
{
	uint64_t era = meta_super(w->meta)->current_era;
	memcpy(w->era_undo, w->era, sizeof(w->era));
	ck_assert_int_eq(meta_begin(w->meta, below(w, 4) ? META_LAZY : META_FULL), 0);
	for (uint64_t n = below(w, 4) + 1; n; n--) {
		uint64_t chunk = below(w, bm_nr_chunks(w->nr_blocks));
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		uint64_t dense = below(w, 3);
		for (uint64_t i = 0; i < BM_CHUNK_BITS; i++) {
			uint64_t block = chunk * BM_CHUNK_BITS + i;
			if (block >= w->nr_blocks || (dense ? below(w, 2) : below(w, 200)))
				continue;
			words[i / 64] |= UINT64_C(1) << i % 64;
			w->era[block] = era;
		}
		ck_assert_int_eq(meta_writeset_or(w->meta, era, chunk, words), 0);
	}
	if (below(w, 5)) {
		fixture_commit(w->meta);
	} else {
		meta_rollback(w->meta);
		memcpy(w->era, w->era_undo, sizeof(w->era));
	}
}

static void do_digest(struct world *w)
{
	bool more;
	fixture_begin(w->meta);
	ck_assert_int_eq(meta_digest(w->meta, meta_super(w->meta)->durable_era, (unsigned int)below(w, 6), &more), 0);
	if (below(w, 6))
		fixture_commit(w->meta);
	else
		meta_rollback(w->meta);
}

static void do_copy(struct world *w)
{
	uint64_t to = meta_super(w->meta)->current_era;
	uint64_t from = meta_super(w->meta)->durable_era;
	fixture_begin(w->meta);
	ck_assert_int_eq(meta_writeset_copy(w->meta, from, to), 0);
	fixture_commit(w->meta);
	/* What is not durable is not digested, so the model's eras from there on are in writesets. */
	for (uint64_t b = 0; b < w->nr_blocks; b++) {
		if (w->era[b] >= from && w->era[b])
			w->era[b] = to;
	}
}

static void do_era(struct world *w)
{
	fixture_begin(w->meta);
	struct meta_super *super = meta_pending(w->meta);
	super->current_era += 1 + below(w, 3) / 2;
	if (below(w, 3))
		super->durable_era = super->current_era;
	fixture_commit(w->meta);
}

static void do_resize(struct world *w)
{
	uint64_t size = 1 + below(w, (w->nr_blocks < MAX_BLOCKS / 2 ? w->nr_blocks * 2 : MAX_BLOCKS) * 4096);
	fixture_begin(w->meta);
	ck_assert_int_eq(meta_resize(w->meta, size), 0);
	fixture_commit(w->meta);
	uint64_t now = (size + 4095) / 4096;
	for (uint64_t b = now; b < w->nr_blocks; b++)
		w->era[b] = 0;
	w->nr_blocks = now;
	ck_assert_uint_eq(meta_super(w->meta)->nr_blocks, now);
	ck_assert_uint_eq(meta_super(w->meta)->image_size, size);
}

static void do_close(struct world *w)
{
	if (below(w, 2))
		ck_assert_int_eq(meta_wal_checkpoint(w->meta, below(w, 2) ? META_WAL_TRUNCATE : META_WAL_PASSIVE), 0);
	meta_close(w->meta);
	fixture_check_sound(w->path);
	w->meta = fixture_open(w->path);
}

static void run_world(uint64_t nr_blocks, uint64_t seed, bool resize)
{
	struct world *w = calloc(1, sizeof(*w));
	ck_assert_ptr_nonnull(w);
	w->path = fixture_path("world.era");
	w->nr_blocks = nr_blocks;
	w->random = seed;
	fixture_create(w->path, nr_blocks);
	w->meta = fixture_open(w->path);
	fixture_next_era(w->meta);

	unsigned int steps = nr_blocks > 10000 ? 120 : 300;
	for (unsigned int i = 0; i < steps; i++) {
		switch (below(w, 16)) {
		case 0:
			do_close(w);
			break;
		case 1:
			do_era(w);
			break;
		case 2:
			do_copy(w);
			break;
		case 3:
			if (resize)
				do_resize(w);
			break;
		case 4:
		case 5:
		case 6:
		case 7:
			do_digest(w);
			break;
		default:
			do_mark(w);
		}
		if (i % 10 == 0) {
			uint64_t current = meta_super(w->meta)->current_era;
			check_since(w, current > 3 ? current - 3 : 0);
		}
	}
	check_since(w, 0);
	fixture_digest(w->meta, UINT64_MAX >> 1, 7);
	check_since(w, 0);
	do_close(w);
	meta_close(w->meta);
	fixture_remove(w->path);
	free(w);
}

START_TEST(test_model)
{
	static const uint64_t geometries[] = { 1, 63, 64, 65, 4095, 4096, 4097, 100000 };
	for (size_t i = 0; i < sizeof(geometries) / sizeof(geometries[0]); i++) {
		run_world(geometries[i], 0x9e3779b97f4a7c15 + i, false);
		run_world(geometries[i], 0xc2b2ae3d27d4eb4f + i, true);
	}
}
END_TEST

/* The greatest image: 2^31 - 1 blocks, of which few are written. */
START_TEST(test_greatest)
{
	enum { MARKS = 64, ERAS = 6 };
	const char *path = fixture_path("greatest.era");
	uint64_t random = 42;
	uint64_t block[ERAS + 1][MARKS];
	fixture_create(path, BM_MAX_BITS);
	struct meta *meta = fixture_open(path);

	for (uint64_t era = 1; era <= ERAS; era++) {
		ck_assert_uint_eq(fixture_next_era(meta), era);
		fixture_begin(meta);
		for (unsigned int i = 0; i < MARKS; i++) {
			block[era][i] = i == 0 ? BM_MAX_BITS - 1 : i == 1 ? 0 : fixture_random(&random) % BM_MAX_BITS;
			ck_assert_int_eq(fixture_mark(meta, era, block[era][i]), 0);
		}
		fixture_commit(meta);
		if (era == 4)
			fixture_digest(meta, 3, 10);
	}

	for (unsigned int pass = 0; pass < 2; pass++) {
		struct meta_reader *reader = fixture_reader(path);
		for (uint64_t since = 0; since <= ERAS; since++) {
			struct bm *want;
			ck_assert_int_eq(bm_new(BM_MAX_BITS, &want), 0);
			for (uint64_t era = since ? since : 1; era <= ERAS; era++) {
				for (unsigned int i = 0; i < MARKS; i++)
					ck_assert_int_eq(bm_set_range(want, block[era][i], block[era][i] + 1), 0);
			}
			struct bm *blocks = fixture_since(reader, since);
			ck_assert_msg(fixture_same(blocks, want), "since %d", (int)since);
			bm_free(blocks);
			bm_free(want);
		}
		meta_reader_close(reader);
		fixture_digest(meta, ERAS + 1, 50);
	}
	meta_close(meta);
	fixture_check_sound(path);
}
END_TEST

START_TEST(test_forget)
{
	const char *path = fixture_path("forget.era");
	fixture_create(path, 10000);
	struct meta *meta = fixture_open(path);
	for (uint64_t era = 1; era <= 3; era++) {
		fixture_next_era(meta);
		fixture_begin(meta);
		ck_assert_int_eq(fixture_mark(meta, era, era * 3000), 0);
		ck_assert_int_eq(meta_label_set(meta, "x", era), 0);
		fixture_commit(meta);
	}
	fixture_digest(meta, 3, 1);

	fixture_begin(meta);
	ck_assert_int_eq(meta_forget(meta), 0);
	struct meta_super *super = meta_pending(meta);
	super->block_size = 8192;
	super->image_size = 8192 * 5;
	super->nr_blocks = 5;
	super->floor_era = super->current_era = super->durable_era = 9;
	ck_assert_int_eq(fixture_mark(meta, 9, 4), 0);
	fixture_commit(meta);
	meta_close(meta);

	fixture_check_sound(path);
	struct meta_reader *reader = fixture_reader(path);
	struct bm *blocks = fixture_since(reader, 1);
	ck_assert_uint_eq(bm_nr_bits(blocks), 5);
	ck_assert_uint_eq(bm_count(blocks), 1);
	bm_free(blocks);
	uint64_t era;
	ck_assert_int_eq(meta_reader_label(reader, "x", &era, NULL), -ENOENT);
	meta_reader_close(reader);
}
END_TEST

/* Marks blocks of many chunks in one transaction: about 20 MiB. */
static int mark_much(struct meta *meta, uint64_t era)
{
	uint64_t words[BM_CHUNK_WORDS] = { 1 };
	int r = meta_begin(meta, META_FULL);
	for (uint64_t chunk = 0; r == 0 && chunk < 40000; chunk++)
		r = meta_writeset_or(meta, era, chunk, words);
	if (r == 0)
		return meta_commit(meta);
	meta_rollback(meta);
	return r;
}

static int mark_one(struct meta *meta, uint64_t era, uint64_t block)
{
	ck_assert_int_eq(meta_begin(meta, META_FULL), 0);
	int r = fixture_mark(meta, era, block);
	ck_assert_int_eq(r, 0); /* in memory still */
	return meta_commit(meta);
}

static void check_count(const char *path, uint64_t since, uint64_t count)
{
	struct meta_reader *reader = fixture_reader(path);
	struct bm *blocks = fixture_since(reader, since);
	ck_assert_uint_eq(bm_count(blocks), count);
	bm_free(blocks);
	meta_reader_close(reader);
}

/* A full file: in the middle of a transaction, and at its COMMIT. */
START_TEST(test_file_size_limit)
{
	const char *path = fixture_path("limit.era");
	fixture_create(path, UINT64_C(40000) * BM_CHUNK_BITS);
	struct meta *meta = fixture_open(path);
	uint64_t era = fixture_next_era(meta);
	ck_assert_int_eq(mark_one(meta, era, 5), 0);

	struct rlimit whole;
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &whole), 0);
	ck_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	struct rlimit small = { .rlim_cur = (rlim_t)fixture_size(path, "-wal") + 5000, .rlim_max = whole.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	struct meta_super before = *meta_super(meta);
	ck_assert_int_eq(mark_much(meta, era), -ENOSPC);
	ck_assert_int_eq(mark_one(meta, era, 4096 * 7), -ENOSPC);
	ck_assert_mem_eq(meta_super(meta), &before, sizeof(before));
	check_count(path, 1, 1);

	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &whole), 0);
	ck_assert_int_eq(mark_one(meta, era, 4096 * 7), 0);
	check_count(path, 1, 2);
	ck_assert_int_eq(mark_much(meta, era), 0);
	meta_close(meta);
	fixture_check_sound(path);
	check_count(path, 1, 40001);
}
END_TEST

START_TEST(test_disk_full)
{
	/* In a mount namespace of this process alone: the mount goes with it. */
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) {
		fprintf(stderr, "SKIPPED: a full file system needs root and mount namespaces\n");
		return;
	}
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	char folder[128];
	snprintf(folder, sizeof(folder), "%s", fixture_path("full"));
	ck_assert_int_eq(mkdir(folder, 0755), 0);
	ck_assert_int_eq(mount("full", folder, "tmpfs", 0, "size=1m"), 0);

	const char *path = fixture_path("full/x.era");
	fixture_create(path, UINT64_C(40000) * BM_CHUNK_BITS);
	struct meta *meta = fixture_open(path);
	uint64_t era = fixture_next_era(meta);
	ck_assert_int_eq(mark_one(meta, era, 5), 0);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);

	/* Every fill level around the size of one commit. */
	for (unsigned int leave = 0; leave < 6; leave++) {
		int fd = open(fixture_path("full/filler"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		char page[4096] = { 1 };
		unsigned int pages = 0;
		while (write(fd, page, sizeof(page)) == sizeof(page))
			pages++;
		ck_assert_int_eq(errno, ENOSPC);
		ck_assert_int_eq(ftruncate(fd, (off_t)(pages - leave) * 4096), 0);
		close(fd);

		struct meta_super before = *meta_super(meta);
		ck_assert_int_eq(mark_much(meta, era), -ENOSPC);
		int r = mark_one(meta, era, 4096 * (10 + leave));
		ck_assert_msg(r == 0 || r == -ENOSPC, "%s", strerror(-r));
		ck_assert_uint_eq(meta_super(meta)->commit_counter, before.commit_counter + (r == 0));
		if (leave == 0)
			ck_assert_int_eq(r, -ENOSPC);
		ck_assert_int_eq(unlink(fixture_path("full/filler")), 0);
		ck_assert_int_eq(mark_one(meta, era, 4096 * (10 + leave)), 0);
		check_count(path, 1, 2 + leave);
		ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	}
	meta_close(meta);
	fixture_check_sound(path);
	ck_assert_int_eq(umount(folder), 0);
}
END_TEST

FIXTURE_MAIN("meta_writeset", test_model, test_greatest, test_forget, test_file_size_limit, test_disk_full)
