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
	uint64_t block_size; /* bytes; 0: what the metadata has, ERA_BLOCK_SIZE_DEFAULT at creation */
	unsigned int nr_completers; /* threads that finish parked requests, at least 1 */
	/* Called with one line for a person (metadata created, image recovered ...). May be NULL. */
	void (*notice)(const char *text, void *arg);
	void *notice_arg;
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
 * digest thread, commits bits, binding and META_CLEAN once, truncates the WAL, drops the locks. Frees era whatever is
 * returned. NULL is fine. No other call may be under way.
 */
int era_close(struct era *era, struct err *err);

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

/* More parked requests than this make era_submit() wait: each holds at most one FUSE write of data. */
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
 * it. All three on one thread. Others that begin wait, at most ERA_SWITCH_WAIT_S.
 */
int era_checkpoint_begin(struct era *era, struct err *err);
int era_checkpoint_commit(struct era *era, const char *label, uint64_t *ret_era, struct err *err);
void era_checkpoint_abort(struct era *era);

/* begin and commit. */
int era_checkpoint(struct era *era, const char *label, uint64_t *ret_era, struct err *err);

#define ERA_SWITCH_WAIT_S 30

/* Names an era that has been shown (<= the current one; 0 means the current one). *ret_era is the one named. */
int era_label_set(struct era *era, const char *name, uint64_t label_era, uint64_t *ret_era, struct err *err);
int era_label_remove(struct era *era, const char *name, struct err *err);

enum era_state {
	ERA_RUNNING,
	ERA_FAILED, /* an fsync failed: reads work, writes and fsync give -EIO until a restart */
};

struct era_status {
	enum era_state state;
	char failure[256]; /* why, when failed */
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
	unsigned int wal_frames;
};

/* Any thread; takes the metadata mutex for a moment. */
void era_get_status(struct era *era, struct era_status *ret_status);

/* "running", "failed". */
const char *era_state_name(enum era_state state);

#endif
