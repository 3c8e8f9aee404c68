/* SPDX-License-Identifier: MIT */
/*
 * ops - one operation on a file, its outcome in one word: for the shell tests.
 *
 * Prints the count, offset or "ok" that the system call gave, or the name of its error. Exits 0 in both cases, 2 when it
 * was called wrongly. Numbers may be written 0x10 or 4096.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int print_result(long long result)
{
	if (result < 0)
		printf("%s\n", strerrorname_np(errno));
	else
		printf("%lld\n", result);
	return 0;
}

static int print_ok(int result)
{
	if (result < 0)
		return print_result(-1);
	puts("ok");
	return 0;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "ops: %s: not a number\n", text);
		exit(2);
	}
	return value;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0) {
		printf("%s\n", strerrorname_np(errno));
		exit(0);
	}
	return fd;
}

/* Aligned for O_DIRECT; it goes with the process. */
static void *filled(uint64_t len, uint64_t byte)
{
	void *buf = mmap(NULL, len + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		exit(2);
	memset(buf, (int)byte, len);
	return buf;
}

static int write_at(char **arg, int flags)
{
	uint64_t len = number(arg[2]);

	return print_result(
		pwrite(open_or_die(arg[0], O_WRONLY | flags), filled(len, number(arg[3])), len, (off_t)number(arg[1])));
}

static int op_write(char **arg)
{
	return write_at(arg, 0);
}

static int op_write_direct(char **arg)
{
	return write_at(arg, O_DIRECT);
}

static int op_append(char **arg)
{
	return write_at(arg, O_APPEND);
}

static void ignore_signal(int signal)
{
}

/* SIGUSR1 interrupts it. */
static int op_write_interruptible(char **arg)
{
	struct sigaction action = { .sa_handler = ignore_signal };

	sigaction(SIGUSR1, &action, NULL);
	return write_at(arg, 0);
}

static int op_read(char **arg)
{
	uint64_t len = number(arg[2]);

	return print_result(pread(open_or_die(arg[0], O_RDONLY), filled(len, 0), len, (off_t)number(arg[1])));
}

static int op_truncate(char **arg)
{
	return print_ok(truncate(arg[0], (off_t)number(arg[1])));
}

static int op_ftruncate(char **arg)
{
	return print_ok(ftruncate(open_or_die(arg[0], O_RDWR), (off_t)number(arg[1])));
}

static int op_open_trunc(char **arg)
{
	open_or_die(arg[0], O_WRONLY | O_TRUNC);
	return print_ok(0);
}

static int op_create(char **arg)
{
	return print_ok(open(arg[0], O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int op_fsync(char **arg)
{
	return print_ok(fsync(open_or_die(arg[0], O_RDWR)));
}

static int op_fallocate(char **arg)
{
	return print_ok(fallocate(
		open_or_die(arg[0], O_RDWR), (int)number(arg[1]), (off_t)number(arg[2]), (off_t)number(arg[3])));
}

/* FROM OFFSET TO OFFSET LENGTH */
static int op_copy(char **arg)
{
	off64_t from = (off64_t)number(arg[1]);
	off64_t to = (off64_t)number(arg[3]);
	int fd_in = open_or_die(arg[0], O_RDONLY);
	int fd_out = open_or_die(arg[2], O_RDWR);

	return print_result(copy_file_range(fd_in, &from, fd_out, &to, number(arg[4]), 0));
}

static int op_seek(char **arg)
{
	int whence = strcmp(arg[1], "data") == 0 ? SEEK_DATA : SEEK_HOLE;

	return print_result(lseek(open_or_die(arg[0], O_RDONLY), (off_t)number(arg[2]), whence));
}

static int op_utimens(char **arg)
{
	struct timespec times[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };

	return print_ok(utimensat(AT_FDCWD, arg[0], times, 0));
}

/* A byte is put at an offset through a mapping. */
static int map_put(char **arg, int flags)
{
	uint64_t offset = number(arg[1]);
	uint64_t page = offset & ~UINT64_C(4095);
	int fd = open_or_die(arg[0], O_RDWR);
	uint8_t *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, (off_t)page);

	if (map == MAP_FAILED)
		return print_result(-1);
	map[offset - page] = (uint8_t)number(arg[2]);
	if (msync(map, 4096, MS_SYNC) != 0)
		return print_result(-1);
	printf("%u\n", map[offset - page]);
	return 0;
}

static int op_map_shared(char **arg)
{
	return map_put(arg, MAP_SHARED);
}

static int op_map_private(char **arg)
{
	return map_put(arg, MAP_PRIVATE);
}

/* Holds the file open until its standard input ends. */
static int op_hold(char **arg)
{
	open_or_die(arg[0], O_RDWR);
	puts("ok");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}

static const struct {
	const char *name;
	int nr_args;
	int (*run)(char **arg);
	const char *args;
} commands[] = {
	{ "write", 4, op_write, "FILE OFFSET LENGTH BYTE" },
	{ "write-direct", 4, op_write_direct, "FILE OFFSET LENGTH BYTE" },
	{ "write-interruptible", 4, op_write_interruptible, "FILE OFFSET LENGTH BYTE" },
	{ "append", 4, op_append, "FILE 0 LENGTH BYTE" },
	{ "read", 3, op_read, "FILE OFFSET LENGTH" },
	{ "truncate", 2, op_truncate, "FILE SIZE" },
	{ "ftruncate", 2, op_ftruncate, "FILE SIZE" },
	{ "open-trunc", 1, op_open_trunc, "FILE" },
	{ "create", 1, op_create, "FILE" },
	{ "fsync", 1, op_fsync, "FILE" },
	{ "fallocate", 4, op_fallocate, "FILE MODE OFFSET LENGTH" },
	{ "copy", 5, op_copy, "FROM OFFSET TO OFFSET LENGTH" },
	{ "seek", 3, op_seek, "FILE data|hole OFFSET" },
	{ "utimens", 1, op_utimens, "FILE" },
	{ "map-shared", 3, op_map_shared, "FILE OFFSET BYTE" },
	{ "map-private", 3, op_map_private, "FILE OFFSET BYTE" },
	{ "hold", 1, op_hold, "FILE" },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc >= 2 && strcmp(argv[1], commands[i].name) == 0 && argc == commands[i].nr_args + 2)
			return commands[i].run(argv + 2);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(stderr, "usage: ops %s %s\n", commands[i].name, commands[i].args);
	return 2;
}
