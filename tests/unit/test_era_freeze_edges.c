/* SPDX-License-Identifier: MIT */
/* Freezes on an image whose mtimes are whole seconds, and with more writes waiting than an instance that runs lets wait. */
#include "core_freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

/* --- mtimes of whole seconds --- */

/* As a file system that keeps no more of them. */
struct coarse {
	struct img_ops ops;
	const char *path;
	bool dies; /* when its mtime is set; else the next fsync fails */
	atomic_bool fails;
	atomic_uint nr_looks;
};

static ssize_t coarse_pwrite(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	const struct coarse *coarse = fault->arg;
	ssize_t written = img_pwrite(fault->real, buf, len, offset);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = time(NULL) } };
	expect_eq(utimensat(AT_FDCWD, coarse->path, times, 0), 0);
	return written;
}

static int coarse_flush(struct core_fault *fault)
{
	struct coarse *coarse = fault->arg;
	return atomic_load(&coarse->fails) ? -EIO : img_flush(fault->real);
}

static int coarse_stat(struct img *img, struct stat *ret_stat)
{
	struct core_fault *fault = (struct core_fault *)img;
	struct coarse *coarse = fault->arg;
	int error = img_stat(fault->real, ret_stat);
	atomic_fetch_add(&coarse->nr_looks, 1);
	return error;
}

static int coarse_set_mtime(struct img *img, struct timespec mtime)
{
	struct core_fault *fault = (struct core_fault *)img;
	struct coarse *coarse = fault->arg;
	int error = img_set_mtime(fault->real, mtime);
	if (coarse->dies)
		kill(getpid(), SIGKILL);
	atomic_store(&coarse->fails, true);
	return error;
}

/* Its session has seen the mtime of what it wrote to block 1. */
static struct era *coarse_open(struct coarse *coarse, const struct core_env *env)
{
	core_set_mtime(env->image, -100);
	coarse->path = env->image;
	struct core_fault *image = core_fault_new(env->image);
	coarse->ops = *image->img.ops;
	coarse->ops.stat = coarse_stat;
	coarse->ops.set_mtime = coarse_set_mtime;
	image->arg = coarse;
	image->on_pwrite = coarse_pwrite;
	image->on_flush = coarse_flush;
	image->img.ops = &coarse->ops;
	struct era_config config = core_config(env);
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	core_touch(era, 1, 1);
	unsigned int nr_looks = atomic_load(&coarse->nr_looks);
	while (atomic_load(&coarse->nr_looks) < nr_looks + 2)
		usleep(1000);
	return era;
}

/* In the freeze, or in the stop. */
START_TEST(test_a_kill_once_the_mtime_was_set_back)
{
	struct core_env env;
	int status;
	core_env_init(&env, IMAGE_SIZE);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct coarse coarse = { .dies = true };
		uint64_t n;
		struct era *era = coarse_open(&coarse, &env);
		if (_i == 0)
			era_freeze(era, 0, &n, NULL);
		else
			era_close(era, NULL);
		_exit(0);
	}
	expect_eq(waitpid(pid, &status, 0), pid);
	expect_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the mtime was not set back: %#x", status);
	core_close(core_open(&env));
	expect(core_has(env.db, 1, 1));
}
END_TEST

START_TEST(test_an_fsync_that_fails_once_the_mtime_was_set_back)
{
	struct core_env env;
	struct coarse coarse = { .dies = false };
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = coarse_open(&coarse, &env);
	core_expect_refused(era_freeze(era, 0, &n, &err), &err, -EIO, ERR_EXIT_FAILED);
	expect(atomic_load(&coarse.fails)); /* else this test says nothing */
	expect_eq(core_state(era), ERA_FAILED);
	atomic_store(&coarse.fails, false); /* as the kernel: it says so once */
	expect_eq(core_write(era, 0, &byte, 1), -EIO);
	expect_eq(core_fsync(era), -EIO);
	expect_lt(era_close(era, NULL), 0);
	era = core_open(&env);
	expect(core_has(env.db, core_era(era), 1)); /* of a failed era: marked once more */
	core_close(era);
}
END_TEST

/* --- more writes than may wait --- */

/* nr writes to the image, of the bytes 1, 2, 3, ... one beside the other. */
struct crowd {
	struct core_req *reqs;
	uint8_t *bytes;
	unsigned int nr;
};

static struct crowd crowd_new(struct era *era, unsigned int nr)
{
	struct crowd crowd = { .reqs = calloc(nr, sizeof(*crowd.reqs)), .bytes = malloc(nr), .nr = nr };
	expect(crowd.reqs && crowd.bytes);
	for (unsigned int i = 0; i < nr; i++) {
		crowd.bytes[i] = (uint8_t)(i % 255 + 1);
		core_req_init(&crowd.reqs[i], era, CORE_WRITE, i * (IMAGE_SIZE / nr), 1);
		crowd.reqs[i].data = &crowd.bytes[i];
	}
	return crowd;
}

/* All are done, each once and with its own byte. */
static void crowd_end(struct crowd *crowd, const char *image)
{
	for (unsigned int i = 0; i < crowd->nr; i++) {
		expect_eq(core_req_end(&crowd->reqs[i]), 0);
		expect_eq(core_image_byte(image, crowd->reqs[i].req.offset), crowd->bytes[i]);
	}
	free(crowd->bytes);
	free(crowd->reqs);
}

START_TEST(test_while_frozen_any_number_of_writes_waits)
{
	struct core_env env;
	uint8_t byte = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 63, 77);
	uint64_t n = core_freeze(era, 0);
	struct crowd crowd = crowd_new(era, ERA_PARKED_MAX + 100);
	for (unsigned int i = 0; i < crowd.nr; i++)
		core_req_submit(&crowd.reqs[i]); /* returns at once: who hands in writes also hands in reads */
	expect_eq(core_status(era).parked, crowd.nr);
	expect_eq(img_pread(era_image(era), &byte, 1, 63 * CORE_BLOCK), 1);
	expect_eq(byte, 77);
	core_thaw(era, n);
	crowd_end(&crowd, env.image);
	for (uint64_t block = 0; block < NR_BLOCKS - 1; block++)
		expect(core_has(env.db, n + 1, block));
	core_close(era);
}
END_TEST

static void *submit_aside(void *req)
{
	core_req_submit(req);
	return NULL;
}

/* At the gate of a checkpoint one more than that waits outside, until it turns out to be a freeze's. */
START_TEST(test_who_waits_for_room_is_let_in_by_a_freeze)
{
	struct core_env env;
	struct err err = ERR_INIT;
	pthread_t thread;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	expect_eq(era_freeze_prepare(era, &err), 0);
	struct crowd crowd = crowd_new(era, ERA_PARKED_MAX + 1);
	struct core_req *last = &crowd.reqs[ERA_PARKED_MAX];
	expect_eq(era_checkpoint_begin(era, &err), 0);
	for (unsigned int i = 0; i < ERA_PARKED_MAX; i++)
		core_req_submit(&crowd.reqs[i]);
	expect_eq(pthread_create(&thread, NULL, submit_aside, last), 0);
	while (atomic_load(&last->nr_parks) == 0)
		usleep(1000);
	for (unsigned int i = 0; i < 100; i++) {
		expect_eq(core_status(era).parked, ERA_PARKED_MAX);
		usleep(1000);
	}
	if (_i == 0) {
		expect_eq(era_freeze_commit(era, 0, -1, &n, &err), 0);
		pthread_join(thread, NULL);
		expect_eq(core_status(era).parked, ERA_PARKED_MAX + 1);
		core_thaw(era, n);
	} else { /* it was a checkpoint's */
		expect_eq(era_checkpoint_commit(era, NULL, -1, &n, &err), 0);
		pthread_join(thread, NULL);
	}
	crowd_end(&crowd, env.image);
	core_close(era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_freeze_edges");
	TCase *tcase = tcase_create("edges");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_kill_once_the_mtime_was_set_back, 0, 2);
	tcase_add_test(tcase, test_an_fsync_that_fails_once_the_mtime_was_set_back);
	tcase_add_test(tcase, test_while_frozen_any_number_of_writes_waits);
	tcase_add_loop_test(tcase, test_who_waits_for_room_is_let_in_by_a_freeze, 0, 2);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
