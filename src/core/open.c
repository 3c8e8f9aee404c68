/* SPDX-License-Identifier: MIT */
/*
 * open - the life of an instance, from its locks to its clean mark.
 *
 * Up:   image and its locks, lock file, database (opened or created, verified), binding, session file, recovery, threads.
 * Down: gate closed and drained, waiting requests failed, digest joined, image fsynced, one last commit (state, mtime),
 *       WAL truncated, database closed, locks dropped. Nothing writes after the last commit, for nobody is left who could.
 */
#include "core_private.h"

#include "base/io.h"
#include "base/num.h"
#include "base/plant.h"
#include "base/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A file system that keeps whole seconds (or two of them) has its clock past an mtime by then. */
#define COARSE_MTIME_S 4

static int era_new(const struct era_config *config, struct era **ret_era)
{
	pthread_condattr_t monotonic;
	struct era *era = aligned_alloc(64, (sizeof(*era) + 63) / 64 * 64);
	if (!era)
		return -ENOMEM;
	memset(era, 0, sizeof(*era));
	era->database_lock = -1;
	era->read_only = config->read_only;
	era->has_intents = config->intent_bytes > 0 && !config->read_only;
	era->notice = config->notice;
	era->fenced = config->fenced;
	era->notice_arg = config->notice_arg;
	era->image = config->image;
	pthread_mutex_init(&era->park_lock, NULL);
	pthread_mutex_init(&era->meta_lock, NULL);
	pthread_mutex_init(&era->switch_lock, NULL);
	pthread_mutex_init(&era->digest_lock, NULL);
	pthread_mutex_init(&era->flush_lock, NULL);
	pthread_mutex_init(&era->watch_lock, NULL);
	pthread_cond_init(&era->flush_over, NULL);
	pthread_cond_init(&era->commit_wanted, NULL);
	pthread_cond_init(&era->finish_wanted, NULL);
	pthread_cond_init(&era->flush_wanted, NULL);
	pthread_cond_init(&era->room, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&era->meta_turn, &monotonic);
	pthread_cond_init(&era->digest_wanted, &monotonic);
	pthread_cond_init(&era->digest_idle, &monotonic);
	pthread_cond_init(&era->watch_wanted, &monotonic);
	pthread_condattr_destroy(&monotonic);
	int r = gate_init(&era->gate);
	if (r < 0) {
		free(era);
		return r;
	}
	if (config->nonce)
		memcpy(era->nonce, config->nonce, sizeof(era->nonce));
	else
		num_uuid_new(era->nonce);
	*ret_era = era;
	return 0;
}

/* Whether recovery will ask for the session file: the database names it as its last one and was not closed in order, or
 * could not be told of a failure. */
static bool session_is_needed(struct era *era)
{
	const struct meta_super *super = era->meta ? meta_super(era->meta) : NULL;
	return super && (era_is_dead(era) || (super->state != META_CLEAN &&
						     memcmp(super->nonce, era->nonce, sizeof(super->nonce)) == 0));
}

/* What is left once the threads are gone, in any state of opening. Drops the locks last. */
static void era_free(struct era *era)
{
	plane_leave(era->plane);
	plane_leave(era->next_plane);
	plane_leave(era->old_plane);
	marks_free(&era->hot.extents);
	intents_clear(&era->intents);
	session_stop(era->session, session_is_needed(era));
	meta_close(era->meta);
	if (era->metadata_path)
		lockfile_drop(era->metadata_path, era->database_lock);
	img_close(era->image);
	gate_clear(&era->gate);
	pthread_cond_destroy(&era->watch_wanted);
	pthread_cond_destroy(&era->digest_idle);
	pthread_cond_destroy(&era->digest_wanted);
	pthread_cond_destroy(&era->meta_turn);
	pthread_cond_destroy(&era->room);
	pthread_cond_destroy(&era->flush_wanted);
	pthread_cond_destroy(&era->finish_wanted);
	pthread_cond_destroy(&era->commit_wanted);
	pthread_cond_destroy(&era->flush_over);
	pthread_mutex_destroy(&era->watch_lock);
	pthread_mutex_destroy(&era->flush_lock);
	pthread_mutex_destroy(&era->digest_lock);
	pthread_mutex_destroy(&era->switch_lock);
	pthread_mutex_destroy(&era->meta_lock);
	pthread_mutex_destroy(&era->park_lock);
	free(era->metadata_path);
	free(era->run_dir);
	free(era);
}

/*
 * Creates the metadata. Where older ones had this name (salvaged_era, or a witness that is left), the new ones start above
 * every era that they may have shown, and say that every block was written then: truthful from birth, whatever happens
 * before the first session, and for those too who kept a bare number.
 */
static int create_metadata(struct opening *o, uint64_t salvaged_era, struct err *err)
{
	const struct era_config *config = o->config;
	struct img *image = o->era->image;
	struct meta_witness witness;
	struct stat st;
	struct meta_super super = {
		.block_size = config->block_size ? config->block_size : ERA_BLOCK_SIZE_DEFAULT,
		.image_size = image->size_bytes,
		.image_is_device = image->is_device,
	};

	int r = bind_check_blocks(config, super.image_size, super.block_size, err);
	if (r < 0)
		return r;
	super.nr_blocks = (super.image_size + super.block_size - 1) / super.block_size;
	r = meta_witness_read(config->metadata_path, NULL, &witness);
	if (r >= 0)
		r = img_stat(image, &st);
	if (r < 0)
		return err_set(err, r, "%s: the metadata cannot be created: %s", config->metadata_path, strerror(-r));
	super.image_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	if (witness.era > salvaged_era)
		salvaged_era = witness.era;
	if (salvaged_era > 0)
		super.current_era = super.durable_era = super.floor_era = salvaged_era + 1;
	num_uuid_new(super.uuid);
	o->replaced = super.floor_era > 0;
	r = meta_create(config->metadata_path, &super, err);
	if (r < 0)
		return r;
	core_notice(o->era, "created the metadata %s", config->metadata_path);
	return meta_open(config->metadata_path, &o->era->meta, err);
}

/* bypass=mark-all for metadata that cannot be opened: put aside, whole, and begun anew. */
static int replace_damaged(struct opening *o, struct err *err)
{
	char *aside = NULL;
	uint64_t salvaged_era = meta_salvage_era(o->config->metadata_path);

	/* At least 1: that a database was here is known. */
	salvaged_era = salvaged_era > 0 ? salvaged_era : 1;
	int r = meta_set_aside(o->config->metadata_path, &aside, err);
	if (r < 0)
		return r;
	core_notice(o->era, "the metadata cannot be used and were moved to %s", aside);
	free(aside);
	return create_metadata(o, salvaged_era, err);
}

/* A file that is no database (any more) is moved only where a witness says that it was one of ours: metadata= may name
 * anything by mistake. */
static bool is_ours(const char *path)
{
	struct meta_witness witness;
	return meta_witness_read(path, NULL, &witness) == 1;
}

static int refuse_missing(const struct era_config *config, struct err *err)
{
	return err_set(err, -ENOENT,
		"%s: there are no metadata: mount once without %s to create them, then take a full backup",
		config->metadata_path, config->read_only ? "ro" : "nocreate");
}

static int open_metadata(struct opening *o, struct err *err)
{
	const struct era_config *config = o->config;
	struct era *era = o->era;

	int r = lockfile_take(config->metadata_path, &era->database_lock, err);
	if (r < 0)
		return r;
	r = meta_open(config->metadata_path, &era->meta, err);
	bool makes = r == -ENOENT && config->create;
	bool replaces = config->mark_all && (r == -EUCLEAN || (r == -EMEDIUMTYPE && is_ours(config->metadata_path)));
	if (makes || replaces) {
		/* A refusal that comes later would leave what was made behind. */
		r = bind_check_image(o, err);
		if (r < 0)
			return r;
		r = makes ? create_metadata(o, 0, err) : replace_damaged(o, err);
	}
	if (r == -ENOENT)
		return refuse_missing(config, err);
	if (r < 0)
		return r;
	o->found = *meta_super(era->meta);
	return 0;
}

/* Read only: nothing is created, recovered or started. */
static int open_read_only(struct opening *o, struct err *err)
{
	struct meta_reader *reader;

	if (o->config->mark_all)
		return err_set_exit(
			err, ERR_EXIT_USAGE, -EINVAL, "bypass=mark-all changes the metadata: mount without ro");
	int r = meta_reader_open(o->config->metadata_path, &reader, err);
	if (r == -ENOENT)
		return refuse_missing(o->config, err);
	if (r < 0)
		return r;
	o->found = *meta_reader_super(reader);
	meta_reader_close(reader);
	return 0;
}

static int begin_session(struct opening *o, struct err *err)
{
	struct session_key key = o->old_key;
	struct err why = ERR_INIT;

	memcpy(key.nonce, o->era->nonce, sizeof(key.nonce));
	if (o->forget)
		memcpy(key.uuid, o->new_uuid, sizeof(key.uuid));
	uint64_t nr_blocks = (o->era->image->size_bytes + o->found.block_size - 1) / o->found.block_size;
	int r = 0;
	/* Before anything is changed: large tables may be refused. */
	if (o->era->has_intents)
		r = intents_init(&o->era->intents, nr_blocks, o->found.block_size, o->config->intent_bytes,
			o->config->intent_max_bytes);
	if (r < 0)
		return err_set(err, r, "%s: not enough memory for write intents: mount with -o intent=off",
			o->config->image_path);
	r = session_start(
		o->config->run_dir, &key, o->era->image, o->era->has_intents ? nr_blocks : 0, &o->era->session, &why);
	return r < 0 ? err_set(err, r, "%s: make room there, or set ERAIMGFS_RUN_DIR", why.text) : 0;
}

static int bind_and_recover(struct opening *o, struct err *err)
{
	const struct era_config *config = o->config;
	struct stat st;

	int r = run_boot_id(o->boot_id);
	if (r < 0)
		return err_set(err, r, "the kernel's boot id cannot be read: %s", strerror(-r));
	if (stat(config->metadata_path, &st) < 0)
		return err_set(err, -errno, "%s: %s", config->metadata_path, strerror(errno));
	num_uuid_new(o->new_uuid);
	memcpy(o->old_key.uuid, o->found.uuid, sizeof(o->old_key.uuid));
	memcpy(o->old_key.nonce, o->found.nonce, sizeof(o->old_key.nonce));
	memcpy(o->old_key.boot_id, o->boot_id, sizeof(o->old_key.boot_id));
	o->owner = st.st_uid;
	o->old_key.database_dev = st.st_dev;
	o->old_key.database_ino = st.st_ino;
	o->era->database_dev = st.st_dev;
	o->era->database_ino = st.st_ino;
	o->old_key.image_dev = o->era->image->base_dev;
	o->old_key.image_ino = o->era->image->base_ino;
	/* stat() does not touch SQLite's locks; open() and close() would. */
	r = bind_find_traces(o, err);
	if (r == 0)
		r = bind_check(o, err);
	if (r < 0 || config->read_only)
		return r;
	r = begin_session(o, err);
	if (r == 0)
		r = recover_image(o, err);
	if (r == 0)
		r = recover_start_era(o, err);
	if (r == 0)
		session_forget(config->run_dir, &o->old_key, o->owner);
	return r;
}

static int start_threads(struct era *era, const struct era_config *config, struct err *err)
{
	const struct meta_super *super = meta_super(era->meta);

	era->block_size = super->block_size;
	era->nr_blocks = super->nr_blocks;
	era->gate.shards = session_shards(era->session);
	era->first_era = super->current_era;
	int r = plane_new(era->nr_blocks, super->current_era, era->has_intents ? era->session : NULL, 0,
		era->intents.extent_shift, &era->plane);
	if (r == 0)
		r = request_threads_start(era, config->nr_completers);
	if (r == 0)
		r = digest_start(era);
	if (r == 0) {
		digest_kick(era);
		r = watch_start(era);
	}
	return r < 0 ? err_set(err, r, "cannot start the threads: %s", strerror(-r)) : 0;
}

int era_open(const struct era_config *config, struct era **ret_era, struct err *err)
{
	struct opening o = { .config = config };

	int r = era_new(config, &o.era);
	if (r < 0)
		return err_set(err, r, "out of memory");
	struct era *era = o.era;

	if (!era->image)
		r = img_open(config->image_path, config->read_only, &era->image, err);
	if (r < 0)
		goto fail;
	era->metadata_path = strdup(config->metadata_path);
	era->run_dir = strdup(config->run_dir);
	if (!era->metadata_path || !era->run_dir) {
		r = err_set(err, -ENOMEM, "out of memory");
		goto fail;
	}
	r = config->read_only ? open_read_only(&o, err) : open_metadata(&o, err);
	if (r == 0)
		r = bind_and_recover(&o, err);
	if (r < 0)
		goto fail;
	if (config->read_only) {
		era->at_rest = o.found;
		era->block_size = o.found.block_size;
		era->nr_blocks = o.found.nr_blocks;
	} else {
		r = start_threads(era, config, err);
		if (r < 0) {
			gate_close(&era->gate, NULL);
			request_threads_stop(era);
			digest_stop(era);
			watch_stop(era);
			goto fail;
		}
	}
	session_trace_clear(&o.trace);
	*ret_era = era;
	return 0;

fail:
	session_trace_clear(&o.trace);
	era_free(era);
	return r;
}

/*
 * The mtime by which the image will be known: one of our own making, or none. Where the file system keeps whole seconds, a
 * write from outside in the very second of our last one would not show: there it is put back, out of reach of the clock.
 */
int settle_mtime(struct era *era, int64_t *ret_mtime_ns)
{
	struct img *image = era->image;
	uint64_t mtime_ns;

	int r = session_image_is_ours(era->session, &mtime_ns);
	if (r < 0)
		return r;
	*ret_mtime_ns = r > 0 ? (int64_t)mtime_ns : META_MTIME_UNKNOWN;
	struct timespec mtime = { .tv_sec = (time_t)(mtime_ns / 1000000000u) };
	if (r == 0 || image->is_device || mtime_ns % 1000000000u != 0 || time(NULL) - mtime.tv_sec >= COARSE_MTIME_S)
		return 0;
	mtime.tv_sec -= 2 * COARSE_MTIME_S;
	*ret_mtime_ns = (int64_t)mtime.tv_sec * 1000000000;
	r = session_set_mtime(era->session, mtime);
	return r < 0 ? r : era_flush_image(era);
}

/* The last commit: what it says holds, because nothing writes after it. */
static int close_commit(struct era *era, struct err *err)
{
	int64_t mtime_ns;

	int r = settle_mtime(era, &mtime_ns);
	if (r == 0)
		r = meta_begin(era->meta, META_FULL);
	if (r < 0)
		return err_set(err, r, "%s: the clean stop cannot be recorded: %s", era->metadata_path, strerror(-r));
	struct meta_super *super = meta_pending(era->meta);
	super->durable_era = super->current_era;
	super->state = META_CLEAN;
	super->image_mtime_ns = mtime_ns;
	/* What was set under intents and has no marks yet. */
	r = era->old_plane ? settle_whole(era, era->old_plane) : 0;
	if (r == 0)
		r = settle_whole(era, era->plane);
	if (r < 0)
		meta_rollback(era->meta);
	else
		/* Guards nothing but the time of a recovery: without it the next start recovers. */
		r = era_commit(era, "the stop");
	if (r == 0)
		r = meta_witness_write(era->metadata_path, meta_super(era->meta));
	if (r < 0)
		return err_set(err, r, "%s: the clean stop cannot be recorded: %s", era->metadata_path, strerror(-r));
	if (mtime_ns == META_MTIME_UNKNOWN)
		return err_set(err, -ESTALE,
			"the image was written to beside this eraimgfs: the next mount refuses it but with -o bypass=mark-all");
	/* A reader's snapshot may be in the way: then the -wal stays, and is part of the database. */
	r = meta_wal_checkpoint(era->meta, META_WAL_TRUNCATE);
	if (r < 0 && r != -EBUSY)
		return err_set(err, r, "%s: the WAL cannot be written back: %s", era->metadata_path, strerror(-r));
	return 0;
}

/* A planted bug: an instance that has given everything up tidies up all the same. */
static void close_plant_checkpoint(struct era *era)
{
	struct meta *meta;

	if (meta_open(era->metadata_path, &meta, NULL) == 0) {
		meta_wal_checkpoint(meta, META_WAL_TRUNCATE);
		meta_close(meta);
	}
}

int era_close(struct era *era, struct err *err)
{
	int r = 0;

	if (!era)
		return 0;
	if (era->read_only) {
		era_free(era);
		return 0;
	}
	/* First, so that no thaw comes in between. */
	watch_stop(era);
	gate_close(&era->gate, NULL);
	request_threads_stop(era);
	digest_stop(era);
	/* Guards the data of the last era: the mark "clean" says that it is durable. */
	if (era->meta)
		era_flush_image(era);
	if (state_now(era) == ERA_FAILED)
		r = err_set(err, -EIO, "the instance has failed (%s): the next mount recovers", era->failure);
	else if (era->meta)
		r = close_commit(era, err);
	else if (PLANTED(FENCED_CHECKPOINT))
		close_plant_checkpoint(era);
	era_free(era);
	return r;
}
