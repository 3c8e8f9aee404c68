/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

static void override_with(const char *path)
{
	ck_assert_int_eq(setenv("ERAIMGFS_RUN_DIR", path, 1), 0);
}

static void expect_refused(const char *path, const char *reason)
{
	char dir[PATH_MAX];
	struct err err = ERR_INIT;
	override_with(path);
	ck_assert_int_eq(run_own_dir(dir, &err), -EPERM);
	ck_assert_msg(strstr(err.text, path) == err.text && strstr(err.text, reason) != NULL, "%s", err.text);
}

START_TEST(own_dir_is_made_private)
{
	char dir[PATH_MAX];
	struct err err = ERR_INIT;
	struct stat st;
	umask(0);
	override_with(testdir_path("own"));
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(run_own_dir(dir, &err), 0);
		ck_assert_str_eq(dir, testdir_path("own"));
		ck_assert_int_eq(lstat(dir, &st), 0);
		ck_assert_uint_eq(st.st_mode, S_IFDIR | 0700);
	}
}
END_TEST

START_TEST(traps_are_refused)
{
	char dir[PATH_MAX];
	struct err err = ERR_INIT;
	ck_assert_int_eq(mkdir(testdir_path("real"), 0700), 0);
	ck_assert_int_eq(symlink("real", testdir_path("link")), 0);
	expect_refused(testdir_path("link"), "not a directory");
	ck_assert_int_eq(symlink("nowhere", testdir_path("dangling")), 0);
	expect_refused(testdir_path("dangling"), "not a directory");
	int fd = open(testdir_path("file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	expect_refused(testdir_path("file"), "not a directory");
	ck_assert_int_eq(mkdir(testdir_path("open"), 0700), 0);
	ck_assert_int_eq(chmod(testdir_path("open"), 0720), 0);
	expect_refused(testdir_path("open"), "others may write");
	ck_assert_int_eq(chmod(testdir_path("open"), 0702), 0);
	expect_refused(testdir_path("open"), "others may write");
	/* Only the folder itself is made. */
	override_with(testdir_path("missing/own"));
	ck_assert_int_eq(run_own_dir(dir, &err), -ENOENT);
	ck_assert_int_eq(access(testdir_path("missing"), F_OK), -1);
}
END_TEST

struct visits {
	int nr;
	char paths[8][PATH_MAX];
	int stop_at;
};

static int visit(const char *path, void *arg)
{
	struct visits *visits = arg;
	ck_assert_int_lt(visits->nr, 8);
	snprintf(visits->paths[visits->nr++], PATH_MAX, "%s", path);
	return visits->nr == visits->stop_at ? 7 : 0;
}

START_TEST(override_is_the_only_one_visited)
{
	struct visits visits = { 0 };
	override_with(testdir_path("each"));
	ck_assert_int_eq(run_each_dir(visit, &visits), 0);
	ck_assert_int_eq(visits.nr, 0);
	ck_assert_int_eq(mkdir(testdir_path("each"), 0700), 0);
	ck_assert_int_eq(run_each_dir(visit, &visits), 0);
	ck_assert_int_eq(visits.nr, 1);
	ck_assert_str_eq(visits.paths[0], testdir_path("each"));
	ck_assert_int_eq(chmod(testdir_path("each"), 0777), 0);
	ck_assert_int_eq(run_each_dir(visit, &visits), -EPERM);
	ck_assert_int_eq(visits.nr, 1);
}
END_TEST

static void make_dir(const char *path, uid_t uid)
{
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(chown(path, uid, uid), 0);
}

/* A /run and /tmp of our own, in a mount namespace that ends with the process. */
static void private_run(void)
{
	ck_assert_int_eq(unsetenv("ERAIMGFS_RUN_DIR"), 0);
	ck_assert_int_eq(unsetenv("XDG_RUNTIME_DIR"), 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("test", "/run", "tmpfs", 0, "mode=0755"), 0);
	ck_assert_int_eq(mount("test", "/tmp", "tmpfs", 0, "mode=1777"), 0);
}

START_TEST(root_looks_into_all)
{
	struct visits visits = { 0 };
	private_run();
	make_dir("/run/eraimgfs", 0);
	make_dir("/run/user", 0);
	make_dir("/run/user/1000", 1000);
	make_dir("/run/user/1000/eraimgfs", 1000);
	make_dir("/run/user/1001", 1001);
	make_dir("/run/user/1001/eraimgfs", 1000); /* planted */
	make_dir("/run/user/1002", 1002);
	make_dir("/run/user/name", 1000);
	make_dir("/run/user/name/eraimgfs", 1000);
	make_dir("/tmp/eraimgfs-1003", 1003);
	make_dir("/tmp/eraimgfs-1004", 1003); /* planted */
	make_dir("/tmp/eraimgfs-1005x", 1005);
	make_dir("/tmp/eraimgfs-", 1005);
	ck_assert_int_eq(symlink("eraimgfs-1003", "/tmp/eraimgfs-1006"), 0);
	ck_assert_int_eq(run_each_dir(visit, &visits), 0);
	ck_assert_int_eq(visits.nr, 3);
	ck_assert_str_eq(visits.paths[0], "/run/eraimgfs");
	ck_assert_str_eq(visits.paths[1], "/run/user/1000/eraimgfs");
	ck_assert_str_eq(visits.paths[2], "/tmp/eraimgfs-1003");
	/* A visitor that has found what it looked for. */
	visits = (struct visits){ .stop_at = 2 };
	ck_assert_int_eq(run_each_dir(visit, &visits), 7);
	ck_assert_int_eq(visits.nr, 2);
}
END_TEST

START_TEST(a_users_folders)
{
	char dir[PATH_MAX];
	struct err err = ERR_INIT;
	private_run();
	make_dir("/run/user", 0);
	make_dir("/tmp/xdg", 1000);
	make_dir("/tmp/eraimgfs-1001", 1001);
	ck_assert_int_eq(chmod("/run/user", 0755), 0);
	testdir_become(1000);
	ck_assert_int_eq(run_own_dir(dir, &err), 0);
	ck_assert_str_eq(dir, "/tmp/eraimgfs-1000");
	testdir_become(0);
	make_dir("/run/user/1000", 1000);
	testdir_become(1000);
	ck_assert_int_eq(run_own_dir(dir, &err), 0);
	ck_assert_str_eq(dir, "/run/user/1000/eraimgfs");
	ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", "/tmp/xdg", 1), 0);
	ck_assert_int_eq(run_own_dir(dir, &err), 0);
	ck_assert_str_eq(dir, "/tmp/xdg/eraimgfs");
	/* A user visits his own alone. */
	struct visits visits = { 0 };
	ck_assert_int_eq(run_each_dir(visit, &visits), 0);
	ck_assert_int_eq(visits.nr, 1);
	ck_assert_str_eq(visits.paths[0], "/tmp/xdg/eraimgfs");
	/* What another user made in the caller's name is not used. */
	testdir_become(0);
	ck_assert_int_eq(chown("/tmp/xdg/eraimgfs", 1001, 1001), 0);
	testdir_become(1000);
	ck_assert_int_eq(run_own_dir(dir, &err), -EPERM);
	ck_assert_ptr_nonnull(strstr(err.text, "belongs to user 1001"));
	ck_assert_int_eq(run_each_dir(visit, &visits), -EPERM);
	ck_assert_int_eq(visits.nr, 1);
	testdir_become(0);
}
END_TEST

START_TEST(boot_id_is_stable)
{
	static const unsigned char none[16];
	unsigned char one[16] = { 0 }, two[16] = { 0 };
	ck_assert_int_eq(run_boot_id(one), 0);
	ck_assert_int_eq(run_boot_id(two), 0);
	ck_assert_mem_eq(one, two, 16);
	ck_assert_mem_ne(one, none, 16);
}
END_TEST

START_TEST(process_start)
{
	uint64_t own = 0, again = 0, first = UINT64_MAX, none = 0;
	ck_assert_int_eq(run_process_start(getpid(), &own), 0);
	ck_assert_uint_gt(own, 0);
	/* The name of a process may look like the fields behind it. */
	ck_assert_int_eq(prctl(PR_SET_NAME, "a) Z 1 (b"), 0);
	ck_assert_int_eq(run_process_start(getpid(), &again), 0);
	ck_assert_uint_eq(own, again);
	ck_assert_int_eq(run_process_start(1, &first), 0);
	ck_assert_uint_lt(first, own);

	pid_t child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(0);
	siginfo_t info;
	ck_assert_int_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	ck_assert_int_eq(run_process_start(child, &none), -ENOENT); /* a zombie */
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_eq(run_process_start(child, &none), -ENOENT);
	ck_assert_uint_eq(none, 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("run");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_add_test(tcase, own_dir_is_made_private);
	tcase_add_test(tcase, traps_are_refused);
	tcase_add_test(tcase, override_is_the_only_one_visited);
	tcase_add_test(tcase, boot_id_is_stable);
	tcase_add_test(tcase, process_start);
	if (geteuid() == 0) {
		tcase_add_test(tcase, root_looks_into_all);
		tcase_add_test(tcase, a_users_folders);
	} else {
		printf("run: skipped: the folders of several users (needs root)\n");
	}
	return testdir_main("run", tcase);
}
