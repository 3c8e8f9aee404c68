/* SPDX-License-Identifier: MIT */
/*
 * intents - a model of the write intents (see intents.c), explored whole by test_intents.c.
 * Its parts: daemon.c the program of the daemon, crash.c database, crashes and recovery, intents.c the properties.
 */
#ifndef TESTS_MODEL_INTENTS_H
#define TESTS_MODEL_INTENTS_H

#include "explore.h"

#include <stdbool.h>
#include <stdint.h>

/* What the daemon does, one step at a time; a crash may come before each. What nobody can tell from a step beside it (the
 * mutex is taken or let go, the gate is found empty) is taken together with that one. */
enum step {
	STEP_END,
	/* Of a writer */
	STEP_ENTER, /* the gate, or park */
	STEP_LOOK_COMMITTED, /* set: go */
	STEP_LOOK_SET, /* set: go */
	STEP_LOOK_ARMED, /* not armed: leave and park */
	STEP_SET,
	STEP_SET_OR_GO, /* it was set already: go */
	STEP_PWRITE,
	STEP_LEAVE,
	/* Of the other threads */
	STEP_LOCK, /* the metadata mutex; it is let go at the end */
	STEP_UNLOCK, /* before the end */
	STEP_TAKE_PARKED, /* the blocks of those that are parked */
	STEP_CLEAR_ARMED,
	STEP_COLLECT, /* set and not committed, of the armed extents */
	STEP_COLLECT_ALL, /* of all extents */
	STEP_COLLECT_EXTENT,
	STEP_COLLECT_OLD, /* of the old plane, all extents */
	STEP_COLLECT_BOTH, /* of both planes, armed extents */
	STEP_PUBLISH, /* what was collected, as committed */
	STEP_PUBLISH_SET, /* what is set now */
	STEP_PUBLISH_ARMED,
	STEP_CLOSE_GATE,
	STEP_DRAIN,
	STEP_LABEL, /* the other slot, with the next era */
	STEP_REPLACE, /* the plane */
	STEP_OPEN_GATE,
	STEP_FREE, /* the old plane and its slot */
	STEP_FSYNC, /* the image */
	STEP_ANSWER, /* of a checkpoint */
	STEP_ASK,
	STEP_SNAPSHOT, /* of the reader, which counts its intents if the daemon could not settle */
	STEP_FORGET_SLOTS,
	STEP_START, /* what is recovered serves writers */
	/* Transactions with an fsync; power loss takes back none that has returned */
	STEP_COMMIT_ARM,
	STEP_COMMIT_EXACT,
	STEP_COMMIT_SWITCH, /* the new era, and intents in it for the hot extents */
	STEP_COMMIT_DURABLE, /* durable_era: from now on the era may be seen */
	STEP_COMMIT_RECOVERY,
	STEP_COMMIT_RECOVERY_REMOVAL, /* of the intents that a slot replaces, without its bits */
	/* Transactions without one */
	STEP_COMMIT_MARKS, /* what was collected */
	STEP_COMMIT_DROP, /* and the intent's removal */
	STEP_COMMIT_REMOVAL, /* the intent's removal alone */
	STEP_COMMIT_OLD_REMOVAL, /* of all intents of the old plane */
	NR_STEPS
};

enum procedure {
	PROC_NONE,
	PROC_WRITE,
	PROC_ARM,
	PROC_EXACT,
	PROC_SWEEP,
	PROC_DROP,
	PROC_CHECKPOINT,
	PROC_QUERY,
	PROC_RECOVER,
	NR_PROCS
};

/* Faults that are no other order of steps. */
enum fault {
	FAULT_FAILED_PUBLISHES = 1, /* a lazy commit that failed for space */
	FAULT_FAILED_STAYS_CLEAR = 2, /* armed, after a drop that failed */
	FAULT_DROP_ALL_ERAS = 4, /* a drop removes the extent's intents of every era */
	FAULT_SWITCH_DROPS = 8, /* the switch's commit removes the intents of the era that ends */
	FAULT_SWITCH_KEEPS_COMMITTED = 16, /* the new plane starts with the old one's committed */
	FAULT_HOT_WITHOUT_INTENTS = 32, /* the new plane is armed, but the switch's commit has no intents for it */
	FAULT_SLOT_NOT_CLEARED = 64, /* a slot that is used again keeps its bits */
	FAULT_ARMED_NEEDS_NOTHING = 128, /* the committer passes over who waits where it is armed by now */
	FAULT_RECOVER_NO_SLOT = 256, /* recovery removes intents that no slot replaces */
	FAULT_RECOVER_NEWEST_SLOT = 512, /* it takes the newest slot for the current era, whatever its label */
	FAULT_RECOVER_ANY_SLOT = 1024, /* it takes all bits for the current era's */
	FAULT_RECOVER_WHOLE = 2048, /* it turns an intent without a slot into marks */
	FAULT_IGNORE_BLUR = 4096, /* a live answer ignores the intents of earlier sessions too */
};

struct variant {
	const char *name;
	const char *world; /* where it shows; NULL: it is explored in all */
	const char *breaks; /* the property; NULL: none, the variant is safe */
	bool inexact; /* it also reports too much, and sooner: that is passed over */
	unsigned int faults;
	enum step lazy; /* a commit that lacks its fsync */
	const enum step *procs[NR_PROCS]; /* NULL: the right one */
};

#define STEPS(...)                                                                                                     \
	(const enum step[])                                                                                            \
	{                                                                                                              \
		__VA_ARGS__, STEP_END                                                                                  \
	}

extern const char P_POWER[], P_BARRIER[], P_KILL[], P_QUERY[], P_ANSWERED[], P_DIGEST[], P_EXACT[], P_LABEL[],
	P_STUCK[];

#define NR_BLOCKS 3 /* 0 and 1 are extent 0, 2 is extent 1 */
#define NR_EXTENTS 2
#define NR_WRITERS 2
#define NR_ERAS 6 /* 1 to 5 */

/* Writes, sections and queries are without bound; these are not, or there would be no end of eras. */
struct world {
	const char *name;
	uint8_t blocks[NR_WRITERS]; /* which each may write, a set */
	uint8_t checkpoints;
	uint8_t crashes;
	bool late; /* the second crash, and a checkpoint, may come in the run after the first recovery as well */
	bool cold; /* a checkpoint may find nothing hot */
	bool exact; /* the intents' budget may be exhausted */
	bool query;
};

/* What a run must have seen, or it proves little. */
enum sight {
	SIGHT_RECHECKED = 1, /* armed at the first look and not at the second */
	SIGHT_FAST = 2, /* a write passes on a mark that power loss may still take back */
	SIGHT_UNSETTLED = 4, /* a write in the new era while the old plane is not settled */
	SIGHT_TWO_SLOTS = 8, /* recovery after kill -9 with both slots in use */
	SIGHT_BLUR = 16, /* a run after a power loss, with intents of the era before */
	SIGHT_TWICE = 32, /* a crash in a recovery */
	SIGHT_CUT = 64, /* power loss takes a transaction back */
	SIGHT_FAILED = 128, /* no space for a lazy commit */
	SIGHT_OLD_QUERY = 256, /* a live answer settles the old plane */
	SIGHT_EXACT = 512, /* marks instead of an intent */
};

/* Explores variant in world; *ret_seen gets the sights. */
struct explore_result intents_explore(
	const struct world *world, const struct variant *variant, unsigned int *ret_seen, FILE *trace);

#endif
