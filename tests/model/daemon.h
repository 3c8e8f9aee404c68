/* SPDX-License-Identifier: MIT */
/*
 * daemon - the program of committer, background, checkpoint, queries and recovery, one step at a time; that of the
 * writers (writer.c), and what crashes leave of it (crash.c). See intents.c for what it models.
 */
#ifndef TESTS_MODEL_DAEMON_H
#define TESTS_MODEL_DAEMON_H

#include "intents.h"

enum { NOW, OLD, NR_PLANES }; /* the current era's, and the one before it until it is settled */
enum { COMMITTER, BACKGROUND, SWITCHER, QUERIER, NR_THREADS };
enum { IDLE, PARKED, ACTIVE };

/* The database. Sets are of blocks or of extents; an era is an index. */
struct base {
	uint8_t marks[NR_ERAS], intents[NR_ERAS];
	uint8_t current, durable_era, first /* era of its own intents */;
};

/* Bytes only: see explore_model. */
struct state {
	struct base db; /* as a reader or a new process sees it */
	struct base
		durable; /* as power loss leaves it: a transaction without an fsync has reached the disk or has not */
	struct slot {
		uint8_t label /* era, 0: free */, set;
	} slots[NR_PLANES]; /* shared memory */
	struct plane {
		uint8_t committed, armed;
	} planes[NR_PLANES];
	uint8_t gate /* is open */, mutex /* thread + 1 */;
	struct writer {
		uint8_t state, at, block, plane, inside;
	} writers[NR_WRITERS];
	struct thread {
		uint8_t proc, at, arg /* extent; hot extents; a query: could not settle */, bits[NR_PLANES];
	} threads[NR_THREADS];
	uint8_t checkpoints, crashes; /* left */
	/* The rest is the model's knowledge, not the daemon's. */
	uint8_t wrote[NR_BLOCKS]; /* the current era when it was last written, 0: never */
	uint8_t unsynced; /* blocks whose last writes power loss may take back */
	uint8_t asked[NR_BLOCKS]; /* wrote, when the query was asked */
	uint8_t touched[NR_ERAS]; /* blocks that may be in the answer */
	uint8_t shown; /* the newest era that anybody may have seen */
	uint8_t answered; /* the newest that the daemon has told */
	uint8_t lost; /* the slots, by a power loss */
	uint8_t broken; /* a live answer was short */
};

struct run {
	const struct world *world;
	const struct variant *variant;
	unsigned int seen;
};

enum action {
	DO_WRITER, /* one for each writer */
	BEGIN_WRITE = DO_WRITER + NR_WRITERS, /* one for each writer and block */
	DO_THREAD = BEGIN_WRITE + NR_WRITERS * NR_BLOCKS, /* one for each thread, as the following two */
	DO_BEHIND = DO_THREAD + NR_THREADS, /* a commit that has not reached the disk */
	DO_FAIL = DO_BEHIND + NR_THREADS, /* a lazy commit finds no space */
	BEGIN_ARM = DO_FAIL + NR_THREADS, /* one for each extent */
	BEGIN_DROP = BEGIN_ARM + NR_EXTENTS,
	BEGIN_EXACT = BEGIN_DROP + NR_EXTENTS,
	BEGIN_SWEEP,
	BEGIN_CHECKPOINT, /* all that is armed is hot */
	BEGIN_COLD_CHECKPOINT, /* nothing is */
	BEGIN_QUERY,
	DO_KILL,
	DO_TORN_KILL, /* in a FULL commit, between its write and its fsync */
	DO_POWER_LOSS,
	NR_ACTIONS
};

/* The right protocol: the steps of each procedure. In intents.c. */
extern const enum step *const intents_right[NR_PROCS];

/* One step; false: it is not possible now. */
bool daemon_act(struct run *run, struct state *s, unsigned int action);

enum step daemon_next_step(const struct run *run, unsigned int proc, unsigned int at);

/* The writers (writer.c): the next step of one; a new write, number is writer * NR_BLOCKS + block. */
bool writers_go_on(struct run *run, struct state *s, unsigned int number);
bool writers_begin(struct run *run, struct state *s, unsigned int number);
void writers_wake(struct state *s);
/* One is parked in extent. */
bool writers_wait(const struct state *s, unsigned int extent);
/* The gate is not empty. */
bool writers_are_inside(const struct state *s);

static inline uint8_t bit_of(unsigned int number)
{
	return (uint8_t)(1u << number);
}

uint8_t blocks_of(uint8_t extents);
/* What is in since(era) by marks and intents. */
uint8_t base_since(const struct base *base, unsigned int era);
/* The database after the step's transaction. */
struct base base_after(const struct run *run, const struct state *s, const struct thread *thread, enum step step);
struct base base_recovered(const struct run *run, const struct base *base, const struct slot *slots);
/* behind: it has not reached the disk. */
void crash_commit(
	const struct run *run, struct state *s, const struct thread *thread, enum step step, bool full, bool behind);
/* What can no more make a difference is forgotten, so that states meet. */
void crash_forget(struct state *s);
bool crash_act(struct run *run, struct state *s, unsigned int action);

#endif
