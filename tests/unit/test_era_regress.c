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

/* What recovery commits must not stand in the -wal behind a hole: a power loss would take it all. */
START_TEST(test_recovery_of_a_failed_session_leaves_no_hole_in_the_wal)
{
	const uint64_t block = 77;
	struct core_env env, lost;
	struct wal_fault fault = { false };
	struct err err = ERR_INIT;
	char from[340], to[340];
	atomic_bool flush_fails = false;
	core_env_init(&env, WAL_CHUNKS * BM_CHUNK_BITS * CORE_BLOCK);
	lost = env;
	snprintf(lost.db, sizeof(lost.db), "%s.lost", env.db);
	struct vfs_fault *vfs = vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = fail_in_checkpoint, .arg = &fault });
	core_close(core_open(&env));
	vfs_fault_keep_durable(vfs, lost.db);

	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &flush_fails;
	image->on_flush = failing_flush;
	config.image = &image->img;
	struct era *era = core_open_with(&config);
	lose_frames(era, &fault);
	atomic_store(&flush_fails, true);
	expect_eq(core_fsync(era), -EIO);
	expect_lt(era_close(era, &err), 0);

	era = core_open(&env);
	uint64_t now = core_era(era);
	core_touch(era, block, 3);
	expect_eq(core_fsync(era), 0);
	/* The power is cut: lost.db is what the disk has. */
	snprintf(from, sizeof(from), "%s.witness", env.db);
	snprintf(to, sizeof(to), "%s.witness", lost.db);
	core_copy_file(from, to);
	core_close(era);
	snprintf(from, sizeof(from), "%s.power-cut", env.db);
	core_copy_db(lost.db, from); /* before the close above wrote to it would be better still, but it only adds */
	core_set_mtime(env.image, -3600);
	era = core_open(&lost);
	expect_gt(core_era(era), now);
	expect_msg(core_has(lost.db, now, block), "MISSING: a block that was marked after the recovery");
	core_close(era);
}
END_TEST
