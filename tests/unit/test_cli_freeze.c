/* SPDX-License-Identifier: MIT */
/* era-cli checkpoint, freeze and thaw, on instances that this test plays, and on an ext4 for --fsfreeze. */
#include "cli_fixture.h"

#include <dirent.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#define FS_SIZE (16 << 20)

/* Unmounts what a test left, in the process that is not forked. */
static void fs_teardown(void)
{
	char command[2 * sizeof(testdir) + 200];
	snprintf(command, sizeof(command),
		"awk -v d='%s/' 'index($2, d) == 1 { print $2 }' /proc/mounts | while read -r m; do "
		"fsfreeze -u \"$m\" 2>/dev/null; umount \"$m\"; done",
		testdir);
	ck_assert_int_eq(system(command), 0);
	testdir_teardown();
}

/* --- what goes over the wire --- */

/* Of the played mounted file: how often it was opened and closed so far. */
static struct {
	int fd;
	unsigned int opened, closed, closed_at_gate;
} watched;

static void watch_read(void)
{
	char buffer[4096] __attribute__((aligned(8)));
	ssize_t n;
	while ((n = read(watched.fd, buffer, sizeof(buffer))) > 0) {
		for (char *at = buffer; at < buffer + n;) {
			const struct inotify_event *event = (const struct inotify_event *)at;
			watched.opened += (event->mask & IN_OPEN) != 0;
			watched.closed += (event->mask & IN_CLOSE) != 0;
			at += sizeof(*event) + event->len;
		}
	}
}

static void watch_at_gate(struct played *played, const char *word)
{
	if (strcmp(word, "gate") != 0)
		return;
	watch_read();
	watched.closed_at_gate = watched.closed;
}

static void watch(struct played *played)
{
	watched.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	ck_assert_int_ge(watched.fd, 0);
	ck_assert_int_ge(inotify_add_watch(watched.fd, played->instance.file, IN_OPEN | IN_CLOSE), 0);
	played->hook = watch_at_gate;
}

static void expect_watched(unsigned int wanted)
{
	watch_read();
	ck_assert_uint_eq(watched.opened, wanted);
	ck_assert_uint_eq(watched.closed, wanted);
	/* Not after the gate: it would wait there. */
	ck_assert_uint_eq(watched.closed_at_gate, wanted);
}

START_TEST(test_order)
{
	begin("order");
	make_pair("img", UUID_B, 0, false);
	make_pair("other", UUID_A, 0, false);
	struct played *a = play('a', "img", UUID_B), *b = play('b', "other", UUID_A);
	change(b, 40, NULL, NULL);
	watch(a);
	expect_output(sh("$E checkpoint img"), "6\n");
	ck_assert_str_eq(asked_since(), "aG aC ");
	expect_watched(1);
	expect_output(sh("$E freeze img"), "6\n");
	ck_assert_str_eq(asked_since(), "aP aG aF ");
	ck_assert_uint_eq(a->timeout_s, 60);
	expect_watched(2);
	expect_output(sh("$E thaw --era 6 mnt-a"), "7\n");
	ck_assert_str_eq(asked_since(), "aT ");
	expect_watched(2);
	/* All are prepared before any gate closes, all gates are closed before any commits. */
	expect_output(sh("$E freeze --timeout 0 img mnt-b other"), "img\t7\nmnt-b\t40\nother\t40\n");
	const char *order = asked_since();
	ck_assert(strncmp(order, "bP aP ", 6) == 0 || strncmp(order, "aP bP ", 6) == 0);
	ck_assert_int_eq(strncmp(order + 6, "bG aG ", 6), 0);
	ck_assert(strcmp(order + 12, "bF aF ") == 0 || strcmp(order + 12, "aF bF ") == 0);
	ck_assert_uint_eq(a->timeout_s, 0);
	ck_assert_uint_eq(b->timeout_s, 0);
	expect_output(sh("$E thaw mnt-b img"), "mnt-b\t41\nimg\t8\n");
	stop(a);
	stop(b);
}
END_TEST

/* One that is frozen is asked for its state, and not touched. */
START_TEST(test_frozen)
{
	static const char *const calls[] = { "checkpoint", "checkpoint --clone copy", "freeze", "freeze --clone copy" };
	begin("frozen");
	make_pair("img", UUID_A, 0, false);
	make_pair("other", UUID_B, 0, false);
	struct played *a = play('a', "img", UUID_A), *b = play('b', "other", UUID_B);
	watch(a);
	set_frozen(a, 4);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		expect_error(sh("$E %s img", calls[i]), 3, "img: is frozen: thaw it first (era-cli thaw)");
		if (strstr(calls[i], "clone") == NULL)
			expect_error(sh("$E %s other img", calls[i]), 3, "img: is frozen");
	}
	ck_assert_str_eq(asked_since(), "");
	expect_watched(0);
	ck_assert_int_eq(sh("$E status img"), 0);
	ck_assert_ptr_nonnull(strstr(out_text, "\nfrozen_era: 4\n"));
	expect_error(sh("$E thaw --era 3 img"), 1, "img: it is not frozen so");
	expect_output(sh("$E thaw --era 4 img"), "5\n");
	/* All are tried. */
	set_frozen(b, 4);
	ck_assert_int_eq(sh("$E thaw img other"), 1);
	ck_assert_str_eq(out_text, "");
	ck_assert_ptr_nonnull(strstr(err_text, "img: it is not frozen so"));
	ck_assert_uint_eq(b->frozen_era, 0);
	expect_watched(0);
	stop(a);
	ck_assert_int_eq(sh("$E thaw other img nothing"), 1);
	ck_assert_str_eq(out_text, "");
	stop(b);
	/* At rest. */
	expect_error(sh("$E thaw img"), 1, "is not mounted");
	expect_error(sh("$E freeze img"), 1, "is not mounted");
}
END_TEST

/* Metadata that a frozen instance left are as good as those of one that stopped in order. */
START_TEST(test_at_rest)
{
	struct err err = ERR_INIT;
	struct meta *meta;
	begin("at-rest");
	make_pair("img", UUID_A, 0, true);
	expect_output(sh("$E status img | grep -E '^(clean|frozen):'"), "clean: true\n");
	ck_assert_msg(meta_open("img.era", &meta, &err) == 0, "%s", err.text);
	ck_assert_int_eq(meta_begin(meta, META_FULL), 0);
	meta_pending(meta)->state = META_FROZEN;
	ck_assert_int_eq(meta_commit(meta), 0);
	meta_close(meta);
	expect_output(sh("$E status img | grep -E '^(clean|frozen):'"), "clean: true\nfrozen: true\n");
	expect_output(sh("$E since 5 img"), "20480\t4096\n");
	/* Newer than the freeze is no excuse. */
	ck_assert_int_eq(sh("touch -d '1 hour' img"), 0);
	expect_error(sh("$E since 5 img"), 5, "was changed while it was not mounted: it was modified");
}
END_TEST

START_TEST(test_usage)
{
	static const char *const calls[] = { "freeze --timeout -1 img", "freeze --timeout x img",
		"freeze --timeout '' img", "freeze --timeout 1.5 img", "freeze --timeout 10s img",
		"freeze --timeout 31622401 img", "freeze --timeout 99999999999999999999 img", "freeze --timeout",
		"freeze --era 3 img", "freeze -x img", "freeze --label x img", "freeze --clone",
		"freeze --clone x img other", "checkpoint --clone x img img", "freeze --clone - img",
		"checkpoint --clone - img", "thaw --era 0 img", "thaw --era -1 img", "thaw --era x img",
		"thaw --era 9223372036854775808 img", "thaw --era 99999999999999999999 img", "thaw --era 3 img other",
		"thaw --timeout 3 img", "thaw --fsfreeze /mnt img", "checkpoint --fsfreeze",
		"checkpoint --timeout 3 img" };
	begin("usage");
	make_pair("img", UUID_A, 0, false);
	make_pair("other", UUID_B, 0, false);
	struct played *a = play('a', "img", UUID_A), *b = play('b', "other", UUID_B);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		int status = sh("$E %s", calls[i]);
		ck_assert_msg(status == 2, "%s: exit %d: %s", calls[i], status, err_text);
		expect_error(status, 2, "");
	}
	ck_assert_str_eq(asked_since(), "");
	ck_assert_uint_eq(asked_statuses(), 0);
	expect_output(sh("$E freeze --timeout 31622400 img"), "5\n");
	ck_assert_uint_eq(a->timeout_s, 31622400);
	stop(a);
	stop(b);
}
END_TEST

/* Where one of several cannot freeze, none stays frozen. */
START_TEST(test_partial)
{
	begin("partial");
	make_pair("img", UUID_B, 0, false);
	make_pair("other", UUID_A, 0, false);
	struct played *a = play('a', "img", UUID_B), *b = play('b', "other", UUID_A);
	change(a, 5, "freeze", NULL);
	expect_error(sh("$E freeze img other"), 3, "img: it does not want to");
	ck_assert_uint_eq(b->frozen_era, 0);
	ck_assert_ptr_nonnull(strstr(asked_so_far(), "bF "));
	ck_assert_ptr_nonnull(strstr(asked_since(), "bT "));
	change(a, 5, "gate", NULL);
	expect_error(sh("$E freeze img other"), 3, "img: it does not want to");
	/* The order of UUIDs: it had its gate closed when the other was asked. */
	stop(b);
	ck_assert_int_eq(strncmp(asked_so_far() + 6, "bG ", 3), 0);
	ck_assert_ptr_nonnull(strstr(asked_so_far(), "b. "));
	ck_assert_ptr_null(strstr(asked_so_far(), "T"));
	ck_assert_ptr_null(strstr(asked_since(), "F"));
	change(a, 5, "freeze-prepare", NULL);
	expect_error(sh("$E freeze img"), 3, "img: it does not want to");
	ck_assert_str_eq(asked_since(), "");
	/* Who cannot be told the era cannot thaw it. */
	change(a, 5, NULL, NULL);
	expect_error(sh("$E freeze img >/dev/full"), 1, "No space left");
	ck_assert_uint_eq(a->frozen_era, 0);
	ck_assert_str_eq(asked_since(), "aP aG aF aT ");
	stop(a);
}
END_TEST

START_TEST(test_clone)
{
	static const char *const deeds[] = { "checkpoint", "freeze" };
	begin("clone");
	make_pair("img", UUID_A, 0, false);
	struct played *a = play('a', "img", UUID_A);
	touch("old", "old");
	ck_assert_int_eq(chmod("old", 0604), 0);
	for (size_t i = 0; i < 2; i++) {
		set_frozen(a, 0);
		change(a, 5, NULL, NULL);
		expect_output(sh("umask 027; $E %s --clone new img", deeds[i]), i == 0 ? "6\n" : "5\n");
		ck_assert_ptr_nonnull(strstr(asked_since(), i == 0 ? "aG ad aC " : "aG ad aF "));
		expect_file("new", "clone");
		expect_output(sh("stat -c %%a new; rm new"), "640\n");
		/* On failure it is as it was, and nothing is left beside it. */
		set_frozen(a, 0);
		change(a, 5, deeds[i], NULL);
		expect_error(sh("$E %s --clone old img", deeds[i]), 3, "img: it does not want to");
		expect_file("old", "old");
		expect_error(sh("$E %s --clone new img", deeds[i]), 3, "img: it does not want to");
		change(a, 5, "gate", NULL);
		expect_error(sh("$E %s --clone old img", deeds[i]), 3, "img: it does not want to");
		expect_output(sh("ls -A"), "img\nimg.era\nimg.era-shm\nimg.era-wal\nold\n");
		asked_since();
		expect_error(sh("$E %s --clone img.era img", deeds[i]), 2, "--clone names the file for the copy");
		expect_error(sh("$E %s --clone img img", deeds[i]), 2, "--clone names the file for the copy");
		expect_error(sh("$E %s --clone . img", deeds[i]), 2, "not a regular file");
		expect_error(sh("$E %s --clone /dev/null img", deeds[i]), 2, "not a regular file");
		expect_error(sh("$E %s --clone missing/new img", deeds[i]), 1, "missing/new");
		ck_assert_str_eq(asked_since(), "");
	}
	set_frozen(a, 0);
	change(a, 5, NULL, NULL);
	expect_output(sh("$E freeze --clone old img; stat -c %%a old"), "5\n604\n");
	expect_file("old", "clone");
	/* In the mount itself it would have to wait for its own freeze. */
	struct stat st;
	struct err err = ERR_INIT;
	ck_assert_int_eq(mkdir("sub", 0700), 0);
	ck_assert_int_eq(stat("sub", &st), 0);
	a->instance.mount_dev = st.st_dev;
	ck_assert_msg(ctl_registry_write(run_dir, &a->instance, &err) == 0, "%s", err.text);
	set_frozen(a, 0);
	expect_error(sh("$E freeze --clone sub/new img"), 2, "is on the mounted image itself");
	stop(a);
}
END_TEST

/* --- file systems --- */

static char fs[sizeof(files) + 8];

/* An ext4 in a file, mounted at $fs. */
static void make_fs(void)
{
	snprintf(fs, sizeof(fs), "%s/fs", files);
	ck_assert_int_eq(setenv("fs", fs, 1), 0);
	expect_output(sh("truncate -s %d ext4 && mkdir fs && mkfs.ext4 -q ext4 && mount -o loop ext4 fs", FS_SIZE), "");
}

/* Is the file system at fs frozen? Only a freeze can tell. */
static bool is_frozen(void)
{
	int fd = open(fs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s: %m", fs);
	bool frozen = ioctl(fd, FIFREEZE, 0) < 0 && errno == EBUSY;
	if (!frozen)
		ioctl(fd, FITHAW, 0);
	close(fd);
	return frozen;
}

/* Turns a moment, for a loop on a condition: the test's own time limit ends it. */
static void breathe(void)
{
	const struct timespec moment = { .tv_nsec = 10 * 1000000L };
	nanosleep(&moment, NULL);
}

static void await_thawed(void)
{
	while (is_frozen())
		breathe();
}

/* What hook_hold() holds the call for, and what it saw. */
static struct {
	const char *word; /* of the request */
	_Atomic bool reached, go_on, was_frozen;
} held;

static void hook_hold(struct played *played, const char *word)
{
	if (held.word == NULL || strcmp(word, held.word) != 0 || held.reached)
		return;
	held.was_frozen = is_frozen();
	held.reached = true;
	while (!held.go_on)
		breathe();
}

static void hold_at(struct played *played, const char *word)
{
	held.word = word;
	held.reached = held.go_on = held.was_frozen = false;
	played->hook = hook_hold;
}

/* Starts the program in the background, output into files "out" and "err". */
static pid_t start(const char *arguments)
{
	char command[2048];
	snprintf(command, sizeof(command), "exec $E %s >out 2>err </dev/null", arguments);
	char *argv[] = { "sh", "-c", command, NULL };
	pid_t pid;
	ck_assert_int_eq(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
	return pid;
}

static int finish(pid_t pid)
{
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* The one child of pid, 0: it has none. */
static pid_t child_of(pid_t pid)
{
	char path[64], text[32] = "";
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? (pid_t)atoi(text) : 0;
}

START_TEST(test_fsfreeze)
{
	begin("fsfreeze");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	/* Frozen while the gate is asked for, thawed when the command is back. */
	hold_at(a, "gate");
	held.go_on = true;
	expect_output(sh("$E checkpoint --fsfreeze fs img"), "6\n");
	ck_assert(held.was_frozen);
	ck_assert(!is_frozen());
	ck_assert_str_eq(asked_since(), "aG aC ");
	/* The freeze's command is back at once, and nobody holds its output; thawed with the instance. */
	hold_at(a, "freeze");
	held.go_on = true;
	expect_output(sh("era=$($E freeze --fsfreeze \"$fs\" img 2>&1) && echo \"=$era\""), "=6\n");
	ck_assert(held.was_frozen);
	ck_assert(is_frozen());
	expect_output(sh("$E thaw --era 6 img"), "7\n");
	await_thawed();
	/* A failure on the way. */
	static const char *const fails[] = { "freeze-prepare", "gate", "freeze" };
	for (size_t i = 0; i < 3; i++) {
		change(a, 7, fails[i], NULL);
		expect_error(sh("$E freeze --fsfreeze fs img"), 3, "img: it does not want to");
		ck_assert(!is_frozen());
	}
	change(a, 7, NULL, NULL);
	expect_error(sh("$E freeze --fsfreeze fs img >/dev/full"), 1, "No space left");
	ck_assert(!is_frozen());
	ck_assert_uint_eq(a->frozen_era, 0);
	/* The end of the instance is the end of its freeze. */
	expect_output(sh("$E freeze --fsfreeze fs img"), "8\n");
	ck_assert(is_frozen());
	stop(a);
	await_thawed();
	expect_output(sh("umount fs"), "");
}
END_TEST

/* Another freeze than the one that it was for does not keep it. */
START_TEST(test_fsfreeze_another)
{
	begin("another");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	expect_output(sh("$E freeze --fsfreeze fs img"), "5\n");
	/* As long as it is this one, the guard asks and waits. */
	unsigned int statuses = asked_statuses();
	while (asked_statuses() < statuses + 3)
		breathe();
	ck_assert(is_frozen());
	set_frozen(a, 6);
	await_thawed();
	stop(a);
	expect_output(sh("umount fs"), "");
}
END_TEST

START_TEST(test_fsfreeze_refused)
{
	begin("refused");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	touch("file", "");
	ck_assert_int_eq(symlink("fs", "link"), 0);
	ck_assert_int_eq(mkdir("fs/sub", 0700), 0);
	expect_error(sh("$E checkpoint --fsfreeze missing img"), 1, "missing: No such file");
	expect_error(sh("$E checkpoint --fsfreeze file img"), 1, "file: Not a directory");
	expect_error(sh("$E checkpoint --fsfreeze fs/sub img"), 1, "fs/sub: no file system is mounted there");
	expect_error(sh("$E checkpoint --fsfreeze fs --fsfreeze link img"), 2, "same file system");
	expect_error(sh("$E checkpoint --fsfreeze fs --clone fs/copy img"), 2, "that --fsfreeze freezes");
	expect_output(sh("mkdir tmp && mount -t tmpfs tmp tmp"), "");
	expect_error(
		sh("$E checkpoint --fsfreeze fs --fsfreeze tmp img"), 1, "tmp: is a file system that cannot be frozen");
	ck_assert(!is_frozen());
	/* Of somebody else, and left to him; what was frozen before it is thawed. */
	expect_output(
		sh("truncate -s %d second && mkdir fs2 && mkfs.ext4 -q second && mount -o loop second fs2", FS_SIZE),
		"");
	expect_output(sh("fsfreeze -f fs"), "");
	expect_error(sh("$E freeze --fsfreeze fs2 --fsfreeze fs img"), 1, "fs: is frozen already, by somebody else");
	ck_assert(is_frozen());
	expect_output(sh("fsfreeze -u fs; fsfreeze -f fs2 && fsfreeze -u fs2"), "");
	ck_assert_ptr_null(strchr(asked_since(), 'G'));
	stop(a);
	/* The image, or its metadata, on the file system that would be frozen. */
	make_pair("fs/img", UUID_B, 0, false);
	a = play('b', "fs/img", UUID_B);
	expect_error(sh("$E checkpoint --fsfreeze fs fs/img"), 1, "fs: holds ");
	stop(a);
	make_pair("img3", UUID_B, 0, false);
	a = play('b', "img3", UUID_B);
	struct err err = ERR_INIT;
	snprintf(a->instance.metadata, PATH_MAX, "%s/db", fs);
	ck_assert_msg(ctl_registry_write(run_dir, &a->instance, &err) == 0, "%s", err.text);
	expect_error(sh("$E checkpoint --fsfreeze fs mnt-b"), 1, "/fs/db, which eraimgfs must be able to write to");
	ck_assert_str_eq(asked_since(), "");
	stop(a);
	expect_output(sh("umount fs fs2 tmp"), "");
}
END_TEST

/* A thaw that came too early is told: what was copied meanwhile is not to be trusted. */
START_TEST(test_fsfreeze_thawed_by_another)
{
	begin("early");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	hold_at(a, "checkpoint");
	pid_t pid = start("checkpoint --fsfreeze fs --clone copy img");
	while (!held.reached)
		breathe();
	ck_assert(held.was_frozen);
	expect_output(sh("fsfreeze -u fs"), "");
	held.go_on = true;
	int status = finish(pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	expect_file("out", "");
	expect_file("err",
		"era-cli: fs: was thawed by somebody else meanwhile: its files may not be at one point in time: try again\n");
	ck_assert_int_lt(access("copy", F_OK), 0);
	stop(a);
	expect_output(sh("umount fs"), "");
}
END_TEST

/* era-cli is killed while the instance withholds its answer. */
START_TEST(test_fsfreeze_killed)
{
	static const char *const deeds[] = { "checkpoint", "freeze" };
	static const int signals[] = { SIGKILL, SIGINT };
	begin("killed");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	for (size_t i = 0; i < 4; i++) {
		char call[64];
		snprintf(call, sizeof(call), "%s --fsfreeze fs img", deeds[i % 2]);
		set_frozen(a, 0);
		hold_at(a, deeds[i % 2]);
		pid_t pid = start(call);
		while (!held.reached)
			breathe();
		ck_assert(held.was_frozen);
		pid_t guard = child_of(pid);
		ck_assert_int_gt(guard, 0);
		/* A terminal's signal goes to its whole group: none reaches the guard. */
		ck_assert_int_ne(getpgid(guard), getpgid(pid));
		ck_assert_int_ne(getsid(guard), getsid(pid));
		ck_assert_int_eq(kill(guard, SIGTERM), 0);
		ck_assert_int_eq(kill(guard, SIGHUP), 0);
		set_frozen(a, 77);
		kill(pid, signals[i / 2]);
		int status = finish(pid);
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == signals[i / 2]);
		/* As long as the instance is frozen FITHAW could wait in its gate. */
		unsigned int statuses = asked_statuses();
		while (asked_statuses() < statuses + 3)
			breathe();
		ck_assert(is_frozen());
		set_frozen(a, 0);
		await_thawed();
		held.go_on = true;
	}
	stop(a);
	expect_output(sh("umount fs"), "");
}
END_TEST

/* Its guard is: era-cli thaws by itself. */
START_TEST(test_fsfreeze_guard_killed)
{
	static const char *const deeds[] = { "checkpoint", "freeze" };
	begin("unguarded");
	make_pair("img", UUID_A, 0, false);
	make_fs();
	struct played *a = play('a', "img", UUID_A);
	for (size_t i = 0; i < 2; i++) {
		char call[64];
		snprintf(call, sizeof(call), "%s --fsfreeze fs img", deeds[i]);
		hold_at(a, deeds[i]);
		pid_t pid = start(call);
		while (!held.reached)
			breathe();
		ck_assert(held.was_frozen);
		ck_assert_int_eq(kill(child_of(pid), SIGKILL), 0);
		held.go_on = true;
		int status = finish(pid);
		/* After a checkpoint nothing is missing; a freeze without a guard would leave the file system
		 * frozen. */
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == (i == 0 ? 0 : 1));
		expect_file("out", i == 0 ? "6\n" : "");
		expect_output(sh("grep -c 'guard of --fsfreeze' err >/dev/null"), "");
		ck_assert(!is_frozen());
		ck_assert_uint_eq(a->frozen_era, 0);
	}
	ck_assert_str_eq(asked_since(), "aG aC aP aG aF aT ");
	stop(a);
	expect_output(sh("umount fs"), "");
}
END_TEST

int main(void)
{
	setenv("E", getenv("ERA_CLI"), 1); /* for the commands of the tests */
	TCase *tcase = tcase_create("cli_freeze");
	tcase_add_unchecked_fixture(tcase, testdir_setup, fs_teardown);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_order);
	tcase_add_test(tcase, test_frozen);
	tcase_add_test(tcase, test_at_rest);
	tcase_add_test(tcase, test_usage);
	tcase_add_test(tcase, test_partial);
	tcase_add_test(tcase, test_clone);
	if (geteuid() == 0) {
		tcase_add_test(tcase, test_fsfreeze);
		tcase_add_test(tcase, test_fsfreeze_another);
		tcase_add_test(tcase, test_fsfreeze_refused);
		tcase_add_test(tcase, test_fsfreeze_thawed_by_another);
		tcase_add_test(tcase, test_fsfreeze_killed);
		tcase_add_test(tcase, test_fsfreeze_guard_killed);
	} else {
		fprintf(stderr, "not root, so that nothing can be mounted: the tests of --fsfreeze are left out\n");
	}
	return testdir_main("cli_freeze", tcase);
}
