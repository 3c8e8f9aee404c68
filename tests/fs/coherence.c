/* SPDX-License-Identifier: MIT */
/*
 * coherence - what one way of access wrote, every other way reads.
 *
 *     coherence OPERATIONS SEED MOUNTED-FILE [LOOP-DEVICE...]
 *
 * Threads write to random regions of 4 KiB (the unit of coherence), or to many at once, by one way and read them back by
 * another: buffered, O_DIRECT and asynchronous O_DIRECT on the mounted file, O_DIRECT on loop devices over it. One thread
 * at a time has a region, so that its content is known; meanwhile others look over all of it, which compares nothing but
 * would fill a page cache while a write is under way. Exit 1 on any mismatch.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	REGION = 4096,
	NR_REGIONS = 256,
	MANY = 64,
	ROUND = 250,
	NR_THREADS = 4,
	NR_LOOKERS = 2,
	MAX_WAYS = 16,
	SHOWN = 5
};

struct way {
	const char *name;
	const char *path;
	int fd;
	bool direct; /* whole regions only */
	bool aio;
};

struct checker {
	struct way ways[MAX_WAYS]; /* constant while the threads run */
	unsigned int nr_ways;
	uint64_t operations; /* a thread */
	uint64_t seed;
	pthread_mutex_t locks[NR_REGIONS]; /* [i] protects region i, shadow[i] and last[i]; taken upwards */
	uint8_t shadow[NR_REGIONS][REGION];
	unsigned int last[NR_REGIONS]; /* the way that wrote it */
	pthread_mutex_t count_lock; /* protects mismatches */
	uint64_t mismatches;
	atomic_bool over; /* the lookers may end */
};

struct worker {
	struct checker *checker;
	uint64_t random; /* state of xorshift64 */
	uint8_t *buf; /* MANY regions, aligned */
	io_context_t aio;
	uint64_t done; /* operations */
	uint64_t mismatches;
};

static void die(const char *what, const char *path, long error)
{
	fprintf(stderr, "coherence: %s: %s: %s\n", path, what, strerror((int)error));
	exit(2);
}

static uint64_t next_random(struct worker *w, uint64_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random % below;
}

static void transfer(struct worker *w, const struct way *way, bool write, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	if (way->aio) {
		struct iocb iocb;
		struct iocb *list = &iocb;
		struct io_event event;

		if (write)
			io_prep_pwrite(&iocb, way->fd, buf, len, (long long)offset);
		else
			io_prep_pread(&iocb, way->fd, buf, len, (long long)offset);
		if (io_submit(w->aio, 1, &list) != 1 || io_getevents(w->aio, 1, 1, &event, NULL) != 1)
			die("aio", way->path, EIO);
		n = (ssize_t)event.res;
		if (n < 0)
			errno = (int)-n;
	} else if (write) {
		n = pwrite(way->fd, buf, len, (off_t)offset);
	} else {
		n = pread(way->fd, buf, len, (off_t)offset);
	}
	if (n != (ssize_t)len)
		die(write ? "write" : "read", way->path, n < 0 ? errno : EIO);
}

/* New content for nr regions (or for a part of one, where the way allows it), also in the shadow. The way is that of the
 * round: a write by another way would drop what a cache holds wrongly. */
static void write_regions(struct worker *w, unsigned int region, unsigned int nr)
{
	struct checker *c = w->checker;
	unsigned int by = (unsigned int)(w->done / ROUND % c->nr_ways);
	const struct way *way = &c->ways[by];
	uint8_t *shadow = c->shadow[region];
	size_t begin = 0;
	size_t len = nr * REGION;

	if (nr == 1 && !way->direct && next_random(w, 2) == 0) {
		begin = next_random(w, REGION);
		len = 1 + next_random(w, REGION - begin);
	}
	for (size_t i = 0; i < len; i++)
		shadow[begin + i] = (uint8_t)next_random(w, 256);
	memcpy(w->buf, shadow + begin, len);
	transfer(w, way, true, w->buf, len, (uint64_t)region * REGION + begin);
	for (unsigned int i = 0; i < nr; i++)
		c->last[region + i] = by;
}

static void check_regions(struct worker *w, unsigned int region, unsigned int nr)
{
	struct checker *c = w->checker;
	const struct way *way = &c->ways[next_random(w, c->nr_ways)];

	transfer(w, way, false, w->buf, nr * REGION, (uint64_t)region * REGION);
	for (unsigned int i = 0; i < nr; i++) {
		if (memcmp(w->buf + i * REGION, c->shadow[region + i], REGION) == 0)
			continue;
		if (w->mismatches++ < SHOWN)
			fprintf(stderr, "coherence: region %u, last written by %s, differs when read by %s\n",
				region + i, c->ways[c->last[region + i]].name, way->name);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct checker *c = w->checker;
	long error = io_setup(1, &w->aio);

	if (error != 0)
		die("io_setup", "aio", -error);
	for (; w->done < c->operations; w->done++) {
		unsigned int nr = next_random(w, 8) == 0 ? MANY : 1;
		unsigned int region = (unsigned int)next_random(w, NR_REGIONS - nr + 1);

		for (unsigned int j = 0; j < nr; j++)
			pthread_mutex_lock(&c->locks[region + j]);
		if (next_random(w, 2) == 0)
			write_regions(w, region, nr);
		else
			check_regions(w, region, nr);
		for (unsigned int j = 0; j < nr; j++)
			pthread_mutex_unlock(&c->locks[region + j]);
	}
	io_destroy(w->aio);
	pthread_mutex_lock(&c->count_lock);
	c->mismatches += w->mismatches;
	pthread_mutex_unlock(&c->count_lock);
	return NULL;
}

static void *look(void *arg)
{
	struct worker *w = arg;
	struct checker *c = w->checker;

	while (!atomic_load(&c->over))
		transfer(w, &c->ways[0], false, w->buf, MANY * REGION / 2, next_random(w, NR_REGIONS - MANY) * REGION);
	return NULL;
}

static void add_way(struct checker *c, const char *name, const char *path, int flags, bool aio)
{
	struct way *way = &c->ways[c->nr_ways++];

	*way = (struct way){ .name = name, .path = path, .direct = (flags & O_DIRECT) != 0, .aio = aio };
	way->fd = open(path, O_RDWR | O_CLOEXEC | flags);
	if (way->fd < 0)
		die("open", path, errno);
}

static void run(struct checker *c)
{
	enum { NR_ALL = NR_THREADS + NR_LOOKERS };
	struct worker workers[NR_ALL] = { { 0 } };
	pthread_t threads[NR_ALL];

	for (unsigned int i = 0; i < NR_ALL; i++) {
		workers[i].checker = c;
		workers[i].random = (c->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
		workers[i].buf = aligned_alloc(REGION, MANY * REGION);
		if (workers[i].buf == NULL ||
			pthread_create(&threads[i], NULL, i < NR_THREADS ? work : look, &workers[i]) != 0)
			die("start", "thread", errno);
	}
	for (unsigned int i = 0; i < NR_ALL; i++) {
		if (i == NR_THREADS)
			atomic_store(&c->over, true);
		pthread_join(threads[i], NULL);
		free(workers[i].buf);
	}
}

int main(int argc, char **argv)
{
	struct checker *c = calloc(1, sizeof(*c));
	struct worker first = { .checker = c };

	if (argc < 4 || argc - 4 > MAX_WAYS - 3 || c == NULL) {
		fputs("usage: coherence OPERATIONS SEED MOUNTED-FILE [LOOP-DEVICE...]\n", stderr);
		return 2;
	}
	c->operations = strtoull(argv[1], NULL, 10) / NR_THREADS;
	c->seed = strtoull(argv[2], NULL, 10);
	add_way(c, "buffered", argv[3], 0, false);
	add_way(c, "direct", argv[3], O_DIRECT, false);
	add_way(c, "aio", argv[3], O_DIRECT, true);
	for (int i = 4; i < argc; i++)
		add_way(c, argv[i], argv[i], O_DIRECT, false);

	pthread_mutex_init(&c->count_lock, NULL);
	for (unsigned int i = 0; i < NR_REGIONS; i++) {
		pthread_mutex_init(&c->locks[i], NULL);
		transfer(&first, &c->ways[0], false, c->shadow[i], REGION, (uint64_t)i * REGION);
	}
	run(c);
	printf("%llu operations by %u ways, %llu mismatches\n", (unsigned long long)c->operations * NR_THREADS,
		c->nr_ways, (unsigned long long)c->mismatches);
	bool ok = c->mismatches == 0;

	free(c);
	return ok ? 0 : 1;
}
