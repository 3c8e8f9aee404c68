/* SPDX-License-Identifier: MIT */
/* Freeze and thaw of one instance: what is given up, what stays, and what is there again. */
#include "core_freeze.h"
#include "core_model.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static uint64_t nr_since(const char *db, uint64_t era)
{
	struct core_since since = core_since(db, era);
	expect(!since.all);
	uint64_t nr = bm_count(since.blocks);
	core_since_free(&since);
	return nr;
}

/* --- what a freeze answers, and what it leaves --- */

START_TEST(test_a_freeze_ends_an_era_and_a_thaw_goes_on_in_the_next)
{
	struct core_env env;
	struct core_since since;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 1, 1);
	uint64_t n = core_checkpoint(era);
	core_touch(era, 2, 1);
	expect_eq(core_freeze(era, 100), n);

	struct era_status status = core_status(era);
	expect_eq(status.state, ERA_FROZEN);
	expect_eq(status.frozen_era, n);
	expect_eq(status.current_era, n + 1);
	expect(status.thaw_in_s >= 1 && status.thaw_in_s <= 100);
	expect_eq(nr_since(env.db, n + 1), 0);
	expect_eq(core_since_try(env.db, n + 2, &since), -ERANGE);
	expect_eq(nr_since(env.db, n), 1);
	expect(core_has(env.db, n, 2) && core_has(env.db, n - 1, 1));

	expect_eq(core_thaw(era, n), n + 1);
	status = core_status(era);
	expect_eq(status.state, ERA_RUNNING);
	expect_eq(status.frozen_era, 0);
	expect_eq(status.current_era, n + 1);
	expect_eq(status.auto_thaws, 0);
	core_touch(era, 3, 1);
	expect(core_has(env.db, n + 1, 3));
	expect_eq(nr_since(env.db, n + 1), 1);
	expect_eq(core_checkpoint(era), n + 2);
	core_close(era);
}
END_TEST

/* What may be asked of a frozen instance, and what it must refuse. */
static void ask_of_frozen(struct era *era, const struct core_env *env, const struct core_rest *rest, uint64_t n)
{
	char byte;
	core_status(era);
	core_rest_check(rest, "a status query");
	expect(core_has(env->db, n, 5) && nr_since(env->db, n + 1) == 0);
	core_rest_check(rest, "since");
	expect_eq(img_pread(era_image(era), &byte, 1, 5 * CORE_BLOCK), 1);
	core_rest_check(rest, "a read");
	expect_eq(core_fsync(era), 0);
	core_rest_check(rest, "an fsync");
	core_changes_refused(era, -EBUSY);
	core_rest_check(rest, "a checkpoint, label or freeze that was refused");
	core_thaw_refused(era, n + 7, -ENOTSUP, ERR_EXIT_REFUSED, NULL);
	core_rest_check(rest, "a thaw with a wrong era");
	expect_eq(core_state(era), ERA_FROZEN);
}

START_TEST(test_the_files_do_not_change_until_the_thaw)
{
	struct core_env env;
	struct core_rest rest;
	struct core_req req;
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	for (uint64_t block = 0; block < 10; block++) {
		core_touch(era, block, 1);
		core_checkpoint(era);
	}
	core_touch(era, 5, 2);
	uint64_t n = core_freeze(era, 0), generation = core_status(era).generation;
	core_rest_open(&rest, &env);
	core_rest_is_whole(&rest, "a freeze");
	core_rest_take(&rest);
	core_req_start(&req, era, 20, &byte);
	ask_of_frozen(era, &env, &rest, n);
	expect_msg(!core_req_is_over(&req), "a write went through a freeze");
	if (_i == 0) { /* the stop */
		era_stop_waiting(era);
		expect_eq(era_close(era, &err), 0);
		expect_eq(core_req_end(&req), -EIO);
		core_rest_check(&rest, "the stop of a frozen instance");
		era = core_open(&env);
		expect_eq(core_status(era).generation, generation + 1);
		expect_eq(core_era(era), n + 1);
		expect_eq(nr_since(env.db, n + 1), 0);
	} else {
		expect_eq(core_thaw(era, n), n + 1);
		expect_eq(core_req_end(&req), 0);
		expect(core_has(env.db, n + 1, 20));
		expect_eq(nr_since(env.db, n + 1), 1);
	}
	core_close(era);
}
END_TEST

START_TEST(test_a_kill_while_frozen_changes_nothing)
{
	struct core_env env;
	struct core_rest rest;
	struct core_req req;
	const uint8_t byte = 9;
	uint64_t eras[2];
	int fds[2];
	core_env_init(&env, IMAGE_SIZE);
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		struct era *era = core_open(&env);
		core_touch(era, 5, 2);
		eras[0] = core_freeze(era, 0);
		eras[1] = core_status(era).generation;
		core_req_start(&req, era, 20, &byte);
		expect_eq(write(fds[1], eras, sizeof(eras)), sizeof(eras));
		for (;;)
			pause();
	}
	expect_eq(read(fds[0], eras, sizeof(eras)), sizeof(eras));
	core_rest_open(&rest, &env);
	core_rest_is_whole(&rest, "a freeze");
	core_rest_take(&rest);
	core_kill(pid);
	core_rest_check(&rest, "kill -9 while frozen");
	struct era *era = core_open(&env); /* nobody is there to take over from */
	expect_eq(core_era(era), eras[0] + 1);
	expect_eq(core_status(era).generation, eras[1] + 1);
	expect_eq(nr_since(env.db, eras[0]), 1);
	expect_eq(nr_since(env.db, eras[0] + 1), 0);
	core_close(era);
}
END_TEST

START_TEST(test_no_lock_is_held_while_frozen)
{
	struct core_env env;
	struct core_rest rest;
	char lock[340];
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	core_env_init(&env, IMAGE_SIZE);
	snprintf(lock, sizeof(lock), "%s.lock", env.db);
	struct era *era = core_open(&env);
	uint64_t n = core_freeze(era, 0);
	int fd = _i == 0 ? open(env.image, O_RDWR | O_CLOEXEC) : open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	expect_ge(fd, 0);
	expect_msg((_i == 0 ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_OFD_SETLK, &whole)) == 0, "a lock is held");
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	core_thaw_refused(era, n, -EBUSY, ERR_EXIT_REFUSED, NULL);
	expect_eq(core_state(era), ERA_FROZEN);
	core_rest_check(&rest, "a thaw that did not get its locks");
	close(fd);
	core_thaw(era, n);
	core_touch(era, 1, 1);
	core_close(era);
}
END_TEST

START_TEST(test_a_waiting_write_can_be_taken_back)
{
	struct core_env env;
	struct core_req req, kept;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_touch(era, 20, 1);
	uint64_t n = core_freeze(era, 0);
	core_req_start(&req, era, 20, &byte);
	core_req_start(&kept, era, 21, &byte);
	expect(era_cancel(era, &req.req));
	core_thaw(era, n);
	expect_eq(core_req_end(&kept), 0);
	expect_msg(!core_req_is_over(&req), "a request that was taken back was ended");
	core_req_destroy(&req);
	expect_eq(core_image_byte(env.image, 20 * CORE_BLOCK), 1);
	expect(!core_has(env.db, n + 1, 20) && core_has(env.db, n + 1, 21));
	core_close(era);
}
END_TEST

START_TEST(test_what_is_refused)
{
	struct core_env env;
	struct err err = ERR_INIT;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_thaw_refused(era, 0, -ENOTSUP, ERR_EXIT_FAILED, NULL);
	core_thaw_refused(era, 1, -ENOTSUP, ERR_EXIT_FAILED, NULL);
	n = core_freeze(era, 0);
	core_changes_refused(era, -EBUSY);
	core_thaw_refused(era, n + 1, -ENOTSUP, ERR_EXIT_REFUSED, NULL);
	core_thaw(era, 0);
	core_thaw_refused(era, n, -ENOTSUP, ERR_EXIT_FAILED, NULL);
	core_close(era);

	struct era_config config = core_config(&env);
	config.read_only = true;
	era = core_open_with(&config);
	core_expect_refused(era_freeze(era, 0, &n, &err), &err, -EROFS, ERR_EXIT_FAILED);
	core_thaw_refused(era, 0, -EROFS, ERR_EXIT_FAILED, NULL);
	core_close(era);
}
END_TEST

/* --- with a writer who never rests --- */

struct writer {
	struct era *era;
	_Atomic uint64_t *shown; /* an era that has been shown: what is submitted later is in it or in a later one */
	_Atomic uint64_t *last_era; /* of each block's last write that completed: at least this */
	_Atomic uint64_t *nr_writes;
	atomic_bool stop;
	pthread_t thread;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;
	for (uint64_t i = 0; !atomic_load(&w->stop); i++) {
		uint64_t block = i * 13 % NR_BLOCKS, shown = atomic_load(w->shown);
		core_touch(w->era, block, (uint8_t)i);
		atomic_store(&w->last_era[block], shown);
		atomic_fetch_add(w->nr_writes, 1);
	}
	return NULL;
}

static void expect_written(const struct core_env *env, _Atomic uint64_t *last_era, uint64_t from, uint64_t to)
{
	for (uint64_t era = from; era <= to; era++) {
		uint64_t then[NR_BLOCKS];
		for (uint64_t block = 0; block < NR_BLOCKS; block++)
			then[block] = atomic_load(&last_era[block]);
		struct core_since since = core_since(env->db, era);
		for (uint64_t block = 0; block < NR_BLOCKS; block++)
			expect_msg(then[block] < era || core_since_has(&since, block),
				"MISSING since %llu: block %llu, written in era %llu or later", (unsigned long long)era,
				(unsigned long long)block, (unsigned long long)then[block]);
		core_since_free(&since);
	}
}

START_TEST(test_fifty_freezes_under_a_writer)
{
	struct core_env env;
	_Atomic uint64_t last_era[NR_BLOCKS] = { 0 }, shown, nr_writes = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	struct writer w = { .era = era, .shown = &shown, .last_era = last_era, .nr_writes = &nr_writes };
	struct core_rest rest;
	atomic_store(&shown, core_era(era));
	core_rest_open(&rest, &env);
	expect_eq(pthread_create(&w.thread, NULL, write_on, &w), 0);
	for (int i = 0; i < 50; i++) {
		for (uint64_t from = atomic_load(&nr_writes); atomic_load(&nr_writes) < from + 3;)
			sched_yield();
		uint64_t n = core_freeze(era, 0);
		core_rest_is_whole(&rest, "a freeze under load");
		core_rest_take(&rest);
		atomic_store(&shown, n + 1);
		expect_eq(nr_since(env.db, n + 1), 0);
		expect_written(&env, last_era, n > 3 ? n - 3 : 1, n);
		core_rest_check(&rest, "writes that wait");
		core_thaw(era, n);
	}
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	expect_written(&env, last_era, 1, core_era(era));
	core_close(era);
	expect_written(&env, last_era, 1, atomic_load(&shown));
}
END_TEST

/* What a process that is killed leaves behind for who checks it. */
struct acked {
	_Atomic uint64_t shown, nr_writes, nr_turns;
	_Atomic uint64_t last_era[NR_BLOCKS];
};

static void freeze_and_thaw_until_killed(const struct core_env *env, struct acked *acked)
{
	struct era *era = core_open(env);
	struct writer w = {
		.era = era, .shown = &acked->shown, .last_era = acked->last_era, .nr_writes = &acked->nr_writes
	};
	atomic_store(&acked->shown, core_era(era));
	expect_eq(pthread_create(&w.thread, NULL, write_on, &w), 0);
	for (;;) {
		uint64_t n = core_freeze(era, 0);
		atomic_store(&acked->shown, n + 1);
		core_thaw(era, n);
		atomic_fetch_add(&acked->nr_turns, 1);
	}
}

START_TEST(test_a_kill_at_any_point_loses_no_write)
{
	struct core_env env;
	uint64_t random = 4711;
	core_env_init(&env, IMAGE_SIZE);
	struct acked *acked = mmap(NULL, sizeof(*acked), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(acked != MAP_FAILED);
	for (int round = 0; round < 50; round++) {
		uint64_t turns = atomic_load(&acked->nr_turns) + model_below(&random, 3);
		uint64_t writes = atomic_load(&acked->nr_writes) + 1;
		pid_t pid = core_fork();
		if (pid == 0)
			freeze_and_thaw_until_killed(&env, acked);
		while (atomic_load(&acked->nr_turns) < turns || atomic_load(&acked->nr_writes) < writes)
			usleep(100);
		usleep((useconds_t)model_below(&random, 4000)); /* somewhere in a freeze or thaw */
		core_kill(pid);
		struct era *era = core_open(&env);
		uint64_t now = core_era(era);
		expect_ge(now, atomic_load(&acked->shown));
		expect_written(&env, acked->last_era, now > 6 ? now - 6 : 1, now);
		core_close(era);
	}
	expect_written(&env, acked->last_era, 1, atomic_load(&acked->shown));
	munmap(acked, sizeof(*acked));
}
END_TEST

/* --- many clients at a time --- */

#define NR_CLIENTS 4
#define NR_CALLS 150

struct client {
	struct era *era;
	_Atomic uint64_t *shown;
	uint64_t random;
	unsigned int nr_done;
	pthread_t thread;
};

static void show(_Atomic uint64_t *shown, uint64_t era)
{
	uint64_t now = atomic_load(shown);
	while (now < era && !atomic_compare_exchange_weak(shown, &now, era))
		;
}

/* One call of any kind; others may have made it impossible. */
static int call_any(struct client *client, struct err *err)
{
	struct era *era = client->era;
	struct core_req req;
	const uint8_t byte = 9;
	uint64_t now = 0;
	int error = 0;
	switch (model_below(&client->random, 8)) {
	case 0:
	case 1:
		error = era_freeze(era, 100, &now, err);
		if (error == 0)
			show(client->shown, now + 1);
		return error;
	case 2:
	case 3:
	case 4:
		error = era_thaw(era, 0, &now, err);
		break;
	case 5:
		error = era_checkpoint(era, NULL, &now, err);
		break;
	case 6:
		return era_label_set(era, "x", 0, &now, err);
	case 7:
		core_req_init(&req, era, CORE_WRITE, 3 * CORE_BLOCK, 1);
		req.data = &byte;
		core_req_submit(&req);
		expect_eq(core_fsync(era), 0);
		if (!era_cancel(era, &req.req))
			error = core_req_wait(&req) == -EINTR ? 0 : core_req_wait(&req);
		core_req_destroy(&req);
		return error;
	}
	if (error == 0)
		show(client->shown, now);
	return error;
}

static void *call_on(void *arg)
{
	struct client *client = arg;
	for (int i = 0; i < NR_CALLS; i++) {
		struct err err = ERR_INIT;
		int error = call_any(client, &err);
		expect_msg(error == 0 || error == -EBUSY || error == -ENOTSUP, "%d: %s", error, err.text);
		client->nr_done += error == 0;
	}
	return NULL;
}

START_TEST(test_many_clients_at_a_time)
{
	struct core_env env;
	struct err err = ERR_INIT;
	_Atomic uint64_t last_era[NR_BLOCKS] = { 0 }, shown, nr_writes = 0;
	struct client clients[NR_CLIENTS];
	uint64_t now;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	struct writer w = { .era = era, .shown = &shown, .last_era = last_era, .nr_writes = &nr_writes };
	atomic_store(&shown, core_era(era));
	expect_eq(pthread_create(&w.thread, NULL, write_on, &w), 0);
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		clients[i] = (struct client){ .era = era, .shown = &shown, .random = i };
		expect_eq(pthread_create(&clients[i].thread, NULL, call_on, &clients[i]), 0);
	}
	for (unsigned int i = 0; i < NR_CLIENTS; i++) {
		pthread_join(clients[i].thread, NULL);
		expect_gt(clients[i].nr_done, 0);
	}
	atomic_store(&w.stop, true);
	if (core_state(era) == ERA_FROZEN)
		expect_eq(era_thaw(era, 0, &now, &err), 0);
	pthread_join(w.thread, NULL);
	expect_eq(core_state(era), ERA_RUNNING);
	expect_written(&env, last_era, 1, core_era(era));
	core_close(era);
	expect_written(&env, last_era, 1, atomic_load(&shown));
}
END_TEST

/* --- the digest in the middle of its work --- */

#define NR_CHUNKS 256u
#define CHUNK_BYTES (BM_CHUNK_BITS * CORE_BLOCK)

/* Writes whole chunks: a row for the digest each. */
static void write_chunks(struct era *era, uint64_t last_era[NR_CHUNKS], uint64_t from, uint64_t nr)
{
	expect_eq(core_punch(era, from * CHUNK_BYTES, nr * CHUNK_BYTES), 0);
	for (uint64_t chunk = from; chunk < from + nr; chunk++)
		last_era[chunk] = core_era(era);
}

static void expect_chunks(const struct core_env *env, const uint64_t last_era[NR_CHUNKS], uint64_t era)
{
	struct core_since since = core_since(env->db, era);
	for (uint64_t chunk = 0; chunk < NR_CHUNKS; chunk++) {
		bool first = core_since_has(&since, chunk * BM_CHUNK_BITS);
		bool last = core_since_has(&since, (chunk + 1) * BM_CHUNK_BITS - 1);
		bool want = last_era[chunk] >= era;
		expect_msg(first == want && last == want, "%s since %llu: chunk %llu, written in era %llu",
			want ? "MISSING" : "too much", (unsigned long long)era, (unsigned long long)chunk,
			(unsigned long long)last_era[chunk]);
	}
	core_since_free(&since);
}

static void expect_all_chunks(const struct core_env *env, const uint64_t last_era[NR_CHUNKS], uint64_t now)
{
	expect_chunks(env, last_era, 1);
	for (uint64_t era = now > 5 ? now - 5 : 1; era <= now; era++)
		expect_chunks(env, last_era, era);
}

START_TEST(test_a_freeze_in_the_middle_of_the_digests_work)
{
	struct core_env env;
	struct core_rest rest;
	struct err err = ERR_INIT;
	uint64_t last_era[NR_CHUNKS] = { 0 }, random = 42, n = 0;
	core_env_init(&env, NR_CHUNKS * CHUNK_BYTES);
	struct era *era = core_open(&env);
	core_rest_open(&rest, &env);
	for (int round = 0; round < 30; round++) {
		for (uint64_t i = model_below(&random, 4); i > 0; i--) {
			uint64_t from = model_below(&random, NR_CHUNKS);
			write_chunks(era, last_era, from, 1 + model_below(&random, NR_CHUNKS - from));
			core_checkpoint(era);
		}
		write_chunks(era, last_era, 0, NR_CHUNKS);
		core_checkpoint(era); /* and no time for the digest to work it off */
		expect_eq(era_checkpoint_begin(era, &err), 0);
		int error = era_freeze_commit(era, 0, -1, &n, &err);
		expect_msg(error == 0, "era_freeze_commit: %d: %s", error, err.text);
		core_rest_is_whole(&rest, "a freeze in the middle of the digest's work");
		core_rest_take(&rest);
		uint64_t steps = core_status(era).digest_steps;
		expect_all_chunks(&env, last_era, n + 1);
		expect_eq(core_status(era).digest_steps, steps);
		core_rest_check(&rest, "a freeze in the middle of the digest's work");
		if (round % 3 == 0) {
			core_close(era);
			core_rest_check(&rest, "the stop of a frozen instance");
			era = core_open(&env);
			expect_eq(core_era(era), n + 1);
		} else {
			core_thaw(era, n);
		}
		expect_all_chunks(&env, last_era, n + 1);
	}
	core_close(era);
	expect_all_chunks(&env, last_era, n + 1);
}
END_TEST

/* --- readers --- */

START_TEST(test_a_readers_snapshot_makes_the_freeze_fail)
{
	struct core_env env;
	struct err err = ERR_INIT, why = ERR_INIT;
	struct meta_reader *reader;
	struct core_req req;
	const uint8_t byte = 9;
	uint64_t n = 0;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	core_await_digest(era, 1);
	if (_i == 1)
		expect_eq(era_freeze_prepare(era, &err), 0);
	core_touch(era, 1, 1);
	expect_eq(meta_reader_open(env.db, &reader, &err), 0);
	core_touch(era, 2, 1);
	if (_i == 0) {
		core_expect_refused(era_freeze(era, 0, &n, &why), &why, -EBUSY, ERR_EXIT_FAILED);
	} else {
		expect_eq(era_checkpoint_begin(era, &err), 0);
		core_req_start(&req, era, 3, &byte);
		core_expect_refused(era_freeze_commit(era, 0, -1, &n, &why), &why, -EBUSY, ERR_EXIT_FAILED);
		expect_eq(core_req_end(&req), 0);
	}
	expect_msg(strstr(why.text, "snapshot") != NULL, "does not name the reader: %s", why.text);
	core_runs_on(era, &env);
	meta_reader_close(reader);
	n = core_freeze(era, 0);
	struct core_rest rest;
	core_rest_open(&rest, &env);
	core_rest_is_whole(&rest, "the next freeze");
	expect(core_has(env.db, 1, 1) && core_has(env.db, 1, 2) && core_has(env.db, 1, 33));
	core_thaw(era, n);
	core_close(era);
	expect(core_has(env.db, 1, 1) && core_has(env.db, 1, 2));
}
END_TEST

/* --- the deadline --- */

START_TEST(test_the_deadline_thaws)
{
	struct core_env env;
	struct core_req req;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct era *era = core_open(&env);
	uint64_t n = core_freeze(era, 1);
	core_req_start(&req, era, 20, &byte);
	expect_eq(core_req_end(&req), 0);
	expect(core_has(env.db, n + 1, 20));
	struct era_status status = core_status(era);
	while (status.auto_thaws == 0) { /* counted a moment after the gate was opened */
		sched_yield();
		status = core_status(era);
	}
	expect_eq(status.state, ERA_RUNNING);
	expect_eq(status.auto_thaws, 1);
	expect_eq(status.current_era, n + 1);
	expect(strstr(status.auto_thaw_reason, "1 s") != NULL);
	core_thaw_refused(era, n, -ENOTSUP, ERR_EXIT_FAILED, NULL);
	uint64_t m = core_freeze(era, 100);
	expect_gt(m, n);
	core_thaw_refused(era, n, -ENOTSUP, ERR_EXIT_REFUSED, NULL);
	expect_eq(core_state(era), ERA_FROZEN);
	core_thaw(era, m);
	expect_eq(core_status(era).auto_thaws, 1);
	core_close(era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_freeze");
	TCase *tcase = tcase_create("freeze");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_a_freeze_ends_an_era_and_a_thaw_goes_on_in_the_next);
	tcase_add_loop_test(tcase, test_the_files_do_not_change_until_the_thaw, 0, 2);
	tcase_add_test(tcase, test_a_kill_while_frozen_changes_nothing);
	tcase_add_loop_test(tcase, test_no_lock_is_held_while_frozen, 0, 2);
	tcase_add_test(tcase, test_a_waiting_write_can_be_taken_back);
	tcase_add_test(tcase, test_what_is_refused);
	tcase_add_test(tcase, test_fifty_freezes_under_a_writer);
	tcase_add_test(tcase, test_a_kill_at_any_point_loses_no_write);
	tcase_add_test(tcase, test_many_clients_at_a_time);
	tcase_add_test(tcase, test_a_freeze_in_the_middle_of_the_digests_work);
	tcase_add_loop_test(tcase, test_a_readers_snapshot_makes_the_freeze_fail, 0, 2);
	tcase_add_test(tcase, test_the_deadline_thaws);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
