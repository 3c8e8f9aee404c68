/* SPDX-License-Identifier: MIT */
/*
 * Of freeze and thaw, what once went wrong: changes from outside that were missed, instances that stayed frozen for ever or
 * thawed what they had lost, and files that were moved, removed or replaced beneath them.
 */
#include "core_freeze.h"
#include "vfs_fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static void nap(void)
{
	usleep(1000);
}

static void await_state(struct era *era, enum era_state state)
{
	while (core_state(era) != state)
		nap();
}

/* --- the image, changed by others --- */

struct outsider {
	const char *image;
	atomic_bool is_due;
};

/* The thaw has compared the mtime, and commits. */
static int write_from_outside(struct vfs_fault *vfs, enum vfs_file file, void *arg)
{
	struct outsider *outsider = arg;
	if (file != VFS_WAL || !atomic_exchange(&outsider->is_due, false))
		return SQLITE_OK;
	usleep(200000); /* so that no write of ours can account for the mtime */
	int fd = open(outsider->image, O_WRONLY | O_CLOEXEC);
	expect_eq(pwrite(fd, "X", 1, 40 * CORE_BLOCK), 1);
	close(fd);
	return SQLITE_OK;
}

/* By a stop, or by a kill -9. */
START_TEST(test_a_write_from_outside_while_the_thaw_commits)
{
	struct core_env env;
	int status;
	core_env_init(&env, IMAGE_SIZE);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct outsider outsider = { .image = env.image };
		vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = write_from_outside, .arg = &outsider });
		struct era *era = core_open(&env);
		core_touch(era, 1, 1);
		uint64_t n = core_freeze(era, 0);
		atomic_store(&outsider.is_due, true);
		core_thaw(era, n);
		expect(!atomic_load(&outsider.is_due)); /* else this test says nothing */
		if (_i == 1)
			kill(getpid(), SIGKILL);
		era_close(era, NULL);
		_exit(0);
	}
	expect_eq(waitpid(pid, &status, 0), pid);
	expect(_i == 1 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0);
	struct era_config config = core_config(&env);
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

/* --- those who are told --- */

struct listener {
	const char *wanted; /* a word of the notice that is waited in */
	struct core_hold hold;
};

static void listen(const char *text, void *arg)
{
	struct listener *listener = arg;
	if (strstr(text, listener->wanted))
		core_hold_here(&listener->hold);
}

/* A log may be on the very image that is frozen. */
START_TEST(test_a_notice_that_waits_for_a_write_of_ours)
{
	struct core_env env;
	struct core_req req;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct listener listener = { .wanted = _i == 0 ? "another instance took over" : "thawed" };
	core_hold_init(&listener.hold);
	struct era_config config = core_config(&env), other = config;
	config.notice = listen;
	config.notice_arg = &listener;
	struct era *era = core_open_with(&config), *successor = NULL;
	core_freeze(era, _i == 0 ? 0 : 1);
	core_req_init(&req, era, CORE_WRITE, 2 * CORE_BLOCK, 1);
	req.data = &byte;
	core_req_submit(&req);
	if (_i == 0) {
		other.takeover = true;
		successor = core_open_with(&other);
	}
	core_hold_wait(&listener.hold);
	/* The notice does not return before this. */
	for (unsigned int i = 0; i < 20000 && !core_req_is_over(&req); i++)
		nap();
	expect_msg(core_req_is_over(&req), "the gate is closed until the notice is over");
	expect_eq(core_req_end(&req), _i == 0 ? -EIO : 0);
	if (_i == 1)
		core_checkpoint(era);
	core_hold_release(&listener.hold);
	if (successor)
		core_close(successor);
	core_close(era);
}
END_TEST

/* --- files that are moved, removed or replaced --- */

static void remove_session_files(const char *run)
{
	char path[700];
	unsigned int nr = 0;
	DIR *dir = opendir(run);
	expect(dir != NULL);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		if (!strstr(entry->d_name, ".session"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", run, entry->d_name);
		expect_eq(unlink(path), 0);
		nr++;
	}
	closedir(dir);
	expect_eq(nr, 1);
}

START_TEST(test_a_session_file_that_is_gone)
{
	struct core_env env;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	if (_i == 0)
		remove_session_files(env.run);
	uint64_t n = core_freeze(era, 0);
	if (_i == 1)
		remove_session_files(env.run);
	core_thaw(era, n);
	core_runs_on(era, &env);
	core_close(era);
	era = core_open(&env);
	expect(core_has(env.db, n, 1) && !core_has(env.db, n + 1, 1) && core_has(env.db, n + 1, 33));
	core_close(era);
}
END_TEST

/* Removed; an older copy in its place; moved away for a while. */
START_TEST(test_a_freeze_of_a_database_that_has_lost_its_name)
{
	struct core_env env;
	char aside[340];
	struct err err = ERR_INIT;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	snprintf(aside, sizeof(aside), "%s.aside", env.db);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	core_close(era);
	core_copy_file(env.db, aside);
	era = core_open(&env);
	core_touch(era, 2, 1);
	if (_i == 0)
		expect_eq(unlink(env.db), 0);
	else
		expect_eq(_i == 1 ? rename(aside, env.db) : rename(env.db, aside), 0);
	core_expect_refused(era_freeze(era, 0, &n, &err), &err, -ESTALE, ERR_EXIT_FAILED);
	expect_eq(core_state(era), ERA_RUNNING);
	core_touch(era, 3, 1);
	if (_i == 2) {
		expect_eq(rename(aside, env.db), 0);
		n = core_freeze(era, 0);
		core_thaw(era, n);
		expect(core_has(env.db, n, 2) && core_has(env.db, n, 3));
		core_runs_on(era, &env);
	}
	era_close(era, NULL);
}
END_TEST

START_TEST(test_a_thaw_with_an_equal_copy_of_the_database)
{
	struct core_env env;
	char aside[340];
	core_env_init(&env, IMAGE_SIZE);
	snprintf(aside, sizeof(aside), "%s.aside", env.db);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	uint64_t n = core_freeze(era, 0);
	expect_eq(rename(env.db, aside), 0);
	core_copy_file(aside, env.db);
	core_thaw_refused(era, n, -ESTALE, ERR_EXIT_FAILED, NULL);
	expect_eq(core_state(era), ERA_FROZEN);
	expect_eq(rename(aside, env.db), 0);
	core_thaw(era, n);
	core_runs_on(era, &env);
	core_close(era);
}
END_TEST

/* --- an instance that has failed --- */

START_TEST(test_who_failed_while_frozen_stands_in_nobodys_way)
{
	struct core_env env;
	core_env_init(&env, IMAGE_SIZE);
	struct era *failed = core_open(&env);
	core_touch(failed, 1, 1);
	core_freeze(failed, 1);
	core_set_mtime(env.image, 10);
	await_state(failed, ERA_FAILED);
	struct era_status status = core_status(failed);
	expect_eq(status.frozen_era, 0);
	expect_eq(status.thaw_in_s, 0);
	struct era_config config = core_config(&env);
	config.takeover = config.mark_all = true;
	struct era *era = core_open_with(&config);
	core_touch(era, 3, 3);
	core_close(era);
	era = core_open(&env); /* with no word of a takeover */
	core_touch(era, 4, 4);
	core_close(era);
	expect_eq(core_state(failed), ERA_FAILED);
	era_close(failed, NULL);
}
END_TEST

/* The first fsync that is armed is the freeze's; the one that waits in line behind it fails while the thaw takes its locks. */
struct late_flush {
	struct era *era;
	const char *image;
	unsigned int timeout_s;
	bool changes_image;
	atomic_bool is_armed;
	atomic_uint nr;
	struct core_hold first;
	struct core_hold second;
};

static int late_flush(struct core_fault *fault)
{
	struct late_flush *late = fault->arg;
	unsigned int nr = atomic_load(&late->is_armed) ? atomic_fetch_add(&late->nr, 1) : 2;
	if (nr == 0)
		core_hold_here(&late->first);
	if (nr == 1) {
		core_hold_here(&late->second);
		return -EIO;
	}
	return img_flush(fault->real);
}

static int late_relock(struct core_fault *fault)
{
	struct late_flush *late = fault->arg;
	if (atomic_load(&late->nr) < 2)
		return 0;
	if (late->changes_image)
		core_set_mtime(late->image, 10);
	core_hold_release(&late->second);
	await_state(late->era, ERA_FAILED);
	return 0;
}

static void *late_freeze(void *arg)
{
	struct late_flush *late = arg;
	core_freeze(late->era, late->timeout_s);
	return NULL;
}

/* Frozen, and an fsync from before is still under way. */
static void late_begin(struct late_flush *late, struct core_req *flush)
{
	pthread_t freezer;
	for (;;) {
		core_hold_init(&late->first);
		core_hold_init(&late->second);
		atomic_store(&late->nr, 0);
		atomic_store(&late->is_armed, true);
		expect_eq(pthread_create(&freezer, NULL, late_freeze, late), 0);
		core_hold_wait(&late->first);
		core_req_init(flush, late->era, CORE_FLUSH, 0, 0);
		core_req_submit(flush);
		usleep(20000); /* so that it stands in line; where it does not, it is over without an fsync */
		core_hold_release(&late->first);
		pthread_join(freezer, NULL);
		while (atomic_load(&late->nr) < 2 && !core_req_is_over(flush))
			nap();
		if (atomic_load(&late->nr) == 2)
			return;
		atomic_store(&late->is_armed, false);
		expect_eq(core_req_end(flush), 0);
		uint64_t now;
		era_thaw(late->era, 0, &now, NULL); /* or the deadline has */
		await_state(late->era, ERA_RUNNING);
	}
}

static unsigned int nr_open_files(const char *path)
{
	char link[320], target[PATH_MAX];
	unsigned int nr = 0;
	DIR *dir = opendir("/proc/self/fd");
	expect(dir != NULL);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%s", entry->d_name);
		ssize_t len = readlink(link, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = '\0';
		nr += strncmp(target, path, strlen(path)) == 0; /* its -wal, -shm and .lock too */
	}
	closedir(dir);
	return nr;
}

/* Bit 0: the thaw would be refused anyway; bit 1: it is the deadline that thaws. */
START_TEST(test_an_fsync_that_fails_while_the_thaw_takes_its_locks)
{
	struct core_env env;
	struct core_req flush, req;
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	uint64_t now = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct late_flush late = { .image = env.image, .changes_image = _i & 1, .timeout_s = _i & 2 ? 1 : 0 };
	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &late;
	image->on_flush = late_flush;
	image->on_relock = late_relock;
	config.image = &image->img;
	struct era *era = late.era = core_open_with(&config);
	core_touch(era, 1, 1);
	late_begin(&late, &flush);
	core_req_init(&req, era, CORE_WRITE, 20 * CORE_BLOCK, 1);
	req.data = &byte;
	core_req_submit(&req);
	if (!(_i & 2)) {
		int error = era_thaw(era, 0, &now, &err);
		core_expect_refused(error, &err, late.changes_image ? -ESTALE : -EIO, ERR_EXIT_FAILED);
	}
	expect_eq(core_req_end(&flush), -EIO);
	expect_eq(core_req_end(&req), -EIO);
	expect_eq(core_image_byte(env.image, 20 * CORE_BLOCK), 0);
	expect_eq(nr_open_files(env.db), 0);

	config = core_config(&env);
	config.takeover = true;
	config.mark_all = late.changes_image;
	struct era *successor = core_open_with(&config);
	core_touch(successor, 30, 1);
	core_close(successor);
	struct era_status status = core_status(era);
	expect_eq(status.state, ERA_FAILED);
	expect_eq(status.frozen_era, 0);
	expect_eq(status.auto_thaws, 0);
	era_close(era, NULL);
	core_close(core_open(&env));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_freeze_regress");
	TCase *tcase = tcase_create("regress");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_write_from_outside_while_the_thaw_commits, 0, 2);
	tcase_add_loop_test(tcase, test_a_notice_that_waits_for_a_write_of_ours, 0, 2);
	tcase_add_loop_test(tcase, test_a_session_file_that_is_gone, 0, 2);
	tcase_add_loop_test(tcase, test_a_freeze_of_a_database_that_has_lost_its_name, 0, 3);
	tcase_add_test(tcase, test_a_thaw_with_an_equal_copy_of_the_database);
	tcase_add_test(tcase, test_who_failed_while_frozen_stands_in_nobodys_way);
	tcase_add_loop_test(tcase, test_an_fsync_that_fails_while_the_thaw_takes_its_locks, 0, 4);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
