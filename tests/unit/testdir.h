/* SPDX-License-Identifier: MIT */
/* testdir - a folder for one test case, gone afterwards. The setup and teardown are unchecked fixtures: they run in the
 * parent process of the tests, so also after a test that failed or crashed. */
#ifndef TESTDIR_H
#define TESTDIR_H

#include <check.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static char testdir[PATH_MAX / 2];

static inline int testdir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline void testdir_setup(void)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(testdir, sizeof(testdir), "%s/eraimgfs-unit-XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(testdir));
}

static inline void testdir_teardown(void)
{
	nftw(testdir, testdir_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Acts as another user, and as root again before the test ends (root only). The kernel takes such a process for one
 * with secrets, which would stop LeakSanitizer. */
static inline void testdir_become(uid_t uid)
{
	ck_assert_int_eq(seteuid(uid), 0);
	ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0);
}

/* Path of name in the folder; good until the fourth call after this one. */
static inline const char *testdir_path(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned int turn;
	char *path = paths[turn++ % 4];
	snprintf(path, PATH_MAX, "%s/%s", testdir, name);
	return path;
}

static inline int testdir_main(const char *name, TCase *tcase)
{
	Suite *suite = suite_create(name);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
