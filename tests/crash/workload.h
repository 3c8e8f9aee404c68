/* SPDX-License-Identifier: MIT */
/*
 * workload - what is done to an image: a list of steps, made up from a seed or read from a case file.
 *
 * A case file has a step a line, its name and its numbers, in bytes, blocks or as the table in workload.c says; besides
 * `image BYTES` (its size at first), `mode NAME`, `settle 1` (steps wait for the digest, so that two runs are alike),
 * `states N` and `seed N`. "#" begins a comment.
 */
#ifndef TESTS_CRASH_WORKLOAD_H
#define TESTS_CRASH_WORKLOAD_H

#include "core/era.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* How marks are made: workload_config(). */
enum crash_mode {
	MODE_MARKS, /* each first write waits for its own commit */
	MODE_INTENTS, /* for an intent, or, as there is little room for these, for its own commit */
	NR_CRASH_MODES,
};

enum step_kind {
	STEP_WRITE, /* offset, len, seed */
	STEP_ZERO, /* offset, len */
	STEP_PUNCH, /* offset, len */
	STEP_COPY, /* from, to, len */
	STEP_FSYNC,
	STEP_CHECKPOINT, /* label, 0: none */
	STEP_LABEL, /* label */
	STEP_UNLABEL, /* label */
	STEP_BURST, /* number, seed: writes at the same time */
	STEP_OVERTAKE, /* block, seed: a second write to it while the first one's commit is on its way to the disk */
	STEP_CARRY, /* number, seed: writes that wait while a checkpoint has closed the gate */
	STEP_HOLD, /* block, seed: a write that is inside the gate when a checkpoint begins */
	STEP_FREEZE,
	STEP_WAITING, /* offset, len, seed: a write that waits for the thaw */
	STEP_THAW,
	STEP_TAKEOVER, /* a second instance goes on where the first one is frozen */
	STEP_SNAPSHOT,
	STEP_FAIL, /* 0 or 1: the next fsync of the image or of the -wal fails */
	STEP_STOP, /* in order */
	STEP_KILL, /* entries: kill -9 when the log has so many more; the steps go on in the next life */
	STEP_KILL_OPENING, /* entries: the same, beginning with the next open */
	STEP_POWER_CUT, /* seed: of what the machine wakes up with, to go on from there */
	STEP_RESIZE, /* bytes: from outside, after a stop; the next open is with -o resize */
	NR_STEP_KINDS,
};

struct step {
	enum step_kind kind;
	uint64_t args[3];
};

#define WORKLOAD_STEPS_MAX 1000

struct workload {
	uint64_t seed;
	uint64_t image_size;
	enum crash_mode mode;
	bool settles;
	unsigned int nr_states; /* of a case; 0: as the caller likes */
	unsigned int nr;
	struct step steps[WORKLOAD_STEPS_MAX];
};

void workload_make(uint64_t seed, enum crash_mode mode, struct workload *ret_workload);

/* False with a message on stderr. */
bool workload_read(const char *path, struct workload *ret_workload);
void workload_write(const struct workload *workload, FILE *file);

const char *mode_name(enum crash_mode mode);
const char *label_name(uint64_t label); /* 1..4 */

/* An instance in that mode. The paths are the caller's. */
struct era_config workload_config(enum crash_mode mode);

#endif
