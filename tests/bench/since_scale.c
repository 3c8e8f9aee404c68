/* SPDX-License-Identifier: MIT */
/*
 * since_scale - what do `since`, the digest and an open cost where images are large?
 *
 *     since_scale [FOLDER [SHIFT [SHAPE]]]
 *
 * Builds metadata of several shapes in FOLDER (4 GB, and some minutes, at full size; SHIFT halves the images so many
 * times; SHAPE, from 0 on, is the only one). For each, before and after its digest: meta_open() with its whole
 * verification, and `since` for the newest era, the last one, one in the middle and the first, beside the sqlite3 shell
 * reading the same rows. Each figure is the best of some, by a process of its own, whose peak of memory stands beside it;
 * the file is in the page cache, but for "cold". The digest is stepped as the daemon does it. Prints figures, asserts
 * nothing: compare those of one machine only.
 */
#include "scale.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEST_OF 3
/* As src/core/digest.c has them. */
#define ROWS_FIRST 8u
#define ROWS_MAX 256u
#define STEP_NS_MAX 4000000
#define STEP_NS_LOW 1500000
#define WAL_FRAMES 1000u

static const struct shape shapes[] = {
	{ "1 TiB of 64 KiB, 100 eras of 1 %", 16777216, 100, SOME },
	{ "2^31 - 1 blocks, 10 eras of 4096 chunks", BM_MAX_BITS, 10, SPARSE },
	{ "8 TiB of 64 KiB, one era, 10^8 bits", 134217728, 1, DENSE },
	{ "8 TiB of 64 KiB, 4 eras of 10^8 bits", 134217728, 4, DENSE },
	{ "2^31 - 1 blocks, written whole", BM_MAX_BITS, 1, WHOLE },
	{ "2^31 - 1 blocks, 2 eras of 3/4", BM_MAX_BITS, 2, DENSE },
};

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* Bytes that this process has read so far, from wherever. */
static uint64_t bytes_read(void)
{
	uint64_t bytes = 0;
	FILE *io = fopen("/proc/self/io", "re");
	if (!io || fscanf(io, "rchar: %" SCNu64, &bytes) != 1)
		bytes = 0;
	if (io)
		fclose(io);
	return bytes;
}

static void begin(struct report *report)
{
	report->read_bytes = bytes_read();
	report->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	report->ns = now_ns();
}

static void end(struct report *report)
{
	report->ns = now_ns() - report->ns;
	report->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - report->cpu_ns;
	report->read_bytes = bytes_read() - report->read_bytes;
}

/* Runs job in a process of its own. *ret_peak_kib is its peak of resident memory. */
static void in_child(
	void (*job)(struct bench *, struct report *), struct bench *bench, struct report *report, long *ret_peak_kib)
{
	struct rusage usage;
	int status = 0;
	fflush(stdout);
	pid_t pid = fork();
	scale_must(pid < 0 ? -errno : 0, NULL, "fork");
	if (pid == 0) {
		job(bench, report);
		_exit(0);
	}
	if (wait4(pid, &status, 0, &usage) < 0 || status != 0) {
		fprintf(stderr, "%s: a part of the benchmark failed\n", bench->db);
		exit(1);
	}
	*ret_peak_kib = usage.ru_maxrss;
}

static void step(struct meta *meta, uint64_t below, unsigned int *nr_rows, bool *ret_more, struct report *report)
{
	int64_t begun = now_ns();
	scale_must(meta_begin(meta, META_LAZY), NULL, "begin");
	scale_must(meta_digest(meta, below, *nr_rows, ret_more), NULL, "digest");
	scale_must(meta_commit(meta), NULL, "commit");
	int64_t took = now_ns() - begun;

	if (report->steps < STEPS_MAX)
		report->step_ns[report->steps++] = took;
	if (took > STEP_NS_MAX && *nr_rows > 1)
		*nr_rows /= 2;
	else if (took < STEP_NS_LOW && *nr_rows < ROWS_MAX)
		*nr_rows *= 2;
}

static void write_back(struct meta *meta, unsigned int *written_back, struct report *report)
{
	unsigned int frames = meta_wal_frames(meta);
	if (frames < *written_back)
		*written_back = 0;
	if (frames > report->wal_frames)
		report->wal_frames = frames;
	if (frames <= *written_back + WAL_FRAMES)
		return;
	int64_t begun = now_ns();
	scale_must(meta_wal_checkpoint(meta, META_WAL_PASSIVE), NULL, "write-back");
	int64_t took = now_ns() - begun;
	if (took > report->longest_write_back_ns)
		report->longest_write_back_ns = took;
	*written_back = meta_wal_frames(meta);
}

static void digest(struct bench *bench, struct report *report)
{
	struct err err = ERR_INIT;
	struct meta *meta;
	unsigned int nr_rows = ROWS_FIRST, written_back = 0;
	bool more = true;

	scale_must(meta_open(bench->db, &meta, &err), &err, "open");
	begin(report);
	while (more) {
		step(meta, meta_super(meta)->durable_era, &nr_rows, &more, report);
		write_back(meta, &written_back, report);
	}
	end(report);
	scale_close(meta);
}

static void open_whole(struct bench *bench, struct report *report)
{
	struct err err = ERR_INIT;
	struct meta *meta;
	begin(report);
	scale_must(meta_open(bench->db, &meta, &err), &err, "open");
	end(report);
	meta_close(meta);
}

static void ask_since(struct bench *bench, struct report *report)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct bm *blocks;
	begin(report);
	scale_must(meta_reader_open(bench->db, &reader, &err), &err, "reader");
	scale_must(meta_reader_since(reader, bench->era, &blocks, NULL, &err), &err, "since");
	end(report);
	report->blocks = bm_count(blocks);
	bm_free(blocks);
	meta_reader_close(reader);
}

/* With nothing of the database in the page cache. Before there is a connection, whose locks a close() would drop. */
static void ask_since_cold(struct bench *bench, struct report *report)
{
	int fd = open(bench->db, O_RDWR | O_CLOEXEC);
	scale_must(fd < 0 || fdatasync(fd) < 0 ? -errno : 0, NULL, bench->db);
	scale_must(-posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), NULL, bench->db);
	close(fd);
	ask_since(bench, report);
}

/* The same rows, none of them checked, nor made into an answer. */
static void ask_shell(struct bench *bench, struct report *report)
{
	char uri[600], query[600];
	snprintf(uri, sizeof(uri), "file:%s?immutable=1", bench->db);
	snprintf(query, sizeof(query),
		"SELECT count(*), max(bits), max(checksum) FROM writeset_chunk WHERE era >= %" PRIu64 ";"
		"SELECT count(*), max(eras_checksum), max(checksum), max(CASE WHEN newest >= %" PRIu64
		" THEN eras END) FROM era_chunk",
		bench->era, bench->era);
	begin(report);
	pid_t pid = fork();
	scale_must(pid < 0 ? -errno : 0, NULL, "fork");
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		dup2(null, STDOUT_FILENO);
		execlp("sqlite3", "sqlite3", "-readonly", uri, query, NULL);
		_exit(127);
	}
	int status = 0;
	struct rusage usage;
	scale_must(wait4(pid, &status, 0, &usage) < 0 ? -errno : status ? -ENOENT : 0, NULL, "sqlite3");
	end(report);
	report->cpu_ns = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000000) +
			 (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * INT64_C(1000);
}

/* The least wall clock and CPU time of some runs. */
static void best_of(
	void (*job)(struct bench *, struct report *), struct bench *bench, struct report *report, long *ret_peak_kib)
{
	int64_t ns = INT64_MAX, cpu_ns = INT64_MAX;
	for (unsigned int i = 0; i < BEST_OF; i++) {
		in_child(job, bench, report, ret_peak_kib);
		ns = report->ns < ns ? report->ns : ns;
		cpu_ns = report->cpu_ns < cpu_ns ? report->cpu_ns : cpu_ns;
	}
	report->ns = ns;
	report->cpu_ns = cpu_ns;
}

static double ms(int64_t ns)
{
	return (double)ns / 1e6;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

static void print_query(struct bench *bench, struct report *report)
{
	long peak_kib;
	best_of(ask_shell, bench, report, &peak_kib);
	int64_t shell_ns = report->ns, shell_cpu_ns = report->cpu_ns;
	in_child(ask_since_cold, bench, report, &peak_kib);
	int64_t cold_ns = report->ns;
	best_of(ask_since, bench, report, &peak_kib);
	printf("%12" PRIu64 "  since %3" PRIu64 " %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f\n", report->blocks,
		bench->era, ms(report->ns), ms(report->cpu_ns), ms(shell_ns), ms(shell_cpu_ns), ms(cold_ns),
		mib(report->read_bytes), (double)peak_kib / 1024);
}

static void print_queries(struct bench *bench, struct report *report)
{
	uint64_t last = bench->shape.nr_eras;
	const uint64_t eras[] = { last + 1, last, last / 2 + 1, 1 };
	struct stat st;
	long peak_kib;

	scale_must(stat(bench->db, &st) < 0 ? -errno : 0, NULL, bench->db);
	best_of(open_whole, bench, report, &peak_kib);
	printf("%8.1f MiB  open      %9.1f %9.1f %9s %9s %9s %9.1f %9.1f\n", mib((uint64_t)st.st_size), ms(report->ns),
		ms(report->cpu_ns), "", "", "", mib(report->read_bytes), (double)peak_kib / 1024);
	for (size_t i = 0; i < sizeof(eras) / sizeof(eras[0]); i++) {
		bench->era = eras[i];
		if (i == 0 || eras[i] != eras[i - 1])
			print_query(bench, report);
	}
}

static int compare_ns(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void print_digest(struct bench *bench, struct report *report)
{
	long peak_kib;
	in_child(digest, bench, report, &peak_kib);
	qsort(report->step_ns, report->steps, sizeof(report->step_ns[0]), compare_ns);
	double s = (double)report->ns / 1e9;
	printf("  digest: %.1f s, %.1f of CPU, %" PRIu64
	       " steps (%.0f/s), %.0f rows/s; a step %.2f ms, p99 %.2f, max %.2f; "
	       "write-back max %.1f ms; WAL max %.1f MiB; %.1f MiB peak\n",
		s, (double)report->cpu_ns / 1e9, report->steps, (double)report->steps / s, (double)bench->nr_rows / s,
		ms(report->step_ns[report->steps / 2]), ms(report->step_ns[report->steps * 99 / 100]),
		ms(report->step_ns[report->steps - 1]), ms(report->longest_write_back_ns),
		mib(report->wal_frames * UINT64_C(4120)), (double)peak_kib / 1024);
}

static void run(const struct shape *shape, const char *dir, unsigned int shift, struct report *report)
{
	struct bench bench = { .shape = *shape, .random = 88172645463325252u };
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	long peak_kib;

	bench.shape.nr_blocks = (shape->nr_blocks >> shift) + (shape->nr_blocks >> shift == 0);
	snprintf(bench.db, sizeof(bench.db), "%s/db", dir);
	printf("%s:\n", shape->name);
	memset(report, 0, offsetof(struct report, step_ns));
	in_child(scale_build, &bench, report, &peak_kib);
	bench.nr_rows = report->rows;
	print_queries(&bench, report);
	print_digest(&bench, report);
	print_queries(&bench, report);
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		char name[600];
		snprintf(name, sizeof(name), "%s%s", bench.db, suffixes[i]);
		unlink(name);
	}
}

int main(int argc, char **argv)
{
	unsigned int shift = argc > 2 ? (unsigned int)atoi(argv[2]) : 0;
	size_t only = argc > 3 ? (size_t)atoi(argv[3]) : SIZE_MAX;
	char dir[256];

	snprintf(dir, sizeof(dir), "%s/eraimgfs-bench.XXXXXX", argc > 1 ? argv[1] : "/tmp");
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	struct report *report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (shift > 0)
		printf("images are 2^%u times smaller than said\n", shift);
	printf("%-12s  %9s %9s %9s %9s %9s %9s %9s %9s\n", "size, blocks", "", "ms", "CPU ms", "shell ms", "CPU ms",
		"cold ms", "MiB read", "MiB peak");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (only == SIZE_MAX || only == i)
			run(&shapes[i], dir, shift, report);
	}
	rmdir(dir);
	return 0;
}
