/* SPDX-License-Identifier: MIT */
/*
 * core_private - what the core's files share.
 *
 * Lock order: switch_lock, then the gate closed, then meta_lock, then park_lock. Nobody waits for the gate or for
 * switch_lock while holding meta_lock; no callback of a request is called with any of them held.
 */
#ifndef CORE_CORE_PRIVATE_H
#define CORE_CORE_PRIVATE_H

#include "gate.h"
#include "intents.h"
#include "marks.h"
#include "plane.h"
#include "session.h"

#include "base/bitmap.h"
#include "core/era.h"
#include "meta/meta.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ahead {
	uint64_t begin; /* extents that a stream will come to; none where both are equal */
	uint64_t end;
};

struct era_list {
	struct era_req *head;
	struct era_req *tail;
};

struct era {
	/* Fixed while open. */
	struct img *image;
	/* NULL when read only, frozen or fenced; it, its calls and its superblock: meta_lock */
	struct meta *meta;
	struct meta_super
		at_rest; /* the superblock as found (read only) or left (frozen) where meta is NULL; meta_lock */
	struct meta_super thawed; /* what the last thaw has committed, durably: for its witness; switch_lock */
	struct session *session;
	char *metadata_path;
	char *run_dir;
	dev_t database_dev; /* of the file that is open */
	ino_t database_ino;
	int database_lock; /* descriptor; -1 when read only, frozen or fenced; switch_lock */
	uint8_t nonce[16];
	uint64_t block_size;
	uint64_t nr_blocks;
	bool read_only;
	void (*notice)(const char *text, void *arg); /* as in struct era_config */
	void (*fenced)(void *arg);
	void *notice_arg;

	/* --- the state (state.c) --- */
	_Atomic int state; /* enum era_state; changed by state_change(), under meta_lock */
	char failure[256]; /* under meta_lock; written once, before the state is failed or fenced */

	/* --- the write path --- */
	struct gate gate;
	/* Of the current era. Read inside the gate or under meta_lock; replaced at the switch of eras, with the gate closed
	 * and under meta_lock. */
	struct plane *plane;
	struct intents intents;
	bool has_intents; /* fixed while open; else each first write waits for a mark of its own */
	uint64_t first_era; /* of the intents that are our own: earlier ones are what crashes have left */

	/* --- requests that wait --- */
	pthread_mutex_t park_lock;
	pthread_cond_t commit_wanted; /* parked is not empty and the gate is open, or stopping */
	pthread_cond_t finish_wanted; /* ready is not empty, or stopping */
	pthread_cond_t flush_wanted; /* flushes is not empty, or stopping */
	pthread_cond_t room; /* fewer than ERA_PARKED_MAX wait */
	struct era_list parked; /* wait for the gate or a commit */
	struct era_list ready; /* a completer may try them */
	struct era_list flushes; /* wait for an fsync of the image */
	struct ahead ahead;
	unsigned int nr_waiting; /* in either list, or claimed by the committer */
	bool stopping;

	/* --- the one writer of the metadata --- */
	pthread_mutex_t meta_lock;
	_Atomic unsigned int meta_urgent; /* who is about to take meta_lock and is not the digest */
	pthread_cond_t meta_turn; /* under meta_lock: meta_urgent may be 0 */

	/* --- fsync of the image (flush.c); all under flush_lock --- */
	pthread_mutex_t flush_lock;
	pthread_cond_t flush_over;
	uint64_t flushes_asked;
	uint64_t flushes_done;
	bool flush_runs;

	/* --- the switch of eras --- */
	pthread_mutex_t switch_lock; /* checkpoint begin..commit, freeze, thaw */
	struct plane *next_plane; /* made in begin, used in commit; under switch_lock */
	struct plane *old_plane; /* of the era before, while marks of it are missing in the database; under meta_lock */
	struct arming hot; /* what next_plane begins with; under switch_lock */

	/* --- the freeze (freeze.c, thaw.c, watch.c); under meta_lock --- */
	uint64_t frozen_era; /* what the freeze that holds has ended; 0 when none does */
	int64_t thaw_at_ms; /* its deadline, CLOCK_MONOTONIC; 0: none */
	unsigned int freeze_timeout_s;
	char news[512]; /* for whom it may concern, once switch_lock is let go; "" for nothing; under switch_lock */
	bool has_been_fenced; /* likewise */
	uint64_t auto_thaws;
	char auto_thaw_reason[128];

	/* --- threads --- */
	pthread_t committer;
	bool committer_runs;
	pthread_t flusher;
	bool flusher_runs;
	pthread_t *completers;
	unsigned int nr_completers;
	pthread_t digester;
	bool digester_runs;
	pthread_mutex_t digest_lock;
	pthread_cond_t digest_wanted;
	pthread_cond_t digest_idle; /* under digest_lock: neither kicked nor busy */
	bool digest_kicked; /* under digest_lock */
	bool digest_busy; /* under digest_lock */
	bool digest_stop; /* under digest_lock */
	uint64_t digested_below; /* nothing is left below this era; under meta_lock */
	int64_t epoch_at_ms; /* settle.c's, of the digest's thread alone */
	int64_t settle_at_ms;
	int64_t settle_urgent_ms;
	unsigned int wal_written_back; /* WAL frames at the last write-back; under meta_lock */
	pthread_t watcher;
	bool watcher_runs;
	pthread_mutex_t watch_lock;
	pthread_cond_t watch_wanted; /* under watch_lock */
	bool watch_kicked; /* under watch_lock */
	bool watch_stop; /* under watch_lock */

	/* Counters for status; relaxed. */
	_Atomic uint64_t nr_commits;
	_Atomic uint64_t nr_committed_requests;
	_Atomic uint64_t nr_checkpoints;
	_Atomic uint64_t nr_digest_steps;
};

/* request.c */
int request_threads_start(struct era *era, unsigned int nr_completers);
void request_threads_stop(struct era *era); /* fails what is parked; the gate is closed */
/* Whoever waits for room looks anew: while frozen there is always some. */
void request_state_changed(struct era *era);
/* After gate_open(): lets what waits be tried. */
void request_gate_opened(struct era *era);
/* The committer's hands: takes parked requests (claimed), and gives them back to the completers or ends them. */
bool request_take_parked(
	struct era *era, struct era_list *ret_batch, struct ahead *ret_ahead); /* waits; false: stopping */
void request_give_ready(struct era *era, struct era_list *batch);
void request_give_back(struct era *era, struct era_list *batch); /* the gate was closed meanwhile: they wait on */
void request_end_all(struct era *era, struct era_list *batch, int error);
/* Visits what waits, the longest first, until visit returns non-zero. Not what is claimed. */
void request_each_waiting(struct era *era, int (*visit)(const struct era_req *req, void *arg), void *arg);
/* The part of req that is tried next: bytes [*ret_offset, *ret_offset + *ret_len). */
void request_piece(const struct era *era, const struct era_req *req, uint64_t *ret_offset, uint64_t *ret_len);

/* commit.c */

/* What one transaction makes durable for those who wait. Zero at first. */
struct batch {
	struct marks marks; /* blocks that get marks */
	struct arming arming; /* extents that get intents */
};

/* For the switch of eras, so that whoever waits need not commit again (and again, under a flood of checkpoints): adds what the
 * requests that wait need in plane's era, and writes the batch. The gate is closed, under meta_lock; once it is committed,
 * commit_publish() is due. */
int commit_carry_over(struct era *era, struct plane *plane, struct batch *batch);
int commit_publish(struct era *era, struct plane *plane, const struct batch *batch);
void batch_free(struct batch *batch);
void *commit_thread(void *era);
/* Marks blocks [begin, end) in era's writeset. Inside a transaction, under meta_lock. */
int commit_mark_range(struct meta *meta, uint64_t era_nr, uint64_t begin, uint64_t end);

/* checkpoint.c */
#define SWITCH_DRAIN_S 10 /* how long writes in flight may keep a switch, and with it all other writes, waiting */
/* Takes switch_lock in a state that may begin a switch of eras; waits at most ERA_SWITCH_WAIT_S. */
int switch_lock_running(struct era *era, struct err *err);
/* Lets writers on, in whatever era and state it is now. */
void switch_open_gate(struct era *era);
/* The gate is closed: makes fd a clone of the image. */
int switch_clone(struct era *era, int fd, struct err *err);
/* After the COMMIT of a new era, under meta_lock, the gate closed: next_plane is its plane, and there is an old_plane. */
void switch_planes(struct era *era);
/* What begin has made and nobody has taken. */
void switch_drop(struct era *era);

/* settle.c: what was set under intents gets its marks. */
/* The whole plane, inside a transaction with the gate closed, and its intents go. */
int settle_whole(struct era *era, struct plane *plane);
/* The old plane, in steps while writers go on; then it is gone. 0 or -errno. No lock but switch_lock. */
int settle_old(struct era *era);
/* One look at all that is armed, by the digest's thread: marks, and an end to intents of no use. 0 or -errno. */
int settle_turn(struct era *era);
/* When settle_turn() is due, in ms of CLOCK_MONOTONIC; INT64_MAX: not until something is armed. */
int64_t settle_due_ms(struct era *era);

/* open.c: the image's mtime by which it will be known, see there. */
int settle_mtime(struct era *era, int64_t *ret_mtime_ns);

/* state.c */
void state_change(struct era *era, enum era_state to); /* under meta_lock */
int state_refuse_unless_running(struct era *era, struct err *err); /* any thread */

/* thaw.c */
int thaw_now(struct era *era, struct err *err); /* under switch_lock, frozen */
void thaw_poll(struct era *era); /* under switch_lock: fences the instance when another has taken over */
/* Lets switch_lock go, and then tells the news: to whom, a log perhaps, may itself wait for the image. */
void thaw_unlock_and_tell(struct era *era);

/* watch.c: the thread that thaws at the deadline and looks for a takeover while frozen. */
int watch_start(struct era *era);
void watch_stop(struct era *era); /* joins it */
void watch_kick(struct era *era); /* frozen_era or thaw_at_ms have changed */
int64_t watch_now_ms(void);

/* digest.c */
int digest_start(struct era *era); /* waits for its first kick */
void digest_stop(struct era *era); /* joins it */
void digest_kick(struct era *era);
void digest_work_off(struct era *era, unsigned int limit_s); /* waits until nothing is left, or for so long */
bool digest_wal_is_due(struct era *era); /* under meta_lock */

/* metalock.c */
void metalock_urgent(struct era *era);
void metalock_digest(struct era *era);
void metalock_behind(struct era *era);
void metalock_release(struct era *era);

/* fail.c: the state that no write leaves. No change where the state is failed or fenced already. The second is for who holds
 * meta_lock. */
void era_fail(struct era *era, const char *format, ...) __attribute__((format(printf, 2, 3)));
void era_fail_locked(struct era *era, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Commits the open transaction and lets the session file witness it. Under meta_lock. 0; -ENOSPC: nothing was committed; else
 * -EIO, and the instance has failed, for nobody knows whether the commit is there. */
int era_commit(struct era *era, const char *what);

/* fsync of the image, shared by all who ask at the same time. 0; else -EIO, and the instance has failed. No lock held but
 * switch_lock. */
int era_flush_image(struct era *era);

static inline enum era_state state_now(struct era *era)
{
	return (enum era_state)atomic_load_explicit(&era->state, memory_order_acquire);
}

/* Failed or fenced: no write will succeed any more. */
static inline bool era_is_dead(struct era *era)
{
	return state_now(era) >= ERA_FAILED;
}

/* open.c's hands, in bind.c and recover.c */
struct opening {
	const struct era_config *config;
	struct era *era;
	struct meta_super found; /* the superblock as found */
	struct session_key old_key;
	uid_t owner; /* of the database */
	struct session_trace trace;
	struct meta_witness witness; /* all zero where there is none */
	uint8_t boot_id[16];
	uint8_t new_uuid[16]; /* for forget */
	bool replaced; /* the metadata were created in place of older ones */
	bool forget; /* bypass=mark-all is needed and allowed */
	bool resized; /* -o resize is needed and allowed */
};

/* Looks for what the database's sessions have left: session files and the witness. 0; -EBUSY: the owner lives, and has not
 * frozen them, or this is no takeover. */
int bind_find_traces(struct opening *o, struct err *err);
/* Before metadata are made: 0; -EBUSY: another instance, that lives, has frozen the image. */
int bind_check_image(struct opening *o, struct err *err);
/* At most BM_MAX_BITS blocks. */
int bind_check_blocks(const struct era_config *config, uint64_t image_size, uint64_t block_size, struct err *err);
/* Is this the image of these metadata, as they left it? 0, also with forget or resized set, or a refusal. */
int bind_check(struct opening *o, struct err *err);
/* Leaves the image durable, the failed state's cache dropped. 0 or -errno. */
int recover_image(struct opening *o, struct err *err);
/* Archives the old era and starts a new one, in one commit. */
int recover_start_era(struct opening *o, struct err *err);

/* era.c: does metadata_path still name the database that is open, or was? Any thread. */
bool core_has_database(const struct era *era);
/* era.c: a line for a person, where somebody listens. */
void core_notice(struct era *era, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* lockfile.c: DATABASE.lock */
int lockfile_take(const char *database, int *ret_fd, struct err *err);
void lockfile_drop(const char *database, int fd);

#endif
