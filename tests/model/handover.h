/* SPDX-License-Identifier: MIT */
/*
 * handover - a model of freeze, thaw, deadline, takeover and fence (see handover.c), explored whole by test_handover.c.
 * Its parts: instance.c the program of an instance, handover.c the properties, explore.c the search.
 */
#ifndef TESTS_MODEL_HANDOVER_H
#define TESTS_MODEL_HANDOVER_H

#include "explore.h"

#include <stdbool.h>
#include <stdint.h>

enum { A, B, C, NR_INSTANCES };
enum { ORIGINAL, COPY, NR_DATABASES };

/* What an instance does under its switch lock, one step at a time; a kill may come before each. What no other process can
 * see (the fsync of the image, the close of the connection) is no step of its own: a kill there is one beside it. */
enum step {
	STEP_END,
	STEP_TAKE_IMAGE,
	STEP_TAKE_DATABASE,
	STEP_READ, /* the superblock */
	STEP_COMPARE, /* it with what the freeze left */
	STEP_COMPARE_GENERATION, /* and state, but neither nonce nor counter */
	STEP_COMPARE_IMAGE, /* with the one at the freeze */
	STEP_CHECK_OWNER, /* may these metadata be opened? */
	STEP_CHECK_BINDING, /* is the image the one that they know? */
	STEP_COMMIT_SESSION, /* opened */
	STEP_COMMIT_SAME_GENERATION, /* opened, and a takeover does not show in the generation */
	STEP_COMMIT_OPEN, /* thawed, or the freeze has failed */
	STEP_COMMIT_FROZEN,
	STEP_COMMIT_CLEAN,
	STEP_START_DIGEST,
	STEP_JOIN_DIGEST,
	STEP_OPEN_GATE, /* and, of a thaw, answer */
	STEP_CLOSE_GATE,
	STEP_DRAIN,
	STEP_TRUNCATE, /* the WAL */
	STEP_DROP_DATABASE,
	STEP_DROP_IMAGE,
	STEP_ANSWER, /* of a freeze */
	STEP_EXIT,
};

enum procedure {
	PROC_NONE,
	PROC_OPEN,
	PROC_FREEZE,
	PROC_UNFREEZE, /* of a freeze that could not truncate the WAL */
	PROC_THAW,
	PROC_STOP,
	PROC_STOP_FROZEN,
	PROC_STOP_FENCED,
	NR_PROCS
};

/* Faults that are no other order of steps. */
enum fault {
	FAULT_DEADLINE_UNLOCKED = 1, /* the deadline's thread thaws without the switch lock */
	FAULT_ANY_ERA = 2, /* `thaw --era N` thaws whatever freeze there is */
	FAULT_BUSY_KEEPS_IMAGE = 4, /* who finds the database locked leaves the image locked */
	FAULT_FENCED_WAITS = 8, /* the writers that wait are not told of the fence */
	FAULT_NO_POLL = 16, /* nobody looks at the generation */
	FAULT_REFUSED_WAITS = 32, /* a thaw that finds the image changed stays frozen */
};

struct variant {
	const char *name;
	const char *world; /* where it shows; NULL: it is explored in all */
	const char *breaks; /* the property; NULL: none, the variant is safe */
	unsigned int faults;
	const enum step *procs[NR_PROCS]; /* NULL: the right one */
};

#define STEPS(...)                                                                                                     \
	(const enum step[])                                                                                            \
	{                                                                                                              \
		__VA_ARGS__, STEP_END                                                                                  \
	}

extern const char P_LOCKS[], P_MARKS[], P_FENCED[], P_ANSWER[], P_STILL[], P_LEAK[], P_STUCK[];

/* Who takes part, and how much each may do; without bounds there would be no end of states. */
struct world {
	const char *name;
	uint8_t database[NR_INSTANCES];
	uint8_t writes[NR_INSTANCES];
	uint8_t digests[NR_INSTANCES]; /* steps of the digest */
	uint8_t freezes[NR_INSTANCES]; /* tries, at most MAX_FREEZES */
	uint8_t lives[NR_INSTANCES]; /* how often it may be opened; A runs at first */
};

#define MAX_FREEZES 2

/* What a run must have seen, or it proves little. */
enum sight {
	SIGHT_TAKEN_OVER = 1, /* another writes while A lives */
	SIGHT_FENCED = 2,
	SIGHT_REFUSED = 4, /* A has found the image changed */
	SIGHT_THAWED = 8, /* A writes again, and the copy lives */
	SIGHT_INHERITED = 16, /* another runs on what a dead owner froze */
	SIGHT_SECOND_FREEZE = 32,
};

/* Explores variant in world; *ret_seen gets the sights. */
struct explore_result handover_explore(
	const struct world *world, const struct variant *variant, unsigned int *ret_seen, FILE *trace);

#endif
