/* SPDX-License-Identifier: MIT */
/* Snapshots, labels, checkpoints, and what closing or dying leaves on disk. */
#include "meta_fixture.h"

#include <fcntl.h>

#define CHUNKS 20

/* A few eras, one block in each of some chunks. */
static struct meta *history(const char *path, unsigned int eras)
{
	fixture_create(path, CHUNKS * BM_CHUNK_BITS);
	struct meta *meta = fixture_open(path);
	for (unsigned int i = 0; i < eras; i++) {
		uint64_t era = fixture_next_era(meta);
		fixture_begin(meta);
		for (uint64_t chunk = era % 3; chunk < CHUNKS; chunk += 3)
			ck_assert_int_eq(fixture_mark(meta, era, chunk * BM_CHUNK_BITS + era), 0);
		fixture_commit(meta);
	}
	return meta;
}

static uint64_t count_since(const char *path, uint64_t era)
{
	struct meta_reader *reader = fixture_reader(path);
	struct bm *blocks = fixture_since(reader, era);
	uint64_t count = bm_count(blocks);
	bm_free(blocks);
	meta_reader_close(reader);
	return count;
}

START_TEST(test_snapshot)
{
	const char *path = fixture_path("snapshot.era");
	struct meta *meta = history(path, 8);
	struct meta_reader *old = fixture_reader(path);
	struct meta_reader *each[9];
	struct bm *before[10];
	for (uint64_t era = 0; era <= 9; era++)
		before[era] = fixture_since(old, era);

	/* Digestion changes no answer, neither of a snapshot nor of the database. */
	for (unsigned int i = 0; i < 9; i++) {
		bool more;
		fixture_begin(meta);
		ck_assert_int_eq(meta_digest(meta, 8, 5, &more), 0);
		fixture_commit(meta);
		each[i] = fixture_reader(path);
		for (uint64_t era = 0; era <= 9; era++) {
			struct bm *now = fixture_since(each[i], era);
			ck_assert(fixture_same(now, before[era]));
			bm_free(now);
		}
	}

	fixture_begin(meta);
	ck_assert_int_eq(fixture_mark(meta, 8, 4096 * 2 + 100), 0);
	ck_assert_int_eq(meta_label_set(meta, "new", 8), 0);
	fixture_commit(meta);
	fixture_next_era(meta);
	ck_assert_uint_eq(meta_reader_super(old)->current_era, 8);
	for (uint64_t era = 0; era <= 9; era++) {
		struct bm *now = fixture_since(old, era);
		ck_assert(fixture_same(now, before[era]));
		bm_free(now);
		now = fixture_since(each[era % 9], era);
		ck_assert(fixture_same(now, before[era]));
		bm_free(now);
	}
	uint64_t era;
	ck_assert_int_eq(meta_reader_label(old, "new", &era, NULL), -ENOENT);
	ck_assert_uint_eq(count_since(path, 1), bm_count(before[1]) + 1);

	meta_reader_close(old);
	for (unsigned int i = 0; i < 9; i++)
		meta_reader_close(each[i]);
	for (unsigned int i = 0; i < 10; i++)
		bm_free(before[i]);
	meta_close(meta);
}
END_TEST

/* What is not committed is seen by nobody, and rolled back by close. */
START_TEST(test_uncommitted)
{
	const char *path = fixture_path("uncommitted.era");
	struct meta *meta = history(path, 1);
	uint64_t before = count_since(path, 1);
	fixture_begin(meta);
	ck_assert_int_eq(fixture_mark(meta, 1, 4000), 0);
	meta_pending(meta)->current_era = 5;
	ck_assert_uint_eq(meta_super(meta)->current_era, 1);
	ck_assert_uint_eq(count_since(path, 1), before);
	meta_rollback(meta);
	meta_rollback(meta);
	ck_assert_uint_eq(meta_super(meta)->current_era, 1);
	fixture_begin(meta);
	ck_assert_uint_eq(meta_pending(meta)->current_era, 1);
	ck_assert_int_eq(fixture_mark(meta, 1, 4000), 0);
	meta_close(meta);
	ck_assert_uint_eq(count_since(path, 1), before);
	fixture_check_sound(path);
}
END_TEST

struct seen {
	char text[256];
	unsigned int stop_at;
	unsigned int count;
};

static int see_label(const char *name, uint64_t era, void *arg)
{
	struct seen *seen = arg;
	size_t len = strlen(seen->text);
	snprintf(seen->text + len, sizeof(seen->text) - len, "%s=%llu ", name, (unsigned long long)era);
	return ++seen->count == seen->stop_at ? 42 : 0;
}

START_TEST(test_labels)
{
	const char *path = fixture_path("labels.era");
	struct meta *meta = history(path, 5);
	fixture_begin(meta);
	ck_assert_int_eq(meta_label_set(meta, "b", 1), 0);
	ck_assert_int_eq(meta_label_set(meta, "a", 2), 0);
	ck_assert_int_eq(meta_label_set(meta, "c", 3), 0);
	ck_assert_int_eq(meta_label_set(meta, "b", 5), 0);
	ck_assert_int_eq(meta_label_remove(meta, "none"), -ENOENT);
	ck_assert_int_eq(meta_label_remove(meta, "c"), 0);
	ck_assert_int_eq(meta_label_remove(meta, "c"), -ENOENT);
	fixture_commit(meta);
	meta_close(meta);
	fixture_check_sound(path);

	struct meta_reader *reader = fixture_reader(path);
	struct seen seen = { .stop_at = 0 };
	ck_assert_int_eq(meta_reader_labels(reader, see_label, &seen, NULL), 0);
	ck_assert_str_eq(seen.text, "a=2 b=5 ");
	seen = (struct seen){ .stop_at = 1 };
	ck_assert_int_eq(meta_reader_labels(reader, see_label, &seen, NULL), 42);
	ck_assert_str_eq(seen.text, "a=2 ");
	uint64_t era = 0;
	ck_assert_int_eq(meta_reader_label(reader, "b", &era, NULL), 0);
	ck_assert_uint_eq(era, 5);
	struct meta_stats stats;
	ck_assert_int_eq(meta_reader_stats(reader, &stats, NULL), 0);
	ck_assert_uint_eq(stats.labels, 2);
	meta_reader_close(reader);
}
END_TEST

START_TEST(test_checkpoint)
{
	const char *path = fixture_path("checkpoint.era");
	struct meta *meta = history(path, 3);
	ck_assert_uint_gt(meta_wal_frames(meta), 0);
	ck_assert_uint_eq(meta_wal_frames(meta), (unsigned int)(fixture_size(path, "-wal") - 32) / (4096 + 24));

	struct meta_reader *reader = fixture_reader(path);
	fixture_next_era(meta);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_PASSIVE), 0);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), -EBUSY);
	ck_assert_int_gt(fixture_size(path, "-wal"), 0);
	ck_assert_uint_eq(meta_reader_super(reader)->current_era, 3);
	meta_reader_close(reader);

	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	ck_assert_int_eq(fixture_size(path, "-wal"), 0);
	ck_assert_uint_eq(meta_wal_frames(meta), 0);
	fixture_next_era(meta);
	ck_assert_uint_gt(meta_wal_frames(meta), 0);

	/* The database file alone is the whole of it after TRUNCATE. */
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	const char *copy = fixture_path("checkpoint-copy.era");
	fixture_copy(path, copy);
	uint64_t want = count_since(path, 1);
	fixture_check_sound(copy);
	ck_assert_uint_eq(count_since(copy, 1), want);
	meta_close(meta);
}
END_TEST

/* No commit checkpoints by itself, however long the -wal gets. */
START_TEST(test_no_autocheckpoint)
{
	const char *path = fixture_path("long.era");
	const char *copy = fixture_path("long-copy.era");
	fixture_create(path, UINT64_C(4000) * BM_CHUNK_BITS);
	fixture_copy(path, copy);
	struct meta *meta = fixture_open(path);
	fixture_next_era(meta);
	for (uint64_t i = 0; i < 4000; i++) {
		fixture_begin(meta);
		ck_assert_int_eq(fixture_mark(meta, 1, i * BM_CHUNK_BITS), 0);
		fixture_commit(meta);
	}
	ck_assert_uint_gt(meta_wal_frames(meta), 8000);
	char command[600];
	snprintf(command, sizeof(command), "cmp '%s' '%s'", path, copy);
	ck_assert_int_eq(system(command), 0);
	meta_close(meta);
	ck_assert_int_eq(system(command), 0);
	ck_assert_uint_eq(count_since(path, 1), 4000);
}
END_TEST

/* Closing neither checkpoints nor removes: database and -wal keep their bytes. */
START_TEST(test_close_leaves_wal)
{
	const char *path = fixture_path("leave.era");
	struct meta *meta = history(path, 4);
	meta_close(meta);
	int64_t size = fixture_size(path, "-wal");
	ck_assert_int_gt(size, 0);
	fixture_copy(path, fixture_path("leave-copy"));
	char wal[300];
	char command[1200];
	snprintf(wal, sizeof(wal), "%s-wal", path);
	fixture_copy(wal, fixture_path("leave-copy-wal"));
	snprintf(command, sizeof(command), "cmp '%s' '%s' && cmp '%s' '%s'", path, fixture_path("leave-copy"), wal,
		fixture_path("leave-copy-wal"));

	uint64_t want = count_since(path, 1);
	ck_assert_int_eq(system(command), 0);
	meta_close(fixture_open(path));
	ck_assert_int_eq(system(command), 0);
	fixture_check_sound(path);
	ck_assert_int_eq(system(command), 0);

	/* As a power loss leaves it: no -shm. */
	struct meta_reader *reader = fixture_reader(fixture_path("leave-copy"));
	ck_assert_uint_eq(meta_reader_super(reader)->current_era, 4);
	meta_reader_close(reader);
	ck_assert_uint_eq(count_since(fixture_path("leave-copy"), 1), want);
}
END_TEST

/* A process that dies with a transaction open leaves what it committed. */
START_TEST(test_kill)
{
	const char *path = fixture_path("kill.era");
	fixture_create(path, CHUNKS * BM_CHUNK_BITS);
	for (uint64_t round = 1; round <= 5; round++) {
		pid_t child = fork();
		ck_assert_int_ge(child, 0);
		if (child == 0) {
			struct meta *meta = fixture_open(path);
			uint64_t era = fixture_next_era(meta);
			if (meta_begin(meta, META_FULL) || fixture_mark(meta, era, era * 1000) || meta_commit(meta))
				_exit(1);
			if (meta_begin(meta, META_LAZY) || fixture_mark(meta, era, era * 1000 + 1))
				_exit(1);
			_exit(era == round ? 0 : 2);
		}
		int status;
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_int_eq(status, 0);
		ck_assert_uint_eq(count_since(path, 1), round);
		fixture_check_sound(path);
	}
}
END_TEST

/* The child reads as somebody who may write neither the file nor its folder. */
static void read_as_other(const char *path, const char *name, int want, uint64_t count)
{
	pid_t child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(100);
		struct meta_reader *reader = NULL;
		struct err err = ERR_INIT;
		int r = meta_reader_open(path, &reader, &err);
		if (r != want)
			fprintf(stderr, "%s: %d, not %d: %s\n", name, r, want, err.text);
		if (r != want)
			_exit(101);
		if (r == 0) {
			struct bm *blocks = NULL;
			r = meta_reader_since(reader, 1, &blocks, NULL, &err);
			if (r < 0 || bm_count(blocks) != count)
				_exit(102);
			bm_free(blocks);
			meta_reader_close(reader);
		}
		_exit(0);
	}
	int status;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(status == 0, "%s: status %d", name, WEXITSTATUS(status));
}

START_TEST(test_read_only_folder)
{
	char folder[128];
	snprintf(folder, sizeof(folder), "%s", fixture_path("readonly"));
	ck_assert_int_eq(mkdir(folder, 0755), 0);
	const char *path = fixture_path("readonly/x.era");
	struct meta *meta = history(path, 4);
	uint64_t want = count_since(path, 1);

	/* With a -wal that has content, while its writer lives and after. */
	char shm[300];
	char wal[300];
	snprintf(shm, sizeof(shm), "%s-shm", path);
	snprintf(wal, sizeof(wal), "%s-wal", path);
	ck_assert_int_eq(chmod(path, 0644), 0);
	ck_assert_int_eq(chmod(wal, 0644), 0);
	ck_assert_int_eq(chmod(shm, 0644), 0);
	ck_assert_int_eq(chmod(folder, 0555), 0);
	read_as_other(path, "live, with -wal", 0, want);
	read_as_other(path, "live, with -wal, again", 0, want);
	meta_close(meta);
	read_as_other(path, "at rest, with -wal", 0, want);

	/* Its content cannot be read without -shm: never an answer without it. */
	ck_assert_int_eq(chmod(folder, 0755), 0);
	ck_assert_int_eq(unlink(shm), 0);
	ck_assert_int_eq(chmod(folder, 0555), 0);
	read_as_other(path, "at rest, with -wal but no -shm", -EACCES, 0);

	ck_assert_int_eq(chmod(folder, 0755), 0);
	meta = fixture_open(path);
	ck_assert_int_eq(meta_wal_checkpoint(meta, META_WAL_TRUNCATE), 0);
	meta_close(meta);
	ck_assert_int_eq(unlink(shm), 0);
	ck_assert_int_eq(chmod(folder, 0555), 0);
	read_as_other(path, "empty -wal", 0, want);
	ck_assert_int_eq(chmod(folder, 0755), 0);
	ck_assert_int_eq(unlink(wal), 0);
	ck_assert_int_eq(chmod(folder, 0555), 0);
	read_as_other(path, "no -wal", 0, want);
	ck_assert_int_eq(chmod(folder, 0755), 0);
}
END_TEST

FIXTURE_MAIN("meta_reader", test_snapshot, test_uncommitted, test_labels, test_checkpoint, test_no_autocheckpoint,
	test_close_leaves_wal, test_kill, test_read_only_folder)
