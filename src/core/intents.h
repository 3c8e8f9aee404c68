/* SPDX-License-Identifier: MIT */
/*
 * intents - which extents to arm, and how many.
 *
 * A write that durable metadata did not foresee waits for a commit. So an intent is made for the whole extent, for more of
 * its neighbours the more often a region is missed, and ahead of a stream. What is armed and not written is what a power loss
 * blurs: `max` bounds it, and what nobody uses is disarmed after some seconds (settle.c). Where `max` is reached nothing is
 * armed, and first writes wait for marks of their own, as without intents: a set that thrashes costs no more than that.
 *
 * (DRBD's activity log and md's write-intent bitmap are the models; theirs are of fixed extents.)
 */
#ifndef CORE_INTENTS_H
#define CORE_INTENTS_H

#include "marks.h"
#include "plane.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define INTENT_REGION 64u /* extents that widen together */
#define INTENT_COLD 5 /* epochs without a write after which an extent is disarmed */
#define INTENT_HOT 10 /* a switch of eras arms what was written in so many */

/* Misses near each other, not long ago, arm more at a time. Under meta_lock. */
struct intent_region {
	uint16_t epoch; /* of the last miss */
	uint8_t level; /* 4^level extents */
	uint8_t begin; /* planned in `batch`, of the region */
	uint8_t end;
	uint32_t batch;
};

struct intents {
	/* Fixed while open. */
	unsigned int extent_shift;
	uint64_t nr_extents;
	uint64_t max; /* extents armed at a time */
	size_t used_bytes;
	size_t regions_bytes;
	_Atomic uint16_t *used; /* an extent's epoch of its last write, or of its arming; any thread */
	struct intent_region *regions; /* under meta_lock */

	_Atomic uint16_t epoch; /* about a second each, while something is armed; never 0 */
	uint32_t batch; /* under meta_lock */
	uint64_t old_only; /* armed in the plane of the era before alone; under meta_lock */
	_Atomic bool any; /* something is armed */
	_Atomic bool wanted; /* `max` kept something from being armed: look at once for what is of no use */
};

/* max_bytes: UINT64_MAX for no bound. 0 or -ENOMEM. */
int intents_init(
	struct intents *intents, uint64_t nr_blocks, uint64_t block_size, uint64_t extent_bytes, uint64_t max_bytes);
void intents_clear(struct intents *intents);

/* Blocks an extent has, for extents of at most extent_bytes: a power of two, as its binary logarithm. */
unsigned int intents_shift(uint64_t block_size, uint64_t extent_bytes);

/* Blocks [begin, end) are being written. Inside the gate, any thread. True: a stream has come so far that the extents
 * [*ret_ahead, *ret_ahead_end) should be armed. */
bool intents_note_use(struct intents *intents, const struct plane *plane, uint64_t begin, uint64_t end,
	uint64_t *ret_ahead, uint64_t *ret_ahead_end);

/* What one transaction will arm. */
struct arming {
	struct marks extents;
	uint64_t nr; /* not more than that many extents are new */
};

/* Begins a batch of what follows. Under meta_lock. */
void intents_begin(struct intents *intents, struct arming *arming);

/* Plans to arm extent, which somebody waits for. 1; 0: there is no room; -ENOMEM. Under meta_lock. */
int intents_plan(struct intents *intents, const struct plane *plane, uint64_t extent, struct arming *arming);

/* Plans to arm those of [begin, end) that are not, as far as there is room, and memory. Under meta_lock. */
void intents_plan_ahead(
	struct intents *intents, const struct plane *plane, uint64_t begin, uint64_t end, struct arming *arming);

/* Plans to arm in `next`, the plane of the coming era, what was written lately in plane. 0 or -ENOMEM. Any thread that keeps
 * plane from going away. */
int intents_plan_hot(struct intents *intents, const struct plane *plane, struct arming *arming);

/* The switch of eras: *ret_arming is hot, which is left empty, and plane, of the era that ends, keeps what it has armed. Under
 * meta_lock. */
void intents_begin_era(
	struct intents *intents, const struct plane *plane, struct arming *hot, struct arming *ret_arming);

/* They were committed. Under meta_lock. 0 or -ENOMEM, with a part of them armed. */
int intents_publish(struct intents *intents, struct plane *plane, const struct arming *arming);

/* Has nobody written to extent for a while? */
bool intents_is_cold(const struct intents *intents, uint64_t extent);

#endif
