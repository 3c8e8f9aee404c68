/* SPDX-License-Identifier: MIT */
/*
 * thaw - takes back what the freeze gave up, if it is still ours to take.
 *
 * Meanwhile anybody may have had image and metadata: another instance with -o takeover, one on a copy of the metadata, a
 * program that wrote to the image. So nothing that is remembered counts before both locks are held:
 *
 *  1. lock the image, then DATABASE.lock, as an instance does that opens;
 *  2. open the metadata and compare state, generation, commit counter and session with those that the freeze left:
 *     a greater generation is a takeover, and this instance is fenced for good;
 *  3. compare the image's size and mtime with those at the freeze;
 *  4. start the digest thread, which waits; commit "open" with a new session; only then may it work;
 *  5. open the gate, in era N+1.
 *
 * Whatever does not fit, both locks go again and nothing was changed: the instance stays frozen, or is fenced.
 */
#include "core_private.h"

#include "base/num.h"
#include "base/plant.h"
#include "base/run.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* An instance that is about to be refused holds the locks for a moment. */
#define THAW_LOCK_PATIENCE_MS 2000
#define THAW_NAP_MS 20

/* Both or none. */
static int thaw_lock(struct era *era, struct err *err)
{
	int r = img_relock(era->image, err);
	if (r < 0)
		return r;
	r = lockfile_take(era->metadata_path, &era->database_lock, err);
	if (r < 0)
		img_unlock(era->image);
	return r;
}

static void thaw_unlock(struct era *era)
{
	lockfile_drop(era->metadata_path, era->database_lock);
	era->database_lock = -1;
	img_unlock(era->image);
}

/* Another instance has the metadata and the image: for good. Under switch_lock, frozen, no lock held. */
static void thaw_fence(struct era *era, uint64_t generation)
{
	metalock_urgent(era);
	if (era_is_dead(era)) { /* an fsync that was still under way has failed */
		metalock_release(era);
		return;
	}
	snprintf(era->failure, sizeof(era->failure), "another instance took over with generation %" PRIu64, generation);
	era->frozen_era = 0;
	era->thaw_at_ms = 0;
	session_give_up(era->session);
	state_change(era, ERA_FENCED);
	metalock_release(era);
	switch_open_gate(era);
	snprintf(era->news, sizeof(era->news), "%s: %s: writes fail from now on, and nothing here is changed any more",
		era->metadata_path, era->failure);
	era->has_been_fenced = true;
}

void thaw_unlock_and_tell(struct era *era)
{
	char news[sizeof(era->news)];
	bool has_been_fenced = era->has_been_fenced;

	strcpy(news, era->news);
	era->news[0] = '\0';
	era->has_been_fenced = false;
	pthread_mutex_unlock(&era->switch_lock);
	if (news[0] != '\0')
		core_notice(era, "%s", news);
	if (has_been_fenced && era->fenced)
		era->fenced(era->notice_arg);
}

/* What is in the database now, by a reader, which needs no lock. */
static int thaw_look(struct era *era, struct meta_super *ret_super)
{
	struct meta_reader *reader;
	struct err why = ERR_INIT;

	int r = meta_reader_open(era->metadata_path, &reader, &why);
	if (r < 0)
		return r;
	*ret_super = *meta_reader_super(reader);
	meta_reader_close(reader);
	return 0;
}

static bool thaw_is_taken_over(struct era *era, const struct meta_super *now)
{
	/* Whatever its UUID is now: a takeover with bypass=mark-all gives a new one. */
	return now->generation > era->at_rest.generation;
}

void thaw_poll(struct era *era)
{
	struct meta_super now;

	if (state_now(era) == ERA_FROZEN && thaw_look(era, &now) == 0 && thaw_is_taken_over(era, &now))
		thaw_fence(era, now.generation);
}

/* Is this the very database that the freeze left? 0, or -ESTALE. */
static int thaw_compare(struct era *era, const struct meta_super *now, struct err *err)
{
	const struct meta_super *then = &era->at_rest;

	if (thaw_is_taken_over(era, now))
		return err_set_exit(err, ERR_EXIT_REFUSED, -ESTALE,
			"cannot be thawed: another instance took over with generation %" PRIu64 ": unmount this one",
			now->generation);
	/* An equal copy is another file too: after a kill -9 the session's file would not speak of it. */
	if (core_has_database(era) && now->state == META_FROZEN && now->generation == then->generation &&
		now->commit_counter == then->commit_counter && memcmp(now->uuid, then->uuid, sizeof(now->uuid)) == 0 &&
		memcmp(now->nonce, then->nonce, sizeof(now->nonce)) == 0)
		return 0;
	return err_set(err, -ESTALE,
		"cannot be thawed: %s is not the database that the freeze left (was another put in its place?): put that one back, or unmount",
		era->metadata_path);
}

/* Is this the image that the freeze left? 1, 0, or -errno. at_rest does not change while it is frozen. */
static int thaw_has_image(struct era *era)
{
	struct img *image = era->image;
	uint64_t size_bytes;
	struct stat st;

	int r = img_measure(image, &size_bytes);
	if (r == 0)
		r = img_stat(image, &st);
	if (r < 0)
		return r;
	int64_t mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return size_bytes == era->at_rest.image_size && (image->is_device || mtime_ns == era->at_rest.image_mtime_ns);
}

static int thaw_check_image(struct era *era, struct err *err)
{
	int r = thaw_has_image(era);
	if (r < 0)
		return err_set(err, r, "cannot be thawed: the image cannot be looked at: %s", strerror(-r));
	if (r == 1)
		return 0;
	return err_set(err, -ESTALE,
		"cannot be thawed: the image was changed while it was frozen, and nobody recorded how here: unmount, and mount with -o bypass=mark-all");
}

int era_check_answers(struct era *era, struct err *err)
{
	int r = 1;

	metalock_urgent(era);
	enum era_state state = state_now(era);
	/* Once a writer may be inside, its mtimes are the session's to judge. */
	if (state == ERA_FROZEN)
		r = thaw_has_image(era);
	metalock_release(era);
	if (state == ERA_FENCED)
		return state_refuse_unless_running(era, err);
	if (r < 0)
		return err_set(err, r, "the image cannot be looked at: %s", strerror(-r));
	if (r == 0)
		return err_set_exit(err, ERR_EXIT_UNKNOWN, -ESTALE,
			"the image was changed while it was frozen, and nobody recorded how here: take a full backup");
	return 0;
}

/* Guards the first write to come: from here on the database says that it is open, and by which session. */
static int thaw_commit(struct era *era, struct err *err)
{
	uint8_t boot_id[16];
	uint64_t owner_start = 0;

	int r = run_boot_id(boot_id);
	if (r == 0)
		r = run_process_start(getpid(), &owner_start);
	if (r == 0)
		r = meta_begin(era->meta, META_FULL);
	struct batch batch = { 0 };
	if (r == 0) {
		if (era->has_intents)
			intents_begin_era(&era->intents, era->plane, &era->hot, &batch.arming);
		r = commit_carry_over(era, era->plane, &batch);
		if (r < 0)
			meta_rollback(era->meta);
	}
	if (r == 0) {
		struct meta_super *super = meta_pending(era->meta);
		super->state = META_OPEN;
		memcpy(super->nonce, era->nonce, sizeof(super->nonce));
		memcpy(super->boot_id, boot_id, sizeof(super->boot_id));
		super->owner_pid = (uint64_t)getpid();
		super->owner_start = owner_start;
		r = era_commit(era, "the thaw");
	}
	if (r == 0) {
		era->thawed = *meta_super(era->meta);
		commit_publish(era, era->plane, &batch); /* who is left out, for want of memory, commits again */
	}
	batch_free(&batch);
	return r < 0 ? err_set(err, r, "the thaw cannot be recorded in %s: %s", era->metadata_path, strerror(-r)) : 0;
}

/* Under meta_lock, both locks held, era->meta as the freeze left it. On failure the session is as before. */
static int thaw_begin_session(struct era *era, struct err *err)
{
	uint8_t old_nonce[16];

	int r = digest_start(era);
	if (r < 0)
		return err_set(err, r, "the digest thread cannot be started: %s", strerror(-r));
	memcpy(old_nonce, era->nonce, sizeof(old_nonce));
	num_uuid_new(era->nonce);
	session_renew(era->session, era->nonce);
	r = thaw_commit(era, err);
	if (r == 0 || era_is_dead(era))
		return r;
	memcpy(era->nonce, old_nonce, sizeof(old_nonce));
	session_renew(era->session, era->nonce);
	/* A commit that found no space may have left frames of no use behind: the file is to be all there is. */
	meta_wal_checkpoint(era->meta, META_WAL_TRY);
	return r;
}

/* Steps 2 to 4, both locks held. On failure there is no connection, but for where a commit failed: then the state has, too, and
 * nobody knows whether it is there. */
static int thaw_take_back(struct era *era, struct err *err)
{
	struct meta *meta;

	int r = meta_open(era->metadata_path, &meta, err);
	if (r < 0)
		return r;
	r = thaw_compare(era, PLANTED(READ_BEFORE_LOCK) ? &era->at_rest : meta_super(meta), err);
	if (r == 0)
		r = thaw_check_image(era, err);
	metalock_urgent(era);
	/* An fsync that was under way since before the freeze may have failed only now. */
	if (r == 0 && era_is_dead(era))
		r = state_refuse_unless_running(era, err);
	if (r == 0) {
		era->meta = meta;
		era->wal_written_back = 0;
		r = thaw_begin_session(era, err);
	}
	if (r < 0 && (era->meta == NULL || !era_is_dead(era))) {
		era->meta = NULL;
		meta_close(meta);
	}
	bool is_given_up = era->meta == NULL;
	metalock_release(era);
	/* It has done nothing, as the state is not running; and is not joined under the lock that it may wait for. */
	if (is_given_up)
		digest_stop(era);
	return r;
}

static int thaw_try(struct era *era, struct err *err)
{
	metalock_urgent(era);
	/* An fsync that was still under way may have failed meanwhile. */
	int r = era_is_dead(era) ? state_refuse_unless_running(era, err) : 0;
	if (r == 0)
		state_change(era, ERA_THAWING);
	metalock_release(era);
	if (r < 0)
		return r;

	r = thaw_lock(era, err);
	if (r == 0) {
		r = thaw_take_back(era, err);
		if (!era->meta)
			thaw_unlock(era);
	} else {
		err_prefix(err, "cannot be thawed");
	}
	metalock_urgent(era);
	if (r == 0 && era_is_dead(era))
		r = state_refuse_unless_running(era, err);
	if (r == 0 || era_is_dead(era)) {
		era->frozen_era = 0;
		era->thaw_at_ms = 0;
	}
	if (!era_is_dead(era))
		state_change(era, r == 0 ? ERA_RUNNING : ERA_FROZEN);
	else if (!era->meta)
		session_give_up(era->session);
	metalock_release(era);
	return r;
}

/* Guards against a database that is put back from a copy of while it was frozen. The next checkpoint tries again. */
static void thaw_witness(struct era *era)
{
	int r = meta_witness_write(era->metadata_path, &era->thawed);
	if (r < 0)
		snprintf(era->news, sizeof(era->news), "%s.witness: cannot be written (%s): see to its folder",
			era->metadata_path, strerror(-r));
}

int thaw_now(struct era *era, struct err *err)
{
	const struct timespec nap = { .tv_nsec = THAW_NAP_MS * 1000000L };
	int64_t until_ms = watch_now_ms() + THAW_LOCK_PATIENCE_MS;
	int r;

	for (;;) {
		r = thaw_try(era, err);
		if (r != 0)
			thaw_poll(era);
		if (r != -EBUSY || state_now(era) != ERA_FROZEN || watch_now_ms() >= until_ms)
			break;
		nanosleep(&nap, NULL);
	}
	/* The gate is open already where another instance took over. */
	if (r == 0) {
		thaw_witness(era);
		session_go_on(era->session, era->at_rest.image_mtime_ns);
		digest_kick(era);
	}
	if (r == 0 || state_now(era) == ERA_FAILED)
		switch_open_gate(era);
	if (state_now(era) == ERA_FENCED)
		return err_set_exit(
			err, ERR_EXIT_REFUSED, -ESTALE, "cannot be thawed: %s: unmount this one", era->failure);
	return r;
}

/* Under switch_lock. */
static int thaw_refuse(struct era *era, uint64_t frozen_era, struct err *err)
{
	enum era_state state = state_now(era);

	if (state == ERA_FENCED || state == ERA_FAILED || era->read_only)
		return state_refuse_unless_running(era, err);
	if (state != ERA_FROZEN && frozen_era)
		return err_set(err, -ENOTSUP,
			"is not frozen: the freeze that answered %" PRIu64
			" no longer holds, and what was copied meanwhile is not to be trusted",
			frozen_era);
	if (state != ERA_FROZEN)
		return err_set(err, -ENOTSUP, "is not frozen");
	if (frozen_era && frozen_era != era->frozen_era)
		return err_set_exit(err, ERR_EXIT_REFUSED, -ENOTSUP,
			"is frozen by another freeze, which answered %" PRIu64 ": the one that answered %" PRIu64
			" no longer holds, and what was copied meanwhile is not to be trusted",
			era->frozen_era, frozen_era);
	return 0;
}

int era_thaw(struct era *era, uint64_t frozen_era, uint64_t *ret_era, struct err *err)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ERA_SWITCH_WAIT_S;
	if (pthread_mutex_timedlock(&era->switch_lock, &until) != 0)
		return err_set(err, -EBUSY, "a checkpoint or freeze has held the image for %d s: try again",
			ERA_SWITCH_WAIT_S);
	int r = thaw_refuse(era, frozen_era, err);
	if (r == 0) {
		*ret_era = era->frozen_era + 1;
		r = thaw_now(era, err);
	}
	thaw_unlock_and_tell(era);
	return r;
}
