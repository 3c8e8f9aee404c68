/* SPDX-License-Identifier: MIT */
/* What a hostile reading of the core found, each kept from coming back; and two promises that only a held thread shows. */
#include "core_util.h"
#include "vfs_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static struct stat stat_of(const char *path)
{
	struct stat st;
	expect_msg(stat(path, &st) == 0, "%s: %s", path, strerror(errno));
	return st;
}

static void set_mtime(const char *path, struct timespec mtime)
{
	struct timespec times[2] = { mtime, mtime };
	expect_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static enum era_state state_of(struct era *era)
{
	struct era_status status;
	era_get_status(era, &status);
	return status.state;
}

/* Until the digest has done so much in all; an instance that fails has done none. */
static void await_digest_steps(struct era *era, uint64_t nr)
{
	for (struct era_status status = { 0 }; status.digest_steps < nr;) {
		era_get_status(era, &status);
		expect_msg(status.state == ERA_RUNNING, "the instance failed: %s", status.failure);
		usleep(1000);
	}
}

static void expect_all_since(const struct core_env *env, uint64_t first, uint64_t last)
{
	for (uint64_t era = first; era <= last; era++)
		for (uint64_t block = 0; block < NR_BLOCKS; block++)
			expect_msg(core_has(env->db, era, block), "MISSING: block %llu since %llu",
				(unsigned long long)block, (unsigned long long)era);
}

/* --- the write-back of the WAL --- */

#define WAL_CHUNKS 8 /* chunks of the bitmap that each era touches: rows for the digest */

struct wal_fault {
	atomic_bool armed;
	atomic_bool failed_once;
};

/* Once: the kernel marks the pages clean, a second fsync returns 0. */
static int fail_in_checkpoint(struct vfs_fault *vfs, enum vfs_file file, void *arg)
{
	struct wal_fault *fault = arg;
	if (!atomic_load(&fault->armed) || file != VFS_WAL || !vfs_fault_in_checkpoint(vfs) ||
		vfs_fault_nr_unsynced(vfs, VFS_WAL) == 0)
		return SQLITE_OK;
	atomic_store(&fault->armed, false);
	atomic_store(&fault->failed_once, true);
	return SQLITE_IOERR_FSYNC;
}

/* Goes on until the -wal is so long that it is written back, and loses commits of the digest in that. */
static void lose_frames(struct era *era, struct wal_fault *fault)
{
	struct err err = ERR_INIT;
	uint64_t now;
	atomic_store(&fault->armed, true);
	for (unsigned int i = 0; !atomic_load(&fault->failed_once); i++) {
		expect_msg(i < 10000, "the WAL is never written back");
		for (uint64_t chunk = 0; chunk < WAL_CHUNKS; chunk++) {
			uint8_t byte = 1;
			uint64_t block = chunk * BM_CHUNK_BITS + i % BM_CHUNK_BITS;
			int error = core_write(era, block * CORE_BLOCK, &byte, 1);
			expect(error == 0 || error == -EIO);
		}
		era_checkpoint(era, NULL, &now, &err);
	}
}

static int failing_flush(struct core_fault *fault)
{
	return atomic_exchange((atomic_bool *)fault->arg, false) ? -EIO : img_flush(fault->real);
}

START_TEST(test_a_failed_write_back_of_the_wal_fails_the_instance)
{
	struct core_env env;
	struct wal_fault fault = { false };
	struct err err = ERR_INIT;
	uint8_t byte = 2;
	core_env_init(&env, WAL_CHUNKS * BM_CHUNK_BITS * CORE_BLOCK);
	vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = fail_in_checkpoint, .arg = &fault });
	struct era *era = core_open(&env);
	lose_frames(era, &fault);
	expect_eq(state_of(era), ERA_FAILED);
	expect_eq(core_write(era, 77 * CORE_BLOCK, &byte, 1), -EIO);
	expect_eq(core_fsync(era), -EIO);
	expect_eq(core_image_byte(env.image, 77 * CORE_BLOCK), 0);
	expect_lt(era_close(era, &err), 0);
	era = core_open(&env);
	expect_eq(state_of(era), ERA_RUNNING);
	core_close(era);
}
END_TEST

/* Cuts the power as soon as another thread than the test's wants an fsync: all that the test's thread did is durable, or
 * is never. */
struct power {
	struct wal_fault fault;
	pthread_t test;
	atomic_bool cut_wanted;
	const char *durable; /* what the disk has */
	struct core_env before;
	struct core_env after;
};

static int lose_frames_or_power(struct vfs_fault *vfs, enum vfs_file file, void *arg)
{
	struct power *power = arg;
	char from[340], to[340];
	if (pthread_equal(pthread_self(), power->test) || !atomic_exchange(&power->cut_wanted, false))
		return fail_in_checkpoint(vfs, file, &power->fault);
	core_copy_db(power->durable, power->after.db);
	snprintf(from, sizeof(from), "%s.witness", power->before.db);
	snprintf(to, sizeof(to), "%s.witness", power->after.db);
	core_copy_file(from, to);
	return SQLITE_OK;
}

/* What recovery commits must not stand in the -wal behind a hole: a power loss would take it, and all that is behind it. */
START_TEST(test_recovery_of_a_failed_session_leaves_no_hole_in_the_wal)
{
	struct core_env env;
	struct power power = { .test = pthread_self() };
	struct err err = ERR_INIT;
	char durable[340];
	atomic_bool flush_fails = false;
	core_env_init(&env, WAL_CHUNKS * BM_CHUNK_BITS * CORE_BLOCK);
	power.before = power.after = env;
	snprintf(power.after.db, sizeof(power.after.db), "%s/after.era", env.dir);
	snprintf(durable, sizeof(durable), "%s/durable", env.dir);
	power.durable = durable;
	struct vfs_fault *vfs =
		vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = lose_frames_or_power, .arg = &power });
	core_close(core_open(&env));
	vfs_fault_keep_durable(vfs, durable);

	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &flush_fails;
	image->on_flush = failing_flush;
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	lose_frames(era, &power.fault);
	atomic_store(&flush_fails, true);
	expect_eq(core_fsync(era), -EIO);
	expect_lt(era_close(era, &err), 0);

	atomic_store(&power.cut_wanted, true);
	struct timespec mtime = core_mtime(env.image);
	era = core_open(&env);
	uint64_t now = core_era(era);
	core_touch(era, 77, 3); /* at the latest by this the power is cut */
	expect(!atomic_load(&power.cut_wanted));
	core_close(era);
	core_put_mtime(env.image, mtime);
	era = core_open(&power.after);
	expect_gt(core_era(era), now);
	core_close(era);
}
END_TEST

/* --- metadata that replace others of their name --- */

/* A witness of the database that had the name before, far ahead, must not hide that of the present one. */
START_TEST(test_an_older_copy_is_refused_also_after_the_database_was_made_anew)
{
	struct core_env env;
	char saved[340];
	core_env_init(&env, IMAGE_SIZE);
	snprintf(saved, sizeof(saved), "%s.saved", env.db);
	struct era_config config = core_config(&env);
	struct era *era = core_open(&env);
	for (int i = 0; i < 20; i++)
		core_checkpoint(era);
	core_close(era);
	expect_eq(unlink(env.db), 0);

	era = core_open(&env);
	core_checkpoint(era);
	core_close(era);
	core_copy_db(env.db, saved);
	struct stat then = stat_of(env.image);
	era = core_open(&env);
	core_checkpoint(era);
	core_touch(era, 3, 1);
	core_close(era);
	core_copy_db(saved, env.db);
	set_mtime(env.image, then.st_mtim); /* as a device: its mtime tells nothing */
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

/* Metadata that have shown eras 1 to *ret_last, at rest. */
static void old_metadata(struct core_env *env, uint64_t *ret_last)
{
	core_env_init(env, IMAGE_SIZE);
	struct era *era = core_open(env);
	for (uint64_t i = 0; i < 8; i++) {
		core_touch(era, i, 1);
		*ret_last = core_checkpoint(era);
	}
	core_close(era);
}

/* As old_metadata(), and they cannot be used any more. */
static void damaged_metadata(struct core_env *env, uint64_t *ret_last)
{
	sqlite3 *sql;

	old_metadata(env, ret_last);
	expect_eq(sqlite3_open(env->db, &sql), SQLITE_OK);
	expect_eq(sqlite3_exec(sql, "UPDATE superblock SET checksum = 1", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	struct era_config config = core_config(env);
	core_open_refused(&config, -EUCLEAN, NULL);
}

/* Opens, and expects a line of its own, above all eras that the old one has shown, which says "all" to each of those. */
static void expect_truthful_start(const struct core_env *env, const struct era_config *config, uint64_t last)
{
	struct era *era = core_open_with(config);
	uint64_t now = core_era(era);
	struct core_since since = core_since(env->db, 0);
	expect_gt(since.super.floor_era, last);
	expect_ge(now, since.super.floor_era);
	core_since_free(&since);
	expect_all_since(env, 1, last + 1);
	core_touch(era, 5, 2);
	now = core_checkpoint(era);
	expect(!core_has(env->db, now, 5));
	core_close(era);
	expect_all_since(env, 1, last + 1);
}

START_TEST(test_mark_all_of_damaged_metadata_starts_above_all_that_was_shown)
{
	struct core_env env;
	uint64_t last;
	damaged_metadata(&env, &last);
	struct era_config config = core_config(&env);
	config.mark_all = true;
	expect_truthful_start(&env, &config, last);
}
END_TEST

START_TEST(test_mark_all_that_fails_half_way_is_truthful_in_the_next_start)
{
	struct core_env env;
	uint64_t last;
	char nowhere[340];
	damaged_metadata(&env, &last);
	struct era_config config = core_config(&env);
	config.mark_all = true;
	snprintf(nowhere, sizeof(nowhere), "%s/nowhere", env.dir);
	config.run_dir = nowhere; /* no session file can be made */
	core_open_refused(&config, 0, NULL);
	config = core_config(&env);
	expect_truthful_start(&env, &config, last);
}
END_TEST

static void die_at_notice(const char *text, void *arg)
{
	int *left = arg;
	if (--*left == 0)
		kill(getpid(), SIGKILL);
}

/* The lines for a person come between the steps: one of them is the last that this process does. */
START_TEST(test_mark_all_that_is_killed_half_way_is_truthful_in_the_next_start)
{
	struct core_env env;
	uint64_t last;
	damaged_metadata(&env, &last);
	struct era_config config = core_config(&env);
	pid_t pid = core_fork();
	if (pid == 0) {
		int left = _i + 1;
		config.mark_all = true;
		config.notice = die_at_notice;
		config.notice_arg = &left;
		core_open_with(&config);
		_exit(0);
	}
	int status;
	expect_eq(waitpid(pid, &status, 0), pid);
	expect(_i > 2 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
	expect_truthful_start(&env, &config, last);
}
END_TEST

START_TEST(test_a_database_that_is_gone_and_left_its_witness)
{
	struct core_env env;
	uint64_t last;
	old_metadata(&env, &last);
	expect_eq(unlink(env.db), 0);
	struct era_config config = core_config(&env);
	expect_truthful_start(&env, &config, last);
}
END_TEST

/* --- ends that could not be recorded --- */

/* The metadata alone on a small file system; image and run folder elsewhere. */
static void small_metadata(struct core_env *env, char ret_filler[340])
{
	char where[300];
	core_private_mounts();
	core_env_init(env, IMAGE_SIZE);
	snprintf(where, sizeof(where), "%s/small", env->dir);
	expect_eq(mkdir(where, 0700), 0);
	core_mount_tmpfs(where, "size=1m");
	snprintf(env->db, sizeof(env->db), "%s/db", where);
	snprintf(ret_filler, 340, "%s/filler", where);
}

static int full_and_failing_flush(struct core_fault *fault)
{
	core_fill(fault->arg);
	return -EIO;
}

START_TEST(test_a_failed_fsync_of_recovery_is_remembered_when_the_database_cannot_take_it)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct era *era = NULL;
	char filler[340];
	small_metadata(&env, filler);
	struct era_config config = core_config(&env);
	pid_t pid = core_fork();
	if (pid == 0) {
		era = core_open_with(&config);
		core_touch(era, 5, 5);
		_exit(0); /* no stop in order */
	}
	core_join(pid);
	struct core_fault *fault = core_fault_new(env.image);
	fault->arg = filler;
	fault->on_flush = full_and_failing_flush;
	config.image = &fault->img;
	expect_eq(era_open(&config, &era, &err), -EIO);

	expect_eq(unlink(filler), 0);
	fault = core_fault_new(env.image);
	config.image = &fault->img;
	era = core_open_with(&config);
	expect_gt(atomic_load(&fault->drops_before_read), 0);
	expect_msg(core_has(env.db, core_era(era), 5), "MISSING: its data may be lost, and it is not in the new era");
	core_close(era);
}
END_TEST

static void await_clock(uint64_t wall_ns)
{
	struct timespec until = { .tv_sec = (time_t)(wall_ns / 1000000000), .tv_nsec = (long)(wall_ns % 1000000000) };
	while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

START_TEST(test_a_stop_without_space_for_its_record_is_no_modified_image)
{
	struct core_env env;
	struct err err = ERR_INIT;
	char filler[340];
	uint8_t byte = 2;
	small_metadata(&env, filler);
	struct era *era = core_open(&env);
	core_touch(era, 5, 1);
	uint64_t now = core_era(era);
	await_digest_steps(era, 1); /* the one of the start: no commit comes after the write's */
	core_fill(filler);
	/* Long after the last commit. */
	struct core_since since = core_since(env.db, 0);
	await_clock(since.super.committed_at_ns + 2100000000);
	core_since_free(&since);
	expect_eq(core_write(era, 5 * CORE_BLOCK, &byte, 1), 0); /* marked already: needs no space */
	expect_eq(era_close(era, &err), -ENOSPC);
	expect_eq(unlink(filler), 0);
	era = core_open(&env);
	expect(core_has(env.db, now, 5));
	core_close(era);
}
END_TEST

/* On a file system that keeps whole seconds, a write from outside in the second of the stop would not show. */
START_TEST(test_an_outside_write_in_the_very_second_of_the_stop)
{
	struct core_env env;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	struct timespec second = { .tv_sec = time(NULL) + 60 }; /* recent, however slow this machine is */
	set_mtime(env.image, second);
	core_close(core_open(&env));
	expect_lt(core_mtime(env.image).tv_sec, second.tv_sec);
	core_close(core_open(&env)); /* nobody wrote: fine */
	int fd = open(env.image, O_WRONLY | O_CLOEXEC);
	expect_eq(pwrite(fd, "x", 1, 9 * CORE_BLOCK), 1);
	close(fd);
	set_mtime(env.image, second);
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

START_TEST(test_resize_and_mark_all_on_a_device_of_another_size)
{
	struct core_env env;
	core_env_init(&env, IMAGE_SIZE / 2);
	core_close(core_open(&env));
	expect_eq(truncate(env.image, IMAGE_SIZE), 0);
	struct era_config config = core_config(&env);
	struct core_fault *device = core_fault_new(env.image);
	device->img.is_device = true;
	config.image = &device->img;
	config.resize = config.mark_all = true;
	struct era *era = core_open_with(&config);
	struct era_status status;
	era_get_status(era, &status);
	expect_eq(status.image_size, IMAGE_SIZE);
	expect_eq(status.nr_blocks, NR_BLOCKS);
	expect(status.image_is_device);
	expect_all_since(&env, 1, status.current_era);
	core_touch(era, NR_BLOCKS - 1, 1);
	core_close(era);
}
END_TEST

/* --- who waits for whom --- */

struct other_program {
	atomic_bool armed;
	pthread_t test;
	int go[2], done[2];
};

#define OTHER_HOLDS_MS 1500 /* longer than SQLite waits for a lock here */

/* Started before this process has a connection, which it must not inherit. */
static pid_t start_other_program(struct other_program *other, const char *db)
{
	expect_eq(pipe2(other->go, O_CLOEXEC), 0);
	expect_eq(pipe2(other->done, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		sqlite3 *sql;
		char byte;
		expect_eq(read(other->go[0], &byte, 1), 1);
		expect_eq(sqlite3_open(db, &sql), SQLITE_OK);
		expect_eq(sqlite3_exec(sql, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
		expect_eq(write(other->done[1], "x", 1), 1);
		usleep(OTHER_HOLDS_MS * 1000);
		_exit(0); /* with its lock; a close in order could checkpoint */
	}
	return pid;
}

/* The digest begins a step: another program is faster. */
static void lose_the_lock(struct vfs_fault *vfs, void *arg)
{
	struct other_program *other = arg;
	char byte;
	if (pthread_equal(pthread_self(), other->test) || !atomic_exchange(&other->armed, false))
		return;
	expect_eq(write(other->go[1], "x", 1), 1);
	expect_eq(read(other->done[0], &byte, 1), 1);
}

START_TEST(test_the_lock_of_another_program_fails_no_digest)
{
	struct core_env env;
	struct other_program other = { .test = pthread_self() };
	core_env_init(&env, IMAGE_SIZE);
	pid_t pid = start_other_program(&other, env.db);
	vfs_fault_new(env.db, (struct vfs_hooks){ .on_write_lock = lose_the_lock, .arg = &other });
	struct era *era = core_open(&env);
	core_touch(era, 3, 1);
	await_digest_steps(era, 1); /* the one of the start */
	atomic_store(&other.armed, true);
	uint64_t now = core_checkpoint(era);
	core_join(pid);
	expect(!atomic_load(&other.armed));
	await_digest_steps(era, 2);
	expect(core_has(env.db, now - 1, 3) && !core_has(env.db, now, 3));
	core_touch(era, 4, 1);
	core_checkpoint(era);
	core_close(era);
}
END_TEST

static int held_flush(struct core_fault *fault)
{
	core_hold_here(fault->arg);
	return img_flush(fault->real);
}

/* More fsyncs than there are completers, each as slow as it likes: no write waits for them. */
START_TEST(test_a_first_write_does_not_wait_for_fsyncs)
{
	struct core_env env;
	struct core_hold hold;
	struct core_req flushes[3], write;
	uint8_t byte = 1;
	core_env_init(&env, IMAGE_SIZE);
	core_hold_init(&hold);
	struct era_config config = core_config(&env);
	struct core_fault *fault = core_fault_new(env.image);
	fault->arg = &hold;
	config.image = &fault->img;
	struct era *era = core_open_with(&config);
	fault->on_flush = held_flush;
	for (int i = 0; i < 3; i++) {
		core_req_init(&flushes[i], era, CORE_FLUSH, 0, 0);
		core_req_submit(&flushes[i]);
	}
	core_hold_wait(&hold);
	for (uint64_t block = 0; block < 4; block++) {
		core_req_init(&write, era, CORE_WRITE, block * CORE_BLOCK, 1);
		write.data = &byte;
		core_req_submit(&write);
		expect_eq(core_req_wait(&write), 0); /* or this test is ended by its timeout */
		core_req_destroy(&write);
	}
	for (int i = 0; i < 3; i++)
		expect(!core_req_is_over(&flushes[i]));
	core_hold_release(&hold);
	for (int i = 0; i < 3; i++)
		expect_eq(core_req_wait(&flushes[i]), 0);
	core_close(era);
}
END_TEST

struct held_commit {
	atomic_bool armed;
	struct core_hold hold;
};

static int hold_commit(struct vfs_fault *vfs, enum vfs_file file, void *arg)
{
	struct held_commit *held = arg;
	if (file == VFS_WAL && !vfs_fault_in_checkpoint(vfs) && atomic_exchange(&held->armed, false))
		core_hold_here(&held->hold);
	return SQLITE_OK;
}

/* The second write to a block while the COMMIT of its mark is under way must wait for it as the first one does. */
START_TEST(test_a_second_write_does_not_overtake_the_commit_of_the_first)
{
	struct core_env env;
	struct held_commit held = { false };
	struct core_req writes[2];
	uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	core_hold_init(&held.hold);
	vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = hold_commit, .arg = &held });
	struct era *era = core_open(&env);
	uint64_t now = core_era(era);
	await_digest_steps(era, 1);
	for (int i = 0; i < 2; i++) {
		core_req_init(&writes[i], era, CORE_WRITE, 7 * CORE_BLOCK + (uint64_t)i, 1);
		writes[i].data = &byte;
	}
	atomic_store(&held.armed, true);
	core_req_submit(&writes[0]);
	core_hold_wait(&held.hold);
	core_req_submit(&writes[1]);
	for (int i = 0; i < 2; i++) {
		expect_msg(atomic_load(&writes[i].nr_applies) == 0, "write %d was let through before the COMMIT", i);
		expect_eq(core_image_byte(env.image, 7 * CORE_BLOCK + (uint64_t)i), 0);
	}
	core_hold_release(&held.hold);
	for (int i = 0; i < 2; i++)
		expect_eq(core_req_wait(&writes[i]), 0);
	expect(core_has(env.db, now, 7));
	core_close(era);
}
END_TEST

struct drain {
	struct era *era;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool inside; /* under lock: a pwrite is under way */
	bool begun; /* under lock: the checkpoint's begin has returned */
	bool begun_too_early; /* under lock */
};

#define DRAIN_PATIENCE_MS 300 /* how long a pwrite waits for a begin that should not come */

static ssize_t slow_pwrite(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	struct drain *drain = fault->arg;
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += DRAIN_PATIENCE_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&drain->lock);
	drain->inside = true;
	pthread_cond_broadcast(&drain->changed);
	while (!drain->begun && pthread_cond_timedwait(&drain->changed, &drain->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&drain->lock);
	ssize_t written = img_pwrite(fault->real, buf, len, offset);
	pthread_mutex_lock(&drain->lock);
	drain->inside = false;
	pthread_mutex_unlock(&drain->lock);
	return written;
}

static void *write_slowly(void *arg)
{
	struct drain *drain = arg;
	core_touch(drain->era, 3, 2);
	return NULL;
}

/* The barrier: a copy that is begun after it must not see bytes of the old era land. */
START_TEST(test_a_checkpoint_waits_for_the_write_in_flight)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct drain drain = { .inside = false };
	pthread_t writer;
	core_env_init(&env, IMAGE_SIZE);
	pthread_mutex_init(&drain.lock, NULL);
	pthread_cond_init(&drain.changed, NULL);
	struct era_config config = core_config(&env);
	struct core_fault *fault = core_fault_new(env.image);
	fault->arg = &drain;
	config.image = &fault->img;
	drain.era = core_open_with(&config);
	core_touch(drain.era, 3, 1);
	fault->on_pwrite = slow_pwrite;
	pthread_create(&writer, NULL, write_slowly, &drain);
	pthread_mutex_lock(&drain.lock);
	while (!drain.inside)
		pthread_cond_wait(&drain.changed, &drain.lock);
	pthread_mutex_unlock(&drain.lock);

	expect_eq(era_checkpoint_begin(drain.era, &err), 0);
	pthread_mutex_lock(&drain.lock);
	drain.begun_too_early = drain.inside;
	drain.begun = true;
	pthread_cond_broadcast(&drain.changed);
	pthread_mutex_unlock(&drain.lock);
	pthread_join(writer, NULL);
	expect_msg(!drain.begun_too_early, "the gate was called closed with a write inside");
	era_checkpoint_abort(drain.era);
	fault->on_pwrite = NULL;
	core_checkpoint(drain.era);
	core_close(drain.era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_regress");
	TCase *tcase = tcase_create("regress");
	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, test_a_failed_write_back_of_the_wal_fails_the_instance);
	tcase_add_test(tcase, test_recovery_of_a_failed_session_leaves_no_hole_in_the_wal);
	tcase_add_test(tcase, test_an_older_copy_is_refused_also_after_the_database_was_made_anew);
	tcase_add_test(tcase, test_mark_all_of_damaged_metadata_starts_above_all_that_was_shown);
	tcase_add_test(tcase, test_mark_all_that_fails_half_way_is_truthful_in_the_next_start);
	tcase_add_loop_test(tcase, test_mark_all_that_is_killed_half_way_is_truthful_in_the_next_start, 0, 4);
	tcase_add_test(tcase, test_a_database_that_is_gone_and_left_its_witness);
	tcase_add_test(tcase, test_a_failed_fsync_of_recovery_is_remembered_when_the_database_cannot_take_it);
	tcase_add_test(tcase, test_a_stop_without_space_for_its_record_is_no_modified_image);
	tcase_add_test(tcase, test_an_outside_write_in_the_very_second_of_the_stop);
	tcase_add_test(tcase, test_resize_and_mark_all_on_a_device_of_another_size);
	tcase_add_test(tcase, test_the_lock_of_another_program_fails_no_digest);
	tcase_add_test(tcase, test_a_first_write_does_not_wait_for_fsyncs);
	tcase_add_test(tcase, test_a_second_write_does_not_overtake_the_commit_of_the_first);
	tcase_add_test(tcase, test_a_checkpoint_waits_for_the_write_in_flight);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
