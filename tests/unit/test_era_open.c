/* SPDX-License-Identifier: MIT */
/* Opening: creation, recovery, the binding of image and metadata, refusals, and that a refusal changes nothing. */
#include "core_util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NR_BLOCKS 40

/* Writes the blocks in a child that dies without a stop. Returns the era that they are in. */
static uint64_t die_after(const struct era_config *config, const uint64_t *blocks, unsigned int nr)
{
	int fds[2];
	uint64_t era_nr = 0;
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(config);
		for (unsigned int i = 0; i < nr; i++)
			core_touch(era, blocks[i], 0xd1);
		era_nr = core_era(era);
		expect_eq(write(fds[1], &era_nr, sizeof(era_nr)), sizeof(era_nr));
		for (;;)
			pause();
	}
	close(fds[1]);
	expect_eq(read(fds[0], &era_nr, sizeof(era_nr)), sizeof(era_nr));
	close(fds[0]);
	core_kill(pid);
	return era_nr;
}

static void reopen_and_close(const struct era_config *config)
{
	core_close(core_open_with(config));
}

static void expect_all_anew(const struct core_env *env, const uint8_t old_uuid[16], uint64_t era)
{
	struct core_since since = core_since(env->db, 1);
	expect(since.all);
	expect_gt(since.super.current_era, era);
	expect_ne(memcmp(since.super.uuid, old_uuid, 16), 0);
	core_since_free(&since);
	since = core_since(env->db, since.super.durable_era);
	expect(since.all);
}

static struct meta_super super_of(const struct core_env *env)
{
	struct core_since since = core_since(env->db, 0);
	return since.super;
}

struct state {
	uint64_t db;
	uint64_t wal;
	uint64_t image;
};

static struct state state_of(const struct core_env *env)
{
	char wal[330];
	snprintf(wal, sizeof(wal), "%s-wal", env->db);
	return (struct state){
		.db = core_file_hash(env->db),
		.wal = core_file_size(wal) > 0 ? core_file_hash(wal) : 0,
		.image = core_file_hash(env->image),
	};
}

/* A refusal changes neither metadata nor image, and leaves no lock. */
static void expect_refused(const struct core_env *env, const struct era_config *config, int code, struct err *ret_err)
{
	struct meta_super before = super_of(env);
	struct state files = state_of(env);
	core_open_refused(config, code, ret_err);
	struct meta_super after = super_of(env);
	struct state files_after = state_of(env);
	expect(memcmp(&before, &after, sizeof(before)) == 0);
	expect_eq(files.image, files_after.image);
	expect_eq(files.db, files_after.db);
	expect_eq(files.wal, files_after.wal);
}

START_TEST(test_create_and_clean_reopen)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK - 1);
	struct era_config config = core_config(&env);
	config.create = false;
	core_open_refused(&config, -ENOENT, NULL);
	expect_eq(access(env.db, F_OK), -1);
	config.create = true;
	struct era *era = core_open_with(&config);
	struct era_status status;
	era_get_status(era, &status);
	expect_eq(status.current_era, 1);
	expect_eq(status.block_size, CORE_BLOCK);
	expect_eq(status.image_size, NR_BLOCKS * CORE_BLOCK - 1);
	expect_eq(status.nr_blocks, NR_BLOCKS);
	expect_eq(status.state, ERA_RUNNING);
	expect(!status.read_only && !status.image_is_device);
	core_touch(era, NR_BLOCKS - 1, 1);
	core_close(era);
	expect_eq(super_of(&env).state, META_CLEAN);

	config.create = false;
	config.block_size = 0; /* what the metadata have */
	era = core_open_with(&config);
	expect_eq(core_era(era), 2);
	expect(core_has(env.db, 1, NR_BLOCKS - 1));
	expect(!core_has(env.db, 2, NR_BLOCKS - 1));
	struct era_status again;
	era_get_status(era, &again);
	expect(memcmp(status.uuid, again.uuid, 16) == 0);
	expect_eq(again.block_size, CORE_BLOCK);
	core_close(era);
}
END_TEST

START_TEST(test_unclean_reopen_archives_the_era)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	uint64_t first = die_after(&config, (uint64_t[]){ 0, 7, 39 }, 3);
	expect_eq(super_of(&env).state, META_OPEN);
	uint64_t second = die_after(&config, (uint64_t[]){ 8 }, 1);
	expect_gt(second, first);
	struct era *era = core_open_with(&config);
	expect_gt(core_era(era), second);
	for (uint64_t block = 0; block < NR_BLOCKS; block++) {
		bool in_first = block == 0 || block == 7 || block == 39;
		expect(core_has(env.db, first, block) == (in_first || block == 8));
		expect(core_has(env.db, second, block) == (block == 8));
		expect(!core_has(env.db, core_era(era), block));
	}
	core_close(era);
}
END_TEST

START_TEST(test_other_block_size_is_refused)
{
	struct core_env env;
	struct err err;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	reopen_and_close(&config);
	config.block_size = 2 * CORE_BLOCK;
	expect_refused(&env, &config, -EINVAL, &err);
	config.mark_all = true;
	core_open_refused(&config, 0, NULL);
	config.mark_all = false;
	config.block_size = CORE_BLOCK;
	reopen_and_close(&config);
}
END_TEST

START_TEST(test_more_blocks_than_can_be_counted_are_refused)
{
	struct core_env env;
	core_env_init(&env, (BM_MAX_BITS + 1) * CORE_BLOCK);
	struct era_config config = core_config(&env);
	core_open_refused(&config, -EFBIG, NULL);
	expect_eq(access(env.db, F_OK), -1);
	/* The same by an image that grew. */
	expect_eq(truncate(env.image, 10 * CORE_BLOCK), 0);
	reopen_and_close(&config);
	expect_eq(truncate(env.image, (off_t)((BM_MAX_BITS + 1) * CORE_BLOCK)), 0);
	config.resize = true;
	core_open_refused(&config, 0, NULL);
	config.resize = false;
	config.mark_all = true;
	core_open_refused(&config, 0, NULL);
	expect_eq(super_of(&env).nr_blocks, 10);
}
END_TEST

struct resize_case {
	uint64_t from;
	uint64_t to;
	uint64_t first_marked; /* block */
};

static const struct resize_case resizes[] = {
	{ 10 * CORE_BLOCK, 20 * CORE_BLOCK, 9 },
	{ 10 * CORE_BLOCK + 100, 20 * CORE_BLOCK + 1, 10 },
	{ 10 * CORE_BLOCK + 100, 10 * CORE_BLOCK + 3000, 10 }, /* within one block */
	{ 10 * CORE_BLOCK + 3000, 10 * CORE_BLOCK + 100, 10 },
	{ 20 * CORE_BLOCK, 10 * CORE_BLOCK + 1, 10 },
	{ 20 * CORE_BLOCK, CORE_BLOCK, 0 },
	{ 1, 9000 * CORE_BLOCK, 0 },
	{ 9000 * CORE_BLOCK, 1, 0 },
};

START_TEST(test_wrong_size_is_refused_and_resize_accepts_it)
{
	const struct resize_case *c = &resizes[_i];
	struct core_env env;
	core_env_init(&env, c->from);
	struct era_config config = core_config(&env);
	struct era *era = core_open_with(&config);
	core_touch(era, 0, 1);
	core_touch(era, (c->from - 1) / CORE_BLOCK, 1);
	core_close(era);
	struct meta_super before = super_of(&env);
	expect_eq(truncate(env.image, (off_t)c->to), 0);
	expect_refused(&env, &config, -ESTALE, NULL);
	config.resize = true;
	era = core_open_with(&config);
	struct era_status status;
	era_get_status(era, &status);
	uint64_t nr_blocks = (c->to + CORE_BLOCK - 1) / CORE_BLOCK;
	expect_eq(status.image_size, c->to);
	expect_eq(status.nr_blocks, nr_blocks);
	expect(memcmp(status.uuid, before.uuid, 16) == 0);
	struct core_since since = core_since(env.db, status.current_era);
	expect_eq(since.super.nr_blocks, nr_blocks);
	for (uint64_t block = 0; block < nr_blocks; block++)
		expect_msg(core_since_has(&since, block) == (block >= c->first_marked), "block %llu",
			(unsigned long long)block);
	core_since_free(&since);
	expect(core_has(env.db, 1, 0));
	core_touch(era, nr_blocks - 1, 2);
	core_close(era);
	config.resize = false;
	reopen_and_close(&config);
}
END_TEST

/* Shrunk and grown again: what was in the tail before is no more, and comes back marked. */
START_TEST(test_shrink_and_grow_marks_the_tail_anew)
{
	struct core_env env;
	core_env_init(&env, 20 * CORE_BLOCK);
	struct era_config config = core_config(&env);
	die_after(&config, (uint64_t[]){ 15 }, 1); /* unclean as well */
	config.resize = true;
	expect_eq(truncate(env.image, 5 * CORE_BLOCK + 7), 0);
	reopen_and_close(&config);
	expect_eq(truncate(env.image, 20 * CORE_BLOCK), 0);
	struct era *era = core_open_with(&config);
	for (uint64_t block = 0; block < 20; block++)
		expect(core_has(env.db, core_era(era), block) == (block >= 5));
	core_close(era);
}
END_TEST

START_TEST(test_modified_image_is_refused_and_mark_all_goes_on)
{
	struct core_env env;
	struct err err;
	bool clean = _i == 0;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	if (clean)
		reopen_and_close(&config);
	else
		die_after(&config, (uint64_t[]){ 3 }, 1);
	struct meta_super before = super_of(&env);
	core_set_mtime(env.image, clean ? -1000 : 1000);
	expect_refused(&env, &config, -ESTALE, &err);
	expect(strstr(err.text, "mark-all") != NULL);
	config.mark_all = true;
	struct era *era = core_open_with(&config);
	struct era_status status;
	era_get_status(era, &status);
	expect_gt(status.current_era, before.current_era);
	expect_all_anew(&env, before.uuid, before.current_era);
	/* From the next era on answers are exact again. */
	uint64_t now = core_checkpoint(era);
	core_touch(era, 5, 1);
	expect(core_has(env.db, now, 5) && !core_has(env.db, now, 6));
	core_close(era);
	if (!clean)
		core_set_mtime(env.image, 0); /* the future would be refused once more */
	config.mark_all = !clean;
	reopen_and_close(&config);
}
END_TEST

/* mark_all where nothing is wrong changes nothing. */
START_TEST(test_mark_all_without_need)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	reopen_and_close(&config);
	struct meta_super before = super_of(&env);
	config.mark_all = true;
	reopen_and_close(&config);
	struct meta_super after = super_of(&env);
	expect(memcmp(before.uuid, after.uuid, 16) == 0);
	expect_eq(after.floor_era, 0);
	expect_eq(after.current_era, before.current_era + 1);
}
END_TEST

static void damage(const char *path, bool truncated)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t bytes[512];
	memset(bytes, 0xa5, sizeof(bytes));
	expect_ge(fd, 0);
	if (truncated)
		expect_eq(ftruncate(fd, 4096 + 100), 0);
	else
		for (uint64_t at = 4096; at < core_file_size(path); at += 1024)
			expect_eq(pwrite(fd, bytes, sizeof(bytes), (off_t)at), sizeof(bytes));
	close(fd);
}

START_TEST(test_damaged_metadata_are_refused_and_mark_all_sets_them_aside)
{
	struct core_env env;
	struct err err;
	char aside[400];
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	struct era *era = core_open_with(&config);
	for (int i = 0; i < 6; i++) {
		core_touch(era, (uint64_t)i, 1);
		core_checkpoint(era);
	}
	core_close(era);
	struct meta_super before = super_of(&env);
	damage(env.db, _i == 1);
	uint64_t hash = core_file_hash(env.db);
	core_open_refused(&config, 0, &err);
	expect_msg(err.code == -EUCLEAN || err.code == -EMEDIUMTYPE, "%d: %s", err.code, err.text);
	expect_eq(core_file_hash(env.db), hash);
	config.mark_all = true;
	reopen_and_close(&config);
	struct meta_super after = super_of(&env);
	expect_ne(memcmp(before.uuid, after.uuid, 16), 0);
	/* Truthful from its creation on, above all that was shown. */
	expect_gt(after.floor_era, before.current_era);
	expect_eq(after.floor_era, after.current_era);
	snprintf(aside, sizeof(aside), "%s.damaged-1", env.db);
	expect_eq(core_file_hash(aside), hash);
	config.mark_all = false;
	reopen_and_close(&config);
}
END_TEST

START_TEST(test_read_only_changes_nothing)
{
	struct core_env env;
	struct err err = ERR_INIT;
	uint64_t now;
	bool clean = _i == 0;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	struct era *era = core_open_with(&config);
	core_touch(era, 4, 1);
	core_close(era);
	if (!clean)
		die_after(&config, (uint64_t[]){ 5 }, 1);
	struct state before = state_of(&env);
	uint64_t last = super_of(&env).durable_era;
	config.read_only = true;
	era = core_open_with(&config);
	struct era_status status;
	era_get_status(era, &status);
	expect(status.read_only);
	expect_eq(status.current_era, last);
	uint8_t byte = 7;
	expect_eq(core_write(era, 0, &byte, 1), -EROFS);
	expect_eq(core_punch(era, 0, CORE_BLOCK), -EROFS);
	expect_eq(era_checkpoint(era, NULL, &now, &err), -EROFS);
	expect_eq(era_label_set(era, "a", 0, &now, &err), -EROFS);
	expect_eq(era_label_remove(era, "a", &err), -EROFS);
	expect_eq(img_pread(era_image(era), &byte, 1, 4 * CORE_BLOCK), 1);
	expect_eq(byte, 1);
	core_close(era);
	struct state after = state_of(&env);
	expect(memcmp(&before, &after, sizeof(before)) == 0);
}
END_TEST

START_TEST(test_read_only_on_a_read_only_mount)
{
	struct core_env outer, env;
	char where[320];
	core_private_mounts();
	core_env_init(&outer, 1);
	snprintf(where, sizeof(where), "%s", outer.run);
	core_mount_tmpfs(where, "size=16m");
	core_env_init_at(&env, where, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	config.run_dir = outer.dir;
	if (_i == 1)
		die_after(&config, (uint64_t[]){ 5 }, 1);
	else
		reopen_and_close(&config);
	expect_eq(mount("none", where, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	config.read_only = true;
	struct err err = ERR_INIT;
	struct era *era = NULL;
	int error = era_open(&config, &era, &err);
	/* A -wal with content cannot be read without a place for -shm: then it must say so. */
	expect_msg(error == 0 || _i == 1, "%d: %s", error, err.text);
	if (error == 0)
		core_close(era);
	else
		expect(err.text[0] != '\0');
	config.read_only = false;
	core_open_refused(&config, 0, NULL);
}
END_TEST

static void hold_open(const struct era_config *config, int ready)
{
	core_open_with(config);
	expect_eq(write(ready, "x", 1), 1);
	for (;;)
		pause();
}

START_TEST(test_second_instance_is_refused_while_the_first_lives)
{
	struct core_env env, other;
	struct err err;
	int fds[2];
	char byte;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	core_env_init(&other, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env), second;
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0)
		hold_open(&config, fds[1]);
	expect_eq(read(fds[0], &byte, 1), 1);
	struct meta_super before = super_of(&env);

	core_open_refused(&config, -EBUSY, &err); /* both */
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	second = config;
	second.image_path = other.image; /* the metadata alone */
	core_open_refused(&second, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	second = config;
	second.metadata_path = other.db; /* the image alone */
	core_open_refused(&second, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	second = config;
	second.mark_all = true;
	core_open_refused(&second, -EBUSY, NULL);
	char link_path[300];
	snprintf(link_path, sizeof(link_path), "%s/hard", env.dir);
	expect_eq(link(env.image, link_path), 0);
	second = core_config(&other);
	second.image_path = link_path;
	core_open_refused(&second, -EBUSY, NULL);
	expect_eq(access(other.db, F_OK), -1);

	struct meta_super after = super_of(&env); /* the first may digest meanwhile: commits count on */
	expect(memcmp(before.uuid, after.uuid, 16) == 0 && memcmp(before.nonce, after.nonce, 16) == 0);
	expect_eq(after.current_era, before.current_era);
	expect_eq(after.owner_pid, pid);
	core_kill(pid);
	reopen_and_close(&config);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(test_second_instance_in_one_process_is_refused)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	struct era *era = core_open_with(&config);
	for (int i = 0; i < 3; i++)
		core_open_refused(&config, -EBUSY, NULL);
	core_touch(era, 1, 1); /* the first still has its locks and its database */
	core_checkpoint(era);
	core_open_refused(&config, -EBUSY, NULL);
	core_close(era);
	reopen_and_close(&config);
}
END_TEST

/* Opened and killed 200 times, each time at another moment: no era comes twice. */
START_TEST(test_eras_never_go_back)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	uint64_t last = 0;
	for (unsigned int i = 0; i < 200; i++) {
		int fds[2];
		uint64_t shown;
		expect_eq(pipe2(fds, O_CLOEXEC), 0);
		pid_t pid = core_fork();
		if (pid == 0) {
			struct era *era = core_open_with(&config);
			for (shown = core_era(era);; shown = core_checkpoint(era)) {
				core_touch(era, shown % NR_BLOCKS, 1);
				expect_eq(write(fds[1], &shown, sizeof(shown)), sizeof(shown));
			}
		}
		close(fds[1]);
		for (unsigned int n = 0; n < 1 + i % 5; n++) {
			expect_eq(read(fds[0], &shown, sizeof(shown)), sizeof(shown));
			expect_gt(shown, last);
			last = shown;
		}
		core_kill(pid);
		while (read(fds[0], &shown, sizeof(shown)) == sizeof(shown)) {
			expect_gt(shown, last);
			last = shown;
		}
		close(fds[0]);
		expect_ge(super_of(&env).durable_era, last);
	}
	struct era *era = core_open_with(&config);
	expect_gt(core_era(era), last);
	core_close(era);
}
END_TEST

/* Each label and era outlives what it was acknowledged before. */
START_TEST(test_labels)
{
	struct core_env env;
	struct err err = ERR_INIT;
	uint64_t now = 0;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era *era = core_open(&env);
	expect_eq(era_checkpoint(era, "monday", &now, &err), 0);
	expect_eq(now, 2);
	expect_eq(era_label_set(era, "first", 1, &now, &err), 0);
	expect_eq(now, 1);
	expect_eq(era_label_set(era, "now", 0, &now, &err), 0);
	expect_eq(now, 2);
	expect_eq(era_label_set(era, "later", 3, &now, &err), -ERANGE);
	expect_lt(era_label_set(era, "7", 1, &now, &err), 0);
	expect_lt(era_checkpoint(era, "no label", &now, &err), 0);
	expect_eq(core_era(era), 2);
	core_touch(era, 1, 1); /* the gate is open */
	expect_eq(era_label_remove(era, "none", &err), -ENOENT);
	expect_eq(era_label_remove(era, "first", &err), 0);
	core_close(era);
	struct meta_reader *reader;
	expect_eq(meta_reader_open(env.db, &reader, &err), 0);
	expect_eq(meta_reader_label(reader, "monday", &now, &err), 0);
	expect_eq(now, 2);
	expect_eq(meta_reader_label(reader, "first", &now, &err), -ENOENT);
	expect_eq(meta_reader_label(reader, "later", &now, &err), -ENOENT);
	meta_reader_close(reader);
}
END_TEST

/* The session file is gone, or there was never room for one: never a smaller answer. */
START_TEST(test_session_file_missing_on_the_same_boot)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	uint64_t era_nr = die_after(&config, (uint64_t[]){ 3, 4 }, 2);
	core_empty_dir(env.run);
	struct era *era = core_open_with(&config);
	expect_gt(core_era(era), era_nr);
	expect(core_has(env.db, era_nr, 3) && core_has(env.db, era_nr, 4));
	expect(!core_has(env.db, core_era(era), 3));
	core_close(era);
	die_after(&config, (uint64_t[]){ 5 }, 1);
	core_empty_dir(env.run);
	core_set_mtime(env.image, 100);
	expect_refused(&env, &config, -ESTALE, NULL);
}
END_TEST

/* Writes to the image behind the instance's back. */
static void write_beside(const struct core_env *env, uint64_t block)
{
	int fd = open(env->image, O_WRONLY | O_CLOEXEC);
	expect_eq(pwrite(fd, "beside", 6, (off_t)(block * CORE_BLOCK)), 6);
	close(fd);
}

/* Waits until the clock of file systems has ticked well past our last write. */
static void let_clock_tick(void)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* A write beside a live instance, followed by none of its own: the stop must not vouch for it. */
START_TEST(test_write_beside_a_live_instance_is_not_vouched_for)
{
	struct core_env env;
	struct err err = ERR_INIT;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	struct era *era = core_open_with(&config);
	core_touch(era, 1, 1);
	let_clock_tick();
	write_beside(&env, 9);
	expect_eq(era_close(era, &err), -ESTALE);
	core_open_refused(&config, -ESTALE, NULL);
	core_open_refused(&config, -ESTALE, NULL);
	config.mark_all = true;
	era = core_open_with(&config);
	expect(core_has(env.db, core_era(era), 9));
	core_touch(era, 2, 1);
	core_close(era);
	config.mark_all = false;
	core_close(core_open_with(&config));
}
END_TEST

/* The same after a kill -9, at once: no slack but the clock's tick. */
START_TEST(test_write_right_after_a_kill_is_noticed)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	pid_t pid = core_fork();
	if (pid == 0) {
		core_touch(core_open_with(&config), 1, 1);
		let_clock_tick();
		_exit(0);
	}
	core_join(pid);
	if (_i == 0) {
		core_close(core_open_with(&config)); /* nobody wrote: fine */
		return;
	}
	write_beside(&env, 9);
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

/* An older copy of the image, put back with its mtime after a kill -9. */
START_TEST(test_older_image_put_back_after_a_kill_is_noticed)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	core_set_mtime(env.image, -100);
	struct timespec before = core_mtime(env.image);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(&config);
		core_touch(era, 1, 1);
		let_clock_tick();
		let_clock_tick(); /* the heartbeat has looked */
		_exit(0);
	}
	core_join(pid);
	core_put_mtime(env.image, before);
	core_open_refused(&config, -ESTALE, NULL);
	before.tv_sec -= 10; /* older than the session's start */
	core_put_mtime(env.image, before);
	core_empty_dir(env.run);
	core_open_refused(&config, -ESTALE, NULL);
}
END_TEST

/* A clock that is set back takes mtimes with it: that is no older image. */
START_TEST(test_clock_set_back_under_a_live_instance)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	struct era_config config = core_config(&env);
	core_set_mtime(env.image, -100);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open_with(&config);
		core_touch(era, 1, 1);
		let_clock_tick();
		core_set_mtime(env.image, -50); /* as a write of ours would, by such a clock */
		let_clock_tick();
		let_clock_tick(); /* the heartbeat has looked */
		_exit(0);
	}
	core_join(pid);
	core_close(core_open_with(&config));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_open");
	TCase *tcase = tcase_create("open");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_create_and_clean_reopen);
	tcase_add_test(tcase, test_unclean_reopen_archives_the_era);
	tcase_add_test(tcase, test_other_block_size_is_refused);
	tcase_add_test(tcase, test_more_blocks_than_can_be_counted_are_refused);
	tcase_add_loop_test(tcase, test_wrong_size_is_refused_and_resize_accepts_it, 0,
		(int)(sizeof(resizes) / sizeof(resizes[0])));
	tcase_add_test(tcase, test_shrink_and_grow_marks_the_tail_anew);
	tcase_add_loop_test(tcase, test_modified_image_is_refused_and_mark_all_goes_on, 0, 2);
	tcase_add_test(tcase, test_mark_all_without_need);
	tcase_add_loop_test(tcase, test_damaged_metadata_are_refused_and_mark_all_sets_them_aside, 0, 2);
	tcase_add_loop_test(tcase, test_read_only_changes_nothing, 0, 2);
	tcase_add_loop_test(tcase, test_read_only_on_a_read_only_mount, 0, 2);
	tcase_add_test(tcase, test_second_instance_is_refused_while_the_first_lives);
	tcase_add_test(tcase, test_second_instance_in_one_process_is_refused);
	tcase_add_test(tcase, test_eras_never_go_back);
	tcase_add_test(tcase, test_labels);
	tcase_add_test(tcase, test_session_file_missing_on_the_same_boot);
	tcase_add_test(tcase, test_write_beside_a_live_instance_is_not_vouched_for);
	tcase_add_loop_test(tcase, test_write_right_after_a_kill_is_noticed, 0, 2);
	tcase_add_test(tcase, test_older_image_put_back_after_a_kill_is_noticed);
	tcase_add_test(tcase, test_clock_set_back_under_a_live_instance);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
