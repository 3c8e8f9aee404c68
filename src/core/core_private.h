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
#include "session.h"

#include "base/bitmap.h"
#include "core/era.h"
#include "meta/meta.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct era_list {
	struct era_req *head;
	struct era_req *tail;
};

struct era {
	/* Fixed while open. */
	struct img *image;
	struct meta *meta; /* NULL when read only; its calls and its superblock: meta_lock */
	struct session *session;
	char *metadata_path;
	char *run_dir;
	int database_lock; /* descriptor, -1 when read only */
	uint8_t nonce[16];
	uint64_t block_size;
	uint64_t nr_blocks;
	bool read_only;
	struct meta_super read_only_super; /* when read only: as found */

	/* --- the write path --- */
	struct gate gate;
	/* Blocks whose mark in the current era is durable. Read inside the gate or under meta_lock; bits are set under
	 * meta_lock, after the COMMIT; replaced at the switch of eras, with the gate closed and under meta_lock. */
	struct bm *committed;
	_Atomic bool failed;
	char failure[256]; /* under meta_lock; written once, before failed is set */

	/* --- requests that wait --- */
	pthread_mutex_t park_lock;
	pthread_cond_t commit_wanted; /* parked is not empty and the gate is open, or stopping */
	pthread_cond_t finish_wanted; /* ready is not empty, or stopping */
	pthread_cond_t flush_wanted; /* flushes is not empty, or stopping */
	pthread_cond_t room; /* fewer than ERA_PARKED_MAX wait */
	struct era_list parked; /* wait for the gate or a commit */
	struct era_list ready; /* a completer may try them */
	struct era_list flushes; /* wait for an fsync of the image */
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
	pthread_mutex_t switch_lock; /* checkpoint begin..commit */
	struct bm *next_committed; /* made in begin, used in commit; under switch_lock */

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
	bool digest_kicked; /* under digest_lock */
	bool digest_stop; /* under digest_lock */
	uint64_t digested_below; /* nothing is left below this era; under meta_lock */
	unsigned int wal_written_back; /* WAL frames at the last write-back; under meta_lock */

	/* Counters for status; relaxed. */
	_Atomic uint64_t nr_commits;
	_Atomic uint64_t nr_committed_requests;
	_Atomic uint64_t nr_checkpoints;
	_Atomic uint64_t nr_digest_steps;
};

/* request.c */
int request_threads_start(struct era *era, unsigned int nr_completers);
void request_threads_stop(struct era *era); /* fails what is parked; the gate is closed */
/* After gate_open(): lets what waits be tried. */
void request_gate_opened(struct era *era);
/* The committer's hands: takes parked requests (claimed), and gives them back to the completers or ends them. */
bool request_take_parked(struct era *era, struct era_list *ret_batch); /* waits; false: stopping */
void request_give_ready(struct era *era, struct era_list *batch);
void request_end_all(struct era *era, struct era_list *batch, int error);
/* Visits what waits, the longest first, until visit returns non-zero. Not what is claimed. */
void request_each_waiting(struct era *era, int (*visit)(const struct era_req *req, void *arg), void *arg);
/* The part of req that is tried next: bytes [*ret_offset, *ret_offset + *ret_len). */
void request_piece(const struct era *era, const struct era_req *req, uint64_t *ret_offset, uint64_t *ret_len);

/* commit.c */

/* Blocks of one chunk that a request touches and that are not yet committed. */
struct mark {
	uint64_t begin;
	uint64_t end;
};

struct marks {
	struct mark *list;
	size_t nr;
	size_t room;
};

/* For the switch of eras, so that whoever waits need not commit again (and again, under a flood of checkpoints): marks the
 * blocks of the requests that wait in new_era, and once that is committed, publishes them. The gate is closed, under
 * meta_lock; carry inside the transaction, publish after it. */
int commit_carry_over(struct era *era, uint64_t new_era, struct marks *ret_marks);
int commit_publish(struct era *era, const struct marks *marks);
void *commit_thread(void *era);
/* Marks blocks [begin, end) in era's writeset. Inside a transaction, under meta_lock. */
int commit_mark_range(struct meta *meta, uint64_t era_nr, uint64_t begin, uint64_t end);

/* digest.c */
int digest_start(struct era *era);
void digest_stop(struct era *era); /* joins it */
void digest_kick(struct era *era);
bool digest_wal_is_due(struct era *era); /* under meta_lock */

/* metalock.c */
void metalock_urgent(struct era *era);
void metalock_digest(struct era *era);
void metalock_release(struct era *era);

/* fail.c: the state that no write leaves. The second is for who holds meta_lock. */
void era_fail(struct era *era, const char *format, ...) __attribute__((format(printf, 2, 3)));
void era_fail_locked(struct era *era, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Commits the open transaction and lets the session file witness it. Under meta_lock. 0; -ENOSPC: nothing was committed; else
 * -EIO, and the instance has failed, for nobody knows whether the commit is there. */
int era_commit(struct era *era, const char *what);

/* fsync of the image, shared by all who ask at the same time. 0; else -EIO, and the instance has failed. No lock held but
 * switch_lock. */
int era_flush_image(struct era *era);

static inline bool era_has_failed(struct era *era)
{
	return atomic_load_explicit(&era->failed, memory_order_acquire);
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

/* Looks for what the database's sessions have left: session files and the witness. 0, or -EBUSY: the owner lives. */
int bind_find_traces(struct opening *o, struct err *err);
/* At most BM_MAX_BITS blocks. */
int bind_check_blocks(const struct era_config *config, uint64_t image_size, uint64_t block_size, struct err *err);
/* Is this the image of these metadata, as they left it? 0, also with forget or resized set, or a refusal. */
int bind_check(struct opening *o, struct err *err);
/* Leaves the image durable, the failed state's cache dropped. 0 or -errno. */
int recover_image(struct opening *o, struct err *err);
/* Archives the old era and starts a new one, in one commit. */
int recover_start_era(struct opening *o, struct err *err);

/* era.c: a line for a person, where somebody listens. */
void core_notice(const struct era_config *config, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* lockfile.c: DATABASE.lock */
int lockfile_take(const char *database, int *ret_fd, struct err *err);
void lockfile_drop(const char *database, int fd);

#endif
