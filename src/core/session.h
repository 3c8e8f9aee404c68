/* SPDX-License-Identifier: MIT */
/*
 * session - what an instance leaves in memory for the one that comes after a kill -9 on the same boot.
 *
 * A small file NONCE.session in the run folder, mapped shared: the kernel keeps what was stored there when the process is
 * gone. Its heartbeat and failure are believed only where its nonce, its boot, its UUID and its database (device and inode)
 * are those of the database that is being opened: a copied database, an earlier run or another boot has at least one of
 * them different. One that differs in the nonce alone is of another session on the same database: when it has seen a later
 * commit, the database was put back from an older copy. The owner holds a lock on the file for life, so a lock that is free
 * says that the owner is gone; one that is held, while the locks of image and database are free, that the owner has frozen
 * them (or is fenced: then its nonce is not the database's).
 *
 * It also holds the bits of blocks that were set in core and whose marks need not be committed yet (plane.h): a slot for the
 * current era and one for the era before, whose bits are still on their way into the database. A slot names its era.
 * They are kept where the run folder is in memory (tmpfs), and are whole unless that was full.
 */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "gate.h"

#include "base/bitmap.h"
#include "base/err.h"
#include "image/img.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct session;

/* Who a session is; all of it must agree before its file is believed. */
struct session_key {
	uint8_t uuid[16];
	uint8_t nonce[16];
	uint8_t boot_id[16];
	uint64_t database_dev;
	uint64_t database_ino;
	uint64_t image_dev; /* of the image's base, see image/img.h */
	uint64_t image_ino;
};

/*
 * Makes dir/NONCE.session, takes its lock and starts the heartbeat, a thread that once a second says that we live, and looks
 * at the image's mtime: one that no change of ours explains is somebody else's write. image's mtime at the start is taken
 * as it is. The key's nonce must be fresh. plane_bits: bits of a slot; 0: none are needed.
 */
int session_start(const char *dir, const struct session_key *key, struct img *image, uint64_t plane_bits,
	struct session **ret_session, struct err *err);

#define SESSION_SLOTS 2u

/* (For session_start() and session_stop().) */
int session_slots_init(struct session *session);
void session_slots_clear(struct session *session);

/* Empties the slot and gives it to era: from now on bits that are set in a bitmap with this store outlive the process. The
 * slot must be nobody's, and plane_bits not 0. */
void session_slot_take(struct session *session, unsigned int slot, uint64_t era, struct bm_store *ret_store);

/* The slot's bits are in the database, and its bitmap is gone. */
void session_slot_release(struct session *session, unsigned int slot);

/* Whether a kill -9 leaves every bit that was set in it. */
bool session_slot_is_whole(struct session *session, unsigned int slot);

/* The gate's counters, in the session file. */
struct gate_shard *session_shards(struct session *session);

/* An mtime of the image that changes until last_change_ns explain: not later than that, by more than the clock's tick. */
bool session_explains(uint64_t last_change_ns, uint64_t start_mtime_ns, uint64_t mtime_ns);

/* At the stop, with nobody in the gate: 1 and the image's mtime; 0: somebody else has written to it since the start; -errno. */
int session_image_is_ours(struct session *session, uint64_t *ret_mtime_ns);

/* Stops the heartbeat; removes the file, or leaves it for the one who comes after. NULL is fine. */
void session_stop(struct session *session, bool leave);

/* What a commit has reached, after it. One caller at a time. */
void session_set_commit(struct session *session, uint64_t commit_counter, uint64_t era);

/* A freeze gives the image up: the heartbeat does not look at its mtime (any more), when this returns. */
void session_hold(struct session *session);

/* A thaw has found the image with the mtime mtime_ns: the heartbeat looks again, and all after that one needs an explanation. */
void session_go_on(struct session *session, int64_t mtime_ns);

/* Sets the image's mtime to an earlier one, as one of our own making. 0 or -errno. */
int session_set_mtime(struct session *session, struct timespec mtime);

/* A new nonce, for a thaw. (The file keeps its name: it is found by what is in it.) No commit may be under way. */
void session_renew(struct session *session, const uint8_t nonce[16]);

/* Nothing is ours any more, and never will be (fenced, or failed while frozen): whoever opens passes the session over. */
void session_give_up(struct session *session);

/* An fsync failed. Any thread. */
void session_set_failed(struct session *session);

/* The slots of a dead session. */
struct session_remains {
	int fd; /* of its file */
	uint64_t plane_bits; /* 0: there are none, and no fd */
	uint64_t era[SESSION_SLOTS]; /* 0: nobody's */
	bool is_partial[SESSION_SLOTS];
};

/* What a dead session left. */
struct session_trace {
	bool found; /* the very session that had the database last */
	uint64_t heartbeat_ns; /* its last sign of life, wall clock, ns since 1970 */
	bool was_writing; /* a request was changing the image when it died */
	uint64_t changed_ns; /* its last change of the image, 0: none */
	uint64_t start_mtime_ns; /* the image's mtime when it started */
	uint64_t seen_mtime_ns; /* the last that it saw */
	bool foreign_write; /* it saw one that it cannot explain */
	bool failed; /* one on this database saw an fsync fail */
	uint64_t commit_counter; /* the greatest that any session on this database has seen, 0: none */
	uint64_t era; /* likewise */
	bool kin_seen; /* one on this database or a copy lives, and is seen */
	uint64_t owner_pid; /* it lives, has this database or its image, and so has frozen them; 0: it does not */
	struct session_remains remains; /* of the very session that had the database last, when it is dead */
	uint64_t stranger_pid; /* one on other metadata lives, has frozen this image and was not fenced; 0: none */
};

/* Looks in own_dir and all run folders that the caller may look into; files of root, of the caller and of owner (the user who
 * has the database) are believed. The caller holds the locks of image and database. 0 or -errno. */
/* *ret_trace is zero, or of an earlier call; session_trace_clear() is due. */
int session_find(const char *own_dir, const struct session_key *key, uid_t owner, bool image_is_device,
	struct session_trace *ret_trace);

void session_trace_clear(struct session_trace *trace);

/* Visits the chunks of a slot that were touched. A visit's non-zero return ends it and is given back. */
int session_remains_visit(const struct session_remains *remains, unsigned int slot,
	int (*visit)(uint64_t chunk, const uint64_t *words, void *arg), void *arg);

/* Removes what dead sessions on this database have left. */
void session_forget(const char *own_dir, const struct session_key *key, uid_t owner);

#endif
