/* SPDX-License-Identifier: MIT */
/*
 * checkpoint - the switch of eras, and names for eras.
 *
 * begin:  close the gate, wait for the writes inside.
 * commit: COMMIT current_era = N+1 and the intents of what is hot (small: no bits of N), an empty plane, open the gate; then,
 *         while writers go on, commit N's remaining marks and take its intents back, and fsync the image; then COMMIT
 *         durable_era = N+1 and the label: only now may anybody see N+1.
 *
 * Why the image's fsync comes before N+1 is shown: who is told N+1 may copy the image and later ask since N+1. Were a
 * write of era N still in the cache at that moment, a power loss could take it back after the copy had it, and the
 * restored image would differ from the copy in a block that is not in since N+1.
 *
 * Why the gate may reopen before it: writes that land meanwhile are of era N+1, and are in every since N+1.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct timespec deadline_in(clockid_t clock, int seconds)
{
	struct timespec until;
	clock_gettime(clock, &until);
	until.tv_sec += seconds;
	return until;
}

int switch_lock_running(struct era *era, struct err *err)
{
	struct timespec until = deadline_in(CLOCK_REALTIME, ERA_SWITCH_WAIT_S);

	/* Before the lock too: a freeze, or a thaw that waits for its locks, answers for itself. */
	int r = state_refuse_unless_running(era, err);
	if (r < 0)
		return r;
	if (pthread_mutex_timedlock(&era->switch_lock, &until) != 0)
		return err_set(
			err, -EBUSY, "another checkpoint has held the image for %d s: try again", ERA_SWITCH_WAIT_S);
	r = state_refuse_unless_running(era, err);
	if (r < 0)
		pthread_mutex_unlock(&era->switch_lock);
	return r;
}

/* What the new era begins with, made while writers go on. */
static int switch_prepare(struct era *era, struct err *err)
{
	/* Its slot is needed; and one era at a time is on its way into the database. */
	int r = settle_old(era);
	if (r < 0)
		return err_set(err, r, "the marks of the last era cannot be recorded in %s: %s", era->metadata_path,
			strerror(-r));
	const struct plane *plane = era->plane; /* replaced under switch_lock alone */
	r = plane_new(era->nr_blocks, plane->era + 1, era->has_intents ? era->session : NULL, 1 - plane->slot,
		plane->extent_shift, &era->next_plane);
	if (r == 0 && era->has_intents) {
		marks_reset(&era->hot.extents);
		era->hot.nr = 0;
		r = intents_plan_hot(&era->intents, plane, &era->hot);
		if (r < 0)
			switch_drop(era);
	}
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

int era_checkpoint_begin(struct era *era, struct err *err)
{
	int r = switch_lock_running(era, err);
	if (r < 0)
		return r;
	r = switch_prepare(era, err);
	if (r < 0) {
		pthread_mutex_unlock(&era->switch_lock);
		return r;
	}
	struct timespec until = deadline_in(CLOCK_MONOTONIC, SWITCH_DRAIN_S);
	r = gate_close(&era->gate, &until);
	if (r < 0) {
		era_checkpoint_abort(era);
		return err_set(err, r, "writes in flight did not finish within %d s: the backing disk is slow or stuck",
			SWITCH_DRAIN_S);
	}
	return 0;
}

void switch_open_gate(struct era *era)
{
	gate_open(&era->gate);
	request_gate_opened(era);
}

void switch_drop(struct era *era)
{
	plane_free(era->next_plane);
	era->next_plane = NULL;
}

void era_checkpoint_abort(struct era *era)
{
	switch_open_gate(era);
	switch_drop(era);
	pthread_mutex_unlock(&era->switch_lock);
}

int switch_clone(struct era *era, int fd, struct err *err)
{
	int r = img_clone(era->image, fd);
	if (r >= 0)
		return 0;
	if (r == -EOPNOTSUPP || r == -EXDEV || r == -EINVAL || r == -ENOTTY)
		return err_set(err, r,
			"the image cannot be cloned (%s): that needs a file system with reflinks (xfs, btrfs) that holds both image and clone: without one, freeze and copy, or copy after the checkpoint and add what changed since",
			strerror(-r));
	return err_set(err, r, "the image cannot be cloned: %s", strerror(-r));
}

void switch_planes(struct era *era)
{
	if (PLANTED(STALE_PLANE)) {
		era->plane->era++;
		return;
	}
	era->old_plane = era->plane;
	era->plane = era->next_plane;
	era->next_plane = NULL;
}

/* Inside the transaction of the switch. The old era's intents stay: its marks are not all there. */
static int switch_fill(struct era *era, struct batch *batch, uint64_t *ret_era)
{
	struct meta_super *super = meta_pending(era->meta);

	*ret_era = ++super->current_era;
	if (PLANTED(SHOW_EARLY))
		super->durable_era = *ret_era;
	if (era->has_intents)
		intents_begin_era(&era->intents, era->plane, &era->hot, &batch->arming);
	return commit_carry_over(era, era->next_plane, batch);
}

/* The gate is closed and drained. */
static int switch_commit(struct era *era, uint64_t *ret_era, struct err *err)
{
	struct batch batch = { 0 };

	metalock_urgent(era);
	int r = era_is_dead(era) ? -EIO : meta_begin(era->meta, PLANTED(LAZY_SWITCH) ? META_LAZY : META_FULL);
	if (r == 0) {
		r = switch_fill(era, &batch, ret_era);
		if (r < 0)
			meta_rollback(era->meta);
		else
			/* Guards against a crash that finds writes of the new era recorded in the old one. */
			r = era_commit(era, "a new era");
	}
	if (r == 0) {
		switch_planes(era);
		commit_publish(era, era->plane, &batch); /* who is left out, for want of memory, commits again */
	} else {
		era->intents.old_only = 0;
	}
	bool is_armed = r == 0 && atomic_load(&era->intents.any);
	metalock_release(era);
	batch_free(&batch);
	if (is_armed)
		digest_kick(era);
	return r < 0 ? err_set(err, r, "the new era cannot be recorded in %s: %s", era->metadata_path, strerror(-r))
		     : 0;
}

/* The image's data of all eras below new_era is durable: the era may be seen. */
static int switch_publish(struct era *era, uint64_t new_era, const char *label, struct err *err)
{
	struct meta_super committed;

	metalock_urgent(era);
	int r = era_is_dead(era) ? -EIO : meta_begin(era->meta, META_FULL);
	if (r == 0) {
		meta_pending(era->meta)->durable_era = new_era;
		if (label)
			r = meta_label_set(era->meta, label, new_era);
		if (PLANTED(WITNESS_FIRST)) {
			committed = *meta_pending(era->meta);
			committed.commit_counter++;
			meta_witness_write(era->metadata_path, &committed);
		}
		if (r < 0) {
			meta_rollback(era->meta);
		} else {
			/* Guards against a crash after the reply that forgets the era (or its label) that was shown. */
			r = era_commit(era, "a checkpoint");
		}
	}
	committed = *meta_super(era->meta);
	metalock_release(era);
	/* Guards against a database that is put back from an older copy: it would give out this number again. No writer waits
	 * for this fsync; switch_lock keeps those who write the witness apart. */
	if (r == 0)
		r = meta_witness_write(era->metadata_path, &committed);
	return r < 0 ? err_set(err, r, "the checkpoint cannot be recorded in %s: %s", era->metadata_path, strerror(-r))
		     : 0;
}

static int refuse_bad_label(const char *name, struct err *err)
{
	if (meta_label_is_valid(name))
		return 0;
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
		"\"%s\" is not a label: a letter or _, then letters, digits, '.', '_' or '-', at most %d bytes", name,
		META_LABEL_MAX);
}

int era_checkpoint_commit(struct era *era, const char *label, int clone_fd, uint64_t *ret_era, struct err *err)
{
	uint64_t new_era = 0;

	int r = label ? refuse_bad_label(label, err) : 0;
	if (r == 0 && clone_fd >= 0)
		r = switch_clone(era, clone_fd, err);
	if (r == 0)
		r = switch_commit(era, &new_era, err);
	switch_open_gate(era);
	switch_drop(era);
	/* Before the image's fsync and the reply: the new era may be shown once the old one is whole without its intents. */
	if (r == 0) {
		r = settle_old(era);
		if (r < 0)
			err_set(err, r, "the marks of the last era cannot be recorded in %s: %s", era->metadata_path,
				strerror(-r));
	}
	if (r == 0) {
		/* Guards the copy that may be taken after the reply against a power loss: see the top of this file. */
		r = PLANTED(REPLY_EARLY) ? 0 : era_flush_image(era);
		if (r < 0)
			err_set(err, r, "fsync of the image failed: unmount and mount again to recover");
	}
	if (r == 0)
		r = switch_publish(era, new_era, label, err);
	pthread_mutex_unlock(&era->switch_lock);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&era->nr_checkpoints, 1, memory_order_relaxed);
	digest_kick(era);
	*ret_era = new_era;
	return 0;
}

int era_checkpoint(struct era *era, const char *label, uint64_t *ret_era, struct err *err)
{
	int r = label ? refuse_bad_label(label, err) : 0;
	if (r == 0)
		r = era_checkpoint_begin(era, err);
	return r < 0 ? r : era_checkpoint_commit(era, label, -1, ret_era, err);
}

/* Sets (label_era > 0 or 0 for now) or removes (label_era NULL) a label, in one commit. */
static int label_change(struct era *era, const char *name, uint64_t *label_era, struct err *err)
{
	int r = refuse_bad_label(name, err);
	if (r < 0)
		return r;

	metalock_urgent(era);
	r = state_refuse_unless_running(era, err);
	if (r < 0) {
		metalock_release(era);
		return r;
	}
	uint64_t newest = meta_super(era->meta)->durable_era;
	if (label_era && *label_era > newest) {
		metalock_release(era);
		return err_set_exit(err, ERR_EXIT_UNKNOWN, -ERANGE, "era %llu has not begun (current era is %llu)",
			(unsigned long long)*label_era, (unsigned long long)newest);
	}
	if (label_era && *label_era == 0)
		*label_era = newest;
	r = meta_begin(era->meta, META_FULL);
	if (r == 0) {
		r = label_era ? meta_label_set(era->meta, name, *label_era) : meta_label_remove(era->meta, name);
		if (r < 0) {
			meta_rollback(era->meta);
		} else {
			/* Guards a label that was acknowledged against a crash. */
			r = era_commit(era, "a label");
		}
	}
	metalock_release(era);
	if (r == -ENOENT)
		return err_set_exit(err, ERR_EXIT_UNKNOWN, r, "there is no label \"%s\": see era-cli label list", name);
	return r < 0 ? err_set(err, r, "the label cannot be recorded in %s: %s", era->metadata_path, strerror(-r)) : 0;
}

int era_label_set(struct era *era, const char *name, uint64_t label_era, uint64_t *ret_era, struct err *err)
{
	*ret_era = label_era;
	return label_change(era, name, ret_era, err);
}

int era_label_remove(struct era *era, const char *name, struct err *err)
{
	return label_change(era, name, NULL, err);
}
