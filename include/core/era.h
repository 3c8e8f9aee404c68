/* SPDX-License-Identifier: MIT */
/*
 * era - eras of one image: the write path, the checkpoint, the digest, recovery.
 *
 * Knows nothing of FUSE or sockets. See doc/DESIGN.md for the argument why no crash loses a block; the rules that it
 * implements are the kernel's dm-era target (drivers/md/dm-era-target.c), made exact.
 */
#ifndef CORE_ERA_H
#define CORE_ERA_H

#include "base/err.h"
#include "image/img.h"

#include <stdbool.h>
#include <stdint.h>

#define ERA_BLOCK_SIZE_DEFAULT UINT64_C(65536)
#define ERA_BLOCK_SIZE_MIN UINT64_C(4096)
#define ERA_BLOCK_SIZE_MAX (UINT64_C(1) << 30)

struct era;

struct era_config {
	const char *image_path;
	const char *metadata_path; /* may not exist yet, see create */
	const char *run_dir; /* where the session file goes (run_own_dir()) */
	const uint8_t *nonce; /* 16 bytes that name the session; NULL: made up */
	bool read_only; /* neither image nor metadata is changed; every writing call gives -EROFS */
	bool create; /* create metadata that is missing */
	bool mark_all; /* bypass=mark-all: start anew with all blocks marked where opening would be refused */
	bool resize; /* accept an image that changed size */
	bool takeover; /* of metadata that a living owner has frozen; else they are refused */
	uint64_t block_size; /* bytes; 0: what the metadata has, ERA_BLOCK_SIZE_DEFAULT at creation */
	unsigned int nr_completers; /* threads that finish parked requests, at least 1 */
	/*
	 * Bytes that a write intent stands for (rounded down to a power of two of blocks, one at the least and 4096 at the
	 * most), and most bytes of all that are open at a time (UINT64_MAX: no bound), which is what a power loss may blur.
	 * 0: no intents, each first write to a block in an era waits for the commit of its mark.
	 */
	uint64_t intent_bytes;
	uint64_t intent_max_bytes;
	/* Called with one line for a person (metadata created, image recovered, thawed by the deadline ...), on any thread. May
	 * be NULL. */
	void (*notice)(const char *text, void *arg);
	/* Called once when the instance has become fenced, on any thread. May be NULL. */
	void (*fenced)(void *arg);
	void *notice_arg; /* of both */
	struct img *
		image; /* for tests: use this image, already open, instead of opening image_path; era_close closes it */
};

/*
 * Takes the locks, opens or creates the metadata, recovers an unclean one, starts a new era and the threads. On failure
 * nothing is left running or locked, and nothing was changed where the reason is a refusal.
 */
int era_open(const struct era_config *config, struct era **ret_era, struct err *err);

/*
 * Orderly stop: closes the gate, waits for what is in flight, fails what is parked with -EIO, fsyncs the image, joins the
 * digest thread, commits bits, binding and META_CLEAN once, truncates the WAL, drops the locks. Of a frozen or fenced
 * instance it changes nothing at all: neither metadata nor image are its own. Frees era whatever is returned. NULL is fine.
 * No other call may be under way.
 */
int era_close(struct era *era, struct err *err);

/* From now on requests that would have to wait, and those that do, end with -EIO. For the stop of a frozen instance, before
 * the threads that submit are joined. */
void era_stop_waiting(struct era *era);

/* The image, for what needs no tracking: img_pread, img_seek, img_stat, img_statvfs. */
struct img *era_image(struct era *era);

enum era_req_kind {
	ERA_REQ_WRITE, /* alters content: passes the gate, every block that it touches is marked first */
	ERA_REQ_ALLOCATE, /* alters no content but does touch the file: passes the gate, marks nothing */
	ERA_REQ_FLUSH, /* fsync: neither; done by the core itself, so that its failure is never forgotten */
};

struct era_req;

struct era_req_ops {
	/*
	 * Changes the image in [offset, offset + len), a piece of the request's range; pieces come in ascending order,
	 * one unless the range is huge (ERA_PIECE_BLOCKS). The gate is held; any thread. 0, or -errno, which ends the
	 * request. Not called for ERA_REQ_FLUSH.
	 */
	int (*apply)(struct era_req *req, uint64_t offset, uint64_t len);
	/*
	 * The request is about to wait: called once, on the submitting thread, before any other thread can see it. Takes
	 * hold of what the caller of era_submit() would take away. 0, or -errno, which ends the request.
	 */
	int (*park)(struct era_req *req);
	/* Exactly once, on any thread, no lock held: the request is over and may be freed. error is 0 or -errno. */
	void (*done)(struct era_req *req, int error);
};

enum era_req_state {
	ERA_REQ_NEW, /* with its submitter */
	ERA_REQ_CANCELLED, /* cancelled before it was parked */
	ERA_REQ_PARKED, /* waits for the gate or a commit */
	ERA_REQ_CLAIMED, /* a committer, completer or canceller has it */
};

/* Embedded in the caller's own request. offset and len are bytes, inside the image, len > 0 (but for FLUSH). */
struct era_req {
	const struct era_req_ops *ops;
	enum era_req_kind kind;
	uint64_t offset;
	uint64_t len;

	/* The core's own; zero at first. */
	uint64_t done_bytes; /* pieces that are over */
	bool ready; /* in the list of those that a completer may try; under the park lock */
	bool cancel_wanted; /* cancelled while claimed: not parked again; under the park lock */
	enum era_req_state state; /* under the park lock */
	struct era_req *next;
	struct era_req *prev;
};

/* Most blocks that one commit marks for one request: a larger one is done in pieces. */
#define ERA_PIECE_BLOCKS (UINT64_C(1) << 20)

/*
 * Runs the request. Never waits for the gate, a commit or an fsync: where one is needed the request is parked, and done()
 * is called later by another thread; else done() is called before this returns. (Except that it waits while the parked
 * requests are more than ERA_PARKED_MAX.) -EROFS and -EIO (state failed) come through done() too.
 */
void era_submit(struct era *era, struct era_req *req);

/* More parked requests than this make era_submit() wait, but for while it is frozen: each holds at most one FUSE write of
 * data. */
#define ERA_PARKED_MAX 4096u

/*
 * Takes a parked request back: true when it is now the caller's, nothing of it was done, and done() will not be called.
 * False when somebody else has it: done() will come, with -EINTR if it would have had to wait (again).
 * May be called from park() on.
 */
bool era_cancel(struct era *era, struct era_req *req);

/*
 * Ends era N and starts N+1 (*ret_era). A write that completed before the call is in an era <= N, one whose bytes may land
 * after the return is in an era >= N+1; and a copy of the image taken after the return, plus the blocks of since(N+1) taken
 * later, is always the later image, across a power loss too. label (may be NULL) names N+1, in the same commit that makes
 * N+1 visible. begin closes the gate and drains it (bounded: else -ETIMEDOUT, the gate open again); commit or abort opens
 * it. All three on one thread. Others that begin wait, at most ERA_SWITCH_WAIT_S. clone_fd (-1: none) is made a clone of the
 * image at the very point of the switch, see img_clone(); where that fails, the era does not end.
 */
int era_checkpoint_begin(struct era *era, struct err *err);
int era_checkpoint_commit(struct era *era, const char *label, int clone_fd, uint64_t *ret_era, struct err *err);
void era_checkpoint_abort(struct era *era);

/* begin and commit. */
int era_checkpoint(struct era *era, const char *label, uint64_t *ret_era, struct err *err);

#define ERA_SWITCH_WAIT_S 30

/*
 * The freeze ends era N (*ret_era) and gives the image and the metadata up: the gate is closed and stays so, the digest thread
 * has been joined, the database file is whole without its -wal and does not change, no lock is held. Reads and fsync go on.
 * era_freeze_prepare() lets the digest work off its backlog and makes sure that no reader's snapshot blocks the WAL, within
 * bounds, while writers go on (-EBUSY: one does); then era_checkpoint_begin(); then commit. A freeze that fails leaves the
 * gate open and the instance running, the era ended at most. After timeout_s (0: never) a frozen instance thaws by itself.
 * Implements what the kernel's fix "dm era: commit metadata in postsuspend after worker stops" does for dm-era.
 */
int era_freeze_prepare(struct era *era, struct err *err);
int era_freeze_commit(struct era *era, unsigned int timeout_s, int clone_fd, uint64_t *ret_era, struct err *err);

/* prepare, begin and commit. */
int era_freeze(struct era *era, unsigned int timeout_s, uint64_t *ret_era, struct err *err);

/*
 * Takes the locks, then reads the metadata: only where they and the image are as the freeze left them, era N + 1 (*ret_era)
 * starts and the gate opens. frozen_era, if not 0, must be the N that the freeze answered. -ENOTSUP not frozen (exit
 * ERR_EXIT_FAILED), or by another freeze (ERR_EXIT_REFUSED); -EBUSY another holds a lock, the instance stays frozen;
 * -ESTALE taken over, or the image changed meanwhile.
 */
int era_thaw(struct era *era, uint64_t frozen_era, uint64_t *ret_era, struct err *err);

/* May the metadata be asked? 0; or, of a frozen instance whose image is not as the freeze left it, -ESTALE with exit
 * ERR_EXIT_UNKNOWN: somebody has written what no metadata know. Fenced: -ESTALE with exit ERR_EXIT_REFUSED. Any thread. */
int era_check_answers(struct era *era, struct err *err);

/*
 * Commits the marks of all writes that have been replied to (and perhaps others), so that a reader of the database needs no
 * intent of an era *ret_from or later: see meta_reader_trust(). UINT64_MAX where nothing can be said: read only, failed,
 * fenced. 0 or -errno. Any thread.
 */
int era_settle(struct era *era, uint64_t *ret_from);

/* Names an era that has been shown (<= the current one; 0 means the current one). *ret_era is the one named. */
int era_label_set(struct era *era, const char *name, uint64_t label_era, uint64_t *ret_era, struct err *err);
int era_label_remove(struct era *era, const char *name, struct err *err);

/* See src/core/state.c for the table. */
enum era_state {
	ERA_RUNNING,
	ERA_FREEZING, /* the gate is closed for a freeze that is under way */
	ERA_FROZEN, /* nothing is ours to change; writers wait */
	ERA_THAWING, /* takes back what the freeze gave up */
	ERA_FAILED, /* an fsync failed, or the deadline could not thaw: reads work, writes and fsync give -EIO until a restart */
	ERA_FENCED, /* another instance took over: the same, and nothing is ever ours again */
};

struct era_status {
	enum era_state state;
	char failure[256]; /* why, when failed or fenced */
	uint64_t frozen_era; /* the era that the freeze ended, when frozen or thawing; else 0 */
	unsigned int thaw_in_s; /* when frozen with a deadline: seconds until it, at least 1; else 0 */
	uint64_t auto_thaws; /* thaws by a deadline since the start */
	char auto_thaw_reason[128]; /* of the last one; "" when there was none */
	uint8_t uuid[16];
	uint64_t block_size;
	uint64_t image_size;
	uint64_t nr_blocks;
	uint64_t current_era; /* the newest that may be shown */
	uint64_t generation;
	bool read_only;
	bool image_is_device;
	unsigned int parked; /* requests that wait now */
	uint64_t commits; /* group commits since the start */
	uint64_t committed_requests; /* requests that they covered */
	uint64_t checkpoints; /* since the start */
	uint64_t digest_steps; /* since the start */
	uint64_t intent_bytes; /* that an intent stands for; 0: none are made */
	uint64_t intent_max_bytes; /* UINT64_MAX: no bound */
	uint64_t open_intents;
	bool is_exact_after_kill; /* a kill -9 now would leave every mark, else the intents decide */
	unsigned int wal_frames;
};

/* Any thread; takes the metadata mutex for a moment. */
void era_get_status(struct era *era, struct era_status *ret_status);

/* "running", "freezing", "frozen", "thawing", "failed", "fenced". */
const char *era_state_name(enum era_state state);

#endif
