/* SPDX-License-Identifier: MIT */
/*
 * freeze_stall - how long do writers stand still while an image is frozen and thawed at once?
 *
 *     freeze_stall [FOLDER [ROUNDS]]
 *
 * Four writers rewrite random blocks without a pause. Each round first makes a backlog: eight million blocks of an era that
 * has just ended, of which the freeze must find more than a million undigested (it says how many). Then, one after the
 * other, a while of nothing, a checkpoint, and a freeze followed by its thaw; for each the longest time that a single write
 * took. Beside them what such a stall is made of: an fsync of the image with the same writers (it is in the freeze), and a
 * durable commit (two of them, three with the thaw's). Prints a distribution, asserts nothing: compare figures of one run
 * only.
 */
#include "core_util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NR_WRITERS 4
#define NR_BACKLOG UINT64_C(8000000)
#define NR_HOT UINT64_C(4096) /* blocks that are written to */
#define WHILE_MS 100
#define ROUNDS_MAX 1000

enum measure { QUIET, CHECKPOINT, FREEZE, FREEZE_CALL, THAW_CALL, FSYNC, COMMIT, NR_MEASURES };

static const char *const measure_names[] = {
	[QUIET] = "longest write, nothing else going on",
	[CHECKPOINT] = "longest write, over a checkpoint",
	[FREEZE] = "longest write, over freeze and thaw",
	[FREEZE_CALL] = "freeze, after its preparation",
	[THAW_CALL] = "thaw",
	[FSYNC] = "an fsync of the image",
	[COMMIT] = "a durable commit (a label)",
};

struct bench {
	struct core_env env;
	struct era *era;
	atomic_bool stop;
	atomic_llong longest_ns; /* since it was last taken */
	double ms[NR_MEASURES][ROUNDS_MAX];
};

struct writer {
	struct bench *bench;
	unsigned int seed;
	pthread_t thread;
};

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *writer_run(void *arg)
{
	struct writer *writer = arg;
	struct bench *bench = writer->bench;
	uint8_t data[CORE_BLOCK];

	memset(data, 1, sizeof(data));
	while (!atomic_load(&bench->stop)) {
		uint64_t block = (uint64_t)rand_r(&writer->seed) % NR_HOT;
		int64_t begun = now_ns();
		expect_eq(core_write(bench->era, block * CORE_BLOCK, data, sizeof(data)), 0);
		long long took = now_ns() - begun, longest = atomic_load(&bench->longest_ns);
		while (took > longest && !atomic_compare_exchange_weak(&bench->longest_ns, &longest, took))
			;
	}
	return NULL;
}

static double since_ms(int64_t begun)
{
	return (double)(now_ns() - begun) / 1e6;
}

/* The longest write that ended since the last call. */
static double take_longest_ms(struct bench *bench)
{
	return (double)atomic_exchange(&bench->longest_ns, 0) / 1e6;
}

static void let_pass(int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

/* Blocks of an era that ends; what the digest has not done by the time it is frozen stays undone. */
static void make_backlog(struct bench *bench)
{
	expect_eq(core_punch(bench->era, NR_HOT * CORE_BLOCK, NR_BACKLOG * CORE_BLOCK), 0);
	core_checkpoint(bench->era);
}

/* How much of the backlog a freeze really meets: one that is not measured, so that there is time to look. */
static void show_backlog(struct bench *bench)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct meta_stats stats;
	uint64_t ended, now;

	make_backlog(bench);
	expect_eq(era_checkpoint_begin(bench->era, &err), 0);
	expect_eq(era_freeze_commit(bench->era, 0, -1, &ended, &err), 0);
	expect_eq(meta_reader_open(bench->env.db, &reader, &err), 0);
	expect_eq(meta_reader_stats(reader, &stats, &err), 0);
	meta_reader_close(reader);
	expect_eq(era_thaw(bench->era, ended, &now, &err), 0);
	printf("blocks that a freeze finds undigested: %llu\n", (unsigned long long)stats.undigested_blocks);
}

static void bench_round(struct bench *bench, unsigned int round)
{
	struct err err = ERR_INIT;
	uint64_t ended, now;

	make_backlog(bench);
	take_longest_ms(bench);
	int64_t begun = now_ns();
	expect_eq(era_checkpoint_begin(bench->era, &err), 0);
	expect_eq(era_freeze_commit(bench->era, 0, -1, &ended, &err), 0);
	bench->ms[FREEZE_CALL][round] = since_ms(begun);
	begun = now_ns();
	expect_eq(era_thaw(bench->era, ended, &now, &err), 0);
	bench->ms[THAW_CALL][round] = since_ms(begun);
	let_pass(WHILE_MS);
	bench->ms[FREEZE][round] = take_longest_ms(bench);

	expect_eq(era_freeze_prepare(bench->era, &err), 0); /* the digest comes to its end */
	take_longest_ms(bench);
	core_checkpoint(bench->era);
	let_pass(WHILE_MS);
	bench->ms[CHECKPOINT][round] = take_longest_ms(bench);
	let_pass(WHILE_MS);
	bench->ms[QUIET][round] = take_longest_ms(bench);

	begun = now_ns();
	expect_eq(core_fsync(bench->era), 0);
	bench->ms[FSYNC][round] = since_ms(begun);
	begun = now_ns();
	expect_eq(era_label_set(bench->era, "bench", 0, &now, &err), 0);
	bench->ms[COMMIT][round] = since_ms(begun);
}

static int compare_ms(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print(struct bench *bench, unsigned int rounds)
{
	printf("%-40s %9s %9s %9s %9s  (ms, %u rounds)\n", "", "min", "median", "p90", "max", rounds);
	for (unsigned int i = 0; i < NR_MEASURES; i++) {
		double *ms = bench->ms[i];
		qsort(ms, rounds, sizeof(*ms), compare_ms);
		printf("%-40s %9.2f %9.2f %9.2f %9.2f\n", measure_names[i], ms[0], ms[rounds / 2], ms[rounds * 9 / 10],
			ms[rounds - 1]);
	}
}

int main(int argc, char **argv)
{
	static struct bench bench;
	struct writer writers[NR_WRITERS];
	unsigned int rounds = argc > 2 ? (unsigned int)atoi(argv[2]) : 30;
	char dir[256];

	if (rounds == 0 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "ROUNDS is a number from 1 to %d\n", ROUNDS_MAX);
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s/eraimgfs-bench.XXXXXX", argc > 1 ? argv[1] : "/tmp");
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	core_env_init_at(&bench.env, dir, (NR_HOT + NR_BACKLOG) * CORE_BLOCK);
	bench.era = core_open(&bench.env);
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		writers[i] = (struct writer){ .bench = &bench, .seed = i };
		expect_eq(pthread_create(&writers[i].thread, NULL, writer_run, &writers[i]), 0);
	}
	show_backlog(&bench);
	for (unsigned int round = 0; round < rounds; round++)
		bench_round(&bench, round);
	atomic_store(&bench.stop, true);
	for (unsigned int i = 0; i < NR_WRITERS; i++)
		pthread_join(writers[i].thread, NULL);
	core_close(bench.era);
	core_empty_dir(bench.env.run);
	rmdir(bench.env.run);
	core_empty_dir(dir);
	rmdir(dir);
	print(&bench, rounds);
	return 0;
}
