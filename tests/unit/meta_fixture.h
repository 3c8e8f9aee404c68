/* SPDX-License-Identifier: MIT */
/* What the tests of the metadata layer share: a folder of their own, databases in it, a naive model of eras. */
#ifndef META_FIXTURE_H
#define META_FIXTURE_H

#include "base/bitmap.h"
#include "base/num.h"
#include "meta/meta.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char fixture_dir[64];

/* Both run in the process that is not forked, so that the folder goes also when a test dies. */
static inline void fixture_setup(void)
{
	strcpy(fixture_dir, "/tmp/eraimgfs-meta-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fixture_dir));
	ck_assert_int_eq(chmod(fixture_dir, 0755), 0);
}

static inline void fixture_teardown(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", fixture_dir);
	ck_assert_int_eq(system(command), 0);
}

/* A path in the folder; the same pointer for the same name, valid to the end. */
static inline const char *fixture_path(const char *name)
{
	static char *paths[64];
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", fixture_dir, name);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (!paths[i])
			paths[i] = strdup(path);
		if (strcmp(paths[i], path) == 0)
			return paths[i];
	}
	ck_abort_msg("too many paths");
	return NULL;
}

static inline int64_t fixture_size(const char *path, const char *suffix)
{
	char name[512];
	struct stat st;
	snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) < 0 ? -1 : st.st_size;
}

/* By a process of its own: a close() here of a database that is open would drop SQLite's locks. */
static inline void fixture_copy(const char *from, const char *to)
{
	char command[1100];
	snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
	ck_assert_int_eq(system(command), 0);
}

static inline void fixture_remove(const char *path)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
	for (size_t i = 0; i < 4; i++) {
		char name[512];
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		ck_assert(unlink(name) == 0 || errno == ENOENT);
	}
}

static inline struct meta_super fixture_super(uint64_t nr_blocks)
{
	struct meta_super super = { .block_size = 4096, .image_size = nr_blocks * 4096, .nr_blocks = nr_blocks };
	num_uuid_new(super.uuid);
	return super;
}

static inline void fixture_create(const char *path, uint64_t nr_blocks)
{
	struct meta_super super = fixture_super(nr_blocks);
	struct err err = ERR_INIT;
	ck_assert_msg(meta_create(path, &super, &err) == 0, "%s", err.text);
}

static inline struct meta *fixture_open(const char *path)
{
	struct meta *meta = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(meta_open(path, &meta, &err) == 0, "%s", err.text);
	return meta;
}

static inline struct meta_reader *fixture_reader(const char *path)
{
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(meta_reader_open(path, &reader, &err) == 0, "%s", err.text);
	return reader;
}

static inline struct bm *fixture_since(struct meta_reader *reader, uint64_t era)
{
	struct bm *blocks = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(meta_reader_since(reader, era, &blocks, NULL, &err) == 0, "%s", err.text);
	return blocks;
}

static inline void fixture_begin(struct meta *meta)
{
	ck_assert_int_eq(meta_begin(meta, META_LAZY), 0);
}

static inline void fixture_commit(struct meta *meta)
{
	ck_assert_int_eq(meta_commit(meta), 0);
}

/* Starts the next era; all eras before it are durable. */
static inline uint64_t fixture_next_era(struct meta *meta)
{
	fixture_begin(meta);
	struct meta_super *super = meta_pending(meta);
	super->durable_era = ++super->current_era;
	fixture_commit(meta);
	return meta_super(meta)->current_era;
}

static inline int fixture_mark(struct meta *meta, uint64_t era, uint64_t block)
{
	uint64_t words[BM_CHUNK_WORDS] = { 0 };
	words[block % BM_CHUNK_BITS / 64] = UINT64_C(1) << block % 64;
	return meta_writeset_or(meta, era, block / BM_CHUNK_BITS, words);
}

/* Digests all that is below. */
static inline void fixture_digest(struct meta *meta, uint64_t below, unsigned int step)
{
	bool more = true;
	while (more) {
		fixture_begin(meta);
		ck_assert_int_eq(meta_digest(meta, below, step, &more), 0);
		fixture_commit(meta);
	}
}

static inline void fixture_print_finding(const char *text, void *arg)
{
	fprintf(stderr, "finding: %s\n", text);
}

static inline void fixture_check_sound(const char *path)
{
	struct meta_reader *reader = fixture_reader(path);
	struct err err = ERR_INIT;
	ck_assert_int_eq(meta_reader_check(reader, fixture_print_finding, NULL, &err), 0);
	meta_reader_close(reader);
}

/* xorshift64*: the same numbers in every run. */
static inline uint64_t fixture_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

static inline bool fixture_same(const struct bm *a, const struct bm *b)
{
	uint64_t nr = bm_nr_bits(a);
	uint64_t at = 0;
	if (nr != bm_nr_bits(b))
		return false;
	for (;;) {
		uint64_t begin[2], end[2];
		bool any = bm_next_run(a, at, &begin[0], &end[0]);
		if (any != bm_next_run(b, at, &begin[1], &end[1]))
			return false;
		if (!any)
			return true;
		if (begin[0] != begin[1] || end[0] != end[1])
			return false;
		if (end[0] == nr)
			return true;
		at = end[0];
	}
}

#define FIXTURE_MAIN(suite_name, ...)                                                                                  \
	int main(void)                                                                                                 \
	{                                                                                                              \
		Suite *suite = suite_create(suite_name);                                                               \
		TCase *tcase = tcase_create(suite_name);                                                               \
		const TTest *const tests[] = { __VA_ARGS__ };                                                          \
		tcase_set_timeout(tcase, 240);                                                                         \
		tcase_add_unchecked_fixture(tcase, fixture_setup, fixture_teardown);                                   \
		for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)                                          \
			tcase_add_test(tcase, tests[i]);                                                               \
		suite_add_tcase(suite, tcase);                                                                         \
		SRunner *runner = srunner_create(suite);                                                               \
		srunner_run_all(runner, CK_ENV);                                                                       \
		int failed = srunner_ntests_failed(runner);                                                            \
		srunner_free(runner);                                                                                  \
		return failed ? EXIT_FAILURE : EXIT_SUCCESS;                                                           \
	}

#endif
