/* SPDX-License-Identifier: MIT */
/* The interleavings that once broke the design, each by its name; the numbers are those of doc/DESIGN.md. */
#include "core_util.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 50
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

/* --- 1: a copy taken after the reply, then a power loss --- */

#define NR_COPIES 12

struct disk {
	struct core_env *env;
	char durable[320]; /* what a power loss leaves of the image: its content at the last flush */
	pthread_mutex_t lock;
};

static int flush_to_disk(struct core_fault *fault)
{
	struct disk *disk = fault->arg;
	pthread_mutex_lock(&disk->lock);
	core_copy_file(disk->env->image, disk->durable);
	pthread_mutex_unlock(&disk->lock);
	return img_flush(fault->real);
}

struct scribbler {
	struct era *era;
	uint64_t first;
	atomic_uint nr_writes;
	pthread_t thread;
};

/* Until the process dies. */
static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	for (uint64_t i = 1;; i++) {
		core_touch(s->era, (s->first + i * 13) % NR_BLOCKS, (uint8_t)i);
		atomic_fetch_add(&s->nr_writes, 1);
	}
	return NULL;
}

static void let_scribble(struct scribbler *s)
{
	unsigned int from = atomic_load(&s->nr_writes);
	while (atomic_load(&s->nr_writes) - from < 3)
		sched_yield();
}

static void copy_name(const struct core_env *env, unsigned int i, char ret_path[320])
{
	snprintf(ret_path, 320, "%s/copy-%u", env->dir, i);
}

/* Checkpoints under load, a copy after each; then nothing more than the power: dies. */
static void checkpoint_and_copy(struct core_env *env, int out)
{
	struct disk disk = { .env = env };
	struct scribbler scribblers[2];
	struct era_config config = core_config(env);
	struct core_fault *fault = core_fault_new(env->image);
	pthread_mutex_init(&disk.lock, NULL);
	snprintf(disk.durable, sizeof(disk.durable), "%s/durable", env->dir);
	fault->arg = &disk;
	fault->on_flush = flush_to_disk;
	config.image = &fault->img;
	struct era *era = core_open_with(&config);
	for (unsigned int i = 0; i < 2; i++) {
		scribblers[i] = (struct scribbler){ .era = era, .first = i * 7 };
		pthread_create(&scribblers[i].thread, NULL, scribble, &scribblers[i]);
	}
	uint64_t eras[NR_COPIES];
	for (unsigned int i = 0; i < NR_COPIES; i++) {
		char path[320];
		copy_name(env, i, path);
		eras[i] = core_checkpoint(era);
		let_scribble(&scribblers[0]);
		core_copy_file(env->image, path);
		let_scribble(&scribblers[1]);
	}
	expect_eq(write(out, eras, sizeof(eras)), sizeof(eras));
	for (;;)
		pause();
}

static unsigned int count_differences(const char *a, const char *b, bool ret_differs[NR_BLOCKS])
{
	unsigned int nr = 0;
	for (unsigned int block = 0; block < NR_BLOCKS; block++) {
		ret_differs[block] = core_image_byte(a, block * CORE_BLOCK) != core_image_byte(b, block * CORE_BLOCK);
		nr += ret_differs[block];
	}
	return nr;
}

START_TEST(test_1_a_copy_after_the_reply_plus_since_is_the_image_after_a_power_loss)
{
	struct core_env env;
	int fds[2];
	uint64_t eras[NR_COPIES];
	unsigned int nr = 0;
	core_env_init(&env, IMAGE_SIZE);
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0)
		checkpoint_and_copy(&env, fds[1]);
	close(fds[1]);
	expect_eq(read(fds[0], eras, sizeof(eras)), sizeof(eras));
	close(fds[0]);
	core_kill(pid);
	char durable[320], copy[320];
	snprintf(durable, sizeof(durable), "%s/durable", env.dir);
	struct timespec mtime = core_mtime(env.image);
	core_copy_file(durable, env.image); /* the machine wakes up with what was durable, */
	core_put_mtime(env.image, mtime); /* and nobody wrote to that */
	core_close(core_open(&env));
	for (unsigned int i = 0; i < NR_COPIES; i++) {
		bool differs[NR_BLOCKS];
		copy_name(&env, i, copy);
		nr += count_differences(copy, env.image, differs);
		struct core_since since = core_since(env.db, eras[i]);
		for (unsigned int block = 0; block < NR_BLOCKS; block++)
			expect_msg(!differs[block] || core_since_has(&since, block),
				"MISSING: block %u differs from the copy of era %llu", block,
				(unsigned long long)eras[i]);
		core_since_free(&since);
	}
	expect_gt(nr, 0); /* else this test says nothing */
}
END_TEST

/* --- 5: sessions and databases that are not what they seem --- */

/* A life in a child: touches the blocks, each in an era of its own, and dies. *ret_era: the last. */
static void short_life(const struct era_config *config, uint64_t first, uint64_t nr, uint64_t *ret_era)
{
	int fds[2];
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(config);
		uint64_t now = core_era(era);
		for (uint64_t i = 0; i < nr; i++) {
			now = core_checkpoint(era);
			core_touch(era, first + i, 1);
		}
		expect_eq(write(fds[1], &now, sizeof(now)), sizeof(now));
		for (;;)
			pause();
	}
	close(fds[1]);
	expect_eq(read(fds[0], ret_era, sizeof(*ret_era)), sizeof(*ret_era));
	close(fds[0]);
	core_kill(pid);
}

START_TEST(test_5_a_copied_database_does_not_trust_the_originals_session)
{
	struct core_env env, copy;
	uint64_t era_nr, later;
	core_env_init(&env, IMAGE_SIZE);
	core_env_init(&copy, IMAGE_SIZE);
	struct era_config config = core_config(&env), copy_config = core_config(&copy);
	copy_config.run_dir = env.run; /* where the original's session file lies */
	short_life(&config, 0, 5, &era_nr);
	core_copy_file(env.image, copy.image);
	core_put_mtime(copy.image, core_mtime(env.image)); /* as cp -a does */
	core_copy_db(env.db, copy.db);
	if (_i == 1) /* the original went on, and died again: its session file is a newer one */
		short_life(&config, 10, 5, &later);
	struct era *era = core_open_with(&copy_config);
	struct era *original = core_open(&env); /* same UUID: an instance on the copy may run */
	for (uint64_t block = 0; block < 5; block++) {
		expect(core_has(copy.db, era_nr - 4 + block, block));
		expect(core_has(env.db, era_nr - 4 + block, block));
		expect(!core_has(copy.db, core_era(era), block));
	}
	/* The copy's intents count as their extents, as nobody speaks for them. */
	if (config.intent_bytes == 0)
		expect(!core_has(copy.db, 1, 12));
	expect(core_has(env.db, 1, 12) == (_i == 1));
	core_close(original);
	core_close(era);
}
END_TEST

/* An older state of the same database in the same file, under the session file of the newer one: what was recorded in
 * between is lost. It must be refused, or all blocks reported; never opened as if it were whole. */
START_TEST(test_5_a_database_put_back_in_place_under_a_newer_session)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct era *era = NULL;
	char saved[340];
	uint64_t last = 0;
	int fds[2];
	core_env_init(&env, IMAGE_SIZE);
	snprintf(saved, sizeof(saved), "%s.saved", env.db);
	struct era_config config = core_config(&env);
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		era = core_open_with(&config);
		core_touch(era, 1, 1);
		pid_t copier = core_fork(); /* close() in this process would drop the locks of its database */
		if (copier == 0) {
			core_copy_db(env.db, saved);
			_exit(0);
		}
		core_join(copier);
		for (uint64_t block = 10; block < 20; block++) {
			if (_i == 0)
				last = core_checkpoint(era);
			core_touch(era, block, 1);
		}
		last = core_era(era);
		expect_eq(write(fds[1], &last, sizeof(last)), sizeof(last));
		for (;;)
			pause();
	}
	close(fds[1]);
	expect_eq(read(fds[0], &last, sizeof(last)), sizeof(last));
	close(fds[0]);
	core_kill(pid);
	core_copy_db(saved, env.db);
	if (era_open(&config, &era, &err) < 0) {
		expect(err.text[0] != '\0');
		config.mark_all = true;
		era = core_open_with(&config);
	}
	expect_gt(core_era(era), last);
	for (uint64_t block = 10; block < 20; block++)
		expect_msg(core_has(env.db, 1, block), "MISSING: block %llu, recorded in commits that are gone",
			(unsigned long long)block);
	core_close(era);
}
END_TEST

/* The same by a -wal that lost its end, at each frame and in the middle of one. */
START_TEST(test_5_a_wal_cut_on_the_same_boot)
{
	struct core_env env;
	char wal[340], kept[340];
	uint64_t last;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	core_close(core_open_with(&config));
	short_life(&config, 10, 6, &last);
	snprintf(wal, sizeof(wal), "%s-wal", env.db);
	uint64_t size = core_file_size(wal), frame = 24 + 4096, nr_refused = 0;
	expect_gt(size, 32 + frame);
	snprintf(kept, sizeof(kept), "%s.kept", env.db);
	core_copy_db(env.db, kept);
	for (uint64_t at = 0; at < size; at = at == 0 ? 32 : at + frame / 2) {
		struct err err = ERR_INIT;
		struct era *era = NULL;
		core_copy_db(kept, env.db); /* in place: the same inode */
		expect_eq(truncate(wal, (off_t)at), 0);
		if (era_open(&config, &era, &err) < 0) {
			nr_refused++;
			continue;
		}
		for (uint64_t block = 10; block < 16; block++)
			expect_msg(core_has(env.db, 1, block), "MISSING: block %llu, with the -wal cut at %llu of %llu",
				(unsigned long long)block, (unsigned long long)at, (unsigned long long)size);
		core_close(era);
		break; /* opened: its session file is used up */
	}
	expect_gt(nr_refused, 0);
}
END_TEST

static struct era *switching; /* for the hook of the life below */

static int die_in_flush(struct core_fault *fault)
{
	if (fault->arg != NULL) {
		core_touch(switching, 2, 1); /* the gate is open again: written in the new era */
		kill(getpid(), SIGKILL);
	}
	return img_flush(fault->real);
}

START_TEST(test_5_killed_between_the_switch_of_eras_and_its_showing)
{
	struct core_env env;
	struct err err = ERR_INIT;
	int status_pipe[2];
	uint64_t era_nr, now;
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	expect_eq(pipe2(status_pipe, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct core_fault *fault = core_fault_new(env.image);
		fault->on_flush = die_in_flush;
		config.image = &fault->img;
		switching = core_open_with(&config);
		core_touch(switching, 1, 1);
		era_nr = core_era(switching);
		expect_eq(write(status_pipe[1], &era_nr, sizeof(era_nr)), sizeof(era_nr));
		fault->arg = fault;
		era_checkpoint(switching, "unseen", &now, &err);
		_exit(1);
	}
	expect_eq(read(status_pipe[0], &era_nr, sizeof(era_nr)), sizeof(era_nr));
	int status;
	expect_eq(waitpid(pid, &status, 0), pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	struct core_since since = core_since(env.db, era_nr);
	expect_eq(since.super.durable_era, era_nr);
	expect_eq(since.super.current_era, era_nr + 1);
	expect(core_since_has(&since, 1) && core_since_has(&since, 2));
	core_since_free(&since);
	struct era *era = core_open(&env);
	expect_gt(core_era(era), era_nr + 1);
	expect(core_has(env.db, era_nr, 1) && core_has(env.db, era_nr, 2));
	expect(core_has(env.db, era_nr + 1, 2) && !core_has(env.db, era_nr + 1, 1));
	expect_eq(era_label_remove(era, "unseen", &err), -ENOENT);
	core_close(era);
}
END_TEST

START_TEST(test_5_a_full_run_folder_is_said_and_is_no_signal)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct era *era = NULL;
	char filler[340];
	core_private_mounts();
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	core_close(core_open_with(&config));
	core_mount_tmpfs(env.run, "size=16k");
	snprintf(filler, sizeof(filler), "%s/filler", env.run);
	core_fill(filler);
	struct core_since before = core_since(env.db, 0);
	if (era_open(&config, &era, &err) < 0) {
		expect(err.text[0] != '\0');
		struct core_since after = core_since(env.db, 0);
		expect(memcmp(&before.super, &after.super, sizeof(after.super)) == 0);
		expect_eq(unlink(filler), 0);
		era = core_open_with(&config);
	}
	core_touch(era, 1, 1);
	core_close(era);
}
END_TEST

/* --- 7: power cut, the machine runs on the raw image for a while --- */

static void fake_new_boot(const struct core_env *env)
{
	char path[320];
	static const char id[] = "01234567-89ab-4cde-8f01-23456789abcd\n";
	snprintf(path, sizeof(path), "%s/boot_id", env->dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	expect_eq(write(fd, id, sizeof(id) - 1), sizeof(id) - 1);
	close(fd);
	expect_eq(mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL), 0);
}

START_TEST(test_7_raw_image_used_after_a_power_cut)
{
	struct core_env env;
	struct timespec up;
	uint64_t era_nr;
	core_private_mounts();
	core_env_init(&env, IMAGE_SIZE);
	struct era_config config = core_config(&env);
	clock_gettime(CLOCK_BOOTTIME, &up);
	core_set_mtime(env.image, -(int64_t)up.tv_sec - 200);
	short_life(&config, 0, 3, &era_nr);
	fake_new_boot(&env);
	core_set_mtime(env.image, 0); /* written since the machine started, with nobody to record it */
	core_open_refused(&config, -ESTALE, NULL);
	core_set_mtime(env.image, -(int64_t)up.tv_sec - 300); /* older than what the session had: an old copy */
	core_open_refused(&config, -ESTALE, NULL);
	core_set_mtime(env.image, -(int64_t)up.tv_sec - 100); /* last written before */
	struct era *era = core_open_with(&config);
	expect_gt(core_era(era), era_nr);
	for (uint64_t block = 0; block < 3; block++)
		expect(core_has(env.db, era_nr - 2 + block, block));
	core_close(era);
}
END_TEST

/* --- 8: the size was changed and nobody came to record it --- */

START_TEST(test_8_killed_between_a_change_of_size_and_its_commit)
{
	static const uint64_t sizes[] = { IMAGE_SIZE + 3 * CORE_BLOCK, IMAGE_SIZE - 100, 20 * CORE_BLOCK + 1 };
	struct core_env env;
	uint64_t era_nr, size = sizes[_i];
	core_env_init(&env, IMAGE_SIZE - CORE_BLOCK / 2);
	struct era_config config = core_config(&env);
	short_life(&config, 0, 3, &era_nr);
	expect_eq(truncate(env.image, (off_t)size), 0);
	core_open_refused(&config, -ESTALE, NULL);
	config.resize = true;
	short_life(&config, 5, 1, &era_nr); /* resized, and killed once more */
	config.resize = false;
	struct era *era = core_open_with(&config);
	uint64_t nr_blocks = (size + CORE_BLOCK - 1) / CORE_BLOCK;
	uint64_t smaller = size < IMAGE_SIZE - CORE_BLOCK / 2 ? size : IMAGE_SIZE - CORE_BLOCK / 2;
	for (uint64_t block = 0; block < nr_blocks; block++)
		expect(core_has(env.db, era_nr - 1, block) == (block == 5 || block >= (smaller - 1) / CORE_BLOCK));
	expect(core_has(env.db, 1, 0) && core_has(env.db, 1, 2));
	core_close(era);
}
END_TEST

/* --- 9: a failed fsync, a restart, and a cache that shows what the disk does not have --- */

/* The kernel's cache of one image; outlives the instances on it. */
struct cache {
	uint8_t page[NR_BLOCKS]; /* first byte of each block */
	bool cached[NR_BLOCKS];
	bool fail_next;
};

static ssize_t cached_pwrite(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	struct cache *cache = fault->arg;
	cache->page[offset / CORE_BLOCK] = *(const uint8_t *)buf;
	cache->cached[offset / CORE_BLOCK] = true;
	return (ssize_t)len;
}

static ssize_t cached_pread(struct core_fault *fault, void *buf, size_t len, uint64_t offset)
{
	const struct cache *cache = fault->arg;
	if (!cache->cached[offset / CORE_BLOCK])
		return img_pread(fault->real, buf, len, offset);
	*(uint8_t *)buf = cache->page[offset / CORE_BLOCK];
	return (ssize_t)len;
}

static int cached_flush(struct core_fault *fault)
{
	struct cache *cache = fault->arg;
	if (cache->fail_next) {
		/* Not written, and called clean from now on: no later fsync writes it. */
		cache->fail_next = false;
		return -EIO;
	}
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		if (cache->cached[block] && cache->page[block] != 0xbb)
			img_pwrite(fault->real, &cache->page[block], 1, block * CORE_BLOCK);
	return 0;
}

static int cached_drop(struct core_fault *fault)
{
	struct cache *cache = fault->arg;
	memset(cache->cached, 0, sizeof(cache->cached));
	return 0;
}

static struct era *open_cached(const struct core_env *env, struct cache *cache)
{
	struct core_fault *fault = core_fault_new(env->image);
	fault->arg = cache;
	fault->on_pwrite = cached_pwrite;
	fault->on_pread = cached_pread;
	fault->on_flush = cached_flush;
	fault->on_drop_cache = cached_drop;
	struct era_config config = core_config(env);
	config.image = &fault->img;
	return core_open_with(&config);
}

START_TEST(test_9_the_cache_showed_what_the_disk_never_had)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct cache *cache = calloc(1, sizeof(*cache));
	uint8_t byte = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = open_cached(&env, cache);
	core_touch(era, 4, 0xaa);
	uint64_t shown = core_checkpoint(era);
	core_touch(era, 4, 0xbb);
	cache->fail_next = true;
	expect_eq(core_fsync(era), -EIO);
	/* A backup reads the new byte from the cache. */
	expect_eq(img_pread(era_image(era), &byte, 1, 4 * CORE_BLOCK), 1);
	expect_eq(byte, 0xbb);
	era_close(era, &err);

	era = open_cached(&env, cache);
	uint64_t now = core_era(era);
	expect_gt(now, shown);
	expect_eq(img_pread(era_image(era), &byte, 1, 4 * CORE_BLOCK), 1);
	expect_msg(byte == 0xaa, "the cache was not dropped: it shows what eviction will take back");
	expect_msg(core_has(env.db, now, 4), "MISSING: the block went back to its old content in era %llu",
		(unsigned long long)now);
	core_close(era);
	free(cache);
}
END_TEST

/* --- 10: checkpoint A B against checkpoint B A --- */

struct both {
	struct era *first;
	struct era *second;
	pthread_barrier_t *together;
	unsigned int rounds;
	unsigned int nr_done;
	unsigned int nr_late;
	pthread_t thread;
};

static void checkpoint_both(struct both *both)
{
	struct err err = ERR_INIT;
	uint64_t now;
	int error = era_checkpoint_begin(both->first, &err);
	expect_msg(error == 0 || error == -ETIMEDOUT || error == -EBUSY, "%d: %s", error, err.text);
	if (both->together != NULL)
		pthread_barrier_wait(both->together);
	if (error < 0) {
		both->nr_late++;
		return;
	}
	error = era_checkpoint_begin(both->second, &err);
	if (error < 0) {
		expect_msg(error == -ETIMEDOUT || error == -EBUSY, "%d: %s", error, err.text);
		era_checkpoint_abort(both->first);
		both->nr_late++;
		return;
	}
	expect_eq(era_checkpoint_commit(both->first, NULL, -1, &now, &err), 0);
	expect_eq(era_checkpoint_commit(both->second, NULL, -1, &now, &err), 0);
	both->nr_done++;
}

static void *both_thread(void *arg)
{
	struct both *both = arg;
	for (unsigned int i = 0; i < both->rounds; i++)
		checkpoint_both(both);
	return NULL;
}

static void run_two(struct both both[2], struct era *eras[2])
{
	struct core_req req;
	uint8_t byte = 1;
	for (int i = 0; i < 2; i++)
		pthread_create(&both[i].thread, NULL, both_thread, &both[i]);
	core_req_init(&req, eras[0], CORE_WRITE, 3 * CORE_BLOCK, 1);
	req.data = &byte;
	core_req_submit(&req);
	for (int i = 0; i < 2; i++)
		pthread_join(both[i].thread, NULL);
	expect_eq(core_req_wait(&req), 0);
	core_touch(eras[0], 1, 1); /* both gates are open */
	core_touch(eras[1], 1, 1);
}

START_TEST(test_10_two_images_in_two_orders)
{
	struct core_env envs[2];
	struct era *eras[2];
	for (int i = 0; i < 2; i++) {
		core_env_init(&envs[i], IMAGE_SIZE);
		eras[i] = core_open(&envs[i]);
	}
	/* One order, as tools do (by UUID): all go through. */
	struct both same[2] = {
		{ .first = eras[0], .second = eras[1], .rounds = 50 },
		{ .first = eras[0], .second = eras[1], .rounds = 50 },
	};
	run_two(same, eras);
	expect_eq(same[0].nr_done + same[1].nr_done, 100);
	expect_eq(core_era(eras[0]), 101);
	expect_eq(core_era(eras[1]), 101);

	/* Opposite orders, each with one gate closed: it ends, and leaves both open. */
	pthread_barrier_t together;
	pthread_barrier_init(&together, NULL, 2);
	struct both crossed[2] = {
		{ .first = eras[0], .second = eras[1], .together = &together, .rounds = 1 },
		{ .first = eras[1], .second = eras[0], .together = &together, .rounds = 1 },
	};
	run_two(crossed, eras);
	expect_ge(crossed[0].nr_late + crossed[1].nr_late, 1);
	pthread_barrier_destroy(&together);
	core_checkpoint(eras[0]);
	core_checkpoint(eras[1]);
	core_close(eras[0]);
	core_close(eras[1]);
}
END_TEST

START_TEST(test_10_abort_leaves_the_era_and_lets_writers_on)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct core_req req;
	uint8_t byte = 1;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	uint64_t before = core_era(era);
	for (uint64_t i = 0; i < 50; i++) {
		expect_eq(era_checkpoint_begin(era, &err), 0);
		core_req_init(&req, era, CORE_WRITE, i % NR_BLOCKS * CORE_BLOCK, 1);
		req.data = &byte;
		core_req_submit(&req);
		expect(!core_req_is_over(&req));
		era_checkpoint_abort(era);
		expect_eq(core_req_wait(&req), 0);
		core_req_destroy(&req);
	}
	expect_eq(core_era(era), before);
	expect_eq(core_checkpoint(era), before + 1);
	core_close(era);
}
END_TEST

/* --- 11: an era of another line of metadata --- */

START_TEST(test_11_metadata_created_anew_are_no_answer_to_an_old_cursor)
{
	struct core_env env;
	struct era_status old, new;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	while (core_era(era) < 7)
		core_checkpoint(era);
	era_get_status(era, &old);
	core_close(era);
	expect_eq(unlink(env.db), 0);
	era = core_open(&env);
	while (core_era(era) < 8)
		core_checkpoint(era);
	era_get_status(era, &new);
	core_close(era);
	expect_ne(memcmp(old.uuid, new.uuid, 16), 0);
}
END_TEST

/* Metadata of era 10 put back after 20 was shown; with and without writes in between. Cursors of eras 11 to 20 are out:
 * the line that goes on from 10 must not answer them as its own. */
START_TEST(test_11_metadata_restored_from_an_older_era)
{
	struct core_env env;
	struct err err = ERR_INIT;
	char saved[340];
	bool writes = _i == 0;
	core_env_init(&env, IMAGE_SIZE);
	snprintf(saved, sizeof(saved), "%s.saved", env.db);
	struct era *era = core_open(&env);
	while (core_era(era) < 10)
		core_checkpoint(era);
	struct era_status old, now;
	era_get_status(era, &old);
	core_close(era);
	core_copy_db(env.db, saved);
	era = core_open(&env);
	while (core_era(era) < 20) {
		core_checkpoint(era);
		if (writes)
			core_touch(era, core_era(era), 1);
	}
	core_close(era);
	core_copy_db(saved, env.db);
	struct era_config config = core_config(&env);
	if (era_open(&config, &era, &err) < 0) {
		config.mark_all = true;
		era = core_open_with(&config);
	}
	era_get_status(era, &now);
	core_close(era);
	expect_msg(memcmp(old.uuid, now.uuid, 16) != 0 || now.current_era > 20,
		"era %llu of the same UUID comes a second time", (unsigned long long)now.current_era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_interleave");
	TCase *tcase = tcase_create("interleave");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_1_a_copy_after_the_reply_plus_since_is_the_image_after_a_power_loss);
	tcase_add_loop_test(tcase, test_5_a_copied_database_does_not_trust_the_originals_session, 0, 2);
	tcase_add_loop_test(tcase, test_5_a_database_put_back_in_place_under_a_newer_session, 0, 2);
	tcase_add_test(tcase, test_5_a_wal_cut_on_the_same_boot);
	tcase_add_test(tcase, test_5_killed_between_the_switch_of_eras_and_its_showing);
	tcase_add_test(tcase, test_5_a_full_run_folder_is_said_and_is_no_signal);
	tcase_add_test(tcase, test_7_raw_image_used_after_a_power_cut);
	tcase_add_loop_test(tcase, test_8_killed_between_a_change_of_size_and_its_commit, 0, 3);
	tcase_add_test(tcase, test_9_the_cache_showed_what_the_disk_never_had);
	tcase_add_test(tcase, test_10_abort_leaves_the_era_and_lets_writers_on);
	tcase_add_test(tcase, test_11_metadata_created_anew_are_no_answer_to_an_old_cursor);
	tcase_add_loop_test(tcase, test_11_metadata_restored_from_an_older_era, 0, 2);
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("crossed"); /* waits for ERA_SWITCH_WAIT_S: CK_RUN_CASE=interleave leaves it out */
	tcase_set_timeout(tcase, 4 * ERA_SWITCH_WAIT_S);
	tcase_add_test(tcase, test_10_two_images_in_two_orders);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
