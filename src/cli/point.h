/* SPDX-License-Identifier: MIT */
/*
 * point - one point in time for several images, and for the file systems on them: what checkpoint and freeze share.
 *
 * The order, for which doc/era-cli.8.scd gives the reasons: targets and their state; the copy's new file; the freeze's
 * preparations; FIFREEZE; the flush of the mounted files, which are not touched again; gates; the request; FITHAW.
 */
#ifndef CLI_POINT_H
#define CLI_POINT_H

#include "fsguard.h"
#include "group.h"
#include "out.h"

#include <getopt.h>

/* Options of both commands; the values follow those of the command's own options. */
#define POINT_CLONE 512
#define POINT_FSFREEZE 513
/* clang-format off */
#define POINT_OPTIONS                                                                                                  \
	{ "clone", required_argument, NULL, POINT_CLONE },                                                             \
	{ "fsfreeze", required_argument, NULL, POINT_FSFREEZE }
/* clang-format on */

struct point {
	struct group group;
	const char *clone_file; /* --clone; NULL: none */
	const char **dirs; /* --fsfreeze, as given */
	unsigned int nr_dirs;
	struct out clone; /* clone_file's new content, until point_keep_clone() */
	struct fsguard *fsguard; /* NULL: no --fsfreeze */
};

/* Takes option c (POINT_CLONE or POINT_FSFREEZE) with its argument, which is borrowed. */
int point_set(struct point *point, int c, const char *argument, struct err *err);

/* The part of a freeze that may be long, before anything is held up: "freeze-prepare"; a checkpoint has none. */
enum point_kind { POINT_OF_CHECKPOINT, POINT_OF_FREEZE };

/* All up to the answers to request (taken over), whose eras are in the group. nr_names 0: the target that goes without
 * saying. Whatever it returns, point_thaw() is due, or fsguard_leave(). */
int point_take(struct point *point, enum point_kind kind, const char *const *names, unsigned int nr_names,
	json_t *request, struct err *err);

/* FITHAW, and waits for it. r is what the rest of the command came to: it is returned, and an error of the thaw is
 * logged; where r is 0, the thaw's outcome is. */
int point_thaw(struct point *point, int r, struct err *err);

/* Puts the copy in its place. 0 where there is none. */
int point_keep_clone(struct point *point, struct err *err);

void point_clear(struct point *point);

#endif
