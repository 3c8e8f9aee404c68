/* SPDX-License-Identifier: MIT */
/*
 * recover - from what an instance left, clean or not, to a new era.
 *
 * Before a write reached the image its mark or the intent of its extent was committed, so the database alone knows every
 * block that may have changed. What is left to do, before the first request:
 *
 *  1. after a failed fsync: drop the image's cached pages before anything reads them, for they may show data that the disk
 *     does not have;
 *  2. fsync the image: no era may be shown before the data of all earlier ones is durable;
 *  3. in one commit: turn the intents of a session that died on this boot into marks, where its file has kept its bits (all
 *     others stay, and count as their whole extents); archive the era that was current (dm-era's kernel fix de89afc1), start a
 *     new one with a new session, and mark in it what cannot be vouched for (the blocks of the failed eras, those of a
 *     resize; all of them for bypass=mark-all).
 *
 * A crash at any point of this leaves the old state, and the next start does it all again.
 */
#include "core_private.h"

#include "base/plant.h"
#include "base/run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static bool had_failed(const struct opening *o)
{
	return o->found.state == META_FAILED || o->trace.failed;
}

/* After a failed fsync, once the image's dirty pages are written: what is clean in a cache may be lost on the disk, of the
 * image and of the -wal. */
static int recover_failed(struct opening *o, struct err *err)
{
	int r = img_drop_cache(o->era->image);
	if (r < 0)
		return err_set(err, r, "%s: its cached pages cannot be dropped after a failed fsync: %s",
			o->config->image_path, strerror(-r));
	/* Guards the next commit: appended to a -wal with a hole, it would be lost with all that is behind the hole. */
	r = meta_wal_checkpoint(o->era->meta, META_WAL_TRUNCATE);
	return r < 0 ? err_set(err, r, "%s: its -wal cannot be written back after a failed fsync: %s",
			       o->config->metadata_path, strerror(-r))
		     : 0;
}

int recover_image(struct opening *o, struct err *err)
{
	struct era *era = o->era;
	bool failed = had_failed(o);
	int r = 0;

	if (!meta_is_at_rest(o->found.state))
		core_notice(era, "%s: the last instance did not stop in order: recovering%s", o->config->metadata_path,
			failed ? " from a failed fsync" : "");
	if (failed) {
		r = img_drop_cache(era->image);
		if (r < 0)
			return err_set(err, r, "%s: its cached pages cannot be dropped after a failed fsync: %s",
				o->config->image_path, strerror(-r));
	}
	r = PLANTED(RECOVER_NO_FLUSH) ? 0 : img_flush(era->image);
	if (r < 0) {
		era_fail(era, "fsync of the image failed at recovery");
		return err_set(err, r, "%s: fsync failed (%s): nothing is mounted; look at the disk, then try again",
			o->config->image_path, strerror(-r));
	}
	return failed ? recover_failed(o, err) : 0;
}

/* Blocks that a resize brings in, and the last block of the smaller size, which it changes. */
static int mark_resize(struct opening *o, uint64_t era_nr)
{
	struct meta *meta = o->era->meta;
	uint64_t old_size = o->found.image_size;
	uint64_t new_size = o->era->image->size_bytes;
	uint64_t smaller = old_size < new_size ? old_size : new_size;

	int r = meta_resize(meta, new_size);
	if (r < 0)
		return r;
	return commit_mark_range(meta, era_nr, (smaller - 1) / o->found.block_size, meta_pending(meta)->nr_blocks);
}

/* bypass=mark-all: a new identity, and one line that says "all". */
static int mark_all(struct opening *o, struct meta_super *super)
{
	int r = meta_forget(o->era->meta);
	if (r < 0)
		return r;
	memcpy(super->uuid, o->new_uuid, sizeof(super->uuid));
	super->image_size = o->era->image->size_bytes;
	super->image_is_device = o->era->image->is_device;
	super->nr_blocks = (super->image_size + super->block_size - 1) / super->block_size;
	super->floor_era = super->current_era;
	return 0;
}

struct taking_over {
	struct meta *meta;
	uint64_t era;
	uint64_t nr_blocks;
	int meta_error;
};

static int take_chunk(uint64_t chunk, const uint64_t *words, void *arg)
{
	struct taking_over *t = arg;
	uint64_t left = t->nr_blocks - chunk * BM_CHUNK_BITS;
	uint64_t fit[BM_CHUNK_WORDS];

	memcpy(fit, words, sizeof(fit));
	for (uint64_t i = left / 64; i < BM_CHUNK_WORDS; i++)
		fit[i] &= i == left / 64 ? (UINT64_C(1) << left % 64) - 1 : 0;
	t->meta_error = meta_writeset_or(t->meta, t->era, chunk, fit);
	return t->meta_error;
}

/* What the dead session has set and not committed. A slot speaks for the era that it names alone. */
static int take_remains(struct opening *o)
{
	const struct session_remains *remains = &o->trace.remains;
	struct meta *meta = o->era->meta;
	int r = 0;

	if (meta_is_at_rest(o->found.state) || o->forget || remains->plane_bits != o->found.nr_blocks)
		return 0;
	for (unsigned int i = 0; r == 0 && i < SESSION_SLOTS; i++) {
		uint64_t era_nr = remains->era[i];
		/* One that was made for an era which was never committed has no bits. */
		if (era_nr == 0 || era_nr > o->found.current_era)
			continue;
		struct taking_over t = { .meta = meta, .era = era_nr, .nr_blocks = o->found.nr_blocks };
		bool is_whole = session_remains_visit(remains, i, take_chunk, &t) == 0 &&
				(PLANTED(PARTIAL_WHOLE) || !remains->is_partial[i]);
		/* Where the file cannot be read the intents speak. */
		r = t.meta_error;
		if (r == 0 && is_whole)
			r = meta_intent_drop(meta, era_nr, era_nr + 1);
	}
	return r;
}

static int fill_transaction(struct opening *o)
{
	struct era *era = o->era;
	struct meta_super *super = meta_pending(era->meta);
	uint64_t newest = super->current_era;
	struct stat st;

	int r = img_stat(era->image, &st);
	if (r == 0)
		r = take_remains(o);
	if (r < 0)
		return r;

	/* Above all that anybody has seen. */
	newest = o->trace.era > newest ? o->trace.era : newest;
	newest = o->witness.era > newest ? o->witness.era : newest;
	/* A freeze has shown its new era, and nobody has written in it: it starts here as it would by a thaw. */
	bool was_frozen = o->found.state == META_FROZEN && newest == super->current_era && !had_failed(o);
	super->current_era = was_frozen && !o->forget ? newest : newest + 1;
	/* Whoever froze it and thinks it can thaw sees that it is too late. */
	if (o->found.state == META_FROZEN)
		super->generation++;
	if (o->replaced)
		super->floor_era = super->current_era;
	if (o->forget)
		r = mark_all(o, super);
	else if (had_failed(o))
		r = meta_writeset_copy(era->meta, o->found.durable_era, super->current_era);
	if (r == 0 && o->resized)
		r = mark_resize(o, super->current_era);
	super->durable_era = super->current_era;
	super->state = META_OPEN;
	memcpy(super->nonce, era->nonce, sizeof(super->nonce));
	memcpy(super->boot_id, o->boot_id, sizeof(super->boot_id));
	super->owner_pid = (uint64_t)getpid();
	r = r < 0 ? r : run_process_start(getpid(), &super->owner_start);
	super->image_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return r;
}

int recover_start_era(struct opening *o, struct err *err)
{
	struct era *era = o->era;

	int r = meta_begin(era->meta, META_FULL);
	if (r == 0) {
		r = fill_transaction(o);
		if (r < 0)
			meta_rollback(era->meta);
		else
			/* Guards the first write to come: from here on the database says that it is open, and
			 * by whom. */
			r = era_commit(era, "a new session");
	}
	if (r < 0)
		return err_set(
			err, r, "%s: the new era cannot be recorded: %s", o->config->metadata_path, strerror(-r));
	const struct meta_super *super = meta_super(era->meta);
	/* Guards against a database that is put back from a copy of before this start. */
	r = meta_witness_write(o->config->metadata_path, super);
	if (r < 0)
		return err_set(err, r, "%s.witness: cannot be written: %s", o->config->metadata_path, strerror(-r));
	if (o->forget || o->replaced)
		core_notice(era,
			"%s: started anew: every block counts as changed in era %" PRIu64
			", old cursors are void: take a full backup",
			o->config->metadata_path, super->current_era);
	if (o->trace.owner_pid)
		core_notice(era, "%s: took over from process %" PRIu64 ", which had frozen them: generation %" PRIu64,
			o->config->metadata_path, o->trace.owner_pid, super->generation);
	if (o->resized)
		core_notice(era, "%s: resized from %" PRIu64 " to %" PRIu64 " bytes", o->config->image_path,
			o->found.image_size, super->image_size);
	return 0;
}
