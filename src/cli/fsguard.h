/* SPDX-License-Identifier: MIT */
/*
 * fsguard - freezes file systems (--fsfreeze) through a process that thaws them whatever becomes of this one.
 *
 * The guard is a child in a session of its own that no signal of a terminal reaches, and that holds nothing but the
 * folders and a socket to this process. It is asked one thing at a time:
 *
 *     freeze FOLDER         FIFREEZE; so it knows what it froze, however this process ends
 *     era INSTANCE ERA      a freeze of INSTANCE ended ERA: when another freeze holds it, the wait is over
 *     thaw                  waits until no instance is frozen, as FITHAW writes and may wait in the closed gate; then
 *                           FITHAW in reverse order; answers, and ends
 *
 * The end of the connection is a "thaw" whose answer nobody reads. Should the guard be killed, this process thaws.
 */
#ifndef CLI_FSGUARD_H
#define CLI_FSGUARD_H

#include "fsdir.h"
#include "group.h"

struct fsguard;

/* Opens and checks the folders: see fsdir_open() and fsdir_check_instance(); the same file system twice is -EINVAL
 * with exit ERR_EXIT_USAGE. Freezes nothing. group and names are borrowed. */
int fsguard_new(const char *const *names, unsigned int nr_names, const struct group *group,
	struct fsguard **ret_fsguard, struct err *err);

/* Ends the connection, no more: what is still frozen is thawed by the guard when the instances are thawed. NULL is
 * fine. */
void fsguard_free(struct fsguard *fsguard);

/* Whether the folder that holds path is on one of the file systems. */
bool fsguard_holds(const struct fsguard *fsguard, const char *path);

/* Starts the guard and freezes, in order. After an error fsguard_thaw() is due as well. */
int fsguard_freeze(struct fsguard *fsguard, struct err *err);

/* Tells the guard the eras of the group's freeze. 0: it is there, and will thaw without this process. */
int fsguard_leave(struct fsguard *fsguard, struct err *err);

/* Thaws what is frozen, and waits for that. 0, also when nothing was frozen. */
int fsguard_thaw(struct fsguard *fsguard, struct err *err);

#endif
