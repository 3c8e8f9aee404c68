/* SPDX-License-Identifier: MIT */
/*
 * meta - the metadata database, the only user of sqlite3.h. The file format is eraimgfs-metadata(5).
 *
 * One `struct meta` in one process writes and checkpoints (SQLite 3.40's WAL-reset bug needs two connections that do);
 * its calls come from one thread at a time: the core holds its metadata mutex around them. Any number of
 * `struct meta_reader` read, each a snapshot of one instant on a read-only connection of its own, from any one thread.
 *
 * No connection ever checkpoints or deletes a -wal when it is closed. Nothing in a process that has a connection open may
 * open the database file by other means: any close() of it would drop SQLite's POSIX locks.
 *
 * SQLite's codes stop here: -ENOSPC (full), -EUCLEAN (damaged), -EMEDIUMTYPE (not a database of ours), -EROFS, -ENOMEM,
 * -EIO and so on.
 */
#ifndef META_META_H
#define META_META_H

#include "base/bitmap.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define META_LABEL_MAX 64 /* bytes of a label's name, without NUL */
#define META_EXTENT_MAX UINT64_C(4096) /* most blocks that one write intent stands for */

/* image_mtime_ns of an image that somebody else wrote to: no mtime is it. */
#define META_MTIME_UNKNOWN INT64_MIN

enum meta_state {
	META_CLEAN = 0, /* stopped in order: image_mtime_ns binds the image as it was */
	META_OPEN = 1, /* an instance writes, or died writing */
	META_FAILED = 2, /* an fsync of the image or the metadata failed: the image's cache is not to be trusted */
	META_FROZEN =
		3, /* a freeze gave it up, whole and with nothing in the -wal; binds the image as META_CLEAN does */
	META_SNAPSHOT = 4, /* a copy for reading: what was written since is not in it, so no image goes on with it */
};

/* Nobody has written since the last commit, so the image's mtime on record is the one that it must have. */
static inline bool meta_is_at_rest(enum meta_state state)
{
	return state == META_CLEAN || state == META_FROZEN;
}

/* The superblock: one row. All multi-byte values are host integers here; the row carries a checksum over them. */
struct meta_super {
	uint8_t uuid[16];
	uint64_t block_size; /* bytes */
	uint64_t image_size; /* bytes */
	uint64_t nr_blocks; /* ceil(image_size / block_size), 1..BM_MAX_BITS */

	uint64_t current_era; /* 0 before the first activation */
	/* The newest era that may be shown to anybody: the image data of all earlier eras is on stable storage.
	 * durable_era <= current_era. Eras at or above it are not digested, so that recovery from a failed fsync can
	 * mark their blocks once more. */
	uint64_t durable_era;
	/* Every block counts as written in this era (bypass=mark-all); 0 when there was no such need. */
	uint64_t floor_era;

	uint64_t generation; /* raised by each takeover */
	uint64_t commit_counter; /* raised by each commit */

	enum meta_state state;
	uint8_t nonce[16]; /* of the session that opened it last */
	uint8_t boot_id[16]; /* of the boot that session ran on */
	uint64_t owner_pid;
	uint64_t owner_start; /* start time of owner_pid, clock ticks after boot (/proc/PID/stat, field 22) */
	uint64_t committed_at_ns; /* wall clock of the last commit, ns since 1970 */

	bool image_is_device; /* then image_mtime_ns means nothing */
	int64_t image_mtime_ns; /* at rest: at the stop or freeze; else at the session's start; after an fsync of the image; ns since 1970 */
};

struct meta;

/*
 * Creates path, whole or not at all: built under a temporary name beside it, in WAL mode, then given its name, then the
 * folder is fsynced. -EEXIST when path exists. super gives uuid, geometry, eras and what binds it to its image; it starts
 * META_CLEAN, the rest at zero.
 * Refused: a folder that is missing, read-only or full; -ENOTSUP a network file system or a mount of eraimgfs as its home;
 * -ENOTEMPTY a -wal with content of a database that is gone beside it. The caller holds the lock of path.
 */
int meta_create(const char *path, const struct meta_super *super, struct err *err);

/*
 * Opens path for writing and verifies all of it (application_id, user_version, quick_check, each checksum, count and
 * invariant that eraimgfs-metadata(5) lists); changes nothing but what WAL recovery needs.
 * -ENOENT missing; -EMEDIUMTYPE not a database, or another program's; -EPROTONOSUPPORT a newer version's; -EUCLEAN damaged; -EMLINK the
 * file has several hard links (its -wal would have several names); -EPERM it is a META_SNAPSHOT.
 */
int meta_open(const char *path, struct meta **ret_meta, struct err *err);

/* Rolls back what is open. Leaves -wal and -shm where they are. NULL is fine. */
void meta_close(struct meta *meta);

/* What the last commit (or the open) left. Valid until the next meta_commit(). */
const struct meta_super *meta_super(const struct meta *meta);

enum meta_sync {
	META_FULL, /* the commit is on stable storage when meta_commit() returns 0 */
	META_LAZY, /* it is atomic and ordered, but a power loss may take it back (synchronous=NORMAL) */
};

/* Starts the one transaction. 0 or -errno (nothing open then). */
int meta_begin(struct meta *meta, enum meta_sync sync);

/* The superblock that meta_commit() will write; the caller edits it. Only inside a transaction. */
struct meta_super *meta_pending(struct meta *meta);

/*
 * Commits the changes and the pending superblock with commit_counter raised by one. The transaction is over whatever is
 * returned: 0; -ENOSPC: nothing was committed, and it may work later; any other error: it is not known whether the commit
 * is there, and the caller must go to its failed state.
 */
int meta_commit(struct meta *meta);

/* Ends the transaction without a trace. Harmless when none is open. */
void meta_rollback(struct meta *meta);

/* Inside a transaction. ORs BM_CHUNK_WORDS words into chunk's row of era's writeset, which is made if need be.
 * An error leaves the transaction open; the caller rolls it back. */
int meta_writeset_or(struct meta *meta, uint64_t era, uint64_t chunk, const uint64_t *words);

/*
 * Write intents: extents of which any block may be written in era before its mark is made (md's write-intent bitmap and
 * DRBD's activity log have the like). An intent that is durable covers the writes of its extent like a mark; whoever
 * takes it back makes their marks in the same transaction or before. extent is blocks an intent, 1 to META_EXTENT_MAX; a
 * chunk is of BM_CHUNK_BITS intents. What a crash leaves stays, and counts as written, until the image is begun anew.
 * Inside a transaction; an error leaves it open. drop: those of all eras in [from, to).
 */
int meta_intent_or(struct meta *meta, uint64_t era, uint64_t extent, uint64_t chunk, const uint64_t *words);
int meta_intent_clear(struct meta *meta, uint64_t era, uint64_t extent, uint64_t chunk, const uint64_t *words);
int meta_intent_drop(struct meta *meta, uint64_t from, uint64_t to);

/* Inside a transaction. ORs the writesets of all eras in [from, to) into the writeset of era to; what their intents stand for
 * counts there too, as what a crash has left: it is no intent of whoever has era to, and stays whatever becomes of those. */
int meta_writeset_copy(struct meta *meta, uint64_t from, uint64_t to);

/*
 * Inside a transaction. Folds up to max_chunks rows of the lowest writeset whose era is < below into the era array and
 * removes them; a writeset that is empty then goes too. *ret_more tells whether such rows are left. The lowest era first,
 * so that a block's array entry is the last era in which it was written.
 */
int meta_digest(struct meta *meta, uint64_t below, unsigned int max_chunks, bool *ret_more);

/* Inside a transaction. Names era; a label of that name is moved. meta_label_is_valid() must hold. */
int meta_label_set(struct meta *meta, const char *name, uint64_t era);

/* Inside a transaction. -ENOENT when there is no such label. */
int meta_label_remove(struct meta *meta, const char *name);

/* A letter or underscore, then letters, digits, '.', '_' or '-', at most META_LABEL_MAX bytes: never mistaken for an era,
 * a cursor or an option. */
bool meta_label_is_valid(const char *name);

/* Inside a transaction. Gives the pending superblock another image_size and nr_blocks and drops from writesets and era array
 * what lies at or beyond the new end. Marking what a resize must mark is the caller's. nr_blocks is changed by this and after
 * meta_forget() only. -EINVAL: no such size. */
int meta_resize(struct meta *meta, uint64_t image_size);

/* Inside a transaction. Drops all writesets, the era array and all labels (for bypass=mark-all, with a new uuid, geometry,
 * current_era and floor_era in the pending superblock). */
int meta_forget(struct meta *meta);

enum meta_wal {
	META_WAL_PASSIVE, /* as much as readers allow, waits for nobody */
	META_WAL_TRY, /* as META_WAL_TRUNCATE, but waits for nobody */
	META_WAL_TRUNCATE, /* all of it, the -wal is empty afterwards; waits up to a second for readers */
};

/* WAL checkpoint, outside a transaction. TRUNCATE and TRY return 0 only when busy was 0 and every frame was written
 * back; -EBUSY when a reader's snapshot is in the way. PASSIVE returns 0 with frames possibly left. */
int meta_wal_checkpoint(struct meta *meta, enum meta_wal mode);

/* Frames in the -wal as of the last commit. */
unsigned int meta_wal_frames(const struct meta *meta);

/* Moves a database that cannot be used (and its -wal, -shm) aside, to path.damaged-N, for bypass=mark-all. The caller
 * holds the locks. ret_path is malloc'ed. */
int meta_set_aside(const char *path, char **ret_path, struct err *err);

/* The greatest era that can still be read from a damaged database, checksums ignored; 0 when nothing can. */
uint64_t meta_salvage_era(const char *path);

/* What path's database had at least reached: DATABASE.witness, a file beside it. */
struct meta_witness {
	uint64_t commit_counter;
	uint64_t era;
};

/* Of the database with that uuid; NULL: of whichever had this name, the greatest values. 1 found, 0 none (and zeros),
 * -errno. */
int meta_witness_read(const char *path, const uint8_t *uuid, struct meta_witness *ret_witness);

/* Makes super's uuid, commit_counter and current_era durable there; super is a commit that is durable already (else a
 * healthy database would be behind its witness after a power loss). 0 or -errno. */
int meta_witness_write(const char *path, const struct meta_super *super);

struct meta_reader;

/*
 * Opens a read-only snapshot of path as of now. Works on a live database and on one at rest. Where there is a -wal with
 * content it writes nothing but what SQLite needs to read that (-shm); else it reads the file in place and writes nothing
 * at all. Errors as meta_open(), without its whole verification: superblock and each row that is used
 * are checked against their checksums. -EACCES: there is a -wal with content, and SQLite may not write the folder that it
 * needs to read it. Read in place there is no snapshot: the calls below give -EAGAIN when somebody wrote meanwhile.
 * -EPERM: it is a META_SNAPSHOT, which must not stand for an image's own metadata; meta_reader_open_any() takes it, for
 * who was given its name.
 */
int meta_reader_open(const char *path, struct meta_reader **ret_reader, struct err *err);
int meta_reader_open_any(const char *path, struct meta_reader **ret_reader, struct err *err);
void meta_reader_close(struct meta_reader *reader);

const struct meta_super *meta_reader_super(const struct meta_reader *reader);

/*
 * A reader counts every intent as its whole extent, unless it is told here that the instance whose intents those of era
 * settled_from and later are has recorded all that they stand for, before the snapshot was begun.
 */
void meta_reader_trust(struct meta_reader *reader, uint64_t settled_from);

/*
 * Sets the blocks that were written in era or later (current writeset, archived writesets and era array; floor_era not
 * counted) in *ret_blocks, a new bitmap of nr_blocks; and in *ret_feared, another, those that only an intent names. NULL
 * when there are none; ret_feared NULL: they are set in *ret_blocks. -EUCLEAN when a row is damaged. Memory: the chunks
 * that are hit.
 */
int meta_reader_since(
	struct meta_reader *reader, uint64_t era, struct bm **ret_blocks, struct bm **ret_feared, struct err *err);

struct meta_stats {
	uint64_t archived_eras; /* writesets below the current era that are not wholly digested */
	uint64_t undigested_blocks; /* bits in them */
	uint64_t current_blocks; /* bits in the current writeset */
	uint64_t feared_eras; /* with intents that count */
	uint64_t labels;
};
int meta_reader_stats(struct meta_reader *reader, struct meta_stats *ret_stats, struct err *err);

/* Visits labels by name. A non-zero return of visit ends it and is given back. */
int meta_reader_labels(struct meta_reader *reader, int (*visit)(const char *name, uint64_t era, void *arg), void *arg,
	struct err *err);

/* 0 and *ret_era, or -ENOENT (err untouched). */
int meta_reader_label(struct meta_reader *reader, const char *name, uint64_t *ret_era, struct err *err);

/* Verifies all of it, as meta_open() does but going on after a finding; a line of text each. Returns the number of
 * findings, or -errno when it could not look. */
int meta_reader_check(
	struct meta_reader *reader, void (*finding)(const char *text, void *arg), void *arg, struct err *err);

#endif
