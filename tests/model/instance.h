/* SPDX-License-Identifier: MIT */
/*
 * instance - the program that every instance runs, one step at a time. See handover.c for what it models.
 */
#ifndef TESTS_MODEL_INSTANCE_H
#define TESTS_MODEL_INSTANCE_H

#include "handover.h"

enum { NO_DATABASE, OPEN, FROZEN_STATE, CLEAN };
enum { OFF, RUNNING, FROZEN, FENCED, FAILED, DYING /* killed, the image's lock is dropped, the others are not */ };
enum { IDLE, WAITING, INSIDE, MARKED };
enum { CLIENT, DEADLINE, NR_THREADS };
enum { TOOK_IMAGE = 1, TOOK_DATABASE = 2 };

struct super {
	uint8_t state, generation, counter, nonce;
};

/* Bytes only: see explore_model. Locks hold an instance's number + 1. */
struct state {
	uint8_t image, image_lock;
	uint8_t broken; /* index into broken_names */
	struct database {
		struct super super;
		uint8_t lock, marks, bound /* image at rest */, wal /* has content */;
	} databases[NR_DATABASES];
	struct instance {
		uint8_t state, gate /* is open */, writer, digest /* runs */;
		uint8_t writes, digests, freezes, lives; /* left */
		uint8_t sessions; /* begun; names the nonce */
		struct super view; /* what it believes of its database */
		struct super frozen; /* what its freeze left */
		uint8_t frozen_image, frozen_era;
		uint8_t held; /* its freeze that nobody has disturbed, 0: none; the model's knowledge, not the instance's */
		struct thread {
			uint8_t proc, at, took, want /* era of a thaw, 1: takeover of an open */;
		} threads[NR_THREADS];
	} instances[NR_INSTANCES];
};

struct run {
	const struct world *world;
	const struct variant *variant;
	unsigned int seen;
};

enum { BROKE_LOCKS = 1, BROKE_MARKS, BROKE_FENCED, BROKE_ANSWER };

enum action {
	DO_WRITE, /* the writer's next step */
	DO_DIGEST,
	DO_CLIENT, /* the next step of what a thread is at */
	DO_DEADLINE,
	DO_READER, /* a reader's snapshot is in the way of the freeze's truncate */
	BEGIN_FREEZE,
	BEGIN_THAW_1, /* `thaw --era` of the first freeze, by the client that asked for it */
	BEGIN_THAW_2,
	BEGIN_DEADLINE,
	BEGIN_STOP,
	BEGIN_OPEN,
	BEGIN_TAKEOVER,
	DO_POLL,
	DO_COPY, /* somebody copies the database file of the frozen owner */
	DO_KILL, /* or the end of one that was killed */
	NR_ACTIONS
};

/* The right protocol: the steps of each procedure. In handover.c. */
extern const enum step *const handover_right[NR_PROCS];

/* One step of instance i; false: it is not possible now. */
bool instance_act(const struct run *run, struct state *s, int i, enum action action);

uint8_t instance_nonce(const struct state *s, int i);
bool instance_is_idle(const struct instance *me);
enum step instance_next_step(const struct run *run, const struct thread *thread);

#endif
