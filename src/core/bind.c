/* SPDX-License-Identifier: MIT */
/*
 * bind - is this image the one that these metadata describe, as they left it?
 *
 * An image that was changed while nobody recorded it has changes that no answer contains: it is refused, and
 * bypass=mark-all makes a truthful new start. What there is to tell by:
 *
 *     how it ended          | refused as modified when the image's mtime is
 *     ----------------------+---------------------------------------------------------------------------------
 *     clean stop, frozen    | not the one recorded at the stop or the freeze
 *     unclean, this boot    | later than the dead session's own last change of the image, by more than a tick
 *                           | (later than its last heartbeat + 2 s where it died in a write, or where mtimes are
 *                           | of a server's clock); or earlier than the last that it saw
 *      .. its file is gone  | later than the last commit + 2 s; or earlier than at the session's start
 *     unclean, another boot | later than the start of this boot; or earlier than at the session's start
 *
 * And whenever a session has seen an mtime that no change of its own explains: a clean stop then records none.
 * A block device has no usable mtime: nothing is checked but its size, and status says so.
 */
#include "core_private.h"

#include "base/plant.h"
#include "base/run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BIND_SLACK_NS UINT64_C(2000000000)
#define BIND_OLDER "is older than when its eraimgfs last saw it (was it put back from a copy?)"
#define BIND_REMEDY "mount with -o bypass=mark-all to go on with a full backup"

static int64_t wall_clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int bind_refuse_stranger(const struct opening *o, struct err *err)
{
	if (!o->trace.stranger_pid)
		return 0;
	return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
		"%s: is frozen by another eraimgfs (process %" PRIu64 "), whose metadata %s is not: see era-cli list",
		o->config->image_path, o->trace.stranger_pid, o->config->metadata_path);
}

int bind_check_image(struct opening *o, struct err *err)
{
	/* Of no database: whoever lives and has the image is a stranger. */
	struct session_key key = { .image_dev = o->era->image->base_dev, .image_ino = o->era->image->base_ino };

	int r = run_boot_id(key.boot_id);
	if (r == 0)
		r = session_find(o->config->run_dir, &key, geteuid(), o->era->image->is_device, &o->trace);
	if (r < 0)
		return err_set(err, r, "%s: cannot look for session files: %s", o->config->run_dir, strerror(-r));
	return bind_refuse_stranger(o, err);
}

/* An owner whose session file is in a run folder that we cannot see: by its process. (Not our own, which has no other.) */
static uint64_t bind_hidden_owner(const struct opening *o)
{
	uint64_t start;

	if (o->trace.kin_seen || o->found.state != META_FROZEN || o->found.owner_pid == (uint64_t)getpid() ||
		memcmp(o->found.boot_id, o->boot_id, sizeof(o->boot_id)) != 0)
		return 0;
	return run_process_start((pid_t)o->found.owner_pid, &start) == 0 && start == o->found.owner_start
		       ? o->found.owner_pid
		       : 0;
}

/* We hold both locks: whoever lives and had them has frozen (or is fenced, and has nothing to say). */
static int bind_check_owner(const struct opening *o, struct err *err)
{
	const char *path = o->config->metadata_path;

	if (o->trace.owner_pid && o->found.state != META_FROZEN)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
			"%s: these metadata are in use by another eraimgfs (process %" PRIu64 "): see era-cli list",
			path, o->trace.owner_pid);
	if (o->trace.owner_pid && !o->config->takeover)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
			"%s: these metadata are frozen by another eraimgfs (process %" PRIu64
			"): let it go on with era-cli thaw, or mount with -o takeover",
			path, o->trace.owner_pid);
	return bind_refuse_stranger(o, err);
}

int bind_find_traces(struct opening *o, struct err *err)
{
	const char *path = o->config->metadata_path;

	int r = session_find(o->config->run_dir, &o->old_key, o->owner, o->era->image->is_device, &o->trace);
	if (r < 0)
		return err_set(err, r, "%s: cannot look for session files: %s", o->config->run_dir, strerror(-r));
	if (o->trace.owner_pid == 0)
		o->trace.owner_pid = bind_hidden_owner(o);
	r = bind_check_owner(o, err);
	if (r < 0)
		return r;
	r = meta_witness_read(path, o->found.uuid, &o->witness);
	if (r < 0)
		return err_set(err, r, "%s.witness: %s", path, strerror(-r));
	return 0;
}

/* Commits are missing that somebody saw: the database was put back from an older copy, or its -wal was damaged. */
static bool bind_is_behind(const struct opening *o)
{
	if (PLANTED(WITNESS_IGNORED))
		return false;
	return o->found.commit_counter < o->witness.commit_counter || o->found.commit_counter < o->trace.commit_counter;
}

/* After a kill -9 on this boot, with the session's file. */
static const char *bind_trace_finding(const struct opening *o, uint64_t mtime_ns)
{
	const struct session_trace *trace = &o->trace;
	bool explained;

	if (trace->was_writing || o->era->image->has_foreign_clock)
		explained = mtime_ns <= trace->heartbeat_ns + BIND_SLACK_NS || mtime_ns <= trace->start_mtime_ns;
	else
		explained = session_explains(trace->changed_ns, trace->start_mtime_ns, mtime_ns);
	if (!explained)
		return "was modified after its eraimgfs died";
	return mtime_ns < trace->seen_mtime_ns ? BIND_OLDER : NULL;
}

/* NULL when the mtime is as it should be, else what is wrong with it. */
static const char *bind_mtime_finding(const struct opening *o, int64_t mtime_ns)
{
	if (o->found.state == META_CLEAN && o->found.image_mtime_ns == META_MTIME_UNKNOWN)
		return "was written to beside its eraimgfs";
	if (meta_is_at_rest(o->found.state))
		return mtime_ns != o->found.image_mtime_ns ? "was modified after eraimgfs stopped or was frozen" : NULL;
	if (o->trace.foreign_write)
		return "was written to beside its eraimgfs";
	if (o->trace.found)
		return bind_trace_finding(o, (uint64_t)mtime_ns);
	if (mtime_ns < o->found.image_mtime_ns)
		return BIND_OLDER;
	if (memcmp(o->found.boot_id, o->boot_id, sizeof(o->boot_id)) != 0) {
		int64_t boot = wall_clock_ns(CLOCK_REALTIME) - wall_clock_ns(CLOCK_BOOTTIME);
		return mtime_ns > boot ? "was modified since this machine started, while eraimgfs did not record it"
				       : NULL;
	}
	if (mtime_ns <= (int64_t)(o->found.committed_at_ns + BIND_SLACK_NS))
		return NULL;
	return "was modified after the last recorded change (the dead session's file is gone, which could tell more)";
}

static int bind_refuse(struct opening *o, struct err *err, const char *name, const char *finding)
{
	if (o->config->mark_all) {
		o->forget = true;
		o->resized = false;
		return 0;
	}
	return err_set(err, -ESTALE, "%s: %s: changes are not known: " BIND_REMEDY, name, finding);
}

int bind_check_blocks(const struct era_config *config, uint64_t image_size, uint64_t block_size, struct err *err)
{
	uint64_t nr_blocks = (image_size + block_size - 1) / block_size;

	if (nr_blocks <= BM_MAX_BITS)
		return 0;
	return err_set(err, -EFBIG,
		"%s: %" PRIu64 " blocks of %" PRIu64 " bytes are more than %" PRIu64
		": mount with a larger block_size and new metadata",
		config->image_path, nr_blocks, block_size, BM_MAX_BITS);
}

int bind_check(struct opening *o, struct err *err)
{
	struct img *image = o->era->image;
	struct stat st;

	if (o->config->block_size != 0 && o->config->block_size != o->found.block_size)
		return err_set(err, -EINVAL,
			"%s: its block size is %" PRIu64 ", not %" PRIu64
			": leave block_size out, or name new metadata with -o metadata=PATH",
			o->config->metadata_path, o->found.block_size, o->config->block_size);
	int r = bind_check_blocks(o->config, image->size_bytes, o->found.block_size, err);
	if (r < 0)
		return r;
	r = img_stat(image, &st);
	if (r < 0)
		return err_set(err, r, "%s: %s", o->config->image_path, strerror(-r));

	if (bind_is_behind(o)) {
		r = bind_refuse(o, err, o->config->metadata_path,
			"lacks commits that were made (it was put back from an older copy, or its -wal was damaged)");
		if (r < 0 || o->forget)
			return r;
	}
	if (image->size_bytes != o->found.image_size) {
		if (o->config->resize && !o->config->read_only) {
			o->resized = true;
		} else if (o->config->mark_all) {
			o->forget = true;
		} else {
			return err_set(err, -ESTALE,
				"%s: its size is %" PRIu64 " bytes, but %s is for an image of %" PRIu64
				" bytes: mount with -o resize if it was resized, or " BIND_REMEDY,
				o->config->image_path, image->size_bytes, o->config->metadata_path,
				o->found.image_size);
		}
	}
	if (image->is_device != o->found.image_is_device)
		return bind_refuse(o, err, o->config->image_path,
			image->is_device ? "is a block device, and these metadata are for a file"
					 : "is a file, and these metadata are for a block device");
	if (image->is_device || o->resized || o->forget)
		return 0; /* a resize from outside changes the mtime: whoever says -o resize vouches for the content */
	const char *finding = bind_mtime_finding(o, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
	return finding ? bind_refuse(o, err, o->config->image_path, finding) : 0;
}
