/* SPDX-License-Identifier: MIT */
/* Freezes and thaws that fail: of the disk, of the clone, of an image that somebody else writes to. */
#include "core_freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static int failing_flush(struct core_fault *fault)
{
	return atomic_load((atomic_bool *)fault->arg) ? -EIO : img_flush(fault->real);
}

static int failing_clone(struct core_fault *fault, int fd)
{
	return atomic_load((atomic_bool *)fault->arg) ? -EOPNOTSUPP : 0;
}

START_TEST(test_an_fsync_that_fails_in_the_freeze)
{
	struct core_env env;
	struct err err = ERR_INIT, why = ERR_INIT;
	struct core_req req;
	atomic_bool fails = false;
	const uint8_t byte = 9;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &fails;
	image->on_flush = failing_flush;
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	core_touch(era, 1, 1);
	atomic_store(&fails, true);
	expect_eq(era_checkpoint_begin(era, &err), 0);
	core_req_start(&req, era, 2, &byte);
	core_expect_refused(era_freeze_commit(era, 0, -1, &n, &why), &why, -EIO, ERR_EXIT_FAILED);
	expect_eq(core_req_end(&req), -EIO);
	expect_eq(core_state(era), ERA_FAILED);
	expect_eq(core_write(era, 0, &byte, 1), -EIO);
	expect_lt(era_close(era, &err), 0);
	era = core_open(&env);
	expect(core_has(env.db, core_era(era), 1)); /* of a failed era: marked once more */
	core_close(era);
}
END_TEST

START_TEST(test_a_clone_that_fails_ends_no_era)
{
	struct core_env env;
	struct err err = ERR_INIT, why = ERR_INIT;
	atomic_bool fails = true;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &fails;
	image->on_clone = failing_clone;
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	uint64_t now = core_era(era);
	expect_eq(era_checkpoint_begin(era, &err), 0);
	core_expect_refused(era_freeze_commit(era, 0, 0, &n, &why), &why, -EOPNOTSUPP, ERR_EXIT_FAILED);
	expect_eq(core_era(era), now);
	core_runs_on(era, &env);
	atomic_store(&fails, false);
	expect_eq(era_checkpoint_begin(era, &err), 0);
	expect_eq(era_freeze_commit(era, 0, 0, &n, &err), 0);
	core_thaw(era, n);
	core_close(era);
}
END_TEST

/* A disk with so many pages left. */
static void leave_pages(const char *filler, unsigned int nr_pages)
{
	core_fill(filler);
	uint64_t size = core_file_size(filler);
	expect_eq(truncate(filler, (off_t)(size > nr_pages * 4096u ? size - nr_pages * 4096u : 0)), 0);
}

START_TEST(test_no_space_for_the_freeze_or_the_thaw)
{
	struct core_env outer, env;
	struct core_rest rest;
	char filler[340], where[320];
	struct err err = ERR_INIT;
	uint64_t n = 0;
	unsigned int nr_failed = 0;
	core_private_mounts();
	core_env_init(&outer, 1);
	snprintf(where, sizeof(where), "%s", outer.run);
	core_mount_tmpfs(where, "size=4m");
	core_env_init_at(&env, where, IMAGE_SIZE);
	snprintf(filler, sizeof(filler), "%s/filler", where);
	struct era_config config = core_config(&env);
	config.run_dir = outer.dir;
	struct era *era = core_open_with(&config);
	core_await_digest(era, 1);
	core_rest_open(&rest, &env);
	for (unsigned int pages = 0; pages < 24; pages++) {
		core_touch(era, pages, 1);
		expect_eq(era_freeze_prepare(era, &err), 0);
		if (_i == 0)
			leave_pages(filler, pages);
		expect_eq(era_checkpoint_begin(era, &err), 0);
		int error = era_freeze_commit(era, 0, -1, &n, &err);
		if (error < 0) {
			expect_msg(_i == 0 && error == -ENOSPC, "pages %u: %d: %s", pages, error, err.text);
			expect_msg(core_state(era) == ERA_RUNNING, "with %u pages left: %s: %s", pages,
				era_state_name(core_state(era)), err.text);
			nr_failed++;
			unlink(filler);
			core_runs_on(era, &env);
			n = core_freeze(era, 0);
		}
		unlink(filler);
		core_rest_is_whole(&rest, "a freeze");
		core_rest_take(&rest);
		if (_i == 1)
			leave_pages(filler, pages);
		error = era_thaw(era, n, &n, &err);
		if (error < 0) {
			expect_msg(_i == 1 && core_state(era) == ERA_FROZEN, "with %u pages left: %s: %s", pages,
				era_state_name(core_state(era)), err.text);
			core_rest_check(&rest, "a thaw without space");
			nr_failed++;
			unlink(filler);
			core_thaw(era, 0);
		}
		unlink(filler);
	}
	expect_gt(nr_failed, 0); /* else this test says nothing */
	for (uint64_t block = 0; block < 24; block++)
		expect(core_has(env.db, 1, block));
	core_close(era);
}
END_TEST

START_TEST(test_an_image_that_was_changed_while_frozen)
{
	struct core_env env;
	struct core_rest rest;
	struct core_req req;
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	uint64_t n = core_freeze(era, _i);
	core_rest_open(&rest, &env);
	int fd = open(env.image, O_WRONLY | O_CLOEXEC);
	expect_eq(pwrite(fd, "other", 5, 7 * CORE_BLOCK), 5);
	close(fd);
	core_rest_take(&rest);
	core_req_start(&req, era, 20, &byte);
	if (_i == 0) {
		core_thaw_refused(era, n, -ESTALE, ERR_EXIT_FAILED, NULL);
		expect_eq(core_state(era), ERA_FROZEN);
		expect(!core_req_is_over(&req));
		expect_eq(era_close(era, &err), 0);
		expect_eq(core_req_end(&req), -EIO);
	} else { /* the deadline */
		expect_eq(core_req_end(&req), -EIO);
		struct era_status status = core_status(era);
		expect_eq(status.state, ERA_FAILED);
		expect(strstr(status.failure, "deadline") != NULL);
		expect_eq(status.auto_thaws, 0);
		expect_eq(core_write(era, 0, &byte, 1), -EIO);
		core_thaw_refused(era, n, -EIO, ERR_EXIT_FAILED, NULL);
		expect_lt(era_close(era, &err), 0);
	}
	core_rest_check(&rest, "a thaw that was refused, and the stop");
	struct era_config config = core_config(&env);
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

START_TEST(test_an_image_that_was_written_to_beside_us_is_not_frozen)
{
	struct core_env env;
	struct err err = ERR_INIT;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	core_set_mtime(env.image, 10);
	core_expect_refused(era_freeze(era, 0, &n, &err), &err, -ESTALE, ERR_EXIT_FAILED);
	core_runs_on(era, &env);
	era_close(era, &err);
}
END_TEST

/* The first fsync is the freeze's; the one after it is held until the instance is frozen, and fails then. */
struct late_flush {
	struct core_hold first;
	struct core_hold second;
	atomic_uint nr;
};

static int hold_flush(struct core_fault *fault)
{
	struct late_flush *late = fault->arg;
	switch (atomic_fetch_add(&late->nr, 1)) {
	case 1:
		core_hold_here(&late->first);
		return img_flush(fault->real);
	case 2:
		core_hold_here(&late->second);
		return -EIO;
	}
	return img_flush(fault->real);
}

static void *freeze_aside(void *arg)
{
	core_freeze(arg, 0);
	return NULL;
}

START_TEST(test_an_fsync_that_fails_after_the_freeze_leaves_no_write_waiting)
{
	struct core_env env;
	struct core_req flush, req;
	struct late_flush late = { .nr = 0 };
	pthread_t freezer;
	const uint8_t byte = 9;
	core_hold_init(&late.first);
	core_hold_init(&late.second);
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &late;
	image->on_flush = hold_flush; /* the one that is not held is of the open */
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	expect_eq(pthread_create(&freezer, NULL, freeze_aside, era), 0);
	core_hold_wait(&late.first);
	core_req_init(&flush, era, CORE_FLUSH, 0, 0);
	core_req_submit(&flush);
	usleep(100000); /* so that it stands in line; where it does not, it is over without an fsync */
	core_hold_release(&late.first);
	pthread_join(freezer, NULL);
	core_req_start(&req, era, 20, &byte);
	core_hold_release(&late.second);
	if (core_req_end(&flush) < 0) {
		expect_eq(core_req_end(&req), -EIO);
		expect_eq(core_state(era), ERA_FAILED);
		core_thaw_refused(era, 0, -EIO, ERR_EXIT_FAILED, NULL);
		expect_lt(era_close(era, NULL), 0);
	} else {
		core_thaw(era, 0);
		expect_eq(core_req_end(&req), 0);
		core_close(era);
	}
	core_close(core_open(&env));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_freeze_fail");
	TCase *tcase = tcase_create("fail");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_an_fsync_that_fails_in_the_freeze);
	tcase_add_test(tcase, test_a_clone_that_fails_ends_no_era);
	tcase_add_loop_test(tcase, test_no_space_for_the_freeze_or_the_thaw, 0, 2);
	tcase_add_loop_test(tcase, test_an_image_that_was_changed_while_frozen, 0, 2);
	tcase_add_test(tcase, test_an_image_that_was_written_to_beside_us_is_not_frozen);
	tcase_add_test(tcase, test_an_fsync_that_fails_after_the_freeze_leaves_no_write_waiting);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
