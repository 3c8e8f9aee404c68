/* SPDX-License-Identifier: MIT */
/* Creating a database, and what it refuses to open. */
#include "../../src/meta/meta_private.h"
#include "meta_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

static int files_in(const char *path)
{
	int count = 0;
	DIR *dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	ck_assert_int_eq(close(fd), 0);
}

static void expect_open(const char *path, int code, const char *text)
{
	struct meta *meta = NULL;
	struct meta_reader *reader = NULL;
	struct err err = ERR_INIT;
	ck_assert_int_eq(meta_open(path, &meta, &err), code);
	ck_assert_ptr_null(meta);
	ck_assert_msg(strstr(err.text, text) && strstr(err.text, path), "%s", err.text);

	err = ERR_INIT;
	ck_assert_int_eq(meta_reader_open(path, &reader, &err), code);
	ck_assert_ptr_null(reader);
	ck_assert_msg(strstr(err.text, text) && strstr(err.text, path), "%s", err.text);
}

START_TEST(test_create)
{
	char folder[128];
	char path[160];
	snprintf(folder, sizeof(folder), "%s", fixture_path("create %41?&#"));
	ck_assert_int_eq(mkdir(folder, 0755), 0);
	snprintf(path, sizeof(path), "%s/%s", folder, "a b?mode=ro#%41.era");

	struct meta_super super = fixture_super(12345);
	super.image_size -= 17;
	super.image_is_device = true;
	super.image_mtime_ns = -5;
	super.current_era = super.durable_era = super.floor_era = 7;
	super.commit_counter = 5; /* starts at zero all the same */
	super.state = META_OPEN; /* likewise */
	struct err err = ERR_INIT;
	umask(0);
	ck_assert_msg(meta_create(path, &super, &err) == 0, "%s", err.text);

	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(files_in(folder), 1);

	ck_assert_int_eq(meta_create(path, &super, &err), -EEXIST);
	ck_assert_int_eq(files_in(folder), 1);

	fixture_check_sound(path);
	struct meta *meta = fixture_open(path);
	const struct meta_super *now = meta_super(meta);
	ck_assert_mem_eq(now->uuid, super.uuid, 16);
	ck_assert_uint_eq(now->image_size, super.image_size);
	ck_assert_uint_eq(now->nr_blocks, 12345);
	ck_assert_uint_eq(now->current_era, 7);
	ck_assert_uint_eq(now->durable_era, 7);
	ck_assert_uint_eq(now->floor_era, 7);
	ck_assert_uint_eq(now->commit_counter, 0);
	ck_assert_int_eq(now->state, META_CLEAN);
	ck_assert(now->image_is_device);
	ck_assert_int_eq(now->image_mtime_ns, -5);
	meta_close(meta);
}
END_TEST

START_TEST(test_super_round_trip)
{
	const char *path = fixture_path("super.era");
	fixture_create(path, 100);
	struct meta *meta = fixture_open(path);
	fixture_begin(meta);
	struct meta_super *pending = meta_pending(meta);
	memset(pending->nonce, 0xa5, 16);
	memset(pending->boot_id, 0x5a, 16);
	pending->current_era = INT64_MAX;
	pending->durable_era = INT64_MAX - 1;
	pending->floor_era = INT64_MAX - 2;
	pending->generation = 11;
	pending->state = META_FROZEN;
	pending->owner_pid = 12;
	pending->owner_start = 13;
	pending->image_mtime_ns = 14;
	struct meta_super want = *pending;
	fixture_commit(meta);
	want.commit_counter = 1;
	want.committed_at_ns = meta_super(meta)->committed_at_ns;
	ck_assert_uint_gt(want.committed_at_ns, UINT64_C(1600000000) * 1000000000);
	meta_close(meta);

	meta = fixture_open(path);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_mem_eq(meta_super(meta), &want, sizeof(want));
	ck_assert_mem_eq(meta_reader_super(reader), &want, sizeof(want));
	meta_reader_close(reader);
	meta_close(meta);
}
END_TEST

START_TEST(test_create_refused)
{
	struct err err = ERR_INIT;
	struct meta_super super = fixture_super(10);
	ck_assert_int_eq(meta_create(fixture_path("no/such/x.era"), &super, &err), -ENOENT);

	/* Left by a database that is gone: with content it is refused by name, empty it goes. */
	const char *path = fixture_path("stale.era");
	const char *wal = fixture_path("stale.era-wal");
	write_file(wal, "frames", 6);
	ck_assert_int_eq(meta_create(path, &super, &err), -ENOTEMPTY);
	ck_assert_msg(strstr(err.text, wal), "%s", err.text);
	ck_assert_int_eq(fixture_size(path, ""), -1);
	ck_assert_int_eq(fixture_size(wal, ""), 6);
	write_file(wal, "", 0);
	ck_assert_int_eq(meta_create(path, &super, &err), 0);
	fixture_check_sound(path);

	/* A dangling symlink is a name too. */
	const char *dangling = fixture_path("dangling.era");
	ck_assert_int_eq(symlink("/nowhere", dangling), 0);
	ck_assert_int_eq(meta_create(dangling, &super, &err), -EEXIST);

	static const struct {
		uint64_t block_size, image_size, nr_blocks;
	} bad[] = { { 0, 4096, 1 }, { 2048, 4096, 2 }, { 6144, 6144, 1 }, { UINT64_C(2) << 30, UINT64_C(2) << 30, 1 },
		{ 4096, 0, 0 }, { 4096, 8192, 1 }, { 4096, 4097, 1 },
		{ 4096, UINT64_C(4096) << 31, UINT64_C(1) << 31 } };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		super.block_size = bad[i].block_size;
		super.image_size = bad[i].image_size;
		super.nr_blocks = bad[i].nr_blocks;
		ck_assert_int_eq(meta_create(fixture_path("bad.era"), &super, &err), -EINVAL);
		ck_assert_int_eq(fixture_size(fixture_path("bad.era"), ""), -1);
	}
}
END_TEST

START_TEST(test_homes)
{
	static const char *const refused[] = { "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "ocfs2", "gfs2",
		"lustre", "fuse.sshfs", "fuse.glusterfs", "fuse.eraimgfs" };
	static const char *const fine[] = { "ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "zfs" };
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		ck_assert_msg(place_type_is_refused(refused[i]), "%s", refused[i]);
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		ck_assert_msg(!place_type_is_refused(fine[i]), "%s", fine[i]);
}
END_TEST

START_TEST(test_create_without_room)
{
	/* In a mount namespace of this process alone: the mount goes with it. */
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) {
		fprintf(stderr, "SKIPPED: creating on a full file system needs root and mount namespaces\n");
		return;
	}
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	char folder[128];
	snprintf(folder, sizeof(folder), "%s", fixture_path("small"));
	ck_assert_int_eq(mkdir(folder, 0755), 0);

	struct meta_super super = fixture_super(10);
	struct err err = ERR_INIT;
	static const char *const sizes[] = { "size=4k", "size=16k", "size=32k", "size=64k", "size=80k" };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		ck_assert_int_eq(mount("small", folder, "tmpfs", 0, sizes[i]), 0);
		int r = meta_create(fixture_path("small/x.era"), &super, &err);
		ck_assert_msg(r == -ENOSPC || r == -EIO, "%s: %s", sizes[i], strerror(-r));
		ck_assert_int_eq(files_in(folder), 0);
		ck_assert_int_eq(umount(folder), 0);
	}

	ck_assert_int_eq(mount("small", folder, "tmpfs", MS_RDONLY, "size=1m"), 0);
	ck_assert_int_eq(meta_create(fixture_path("small/x.era"), &super, &err), -EROFS);
	ck_assert_int_eq(umount(folder), 0);
}
END_TEST

START_TEST(test_open_refused)
{
	const char *path = fixture_path("open.era");
	expect_open(path, -ENOENT, "");
	ck_assert_int_eq(fixture_size(path, ""), -1);
	expect_open(fixture_dir, -EMEDIUMTYPE, "metadata=PATH");

	write_file(path, "", 0);
	expect_open(path, -EMEDIUMTYPE, "metadata=PATH");
	ck_assert_int_eq(fixture_size(path, ""), 0);
	char text[5000];
	memset(text, 'a', sizeof(text));
	write_file(path, text, sizeof(text));
	expect_open(path, -EMEDIUMTYPE, "metadata=PATH");
	write_file(path, text, 10);
	expect_open(path, -EMEDIUMTYPE, "metadata=PATH");
	ck_assert_int_eq(unlink(path), 0);

	sqlite3 *sql;
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	ck_assert_int_eq(
		sqlite3_exec(sql, "CREATE TABLE superblock(id); PRAGMA application_id=7", NULL, NULL, NULL), 0);
	sqlite3_close(sql);
	expect_open(path, -EMEDIUMTYPE, "metadata=PATH");
	fixture_remove(path);

	fixture_create(path, 10);
	static const struct {
		const char *change;
		int code;
		const char *text;
	} changes[] = {
		{ "PRAGMA user_version=3", -EPROTONOSUPPORT, "schema version 3, this one knows 2): upgrade" },
		{ "PRAGMA user_version=0", -EUCLEAN, "bypass=mark-all" },
		{ "PRAGMA user_version=2; CREATE TABLE more(a)", -EUCLEAN, "schema" },
		{ "DROP TABLE more; CREATE INDEX i ON label(era)", -EUCLEAN, "schema" },
		{ "DROP INDEX i; ALTER TABLE label RENAME TO names", -EUCLEAN, "schema" },
		{ "ALTER TABLE names RENAME TO label; ALTER TABLE writeset ADD COLUMN extra ANY", -EUCLEAN, "schema" },
	};
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
		ck_assert_int_eq(sqlite3_exec(sql, changes[i].change, NULL, NULL, NULL), SQLITE_OK);
		sqlite3_close(sql);
		expect_open(path, changes[i].code, changes[i].text);
	}

	/* The last table by name. */
	fixture_remove(path);
	fixture_create(path, 10);
	ck_assert_int_eq(sqlite3_open(path, &sql), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(sql, "DROP TABLE writeset_chunk", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(sql);
	expect_open(path, -EUCLEAN, "schema");
}
END_TEST

/* Rows whose checksums are right, and that no writer makes: each wrong turn is taken behind meta_commit()'s assertions. */
static void forge(struct meta *meta, int which)
{
	struct meta_super *super = &meta->pending.super;

	switch (which) {
	case 0:
		super->durable_era = super->current_era + 1;
		break;
	case 1:
		super->floor_era = super->current_era + 1;
		break;
	case 2:
		super->current_era = ERA_MAX + 1;
		break;
	case 3:
		super->nr_blocks++;
		break;
	case 4:
		super->block_size = 5000;
		break;
	case 5:
		super->state = (enum meta_state)(META_SNAPSHOT + 1);
		break;
	case 6: /* below the era array, a writeset and a label */
		super->current_era = super->durable_era = 0;
		break;
	case 7:
		ck_assert_int_eq(fixture_mark(meta, 9, 1), 0);
		break;
	case 8:
		ck_assert_int_eq(meta_label_set(meta, "ahead", 9), 0);
		break;
	case 9: /* a bit beyond the end, then a chunk */
		meta->row_blocks = 5000;
		ck_assert_int_eq(fixture_mark(meta, 3, 10), 0);
		break;
	case 10:
		meta->row_blocks = 5000;
		ck_assert_int_eq(fixture_mark(meta, 3, 4999), 0);
		break;
	case 11:
		meta->pending.array.sum ^= 1;
		break;
	case 12:
		meta->pending.labels.count++;
		break;
	}
}

static void count_finding(const char *text, void *arg)
{
	++*(int *)arg;
}

START_TEST(test_invariants)
{
	const char *path = fixture_path("forged.era");
	for (int which = -1; which < 13; which++) {
		fixture_create(path, 10);
		struct meta *meta = fixture_open(path);
		for (unsigned int i = 0; i < 3; i++) {
			uint64_t era = fixture_next_era(meta);
			fixture_begin(meta);
			ck_assert_int_eq(fixture_mark(meta, era, era), 0);
			ck_assert_int_eq(meta_label_set(meta, "here", era), 0);
			fixture_commit(meta);
		}
		fixture_digest(meta, 3, 1);
		fixture_begin(meta);
		forge(meta, which);
		ck_assert_int_eq(super_put(&meta->db, SQL_SUPER_SET, &meta->pending), 0);
		ck_assert_int_eq(db_run(&meta->db, db_stmt(&meta->db, SQL_COMMIT)), 0);
		meta_close(meta);

		struct err err = ERR_INIT;
		struct meta_reader *reader = NULL;
		int findings = 0;
		int r = meta_reader_open(path, &reader, &err);
		if (r == 0)
			r = meta_reader_check(reader, count_finding, &findings, &err);
		meta_reader_close(reader);
		ck_assert_msg(which < 0 ? r == 0 : r > 0 || r == -EUCLEAN, "forged %d: %d", which, r);
		meta = NULL;
		r = meta_open(path, &meta, &err);
		meta_close(meta);
		ck_assert_msg(r == (which < 0 ? 0 : -EUCLEAN), "forged %d: %d", which, r);
		fixture_remove(path);
	}
}
END_TEST

START_TEST(test_names)
{
	const char *path = fixture_path("names.era");
	const char *other = fixture_path("other.era");
	fixture_create(path, 10);

	/* The -wal goes by the real name behind a symlink. */
	ck_assert_int_eq(symlink(path, other), 0);
	struct meta *meta = fixture_open(other);
	fixture_next_era(meta);
	meta_close(meta);
	ck_assert_int_gt(fixture_size(path, "-wal"), 0);
	ck_assert_int_eq(fixture_size(other, "-wal"), -1);
	struct meta_reader *reader = fixture_reader(path);
	ck_assert_uint_eq(meta_reader_super(reader)->current_era, 1);
	meta_reader_close(reader);

	ck_assert_int_eq(unlink(other), 0);
	ck_assert_int_eq(link(path, other), 0);
	expect_open(path, -EMLINK, "hard links");
	expect_open(other, -EMLINK, "hard links");
}
END_TEST

START_TEST(test_labels_valid)
{
	static const char *const good[] = { "a", "_", "Z9", "nightly-2024.01.02_x",
		"a234567890123456789012345678901234567890123456789012345678901234" };
	static const char *const bad[] = { "", "1", "9a", "-a", ".a", "a b", "a:b", "a/b", "\xc3\xa4", "a\n",
		"a2345678901234567890123456789012345678901234567890123456789012345" };
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(meta_label_is_valid(good[i]), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!meta_label_is_valid(bad[i]), "%s", bad[i]);
}
END_TEST

FIXTURE_MAIN("meta_create", test_create, test_super_round_trip, test_create_refused, test_homes,
	test_create_without_room, test_open_refused, test_invariants, test_names, test_labels_valid)
