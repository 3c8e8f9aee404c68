/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>

/* What log_write() put on stderr. */
static void log_capture(int level, const char *text, char *ret_line, size_t size)
{
	int pipe_fds[2];
	ck_assert_int_eq(pipe(pipe_fds), 0);
	int saved = dup(STDERR_FILENO);
	ck_assert_int_ge(saved, 0);
	dup2(pipe_fds[1], STDERR_FILENO);
	close(pipe_fds[1]);
	errno = EDOM;
	log_write(level, "%s", text);
	int errno_after = errno;
	dup2(saved, STDERR_FILENO);
	close(saved);
	ssize_t len = read(pipe_fds[0], ret_line, size - 1);
	ck_assert_int_ge(len, 0);
	ret_line[len] = '\0';
	close(pipe_fds[0]);
	ck_assert_int_eq(errno_after, EDOM);
}

START_TEST(stderr_line)
{
	char line[4096];
	log_init("era-test", false);
	log_capture(LOG_ERR, "it broke", line, sizeof(line));
	ck_assert_str_eq(line, "era-test: it broke\n");
}
END_TEST

START_TEST(debug_is_dropped_unless_asked_for)
{
	char line[4096];
	log_init("era-test", false);
	log_capture(LOG_DEBUG, "detail", line, sizeof(line));
	ck_assert_str_eq(line, "");
	log_init("era-test", true);
	log_capture(LOG_DEBUG, "detail", line, sizeof(line));
	ck_assert_str_eq(line, "era-test: detail\n");
}
END_TEST

START_TEST(overlong_line_still_ends)
{
	char text[3500], line[4096];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_init("era-test", false);
	log_capture(LOG_ERR, text, line, sizeof(line));
	size_t len = strlen(line);
	ck_assert_uint_gt(len, 1000);
	ck_assert_ptr_eq(strchr(line, '\n'), line + len - 1);
}
END_TEST

START_TEST(syslog_leaves_stderr_alone)
{
	char line[4096];
	log_init("era-test", true);
	log_to_syslog();
	log_capture(LOG_DEBUG, "quiet", line, sizeof(line));
	ck_assert_str_eq(line, "");
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("log");
	tcase_add_test(tcase, stderr_line);
	tcase_add_test(tcase, debug_is_dropped_unless_asked_for);
	tcase_add_test(tcase, overlong_line_still_ends);
	tcase_add_test(tcase, syslog_leaves_stderr_alone);
	return testdir_main("log", tcase);
}
