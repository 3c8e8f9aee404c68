/* SPDX-License-Identifier: MIT */
/*
 * judge - one state that the machine may wake up in, recovered and held against what its history demands.
 *
 *     O1 it opens, and nothing is found in it: an unclean database is never refused;
 *     O2 `since N`, for each era N that was shown, has each block in which the woken image differs from any copy that may
 *        have been taken since then;
 *     O3 what an fsync (a checkpoint, a freeze, a stop) has answered for is there, unless it was overwritten;
 *     O4 it has nothing else: no block more than the writes that were not over when N was asked for, but for what write
 *        intents stand for, which is labelled;
 *     O5 no era is below one that was shown, each of them is still known, and so are labels and snapshots;
 *     O6 the recovery may itself lose its power, at any point, and be repeated.
 */
#ifndef TESTS_CRASH_JUDGE_H
#define TESTS_CRASH_JUDGE_H

#include "disk.h"
#include "life.h"
#include "truth.h"

/* A log, and how far it has been followed. */
struct history {
	const struct log *log;
	struct disk *disk;
	struct truth *truth;
	uint32_t at;
	uint64_t base; /* position of the log's first entry */
};

void history_begin(struct history *history, const struct log *log);
void history_advance(struct history *history, uint32_t to);
void history_end(struct history *history);

struct check {
	const struct scene *scene;
	enum crash_mode mode;
	bool looks_before; /* what an offline reader is told before recovery is checked too */
	bool cuts_recovery; /* O6 */
	uint64_t random; /* for O6 */
	char failure[1000]; /* "" when all is well */
};

/* The machine wakes up at history->at with these fates. True: all is well. */
bool check_state(struct check *check, const struct history *history, const struct fates *fates);

#endif
