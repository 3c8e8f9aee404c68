/* SPDX-License-Identifier: MIT */
/* What hostile readings of the write intents found stays found. */
#include "core_util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXTENT (4 * CORE_BLOCK)

static atomic_bool chunks_fail; /* of bitmaps; not for the test's own thread */
static _Thread_local bool is_test;
static _Thread_local bool is_slow; /* comes to the metadata later than others */

void __real_metalock_urgent(struct era *era);
void __wrap_metalock_urgent(struct era *era);
void *__real_calloc(size_t nr, size_t size);
void *__wrap_calloc(size_t nr, size_t size);

void *__wrap_calloc(size_t nr, size_t size)
{
	if (nr == 1 && size == BM_CHUNK_WORDS * sizeof(uint64_t) && atomic_load(&chunks_fail) && !is_test)
		return NULL;
	return __real_calloc(nr, size);
}

static void nap_ms(long ms)
{
	struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	nanosleep(&nap, NULL);
}

void __wrap_metalock_urgent(struct era *era)
{
	if (is_slow)
		nap_ms(20); /* no wait for anything: a scheduler may do that */
	__real_metalock_urgent(era);
}

static struct era_config config_of(const struct core_env *env)
{
	struct era_config config = core_config(env);
	config.intent_bytes = EXTENT;
	return config;
}

/* As a reader sees it that is told settled_from; UINT64_MAX: that asks nobody. */
static bool reader_has(const char *db, uint64_t settled_from, uint64_t era, uint64_t block)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct bm *blocks;
	expect_eq(meta_reader_open(db, &reader, &err), 0);
	meta_reader_trust(reader, settled_from);
	expect_eq(meta_reader_since(reader, era, &blocks, NULL, &err), 0);
	bool has = bm_test_range(blocks, block, block + 1);
	bm_free(blocks);
	meta_reader_close(reader);
	return has;
}

static int flush_fails(struct core_fault *fault)
{
	return -EIO;
}

/* What a failed session's intents stand for counts in the new era too, and is no intent of the new session. */
START_TEST(test_intents_of_a_failed_session_stay)
{
	struct core_env env;
	struct err err = ERR_INIT;
	core_env_init(&env, 64 * CORE_BLOCK);
	struct era_config config = config_of(&env);
	struct core_fault *fault = core_fault_new(env.image);
	config.image = &fault->img;
	struct era *era = core_open_with(&config);
	uint64_t old = core_era(era);
	core_touch(era, 5, 1); /* block 6, of the same extent, has no mark */
	fault->on_flush = flush_fails;
	expect_eq(core_fsync(era), -EIO);
	era_close(era, &err);
	core_empty_dir(env.run); /* as on another boot */
	config.image = NULL;
	config.intent_bytes = _i == 0 ? EXTENT : 0;
	era = core_open_with(&config);
	uint64_t now = core_era(era);
	expect_gt(now, old);
	expect(core_has(env.db, now, 6));
	core_touch(era, 4, 1); /* an intent of its own for the same extent */
	expect(core_has(env.db, now, 6));
	core_checkpoint(era); /* ends its own intents */
	expect(core_has(env.db, now, 6));
	core_close(era);
	expect(reader_has(env.db, UINT64_MAX, now, 6));
}
END_TEST

/* An intent whose end was committed is not armed again, whatever fails after that. */
START_TEST(test_an_intent_that_is_gone_is_not_armed)
{
	struct core_env env;
	core_env_init(&env, 64 * CORE_BLOCK);
	struct era_config config = config_of(&env);
	struct era *era = core_open_with(&config);
	uint64_t now = core_era(era);
	core_touch(era, 4, 1);
	is_test = true;
	atomic_store(&chunks_fail, true); /* `committed` has no chunk yet */
	for (int i = 0; i < 400 && reader_has(env.db, UINT64_MAX, now, 5); i++)
		nap_ms(50);
	expect(!reader_has(env.db, UINT64_MAX, now, 5));
	atomic_store(&chunks_fail, false);
	core_touch(era, 5, 7);
	expect(reader_has(env.db, UINT64_MAX, now, 5));
	core_close(era);
}
END_TEST

/* The witness of a thaw names a commit that no power loss takes back, not one that came after it. */
START_TEST(test_the_witness_of_a_thaw_is_durable)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct meta_witness witness;
	uint64_t frozen_era, now;
	core_env_init(&env, 64 * CORE_BLOCK);
	struct era_config config = config_of(&env);
	struct era *era = core_open_with(&config);
	core_touch(era, 5, 1);
	expect_eq(era_freeze(era, 0, &frozen_era, &err), 0);
	expect_eq(meta_reader_open(env.db, &reader, &err), 0);
	const struct meta_super frozen = *meta_reader_super(reader);
	meta_reader_close(reader);
	nap_ms(1200); /* longer than the period in which marks are made: they are due at once */
	is_slow = true;
	expect_eq(era_thaw(era, frozen_era, &now, &err), 0);
	is_slow = false;
	expect_eq(meta_witness_read(env.db, frozen.uuid, &witness), 1);
	expect_eq(witness.commit_counter, frozen.commit_counter + 1);
	core_close(era);
}
END_TEST

/* A frozen instance does not speak for the intents of the one that has taken over. */
START_TEST(test_who_is_frozen_vouches_for_nobody)
{
	struct core_env env;
	struct err err = ERR_INIT;
	uint64_t frozen_era, from;
	core_env_init(&env, 64 * CORE_BLOCK);
	struct era_config config = config_of(&env);
	struct era *old = core_open_with(&config);
	core_touch(old, 5, 1);
	expect_eq(era_freeze(old, 0, &frozen_era, &err), 0);
	config.takeover = true;
	struct era *next = core_open_with(&config);
	core_touch(next, 9, 1); /* its mark may be there already; block 10, of the same extent, has the intent alone */
	expect_eq(era_settle(old, &from), 0);
	expect(reader_has(env.db, from, frozen_era + 1, 10));
	core_close(next);
	core_close(old);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_intents_regress");
	TCase *tcase = tcase_create("regress");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_intents_of_a_failed_session_stay, 0, 2);
	tcase_add_test(tcase, test_an_intent_that_is_gone_is_not_armed);
	tcase_add_test(tcase, test_the_witness_of_a_thaw_is_durable);
	tcase_add_test(tcase, test_who_is_frozen_vouches_for_nobody);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
