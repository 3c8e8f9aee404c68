/* SPDX-License-Identifier: MIT */
/* The program itself, run on metadata at rest and on instances that this test plays. */
#include "cli_fixture.h"

#include <sys/inotify.h>

/* Metadata alone, whose answer is longer than 256 KiB. */
static void make_long(const char *image)
{
	enum { NR_CHUNKS = 16 };
	uint64_t words[BM_CHUNK_WORDS];
	memset(words, 0x55, sizeof(words));
	struct meta *meta = create(image, UUID_A, NR_CHUNKS * BM_CHUNK_BITS * BLOCK, NR_CHUNKS * BM_CHUNK_BITS);
	for (uint64_t i = 0; i < NR_CHUNKS; i++)
		ck_assert_int_eq(meta_writeset_or(meta, 5, i, words), 0);
	ck_assert_int_eq(meta_commit(meta), 0);
	meta_close(meta);
}

/* --- the words of a call --- */

START_TEST(test_help)
{
	static const char *const calls[] = { "--help", "-h", "status -h", "list --help", "checkpoint -h", "freeze -h",
		"thaw --help", "since --help", "label --help", "check -h", "since 1 x --help" };
	begin("help");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		ck_assert_msg(sh("$E %s", calls[i]) == 0, "%s: %s", calls[i], err_text);
		ck_assert_msg(strncmp(out_text, "Usage: era-cli", 14) == 0, "%s: %s", calls[i], out_text);
		for (char *line = strtok(out_text, "\n"); line != NULL; line = strtok(NULL, "\n"))
			ck_assert_msg(strlen(line) <= 80 && strchr(line, '\t') == NULL, "%s: %s", calls[i], line);
	}
	ck_assert_int_eq(sh("$E -V"), 0);
	ck_assert_int_eq(strncmp(out_text, "era-cli ", 8), 0);
	expect_error(sh("$E --help >/dev/full"), 1, "No space left");
	expect_error(sh("$E --version >&-"), 1, "standard output");
}
END_TEST

START_TEST(test_usage)
{
	static const char *const calls[] = { "", "nonsense", "--nonsense", "-x", "since", "since 1 --nonsense",
		"since 1 -x", "since 1 --format", "since 1 -o", "since 1 --count=3", "since 1 2 3", "status a b",
		"list a", "check a b", "label", "label nonsense", "label add", "label rm", "label list a b",
		"label list --era 3", "checkpoint --cursor=1", "since 1 --c --nonsense", "list --quiet" };
	begin("usage");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		expect_error(sh("$E %s", calls[i]), 2, "era-cli --help");
	/* Without a target and without instances. */
	expect_error(sh("$E since 1"), 2, "no instance is live");
	expect_error(sh("$E status ''"), 2, "empty");
	expect_error(sh("$E since 1 --format yaml x"), 2, "'yaml'");
	expect_error(sh("$E since 1 --format xml --count x"), 2, "exclude");
}
END_TEST

START_TEST(test_points)
{
	static const char *const bad[] = { "1x", "0x10", "+1", "' 1'", "''", "1:2", UUID_A "x:1", UUID_A ":",
		UUID_A ":x", UUID_A ":1:2", "a/b", "1.5", ":1", UUID_A ":99999999999999999999" };
	begin("points");
	make_pair("img", UUID_A, 0, true);
	expect_error(sh("$E since -1 img"), 2, "cannot be negative");
	expect_error(sh("$E since -- -1 img"), 2, "cannot be negative");
	expect_error(sh("$E since " UUID_A ":-1 img"), 2, "cannot be negative");
	expect_error(sh("$E label add x --era -1 img"), 2, "cannot be negative");
	expect_error(sh("$E since 99999999999999999999 img"), 2, "too great");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int status = sh("$E since %s img", bad[i]);
		ck_assert_msg(status == 2, "%s: exit %d", bad[i], status);
		expect_error(status, 2, "");
	}
	expect_error(sh("$E since 6 img"), 5, "img: era 6 has not begun (current era is 5): take a full backup");
	expect_error(sh("$E since 18446744073709551615 img"), 5, "has not begun");
	expect_error(sh("$E since sunday img"), 5, "no label 'sunday': take a full backup");
	expect_error(sh("$E since " UUID_B ":1 img"), 5, "take a full backup");
	expect_error(sh("$E since " UUID_B ":0 img"), 5, "take a full backup");
	expect_error(sh("$E since " UUID_A ":6 img"), 5, "take a full backup");
	expect_error(sh("$E label add 1x img"), 2, "cannot be a label");
	expect_error(sh("$E checkpoint --label 1x img"), 2, "cannot be a label");
}
END_TEST

/* --- metadata at rest --- */

START_TEST(test_since_offline)
{
	begin("offline");
	make_pair("img", UUID_A, 0, true);
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	expect_output(sh("$E since 4 img.era"), "20480\t4096\n32768\t4196\n");
	expect_output(sh("$E since monday img"), "20480\t4096\n32768\t4196\n");
	expect_output(sh("$E since " UUID_A ":4 img"), "20480\t4096\n32768\t4196\n");
	expect_output(sh("$E since 1 img --count"), "5\t16484\n");
	expect_output(sh("$E since 0 img"), "0\t36964\n");
	expect_output(sh("$E since 0 --require-exact --count img"), "10\t36964\n");
	expect_output(sh("$E since 2 --format=xml ./img"),
		"<blocks>\n  <range begin=\"0\" end=\"2\"/>\n  <block block=\"5\"/>\n  <range begin=\"8\" end=\"10\"/>\n</blocks>\n");
	expect_output(sh("$E since 5 --format rbd img"), "[{\"offset\":20480,\"length\":4096,\"exists\":\"true\"}]\n");
	expect_output(sh("$E since 5 --format json --require-exact img"),
		"{\"uuid\":\"" UUID_A
		"\",\"block_size\":4096,\"image_size\":36964,\"since\":5,\"current_era\":5,\"exact\":true,"
		"\"blocks\":1,\"bytes\":4096,\"extents\":[\n{\"offset\":20480,\"length\":4096}],\"conservative\":[]}\n");
	expect_output(sh("ERAIMGFS_TARGET=img $E since 5"), "20480\t4096\n");
	ck_assert_int_eq(mkdir("sub", 0700), 0);
	ck_assert_int_eq(symlink("../img.era", "sub/db"), 0);
	expect_output(sh("$E since 5 sub/db"), "20480\t4096\n");
	/* The metadata are beside the image, not beside a link to it. */
	ck_assert_int_eq(symlink("../img", "sub/link"), 0);
	expect_output(sh("$E since 5 sub/link"), "20480\t4096\n");
}
END_TEST

START_TEST(test_conservative)
{
	begin("conservative");
	make_pair("img", UUID_A, 4, false);
	/* Every block counts as written in era 4. */
	expect_output(sh("$E since 5 img --require-exact"), "20480\t4096\n");
	expect_error(sh("$E since 4 img --require-exact"), 4, "only feared");
	expect_error(sh("$E since 4 img --require-exact -o out"), 4, "only feared");
	ck_assert_int_lt(access("out", F_OK), 0);
	ck_assert_int_eq(sh("$E since 4 img"), 0);
	ck_assert_str_eq(out_text, "0\t36964\n");
	ck_assert_ptr_nonnull(strstr(err_text, "7 of the blocks"));
	expect_output(sh("$E since 3 img --format json"),
		"{\"uuid\":\"" UUID_A
		"\",\"block_size\":4096,\"image_size\":36964,\"since\":3,\"current_era\":5,\"exact\":false,"
		"\"blocks\":10,\"bytes\":36964,\"extents\":[\n{\"offset\":0,\"length\":36964}],\"conservative\":[\n"
		"{\"offset\":0,\"length\":20480},\n{\"offset\":24576,\"length\":8192}]}\n");
	expect_output(sh("$E since 0 img --require-exact"), "0\t36964\n");
	ck_assert_int_eq(sh("$E status img"), 0);
	ck_assert_ptr_nonnull(strstr(out_text, "exact: false\n"));
	ck_assert_ptr_nonnull(strstr(out_text, "clean: false\n"));
}
END_TEST

START_TEST(test_output_file)
{
	struct stat st;
	begin("output");
	make_pair("img", UUID_A, 0, true);
	expect_output(sh("umask 027; $E since 5 img -o new"), "");
	expect_file("new", "20480\t4096\n");
	ck_assert_int_eq(stat("new", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	touch("old", "old");
	ck_assert_int_eq(chmod("old", 0604), 0);
	ck_assert_int_eq(symlink("old", "link"), 0);
	ck_assert_int_eq(link("old", "kept"), 0);
	expect_output(sh("$E since 5 img --count -o link"), "");
	expect_file("old", "1\t4096\n");
	expect_file("kept", "old");
	ck_assert_int_eq(lstat("link", &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	ck_assert_int_eq(stat("old", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0604);
	expect_output(sh("$E since 5 img -o -"), "20480\t4096\n");
	/* A failure leaves the old file, and nothing beside it. */
	expect_error(sh("$E since 9 img -o kept"), 5, "has not begun");
	expect_file("kept", "old");
	expect_error(sh("$E since 5 img -o missing/file"), 1, "missing/file");
	expect_error(sh("$E since 5 img -o ."), 1, "directory");
	/* No file may grow beyond 128 KiB: stands for a disk that fills up while the answer is written. */
	make_long("long");
	expect_error(
		sh("text=$(trap '' XFSZ; ulimit -f 256; $E since 5 long -o kept 2>&1); r=$?; echo \"$text\" >&2; exit $r"),
		1, "kept: cannot write: File too large");
	expect_file("kept", "old");
	expect_error(sh("$E since 5 img >/dev/full"), 1, "No space left");
	expect_error(sh("$E since 5 img -o /dev/full"), 1, "No space left");
	ck_assert_int_eq(stat("/dev/full", &st), 0);
	ck_assert(S_ISCHR(st.st_mode));
	expect_error(sh("$E since 5 img >&-"), 1, "standard output");
	expect_output(sh("ls -A | grep -v '^img\\|^long'"), "kept\nlink\nnew\nold\n");
}
END_TEST

/* A reader that has gone is no news, but no success either. */
START_TEST(test_broken_pipe)
{
	begin("pipe");
	make_pair("img", UUID_A, 0, true);
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	close(ends[0]);
	ck_assert_int_eq(sh("$E since 5 img >&%d", ends[1]), 1);
	ck_assert_str_eq(err_text, "");
	close(ends[1]);
}
END_TEST

START_TEST(test_targets)
{
	begin("targets");
	make_pair("img", UUID_A, 0, true);
	expect_error(sh("$E since 1 nothing"), 1, "does not exist");
	touch("plain", "");
	expect_error(sh("$E since 1 plain"), 1, "/plain.era");
	expect_error(sh("$E since 1 ."), 1, "mount");
	ck_assert_int_eq(mkfifo("pipe", 0600), 0);
	expect_error(sh("$E since 1 pipe"), 1, "/pipe.era");
	/* The image may be elsewhere. */
	ck_assert_int_eq(unlink("img"), 0);
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	/* Not ours. */
	touch("fake", "SQLite format 3");
	ck_assert_int_eq(truncate("fake", 8192), 0);
	expect_error(sh("$E since 1 fake"), 1, "fake");
	expect_error(sh("$E label add x img"), 1, "is not mounted");
	expect_error(sh("$E label rm monday img"), 1, "is not mounted");
	expect_error(sh("$E checkpoint img"), 1, "is not mounted");
	expect_error(sh("$E checkpoint --cursor img img"), 1, "is not mounted");
}
END_TEST

/* Lets go of the lock after somebody has opened its file to look at it. */
static void *unlock_when_seen(void *arg)
{
	int *fd = arg;
	char event[4096];
	int watch = inotify_init1(IN_CLOEXEC);
	inotify_add_watch(watch, "img.era.lock", IN_OPEN);
	ssize_t seen = read(watch, event, sizeof(event));
	close(watch);
	close(*fd);
	return seen > 0 ? NULL : arg;
}

/* An instance that is not in our registry has the database: nobody reads beside it. */
START_TEST(test_locked)
{
	begin("locked");
	make_pair("img", UUID_A, 0, true);
	int fd = open("img.era.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	/* One of ours that no run folder lists is about to stop, and is waited for. */
	pthread_t stopping;
	ck_assert_int_eq(pthread_create(&stopping, NULL, unlock_when_seen, &fd), 0);
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	void *failed;
	pthread_join(stopping, &failed);
	ck_assert_ptr_null(failed);
}
END_TEST

/* Another user's is not. */
START_TEST(test_locked_by_another)
{
	begin("locked-by-another");
	make_pair("img", UUID_A, 0, true);
	int fd = open("img.era.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	/* Folders and program where the other can reach them. */
	ck_assert_int_eq(chmod("..", 0711), 0);
	ck_assert_int_eq(chmod(".", 0755), 0);
	ck_assert_int_eq(chmod("img.era", 0644), 0);
	ck_assert_int_eq(sh("install -m 0755 $E their-cli"), 0);
	expect_error(
		sh("setpriv --reuid=65534 --regid=65534 --clear-groups env -u ERAIMGFS_RUN_DIR ./their-cli since 5 img"),
		3, "is in use by another user's eraimgfs");
	close(fd);
}
END_TEST

START_TEST(test_status_and_labels)
{
	begin("status");
	make_pair("img", UUID_A, 0, true);
	ck_assert_int_eq(sh("$E status img --json"), 0);
	json_t *status = json_loads(out_text, 0, NULL);
	ck_assert_str_eq(ctl_string(status, "state"), "offline");
	ck_assert_str_eq(ctl_string(status, "uuid"), UUID_A);
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/img", files);
	ck_assert_str_eq(ctl_string(status, "image"), path);
	strcat(path, ".era");
	ck_assert_str_eq(ctl_string(status, "metadata"), path);
	static const struct {
		const char *name;
		uint64_t value;
	} numbers[] = { { "image_size", IMAGE_SIZE }, { "block_size", BLOCK }, { "nr_blocks", NR_BLOCKS },
		{ "current_era", 5 }, { "generation", 1 }, { "archived_eras", 2 }, { "undigested_blocks", 4 },
		{ "blocks_in_current_era", 1 }, { "labels", 2 } };
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uint64_t value;
		ck_assert_int_eq(ctl_u64(status, numbers[i].name, &value), 0);
		ck_assert_msg(value == numbers[i].value, "%s is %llu", numbers[i].name, (unsigned long long)value);
	}
	ck_assert(json_is_true(json_object_get(status, "clean")));
	ck_assert(json_is_true(json_object_get(status, "exact")));
	ck_assert(json_is_true(json_object_get(status, "mtime_checked")));
	ck_assert(json_is_false(json_object_get(status, "image_is_device")));
	json_decref(status);
	ck_assert_int_eq(sh("$E status img"), 0);
	ck_assert_int_eq(strncmp(out_text, "state: offline\nclean: true\nuuid: " UUID_A "\n", 66), 0);
	expect_output(sh("$E label list img"), "friday\t1\nmonday\t4\n");
	expect_output(sh("$E list"), "");
	expect_output(sh("$E list --json"), "[]\n");
}
END_TEST

START_TEST(test_check)
{
	begin("check");
	make_pair("img", UUID_A, 0, true);
	expect_output(sh("$E check img"), "");
	ck_assert_int_eq(sh("touch -d @1 img"), 0);
	ck_assert_int_eq(sh("$E check img"), 1);
	ck_assert_ptr_nonnull(strstr(out_text, "/img: was changed while it was not mounted: it was modified"));
	ck_assert_str_eq(err_text, "");
	/* The database alone says nothing of an image. */
	expect_output(sh("$E check img.era"), "");
	ck_assert_int_eq(truncate("img", IMAGE_SIZE + 1), 0);
	ck_assert_int_eq(sh("$E check img"), 1);
	ck_assert_ptr_nonnull(strstr(out_text, "/img: was changed while it was not mounted: it has 36965 bytes"));
	/* Not stopped in order: the time says nothing. */
	make_pair("open", UUID_B, 0, false);
	ck_assert_int_eq(sh("touch -d @1 open"), 0);
	expect_output(sh("$E check open"), "");
}
END_TEST

/* What database has committed, and steps more, is witnessed. */
static void witness(const char *database, int steps)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	ck_assert_msg(meta_reader_open(database, &reader, &err) == 0, "%s", err.text);
	struct meta_super super = *meta_reader_super(reader);
	meta_reader_close(reader);
	super.commit_counter += (uint64_t)steps;
	ck_assert_int_eq(meta_witness_write(database, &super), 0);
}

/* Metadata that a mount would refuse give no list of changes. */
START_TEST(test_behind)
{
	begin("behind");
	make_pair("img", UUID_A, 0, true);
	witness("img.era", 0);
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	expect_output(sh("$E check img"), "");
	witness("img.era", 1);
	static const char *const calls[] = { "5 img", "1 img.era", "monday img --count", UUID_A ":5 img" };
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		expect_error(sh("$E since %s", calls[i]), 5, "img.era: lacks commits");
	ck_assert_ptr_nonnull(strstr(err_text, "take a full backup"));
	/* Every block is every block. */
	expect_output(sh("$E since 0 img"), "0\t36964\n");
	ck_assert_int_eq(sh("$E check img"), 1);
	ck_assert_ptr_nonnull(strstr(out_text, "img.era: lacks commits"));
	ck_assert_int_eq(sh("$E check img.era"), 1);
	/* A witness of other metadata says nothing of these, one that cannot be read might. */
	make_pair("other", UUID_B, 0, true);
	ck_assert_int_eq(sh("cp img.era.witness other.era.witness"), 0);
	expect_output(sh("$E since 5 other"), "20480\t4096\n");
	ck_assert_int_eq(sh("rm other.era.witness; ln -s img.era.witness other.era.witness"), 0);
	expect_error(sh("$E since 5 other"), 1, "other.era.witness: cannot be read");
}
END_TEST

START_TEST(test_changed)
{
	begin("changed");
	make_pair("img", UUID_A, 0, true);
	ck_assert_int_eq(sh("touch -d @1 img"), 0);
	expect_error(sh("$E since 5 img"), 5, "/img: was changed while it was not mounted");
	ck_assert_ptr_nonnull(strstr(err_text, "take a full backup"));
	expect_error(sh("$E since 5 --count -o out img"), 5, "/img: was changed");
	expect_output(sh("$E since 0 img"), "0\t36964\n");
	/* The database alone does not know where its image is. */
	expect_output(sh("$E since 5 img.era"), "20480\t4096\n");
	make_pair("open", UUID_B, 0, false);
	ck_assert_int_eq(sh("touch -d @1 open"), 0);
	expect_output(sh("$E since 5 open"), "20480\t4096\n");
	/* Older than the last instance found it. */
	ck_assert_int_eq(sh("touch -d 1969-12-31T00:00:00Z open"), 0);
	expect_error(sh("$E since 5 open"), 5, "/open: was changed while it was not mounted");
	ck_assert_int_eq(truncate("open", IMAGE_SIZE - 1), 0);
	expect_error(sh("$E since 5 open"), 5, "/open: was changed while it was not mounted");
	expect_error(sh("$E since 0 open"), 5, "/open: was changed while it was not mounted");
}
END_TEST

/* --- what -o must not replace --- */

START_TEST(test_guarded_output)
{
	static const char *const files_of[] = { "img", "./img", "img.era", "img.era-wal", "img.era-shm",
		"img.era.witness", "img.era.lock", "link", "hard", "wal-link", "../files-guarded/img" };
	begin("guarded");
	make_pair("img", UUID_A, 0, true);
	make_pair("other", UUID_B, 0, true);
	witness("img.era", 0);
	ck_assert_int_eq(symlink("img", "link"), 0);
	ck_assert_int_eq(symlink("img.era-wal", "wal-link"), 0);
	ck_assert_int_eq(link("img", "hard"), 0);
	ck_assert_int_eq(sh("stat -c '%%n %%i %%s %%Z' *"), 0);
	char before[sizeof(out_text)];
	strcpy(before, out_text);
	for (size_t i = 0; i < sizeof(files_of) / sizeof(files_of[0]); i++) {
		expect_error(sh("$E since 5 img -o %s", files_of[i]), 2, "-o names the file for the list");
		expect_error(sh("$E since 5 img.era -o %s", files_of[i]), 2, "-o names the file for the list");
	}
	struct played *a = play('a', "img", UUID_A);
	/* Of an instance that is live, whatever TARGET is; its image also where the path leads to something else. */
	for (size_t i = 0; i < sizeof(files_of) / sizeof(files_of[0]); i++) {
		expect_error(sh("$E since 5 other -o %s", files_of[i]), 2, "-o names the file for the list");
		expect_error(sh("$E since 5 mnt-a --count -o %s", files_of[i]), 2, "-o names the file for the list");
	}
	expect_output(sh("stat -c '%%n %%i %%s %%Z' *"), before);
	ck_assert_int_eq(rename("img", "moved"), 0);
	make_image("img");
	expect_error(sh("$E since 5 other -o moved"), 2, "-o names the file for the list");
	expect_error(sh("$E since 5 other -o img"), 2, "-o names the file for the list");
	stop(a);
	expect_output(sh("$E since 5 other -o img.list"), "");
	expect_file("img.list", "20480\t4096\n");
}
END_TEST

/* --- live instances --- */

START_TEST(test_live)
{
	begin("live");
	make_pair("img", UUID_A, 0, false);
	make_pair("other", UUID_B, 0, false);
	struct played *a = play('a', "img", UUID_A);
	expect_output(sh("$E since 5"), "20480\t4096\n");
	expect_output(sh("$E since 5 mnt-a"), "20480\t4096\n");
	/* What may be shown is what the instance says, not what the database has already. */
	change(a, 4, NULL, NULL);
	expect_error(sh("$E since 5 img"), 5, "era 5 has not begun (current era is 4)");
	ck_assert_int_eq(sh("$E since 4 --format json"), 0);
	ck_assert_ptr_nonnull(strstr(out_text, "\"current_era\":4,"));
	change(a, 5, NULL, NULL);
	expect_output(sh("$E label add x"), "x\t5\n");
	expect_output(sh("$E label add x --era 3 img.era"), "x\t3\n");
	expect_output(sh("$E label rm x"), "");
	expect_output(sh("$E label list"), "friday\t1\nmonday\t4\n");
	expect_output(sh("$E check"), "");
	ck_assert_int_eq(sh("$E status"), 0);
	ck_assert_ptr_nonnull(strstr(out_text, "state: running\nuuid: " UUID_A "\ncurrent_era: 5\n"));
	ck_assert_ptr_nonnull(strstr(out_text, "\nblocks_in_current_era: 1\n"));
	ck_assert_ptr_null(strstr(out_text, "ok:"));
	expect_output(sh("$E checkpoint"), "6\n");
	expect_output(sh("$E checkpoint --cursor --label x mnt-a"), UUID_A ":7\n");
	ck_assert_str_eq(asked_so_far(), "aG aC aG aL ");
	char line[PATH_MAX * 3];
	snprintf(line, sizeof(line), "%s/mnt-a\t%s/img\t" UUID_A "\t%d\n", files, files, (int)getpid());
	expect_output(sh("$E list"), line);

	struct played *b = play('b', "other", UUID_B);
	expect_error(sh("$E since 5"), 2, "several instances are live");
	ck_assert_ptr_nonnull(strstr(err_text, "/mnt-a, "));
	expect_output(sh("$E since 5 mnt-b"), "20480\t4096\n");
	expect_output(sh("ERAIMGFS_TARGET=other $E checkpoint"), "6\n");
	change(b, 6, "query", NULL);
	expect_error(sh("$E since 5 other"), 3, "other: it does not want to");
	/* The socket must not take the place of a closed standard output. */
	expect_error(sh("$E checkpoint other >&-"), 1, "standard output");
	/* A database that is not the one which the instance has open. */
	change(a, 7, NULL, b->instance.metadata);
	expect_error(sh("$E since 5 img"), 1, "is not the metadata that its instance has open");
	stop(a);
	stop(b);
}
END_TEST

START_TEST(test_checkpoint_together)
{
	begin("together");
	make_pair("img", UUID_B, 0, false);
	make_pair("other", UUID_A, 0, false);
	struct played *a = play('a', "img", UUID_B), *b = play('b', "other", UUID_A);
	change(b, 40, NULL, NULL);
	/* In the order of UUIDs, whatever was named first; no checkpoint before all gates are closed. */
	expect_output(sh("$E checkpoint mnt-a mnt-b"), "mnt-a\t6\nmnt-b\t41\n");
	ck_assert_int_eq(strncmp(asked_so_far(), "bG aG ", 6), 0);
	ck_assert_ptr_nonnull(strstr(asked_so_far(), "aC"));
	ck_assert_ptr_nonnull(strstr(asked_so_far(), "bC"));
	expect_output(sh("$E checkpoint --cursor other img mnt-b"),
		"other\t" UUID_A ":42\nimg\t" UUID_B ":7\nmnt-b\t" UUID_A ":42\n");
	/* The same twice is one. */
	expect_output(sh("$E checkpoint img mnt-a"), "img\t8\nmnt-a\t8\n");
	change(a, 8, "gate", NULL);
	expect_error(sh("$E checkpoint mnt-b mnt-a"), 3, "mnt-a: it does not want to");
	change(a, 8, "checkpoint", NULL);
	expect_error(sh("$E checkpoint mnt-b mnt-a"), 3, "mnt-a: it does not want to");
	expect_error(sh("$E checkpoint mnt-b nothing"), 1, "nothing");
	stop(a);
	stop(b);
	/* Each gate that was closed was let go of with its connection. */
	unsigned int gates = 0, used = 0, ends = 0;
	for (const char *c = asked_so_far(); *c != '\0'; c++) {
		gates += *c == 'G';
		used += *c == 'C';
		ends += *c == '.';
	}
	ck_assert_uint_eq(gates, 2 + 2 + 1 + 1 + 2);
	ck_assert_uint_eq(used, 2 + 2 + 1 + 0 + 1);
	ck_assert_uint_eq(ends, gates - used);
}
END_TEST

/* The mount is no longer where it was: there is nothing to flush. */
START_TEST(test_checkpoint_detached)
{
	static const char *const gone[] = { "missing", "img/missing" };
	begin("detached");
	make_pair("img", UUID_A, 0, false);
	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
		struct played *a = play('a', "img", UUID_A);
		struct err err = ERR_INIT;
		snprintf(a->instance.file, PATH_MAX, "%s/%s", files, gone[i]);
		ck_assert_msg(ctl_registry_write(run_dir, &a->instance, &err) == 0, "%s", err.text);
		expect_output(sh("$E checkpoint img"), "6\n");
		stop(a);
	}
}
END_TEST

/* An instance that is stopped takes no call for ever. All at once, as each takes its time. */
START_TEST(test_no_answer)
{
	begin("no-answer");
	make_pair("img", UUID_A, 0, false);
	struct played *a = play('a', "img", UUID_A);
	pthread_mutex_lock(&asked.lock);
	ck_assert_int_eq(sh("$E since 5 img 2>since & a=$!; $E label rm monday img 2>rm & b=$!\n"
			    "$E label add x img 2>add & c=$!; $E checkpoint img 2>checkpoint & d=$!\n"
			    "$E status img 2>status & e=$!\n"
			    "for p in $a $b $c $d $e; do wait $p; test $? = 1 || exit 9; done"),
		0);
	pthread_mutex_unlock(&asked.lock);
	ck_assert_str_eq(out_text, "");
	ck_assert_int_eq(sh("grep -c 'img: .*does not answer.* is it stopped, or is its disk stuck?$' "
			    "since rm add checkpoint status"),
		0);
	ck_assert_str_eq(out_text, "since:1\nrm:1\nadd:1\ncheckpoint:1\nstatus:1\n");
	/* It was not asked for one by a client that had gone before. */
	ck_assert_str_eq(asked_so_far(), "");
	stop(a);
}
END_TEST

int main(void)
{
	setenv("E", getenv("ERA_CLI"), 1); /* for the commands of the tests */
	TCase *tcase = tcase_create("cli_args");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_help);
	tcase_add_test(tcase, test_usage);
	tcase_add_test(tcase, test_points);
	tcase_add_test(tcase, test_since_offline);
	tcase_add_test(tcase, test_conservative);
	tcase_add_test(tcase, test_output_file);
	tcase_add_test(tcase, test_broken_pipe);
	tcase_add_test(tcase, test_targets);
	tcase_add_test(tcase, test_locked);
	if (geteuid() == 0)
		tcase_add_test(tcase, test_locked_by_another);
	else
		fprintf(stderr, "not root, so that no other user can be played: test_locked_by_another is left out\n");
	tcase_add_test(tcase, test_status_and_labels);
	tcase_add_test(tcase, test_check);
	tcase_add_test(tcase, test_behind);
	tcase_add_test(tcase, test_changed);
	tcase_add_test(tcase, test_guarded_output);
	tcase_add_test(tcase, test_live);
	tcase_add_test(tcase, test_checkpoint_together);
	tcase_add_test(tcase, test_checkpoint_detached);
	tcase_add_test(tcase, test_no_answer);
	return testdir_main("cli_args", tcase);
}
