/* SPDX-License-Identifier: MIT */
/* session_file - what the session's file looks like, for the files that make, fill and read it: see session.h. */
#ifndef CORE_SESSION_FILE_H
#define CORE_SESSION_FILE_H

#include "session.h"

#include "base/bitmap.h"

#include <limits.h>
#include <stdatomic.h>

#define SESSION_MAGIC "eraimgfs session 2"
#define SESSION_SUFFIX ".session"
#define SESSION_BYTES 8192 /* before the slots */
#define SESSION_SHARDS_AT 4096

#define SESSION_SLOT_ALIGN UINT64_C(65536) /* a page, on any machine */

/* The place of one era's bits. */
struct session_slot {
	_Atomic uint64_t era; /* 0: nobody's */
	_Atomic uint64_t is_partial; /* bits are missing, as there was no room for them */
};

struct session_page {
	char magic[24];
	struct session_key key;
	uint64_t pid;
	_Atomic uint64_t given_up;
	_Atomic uint64_t heartbeat_ns;
	_Atomic uint64_t commit_counter;
	_Atomic uint64_t era;
	_Atomic uint64_t failed;
	_Atomic uint64_t start_mtime_ns;
	_Atomic uint64_t seen_mtime_ns;
	_Atomic uint64_t foreign_write;
	uint64_t plane_bits; /* of each slot; 0: there are none */
	struct session_slot slots[SESSION_SLOTS];
};
_Static_assert(sizeof(struct session_page) <= SESSION_SHARDS_AT, "one page");
_Static_assert(SESSION_SHARDS_AT + GATE_SHARDS * sizeof(struct gate_shard) == SESSION_BYTES, "and one of counters");

/* Bytes of a slot. A chunk of the bitmap lies at its index times its size: one that was never touched is a hole. */
static inline uint64_t session_slot_bytes(uint64_t plane_bits)
{
	uint64_t bytes = bm_nr_chunks(plane_bits) * BM_CHUNK_WORDS * sizeof(uint64_t);
	return (bytes + SESSION_SLOT_ALIGN - 1) / SESSION_SLOT_ALIGN * SESSION_SLOT_ALIGN;
}

static inline uint64_t session_slot_at(uint64_t plane_bits, unsigned int slot)
{
	return SESSION_SLOT_ALIGN + slot * session_slot_bytes(plane_bits);
}

/* Chunks for which the file had no room. */
struct session_spare {
	struct session *session; /* whose slot it is */
	unsigned int slot;
	pthread_mutex_t lock;
	void **chunks; /* under lock; NULL: none yet */
};

struct session {
	char path[PATH_MAX];
	int fd; /* holds the lock */
	struct session_page *page; /* and all of the file behind it */
	size_t map_bytes;
	bool is_in_memory; /* the file's pages are no disk's: slots may be filled */
	bool has_slots;
	struct session_spare spare[SESSION_SLOTS];
	struct img *image;
	bool beating;
	pthread_t beat;
	pthread_mutex_t lock;
	pthread_cond_t stop; /* under lock */
	bool stopping; /* under lock */
	bool watching; /* under lock: looks at the image's mtime */
};

#endif
