/* SPDX-License-Identifier: MIT */
/*
 * Everything at once: writers, checkpoints, cancels, fsyncs, status, live answers, the digest. For each block bounds are
 * kept from what each write saw before its submission and after its end; the final answer must lie within them, and each
 * live answer must hold what was over before it was asked for. To be run under ThreadSanitizer too.
 */
#include "core_util.h"
#include "vfs_fault.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NR_WRITERS 6
#define NR_BLOCKS 200
#define WRITES_EACH 1500
#define CHECKPOINTS_EACH 60
#define NR_CHECKPOINTERS 2
#define PARK_FAILS_EVERY 97

struct race;

/* One writer: a cell of 8 bytes of its own in each block, and one request at a time. */
struct writer {
	struct race *race;
	unsigned int number;
	pthread_t thread;
	uint64_t random;
	uint64_t cells[NR_BLOCKS]; /* what is in them */

	struct era_req req;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool active; /* under lock: may be cancelled; the request is not over */
	unsigned int nr_over; /* under lock: done(), or cancelled */
	int error; /* under lock */
	unsigned int nr_parks;
	unsigned int nr_cancelled;
	uint64_t value; /* that the request writes */
};

struct race {
	struct core_env env;
	struct era *era;
	uint64_t first_era;
	struct writer writers[NR_WRITERS];
	_Atomic uint64_t at_least[NR_BLOCKS]; /* era of a write that is over */
	_Atomic uint64_t at_most[NR_BLOCKS];
	_Atomic uint64_t last_returned; /* by a checkpoint */
	_Atomic uint64_t nr_asked; /* checkpoints */
	atomic_bool stop;
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static void raise_to(_Atomic uint64_t *value, uint64_t to)
{
	uint64_t now = atomic_load(value);
	while (now < to && !atomic_compare_exchange_weak(value, &now, to))
		;
}

static struct writer *writer_of(struct era_req *req)
{
	return (struct writer *)((char *)req - offsetof(struct writer, req));
}

static int writer_apply(struct era_req *req, uint64_t offset, uint64_t len)
{
	struct writer *w = writer_of(req);
	for (uint64_t block = offset / CORE_BLOCK; block <= (offset + len - 1) / CORE_BLOCK; block++) {
		ssize_t n = img_pwrite(era_image(w->race->era), &w->value, 8, block * CORE_BLOCK + w->number * 8);
		if (n != 8)
			return n < 0 ? (int)n : -EIO;
	}
	return 0;
}

static int writer_park(struct era_req *req)
{
	struct writer *w = writer_of(req);
	w->nr_parks++;
	return next_random(&w->random) % PARK_FAILS_EVERY == 0 ? -ENOMEM : 0;
}

static void writer_done(struct era_req *req, int error)
{
	struct writer *w = writer_of(req);
	pthread_mutex_lock(&w->lock);
	w->nr_over++;
	w->error = error;
	w->active = false;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static const struct era_req_ops writer_ops = { .apply = writer_apply, .park = writer_park, .done = writer_done };

static int writer_run(struct writer *w, enum era_req_kind kind, uint64_t offset, uint64_t len)
{
	w->req = (struct era_req){ .ops = &writer_ops, .kind = kind, .offset = offset, .len = len };
	w->nr_parks = 0;
	pthread_mutex_lock(&w->lock);
	w->nr_over = 0;
	w->active = true;
	pthread_mutex_unlock(&w->lock);
	era_submit(w->race->era, &w->req);
	pthread_mutex_lock(&w->lock);
	while (w->nr_over == 0)
		pthread_cond_wait(&w->changed, &w->lock);
	expect_eq(w->nr_over, 1);
	int error = w->error;
	pthread_mutex_unlock(&w->lock);
	expect_le(w->nr_parks, 1);
	return error;
}

static void writer_write(struct writer *w)
{
	struct race *race = w->race;
	uint64_t begin = next_random(&w->random) % NR_BLOCKS;
	uint64_t nr = next_random(&w->random) % 8 == 0 ? 1 + next_random(&w->random) % 20 : 1;
	if (begin + nr > NR_BLOCKS)
		nr = NR_BLOCKS - begin;
	uint64_t before = core_era(race->era), returned = atomic_load(&race->last_returned);
	w->value++;
	int error = writer_run(w, ERA_REQ_WRITE, begin * CORE_BLOCK + 1, (nr - 1) * CORE_BLOCK + 8);
	uint64_t at_most = race->first_era + atomic_load(&race->nr_asked);
	expect_msg(error == 0 || error == -EINTR || error == -ECANCELED || error == -ENOMEM, "%d", error);
	for (uint64_t block = begin; block < begin + nr; block++) {
		raise_to(&race->at_most[block], at_most);
		if (error != 0)
			continue;
		w->cells[block] = w->value;
		raise_to(&race->at_least[block], before > returned ? before : returned);
	}
	uint64_t cell;
	expect_eq(img_pread(era_image(race->era), &cell, 8, begin * CORE_BLOCK + w->number * 8), 8);
	expect_eq(cell, w->cells[begin]); /* also: nothing of it was done when it failed */
}

static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	for (unsigned int i = 0; i < WRITES_EACH; i++) {
		writer_write(w);
		if (next_random(&w->random) % 32 == 0) {
			int error = writer_run(w, ERA_REQ_FLUSH, 0, 0);
			expect_msg(
				error == 0 || error == -EINTR || error == -ECANCELED || error == -ENOMEM, "%d", error);
		}
	}
	return NULL;
}

static void *checkpoint_thread(void *arg)
{
	struct race *race = arg;
	for (unsigned int i = 0; i < CHECKPOINTS_EACH; i++) {
		struct err err = ERR_INIT;
		uint64_t era = 0;
		atomic_fetch_add(&race->nr_asked, 1);
		int error = era_checkpoint(race->era, i % 4 == 0 ? "label" : NULL, &era, &err);
		expect_msg(error == 0, "checkpoint: %s", err.text);
		expect_ge(core_era(race->era), era);
		raise_to(&race->last_returned, era);
		sched_yield();
	}
	return NULL;
}

static void *cancel_thread(void *arg)
{
	struct race *race = arg;
	for (uint64_t i = 0, random = 7; !atomic_load(&race->stop); i++) {
		struct writer *w = &race->writers[next_random(&random) % NR_WRITERS];
		pthread_mutex_lock(&w->lock);
		if (w->active && next_random(&random) % 4 == 0 && era_cancel(race->era, &w->req)) {
			w->nr_over++;
			w->nr_cancelled++;
			w->error = -ECANCELED;
			w->active = false;
			pthread_cond_broadcast(&w->changed);
		}
		pthread_mutex_unlock(&w->lock);
		sched_yield();
	}
	return NULL;
}

/* Status, and live answers: what was over before the question must be in. */
static void *reader_thread(void *arg)
{
	struct race *race = arg;
	for (uint64_t random = 3, last = 0; !atomic_load(&race->stop);) {
		struct era_status status;
		era_get_status(race->era, &status);
		expect_ge(status.current_era, last);
		last = status.current_era;
		uint64_t at_least[NR_BLOCKS];
		for (unsigned int i = 0; i < NR_BLOCKS; i++)
			at_least[i] = atomic_load(&race->at_least[i]);
		uint64_t since_era = last - next_random(&random) % (last < 6 ? last : 6);
		struct core_since since = core_since(race->env.db, since_era);
		for (unsigned int i = 0; i < NR_BLOCKS; i++)
			expect_msg(at_least[i] < since_era || core_since_has(&since, i),
				"MISSING: live since %llu lacks block %u, written in %llu or later",
				(unsigned long long)since_era, i, (unsigned long long)at_least[i]);
		core_since_free(&since);
	}
	return NULL;
}

static void race_init(struct race *race)
{
	core_env_init(&race->env, NR_BLOCKS * CORE_BLOCK - 3000);
	struct era_config config = core_config(&race->env);
	config.intent_max_bytes = 8 * config.intent_bytes; /* so that some wait for an intent, and some for a mark */
	race->era = core_open_with(&config);
	race->first_era = core_era(race->era);
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		struct writer *w = &race->writers[i];
		w->race = race;
		w->number = i;
		w->random = i + 1;
		pthread_mutex_init(&w->lock, NULL);
		pthread_cond_init(&w->changed, NULL);
	}
}

static void race_check(struct race *race, const char *when)
{
	uint64_t eras[NR_BLOCKS] = { 0 };
	for (uint64_t era = 1; era <= race->first_era + atomic_load(&race->nr_asked); era++) {
		struct core_since since = core_since(race->env.db, era);
		for (unsigned int i = 0; i < NR_BLOCKS; i++)
			if (core_since_has(&since, i))
				eras[i] = era;
		core_since_free(&since);
	}
	for (unsigned int i = 0; i < NR_BLOCKS; i++) {
		expect_msg(eras[i] >= atomic_load(&race->at_least[i]),
			"MISSING (%s): block %u is in era %llu, not %llu", when, i, (unsigned long long)eras[i],
			(unsigned long long)atomic_load(&race->at_least[i]));
		expect_msg(eras[i] <= atomic_load(&race->at_most[i]),
			"%s: block %u is in era %llu, its last write in %llu", when, i, (unsigned long long)eras[i],
			(unsigned long long)atomic_load(&race->at_most[i]));
	}
}

START_TEST(test_writers_checkpoints_cancels_fsyncs_status_digest)
{
	struct race *race = calloc(1, sizeof(*race));
	race_init(race);
	pthread_t checkpointers[NR_CHECKPOINTERS], canceller, reader;
	for (unsigned int i = 0; i < NR_WRITERS; i++)
		pthread_create(&race->writers[i].thread, NULL, writer_thread, &race->writers[i]);
	for (unsigned int i = 0; i < NR_CHECKPOINTERS; i++)
		pthread_create(&checkpointers[i], NULL, checkpoint_thread, race);
	pthread_create(&canceller, NULL, cancel_thread, race);
	pthread_create(&reader, NULL, reader_thread, race);
	unsigned int nr_cancelled = 0;
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		pthread_join(race->writers[i].thread, NULL);
		nr_cancelled += race->writers[i].nr_cancelled;
	}
	for (unsigned int i = 0; i < NR_CHECKPOINTERS; i++)
		pthread_join(checkpointers[i], NULL);
	atomic_store(&race->stop, true);
	pthread_join(canceller, NULL);
	pthread_join(reader, NULL);

	struct era_status status;
	era_get_status(race->era, &status);
	printf("%u cancelled, %llu commits for %llu requests, %llu digest steps\n", nr_cancelled,
		(unsigned long long)status.commits, (unsigned long long)status.committed_requests,
		(unsigned long long)status.digest_steps);
	expect_gt(nr_cancelled, 0);
	expect_eq(status.parked, 0);
	expect_eq(status.checkpoints, NR_CHECKPOINTERS * CHECKPOINTS_EACH);
	expect_eq(status.current_era, race->first_era + NR_CHECKPOINTERS * CHECKPOINTS_EACH);
	race_check(race, "live");
	core_close(race->era);
	race_check(race, "at rest");
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		pthread_mutex_destroy(&race->writers[i].lock);
		pthread_cond_destroy(&race->writers[i].changed);
	}
	free(race);
}
END_TEST

#define FLOOD_MAX 400 /* checkpoints that one write may have to sit out; some 5 are usual, 60 have been seen */
#define FLOOD_WRITES 60
#define FLOOD_SYNC_US 2000

/* A COMMIT takes its time, as on a disk: else this would measure how threads get a turn, on a loaded machine by luck. */
static int slow_sync(struct vfs_fault *vfs, enum vfs_file file, void *arg)
{
	if (file == VFS_WAL)
		usleep(FLOOD_SYNC_US);
	return SQLITE_OK;
}

struct flood {
	struct era *era;
	atomic_uint nr_checkpoints;
	atomic_bool stop;
};

static void *flood_thread(void *arg)
{
	struct flood *flood = arg;
	while (!atomic_load(&flood->stop)) {
		core_checkpoint(flood->era);
		atomic_fetch_add(&flood->nr_checkpoints, 1);
	}
	return NULL;
}

START_TEST(test_writer_makes_progress_under_a_flood_of_checkpoints)
{
	struct core_env env;
	struct flood flood = { .stop = false };
	pthread_t threads[3];
	core_env_init(&env, 16 * CORE_BLOCK);
	vfs_fault_new(env.db, (struct vfs_hooks){ .on_sync = slow_sync });
	flood.era = core_open(&env);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, flood_thread, &flood);
	unsigned int most = 0;
	while (atomic_load(&flood.nr_checkpoints) < 10)
		sched_yield();
	for (unsigned int i = 0; i < FLOOD_WRITES; i++) {
		unsigned int before = atomic_load(&flood.nr_checkpoints);
		uint8_t byte = (uint8_t)i;
		expect_eq(core_write(flood.era, i % 16 * CORE_BLOCK, &byte, 1), 0);
		unsigned int passed = atomic_load(&flood.nr_checkpoints) - before;
		most = passed > most ? passed : most;
	}
	expect_lt(most, FLOOD_MAX);
	atomic_store(&flood.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%u checkpoints passed %u writes, one of them %u\n", atomic_load(&flood.nr_checkpoints), FLOOD_WRITES,
		most);
	core_close(flood.era);
}
END_TEST

/* Requests that are still waiting when the instance stops: each over once, and done wholly or not at all. */
START_TEST(test_close_ends_each_waiting_request_once)
{
	struct core_env env;
	core_env_init(&env, NR_BLOCKS * CORE_BLOCK);
	for (int round = 0; round < 20; round++) {
		struct era *era = core_open(&env);
		uint64_t era_nr = core_era(era);
		struct core_req *reqs = calloc(NR_BLOCKS, sizeof(*reqs));
		uint8_t value = (uint8_t)(round + 1), old = (uint8_t)round;
		for (unsigned int i = 0; i < NR_BLOCKS; i++) {
			core_req_init(&reqs[i], era, CORE_WRITE, i * CORE_BLOCK, 1);
			reqs[i].data = &value;
			core_req_submit(&reqs[i]);
		}
		core_close(era);
		struct core_since since = core_since(env.db, era_nr);
		for (unsigned int i = 0; i < NR_BLOCKS; i++) {
			expect(core_req_is_over(&reqs[i]));
			int error = core_req_wait(&reqs[i]);
			expect_msg(error == 0 || error == -EIO, "%d", error);
			uint8_t now = core_image_byte(env.image, i * CORE_BLOCK);
			expect_msg(error == 0 ? now == value : now != value, "round %d block %u: error %d, %u (%u)",
				round, i, error, now, old);
			expect(error != 0 || core_since_has(&since, i));
			core_req_destroy(&reqs[i]);
		}
		core_since_free(&since);
		free(reqs);
	}
}
END_TEST

/* A request that waits behind a closed gate can be taken back; others go on when it opens. */
START_TEST(test_cancel_behind_a_closed_gate)
{
	struct core_env env;
	struct err err = ERR_INIT;
	struct core_req taken, kept;
	uint8_t value = 9;
	core_env_init(&env, 8 * CORE_BLOCK);
	struct era_config config = core_config(&env);
	config.intent_bytes = 0; /* it is about requests that wait for a commit */
	struct era *era = core_open_with(&config);
	core_touch(era, 3, 1);
	expect_eq(era_checkpoint_begin(era, &err), 0);
	core_req_init(&taken, era, CORE_WRITE, 2 * CORE_BLOCK, 1);
	core_req_init(&kept, era, CORE_WRITE, 3 * CORE_BLOCK, 1);
	taken.data = kept.data = &value;
	core_req_submit(&taken);
	core_req_submit(&kept);
	expect_eq(core_fsync(era), 0); /* does not wait for the gate */
	expect(!core_req_is_over(&taken));
	expect(!core_req_is_over(&kept));
	expect(era_cancel(era, &taken.req));
	uint64_t now = 0;
	expect_eq(era_checkpoint_commit(era, NULL, -1, &now, &err), 0);
	expect_eq(core_req_wait(&kept), 0);
	expect(!core_req_is_over(&taken));
	expect_eq(atomic_load(&taken.nr_applies), 0);
	expect_eq(core_image_byte(env.image, 2 * CORE_BLOCK), 0);
	expect(core_has(env.db, now, 3));
	expect(!core_has(env.db, now, 2));

	/* Cancelled before it is submitted: its park becomes the end. */
	core_req_init(&taken, era, CORE_WRITE, 5 * CORE_BLOCK, 1);
	taken.data = &value;
	expect(!era_cancel(era, &taken.req));
	core_req_submit(&taken);
	expect_eq(core_req_wait(&taken), -EINTR);
	expect_eq(core_image_byte(env.image, 5 * CORE_BLOCK), 0);

	/* A park that fails ends the request, unmarked or not, with nothing done. */
	core_req_init(&taken, era, CORE_WRITE, 6 * CORE_BLOCK, 1);
	taken.data = &value;
	taken.park_error = -ENOMEM;
	core_req_submit(&taken);
	expect_eq(core_req_wait(&taken), -ENOMEM);
	expect_eq(core_image_byte(env.image, 6 * CORE_BLOCK), 0);
	core_close(era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_race");
	TCase *tcase = tcase_create("race");
	tcase_set_timeout(tcase, 240);
	tcase_add_test(tcase, test_writers_checkpoints_cancels_fsyncs_status_digest);
	tcase_add_test(tcase, test_writer_makes_progress_under_a_flood_of_checkpoints);
	tcase_add_test(tcase, test_close_ends_each_waiting_request_once);
	tcase_add_test(tcase, test_cancel_behind_a_closed_gate);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
