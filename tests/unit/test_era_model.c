/* SPDX-License-Identifier: MIT */
/*
 * The core against a naive model: random operations in lives that end by a clean stop or by kill -9 at a random moment.
 *
 * Each life is a process. It writes into shared memory what was acknowledged, so that the test knows which operation was
 * in flight when it died; that one, and only that one, may or may not have come to pass. All else must be exactly what
 * the model says: the bytes, and the answer of since for any era, live and at rest.
 *
 * test_era_model [SEED [OPERATIONS]], or $ERA_MODEL_SEED and $ERA_MODEL_OPS.
 */
#include "core_model.h"
#include "core_util.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIFE_OPS_MAX 400
#define OPS_DEFAULT "100000"

#define KB4 UINT64_C(4096)
#define GB UINT64_C(1073741824)

static const struct model_geometry geometries[] = {
	{ "one whole block", KB4, KB4, 80 }, { "one partial block", KB4, 1000, 80 },
	{ "63 blocks", KB4, 63 * KB4, 110 }, { "64 blocks", KB4, 64 * KB4, 110 },
	{ "65 blocks, the last partial", KB4, 64 * KB4 + 17, 110 }, { "4095 blocks", KB4, 4095 * KB4, 80 },
	{ "4096 blocks", KB4, 4096 * KB4, 80 }, { "4097 blocks, the last partial", KB4, 4096 * KB4 + 1, 110 },
	{ "130 blocks of 64 KiB, the last partial", 65536, 129 * 65536 + 4321, 120 },
	{ "5 blocks of 1 GiB, the last partial", GB, 4 * GB + 12345678, 80 },
	{ "70000 blocks", KB4, 70000 * KB4 - 1, 40 },
	{ "2^31 - 1 blocks", KB4, BM_MAX_BITS *KB4, 3 }, /* 5 GiB at a time are checked block by block: slow */
};
#define NR_GEOMETRIES (int)(sizeof(geometries) / sizeof(geometries[0]))

enum phase {
	PHASE_OPENING,
	PHASE_RUNNING,
	PHASE_CLOSING,
	PHASE_OVER,
};

/* Written by the life, read after its end. */
struct life_log {
	_Atomic int phase;
	_Atomic uint64_t era; /* that it began with */
	_Atomic unsigned int nr_done; /* operations acknowledged, in order */
	_Atomic unsigned int burst_done; /* bits: ranges of the operation in flight that were acknowledged */
};

struct life_plan {
	unsigned int nr_ops;
	struct model_op ops[LIFE_OPS_MAX];
	bool is_killed;
	int kill_phase;
	unsigned int kill_op;
	unsigned int kill_delay_ns;
};

struct story {
	const struct model_geometry *geometry;
	uint64_t seed, random;
	struct core_env env;
	struct model model;
	struct life_log *log;
	struct life_plan plan;
	uint64_t nr_ops; /* before this life */
	int kill_fd; /* life: writes a byte when the moment to die is near */
};

static void life_fail(const struct story *story, const char *what, const char *text)
{
	fprintf(stderr, "%s: seed %llu, operation %llu: %s %s\n", story->geometry->name,
		(unsigned long long)story->seed, (unsigned long long)story->nr_ops + atomic_load(&story->log->nr_done),
		what, text);
	_exit(1);
}

static void life_expect(const struct story *story, bool good, const char *what)
{
	if (!good)
		life_fail(story, what, "");
}

static void ask_for_death(const struct story *story, int phase, unsigned int op)
{
	if (story->plan.is_killed && story->plan.kill_phase == phase && story->plan.kill_op == op)
		life_expect(story, write(story->kill_fd, "x", 1) == 1, "kill pipe");
}

static void check_answer(const struct story *story, uint64_t era)
{
	struct core_since since = core_since(story->env.db, era);
	bool good = model_check_since(&story->model, &since, era);
	core_since_free(&since);
	life_expect(story, good, "since differs");
}

static void check_labels(const struct story *story)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	life_expect(story, meta_reader_open(story->env.db, &reader, &err) == 0, err.text);
	for (uint64_t i = 0; i < MODEL_LABELS; i++) {
		uint64_t era = 0;
		int error = meta_reader_label(reader, model_label_name(i), &era, &err);
		life_expect(story, error == 0 || error == -ENOENT, "label");
		life_expect(story, era == story->model.label_eras[i], "label differs");
	}
	meta_reader_close(reader);
}

/* Some eras, new ones above all. */
static void check_all(struct story *story)
{
	uint64_t era = story->model.era;
	check_answer(story, 0);
	check_answer(story, era);
	for (int i = 0; i < 3; i++)
		check_answer(story, 1 + model_below(&story->random, era));
	check_answer(story, era > 3 ? era - 3 : 1);
	struct core_since since;
	life_expect(story, core_since_try(story->env.db, era + 1, &since) == -ERANGE, "an era to come was shown");
	check_labels(story);
}

static enum core_op op_of(enum model_kind kind)
{
	switch (kind) {
	case MODEL_PUNCH:
		return CORE_PUNCH;
	case MODEL_ZERO:
		return CORE_ZERO;
	case MODEL_COPY:
		return CORE_COPY;
	case MODEL_FSYNC:
		return CORE_FLUSH;
	default:
		return CORE_WRITE;
	}
}

static void do_request(struct story *story, struct era *era, const struct model_op *op)
{
	static uint8_t data[MODEL_BURST][MODEL_WRITE_MAX + 8];
	struct core_req reqs[MODEL_BURST];
	unsigned int nr = op->nr > 0 ? op->nr : 1;
	for (unsigned int i = 0; i < nr; i++) {
		core_req_init(
			&reqs[i], era, op_of(op->kind), op->ranges[i].begin, op->ranges[i].end - op->ranges[i].begin);
		if (reqs[i].op == CORE_WRITE)
			model_fill(op, i, data[i]);
		reqs[i].data = data[i];
		reqs[i].copy_from = op->from;
	}
	for (unsigned int i = 0; i < nr; i++)
		core_req_submit(&reqs[i]);
	for (unsigned int i = 0; i < nr; i++) {
		int error = core_req_wait(&reqs[i]);
		if (error != 0)
			life_fail(story, "request failed:", strerror(-error));
		if (op->kind == MODEL_BURST_OF_WRITES)
			atomic_fetch_or(&story->log->burst_done, 1u << i);
		core_req_destroy(&reqs[i]);
	}
}

static void do_op(struct story *story, struct era *era, const struct model_op *op)
{
	struct err err = ERR_INIT;
	uint64_t now = 0;
	const char *label = model_label_name(op->arg);
	int error = 0;
	switch (op->kind) {
	case MODEL_CHECKPOINT:
	case MODEL_CHECKPOINT_LABEL:
		error = era_checkpoint(era, op->kind == MODEL_CHECKPOINT ? NULL : label, &now, &err);
		life_expect(story, error != 0 || now == story->model.era + 1, "checkpoint gave another era");
		break;
	case MODEL_LABEL:
		error = era_label_set(era, label, 0, &now, &err);
		life_expect(story, error != 0 || now == story->model.era, "label named another era");
		break;
	case MODEL_UNLABEL:
		error = era_label_remove(era, label, &err);
		life_expect(
			story, (error == -ENOENT) == (story->model.label_eras[op->arg % MODEL_LABELS] == 0), "unlabel");
		error = error == -ENOENT ? 0 : error;
		break;
	case MODEL_SINCE:
		check_answer(story, op->arg % 4 == 0 ? op->arg / 4 % (story->model.era + 1) : story->model.era);
		check_answer(story, 1 + op->arg / 4 % story->model.era);
		break;
	default:
		do_request(story, era, op);
	}
	if (error != 0)
		life_fail(story, "operation failed:", err.text);
}

static void live(struct story *story)
{
	struct err err = ERR_INIT;
	struct era *era;
	struct era_config config = core_config(&story->env);
	config.block_size = story->geometry->block_size;
	ask_for_death(story, PHASE_OPENING, 0);
	if (era_open(&config, &era, &err) != 0)
		life_fail(story, "era_open:", err.text);
	uint64_t now = core_era(era);
	life_expect(story, now > story->model.era, "the era did not rise");
	story->model.era = now;
	atomic_store(&story->log->era, now);
	atomic_store(&story->log->phase, PHASE_RUNNING);
	check_all(story);
	for (unsigned int i = 0; i < story->plan.nr_ops; i++) {
		const struct model_op *op = &story->plan.ops[i];
		atomic_store(&story->log->burst_done, 0);
		ask_for_death(story, PHASE_RUNNING, i);
		do_op(story, era, op);
		model_apply(&story->model, op);
		atomic_store(&story->log->nr_done, i + 1);
	}
	check_all(story);
	ask_for_death(story, PHASE_CLOSING, 0);
	atomic_store(&story->log->phase, PHASE_CLOSING);
	if (era_close(era, &err) != 0)
		life_fail(story, "era_close:", err.text);
	atomic_store(&story->log->phase, PHASE_OVER);
	_exit(0);
}

static void plan_life(struct story *story, uint64_t nr_left)
{
	struct life_plan *plan = &story->plan;
	plan->nr_ops = 1 + (unsigned int)model_below(&story->random, LIFE_OPS_MAX);
	if (plan->nr_ops > nr_left)
		plan->nr_ops = (unsigned int)nr_left;
	for (unsigned int i = 0; i < plan->nr_ops; i++)
		model_pick_op(&story->model, &story->random, &plan->ops[i]);
	uint64_t end = model_below(&story->random, 10);
	plan->is_killed = end < 8;
	plan->kill_phase = end == 0 ? PHASE_OPENING : end == 1 ? PHASE_CLOSING : PHASE_RUNNING;
	plan->kill_op = 0;
	if (plan->kill_phase == PHASE_RUNNING)
		plan->kill_op = (unsigned int)model_below(&story->random, plan->nr_ops);
	/* Most operations are over in some ten microseconds, an opening takes a millisecond or more. */
	uint64_t delay = UINT64_C(1) << model_below(&story->random, plan->kill_phase == PHASE_RUNNING ? 18 : 23);
	plan->kill_delay_ns = (unsigned int)(delay + model_below(&story->random, delay));
}

static int wait_for_life(struct story *story, pid_t pid, int kill_fd)
{
	char byte;
	int status;
	if (read(kill_fd, &byte, 1) == 1) {
		/* Not a wait for something: the moment is to be any. */
		struct timespec delay = { 0, story->plan.kill_delay_ns };
		nanosleep(&delay, NULL);
		kill(pid, SIGKILL);
	}
	expect_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* What was in flight when the life was killed: took place, did not, or did in part. */
static void absorb_op(struct story *story, const struct model_op *op)
{
	struct core_since since = core_since(story->env.db, story->model.era);
	CLEANUP_CLOSE int fd = open(story->env.image, O_RDONLY | O_CLOEXEC);
	expect_ge(fd, 0);
	unsigned int done = op->kind == MODEL_BURST_OF_WRITES ? atomic_load(&story->log->burst_done) : 0;
	for (unsigned int i = 0; i < op->nr; i++) {
		if (done & (1u << i))
			model_apply_range(&story->model, op, i);
		else
			expect_msg(model_absorb(&story->model, op, i, fd, &since),
				"%s: seed %llu, operation %llu, in flight", story->geometry->name,
				(unsigned long long)story->seed,
				(unsigned long long)story->nr_ops + atomic_load(&story->log->nr_done));
	}
	core_since_free(&since);
	/* A label in flight is the old one or the new one. */
	uint64_t label = op->arg % MODEL_LABELS, *model_label = &story->model.label_eras[label], now = 0;
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	expect_eq(meta_reader_open(story->env.db, &reader, &err), 0);
	meta_reader_label(reader, model_label_name(label), &now, &err);
	meta_reader_close(reader);
	if (now == *model_label)
		return;
	switch (op->kind) {
	case MODEL_UNLABEL:
		expect_eq(now, 0);
		break;
	case MODEL_LABEL:
		expect_eq(now, story->model.era);
		break;
	default:
		expect_eq(op->kind, MODEL_CHECKPOINT_LABEL);
		expect_eq(now, story->model.era + 1);
	}
	*model_label = now;
}

/* Before a recovery intents count as their whole extents; after it the answer is exact. */
static void recover_intents(const struct story *story)
{
	struct era_config config = core_config(&story->env);
	config.block_size = story->geometry->block_size;
	if (config.intent_bytes > 0)
		core_close(core_open_with(&config));
}

/* Brings the model to where the life ended, then looks at what lies there, before anything recovers it where it can be. */
static void absorb_life(struct story *story)
{
	struct life_log *log = story->log;
	unsigned int nr_done = atomic_load(&log->nr_done);
	if (atomic_load(&log->phase) == PHASE_OPENING)
		return;
	recover_intents(story);
	story->model.era = atomic_load(&log->era);
	for (unsigned int i = 0; i < nr_done; i++)
		model_apply(&story->model, &story->plan.ops[i]);
	if (atomic_load(&log->phase) == PHASE_RUNNING && nr_done < story->plan.nr_ops)
		absorb_op(story, &story->plan.ops[nr_done]);
	for (int i = 0; i < 3; i++) {
		uint64_t era = i == 0 ? story->model.era : 1 + model_below(&story->random, story->model.era);
		struct core_since since = core_since(story->env.db, era);
		expect_msg(model_check_since(&story->model, &since, era), "%s: seed %llu, operation %llu, at rest",
			story->geometry->name, (unsigned long long)story->seed,
			(unsigned long long)story->nr_ops + nr_done);
		core_since_free(&since);
	}
	CLEANUP_CLOSE int fd = open(story->env.image, O_RDONLY | O_CLOEXEC);
	expect_ge(fd, 0);
	expect_msg(model_check_image(&story->model, fd), "%s: seed %llu, operation %llu, image", story->geometry->name,
		(unsigned long long)story->seed, (unsigned long long)story->nr_ops + nr_done);
}

static void run_life(struct story *story, uint64_t nr_left)
{
	int fds[2];
	plan_life(story, nr_left);
	memset(story->log, 0, sizeof(*story->log));
	expect_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = core_fork();
	if (pid == 0) {
		close(fds[0]);
		story->kill_fd = fds[1];
		live(story);
	}
	close(fds[1]);
	int status = wait_for_life(story, pid, fds[0]);
	close(fds[0]);
	bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && story->plan.is_killed;
	expect_msg(is_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
		"%s: seed %llu, operations from %llu: the life ended with status %#x", story->geometry->name,
		(unsigned long long)story->seed, (unsigned long long)story->nr_ops, status);
	absorb_life(story);
	story->nr_ops += atomic_load(&story->log->nr_done);
}

START_TEST(test_model)
{
	struct story *story = calloc(1, sizeof(*story));
	story->geometry = &geometries[_i];
	story->seed = strtoull(getenv("ERA_MODEL_SEED"), NULL, 10);
	story->random = story->seed * 1000 + (uint64_t)_i;
	story->log = mmap(NULL, sizeof(*story->log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(story->log != MAP_FAILED);
	core_env_init(&story->env, story->geometry->image_size);
	model_init(&story->model, story->geometry, &story->random);
	uint64_t nr_ops = strtoull(getenv("ERA_MODEL_OPS"), NULL, 10) * story->geometry->share / 1000 + 1;
	unsigned int nr_lives = 0;
	for (; story->nr_ops < nr_ops; nr_lives++)
		run_life(story, nr_ops - story->nr_ops);
	printf("%s: %llu operations in %u lives, era %llu\n", story->geometry->name, (unsigned long long)story->nr_ops,
		nr_lives, (unsigned long long)story->model.era);
	munmap(story->log, sizeof(*story->log));
	model_free(&story->model);
	unlink(story->env.image);
	free(story);
}
END_TEST

int main(int argc, char **argv)
{
	char seed[32];
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)time(NULL));
	setenv("ERA_MODEL_SEED", argc > 1 ? argv[1] : seed, argc > 1);
	setenv("ERA_MODEL_OPS", argc > 2 ? argv[2] : OPS_DEFAULT, argc > 2);
	printf("seed %s, %s operations\n", getenv("ERA_MODEL_SEED"), getenv("ERA_MODEL_OPS"));
	Suite *suite = suite_create("era_model");
	TCase *tcase = tcase_create("model");
	tcase_set_timeout(tcase, 280);
	tcase_add_loop_test(tcase, test_model, 0, NR_GEOMETRIES);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
