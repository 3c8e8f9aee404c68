/* SPDX-License-Identifier: MIT */
#include "life.h"

#include "../unit/core_util.h"
#include "disk.h"
#include "record.h"
#include "truth.h"

#include "meta/copy.h"
#include "meta/meta.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SNAPSHOT_NAME "snapshot.era"
#define SETTLE_S 10
#define HOLD_MS 10 /* how long a write stays inside the gate for a checkpoint that should not come */
#define CARRY_MS 200 /* how long an fsync takes at most for writes that should be over meanwhile */
#define BURST_MAX 8

/* What the lives of a workload share. */
struct stage {
	struct record *record;
	unsigned int next_step;
	uint64_t kill_opening; /* entries into the next open; 0: none */
	bool is_resized; /* the next open is with -o resize */
	char failure[600];
};

struct life {
	const struct workload *workload;
	const struct scene *scene;
	struct stage *stage;
	struct era *era;
	uint64_t shown; /* the newest era that was seen */
	uint64_t frozen_era;
	bool has_failing_sync; /* from now on EIO is what to expect */

	/* For the fsyncs of the moment. */
	struct core_req *carried;
	unsigned int nr_carried;
	struct core_req *overtaker;
	uint32_t overtaker_ref;
	atomic_bool has_overtaken;

	struct core_req *waiting; /* for the thaw */
	uint32_t waiting_ref;
	uint8_t waiting_data[65536];
};

/* --- scenes --- */

void scene_make(struct scene *scene, const char *base)
{
	snprintf(scene->dir, sizeof(scene->dir), "%.180s/disk", base);
	snprintf(scene->run, sizeof(scene->run), "%.180s/run", base);
	snprintf(scene->image, sizeof(scene->image), "%s/image", scene->dir);
	snprintf(scene->db, sizeof(scene->db), "%s/image.era", scene->dir);
	if (mkdir(base, 0700) < 0 || mkdir(scene->dir, 0700) < 0 || mkdir(scene->run, 0700) < 0) {
		perror(base);
		exit(EXIT_FAILURE);
	}
}

void scene_clear_run(const struct scene *scene)
{
	woken_write(&(struct woken){ .nr = 0 }, scene->run);
}

struct era_config scene_config(const struct scene *scene, enum crash_mode mode)
{
	struct era_config config = workload_config(mode);
	config.image_path = scene->image;
	config.metadata_path = scene->db;
	config.run_dir = scene->run;
	return config;
}

/* --- the child --- */

static _Noreturn void __attribute__((format(printf, 2, 3))) life_fail(struct life *life, const char *format, ...)
{
	va_list args;
	char text[500];
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(life->stage->failure, sizeof(life->stage->failure), "step %u: %s", life->stage->next_step - 1, text);
	_exit(EXIT_FAILURE);
}

/* Whether a step did what it should: 0, or EIO where an fsync was made to fail. (An instance that goes on after that, as if
 * nothing had been, is found out by what it acknowledges.) True: it was done. */
static bool life_did(struct life *life, int error, const char *what, const char *text)
{
	if (error == 0)
		return true;
	if (life->has_failing_sync && error == -EIO)
		return false;
	life_fail(life, "%s: %s: %s", what, strerror(-error), text);
}

static void show(struct life *life, uint64_t era, uint32_t ask)
{
	record_mark(LOG_SHOWN, ask, era, NULL);
	life->shown = era;
}

static bool await_over(struct core_req *req, unsigned int limit_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)limit_ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&req->lock);
	while (req->nr_done == 0 && pthread_cond_timedwait(&req->over, &req->lock, &until) == 0)
		;
	bool over = req->nr_done > 0;
	pthread_mutex_unlock(&req->lock);
	return over;
}

/* An fsync takes its time: others go on meanwhile. */
static void life_on_sync(const char *name, void *arg)
{
	struct life *life = arg;

	if (strcmp(name, "image.era-wal") == 0 && life->overtaker && !atomic_exchange(&life->has_overtaken, true)) {
		struct core_req *req = life->overtaker;
		life->overtaker_ref = record_request(req->req.offset, req->req.len);
		core_req_submit(req);
	}
	if (strcmp(name, "image") != 0 || !life->era)
		return;
	for (unsigned int i = 0; i < life->nr_carried; i++)
		await_over(&life->carried[i], CARRY_MS);
	/* Whoever asks for the status now has seen this era. */
	struct era_status status;
	era_get_status(life->era, &status);
	if (status.current_era > life->shown)
		show(life, status.current_era, life->stage->record->last_ask);
}

static void fill(uint64_t seed, uint8_t *ret_data, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += 8) {
		uint64_t word = crash_random(&seed);
		memcpy(ret_data + at, &word, len - at < 8 ? len - at : 8);
	}
}

static void request(
	struct life *life, enum core_op op, uint64_t offset, uint64_t len, const uint8_t *data, uint64_t from)
{
	struct core_req *req = malloc(sizeof(*req));
	core_req_init(req, life->era, op, offset, len);
	req->data = data;
	req->copy_from = from;
	uint32_t ref = record_request(offset, len);
	core_req_submit(req);
	int error = core_req_wait(req);
	record_mark(LOG_REQUEST_DONE, ref, 0, NULL);
	core_req_destroy(req);
	free(req);
	life_did(life, error, "a request", "failed");
}

static void write_step(struct life *life, const struct step *step)
{
	static uint8_t data[65536 + 8];
	uint64_t len = step->args[1] < sizeof(data) - 8 ? step->args[1] : sizeof(data) - 8;
	fill(step->args[2], data, len);
	request(life, CORE_WRITE, step->args[0], len, data, 0);
}

static void fsync_step(struct life *life)
{
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	if (life_did(life, core_fsync(life->era), "fsync", "failed"))
		record_mark(LOG_SYNCED, ask, 0, NULL);
}

/* Waits until the digest has nothing left to do. */
static void settle(struct life *life)
{
	struct era_status status;
	era_get_status(life->era, &status);
	if (!life->workload->settles || status.state != ERA_RUNNING)
		return;
	const struct timespec nap = { .tv_nsec = 200000 };
	for (int turns = 0; turns < SETTLE_S * 5000; turns++) {
		struct err err = ERR_INIT;
		struct meta_reader *reader;
		struct meta_stats stats;
		if (meta_reader_open(life->scene->db, &reader, &err) < 0)
			life_fail(life, "a reader: %s", err.text);
		int r = meta_reader_stats(reader, &stats, &err);
		meta_reader_close(reader);
		if (r < 0)
			life_fail(life, "a reader's statistics: %s", err.text);
		if (stats.archived_eras == 0)
			return;
		nanosleep(&nap, NULL);
	}
	life_fail(life, "the digest does not come to its end");
}

static void acknowledge_era(struct life *life, uint32_t ask, uint64_t era)
{
	if (era < life->shown)
		life_fail(life, "era %llu was shown, and now %llu", (unsigned long long)life->shown,
			(unsigned long long)era);
	show(life, era, ask);
	record_mark(LOG_SYNCED, ask, 0, NULL);
	settle(life);
}

static void checkpoint_step(struct life *life, uint64_t label)
{
	struct err err = ERR_INIT;
	uint64_t era = 0;
	uint32_t label_ask = 0;
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	if (label)
		label_ask = record_mark(LOG_LABEL_ASK, 0, life->shown + 1, label_name(label));
	int error = era_checkpoint(life->era, label ? label_name(label) : NULL, &era, &err);
	if (!life_did(life, error, "checkpoint", err.text))
		return;
	if (label)
		record_mark(LOG_LABEL, label_ask, 0, NULL);
	acknowledge_era(life, ask, era);
}

static void label_step(struct life *life, const struct step *step)
{
	struct err err = ERR_INIT;
	uint64_t era = life->shown;
	bool sets = step->kind == STEP_LABEL;
	const char *name = label_name(step->args[0]);
	uint32_t ask = record_mark(LOG_LABEL_ASK, 0, sets ? era : 0, name);
	int error = sets ? era_label_set(life->era, name, era, &era, &err) : era_label_remove(life->era, name, &err);
	if (error == -ENOENT && !sets)
		error = 0;
	if (life_did(life, error, "label", err.text))
		record_mark(LOG_LABEL, ask, 0, NULL);
}

/* n writes, each in a part of the image of its own. */
static void many_begin(
	struct life *life, uint64_t n, uint64_t seed, struct core_req *reqs, uint32_t *refs, uint8_t data[][8192])
{
	struct era_status status;
	era_get_status(life->era, &status);
	uint64_t part = status.image_size / n;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t len = 1 + crash_below(&seed, 8000);
		uint64_t offset = i * part + crash_below(&seed, part - len);
		fill(crash_random(&seed), data[i], len);
		core_req_init(&reqs[i], life->era, CORE_WRITE, offset, len);
		reqs[i].data = data[i];
		refs[i] = record_request(offset, len);
	}
	for (uint64_t i = 0; i < n; i++)
		core_req_submit(&reqs[i]);
}

static void many_end(struct life *life, uint64_t n, struct core_req *reqs, const uint32_t *refs)
{
	for (uint64_t i = 0; i < n; i++) {
		int error = core_req_wait(&reqs[i]);
		record_mark(LOG_REQUEST_DONE, refs[i], 0, NULL);
		core_req_destroy(&reqs[i]);
		life_did(life, error, "one of many requests", "failed");
	}
}

static void many_step(struct life *life, const struct step *step)
{
	static uint8_t data[BURST_MAX][8192];
	struct core_req reqs[BURST_MAX];
	uint32_t refs[BURST_MAX];
	struct err err = ERR_INIT;
	uint64_t n = step->args[0] < BURST_MAX ? step->args[0] : BURST_MAX;
	uint64_t era = 0;

	if (step->kind == STEP_BURST) {
		many_begin(life, n, step->args[1], reqs, refs, data);
		many_end(life, n, reqs, refs);
		return;
	}
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	int error = era_checkpoint_begin(life->era, &err);
	if (!life_did(life, error, "checkpoint", err.text))
		return;
	many_begin(life, n, step->args[1], reqs, refs, data);
	life->carried = reqs;
	life->nr_carried = (unsigned int)n;
	error = era_checkpoint_commit(life->era, NULL, -1, &era, &err);
	life->nr_carried = 0;
	bool good = life_did(life, error, "checkpoint", err.text);
	if (good)
		acknowledge_era(life, ask, era);
	many_end(life, n, reqs, refs);
}

static void overtake_step(struct life *life, const struct step *step)
{
	static uint8_t data[2][1000];
	struct core_req second;
	uint64_t offset = step->args[0] * CRASH_BLOCK;

	struct era_status status;
	era_get_status(life->era, &status);
	if (offset + 2048 > status.image_size)
		offset = 0;
	fill(step->args[1], data[0], sizeof(data[0]));
	fill(step->args[1] + 1, data[1], sizeof(data[1]));
	core_req_init(&second, life->era, CORE_WRITE, offset + 1024, sizeof(data[1]));
	second.data = data[1];
	atomic_store(&life->has_overtaken, false);
	life->overtaker = &second;
	request(life, CORE_WRITE, offset, sizeof(data[0]), data[0], 0);
	if (!atomic_exchange(&life->has_overtaken, true)) {
		life->overtaker_ref = record_request(second.req.offset, second.req.len);
		core_req_submit(&second);
	}
	life->overtaker = NULL;
	int error = core_req_wait(&second);
	record_mark(LOG_REQUEST_DONE, life->overtaker_ref, 0, NULL);
	core_req_destroy(&second);
	life_did(life, error, "the second request", "failed");
}

/* A write that does not leave the gate before the checkpoint has returned, or for HOLD_MS. */
struct held {
	struct core_req req; /* first */
	const struct era_req_ops *ops;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_inside; /* under lock */
	bool may_go; /* under lock */
};

static int held_apply(struct era_req *base, uint64_t offset, uint64_t len)
{
	struct held *held = (struct held *)base;
	struct timespec until;

	pthread_mutex_lock(&held->lock);
	held->is_inside = true;
	pthread_cond_signal(&held->changed);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += HOLD_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (!held->may_go && pthread_cond_timedwait(&held->changed, &held->lock, &until) == 0)
		;
	pthread_mutex_unlock(&held->lock);
	return held->ops->apply(base, offset, len);
}

static void hold_step(struct life *life, const struct step *step)
{
	static uint8_t data[600];
	struct held held = { .is_inside = false };
	uint64_t offset = step->args[0] * CRASH_BLOCK;

	fill(step->args[1], data, sizeof(data));
	struct era_status status;
	era_get_status(life->era, &status);
	if (offset + sizeof(data) > status.image_size)
		offset = 0;
	core_req_init(&held.req, life->era, CORE_WRITE, offset, sizeof(data));
	held.req.data = data;
	pthread_mutex_init(&held.lock, NULL);
	pthread_cond_init(&held.changed, NULL);
	held.ops = held.req.req.ops;
	struct era_req_ops ops = *held.ops;
	ops.apply = held_apply;
	held.req.req.ops = &ops;
	/* Its block is marked: else it would wait for its mark, and not inside. */
	request(life, CORE_WRITE, offset, 1, data, 0);
	uint32_t ref = record_request(offset, sizeof(data));
	pthread_t submitter;
	if (pthread_create(&submitter, NULL, (void *(*)(void *))(void (*)(void))core_req_submit, &held.req) != 0)
		life_fail(life, "no thread");
	pthread_mutex_lock(&held.lock);
	while (!held.is_inside && !core_req_is_over(&held.req))
		pthread_cond_wait(&held.changed, &held.lock);
	pthread_mutex_unlock(&held.lock);
	checkpoint_step(life, 0);
	pthread_mutex_lock(&held.lock);
	held.may_go = true;
	pthread_cond_signal(&held.changed);
	pthread_mutex_unlock(&held.lock);
	pthread_join(submitter, NULL);
	int error = core_req_wait(&held.req);
	record_mark(LOG_REQUEST_DONE, ref, 0, NULL);
	life_did(life, error, "the request inside the gate", "failed");
	core_req_destroy(&held.req);
}

static void freeze_step(struct life *life)
{
	struct err err = ERR_INIT;
	uint64_t frozen = 0;
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	int error = era_freeze(life->era, 0, &frozen, &err);
	if (!life_did(life, error, "freeze", err.text))
		life_fail(life, "freeze of an instance that has failed");
	record_mark(LOG_FROZEN, 0, 0, NULL);
	life->frozen_era = frozen;
	show(life, frozen + 1, ask);
	record_mark(LOG_SYNCED, ask, 0, NULL);
}

static void waiting_step(struct life *life, const struct step *step)
{
	uint64_t len = step->args[1] < sizeof(life->waiting_data) - 8 ? step->args[1] : sizeof(life->waiting_data) - 8;
	if (life->waiting)
		life_fail(life, "one write waits already");
	fill(step->args[2], life->waiting_data, len);
	life->waiting = malloc(sizeof(*life->waiting));
	core_req_init(life->waiting, life->era, CORE_WRITE, step->args[0], len);
	life->waiting->data = life->waiting_data;
	life->waiting_ref = record_request(step->args[0], len);
	core_req_submit(life->waiting);
	if (core_req_is_over(life->waiting))
		life_fail(life, "a write did not wait for the thaw");
}

static void end_waiting(struct life *life, int expected)
{
	if (!life->waiting)
		return;
	int error = core_req_wait(life->waiting);
	if (error != expected)
		life_fail(life, "the write that waited: %s", strerror(-error));
	record_mark(LOG_REQUEST_DONE, life->waiting_ref, 0, NULL);
	core_req_destroy(life->waiting);
	free(life->waiting);
	life->waiting = NULL;
}

static void thaw_step(struct life *life)
{
	struct err err = ERR_INIT;
	uint64_t era = 0;
	record_mark(LOG_THAWING, 0, 0, NULL);
	record_mark(LOG_ASK, 0, 0, NULL);
	int error = era_thaw(life->era, life->frozen_era, &era, &err);
	if (!life_did(life, error, "thaw", err.text))
		life_fail(life, "thaw of an instance that has failed");
	end_waiting(life, 0);
	if (era != life->shown)
		life_fail(life, "the freeze showed era %llu, the thaw %llu", (unsigned long long)life->shown,
			(unsigned long long)era);
	settle(life);
}

static void open_life(struct life *life, bool takes_over)
{
	struct err err = ERR_INIT;
	struct era_status status;
	struct era *era = NULL;
	struct era_config config = scene_config(life->scene, life->workload->mode);

	config.create = true;
	config.takeover = takes_over;
	config.resize = life->stage->is_resized;
	record_mark(LOG_LIFE, 0, 0, NULL);
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	if (era_open(&config, &era, &err) < 0)
		life_fail(life, "open: %s", err.text);
	era_get_status(era, &status);
	life->shown = 0;
	struct era *before = life->era;
	life->era = era;
	life->stage->is_resized = false;
	acknowledge_era(life, ask, status.current_era);
	if (before)
		era_close(before, NULL);
}

static void snapshot_step(struct life *life)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	char path[260];
	snprintf(path, sizeof(path), "%s/" SNAPSHOT_NAME, life->scene->dir);
	int r = meta_reader_open(life->scene->db, &reader, &err);
	if (r == 0) {
		r = meta_reader_snapshot(reader, path, &err);
		meta_reader_close(reader);
	}
	if (r < 0)
		life_fail(life, "snapshot: %s", err.text);
	record_mark(LOG_SNAPSHOT, 0, 0, SNAPSHOT_NAME);
}

static _Noreturn void stop_step(struct life *life)
{
	struct err err = ERR_INIT;
	struct era_status status;
	era_get_status(life->era, &status);
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	struct era *era = life->era;
	life->era = NULL;
	int error = era_close(era, &err);
	if (error != 0 && !life->has_failing_sync)
		life_fail(life, "stop: %s", err.text);
	if (error == 0 && status.state != ERA_FROZEN)
		record_mark(LOG_SYNCED, ask, 0, NULL);
	end_waiting(life, -EIO);
	_exit(EXIT_SUCCESS);
}

static void run_step(struct life *life, const struct step *step)
{
	switch (step->kind) {
	case STEP_WRITE:
		write_step(life, step);
		break;
	case STEP_ZERO:
	case STEP_PUNCH:
		request(life, step->kind == STEP_ZERO ? CORE_ZERO : CORE_PUNCH, step->args[0], step->args[1], NULL, 0);
		break;
	case STEP_COPY:
		request(life, CORE_COPY, step->args[1], step->args[2], NULL, step->args[0]);
		break;
	case STEP_FSYNC:
		fsync_step(life);
		break;
	case STEP_CHECKPOINT:
		checkpoint_step(life, step->args[0]);
		break;
	case STEP_LABEL:
	case STEP_UNLABEL:
		label_step(life, step);
		break;
	case STEP_BURST:
	case STEP_CARRY:
		many_step(life, step);
		break;
	case STEP_OVERTAKE:
		overtake_step(life, step);
		break;
	case STEP_HOLD:
		hold_step(life, step);
		break;
	case STEP_FREEZE:
		freeze_step(life);
		break;
	case STEP_WAITING:
		waiting_step(life, step);
		break;
	case STEP_THAW:
		thaw_step(life);
		break;
	case STEP_TAKEOVER:
		record_mark(LOG_THAWING, 0, 0, NULL);
		open_life(life, true);
		end_waiting(life, -EIO);
		break;
	case STEP_SNAPSHOT:
		snapshot_step(life);
		break;
	case STEP_FAIL:
		snprintf(life->stage->record->failing, sizeof(life->stage->record->failing), "%s",
			step->args[0] ? "image.era-wal" : "image");
		life->has_failing_sync = true;
		break;
	case STEP_KILL:
		life->stage->record->kill_at = life->stage->record->log->nr + (uint32_t)step->args[0];
		break;
	case STEP_KILL_OPENING:
		life->stage->kill_opening = step->args[0];
		break;
	case STEP_STOP:
		stop_step(life);
	case STEP_POWER_CUT:
	case STEP_RESIZE: /* the parent's; also where no stop came before */
		life->stage->next_step--;
		kill(getpid(), SIGKILL);
		break;
	case NR_STEP_KINDS:
		break;
	}
}

static _Noreturn void live(const struct workload *workload, const struct scene *scene, struct stage *stage)
{
	struct life *life = calloc(1, sizeof(*life));
	*life = (struct life){ .workload = workload, .scene = scene, .stage = stage };
	record_on_sync(life_on_sync, life);
	if (stage->kill_opening)
		stage->record->kill_at = stage->record->log->nr + (uint32_t)stage->kill_opening;
	stage->kill_opening = 0;
	open_life(life, false);
	stage->record->kill_at = 0;
	while (stage->next_step < workload->nr)
		run_step(life, &workload->steps[stage->next_step++]);
	kill(getpid(), SIGKILL);
	_exit(EXIT_FAILURE);
}

/* --- the parent --- */

/* Does the log tell what lies there? Else something went past the recording. */
static bool log_is_whole(const struct record *record, struct disk *disk, char *ret_failure, size_t size)
{
	disk_advance(disk, record->log->nr);
	for (unsigned int i = 0; i < record->nr_files; i++) {
		const struct record_file *file = &record->files[i];
		char path[600];
		size_t len;
		if (file->ino == 0 || file->name[0] == '\0' || disk_cache_lies(disk, (uint8_t)i))
			continue;
		uint8_t *told = disk_content(disk, (uint8_t)i, &len);
		uint8_t *found = malloc(len + 1);
		snprintf(path, sizeof(path), "%s/%s", record->dir, file->name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		bool same = fd >= 0 && pread(fd, found, len + 1, 0) == (ssize_t)len && memcmp(found, told, len) == 0;
		close(fd);
		free(found);
		free(told);
		if (!same) {
			snprintf(ret_failure, size, "the log does not tell what lies in %s", path);
			return false;
		}
	}
	return true;
}

static void cut_power(struct stage *stage, struct disk *disk, const struct scene *scene, uint64_t seed)
{
	struct fates fates;
	struct woken woken;

	disk_advance(disk, stage->record->log->nr);
	fates_choose(disk, (enum fate_style)crash_below(&seed, NR_FATE_STYLES), &seed, &fates);
	disk_wake(disk, &fates, &woken);
	record_stop();
	woken_write(&woken, scene->dir);
	scene_clear_run(scene);
	machine_boot(scene->run);
	record_start(stage->record, scene->dir);
	woken_clear(&woken);
	fates_clear(&fates);
}

/* The steps that are not an instance's own. */
static void run_own_steps(
	struct stage *stage, struct disk *disk, const struct workload *workload, const struct scene *scene)
{
	for (; stage->next_step < workload->nr; stage->next_step++) {
		const struct step *step = &workload->steps[stage->next_step];
		if (step->kind == STEP_POWER_CUT) {
			cut_power(stage, disk, scene, step->args[0]);
		} else if (step->kind == STEP_RESIZE) {
			record_truncate(scene->image, step->args[0]);
			stage->is_resized = true;
		} else {
			return;
		}
	}
}

static void make_image(const struct workload *workload, const struct scene *scene)
{
	static struct truth_image image;
	struct woken woken = { .nr = 1 };
	/* Half of it has content. */
	for (uint64_t block = 0; block < CRASH_BLOCKS_MAX; block += 2)
		fill(workload->seed + block, image.bytes + block * CRASH_BLOCK, CRASH_BLOCK);
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	woken.files[0] = (struct woken_file){ .name = "image",
		.bytes = image.bytes,
		.size = workload->image_size,
		.mtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec };
	woken_write(&woken, scene->dir);
}

static bool await_death(struct stage *stage, pid_t pid, char *ret_failure, size_t size)
{
	int status;
	if (waitpid(pid, &status, 0) != pid)
		exit(EXIT_FAILURE);
	record_recover(stage->record);
	record_mark(LOG_DEATH, 0, 0, NULL);
	if (stage->failure[0] != '\0')
		snprintf(ret_failure, size, "%s", stage->failure);
	else if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
		 !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		snprintf(ret_failure, size, "step %u: the process ended with status %#x", stage->next_step, status);
	else
		return true;
	return false;
}

bool life_record(
	const struct workload *workload, const struct scene *scene, struct log *ret_log, char *ret_failure, size_t size)
{
	struct stage *stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stage == MAP_FAILED)
		exit(EXIT_FAILURE);
	stage->record = record_new(ret_log);
	struct disk *disk = disk_new(ret_log);
	make_image(workload, scene);
	scene_clear_run(scene);
	setenv("ERAIMGFS_RUN_DIR", scene->run, 1);
	machine_boot(scene->run);
	record_start(stage->record, scene->dir);
	bool good = true;
	for (run_own_steps(stage, disk, workload, scene); good && stage->next_step < workload->nr;) {
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			alarm(120);
			live(workload, scene, stage);
		}
		good = pid > 0 && await_death(stage, pid, ret_failure, size) &&
		       log_is_whole(stage->record, disk, ret_failure, size);
		run_own_steps(stage, disk, workload, scene);
	}
	record_stop();
	record_free(stage->record);
	munmap(stage, sizeof(*stage));
	disk_free(disk);
	return good;
}
