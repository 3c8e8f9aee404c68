/* SPDX-License-Identifier: MIT */
/* Faults of the image and of the space for the metadata; and the order in which things reach them. */
#include "core_util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 64

struct setup {
	struct core_env env;
	struct era_config config;
	struct core_fault *fault;
	struct era *era;
};

/* What the hooks share with the test, by core_fault.arg. */
struct watch {
	struct core_env *env;
	int pwrite_error; /* 0: short */
	bool pwrite_is_short;
	uint64_t fail_block;
	atomic_bool flush_fails;
	atomic_uint nr_checked;
	atomic_uint nr_flushes_before;
	_Atomic uint64_t shown_in_flush; /* durable_era as a reader saw it from inside of flush */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int nr_in_flush; /* under lock: calls so far */
};

static void setup_with(struct setup *s, struct watch *watch)
{
	core_env_init(&s->env, NR_BLOCKS * CORE_BLOCK);
	*watch = (struct watch){ .env = &s->env };
	pthread_mutex_init(&watch->lock, NULL);
	pthread_cond_init(&watch->changed, NULL);
	s->config = core_config(&s->env);
	s->fault = core_fault_new(s->env.image);
	s->fault->arg = watch;
	s->config.image = &s->fault->img;
	s->era = core_open_with(&s->config);
}

static struct watch *watch_of(struct core_fault *fault)
{
	return fault->arg;
}

static ssize_t failing_pwrite(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	struct watch *watch = watch_of(fault);
	if (offset / CORE_BLOCK != watch->fail_block)
		return img_pwrite(fault->real, buf, len, offset);
	return watch->pwrite_is_short ? img_pwrite(fault->real, buf, len / 2, offset) : watch->pwrite_error;
}

START_TEST(test_failed_write_is_told_and_the_era_goes_on)
{
	static const int errors[] = { -EIO, -ENOSPC, 0 };
	struct setup s;
	struct watch watch;
	setup_with(&s, &watch);
	watch.pwrite_error = errors[_i];
	watch.pwrite_is_short = errors[_i] == 0;
	watch.fail_block = 5;
	s.fault->on_pwrite = failing_pwrite;
	uint8_t data[100];
	memset(data, 1, sizeof(data));
	uint64_t era = core_era(s.era);
	expect_eq(core_write(s.era, 5 * CORE_BLOCK, data, sizeof(data)), errors[_i] != 0 ? errors[_i] : -EIO);
	if (watch.pwrite_is_short)
		expect(core_has(s.env.db, era, 5)); /* some of it landed */
	expect_eq(core_write(s.era, 6 * CORE_BLOCK, data, sizeof(data)), 0);
	struct era_status status;
	era_get_status(s.era, &status);
	expect_eq(status.state, ERA_RUNNING);
	expect_eq(core_checkpoint(s.era), era + 1);
	watch.fail_block = UINT64_MAX;
	expect_eq(core_write(s.era, 5 * CORE_BLOCK, data, sizeof(data)), 0);
	expect(core_has(s.env.db, era + 1, 5));
	expect(core_has(s.env.db, era, 6));
	expect(!core_has(s.env.db, era + 1, 6));
	core_close(s.era);
	expect(core_has(s.env.db, era + 1, 5));
}
END_TEST

static int failing_flush(struct core_fault *fault)
{
	/* Once: the kernel marks the pages clean, a second fsync returns 0. */
	return atomic_exchange(&watch_of(fault)->flush_fails, false) ? -EIO : img_flush(fault->real);
}

/* Writes, fsync, labels and checkpoints fail for good; reads work; no new era is shown. */
static void expect_failed(struct setup *s, uint64_t era)
{
	uint8_t byte = 1;
	struct err err = ERR_INIT;
	uint64_t now = 0;
	struct era_status status;
	era_get_status(s->era, &status);
	expect_eq(status.state, ERA_FAILED);
	expect(status.failure[0] != '\0');
	expect_eq(status.current_era, era);
	uint8_t before = core_image_byte(s->env.image, 1 * CORE_BLOCK);
	for (int i = 0; i < 3; i++) {
		expect_eq(core_write(s->era, 1 * CORE_BLOCK, &byte, 1), -EIO);
		expect_eq(core_write(s->era, 40 * CORE_BLOCK, &byte, 1), -EIO); /* not marked yet */
		expect_eq(core_fsync(s->era), -EIO);
		expect_eq(core_punch(s->era, 0, CORE_BLOCK), -EIO);
		expect_lt(era_checkpoint(s->era, NULL, &now, &err), 0);
		expect(err.text[0] != '\0');
	}
	expect_eq(core_image_byte(s->env.image, 1 * CORE_BLOCK), before);
	expect_eq(core_image_byte(s->env.image, 40 * CORE_BLOCK), 0);
	expect_eq(img_pread(era_image(s->era), &byte, 1, 0), 1);
	struct core_since since;
	expect_eq(core_since_try(s->env.db, era + 1, &since), -ERANGE);
}

/* The next start: cache dropped before anything was read, the blocks of the failed eras in the new one too. */
static void expect_recovered(struct setup *s, uint64_t era, const uint64_t *blocks, unsigned int nr)
{
	s->fault = core_fault_new(s->env.image);
	s->config.image = &s->fault->img;
	s->era = core_open_with(&s->config);
	expect_gt(atomic_load(&s->fault->drops_before_read), 0);
	uint64_t now = core_era(s->era);
	expect_gt(now, era);
	struct core_since since = core_since(s->env.db, now);
	for (unsigned int i = 0; i < nr; i++)
		expect_msg(core_since_has(&since, blocks[i]), "MISSING: block %llu of the failed era",
			(unsigned long long)blocks[i]);
	core_since_free(&since);
	core_touch(s->era, 1, 7);
	expect_eq(core_fsync(s->era), 0);
	expect_eq(core_checkpoint(s->era), now + 1);
	core_close(s->era);
}

START_TEST(test_failed_fsync_fails_for_ever_and_marks_the_next_era)
{
	struct setup s;
	struct watch watch;
	struct err err = ERR_INIT;
	setup_with(&s, &watch);
	s.fault->on_flush = failing_flush;
	core_touch(s.era, 9, 1);
	uint64_t era = core_checkpoint(s.era);
	core_touch(s.era, 1, 1);
	core_touch(s.era, 2, 1);
	atomic_store(&watch.flush_fails, true);
	expect_eq(core_fsync(s.era), -EIO);
	expect_failed(&s, era);
	expect_lt(era_close(s.era, &err), 0);
	expect_recovered(&s, era, (uint64_t[]){ 1, 2 }, 2);
	expect(!core_has(s.env.db, era, 9)); /* its era was durable: nothing to mark anew */
}
END_TEST

START_TEST(test_failed_fsync_of_a_checkpoint_shows_no_era)
{
	struct setup s;
	struct watch watch;
	struct err err = ERR_INIT;
	uint64_t now = 0;
	setup_with(&s, &watch);
	s.fault->on_flush = failing_flush;
	uint64_t era = core_era(s.era);
	core_touch(s.era, 1, 1);
	core_touch(s.era, 63, 1);
	atomic_store(&watch.flush_fails, true);
	expect_eq(era_checkpoint(s.era, "never", &now, &err), -EIO);
	expect_failed(&s, era);
	expect_lt(era_close(s.era, &err), 0);
	expect_recovered(&s, era, (uint64_t[]){ 1, 63 }, 2);
}
END_TEST

START_TEST(test_failed_fsync_then_kill)
{
	struct setup s;
	struct watch watch;
	core_env_init(&s.env, NR_BLOCKS * CORE_BLOCK);
	s.config = core_config(&s.env);
	uint64_t era = 1;
	pid_t pid = core_fork();
	if (pid == 0) {
		watch = (struct watch){ .env = &s.env };
		s.fault = core_fault_new(s.env.image);
		s.fault->arg = &watch;
		s.fault->on_flush = failing_flush;
		s.config.image = &s.fault->img;
		s.era = core_open_with(&s.config);
		core_touch(s.era, 1, 1);
		core_touch(s.era, 30, 1);
		atomic_store(&watch.flush_fails, true);
		expect_eq(core_fsync(s.era), -EIO);
		_exit(0); /* no stop in order */
	}
	core_join(pid);
	expect_recovered(&s, era, (uint64_t[]){ 1, 30 }, 2);
}
END_TEST

START_TEST(test_failed_fsync_at_the_stop)
{
	struct setup s;
	struct watch watch;
	struct err err = ERR_INIT;
	setup_with(&s, &watch);
	s.fault->on_flush = failing_flush;
	uint64_t era = core_era(s.era);
	core_touch(s.era, 1, 1);
	atomic_store(&watch.flush_fails, true);
	expect_lt(era_close(s.era, &err), 0);
	expect(err.text[0] != '\0');
	expect_recovered(&s, era, (uint64_t[]){ 1 }, 1);
}
END_TEST

START_TEST(test_failed_fsync_of_recovery)
{
	struct setup s;
	struct watch watch;
	struct err err = ERR_INIT;
	core_env_init(&s.env, NR_BLOCKS * CORE_BLOCK);
	s.config = core_config(&s.env);
	pid_t pid = core_fork();
	if (pid == 0) {
		s.era = core_open_with(&s.config);
		core_touch(s.era, 1, 1);
		core_touch(s.era, 17, 1);
		_exit(0);
	}
	core_join(pid);
	watch = (struct watch){ .env = &s.env };
	s.fault = core_fault_new(s.env.image);
	s.fault->arg = &watch;
	s.fault->on_flush = failing_flush;
	atomic_store(&watch.flush_fails, true);
	s.config.image = &s.fault->img;
	expect_lt(era_open(&s.config, &s.era, &err), 0);
	expect(err.text[0] != '\0');
	expect_recovered(&s, 1, (uint64_t[]){ 1, 17 }, 2);
}
END_TEST

/* fsync number 1 has the kernel's one report of the error in hand while others run: they see 0. */
static int slow_failing_flush(struct core_fault *fault)
{
	struct watch *watch = watch_of(fault);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	pthread_mutex_lock(&watch->lock);
	unsigned int number = ++watch->nr_in_flush;
	pthread_cond_broadcast(&watch->changed);
	/* Leaves when another is done as well; where the core lets no other in, after a while. */
	if (number == 1)
		while (watch->nr_in_flush < 3 &&
			pthread_cond_timedwait(&watch->changed, &watch->lock, &until) != ETIMEDOUT)
			;
	pthread_mutex_unlock(&watch->lock);
	return number == 1 ? -EIO : 0;
}

static void tell_flush_that_the_other_is_over(struct watch *watch)
{
	pthread_mutex_lock(&watch->lock);
	watch->nr_in_flush = 3;
	pthread_cond_broadcast(&watch->changed);
	pthread_mutex_unlock(&watch->lock);
}

static void wait_in_flush(struct watch *watch)
{
	pthread_mutex_lock(&watch->lock);
	while (watch->nr_in_flush == 0)
		pthread_cond_wait(&watch->changed, &watch->lock);
	pthread_mutex_unlock(&watch->lock);
}

START_TEST(test_an_fsync_error_in_one_thread_is_not_a_zero_for_a_checkpoint_in_another)
{
	struct setup s;
	struct watch watch;
	struct core_req fsync_req;
	struct err err = ERR_INIT;
	uint64_t now = 0;
	setup_with(&s, &watch);
	core_touch(s.era, 1, 1);
	uint64_t era = core_era(s.era);
	s.fault->on_flush = slow_failing_flush;
	core_req_init(&fsync_req, s.era, CORE_FLUSH, 0, 0);
	core_req_submit(&fsync_req);
	wait_in_flush(&watch);
	int error = era_checkpoint(s.era, NULL, &now, &err);
	tell_flush_that_the_other_is_over(&watch);
	expect_eq(core_req_wait(&fsync_req), -EIO);
	expect_msg(error < 0, "era %llu was shown, and the data of era %llu may be lost", (unsigned long long)now,
		(unsigned long long)era);
	expect_failed(&s, era);
	era_close(s.era, &err);
	expect_recovered(&s, era, (uint64_t[]){ 1 }, 1);
}
END_TEST

START_TEST(test_an_fsync_error_in_one_thread_is_not_a_zero_for_an_fsync_in_another)
{
	struct setup s;
	struct watch watch;
	struct core_req first, second;
	struct err err = ERR_INIT;
	setup_with(&s, &watch);
	core_touch(s.era, 1, 1);
	s.fault->on_flush = slow_failing_flush;
	core_req_init(&first, s.era, CORE_FLUSH, 0, 0);
	core_req_init(&second, s.era, CORE_FLUSH, 0, 0);
	core_req_submit(&first);
	wait_in_flush(&watch);
	core_req_submit(&second);
	int error = core_req_wait(&second);
	tell_flush_that_the_other_is_over(&watch);
	expect_eq(core_req_wait(&first), -EIO);
	expect_msg(error == -EIO, "fsync said %d although the data may be lost", error);
	era_close(s.era, &err);
}
END_TEST

/* No byte before the COMMIT that covers it: a reader asked from inside of pwrite knows the block. */
static ssize_t checking_pwrite(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	struct watch *watch = watch_of(fault);
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct bm *blocks;
	expect_eq(meta_reader_open(watch->env->db, &reader, &err), 0);
	uint64_t era = meta_reader_super(reader)->current_era;
	expect_eq(meta_reader_since(reader, era, &blocks, NULL, &err), 0);
	expect_msg(bm_test_range(blocks, offset / CORE_BLOCK, (offset + len - 1) / CORE_BLOCK + 1),
		"written before its mark in era %llu was committed", (unsigned long long)era);
	bm_free(blocks);
	meta_reader_close(reader);
	atomic_fetch_add(&watch->nr_checked, 1);
	return img_pwrite(fault->real, buf, len, offset);
}

struct burst {
	struct era *era;
	unsigned int number;
	pthread_t thread;
};

static void *burst_thread(void *arg)
{
	struct burst *burst = arg;
	uint8_t data[2 * CORE_BLOCK] = { 1 };
	for (unsigned int i = 0; i < 60; i++)
		expect_eq(core_write(burst->era, (i * 7 + burst->number) % (NR_BLOCKS - 2) * CORE_BLOCK + 5, data,
				  sizeof(data)),
			0);
	return NULL;
}

START_TEST(test_no_write_before_the_commit_that_covers_it)
{
	struct setup s;
	struct watch watch;
	struct burst bursts[3];
	setup_with(&s, &watch);
	s.fault->on_pwrite = checking_pwrite;
	for (unsigned int i = 0; i < 3; i++) {
		bursts[i] = (struct burst){ .era = s.era, .number = i };
		pthread_create(&bursts[i].thread, NULL, burst_thread, &bursts[i]);
	}
	for (unsigned int i = 0; i < 10; i++)
		core_checkpoint(s.era);
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(bursts[i].thread, NULL);
	expect_eq(atomic_load(&watch.nr_checked), 180);
	core_close(s.era);
}
END_TEST

static int watching_flush(struct core_fault *fault)
{
	struct watch *watch = watch_of(fault);
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	expect_eq(meta_reader_open(watch->env->db, &reader, &err), 0);
	atomic_store(&watch->shown_in_flush, meta_reader_super(reader)->durable_era);
	meta_reader_close(reader);
	return img_flush(fault->real);
}

START_TEST(test_the_image_is_durable_before_an_era_is_shown)
{
	struct setup s;
	struct watch watch;
	setup_with(&s, &watch);
	s.fault->on_flush = watching_flush;
	for (uint64_t block = 0; block < 20; block++) {
		core_touch(s.era, block, 1);
		unsigned int before = atomic_load(&s.fault->nr_flushes);
		uint64_t era = core_checkpoint(s.era);
		expect_gt(atomic_load(&s.fault->nr_flushes), before);
		expect_lt(atomic_load(&watch.shown_in_flush), era);
	}
	core_close(s.era);
	/* Also the era of a start. */
	uint64_t last = 21;
	s.fault = core_fault_new(s.env.image);
	s.fault->arg = &watch;
	s.fault->on_flush = watching_flush;
	s.config.image = &s.fault->img;
	s.era = core_open_with(&s.config);
	expect_gt(atomic_load(&s.fault->nr_flushes), 0);
	expect_le(atomic_load(&watch.shown_in_flush), last);
	expect_gt(core_era(s.era), atomic_load(&watch.shown_in_flush));
	core_close(s.era);
}
END_TEST

struct full {
	struct core_env env;
	char filler[320];
	struct era_config config;
	struct era *era;
	uint64_t size;
};

/* Metadata alone on a tmpfs of its own; image and run folder elsewhere. */
static void full_init(struct full *f)
{
	char where[280];
	core_private_mounts();
	f->size = UINT64_C(20000) * CORE_BLOCK;
	core_env_init(&f->env, f->size);
	snprintf(where, sizeof(where), "%s/small", f->env.dir);
	expect_eq(mkdir(where, 0700), 0);
	core_mount_tmpfs(where, "size=2m");
	snprintf(f->filler, sizeof(f->filler), "%s/filler", where);
	snprintf(f->env.db, sizeof(f->env.db), "%s/db", where);
	f->config = core_config(&f->env);
}

/* Writes to new blocks until one fails; each must be recorded or leave the image alone. */
static uint64_t write_until_full(struct full *f, uint64_t first)
{
	uint64_t era = core_era(f->era);
	uint8_t byte = 0xee;
	for (uint64_t block = first; block < f->size / CORE_BLOCK; block++) {
		int error = core_write(f->era, block * CORE_BLOCK, &byte, 1);
		if (error == 0) {
			expect(core_has(f->env.db, era, block));
			continue;
		}
		expect_eq(error, -ENOSPC);
		expect_eq(core_image_byte(f->env.image, block * CORE_BLOCK), 0);
		return block;
	}
	expect_msg(false, "the full file system was never felt");
}

START_TEST(test_no_space_for_metadata_fails_the_write_before_the_image_changes)
{
	struct full f;
	struct err err = ERR_INIT;
	full_init(&f);
	f.era = core_open_with(&f.config);
	uint64_t block = 0;
	for (int round = 0; round < 3; round++) {
		uint64_t marked = block;
		core_touch(f.era, marked, 1);
		core_fill(f.filler);
		block = write_until_full(&f, block + 1);
		core_touch(f.era, marked, 2); /* marked already: needs no space */
		uint64_t now = 0, era = core_era(f.era);
		if (era_checkpoint(f.era, NULL, &now, &err) < 0)
			expect_eq(core_era(f.era), era);
		expect_eq(unlink(f.filler), 0);
		core_touch(f.era, block, 3);
		expect(core_has(f.env.db, core_era(f.era), block));
		struct era_status status;
		era_get_status(f.era, &status);
		expect_eq(status.state, ERA_RUNNING);
		core_checkpoint(f.era);
	}
	core_close(f.era);
}
END_TEST

/* The failure could not be written into the database: what memory knows of it must outlive the stop. */
START_TEST(test_failed_fsync_is_remembered_when_the_database_cannot_take_it)
{
	struct full f;
	struct setup s;
	struct watch watch = { .pwrite_error = 0 };
	struct err err = ERR_INIT;
	full_init(&f);
	s.env = f.env;
	s.config = f.config;
	s.fault = core_fault_new(f.env.image);
	s.fault->arg = &watch;
	s.fault->on_flush = failing_flush;
	s.config.image = &s.fault->img;
	f.era = s.era = core_open_with(&s.config);
	core_touch(f.era, 1, 1);
	uint64_t era = core_era(f.era);
	core_fill(f.filler);
	uint64_t full_at = write_until_full(&f, 2);
	atomic_store(&watch.flush_fails, true);
	expect_eq(core_fsync(f.era), -EIO);
	era_close(f.era, &err);
	expect_eq(unlink(f.filler), 0);
	expect_recovered(&s, era, (uint64_t[]){ 1, full_at - 1 }, full_at > 2 ? 2 : 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_fault");
	TCase *tcase = tcase_create("fault");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_failed_write_is_told_and_the_era_goes_on, 0, 3);
	tcase_add_test(tcase, test_failed_fsync_fails_for_ever_and_marks_the_next_era);
	tcase_add_test(tcase, test_failed_fsync_of_a_checkpoint_shows_no_era);
	tcase_add_test(tcase, test_failed_fsync_then_kill);
	tcase_add_test(tcase, test_failed_fsync_at_the_stop);
	tcase_add_test(tcase, test_failed_fsync_of_recovery);
	tcase_add_test(tcase, test_an_fsync_error_in_one_thread_is_not_a_zero_for_a_checkpoint_in_another);
	tcase_add_test(tcase, test_an_fsync_error_in_one_thread_is_not_a_zero_for_an_fsync_in_another);
	tcase_add_test(tcase, test_no_write_before_the_commit_that_covers_it);
	tcase_add_test(tcase, test_the_image_is_durable_before_an_era_is_shown);
	tcase_add_test(tcase, test_no_space_for_metadata_fails_the_write_before_the_image_changes);
	tcase_add_test(tcase, test_failed_fsync_is_remembered_when_the_database_cannot_take_it);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
