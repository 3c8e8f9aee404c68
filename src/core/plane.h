/* SPDX-License-Identifier: MIT */
/*
 * plane - what is known in core of the blocks of one era, and which of them may be written without waiting.
 *
 *     committed   a block whose mark is in the database for good: durable by itself, or by the intent that its extent had when
 *                 it was committed
 *     armed       an extent whose write intent is durable: after a power loss all of it counts as written in this era
 *     set         a block that was, or is about to be, written under an intent; in the session's file, so that a kill -9
 *                 leaves it exact
 *
 * A writer, inside the gate, passes on `committed`. Else it must find the extent armed, set its bit, and find the extent armed
 * once more. Whoever takes an intent back clears `armed` first and collects the bits then, and commits them with the intent's
 * removal. All of these are sequentially consistent, so one of the two sees the other: the writer that the extent is no longer
 * armed, and waits; or the collector its bit. (One look before the bit is set would let a write slip between clearing and
 * collecting; one plane for `set` and `committed` would let a second writer pass on the first one's bit. tests/model explores
 * the whole protocol and rejects these.)
 *
 * Extents are for planes of an instance with intents: without (intent=off) only `committed` is there.
 */
#ifndef CORE_PLANE_H
#define CORE_PLANE_H

#include "session.h"

#include "base/bitmap.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct plane {
	uint64_t era;
	unsigned int extent_shift; /* an extent is 1 << extent_shift blocks */
	/* Bits are set under meta_lock, after the COMMIT. */
	struct bm *committed;
	/* NULL without intents. Of blocks: set by writers, inside the gate. */
	struct bm *set;
	/* NULL without intents. Of extents: set under meta_lock after the COMMIT of the intent, cleared under meta_lock. */
	struct bm *armed;
	_Atomic uint64_t nr_armed; /* changed under meta_lock */
	struct session *session;
	unsigned int slot;
};

/* session: of whose slots one is free, NULL: without intents. */
int plane_new(uint64_t nr_blocks, uint64_t era, struct session *session, unsigned int slot, unsigned int extent_shift,
	struct plane **ret_plane);

/* Its bits are in the database, or nobody needs them: its slot is free. NULL is fine. */
void plane_free(struct plane *plane);

/* The slot stays as it is, for whoever comes after. NULL is fine. */
void plane_leave(struct plane *plane);

static inline uint64_t plane_extent_of(const struct plane *plane, uint64_t block)
{
	return block >> plane->extent_shift;
}

/* The blocks of extent, up to the image's end. */
void plane_extent_blocks(const struct plane *plane, uint64_t extent, uint64_t *ret_begin, uint64_t *ret_end);

/* May blocks [begin, end) be written now? 1, after their bits were set where need be; 0: not yet; -ENOMEM. Inside the gate. */
int plane_pass(struct plane *plane, uint64_t begin, uint64_t end);

/* Would plane_pass() let them? Sets nothing. Under meta_lock it stays so until that is let go. */
bool plane_covers(const struct plane *plane, uint64_t begin, uint64_t end);

/* Intents were committed. Under meta_lock. 0 or -ENOMEM, with a part of them armed. */
int plane_arm(struct plane *plane, uint64_t first, uint64_t end);
void plane_disarm(struct plane *plane, uint64_t extent);

/* The blocks of a chunk that are set and not committed, whatever is armed. False when there are none. */
bool plane_collect(const struct plane *plane, uint64_t chunk, uint64_t ret_words[BM_CHUNK_WORDS]);

#endif
