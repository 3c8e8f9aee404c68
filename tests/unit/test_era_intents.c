/* SPDX-License-Identifier: MIT */
/* Write intents in the core: what a kill or a power loss leaves of them, what bounds them, and who takes them back. */
#include "core_freeze.h"
#include "core_util.h"
#include "vfs_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXTENT 4u /* blocks that an intent stands for */
#define NR_BLOCKS 4096u
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static struct era_config intent_config(const struct core_env *env, uint64_t extent)
{
	struct era_config config = core_config(env);
	config.intent_bytes = extent * CORE_BLOCK;
	config.intent_max_bytes = UINT64_MAX;
	return config;
}

/* --- answers --- */

/* What since says where nobody is asked: what is in exact was written, what is in feared may have been. */
struct answer {
	struct bm *exact;
	struct bm *feared; /* NULL: nothing */
};

static struct answer answer_of(const char *db, uint64_t era_nr, uint64_t settled_from)
{
	struct meta_reader *reader;
	struct answer answer;
	struct err err = ERR_INIT;
	expect_msg(meta_reader_open(db, &reader, &err) == 0, "%s", err.text);
	meta_reader_trust(reader, settled_from);
	int error = meta_reader_since(reader, era_nr, &answer.exact, &answer.feared, &err);
	expect_msg(error == 0, "%s", err.text);
	meta_reader_close(reader);
	return answer;
}

/* The same where era is asked first. */
static struct answer answer_live(struct era *era, const char *db, uint64_t era_nr)
{
	uint64_t from = 0;
	expect_eq(era_settle(era, &from), 0);
	return answer_of(db, era_nr, from);
}

static void answer_free(struct answer *answer)
{
	bm_free(answer->exact);
	bm_free(answer->feared);
}

static bool has(const struct bm *bm, uint64_t block)
{
	return bm != NULL && bm_test_range(bm, block, block + 1);
}

/* Exactly these are in the answer, and it says so. */
static void expect_exact(const struct answer *answer, const uint64_t *blocks, unsigned int nr)
{
	expect_msg(answer->feared == NULL, "%llu blocks are feared", (unsigned long long)bm_count(answer->feared));
	for (unsigned int i = 0; i < nr; i++)
		expect_msg(has(answer->exact, blocks[i]), "MISSING: block %llu", (unsigned long long)blocks[i]);
	expect_eq(bm_count(answer->exact), nr);
}

/* These are there, and no other is said to be written: the rest is feared. */
static void expect_covered(const struct answer *answer, const uint64_t *blocks, unsigned int nr)
{
	unsigned int nr_exact = 0;
	for (unsigned int i = 0; i < nr; i++) {
		expect_msg(has(answer->exact, blocks[i]) || has(answer->feared, blocks[i]), "MISSING: block %llu",
			(unsigned long long)blocks[i]);
		nr_exact += has(answer->exact, blocks[i]);
	}
	expect_eq(bm_count(answer->exact), nr_exact);
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		expect(!has(answer->exact, block) || !has(answer->feared, block));
}

/* Waits until no more than nr intents are open. */
static void await_open_intents(struct era *era, uint64_t nr)
{
	while (core_status(era).open_intents > nr)
		usleep(10000);
}

/* --- lives that end by kill -9 --- */

/* In memory that parent and child share. */
struct life {
	atomic_uint ready; /* the child is where it should be killed */
	uint64_t era; /* that it began with */
	uint64_t later; /* one of its own */
	uint64_t open_intents;
	bool is_exact_after_kill;
	atomic_uint nr; /* writes that were replied to */
	uint64_t blocks[1 << 16];
};

static struct life *life_new(void)
{
	struct life *life = mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(life != MAP_FAILED);
	return life;
}

/* The child's end. */
static _Noreturn void life_wait_for_kill(struct life *life)
{
	atomic_store(&life->ready, 1);
	for (;;)
		pause();
}

/* The parent's. A child that failed is told of by core_kill(). */
static void life_kill(struct life *life, pid_t pid)
{
	while (atomic_load(&life->ready) == 0 && kill(pid, 0) == 0 && waitpid(pid, NULL, WNOHANG) == 0)
		usleep(1000);
	expect_msg(atomic_load(&life->ready) == 1, "the child failed");
	core_kill(pid);
}

static void life_note(struct life *life, uint64_t block)
{
	unsigned int at = atomic_load(&life->nr);
	expect_lt(at, sizeof(life->blocks) / sizeof(life->blocks[0]));
	life->blocks[at] = block;
	atomic_store(&life->nr, at + 1);
}

/* Opens, writes the blocks and dies; with what it says of itself in life. */
static void live(struct life *life, const struct era_config *config, const uint64_t *blocks, unsigned int nr)
{
	atomic_store(&life->ready, 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(config);
		life->era = core_era(era);
		for (unsigned int i = 0; i < nr; i++)
			core_touch(era, blocks[i], 1);
		struct era_status status = core_status(era);
		life->open_intents = status.open_intents;
		life->is_exact_after_kill = status.is_exact_after_kill;
		life_wait_for_kill(life);
	}
	life_kill(life, pid);
}

static const uint64_t some_blocks[] = { 0, 5, 6, 100, 101, 1023, NR_BLOCKS - 1 };
#define NR_SOME (sizeof(some_blocks) / sizeof(some_blocks[0]))

/* What a kill leaves is feared before recovery, and exact after it. */
START_TEST(test_a_kill_leaves_the_answer_exact)
{
	struct core_env env;
	struct life *life = life_new();
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	live(life, &config, some_blocks, NR_SOME);
	expect(life->is_exact_after_kill);
	expect_gt(life->open_intents, 0);
	struct answer answer = answer_of(env.db, life->era, UINT64_MAX);
	expect(answer.feared != NULL);
	for (unsigned int i = 0; i < NR_SOME; i++)
		expect(has(answer.exact, some_blocks[i]) || has(answer.feared, some_blocks[i]));
	answer_free(&answer);

	struct era *era = core_open_with(&config);
	answer = answer_of(env.db, life->era, UINT64_MAX); /* nobody is asked */
	expect_exact(&answer, some_blocks, NR_SOME);
	answer_free(&answer);
	answer = answer_of(env.db, life->era + 1, UINT64_MAX);
	expect_exact(&answer, NULL, 0);
	answer_free(&answer);
	core_close(era);
}
END_TEST

/* Two writers, killed in mid-load: what was replied to is there, and of what was not at most what was in flight. */
struct loader {
	struct era *era;
	struct life *life;
	uint64_t first;
};

static void *load(void *arg)
{
	struct loader *loader = arg;
	for (uint64_t i = 0; i < sizeof(loader->life->blocks) / sizeof(loader->life->blocks[0]); i++) {
		uint64_t block = loader->first + i * 37 % (NR_BLOCKS / 2);
		core_touch(loader->era, block, 1);
		life_note(loader->life, block);
	}
	life_wait_for_kill(loader->life);
}

START_TEST(test_a_kill_in_mid_load_leaves_the_answer_exact)
{
	struct core_env env;
	struct life *lives[2] = { life_new(), life_new() };
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, _i == 0 ? EXTENT : 64);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct loader loaders[2];
		pthread_t threads[2];
		struct era *era = core_open_with(&config);
		for (unsigned int i = 0; i < 2; i++) {
			loaders[i] = (struct loader){ era, lives[i], i * (NR_BLOCKS / 2) };
			pthread_create(&threads[i], NULL, load, &loaders[i]);
		}
		pthread_join(threads[0], NULL);
	}
	while (atomic_load(&lives[0]->nr) < 200u + 300u * (unsigned int)_i || atomic_load(&lives[1]->nr) < 200)
		expect_eq(waitpid(pid, NULL, WNOHANG), 0);
	core_kill(pid);

	struct bm *written;
	expect_eq(bm_new(NR_BLOCKS, &written), 0);
	for (unsigned int i = 0; i < 2; i++)
		for (unsigned int j = 0; j < atomic_load(&lives[i]->nr); j++)
			expect_eq(bm_set_range(written, lives[i]->blocks[j], lives[i]->blocks[j] + 1), 0);
	struct era *era = core_open_with(&config);
	struct answer answer = answer_of(env.db, 1, UINT64_MAX);
	expect(answer.feared == NULL);
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		expect_msg(!has(written, block) || has(answer.exact, block), "MISSING: block %llu",
			(unsigned long long)block);
	expect_le(bm_count(answer.exact), bm_count(written) + 2);
	answer_free(&answer);
	bm_free(written);
	core_close(era);
}
END_TEST

/* --- a switch of eras, killed within --- */

/* Holds the nth BEGIN of one thread. */
struct begin_hold {
	struct core_hold hold;
	pthread_t thread;
	atomic_int left; /* 0: nothing is held */
};

static void hold_begin(struct vfs_fault *vfs, void *arg)
{
	struct begin_hold *b = arg;
	if (atomic_load(&b->left) > 0 && pthread_equal(b->thread, pthread_self()) && atomic_fetch_sub(&b->left, 1) == 1)
		core_hold_here(&b->hold);
}

struct switching {
	struct era *era;
	struct begin_hold *begin;
	int nth;
};

static void *switch_eras(void *arg)
{
	struct switching *s = arg;
	s->begin->thread = pthread_self();
	atomic_store(&s->begin->left, s->nth);
	core_checkpoint(s->era);
	return NULL;
}

/* Held in the first transaction of a checkpoint (a slot is labelled N+1, the database is at N), or in its second (the marks of
 * N are on their way). Does not come back. */
static _Noreturn void die_in_a_switch(struct life *life, const struct core_env *env, struct era_config *config, int nth)
{
	struct begin_hold begin = { .left = 0 };
	pthread_t thread;
	core_hold_init(&begin.hold);
	vfs_fault_new(env->db, (struct vfs_hooks){ .on_write_lock = hold_begin, .arg = &begin });
	struct era *era = core_open_with(config);
	life->era = core_era(era);
	for (unsigned int i = 0; i < NR_SOME; i++)
		core_touch(era, some_blocks[i], 1);
	struct switching s = { era, &begin, nth };
	pthread_create(&thread, NULL, switch_eras, &s);
	core_hold_wait(&begin.hold);
	if (nth == 2)
		/* Its extent is hot: an intent in N+1 came with N+1 itself. (Nobody may ask for the status meanwhile.) */
		expect_eq(core_write(era, 7 * CORE_BLOCK, "x", 1), 0);
	life_wait_for_kill(life);
}

/* _i: 0, 1 kills in the first and second; 2, 3 the same without the session's file. */
START_TEST(test_a_switch_that_is_half_done)
{
	struct core_env env;
	struct life *life = life_new();
	bool power_loss = _i >= 2, is_switched = _i % 2 == 1;
	static const uint64_t seven[] = { 7 };
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	pid_t pid = core_fork();
	if (pid == 0)
		die_in_a_switch(life, &env, &config, is_switched ? 2 : 1);
	life_kill(life, pid);
	if (power_loss)
		core_empty_dir(env.run);
	struct era *era = core_open_with(&config);
	struct answer first = answer_live(era, env.db, life->era), second = answer_live(era, env.db, life->era + 1);
	if (!power_loss && !is_switched) {
		expect_exact(&first, some_blocks, NR_SOME);
		expect_exact(&second, NULL, 0);
	} else if (!power_loss) {
		uint64_t all[NR_SOME + 1] = { 7 };
		memcpy(all + 1, some_blocks, sizeof(some_blocks));
		expect_exact(&first, all, NR_SOME + 1);
		expect_exact(&second, seven, 1);
	} else {
		expect_covered(&first, some_blocks, NR_SOME);
		expect(first.feared != NULL);
		if (is_switched)
			expect(has(second.feared, 7) || has(second.exact, 7));
		else
			expect_exact(&second, NULL, 0);
	}
	answer_free(&first);
	answer_free(&second);
	core_close(era);
}
END_TEST

/* --- without the session's file --- */

START_TEST(test_a_power_loss_is_covered_and_said_for_ever)
{
	struct core_env env;
	struct life *life = life_new();
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	live(life, &config, some_blocks, NR_SOME);
	core_empty_dir(env.run);
	uint64_t blocks[NR_SOME + 1] = { [NR_SOME] = 3000 };
	memcpy(blocks, some_blocks, sizeof(some_blocks));
	uint64_t nr_feared = 0, later = 0;
	for (unsigned int lives = 0; lives < 4; lives++) {
		struct era *era = core_open_with(&config);
		struct answer answer = answer_live(era, env.db, life->era);
		expect_covered(&answer, blocks, NR_SOME + (lives > 0));
		expect(answer.feared != NULL);
		expect(nr_feared == 0 || bm_count(answer.feared) == nr_feared); /* none is forgotten, none is added */
		nr_feared = bm_count(answer.feared);
		answer_free(&answer);
		if (later > 0) {
			answer = answer_live(era, env.db, later);
			expect_exact(&answer, &blocks[NR_SOME], 1);
			answer_free(&answer);
		}
		/* An era of its own, ended and digested. */
		later = core_checkpoint(era);
		core_touch(era, 3000, (uint8_t)lives);
		core_checkpoint(era);
		core_close(era);
	}
}
END_TEST

/* The file of an earlier session says nothing of a later one, of the same database though it is. */
START_TEST(test_an_earlier_sessions_file_is_not_believed)
{
	struct core_env env;
	struct life *life = life_new();
	char stale[340], command[1100];
	static const uint64_t early[] = { 40 };
	core_env_init(&env, IMAGE_SIZE);
	snprintf(stale, sizeof(stale), "%s/stale", env.dir);
	struct era_config config = intent_config(&env, EXTENT);
	live(life, &config, early, 1);
	snprintf(command, sizeof(command), "mkdir '%s' && cp -p '%s'/*.session '%s'/", stale, env.run, stale);
	expect_eq(system(command), 0);
	live(life, &config, some_blocks, NR_SOME);
	core_empty_dir(env.run);
	snprintf(command, sizeof(command), "cp -p '%s'/* '%s'/", stale, env.run);
	expect_eq(system(command), 0);
	struct era *era = core_open_with(&config);
	struct answer answer = answer_live(era, env.db, life->era);
	expect_covered(&answer, some_blocks, NR_SOME);
	expect(answer.feared != NULL);
	expect(!has(answer.exact, 40));
	answer_free(&answer);
	core_close(era);
}
END_TEST

/* Intents of sizes that differ, one session after the other, each with its end. */
START_TEST(test_sessions_with_intents_of_other_sizes)
{
	static const uint64_t sizes[] = { 1, 64, 0, 4096, EXTENT };
	struct core_env env;
	struct life *life = life_new();
	uint64_t eras[5];
	core_env_init(&env, IMAGE_SIZE);
	for (unsigned int i = 0; i < 5; i++) {
		struct era_config config = intent_config(&env, sizes[i]);
		uint64_t blocks[2] = { 10 * i, 2000 + i };
		if (_i == 0) { /* an end in order */
			struct era *era = core_open_with(&config);
			life->era = core_era(era);
			core_touch(era, blocks[0], 1);
			core_touch(era, blocks[1], 1);
			core_close(era);
		} else {
			live(life, &config, blocks, 2);
		}
		eras[i] = life->era;
		if (_i == 2)
			core_empty_dir(env.run);
	}
	struct era_config config = intent_config(&env, 8);
	struct era *era = core_open_with(&config);
	for (unsigned int i = 0; i < 5; i++) {
		struct answer answer = answer_live(era, env.db, eras[i]);
		for (unsigned int j = i; j < 5; j++)
			for (unsigned int k = 0; k < 2; k++) {
				uint64_t block = k == 0 ? 10 * j : 2000 + j;
				expect(has(answer.exact, block) || has(answer.feared, block));
			}
		if (_i < 2) {
			expect(answer.feared == NULL);
			expect_eq(bm_count(answer.exact), 2 * (5 - i));
		}
		answer_free(&answer);
	}
	core_close(era);
}
END_TEST

/* --- a run folder that cannot keep the bits --- */

static void expect_said(const struct era_config *config, const char *db, struct life *life)
{
	expect(!life->is_exact_after_kill);
	struct era *era = core_open_with(config);
	struct answer answer = answer_live(era, db, life->era);
	expect_covered(&answer, some_blocks, NR_SOME);
	expect(answer.feared != NULL);
	answer_free(&answer);
	core_close(era);
}

START_TEST(test_a_full_run_folder_is_no_signal_and_is_said)
{
	struct core_env env;
	struct life *life = life_new();
	char filler[340];
	core_private_mounts();
	core_env_init(&env, IMAGE_SIZE);
	core_mount_tmpfs(env.run, "size=64k");
	snprintf(filler, sizeof(filler), "%s/filler", env.run);
	struct era_config config = intent_config(&env, EXTENT);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(&config);
		life->era = core_era(era);
		if (_i == 1) /* a chunk has its place, and the next era's none */
			core_touch(era, some_blocks[0], 1);
		core_fill(filler);
		for (unsigned int i = 0; i < NR_SOME; i++)
			core_touch(era, some_blocks[i], 1);
		if (_i == 1) {
			expect(core_status(era).is_exact_after_kill);
			life->era = core_checkpoint(era);
			core_fill(filler); /* what the era before has left free */
			for (unsigned int i = 0; i < NR_SOME; i++)
				core_touch(era, some_blocks[i], 1);
		}
		life->is_exact_after_kill = core_status(era).is_exact_after_kill;
		life_wait_for_kill(life);
	}
	life_kill(life, pid);
	expect_eq(unlink(filler), 0);
	expect_said(&config, env.db, life);
}
END_TEST

static char disk_folder[64];

/* A folder that is on a disk. It is made and removed in the process that is not forked: it goes also where the test fails. */
static void disk_setup(void)
{
	static const char *const candidates[] = { "/var/tmp", "/tmp", "." };
	struct statfs fs;
	for (unsigned int i = 0; i < 3; i++) {
		if (statfs(candidates[i], &fs) < 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
			continue;
		snprintf(disk_folder, sizeof(disk_folder), "%s/era-test-run-XXXXXX", candidates[i]);
		expect(mkdtemp(disk_folder) != NULL);
		return;
	}
	expect_msg(false, "no folder that is not in memory");
}

static void disk_teardown(void)
{
	core_empty_dir(disk_folder);
	expect_eq(rmdir(disk_folder), 0);
}

START_TEST(test_a_run_folder_on_a_disk_keeps_no_bits_and_that_is_said)
{
	struct core_env env;
	struct life *life = life_new();
	core_env_init(&env, IMAGE_SIZE);
	snprintf(env.run, sizeof(env.run), "%s", disk_folder);
	struct era_config config = intent_config(&env, EXTENT);
	live(life, &config, some_blocks, NR_SOME);
	expect_said(&config, env.db, life);
}
END_TEST

/* --- bounds --- */

struct bounded {
	struct era *era;
	uint64_t max;
	atomic_bool stop;
};

static void *watch_bound(void *arg)
{
	struct bounded *b = arg;
	while (!atomic_load(&b->stop)) {
		uint64_t nr = core_status(b->era).open_intents;
		expect_msg(nr <= b->max, "%llu intents are open, of %llu", (unsigned long long)nr,
			(unsigned long long)b->max);
	}
	return NULL;
}

/* Whatever is written, and however often eras are switched, no more are open; what finds no room gets exact marks. */
START_TEST(test_intent_max_is_never_exceeded)
{
	static const uint64_t max_blocks[] = { 0, EXTENT - 1, EXTENT, 7 * EXTENT };
	struct core_env env;
	struct bounded b = { .max = max_blocks[_i] / EXTENT };
	pthread_t thread;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	config.intent_max_bytes = max_blocks[_i] * CORE_BLOCK;
	b.era = core_open_with(&config);
	expect_eq(core_status(b.era).intent_max_bytes, b.max * EXTENT * CORE_BLOCK);
	pthread_create(&thread, NULL, watch_bound, &b);
	uint64_t eras[3], state = 1;
	static uint64_t blocks[3][60];
	for (unsigned int round = 0; round < 3; round++) {
		eras[round] = round == 0 ? core_era(b.era) : core_checkpoint(b.era);
		for (unsigned int i = 0; i < 60; i++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			blocks[round][i] = (state >> 33) % NR_BLOCKS;
			core_touch(b.era, blocks[round][i], 1);
		}
	}
	atomic_store(&b.stop, true);
	pthread_join(thread, NULL);
	if (b.max == 0)
		expect_eq(core_status(b.era).open_intents, 0);
	struct answer blind = answer_of(env.db, 1, UINT64_MAX);
	expect_le(blind.feared ? bm_count(blind.feared) : 0, b.max * EXTENT);
	for (unsigned int round = 0; round < 3; round++) {
		struct answer answer = answer_live(b.era, env.db, eras[round]);
		expect(answer.feared == NULL);
		for (unsigned int i = 0; i < 60; i++) {
			expect(has(answer.exact, blocks[round][i]));
			expect(has(blind.exact, blocks[round][i]) || has(blind.feared, blocks[round][i]));
		}
		answer_free(&answer);
	}
	answer_free(&blind);
	core_close(b.era);
}
END_TEST

/* More extents than are worth an intent each: marks, in one commit. */
START_TEST(test_a_great_request_is_marked_exactly)
{
	struct core_env env;
	struct life *life = life_new();
	uint64_t blocks[EXTENT * 20];
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	for (unsigned int i = 0; i < EXTENT * 20; i++)
		blocks[i] = 7 + i;
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(&config);
		expect_eq(core_punch(era, 7 * CORE_BLOCK, sizeof(blocks) / sizeof(blocks[0]) * CORE_BLOCK), 0);
		struct era_status status = core_status(era);
		expect_eq(status.committed_requests, 1);
		expect_le(status.commits, 2); /* one may be of the intents ahead of what looks like a stream */
		life->era = status.current_era;
		life_wait_for_kill(life);
	}
	life_kill(life, pid);
	core_empty_dir(env.run);
	struct era *era = core_open_with(&config);
	struct answer answer = answer_live(era, env.db, life->era);
	expect_covered(&answer, blocks, EXTENT * 20);
	for (unsigned int i = 0; i < EXTENT * 20; i++)
		expect_msg(has(answer.exact, blocks[i]), "block %llu is merely feared", (unsigned long long)blocks[i]);
	answer_free(&answer);
	core_close(era);
}
END_TEST

/* --- the end of an intent --- */

/* _i == 0: all blocks of an extent are written; 1: nobody writes there any more. Either way the marks are made, and who writes
 * there later is covered again, in this era and in another. */
START_TEST(test_an_intent_of_no_use_goes)
{
	struct core_env env;
	uint64_t nr = _i == 0 ? EXTENT : 1;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	struct era *era = core_open_with(&config);
	uint64_t first = core_era(era), now = first;
	for (unsigned int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < nr; i++)
			core_touch(era, 8 + i, 1);
		expect_gt(core_status(era).open_intents, 0);
		await_open_intents(era, 0);
		struct answer answer = answer_of(env.db, now, UINT64_MAX); /* the database alone knows */
		expect_exact(&answer, (const uint64_t[]){ 8, 9, 10, 11 }, (unsigned int)nr);
		answer_free(&answer);
		/* Once more, the same and a neighbour. */
		core_touch(era, 8, 2);
		core_touch(era, 8 + EXTENT - 1, 2);
		expect(core_has(env.db, now, 8) && core_has(env.db, now, 8 + EXTENT - 1));
		now = core_checkpoint(era);
		expect(!core_has(env.db, now, 8));
		if (round == 0)
			await_open_intents(era, 0); /* what was hot was taken along */
	}
	core_close(era);
}
END_TEST

/* --- who may be trusted --- */

static int fail_flush(struct core_fault *fault)
{
	return atomic_load((atomic_bool *)fault->arg) ? -EIO : img_flush(fault->real);
}

START_TEST(test_nobody_vouches_for_intents_that_are_not_his)
{
	struct core_env env;
	struct life *life = life_new();
	struct err err = ERR_INIT;
	atomic_bool fails = false;
	uint64_t from = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	live(life, &config, some_blocks, NR_SOME);
	config.read_only = true;
	struct era *era = core_open_with(&config);
	expect_eq(era_settle(era, &from), 0);
	expect(from == UINT64_MAX);
	struct answer answer = answer_live(era, env.db, life->era);
	expect_covered(&answer, some_blocks, NR_SOME);
	expect(answer.feared != NULL);
	answer_free(&answer);
	core_close(era);

	config.read_only = false;
	struct core_fault *fault = core_fault_new(env.image);
	fault->arg = &fails;
	fault->on_flush = fail_flush;
	config.image = &fault->img;
	era = core_open_with(&config);
	uint64_t now = core_era(era);
	expect_eq(era_settle(era, &from), 0);
	expect_eq(from, now);
	core_touch(era, 77, 1);
	atomic_store(&fails, true);
	expect_eq(core_fsync(era), -EIO);
	expect_eq(era_settle(era, &from), 0);
	expect(from == UINT64_MAX);
	expect(core_has(env.db, now, 77));
	expect_lt(era_close(era, &err), 0);
}
END_TEST

/* A failed session whose bits are lost: all that its intents stand for counts in the era of the recovery as well, and goes on
 * to, also when that era has ended. */
START_TEST(test_feared_blocks_of_a_failed_session_are_in_the_era_of_its_recovery)
{
	struct core_env env;
	struct life *life = life_new();
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	pid_t pid = core_fork();
	if (pid == 0) {
		atomic_bool fails = false;
		struct core_fault *fault = core_fault_new(env.image);
		fault->arg = &fails;
		fault->on_flush = fail_flush;
		config.image = &fault->img;
		struct era *era = core_open_with(&config);
		for (unsigned int i = 0; i < NR_SOME; i++)
			core_touch(era, some_blocks[i], 1);
		atomic_store(&fails, true);
		expect_eq(core_fsync(era), -EIO);
		life_wait_for_kill(life);
	}
	life_kill(life, pid);
	core_empty_dir(env.run);
	struct era *era = core_open_with(&config);
	uint64_t now = core_era(era);
	for (unsigned int round = 0; round < 3; round++) {
		struct answer answer = answer_live(era, env.db, now);
		for (unsigned int i = 0; i < NR_SOME; i++)
			expect_msg(has(answer.exact, some_blocks[i]) || has(answer.feared, some_blocks[i]),
				"MISSING: block %llu, round %u", (unsigned long long)some_blocks[i], round);
		answer_free(&answer);
		if (round == 0)
			core_checkpoint(era);
		if (round == 1) {
			core_close(era);
			era = core_open_with(&config);
		}
	}
	core_close(era);
}
END_TEST

/* --- freeze, thaw, takeover --- */

static uint64_t feared_eras(const char *db)
{
	struct meta_reader *reader;
	struct meta_stats stats;
	struct err err = ERR_INIT;
	expect_eq(meta_reader_open(db, &reader, &err), 0);
	expect_eq(meta_reader_stats(reader, &stats, &err), 0);
	meta_reader_close(reader);
	return stats.feared_eras;
}

START_TEST(test_a_freeze_leaves_no_intent_and_a_thaw_takes_up_what_was_hot)
{
	struct core_env env;
	uint64_t from = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = intent_config(&env, EXTENT);
	struct era *era = core_open_with(&config);
	uint64_t first = core_era(era);
	for (unsigned int i = 0; i < NR_SOME; i++)
		core_touch(era, some_blocks[i], 1);
	expect_gt(feared_eras(env.db), 0);
	uint64_t frozen = core_freeze(era, 0);
	expect_eq(feared_eras(env.db), 0);
	struct answer answer = answer_of(env.db, first, UINT64_MAX);
	expect_exact(&answer, some_blocks, NR_SOME);
	answer_free(&answer);
	expect_eq(core_status(era).open_intents, 0);
	expect_eq(era_settle(era, &from), 0);
	expect(from == UINT64_MAX);

	if (_i == 0) {
		uint64_t now = core_thaw(era, frozen);
		uint64_t commits = core_status(era).commits;
		expect_gt(core_status(era).open_intents, 0);
		core_touch(era, some_blocks[3], 2);
		expect_eq(core_status(era).commits, commits); /* covered by the commit of the thaw */
		answer = answer_live(era, env.db, now);
		expect_exact(&answer, &some_blocks[3], 1);
		answer_free(&answer);
	} else {
		config.takeover = true;
		struct era *heir = core_open_with(&config);
		core_touch(heir, 9, 3);
		/* Whatever the old one says, before it has noticed and after: it does not hide what the heir has written. */
		answer = answer_live(era, env.db, core_era(heir));
		expect(has(answer.exact, 9) || has(answer.feared, 9));
		answer_free(&answer);
		core_close(heir);
	}
	struct err err = ERR_INIT;
	expect(_i == 1 || era_close(era, &err) == 0);
	if (_i == 1)
		era_close(era, &err);
}
END_TEST

/* --- no space --- */

START_TEST(test_no_space_for_intents)
{
	struct core_env env;
	struct life *life = life_new();
	char where[280], filler[320];
	core_private_mounts();
	core_env_init(&env, IMAGE_SIZE);
	snprintf(where, sizeof(where), "%s/small", env.dir);
	expect_eq(mkdir(where, 0700), 0);
	core_mount_tmpfs(where, "size=2m");
	snprintf(filler, sizeof(filler), "%s/filler", where);
	snprintf(env.db, sizeof(env.db), "%s/db", where);
	struct era_config config = intent_config(&env, EXTENT);
	pid_t pid = core_fork();
	if (pid == 0) {
		uint64_t from, block = 0;
		uint8_t byte = 1;
		int error = 0;
		struct era *era = core_open_with(&config);
		life->era = core_era(era);
		/* An intent that is open stays of use, though neither it nor its marks can be written any more. */
		core_touch(era, 2048, 1);
		life_note(life, 2048);
		core_fill(filler);
		for (block = 0; error == 0 && block < NR_BLOCKS / 2; block += EXTENT) {
			error = core_write(era, block * CORE_BLOCK, &byte, 1);
			if (error == 0)
				life_note(life, block);
		}
		expect_eq(error, -ENOSPC);
		block -= EXTENT;
		expect_eq(core_image_byte(env.image, block * CORE_BLOCK), 0);
		core_touch(era, 2049, 1);
		life_note(life, 2049);
		expect_eq(era_settle(era, &from), -ENOSPC);
		expect(from == UINT64_MAX);
		expect_eq(core_status(era).state, ERA_RUNNING);
		expect_gt(core_status(era).open_intents, 0);
		if (_i == 1) {
			expect_eq(unlink(filler), 0);
			core_touch(era, block, 1);
			life_note(life, block);
			await_open_intents(era, 0);
			core_touch(era, 2050, 1);
			life_note(life, 2050);
		}
		life_wait_for_kill(life);
	}
	life_kill(life, pid);
	unlink(filler);
	struct era *era = core_open_with(&config);
	struct answer answer = answer_live(era, env.db, life->era);
	expect_exact(&answer, life->blocks, atomic_load(&life->nr));
	answer_free(&answer);
	core_close(era);
}
END_TEST

/* --- the protocol, step by step --- */

/* Where a writer gets the memory of its bit: between its first look at `armed` and its second. */
static struct {
	struct core_hold hold;
	atomic_bool armed;
} first_bit;

int __real_fallocate64(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len);

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len)
{
	if (mode == 0 && atomic_exchange(&first_bit.armed, false))
		core_hold_here(&first_bit.hold);
	return __real_fallocate64(fd, mode, offset, len);
}

/* An image whose power can be cut: then after has what the disk has, and all that was written to the image. */
struct cut {
	struct core_env env;
	struct core_env after;
	char durable[340];
	struct begin_hold begin; /* BEGINs of any thread */
	atomic_bool begin_armed;
	struct era_config config;
	struct era *era;
	struct timespec
		mtime; /* the image's, when it was opened: on the same boot a later one would need its session */
};

static void hold_any_begin(struct vfs_fault *vfs, void *arg)
{
	struct cut *cut = arg;
	if (atomic_exchange(&cut->begin_armed, false))
		core_hold_here(&cut->begin.hold);
}

static void cut_init(struct cut *cut)
{
	memset(cut, 0, sizeof(*cut));
	core_private_mounts();
	core_env_init(&cut->env, IMAGE_SIZE);
	core_env_init(&cut->after, IMAGE_SIZE);
	core_mount_tmpfs(cut->env.run, "size=4m"); /* so that bits have their place in it on any machine */
	snprintf(cut->durable, sizeof(cut->durable), "%s/durable", cut->env.dir);
	core_hold_init(&cut->begin.hold);
	core_hold_init(&first_bit.hold);
	cut->config = intent_config(&cut->env, EXTENT);
	core_close(core_open_with(&cut->config));
	struct vfs_fault *vfs =
		vfs_fault_new(cut->env.db, (struct vfs_hooks){ .on_write_lock = hold_any_begin, .arg = cut });
	vfs_fault_keep_durable(vfs, cut->durable);
	cut->mtime = core_mtime(cut->env.image);
	cut->era = core_open_with(&cut->config);
	core_await_digest(cut->era, 1);
}

/* What a power loss leaves: opened, without a session. */
static struct era *cut_power(struct cut *cut)
{
	struct era_config config = intent_config(&cut->after, EXTENT);
	core_copy_db(cut->durable, cut->after.db);
	core_copy_file(cut->env.image, cut->after.image);
	core_put_mtime(cut->after.image, cut->mtime);
	return core_open_with(&config);
}

/* A: looks at `armed` and sets its bit; in between the intent goes. It must look once more, and wait. */
START_TEST(test_3_a_writer_looks_again_after_its_bit_is_set)
{
	struct cut cut;
	struct core_req req;
	uint8_t byte = 1;
	cut_init(&cut);
	uint64_t now = core_era(cut.era);
	atomic_store(&first_bit.armed, true);
	core_req_start(&req, cut.era, 1, &byte);
	core_hold_wait(&first_bit.hold);
	await_open_intents(cut.era, 0); /* nobody has written there, as far as anybody knows */
	expect_eq(core_image_byte(cut.env.image, CORE_BLOCK), 0);
	core_hold_release(&first_bit.hold);
	expect_eq(core_req_end(&req), 0);
	struct era *after = cut_power(&cut);
	expect_msg(core_has(cut.after.db, now, 1), "MISSING: after a power loss");
	core_close(after);
	expect_msg(core_has(cut.env.db, now, 1), "MISSING: live");
	core_close(cut.era);
}
END_TEST

/* A bit is set by who then finds its extent no longer armed, and gives up. Collected without an intent behind it, by a commit
 * that is not durable, it would let a second writer pass. */
START_TEST(test_2_a_bit_without_an_intent_lets_nobody_pass)
{
	struct cut cut;
	struct core_req req;
	uint8_t byte = 1;
	cut_init(&cut);
	uint64_t now = core_era(cut.era);
	atomic_store(&first_bit.armed, true);
	core_req_start(&req, cut.era, 1, &byte);
	core_hold_wait(&first_bit.hold);
	expect(!era_cancel(cut.era, &req.req)); /* too late: it is being tried */
	await_open_intents(cut.era, 0);
	core_hold_release(&first_bit.hold);
	expect_eq(core_req_end(&req), -EINTR);
	expect_eq(core_image_byte(cut.env.image, CORE_BLOCK), 0);

	core_touch(cut.era, 3 * EXTENT, 1); /* of the same chunk of bits */
	expect_eq(core_status(cut.era).open_intents, 1);
	expect(core_has(cut.env.db, now, 3 * EXTENT)); /* its bit was collected */
	core_touch(cut.era, 1, 2);
	struct era *after = cut_power(&cut);
	expect_msg(core_has(cut.after.db, now, 1), "MISSING: after a power loss");
	expect_msg(core_has(cut.after.db, now, 3 * EXTENT), "MISSING: after a power loss");
	core_close(after);
	core_close(cut.era);
}
END_TEST

/* An intent is being taken back, its bits are collected, and the transaction begins: who comes now must wait. */
START_TEST(test_2_nobody_passes_between_collecting_and_the_end_of_the_intent)
{
	struct cut cut;
	struct core_req req;
	uint8_t byte = 1;
	cut_init(&cut);
	uint64_t now = core_era(cut.era);
	core_touch(cut.era, 0, 1);
	expect(core_has(cut.env.db, now, 0)); /* nothing is left to commit but the end of the intent */
	atomic_store(&cut.begin_armed, true);
	core_hold_wait(&cut.begin.hold);
	core_req_start(&req, cut.era, 1, &byte);
	expect_msg(core_image_byte(cut.env.image, CORE_BLOCK) == 0, "let through by an intent that is going");
	core_hold_release(&cut.begin.hold);
	expect_eq(core_req_end(&req), 0);
	struct era *after = cut_power(&cut);
	expect_msg(core_has(cut.after.db, now, 1), "MISSING: after a power loss");
	core_close(after);
	expect_msg(core_has(cut.env.db, now, 1), "MISSING: live");
	core_close(cut.era);
}
END_TEST

/* --- all of it at random --- */

#define NR_WRITERS 3
#define NR_LOGGED 40000

struct storm {
	struct cut cut;
	atomic_bool stop;
	atomic_uint nr; /* entries of the log that are whole, or are about to be */
	struct {
		atomic_bool is_whole; /* the write was replied to */
		uint32_t block;
		uint64_t era; /* at most that of the write */
	} log[NR_LOGGED];
};

static void *storm_write(void *arg)
{
	struct storm *s = arg;
	for (uint64_t state = (uint64_t)(uintptr_t)&state; !atomic_load(&s->stop);) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		unsigned int at = atomic_fetch_add(&s->nr, 1);
		if (at >= NR_LOGGED)
			break;
		s->log[at].block = (uint32_t)(state >> 40) % 400 * (state >> 39 & 1 ? 10 : 1);
		s->log[at].era = core_era(s->cut.era);
		core_touch(s->cut.era, s->log[at].block, 1);
		atomic_store(&s->log[at].is_whole, true);
	}
	return NULL;
}

static void *storm_switch(void *arg)
{
	struct storm *s = arg;
	while (!atomic_load(&s->stop) && atomic_load(&s->nr) < NR_LOGGED)
		core_checkpoint(s->cut.era);
	return NULL;
}

static void *storm_settle(void *arg)
{
	struct storm *s = arg;
	while (!atomic_load(&s->stop) && atomic_load(&s->nr) < NR_LOGGED) {
		uint64_t from;
		expect_eq(era_settle(s->cut.era, &from), 0);
	}
	return NULL;
}

static void storm_check(const struct storm *s, const char *db, unsigned int nr, const bool *was_whole, const char *when)
{
	unsigned int nr_checked = 0;
	uint64_t newest = 0;
	for (unsigned int i = 0; i < nr; i++)
		newest = s->log[i].era > newest ? s->log[i].era : newest;
	for (uint64_t era_nr = 1; era_nr <= newest; era_nr++) {
		struct core_since since;
		if (core_since_try(db, era_nr, &since) < 0) /* was not durable yet when it was cut */
			continue;
		for (unsigned int i = 0; i < nr; i++) {
			if (!was_whole[i] || s->log[i].era < era_nr)
				continue;
			nr_checked++;
			expect_msg(core_since_has(&since, s->log[i].block), "MISSING: block %u since %llu, %s",
				s->log[i].block, (unsigned long long)era_nr, when);
		}
		core_since_free(&since);
	}
	expect_gt(nr_checked, 0);
}

/* Writers, checkpoints, settling, few intents that come and go: the disk's state of one instant, then the live one. */
START_TEST(test_4_a_storm)
{
	static struct storm s;
	static bool was_whole[NR_LOGGED];
	pthread_t threads[NR_WRITERS + 2];
	cut_init(&s.cut);
	core_close(s.cut.era);
	s.cut.config.intent_max_bytes = (_i == 0 ? 16 : 4000) * EXTENT * CORE_BLOCK;
	s.cut.era = core_open_with(&s.cut.config);
	for (unsigned int i = 0; i < NR_WRITERS + 2; i++)
		pthread_create(&threads[i], NULL,
			i < NR_WRITERS    ? storm_write
			: i == NR_WRITERS ? storm_switch
					  : storm_settle,
			&s);
	while (atomic_load(&s.nr) < 2000)
		sched_yield();
	/* Who holds a BEGIN back holds all commits: the disk stands still. */
	atomic_store(&s.cut.begin_armed, true);
	core_hold_wait(&s.cut.begin.hold);
	unsigned int nr = atomic_load(&s.nr);
	nr = nr < NR_LOGGED ? nr : NR_LOGGED;
	for (unsigned int i = 0; i < nr; i++)
		was_whole[i] = atomic_load(&s.log[i].is_whole);
	struct core_env after = s.cut.after;
	core_copy_db(s.cut.durable, after.db);
	core_copy_file(s.cut.env.image, after.image);
	core_put_mtime(after.image, s.cut.mtime);
	core_hold_release(&s.cut.begin.hold);
	while (atomic_load(&s.nr) < nr + 500 && atomic_load(&s.nr) < NR_LOGGED)
		sched_yield();
	atomic_store(&s.stop, true);
	for (unsigned int i = 0; i < NR_WRITERS + 2; i++)
		pthread_join(threads[i], NULL);

	struct era_config config = intent_config(&after, EXTENT);
	struct era *era = core_open_with(&config);
	storm_check(&s, after.db, nr, was_whole, "after a power loss");
	core_close(era);
	unsigned int all = atomic_load(&s.nr) < NR_LOGGED ? atomic_load(&s.nr) : NR_LOGGED;
	for (unsigned int i = 0; i < all; i++)
		was_whole[i] = atomic_load(&s.log[i].is_whole);
	storm_check(&s, s.cut.env.db, all, was_whole, "live");
	core_close(s.cut.era);
	storm_check(&s, s.cut.env.db, all, was_whole, "after the stop");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_intents");
	TCase *tcase = tcase_create("intents");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_a_kill_leaves_the_answer_exact);
	tcase_add_loop_test(tcase, test_a_kill_in_mid_load_leaves_the_answer_exact, 0, 2);
	tcase_add_loop_test(tcase, test_a_switch_that_is_half_done, 0, 4);
	tcase_add_test(tcase, test_a_power_loss_is_covered_and_said_for_ever);
	tcase_add_test(tcase, test_an_earlier_sessions_file_is_not_believed);
	tcase_add_loop_test(tcase, test_sessions_with_intents_of_other_sizes, 0, 3);
	tcase_add_loop_test(tcase, test_a_full_run_folder_is_no_signal_and_is_said, 0, 2);
	tcase_add_loop_test(tcase, test_intent_max_is_never_exceeded, 0, 4);
	tcase_add_test(tcase, test_a_great_request_is_marked_exactly);
	tcase_add_loop_test(tcase, test_an_intent_of_no_use_goes, 0, 2);
	tcase_add_test(tcase, test_nobody_vouches_for_intents_that_are_not_his);
	tcase_add_test(tcase, test_feared_blocks_of_a_failed_session_are_in_the_era_of_its_recovery);
	tcase_add_loop_test(tcase, test_a_freeze_leaves_no_intent_and_a_thaw_takes_up_what_was_hot, 0, 2);
	tcase_add_loop_test(tcase, test_no_space_for_intents, 0, 2);
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("disk");
	tcase_set_timeout(tcase, 120);
	tcase_add_unchecked_fixture(tcase, disk_setup, disk_teardown);
	tcase_add_test(tcase, test_a_run_folder_on_a_disk_keeps_no_bits_and_that_is_said);
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("protocol");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_3_a_writer_looks_again_after_its_bit_is_set);
	tcase_add_test(tcase, test_2_a_bit_without_an_intent_lets_nobody_pass);
	tcase_add_test(tcase, test_2_nobody_passes_between_collecting_and_the_end_of_the_intent);
	tcase_add_loop_test(tcase, test_4_a_storm, 0, 2);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
