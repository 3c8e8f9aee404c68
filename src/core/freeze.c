/* SPDX-License-Identifier: MIT */
/*
 * freeze - gives image and metadata up, whole.
 *
 * The kernel's dm-era once committed its metadata at suspend and stopped its worker after that. The worker's last writes
 * stayed in a cache; when another instance had taken the metadata over, the first one's destructor flushed that cache on
 * top of them (fixed by "dm era: commit metadata in postsuspend after worker stops"). So nothing of ours may come after
 * the last commit, and this is the order:
 *
 *  1. the digest works off its backlog, and the WAL is written back and emptied, while writers go on;
 *  2. the gate is closed: writers wait, reads and fsync go on;
 *  3. the writes inside are waited for;
 *  4. the image is flushed (and cloned, where that is asked for): what the metadata will say is durable;
 *  5. the digest thread is stopped and joined. It finishes its step; what it had queued for itself is never begun, stays
 *     archived, and is as right in the database as when it is digested;
 *  6. one commit archives era N with all its marks and no intent, starts N+1, binds the image and says "frozen"; the witness
 *     is written after it;
 *  7. the WAL is written back and emptied, and that is verified: from here on the file alone is all there is;
 *  8. the writing connection is closed. There is nothing left to write with: no cache, no timer, no destructor;
 *  9. both locks are dropped, and N is the answer.
 *
 * 1 is era_freeze_prepare(), 2 and 3 are era_checkpoint_begin(), the rest is era_freeze_commit(). Each can fail, and then
 * it goes back to running: what was committed by 6 is taken back by another commit, but for the era, which has ended.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define FREEZE_BACKLOG_S 10 /* the digest gets so long; what is left then stays archived */
#define FREEZE_READERS_MS 5000 /* readers' snapshots get so long to end */
#define FREEZE_NAP_MS 20 /* between two looks at other processes' snapshots, which nothing tells us of */

static int refuse_readers(struct err *err)
{
	return err_set(err, -EBUSY,
		"a reader's snapshot keeps the metadata's -wal from being emptied: end that program (an era-cli since? a backup of the database?), then try again");
}

/* Under meta_lock. An fsync that failed leaves the -wal in doubt, as in a write-back by the digest. */
static int freeze_empty_wal(struct era *era, enum meta_wal mode, struct err *err)
{
	int r = meta_wal_checkpoint(era->meta, mode);
	era->wal_written_back = meta_wal_frames(era->meta);
	if (r == -EBUSY)
		return refuse_readers(err);
	if (r < 0 && r != -ENOSPC && r != -ENOMEM)
		era_fail_locked(era, "write-back of the metadata's WAL failed (%s)", strerror(-r));
	return r < 0 ? err_set(err, r, "%s: the WAL cannot be written back: %s", era->metadata_path, strerror(-r)) : 0;
}

int era_freeze_prepare(struct era *era, struct err *err)
{
	const struct timespec nap = { .tv_nsec = FREEZE_NAP_MS * 1000000L };

	int r = state_refuse_unless_running(era, err);
	if (r < 0)
		return r;
	/* So that little is left for when writers wait. */
	uint64_t settled_from;
	r = era_settle(era, &settled_from);
	if (r < 0)
		return err_set(err, r, "the marks of what was written cannot be recorded in %s: %s", era->metadata_path,
			strerror(-r));
	digest_kick(era);
	digest_work_off(era, FREEZE_BACKLOG_S);
	for (int64_t until_ms = watch_now_ms() + FREEZE_READERS_MS;;) {
		metalock_urgent(era);
		r = state_refuse_unless_running(era, err);
		if (r == 0)
			r = freeze_empty_wal(era, META_WAL_TRY, err);
		bool again = r == -EBUSY && state_now(era) == ERA_RUNNING && watch_now_ms() < until_ms;
		metalock_release(era);
		if (!again)
			return r;
		nanosleep(&nap, NULL);
	}
}

/* One FULL commit that says state, of an era that has ended (new_era) or not (0). Under meta_lock. */
static int freeze_record(struct era *era, enum meta_state state, int64_t mtime_ns, uint64_t new_era)
{
	int r = meta_begin(era->meta, META_FULL);
	if (r < 0)
		return r;
	struct meta_super *super = meta_pending(era->meta);
	super->state = state;
	super->image_mtime_ns = mtime_ns;
	if (new_era) {
		super->current_era = super->durable_era = new_era;
		r = settle_whole(era, era->plane);
	}
	if (r < 0) {
		meta_rollback(era->meta);
		return r;
	}
	/* Guards whoever opens the database next: "frozen" says that nobody has written to the image since. */
	r = era_commit(era, state == META_FROZEN ? "the freeze" : "a freeze that was given up");
	if (r == 0 && new_era) {
		switch_planes(era);
		plane_free(era->old_plane);
		era->old_plane = NULL;
	}
	return r;
}

/* Steps 6 and 7. Under meta_lock. */
static int freeze_finish(struct era *era, int64_t mtime_ns, struct err *err)
{
	const struct meta_super *super = meta_super(era->meta);
	int64_t open_mtime_ns = super->image_mtime_ns;
	uint64_t new_era = super->current_era + 1;

	int r = era_is_dead(era) ? -EIO : freeze_record(era, META_FROZEN, mtime_ns, new_era);
	/* Guards against a database that is put back from a copy of before this freeze. */
	if (r == 0)
		r = meta_witness_write(era->metadata_path, meta_super(era->meta));
	if (r < 0)
		err_set(err, r, "the freeze cannot be recorded in %s: %s", era->metadata_path, strerror(-r));
	else
		r = freeze_empty_wal(era, META_WAL_TRUNCATE, err);
	if (r < 0 && !era_is_dead(era) && meta_super(era->meta)->state == META_FROZEN) {
		/* Guards the writes to come: they must not be of an image that is said to be at rest. */
		int back = freeze_record(era, META_OPEN, open_mtime_ns, 0);
		if (back < 0)
			era_fail_locked(era, "a freeze could not be taken back (%s)", strerror(-back));
	}
	return r;
}

/* A late write of the kind that the planted bugs are made of. Under meta_lock. */
static void freeze_plant_late_commit(struct era *era)
{
	if (meta_begin(era->meta, META_LAZY) == 0)
		meta_commit(era->meta);
}

/* Steps 6 to 9. The digest has been joined. */
static int freeze_give_up(struct era *era, unsigned int timeout_s, uint64_t *ret_era, struct err *err)
{
	int64_t mtime_ns;

	/* What a freeze leaves is found by its name. */
	if (!core_has_database(era))
		return err_set(err, -ESTALE,
			"%s is not the database that is open (it was moved, removed or replaced): put it back, then try again",
			era->metadata_path);
	int r = settle_mtime(era, &mtime_ns);
	if (r < 0)
		return err_set(err, r, "the image's mtime cannot be settled: %s", strerror(-r));
	if (mtime_ns == META_MTIME_UNKNOWN)
		return err_set(err, -ESTALE,
			"the image was written to beside this eraimgfs: unmount, and mount with -o bypass=mark-all");
	metalock_urgent(era);
	r = freeze_finish(era, mtime_ns, err);
	if (r == 0 && PLANTED(LATE_COMMIT))
		freeze_plant_late_commit(era);
	if (r < 0 || PLANTED(COMMIT_BEFORE_JOIN) || PLANTED(JOIN_REQUEUED)) {
		metalock_release(era);
		if (r < 0)
			return r;
		/* The planted bugs: the thread is still there, and is joined too late. */
		if (PLANTED(COMMIT_BEFORE_JOIN))
			digest_kick(era);
		digest_work_off(era, 1);
		digest_stop(era);
		metalock_urgent(era);
	}
	era->at_rest = *meta_super(era->meta);
	if (!PLANTED(CLOSE_KEEPS_NOTHING)) {
		meta_close(era->meta);
		era->meta = NULL;
	}
	/* The image may be another's from now on: its mtimes are none of our business. */
	session_hold(era->session);
	lockfile_drop(era->metadata_path, era->database_lock);
	era->database_lock = -1;
	img_unlock(era->image);
	*ret_era = era->frozen_era = era->at_rest.current_era - 1;
	era->freeze_timeout_s = timeout_s;
	era->thaw_at_ms = timeout_s > 0 ? watch_now_ms() + (int64_t)timeout_s * 1000 : 0;
	state_change(era, ERA_FROZEN);
	metalock_release(era);
	return 0;
}

/* Back to running, with or without its digest thread. */
static void freeze_abort(struct era *era)
{
	int r = era->digester_runs ? 0 : digest_start(era);

	metalock_urgent(era);
	if (r < 0)
		era_fail_locked(era, "the digest thread cannot be started again (%s)", strerror(-r));
	if (state_now(era) == ERA_FREEZING)
		state_change(era, ERA_RUNNING);
	metalock_release(era);
	if (r == 0)
		digest_kick(era);
	switch_open_gate(era);
}

int era_freeze_commit(struct era *era, unsigned int timeout_s, int clone_fd, uint64_t *ret_era, struct err *err)
{
	metalock_urgent(era);
	int r = state_refuse_unless_running(era, err);
	if (r == 0)
		state_change(era, ERA_FREEZING);
	metalock_release(era);
	if (r == 0) {
		/* Guards against a power loss that takes image data which the frozen metadata, and whoever copies the
		 * image now, take for durable. */
		r = PLANTED(FREEZE_NO_FLUSH) ? 0 : era_flush_image(era);
		if (r < 0)
			err_set(err, r, "fsync of the image failed: unmount and mount again to recover");
	}
	if (r == 0 && clone_fd >= 0)
		r = switch_clone(era, clone_fd, err);
	if (r == 0 && !PLANTED(COMMIT_BEFORE_JOIN) && !PLANTED(JOIN_REQUEUED))
		digest_stop(era);
	if (r == 0)
		r = freeze_give_up(era, timeout_s, ret_era, err);
	if (r < 0)
		freeze_abort(era);
	switch_drop(era);
	pthread_mutex_unlock(&era->switch_lock);
	if (r == 0)
		watch_kick(era);
	return r;
}

int era_freeze(struct era *era, unsigned int timeout_s, uint64_t *ret_era, struct err *err)
{
	int r = era_freeze_prepare(era, err);
	if (r == 0)
		r = era_checkpoint_begin(era, err);
	return r < 0 ? r : era_freeze_commit(era, timeout_s, -1, ret_era, err);
}
