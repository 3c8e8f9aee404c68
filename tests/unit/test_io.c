/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/io.h"
#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

static int make_file(const char *name, const void *data, size_t len)
{
	int fd = open(testdir_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	return fd;
}

START_TEST(pread_is_short_only_at_the_end)
{
	char buf[16];
	int fd = make_file("read", "0123456789", 10);
	ck_assert_int_eq(io_pread_full(fd, buf, 10, 0), 10);
	ck_assert_mem_eq(buf, "0123456789", 10);
	ck_assert_int_eq(io_pread_full(fd, buf, 16, 4), 6);
	ck_assert_mem_eq(buf, "456789", 6);
	ck_assert_int_eq(io_pread_full(fd, buf, 1, 10), 0);
	ck_assert_int_eq(io_pread_full(fd, buf, 1, UINT64_C(1) << 63), -EINVAL);
	close(fd);
	ck_assert_int_eq(io_pread_full(fd, buf, 1, 0), -EBADF);
}
END_TEST

START_TEST(pwrite_tells_of_what_landed)
{
	char data[8192], back[8192];
	memset(data, 'd', sizeof(data));
	int fd = make_file("write", "", 0);
	/* A file may grow to 6000 bytes: the kernel writes those and fails the rest. */
	ck_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	struct rlimit limit;
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = 6000;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(io_pwrite_full(fd, data, sizeof(data), 0), 6000);
	ck_assert_int_eq(io_pwrite_full(fd, data, sizeof(data), 6000), -EFBIG);
	ck_assert_int_eq(io_pwrite_full(fd, data, 100, 0), 100);
	ck_assert_int_eq(io_pread_full(fd, back, sizeof(back), 0), 6000);
	ck_assert_mem_eq(back, data, 6000);
	close(fd);
	ck_assert_int_eq(io_pwrite_full(fd, data, 1, 0), -EBADF);
}
END_TEST

#define STREAM_LEN (4u << 20)

struct drain {
	int fd;
	char *data;
	size_t len;
};

static void *drain_run(void *arg)
{
	struct drain *drain = arg;
	ssize_t n;
	while ((n = read(drain->fd, drain->data + drain->len, 777)) > 0 && drain->len + 777 < STREAM_LEN + 4096)
		drain->len += (size_t)n;
	return NULL;
}

static void stream_through(int write_fd, int read_fd)
{
	char *data = malloc(STREAM_LEN), *got = malloc(STREAM_LEN + 8192);
	ck_assert(data != NULL && got != NULL);
	for (size_t i = 0; i < STREAM_LEN; i++)
		data[i] = (char)(i * 31 + i / 4096);
	struct drain drain = { read_fd, got, 0 };
	pthread_t thread;
	ck_assert_int_eq(pthread_create(&thread, NULL, drain_run, &drain), 0);
	ck_assert_int_eq(io_write_all(write_fd, data, STREAM_LEN), 0);
	close(write_fd);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(drain.len, STREAM_LEN);
	ck_assert_mem_eq(data, got, STREAM_LEN);
	close(read_fd);
	free(data);
	free(got);
}

START_TEST(write_all_gets_through_a_narrow_pipe)
{
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	stream_through(fds[1], fds[0]);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	stream_through(fds[1], fds[0]);
}
END_TEST

/* With SIGPIPE at its default: a signal would end the test. */
START_TEST(write_all_to_a_gone_peer)
{
	int fds[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	close(fds[0]);
	ck_assert_int_eq(io_write_all(fds[1], "x", 1), -EPIPE);
	close(fds[1]);
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	ck_assert_int_ge(full, 0);
	ck_assert_int_eq(io_write_all(full, "x", 1), -ENOSPC);
	close(full);
}
END_TEST

START_TEST(read_text)
{
	char text[8];
	close(make_file("text", "abc\n", 4));
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, sizeof(text)), 3);
	ck_assert_str_eq(text, "abc");
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, 5), 3);
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, 4), -E2BIG);
	close(make_file("text", "abc\n\n", 5));
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, sizeof(text)), 4);
	ck_assert_str_eq(text, "abc\n");
	close(make_file("text", "1234567\nrest", 12));
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, sizeof(text)), -E2BIG);
	close(make_file("text", "", 0));
	ck_assert_int_eq(io_read_text(testdir_path("text"), text, sizeof(text)), 0);
	ck_assert_str_eq(text, "");
	ck_assert_int_eq(io_read_text(testdir_path("missing"), text, sizeof(text)), -ENOENT);
}
END_TEST

START_TEST(fs_type)
{
	char type[32];
	struct stat st;
	ck_assert_int_eq(stat("/proc", &st), 0);
	ck_assert_int_eq(mounts_fs_type(st.st_dev, type, sizeof(type)), 0);
	ck_assert_str_eq(type, "proc");
	ck_assert_int_eq(mounts_fs_type(st.st_dev, type, 4), -E2BIG);
	ck_assert_int_eq(mounts_fs_type(makedev(4095, 1048575), type, sizeof(type)), -ENOENT);
}
END_TEST

static void check_absolute(const char *path, const char *expected)
{
	char *absolute = NULL;
	ck_assert_msg(io_absolute(path, &absolute) == 0, "%s", path);
	ck_assert_msg(strcmp(absolute, expected) == 0, "%s: %s instead of %s", path, absolute, expected);
	free(absolute);
}

START_TEST(absolute_paths)
{
	char real[PATH_MAX], expected[PATH_MAX + 16], *absolute = NULL;
	ck_assert_ptr_nonnull(realpath(testdir, real));
	ck_assert_int_eq(mkdir(testdir_path("dir"), 0700), 0);
	ck_assert_int_eq(symlink("dir", testdir_path("link")), 0);
	ck_assert_int_eq(symlink("nowhere", testdir_path("dangling")), 0);
	ck_assert_int_eq(chdir(testdir), 0);

	/* The last component stays as it is, there or not; what comes before it is resolved. */
	snprintf(expected, sizeof(expected), "%s/link", real);
	static const char *const links[] = { "link", "./link", "link/", "link//", "link/.", "link/./", "dir/../link" };
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		check_absolute(links[i], expected);
	check_absolute(testdir_path("link"), expected);
	snprintf(expected, sizeof(expected), "%s/dangling", real);
	check_absolute("dangling", expected);
	snprintf(expected, sizeof(expected), "%s/dir/new", real);
	check_absolute("link/new", expected);
	check_absolute("link//new", expected);
	snprintf(expected, sizeof(expected), "%s/dir/..new", real);
	check_absolute("link/..new", expected);
	check_absolute(".", real);
	check_absolute("./.", real);
	check_absolute("link/..", real);
	check_absolute("dir/../", real);
	check_absolute("/", "/");
	check_absolute("//", "/");
	check_absolute("/.", "/");
	check_absolute("/nowhere", "/nowhere");
	ck_assert_int_eq(io_absolute("", &absolute), -ENOENT);
	ck_assert_int_eq(io_absolute("missing/file", &absolute), -ENOENT);
	ck_assert_ptr_null(absolute);
}
END_TEST

START_TEST(sync_parent)
{
	ck_assert_int_eq(io_sync_parent(testdir_path("any")), 0);
	ck_assert_int_eq(io_sync_parent(testdir_path("missing/any")), -ENOENT);
	close(make_file("plain", "", 0));
	ck_assert_int_eq(io_sync_parent(testdir_path("plain/any")), -ENOTDIR);
	ck_assert_int_eq(chdir(testdir), 0);
	ck_assert_int_eq(io_sync_parent("any"), 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("io");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, pread_is_short_only_at_the_end);
	tcase_add_test(tcase, pwrite_tells_of_what_landed);
	tcase_add_test(tcase, write_all_gets_through_a_narrow_pipe);
	tcase_add_test(tcase, write_all_to_a_gone_peer);
	tcase_add_test(tcase, read_text);
	tcase_add_test(tcase, fs_type);
	tcase_add_test(tcase, absolute_paths);
	tcase_add_test(tcase, sync_parent);
	return testdir_main("io", tcase);
}
